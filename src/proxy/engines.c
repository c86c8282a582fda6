#include "proxy/engines.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "proxy/backends.h"
#include "proxy/queue.h"
#include "trie/trie.h"

/* Some client libraries work the start time out anew at each answer, from a boot time in whole
 * seconds that moves with the clock. */
#define START_TIME_SLACK_S 1.5
/* The interval, as in the Python router, but within these. */
#define ANSWER_TIMEOUT_MIN_NS CLOCK_NS_PER_S
#define ANSWER_TIMEOUT_MAX_NS (10 * CLOCK_NS_PER_S)
#define START_MARK            "start "
#define SEEN_MARK             "seen "
enum { GENERATION_BYTES = BACKEND_TEXT_MAX + 64 };

/* What one answer changed, told to the log outside of the lock. */
struct news {
    enum engine_answer before;
    enum engine_answer now;
    bool first; /* It had never told anything before. */
    bool restarted;
    double start_before_s;       /* NaN: of another kind. */
    double capacity_tokens;      /* NaN: as before. */
    enum hashtrie_status status; /* Of noting its start. */
};

/* ---- Generations: which start of which process an engine is ----
 *
 * As the trie and the store keep it: "[NAME ][start SECONDS | seen SECONDS]". The name is what who
 * wishes for the engine calls the process (its pod's UID), the time what its metrics tell. Either
 * may come first, and the other one later; each that changes means another process.
 */
struct generation {
    struct span name;
    const char *time; /* "start ..." or "seen ...", to the end; "": neither. */
};

static struct generation read_generation(const char *text)
{
    static const char *const marks[] = {START_MARK, SEEN_MARK};
    for (size_t i = 0; i < 2; i++) {
        const char *mark = strncmp(text, marks[i], strlen(marks[i])) == 0 ? text : NULL;
        for (const char *at = text; mark == NULL && (at = strchr(at, ' ')) != NULL; at++) {
            mark = strncmp(at + 1, marks[i], strlen(marks[i])) == 0 ? at + 1 : NULL;
        }
        if (mark != NULL) {
            size_t before = (size_t)(mark - text);
            return (struct generation){{text, before == 0 ? 0 : before - 1}, mark};
        }
    }
    return (struct generation){{text, strlen(text)}, ""};
}

static void write_generation(struct span name, const char *time, char out[GENERATION_BYTES])
{
    int size = snprintf(out, GENERATION_BYTES, "%.*s%s%s", (int)name.size, name.data,
                        name.size > 0 && *time != '\0' ? " " : "", time);
    CHECK(size >= 0 && size < GENERATION_BYTES);
}

static double start_of_generation(struct generation generation)
{
    size_t mark = sizeof START_MARK - 1;
    return strncmp(generation.time, START_MARK, mark) == 0 ? strtod(generation.time + mark, NULL)
                                                           : NAN;
}

/* Where a start time is told, it decides. Else a counter that went down does, as long as this
 * router has watched it. */
static bool has_restarted(struct generation known, const struct discovery_figures *before,
                          const struct discovery_figures *now)
{
    if (isnan(now->start_time_s)) {
        return now->prompt_tokens < before->prompt_tokens;
    }
    return !(fabs(start_of_generation(known) - now->start_time_s) <= START_TIME_SLACK_S);
}

/* Lock held. `name` may point into what the trie knows. */
static enum hashtrie_status set_generation(struct router *router, hashtrie_endpoint holder,
                                           struct span name, const char *time, bool restarted)
{
    char text[GENERATION_BYTES];
    write_generation(name, time, text);
    return restarted ? hashtrie_endpoint_set_generation(router->trie, holder, text)
                     : trie_endpoint_refine(router->trie, holder, text);
}

void engines_note_generation(struct router *router, struct backend *backend, const char *generation)
{
    struct trie_endpoint stored;
    CHECK(trie_endpoint_get(router->trie, backend->holder, &stored));
    struct generation known = read_generation(stored.generation);
    struct span name = span_of(generation);
    if (span_equal(known.name, name)) {
        return;
    }
    bool restarted = known.name.size > 0;
    enum hashtrie_status status =
        set_generation(router, backend->holder, name, restarted ? "" : known.time, restarted);
    if (restarted && status == HASHTRIE_OK) {
        backend->engine.restart_count++;
        backend->engine.figures = discovery_figures_unknown(); /* Were the other one's. */
    }
}

/* ---- What follows ---- */

/* Lock held. */
static void note_start(struct router *router, struct backend *backend,
                       const struct discovery_figures *before, struct news *news)
{
    struct engine *engine = &backend->engine;
    const struct discovery_figures *now = &engine->figures;
    struct trie_endpoint stored;
    if ((isnan(now->start_time_s) && isnan(now->prompt_tokens)) ||
        !trie_endpoint_get(router->trie, backend->holder, &stored)) {
        return;
    }
    struct generation known = read_generation(stored.generation);
    bool is_known = *known.time != '\0';
    if (is_known && !has_restarted(known, before, now)) {
        return;
    }
    news->start_before_s = start_of_generation(known);
    char time[64];
    bool has_start = !isnan(now->start_time_s);
    (void)snprintf(time, sizeof time, "%s%.3f", has_start ? START_MARK : SEEN_MARK,
                   has_start ? now->start_time_s : engine->told_unix_s);
    news->status = set_generation(router, backend->holder, known.name, time, is_known);
    news->restarted = is_known && news->status == HASHTRIE_OK;
    engine->restart_count += news->restarted ? 1 : 0;
}

/* Lock held. */
static void note_capacity(struct router *router, struct backend *backend, double before,
                          struct news *news)
{
    double tokens = backend->engine.figures.kv_capacity_tokens;
    if (router->config->kv_capacity_tokens != 0 || isnan(tokens) || tokens == before) {
        return; /* The flag wins. */
    }
    hashtrie_endpoint_set_capacity(router->trie, backend->holder,
                                   (uint64_t)tokens * ROUTE_BYTES_PER_TOKEN);
    news->capacity_tokens = tokens;
}

/* Lock held. */
static void note_answer(struct router *router, struct backend *backend,
                        const struct discovery_result *result, struct news *news)
{
    static const enum engine_answer answers[] = {
        [DISCOVERY_TOLD] = ENGINE_TELLS,
        [DISCOVERY_NO_METRICS] = ENGINE_NO_METRICS,
        [DISCOVERY_FAILED] = ENGINE_SILENT,
    };
    struct engine *engine = &backend->engine;
    *news = (struct news){.before = engine->answer,
                          .now = answers[result->outcome],
                          .first = engine->told_unix_s == 0,
                          .capacity_tokens = NAN};
    engine->answer = news->now;
    if (result->outcome == DISCOVERY_FAILED) {
        engine->failure_count++;
    }
    if (result->outcome != DISCOVERY_TOLD) {
        return;
    }
    struct discovery_figures before = engine->figures;
    engine->figures = result->figures;
    if (isnan(engine->figures.kv_capacity_tokens)) {
        /* While it starts, vLLM says None. */
        engine->figures.kv_capacity_tokens = before.kv_capacity_tokens;
    }
    engine->told_unix_s = (double)net_unix_ns() / (double)CLOCK_NS_PER_S;
    note_start(router, backend, &before, news);
    note_capacity(router, backend, before.kv_capacity_tokens, news);
}

/* ---- Telling the log ---- */

static void log_change(struct log *log, const char *url, const struct news *news,
                       const char *reason)
{
    if (news->now == news->before) {
        return;
    }
    switch (news->now) {
    case ENGINE_TELLS:
        if (news->before == ENGINE_SILENT) {
            log_write(log, LOG_INFO, "Engine %s: its metrics can be read again", url);
        }
        break;
    case ENGINE_NO_METRICS:
        log_write(log, LOG_INFO,
                  "Engine %s serves no metrics (%s): its restarts and its cache size are not known",
                  url, reason);
        break;
    case ENGINE_SILENT:
        log_write(log, LOG_WARNING, "Engine %s: its metrics cannot be read: %s", url, reason);
        break;
    case ENGINE_UNASKED:
    default:
        break;
    }
}

static void log_restart(struct log *log, const char *url, double start_s, double start_before_s)
{
    if (isnan(start_s) || isnan(start_before_s)) {
        log_write(log, LOG_WARNING,
                  "Engine %s restarted (its counters began anew): the prefixes it held no longer "
                  "count",
                  url);
        return;
    }
    log_write(log, LOG_WARNING,
              "Engine %s restarted (started at %.3f, before that at %.3f): the prefixes it held no "
              "longer count",
              url, start_s, start_before_s);
}

static void log_news(struct log *log, const char *url, const struct news *news,
                     const struct engine *engine, const char *reason)
{
    log_change(log, url, news, reason);
    if (news->restarted) {
        log_restart(log, url, engine->figures.start_time_s, news->start_before_s);
    }
    if (news->status != HASHTRIE_OK) {
        log_write(log, LOG_WARNING, "Engine %s: its start cannot be noted: %s", url,
                  hashtrie_strerror(news->status));
    }
    if (!isnan(news->capacity_tokens)) {
        log_write(log, LOG_INFO, "Engine %s: its KV cache holds %.0f tokens", url,
                  news->capacity_tokens);
    }
    if (news->first && news->now == ENGINE_TELLS && isnan(engine->figures.start_time_s)) {
        log_write(log, LOG_INFO, "Engine %s: no process_start_time_seconds in its metrics: %s", url,
                  isnan(engine->figures.prompt_tokens)
                      ? "its restarts are not known"
                      : "a restart is known by its counters, while this router runs");
    }
}

static void on_result(void *user, void *engine_user, const struct discovery_result *result)
{
    struct router *router = user;
    struct backend *backend = engine_user;
    struct news news;
    hashtrie_lock(router->trie);
    note_answer(router, backend, result, &news);
    router->telling_count += news.now == ENGINE_TELLS ? 1 : 0;
    router->telling_count -= news.before == ENGINE_TELLS ? 1 : 0;
    hashtrie_unlock(router->trie);
    /* Nobody but this thread changes an engine: it may be read without the lock. */
    log_news(&router->workers[0].log, backend->url, &news, &backend->engine, result->reason);
}

/* ---- Health ---- */

static void on_health(void *user, void *engine_user, const struct discovery_result *result)
{
    struct router *router = user;
    struct backend *backend = engine_user;
    struct engine *engine = &backend->engine;
    struct log *log = &router->workers[0].log;
    size_t endpoint = backend->number;
    const char *url = backend->url;
    bool is_well = result->outcome == DISCOVERY_TOLD;
    hashtrie_lock(router->trie);
    bool was_up = route_endpoint_is_up(router->fleet, endpoint);
    engine->sick_count = is_well ? 0 : engine->sick_count + 1;
    engine->well_count = is_well ? engine->well_count + 1 : 0;
    bool up = was_up ? engine->sick_count < router->config->health_check_fall
                     : engine->well_count >= router->config->health_check_rise;
    route_endpoint_set_up(router->fleet, endpoint, up);
    if (up && !was_up) {
        route_endpoint_warm_up(router->fleet, endpoint, net_now_ns());
    }
    if (up) {
        queue_grant_all(router);
    }
    hashtrie_unlock(router->trie);
    if (up && !was_up) {
        log_write(log, LOG_INFO, "Engine %s is healthy again", url);
    } else if (!up && was_up) {
        log_write(log, LOG_WARNING,
                  "Engine %s is unhealthy (%s): it gets no requests, its prefixes are kept", url,
                  result->reason);
    }
}

/* ---- In a hurry ---- */

/* Lock held. True: the first loop is to be woken. */
static bool suspect(struct router *router, size_t endpoint)
{
    struct list *link = &router->backends[endpoint]->engine.suspected;
    if ((router->discovery == NULL && router->checks == NULL) || !list_empty(link)) {
        return false;
    }
    list_push_back(&router->suspected, link);
    return true;
}

void engines_suspect(struct worker *worker, size_t endpoint)
{
    struct router *router = worker->router;
    hashtrie_lock(router->trie);
    bool wake = suspect(router, endpoint);
    hashtrie_unlock(router->trie);
    if (wake) {
        net_wake_send(router->workers[0].wake);
    }
}

void engines_failed(struct worker *worker, size_t endpoint)
{
    struct router *router = worker->router;
    hashtrie_lock(router->trie);
    bool wake = suspect(router, endpoint);
    uint64_t pause_ns = route_endpoint_failed(router->fleet, endpoint, net_now_ns());
    router->backends[endpoint]->engine.ejection_count += pause_ns > 0 ? 1 : 0;
    hashtrie_unlock(router->trie);
    if (wake) {
        net_wake_send(router->workers[0].wake);
    }
    if (pause_ns > 0) {
        log_write(&worker->log, LOG_WARNING,
                  "Engine %s failed again and again: ejected for %.3f s, its prefixes are kept",
                  router->backends[endpoint]->url, (double)pause_ns / (double)CLOCK_NS_PER_S);
    }
}

void engines_take_suspected(struct router *router)
{
    struct engine *engine = NULL;
    do {
        engine = NULL;
        hashtrie_lock(router->trie);
        if (!list_empty(&router->suspected)) {
            engine = LIST_ITEM(router->suspected.next, struct engine, suspected);
            list_remove(&engine->suspected);
        }
        hashtrie_unlock(router->trie);
        if (engine != NULL && engine->asked != NULL) {
            discovery_hurry(engine->asked);
        }
        if (engine != NULL && engine->checked != NULL) {
            discovery_hurry(engine->checked);
        }
    } while (engine != NULL);
}

/* ---- Life ---- */

void engine_init(struct engine *engine)
{
    *engine = (struct engine){.figures = discovery_figures_unknown()};
    list_init(&engine->suspected);
}

bool engines_ask(struct router *router, struct backend *backend)
{
    struct engine *engine = &backend->engine;
    hashtrie_lock(router->trie);
    engine->sick_count = 0;
    engine->well_count = 0;
    hashtrie_unlock(router->trie);
    if (router->discovery != NULL) {
        engine->asked = discovery_add(router->discovery, backend->url, backend);
    }
    if (router->checks != NULL) {
        engine->checked = discovery_add(router->checks, backend->url, backend);
    }
    bool asked = (router->discovery == NULL || engine->asked != NULL) &&
                 (router->checks == NULL || engine->checked != NULL);
    if (!asked) {
        engines_unask(router, backend);
    }
    return asked;
}

void engines_unask(struct router *router, struct backend *backend)
{
    struct engine *engine = &backend->engine;
    discovery_remove(engine->asked);
    discovery_remove(engine->checked);
    engine->asked = NULL;
    engine->checked = NULL;
    hashtrie_lock(router->trie);
    router->telling_count -= engine->answer == ENGINE_TELLS ? 1 : 0;
    engine->answer = ENGINE_UNASKED;
    hashtrie_unlock(router->trie);
}

void engines_forget(struct backend *backend)
{
    list_remove(&backend->engine.suspected);
}

static struct discovery *start(struct router *router, struct discovery_options options)
{
    struct worker *first = &router->workers[0];
    options.seed = random_system_seed();
    options.user = router;
    options.authorization = router->keys.engine_header;
    options.ca_file = router->config->backend_ca_file;
    options.cert_file = router->config->backend_cert_file;
    options.key_file = router->config->backend_key_file;
    return discovery_new(first->loop, &first->mem, &options);
}

static bool start_asking(struct router *router)
{
    uint64_t interval_ns = router->config->engine_stats_interval_ns;
    if (interval_ns == 0) {
        return true;
    }
    uint64_t timeout_ns = interval_ns > ANSWER_TIMEOUT_MIN_NS ? interval_ns : ANSWER_TIMEOUT_MIN_NS;
    struct discovery_options options = {
        .question = DISCOVERY_METRICS,
        .interval_ns = interval_ns,
        .timeout_ns = timeout_ns < ANSWER_TIMEOUT_MAX_NS ? timeout_ns : ANSWER_TIMEOUT_MAX_NS,
        .on_result = on_result,
    };
    router->discovery = start(router, options);
    return router->discovery != NULL;
}

static bool start_checking(struct router *router)
{
    const struct config *config = router->config;
    if (!config->health_checks) {
        return true;
    }
    struct discovery_options options = {
        .question = DISCOVERY_HEALTH,
        .interval_ns = config->health_check_interval_ns,
        .timeout_ns = config->health_check_timeout_ns,
        .on_result = on_health,
    };
    router->checks = start(router, options);
    return router->checks != NULL;
}

bool engines_start(struct router *router)
{
    if (!start_asking(router) || !start_checking(router)) {
        log_write(router->log, LOG_ERROR, "Engines cannot be asked how they are: out of memory");
        return false;
    }
    return true;
}

void engines_stop(struct router *router)
{
    discovery_free(router->discovery);
    discovery_free(router->checks);
    router->discovery = NULL;
    router->checks = NULL;
}
