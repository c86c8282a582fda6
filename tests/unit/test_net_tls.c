/* Streams over TLS: all that streams promise, and what TLS adds. Both sides on one loop; between
 * them, where a test asks for it, a relay that sees what goes over the wire. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/net.h"
#include "tls_support.h"

enum { BIG = 4 * 1024 * 1024, PATH_BYTES = 512, GUARD_S = 15 };

struct fixture;

struct side {
    struct fixture *fixture;
    struct net_stream *stream;
    size_t received;
    size_t wanted; /* Stop once so many came. */
    size_t space;  /* Of its own, for reading; 0: the loop's. */
    size_t read_calls;
    size_t written_calls;
    bool paused; /* Does not read when it begins. */
    bool stops;  /* Reading, after each piece. */
    bool closes; /* From within on_end. */
    bool ended;
    enum net_status end_status;
    char own[64];
    char first[16]; /* Bytes received. */
};

struct wire {
    struct fixture *fixture;
    struct net_stream *from;
    struct net_stream *to;
    char bytes[NET_READ_BYTES];
    size_t size;
    size_t sent;
};

struct fixture {
    struct mem mem;
    struct net_loop *loop;
    struct net_timer *guard;
    struct net_listener *listener;
    struct net_listener *relay;
    struct net_tls *server_tls;
    struct net_tls *client_tls;
    struct net_address address; /* Of the server. */
    struct side client;
    struct side server;
    struct wire wires[2]; /* From the client, to it. */
    enum net_status connected;
    size_t connected_calls;
    bool relay_is_up;
    bool stop_at_connect;
    bool stop_at_end;
    char *folder;
    char authority[PATH_BYTES];
    char certificate[PATH_BYTES];
};

static void on_guard(void *user)
{
    (void)user;
    fail_msg("nothing came for so long");
}

/* ---- Two sides ---- */

static void on_space(void *user, char **space, size_t *size)
{
    struct side *side = user;
    if (side->space > 0) {
        *space = side->own;
        *size = side->space;
    }
}

static void on_read(void *user, const char *bytes, size_t size)
{
    struct side *side = user;
    assert_true(size > 0 && (side->space == 0 || size <= side->space));
    for (size_t i = 0; i < size; i++) {
        if (side->received + i < sizeof side->first) {
            side->first[side->received + i] = bytes[i];
        }
        if (side->wanted > 16) {
            assert_int_equal((unsigned char)bytes[i], (side->received + i) % 251);
        }
    }
    side->received += size;
    side->read_calls++;
    if (side->stops) {
        net_stream_read_stop(side->stream);
        net_loop_stop(side->fixture->loop);
    }
    if (side->wanted > 0 && side->received >= side->wanted) {
        net_loop_stop(side->fixture->loop);
    }
}

static void on_end(void *user, enum net_status status)
{
    struct side *side = user;
    assert_false(side->ended);
    side->ended = true;
    side->end_status = status;
    if (side->closes) {
        net_stream_close(side->stream);
        side->stream = NULL;
    }
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

static void begin_side(struct side *side, struct net_stream *stream)
{
    side->stream = stream;
    net_stream_set_events(stream, &events, side);
    if (!side->paused) {
        assert_int_equal(net_stream_read_start(stream), NET_OK);
    }
}

static void on_accept(void *user, struct net_stream *stream)
{
    struct fixture *fixture = user;
    assert_null(fixture->server.stream);
    begin_side(&fixture->server, stream);
}

static void on_connected(void *user, enum net_status status)
{
    struct fixture *fixture = user;
    fixture->connected = status;
    fixture->connected_calls++;
    if (status == NET_OK) {
        begin_side(&fixture->client, fixture->client.stream);
    }
    if (fixture->stop_at_connect) {
        net_loop_stop(fixture->loop);
    }
}

static void connect_to(struct fixture *fixture, const char *host, uint16_t port)
{
    struct net_address address;
    assert_true(net_address_set(&address, host, strlen(host), port));
    address.tls = fixture->client_tls;
    fixture->stop_at_connect = true;
    fixture->client.stream = net_connect(fixture->loop, &address, on_connected, fixture);
    assert_non_null(fixture->client.stream);
    assert_int_equal(fixture->connected_calls, 0);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->connected_calls, 1);
    fixture->connected_calls = 0;
}

static void connect_pair(struct fixture *fixture)
{
    connect_to(fixture, "localhost", fixture->address.port);
    assert_int_equal(fixture->connected, NET_OK);
}

/* Again, for another test of the same fixture. */
static void drop_pair(struct fixture *fixture)
{
    net_stream_close(fixture->client.stream);
    net_stream_close(fixture->server.stream);
    fixture->client = (struct side){.fixture = fixture};
    fixture->server = (struct side){.fixture = fixture};
}

static void path_in(struct fixture *fixture, const char *name, char *out)
{
    int size = snprintf(out, PATH_BYTES, "%s/%s", fixture->folder, name);
    assert_true(size > 0 && size < PATH_BYTES);
}

static void make_contexts(struct fixture *fixture)
{
    char problem[NET_PROBLEM_BYTES] = "";
    struct net_tls_options server = {
        .server = true, .cert_file = fixture->certificate, .handshake_ns = 300 * CLOCK_NS_PER_MS};
    struct net_tls_options client = {.ca_file = fixture->authority};
    fixture->server_tls = net_tls_new(&fixture->mem, &server, problem);
    fixture->client_tls = net_tls_new(&fixture->mem, &client, problem);
    assert_string_equal(problem, "");
    assert_true(fixture->server_tls != NULL && fixture->client_tls != NULL);
}

static void make_authority(struct fixture *fixture)
{
    struct test_certificate authority = {.last_day = 2};
    struct test_certificate certificate = {
        .names = "DNS:localhost,IP:127.0.0.1", .last_day = 2, .issuer = fixture->authority};
    make_certificate(fixture->authority, &authority);
    make_certificate(fixture->certificate, &certificate);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    mem_init(&fixture->mem, SIZE_MAX);
    fixture->folder = test_directory_make();
    path_in(fixture, "authority.pem", fixture->authority);
    path_in(fixture, "certificate.pem", fixture->certificate);
    make_authority(fixture);
    make_contexts(fixture);
    fixture->loop = net_loop_new(&fixture->mem);
    assert_non_null(fixture->loop);
    fixture->client.fixture = fixture;
    fixture->server.fixture = fixture;
    fixture->guard = net_timer_new(fixture->loop, on_guard, NULL);
    net_timer_start(fixture->guard, GUARD_S * CLOCK_NS_PER_S);
    struct net_listen_options options = {.host = "127.0.0.1", .backlog = 16};
    assert_int_equal(net_listen(fixture->loop, &options, on_accept, fixture, &fixture->listener,
                                &fixture->address.port),
                     NET_OK);
    net_listener_set_tls(fixture->listener, fixture->server_tls);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    drop_pair(fixture);
    for (size_t i = 0; i < 2; i++) {
        net_stream_close(fixture->wires[i].from);
    }
    net_listener_close(fixture->listener);
    net_listener_close(fixture->relay);
    net_timer_close(fixture->guard);
    net_loop_free(fixture->loop);
    net_tls_free(fixture->server_tls);
    net_tls_free(fixture->client_tls);
    test_directory_remove(fixture->folder);
    mem_fini(&fixture->mem);
    free(fixture);
    return 0;
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

/* ---- The relay: a byte at a time ---- */

static void on_wire_read(void *user, const char *bytes, size_t size)
{
    struct wire *wire = user;
    memcpy(wire->bytes, bytes, size);
    wire->size = size;
    wire->sent = 0;
    net_stream_read_stop(wire->from); /* Until it has gone on. */
}

static void on_wire_end(void *user, enum net_status status)
{
    (void)user;
    (void)status;
}

static void on_wire_written(void *user, enum net_status status)
{
    (void)user;
    (void)status;
}

static const struct net_stream_events wire_events = {
    .on_read = on_wire_read, .on_end = on_wire_end, .on_written = on_wire_written};

static bool on_turn(void *user)
{
    struct fixture *fixture = user;
    bool more = false;
    for (size_t i = 0; i < 2; i++) {
        struct wire *wire = &fixture->wires[i];
        if (!fixture->relay_is_up || wire->sent == wire->size) {
            continue;
        }
        struct span byte = {.data = wire->bytes + wire->sent, .size = 1};
        assert_int_equal(net_stream_write(wire->to, &byte, 1, NET_COPY), NET_OK);
        wire->sent++;
        more = true;
        if (wire->sent == wire->size) {
            assert_int_equal(net_stream_read_start(wire->from), NET_OK);
        }
    }
    return more;
}

static void on_relayed(void *user, enum net_status status)
{
    struct fixture *fixture = user;
    assert_int_equal(status, NET_OK);
    fixture->relay_is_up = true;
    for (size_t i = 0; i < 2; i++) {
        struct wire *wire = &fixture->wires[i];
        wire->to = fixture->wires[1 - i].from;
        net_stream_set_events(wire->from, &wire_events, wire);
        assert_int_equal(net_stream_read_start(wire->from), NET_OK);
    }
}

static void on_relay_accept(void *user, struct net_stream *stream)
{
    struct fixture *fixture = user;
    struct net_address address;
    assert_true(net_address_set(&address, "127.0.0.1", 9, fixture->address.port));
    fixture->wires[0].from = stream;
    fixture->wires[1].from = net_connect(fixture->loop, &address, on_relayed, fixture);
}

static void connect_by_relay(struct fixture *fixture)
{
    uint16_t port = 0;
    struct net_listen_options options = {.host = "127.0.0.1", .backlog = 16};
    assert_int_equal(
        net_listen(fixture->loop, &options, on_relay_accept, fixture, &fixture->relay, &port),
        NET_OK);
    net_loop_on_turn(fixture->loop, on_turn, fixture);
    connect_to(fixture, "localhost", port);
    assert_int_equal(fixture->connected, NET_OK);
}

/* ---- Bytes ---- */

static void pieces_arrive_in_order(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture);
    char *bytes = pattern_new();
    struct span parts[3] = {{bytes, 10}, {NULL, 0}, {bytes + 10, 90}};
    assert_int_equal(net_stream_write(fixture->client.stream, parts, 3, NET_COPY), NET_OK);
    assert_int_equal(net_stream_queued(fixture->client.stream), 0);
    fixture->server.wanted = 100;
    fixture->server.space = 1; /* Read a byte at a time. */
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.received, 100);
    assert_int_equal(fixture->server.read_calls, 100);
    assert_int_equal(net_tls_get_stats(fixture->server_tls).handshakes, 1);
    free(bytes);
}

static void each_byte_may_come_alone(void **state)
{
    struct fixture *fixture = *state;
    connect_by_relay(fixture);
    char *bytes = pattern_new();
    struct span part = {bytes, 20000}; /* Two records. */
    assert_int_equal(net_stream_write(fixture->client.stream, &part, 1, NET_COPY), NET_OK);
    fixture->server.wanted = part.size;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.received, part.size);
    free(bytes);
}

static void write_big(struct fixture *fixture, enum net_keep keep)
{
    connect_pair(fixture);
    fixture->server.wanted = 1; /* Its handshake is done, too. */
    struct span byte = {"", 1};
    assert_int_equal(net_stream_write(fixture->client.stream, &byte, 1, NET_COPY), NET_OK);
    net_loop_run(fixture->loop);
    net_stream_read_stop(fixture->server.stream);
    fixture->server.received = 0;
    char *bytes = pattern_new();
    struct span parts[3] = {
        {bytes, 5}, {bytes + 5, BIG / 2 - 1}, {bytes + 5 + BIG / 2 - 1, BIG / 2 - 4}};
    assert_int_equal(net_stream_write(fixture->client.stream, parts, 3, keep), NET_OK);
    size_t queued = net_stream_queued(fixture->client.stream);
    assert_true(queued > 0 && queued < BIG);
    assert_true(net_stream_unread(fixture->client.stream) > queued);
    if (keep == NET_COPY) {
        memset(bytes, 0, BIG);
    }
    assert_int_equal(net_stream_read_start(fixture->server.stream), NET_OK);
    fixture->server.wanted = BIG;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.received, BIG);
    assert_int_equal(net_stream_queued(fixture->client.stream), 0);
    assert_true(fixture->client.written_calls >= 1);
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
    connect_pair(fixture);
    char *bytes = pattern_new();
    struct span part = {bytes, BIG};
    assert_int_equal(net_stream_write(fixture->client.stream, &part, 1, NET_BORROW), NET_OK);
    net_stream_close(fixture->client.stream);
    fixture->client.stream = NULL;
    free(bytes);
    fixture->stop_at_end = true;
    assert_int_equal(net_stream_read_start(fixture->server.stream), NET_OK);
    net_loop_run(fixture->loop);
    enum net_status status = fixture->server.end_status; /* A reset if it had not read a ticket. */
    assert_true(status == NET_CUT || status == NET_RESET);
    assert_int_equal(fixture->client.written_calls, 0);
}

/* What one record holds beyond the space waits for reading to begin again, and is told from the
 * loop alone; so is the end behind it. */
static void reading_can_stop_within_a_record(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture);
    char *bytes = pattern_new();
    struct span part = {bytes, 300};
    assert_int_equal(net_stream_write(fixture->client.stream, &part, 1, NET_COPY), NET_OK);
    net_stream_close(fixture->client.stream);
    fixture->client.stream = NULL;
    fixture->server.space = 60;
    fixture->server.stops = true;
    for (size_t i = 1; i <= 5; i++) {
        net_loop_run(fixture->loop);
        assert_int_equal(fixture->server.received, i * 60);
        assert_true(net_stream_is_stale(fixture->server.stream));
        assert_int_equal(net_stream_read_start(fixture->server.stream), NET_OK);
        assert_int_equal(fixture->server.received, i * 60); /* Not from within. */
    }
    fixture->stop_at_end = true;
    net_loop_run(fixture->loop);
    assert_true(fixture->server.ended);
    assert_int_equal(fixture->server.end_status, NET_EOF);
    free(bytes);
}

/* ---- Ends ---- */

static void one_direction_can_end_before_the_other(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture);
    fixture->stop_at_end = true;
    assert_int_equal(net_stream_shutdown(fixture->client.stream), NET_OK);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.end_status, NET_EOF);
    assert_true(net_stream_peer_is_gone(fixture->server.stream));
    assert_false(fixture->client.ended);
    char *bytes = pattern_new();
    struct span part = {bytes, BIG};
    assert_int_equal(net_stream_write(fixture->server.stream, &part, 1, NET_BORROW), NET_OK);
    assert_int_equal(net_stream_shutdown(fixture->server.stream), NET_OK); /* After what waits. */
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->client.received, BIG);
    assert_int_equal(fixture->client.end_status, NET_EOF);
    free(bytes);
}

static void a_connection_cut_below_tls_has_not_ended(void **state)
{
    struct fixture *fixture = *state;
    connect_by_relay(fixture);
    fixture->server.wanted = 1;
    struct span byte = {"", 1};
    assert_int_equal(net_stream_write(fixture->client.stream, &byte, 1, NET_COPY), NET_OK);
    net_loop_run(fixture->loop);
    fixture->stop_at_end = true;
    fixture->relay_is_up = false;
    assert_int_equal(net_stream_shutdown(fixture->wires[1].from), NET_OK); /* FIN, no notice. */
    net_loop_run(fixture->loop);
    assert_true(fixture->server.ended);
    assert_int_equal(fixture->server.end_status, NET_CUT);
}

static void a_reset_gives_no_notice(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture);
    fixture->stop_at_end = true;
    net_stream_reset(fixture->client.stream);
    fixture->client.stream = NULL;
    net_loop_run(fixture->loop);
    assert_true(fixture->server.end_status == NET_RESET || fixture->server.end_status == NET_CUT);
}

static void staleness_is_seen_without_reading(void **state)
{
    struct fixture *fixture = *state;
    connect_pair(fixture);
    fixture->client.wanted = 1;
    fixture->server.wanted = 1;
    struct span byte = {"", 1};
    assert_int_equal(net_stream_write(fixture->client.stream, &byte, 1, NET_COPY), NET_OK);
    net_loop_run(fixture->loop); /* Server's side is up. */
    assert_int_equal(net_stream_write(fixture->server.stream, &byte, 1, NET_COPY), NET_OK);
    net_loop_run(fixture->loop); /* The ticket has come, too. */
    assert_false(net_stream_is_stale(fixture->client.stream));
    assert_false(net_stream_peer_is_gone(fixture->client.stream));
    net_stream_close(fixture->server.stream);
    fixture->server.stream = NULL;
    assert_true(net_stream_is_stale(fixture->client.stream));
    assert_true(net_stream_peer_is_gone(fixture->client.stream));
}

/* ---- Handshakes ---- */

static void refuses(struct fixture *fixture, const char *host, enum net_status expected)
{
    connect_to(fixture, host, fixture->address.port);
    assert_string_equal(net_status_text(fixture->connected), net_status_text(expected));
    drop_pair(fixture);
}

static void renew(struct fixture *fixture, const struct test_certificate *wanted)
{
    char problem[NET_PROBLEM_BYTES] = "";
    make_certificate(fixture->certificate, wanted);
    assert_true(net_tls_reload(fixture->server_tls, problem));
    assert_string_equal(problem, "");
}

static void servers_have_to_prove_who_they_are(void **state)
{
    struct fixture *fixture = *state;
    struct test_certificate other = {
        .names = "DNS:elsewhere", .last_day = 2, .issuer = fixture->authority};
    struct test_certificate alone = {.names = "DNS:localhost", .last_day = 2};
    struct test_certificate old = {
        .names = "DNS:localhost", .first_day = -3, .last_day = -1, .issuer = fixture->authority};
    renew(fixture, &other);
    refuses(fixture, "localhost", NET_OTHER_NAME);
    refuses(fixture, "127.0.0.1", NET_OTHER_NAME);
    renew(fixture, &alone);
    refuses(fixture, "localhost", NET_UNTRUSTED);
    renew(fixture, &old);
    refuses(fixture, "localhost", NET_EXPIRED);
    assert_int_equal(net_tls_get_stats(fixture->client_tls).failures, 4);
    assert_int_equal(net_tls_get_stats(fixture->client_tls).handshakes, 0);
}

static void sessions_are_resumed(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < 3; i++) {
        connect_to(fixture, i == 2 ? "127.0.0.1" : "localhost", fixture->address.port);
        assert_int_equal(fixture->connected, NET_OK);
        fixture->client.wanted = 1;
        fixture->server.wanted = 1;
        struct span byte = {"", 1};
        assert_int_equal(net_stream_write(fixture->client.stream, &byte, 1, NET_COPY), NET_OK);
        net_loop_run(fixture->loop);
        assert_int_equal(net_stream_write(fixture->server.stream, &byte, 1, NET_COPY), NET_OK);
        net_loop_run(fixture->loop); /* The ticket has come before that byte. */
        drop_pair(fixture);
        assert_int_equal(net_tls_get_stats(fixture->client_tls).resumed, i == 0 ? 0 : 1);
    }
    char problem[NET_PROBLEM_BYTES] = "";
    assert_true(net_tls_reload(fixture->client_tls, problem)); /* Trust may have changed. */
    connect_pair(fixture);
    assert_int_equal(net_tls_get_stats(fixture->client_tls).resumed, 1);
    assert_int_equal(net_tls_get_stats(fixture->client_tls).handshakes, 4);
}

static void bad_files_leave_what_is_loaded(void **state)
{
    struct fixture *fixture = *state;
    char problem[NET_PROBLEM_BYTES] = "";
    FILE *file = fopen(fixture->certificate, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_false(net_tls_reload(fixture->server_tls, problem));
    assert_non_null(strstr(problem, fixture->certificate));
    assert_int_equal(remove(fixture->certificate), 0);
    assert_false(net_tls_reload(fixture->server_tls, problem));
    assert_non_null(strstr(problem, "cannot be read"));
    connect_pair(fixture);
}

static void clients_can_be_asked_for_certificates(void **state)
{
    struct fixture *fixture = *state;
    char problem[NET_PROBLEM_BYTES] = "";
    struct net_tls_options options = {.server = true,
                                      .cert_file = fixture->certificate,
                                      .ca_file = fixture->authority,
                                      .clients = NET_TLS_CERTIFIED};
    struct net_tls *demanding = net_tls_new(&fixture->mem, &options, problem);
    assert_non_null(demanding);
    net_listener_set_tls(fixture->listener, demanding);
    connect_pair(fixture); /* In TLS 1.3 the client hears of it later. */
    fixture->stop_at_end = true;
    net_loop_run(fixture->loop);
    if (!fixture->client.ended) {
        net_loop_run(fixture->loop);
    }
    assert_int_equal(fixture->server.end_status, NET_NO_CERTIFICATE);
    assert_int_equal(fixture->client.end_status, NET_REJECTED);
    drop_pair(fixture);
    struct net_tls_options known = {.ca_file = fixture->authority,
                                    .cert_file = fixture->certificate};
    struct net_tls *before = fixture->client_tls;
    fixture->client_tls = net_tls_new(&fixture->mem, &known, problem);
    assert_non_null(fixture->client_tls);
    connect_pair(fixture);
    fixture->server.wanted = 1;
    struct span byte = {"", 1};
    assert_int_equal(net_stream_write(fixture->client.stream, &byte, 1, NET_COPY), NET_OK);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.received, 1);
    drop_pair(fixture);
    net_listener_close(fixture->listener);
    fixture->listener = NULL;
    net_tls_free(demanding);
    net_tls_free(before);
}

static void who_speaks_http_is_told(void **state)
{
    struct fixture *fixture = *state;
    struct net_tls *kept = fixture->client_tls;
    fixture->client_tls = NULL;
    connect_pair(fixture);
    fixture->client_tls = kept;
    static const char text[] = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    struct span part = {text, sizeof text - 1};
    assert_int_equal(net_stream_write(fixture->client.stream, &part, 1, NET_COPY), NET_OK);
    fixture->stop_at_end = true;
    net_loop_run(fixture->loop);
    assert_true(fixture->server.ended);
    assert_int_equal(fixture->server.end_status, NET_NOT_TLS);
    net_stream_close(fixture->server.stream);
    fixture->server.stream = NULL;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->client.end_status, NET_EOF);
    assert_memory_equal(fixture->client.first, "HTTP/1.1 400 Bad", 16);
    assert_int_equal(net_tls_get_stats(fixture->server_tls).failures, 1);
    assert_int_equal(net_tls_get_stats(fixture->server_tls).last_failure, NET_NOT_TLS);
}

/* What most users do. */
static void a_stream_can_be_closed_when_its_handshake_has_failed(void **state)
{
    struct fixture *fixture = *state;
    struct net_tls *kept = fixture->client_tls;
    static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "neither TLS nor HTTP", ""};
    for (size_t i = 0; i < 3; i++) { /* The last one says nothing: its time is up. */
        fixture->server.closes = true;
        fixture->client_tls = NULL;
        connect_pair(fixture);
        fixture->client_tls = kept;
        struct span part = {texts[i], strlen(texts[i])};
        assert_int_equal(net_stream_write(fixture->client.stream, &part, 1, NET_COPY), NET_OK);
        fixture->stop_at_end = true;
        while (!fixture->server.ended) {
            net_loop_run(fixture->loop);
        }
        drop_pair(fixture);
    }
}

static void a_handshake_has_to_come_in_time(void **state)
{
    struct fixture *fixture = *state;
    struct net_tls *kept = fixture->client_tls;
    fixture->client_tls = NULL;
    connect_pair(fixture); /* And says nothing. */
    fixture->client_tls = kept;
    fixture->stop_at_end = true;
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->server.end_status, NET_TIMED_OUT);
}

static void on_tick(void *user)
{
    struct fixture *fixture = user;
    net_loop_stop(fixture->loop);
}

static void what_is_written_before_the_handshake_waits_for_it(void **state)
{
    struct fixture *fixture = *state;
    fixture->stop_at_connect = false;
    struct net_address address;
    assert_true(net_address_set(&address, "localhost", 9, fixture->address.port));
    address.tls = fixture->client_tls;
    fixture->client.wanted = 3;
    fixture->client.stream = net_connect(fixture->loop, &address, on_connected, fixture);
    struct net_timer *tick = net_timer_new(fixture->loop, on_tick, fixture);
    while (fixture->server.stream == NULL) {
        net_timer_start(tick, 0);
        net_loop_run(fixture->loop);
    }
    struct span part = {"abc", 3};
    assert_int_equal(net_stream_write(fixture->server.stream, &part, 1, NET_COPY), NET_OK);
    net_loop_run(fixture->loop);
    assert_int_equal(fixture->client.received, 3);
    net_timer_close(tick);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN); /* As the programs do. */
#define TLS_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TLS_TEST(pieces_arrive_in_order),
        TLS_TEST(each_byte_may_come_alone),
        TLS_TEST(what_waits_is_copied),
        TLS_TEST(what_waits_is_borrowed),
        TLS_TEST(a_close_gives_borrowed_pieces_back),
        TLS_TEST(reading_can_stop_within_a_record),
        TLS_TEST(one_direction_can_end_before_the_other),
        TLS_TEST(a_connection_cut_below_tls_has_not_ended),
        TLS_TEST(a_reset_gives_no_notice),
        TLS_TEST(staleness_is_seen_without_reading),
        TLS_TEST(servers_have_to_prove_who_they_are),
        TLS_TEST(sessions_are_resumed),
        TLS_TEST(bad_files_leave_what_is_loaded),
        TLS_TEST(clients_can_be_asked_for_certificates),
        TLS_TEST(who_speaks_http_is_told),
        TLS_TEST(a_stream_can_be_closed_when_its_handshake_has_failed),
        TLS_TEST(a_handshake_has_to_come_in_time),
        TLS_TEST(what_is_written_before_the_handshake_waits_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
