/*
 * The retry budget: over the last seconds, tries at another engine are at most a share of the
 * requests, plus a small floor, so that retries cannot multiply an outage. Pure; one lock covers
 * it.
 */
#ifndef HASHTRIE_PROXY_BUDGET_H
#define HASHTRIE_PROXY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

enum {
    BUDGET_WINDOW_S = 10,
    BUDGET_FLOOR = 100, /* Retries in the window that are always granted: a few requests alone must
                           be able to fail over. */
};

/* Begins zeroed. */
struct budget {
    uint32_t requests[BUDGET_WINDOW_S]; /* Per second. */
    uint32_t retries[BUDGET_WINDOW_S];
    uint64_t last_s;
    uint64_t request_sum;
    uint64_t retry_sum;
};

/* `now_s`: of a clock that is not set back. */
void budget_add_request(struct budget *budget, uint64_t now_s);
/* True: a retry is granted, and counted. `share`: of the requests, 0.2 for a fifth. */
bool budget_take_retry(struct budget *budget, double share, uint64_t now_s);

#endif
