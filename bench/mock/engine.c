#include "bench/mock/engine.h"

#include "base/check.h"
#include "bench/mock/cache.h"

#define NS_PER_S 1e9

struct engine {
    struct mem *mem;
    struct engine_options options;
    engine_on_token *on_token;
    void *user;
    struct cache *cache;
    struct list line;  /* Waiting jobs, the first come first. */
    struct list batch; /* Admitted ones, in the order of admission. */
    struct engine_job *prefilling;
    size_t batch_count;
    size_t line_count;
    size_t blocks_pinned;
    struct engine_stats totals;
};

struct engine *engine_new(struct mem *mem, const struct engine_options *options,
                          engine_on_token *on_token, void *user)
{
    struct engine *engine = mem_alloc(mem, sizeof *engine);
    if (engine == NULL) {
        return NULL;
    }
    *engine = (struct engine){.mem = mem, .options = *options, .on_token = on_token, .user = user};
    list_init(&engine->line);
    list_init(&engine->batch);
    engine->cache = cache_new(mem, options->kv_tokens / CACHE_BLOCK_TOKENS);
    if (engine->cache == NULL) {
        mem_free(mem, engine, sizeof *engine);
        return NULL;
    }
    return engine;
}

void engine_free(struct engine *engine)
{
    if (engine == NULL) {
        return;
    }
    CHECK(engine->batch_count == 0 && engine->line_count == 0);
    cache_free(engine->cache);
    mem_free(engine->mem, engine, sizeof *engine);
}

static struct engine_job *job_of(struct list *link)
{
    return LIST_ITEM(link, struct engine_job, link);
}

static size_t blocks_needed(const struct engine_job *job)
{
    uint64_t tokens = job->prompt_tokens + job->output_tokens;
    return (size_t)((tokens + CACHE_BLOCK_TOKENS - 1) / CACHE_BLOCK_TOKENS);
}

static void admit(struct engine *engine)
{
    while (!list_empty(&engine->line) && engine->batch_count < engine->options.batch_max) {
        struct engine_job *job = job_of(engine->line.next);
        if (engine->blocks_pinned + blocks_needed(job) > cache_block_count(engine->cache)) {
            return;
        }
        list_remove(&job->link);
        list_push_back(&engine->batch, &job->link);
        engine->line_count--;
        engine->batch_count++;
        engine->blocks_pinned += blocks_needed(job);
        job->phase = ENGINE_ADMITTED;
    }
}

/* The next admitted job's prefill, starting at `at_ns`. */
static void start_prefill(struct engine *engine, uint64_t at_ns)
{
    if (engine->prefilling != NULL) {
        return;
    }
    list_foreach (link, &engine->batch) {
        struct engine_job *job = job_of(link);
        if (job->phase != ENGINE_ADMITTED) {
            continue;
        }
        /* The last prompt token is always computed: its logits make the first token. */
        size_t usable =
            job->prompt_tokens == 0 ? 0 : (size_t)((job->prompt_tokens - 1) / CACHE_BLOCK_TOKENS);
        usable = usable < job->prompt_block_count ? usable : job->prompt_block_count;
        job->cached_tokens = cache_match(engine->cache, job->hashes, usable) * CACHE_BLOCK_TOKENS;
        uint64_t uncached = job->prompt_tokens - job->cached_tokens;
        double rate = job->fetched ? engine->options.fetch_tokens_per_s
                                   : engine->options.prefill_tokens_per_s;
        job->next_ns = at_ns + (uint64_t)((double)uncached / rate * NS_PER_S);
        job->phase = ENGINE_PREFILLING;
        engine->prefilling = job;
        engine->totals.prompt_tokens_total += job->prompt_tokens;
        engine->totals.cached_tokens_total += job->cached_tokens;
        return;
    }
}

static void leave_batch(struct engine *engine, struct engine_job *job)
{
    list_remove(&job->link);
    CHECK(engine->batch_count > 0);
    engine->batch_count--;
    engine->blocks_pinned -= blocks_needed(job);
    if (engine->prefilling == job) {
        engine->prefilling = NULL;
    }
    job->phase = ENGINE_DONE;
}

bool engine_submit(struct engine *engine, struct engine_job *job, uint64_t now_ns)
{
    REQUIRE(job->output_tokens > 0 && job->prompt_block_count <= job->block_count);
    if (blocks_needed(job) > cache_block_count(engine->cache)) {
        return false;
    }
    job->phase = ENGINE_WAITING;
    job->cached_tokens = 0;
    job->tokens_made = 0;
    list_push_back(&engine->line, &job->link);
    engine->line_count++;
    admit(engine);
    start_prefill(engine, now_ns);
    return true;
}

void engine_cancel(struct engine *engine, struct engine_job *job, uint64_t now_ns)
{
    if (job->phase == ENGINE_DONE) {
        return;
    }
    if (job->phase == ENGINE_WAITING) {
        list_remove(&job->link);
        engine->line_count--;
        job->phase = ENGINE_DONE;
    } else {
        leave_batch(engine, job);
    }
    engine->totals.aborted_total++;
    admit(engine);
    start_prefill(engine, now_ns);
}

/* The job whose event comes first; NULL: none runs. */
static struct engine_job *first_due(const struct engine *engine)
{
    struct engine_job *first = NULL;
    for (struct list *link = engine->batch.next; link != &engine->batch; link = link->next) {
        struct engine_job *job = job_of(link);
        if (job->phase != ENGINE_ADMITTED && (first == NULL || job->next_ns < first->next_ns)) {
            first = job;
        }
    }
    return first;
}

static void make_token(struct engine *engine, struct engine_job *job)
{
    uint64_t at_ns = job->next_ns;
    if (job->phase == ENGINE_PREFILLING) {
        cache_insert(engine->cache, job->hashes, job->prompt_block_count);
        job->phase = ENGINE_DECODING;
        engine->prefilling = NULL;
    }
    job->tokens_made++;
    engine->totals.generated_tokens_total++;
    job->next_ns = at_ns + (uint64_t)engine->options.decode_ns;
    if (job->tokens_made == job->output_tokens) {
        cache_insert(engine->cache, job->hashes, job->block_count);
        leave_batch(engine, job);
        engine->totals.finished_total++;
    }
    admit(engine);
    start_prefill(engine, at_ns);
    engine->on_token(engine->user, job); /* Last: the job may be gone afterwards. */
}

void engine_step(struct engine *engine, uint64_t now_ns)
{
    struct engine_job *job = first_due(engine);
    while (job != NULL && job->next_ns <= now_ns) {
        make_token(engine, job);
        job = first_due(engine);
    }
}

uint64_t engine_next_ns(const struct engine *engine)
{
    const struct engine_job *job = first_due(engine);
    return job == NULL ? UINT64_MAX : job->next_ns;
}

void engine_get_stats(const struct engine *engine, struct engine_stats *out)
{
    *out = engine->totals;
    out->running_count = engine->batch_count;
    out->waiting_count = engine->line_count;
    out->block_count = cache_block_count(engine->cache);
    out->kv_usage =
        out->block_count == 0 ? 0 : (double)engine->blocks_pinned / (double)out->block_count;
}
