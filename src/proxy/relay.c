/*
 * Heads both ways, and the answer's body from the engine's bytes to the client's.
 *
 * Where the client understands the engine's framing, the bytes go on as they came (the parser has
 * checked them). Until a byte of the body has come, everything is held back in `head`, so that
 * another engine may still answer.
 */
#include <stdio.h>

#include "base/check.h"
#include "proxy/conn.h"
#include "proxy/disagg.h"
#include "proxy/traces.h"
#include "proxy/upstream.h"

/* Headers that are made anew, or that belong to one connection. */
static bool is_dropped(const struct http_head *head, struct span name)
{
    return span_is_nocase(name, "x-request-id") || http_is_hop_by_hop(head, name);
}

static bool write_client_headers(const struct request *request, struct buf *out,
                                 const struct http_head *head)
{
    const struct router *router = request->worker->router;
    bool traced = router->traces != NULL;
    struct span key = keys_for_engines(router, request->path_kind == PATH_SLEEP);
    for (size_t i = 0; i < head->header_count; i++) {
        struct span name = head->headers[i].name;
        if (is_dropped(head, name) || span_is_nocase(name, "host") ||
            span_is_nocase(name, "content-length") || span_is_nocase(name, "expect") ||
            (traced && span_is_nocase(name, "traceparent")) || keys_hide(router, name) ||
            (key.data != NULL && span_is_nocase(name, "authorization")) ||
            (disagg_prefills(request) && span_is_nocase(name, "accept-encoding"))) {
            continue;
        }
        if (!http_write_header(out, name, head->headers[i].value)) {
            return false;
        }
    }
    return (key.data == NULL || http_write_header(out, span_of("Authorization"), key)) &&
           (!traced || traces_write_parent(request, out));
}

static size_t size_of_body(const struct request *request)
{
    struct span parts[HANDOVER_PARTS_MAX];
    size_t count = disagg_body(request, parts);
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    return size;
}

bool relay_build_engine_head(struct request *request)
{
    const struct backend *backend = request->worker->router->backends[request->choice.endpoint];
    const struct http_head *head = http_parser_head(request->conn->parser);
    struct buf *out = &request->engine_head;
    out->size = 0;
    size_t body_size = size_of_body(request);
    bool has_length = body_size > 0 || head->has_body || span_is(request->method, "POST");
    return buf_append(out, request->method.data, request->method.size) &&
           buf_append_text(out, " ") && buf_append(out, backend->path.data, backend->path.size) &&
           buf_append(out, request->target.data, request->target.size) &&
           buf_append_text(out, " HTTP/1.1\r\n") &&
           http_write_header(out, span_of("Host"), backend->host) &&
           write_client_headers(request, out, head) &&
           http_write_header(out, span_of("X-Request-Id"), request->id) &&
           (!has_length || http_write_header_number(out, "Content-Length", body_size)) &&
           http_write_head_end(out);
}

static enum request_framing choose_framing(const struct request *request,
                                           const struct http_head *head)
{
    if (disagg_collects(request, head->status)) {
        return REQUEST_COLLECTED;
    }
    if (!head->has_body) {
        return REQUEST_NO_BODY;
    }
    if (!head->chunked && !head->until_eof) {
        return REQUEST_RAW;
    }
    if (request->version_minor == 0) {
        return REQUEST_PLAIN;
    }
    return head->chunked ? REQUEST_RAW : REQUEST_CHUNKED;
}

static bool write_engine_headers(struct buf *out, const struct http_head *head)
{
    for (size_t i = 0; i < head->header_count; i++) {
        struct span name = head->headers[i].name;
        if (!is_dropped(head, name) && !http_write_header(out, name, head->headers[i].value)) {
            return false;
        }
    }
    return true;
}

static bool is_plain_sse(const struct http_head *head)
{
    static const char type[] = "text/event-stream";
    struct span given = http_header(head, "content-type");
    struct span start = {.data = given.data, .size = sizeof type - 1};
    return given.size >= start.size && span_is_nocase(start, type) &&
           http_header(head, "content-encoding").data == NULL;
}

static bool build_answer_head(struct request *request, const struct http_head *head)
{
    struct buf *out = &request->head;
    request->status = head->status;
    request->framing = choose_framing(request, head);
    request->reusable = head->keep_alive;
    upstream_note_keep_alive(request->upstream, head);
    request->is_sse = is_plain_sse(head);
    meter_begin(&request->meter, request->series);
    bool chunked =
        request->framing == REQUEST_CHUNKED || (request->framing == REQUEST_RAW && head->chunked);
    bool keep_alive = conn_keeps_alive(request->conn) && request->framing != REQUEST_PLAIN;
    return http_write_status_line(out, head->status) && write_engine_headers(out, head) &&
           http_write_header(out, span_of("X-Request-Id"), request->id) &&
           (!chunked || buf_append_text(out, "Transfer-Encoding: chunked\r\n")) &&
           (keep_alive || buf_append_text(out, "Connection: close\r\n")) &&
           (!keep_alive || request->version_minor > 0 ||
            buf_append_text(out, "Connection: keep-alive\r\n")) &&
           http_write_head_end(out);
}

static void on_head(struct request *request, const struct http_head *head)
{
    if (head->status == 101) {
        request_fail_try(request, NET_INVALID); /* Nobody asked to switch. */
    } else if (head->status >= 200) {
        request->head.size = 0;
        request->head_ready = build_answer_head(request, head);
        if (!request->head_ready) {
            request_fail_try(request, NET_NO_MEMORY);
        }
    }
}

/* False: no memory, and nothing was appended. */
static bool append_reframed(struct request *request, struct span body)
{
    struct buf *scratch = &request->worker->scratch;
    bool chunked = request->framing == REQUEST_CHUNKED;
    size_t size_before = scratch->size;
    if ((!chunked || http_write_chunk_head(scratch, body.size)) &&
        buf_append(scratch, body.data, body.size) &&
        (!chunked || buf_append_text(scratch, "\r\n"))) {
        return true;
    }
    scratch->size = size_before; /* Half a chunk would spoil what comes behind it. */
    return false;
}

static void on_body(struct request *request, struct span body)
{
    request->body_arrived = request->body_arrived || body.size > 0;
    if (request->framing == REQUEST_COLLECTED) {
        disagg_collect(request, body);
    } else if (request->framing != REQUEST_RAW && !append_reframed(request, body)) {
        request_fail_try(request, NET_NO_MEMORY);
    } else if (request->is_sse) {
        meter_event(&request->meter, body);
    } else {
        meter_rest(&request->meter, body);
    }
}

static void on_message_end(struct request *request, size_t bytes_left)
{
    request->complete = true;
    if (!request->is_sse) {
        meter_turn(&request->meter, true);
    }
    request->reusable = request->reusable && bytes_left == 0 && request->body_ended;
    if (request->framing == REQUEST_CHUNKED &&
        !buf_append_text(&request->worker->scratch, "0\r\n\r\n")) {
        request_fail_try(request, NET_NO_MEMORY);
        request->complete = false;
    }
}

/* What was made goes to the client now; or to `head`, while nothing of the body has come. */
static void keep_output(struct request *request, struct span raw)
{
    struct buf *scratch = &request->worker->scratch;
    if (request->framing == REQUEST_RAW) {
        request->output = raw;
    } else {
        request->output = (struct span){.data = scratch->data, .size = scratch->size};
    }
    if (request->body_arrived || request->complete || request->output.size == 0) {
        return;
    }
    if (!buf_append(&request->head, request->output.data, request->output.size)) {
        request_fail_try(request, NET_INVALID);
    }
    request->output = (struct span){0};
}

/* One event of the parser. False: stop. */
static bool take_event(struct request *request, enum http_event event, struct span body)
{
    struct http_parser *parser = request->upstream->parser;
    switch (event) {
    case HTTP_GOT_HEAD:
        on_head(request, http_parser_head(parser));
        return !request->failed;
    case HTTP_GOT_BODY:
        on_body(request, body);
        return !request->failed;
    case HTTP_GOT_END:
        if (!request->head_ready) { /* Of an informational answer: the real one follows. */
            if (++request->interim_count > REQUEST_INTERIM_MAX) {
                request_fail_try(request, NET_INVALID);
                return false;
            }
            http_parser_reset(parser, request->to_head);
            return true;
        }
        on_message_end(request, request->input.size);
        return false;
    case HTTP_NEED_MORE:
        return false;
    case HTTP_BROKEN:
    default:
        request_fail_try(request, NET_INVALID);
        return false;
    }
}

void relay_parse(struct request *request)
{
    const char *raw_begin = request->input.data;
    const char *raw_end = raw_begin;
    request->worker->scratch.size = 0;
    bool more = true;
    while (more) {
        size_t consumed = 0;
        struct span body = {0};
        bool had_head = request->head_ready;
        enum http_event event = http_parse(request->upstream->parser, request->input.data,
                                           request->input.size, &consumed, &body);
        CHECK(consumed <= request->input.size);
        request->input.data += consumed;
        request->input.size -= consumed;
        more = take_event(request, event, body);
        if (event != HTTP_BROKEN) {
            raw_end = request->input.data;
            request->between_chunks = http_parser_between_chunks(request->upstream->parser);
        }
        if (!had_head) {
            raw_begin = raw_end; /* Up to here it was the head. */
        }
    }
    request->input = (struct span){0};
    if (request->meter.rest.size > 0) {
        meter_turn(&request->meter, false);
    }
    if (request->head_ready) {
        keep_output(request,
                    (struct span){.data = raw_begin, .size = (size_t)(raw_end - raw_begin)});
    }
}

void relay_parse_end(struct request *request)
{
    request->worker->scratch.size = 0;
    if (request->failure == NET_EOF && http_parse_eof(request->upstream->parser) == HTTP_GOT_END &&
        request->head_ready) {
        on_message_end(request, 0);
        request->reusable = false;
        keep_output(request, (struct span){0});
        return;
    }
    request_fail_try(request, request->failure == NET_EOF ? NET_RESET : request->failure);
}

/* The client is told twice: by the event, and since the body's last chunk never comes; where the
 * body ends with its connection, by a reset. */
void relay_error_event(struct request *request, const char *type, unsigned code,
                       const char *message)
{
    bool has_place = request->framing == REQUEST_CHUNKED || request->framing == REQUEST_PLAIN ||
                     (request->framing == REQUEST_RAW && request->between_chunks);
    if (!request->is_sse || !meter_between_events(&request->meter) || !has_place) {
        return;
    }
    char event[256];
    int size = snprintf(event, sizeof event,
                        "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":"
                        "\"%s\",\"type\":\"%s\",\"code\":%u}}\n\n",
                        message, type, code);
    CHECK(size > 0 && (size_t)size < sizeof event);
    struct buf *scratch = &request->worker->scratch;
    bool plain = request->framing == REQUEST_PLAIN;
    scratch->size = 0;
    if ((plain || http_write_chunk_head(scratch, (size_t)size)) &&
        buf_append(scratch, event, (size_t)size) && (plain || buf_append_text(scratch, "\r\n"))) {
        struct span part = {.data = scratch->data, .size = scratch->size};
        (void)conn_write(request->conn, &part, 1); /* Its connection ends next in any case. */
    }
}
