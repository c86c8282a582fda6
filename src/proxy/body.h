/*
 * Request bodies in memory: all of them together stay under --max-buffered-bytes.
 *
 * Past the soft limit a connection is not read any more, except for one at a time (the finisher),
 * which may go on: so the bodies held always come to an end, even if no answer frees memory. The
 * soft limit leaves room for that one. Whoever is to read on reserves what one read may bring, so
 * that many connections that read at one time do not pass the limit together. Not covered: what
 * comes in one read with a request's head.
 *
 * Threads: any; the counters are atomic.
 */
#ifndef HASHTRIE_PROXY_BODY_H
#define HASHTRIE_PROXY_BODY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bodies {
    uint64_t bytes_soft;
    _Atomic uint64_t bytes_used;
    _Atomic(const void *) finisher; /* Whoever may pass the soft limit. */
    atomic_bool waiting;            /* Somebody is not read: tell when memory is freed. */
};

void bodies_init(struct bodies *bodies, uint64_t bytes_max, uint64_t body_bytes_max);
/* Bytes of a body have come, or are reserved. */
void bodies_add(struct bodies *bodies, uint64_t bytes);
/* May `owner` read on? False: it has to wait until memory is freed. */
bool bodies_may_read(struct bodies *bodies, const void *owner);
/* Gives a part back, a reservation. True: wake those that wait. */
bool bodies_give_back(struct bodies *bodies, uint64_t bytes);
/* `owner` alone is read, past the soft limit, and others wait for that to end. */
bool bodies_is_awaited(struct bodies *bodies, const void *owner);
/* `owner` frees `bytes` and is the finisher no longer. True: wake those that wait. */
bool bodies_free(struct bodies *bodies, const void *owner, uint64_t bytes);

#endif
