/* Workloads from a seed. Each takes how many requests it should have, about, and their rate. */
#ifndef HASHTRIE_BENCH_SIM_GENERATE_H
#define HASHTRIE_BENCH_SIM_GENERATE_H

#include "bench/sim/workload.h"

struct sim_generate {
    uint64_t seed;
    double seconds; /* Requests arrive that long. */
    double rate;    /* Requests, or what its generator says, a second. */
    const char *traces_dir;
};

typedef void sim_generator(struct sim_workload *workload, const struct sim_generate *how);

/* ---- The traps of PEERS.md ---- */

sim_generator
    sim_shared_system; /* One system prompt of 6,000 tokens before all, short questions. */
sim_generator
    sim_unique_tail;        /* 20 prefixes of 4,000 tokens, each with 4,000 of the request's own. */
sim_generator sim_siblings; /* Bursts of 4 to 28 within 5 ms over a new prefix; rate: of bursts. */
sim_generator sim_agents;   /* Sessions that come back after seconds, 40 turns over shared tools;
                               rate: of sessions. */
sim_generator sim_cjk;      /* Conversations, every second one with 2 bytes a token. */
sim_generator sim_huge;     /* One request of ten asks about a document of 60k to 110k tokens. */
sim_generator sim_popular;  /* Six prefixes of 64k tokens. */
sim_generator sim_groups; /* 40 groups, each with a prefix of 16k tokens, some far more popular. */
sim_generator sim_unique; /* Nothing twice. */
/* Conversations of a few turns with pauses of half a minute, three system prompts; rate: of
 * conversations. */
sim_generator sim_chat;

/* ---- Benchmarks of others, open loop: rounds come at fixed times ---- */

/* multi-round-qa.py of production-stack: a system prompt of 1,000 tokens for all, 20,000 of each
 * user's own, 10 rounds, answers of 100 tokens; 160 users at a time. rate: requests. */
sim_generator sim_multiround;
/* Pull request 711: 100 users at a time, 5 rounds each, every one with a system prompt of 8k to 64k
 * tokens of its own. rate: requests. */
sim_generator sim_pr711;
/* The same with 3,000 users at a time, who come back after minutes. */
sim_generator sim_returning;

#endif
