/*
 * Start and end of a router.
 *
 *     trie -> store (restores) -> endpoints -> workers -> listeners -> "listening on ..."
 *     signal -> drain -> workers end -> store's last checkpoint -> everything freed
 */
#include "proxy/router.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/signals.h"
#include "proxy/backends.h"
#include "proxy/crash.h"
#include "proxy/dynamic.h"
#include "proxy/engines.h"
#include "proxy/kubernetes.h"
#include "proxy/proxy.h"
#include "proxy/reload.h"
#include "proxy/tls.h"
#include "proxy/traces.h"

enum {
    RELOAD_THREADS = 2,
    KIB_BITS = 10,
    MIB_BITS = 20,
    FILES_ASSUMED = 1024,
    FILES_OF_OTHERS = 128,     /* Save for one a backend. */
    FILES_OF_KUBERNETES = 512, /* For backends that are not known yet, and questions to them. */
    CLOSE_TIMEOUT_MS = 30000,  /* For the last checkpoint. */
};

/* ---- Start ---- */

/* Returns the limit. */
static uint64_t raise_file_limit(struct log *log)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        log_write(log, LOG_WARNING, "The limit of open files cannot be read");
        return FILES_ASSUMED;
    }
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (before != limit.rlim_max && setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        log_write(log, LOG_WARNING, "The limit of open files stays at %llu",
                  (unsigned long long)before);
        return before;
    }
    return limit.rlim_max;
}

/* A request takes two descriptors, its client's and its engine's; others are for listeners, idle
 * connections to engines, the store and the log. */
static void open_doors(struct router *router)
{
    const struct config *config = router->config;
    uint64_t files = raise_file_limit(router->log);
    uint64_t others =
        FILES_OF_OTHERS + (config->kubernetes ? FILES_OF_KUBERNETES : config->backend_count);
    uint64_t bearable = files > others + 2 ? (files - others) / 2 : 1;
    uint64_t wanted = config->connections_max;
    if (wanted > bearable) {
        log_write(router->log, LOG_WARNING,
                  "--max-connections %llu needs a limit of open files of %llu; it is %llu: beyond "
                  "some %llu connections requests may fail",
                  (unsigned long long)wanted,
                  (unsigned long long)wanted * 2 + (unsigned long long)others,
                  (unsigned long long)files, (unsigned long long)bearable);
    }
    doors_init(&router->doors, wanted > 0 ? wanted : bearable, config->address_connections_max,
               random_system_seed());
}

static void init_admission(struct router *router)
{
    const struct config *config = router->config;
    struct admit_limits limits = {
        .running_max = config->requests_max > 0 ? config->requests_max : UINT64_MAX,
        .waiting_max = config->queued_max,
        .waiting_of_client_max = config->client_queued_max,
    };
    admit_init(&router->admit, &limits, random_system_seed());
}

static bool make_trie(struct router *router)
{
    const struct config *config = router->config;
    struct hashtrie_options options = hashtrie_options_default((size_t)config->memory_bytes);
    options.threshold = config->eviction_threshold;
    options.target = config->target_utilization;
    options.chunk_size = config->chunk_size;
    options.max_entry_age_s = (uint32_t)(config->max_entry_age_ns / CLOCK_NS_PER_S);
    options.seed = random_system_seed();
    enum hashtrie_status status = hashtrie_new(&options, &router->trie);
    if (status != HASHTRIE_OK) {
        log_write(router->log, LOG_ERROR, "The trie cannot be made: %s", hashtrie_strerror(status));
        return false;
    }
    router->fleet = route_fleet_new(&router->fleet_mem, random_system_seed());
    if (router->fleet == NULL) {
        return false;
    }
    route_fleet_set_limit(router->fleet, config->backend_requests_max);
    route_fleet_set_ejection(router->fleet, config->eject_after_failures, config->eject_time_ns);
    route_fleet_set_slow_start(router->fleet, config->slow_start_ns);
    return true;
}

/* From any of the store's threads: a line of its own, written at once. */
static void on_store_event(void *user, enum hashtrie_event_level level, const char *text)
{
    const struct router *router = user;
    static const enum log_level levels[] = {
        [HASHTRIE_EVENT_ERROR] = LOG_ERROR,
        [HASHTRIE_EVENT_WARNING] = LOG_WARNING,
        [HASHTRIE_EVENT_INFO] = LOG_INFO,
    };
    struct log log;
    log_init(&log, router->log->fd, router->log->level, router->log->format);
    log_write(&log, levels[level], "Store: %s", text);
    log_fini(&log);
}

/* What was found, and the cap in force: the option's, or 90 % of what the device has room for. */
static void log_store(struct router *router)
{
    struct hashtrie_store_stats stats;
    struct hashtrie_stats trie_stats;
    hashtrie_store_get_stats(router->store, &stats);
    if (!stats.up) {
        log_write(router->log, LOG_WARNING, "Store %s: %s; requests are served from memory alone",
                  router->config->store_path, hashtrie_store_state_name(stats.state));
        return;
    }
    hashtrie_lock(router->trie);
    hashtrie_get_stats(router->trie, &trie_stats);
    hashtrie_unlock(router->trie);
    log_write(router->log, LOG_INFO,
              "Store %s: %llu nodes and %llu endpoints in %llu KiB, at most %llu MiB%s; "
              "memory for the index: at most %llu MiB",
              router->config->store_path, (unsigned long long)stats.node_count,
              (unsigned long long)trie_stats.endpoint_count,
              (unsigned long long)(stats.bytes >> KIB_BITS),
              (unsigned long long)(stats.max_bytes >> MIB_BITS),
              stats.max_bytes < router->config->store_bytes_max
                  ? " (less than asked for: 90 % of the free space)"
                  : "",
              (unsigned long long)(trie_stats.bytes_budget >> MIB_BITS));
}

static bool open_store(struct router *router)
{
    const struct config *config = router->config;
    if (!config->store_enabled) {
        return true;
    }
    struct hashtrie_store_options options = hashtrie_store_options_default(config->store_path);
    options.max_bytes = config->store_bytes_max;
    options.checkpoint_interval_ms = (uint32_t)(config->checkpoint_interval_ns / CLOCK_NS_PER_MS);
    options.reload_thread_count = RELOAD_THREADS;
    options.chunk_size = config->chunk_size;
    options.snapshot_directory = config->snapshot_directory;
    options.snapshot_interval_s = (uint32_t)(config->snapshot_interval_ns / CLOCK_NS_PER_S);
    options.snapshot_keep = config->snapshot_keep;
    options.crash_mark = crash_mark_install();
    options.on_event = on_store_event;
    options.user = router;
    enum hashtrie_status status = hashtrie_store_open(router->trie, &options, &router->store);
    if (status != HASHTRIE_OK) {
        log_write(router->log, LOG_ERROR, "The store %s cannot be opened: %s%s", config->store_path,
                  hashtrie_strerror(status),
                  status == HASHTRIE_EINVAL
                      ? ": --store-path names a folder, and the data.mdb in it is a file"
                      : "");
        return false;
    }
    log_store(router);
    return true;
}

static bool make_workers(struct router *router)
{
    size_t count = router->config->thread_count > 0 ? router->config->thread_count : 1;
    router->workers = mem_alloc_zero(&router->mem, count * sizeof *router->workers);
    if (router->workers == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        router->worker_count = i + 1;
        if (!worker_init(&router->workers[i], router, i)) {
            log_write(router->log, LOG_ERROR,
                      "Thread %zu cannot be set up: out of memory or descriptors", i);
            return false;
        }
    }
    return true;
}

static void tell(struct router *router)
{
    const struct config *config = router->config;
    log_write(router->log, LOG_INFO,
              "hashtrie-router %s listening on %s:%u (%zu backends, %zu threads, %s, store %s)",
              hashtrie_version(), router->listening.host, (unsigned)router->listening.port,
              atomic_load(&router->backend_count), router->worker_count, config->routing_logic,
              config->store_enabled ? config->store_path : "off");
    life_tell_started(router);
    log_flush(router->log);
}

static bool start_settings(struct router *router)
{
    atomic_init(&router->settings, settings_new(router->config));
    if (atomic_load(&router->settings) == NULL) {
        log_write(router->log, LOG_ERROR, "Out of memory");
        return false;
    }
    return true;
}

struct router *router_new(const struct config *config, struct log *log)
{
    life_die_of_signals();
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct router *router = mem_alloc_zero(&mem, sizeof *router);
    if (router == NULL) {
        log_write(log, LOG_ERROR, "Out of memory");
        return NULL;
    }
    router->mem = mem;
    mem_init(&router->fleet_mem, SIZE_MAX);
    list_init(&router->suspected);
    router->config = config;
    router->log = log;
    router->start_unix_s = net_unix_ns() / CLOCK_NS_PER_S;
    atomic_init(&router->others_running, 0);
    atomic_init(&router->phase, ROUTER_SERVING);
    atomic_init(&router->store_settled, false);
    router->store_until_ns = net_now_ns() + config->store_wait_ns;
    host_init(&router->host);
    router->figures_due_ns = net_now_ns() + config->log_stats_interval_ns;
    bodies_init(&router->bodies, config->buffered_bytes_max, config->body_bytes_max);
    pthread_mutex_init(&router->log_mutex, NULL);
    open_doors(router);
    init_admission(router);
    router->routing = config->routing;
    if (start_settings(router) && keys_start(router) && tls_start(router) &&
        admin_read_key(router) && make_trie(router) && open_store(router) && make_workers(router) &&
        life_watch_signals(router) && reload_watch(router) && engines_start(router) &&
        dynamic_start(router) && kubernetes_start(router) && traces_start(router) &&
        router_listen(router)) {
        tell(router);
        return router;
    }
    log_flush(log);
    router_free(router);
    return NULL;
}

/* ---- End ---- */

static void close_store(struct router *router)
{
    if (router->store == NULL) {
        return;
    }
    enum hashtrie_status status = hashtrie_store_close(router->store, CLOSE_TIMEOUT_MS);
    router->store = NULL;
    if (status != HASHTRIE_OK) {
        log_write(router->log, LOG_WARNING, "The last checkpoint was not completed: %s",
                  hashtrie_strerror(status));
    }
}

void router_free(struct router *router)
{
    if (router == NULL) {
        return;
    }
    close_store(router); /* Ends its threads: nobody sends wakes any more. */
    life_unwatch_signals(router);
    reload_unwatch(router);
    kubernetes_stop(router);
    dynamic_stop(router);
    engines_stop(router);
    traces_stop(router);
    for (size_t i = 0; i < router->worker_count; i++) {
        worker_fini(&router->workers[i]);
    }
    size_t thread_count = router->config->thread_count > 0 ? router->config->thread_count : 1;
    struct mem *mem = &router->mem;
    mem_free(mem, router->workers, thread_count * sizeof *router->workers);
    backends_free(router);
    settings_let_go(atomic_load(&router->settings));
    if (router->fleet != NULL) {
        route_fleet_free(router->fleet);
    }
    mem_fini(&router->fleet_mem);
    hashtrie_free(router->trie);
    admit_fini(&router->admit);
    doors_fini(&router->doors);
    pthread_mutex_destroy(&router->log_mutex);
    tls_stop(router);
    keys_stop(router);
    mem_free_text(mem, router->admin_key);
    struct mem last = router->mem;
    mem_free(&last, router, sizeof *router);
    mem_fini(&last);
}

/* ---- Running ---- */

static void *run_worker(void *user)
{
    worker_run(user);
    return NULL;
}

/* Threads for all workers but the first. They take no signals: those are the main thread's. */
static bool start_threads(struct router *router)
{
    sigset_t before;
    signals_block(&before);
    bool started = true;
    for (size_t i = 1; i < router->worker_count && started; i++) {
        struct worker *worker = &router->workers[i];
        atomic_fetch_add(&router->others_running, 1);
        worker->thread_started = pthread_create(&worker->thread, NULL, run_worker, worker) == 0;
        started = worker->thread_started;
        if (!started) {
            atomic_fetch_sub(&router->others_running, 1);
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static void join_threads(struct router *router)
{
    for (size_t i = 1; i < router->worker_count; i++) {
        if (router->workers[i].thread_started) {
            (void)pthread_join(router->workers[i].thread, NULL); /* It was started. */
            router->workers[i].thread_started = false;
        }
    }
}

bool router_run(struct router *router)
{
    bool running = start_threads(router);
    if (running) {
        worker_run(&router->workers[0]);
    } else {
        log_write(router->log, LOG_ERROR, "Threads cannot be started");
        life_enter(router, ROUTER_CUTTING);
    }
    join_threads(router);
    traces_flush(router);
    life_die_of_signals();
    close_store(router);
    if (running) {
        log_write(router->log, LOG_INFO, "Ended in order");
    }
    return running;
}
