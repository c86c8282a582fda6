/* Answers made here: local paths and errors. */
#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "json/json.h"
#include "proxy/conn.h"
#include "proxy/request.h"

enum { ERROR_BYTES_MAX = 8 * 1024 };

#define RETRY_LATER "Retry-After: 5\r\n" /* What is missing may come: an engine, memory. */

static bool write_head(struct request *request, unsigned status, const char *content_type,
                       const char *extra, size_t body_size)
{
    struct buf *out = &request->head;
    bool keep_alive = conn_keeps_alive(request->conn);
    out->size = 0;
    return http_write_status_line(out, status) &&
           http_write_header_text(out, "Content-Type", content_type) &&
           http_write_header_number(out, "Content-Length", body_size) &&
           (request->id.size == 0 ||
            http_write_header(out, span_of("X-Request-Id"), request->id)) &&
           (extra == NULL || buf_append_text(out, extra)) &&
           (keep_alive || buf_append_text(out, "Connection: close\r\n")) &&
           (!keep_alive || request->version_minor > 0 ||
            buf_append_text(out, "Connection: keep-alive\r\n")) &&
           http_write_head_end(out);
}

static void send_answer(struct request *request, unsigned status, const char *content_type,
                        const char *extra, struct span body)
{
    if (request->sm.now == REQUEST_DONE) {
        return; /* It has been answered. */
    }
    REQUIRE(!request->answering);
    if (request->sm.now == REQUEST_READING && !request->body_ended) {
        request->conn->last = true; /* The rest of the request is not read. */
    }
    request->status = status;
    request_load_ended(request);
    if (!write_head(request, status, content_type, extra, body.size)) {
        request->client_gone = true; /* No memory for an answer: all that is left is to close. */
    } else {
        struct span parts[2] = {
            {.data = request->head.data, .size = request->head.size},
            {.data = body.data, .size = request->to_head ? 0 : body.size},
        };
        request->answer_ns = net_now_ns();
        request->answer_bytes = parts[0].size + parts[1].size;
        request->client_gone = !conn_write(request->conn, parts, 2) || request->client_gone;
    }
    sm_move(&request->sm, REQUEST_DONE);
}

void answer_text(struct request *request, unsigned status, const char *content_type,
                 struct span body)
{
    send_answer(request, status, content_type, NULL, body);
}

void answer_not_allowed(struct request *request, const char *allowed)
{
    char extra[64];
    int size = snprintf(extra, sizeof extra, "Allow: %s\r\n", allowed);
    CHECK(size > 0 && (size_t)size < sizeof extra);
    send_answer(request, 405, "application/json", extra,
                span_of("{\"detail\":\"Method Not Allowed\"}"));
}

void answer_unauthorized(struct request *request)
{
    send_answer(request, 401, "application/json", "WWW-Authenticate: Bearer\r\n",
                span_of("{\"error\":{\"message\":\"A known API key is needed, as a bearer token in "
                        "the Authorization header.\",\"type\":\"invalid_request_error\","
                        "\"param\":null,\"code\":\"invalid_api_key\"}}"));
}

void answer_busy(struct request *request, const char *code, const char *message,
                 unsigned retry_after_s)
{
    char extra[48];
    char body[512];
    int extra_size = snprintf(extra, sizeof extra, "Retry-After: %u\r\n", retry_after_s);
    int size = snprintf(body, sizeof body,
                        "{\"error\":{\"message\":\"%s Please try again in %u s.\","
                        "\"type\":\"rate_limit_error\",\"param\":null,\"code\":\"%s\"}}",
                        message, retry_after_s, code);
    CHECK(extra_size > 0 && (size_t)extra_size < sizeof extra);
    CHECK(size > 0 && (size_t)size < sizeof body);
    send_answer(request, 429, "application/json", extra, span_of(body));
}

void answer_error(struct request *request, unsigned status, const char *format, ...)
{
    char text[ERROR_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = size < 0 ? 0 : (size_t)size;
    length = length < sizeof text ? length : sizeof text - 1;

    struct buf body;
    struct json_writer writer;
    buf_init(&body, &request->worker->mem, (size_t)8 * ERROR_BYTES_MAX);
    json_writer_init(&writer, &body);
    json_write_object(&writer);
    json_write_key(&writer, "error");
    json_write_string(&writer, (struct span){.data = text, .size = length});
    json_write_end(&writer);
    bool complete = json_writer_ok(&writer);
    send_answer(request, status, "application/json", status == 503 ? RETRY_LATER : NULL,
                complete ? (struct span){.data = body.data, .size = body.size}
                         : span_of("{\"error\":\"\"}"));
    buf_fini(&body);
}

bool answer_kept(struct request *request)
{
    struct buf *kept = &request->kept;
    if (request->kept_status == 0) {
        return false;
    }
    if (kept->size == 0) {
        answer_error(request, request->kept_status,
                     "The engine answered %u, and no other could take its place.",
                     request->kept_status);
        return true;
    }
    REQUIRE(request->sm.now != REQUEST_DONE && !request->answering);
    struct span part = {.data = kept->data, .size = kept->size};
    request->status = request->kept_status;
    request->conn->last = request->conn->last || request->kept_is_last;
    request_load_ended(request);
    request->answer_ns = net_now_ns();
    request->answer_bytes = part.size;
    request->client_gone = !conn_write(request->conn, &part, 1) || request->client_gone;
    sm_move(&request->sm, REQUEST_DONE);
    return true;
}
