/* Which engine gets a request: the rules of src/route, and those of the peers. */
#ifndef HASHTRIE_BENCH_SIM_POLICIES_H
#define HASHTRIE_BENCH_SIM_POLICIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random.h"
#include "bench/sim/engine.h"
#include "route/route.h"

enum { SIM_ENGINES_MAX = 1024 };

/* What a rule may look at. Arrays have an item per engine. */
struct sim_view {
    const struct route_query *query;
    struct route_fleet *fleet;
    size_t engine_count;
    const uint64_t *held_bytes;   /* Of the prompt, as far as the router knows. */
    const uint64_t *active_bytes; /* Prompts of requests in flight. */
    struct sim_engine *const *engines;
    uint64_t prefix_hash; /* Of the prompt's first 128 bytes. */
    struct random *random;
};

enum sim_knowledge {
    SIM_KNOWS_NOTHING, /* Of prompts. */
    SIM_KNOWS_TRIE,    /* Entries age by what has been sent to the engine since. */
    SIM_KNOWS_AGELESS, /* The same, but nothing is ever forgotten. */
    SIM_KNOWS_CACHES,  /* It looks into every engine's cache. */
};

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): a short table, in order of sense. */
struct sim_policy {
    const char *name;
    const char *about;
    enum sim_knowledge knows;
    size_t (*pick)(const struct sim_view *view); /* NULL: src/route picks. */
    enum route_policy route;
};

extern const struct sim_policy sim_policies[];
extern const size_t sim_policy_count;
const struct sim_policy *sim_policy_find(const char *name, size_t size); /* NULL: none. */

#endif
