/*
 * Engines: read requests on kept connections, one after another, and answer as their moods say.
 *
 *     head -> try -> [answer early] -> body -> wait (prefill) -> answer piece by piece
 *          -> keep the connection, or close it; or break off anywhere
 */
#include "base/check.h"
#include "sim/scripts.h"

enum { PIECES_MAX = 12, READ_BYTES_MAX = 16384 };

/* What becomes of an answer. */
enum fate {
    FATE_WHOLE,
    FATE_FIN,   /* Ends at `stop_at`. */
    FATE_RESET, /* The same. */
    FATE_HANG,  /* Says nothing more from there on. */
};

struct engine_conn {
    struct list link_conn; /* In engine->conns. */
    struct sim_engine *engine;
    struct sim_link *link;
    struct sim_message request;
    struct sim_try *try; /* NULL: between requests. */
    struct buf wire;     /* The answer. */
    size_t wire_sent;
    size_t message_end; /* In wire: garbage may follow. */
    size_t stop_at;     /* In wire. */
    enum fate fate;
    bool answering;
    bool closes; /* After this answer. */
    uint32_t served;
    size_t checked; /* Of the request's body. */
    uint64_t piece_delay_ns;
    struct sim_event send;
    struct sim_event idle;
};

static void conn_over(struct engine_conn *conn)
{
    sim_event_cancel(&conn->send);
    sim_event_cancel(&conn->idle);
    list_remove(&conn->link_conn);
    list_push_back(&conn->engine->old_conns, &conn->link_conn);
}

static void conn_close(struct engine_conn *conn, bool reset)
{
    const struct sim_try *try = conn->try;
    bool cut = conn->answering && try != NULL && try->until_end && !try->whole;
    if (reset || cut) { /* A FIN would make it whole. */
        sim_link_reset(conn->link, SIM_SCRIPT);
    } else {
        sim_link_close(conn->link, SIM_SCRIPT);
    }
    conn_over(conn);
}

/* ---- Answers ---- */

static unsigned choose_status(const struct sim_engine *engine, const struct sim_request *request)
{
    static const unsigned errors[] = {500, 502, 503, 504, 429, 400, 422};
    static const unsigned fine[] = {201, 204, 304, 404};
    if (sim_chance(engine->sim->profile.engine_error_percent)) {
        return errors[sim_below((uint32_t)(sizeof errors / sizeof *errors))];
    }
    return sim_chance(10) && !request->stream
               ? fine[sim_below((uint32_t)(sizeof fine / sizeof *fine))]
               : 200;
}

static void make_events(struct sim_try *try, size_t size)
{
    while (try->body.size < size) {
        sim_print(&try->body, "data: ");
        sim_fill(&try->body, try->number * 1000 + try->body.size, 1 + sim_below(200));
        sim_print(&try->body, "\n\n");
    }
    sim_print(&try->body, "data: [DONE]\n\n");
}

static void make_body(struct engine_conn *conn, struct sim_try *try)
{
    size_t size = (size_t)sim_between(0, conn->engine->sim->profile.answer_max);
    if (try->status == 204 || try->status == 304 || try->request->to_head) {
        return;
    }
    try->sse = try->request->stream && try->status == 200;
    if (try->sse) {
        make_events(try, size);
    } else {
        sim_fill(&try->body, try->number + 500000, size);
    }
}

static void add_chunks(struct engine_conn *conn, struct sim_try *try)
{
    size_t done = 0;
    while (done < try->body.size) {
        size_t size = (size_t)sim_between(1, try->body.size - done + 1);
        if (try->sse) { /* An event each. */
            const char *from = try->body.data + done;
            const char *end = memmem(from, try->body.size - done, "\n\n", 2);
            CHECK(end != NULL);
            size = (size_t)(end - from) + 2;
        }
        sim_print(&conn->wire, "%zx%s\r\n", size, sim_chance(3) ? ";x=y" : "");
        if (done == 0) {
            try->commits_at = try->begin + conn->wire.size + 1;
        }
        sim_append(&conn->wire, try->body.data + done, size);
        sim_print(&conn->wire, "\r\n");
        done += size;
    }
    sim_print(&try->trailer, "%s\r\n", sim_chance(15) ? "X-Checksum: 12\r\n" : "");
    sim_print(&conn->wire, "0\r\n");
    sim_append(&conn->wire, try->trailer.data, try->trailer.size);
    if (done == 0) {
        try->commits_at = try->begin + conn->wire.size;
    }
}

static void add_headers(struct engine_conn *conn, const struct sim_try *try, bool old)
{
    const struct sim_engine *engine = conn->engine;
    bool last = engine->requests_max != 0 && conn->served >= engine->requests_max;
    conn->closes = try->until_end || old || last || sim_chance(5);
    bool says = (try->until_end && !old) || (conn->closes && sim_chance(70));
    sim_print(&conn->wire, "HTTP/1.%d %u Fine\r\nX-Sim-Try: %zu\r\n%s", old ? 0 : 1, try->status,
              try->number, says ? "Connection: close\r\n" : "");
    if (!says && engine->tells_max) {
        sim_print(&conn->wire, "Connection: keep-alive\r\nKeep-Alive: timeout=%llu, max=%u\r\n",
                  (unsigned long long)(engine->idle_ns / CLOCK_NS_PER_S), engine->requests_max);
    }
    if (try->sse) {
        sim_print(&conn->wire, "Content-Type: text/event-stream\r\n");
    }
}

static void make_wire(struct engine_conn *conn, struct sim_try *try)
{
    bool bodyless = try->status == 204 || try->status == 304 || try->request->to_head;
    bool old = sim_chance(5);
    bool chunked = !bodyless && !old && sim_chance(try->sse ? 80 : 40);
    try->until_end = !bodyless && !chunked && sim_chance(try->sse ? 70 : 20);
    if (sim_chance(8)) {
        sim_print(&conn->wire, "HTTP/1.1 %s\r\n\r\n",
                  sim_chance(50) ? "102 Processing" : "103 Early Hints\r\nLink: </x>");
    }
    add_headers(conn, try, old);
    if (chunked) {
        sim_print(&conn->wire, "Transfer-Encoding: chunked\r\n\r\n");
        add_chunks(conn, try);
    } else {
        if (!try->until_end && (!bodyless || (try->request->to_head && sim_chance(50)))) {
            sim_print(&conn->wire, "Content-Length: %zu\r\n", bodyless ? 77 : try->body.size);
        }
        sim_print(&conn->wire, "\r\n");
        bool waits = try->until_end || try->body.size > 0;
        try->commits_at = try->begin + conn->wire.size + (waits ? 1 : 0);
        sim_append(&conn->wire, try->body.data, try->body.size);
    }
    conn->message_end = conn->wire.size;
}

static void make_garbage(struct engine_conn *conn, struct sim_try *try)
{
    static const char *const texts[] = {
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n",
        "\r\n\r\n\r\nHTTP/9.9 hm\r\n\r\n",
    };
    try->garbage = true;
    sim_print(&conn->wire, "%s", texts[sim_below((uint32_t)(sizeof texts / sizeof *texts))]);
    conn->message_end = conn->wire.size;
}

/* A close-delimited body that ends early is a whole one to everybody else. */
static void choose_fate(struct engine_conn *conn, struct sim_try *try)
{
    conn->fate = FATE_WHOLE;
    conn->stop_at = conn->wire.size;
    if (!sim_chance(conn->engine->sim->profile.engine_break_percent)) {
        return;
    }
    conn->fate = (enum fate)(FATE_FIN + sim_below(3));
    conn->stop_at = (size_t)(random_next(&sim_world->random) % conn->wire.size);
    if (conn->fate == FATE_FIN && try->until_end) {
        size_t body_begin = conn->wire.size - try->body.size;
        if (conn->stop_at >= body_begin) {
            conn->fate = FATE_WHOLE;
            conn->wire.size = conn->stop_at;
            conn->message_end = conn->stop_at;
            try->body.size = conn->stop_at - body_begin;
        }
    }
}

static void begin_answer(struct engine_conn *conn)
{
    const struct sim_profile *profile = &conn->engine->sim->profile;
    struct sim_try *try = conn->try;
    conn->answering = true;
    conn->wire.size = 0;
    conn->wire_sent = 0;
    conn->served++;
    try->status = choose_status(conn->engine, try->request);
    make_body(conn, try);
    bool garbled = !try->request->to_head && sim_chance(profile->engine_break_percent / 4);
    if (garbled) {
        make_garbage(conn, try);
    } else {
        make_wire(conn, try);
    }
    choose_fate(conn, try);
    if (conn->engine->number < profile->bad_engines) {
        conn->fate = sim_chance(50) ? FATE_FIN : FATE_RESET;
        conn->stop_at = sim_below(12); /* In the status line. */
    } else if (conn->fate == FATE_WHOLE && !profile->calm && !try->until_end && sim_chance(3)) {
        conn->link->garbage_from = try->begin + conn->wire.size;
        conn->closes = true;
        sim_print(&conn->wire, "%s", sim_chance(50) ? "HTTP/1.1 200 OK\r\n" : "more");
        conn->stop_at = conn->wire.size;
    }
    try->planned = true;
    conn->piece_delay_ns = sim_chance(70) ? 0 : 500 * CLOCK_NS_PER_MS;
    sim_event_after(&conn->send, sim_between(0, profile->prefill_ns + 1));
}

/* ---- Sending ---- */

static void after_answer(struct engine_conn *conn)
{
    bool broken = conn->fate != FATE_WHOLE;
    if (!broken && !conn->try->garbage) {
        conn->try->whole = true;
    }
    sim_trace("engine %zu: try %zu, %u, %s", conn->engine->number, conn->try->number,
              conn->try->status, broken ? "is broken off" : "is said");
    if (conn->fate == FATE_HANG) {
        conn->closes = true;
        sim_event_after(&conn->idle, 900 * CLOCK_NS_PER_S);
        return;
    }
    if (broken || conn->closes || conn->try->garbage) {
        conn_close(conn, conn->fate == FATE_RESET);
        return;
    }
    conn->answering = false;
    if (conn->request.part == SIM_WHOLE) {
        conn->try = NULL;
        sim_message_reset(&conn->request, false);
    }
    sim_event_after(&conn->idle, conn->engine->idle_ns);
}

static void on_send(void *user)
{
    struct engine_conn *conn = user;
    size_t left = conn->stop_at - conn->wire_sent;
    size_t piece = left / PIECES_MAX < 64 ? 64 : left / PIECES_MAX;
    piece = sim_chance(50) ? left : 1 + sim_below((uint32_t)(2 * piece));
    piece = piece < left ? piece : left;
    size_t taken = sim_pipe_send(sim_link_to(conn->link, SIM_ROUTER),
                                 conn->wire.data + conn->wire_sent, piece);
    conn->wire_sent += taken;
    if (conn->fate == FATE_WHOLE && conn->wire_sent >= conn->message_end && !conn->try->until_end &&
        !conn->try->garbage) {
        conn->try->whole = true; /* Whatever comes behind it. */
    }
    if (conn->wire_sent == conn->stop_at) {
        after_answer(conn);
    } else if (taken == piece) {
        sim_event_after(&conn->send, sim_between(0, conn->piece_delay_ns + 1));
    }
}

static void on_room(void *user)
{
    struct engine_conn *conn = user;
    if (conn->answering && conn->wire_sent > 0 && conn->wire_sent < conn->stop_at &&
        !sim_event_is_planned(&conn->send)) {
        sim_event_after(&conn->send, 0);
    }
}

/* ---- Reading ---- */

static void check_head(const struct sim_message *request)
{
    static const char *const never[] = {"connection", "transfer-encoding", "expect", "keep-alive"};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        if (sim_message_header(request, never[i]).data != NULL) {
            sim_fail("an engine gets the header %s", never[i]);
        }
    }
    if (sim_message_header(request, "x-request-id").data == NULL ||
        sim_message_header(request, "host").data == NULL) {
        sim_fail("an engine gets no Host or no X-Request-Id");
    }
}

/* False: the connection has been closed. */
static bool take_head(struct engine_conn *conn)
{
    struct sim_engine *engine = conn->engine;
    struct sim *sim = engine->sim;
    uint64_t number = sim_message_number(&conn->request, "x-sim", UINT64_MAX);
    check_head(&conn->request);
    if (number >= sim->request_count) {
        sim_fail("engine %zu: gets a request of nobody", engine->number);
    }
    if (!conn->link->open[SIM_ROUTER]) { /* The router has given up on it since. */
        conn_close(conn, false);
        return false;
    }
    struct sim_request *request = &sim->requests[number];
    if (request->closed_by == engine->number + 1 && conn->served > 0) {
        sim_fail("request %zu: sent again to engine %zu on a kept connection", request->number,
                 engine->number);
    }
    request->closed_by = 0;
    if (conn->served > 0 && sim_chance(sim->profile.stale_percent)) {
        request->closed_by = engine->number + 1;
        conn_close(conn, sim_chance(50));
        return false;
    }
    conn->try = sim_try_begin(sim, request, engine->number, conn->link, conn->served > 0);
    conn->checked = 0;
    sim_event_cancel(&conn->idle);
    if (!sim->profile.calm && sim_chance(4)) {
        conn->try->early = true;
        begin_answer(conn);
    }
    return true;
}

static void check_body(struct engine_conn *conn)
{
    const struct sim_request *request = conn->try->request;
    const struct buf *got = &conn->request.body;
    const struct buf *sent = &request->body;
    bool fits =
        got->size <= sent->size &&
        (got->size == conn->checked || memcmp(got->data + conn->checked, sent->data + conn->checked,
                                              got->size - conn->checked) == 0);
    bool whole = conn->request.part == SIM_WHOLE;
    if (!fits || (whole && got->size != sent->size)) {
        sim_fail("request %zu: its body reaches engine %zu altered", request->number,
                 conn->engine->number);
    }
    conn->checked = got->size;
    conn->try->has_body = whole;
}

/* Returns how much is used up; 0: the connection has been closed. */
static size_t take(struct engine_conn *conn, const char *bytes, size_t size)
{
    if (conn->request.part == SIM_WHOLE && conn->try->whole) { /* All but the garbage is out. */
        conn_close(conn, false);
        return 0;
    }
    if (conn->request.part == SIM_WHOLE) {
        sim_fail("engine %zu: gets bytes before its answer is out", conn->engine->number);
    }
    size_t used = sim_message_read(&conn->request, bytes, size);
    if (conn->request.part == SIM_BROKEN) {
        sim_fail("engine %zu: gets no HTTP", conn->engine->number);
    }
    if (!sim_message_has_head(&conn->request)) {
        return used;
    }
    if (conn->try == NULL && !take_head(conn)) {
        return 0;
    }
    check_body(conn);
    if (conn->request.part == SIM_WHOLE) {
        if (conn->try->early && !conn->answering) { /* Has been answered long ago. */
            conn->try = NULL;
            sim_message_reset(&conn->request, false);
        } else if (!conn->answering) {
            begin_answer(conn);
        }
    }
    return used;
}

static void on_bytes(void *user)
{
    struct engine_conn *conn = user;
    struct sim_pipe *pipe = sim_link_to(conn->link, SIM_SCRIPT);
    while (pipe->arrived > 0) {
        char piece[READ_BYTES_MAX];
        struct span arrived = sim_pipe_peek(pipe);
        size_t size = arrived.size < sizeof piece ? arrived.size : sizeof piece;
        memcpy(piece, arrived.data, size);
        sim_pipe_drop(pipe, size);
        for (size_t used = 0; used < size;) {
            size_t more = take(conn, piece + used, size - used);
            if (more == 0) {
                return;
            }
            used += more;
        }
    }
    if (sim_pipe_at_end(pipe)) {
        conn_close(conn, false);
    }
}

static void on_reset(void *user)
{
    conn_close(user, false);
}

static void on_idle(void *user)
{
    struct engine_conn *conn = user;
    conn_close(conn, !conn->engine->sim->profile.calm && sim_chance(10));
}

static const struct sim_script script = {
    .on_bytes = on_bytes, .on_reset = on_reset, .on_room = on_room};

/* ---- Life ---- */

struct sim_link *sim_engine_accept(void *user, const struct net_address *address,
                                   enum net_status *status)
{
    static const enum net_status failures[] = {NET_REFUSED, NET_UNREACHABLE, NET_NO_NAME,
                                               NET_NO_FILES, NET_OK};
    struct sim *sim = user;
    struct sim_engine *engine = &sim->engines[address->port - 9000];
    bool bad = engine->number < sim->profile.bad_engines && sim_chance(50);
    if (bad || engine->down || sim_chance(sim->profile.refuse_percent)) {
        *status = engine->down ? NET_REFUSED : failures[sim_below(bad ? 3 : 5)];
        return NULL;
    }
    struct sim_weather weather = sim_weather_of(sim);
    struct engine_conn *conn = sim_alloc(sizeof *conn);
    conn->engine = engine;
    conn->link = sim_link_new(&sim->links, "engine link", sim->link_count++, &weather);
    conn->link->script = &script;
    conn->link->user = conn;
    sim_message_init(&conn->request, true);
    sim_buf_init(&conn->wire);
    sim_event_init(&conn->send, on_send, conn);
    sim_event_init(&conn->idle, on_idle, conn);
    list_push_back(&engine->conns, &conn->link_conn);
    return conn->link;
}

static void on_restart(void *user)
{
    struct sim_engine *engine = user;
    engine->down = !engine->down;
    sim_trace("engine %zu: %s", engine->number, engine->down ? "dies" : "is back");
    bool reset = sim_chance(50);
    list_foreach_safe (link, &engine->conns) {
        conn_close(LIST_ITEM(link, struct engine_conn, link_conn), reset);
    }
    if (engine->down) {
        sim_event_after(&engine->restart, sim_between(0, 60 * CLOCK_NS_PER_S));
    }
}

void sim_engines_begin(struct sim *sim)
{
    for (size_t i = 0; i < sim->engine_count; i++) {
        struct sim_engine *engine = &sim->engines[i];
        *engine = (struct sim_engine){.sim = sim, .number = i};
        engine->requests_max = sim_chance(30) ? 1 + sim_below(4) : 0;
        engine->tells_max = engine->requests_max > 0 && sim_chance(60);
        engine->idle_ns = (1 + sim_below(8)) * (sim_chance(80) ? 1 : 1000) * CLOCK_NS_PER_S;
        list_init(&engine->conns);
        list_init(&engine->old_conns);
        sim_event_init(&engine->restart, on_restart, engine);
        if (sim_chance(sim->profile.refuse_percent)) {
            sim_event_after(&engine->restart, sim_between(0, 40 * CLOCK_NS_PER_S));
        }
    }
}

void sim_engines_end(struct sim *sim)
{
    for (size_t i = 0; i < sim->engine_count; i++) {
        struct sim_engine *engine = &sim->engines[i];
        sim_event_cancel(&engine->restart);
        list_foreach_safe (open, &engine->conns) {
            conn_over(LIST_ITEM(open, struct engine_conn, link_conn));
        }
        while (!list_empty(&engine->old_conns)) {
            struct engine_conn *conn =
                LIST_ITEM(engine->old_conns.next, struct engine_conn, link_conn);
            list_remove(&conn->link_conn);
            sim_message_fini(&conn->request);
            buf_fini(&conn->wire);
            sim_free(conn, sizeof *conn);
        }
    }
}
