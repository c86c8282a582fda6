#include "discovery/figures.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#define FIELD(name) offsetof(struct discovery_figures, name)

/* One engine process may hold several engines (labels `engine`, `model_name`, `dp_rank`). */
enum merge { MERGE_SUM, MERGE_MEAN, MERGE_MAX };

/*
 * Where a figure is found. Of several series for one field the first that has a sample counts: vLLM
 * exported old and new names side by side for some versions.
 */
static const struct source {
    const char *name;
    size_t field;
    enum merge merge;
} sources[] = {
    /* All of Python's and Go's client libraries. The youngest process counts. */
    {"process_start_time_seconds", FIELD(start_time_s), MERGE_MAX},
    {"vllm:cache_config_info", FIELD(kv_capacity_tokens), MERGE_SUM}, /* In its labels. */
    {"sglang:max_total_num_tokens", FIELD(kv_capacity_tokens), MERGE_SUM},
    {"vllm:kv_cache_usage_perc", FIELD(kv_usage), MERGE_MEAN},
    {"vllm:gpu_cache_usage_perc", FIELD(kv_usage), MERGE_MEAN}, /* Before vLLM 0.10. */
    {"sglang:token_usage", FIELD(kv_usage), MERGE_MEAN},
    {"llamacpp:kv_cache_usage_ratio", FIELD(kv_usage), MERGE_MEAN},
    {"vllm:num_requests_running", FIELD(running), MERGE_SUM},
    {"sglang:num_running_reqs", FIELD(running), MERGE_SUM},
    {"llamacpp:requests_processing", FIELD(running), MERGE_SUM},
    {"vllm:num_requests_waiting", FIELD(waiting), MERGE_SUM},
    {"sglang:num_queue_reqs", FIELD(waiting), MERGE_SUM},
    {"llamacpp:requests_deferred", FIELD(waiting), MERGE_SUM},
    {"vllm:prefix_cache_queries_total", FIELD(prefix_queries), MERGE_SUM},
    {"vllm:gpu_prefix_cache_queries_total", FIELD(prefix_queries), MERGE_SUM},
    {"vllm:prefix_cache_hits_total", FIELD(prefix_hits), MERGE_SUM},
    {"vllm:gpu_prefix_cache_hits_total", FIELD(prefix_hits), MERGE_SUM},
    {"vllm:gpu_prefix_cache_hit_rate", FIELD(prefix_hit_rate), MERGE_MEAN}, /* vLLM's V0. */
    {"sglang:cache_hit_rate", FIELD(prefix_hit_rate), MERGE_MEAN},
    {"vllm:prompt_tokens_total", FIELD(prompt_tokens), MERGE_SUM},
    {"sglang:prompt_tokens_total", FIELD(prompt_tokens), MERGE_SUM},
    {"llamacpp:prompt_tokens_total", FIELD(prompt_tokens), MERGE_SUM},
};

enum {
    SOURCE_COUNT = sizeof sources / sizeof *sources,
    SOURCE_CACHE_CONFIG = 1,
    DIGITS_MAX = 12,
};
static_assert((int)SOURCE_COUNT <= (int)FIGURES_SOURCES_MAX, "the sums have a place each");

#define START_TIME_MAX_S    1e11
#define CAPACITY_TOKENS_MAX 1e12
static const double figures_max = 1e18;

/* A whole number of at most DIGITS_MAX digits; NaN: none ("None" before the engine has started). */
static double read_whole(struct span text)
{
    double value = 0;
    if (text.size == 0 || text.size > DIGITS_MAX) {
        return NAN;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return NAN;
        }
        value = value * 10 + (text.data[i] - '0');
    }
    return value;
}

void figures_add(struct figures *figures, const struct exposition_sample *sample)
{
    for (size_t i = 0; i < SOURCE_COUNT; i++) {
        if (!span_is(sample->name, sources[i].name)) {
            continue;
        }
        double value = sample->value;
        if (i == SOURCE_CACHE_CONFIG) {
            value = read_whole(exposition_label(sample, "num_gpu_blocks")) *
                    read_whole(exposition_label(sample, "block_size"));
        }
        if (value >= 0 && value <= figures_max) { /* False for NaN. */
            figures->sources[i].sum += value;
            figures->sources[i].max =
                value > figures->sources[i].max ? value : figures->sources[i].max;
            figures->sources[i].count++;
        }
        return;
    }
}

static void keep_within(double *figure, double min, double max)
{
    if (!(*figure >= min && *figure <= max)) {
        *figure = NAN;
    }
}

struct discovery_figures figures_result(const struct figures *figures)
{
    struct discovery_figures result = discovery_figures_unknown();
    for (size_t i = 0; i < SOURCE_COUNT; i++) {
        double *field = (double *)(void *)((char *)&result + sources[i].field);
        if (!isnan(*field) || figures->sources[i].count == 0) {
            continue;
        }
        *field = sources[i].merge == MERGE_MAX ? figures->sources[i].max : figures->sources[i].sum;
        if (sources[i].merge == MERGE_MEAN) {
            *field /= figures->sources[i].count;
        }
    }
    keep_within(&result.start_time_s, 1, START_TIME_MAX_S);
    keep_within(&result.kv_capacity_tokens, 1, CAPACITY_TOKENS_MAX);
    keep_within(&result.kv_usage, 0, 1);
    keep_within(&result.prefix_hit_rate, 0, 1);
    if (isnan(result.prefix_hit_rate) && result.prefix_queries > 0) {
        result.prefix_hit_rate = result.prefix_hits / result.prefix_queries;
    }
    return result;
}

struct discovery_figures discovery_figures_unknown(void)
{
    return (struct discovery_figures){.start_time_s = NAN,
                                      .kv_capacity_tokens = NAN,
                                      .kv_usage = NAN,
                                      .running = NAN,
                                      .waiting = NAN,
                                      .prefix_queries = NAN,
                                      .prefix_hits = NAN,
                                      .prefix_hit_rate = NAN,
                                      .prompt_tokens = NAN};
}
