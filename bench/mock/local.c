/* Answers that need no engine time. Metric names are vLLM's current ones. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/mock/server_private.h"
#include "metrics/metrics.h"

enum { NUMBER_BYTES_MAX = 24 };

bool local_put_json(struct buf *out, const char *text, size_t size)
{
    bool done = buf_append(out, "\"", 1);
    for (size_t i = 0; i < size && done; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte == '"' || byte == '\\') {
            done = buf_printf(out, "\\%c", byte);
        } else if (byte < ' ') {
            done = buf_printf(out, "\\u%04x", (unsigned)byte);
        } else {
            done = buf_append(out, text + i, 1);
        }
    }
    return done && buf_append(out, "\"", 1);
}

static bool put_models(const struct server *server, struct buf *out)
{
    bool done = buf_append_text(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < server->options->model_count && done; i++) {
        const char *model = server->options->models[i];
        done = buf_append_text(out, i == 0 ? "{\"id\":" : ",{\"id\":") &&
               local_put_json(out, model, strlen(model)) &&
               buf_printf(out,
                          ",\"object\":\"model\",\"created\":%.0f,\"owned_by\":\"vllm\",\"root\":",
                          server->start_time_s) &&
               local_put_json(out, model, strlen(model)) &&
               buf_append_text(out, ",\"parent\":null,\"max_model_len\":1048576}");
    }
    return done && buf_append_text(out, "]}");
}

struct series {
    const char *name;
    enum metrics_kind kind;
    const char *help;
    double value;
};

static void put_cache_config(struct metrics_writer *writer, const struct server *server,
                             const struct engine_stats *stats)
{
    char blocks[NUMBER_BYTES_MAX];
    char block_size[NUMBER_BYTES_MAX];
    (void)snprintf(blocks, sizeof blocks, "%zu", stats->block_count);
    (void)snprintf(block_size, sizeof block_size, "%u", server->options->defaults.block_tokens);
    metrics_family(writer, "vllm:cache_config_info", METRICS_GAUGE,
                   "Information of the LLMEngine CacheConfig");
    metrics_sample_u64(writer, 1,
                       METRICS_LABELS({"block_size", block_size, 0},
                                      {"enable_prefix_caching", "True", 0}, {"engine", "0", 0},
                                      {"num_gpu_blocks", blocks, 0}));
    metrics_single(writer, "process_start_time_seconds", METRICS_GAUGE,
                   "Start time of the process since unix epoch in seconds.", server->start_time_s);
}

static bool put_metrics(const struct server *server, struct buf *out)
{
    struct engine_stats stats;
    engine_get_stats(server->engine, &stats);
    const struct series all[] = {
        {"vllm:num_requests_running", METRICS_GAUGE, "Requests in model execution batches.",
         (double)stats.running_count},
        {"vllm:num_requests_waiting", METRICS_GAUGE, "Requests waiting to be processed.",
         (double)stats.waiting_count},
        {"vllm:kv_cache_usage_perc", METRICS_GAUGE, "KV-cache usage. 1 means 100 percent usage.",
         stats.kv_usage},
        {"vllm:prefix_cache_queries_total", METRICS_COUNTER, "Prefix cache queries, in tokens.",
         (double)stats.prompt_tokens_total},
        {"vllm:prefix_cache_hits_total", METRICS_COUNTER, "Prefix cache hits, in tokens.",
         (double)stats.cached_tokens_total},
        {"vllm:prompt_tokens_total", METRICS_COUNTER, "Prefill tokens processed.",
         (double)stats.prompt_tokens_total},
        {"vllm:generation_tokens_total", METRICS_COUNTER, "Generation tokens processed.",
         (double)stats.generated_tokens_total},
        {"vllm:request_success_total", METRICS_COUNTER, "Requests finished.",
         (double)stats.finished_total},
        {"mock:aborted_requests_total", METRICS_COUNTER, "Requests whose client went away.",
         (double)stats.aborted_total},
    };
    struct metrics_writer writer;
    metrics_begin(&writer, out);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_family(&writer, all[i].name, all[i].kind, all[i].help);
        metrics_sample(
            &writer, all[i].value,
            METRICS_LABELS({"engine", "0", 0}, {"model_name", server->options->models[0], 0}));
    }
    put_cache_config(&writer, server, &stats);
    return metrics_end(&writer);
}

static bool is_path(const struct buf *target, const char *path)
{
    return target->size == strlen(path) && memcmp(target->data, path, target->size) == 0;
}

bool local_answer(struct connection *connection, const struct buf *path, bool is_get)
{
    static const char *const paths[] = {"/health", "/version", "/v1/models", "/metrics"};
    enum { HEALTH, VERSION, MODELS, METRICS, PATH_COUNT };
    size_t which = 0;
    while (which < PATH_COUNT && !is_path(path, paths[which])) {
        which++;
    }
    if (which == PATH_COUNT) {
        return false;
    }
    if (!is_get) {
        answer_error(connection, 405, "Method Not Allowed");
        return true;
    }
    struct buf body;
    buf_init(&body, &connection->server->mem, ANSWER_BYTES_MAX);
    bool done = true;
    if (which == VERSION) {
        done = buf_append_text(&body, "{\"version\":\"0.0.0-mock\"}");
    } else if (which == MODELS) {
        done = put_models(connection->server, &body);
    } else if (which == METRICS) {
        done = put_metrics(connection->server, &body);
    }
    answer_plain(connection, done ? 200 : 500,
                 which == METRICS ? METRICS_CONTENT_TYPE : "application/json", &body);
    buf_fini(&body);
    return true;
}
