/* The first state of a request, READING: its head, its body, and what is refused before routing. */
#include "base/check.h"
#include "base/random.h"
#include "proxy/conn.h"
#include "proxy/paths.h"
#include "proxy/request.h"
#include "proxy/traces.h"

void request_free_body(struct request *request)
{
    struct router *router = request->worker->router;
    buf_fini(&request->body);
    if (bodies_free(&router->bodies, request, request->body_charged)) {
        router_wake_all(router);
    }
    request->body_charged = 0;
    request->body_reserved = 0;
}

/* As RFC 9562 has them. */
static void make_id(struct request *request)
{
    struct worker *worker = request->worker;
    struct random random = {.state = worker->random_id[0]};
    uint64_t a = random_next(&random);
    uint64_t b = random_next(&random) ^ worker->random_id[1];
    worker->random_id[0] = random.state;
    a = (a & ~UINT64_C(0xf000)) | UINT64_C(0x4000); /* Version 4. */
    b = (b & ~(UINT64_C(3) << 62)) | (UINT64_C(1) << 63);
    size_t size = 0;
    for (unsigned i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            request->id_text[size++] = '-';
        }
        uint64_t half = i < 16 ? a : b;
        request->id_text[size++] = "0123456789abcdef"[half >> (60 - i % 16 * 4) & 15];
    }
    CHECK(size == REQUEST_ID_BYTES);
    request->id = (struct span){.data = request->id_text, .size = REQUEST_ID_BYTES};
}

static void refuse_large(struct request *request)
{
    stats_add(&request->worker->stats.refusals[STATS_BODY_TOO_LARGE], 1);
    answer_error(request, 413, "Request body is larger than %llu bytes.",
                 (unsigned long long)request->worker->router->config->body_bytes_max);
}

static void begin_body(struct request *request, const struct http_head *head)
{
    uint64_t body_max = request->worker->router->config->body_bytes_max;
    bool known = head->content_length != HTTP_LENGTH_UNKNOWN;
    if (known && head->content_length > body_max) {
        refuse_large(request);
        return;
    }
    if (known && head->content_length > 0) {
        uint64_t first = head->content_length < CONN_BODY_FIRST_BYTES ? head->content_length
                                                                      : CONN_BODY_FIRST_BYTES;
        if (!buf_reserve(&request->body, (size_t)first)) {
            answer_error(request, 503, "Out of memory.");
            return;
        }
    }
    if (head->expect_continue && head->has_body) {
        static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
        struct span part = {.data = text, .size = sizeof text - 1};
        (void)conn_write(request->conn, &part, 1); /* Whether it is gone shows when it reads. */
    }
}

/* Paths that no engine sees. */
static void serve_here(struct request *request, const struct http_head *head)
{
    struct span path = path_of(request->target);
    const char *allowed = NULL;
    (void)path_kind_of(head->method, path, false, &allowed);
    if (allowed != NULL) {
        answer_not_allowed(request, allowed);
    } else if (!admin_serve(request, head->method, path)) {
        answer_text(request, 404, "application/json", span_of("{\"detail\":\"Not Found\"}"));
    }
}

void request_log_word(struct span text, char out[REQUEST_LOG_ID_BYTES + 1])
{
    size_t size = text.size < REQUEST_LOG_ID_BYTES ? text.size : REQUEST_LOG_ID_BYTES;
    for (size_t i = 0; i < size; i++) {
        char byte = text.data[i];
        out[i] = (char)(byte > ' ' && byte < 0x7f ? byte : '_');
    }
    out[size] = '\0';
}

void request_on_head(struct request *request, const struct http_head *head)
{
    REQUIRE(request->sm.now == REQUEST_READING);
    request->begin_ns = request->conn->active_ns;
    request->method = head->method;
    request->target = path_below(head->target, request->worker->router->config->root_path);
    request->version_minor = head->version_minor;
    request->to_head = span_is(head->method, "HEAD");
    request->id = http_header(head, "x-request-id");
    if (request->id.size == 0) {
        make_id(request);
        memcpy(request->log_id, request->id_text, REQUEST_ID_BYTES);
        request->log_id[REQUEST_ID_BYTES] = '\0';
    } else {
        request_log_word(request->id, request->log_id);
    }
    const char *allowed = NULL;
    struct span path = path_of(request->target);
    bool all = request->worker->router->config->proxy_all_paths && !admin_has(path);
    request->path_kind = path_kind_of(head->method, path, all, &allowed);
    bool guarded =
        request->path_kind != PATH_LOCAL || path_is_below(path, "/v1") || span_is(path, "/engines");
    if (request->conn->admin) {
        request->path_kind = PATH_LOCAL;
    }
    if (guarded && !keys_allow(request->worker->router, head)) {
        stats_add(&request->worker->stats.unauthorized, 1);
        answer_unauthorized(request);
    } else if (request->path_kind != PATH_LOCAL) {
        traces_begin(request, head);
        begin_body(request, head);
    } else if (head->has_body) {
        serve_here(request, head); /* The body is not looked at, and the connection ends. */
    }
    request_tick(request);
}

void request_body_space(struct request *request, char **space, size_t *size)
{
    const struct http_head *head = http_parser_head(request->conn->parser);
    struct buf *body = &request->body;
    if (head->content_length == HTTP_LENGTH_UNKNOWN || head->content_length <= body->size ||
        (body->capacity == body->size && !buf_reserve(body, 1))) {
        return; /* No memory: the bytes come by the loop's buffer, and appending them fails. */
    }
    uint64_t left = head->content_length - body->size;
    size_t room = body->capacity - body->size;
    room = room < left ? room : (size_t)left;
    *space = body->data + body->size;
    *size = room < CONN_BODY_READ_BYTES ? room : CONN_BODY_READ_BYTES;
}

void request_reserve_body(struct request *request)
{
    if (request->body_reserved == 0) {
        request->body_reserved = CONN_BODY_READ_BYTES;
        request->body_charged += request->body_reserved;
        bodies_add(&request->worker->router->bodies, request->body_reserved);
    }
}

static void drop_reservation(struct request *request)
{
    struct router *router = request->worker->router;
    uint64_t reserved = request->body_reserved;
    request->body_reserved = 0;
    request->body_charged -= reserved;
    if (reserved > 0 && bodies_give_back(&router->bodies, reserved)) {
        router_wake_all(router);
    }
}

void request_on_body(struct request *request, struct span bytes)
{
    REQUIRE(request->sm.now == REQUEST_READING);
    struct buf *body = &request->body;
    uint64_t body_max = request->worker->router->config->body_bytes_max;
    request->body_begun = true;
    if (bytes.size > body_max - body->size) { /* Chunked: its length was not known before. */
        refuse_large(request);
        request_tick(request);
        return;
    }
    if (body->data != NULL && bytes.data == body->data + body->size) {
        body->size += bytes.size; /* Read in place. */
    } else if (!buf_append(body, bytes.data, bytes.size)) {
        answer_error(request, 503, "Out of memory.");
        request_tick(request);
        return;
    }
    request->body_charged += bytes.size;
    bodies_add(&request->worker->router->bodies, bytes.size);
}

void request_on_body_end(struct request *request)
{
    REQUIRE(request->sm.now == REQUEST_READING);
    request->routing_ns = request->conn->active_ns;
    request->body_ended = true;
    drop_reservation(request);
    if (request->path_kind == PATH_LOCAL) {
        serve_here(request, http_parser_head(request->conn->parser));
    } else if (request_read_subject(request)) {
        sm_move(&request->sm, REQUEST_ROUTING);
    }
    request_tick(request);
}
