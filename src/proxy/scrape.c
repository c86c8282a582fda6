#include "proxy/scrape.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "metrics/metrics.h"
#include "proxy/backends.h"
#include "proxy/disagg.h"
#include "proxy/dynamic.h"
#include "proxy/engines.h"
#include "proxy/kubernetes.h"
#include "proxy/scrape_series.h"
#include "proxy/tls.h"
#include "trace/trace.h"

/* What the trie's lock covers, copied out of it in one go. */
struct endpoint_view {
    struct route_load load;
    struct recent_sums recent;
    bool up;
    bool ejected;
    struct engine engine;
};

struct scrape {
    struct metrics_writer writer;
    struct router *router;
    struct backend **backends;   /* Held, those included that have gone with requests. */
    struct endpoint_view *views; /* Of each. */
    size_t view_count;
    size_t view_capacity;
    enum route_policy policy;
    uint64_t running;
    uint64_t waiting;
    struct hashtrie_stats trie;
    struct hashtrie_store_stats store;
    bool has_store;
};

static void look(struct scrape *scrape)
{
    struct router *router = scrape->router;
    uint64_t now_ns = net_now_ns();
    hashtrie_lock(router->trie);
    uint64_t window_ns = router->config->request_stats_window_ns;
    for (size_t i = 0; i < router->slot_count && scrape->view_count < scrape->view_capacity; i++) {
        struct backend *backend = router->backends[i];
        if (backend == NULL) {
            continue;
        }
        backend_hold(backend);
        scrape->backends[scrape->view_count] = backend;
        scrape->views[scrape->view_count++] =
            (struct endpoint_view){.load = route_endpoint_load(router->fleet, i),
                                   .recent = recent_get(&backend->recent, window_ns, now_ns),
                                   .up = route_endpoint_is_up(router->fleet, i),
                                   .ejected = route_endpoint_is_ejected(router->fleet, i),
                                   .engine = backend->engine};
    }
    scrape->policy = router_policy(router);
    scrape->running = router->admit.running;
    scrape->waiting = router->admit.waiting;
    hashtrie_get_stats(router->trie, &scrape->trie);
    hashtrie_unlock(router->trie);
    scrape->has_store = router->store != NULL;
    if (scrape->has_store) {
        hashtrie_store_get_stats(router->store, &scrape->store);
    }
}

/* Sum of a counter over all workers, by its place in `struct stats`. */
static uint64_t sum(const struct router *router, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < router->worker_count; i++) {
        const char *stats = (const char *)&router->workers[i].stats;
        total += stats_get((const _Atomic uint64_t *)(const void *)(stats + offset));
    }
    return total;
}

#define SUM(router, field) sum((router), offsetof(struct stats, field))

/* ---- What engines say ---- */

/* Only of engines that tell: an old figure would look like a new one. */
static void write_figure(struct scrape *scrape, const char *name, const char *help, size_t field)
{
    metrics_family(&scrape->writer, name, METRICS_GAUGE, help);
    for (size_t i = 0; i < scrape->view_count; i++) {
        const struct engine *engine = &scrape->views[i].engine;
        double value = *(const double *)(const void *)((const char *)&engine->figures + field);
        if (engine->answer == ENGINE_TELLS && !isnan(value)) {
            metrics_sample(&scrape->writer, value,
                           METRICS_LABEL("server", scrape->backends[i]->url));
        }
    }
}

static void write_figures(struct scrape *scrape)
{
#define FIGURE(field) offsetof(struct discovery_figures, field)
    static const struct {
        const char *name;
        const char *help;
        size_t field;
    } families[] = {
        {"vllm:num_requests_waiting", "Requests in line at the engine, as it says.",
         FIGURE(waiting)},
        {"vllm:gpu_prefix_cache_hit_rate", "Of the engine's prefix cache, as it says.",
         FIGURE(prefix_hit_rate)},
        {"vllm:gpu_prefix_cache_hits_total", "Found in the engine's prefix cache, as it says.",
         FIGURE(prefix_hits)},
        {"vllm:gpu_prefix_cache_queries_total", "Looked up in it.", FIGURE(prefix_queries)},
        {"hashtrie_engine_running_requests", "Requests that the engine works on, as it says.",
         FIGURE(running)},
        {"hashtrie_engine_kv_usage_ratio", "Share of its KV cache in use, as it says.",
         FIGURE(kv_usage)},
        {"hashtrie_engine_kv_capacity_tokens", "Size of its KV cache, as it says.",
         FIGURE(kv_capacity_tokens)},
        {"hashtrie_engine_start_time_seconds", "When its process was started, as it says.",
         FIGURE(start_time_s)},
    };
#undef FIGURE
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        write_figure(scrape, families[f].name, families[f].help, families[f].field);
    }
}

enum engine_value {
    ENGINE_UP,
    ENGINE_TOLD,
    ENGINE_FAILURES,
    ENGINE_RESTARTS,
    ENGINE_EJECTED,
    ENGINE_EJECTIONS
};

static double engine_value(const struct endpoint_view *view, enum engine_value which)
{
    switch (which) {
    case ENGINE_UP:
        return view->engine.answer == ENGINE_TELLS ? 1 : 0;
    case ENGINE_TOLD:
        return view->engine.told_unix_s > 0 ? view->engine.told_unix_s : NAN;
    case ENGINE_FAILURES:
        return (double)view->engine.failure_count;
    case ENGINE_RESTARTS:
        return (double)view->engine.restart_count;
    case ENGINE_EJECTED:
        return view->ejected ? 1 : 0;
    case ENGINE_EJECTIONS:
        return (double)view->engine.ejection_count;
    default:
        return NAN;
    }
}

static void write_engines(struct scrape *scrape)
{
    static const struct {
        const char *name;
        enum metrics_kind kind;
        enum engine_value value;
        const char *help;
    } families[] = {
        {"hashtrie_engine_metrics_up", METRICS_GAUGE, ENGINE_UP,
         "1: the engine's metrics could be read the last time."},
        {"hashtrie_engine_metrics_timestamp_seconds", METRICS_GAUGE, ENGINE_TOLD,
         "When they were read last."},
        {"hashtrie_engine_metrics_failures_total", METRICS_COUNTER, ENGINE_FAILURES,
         "Times that they could not be read."},
        {"hashtrie_engine_restarts_total", METRICS_COUNTER, ENGINE_RESTARTS,
         "Restarts noticed: what the engine held no longer counted."},
        {"hashtrie_engine_ejected", METRICS_GAUGE, ENGINE_EJECTED,
         "1: it failed again and again, and gets requests only where no other is left."},
        {"hashtrie_engine_ejections_total", METRICS_COUNTER, ENGINE_EJECTIONS,
         "Times that this began."},
    };
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        metrics_family(&scrape->writer, families[f].name, families[f].kind, families[f].help);
        for (size_t i = 0; i < scrape->view_count; i++) {
            double value = engine_value(&scrape->views[i], families[f].value);
            if (!isnan(value)) {
                metrics_sample(&scrape->writer, value,
                               METRICS_LABEL("server", scrape->backends[i]->url));
            }
        }
    }
}

/* ---- Per endpoint ---- */

enum view_value {
    VIEW_RUNNING,
    VIEW_PREFILL,
    VIEW_DECODING,
    VIEW_SWAPPED,
    VIEW_QPS,
    VIEW_LATENCY,
    VIEW_ITL,
    VIEW_DECODING_TIME,
    VIEW_HEALTHY
};

/* The Python router says -1 where there is nothing to average. */
static double mean_s(uint64_t sum_us, uint32_t count)
{
    return count == 0 ? -1 : (double)sum_us / 1e6 / count;
}

static double view_value(const struct scrape *scrape, size_t backend, enum view_value which)
{
    const struct endpoint_view *view = &scrape->views[backend];
    const struct recent_sums *recent = &view->recent;
    uint64_t window_ns = scrape->router->config->request_stats_window_ns;
    switch (which) {
    case VIEW_RUNNING:
        return view->load.in_flight;
    case VIEW_PREFILL:
        return view->load.in_prefill;
    case VIEW_DECODING:
        return view->load.in_flight - view->load.in_prefill;
    case VIEW_SWAPPED:
        return 0;
    case VIEW_QPS:
        return recent->arrivals / ((double)window_ns / CLOCK_NS_PER_S);
    case VIEW_LATENCY:
        return mean_s(recent->latency_us, recent->ended);
    case VIEW_ITL:
        return mean_s(recent->stream_us, recent->gaps);
    case VIEW_DECODING_TIME:
        return mean_s(recent->stream_us, recent->streams);
    case VIEW_HEALTHY:
        return view->up ? 1 : 0;
    default:
        return 0;
    }
}

static void write_views(struct scrape *scrape)
{
    static const struct {
        const char *name;
        const char *help;
        enum view_value value;
    } families[] = {
        {"vllm:num_requests_running", "Requests at the engine.", VIEW_RUNNING},
        {"vllm:num_prefill_requests", "Of these, before the first byte of their answer.",
         VIEW_PREFILL},
        {"vllm:num_decoding_requests", "Of these, after it.", VIEW_DECODING},
        {"vllm:num_requests_swapped", "Always 0: there is no swapping.", VIEW_SWAPPED},
        {"vllm:current_qps", "Requests a second over --request-stats-window.", VIEW_QPS},
        {"vllm:avg_latency", "Seconds that answers took, mean over that time; -1: there were none.",
         VIEW_LATENCY},
        {"vllm:avg_itl", "Seconds between events of streams, likewise.", VIEW_ITL},
        {"vllm:avg_decoding_length", "Seconds from a stream's first event to its last, likewise.",
         VIEW_DECODING_TIME},
        {"vllm:healthy_pods_total", "1 for each engine that is known.", VIEW_HEALTHY},
    };
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        metrics_family(&scrape->writer, families[f].name, METRICS_GAUGE, families[f].help);
        for (size_t i = 0; i < scrape->view_count; i++) {
            metrics_sample(&scrape->writer, view_value(scrape, i, families[f].value),
                           METRICS_LABEL("server", scrape->backends[i]->url));
        }
    }
}

static void write_incoming(struct scrape *scrape)
{
    struct router *router = scrape->router;
    metrics_family(
        &scrape->writer, "vllm:num_incoming_requests_total", METRICS_COUNTER,
        "Requests by model; model=\"unknown\" counts those for models that nobody serves.");
    size_t model_count = route_model_count(router->fleet);
    for (size_t model = 0; model <= model_count; model++) {
        uint64_t total = 0;
        for (size_t i = 0; i < router->worker_count; i++) {
            size_t number = model < model_count ? model : STATS_MODEL_UNKNOWN;
            total += stats_get(&router->workers[i].stats.incoming[number]);
        }
        const char *name = model < model_count ? route_model_name(router->fleet, model) : "unknown";
        if (model < model_count || total > 0) {
            metrics_sample_u64(&scrape->writer, total, METRICS_LABEL("model", name));
        }
    }
}

/* ---- The router's own ---- */

static void write_outcomes(struct scrape *scrape, const char *policy, size_t offset)
{
    for (size_t outcome = 0; outcome < ROUTE_OUTCOME_COUNT; outcome++) {
        uint64_t total = sum(scrape->router, offset + outcome * sizeof(_Atomic uint64_t));
        const char *name = route_outcome_name((enum route_outcome)outcome);
        metrics_sample_u64(&scrape->writer, total,
                           METRICS_LABELS({"outcome", name, 0}, {"policy", policy, 0}));
    }
}

/* A policy of before was in use. */
static bool is_any_counted(const struct router *router, size_t offset)
{
    uint64_t total = 0;
    for (size_t outcome = 0; outcome < ROUTE_OUTCOME_COUNT; outcome++) {
        total += sum(router, offset + outcome * sizeof(_Atomic uint64_t));
    }
    return total > 0;
}

static void write_routing(struct scrape *scrape)
{
    struct router *router = scrape->router;
    struct metrics_writer *writer = &scrape->writer;
    metrics_family(writer, "hashtrie_routing_decisions_total", METRICS_COUNTER,
                   "Routed requests by why the engine was chosen.");
    bool disaggregated = disagg_is_on(router->config);
    for (enum route_policy policy = 0; policy < ROUTE_POLICY_COUNT; policy++) {
        size_t offset =
            offsetof(struct stats, outcomes) + policy * sizeof router->workers->stats.outcomes[0];
        if (policy == scrape->policy || is_any_counted(router, offset)) {
            write_outcomes(scrape, disaggregated ? "prefill" : route_policy_name(policy), offset);
        }
    }
    if (disaggregated) {
        write_outcomes(scrape, "decode", offsetof(struct stats, decode_outcomes));
    }
    struct metrics_histogram merged;
    metrics_histogram_init(&merged, &metrics_bounds_route);
    for (size_t i = 0; i < router->worker_count; i++) {
        metrics_histogram_merge(&merged, &router->workers[i].stats.route_seconds);
    }
    metrics_family(writer, "hashtrie_route_seconds", METRICS_HISTOGRAM,
                   "From a request's last byte to the choice of an engine.");
    metrics_histogram_write(writer, &merged, METRICS_NO_LABELS);
    metrics_single_u64(writer, "hashtrie_prompt_bytes_total", METRICS_COUNTER,
                       "Bytes of prompt routed.", SUM(router, prompt_bytes));
    metrics_single_u64(writer, "hashtrie_matched_bytes_total", METRICS_COUNTER,
                       "Of these, held by the chosen engine as far as is known.",
                       SUM(router, matched_bytes));
    metrics_single_u64(writer, "hashtrie_retries_total", METRICS_COUNTER,
                       "Requests tried at another engine.", SUM(router, retries));
    metrics_single_u64(writer, "hashtrie_resends_total", METRICS_COUNTER,
                       "Requests sent again because the engine had closed a kept connection.",
                       SUM(router, resends));
    metrics_single_u64(writer, "hashtrie_retries_denied_total", METRICS_COUNTER,
                       "Requests not tried again because the retry budget was used up.",
                       SUM(router, retries_denied));
    if (disaggregated) {
        metrics_single_u64(writer, "hashtrie_prefills_unused_total", METRICS_COUNTER,
                           "Requests whose prefill engine did not say where the KV cache is.",
                           SUM(router, prefills_unused));
    }
    metrics_single_u64(writer, "hashtrie_unauthorized_requests_total", METRICS_COUNTER,
                       "Requests without a key that is known.", SUM(router, unauthorized));
    tls_scrape(router, writer);
    dynamic_scrape(router, writer);
    metrics_single_u64(writer, "hashtrie_cancelled_requests_total", METRICS_COUNTER,
                       "Requests whose client went away.", SUM(router, cancelled));
    metrics_single_u64(writer, "hashtrie_stalled_clients_total", METRICS_COUNTER,
                       "Clients cut off because they read nothing of their answer.",
                       SUM(router, stalled_clients));
    metrics_single_u64(writer, "hashtrie_client_connections_total", METRICS_COUNTER,
                       "Connections accepted.", SUM(router, connections));
    metrics_single_u64(writer, "hashtrie_reload_timeouts_total", METRICS_COUNTER,
                       "Requests that did not wait any longer for a reload.",
                       SUM(router, reload_timeouts));
    metrics_single_u64(writer, "hashtrie_buffered_bytes", METRICS_GAUGE,
                       "Request bodies in memory.", atomic_load(&router->bodies.bytes_used));
}

static void write_limits(struct scrape *scrape)
{
    struct router *router = scrape->router;
    struct metrics_writer *writer = &scrape->writer;
    metrics_single_u64(writer, "hashtrie_running_requests", METRICS_GAUGE,
                       "Requests at engines: what --max-requests limits.", scrape->running);
    metrics_single_u64(writer, "hashtrie_queued_requests", METRICS_GAUGE,
                       "Requests that wait for a place at an engine.", scrape->waiting);
    struct metrics_histogram merged;
    metrics_histogram_init(&merged, &metrics_bounds_disk);
    for (size_t i = 0; i < router->worker_count; i++) {
        metrics_histogram_merge(&merged, &router->workers[i].stats.queue_seconds);
    }
    metrics_family(writer, "hashtrie_queue_seconds", METRICS_HISTOGRAM,
                   "How long those that had to wait did, whatever came of it.");
    metrics_histogram_write(writer, &merged, METRICS_NO_LABELS);
    metrics_family(writer, "hashtrie_refused_requests_total", METRICS_COUNTER,
                   "Requests refused by a limit of the router or for their form.");
    for (int refusal = 0; refusal < STATS_REFUSAL_COUNT; refusal++) {
        uint64_t total = sum(router, offsetof(struct stats, refusals) +
                                         (size_t)refusal * sizeof(_Atomic uint64_t));
        metrics_sample_u64(
            writer, total,
            METRICS_LABEL("reason", stats_refusal_name((enum stats_refusal)refusal)));
    }
    metrics_single_u64(writer, "hashtrie_client_connections", METRICS_GAUGE,
                       "Connections of clients.", atomic_load(&router->doors.inside));
    metrics_family(writer, "hashtrie_refused_connections_total", METRICS_COUNTER,
                   "Connections closed at once, by the limit that they were over.");
    metrics_sample_u64(writer, SUM(router, connections_refused), METRICS_LABEL("limit", "all"));
    metrics_sample_u64(writer, SUM(router, address_connections_refused),
                       METRICS_LABEL("limit", "address"));
    metrics_single_u64(writer, "hashtrie_accept_pauses_total", METRICS_COUNTER,
                       "Times that nothing was accepted for want of descriptors or memory.",
                       SUM(router, accept_pauses));
}

static void write_tiers(struct scrape *scrape, const char *name, const char *help, uint64_t hot,
                        uint64_t cold)
{
    metrics_family(&scrape->writer, name, METRICS_GAUGE, help);
    metrics_sample_u64(&scrape->writer, hot, METRICS_LABEL("tier", "hot"));
    metrics_sample_u64(&scrape->writer, cold, METRICS_LABEL("tier", "cold"));
}

static void write_trie(struct scrape *scrape)
{
    const struct hashtrie_stats *trie = &scrape->trie;
    struct metrics_writer *writer = &scrape->writer;
    metrics_single_u64(writer, "hashtrie_memory_bytes", METRICS_GAUGE, "Taken by the hot trie.",
                       trie->bytes_used);
    metrics_single_u64(writer, "hashtrie_memory_budget_bytes", METRICS_GAUGE,
                       "What it may take at most.", trie->bytes_budget);
    write_tiers(scrape, "hashtrie_nodes", "Nodes known.", trie->node_count,
                scrape->store.node_count);
    write_tiers(scrape, "hashtrie_chunks", "Chunks of prompts known.", trie->chunk_count,
                scrape->store.chunk_count);
    metrics_single_u64(writer, "hashtrie_evicted_nodes_total", METRICS_COUNTER,
                       "Nodes evicted from memory.", trie->evicted_node_count);
    metrics_single_u64(writer, "hashtrie_spilled_nodes_total", METRICS_COUNTER,
                       "Of these, known to be in the store.", trie->spilled_node_count);
    metrics_single_u64(writer, "hashtrie_dropped_nodes_total", METRICS_COUNTER,
                       "Of these, lost because the store had not saved them yet.",
                       trie->dropped_node_count);
    metrics_single_u64(writer, "hashtrie_reloaded_nodes_total", METRICS_COUNTER,
                       "Nodes put back from the store.", trie->reloaded_node_count);
}

static void write_checkpoints(struct scrape *scrape)
{
    static const double bounds_ms[] = HASHTRIE_STORE_CHECKPOINT_BOUNDS_MS;
    static_assert(sizeof bounds_ms / sizeof *bounds_ms == HASHTRIE_STORE_CHECKPOINT_BOUNDS,
                  "the store's bounds are counted");
    const struct hashtrie_store_stats *store = &scrape->store;
    struct metrics_bounds bounds = {.count = HASHTRIE_STORE_CHECKPOINT_BOUNDS};
    uint64_t counts[HASHTRIE_STORE_CHECKPOINT_BOUNDS + 1];
    uint64_t below = 0;
    for (size_t i = 0; i < HASHTRIE_STORE_CHECKPOINT_BOUNDS; i++) {
        bounds.bounds[i] = bounds_ms[i] / 1000;
        counts[i] = store->checkpoint_le_count[i] - below;
        below = store->checkpoint_le_count[i];
    }
    counts[HASHTRIE_STORE_CHECKPOINT_BOUNDS] = store->checkpoint_timed_count - below;
    struct metrics_histogram histogram;
    metrics_histogram_init(&histogram, &bounds);
    metrics_histogram_set(&histogram, counts, store->checkpoint_seconds_sum);
    metrics_family(&scrape->writer, "hashtrie_checkpoint_seconds", METRICS_HISTOGRAM,
                   "Checkpoints that wrote something.");
    metrics_histogram_write(&scrape->writer, &histogram, METRICS_NO_LABELS);
}

static void write_snapshots(struct scrape *scrape)
{
    const struct hashtrie_store_stats *store = &scrape->store;
    struct metrics_writer *writer = &scrape->writer;
    metrics_single_u64(writer, "hashtrie_snapshots_total", METRICS_COUNTER, "Snapshots made.",
                       store->snapshot_count);
    metrics_single_u64(writer, "hashtrie_snapshot_failures_total", METRICS_COUNTER,
                       "Snapshots given up.", store->snapshot_failure_count);
    metrics_single(writer, "hashtrie_snapshot_progress_ratio", METRICS_GAUGE,
                   "How much of the one under way is copied, at least; 0: none is.",
                   store->snapshot_ratio);
    metrics_single(writer, "hashtrie_last_snapshot_timestamp_seconds", METRICS_GAUGE,
                   "When the newest snapshot was made; 0: there is none.",
                   store->last_snapshot_unix_s);
    metrics_single_u64(writer, "hashtrie_last_snapshot_bytes", METRICS_GAUGE,
                       "Its size, if it was made since the start.", store->last_snapshot_bytes);
    metrics_single(writer, "hashtrie_last_snapshot_seconds", METRICS_GAUGE,
                   "How long it took, if it was made since the start.",
                   store->last_snapshot_seconds);
}

static void write_store(struct scrape *scrape)
{
    const struct hashtrie_store_stats *store = &scrape->store;
    struct metrics_writer *writer = &scrape->writer;
    metrics_single_u64(writer, "hashtrie_store_up", METRICS_GAUGE, "1: the store reads and writes.",
                       scrape->has_store && store->up ? 1 : 0);
    metrics_family(writer, "hashtrie_store_state", METRICS_GAUGE, "1 for the state it is in.");
    for (int state = 0; state <= HASHTRIE_STORE_OPENING; state++) {
        const char *name = hashtrie_store_state_name((enum hashtrie_store_state)state);
        bool now = scrape->has_store && store->state == (enum hashtrie_store_state)state;
        metrics_sample_u64(writer, now ? 1 : 0, METRICS_LABEL("state", name));
    }
    static const char *const recoveries[HASHTRIE_RECOVERIES] = {
        [HASHTRIE_RECOVERED_SNAPSHOT] = "snapshot",
        [HASHTRIE_RECOVERED_REPAIRED] = "repaired",
        [HASHTRIE_RECOVERED_EMPTY] = "empty",
    };
    metrics_family(writer, "hashtrie_store_recovered_total", METRICS_COUNTER,
                   "Files that could not be used, by what took their place.");
    for (int how = 0; how < HASHTRIE_RECOVERIES; how++) {
        metrics_sample_u64(writer, store->recovered_count[how],
                           METRICS_LABEL("how", recoveries[how]));
    }
    metrics_single_u64(writer, "hashtrie_store_bytes", METRICS_GAUGE, "Size of the store's file.",
                       store->bytes);
    metrics_single_u64(writer, "hashtrie_store_max_bytes", METRICS_GAUGE,
                       "What it may take at most.", store->max_bytes);
    metrics_single_u64(writer, "hashtrie_store_deleted_nodes_total", METRICS_COUNTER,
                       "Nodes deleted for the sake of that.", store->deleted_node_count);
    metrics_single_u64(writer, "hashtrie_store_corrupt_records_total", METRICS_COUNTER,
                       "Records with a bad checksum; treated as a miss.",
                       store->corrupt_record_count);
    write_checkpoints(scrape);
    metrics_single_u64(writer, "hashtrie_checkpoint_failures_total", METRICS_COUNTER,
                       "Transactions that could not be committed.",
                       store->checkpoint_failure_count);
    metrics_single(writer, "hashtrie_last_checkpoint_timestamp_seconds", METRICS_GAUGE,
                   "All that was recorded before this time is on disk.",
                   store->last_checkpoint_unix_s);
    metrics_family(writer, "hashtrie_store_pinned_seconds", METRICS_GAUGE,
                   "For so long has another process held a read transaction of the store, which "
                   "keeps freed pages from use; 0: none does.");
    char pid[32];
    (void)snprintf(pid, sizeof pid, "%llu", (unsigned long long)store->pinned_pid);
    metrics_sample(writer, store->pinned_seconds, METRICS_LABEL("pid", pid));
    write_snapshots(scrape);
    metrics_single(writer, "hashtrie_restore_seconds", METRICS_GAUGE,
                   "Opening the store took so long.", store->restore_seconds);
    metrics_single(writer, "hashtrie_warmup_ratio", METRICS_GAUGE,
                   "How far the store is read ahead after the start.",
                   scrape->has_store ? store->warmup_ratio : 1.0);
}

static void write_process(struct scrape *scrape)
{
    struct metrics_writer *writer = &scrape->writer;
    metrics_family(writer, "hashtrie_build_info", METRICS_GAUGE, "1, with the version as a label.");
    metrics_sample_u64(writer, 1, METRICS_LABEL("version", hashtrie_version()));
    struct trace_stats traces = {0};
    if (scrape->router->traces != NULL) {
        traces = trace_exporter_stats(scrape->router->traces);
    }
    metrics_family(writer, "hashtrie_trace_spans_total", METRICS_COUNTER,
                   "Spans of requests, by what became of them.");
    metrics_sample_u64(writer, traces.sent, METRICS_LABEL("result", "sent"));
    metrics_sample_u64(writer, traces.dropped, METRICS_LABEL("result", "dropped"));
    host_scrape(&scrape->router->host, writer);
    metrics_single_u64(writer, "process_start_time_seconds", METRICS_GAUGE,
                       "When the router was started.", scrape->router->start_unix_s);
    metrics_single_u64(writer, "hashtrie_ready", METRICS_GAUGE, "1 while /ready answers 200.",
                       router_is_ready(scrape->router) ? 1 : 0);
}

bool scrape_write(struct worker *worker, struct buf *out)
{
    struct router *router = worker->router;
    struct scrape scrape = {.router = router, .view_capacity = router->slot_count + 1};
    size_t views_size = scrape.view_capacity * sizeof *scrape.views;
    size_t backends_size = scrape.view_capacity * sizeof(struct backend *);
    scrape.views = mem_alloc(&worker->mem, views_size);
    scrape.backends = mem_alloc(&worker->mem, backends_size);
    if (scrape.views == NULL || scrape.backends == NULL) {
        mem_free(&worker->mem, scrape.views, views_size);
        mem_free(&worker->mem, scrape.backends, backends_size);
        return false;
    }
    look(&scrape);
    metrics_begin(&scrape.writer, out);
    write_views(&scrape);
    write_figures(&scrape);
    write_engines(&scrape);
    write_incoming(&scrape);
    scrape_series(router, scrape.backends, scrape.view_count, &scrape.writer);
    write_routing(&scrape);
    write_limits(&scrape);
    write_trie(&scrape);
    write_store(&scrape);
    kubernetes_write_metrics(router, &scrape.writer);
    write_process(&scrape);
    for (size_t i = 0; i < scrape.view_count; i++) {
        backend_let_go(scrape.backends[i]);
    }
    mem_free(&worker->mem, scrape.backends, backends_size);
    mem_free(&worker->mem, scrape.views, views_size);
    return metrics_end(&scrape.writer);
}
