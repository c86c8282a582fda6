/*
 * The simulator's engine, with an event for each token.
 *
 * A job that has made tokens is put into `ready` while the engine runs; its tokens are told
 * afterwards, when callbacks may do with jobs what they like.
 */
#include "bench/mock/engine.h"

#include "base/check.h"

enum { STEP_TOKENS = 2048 };

struct engine {
    struct mem *mem;
    struct sim_engine *sim;
    engine_on_token *on_token;
    void *user;
    struct list jobs;  /* In the engine. */
    struct list ready; /* Those with tokens that have not been told; some have left the engine. */
    struct engine_stats totals;
};

static struct engine_job *job_of(struct sim_job *sim)
{
    return (struct engine_job *)(void *)((char *)sim - offsetof(struct engine_job, sim));
}

static void on_first(void *user, struct sim_job *sim, uint64_t now_ns)
{
    (void)now_ns;
    struct engine *engine = user;
    engine->totals.prompt_tokens_total += sim->prompt_tokens;
    engine->totals.cached_tokens_total += sim->cached_tokens;
}

static void on_done(void *user, struct sim_job *sim, uint64_t now_ns)
{
    (void)now_ns;
    struct engine *engine = user;
    job_of(sim)->left = true;
    engine->totals.finished_total++;
}

struct engine *engine_new(struct mem *mem, const struct engine_options *options,
                          uint32_t block_tokens, engine_on_token *on_token, void *user)
{
    struct engine *engine = mem_alloc(mem, sizeof *engine);
    if (engine == NULL) {
        return NULL;
    }
    *engine = (struct engine){.mem = mem, .on_token = on_token, .user = user};
    list_init(&engine->jobs);
    list_init(&engine->ready);
    struct sim_engine_options sim = sim_engine_options_default();
    sim.engine = *options;
    sim.block_tokens = block_tokens;
    sim.step_tokens =
        options->batch_max < STEP_TOKENS ? STEP_TOKENS : (uint32_t)options->batch_max + 1;
    sim.run_steps = 1;
    const struct sim_engine_events events = {
        .on_first = on_first, .on_done = on_done, .user = engine};
    engine->sim = sim_engine_new(&sim, &events);
    return engine;
}

void engine_free(struct engine *engine)
{
    if (engine != NULL) {
        CHECK(list_empty(&engine->jobs) && list_empty(&engine->ready));
        sim_engine_free(engine->sim);
        mem_free(engine->mem, engine, sizeof *engine);
    }
}

bool engine_submit(struct engine *engine, struct engine_job *job, uint64_t now_ns)
{
    job->tokens_made = 0;
    job->left = false;
    if (!sim_engine_submit(engine->sim, &job->sim, now_ns)) {
        return false;
    }
    list_push_back(&engine->jobs, &job->link);
    return true;
}

void engine_cancel(struct engine *engine, struct engine_job *job, uint64_t now_ns)
{
    if (engine_job_is_done(job)) {
        return;
    }
    list_remove(&job->link);
    if (!job->left) {
        sim_engine_cancel(engine->sim, &job->sim, now_ns);
        engine->totals.aborted_total++;
    }
}

/* One token of the first that is ready. */
static void tell_token(struct engine *engine)
{
    struct engine_job *job = LIST_ITEM(engine->ready.next, struct engine_job, link);
    job->tokens_made++;
    engine->totals.generated_tokens_total++;
    list_remove(&job->link);
    if (job->tokens_made < job->sim.made_tokens) {
        list_push_back(&engine->ready, &job->link);
    } else if (!job->left) {
        list_push_back(&engine->jobs, &job->link);
    }
    engine->on_token(engine->user, job); /* Last: the job may be gone afterwards. */
}

void engine_step(struct engine *engine, uint64_t now_ns)
{
    sim_engine_run(engine->sim, now_ns);
    list_foreach_safe (link, &engine->jobs) {
        struct engine_job *job = LIST_ITEM(link, struct engine_job, link);
        if (job->tokens_made < job->sim.made_tokens) {
            list_remove(link);
            list_push_back(&engine->ready, link);
        }
    }
    while (!list_empty(&engine->ready)) {
        tell_token(engine);
    }
}

uint64_t engine_next_ns(const struct engine *engine)
{
    return sim_engine_next_ns(engine->sim);
}

void engine_get_stats(const struct engine *engine, struct engine_stats *out)
{
    struct sim_engine_state state = sim_engine_state(engine->sim);
    *out = engine->totals;
    out->running_count = state.running_count;
    out->waiting_count = state.waiting_count;
    out->kv_usage = state.kv_usage;
    out->block_count = state.block_count;
}
