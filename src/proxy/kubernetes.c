#include "proxy/kubernetes.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "discovery/discovery.h"
#include "metrics/metrics.h"
#include "proxy/backends.h"
#include "proxy/models.h"

static struct log *log_of(struct router *router)
{
    return &router->workers[0].log;
}

/* Models are numbered for ever. Names beyond what there are numbers for are left out: an engine
 * that says others each time must not hold up the set of all. Returns how many are taken. */
static size_t take_names(struct router *router, const struct kube_engine *engine, size_t *room,
                         const char **out)
{
    size_t count = 0;
    for (size_t i = 0; i < engine->model_count; i++) {
        const char *name = engine->models[i];
        bool is_known = route_model_find(router->fleet, name, strlen(name)) >= 0;
        if (is_known || *room > 0) {
            *room -= is_known ? 0 : 1;
            out[count++] = name;
        }
    }
    if (count < engine->model_count) {
        log_write(log_of(router), LOG_WARNING,
                  "Kubernetes: %zu models of %s are left out: %d have been known since the start",
                  engine->model_count - count, engine->url, ROUTE_MODELS_MAX);
    }
    return count;
}

/* `names` has room for all models. */
static void write_wishes(struct router *router, const struct kube_engine *engines, size_t count,
                         struct backend_wish *wishes, const char **names)
{
    size_t room = ROUTE_MODELS_MAX - route_model_count(router->fleet);
    for (size_t i = 0; i < count; i++) {
        wishes[i] =
            (struct backend_wish){.url = engines[i].url,
                                  .models = names,
                                  .model_count = take_names(router, &engines[i], &room, names),
                                  .label = engines[i].label,
                                  .id = engines[i].id,
                                  .generation = engines[i].generation,
                                  .sleeping = engines[i].sleeping};
        names += wishes[i].model_count;
    }
}

static bool on_engines(void *user, const struct kube_engine *engines, size_t count)
{
    struct router *router = user;
    struct mem *mem = &router->workers[0].mem;
    struct buf why;
    buf_init(&why, mem, BACKENDS_WHY_MAX);
    size_t name_count = 1;
    for (size_t i = 0; i < count; i++) {
        name_count += engines[i].model_count;
    }
    size_t size = (count + 1) * sizeof(struct backend_wish);
    struct backend_wish *wishes = mem_alloc_zero(mem, size);
    const char **names = mem_alloc(mem, name_count * sizeof(const char *));
    bool set = false;
    if (wishes != NULL && names != NULL) {
        write_wishes(router, engines, count, wishes, names);
        set = router_set_backends(router, wishes, count, &why);
    }
    if (set) {
        log_write(log_of(router), LOG_DEBUG, "Kubernetes: %zu backends now", count);
    } else {
        log_write(log_of(router), LOG_WARNING,
                  "Kubernetes: the set of %zu backends is not taken, the one before stays: %.*s",
                  count, why.size > 0 ? (int)why.size : 13,
                  why.size > 0 ? why.data : "out of memory");
    }
    mem_free(mem, names, name_count * sizeof(const char *));
    mem_free(mem, wishes, size);
    buf_fini(&why);
    return set;
}

static void on_note(void *user, bool is_warning, const char *text)
{
    log_write(log_of(user), is_warning ? LOG_WARNING : LOG_INFO, "Kubernetes: %s", text);
}

static const char *look_up(void *user, const char *name)
{
    (void)user;
    return getenv(name);
}

bool kubernetes_start(struct router *router)
{
    const struct config *config = router->config;
    if (!config->kubernetes) {
        return true;
    }
    struct worker *first = &router->workers[0];
    if (config->k8s_known_models != NULL) {
        hashtrie_lock(router->trie);
        models_know(router, span_of(config->k8s_known_models));
        hashtrie_unlock(router->trie);
    }
    struct kube_options options = {.services = config->k8s_services,
                                   .namespace = config->k8s_namespace,
                                   .selector =
                                       config->k8s_selector != NULL ? config->k8s_selector : "",
                                   .port = config->k8s_port,
                                   .watch_ns = config->k8s_watch_ns,
                                   .relist_ns = config->k8s_relist_ns,
                                   .ask_ns = config->k8s_models_ns,
                                   .timeout_ns = config->k8s_probe_timeout_ns,
                                   .authorization = router->keys.engine_header,
                                   .seed = random_system_seed(),
                                   .lookup = look_up,
                                   .on_engines = on_engines,
                                   .on_note = on_note,
                                   .user = router};
    struct buf why;
    buf_init(&why, &first->mem, BACKENDS_WHY_MAX);
    router->kube = kube_new(first->loop, &first->mem, &options, &why);
    if (router->kube == NULL) {
        log_write(router->log, LOG_ERROR, "Kubernetes: %.*s", (int)why.size, why.data);
    }
    buf_fini(&why);
    return router->kube != NULL;
}

void kubernetes_stop(struct router *router)
{
    kube_free(router->kube);
    router->kube = NULL;
}

bool kubernetes_is_settled(const struct router *router)
{
    return router->kube == NULL || kube_is_settled(router->kube);
}

/* ---- Metrics ---- */

static void write_counter(struct metrics_writer *writer, const struct kube_stats *stats,
                          const char *name, const char *help, size_t field)
{
    metrics_family(writer, name, METRICS_COUNTER, help);
    for (size_t i = 0; i < KUBE_COLLECTIONS && stats->collections[i].name != NULL; i++) {
        const char *collection = (const char *)&stats->collections[i];
        uint64_t count = *(const uint64_t *)(const void *)(collection + field);
        metrics_sample(writer, (double)count,
                       METRICS_LABEL("resource", stats->collections[i].name));
    }
}

static void write_ages(struct metrics_writer *writer, const struct kube_stats *stats)
{
    metrics_family(writer, "hashtrie_kubernetes_sync_age_seconds", METRICS_GAUGE,
                   "Since the API server last told something of a resource.");
    uint64_t now_ns = net_now_ns();
    for (size_t i = 0; i < KUBE_COLLECTIONS && stats->collections[i].name != NULL; i++) {
        uint64_t heard_ns = stats->collections[i].heard_ns;
        if (heard_ns > 0) {
            uint64_t age_ns = now_ns > heard_ns ? now_ns - heard_ns : 0;
            metrics_sample(writer, (double)age_ns / (double)CLOCK_NS_PER_S,
                           METRICS_LABEL("resource", stats->collections[i].name));
        }
    }
}

static void write_engines(struct metrics_writer *writer, const struct kube_stats *stats)
{
    const struct {
        const char *state;
        uint64_t count;
    } samples[] = {{"known", stats->known}, {"ready", stats->ready}, {"serving", stats->serving}};
    metrics_family(writer, "hashtrie_kubernetes_engines", METRICS_GAUGE,
                   "Pods or services that are known; of these, ready; of these, known to serve a "
                   "model.");
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        metrics_sample(writer, (double)samples[i].count, METRICS_LABEL("state", samples[i].state));
    }
}

void kubernetes_write_metrics(const struct router *router, struct metrics_writer *writer)
{
    static const struct {
        const char *name;
        const char *help;
        size_t field;
    } counters[] = {
        {"hashtrie_kubernetes_lists_total", "LISTs that came to their end.",
         offsetof(struct kube_collection, lists)},
        {"hashtrie_kubernetes_watches_total", "WATCHes that were begun.",
         offsetof(struct kube_collection, watches)},
        {"hashtrie_kubernetes_events_total", "Changes that were told.",
         offsetof(struct kube_collection, events)},
        {"hashtrie_kubernetes_expired_total", "Times that a version was too old (410).",
         offsetof(struct kube_collection, expired)},
        {"hashtrie_kubernetes_failures_total", "LISTs and WATCHes that failed.",
         offsetof(struct kube_collection, failures)},
    };
    if (router->kube == NULL) {
        return;
    }
    struct kube_stats stats = kube_get_stats(router->kube);
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        write_counter(writer, &stats, counters[i].name, counters[i].help, counters[i].field);
    }
    write_ages(writer, &stats);
    write_engines(writer, &stats);
}
