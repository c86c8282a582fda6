/*
 * Counters of one worker. Only its own thread writes them; the scrape reads those of all workers
 * and adds them up.
 */
#ifndef HASHTRIE_PROXY_STATS_H
#define HASHTRIE_PROXY_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "metrics/metrics.h"
#include "net/net.h"
#include "route/route.h"

/* The `error_type` label of vllm:request_errors_total. */
enum stats_error {
    STATS_CONNECT_REFUSED,
    STATS_CONNECT_TIMEOUT,
    STATS_CONNECT_FAILED,
    STATS_DISCONNECTED, /* Closed or reset before the answer's end. */
    STATS_BAD_ANSWER,   /* Not HTTP. */
    STATS_FIRST_BYTE_TIMEOUT,
    STATS_IDLE_TIMEOUT,
    STATS_SEND_TIMEOUT,
    STATS_BAD_STATUS, /* 502, 503, 504. */
    STATS_ERROR_COUNT
};
const char *stats_error_name(enum stats_error error);

/* Why a request was answered here: the `reason` label of hashtrie_refused_requests_total. */
enum stats_refusal {
    STATS_QUEUE_FULL,
    STATS_CLIENT_QUEUE_FULL,
    STATS_QUEUE_TIMEOUT,
    STATS_SLOW_HEAD,
    STATS_SLOW_BODY,
    STATS_HEAD_TOO_LARGE,
    STATS_URL_TOO_LONG,
    STATS_BODY_TOO_LARGE,
    STATS_MALFORMED,
    STATS_REFUSAL_COUNT
};
const char *stats_refusal_name(enum stats_refusal refusal);

/* Of a backend and one of its models: see backends.h. */
struct stats_series {
    struct metrics_histogram success; /* Seconds from the request's head to the answer's end. */
    struct metrics_histogram error;
    struct metrics_histogram first_token;    /* Of streams: from the request's head to it. */
    struct metrics_histogram between_tokens; /* Of streams: from one event to the next. */
    _Atomic uint64_t errors[STATS_ERROR_COUNT];
    _Atomic uint64_t outcomes[ROUTE_OUTCOME_COUNT];
    _Atomic uint64_t prompt_tokens; /* As answers tell in their usage. */
    _Atomic uint64_t completion_tokens;
    _Atomic uint64_t told_tokens; /* Of prompts whose answer tells how many were cached, ... */
    _Atomic uint64_t told_cached_tokens;
    _Atomic uint64_t predicted_cached_tokens; /* ... and how many the router thought so. */
};

struct stats {
    struct mem *mem;            /* Borrowed: the worker's. */
    _Atomic uint64_t *incoming; /* Owned. Per model of the fleet; the last counts unknown ones. */
    _Atomic uint64_t outcomes[ROUTE_POLICY_COUNT][ROUTE_OUTCOME_COUNT];
    _Atomic uint64_t decode_outcomes[ROUTE_OUTCOME_COUNT]; /* Of disaggregated requests. */
    _Atomic uint64_t prefills_unused; /* Prefilled, but where the KV cache is was not said. */
    _Atomic uint64_t prompt_bytes;
    _Atomic uint64_t matched_bytes;
    _Atomic uint64_t reload_timeouts;
    _Atomic uint64_t retries;
    _Atomic uint64_t resends;
    _Atomic uint64_t retries_denied; /* By the retry budget. */
    _Atomic uint64_t unauthorized;   /* Requests without a key that is known. */
    _Atomic uint64_t cancelled;      /* Requests whose client went away. */
    _Atomic uint64_t stalled_clients;
    _Atomic uint64_t connections;
    _Atomic uint64_t refusals[STATS_REFUSAL_COUNT];
    _Atomic uint64_t connections_refused;         /* Too many in all, ... */
    _Atomic uint64_t address_connections_refused; /* ... of one address. */
    _Atomic uint64_t accept_pauses;               /* For want of descriptors or memory. */
    struct metrics_histogram queue_seconds;
    struct metrics_histogram route_seconds;
};

enum { STATS_MODEL_UNKNOWN = ROUTE_MODELS_MAX };

bool stats_init(struct stats *stats, struct mem *mem);
void stats_fini(struct stats *stats);
void stats_series_init(struct stats_series *series);

/* Only the worker's thread: no other writes, so a load and a store are enough. */
static inline void stats_add(_Atomic uint64_t *counter, uint64_t amount)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + amount, memory_order_relaxed);
}

static inline uint64_t stats_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

enum stats_error stats_error_of(enum net_status status, bool connecting);

#endif
