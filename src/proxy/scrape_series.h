/* What /metrics says per backend and model: errors, latencies, tokens, decisions. */
#ifndef HASHTRIE_PROXY_SCRAPE_SERIES_H
#define HASHTRIE_PROXY_SCRAPE_SERIES_H

#include "proxy/backends.h"

/* The backends are held. Any thread. */
void scrape_series(const struct router *router, struct backend *const *backends,
                   size_t backend_count, struct metrics_writer *writer);

#endif
