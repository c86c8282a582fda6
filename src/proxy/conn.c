/*
 * Client connections.
 *
 *     bytes -> [READING: parser] -> request        one at a time
 *           -> [busy: pending]                     pipelined bytes wait, bounded; then reading
 * stops request done -> parser again over pending    in a loop, not by recursion last answer  ->
 * FIN, wait for the client to read it and close (lingering), then close
 *
 * While pipelined bytes beyond the bound wait unread, a client's end behind them cannot be seen.
 *
 * A connection that is closed stays in memory until the end of the loop's turn, so callers up the
 * stack may still look at it.
 */
#include "proxy/conn.h"

#include "base/check.h"
#include "base/clock.h"

static void conn_parse(struct conn *conn, const char *bytes, size_t size);

static bool is_reading(const struct conn *conn)
{
    return conn->request.sm.now == REQUEST_READING;
}

/* ---- Reading ---- */

static void pause_for_memory(struct conn *conn)
{
    if (!conn->paused) {
        conn->paused = true;
        net_stream_read_stop(conn->stream);
        list_push_back(&conn->worker->paused, &conn->pause_link);
    }
}

static void read_on(struct conn *conn)
{
    if (conn->stream != NULL && !conn->peer_ended &&
        net_stream_read_start(conn->stream) != NET_OK) {
        conn_abort(conn);
    }
}

void conn_resume(struct conn *conn)
{
    REQUIRE(conn->paused);
    conn->paused = false;
    conn->active_ns = net_now_ns();
    conn->resumed_ns = conn->active_ns;
    list_remove(&conn->pause_link);
    read_on(conn);
}

/* Bytes that belong to later requests. */
static void keep_pending(struct conn *conn, const char *bytes, size_t size)
{
    if (!buf_append(&conn->pending, bytes, size)) {
        conn_abort(conn); /* No memory; the limit is kept by not reading. */
        return;
    }
    if (conn->pending.size >= CONN_PIPELINE_BYTES_MAX) {
        net_stream_read_stop(conn->stream);
    }
}

static void on_space(void *user, char **space, size_t *size)
{
    struct conn *conn = user;
    if (!conn->lingering && is_reading(conn) && !http_parser_in_head(conn->parser)) {
        request_body_space(&conn->request, space, size);
    }
}

static void on_read(void *user, const char *bytes, size_t size)
{
    struct conn *conn = user;
    conn->active_ns = net_now_ns();
    if (conn->lingering) {
        return; /* Read only so that the client's kernel does not see a reset. */
    }
    if (is_reading(conn)) {
        conn_parse(conn, bytes, size);
    } else {
        keep_pending(conn, bytes, size);
    }
    if (conn->stream != NULL && is_reading(conn) && conn->request.body_begun) {
        request_reserve_body(&conn->request);
        if (!bodies_may_read(&conn->worker->router->bodies, &conn->request)) {
            pause_for_memory(conn);
        }
    }
}

static void on_end(void *user, enum net_status status)
{
    struct conn *conn = user;
    conn->peer_ended = true;
    if (!is_reading(conn)) {
        request_on_client_gone(&conn->request);
        return;
    }
    if (status == NET_EOF && net_stream_queued(conn->stream) > 0) {
        conn_close_softly(conn); /* It still waits for its last answer. */
        return;
    }
    conn_close(conn);
}

static void on_written(void *user, enum net_status status)
{
    struct conn *conn = user;
    conn->active_ns = net_now_ns();
    if (status != NET_OK) {
        conn_abort(conn);
        return;
    }
    size_t queued = net_stream_queued(conn->stream);
    if (conn->lingering) {
        if (conn->peer_ended && queued == 0) {
            conn_close(conn);
        }
        return;
    }
    if (queued < conn->worker->router->config->connection_buffer_bytes / CONN_QUEUE_LOW) {
        request_on_client_ready(&conn->request);
    }
}

static const struct net_stream_events events = {
    .on_space = on_space, .on_read = on_read, .on_end = on_end, .on_written = on_written};

/* ---- Parsing ---- */

static void refuse_message(struct conn *conn)
{
    struct http_error error = http_parser_error(conn->parser);
    enum stats_refusal reason = error.status == 431   ? STATS_HEAD_TOO_LARGE
                                : error.status == 414 ? STATS_URL_TOO_LONG
                                                      : STATS_MALFORMED;
    stats_add(&conn->worker->stats.refusals[reason], 1);
    conn->last = true;
    answer_error(&conn->request, error.status, "Invalid request: %s.", error.text);
    request_tick(&conn->request);
}

/* False: nothing more is parsed now. */
static bool take_event(struct conn *conn, enum http_event event, struct span body)
{
    struct request *request = &conn->request;
    switch (event) {
    case HTTP_GOT_HEAD:
        conn->used = true;
        request_on_head(request, http_parser_head(conn->parser));
        return true;
    case HTTP_GOT_BODY:
        request_on_body(request, body);
        return true;
    case HTTP_GOT_END:
        request_on_body_end(request);
        return true;
    case HTTP_BROKEN:
        refuse_message(conn);
        return false;
    case HTTP_NEED_MORE:
    default:
        return false;
    }
}

static bool may_parse(const struct conn *conn)
{
    return conn->stream != NULL && !conn->lingering && is_reading(conn);
}

/* Requests out of `bytes` until one is busy; the rest goes to `pending`. */
static void conn_parse(struct conn *conn, const char *bytes, size_t size)
{
    REQUIRE(!conn->parsing);
    conn->parsing = true;
    bool more = true;
    while (more && may_parse(conn)) {
        if (size > 0 && conn->head_ns == 0) {
            conn->head_ns = conn->active_ns;
        }
        size_t consumed = 0;
        struct span body = {0};
        enum http_event event = http_parse(conn->parser, bytes, size, &consumed, &body);
        CHECK(consumed <= size);
        bytes += consumed;
        size -= consumed;
        more = take_event(conn, event, body);
    }
    conn->parsing = false;
    if (conn->stream != NULL && !conn->lingering && size > 0) {
        keep_pending(conn, bytes, size);
    }
}

/* What came while the last request was busy. */
static void parse_pending(struct conn *conn)
{
    struct buf pending = conn->pending;
    buf_init(&conn->pending, pending.mem, pending.size_max);
    conn_parse(conn, pending.data, pending.size);
    buf_fini(&pending);
    if (conn->stream != NULL && !conn->lingering && !conn->paused &&
        conn->pending.size < CONN_PIPELINE_BYTES_MAX) {
        read_on(conn);
    }
}

/* ---- For the request ---- */

bool conn_write(struct conn *conn, const struct span *parts, size_t part_count)
{
    if (conn->stream == NULL) {
        return false;
    }
    conn->active_ns = net_now_ns();
    return net_stream_write(conn->stream, parts, part_count, NET_COPY) == NET_OK;
}

bool conn_is_full(const struct conn *conn)
{
    return conn->stream != NULL &&
           net_stream_queued(conn->stream) > conn->worker->router->config->connection_buffer_bytes;
}

bool conn_keeps_alive(struct conn *conn)
{
    conn->last = conn->last || !http_parser_head(conn->parser)->keep_alive ||
                 router_phase(conn->worker->router) != ROUTER_SERVING;
    return !conn->last;
}

void conn_request_done(struct conn *conn)
{
    if (conn->stream == NULL) {
        return;
    }
    if (conn->last || router_phase(conn->worker->router) >= ROUTER_DRAINING) {
        conn_close_softly(conn);
        return;
    }
    http_parser_reset(conn->parser, false);
    conn->head_ns = 0;
    if (!conn->parsing && conn->pending.size > 0) {
        parse_pending(conn);
    }
}

/* ---- Life ---- */

static bool enter(struct worker *worker, uint64_t address)
{
    struct doors *doors = &worker->router->doors;
    enum doors_verdict verdict = doors_enter(doors, address);
    if (verdict == DOORS_OPEN) {
        return true;
    }
    bool all = verdict == DOORS_FULL;
    stats_add(all ? &worker->stats.connections_refused : &worker->stats.address_connections_refused,
              1);
    if (doors_tell(&doors->refused_told_ns, net_now_ns())) {
        log_write(&worker->log, LOG_WARNING,
                  "Connections are closed at once: %s has as many as %s allows (%llu)",
                  all ? "the router" : "an address",
                  all ? "--max-connections" : "--max-connections-per-address",
                  (unsigned long long)(all ? doors->connections_max : doors->address_max));
    }
    return false;
}

static struct http_limits limits_of(const struct config *config)
{
    return (struct http_limits){.head_bytes_max = (size_t)config->header_bytes_max,
                                .header_count_max = config->header_count_max,
                                .target_bytes_max = (size_t)config->target_bytes_max};
}

static void begin(struct worker *worker, struct net_stream *stream, bool admin)
{
    const struct config *config = worker->router->config;
    uint64_t address = config->address_connections_max > 0 ? net_stream_peer_key(stream) : 0;
    if (!admin && !enter(worker, address)) {
        net_stream_close(stream);
        return;
    }
    struct conn *conn = mem_alloc(&worker->mem, sizeof *conn);
    if (conn == NULL) {
        goto fail;
    }
    *conn = (struct conn){.worker = worker,
                          .stream = stream,
                          .admin = admin,
                          .address = address,
                          .active_ns = net_now_ns(),
                          .head_ns = net_now_ns()};
    list_init(&conn->link);
    list_init(&conn->pause_link);
    buf_init(&conn->pending, &worker->mem, CONN_PIPELINE_BYTES_MAX + NET_READ_BYTES);
    conn->parser = http_parser_new(&worker->mem, HTTP_REQUESTS, limits_of(config));
    if (conn->parser == NULL) {
        goto fail_memory;
    }
    if (!request_init(&conn->request, conn, worker)) {
        goto fail_parser;
    }
    net_stream_set_events(stream, &events, conn);
    if (net_stream_read_start(stream) != NET_OK) {
        goto fail_request;
    }
    stats_add(&worker->stats.connections, 1);
    list_push_back(&worker->conns, &conn->link);
    return;

fail_request:
    request_fini(&conn->request);
fail_parser:
    http_parser_free(conn->parser);
fail_memory:
    mem_free(&worker->mem, conn, sizeof *conn);
fail:
    if (!admin) {
        doors_leave(&worker->router->doors, address);
    }
    net_stream_close(stream);
}

void conn_accept(void *user, struct net_stream *stream)
{
    begin(user, stream, false);
}

void conn_accept_admin(void *user, struct net_stream *stream)
{
    begin(user, stream, true);
}

static void leave(struct conn *conn)
{
    conn->stream = NULL;
    if (!conn->admin) {
        doors_leave(&conn->worker->router->doors, conn->address);
    }
    list_remove(&conn->pause_link);
    list_remove(&conn->link);
    list_push_back(&conn->worker->dead, &conn->link);
    worker_conn_gone(conn->worker);
}

void conn_cut(struct conn *conn)
{
    if (conn->stream != NULL) {
        net_stream_reset(conn->stream);
        leave(conn);
    }
}

void conn_close(struct conn *conn)
{
    if (conn->stuck) {
        conn_cut(conn);
    } else if (conn->stream != NULL) {
        REQUIRE(is_reading(conn));
        net_stream_close(conn->stream);
        leave(conn);
    }
}

void conn_abort(struct conn *conn)
{
    if (!is_reading(conn)) {
        request_on_client_gone(&conn->request); /* Closes, once the request has let go. */
    }
    conn_close(conn);
}

void conn_abort_cut(struct conn *conn)
{
    conn->stuck = conn->stuck || !is_reading(conn) || net_stream_queued(conn->stream) > 0;
    conn_abort(conn);
}

void conn_close_softly(struct conn *conn)
{
    if (conn->stream == NULL || conn->lingering) {
        return;
    }
    conn->lingering = true;
    conn->active_ns = net_now_ns();
    buf_fini(&conn->pending);
    if (conn->peer_ended && net_stream_queued(conn->stream) == 0) {
        conn_close(conn);
        return;
    }
    if (net_stream_shutdown(conn->stream) != NET_OK) {
        conn_abort_cut(conn); /* A FIN now would lose what is queued, and look like its end. */
        return;
    }
    read_on(conn); /* To see the client's end; bytes are dropped. */
}

static bool is_idle(const struct conn *conn)
{
    return is_reading(conn) && !conn->lingering && http_parser_idle(conn->parser) &&
           conn->pending.size == 0 && net_stream_queued(conn->stream) == 0;
}

/* On a connection that is new, the first request is on its way. */
void conn_drain(struct conn *conn)
{
    if (is_idle(conn) && conn->used && !net_stream_is_stale(conn->stream)) {
        conn_close(conn);
    }
}

bool conn_is_unsettled(const struct conn *conn)
{
    return !conn->lingering && conn->request.sm.now != REQUEST_RELAYING;
}

bool conn_end(struct conn *conn)
{
    bool begun = !is_reading(conn) || (!conn->lingering && !http_parser_in_head(conn->parser));
    if (begun) {
        request_cut_short(&conn->request);
    } else {
        conn_close_softly(conn);
    }
    return begun;
}

void conn_free(struct conn *conn)
{
    REQUIRE(conn->stream == NULL && is_reading(conn));
    list_remove(&conn->link);
    request_fini(&conn->request);
    http_parser_free(conn->parser);
    buf_fini(&conn->pending);
    mem_free(&conn->worker->mem, conn, sizeof *conn);
}

/* A client that reads slowly is not stuck: the socket tells, long before it can be written to
 * again. */
static void note_progress(struct conn *conn, uint64_t now_ns)
{
    size_t unread = net_stream_unread(conn->stream);
    if (unread < conn->unread) {
        conn->active_ns = now_ns;
    }
    conn->unread = unread;
}

/* The answer that is queued will not be read: it must not look whole. */
static void give_up(struct conn *conn, uint64_t quiet_ns)
{
    log_write(&conn->worker->log, LOG_WARNING,
              "A client has read nothing of its answer for %.1f s: cut off",
              (double)quiet_ns / (double)CLOCK_NS_PER_S);
    stats_add(&conn->worker->stats.stalled_clients, 1);
    conn->stuck = true;
    conn_abort(conn);
}

static bool is_stuck(const struct conn *conn, uint64_t quiet_ns)
{
    return quiet_ns > conn->worker->router->config->client_stall_timeout_ns;
}

/* A client is told that what it sends came too slowly, and its connection closed. Without a body:
 * a HEAD is not known yet as one. */
static void refuse_slow(struct conn *conn, enum stats_refusal reason)
{
    stats_add(&conn->worker->stats.refusals[reason], 1);
    conn->last = true;
    answer_text(&conn->request, 408, "text/plain", (struct span){0});
    request_tick(&conn->request);
}

/* In time, the whole head, from its first byte; a connection's first also from its start. */
static bool head_is_slow(const struct conn *conn, uint64_t now_ns)
{
    uint64_t limit_ns = conn->worker->router->config->header_timeout_ns;
    return limit_ns > 0 && conn->head_ns > 0 && now_ns > conn->head_ns + limit_ns;
}

/* A body pauses, or has come too slowly on the whole; the time that the router itself did not read
 * does not count. */
static bool body_is_slow(const struct conn *conn, uint64_t now_ns, uint64_t quiet_ns)
{
    const struct config *config = conn->worker->router->config;
    uint64_t begin_ns = conn->request.begin_ns;
    begin_ns = begin_ns > conn->resumed_ns ? begin_ns : conn->resumed_ns;
    if (config->body_timeout_ns > 0 && quiet_ns > config->body_timeout_ns) {
        return true;
    }
    if (config->body_rate_min == 0 || now_ns < begin_ns + config->body_timeout_ns) {
        return false;
    }
    uint64_t counted_ns = now_ns - begin_ns - config->body_timeout_ns;
    return (double)conn->request.body.size <
           (double)config->body_rate_min * (double)counted_ns / (double)CLOCK_NS_PER_S;
}

static void sweep_head(struct conn *conn, uint64_t now_ns, uint64_t quiet_ns)
{
    const struct router *router = conn->worker->router;
    bool draining = router_phase(router) >= ROUTER_DRAINING && quiet_ns > ROUTER_LINGER_NS;
    bool idle = is_idle(conn);
    bool over = quiet_ns > router->config->client_idle_timeout_ns || head_is_slow(conn, now_ns);
    if (draining || (idle && over)) {
        conn_close(conn); /* It has not asked for anything. */
    } else if (!idle && head_is_slow(conn, now_ns)) {
        refuse_slow(conn, STATS_SLOW_HEAD);
    }
}

/* Others wait for the memory that this request's body holds up: a body has to come within a time
 * then, less what it was kept waiting itself. */
static bool holds_up_others(const struct conn *conn, uint64_t now_ns)
{
    uint64_t begin_ns = conn->request.begin_ns;
    begin_ns = begin_ns > conn->resumed_ns ? begin_ns : conn->resumed_ns;
    return conn->request.body_begun && now_ns > begin_ns + ROUTER_FINISH_NS &&
           bodies_is_awaited(&conn->worker->router->bodies, &conn->request);
}

static void sweep_reading(struct conn *conn, uint64_t now_ns, uint64_t quiet_ns)
{
    if (conn->paused) {
        if (net_stream_peer_is_gone(conn->stream)) {
            conn_close(conn);
        }
    } else if (net_stream_queued(conn->stream) > 0) {
        if (is_stuck(conn, quiet_ns)) {
            give_up(conn, quiet_ns);
        }
    } else if (http_parser_in_head(conn->parser)) {
        sweep_head(conn, now_ns, quiet_ns);
    } else if (body_is_slow(conn, now_ns, quiet_ns) || holds_up_others(conn, now_ns)) {
        refuse_slow(conn, STATS_SLOW_BODY);
    }
}

void conn_sweep(struct conn *conn, uint64_t now_ns)
{
    if (conn->stream == NULL || conn->active_ns > now_ns) {
        return;
    }
    bool queued = net_stream_queued(conn->stream) > 0;
    if (queued) {
        note_progress(conn, now_ns);
    }
    uint64_t quiet_ns = now_ns - conn->active_ns;
    if (conn->lingering) {
        if (queued && is_stuck(conn, quiet_ns)) {
            give_up(conn, quiet_ns);
        } else if (!queued && quiet_ns > ROUTER_LINGER_NS) {
            conn_close(conn);
        }
        return;
    }
    if (is_reading(conn)) {
        sweep_reading(conn, now_ns, quiet_ns);
        return;
    }
    if (queued && is_stuck(conn, quiet_ns)) {
        give_up(conn, quiet_ns); /* And its engine goes free. */
        return;
    }
    /* Reading has stopped: its end would not be seen otherwise. */
    if (conn->pending.size >= CONN_PIPELINE_BYTES_MAX && net_stream_peer_is_gone(conn->stream)) {
        conn_abort(conn);
        return;
    }
    request_sweep(&conn->request, now_ns);
}
