#include "proxy/scrape_series.h"

struct series_scrape {
    const struct router *router;
    struct backend *const *backends;
    size_t backend_count;
    struct metrics_writer *writer;
};

/* One backend and one of its models. */
struct place {
    const char *server;
    const char *model;
    const struct stats_pair *pair;
};

typedef void write_place(struct series_scrape *scrape, const struct place *place, size_t offset);

static void for_each_place(struct series_scrape *scrape, write_place *write, size_t offset)
{
    for (size_t i = 0; i < scrape->backend_count; i++) {
        const struct backend *backend = scrape->backends[i];
        const struct stats_pair *pair = atomic_load_explicit(&backend->pairs, memory_order_acquire);
        for (; pair != NULL; pair = pair->next) {
            struct place place = {.server = backend->url,
                                  .model = route_model_name(scrape->router->fleet, pair->model),
                                  .pair = pair};
            write(scrape, &place, offset);
        }
    }
}

/* A worker's; NULL: it has had no request of that kind. */
static const char *series_of(const struct place *place, size_t worker)
{
    return (const char *)atomic_load_explicit(&place->pair->series[worker], memory_order_acquire);
}

/* A counter over all workers, by its place in `struct stats_series`. */
static uint64_t sum(const struct series_scrape *scrape, const struct place *place, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < scrape->router->worker_count; i++) {
        const char *series = series_of(place, i);
        if (series != NULL) {
            total += stats_get((const _Atomic uint64_t *)(const void *)(series + offset));
        }
    }
    return total;
}

static void merge(const struct series_scrape *scrape, const struct place *place, size_t offset,
                  struct metrics_histogram *into)
{
    for (size_t i = 0; i < scrape->router->worker_count; i++) {
        const char *series = series_of(place, i);
        if (series != NULL) {
            const void *histogram = series + offset;
            metrics_histogram_merge(into, histogram);
        }
    }
}

#define SERIES(field) offsetof(struct stats_series, field)

/* ---- Errors and latencies, as the Python router has them ---- */

static void write_errors(struct series_scrape *scrape, const struct place *place, size_t offset)
{
    for (size_t error = 0; error < STATS_ERROR_COUNT; error++) {
        uint64_t total = sum(scrape, place, offset + error * sizeof(_Atomic uint64_t));
        if (total > 0) {
            const char *type = stats_error_name((enum stats_error)error);
            metrics_sample_u64(scrape->writer, total,
                               METRICS_LABELS({"error_type", type, 0}, {"model", place->model, 0},
                                              {"server", place->server, 0}));
        }
    }
}

static void write_latency(struct series_scrape *scrape, const struct place *place, size_t offset)
{
    struct metrics_histogram merged;
    metrics_histogram_init(&merged, &metrics_bounds_request);
    merge(scrape, place, offset, &merged);
    if (metrics_histogram_count(&merged) > 0) {
        const char *status = offset == SERIES(success) ? "success" : "error";
        metrics_histogram_write(scrape->writer, &merged,
                                METRICS_LABELS({"model", place->model, 0},
                                               {"server", place->server, 0},
                                               {"status", status, 0}));
    }
}

static void write_latencies(struct series_scrape *scrape, const struct place *place, size_t offset)
{
    (void)offset;
    write_latency(scrape, place, SERIES(success));
    write_latency(scrape, place, SERIES(error));
}

/* ---- What answers tell ---- */

static void write_counter(struct series_scrape *scrape, const struct place *place, size_t offset)
{
    uint64_t total = sum(scrape, place, offset);
    if (total > 0) {
        metrics_sample_u64(
            scrape->writer, total,
            METRICS_LABELS({"model", place->model, 0}, {"server", place->server, 0}));
    }
}

static void write_stream_times(struct series_scrape *scrape, const struct place *place,
                               size_t offset)
{
    struct metrics_histogram merged;
    metrics_histogram_init(&merged, offset == SERIES(first_token) ? &metrics_bounds_first_token
                                                                  : &metrics_bounds_between_tokens);
    merge(scrape, place, offset, &merged);
    if (metrics_histogram_count(&merged) > 0) {
        metrics_histogram_write(
            scrape->writer, &merged,
            METRICS_LABELS({"model", place->model, 0}, {"server", place->server, 0}));
    }
}

static void write_decisions(struct series_scrape *scrape, const struct place *place, size_t offset)
{
    const char *policy = scrape->router->config->routing_logic;
    for (size_t outcome = 0; outcome < ROUTE_OUTCOME_COUNT; outcome++) {
        uint64_t total = sum(scrape, place, offset + outcome * sizeof(_Atomic uint64_t));
        if (total > 0) {
            const char *name = route_outcome_name((enum route_outcome)outcome);
            metrics_sample_u64(scrape->writer, total,
                               METRICS_LABELS({"algorithm", policy, 0}, {"model", place->model, 0},
                                              {"outcome", name, 0}, {"server", place->server, 0}));
        }
    }
}

/* ---- All ---- */

static const struct {
    const char *name;
    enum metrics_kind kind;
    write_place *write;
    size_t offset; /* In `struct stats_series`. */
    const char *help;
} families[] = {
    {"vllm:request_errors_total", METRICS_COUNTER, write_errors, SERIES(errors),
     "Tries that failed at the engine."},
    {"vllm:request_latency_seconds", METRICS_HISTOGRAM, write_latencies, 0,
     "From a request's head to its answer's last byte."},
    {"hashtrie_time_to_first_token_seconds", METRICS_HISTOGRAM, write_stream_times,
     SERIES(first_token), "Streams: from the request's head to the first event of its answer."},
    {"hashtrie_inter_token_latency_seconds", METRICS_HISTOGRAM, write_stream_times,
     SERIES(between_tokens), "Streams: from one event to the next."},
    {"vllm:input_tokens_total", METRICS_COUNTER, write_counter, SERIES(prompt_tokens),
     "Tokens of prompts, as answers tell in their usage."},
    {"vllm:output_tokens_total", METRICS_COUNTER, write_counter, SERIES(completion_tokens),
     "Tokens of answers, likewise."},
    {"hashtrie_usage_prompt_tokens_total", METRICS_COUNTER, write_counter, SERIES(told_tokens),
     "Tokens of those prompts whose answer tells how many of them were cached."},
    {"hashtrie_usage_cached_tokens_total", METRICS_COUNTER, write_counter,
     SERIES(told_cached_tokens), "Of these, found in the engine's prefix cache, as it says."},
    {"hashtrie_usage_predicted_tokens_total", METRICS_COUNTER, write_counter,
     SERIES(predicted_cached_tokens),
     "Of these, held by the engine as far as the router knew when it chose it."},
    {"vllm:routing_decisions_total", METRICS_COUNTER, write_decisions, SERIES(outcomes),
     "Routed requests by why the engine was chosen."},
};

void scrape_series(const struct router *router, struct backend *const *backends,
                   size_t backend_count, struct metrics_writer *writer)
{
    struct series_scrape scrape = {
        .router = router, .backends = backends, .backend_count = backend_count, .writer = writer};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        metrics_family(writer, families[i].name, families[i].kind, families[i].help);
        for_each_place(&scrape, families[i].write, families[i].offset);
    }
}
