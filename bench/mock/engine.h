/*
 * How a simulated engine spends time. Jobs wait in line until the batch has a place and the cache
 * has room; prompts are prefilled one after the other, only what the prefix cache lacks; then each
 * running job gets a token every `decode_ns`. Time is passed in: nothing here reads a clock.
 */
#ifndef HASHTRIE_BENCH_ENGINE_H
#define HASHTRIE_BENCH_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/mem.h"

enum engine_phase {
    ENGINE_WAITING,
    ENGINE_ADMITTED,
    ENGINE_PREFILLING,
    ENGINE_DECODING,
    ENGINE_DONE
};

/* Embedded in the owner's request; alive from engine_submit() until its last token or its cancel.
 */
struct engine_job {
    struct list link;       /* In the line or the batch. */
    const uint64_t *hashes; /* Borrowed: blocks of prompt and answer together. */
    size_t block_count;
    size_t prompt_block_count;
    uint64_t prompt_tokens;
    uint64_t output_tokens; /* At least 1. */
    uint64_t cached_tokens; /* Known once prefill has begun. */
    uint64_t tokens_made;
    uint64_t next_ns; /* End of its prefill, or its next token. */
    bool fetched;     /* The prompt's KV cache comes from another engine. */
    enum engine_phase phase;
};

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

struct engine_stats {
    uint64_t running_count;
    uint64_t waiting_count;
    uint64_t prompt_tokens_total; /* Looked up in the prefix cache, ... */
    uint64_t cached_tokens_total; /* ... and found there. */
    uint64_t generated_tokens_total;
    uint64_t finished_total;
    uint64_t aborted_total;
    double kv_usage; /* Share of the blocks that running jobs pin. */
    size_t block_count;
};

/* A token was made; job->tokens_made counts it. With the last one the job has left the engine. The
 * callback may submit and cancel other jobs. */
typedef void engine_on_token(void *user, struct engine_job *job);

struct engine;

/* NULL: out of memory. */
struct engine *engine_new(struct mem *mem, const struct engine_options *options,
                          engine_on_token *on_token, void *user);
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
