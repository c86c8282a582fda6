/*
 * The router of a simulation: the real trie, the real store if asked for, the real fleet, in the
 * order in which src/proxy/pick.c uses them. One thread; a reload is waited for, which takes no
 * virtual time.
 */
#ifndef HASHTRIE_BENCH_SIM_ROUTER_H
#define HASHTRIE_BENCH_SIM_ROUTER_H

#include "hashtrie/store.h"
#include "hashtrie/trie.h"

#include "bench/sim/policies.h"
#include "bench/sim/workload.h"

enum { SIM_CHUNK_BYTES = 128, SIM_CHUNKS_MAX = 1 << 16 };
#define SIM_BUDGET_UNBOUNDED ((size_t)8 << 30)
#define SIM_UNIX_S           UINT64_C(1700000000) /* Virtual time 0. */

struct sim_router_options {
    const struct sim_policy *policy;
    size_t engine_count;
    uint64_t seed;
    size_t budget_bytes;         /* Of the trie. */
    uint64_t capacity_bytes;     /* Of prompt that an engine's cache takes. */
    const char *store_directory; /* NULL: no store. */
    uint64_t store_bytes;
};

struct sim_router;

struct sim_router *sim_router_new(const struct sim_router_options *options);
void sim_router_free(struct sim_router *router); /* With a last checkpoint. NULL is fine. */

/* Of a request in flight. */
struct sim_route {
    size_t engine;
    uint64_t uncached_bytes;
    uint64_t held_bytes;
    uint64_t queued_bytes; /* There when it was sent, itself included. */
    uint64_t sent_ns;
};

/* What a policy that looks into the caches is told: block hashes of the prompt, and the engines. */
struct sim_prompt {
    const struct sim_workload *workload;
    const struct sim_request *request;
    const uint64_t *block_hashes;
    size_t block_count; /* Of the prompt alone. */
    struct sim_engine *const *engines;
};

/* False: no engine is up. */
bool sim_router_send(struct sim_router *router, const struct sim_prompt *prompt, uint64_t now_ns,
                     struct sim_route *out);
void sim_router_on_first(struct sim_router *router, const struct sim_route *route, uint64_t now_ns);
/* After on_first(), or without it where the request was lost. */
void sim_router_on_end(struct sim_router *router, const struct sim_request *request,
                       const struct sim_route *route, bool had_first);

void sim_router_set_up(struct sim_router *router, size_t engine, bool up);
/* The engine has restarted, for the `generation`-th time. */
void sim_router_on_restart(struct sim_router *router, size_t engine, unsigned generation);
/* Once a virtual second: what is new goes to the store. */
void sim_router_checkpoint(struct sim_router *router);

struct sim_router_state {
    struct hashtrie_stats trie;
    uint64_t store_bytes;
    uint64_t reload_found_count;
};
struct sim_router_state sim_router_state(struct sim_router *router);

#endif
