/*
 * A simulated engine, one step of its loop at a time: continuous batching, chunked prefill, prefix
 * cache. Time is passed in.
 *
 * A step gives each decoding job a token and computes up to `step_tokens` (those included) of
 * prompts, first of the jobs that run, then of those that wait, in the order of arrival. It takes
 *
 *     prompt tokens / prefill_tokens_per_s + decode_ns x (1 + context / context_tokens)
 *
 * the second term only while something decodes, over whose context it reads; at least decode_ns in
 * all. Prompts that come from another engine take / fetch_tokens_per_s. A job is let in when the
 * cache has room for all of its prompt and answer, so none is ever put back. What a prompt has in
 * the cache is looked up when it is let in.
 */
#ifndef HASHTRIE_BENCH_SIM_ENGINE_H
#define HASHTRIE_BENCH_SIM_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct engine_options {
    uint64_t kv_tokens;
    double prefill_tokens_per_s;
    double fetch_tokens_per_s; /* Of KV cache from another engine. */
    double decode_ns;
    size_t batch_max;
};
#define ENGINE_OPTIONS_DEFAULT                                                           \
    {                                                                                    \
        .kv_tokens = 131072, .prefill_tokens_per_s = 20000, .fetch_tokens_per_s = 80000, \
        .decode_ns = 10e6, .batch_max = 64                                               \
    }

struct sim_engine_options {
    struct engine_options engine; /* What mock-engine has, too. */
    uint32_t block_tokens;
    uint32_t step_tokens;
    double context_tokens; /* So many tokens of context make a step of decoding twice as long. */
    uint32_t run_steps;    /* At most so many steps are done at once while jobs only decode. */
};

/* mock-engine's cache, rate, step and batch; blocks of 32 tokens (a chunk of the router's), steps
 * of 2048, context of 131,072, 64 at once. */
struct sim_engine_options sim_engine_options_default(void);

/* In the owner's request; alive from sim_engine_submit() until it is done or lost. */
struct sim_job {
    struct list link;
    const uint64_t *hashes; /* Borrowed: of the whole blocks of prompt and answer together. */
    size_t hash_count;
    uint32_t prompt_tokens; /* At least 1, */
    uint32_t output_tokens; /* and so here. */
    bool fetched;           /* Its prompt is not computed, but comes from another engine. */
    uint32_t cached_tokens; /* Known once it runs. */
    uint32_t computed_tokens;
    uint32_t chunk_tokens; /* Of the step under way. */
    uint32_t made_tokens;
    uint32_t *blocks; /* The engine's, while it runs. */
    size_t block_count;
    size_t named_count; /* Of its blocks, known by their hash. */
};

struct sim_engine_events {
    void (*on_first)(void *user, struct sim_job *job, uint64_t now_ns); /* Token. */
    void (*on_done)(void *user, struct sim_job *job, uint64_t now_ns);  /* It has left. */
    void *user;
};

struct sim_engine;

struct sim_engine *sim_engine_new(const struct sim_engine_options *options,
                                  const struct sim_engine_events *events);
void sim_engine_free(struct sim_engine *engine); /* NULL is fine. */

/* False: prompt and answer are larger than the whole cache. */
bool sim_engine_submit(struct sim_engine *engine, struct sim_job *job, uint64_t now_ns);
uint64_t sim_engine_next_ns(const struct sim_engine *engine);    /* UINT64_MAX: it is idle. */
void sim_engine_run(struct sim_engine *engine, uint64_t now_ns); /* Does what is due. */

/* One job, waiting or running, is gone without an event; not to be called by one. */
void sim_engine_cancel(struct sim_engine *engine, struct sim_job *job, uint64_t now_ns);
/* All its jobs are gone without an event, put at the end of `lost` by their links. What is in its
 * cache stays if `keep_cache`. */
void sim_engine_drop(struct sim_engine *engine, bool keep_cache, struct list *lost);

/* Tokens that it has of a prompt, or will have when it comes to it: in its cache, or of a job that
 * runs or waits. */
size_t sim_engine_holds(const struct sim_engine *engine, const uint64_t *hashes, size_t count);

struct sim_engine_state {
    size_t waiting_count;
    size_t running_count;
    size_t block_count;
    double kv_usage; /* Share of its blocks that running jobs have. */
};
struct sim_engine_state sim_engine_state(const struct sim_engine *engine);

#endif
