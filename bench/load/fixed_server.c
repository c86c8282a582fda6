/*
 * fixed-server: an upstream that costs next to nothing, for comparing proxies. Each POST is
 * answered with the same JSON, or, if its body says "stream":true, with the same events. It looks
 * at nothing else; not for use against hostile clients.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

#include "load/tool.h"

enum {
    READ_BYTES = 256 * 1024,
    HEAD_BYTES_MAX = 16 * 1024,
    BACKLOG = 4096,
    EVENT_BYTES = 512,
    EVENT_FILLER_BYTES = 110,
};

struct server {
    uv_loop_t loop;
    uv_tcp_t listener;
    char read_buffer[READ_BYTES];
    char *answer; /* Head and body. */
    size_t answer_size;
    char *stream_head;
    size_t stream_head_size;
    char *event; /* One chunk. */
    size_t event_size;
    unsigned event_count;
    uint64_t interval_ms;
    bool hold; /* Streams never end. */
};

struct connection {
    uv_tcp_t tcp;
    uv_timer_t timer;
    struct server *server;
    char head[HEAD_BYTES_MAX];
    size_t head_size;
    uint64_t body_left;
    bool in_body;
    bool stream;
    unsigned events_left;
    unsigned open_handles;
};

static void on_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    if (--connection->open_handles == 0) {
        free(connection);
    }
}

static void drop(struct connection *connection)
{
    if (!uv_is_closing((uv_handle_t *)&connection->tcp)) {
        uv_close((uv_handle_t *)&connection->tcp, on_closed);
        uv_close((uv_handle_t *)&connection->timer, on_closed);
    }
}

struct write {
    uv_write_t request;
    char bytes[];
};

static void on_written(uv_write_t *request, int status)
{
    (void)status; /* A peer that is gone shows when it is read. */
    free(request->data);
}

/* What the socket does not take at once is copied. */
static void put(struct connection *connection, char *bytes, size_t size)
{
    uv_buf_t buf = uv_buf_init(bytes, (unsigned)size);
    int done = uv_try_write((uv_stream_t *)&connection->tcp, &buf, 1);
    size_t sent = done < 0 ? 0 : (size_t)done;
    if (sent == size || (done < 0 && done != UV_EAGAIN)) {
        return;
    }
    struct write *write = tool_must(malloc(sizeof *write + size - sent));
    write->request.data = write;
    memcpy(write->bytes, bytes + sent, size - sent);
    buf = uv_buf_init(write->bytes, (unsigned)(size - sent));
    (void)uv_write(&write->request, (uv_stream_t *)&connection->tcp, &buf, 1, on_written);
}

static void next_event(uv_timer_t *timer)
{
    struct connection *connection = timer->data;
    struct server *server = connection->server;
    if (connection->events_left > 0) {
        connection->events_left--;
        put(connection, server->event, server->event_size);
    }
    if (connection->events_left > 0) {
        (void)uv_timer_start(timer, next_event, server->interval_ms, 0);
    } else if (!server->hold) {
        char last[] = "0\r\n\r\n";
        put(connection, last, sizeof last - 1);
    }
}

static void answer(struct connection *connection)
{
    struct server *server = connection->server;
    if (!connection->stream) {
        put(connection, server->answer, server->answer_size);
        return;
    }
    put(connection, server->stream_head, server->stream_head_size);
    connection->events_left = server->event_count;
    next_event(&connection->timer);
}

static void look_for_stream(struct connection *connection, const char *bytes, size_t size)
{
    static const char flag[] = "\"stream\":true";
    /* The load generator puts it at the body's start. */
    size_t looked = size < 256 ? size : 256;
    if (memmem(bytes, looked, flag, sizeof flag - 1) != NULL) {
        connection->stream = true;
    }
}

static uint64_t content_length(const char *head)
{
    const char *line = head;
    while ((line = strstr(line, "\r\n")) != NULL) {
        line += 2;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            return strtoull(line + 15, NULL, 10);
        }
    }
    return 0;
}

/* Takes bytes of a head; returns how many. */
static size_t take_head(struct connection *connection, const char *bytes, size_t size)
{
    size_t room = HEAD_BYTES_MAX - 1 - connection->head_size;
    size_t copied = size < room ? size : room;
    memcpy(connection->head + connection->head_size, bytes, copied);
    size_t before = connection->head_size;
    connection->head_size += copied;
    connection->head[connection->head_size] = '\0';
    char *end = strstr(connection->head, "\r\n\r\n");
    if (end == NULL) {
        if (copied < size) {
            drop(connection);
        }
        return copied;
    }
    size_t head_size = (size_t)(end - connection->head) + 4;
    connection->head[head_size - 2] = '\0';
    connection->body_left = content_length(connection->head);
    connection->in_body = true;
    connection->stream = false;
    connection->head_size = 0;
    return head_size - before;
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct connection *connection = stream->data;
    if (count < 0) {
        drop(connection);
        return;
    }
    const char *bytes = buf->base;
    size_t left = (size_t)count;
    while (left > 0 || (connection->in_body && connection->body_left == 0)) {
        size_t taken = 0;
        if (!connection->in_body) {
            taken = take_head(connection, bytes, left);
        } else {
            taken = connection->body_left < left ? (size_t)connection->body_left : left;
            look_for_stream(connection, bytes, taken);
            connection->body_left -= taken;
            if (connection->body_left == 0) {
                connection->in_body = false;
                answer(connection);
            }
        }
        bytes += taken;
        left -= taken;
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct connection *connection = handle->data;
    *buf = uv_buf_init(connection->server->read_buffer, READ_BYTES);
}

static void on_accept(uv_stream_t *listener, int status)
{
    struct server *server = listener->data;
    struct connection *connection = status < 0 ? NULL : calloc(1, sizeof *connection);
    if (connection == NULL) {
        return;
    }
    connection->server = server;
    connection->open_handles = 2;
    (void)uv_tcp_init(&server->loop, &connection->tcp);
    (void)uv_timer_init(&server->loop, &connection->timer);
    connection->tcp.data = connection;
    connection->timer.data = connection;
    if (uv_accept(listener, (uv_stream_t *)&connection->tcp) < 0) {
        drop(connection);
        return;
    }
    (void)uv_tcp_nodelay(&connection->tcp, 1);
    (void)uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read);
}

static void make_answer(struct server *server, size_t body_bytes)
{
    static const char around[] = "{\"choices\":[{\"message\":{\"content\":\"\"}}]}";
    size_t filler = body_bytes > sizeof around ? body_bytes - (sizeof around - 1) : 1;
    char *text = tool_must(malloc(filler + 1));
    memset(text, 'x', filler);
    text[filler] = '\0';
    size_t room = filler + HEAD_BYTES_MAX;
    server->answer = tool_must(malloc(room));
    int size = snprintf(server->answer, room,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n"
                        "{\"choices\":[{\"message\":{\"content\":\"%s\"}}]}",
                        sizeof around - 1 + filler, text);
    server->answer_size = (size_t)size;
    free(text);
}

static void make_stream(struct server *server)
{
    char event[EVENT_BYTES + 1];
    char filler[EVENT_FILLER_BYTES + 1];
    memset(filler, 'y', EVENT_FILLER_BYTES);
    filler[EVENT_FILLER_BYTES] = '\0';
    int size = snprintf(event, sizeof event,
                        "data: {\"choices\":[{\"delta\":{\"content\":\"%s\"}}]}\n\n", filler);
    server->event = tool_must(malloc(HEAD_BYTES_MAX));
    size = snprintf(server->event, HEAD_BYTES_MAX, "%x\r\n%s\r\n", (unsigned)size, event);
    server->event_size = (size_t)size;
    server->stream_head = tool_must(malloc(HEAD_BYTES_MAX));
    size = snprintf(server->stream_head, HEAD_BYTES_MAX,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n");
    server->stream_head_size = (size_t)size;
}

static void usage(void)
{
    (void)fprintf(stderr,
                  "usage: fixed-server [--body-bytes N] [--events N] [--interval-ms N] [--hold]\n"
                  "  --body-bytes N   of the JSON answer (1024)\n"
                  "  --events N       of a streamed answer (200)\n"
                  "  --interval-ms N  between them (0: one a turn of the loop)\n"
                  "  --hold           streams stay open after their events\n"
                  "Takes a free port of 127.0.0.1; the first line of output names it.\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static struct server server = {.event_count = 200};
    size_t body_bytes = 1024;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--hold") == 0) {
            server.hold = true;
        } else if (strcmp(argv[i], "--body-bytes") == 0) {
            body_bytes = (size_t)tool_number(argc, argv, ++i, usage);
        } else if (strcmp(argv[i], "--events") == 0) {
            server.event_count = (unsigned)tool_number(argc, argv, ++i, usage);
        } else if (strcmp(argv[i], "--interval-ms") == 0) {
            server.interval_ms = (uint64_t)tool_number(argc, argv, ++i, usage);
        } else {
            usage();
        }
    }
    (void)signal(SIGPIPE, SIG_IGN);
    make_answer(&server, body_bytes);
    make_stream(&server);
    struct sockaddr_in address;
    (void)uv_loop_init(&server.loop);
    (void)uv_ip4_addr("127.0.0.1", 0, &address);
    (void)uv_tcp_init(&server.loop, &server.listener);
    server.listener.data = &server;
    int error = uv_tcp_bind(&server.listener, (const struct sockaddr *)&address, 0);
    error = error < 0 ? error : uv_listen((uv_stream_t *)&server.listener, BACKLOG, on_accept);
    if (error < 0) {
        tool_die("cannot listen", error);
    }
    int size = sizeof address;
    (void)uv_tcp_getsockname(&server.listener, (struct sockaddr *)&address, &size);
    (void)printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    (void)fflush(stdout);
    return uv_run(&server.loop, UV_RUN_DEFAULT);
}
