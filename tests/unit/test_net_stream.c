/* The net room on real loopback sockets: every test runs one loop until what it waits for came. */
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/net.h"
#include "support/test.h"

enum { BIG = 8 * 1024 * 1024, GUARD_NS_PER_S = 1000000000 };

struct side {
    struct net_stream *stream;
    struct fixture *fixture;
    size_t received;
    size_t written_calls;
    unsigned last_byte;
    bool ended;
    enum net_status end_status;
    bool paused; /* Does not read. */
    char own_space[64];
    bool use_own_space;
};

struct fixture {
    struct mem mem;
    struct net_loop *loop;
    struct net_listener *listener;
    struct net_timer *guard;
    uint16_t port;
    struct side client;
    struct side server;
    enum net_status connected;
    size_t connected_calls;
    size_t received_wanted; /* Stop once the server's side has so many. */
    bool stop_at_end;       /* Stop once a side has ended. */
    bool stop_at_connect;
    bool stop_at_accept;
    bool drops_accepted;
    size_t timer_calls;
    size_t wake_calls;
    size_t turns;
    int signal_number;
};

static void on_guard(void *user)
{
    (void)user;
    fail_msg("nothing came for ten seconds");
}

static void on_space(void *user, char **space, size_t *size)
{
    struct side *side = user;
    assert_true(*space != NULL && *size == NET_READ_BYTES);
    if (side->use_own_space) {
        *space = side->own_space;
        *size = sizeof side->own_space;
    }
}

static void on_read(void *user, const char *bytes, size_t size)
{
    struct side *side = user;
    if (side->use_own_space) {
        assert_ptr_equal(bytes, side->own_space);
        assert_true(size <= sizeof side->own_space);
    }
    for (size_t i = 0; i < size; i++) {
        assert_int_equal((unsigned char)bytes[i], (side->received + i) % 251);
    }
    side->received += size;
    struct fixture *fixture = side->fixture;
    if (fixture->received_wanted != 0 && side->received >= fixture->received_wanted) {
        net_loop_stop(fixture->loop);
    }
}

static void on_end(void *user, enum net_status status)
{
    struct side *side = user;
    assert_false(side->ended);
    side->ended = true;
    side->end_status = status;
    if (side->fixture->stop_at_end) {
        net_loop_stop(side->fixture->loop);
    }
}

static void on_written(void *user, enum net_status status)
{
    struct side *side = user;
    (void)status;
    side->written_calls++;
}

static const struct net_stream_events events = {on_space, on_read, on_end, on_written};

static void on_accept(void *user, struct net_stream *stream)
{
    struct fixture *fixture = user;
    if (fixture->drops_accepted) {
        net_stream_close(stream);
        return;
    }
    assert_null(fixture->server.stream);
    fixture->server.stream = stream;
    net_stream_set_events(stream, &events, &fixture->server);
    if (!fixture->server.paused) {
        assert_int_equal(net_stream_read_start(stream), NET_OK);
    }
    if (fixture->stop_at_accept && fixture->connected_calls > 0) {
        net_loop_stop(fixture->loop);
    }
}

static void on_connected(void *user, enum net_status status)
{
    struct fixture *fixture = user;
    fixture->connected = status;
    fixture->connected_calls++;
    if (fixture->stop_at_connect || (fixture->stop_at_accept && fixture->server.stream != NULL)) {
        net_loop_stop(fixture->loop);
    }
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    mem_init(&fixture->mem, SIZE_MAX);
    fixture->loop = net_loop_new(&fixture->mem);
    assert_non_null(fixture->loop);
    fixture->client.fixture = fixture;
    fixture->server.fixture = fixture;
    fixture->guard = net_timer_new(fixture->loop, on_guard, NULL);
    net_timer_start(fixture->guard, 10ULL * GUARD_NS_PER_S);
    struct net_listen_options options = {.host = "127.0.0.1", .port = 0, .backlog = 16};
    assert_int_equal(
        net_listen(fixture->loop, &options, on_accept, fixture, &fixture->listener, &fixture->port),
        NET_OK);
    assert_int_not_equal(fixture->port, 0);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    net_stream_close(fixture->client.stream);
    net_stream_close(fixture->server.stream);
    net_listener_close(fixture->listener);
    net_timer_close(fixture->guard);
    net_loop_free(fixture->loop);
    mem_fini(&fixture->mem);
    free(fixture);
    return 0;
}

static struct net_address address_of(const char *host, uint16_t port)
{
    struct net_address address;
    assert_true(net_address_set(&address, host, strlen(host), port));
    return address;
}

static void connect_pair(struct fixture *fixture, const char *host)
{
    struct net_address address = address_of(host, fixture->port);
    fixture->stop_at_accept = true;
    fixture->client.stream = net_connect(fixture->loop, &address, on_connected, fixture);
    assert_non_null(fixture->client.stream);
    assert_int_equal(fixture->connected_calls, 0); /* Never synchronous. */
    net_loop_run(fixture->loop);
    fixture->stop_at_accept = false;
    assert_int_equal(fixture->connected_calls, 1);
    assert_int_equal(fixture->connected, NET_OK);
    net_stream_set_events(fixture->client.stream, &events, &fixture->client);
}

static char *pattern_new(void)
{
    char *bytes = malloc(BIG);
    assert_non_null(bytes);
    for (size_t i = 0; i < BIG; i++) {
        bytes[i] = (char)(i % 251);
    }
    return bytes;
}

static void pieces_arrive_in_order(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture, "127.0.0.1");
    char *bytes = pattern_new();
    struct span parts[3] = {{bytes, 10}, {NULL, 0}, {bytes + 10, 90}};
    assert_int_equal(net_stream_write(fixture->client.stream, parts, 3, NET_COPY), NET_OK);
    assert_int_equal(net_stream_queued(fixture->client.stream), 0);
    fixture->received_wanted = 100;
    fixture->server.use_own_space = true;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.received, 100);
    free(bytes);
}

static void write_big(struct fixture *fixture, enum net_keep keep)
{
    fixture->server.paused = true;
    connect_pair(fixture, "127.0.0.1");
    char *bytes = pattern_new();
    struct span parts[2] = {{bytes, BIG / 2 - 1}, {bytes + BIG / 2 - 1, BIG / 2 + 1}};
    assert_int_equal(net_stream_write(fixture->client.stream, parts, 2, keep), NET_OK);
    assert_true(net_stream_queued(fixture->client.stream) > 0);
    if (keep == NET_COPY) {
        memset(bytes, 0, BIG);
    }
    assert_int_equal(net_stream_read_start(fixture->server.stream), NET_OK);
    fixture->received_wanted = BIG;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.received, BIG);
    assert_int_equal(net_stream_queued(fixture->client.stream), 0);
    assert_int_equal(fixture->client.written_calls, 1);
    free(bytes);
}

static void what_waits_is_copied(void **state)
{
    write_big(*state, NET_COPY);
}

static void what_waits_is_borrowed(void **state)
{
    write_big(*state, NET_BORROW);
}

static void a_close_gives_borrowed_pieces_back(void **state)
{
    struct fixture *fixture = *state;
    fixture->server.paused = true;
    connect_pair(fixture, "127.0.0.1");
    char *bytes = pattern_new();
    struct span part = {bytes, BIG};
    assert_int_equal(net_stream_write(fixture->client.stream, &part, 1, NET_BORROW), NET_OK);
    net_stream_close(fixture->client.stream);
    fixture->client.stream = NULL;
    free(bytes);
    assert_int_equal(net_stream_read_start(fixture->server.stream), NET_OK);
    fixture->stop_at_end = true;
    net_loop_run(fixture->loop);
    assert_true(fixture->server.ended);
    assert_int_equal(fixture->client.written_calls, 0);
}

static void end_and_reset_are_told_apart(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture, "127.0.0.1");
    assert_int_equal(net_stream_read_start(fixture->client.stream), NET_OK);
    fixture->stop_at_end = true;
    assert_int_equal(net_stream_shutdown(fixture->client.stream), NET_OK);
    net_loop_run(fixture->loop);
    assert_true(fixture->server.ended);
    assert_int_equal(fixture->server.end_status, NET_EOF);
    assert_true(net_stream_peer_is_gone(fixture->server.stream));
    net_stream_reset(fixture->server.stream);
    fixture->server.stream = NULL;
    net_loop_run(fixture->loop);
    assert_true(fixture->client.ended);
    assert_int_equal(fixture->client.end_status, NET_RESET);
}

/* An answer that ends with its connection would look whole. */
static void a_reset_overtakes_an_end_that_waits(void **state)
{
    struct fixture *fixture = *state;
    fixture->server.paused = true;
    connect_pair(fixture, "127.0.0.1");
    char *bytes = pattern_new();
    struct span part = {bytes, BIG};
    assert_int_equal(net_stream_write(fixture->client.stream, &part, 1, NET_COPY), NET_OK);
    free(bytes);
    assert_int_equal(net_stream_shutdown(fixture->client.stream), NET_OK);
    net_stream_reset(fixture->client.stream);
    fixture->client.stream = NULL;
    assert_int_equal(net_stream_read_start(fixture->server.stream), NET_OK);
    fixture->stop_at_end = true;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.end_status, NET_RESET);
}

static void staleness_is_seen_without_reading(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture, "127.0.0.1");
    assert_false(net_stream_is_stale(fixture->client.stream));
    assert_false(net_stream_peer_is_gone(fixture->client.stream));
    net_stream_close(fixture->server.stream);
    fixture->server.stream = NULL;
    assert_true(net_stream_is_stale(fixture->client.stream));
    assert_true(net_stream_peer_is_gone(fixture->client.stream));
}

static void a_closed_port_refuses(void **state)
{
    struct fixture *fixture = *state;
    net_listener_close(fixture->listener);
    fixture->listener = NULL;
    struct net_address address = address_of("127.0.0.1", fixture->port);
    fixture->stop_at_connect = true;
    fixture->client.stream = net_connect(fixture->loop, &address, on_connected, fixture);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->connected_calls, 1);
    assert_int_equal(fixture->connected, NET_REFUSED);
}

/* "localhost" is ::1 first on most machines, where nobody listens here. */
static void a_name_is_tried_address_by_address(void **state)
{
    connect_pair(*state, "localhost");
}

static void an_unknown_name_fails(void **state)
{
    struct fixture *fixture = *state;
    struct net_address address = address_of("no such host!", 80);
    fixture->stop_at_connect = true;
    fixture->client.stream = net_connect(fixture->loop, &address, on_connected, fixture);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->connected, NET_NO_NAME);
}

static void a_connect_can_be_given_up(void **state)
{
    struct fixture *fixture = *state;
    struct net_address literal = address_of("127.0.0.1", fixture->port);
    struct net_address name = address_of("localhost", fixture->port);
    fixture->drops_accepted = true;
    net_stream_close(net_connect(fixture->loop, &literal, on_connected, fixture));
    net_stream_close(net_connect(fixture->loop, &name, on_connected, fixture));
    struct net_stream *reset = net_connect(fixture->loop, &literal, on_connected, fixture);
    net_stream_reset(reset);
    fixture->stop_at_connect = true;
    struct net_address closed = address_of("127.0.0.1", 1);
    fixture->client.stream = net_connect(fixture->loop, &closed, on_connected, fixture);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->connected_calls, 1);
}

/* Else the kernel would reset it. */
static void what_waits_in_the_queue_is_taken_before_a_listener_closes(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(fixture->port)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    assert_null(fixture->server.stream); /* The loop has not run. */
    net_listener_take_all(fixture->listener);
    assert_non_null(fixture->server.stream);
    net_listener_take_all(fixture->listener); /* There is no more. */
    net_listener_close(fixture->listener);
    fixture->listener = NULL;
    char bytes[] = {0, 1, 2, 3};
    assert_int_equal(send(client, bytes, sizeof bytes, 0), sizeof bytes);
    fixture->received_wanted = sizeof bytes;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.received, sizeof bytes);
    (void)close(client);
}

/* What a service manager does: it holds the socket, whoever accepts from it. */
static void connections_wait_at_a_passed_socket_until_somebody_accepts(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int held = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(held >= 0);
    struct net_address address;
    assert_int_equal(net_listening_address(held, &address), NET_INVALID); /* Not yet. */
    assert_int_equal(bind(held, (struct sockaddr *)&local, sizeof local), 0);
    assert_int_equal(listen(held, 16), 0);
    assert_int_equal(net_listening_address(held, &address), NET_OK);
    assert_string_equal(address.host, "127.0.0.1");
    assert_int_not_equal(address.port, 0);

    struct net_listener *first = NULL;
    assert_int_equal(net_listen_passed(fixture->loop, held, 16, on_accept, fixture, &first),
                     NET_OK);
    net_listener_close(first);
    fixture->stop_at_connect = true;
    fixture->client.stream = net_connect(fixture->loop, &address, on_connected, fixture);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->connected, NET_OK);
    assert_null(fixture->server.stream); /* Nobody has accepted it. */

    fixture->stop_at_connect = false;
    fixture->stop_at_accept = true;
    struct net_listener *second = NULL;
    assert_int_equal(net_listen_passed(fixture->loop, held, 16, on_accept, fixture, &second),
                     NET_OK);
    net_loop_run(fixture->loop);
    assert_non_null(fixture->server.stream);
    net_listener_close(second);
    (void)close(held);
}

static void what_is_no_listening_socket_is_told(void **state)
{
    (void)state;
    struct net_address address;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(net_listening_address(ends[0], &address), NET_INVALID);
    (void)close(ends[0]);
    (void)close(ends[1]);
    assert_int_equal(net_listening_address(ends[0], &address), NET_INVALID);
    int datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(net_listening_address(datagrams, &address), NET_INVALID);
    (void)close(datagrams);
    int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr nameless = {.sa_family = AF_UNIX};
    assert_int_equal(bind(local, &nameless, sizeof nameless.sa_family), 0);
    assert_int_equal(listen(local, 1), 0);
    assert_int_equal(net_listening_address(local, &address), NET_INVALID);
    (void)close(local);
}

static void ports_are_shared_within_and_refused_between(void **state)
{
    struct fixture *fixture = *state;
    struct net_listen_options options = {
        .host = "127.0.0.1", .port = fixture->port, .backlog = 16, .shared = true};
    struct net_listener *second = NULL;
    uint16_t port = 0;
    assert_int_equal(net_listen(fixture->loop, &options, on_accept, fixture, &second, &port),
                     NET_OK);
    assert_int_equal(port, fixture->port);
    options.shared = false;
    struct net_listener *third = NULL;
    assert_int_equal(net_listen(fixture->loop, &options, on_accept, fixture, &third, &port),
                     NET_IN_USE);
    options.host = "not an address";
    assert_int_equal(net_listen(fixture->loop, &options, on_accept, fixture, &third, &port),
                     NET_NO_NAME);
    net_listener_close(second);
}

static void on_timer(void *user)
{
    struct fixture *fixture = user;
    fixture->timer_calls++;
    net_loop_stop(fixture->loop);
}

static void timers_come_once_and_can_be_stopped(void **state)
{
    struct fixture *fixture = *state;
    struct net_timer *timer = net_timer_new(fixture->loop, on_timer, fixture);
    struct net_timer *stopped = net_timer_new(fixture->loop, on_timer, fixture);
    uint64_t before = net_now_ns();
    net_timer_start(stopped, 0);
    net_timer_stop(stopped);
    net_timer_start(timer, 5 * CLOCK_NS_PER_MS);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->timer_calls, 1);
    assert_true(net_now_ns() - before >= 4 * CLOCK_NS_PER_MS);
    net_timer_close(timer);
    net_timer_close(stopped);
}

static void on_wake(void *user)
{
    struct fixture *fixture = user;
    fixture->wake_calls++;
    net_loop_stop(fixture->loop);
}

static bool on_turn(void *user)
{
    struct fixture *fixture = user;
    fixture->turns++;
    return fixture->turns < 100; /* Does not wait so often. */
}

static void turns_are_counted_and_wakes_come(void **state)
{
    struct fixture *fixture = *state;
    struct net_wake *wake = net_wake_new(fixture->loop, on_wake, fixture);
    net_wake_send(wake);
    net_wake_send(wake);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->wake_calls, 1);
    net_loop_on_turn(fixture->loop, on_turn, fixture);
    struct net_timer *timer = net_timer_new(fixture->loop, on_timer, fixture);
    net_timer_start(timer, 50 * CLOCK_NS_PER_MS);
    net_loop_run(fixture->loop);
    assert_true(fixture->turns >= 100);
    net_timer_close(timer);
    net_wake_close(wake);
}

static void on_signal(void *user, int number)
{
    struct fixture *fixture = user;
    fixture->signal_number = number;
    net_loop_stop(fixture->loop);
}

static void signals_come_as_calls(void **state)
{
    struct fixture *fixture = *state;
    struct net_signal *watch = net_signal_new(fixture->loop, SIGUSR1, on_signal, fixture);
    assert_non_null(watch);
    (void)raise(SIGUSR1);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->signal_number, SIGUSR1);
    net_signal_close(watch);
}

static void addresses_are_checked(void **state)
{
    (void)state;
    struct net_address address;
    char longest[300];
    memset(longest, 'a', sizeof longest);
    assert_false(net_address_set(&address, "", 0, 80));
    assert_false(net_address_set(&address, longest, sizeof longest, 80));
    assert_false(net_address_set(&address, "h", 1, 0));
    assert_false(net_address_set(&address, "h", 1, 65536));
    assert_true(net_address_set(&address, longest, NET_HOST_BYTES_MAX, 65535));
    assert_string_equal(net_status_text(NET_REFUSED), "connection refused");
    assert_string_equal(net_status_name(NET_REFUSED), "REFUSED");
    assert_string_equal(net_status_text((enum net_status)999), "unknown status");
}

struct polled {
    struct fixture *fixture;
    struct net_poll *poll;
    int fds[2];
    unsigned events;
    size_t calls;
};

static void on_ready(void *user, unsigned events_now)
{
    struct polled *polled = user;
    polled->events |= events_now;
    polled->calls++;
    net_loop_stop(polled->fixture->loop);
}

/* Told of what was asked for, as long as it is so; closed and made anew on the same descriptor.
 */
static void descriptors_of_others_are_watched(void **state)
{
    struct fixture *fixture = *state;
    struct polled polled = {.fixture = fixture};
    assert_int_equal(pipe(polled.fds), 0);
    polled.poll = net_poll_new(fixture->loop, polled.fds[0], on_ready, &polled);
    assert_non_null(polled.poll);
    assert_int_equal(write(polled.fds[1], "x", 1), 1);
    for (size_t i = 1; i <= 3; i++) {
        assert_true(net_poll_set(polled.poll, NET_READABLE));
        net_loop_run(fixture->loop);
        assert_int_equal(polled.calls, i);
        assert_int_equal(polled.events, NET_READABLE);
    }
    net_poll_close(polled.poll);
    polled.poll = net_poll_new(fixture->loop, polled.fds[1], on_ready, &polled);
    polled.events = 0;
    assert_true(net_poll_set(polled.poll, NET_READABLE | NET_WRITABLE));
    net_loop_run(fixture->loop);
    assert_int_equal(polled.events, NET_WRITABLE);
    assert_true(net_poll_set(polled.poll, 0));
    net_poll_close(polled.poll);
    net_poll_close(NULL);
    (void)close(polled.fds[0]);
    (void)close(polled.fds[1]);
}

int main(void)
{
#define NET_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        NET_TEST(pieces_arrive_in_order),
        NET_TEST(what_waits_is_copied),
        NET_TEST(what_waits_is_borrowed),
        NET_TEST(a_close_gives_borrowed_pieces_back),
        NET_TEST(end_and_reset_are_told_apart),
        NET_TEST(a_reset_overtakes_an_end_that_waits),
        NET_TEST(staleness_is_seen_without_reading),
        NET_TEST(a_closed_port_refuses),
        NET_TEST(a_name_is_tried_address_by_address),
        NET_TEST(an_unknown_name_fails),
        NET_TEST(a_connect_can_be_given_up),
        NET_TEST(what_waits_in_the_queue_is_taken_before_a_listener_closes),
        NET_TEST(connections_wait_at_a_passed_socket_until_somebody_accepts),
        cmocka_unit_test(what_is_no_listening_socket_is_told),
        NET_TEST(ports_are_shared_within_and_refused_between),
        NET_TEST(timers_come_once_and_can_be_stopped),
        NET_TEST(turns_are_counted_and_wakes_come),
        NET_TEST(signals_come_as_calls),
        NET_TEST(descriptors_of_others_are_watched),
        cmocka_unit_test(addresses_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
