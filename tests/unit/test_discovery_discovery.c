/* Asking engines on a real loop: a server of the same loop plays them all. */
#include <math.h>
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/list.h"
#include "discovery/discovery.h"
#include "support/test.h"

enum { ENGINES_MAX = 100, TEXT_BYTES_MAX = 256 };

enum behaviour {
    SERVE,   /* `answer`, then the end of the connection. */
    HANG,    /* Nothing, for ever. */
    ENDLESS, /* Metrics without end. */
};

struct peer {
    struct list link;
    struct fixture *fixture;
    struct net_stream *stream;
    struct net_timer *timer; /* Closed outside of the callbacks of its stream. */
    bool ended;
};

struct fixture {
    struct mem mem;
    struct net_loop *loop;
    struct net_listener *listener;
    struct net_timer *guard;
    struct discovery *discovery;
    uint16_t port;
    char url[TEXT_BYTES_MAX];
    enum behaviour behaviour;
    const char *answer;
    const char *request; /* How it begins. */
    struct list peers;
    size_t accept_count;
    size_t unanswered_most; /* Questions that had come but had no result yet. */
    size_t question_count;
    uint64_t bytes_sent;
    /* Results: all of them, and the last. */
    size_t result_count;
    size_t results_wanted; /* The loop stops then. */
    size_t outcomes[3];
    char reason[TEXT_BYTES_MAX];
    struct discovery_figures figures;
    uint64_t told_ns[8];
    void *told_user;
};

static const char metrics_answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
                                     "process_start_time_seconds 5\nvllm:num_requests_r 1\n";

/* ---- The engines' side ---- */

static void peer_free(struct peer *peer)
{
    list_remove(&peer->link);
    net_stream_close(peer->stream);
    net_timer_close(peer->timer);
    mem_free(&peer->fixture->mem, peer, sizeof *peer);
}

static void on_peer_timer(void *user)
{
    peer_free(user);
}

static void peer_end(struct peer *peer)
{
    if (!peer->ended) {
        peer->ended = true;
        net_timer_start(peer->timer, 0);
    }
}

static void send_more(struct peer *peer)
{
    static const char text[] = "vllm:num_requests_running 1\nvllm:num_requests_waiting 2\n";
    struct span part = {.data = text, .size = sizeof text - 1};
    while (!peer->ended && net_stream_queued(peer->stream) == 0) {
        if (net_stream_write(peer->stream, &part, 1, NET_BORROW) != NET_OK) {
            peer_end(peer);
            return;
        }
        peer->fixture->bytes_sent += part.size;
    }
}

static void on_peer_read(void *user, const char *bytes, size_t size)
{
    struct peer *peer = user;
    struct fixture *fixture = peer->fixture;
    static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
    assert_memory_equal(bytes, fixture->request, strlen(fixture->request));
    assert_memory_equal(bytes + size - 4, "\r\n\r\n", 4);
    fixture->question_count++;
    if (fixture->behaviour == HANG) {
        return;
    }
    struct span part = span_of(fixture->behaviour == SERVE ? fixture->answer : head);
    assert_int_equal(net_stream_write(peer->stream, &part, 1, NET_BORROW), NET_OK);
    if (fixture->behaviour == SERVE) {
        peer_end(peer);
    } else {
        send_more(peer);
    }
}

static void on_peer_end(void *user, enum net_status status)
{
    (void)status;
    peer_end(user);
}

static void on_peer_written(void *user, enum net_status status)
{
    struct peer *peer = user;
    if (status != NET_OK) {
        peer_end(peer);
    } else if (peer->fixture->behaviour == ENDLESS) {
        send_more(peer);
    }
}

static const struct net_stream_events peer_events = {
    .on_read = on_peer_read, .on_end = on_peer_end, .on_written = on_peer_written};

static void on_accept(void *user, struct net_stream *stream)
{
    struct fixture *fixture = user;
    struct peer *peer = mem_alloc_zero(&fixture->mem, sizeof *peer);
    assert_non_null(peer);
    peer->fixture = fixture;
    peer->stream = stream;
    peer->timer = net_timer_new(fixture->loop, on_peer_timer, peer);
    assert_non_null(peer->timer);
    list_push_back(&fixture->peers, &peer->link);
    size_t unanswered = ++fixture->accept_count - fixture->result_count;
    if (unanswered > fixture->unanswered_most) {
        fixture->unanswered_most = unanswered;
    }
    net_stream_set_events(stream, &peer_events, peer);
    assert_int_equal(net_stream_read_start(stream), NET_OK);
}

/* ---- The router's side ---- */

static void on_result(void *user, void *engine_user, const struct discovery_result *result)
{
    struct fixture *fixture = user;
    if (fixture->result_count < sizeof fixture->told_ns / sizeof *fixture->told_ns) {
        fixture->told_ns[fixture->result_count] = net_now_ns();
    }
    fixture->result_count++;
    fixture->outcomes[result->outcome]++;
    fixture->figures = result->figures;
    fixture->told_user = engine_user;
    if (result->outcome != DISCOVERY_TOLD) {
        (void)snprintf(fixture->reason, sizeof fixture->reason, "%s", result->reason);
    }
    if (fixture->result_count == fixture->results_wanted) {
        net_loop_stop(fixture->loop);
    }
}

static void on_guard(void *user)
{
    (void)user;
    fail_msg("nothing came for 20 seconds");
}

static void setup(struct fixture *fixture, uint64_t interval_ms, uint64_t timeout_ms)
{
    *fixture =
        (struct fixture){.answer = metrics_answer, .request = "GET /base/metrics HTTP/1.1\r\n"};
    mem_init(&fixture->mem, SIZE_MAX);
    list_init(&fixture->peers);
    fixture->loop = net_loop_new(&fixture->mem);
    assert_non_null(fixture->loop);
    fixture->guard = net_timer_new(fixture->loop, on_guard, fixture);
    net_timer_start(fixture->guard, 20 * CLOCK_NS_PER_S);
    struct net_listen_options listen = {.host = "127.0.0.1", .backlog = 256};
    assert_int_equal(
        net_listen(fixture->loop, &listen, on_accept, fixture, &fixture->listener, &fixture->port),
        NET_OK);
    (void)snprintf(fixture->url, sizeof fixture->url, "http://127.0.0.1:%u/base", fixture->port);
    struct discovery_options options = {.interval_ns = interval_ms * CLOCK_NS_PER_MS,
                                        .timeout_ns = timeout_ms * CLOCK_NS_PER_MS,
                                        .seed = 1,
                                        .on_result = on_result,
                                        .user = fixture};
    fixture->discovery = discovery_new(fixture->loop, &fixture->mem, &options);
}

static void run(struct fixture *fixture, size_t results_wanted)
{
    fixture->results_wanted = fixture->result_count + results_wanted;
    net_loop_run(fixture->loop);
}

static void teardown(struct fixture *fixture)
{
    discovery_free(fixture->discovery);
    while (!list_empty(&fixture->peers)) {
        peer_free(LIST_ITEM(fixture->peers.next, struct peer, link));
    }
    net_listener_close(fixture->listener);
    net_timer_close(fixture->guard);
    net_loop_free(fixture->loop);
    mem_fini(&fixture->mem);
}

/* ---- Tests ---- */

static void an_engine_is_asked_at_once_and_every_interval(void **state)
{
    (void)state;
    struct fixture fixture;
    int me = 0;
    setup(&fixture, 100, 5000);
    assert_non_null(discovery_add(fixture.discovery, fixture.url, &me));
    run(&fixture, 4);
    assert_int_equal(fixture.outcomes[DISCOVERY_TOLD], 4);
    assert_true(fixture.figures.start_time_s == 5 && isnan(fixture.figures.running));
    assert_ptr_equal(fixture.told_user, &me);
    uint64_t took_ns = fixture.told_ns[3] - fixture.told_ns[0];
    assert_true(took_ns >= UINT64_C(3) * 90 * CLOCK_NS_PER_MS);
    teardown(&fixture);
}

static void answers_that_are_no_metrics_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        enum discovery_outcome outcome;
        const char *reason;
    } cases[] = {
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", DISCOVERY_NO_METRICS, "404"},
        {"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n", DISCOVERY_NO_METRICS, "501"},
        {"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n", DISCOVERY_FAILED, "503"},
        {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
         DISCOVERY_FAILED, "302"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html></html>\n", DISCOVERY_FAILED,
         "no metrics"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", DISCOVERY_FAILED, "no metrics"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nprocess_start_time_seconds 5\n",
         DISCOVERY_FAILED, "61 bytes"}, /* Cut: what had come is not used. */
        {"\x16\x03\x01garbage\r\n\r\n", DISCOVERY_FAILED, ""},
        {"", DISCOVERY_FAILED, "mpty reply"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture fixture;
        setup(&fixture, 60000, 5000);
        fixture.answer = cases[i].answer;
        assert_non_null(discovery_add(fixture.discovery, fixture.url, NULL));
        run(&fixture, 1);
        assert_int_equal(fixture.outcomes[cases[i].outcome], 1);
        if (strstr(fixture.reason, cases[i].reason) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", fixture.reason, cases[i].reason);
        }
        assert_true(isnan(fixture.figures.start_time_s));
        teardown(&fixture);
    }
}

static void health_is_2xx_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        enum discovery_outcome outcome;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", DISCOVERY_TOLD},
        {"HTTP/1.1 204 No Content\r\n\r\n", DISCOVERY_TOLD},
        {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", DISCOVERY_FAILED},
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", DISCOVERY_FAILED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", DISCOVERY_FAILED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture fixture;
        setup(&fixture, 60000, 5000);
        struct discovery_options options = {.question = DISCOVERY_HEALTH,
                                            .interval_ns = CLOCK_NS_PER_S,
                                            .timeout_ns = CLOCK_NS_PER_S * 5,
                                            .on_result = on_result,
                                            .user = &fixture};
        struct discovery *checks = discovery_new(fixture.loop, &fixture.mem, &options);
        assert_non_null(checks);
        fixture.answer = cases[i].answer;
        fixture.request = "GET /base/health HTTP/1.1\r\n";
        assert_non_null(discovery_add(checks, fixture.url, NULL));
        run(&fixture, 1);
        assert_int_equal(fixture.outcomes[cases[i].outcome], 1);
        discovery_free(checks);
        teardown(&fixture);
    }
}

static void an_endless_answer_is_cut(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 60000, 20000);
    fixture.behaviour = ENDLESS;
    assert_non_null(discovery_add(fixture.discovery, fixture.url, NULL));
    run(&fixture, 1);
    assert_int_equal(fixture.outcomes[DISCOVERY_FAILED], 1);
    assert_string_equal(fixture.reason, "its answer is too long");
    assert_true(fixture.bytes_sent >= DISCOVERY_BODY_BYTES_MAX);
    assert_true(fixture.mem.bytes_peak < 1024 * 1024);
    teardown(&fixture);
}

static void engines_that_hang_take_a_bounded_share(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 60000, 150);
    fixture.behaviour = HANG;
    for (size_t i = 0; i < ENGINES_MAX; i++) {
        assert_non_null(discovery_add(fixture.discovery, fixture.url, NULL));
    }
    run(&fixture, ENGINES_MAX);
    assert_int_equal(fixture.outcomes[DISCOVERY_FAILED], ENGINES_MAX);
    assert_non_null(strstr(fixture.reason, "timed out"));
    /* The engine may see the next ones come before it sees those go that were given up. */
    assert_in_range(fixture.unanswered_most, 2, 2 * DISCOVERY_RUNNING_MAX);
    teardown(&fixture);
}

/* Also while it is asked: what it says then may be from before. */
static void a_hurry_brings_the_next_question_forward_but_not_at_once(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 60000, 5000);
    struct discovery_engine *engine = discovery_add(fixture.discovery, fixture.url, NULL);
    assert_non_null(engine);
    run(&fixture, 1);
    uint64_t first_ns = fixture.told_ns[0];
    for (int i = 0; i < 50; i++) {
        discovery_hurry(engine);
    }
    run(&fixture, 1);
    assert_int_equal(fixture.question_count, 2);
    assert_true(fixture.told_ns[1] - first_ns > DISCOVERY_GAP_NS / 2);
    teardown(&fixture);
}

static void what_fails_is_tried_again_before_the_interval_is_over(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 60000, 5000);
    net_listener_close(fixture.listener);
    fixture.listener = NULL;
    assert_non_null(discovery_add(fixture.discovery, fixture.url, NULL));
    run(&fixture, 2);
    assert_int_equal(fixture.outcomes[DISCOVERY_FAILED], 2);
    uint64_t pause_ns = fixture.told_ns[1] - fixture.told_ns[0];
    assert_true(pause_ns >= DISCOVERY_GAP_NS * 9 / 10 && pause_ns < 10 * DISCOVERY_GAP_NS);
    teardown(&fixture);
}

static void on_stop(void *user)
{
    struct fixture *fixture = user;
    net_loop_stop(fixture->loop);
}

static void it_can_end_in_the_middle(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 60000, 5000);
    fixture.behaviour = HANG;
    for (size_t i = 0; i < ENGINES_MAX; i++) {
        assert_non_null(discovery_add(fixture.discovery, fixture.url, NULL));
    }
    struct net_timer *timer = net_timer_new(fixture.loop, on_stop, &fixture);
    net_timer_start(timer, 50 * CLOCK_NS_PER_MS);
    net_loop_run(fixture.loop);
    net_timer_close(timer);
    assert_int_equal(fixture.result_count, 0);
    teardown(&fixture);
}

/* The n-th allocation fails, for n = 0, 1, 2, ...: a failure is told or a result comes. */
static void running_out_of_memory_is_survived(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 40; n++) {
        struct fixture fixture;
        setup(&fixture, 60000, 300);
        fixture.answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        fixture.mem.fail_after = n;
        fixture.mem.fail_count = 1;
        struct discovery_options options = {.interval_ns = CLOCK_NS_PER_S,
                                            .timeout_ns = CLOCK_NS_PER_S / 4,
                                            .on_result = on_result,
                                            .user = &fixture};
        struct discovery *second = discovery_new(fixture.loop, &fixture.mem, &options);
        /* The server shares the memory: it is not asked, but a port where nobody listens. */
        if (second != NULL && discovery_add(second, "http://127.0.0.1:1", NULL) != NULL) {
            run(&fixture, 1);
            assert_int_equal(fixture.outcomes[DISCOVERY_FAILED], 1);
        }
        discovery_free(second);
        fixture.mem.fail_after = UINT64_MAX;
        teardown(&fixture);
    }
}

static void a_url_that_is_too_long_is_refused(void **state)
{
    (void)state;
    struct fixture fixture;
    char url[DISCOVERY_URL_BYTES_MAX];
    setup(&fixture, 60000, 5000);
    memset(url, 'a', sizeof url - 1);
    url[sizeof url - 1] = '\0';
    assert_null(discovery_add(fixture.discovery, url, NULL));
    teardown(&fixture);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN); /* A closed peer is a status of the write. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_is_asked_at_once_and_every_interval),
        cmocka_unit_test(answers_that_are_no_metrics_are_told_apart),
        cmocka_unit_test(health_is_2xx_and_nothing_else),
        cmocka_unit_test(an_endless_answer_is_cut),
        cmocka_unit_test(engines_that_hang_take_a_bounded_share),
        cmocka_unit_test(a_hurry_brings_the_next_question_forward_but_not_at_once),
        cmocka_unit_test(what_fails_is_tried_again_before_the_interval_is_over),
        cmocka_unit_test(it_can_end_in_the_middle),
        cmocka_unit_test(running_out_of_memory_is_survived),
        cmocka_unit_test(a_url_that_is_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
