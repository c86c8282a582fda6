/* One simulation: a workload, a router, engines, on virtual time. The same input gives the same
 * outcome. */
#ifndef HASHTRIE_BENCH_SIM_RUN_H
#define HASHTRIE_BENCH_SIM_RUN_H

#include "bench/sim/engine.h"
#include "bench/sim/router.h"
#include "bench/sim/workload.h"

/* Something that goes down and comes back empty. What was under way there is sent again. */
struct sim_fault {
    enum { SIM_ENGINE_RESTARTS, SIM_ROUTER_RESTARTS, SIM_ALL_ENGINES_RESTART } kind;
    uint64_t at_ns;
    size_t engine;    /* Of SIM_ENGINE_RESTARTS. */
    uint64_t down_ns; /* Of engines. */
};

enum { SIM_FAULTS_MAX = 2 };

struct sim_setup {
    const struct sim_workload *workload; /* Borrowed. */
    const struct sim_policy *policy;
    size_t engine_count;
    struct sim_engine_options engine;
    uint64_t seed;               /* Of the router; the workload has its own. */
    size_t budget_bytes;         /* 0: SIM_BUDGET_UNBOUNDED. */
    const char *store_directory; /* NULL: none. A router that restarts finds what was there at the
                                    last whole second before ... */
    bool loses_store;            /* ... unless this is set: then it is empty. */
    uint64_t store_bytes;
    struct sim_fault faults[SIM_FAULTS_MAX]; /* In order of time. */
    size_t fault_count;
};

/* Of one request. */
struct sim_outcome {
    double ttft_s;
    double decode_s; /* From its first token to its last. */
    uint32_t cached_tokens;
    uint32_t held_tokens; /* As the router thought. */
    uint32_t engine;
};

struct sim_result {
    double ttft_mean_s;
    double ttft_p50_s;
    double ttft_p90_s;
    double ttft_p99_s;
    double itl_mean_s; /* Over all tokens but the first ones. */
    double output_tokens_per_s;
    double hit_rate;   /* Prompt tokens found in caches. */
    double over_rate;  /* Prompt tokens that the router took for cached and were not, ... */
    double under_rate; /* ... and those that were, without its knowing. */
    double imbalance;  /* Tokens sent to the engine that got most, to the mean. */
    uint64_t refused_count;
    struct sim_router_state router; /* At the end. */
    uint64_t trie_bytes_most;       /* At any virtual second. */
    struct sim_outcome *outcomes;   /* One per request; to be freed by the caller. */
};

void sim_run(const struct sim_setup *setup, struct sim_result *out);
void sim_result_free(struct sim_result *result);

#endif
