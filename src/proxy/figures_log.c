#include "proxy/figures_log.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "proxy/backends.h"

enum { FIELDS_MAX = 12, NUMBER_BYTES_MAX = 32 };

struct line {
    struct log_field fields[FIELDS_MAX];
    char numbers[FIELDS_MAX][NUMBER_BYTES_MAX];
    size_t count;
};

/* NaN, which is not known, is left out. */
static void add_number(struct line *line, const char *name, double value)
{
    if (isnan(value)) {
        return;
    }
    char *text = line->numbers[line->count];
    int size = snprintf(text, NUMBER_BYTES_MAX, "%.6g", value);
    line->fields[line->count++] =
        (struct log_field){.name = name,
                           .kind = LOG_FIELD_TEXT,
                           .text = {.data = text, .size = size > 0 ? (size_t)size : 0}};
}

static double mean_s(uint64_t sum_us, uint32_t count)
{
    return count == 0 ? NAN : (double)sum_us / 1e6 / count;
}

/* On the thread on which the set changes: a backend that is known stays for the call. */
static void write_backend(struct router *router, struct backend *backend, uint64_t now_ns)
{
    uint64_t window_ns = router->config->request_stats_window_ns;
    hashtrie_lock(router->trie);
    struct route_load load = route_endpoint_load(router->fleet, backend->number);
    struct recent_sums recent = recent_get(&backend->recent, window_ns, now_ns);
    bool up = route_endpoint_is_up(router->fleet, backend->number);
    struct engine engine = backend->engine;
    hashtrie_unlock(router->trie);
    bool tells = engine.answer == ENGINE_TELLS;
    struct line line = {.count = 0};
    line.fields[line.count++] =
        (struct log_field){.name = "server", .kind = LOG_FIELD_TEXT, .text = span_of(backend->url)};
    add_number(&line, "healthy", up ? 1 : 0);
    add_number(&line, "running", load.in_flight);
    add_number(&line, "prefill", load.in_prefill);
    add_number(&line, "qps", recent.arrivals / ((double)window_ns / CLOCK_NS_PER_S));
    add_number(&line, "avg_latency", mean_s(recent.latency_us, recent.ended));
    add_number(&line, "avg_itl", mean_s(recent.stream_us, recent.gaps));
    add_number(&line, "engine_running", tells ? engine.figures.running : NAN);
    add_number(&line, "engine_waiting", tells ? engine.figures.waiting : NAN);
    add_number(&line, "kv_usage", tells ? engine.figures.kv_usage : NAN);
    add_number(&line, "prefix_hit_rate", tells ? engine.figures.prefix_hit_rate : NAN);
    log_event(&router->workers[0].log, LOG_INFO, "Stats", line.fields, line.count);
}

void figures_log_sweep(struct router *router, uint64_t now_ns)
{
    if (router->config->log_stats_interval_ns == 0 || now_ns < router->figures_due_ns) {
        return;
    }
    router->figures_due_ns = now_ns + router->config->log_stats_interval_ns;
    for (size_t i = 0; i < router->slot_count; i++) {
        struct backend *backend = router->backends[i];
        if (backend != NULL && !atomic_load(&backend->gone)) {
            write_backend(router, backend, now_ns);
        }
    }
}
