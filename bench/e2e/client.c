/*
 * Connections and answers.
 *
 * Happy path: take an idle connection or open one -> write the request -> read events until the
 * stream's end -> idle again. A kept connection that breaks before the answer's first byte is
 * replaced once, as HTTP clients do; any other failure ends the request: load is open loop, nobody
 * asks again.
 */
#include <stdlib.h>
#include <string.h>

#include "bench/e2e/replay.h"
#include "bench/load/tool.h"

enum { STATUS_OK = 200 };

struct client {
    struct list link; /* In idle or busy. */
    struct replay *replay;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    llhttp_t parser;
    size_t index; /* Of the request under way. */
    char *bytes;  /* Of it; owned. */
    size_t size;
    bool busy;
    bool writing;  /* The request is not out as a whole. */
    bool kept;     /* It has had an answer before. */
    bool answered; /* Bytes of this answer have come. */
    bool whole;    /* [DONE] was read. */
    bool is_engine_header;
    uint64_t token_ns; /* When the last token was read. */
    size_t line_size;
    char line[REPLAY_LINE_BYTES];
};

static struct outcome *outcome_of(struct client *client)
{
    return &client->replay->outcomes[client->index];
}

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    free(client->bytes);
    free(client);
}

static void drop(struct client *client)
{
    if (!uv_is_closing((uv_handle_t *)&client->tcp)) {
        list_remove(&client->link);
        uv_close((uv_handle_t *)&client->tcp, on_closed);
    }
}

static void finish(struct client *client, enum outcome_end end)
{
    client->busy = false;
    replay_ended(client->replay, client->index, end);
}

static void open_client(struct replay *replay, size_t index, char *bytes, size_t size);

/* The connection is of no more use. */
static void fail(struct client *client)
{
    if (client->busy && client->kept && !client->answered && !client->replay->stopping) {
        client->busy = false;
        open_client(client->replay, client->index, client->bytes, client->size);
        client->bytes = NULL;
    } else if (client->busy) {
        outcome_of(client)->status = client->answered ? client->parser.status_code : 0;
        finish(client, client->answered ? OUTCOME_CUT : OUTCOME_REFUSED);
    }
    drop(client);
}

/* ---- Answers ---- */

static bool has(const char *line, const char *text)
{
    return strstr(line, text) != NULL;
}

static void read_token(struct client *client)
{
    struct outcome *outcome = outcome_of(client);
    uint64_t now_ns = replay_now_ns(client->replay);
    if (outcome->token_count++ == 0) {
        outcome->first_ns = now_ns;
    } else {
        uint64_t gap_ns = now_ns - client->token_ns;
        outcome->gap_max_ns = gap_ns > outcome->gap_max_ns ? gap_ns : outcome->gap_max_ns;
        client->replay->gaps[replay_gap_bucket(gap_ns)]++;
    }
    client->token_ns = now_ns;
    outcome->last_ns = now_ns;
}

/* One line of the stream, NUL-terminated. */
static void read_line(struct client *client)
{
    static const char cached[] = "\"cached_tokens\":";
    const char *line = client->line;
    if (strncmp(line, "data: ", 6) != 0) {
        return;
    }
    if (strcmp(line + 6, "[DONE]") == 0) {
        client->whole = true;
    } else if (!has(line, "\"choices\":[]")) {
        read_token(client);
    } else if (has(line, cached)) {
        outcome_of(client)->cached_tokens =
            (uint32_t)strtoul(strstr(line, cached) + sizeof cached - 1, NULL, 10);
    }
}

static int on_body(llhttp_t *parser, const char *bytes, size_t size)
{
    struct client *client = parser->data;
    if (parser->status_code != STATUS_OK) {
        return 0;
    }
    const char *end = bytes + size;
    while (bytes < end) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        size_t part = (size_t)((newline != NULL ? newline : end) - bytes);
        size_t room = REPLAY_LINE_BYTES - 1 - client->line_size;
        size_t taken = part < room ? part : room;
        memcpy(client->line + client->line_size, bytes, taken);
        client->line_size += taken;
        bytes += part;
        if (newline != NULL) {
            client->line[client->line_size] = '\0';
            read_line(client);
            client->line_size = 0;
            bytes++;
        }
    }
    return 0;
}

static int on_header_name(llhttp_t *parser, const char *bytes, size_t size)
{
    struct client *client = parser->data;
    client->is_engine_header = size == 11 && strncasecmp(bytes, "x-engine-id", size) == 0;
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *bytes, size_t size)
{
    struct client *client = parser->data;
    if (client->is_engine_header && size < REPLAY_ENGINE_BYTES) {
        struct outcome *outcome = outcome_of(client);
        memcpy(outcome->engine, bytes, size);
        outcome->engine[size] = '\0';
    }
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    struct client *client = parser->data;
    struct outcome *outcome = outcome_of(client);
    outcome->status = parser->status_code;
    finish(client, outcome->status != STATUS_OK ? OUTCOME_STATUS
                   : client->whole              ? OUTCOME_COMPLETE
                                                : OUTCOME_CUT);
    return HPE_PAUSED;
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct client *client = stream->data;
    if (count == 0) {
        return;
    }
    if (count < 0 || !client->busy) { /* An idle connection has nothing to say. */
        fail(client);
        return;
    }
    client->answered = true;
    llhttp_errno_t error = llhttp_execute(&client->parser, buf->base, (size_t)count);
    if (error == HPE_OK) {
        return;
    }
    if (error != HPE_PAUSED || client->writing || !llhttp_should_keep_alive(&client->parser)) {
        fail(client);
        return;
    }
    client->kept = true;
    list_remove(&client->link);
    list_push_back(&client->replay->idle, &client->link);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct client *client = handle->data;
    *buf = uv_buf_init(client->replay->read_buffer, REPLAY_READ_BYTES);
}

/* ---- Requests ---- */

static void on_written(uv_write_t *request, int status)
{
    (void)status; /* Shows when it is read. */
    struct client *client = request->data;
    client->writing = false;
}

static void write_request(struct client *client)
{
    llhttp_init(&client->parser, HTTP_RESPONSE, &client->replay->settings);
    client->parser.data = client;
    client->answered = false;
    client->whole = false;
    client->line_size = 0;
    client->writing = true;
    uv_buf_t buf = uv_buf_init(client->bytes, (unsigned)client->size);
    if (uv_write(&client->write, (uv_stream_t *)&client->tcp, &buf, 1, on_written) < 0) {
        fail(client);
    }
}

static void on_connected(uv_connect_t *request, int status)
{
    struct client *client = request->data;
    if (status == UV_ECANCELED) {
        return;
    }
    if (status < 0) {
        fail(client);
        return;
    }
    (void)uv_tcp_nodelay(&client->tcp, 1);
    (void)uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read);
    write_request(client);
}

/* Takes `bytes` over. */
static void open_client(struct replay *replay, size_t index, char *bytes, size_t size)
{
    struct client *client = tool_must(calloc(1, sizeof *client));
    client->replay = replay;
    client->index = index;
    client->bytes = bytes;
    client->size = size;
    client->busy = true;
    (void)uv_tcp_init(&replay->loop, &client->tcp);
    client->tcp.data = client;
    client->connect.data = client;
    client->write.data = client;
    list_push_back(&replay->busy, &client->link);
    if (uv_tcp_connect(&client->connect, &client->tcp, (const struct sockaddr *)&replay->address,
                       on_connected) < 0) {
        finish(client, OUTCOME_REFUSED);
        drop(client);
    }
}

void client_send(struct replay *replay, size_t index)
{
    size_t size = 0;
    char *bytes = replay_request(replay, &replay->workload->requests[index], &size);
    replay->outcomes[index].launch_ns = replay_now_ns(replay);
    replay->outcomes[index].end = OUTCOME_OPEN;
    replay->open_count++;
    if (list_empty(&replay->idle)) {
        open_client(replay, index, bytes, size);
        return;
    }
    struct client *client = LIST_ITEM(replay->idle.prev, struct client, link);
    list_remove(&client->link);
    list_push_back(&replay->busy, &client->link);
    free(client->bytes);
    client->bytes = bytes;
    client->size = size;
    client->index = index;
    client->busy = true;
    write_request(client);
}

void client_sweep(struct replay *replay)
{
    uint64_t now_ns = replay_now_ns(replay);
    list_foreach_safe (link, &replay->busy) {
        struct client *client = LIST_ITEM(link, struct client, link);
        uint64_t age_ns = now_ns - outcome_of(client)->launch_ns;
        if ((double)age_ns > replay->options.timeout_s * (double)SIM_NS_PER_S) {
            finish(client, OUTCOME_LATE);
            drop(client);
        }
    }
}

void client_close_all(struct replay *replay)
{
    list_foreach_safe (link, &replay->busy) {
        drop(LIST_ITEM(link, struct client, link));
    }
    list_foreach_safe (link, &replay->idle) {
        drop(LIST_ITEM(link, struct client, link));
    }
}

void client_init(struct replay *replay)
{
    list_init(&replay->idle);
    list_init(&replay->busy);
    llhttp_settings_init(&replay->settings);
    replay->settings.on_body = on_body;
    replay->settings.on_header_field = on_header_name;
    replay->settings.on_header_value = on_header_value;
    replay->settings.on_message_complete = on_complete;
}
