#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "bench/mock/server_private.h"

enum { BACKLOG = 1024 };

static void on_timer(uv_timer_t *timer)
{
    struct server *server = timer->data;
    engine_step(server->engine, uv_hrtime());
    server_schedule(server);
}

void server_schedule(struct server *server)
{
    if (server->closing) {
        return;
    }
    uint64_t next_ns = engine_next_ns(server->engine);
    if (next_ns == UINT64_MAX) {
        (void)uv_timer_stop(&server->timer); /* Cannot fail. */
        return;
    }
    uv_update_time(&server->loop);
    uint64_t now_ns = uv_hrtime();
    uint64_t wait_ms =
        next_ns <= now_ns ? 0 : (next_ns - now_ns + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS;
    (void)uv_timer_start(&server->timer, on_timer, wait_ms, 0); /* Fails only without callback. */
}

static void on_token(void *user, struct engine_job *job)
{
    (void)user;
    struct exchange *exchange =
        (struct exchange *)(void *)((char *)job - offsetof(struct exchange, job));
    answer_token(
        (struct connection *)(void *)((char *)exchange - offsetof(struct connection, exchange)));
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *server = listener->data;
    if (status == 0) {
        connection_accept(server);
    }
}

static void on_signal(uv_signal_t *signal, int number)
{
    (void)number;
    struct server *server = signal->data;
    if (server->closing) {
        return;
    }
    server->closing = true;
    uv_close((uv_handle_t *)&server->listener, NULL);
    uv_close((uv_handle_t *)&server->timer, NULL);
    for (size_t i = 0; i < 2; i++) {
        uv_close((uv_handle_t *)&server->signals[i], NULL);
    }
    list_foreach_safe (link, &server->connections) {
        connection_close(LIST_ITEM(link, struct connection, link));
    }
}

static int complain(const char *what, int error)
{
    (void)fprintf(stderr, "mock-engine: %s: %s\n", what, uv_strerror(error));
    return 1;
}

static int start_listening(struct server *server)
{
    struct sockaddr_storage address;
    int error =
        uv_ip4_addr(server->options->host, server->options->port, (struct sockaddr_in *)&address);
    if (error != 0) {
        error = uv_ip6_addr(server->options->host, server->options->port,
                            (struct sockaddr_in6 *)&address);
    }
    if (error == 0) {
        error = uv_tcp_bind(&server->listener, (const struct sockaddr *)&address, 0);
    }
    if (error == 0) {
        error = uv_listen((uv_stream_t *)&server->listener, BACKLOG, on_connection);
    }
    if (error != 0) {
        return complain("cannot listen", error);
    }
    int size = sizeof address;
    error = uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &size);
    if (error != 0) {
        return complain("cannot read the port", error);
    }
    uint16_t port = address.ss_family == AF_INET6
                        ? ((const struct sockaddr_in6 *)&address)->sin6_port
                        : ((const struct sockaddr_in *)&address)->sin_port;
    server->port = (uint16_t)(port << 8 | port >> 8);
    (void)printf("mock-engine listening on %s:%u\n", server->options->host, server->port);
    (void)fflush(stdout);
    return 0;
}

static void init_handles(struct server *server)
{
    static const int numbers[] = {SIGTERM, SIGINT};
    CHECK(uv_loop_init(&server->loop) == 0);
    CHECK(uv_tcp_init(&server->loop, &server->listener) == 0);
    CHECK(uv_timer_init(&server->loop, &server->timer) == 0);
    server->listener.data = server;
    server->timer.data = server;
    for (size_t i = 0; i < 2; i++) {
        CHECK(uv_signal_init(&server->loop, &server->signals[i]) == 0);
        server->signals[i].data = server;
        CHECK(uv_signal_start(&server->signals[i], on_signal, numbers[i]) == 0);
    }
}

int server_run(const struct server_options *options)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct server *server = mem_alloc_zero(&mem, sizeof *server);
    if (server == NULL) {
        return complain("start", UV_ENOMEM);
    }
    server->options = options;
    mem_init(&server->mem, SIZE_MAX);
    list_init(&server->connections);
    server->start_time_s = options->start_time_s > 0
                               ? options->start_time_s
                               : (double)clock_unix_ns() / (double)CLOCK_NS_PER_S;
    server->engine = engine_new(&server->mem, &options->engine, options->defaults.block_tokens,
                                on_token, server);
    CHECK(server->engine != NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* Writes report it. */
    init_handles(server);
    int status = start_listening(server);
    if (status != 0) {
        on_signal(&server->signals[0], SIGTERM);
    }
    (void)uv_run(&server->loop, UV_RUN_DEFAULT); /* Until all handles are closed. */
    CHECK(uv_loop_close(&server->loop) == 0);
    engine_free(server->engine);
    mem_fini(&server->mem);
    mem_free(&mem, server, sizeof *server);
    mem_fini(&mem);
    return status;
}
