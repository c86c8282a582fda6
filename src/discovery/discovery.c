/*
 * Who is asked when.
 *
 *     waiting (by due time) -> running (at most DISCOVERY_RUNNING_MAX) -> result -> waiting
 *
 * Fails: no answer, a cut one, one that is no metrics, no memory -> the result says so, and the
 * next question comes after DISCOVERY_GAP_NS, then twice that, up to the interval.
 */
#include "discovery/discovery.h"

#include <stdio.h>

#include "base/check.h"
#include "base/list.h"
#include "base/random.h"
#include "discovery/figures.h"
#include "fetch/fetch.h"

enum {
    JITTER_PARTS = 10, /* Pauses differ by 1/10 up and down. */
    DOUBLINGS_MAX = 20,
    REASON_BYTES_MAX = 64,
};

struct discovery {
    struct mem *mem;
    struct discovery_options options;
    struct random random;
    struct fetcher *fetcher;
    struct net_timer *timer; /* When the first of `waiting` is due. */
    struct list waiting;     /* discovery_engine.link, by due_ns. */
    struct list running;
    size_t running_count;
};

/* One answer under way. */
struct question {
    struct fetch *fetch;
    struct exposition reader;
    struct figures figures;
    struct buf text; /* Of an answer that is told as it is. */
};

struct discovery_engine {
    struct list link; /* In waiting or running. */
    struct discovery *discovery;
    void *user;
    char *url;                 /* With the question's path. Owned. */
    struct question *question; /* Owned; NULL while waiting. */
    uint64_t due_ns;
    uint64_t begun_ns;
    unsigned failure_count; /* In a row. */
    bool hurried;           /* While running: to be asked again soon. */
};

static void on_done(void *user, unsigned status, const char *error);

/* ---- When ---- */

static void insert_waiting(struct discovery_engine *engine)
{
    struct list *head = &engine->discovery->waiting;
    struct list *place = head; /* From the back: most pauses are alike. */
    while (place->prev != head &&
           LIST_ITEM(place->prev, struct discovery_engine, link)->due_ns > engine->due_ns) {
        place = place->prev;
    }
    list_insert_before(place, &engine->link);
}

static uint64_t hurried_due_ns(const struct discovery_engine *engine, uint64_t now_ns)
{
    uint64_t soonest_ns = engine->begun_ns + DISCOVERY_GAP_NS;
    return engine->begun_ns == 0 || soonest_ns < now_ns ? now_ns : soonest_ns;
}

static uint64_t next_pause_ns(struct discovery_engine *engine)
{
    struct discovery *discovery = engine->discovery;
    uint64_t pause_ns = discovery->options.interval_ns;
    if (engine->failure_count > 0) {
        unsigned doublings = engine->failure_count - 1;
        doublings = doublings < DOUBLINGS_MAX ? doublings : DOUBLINGS_MAX;
        uint64_t retry_ns = DISCOVERY_GAP_NS << doublings;
        pause_ns = retry_ns < pause_ns ? retry_ns : pause_ns;
    }
    uint64_t part_ns = pause_ns / JITTER_PARTS;
    double share = (double)random_below(&discovery->random, UINT32_MAX) / (double)UINT32_MAX;
    return pause_ns - part_ns + (uint64_t)((double)part_ns * 2 * share);
}

/* ---- Asking ---- */

static void on_sample(void *user, const struct exposition_sample *sample)
{
    struct question *question = user;
    figures_add(&question->figures, sample);
}

static bool on_bytes(void *user, const char *bytes, size_t size)
{
    struct discovery_engine *engine = user;
    switch (engine->discovery->options.question) {
    case DISCOVERY_METRICS:
        exposition_feed(&engine->question->reader, bytes, size);
        return true;
    case DISCOVERY_MODELS:
    case DISCOVERY_SLEEPING:
        return buf_append(&engine->question->text, bytes, size);
    case DISCOVERY_HEALTH:
    default:
        return true;
    }
}

static void drop_question(struct discovery_engine *engine)
{
    struct mem *mem = engine->discovery->mem;
    exposition_fini(&engine->question->reader);
    buf_fini(&engine->question->text);
    mem_free(mem, engine->question, sizeof *engine->question);
    engine->question = NULL;
    list_remove(&engine->link);
    engine->discovery->running_count--;
}

static bool begin(struct discovery_engine *engine)
{
    struct discovery *discovery = engine->discovery;
    const char *const headers[] = {"Accept: text/plain;version=0.0.4, text/plain;q=0.5, */*;q=0.1",
                                   discovery->options.authorization, NULL};
    struct fetch_options options = {.url = engine->url,
                                    .headers = headers,
                                    .ca_file = discovery->options.ca_file,
                                    .cert_file = discovery->options.cert_file,
                                    .key_file = discovery->options.key_file,
                                    .timeout_ns = discovery->options.timeout_ns,
                                    .head_bytes_max = DISCOVERY_HEAD_BYTES_MAX,
                                    .body_bytes_max = DISCOVERY_BODY_BYTES_MAX,
                                    .on_bytes = on_bytes,
                                    .on_done = on_done,
                                    .user = engine};
    struct question *question = mem_alloc_zero(discovery->mem, sizeof *question);
    if (question == NULL) {
        return false;
    }
    exposition_init(&question->reader, discovery->mem, on_sample, question);
    buf_init(&question->text, discovery->mem, DISCOVERY_TEXT_BYTES_MAX);
    engine->question = question;
    list_remove(&engine->link);
    list_push_back(&discovery->running, &engine->link);
    discovery->running_count++;
    engine->begun_ns = net_now_ns();
    engine->hurried = false;
    question->fetch = fetch_begin(discovery->fetcher, &options);
    if (question->fetch == NULL) {
        drop_question(engine);
        return false;
    }
    return true;
}

/* Tells the result and puts the engine back in line. */
static void conclude(struct discovery_engine *engine, const struct discovery_result *result)
{
    struct discovery *discovery = engine->discovery;
    engine->failure_count = result->outcome == DISCOVERY_FAILED ? engine->failure_count + 1 : 0;
    uint64_t now_ns = net_now_ns();
    engine->due_ns = now_ns + next_pause_ns(engine);
    uint64_t hurried_ns = hurried_due_ns(engine, now_ns);
    if (engine->hurried && hurried_ns < engine->due_ns) {
        engine->due_ns = hurried_ns;
    }
    list_remove(&engine->link);
    insert_waiting(engine);
    discovery->options.on_result(discovery->options.user, engine->user, result);
}

static void schedule(struct discovery *discovery)
{
    uint64_t now_ns = net_now_ns();
    while (!list_empty(&discovery->waiting) &&
           discovery->running_count < discovery->options.running_max) {
        struct discovery_engine *first =
            LIST_ITEM(discovery->waiting.next, struct discovery_engine, link);
        if (first->due_ns > now_ns) {
            net_timer_start(discovery->timer, first->due_ns - now_ns);
            return;
        }
        if (!begin(first)) {
            struct discovery_result result = {.outcome = DISCOVERY_FAILED,
                                              .reason = "the router is out of memory",
                                              .figures = discovery_figures_unknown()};
            conclude(first, &result);
        }
    }
    net_timer_stop(discovery->timer); /* All run, or the next one to end makes room. */
}

static void on_timer(void *user)
{
    schedule(user);
}

static bool is_unserved(unsigned status)
{
    return status == 404 || status == 405 || status == 501;
}

static void judge_metrics(const struct question *question, unsigned status,
                          struct discovery_result *result)
{
    if (is_unserved(status)) {
        result->outcome = DISCOVERY_NO_METRICS;
    } else if (status == 200 && question->reader.sample_count == 0) {
        result->reason = "its answer holds no metrics";
    } else if (status == 200) {
        result->outcome = DISCOVERY_TOLD;
        result->figures = figures_result(&question->figures);
    }
}

static void judge_text(const struct question *question, unsigned status,
                       struct discovery_result *result)
{
    if (is_unserved(status)) {
        result->outcome = DISCOVERY_NO_METRICS;
    } else if (status == 200) {
        result->outcome = DISCOVERY_TOLD;
        result->text = (struct span){.data = question->text.data, .size = question->text.size};
    }
}

static struct discovery_result judge(const struct discovery_engine *engine, unsigned status,
                                     const char *error, char *text)
{
    struct discovery_result result = {
        .outcome = DISCOVERY_FAILED, .reason = error, .figures = discovery_figures_unknown()};
    if (error != NULL) {
        return result;
    }
    (void)snprintf(text, REASON_BYTES_MAX, "it answers %u", status);
    result.reason = text;
    switch (engine->discovery->options.question) {
    case DISCOVERY_METRICS:
        judge_metrics(engine->question, status, &result);
        break;
    case DISCOVERY_MODELS:
    case DISCOVERY_SLEEPING:
        judge_text(engine->question, status, &result);
        break;
    case DISCOVERY_HEALTH:
    default:
        result.outcome = status >= 200 && status < 300 ? DISCOVERY_TOLD : DISCOVERY_FAILED;
        break;
    }
    return result;
}

static void on_done(void *user, unsigned status, const char *error)
{
    struct discovery_engine *engine = user;
    struct discovery *discovery = engine->discovery;
    char text[REASON_BYTES_MAX];
    struct discovery_result result = judge(engine, status, error, text);
    struct buf told = engine->question->text; /* Outlives the question, for the result. */
    engine->question->text = (struct buf){.mem = discovery->mem};
    drop_question(engine);
    conclude(engine, &result);
    buf_fini(&told);
    schedule(discovery);
}

/* ---- Life ---- */

struct discovery *discovery_new(struct net_loop *loop, struct mem *mem,
                                const struct discovery_options *options)
{
    REQUIRE(options->interval_ns > 0 && options->timeout_ns > 0);
    struct discovery *discovery = mem_alloc(mem, sizeof *discovery);
    if (discovery == NULL) {
        return NULL;
    }
    *discovery =
        (struct discovery){.mem = mem, .options = *options, .random = {.state = options->seed}};
    if (discovery->options.running_max == 0) {
        discovery->options.running_max = DISCOVERY_RUNNING_MAX;
    }
    list_init(&discovery->waiting);
    list_init(&discovery->running);
    discovery->timer = net_timer_new(loop, on_timer, discovery);
    discovery->fetcher = fetcher_new(loop, mem);
    if (discovery->timer == NULL || discovery->fetcher == NULL) {
        discovery_free(discovery);
        return NULL;
    }
    return discovery;
}

static void engine_free(struct discovery_engine *engine)
{
    struct mem *mem = engine->discovery->mem;
    list_remove(&engine->link);
    mem_free_text(mem, engine->url);
    mem_free(mem, engine, sizeof *engine);
}

void discovery_remove(struct discovery_engine *engine)
{
    if (engine == NULL) {
        return;
    }
    struct discovery *discovery = engine->discovery;
    bool was_running = engine->question != NULL;
    if (was_running) {
        fetch_cancel(engine->question->fetch);
        drop_question(engine);
    }
    engine_free(engine);
    if (was_running) {
        net_timer_start(discovery->timer, 0); /* One that is due may run in its place. */
    }
}

void discovery_free(struct discovery *discovery)
{
    if (discovery == NULL) {
        return;
    }
    while (!list_empty(&discovery->running)) {
        discovery_remove(LIST_ITEM(discovery->running.next, struct discovery_engine, link));
    }
    while (!list_empty(&discovery->waiting)) {
        engine_free(LIST_ITEM(discovery->waiting.next, struct discovery_engine, link));
    }
    fetcher_free(discovery->fetcher);
    net_timer_close(discovery->timer);
    mem_free(discovery->mem, discovery, sizeof *discovery);
}

struct discovery_engine *discovery_add(struct discovery *discovery, const char *url,
                                       void *engine_user)
{
    static const char *const paths[] = {[DISCOVERY_METRICS] = "/metrics",
                                        [DISCOVERY_HEALTH] = "/health",
                                        [DISCOVERY_MODELS] = "/v1/models",
                                        [DISCOVERY_SLEEPING] = "/is_sleeping"};
    char text[DISCOVERY_URL_BYTES_MAX];
    int size = snprintf(text, sizeof text, "%s%s", url, paths[discovery->options.question]);
    if (size < 0 || (size_t)size >= sizeof text) {
        return NULL;
    }
    struct discovery_engine *engine = mem_alloc_zero(discovery->mem, sizeof *engine);
    char *copy = mem_strndup(discovery->mem, text, (size_t)size);
    if (engine == NULL || copy == NULL) {
        mem_free(discovery->mem, engine, sizeof *engine);
        mem_free(discovery->mem, copy, (size_t)size + 1);
        return NULL;
    }
    engine->discovery = discovery;
    engine->user = engine_user;
    engine->url = copy;
    engine->due_ns = net_now_ns();
    insert_waiting(engine);
    net_timer_start(discovery->timer, 0);
    return engine;
}

void discovery_hurry(struct discovery_engine *engine)
{
    if (engine->question != NULL) {
        engine->hurried = true; /* What it says now may be from before. */
        return;
    }
    uint64_t now_ns = net_now_ns();
    uint64_t due_ns = hurried_due_ns(engine, now_ns);
    if (due_ns < engine->due_ns) {
        engine->due_ns = due_ns;
        list_remove(&engine->link);
        insert_waiting(engine);
        net_timer_start(engine->discovery->timer, 0); /* Sets itself anew. */
    }
}
