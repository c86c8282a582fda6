/* What the machine and this process take of it, as /metrics shows it. */
#ifndef HASHTRIE_PROXY_HOST_H
#define HASHTRIE_PROXY_HOST_H

#include <stdatomic.h>
#include <stdint.h>

#include "metrics/metrics.h"

/* CPU time of the whole machine when it was last read, in ticks. Any thread. */
struct host {
    _Atomic uint64_t busy;
    _Atomic uint64_t total;
};

void host_init(struct host *host);
/* Busy shares are those since the last scrape. What cannot be read has no sample. */
void host_scrape(struct host *host, struct metrics_writer *writer);

#endif
