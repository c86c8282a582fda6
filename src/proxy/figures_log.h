/* --log-stats: a line for each backend with its figures. */
#ifndef HASHTRIE_PROXY_FIGURES_LOG_H
#define HASHTRIE_PROXY_FIGURES_LOG_H

#include "proxy/router.h"

/* Once a second, from the first loop. */
void figures_log_sweep(struct router *router, uint64_t now_ns);

#endif
