/*
 * load-gen: chat requests to one server, closed loop (each connection asks again as soon as it has
 * its answer) or open loop (--rate: requests are due at fixed times, and latency counts from when a
 * request was due, whether or not a connection was free then). Prints one JSON object.
 */
#include <errno.h>
#include <llhttp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

#include "base/random.h"
#include "load/tool.h"

enum {
    READ_BYTES = 256 * 1024,
    HEAD_ROOM = 256,
    SAMPLES_MAX = 4 * 1000 * 1000,
    TICK_MS = 1,
    PERCENT = 100,
};

#define NS_PER_S 1000000000.0

struct options {
    const char *host;
    int port;
    unsigned connections;
    double seconds;
    double rate; /* Requests a second; 0: closed loop. */
    size_t body_bytes;
    unsigned prompts; /* Different bodies. */
    const char *model;
    bool stream;
    bool hold; /* Opens streams, waits for their first event, then for the end of stdin. */
};

struct samples {
    float *values; /* Seconds. */
    size_t count;
};

struct load {
    struct options options;
    uv_loop_t loop;
    uv_timer_t tick;
    struct sockaddr_in address;
    llhttp_settings_t settings;
    char read_buffer[READ_BYTES];
    char **requests; /* Head and body, `prompts` of them. */
    size_t *request_sizes;
    struct connection *connections;
    struct connection *idle;
    struct random random;
    uint64_t begin_ns;
    uint64_t end_ns;
    int due_fd;
    uint64_t due_count;  /* Open loop: requests that have been started or wait. */
    uint64_t next_index; /* The first that waits. */
    uint64_t answer_count;
    uint64_t error_count;
    uint64_t event_count;
    uint64_t bytes;
    unsigned ready_count; /* --hold: streams that have had an event. */
    struct samples latency;
    struct samples first_byte;
};

struct connection {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    llhttp_t parser;
    struct load *load;
    struct connection *next_idle;
    uint64_t due_ns;
    bool connected;
    bool busy;
    bool got_body;
    bool keep_alive;
    char last; /* Byte of the body, for events that are cut. */
};

static void sample(struct samples *samples, uint64_t nanoseconds)
{
    if (samples->count < SAMPLES_MAX) {
        samples->values[samples->count++] = (float)((double)nanoseconds / NS_PER_S);
    }
}

static void open_connection(struct connection *connection);
static void ask(struct connection *connection, uint64_t due_ns);

static void go_idle(struct connection *connection)
{
    struct load *load = connection->load;
    connection->busy = false;
    if (load->options.hold || uv_hrtime() >= load->end_ns) {
        return;
    }
    if (load->options.rate == 0) {
        ask(connection, uv_hrtime());
        return;
    }
    if (load->next_index < load->due_count) {
        double due = (double)load->next_index++ / load->options.rate * NS_PER_S;
        ask(connection, load->begin_ns + (uint64_t)due);
        return;
    }
    connection->next_idle = load->idle;
    load->idle = connection;
}

static void on_reopen(uv_handle_t *handle)
{
    open_connection(handle->data);
}

static void reopen(struct connection *connection)
{
    if (!uv_is_closing((uv_handle_t *)&connection->tcp)) {
        connection->connected = false;
        uv_close((uv_handle_t *)&connection->tcp, on_reopen);
    }
}

static void fail(struct connection *connection)
{
    if (connection->busy && uv_hrtime() < connection->load->end_ns) {
        connection->load->error_count++;
    }
    reopen(connection);
}

/* ---- Answers ---- */

static int on_body(llhttp_t *parser, const char *bytes, size_t size)
{
    struct connection *connection = parser->data;
    struct load *load = connection->load;
    if (!connection->got_body && size > 0) {
        connection->got_body = true;
        load->ready_count++;
        sample(&load->first_byte, uv_hrtime() - connection->due_ns);
    }
    load->bytes += size;
    if (load->options.stream) {
        const char *end = bytes + size;
        for (const char *at = bytes; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++) {
            char before = (char)(at > bytes ? at[-1] : connection->last);
            load->event_count += before == '\n' ? 1 : 0;
        }
        if (size > 0) {
            connection->last = bytes[size - 1];
        }
    }
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    struct connection *connection = parser->data;
    struct load *load = connection->load;
    if (parser->status_code == 200) {
        load->answer_count++;
        sample(&load->latency, uv_hrtime() - connection->due_ns);
    } else {
        load->error_count++;
    }
    connection->busy = false;
    connection->keep_alive = llhttp_should_keep_alive(parser) != 0;
    return HPE_PAUSED;
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct connection *connection = stream->data;
    if (count < 0) {
        fail(connection);
        return;
    }
    llhttp_errno_t error = llhttp_execute(&connection->parser, buf->base, (size_t)count);
    if (error == HPE_OK) {
        return;
    }
    if (error != HPE_PAUSED) {
        fail(connection);
    } else if (!connection->keep_alive) {
        reopen(connection);
    } else {
        go_idle(connection);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct connection *connection = handle->data;
    *buf = uv_buf_init(connection->load->read_buffer, READ_BYTES);
}

/* ---- Requests ---- */

static void on_written(uv_write_t *request, int status)
{
    (void)request;
    (void)status; /* Shows when it is read. */
}

static void ask(struct connection *connection, uint64_t due_ns)
{
    struct load *load = connection->load;
    size_t number = (size_t)(random_next(&load->random) >> 32) % load->options.prompts;
    connection->due_ns = due_ns;
    connection->busy = true;
    connection->got_body = false;
    connection->last = 0;
    llhttp_init(&connection->parser, HTTP_RESPONSE, &load->settings);
    connection->parser.data = connection;
    uv_buf_t buf = uv_buf_init(load->requests[number], (unsigned)load->request_sizes[number]);
    int done = uv_try_write((uv_stream_t *)&connection->tcp, &buf, 1);
    size_t sent = done > 0 ? (size_t)done : 0;
    if (sent < buf.len) {
        buf = uv_buf_init(buf.base + sent, (unsigned)(buf.len - sent));
        if (uv_write(&connection->write, (uv_stream_t *)&connection->tcp, &buf, 1, on_written) <
            0) {
            fail(connection);
        }
    }
}

static void on_connected(uv_connect_t *request, int status)
{
    struct connection *connection = request->data;
    if (status < 0) {
        if (status != UV_ECANCELED) {
            fail(connection);
        }
        return;
    }
    connection->connected = true;
    (void)uv_tcp_nodelay(&connection->tcp, 1);
    (void)uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read);
    if (connection->load->options.hold) {
        ask(connection, uv_hrtime());
    } else {
        go_idle(connection);
    }
}

static void open_connection(struct connection *connection)
{
    struct load *load = connection->load;
    if (load->end_ns > 0 && uv_hrtime() >= load->end_ns) {
        return;
    }
    (void)uv_tcp_init(&load->loop, &connection->tcp);
    connection->tcp.data = connection;
    connection->connect.data = connection;
    connection->busy = false;
    int error = uv_tcp_connect(&connection->connect, &connection->tcp,
                               (const struct sockaddr *)&load->address, on_connected);
    if (error < 0) {
        tool_die("cannot connect", error);
    }
}

/* ---- Bodies ---- */

/* Words of small letters, as tokens of a prompt go. */
static void fill(struct load *load, char *out, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t draw = random_next(&load->random) >> 56;
        out[i] = " abcdefghijklmnopqrstuvwxyz"[draw < 40 ? 0 : 1 + draw % 26];
    }
}

static void make_requests(struct load *load)
{
    const struct options *options = &load->options;
    load->requests = tool_must(calloc(options->prompts, sizeof *load->requests));
    load->request_sizes = tool_must(calloc(options->prompts, sizeof *load->request_sizes));
    for (unsigned i = 0; i < options->prompts; i++) {
        char start[256];
        static const char end[] = "\"}]}";
        int start_size =
            snprintf(start, sizeof start,
                     "{\"model\":\"%s\",\"stream\":%s,\"messages\":[{\"role\":\"user\","
                     "\"content\":\"",
                     options->model, options->stream ? "true" : "false");
        size_t around = (size_t)start_size + sizeof end - 1;
        size_t text = options->body_bytes > around ? options->body_bytes - around : 1;
        char *request = tool_must(malloc(HEAD_ROOM + around + text));
        int head = snprintf(request, HEAD_ROOM,
                            "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\n"
                            "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                            around + text);
        char *at = request + head;
        memcpy(at, start, (size_t)start_size);
        fill(load, at + start_size, text);
        memcpy(at + start_size + text, end, sizeof end - 1);
        load->requests[i] = request;
        load->request_sizes[i] = (size_t)head + around + text;
    }
}

/* ---- Time ---- */

static void on_tick(uv_timer_t *timer)
{
    struct load *load = timer->data;
    if (uv_hrtime() >= load->end_ns) {
        uv_stop(&load->loop);
    }
}

/* A timer of the loop is a millisecond coarse, which would be part of every latency. */
static void arm(struct load *load)
{
    double due = (double)load->due_count / load->options.rate;
    uint64_t at_ns = load->begin_ns + (uint64_t)(due * NS_PER_S);
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_ns / 1000000000),
                                           .tv_nsec = (long)(at_ns % 1000000000)}};
    if (timerfd_settime(load->due_fd, TFD_TIMER_ABSTIME, &when, NULL) != 0) {
        tool_die("timerfd_settime", uv_translate_sys_error(errno));
    }
}

static void on_due(uv_poll_t *poll, int status, int events)
{
    struct load *load = poll->data;
    uint64_t times = 0;
    (void)status;
    (void)events;
    (void)!read(load->due_fd, &times, sizeof times); /* What is due is told by the clock. */
    double elapsed = (double)(uv_hrtime() - load->begin_ns) / NS_PER_S;
    load->due_count = (uint64_t)(elapsed * load->options.rate) + 1;
    while (load->next_index < load->due_count && load->idle != NULL) {
        struct connection *connection = load->idle;
        load->idle = connection->next_idle;
        double due = (double)load->next_index++ / load->options.rate * NS_PER_S;
        ask(connection, load->begin_ns + (uint64_t)due);
    }
    arm(load);
}

static int compare(const void *a, const void *b)
{
    float left = *(const float *)a;
    float right = *(const float *)b;
    return left < right ? -1 : left > right;
}

static double percentile(struct samples *samples, double share)
{
    if (samples->count == 0) {
        return 0;
    }
    size_t at = (size_t)(share * (double)(samples->count - 1));
    return (double)samples->values[at];
}

static void print_samples(const char *name, struct samples *samples)
{
    qsort(samples->values, samples->count, sizeof *samples->values, compare);
    (void)printf(",\"%s\":{\"count\":%zu,\"p50\":%.6f,\"p90\":%.6f,\"p99\":%.6f,\"max\":%.6f}",
                 name, samples->count, percentile(samples, 0.5), percentile(samples, 0.9),
                 percentile(samples, 0.99), percentile(samples, 1));
}

static void print_report(struct load *load)
{
    double seconds = (double)(uv_hrtime() - load->begin_ns) / NS_PER_S;
    uint64_t late = load->due_count - load->next_index;
    (void)printf(
        "{\"seconds\":%.3f,\"answers\":%llu,\"errors\":%llu,\"events\":%llu,\"bytes\":%llu,"
        "\"never_started\":%llu",
        seconds, (unsigned long long)load->answer_count, (unsigned long long)load->error_count,
        (unsigned long long)load->event_count, (unsigned long long)load->bytes,
        (unsigned long long)late);
    print_samples("latency", &load->latency);
    print_samples("first_byte", &load->first_byte);
    (void)printf("}\n");
}

/* ---- --hold ---- */

static void on_hold_tick(uv_timer_t *timer)
{
    struct load *load = timer->data;
    if (load->ready_count >= load->options.connections) {
        (void)printf("{\"streams\":%u,\"errors\":%llu}\n", load->ready_count,
                     (unsigned long long)load->error_count);
        (void)fflush(stdout);
        uv_timer_stop(timer);
    } else if (uv_hrtime() >= load->end_ns) {
        (void)fprintf(stderr, "load-gen: %u of %u streams have begun\n", load->ready_count,
                      load->options.connections);
        exit(1);
    }
}

static void on_stdin(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct load *load = poll->data;
    uv_stop(&load->loop);
}

/* ---- Start ---- */

static void usage(void)
{
    (void)fprintf(stderr,
                  "usage: load-gen --port N [options]\n"
                  "  --port N          of 127.0.0.1\n"
                  "  --connections N   (32)\n"
                  "  --seconds S       (5)\n"
                  "  --rate R          requests a second, open loop (0: closed loop)\n"
                  "  --body-bytes N    of a request (1024)\n"
                  "  --prompts N       different bodies (512)\n"
                  "  --model NAME      (bench)\n"
                  "  --seed N          (1)\n"
                  "  --stream          ask for streams\n"
                  "  --hold            one stream a connection, kept open until stdin ends\n");
    exit(2);
}

static void read_options(int argc, char **argv, struct load *load)
{
    struct options *options = &load->options;
    *options = (struct options){
        .connections = 32, .seconds = 5, .body_bytes = 1024, .prompts = 512, .model = "bench"};
    load->random.state = 1;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--stream") == 0) {
            options->stream = true;
        } else if (strcmp(name, "--hold") == 0) {
            options->hold = options->stream = true;
        } else if (strcmp(name, "--model") == 0 && i + 1 < argc) {
            options->model = argv[++i];
        } else if (strcmp(name, "--port") == 0) {
            options->port = (int)tool_number(argc, argv, ++i, usage);
        } else if (strcmp(name, "--connections") == 0) {
            options->connections = (unsigned)tool_number(argc, argv, ++i, usage);
        } else if (strcmp(name, "--seconds") == 0) {
            options->seconds = tool_number(argc, argv, ++i, usage);
        } else if (strcmp(name, "--rate") == 0) {
            options->rate = tool_number(argc, argv, ++i, usage);
        } else if (strcmp(name, "--body-bytes") == 0) {
            options->body_bytes = (size_t)tool_number(argc, argv, ++i, usage);
        } else if (strcmp(name, "--prompts") == 0) {
            options->prompts = (unsigned)tool_number(argc, argv, ++i, usage);
        } else if (strcmp(name, "--seed") == 0) {
            load->random.state = (uint64_t)tool_number(argc, argv, ++i, usage);
        } else {
            usage();
        }
    }
    if (options->port == 0 || options->connections == 0 || options->prompts == 0) {
        usage();
    }
}

int main(int argc, char **argv)
{
    static struct load load;
    static uv_poll_t stdin_poll;
    (void)signal(SIGPIPE, SIG_IGN);
    read_options(argc, argv, &load);
    make_requests(&load);
    load.latency.values = tool_must(malloc(SAMPLES_MAX * sizeof(float)));
    load.first_byte.values = tool_must(malloc(SAMPLES_MAX * sizeof(float)));
    load.connections = tool_must(calloc(load.options.connections, sizeof *load.connections));
    llhttp_settings_init(&load.settings);
    load.settings.on_body = on_body;
    load.settings.on_message_complete = on_complete;
    (void)uv_loop_init(&load.loop);
    (void)uv_ip4_addr("127.0.0.1", load.options.port, &load.address);
    (void)uv_timer_init(&load.loop, &load.tick);
    load.tick.data = &load;
    load.begin_ns = uv_hrtime();
    load.end_ns = load.begin_ns + (uint64_t)(load.options.seconds * NS_PER_S);
    for (unsigned i = 0; i < load.options.connections; i++) {
        load.connections[i].load = &load;
        open_connection(&load.connections[i]);
    }
    (void)uv_timer_start(&load.tick, load.options.hold ? on_hold_tick : on_tick, TICK_MS, TICK_MS);
    static uv_poll_t due_poll;
    if (load.options.rate > 0) {
        load.due_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        (void)uv_poll_init(&load.loop, &due_poll, load.due_fd);
        due_poll.data = &load;
        (void)uv_poll_start(&due_poll, UV_READABLE, on_due);
        arm(&load);
    }
    if (load.options.hold) {
        (void)uv_poll_init(&load.loop, &stdin_poll, 0);
        stdin_poll.data = &load;
        (void)uv_poll_start(&stdin_poll, UV_READABLE | UV_DISCONNECT, on_stdin);
    }
    (void)uv_run(&load.loop, UV_RUN_DEFAULT);
    if (!load.options.hold) {
        print_report(&load);
    }
    return load.error_count == 0 ? 0 : 1;
}
