/*
 * One client connection. Happy path: bytes -> parser -> whole request -> answer_request(); the
 * parser is paused until connection_answered(), bytes that come meanwhile wait in `pending`.
 * Fails: end of file, reset or a write error -> the running request is aborted, the connection
 * closed. Bad HTTP -> 400 and closed.
 */
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "bench/mock/server_private.h"

struct write_request {
    uv_write_t request;
    struct connection *connection;
    size_t size;
    char bytes[];
};

static void on_handle_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    connection->handles_open--;
    if (connection->handles_open > 0) {
        return;
    }
    struct mem *mem = &connection->server->mem;
    buf_fini(&connection->target);
    buf_fini(&connection->header_name);
    buf_fini(&connection->header_value);
    buf_fini(&connection->request_id);
    buf_fini(&connection->content);
    buf_fini(&connection->pending);
    mem_free(mem, connection, sizeof *connection);
}

void connection_close(struct connection *connection)
{
    if (connection->closing) {
        return;
    }
    connection->closing = true;
    answer_end(connection);
    list_remove(&connection->link);
    uv_close((uv_handle_t *)&connection->idle, on_handle_closed);
    uv_close((uv_handle_t *)&connection->stream, on_handle_closed);
}

static void on_written(uv_write_t *request, int status)
{
    struct write_request *write =
        (struct write_request *)(void *)((char *)request - offsetof(struct write_request, request));
    struct connection *connection = write->connection;
    mem_free(&connection->server->mem, write, sizeof *write + write->size);
    connection->writes_open--;
    if (status != 0 || (connection->close_after_writes && connection->writes_open == 0)) {
        connection_close(connection);
    }
}

void connection_write(struct connection *connection, const char *bytes, size_t size)
{
    if (connection->closing || size == 0) {
        return;
    }
    struct write_request *write = mem_alloc(&connection->server->mem, sizeof *write + size);
    if (write == NULL) {
        connection_close(connection);
        return;
    }
    write->connection = connection;
    write->size = size;
    memcpy(write->bytes, bytes, size);
    uv_buf_t piece = uv_buf_init(write->bytes, (unsigned)size);
    connection->writes_open++;
    int error =
        uv_write(&write->request, (uv_stream_t *)&connection->stream, &piece, 1, on_written);
    if (error != 0) {
        connection->writes_open--;
        mem_free(&connection->server->mem, write, sizeof *write + size);
        connection_close(connection);
    }
}

static void on_idle(uv_timer_t *timer)
{
    connection_close(timer->data);
}

static void start_idle_timer(struct connection *connection)
{
    uint64_t idle_ms = connection->server->options->keep_alive_ms;
    if (idle_ms > 0) {
        (void)uv_timer_start(&connection->idle, on_idle, idle_ms, 0); /* Cannot fail. */
    }
}

void connection_answered(struct connection *connection)
{
    bool keep_alive = connection->exchange.keep_alive;
    connection->answering = false;
    answer_end(connection);
    if (connection->closing) {
        return;
    }
    if (!keep_alive) {
        connection->close_after_writes = true;
        if (connection->writes_open == 0) {
            connection_close(connection);
        }
        return;
    }
    start_idle_timer(connection);
    llhttp_resume(&connection->parser);
    connection_parse(connection);
}

/* ---- Parser ---- */

static struct connection *of_parser(llhttp_t *parser)
{
    return parser->data;
}

static int on_message_begin(llhttp_t *parser)
{
    struct connection *connection = of_parser(parser);
    connection->target.size = 0;
    connection->header_name.size = 0;
    connection->header_value.size = 0;
    connection->request_id.size = 0;
    connection->content.size = 0;
    connection->expects_continue = false;
    connection->too_large = false;
    (void)uv_timer_stop(&connection->idle); /* Cannot fail. */
    return 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t size)
{
    return buf_append(&of_parser(parser)->target, at, size) ? 0 : -1;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t size)
{
    return buf_append(&of_parser(parser)->header_name, at, size) ? 0 : -1;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t size)
{
    return buf_append(&of_parser(parser)->header_value, at, size) ? 0 : -1;
}

static bool name_is(const struct connection *connection, const char *name)
{
    return connection->header_name.size == strlen(name) &&
           strncasecmp(connection->header_name.data, name, connection->header_name.size) == 0;
}

static int on_header_complete(llhttp_t *parser)
{
    struct connection *connection = of_parser(parser);
    struct buf *value = &connection->header_value;
    if (name_is(connection, "x-request-id")) {
        connection->request_id.size = 0;
        (void)buf_append(&connection->request_id, value->data, value->size); /* Too long: none. */
    } else if (name_is(connection, "expect")) {
        connection->expects_continue = true;
    }
    connection->header_name.size = 0;
    value->size = 0;
    return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct connection *connection = of_parser(parser);
    if (connection->expects_continue) {
        connection_write(connection, go_on, sizeof go_on - 1);
    }
    return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t size)
{
    struct connection *connection = of_parser(parser);
    if (!connection->too_large && !buf_append(&connection->content, at, size)) {
        connection->too_large = true;
    }
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED; /* The answer comes first. */
}

static void refuse(struct connection *connection)
{
    connection->exchange.keep_alive = false;
    answer_error(connection, 400, "Invalid HTTP request received.");
}

/* Runs the parser over `bytes`; false: they end within a message. */
static bool parse_message(struct connection *connection, const struct buf *bytes)
{
    enum llhttp_errno error = llhttp_execute(&connection->parser, bytes->data, bytes->size);
    if (error == HPE_OK) {
        return false;
    }
    connection->answering = true;
    if (error != HPE_PAUSED) {
        refuse(connection);
        return true;
    }
    size_t used = (size_t)(llhttp_get_error_pos(&connection->parser) - bytes->data);
    if (!buf_append(&connection->pending, bytes->data + used, bytes->size - used)) {
        connection_close(connection);
        return true;
    }
    connection->exchange.keep_alive = llhttp_should_keep_alive(&connection->parser) != 0;
    answer_request(connection);
    return true;
}

/* A loop, not a call from answer to answer: a client may pipeline any number of requests. */
void connection_parse(struct connection *connection)
{
    if (connection->parsing) {
        return; /* An answer given at once: the loop below goes on. */
    }
    connection->parsing = true;
    bool more = true;
    while (more && !connection->closing && !connection->answering &&
           !connection->close_after_writes && connection->pending.size > 0) {
        struct buf bytes = connection->pending;
        buf_init(&connection->pending, &connection->server->mem, PENDING_BYTES_MAX);
        more = parse_message(connection, &bytes);
        buf_fini(&bytes);
    }
    connection->parsing = false;
}

/* ---- Stream ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct connection *connection = handle->data;
    *out = uv_buf_init(connection->server->read_buffer, READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *bytes)
{
    struct connection *connection = stream->data;
    if (size < 0) {
        connection_close(connection);
        return;
    }
    if (connection->close_after_writes) {
        return;
    }
    if (!buf_append(&connection->pending, bytes->base, (size_t)size)) {
        connection_close(connection);
        return;
    }
    connection_parse(connection);
}

static void init_parser(struct connection *connection)
{
    llhttp_settings_init(&connection->settings);
    connection->settings.on_message_begin = on_message_begin;
    connection->settings.on_url = on_url;
    connection->settings.on_header_field = on_header_field;
    connection->settings.on_header_value = on_header_value;
    connection->settings.on_header_value_complete = on_header_complete;
    connection->settings.on_headers_complete = on_headers_complete;
    connection->settings.on_body = on_body;
    connection->settings.on_message_complete = on_message_complete;
    llhttp_init(&connection->parser, HTTP_REQUEST, &connection->settings);
    connection->parser.data = connection;
}

void connection_accept(struct server *server)
{
    struct connection *connection = mem_alloc_zero(&server->mem, sizeof *connection);
    CHECK(connection != NULL); /* A test tool out of memory has nothing better to do. */
    connection->server = server;
    connection->handles_open = 2;
    CHECK(uv_tcp_init(&server->loop, &connection->stream) == 0);
    CHECK(uv_timer_init(&server->loop, &connection->idle) == 0);
    connection->stream.data = connection;
    connection->idle.data = connection;
    buf_init(&connection->target, &server->mem, TARGET_BYTES_MAX);
    buf_init(&connection->header_name, &server->mem, NAME_BYTES_MAX);
    buf_init(&connection->header_value, &server->mem, VALUE_BYTES_MAX);
    buf_init(&connection->request_id, &server->mem, NAME_BYTES_MAX);
    buf_init(&connection->content, &server->mem, BODY_BYTES_MAX);
    buf_init(&connection->pending, &server->mem, PENDING_BYTES_MAX);
    list_push_back(&server->connections, &connection->link);
    init_parser(connection);
    if (uv_accept((uv_stream_t *)&server->listener, (uv_stream_t *)&connection->stream) != 0 ||
        uv_read_start((uv_stream_t *)&connection->stream, on_alloc, on_read) != 0) {
        connection_close(connection);
        return;
    }
    (void)uv_tcp_nodelay(&connection->stream, 1); /* Only delays, if it fails. */
    start_idle_timer(connection);
}
