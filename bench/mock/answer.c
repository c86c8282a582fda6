/* Answers of the OpenAI API: whole as JSON, or as server-sent events, one per token. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "bench/load/text.h"
#include "bench/mock/server_private.h"

enum { STATUS_OK = 200, STATUS_BAD = 400, STATUS_NOT_FOUND = 404, STATUS_METHOD = 405 };

static const char *reason_of(int status)
{
    switch (status) {
    case STATUS_OK:
        return "OK";
    case STATUS_BAD:
        return "Bad Request";
    case STATUS_NOT_FOUND:
        return "Not Found";
    case STATUS_METHOD:
        return "Method Not Allowed";
    default:
        return "Internal Server Error";
    }
}

/* Status line and the headers that every answer has. The caller ends the head. */
static bool put_head(struct connection *connection, int status, const char *content_type,
                     struct buf *out)
{
    const struct server_options *options = connection->server->options;
    bool done = buf_printf(out,
                           "HTTP/1.1 %d %s\r\nserver: mock-engine\r\ncontent-type: %s\r\n"
                           "x-engine-id: %s\r\n",
                           status, reason_of(status), content_type, options->engine_id);
    if (connection->request_id.size > 0) {
        done = done && buf_printf(out, "x-request-id: %.*s\r\n", (int)connection->request_id.size,
                                  connection->request_id.data);
    }
    if (!connection->exchange.keep_alive) {
        done = done && buf_append_text(out, "connection: close\r\n");
    }
    return done;
}

void answer_plain(struct connection *connection, int status, const char *content_type,
                  const struct buf *body)
{
    struct buf out;
    buf_init(&out, &connection->server->mem, ANSWER_BYTES_MAX);
    bool done = put_head(connection, status, content_type, &out) &&
                buf_printf(&out, "content-length: %zu\r\n\r\n", body->size) &&
                buf_append(&out, body->data, body->size);
    if (done) {
        connection_write(connection, out.data, out.size);
        connection_answered(connection);
    } else {
        connection_close(connection);
    }
    buf_fini(&out);
}

void answer_error(struct connection *connection, int status, const char *message)
{
    struct buf body;
    buf_init(&body, &connection->server->mem, ANSWER_BYTES_MAX);
    const char *type = status == STATUS_NOT_FOUND ? "NotFoundError" : "BadRequestError";
    (void)(buf_append_text(&body, "{\"error\":{\"message\":") && /* Small: it always fits. */
           local_put_json(&body, message, strlen(message)) &&
           buf_printf(&body, ",\"type\":\"%s\",\"param\":null,\"code\":%d}}", type, status));
    answer_plain(connection, status, "application/json", &body);
    buf_fini(&body);
}

/* ---- Bodies ---- */

/* {"id":...,"object":...,"created":...,"model":...,"choices":[ */
static bool put_start(const struct connection *connection, const char *object, struct buf *out)
{
    const struct exchange *exchange = &connection->exchange;
    return buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":",
                      exchange->id, object, exchange->created_s) &&
           local_put_json(out, exchange->body.model.data, exchange->body.model.size) &&
           buf_append_text(out, ",\"choices\":[");
}

static bool put_usage(const struct exchange *exchange, struct buf *out)
{
    return buf_printf(out,
                      "\"usage\":{\"prompt_tokens\":%" PRIu64 ",\"total_tokens\":%" PRIu64
                      ",\"completion_tokens\":%u"
                      ",\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
                      exchange->body.prompt_tokens,
                      exchange->body.prompt_tokens + exchange->job.tokens_made,
                      exchange->job.tokens_made, exchange->job.sim.cached_tokens);
}

static const char *finish_reason(const struct exchange *exchange)
{
    return exchange->body.limited ? "length" : "stop";
}

/* Where the prompt's KV cache is. As vLLM's, it names a host that only the machine itself knows. */
static bool put_transfer(const struct connection *connection, struct buf *out)
{
    const struct server *server = connection->server;
    const struct request_body *body = &connection->exchange.body;
    if (body->transfer != REQUEST_GOES_ON) {
        return true;
    }
    bool done = buf_append_text(out, ",\"kv_transfer_params\":{\"do_remote_prefill\":true,"
                                     "\"do_remote_decode\":false,\"remote_engine_id\":") &&
                local_put_json(out, server->options->engine_id, strlen(server->options->engine_id));
    done = done && buf_append_text(out, ",\"remote_block_ids\":[");
    for (size_t i = 0; i < body->prompt_block_count && done; i++) {
        done = buf_printf(out, "%s%" PRIu32, i == 0 ? "" : ",", request_body_block(body, i));
    }
    return done &&
           buf_printf(out, "],\"remote_host\":\"localhost\",\"remote_port\":%u}", server->port);
}

static bool put_whole(const struct connection *connection, struct buf *out)
{
    const struct exchange *exchange = &connection->exchange;
    bool chat = exchange->body.is_chat;
    const char *object = chat ? "chat.completion" : "text_completion";
    const char *before = chat ? "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                              : "{\"index\":0,\"text\":";
    size_t size = (size_t)exchange->job.tokens_made * TEXT_TOKEN_BYTES;
    return put_start(connection, object, out) && buf_append_text(out, before) &&
           local_put_json(out, request_body_token(&exchange->body, 0), size) &&
           buf_printf(out, "%s,\"logprobs\":null,\"finish_reason\":\"%s\"}],", chat ? "}" : "",
                      finish_reason(exchange)) &&
           put_usage(exchange, out) && put_transfer(connection, out) && buf_append_text(out, "}");
}

/* The delta of one token. The first of a chat names the role as well. */
static bool put_delta(const struct connection *connection, uint64_t index, struct buf *out)
{
    const struct exchange *exchange = &connection->exchange;
    bool chat = exchange->body.is_chat;
    bool last = index + 1 == exchange->body.output_tokens;
    const char *object = chat ? "chat.completion.chunk" : "text_completion";
    const char *before = !chat ? "{\"index\":0,\"text\":"
                         : index == 0
                             ? "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
                             : "{\"index\":0,\"delta\":{\"content\":";
    bool done = put_start(connection, object, out) && buf_append_text(out, before) &&
                local_put_json(out, request_body_token(&exchange->body, index), TEXT_TOKEN_BYTES) &&
                buf_printf(out, "%s,\"logprobs\":null,\"finish_reason\":", chat ? "}" : "");
    done = done && (last ? buf_printf(out, "\"%s\"", finish_reason(exchange))
                         : buf_append_text(out, "null"));
    return done && buf_append_text(out, "}]}");
}

static bool put_usage_chunk(const struct connection *connection, struct buf *out)
{
    const struct exchange *exchange = &connection->exchange;
    const char *object = exchange->body.is_chat ? "chat.completion.chunk" : "text_completion";
    return put_start(connection, object, out) && buf_append_text(out, "],") &&
           put_usage(exchange, out) && buf_append_text(out, "}");
}

/* ---- Streams ---- */

/* One event as one HTTP chunk: `data: {...}\n\n`. */
static void send_event(struct connection *connection, const struct buf *data)
{
    struct buf out;
    buf_init(&out, &connection->server->mem, ANSWER_BYTES_MAX);
    static const char before[] = "data: ";
    size_t size = sizeof before - 1 + data->size + 2;
    if (buf_printf(&out, "%zx\r\n%s", size, before) && buf_append(&out, data->data, data->size) &&
        buf_append_text(&out, "\n\n\r\n")) {
        connection_write(connection, out.data, out.size);
    } else {
        connection_close(connection);
    }
    buf_fini(&out);
}

static void send_stream_head(struct connection *connection)
{
    struct buf out;
    buf_init(&out, &connection->server->mem, ANSWER_BYTES_MAX);
    if (put_head(connection, STATUS_OK, "text/event-stream; charset=utf-8", &out) &&
        buf_append_text(&out, "transfer-encoding: chunked\r\n\r\n")) {
        connection_write(connection, out.data, out.size);
    } else {
        connection_close(connection);
    }
    buf_fini(&out);
}

static void send_stream_end(struct connection *connection, struct buf *data)
{
    static const char end[] = "0\r\n\r\n";
    if (connection->exchange.body.include_usage) {
        data->size = 0;
        if (put_usage_chunk(connection, data)) {
            send_event(connection, data);
        }
    }
    data->size = 0;
    if (buf_append_text(data, "[DONE]")) {
        send_event(connection, data);
    }
    connection_write(connection, end, sizeof end - 1);
    connection_answered(connection);
}

void answer_token(struct connection *connection)
{
    struct exchange *exchange = &connection->exchange;
    bool last = engine_job_is_done(&exchange->job);
    CHECK(last == (exchange->job.tokens_made == exchange->body.output_tokens));
    if (!exchange->body.stream && !last) {
        return;
    }
    struct buf data;
    buf_init(&data, &connection->server->mem, ANSWER_BYTES_MAX);
    if (!exchange->body.stream) {
        bool done = put_whole(connection, &data);
        answer_plain(connection, done ? STATUS_OK : STATUS_BAD, "application/json", &data);
    } else if (put_delta(connection, exchange->job.tokens_made - 1, &data)) {
        send_event(connection, &data);
        if (last) {
            send_stream_end(connection, &data);
        }
    } else {
        connection_close(connection);
    }
    buf_fini(&data);
}

/* ---- Requests ---- */

void answer_end(struct connection *connection)
{
    struct exchange *exchange = &connection->exchange;
    if (exchange->active) {
        exchange->active = false;
        engine_cancel(connection->server->engine, &exchange->job, uv_hrtime());
        server_schedule(connection->server);
    }
    if (exchange->has_body) {
        exchange->has_body = false;
        request_body_fini(&exchange->body);
    }
}

static bool serves(const struct server_options *options, const struct buf *model)
{
    for (size_t i = 0; i < options->model_count; i++) {
        if (strlen(options->models[i]) == model->size &&
            memcmp(options->models[i], model->data, model->size) == 0) {
            return true;
        }
    }
    return false;
}

static void submit(struct connection *connection)
{
    struct server *server = connection->server;
    struct exchange *exchange = &connection->exchange;
    const struct request_body *body = &exchange->body;
    (void)snprintf(exchange->id, sizeof exchange->id, "%s-%s-%" PRIu64,
                   body->is_chat ? "chatcmpl" : "cmpl", server->options->engine_id,
                   ++server->request_count);
    exchange->created_s = clock_unix_ns() / CLOCK_NS_PER_S;
    exchange->job.sim = (struct sim_job){
        .hashes = body->hashes,
        .hash_count = body->hash_count,
        .prompt_tokens = body->prompt_tokens > 0 ? (uint32_t)body->prompt_tokens : 1,
        .output_tokens = (uint32_t)body->output_tokens,
        .fetched = body->transfer == REQUEST_COMES,
    };
    if (!engine_submit(server->engine, &exchange->job, uv_hrtime())) {
        answer_error(connection, STATUS_BAD,
                     "This model's maximum context length is shorter than the prompt and the "
                     "tokens asked for.");
        return;
    }
    exchange->active = true;
    if (body->stream) {
        send_stream_head(connection);
    }
    server_schedule(server);
}

/* NULL: the engine's role lets it pass. */
static const char *check_role(const struct server_options *options, const struct request_body *body)
{
    if (options->role == SERVER_PREFILLS && body->transfer != REQUEST_GOES_ON) {
        return "This engine prefills for others: kv_transfer_params have to say do_remote_decode.";
    }
    if (options->role == SERVER_DECODES && body->transfer != REQUEST_COMES) {
        return "This engine decodes what others prefilled: kv_transfer_params have to say where.";
    }
    return NULL;
}

static void answer_generation(struct connection *connection, bool is_chat)
{
    const struct server_options *options = connection->server->options;
    struct exchange *exchange = &connection->exchange;
    if (connection->too_large) {
        answer_error(connection, STATUS_BAD, "The request body is too large.");
        return;
    }
    exchange->has_body = true;
    const char *problem =
        request_body_read(&exchange->body, &connection->server->mem, connection->content.data,
                          connection->content.size, is_chat, &options->defaults);
    problem = problem != NULL ? problem : check_role(options, &exchange->body);
    if (problem != NULL) {
        answer_error(connection, STATUS_BAD, problem);
    } else if (!serves(options, &exchange->body.model)) {
        answer_error(connection, STATUS_NOT_FOUND, "The model does not exist.");
    } else {
        submit(connection);
    }
}

/* Without regard to a query, which engines ignore. */
static bool is_path(const struct buf *target, const char *path)
{
    const char *query = target->size > 0 ? memchr(target->data, '?', target->size) : NULL;
    size_t size = query != NULL ? (size_t)(query - target->data) : target->size;
    return size == strlen(path) && memcmp(target->data, path, size) == 0;
}

void answer_request(struct connection *connection)
{
    static const char not_found[] = "{\"detail\":\"Not Found\"}";
    bool is_get = connection->parser.method == HTTP_GET;
    bool is_chat = is_path(&connection->target, "/v1/chat/completions");
    if (is_chat || is_path(&connection->target, "/v1/completions")) {
        if (connection->parser.method == HTTP_POST) {
            answer_generation(connection, is_chat);
        } else {
            answer_error(connection, STATUS_METHOD, "Method Not Allowed");
        }
        return;
    }
    if (local_answer(connection, &connection->target, is_get)) {
        return;
    }
    struct buf body;
    buf_init(&body, &connection->server->mem, ANSWER_BYTES_MAX);
    (void)buf_append_text(&body, not_found); /* Small: it always fits. */
    answer_plain(connection, STATUS_NOT_FOUND, "application/json", &body);
    buf_fini(&body);
}
