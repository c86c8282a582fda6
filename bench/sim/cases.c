#include "bench/sim/cases.h"

#include <string.h>

#include "bench/sim/traces.h"

#define S(seconds) ((uint64_t)(seconds)*SIM_NS_PER_S)

const struct sim_case sim_cases[] = {
    {.name = "mooncake",
     .about = "one real hour of a chat service, 4 engines of 10,000 blocks of 512",
     .generate = sim_mooncake,
     .seconds = 3600,
     .rate = 1,
     .engine_count = 4,
     .kv_tokens = UINT64_C(10000) * 512,
     .block_tokens = SIM_TRACE_BLOCK_TOKENS,
     .needs_traces = true},
    {.name = "mooncake-busy",
     .about = "the same 1.3 times as fast",
     .generate = sim_mooncake,
     .seconds = 3600,
     .rate = 1.3,
     .engine_count = 4,
     .kv_tokens = UINT64_C(10000) * 512,
     .block_tokens = SIM_TRACE_BLOCK_TOKENS,
     .needs_traces = true},
    {.name = "mooncake-small",
     .about = "the same on 8 engines of 3,000 blocks, twice as fast",
     .generate = sim_mooncake,
     .seconds = 3600,
     .rate = 2,
     .engine_count = 8,
     .kv_tokens = UINT64_C(3000) * 512,
     .block_tokens = SIM_TRACE_BLOCK_TOKENS,
     .needs_traces = true},
    {.name = "magagent",
     .about = "recorded multi-agent sessions",
     .generate = sim_magagent,
     .seconds = 1,
     .rate = 5,
     .engine_count = 4,
     .needs_traces = true},
    {.name = "airline",
     .about = "recorded conversations of tool-using agents",
     .generate = sim_airline,
     .seconds = 1,
     .rate = 4,
     .engine_count = 4,
     .kv_tokens = 60000,
     .needs_traces = true},
    {.name = "multiround",
     .about = "multi-round QA: 160 users, 21k tokens each, 10 rounds",
     .generate = sim_multiround,
     .seconds = 600,
     .rate = 12,
     .engine_count = 8,
     .kv_tokens = 600000},
    {.name = "multiround-full",
     .about = "the same with caches for half of the users",
     .generate = sim_multiround,
     .seconds = 600,
     .rate = 5,
     .engine_count = 8,
     .kv_tokens = 250000},
    {.name = "pr711",
     .about = "pull request 711: 100 users, 8k to 64k tokens, 40 A10",
     .generate = sim_pr711,
     .seconds = 600,
     .rate = 10,
     .engine_count = 40,
     .prefill_tokens_per_s = 8000,
     .decode_ms = 15},
    {.name = "returning",
     .about = "the same with 3,000 users, large caches",
     .generate = sim_returning,
     .seconds = 900,
     .rate = 10,
     .engine_count = 40,
     .kv_tokens = 3000000,
     .block_tokens = 512},
    {.name = "chat",
     .about = "conversations, caches for all of them",
     .generate = sim_chat,
     .seconds = 300,
     .rate = 6,
     .engine_count = 8,
     .kv_tokens = 400000},
    {.name = "chat-busy",
     .about = "conversations, caches for a part of them, near the limit",
     .generate = sim_chat,
     .seconds = 300,
     .rate = 5.5,
     .engine_count = 8},
    {.name = "shared-system",
     .about = "one system prompt of 6k tokens before all",
     .generate = sim_shared_system,
     .seconds = 120,
     .rate = 45,
     .engine_count = 8},
    {.name = "unique-tail",
     .about = "20 prefixes of 4k, each with 4k of the request's own",
     .generate = sim_unique_tail,
     .seconds = 200,
     .rate = 18,
     .engine_count = 8},
    {.name = "siblings",
     .about = "bursts of 4 to 28 over a new prefix of 8k",
     .generate = sim_siblings,
     .seconds = 120,
     .rate = 3,
     .engine_count = 8},
    {.name = "agents",
     .about = "agent loops of 40 turns",
     .generate = sim_agents,
     .seconds = 400,
     .rate = 0.35,
     .engine_count = 8,
     .kv_tokens = 300000},
    {.name = "cjk",
     .about = "conversations, half of them with 2 bytes a token",
     .generate = sim_cjk,
     .seconds = 300,
     .rate = 6,
     .engine_count = 8,
     .kv_tokens = 200000},
    {.name = "huge",
     .about = "one of ten asks about a document of 60k to 110k tokens",
     .generate = sim_huge,
     .seconds = 300,
     .rate = 12,
     .engine_count = 8,
     .kv_tokens = 262144},
    {.name = "popular",
     .about = "six prefixes of 64k tokens, low load",
     .generate = sim_popular,
     .seconds = 600,
     .rate = 1,
     .engine_count = 8,
     .kv_tokens = 262144},
    {.name = "groups",
     .about = "40 groups with a prefix of 16k",
     .generate = sim_groups,
     .seconds = 150,
     .rate = 22,
     .engine_count = 8},
    {.name = "unique",
     .about = "nothing twice",
     .generate = sim_unique,
     .seconds = 150,
     .rate = 25,
     .engine_count = 8},
    {.name = "engine-restart",
     .about = "chat; one engine of eight restarts",
     .generate = sim_chat,
     .seconds = 300,
     .rate = 6,
     .engine_count = 8,
     .kv_tokens = 400000,
     .fault = {.kind = SIM_ENGINE_RESTARTS, .at_ns = S(150), .engine = 3, .down_ns = S(20)}},
    {.name = "router-restart",
     .about = "chat; the router restarts without a store",
     .generate = sim_chat,
     .seconds = 300,
     .rate = 6,
     .engine_count = 8,
     .kv_tokens = 400000,
     .fault = {.kind = SIM_ROUTER_RESTARTS, .at_ns = S(150)}},
    {.name = "fleet-100",
     .about = "chat on 100 engines",
     .generate = sim_chat,
     .seconds = 60,
     .rate = 80,
     .engine_count = 100,
     .kv_tokens = 200000},
    {.name = "fleet-1000",
     .about = "chat on 1,000 engines",
     .generate = sim_chat,
     .seconds = 6,
     .rate = 600,
     .engine_count = 1000,
     .kv_tokens = 200000},
};

const size_t sim_case_count = sizeof sim_cases / sizeof sim_cases[0];

const struct sim_case *sim_case_find(const char *name, size_t size)
{
    for (size_t i = 0; i < sim_case_count; i++) {
        if (strlen(sim_cases[i].name) == size && memcmp(sim_cases[i].name, name, size) == 0) {
            return &sim_cases[i];
        }
    }
    return NULL;
}

void sim_case_generate(const struct sim_case *which, struct sim_workload *workload, uint64_t seed,
                       double seconds_factor, const char *traces_dir)
{
    struct sim_generate how = {.seed = seed,
                               .seconds = which->seconds * seconds_factor,
                               .rate = which->rate,
                               .traces_dir = traces_dir};
    which->generate(workload, &how);
}

struct sim_setup sim_case_setup(const struct sim_case *which, const struct sim_workload *workload,
                                const struct sim_policy *policy, uint64_t seed,
                                double seconds_factor)
{
    struct sim_setup setup = {.workload = workload,
                              .policy = policy,
                              .engine_count = which->engine_count,
                              .engine = sim_engine_options_default(),
                              .seed = seed,
                              .faults = {which->fault},
                              .fault_count = which->fault.at_ns > 0 ? 1 : 0};
    setup.faults[0].at_ns = (uint64_t)((double)which->fault.at_ns * seconds_factor);
    if (which->kv_tokens > 0) {
        setup.engine.engine.kv_tokens = which->kv_tokens;
    }
    if (which->block_tokens > 0) {
        setup.engine.block_tokens = which->block_tokens;
    }
    if (which->prefill_tokens_per_s > 0) {
        setup.engine.engine.prefill_tokens_per_s = which->prefill_tokens_per_s;
    }
    if (which->decode_ms > 0) {
        setup.engine.engine.decode_ns = which->decode_ms * 1e6;
    }
    return setup;
}
