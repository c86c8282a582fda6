/* What policies are compared on: workload, fleet, and what goes wrong meanwhile. */
#ifndef HASHTRIE_BENCH_SIM_CASES_H
#define HASHTRIE_BENCH_SIM_CASES_H

#include "bench/sim/generate.h"
#include "bench/sim/run.h"

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): a short table, in order of sense. */
struct sim_case {
    const char *name;
    const char *about;
    sim_generator *generate;
    double seconds;
    double rate;
    size_t engine_count;
    uint64_t kv_tokens; /* 0: as by default, and so on. */
    uint32_t block_tokens;
    double prefill_tokens_per_s;
    double decode_ms;
    bool needs_traces;
    struct sim_fault fault; /* at_ns 0: none. */
};

extern const struct sim_case sim_cases[];
extern const size_t sim_case_count;
const struct sim_case *sim_case_find(const char *name, size_t size); /* NULL: none. */

/* Its workload. seconds_factor: makes it shorter or longer. */
void sim_case_generate(const struct sim_case *which, struct sim_workload *workload, uint64_t seed,
                       double seconds_factor, const char *traces_dir);
/* Times of faults are in proportion. */
struct sim_setup sim_case_setup(const struct sim_case *which, const struct sim_workload *workload,
                                const struct sim_policy *policy, uint64_t seed,
                                double seconds_factor);

#endif
