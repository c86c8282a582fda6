#include "bench/sim/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "bench/sim/blocks.h"
#include "bench/sim/workload.h"

struct sim_engine {
    struct sim_engine_options options;
    struct sim_engine_events events;
    struct sim_blocks *blocks;
    struct list line; /* Waiting jobs, the first come first. */
    size_t line_count;
    struct sim_job **batch; /* Running jobs, in the order of admission. */
    size_t batch_count;
    uint64_t run_begin_ns; /* Of the run of equal steps under way, ... */
    uint64_t step_ns;      /* ... each of that length; */
    uint64_t step_count;   /* 0: idle. */
};

struct sim_engine_options sim_engine_options_default(void)
{
    return (struct sim_engine_options){.engine = ENGINE_OPTIONS_DEFAULT,
                                       .block_tokens = 32,
                                       .step_tokens = 2048,
                                       .context_tokens = 131072,
                                       .run_steps = 64};
}

struct sim_engine *sim_engine_new(const struct sim_engine_options *options,
                                  const struct sim_engine_events *events)
{
    REQUIRE(options->block_tokens > 0 && options->step_tokens > options->engine.batch_max);
    REQUIRE(options->run_steps > 0);
    struct sim_engine *engine = sim_alloc(1, sizeof *engine);
    *engine = (struct sim_engine){
        .options = *options,
        .events = *events,
        .blocks = sim_blocks_new(options->engine.kv_tokens / options->block_tokens),
        .batch = sim_alloc(options->engine.batch_max, sizeof(struct sim_job *))};
    list_init(&engine->line);
    return engine;
}

void sim_engine_free(struct sim_engine *engine)
{
    if (engine != NULL) {
        CHECK(engine->batch_count == 0 && engine->line_count == 0);
        sim_blocks_free(engine->blocks);
        free(engine->batch);
        free(engine);
    }
}

static bool is_decoding(const struct sim_job *job)
{
    return job->made_tokens > 0;
}

/* ---- A step begins ---- */

/* Returns how many seconds its chunk takes. */
static double give_chunk(const struct engine_options *options, struct sim_job *job,
                         uint32_t *budget)
{
    uint32_t rest = job->prompt_tokens - job->computed_tokens;
    job->chunk_tokens = rest < *budget ? rest : *budget;
    *budget -= job->chunk_tokens;
    return job->chunk_tokens /
           (job->fetched ? options->fetch_tokens_per_s : options->prefill_tokens_per_s);
}

/* The first in line comes in; false: there is no room. */
static bool let_in(struct sim_engine *engine)
{
    struct sim_job *job = LIST_ITEM(engine->line.next, struct sim_job, link);
    uint32_t block_tokens = engine->options.block_tokens;
    /* The last prompt token is always computed: its logits make the first token. */
    size_t match_max = (job->prompt_tokens - 1) / block_tokens;
    size_t matched = 0;
    if (!sim_blocks_take(engine->blocks, job->hashes, match_max, job->block_count, job->blocks,
                         &matched)) {
        return false;
    }
    list_remove(&job->link);
    engine->line_count--;
    engine->batch[engine->batch_count++] = job;
    job->cached_tokens = (uint32_t)matched * block_tokens;
    job->computed_tokens = job->cached_tokens;
    job->named_count = matched;
    return true;
}

/* Gives out the prompt tokens of the next step; returns how many seconds they take. */
static double plan_prefill(struct sim_engine *engine, size_t decoding_count)
{
    const struct engine_options *options = &engine->options.engine;
    uint32_t budget = engine->options.step_tokens - (uint32_t)decoding_count;
    double seconds = 0;
    for (size_t i = 0; i < engine->batch_count; i++) {
        if (!is_decoding(engine->batch[i])) {
            seconds += give_chunk(options, engine->batch[i], &budget);
        }
    }
    while (budget > 0 && engine->line_count > 0 && engine->batch_count < options->batch_max &&
           let_in(engine)) {
        seconds += give_chunk(options, engine->batch[engine->batch_count - 1], &budget);
    }
    return seconds;
}

static void begin_step(struct sim_engine *engine, uint64_t now_ns)
{
    const struct engine_options *options = &engine->options.engine;
    size_t decoding_count = 0;
    double context = 0;
    uint32_t least_left = engine->options.run_steps;
    for (size_t i = 0; i < engine->batch_count; i++) {
        const struct sim_job *job = engine->batch[i];
        if (is_decoding(job)) {
            uint32_t left = job->output_tokens - job->made_tokens;
            decoding_count++;
            context += job->prompt_tokens + job->made_tokens;
            least_left = left < least_left ? left : least_left;
        }
    }
    double prefill_s = plan_prefill(engine, decoding_count);
    double ns = prefill_s * (double)SIM_NS_PER_S;
    if (decoding_count > 0) {
        ns += options->decode_ns * (1 + context / engine->options.context_tokens);
    }
    ns = ns < options->decode_ns ? options->decode_ns : ns;
    engine->run_begin_ns = now_ns;
    engine->step_ns = ns < 1 ? 1 : (uint64_t)ns;
    engine->step_count = engine->batch_count == 0 ? 0 : prefill_s > 0 ? 1 : least_left;
}

bool sim_engine_submit(struct sim_engine *engine, struct sim_job *job, uint64_t now_ns)
{
    REQUIRE(job->prompt_tokens > 0 && job->output_tokens > 0);
    uint64_t tokens = (uint64_t)job->prompt_tokens + job->output_tokens;
    uint32_t block_tokens = engine->options.block_tokens;
    job->block_count = (tokens + block_tokens - 1) / block_tokens;
    if (job->block_count > sim_blocks_count(engine->blocks)) {
        return false;
    }
    job->blocks = sim_alloc(job->block_count, sizeof *job->blocks);
    job->cached_tokens = 0;
    job->computed_tokens = 0;
    job->chunk_tokens = 0;
    job->made_tokens = 0;
    job->named_count = 0;
    list_push_back(&engine->line, &job->link);
    engine->line_count++;
    if (engine->step_count == 0) {
        begin_step(engine, now_ns);
    } else { /* It may come in after the step under way. */
        uint64_t steps = (now_ns - engine->run_begin_ns) / engine->step_ns + 1;
        engine->step_count = steps < engine->step_count ? steps : engine->step_count;
    }
    return true;
}

uint64_t sim_engine_next_ns(const struct sim_engine *engine)
{
    return engine->step_count == 0 ? UINT64_MAX
                                   : engine->run_begin_ns + engine->step_ns * engine->step_count;
}

/* ---- A step ends ---- */

/* What has been computed can be found by others. */
static void name_blocks(struct sim_engine *engine, struct sim_job *job, uint32_t tokens)
{
    size_t whole = tokens / engine->options.block_tokens;
    whole = whole < job->hash_count ? whole : job->hash_count;
    for (; job->named_count < whole; job->named_count++) {
        sim_blocks_name(engine->blocks, job->blocks[job->named_count],
                        job->hashes[job->named_count]);
    }
}

/* Of a job that runs. */
static void release(struct sim_engine *engine, struct sim_job *job)
{
    sim_blocks_release(engine->blocks, job->blocks, job->block_count);
    free(job->blocks);
    job->blocks = NULL;
}

/* True: it has all its tokens. */
static bool advance(struct sim_engine *engine, struct sim_job *job, uint64_t now_ns)
{
    if (is_decoding(job)) {
        job->made_tokens += (uint32_t)engine->step_count;
    } else {
        job->computed_tokens += job->chunk_tokens;
        job->chunk_tokens = 0;
        name_blocks(engine, job, job->computed_tokens);
        if (job->computed_tokens == job->prompt_tokens) {
            job->made_tokens = 1;
            engine->events.on_first(engine->events.user, job, now_ns);
        }
    }
    return job->made_tokens == job->output_tokens;
}

static void end_steps(struct sim_engine *engine, uint64_t now_ns)
{
    size_t kept = 0;
    size_t count = engine->batch_count;
    for (size_t i = 0; i < count; i++) {
        struct sim_job *job = engine->batch[i];
        if (!advance(engine, job, now_ns)) {
            engine->batch[kept++] = job;
            continue;
        }
        name_blocks(engine, job, job->prompt_tokens + job->output_tokens);
        release(engine, job);
        engine->events.on_done(engine->events.user, job, now_ns);
    }
    engine->batch_count = kept;
    begin_step(engine, now_ns);
}

void sim_engine_run(struct sim_engine *engine, uint64_t now_ns)
{
    while (sim_engine_next_ns(engine) <= now_ns) {
        end_steps(engine, sim_engine_next_ns(engine));
    }
}

void sim_engine_cancel(struct sim_engine *engine, struct sim_job *job, uint64_t now_ns)
{
    size_t place = 0;
    while (place < engine->batch_count && engine->batch[place] != job) {
        place++;
    }
    if (place == engine->batch_count) { /* It waits. */
        list_remove(&job->link);
        engine->line_count--;
        free(job->blocks);
        job->blocks = NULL;
        return;
    }
    /* The step under way ends without it; where nobody is left, at once. */
    release(engine, job);
    engine->batch_count--;
    memmove(&engine->batch[place], &engine->batch[place + 1],
            (engine->batch_count - place) * sizeof(struct sim_job *));
    if (engine->batch_count == 0) {
        begin_step(engine, now_ns);
    }
}

void sim_engine_drop(struct sim_engine *engine, bool keep_cache, struct list *lost)
{
    for (size_t i = 0; i < engine->batch_count; i++) {
        release(engine, engine->batch[i]);
        list_push_back(lost, &engine->batch[i]->link);
    }
    list_foreach_safe (link, &engine->line) {
        free(LIST_ITEM(link, struct sim_job, link)->blocks);
        list_remove(link);
        list_push_back(lost, link);
    }
    if (!keep_cache) {
        sim_blocks_clear(engine->blocks);
    }
    engine->batch_count = 0;
    engine->line_count = 0;
    engine->step_count = 0;
}

/* ---- What it looks like ---- */

static size_t common(const struct sim_job *job, const uint64_t *hashes, size_t count)
{
    size_t low = 0;
    size_t high = job->hash_count < count ? job->hash_count : count;
    while (low < high) { /* They are chained: equal there means equal before. */
        size_t middle = low + (high - low + 1) / 2;
        if (job->hashes[middle - 1] == hashes[middle - 1]) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

size_t sim_engine_holds(const struct sim_engine *engine, const uint64_t *hashes, size_t count)
{
    size_t most = sim_blocks_peek(engine->blocks, hashes, count);
    for (size_t i = 0; i < engine->batch_count && most < count; i++) {
        size_t held = common(engine->batch[i], hashes, count);
        most = held > most ? held : most;
    }
    for (struct list *link = engine->line.next; link != &engine->line && most < count;
         link = link->next) {
        size_t held = common(LIST_ITEM(link, struct sim_job, link), hashes, count);
        most = held > most ? held : most;
    }
    return most * engine->options.block_tokens;
}

struct sim_engine_state sim_engine_state(const struct sim_engine *engine)
{
    double blocks = (double)sim_blocks_count(engine->blocks);
    return (struct sim_engine_state){
        .waiting_count = engine->line_count,
        .running_count = engine->batch_count,
        .block_count = sim_blocks_count(engine->blocks),
        .kv_usage = 1 - (double)sim_blocks_free_count(engine->blocks) / blocks,
    };
}
