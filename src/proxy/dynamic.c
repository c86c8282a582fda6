#include "proxy/dynamic.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "metrics/metrics.h"
#include "proxy/backends.h"

enum { MESSAGES_BYTES_MAX = 64 * 1024, FOLDER_BYTES_MAX = CONFIG_TEXT_BYTES_MAX };

struct dynamic {
    struct router *router;
    const char *path;
    char folder[FOLDER_BYTES_MAX];
    struct net_watch *watch;
    struct net_timer *quiet; /* Runs since the last event. */
    struct net_timer *poll;
    struct net_timer *overlap; /* Runs: backends of before are still there. */
    uint64_t text_hash;        /* Of the text that was read last. */
    bool unreadable;           /* The last time. */
    atomic_bool refused;       /* The last one was. */
    _Atomic uint64_t applied_count;
    _Atomic uint64_t refused_count;
    _Atomic uint64_t applied_unix_s;
};

/* ---- Applying ---- */

static void fill(struct backend_wish *wishes, const struct config *config)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        wishes[i] = (struct backend_wish){.url = config->backends[i].url,
                                          .models = &config->backends[i].model,
                                          .model_count = 1,
                                          .label = config->backends[i].label};
    }
}

/* The backends of `config`, and those of `before` (NULL: none) beside them. */
static bool set_backends(struct router *router, const struct config *config,
                         const struct config *before, struct buf *why)
{
    size_t count = config->backend_count + (before != NULL ? before->backend_count : 0);
    size_t size = (count + 1) * sizeof(struct backend_wish);
    struct backend_wish *wishes = mem_alloc_zero(&router->mem, size);
    if (wishes == NULL) {
        return backends_refuse(why, "out of memory");
    }
    fill(wishes, config);
    if (before != NULL) {
        fill(wishes + config->backend_count, before);
    }
    bool set = router_set_backends(router, wishes, count, why);
    mem_free(&router->mem, wishes, size);
    return set;
}

static void set_routing(struct router *router, enum config_routing routing)
{
    hashtrie_lock(router->trie);
    router->routing = routing;
    hashtrie_unlock(router->trie);
}

static bool are_aliases_same(const struct config *a, const struct config *b)
{
    bool same = a->alias_count == b->alias_count;
    for (size_t i = 0; i < a->alias_count && same; i++) {
        same = strcmp(a->aliases[i].name, b->aliases[i].name) == 0 &&
               strcmp(a->aliases[i].model, b->aliases[i].model) == 0;
    }
    return same;
}

/* What the settings say, but for the settings themselves. *overlaps: what was before is still
 * there. False: nothing has changed. */
static bool apply(struct router *router, const struct config *config, bool *overlaps,
                  struct buf *why)
{
    const struct config *before = router->settings->config;
    enum config_routing routing = router->routing;
    set_routing(router, config->routing);
    if (router->config->kubernetes) {
        return true; /* It tells the backends. */
    }
    *overlaps = !are_aliases_same(config, before) && set_backends(router, config, before, why);
    bool set = *overlaps || set_backends(router, config, NULL, why);
    if (!set) {
        set_routing(router, routing);
    }
    return set;
}

static void on_overlap_over(void *user)
{
    struct dynamic *dynamic = user;
    struct router *router = dynamic->router;
    struct buf why;
    buf_init(&why, &router->mem, BACKENDS_WHY_MAX);
    if (!set_backends(router, router->settings->config, NULL, &why)) {
        net_timer_start(dynamic->overlap, DYNAMIC_OVERLAP_NS); /* Memory is out: later. */
    }
    buf_fini(&why);
}

/* ---- Loading ---- */

static void log_lines(const struct dynamic *dynamic, enum log_level level, const struct buf *lines)
{
    struct log *log = &dynamic->router->workers[0].log;
    const char *text = lines->data;
    size_t size = lines->size;
    const char *line = NULL;
    size_t line_size = 0;
    while (config_message_next(&text, &size, &line, &line_size)) {
        log_write(log, level, "Configuration: %.*s", (int)line_size, line);
    }
}

static void note_refused(struct dynamic *dynamic, const struct buf *why)
{
    struct log *log = &dynamic->router->workers[0].log;
    log_write(log, LOG_ERROR, "Configuration %s is refused, the one before stays:", dynamic->path);
    log_lines(dynamic, LOG_ERROR, why);
    atomic_store(&dynamic->refused, true);
    atomic_fetch_add(&dynamic->refused_count, 1);
}

static void note_applied(struct dynamic *dynamic)
{
    const struct router *router = dynamic->router;
    log_write(&router->workers[0].log, LOG_INFO,
              "Configuration %s is applied: %zu backends, %zu aliases, %s", dynamic->path,
              router->settings->config->backend_count, router->settings->config->alias_count,
              router->settings->config->routing_logic);
    atomic_store(&dynamic->refused, false);
    atomic_fetch_add(&dynamic->applied_count, 1);
    atomic_store(&dynamic->applied_unix_s, net_unix_ns() / CLOCK_NS_PER_S);
}

static void load(struct dynamic *dynamic)
{
    struct router *router = dynamic->router;
    struct buf messages;
    bool overlaps = false;
    buf_init(&messages, &router->mem, MESSAGES_BYTES_MAX);
    struct settings *settings = settings_load(router->config, &messages, &dynamic->text_hash);
    if (settings == NULL) {
        note_refused(dynamic, &messages);
    } else {
        log_lines(dynamic, LOG_WARNING, &messages);
        messages.size = 0;
        if (apply(router, settings->config, &overlaps, &messages)) {
            settings_publish(router, settings);
            note_applied(dynamic);
        } else {
            settings_let_go(settings);
            note_refused(dynamic, &messages);
        }
    }
    if (overlaps) {
        net_timer_start(dynamic->overlap, DYNAMIC_OVERLAP_NS);
    }
    buf_fini(&messages);
}

/* ---- When ---- */

static void check(struct dynamic *dynamic)
{
    struct router *router = dynamic->router;
    uint64_t hash = 0;
    const char *problem = NULL;
    bool readable = config_file_hash(dynamic->path, &router->mem, &hash, &problem);
    if (readable ? hash != dynamic->text_hash : !dynamic->unreadable) {
        load(dynamic);
    }
    dynamic->unreadable = !readable;
}

static void on_quiet(void *user)
{
    check(user);
}

static void on_event(void *user)
{
    struct dynamic *dynamic = user;
    net_timer_start(dynamic->quiet, DYNAMIC_QUIET_NS);
}

/* The folder may be another one of the same name by now. */
static void on_poll(void *user)
{
    struct dynamic *dynamic = user;
    check(dynamic);
    (void)net_watch_start(dynamic->watch, dynamic->folder); /* Not: it is polled. */
    net_timer_start(dynamic->poll, DYNAMIC_POLL_NS);
}

void dynamic_reload(struct router *router)
{
    if (router->dynamic != NULL) {
        load(router->dynamic);
    }
}

/* ---- Life ---- */

static bool start_watching(struct dynamic *dynamic)
{
    struct net_loop *loop = dynamic->router->workers[0].loop;
    const char *slash = strrchr(dynamic->path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - dynamic->path) + 1;
    CHECK(size < sizeof dynamic->folder); /* A text of an option is no longer. */
    memcpy(dynamic->folder, dynamic->path, size);
    memcpy(dynamic->folder + size, size == 0 ? "." : "", size == 0 ? 2 : 1);
    dynamic->watch = net_watch_new(loop, on_event, dynamic);
    dynamic->quiet = net_timer_new(loop, on_quiet, dynamic);
    dynamic->poll = net_timer_new(loop, on_poll, dynamic);
    dynamic->overlap = net_timer_new(loop, on_overlap_over, dynamic);
    if (dynamic->watch == NULL || dynamic->quiet == NULL || dynamic->poll == NULL ||
        dynamic->overlap == NULL) {
        return false;
    }
    if (!net_watch_start(dynamic->watch, dynamic->folder)) {
        log_write(dynamic->router->log, LOG_WARNING,
                  "%s cannot be watched: %s is read every %llu s", dynamic->folder, dynamic->path,
                  (unsigned long long)(DYNAMIC_POLL_NS / CLOCK_NS_PER_S));
    }
    net_timer_start(dynamic->poll, DYNAMIC_POLL_NS);
    return true;
}

static bool start_file(struct router *router)
{
    const char *path = config_dynamic_file(router->config);
    if (path == NULL) {
        return true;
    }
    struct dynamic *dynamic = mem_alloc_zero(&router->mem, sizeof *dynamic);
    if (dynamic == NULL) {
        return false;
    }
    router->dynamic = dynamic;
    dynamic->router = router;
    dynamic->path = path;
    dynamic->text_hash = router->config->file_hash;
    atomic_init(&dynamic->applied_unix_s, net_unix_ns() / CLOCK_NS_PER_S);
    return start_watching(dynamic);
}

bool dynamic_start(struct router *router)
{
    struct buf why;
    buf_init(&why, &router->mem, BACKENDS_WHY_MAX);
    bool started = (set_backends(router, router->config, NULL, &why) && start_file(router)) ||
                   (why.size == 0 && backends_refuse(&why, "out of memory"));
    if (!started) {
        log_write(router->log, LOG_ERROR, "Backends: %.*s", (int)why.size, why.data);
    }
    buf_fini(&why);
    return started;
}

void dynamic_stop(struct router *router)
{
    struct dynamic *dynamic = router->dynamic;
    if (dynamic != NULL) {
        net_watch_close(dynamic->watch);
        net_timer_close(dynamic->quiet);
        net_timer_close(dynamic->poll);
        net_timer_close(dynamic->overlap);
        mem_free(&router->mem, dynamic, sizeof *dynamic);
        router->dynamic = NULL;
    }
}

void dynamic_scrape(struct router *router, struct metrics_writer *writer)
{
    struct dynamic *dynamic = router->dynamic;
    if (dynamic == NULL) {
        return;
    }
    metrics_family(writer, "hashtrie_config_reloads_total", METRICS_COUNTER,
                   "Times that the dynamic configuration file was read again.");
    metrics_sample_u64(writer, atomic_load(&dynamic->applied_count),
                       METRICS_LABEL("outcome", "applied"));
    metrics_sample_u64(writer, atomic_load(&dynamic->refused_count),
                       METRICS_LABEL("outcome", "refused"));
    metrics_single_u64(writer, "hashtrie_config_last_reload_successful", METRICS_GAUGE,
                       "0: the file as it is now is refused, and the one before stays in use.",
                       atomic_load(&dynamic->refused) ? 0 : 1);
    metrics_single_u64(writer, "hashtrie_config_last_success_timestamp_seconds", METRICS_GAUGE,
                       "When what is in use was applied.", atomic_load(&dynamic->applied_unix_s));
}
