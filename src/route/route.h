/*
 * Which endpoint gets a request. Pure: time and randomness are passed in, nothing blocks, no I/O.
 *
 * A fleet knows the endpoints, the models they serve, and their load. `prefixaware` takes the
 * endpoint with the lowest
 *
 *     queued(e) + 3 x uncached(e) + active(e) / 10 + (500 tokens + prompt / 20) x in_flight(e)
 *
 * in bytes of prompt key, a token being 4. queued: uncached bytes sent to e that it has not
 * prefilled yet; uncached: what e would have to prefill of this request, at least one chunk;
 * in_flight: requests at e that have not ended; active: their prompts; prompt: this one. Of equal
 * ones that which was sent the fewest uncached bytes so far, then any. Why: README.md.
 *
 * Thread rule: the trie's lock covers the fleet, so that match, pick, insert and load are one step.
 */
#ifndef HASHTRIE_ROUTE_ROUTE_H
#define HASHTRIE_ROUTE_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/span.h"

enum {
    ROUTE_ENDPOINTS_MAX = 8192, /* Twice what is asked for, so that all can be replaced at once. */
    ROUTE_MODELS_MAX = 4096,
    ROUTE_HOLDERS_MAX = 64,
    ROUTE_BYTES_PER_TOKEN = 4,
    ROUTE_UNCACHED_FACTOR = 3,
    ROUTE_RECEIVED_FACTOR = 1, /* Of what is fetched from another endpoint, not computed. */
    ROUTE_IN_FLIGHT_TOKENS = 500,
    ROUTE_ACTIVE_PARTS = 10, /* One part of these counts. */
    ROUTE_PROMPT_PARTS = 20,
    ROUTE_EJECTION_DOUBLINGS = 3,
    ROUTE_WARM_STEPS = 10,
};

enum route_policy {
    ROUTE_PREFIXAWARE,
    ROUTE_ROUNDROBIN, /* The next one of those that serve the model. */
    ROUTE_SESSION,    /* The session's place on a hash ring; without a session the least loaded. */
    ROUTE_LEASTLOAD,  /* Fewest requests in flight. */
    ROUTE_LOADAWARE,  /* Highest share held - beta x (in flight - mean) / max(1, mean). */
    ROUTE_PRIORITY,   /* Urgent ones as leastload, others as roundrobin. */
    ROUTE_POLICY_COUNT
};

/* Why an endpoint was chosen: the `outcome` label of hashtrie_routing_decisions_total. */
enum route_outcome {
    ROUTE_HOLDER,       /* It holds the longest part of the prompt that any candidate holds. */
    ROUTE_SHORTER,      /* It holds a part; one that holds more was too busy. */
    ROUTE_SPREAD,       /* It holds nothing; all holders were too busy. */
    ROUTE_NO_HOLDER,    /* No candidate holds anything of the prompt: by load. */
    ROUTE_NO_PROMPT,    /* The request has no prompt: by load. */
    ROUTE_ROTATED,      /* roundrobin. */
    ROUTE_SESSION_KEPT, /* session: the place of its session. */
    ROUTE_BY_LOAD,      /* leastload, loadaware without a holder, priority. */
    ROUTE_PINNED,       /* The request names it. */
    ROUTE_OUTCOME_COUNT
};
const char *route_outcome_name(enum route_outcome outcome); /* "holder", "shorter", ... */
const char *route_policy_name(enum route_policy policy);    /* "prefixaware", "roundrobin", ... */

/* What endpoints are for. Bits: one may do several. */
enum route_role { ROUTE_PREFILL = 1, ROUTE_DECODE = 2, ROUTE_PLAIN = 4, ROUTE_ROLES_ALL = 7 };

struct route_fleet;

/* NULL: out of memory. */
struct route_fleet *route_fleet_new(struct mem *mem, uint64_t seed);
void route_fleet_free(struct route_fleet *fleet);

/* A new endpoint's number: the lowest that is free. It serves nothing yet. -1: no room. */
int route_endpoint_add(struct route_fleet *fleet);
/* Nothing is in flight there: its number is free for another. */
void route_endpoint_free(struct route_fleet *fleet, size_t endpoint);
/* The endpoint serves `model`. False: out of memory or of room. Told twice: fine. */
bool route_endpoint_serves(struct route_fleet *fleet, size_t endpoint, const char *model);
/* No longer; fine if it never did. One that serves nothing is no candidate for anything. */
void route_endpoint_serves_not(struct route_fleet *fleet, size_t endpoint, size_t model);
/* The i-th of the models it serves. -1: it serves fewer. */
int route_endpoint_model(const struct route_fleet *fleet, size_t endpoint, size_t i);
/* One that is down is no candidate. Endpoints start up. */
void route_endpoint_set_up(struct route_fleet *fleet, size_t endpoint, bool up);
bool route_endpoint_is_up(const struct route_fleet *fleet, size_t endpoint);
/* The same for one that sleeps, whatever its health. Endpoints start awake. */
void route_endpoint_set_asleep(struct route_fleet *fleet, size_t endpoint, bool asleep);
bool route_endpoint_is_asleep(const struct route_fleet *fleet, size_t endpoint);
/* Endpoints start with all roles. */
void route_endpoint_set_roles(struct route_fleet *fleet, size_t endpoint, unsigned roles);

/* ---- Ejecting failing endpoints ----
 *
 *     fine -- `failures` failures in a row --> ejected -- its pause is over --> half open
 *     half open: a candidate until one request is sent, which is the probe; answered -> fine,
 *     failed -> ejected for twice as long, at most 2^ROUTE_EJECTION_DOUBLINGS times the first
 * pause.
 *
 * One that is ejected is taken only where no other candidate is left.
 */

/* 0 failures: never, as at the start. */
void route_fleet_set_ejection(struct route_fleet *fleet, uint32_t failures, uint64_t pause_ns);
/* It refused, broke off or did not answer. Returns its pause if it is ejected now, else 0. */
uint64_t route_endpoint_failed(struct route_fleet *fleet, size_t endpoint, uint64_t now_ns);
/* It has answered. True: it had been ejected. */
bool route_endpoint_answered(struct route_fleet *fleet, size_t endpoint);
bool route_endpoint_is_ejected(const struct route_fleet *fleet, size_t endpoint);

/* ---- Slow start ----
 *
 * An engine that has just come pages in and compiles: while it warms up its load counts more, ten
 * times at first, so that it gets a share that grows. An idle one gets what it would get anyway.
 */

/* For how long; 0: not at all, as at the start. */
void route_fleet_set_slow_start(struct route_fleet *fleet, uint64_t slow_start_ns);
/* It is new, or back, among others that are warm. */
void route_endpoint_warm_up(struct route_fleet *fleet, size_t endpoint, uint64_t now_ns);

/* At most so many requests at each endpoint at a time; 0: any number, as at the start. One at its
 * limit is no candidate. */
void route_fleet_set_limit(struct route_fleet *fleet, uint32_t in_flight_max);

/*
 * The ring of `session`: that of uhashring's HashRing, which the Python router uses, so that
 * sessions keep their places. names[e] is endpoint e's URL, NULL: not on it. Replaces an earlier
 * ring. False: no memory, nothing has changed.
 */
bool route_fleet_set_ring(struct route_fleet *fleet, const char *const *names, size_t count);

bool route_serves(const struct route_fleet *fleet, size_t endpoint, size_t model);

/* ---- Models: numbered from 0 in order of addition, and never forgotten. These four need no lock.
 * ---- */

size_t route_model_count(const struct route_fleet *fleet);
const char *route_model_name(const struct route_fleet *fleet, size_t model);
/* One that nobody serves yet, as if somebody had served it before. Known already: fine. False: no
 * memory, or no room. */
bool route_model_know(struct route_fleet *fleet, const char *name, size_t name_size);
/* -1: nobody ever served it. */
int route_model_find(const struct route_fleet *fleet, const char *name, size_t name_size);
/* Somebody serves it now. */
bool route_model_is_served(const struct route_fleet *fleet, size_t model);

/* ---- One request ---- */

struct route_holder {
    uint32_t endpoint;
    uint64_t bytes; /* Of the prompt key, from its start, that it holds. */
};

struct route_query {
    enum route_policy policy;
    size_t model;
    unsigned roles; /* Candidates have one of these; 0: any. */
    bool received;  /* What the endpoint does not hold it fetches, and computes nothing. */
    bool has_prompt;
    uint64_t prompt_bytes;   /* Whole prompt key. */
    uint64_t all_held_bytes; /* Held by every endpoint. */
    const struct route_holder *holders;
    size_t holder_count;
    const uint32_t *excluded; /* Endpoints tried already. */
    size_t excluded_count;
    uint64_t chunk_bytes; /* The least that counts as uncached. */
    struct span session;  /* ROUTE_SESSION; data NULL: none. */
    bool urgent;          /* ROUTE_PRIORITY. */
    size_t pinned;        /* 1 + the only endpoint that may be taken; 0: any. */
    bool anyhow;          /* The one that is pinned, be it down, asleep or full. */
    double beta;          /* ROUTE_LOADAWARE. */
    uint64_t now_ns;      /* Monotonic. */
};

struct route_choice {
    size_t endpoint;
    uint64_t held_bytes;     /* Of the prompt, by the chosen one. */
    uint64_t uncached_bytes; /* What it has to prefill. */
    enum route_outcome outcome;
};

/* False: no endpoint that serves the model is up, below its limit and not excluded. One that is
 * ejected does not stand in for others that are only busy. Changes nothing but the rotation's
 * counter and whose pause is over. */
bool route_pick(struct route_fleet *fleet, const struct route_query *query,
                struct route_choice *out);
/* Is there one that serves the model, has one of the `roles` (0: any), is up and not excluded, be
 * it at its limit? After a pick that failed: it is worth waiting. */
bool route_has_other(const struct route_fleet *fleet, size_t model, unsigned roles,
                     const uint32_t *excluded, size_t excluded_count);
/* The same, and it is not ejected. */
bool route_has_sound_other(const struct route_fleet *fleet, size_t model, unsigned roles,
                           const uint32_t *excluded, size_t excluded_count);

/* ---- Load: each request at an endpoint calls sent, then prefilled at most once, then ended once
 * ---- */

void route_request_sent(struct route_fleet *fleet, size_t endpoint, uint64_t uncached_bytes,
                        uint64_t prompt_bytes);
/* Its first body byte has come back (or its time is up, see below): its bytes are no longer queued.
 */
void route_request_prefilled(struct route_fleet *fleet, size_t endpoint, uint64_t uncached_bytes);
void route_request_ended(struct route_fleet *fleet, size_t endpoint, uint64_t prompt_bytes);

/*
 * A stream's first body byte came `elapsed_ns` after it was sent, with `queued_bytes` (its own
 * included) before it at that time: teaches the endpoint's prefill rate.
 */
void route_learn_prefill(struct route_fleet *fleet, size_t endpoint, uint64_t queued_bytes,
                         uint64_t elapsed_ns);
/*
 * How long what is queued there now will take to prefill, by the rate learned; 0: unknown. A
 * request without streaming counts as prefilled after that time, since its first byte comes only
 * with its last.
 */
uint64_t route_prefill_ns(const struct route_fleet *fleet, size_t endpoint);

struct route_load {
    uint64_t queued_bytes;
    uint64_t active_bytes; /* Prompts of those in flight. */
    uint32_t in_flight;
    uint32_t in_prefill; /* Of in_flight, not yet prefilled. */
};
struct route_load route_endpoint_load(const struct route_fleet *fleet, size_t endpoint);

#endif
