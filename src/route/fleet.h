/* What the room's files share: endpoints, the models they serve, and their load. Private to the
 * room. */
#ifndef HASHTRIE_ROUTE_FLEET_H
#define HASHTRIE_ROUTE_FLEET_H

#include <stdatomic.h>

#include "base/check.h"
#include "route/route.h"

#define FLEET_DOWN UINT64_MAX

struct route_numbers {
    uint32_t *numbers; /* Owned. */
    size_t count;
    size_t capacity;
};

enum fleet_state {
    FLEET_FINE,
    FLEET_EJECTED,
    FLEET_HALF_OPEN, /* Its pause is over: the next request is the probe. */
    FLEET_PROBED,    /* The probe is under way. */
};

struct route_endpoint {
    struct route_load load;
    struct route_numbers models; /* Those it serves; few. */
    bool used;                   /* Its number is taken. */
    bool up;
    bool asleep;
    unsigned roles;
    enum fleet_state state;
    uint32_t failure_count;  /* In a row. */
    uint32_t ejection_count; /* Pauses in a row. */
    uint64_t retry_ns;       /* End of the pause. */
    uint32_t warmth;         /* Of ROUTE_WARM_STEPS. */
    uint64_t warmer_ns;      /* When it gets the next step. */
    uint64_t sent_bytes;     /* Uncached ones, ever. */
    double ns_per_byte;      /* Prefill time learned; 0: nothing yet. */
};

struct route_model {
    char *name;                     /* Owned; set before the model is counted. */
    struct route_numbers endpoints; /* Those that serve it. */
    atomic_bool served;             /* There are some. */
    size_t rotation;
};

/* A place on the ring: the upper half of an MD5 (in the lower ones a tie is never seen). */
struct ring_point {
    uint64_t at;
    uint32_t endpoint;
};

struct ring {
    struct ring_point *points; /* Owned; ascending. */
    size_t count;
};

/*
 * load_cost[e] = queued(e) + active(e) / 10 + 500 tokens x in_flight(e), more while it warms up, or
 * FLEET_DOWN for one that is down, ejected or at its limit: in an array of its own, so that the
 * search for the least loaded reads 8 bytes an endpoint (measured: 1.2 us for 1,000 candidates, 5
 * us for 4,000).
 */
struct route_fleet {
    struct mem *mem; /* Borrowed. */
    struct random random;
    struct route_endpoint *endpoints;
    uint64_t *load_cost;
    size_t endpoint_count;
    size_t endpoint_capacity;
    size_t free_count;          /* Of the endpoints: numbers not taken. */
    uint64_t sent_bytes;        /* Of the endpoints that are, all together. */
    struct route_model *models; /* ROUTE_MODELS_MAX of them: read without the lock, they stay. */
    atomic_size_t model_count;
    uint32_t in_flight_max;  /* At each endpoint; UINT32_MAX: any number. */
    uint32_t eject_failures; /* 0: nobody is ever ejected. */
    uint64_t eject_pause_ns;
    struct ring ring;
    uint64_t slow_start_ns;  /* 0: all are warm at once. */
    uint64_t next_change_ns; /* The first end of a pause or step of warmth; UINT64_MAX: none. */
};

/* Takes one more request. */
static inline bool fleet_has_room(const struct route_fleet *fleet, size_t endpoint)
{
    return fleet->endpoints[endpoint].load.in_flight < fleet->in_flight_max;
}

static inline bool fleet_is_present(const struct route_endpoint *at)
{
    return at->up && !at->asleep;
}

/* A candidate, but for its limit, without need. */
static inline bool fleet_is_open(const struct route_fleet *fleet, size_t endpoint)
{
    const struct route_endpoint *at = &fleet->endpoints[endpoint];
    return fleet_is_present(at) && (at->state == FLEET_FINE || at->state == FLEET_HALF_OPEN);
}

uint64_t fleet_load(const struct route_fleet *fleet, size_t endpoint);
/* Those whose pause is over become half open, others warmer. */
void fleet_catch_up(struct route_fleet *fleet, uint64_t now_ns);
bool fleet_serves(const struct route_fleet *fleet, size_t endpoint, size_t model);

/* ---- policy.c ---- */

/* Serves the model, has a role that is asked for, is up, below its limit and not excluded.
 * `desperate`: those ejected are candidates, too. */
bool fleet_is_candidate(const struct route_fleet *fleet, const struct route_query *query,
                        size_t endpoint, bool desperate);
/* What the endpoint holds of the prompt. */
uint64_t query_held_by(const struct route_query *query, size_t endpoint);
void query_choose(const struct route_query *query, size_t endpoint, enum route_outcome outcome,
                  struct route_choice *out);
bool pick_roundrobin(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                     struct route_choice *out);

/* ---- others.c, ring.c: false: no candidate ---- */

bool pick_leastload(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                    struct route_choice *out);
bool pick_loadaware(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                    struct route_choice *out);
bool pick_priority(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                   struct route_choice *out);
bool pick_session(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                  struct route_choice *out);
void ring_free(struct mem *mem, struct ring *ring);

#endif
