/*
 * The mock engine's model of time: the simulator's engine (bench/sim/engine.h: continuous batching,
 * chunked prefill, prefix cache), with an event for each token. Time is passed in: nothing here
 * reads a clock.
 */
#ifndef HASHTRIE_BENCH_ENGINE_H
#define HASHTRIE_BENCH_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/mem.h"
#include "bench/sim/engine.h"

/* Embedded in the owner's request; alive from engine_submit() until its last token or its cancel.
 */
struct engine_job {
    struct sim_job sim; /* Hashes, their count, both numbers of tokens, fetched: the owner's. */
    /* The engine's. */
    uint32_t tokens_made; /* Told of. */
    struct list link;
    bool left; /* It has made its last token, whether or not that has been told. */
};

static inline bool engine_job_is_done(const struct engine_job *job)
{
    return job->tokens_made == job->sim.output_tokens;
}

struct engine_stats {
    uint64_t running_count;
    uint64_t waiting_count;
    uint64_t prompt_tokens_total; /* Looked up in the prefix cache, ... */
    uint64_t cached_tokens_total; /* ... and found there. */
    uint64_t generated_tokens_total;
    uint64_t finished_total;
    uint64_t aborted_total;
    double kv_usage; /* Share of the blocks that running jobs have. */
    size_t block_count;
};

/* A token was made; job->tokens_made counts it. With the last one the job has left the engine. The
 * callback may submit and cancel jobs. */
typedef void engine_on_token(void *user, struct engine_job *job);

struct engine;

/* NULL: out of memory. */
struct engine *engine_new(struct mem *mem, const struct engine_options *options,
                          uint32_t block_tokens, engine_on_token *on_token, void *user);
void engine_free(struct engine *engine); /* All jobs are gone. NULL is fine. */

/* False: it can never run, prompt and answer being larger than the whole cache. */
bool engine_submit(struct engine *engine, struct engine_job *job, uint64_t now_ns);
void engine_cancel(struct engine *engine, struct engine_job *job, uint64_t now_ns);
/* Does all that is due by now. */
void engine_step(struct engine *engine, uint64_t now_ns);
/* When something is due next; UINT64_MAX: nothing runs. */
uint64_t engine_next_ns(const struct engine *engine);
void engine_get_stats(const struct engine *engine, struct engine_stats *out);

#endif
