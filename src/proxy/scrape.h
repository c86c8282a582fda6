/* GET /metrics: the Python router's names where they apply, and the router's own. */
#ifndef HASHTRIE_PROXY_SCRAPE_H
#define HASHTRIE_PROXY_SCRAPE_H

#include "proxy/router.h"

/* Adds up all workers; `worker` is the one that asks. False: no room. */
bool scrape_write(struct worker *worker, struct buf *out);

#endif
