/*
 * A whole router in this process, whose n-th allocation fails, once or from then on: it answers or
 * closes, never crashes, ends in order and gives all memory back (mem_fini() checks that).
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/proxy.h"
#include "proxy/router.h"
#include "support/config_fixture.h"
#include "support/test.h"

enum { ROUNDS_MAX = 400, WAIT_MS = 250, ANSWER_BYTES = 64 * 1024 };

struct play {
    int engine_listener;
    uint16_t engine_port;
    uint16_t router_port;
    pthread_t engine;
    unsigned answers; /* Whole ones that the client saw. */
};

static int listen_anywhere(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 16), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return listener;
}

static void limit_wait(int descriptor)
{
    struct timeval wait = {.tv_usec = WAIT_MS * 1000};
    (void)setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
}

/* Answers whatever comes on each connection once, in chunks, then closes. Ends with its listener.
 */
static void *run_engine(void *user)
{
    struct play *play = user;
    static const char answer[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "5\r\nhello\r\n0\r\n\r\n";
    for (;;) {
        int connection = accept(play->engine_listener, NULL, NULL);
        if (connection < 0) {
            return NULL;
        }
        limit_wait(connection);
        char bytes[4096];
        if (recv(connection, bytes, sizeof bytes, 0) > 0) {
            (void)send(connection, answer, sizeof answer - 1, MSG_NOSIGNAL);
        }
        (void)close(connection);
    }
}

static void ask(struct play *play, const char *request)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(play->router_port)};
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    limit_wait(connection);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) == 0) {
        (void)send(connection, request, strlen(request), MSG_NOSIGNAL);
        static char answer[ANSWER_BYTES];
        size_t size = 0;
        ssize_t got = 0;
        do { /* "Connection: close": it ends. */
            got = recv(connection, answer + size, sizeof answer - size, 0);
            size += got > 0 ? (size_t)got : 0;
        } while (got > 0 && size < sizeof answer);
        play->answers += size > 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0;
    }
    (void)close(connection);
}

static void *run_client(void *user)
{
    struct play *play = user;
    static const char body[] =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
    char request[512];
    (void)snprintf(request, sizeof request,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                   "Content-Length: %zu\r\n\r\n%s",
                   sizeof body - 1, body);
    ask(play, request);
    ask(play, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    (void)kill(getpid(), SIGTERM);
    return NULL;
}

/* True: a fault was met. */
static bool serve_with_fault(struct play *play, const struct config *config, uint64_t after,
                             uint64_t count)
{
    struct log log;
    log_init(&log, STDERR_FILENO, LOG_ERROR, LOG_TEXT);
    struct router *router = router_new(config, &log);
    assert_non_null(router);
    struct mem *mem = &router->workers[0].mem;
    mem->fail_after = after;
    mem->fail_count = count;
    play->router_port = router->listening.port;
    pthread_t client;
    assert_int_equal(pthread_create(&client, NULL, run_client, play), 0);
    assert_true(router_run(router));
    assert_int_equal(pthread_join(client, NULL), 0);
    bool met = mem->fail_after == 0 && (count == UINT64_MAX || mem->fail_count < count);
    mem->fail_after = UINT64_MAX;
    router_free(router);
    log_fini(&log);
    return met;
}

static void run_rounds(uint64_t count)
{
    struct play play = {0};
    play.engine_listener = listen_anywhere(&play.engine_port);
    sigset_t signals; /* For the router's thread alone. */
    sigset_t before;
    (void)sigfillset(&signals);
    (void)pthread_sigmask(SIG_BLOCK, &signals, &before);
    assert_int_equal(pthread_create(&play.engine, NULL, run_engine, &play), 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    char url[64];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u", (unsigned)play.engine_port);
    struct config_fixture fixture;
    config_fixture_init(&fixture);
    config_fixture_load(&fixture,
                        ARGUMENTS("--no-store", "--host", "127.0.0.1", "--port", "0", "--threads",
                                  "1", "--static-backends", url, "--static-models", "m",
                                  "--drain-timeout", "1s", "--max-memory", "1MiB"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    uint64_t after = 0;
    bool met = true;
    while (met) {
        assert_true(after < ROUNDS_MAX);
        play.answers = 0;
        met = serve_with_fault(&play, &fixture.config, after++, count);
    }
    assert_true(after > 10);           /* Faults were met at all. */
    assert_int_equal(play.answers, 2); /* The round without a fault. */
    (void)shutdown(play.engine_listener, SHUT_RDWR);
    (void)pthread_join(play.engine, NULL);
    (void)close(play.engine_listener);
    config_fixture_fini(&fixture);
}

static void the_nth_allocation_fails_once(void **state)
{
    (void)state;
    run_rounds(1);
}

static void all_fail_from_the_nth_on(void **state)
{
    (void)state;
    run_rounds(UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nth_allocation_fails_once),
        cmocka_unit_test(all_fail_from_the_nth_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
