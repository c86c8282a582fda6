/* What must hold in the router itself, after each turn of its loop, and when all is quiet. */
#include "hashtrie/trie.h"

#include "base/check.h"
#include "proxy/conn.h"
#include "proxy/upstream.h"
#include "sim/scripts.h"

enum {
    QUEUE_BYTES_MORE = 6 * NET_READ_BYTES, /* Some reads, in one turn. */
    PENDING_BYTES_MAX = CONN_PIPELINE_BYTES_MAX + NET_READ_BYTES,
};

/* ---- Around one read ---- */

/* The request whose answer these bytes are and which is relayed already, or NULL. */
static struct request *relayed_request(const struct net_stream *stream, void *stream_user)
{
    const struct sim_link *link = sim_stream_link(stream);
    if (strcmp(link->kind, "client") == 0) {
        return NULL;
    }
    const struct upstream *upstream = stream_user;
    struct request *request = upstream->request;
    return request != NULL && request->sm.now == REQUEST_RELAYING ? request : NULL;
}

static uint64_t written_to(const struct net_stream *stream)
{
    struct sim_link *link = sim_stream_link(stream);
    return sim_link_to(link, SIM_SCRIPT)->sent + net_stream_queued(stream);
}

void sim_check_before_read(void *user, struct net_stream *stream, void *stream_user)
{
    struct sim *sim = user;
    struct request *request = relayed_request(stream, stream_user);
    sim->relaying = request == NULL || request->framing == REQUEST_NO_BODY ? NULL : request->conn;
    if (sim->relaying != NULL) {
        sim->relayed_to = sim_stream_link(request->conn->stream);
        sim->exact = request->framing == REQUEST_RAW;
        sim->written_before = written_to(request->conn->stream);
    }
}

/* What came for the client has left in the same callback. */
void sim_check_after_read(void *user, struct net_stream *stream, size_t size)
{
    struct sim *sim = user;
    const struct conn *conn = sim->relaying;
    if (conn == NULL || conn->stream == NULL || conn->request.sm.now != REQUEST_RELAYING) {
        return; /* It has ended: books.c compares it all. */
    }
    uint64_t written = written_to(conn->stream) - sim->written_before;
    if (sim->exact && written != size) {
        sim_fail("%zu bytes came from %s %zu, %llu left for client %zu", size,
                 sim_stream_link(stream)->kind, sim_stream_link(stream)->number,
                 (unsigned long long)written, sim->relayed_to->number);
    }
}

/* ---- After each turn ---- */

static void check_timer(const struct request *request)
{
    const struct config *config = request->worker->router->config;
    bool running = sim_timer_is_running(request->timer);
    bool wanted = false;
    switch ((enum request_state)request->sm.now) {
    case REQUEST_CONNECTING:
    case REQUEST_BACKING_OFF:
    case REQUEST_RELOADING:
        wanted = true;
        break;
    case REQUEST_QUEUED:
        wanted = !request->queue_over; /* Else its place is on its way. */
        break;
    case REQUEST_WAITING:
        wanted = config->first_byte_timeout_ns > 0;
        break;
    case REQUEST_RELAYING:
        wanted = config->idle_timeout_ns > 0;
        break;
    case REQUEST_READING:
        break;
    case REQUEST_ROUTING:
    case REQUEST_SNAPSHOTTING:
    case REQUEST_DONE:
    case REQUEST_STATE_COUNT:
    default:
        sim_fail("a request rests in state %u", request->sm.now);
    }
    if (running != wanted) {
        sim_fail("request %s in state %u: its timer %s", request->log_id, request->sm.now,
                 running ? "still runs" : "does not run");
    }
    if (sim_timer_is_running(request->prefill) && !request->charged) {
        sim_fail("request %s: its prefill timer runs, though it is at no engine", request->log_id);
    }
}

static void check_upstream_of(const struct conn *conn)
{
    const struct request *request = &conn->request;
    bool wanted = request->sm.now == REQUEST_CONNECTING || request->sm.now == REQUEST_WAITING ||
                  request->sm.now == REQUEST_RELAYING;
    if ((request->upstream != NULL) != wanted) {
        sim_fail("request %s in state %u has %s connection to an engine", request->log_id,
                 request->sm.now, wanted ? "no" : "a");
    }
    if (request->charged != wanted) {
        sim_fail("request %s in state %u is %s as in flight", request->log_id, request->sm.now,
                 wanted ? "not counted" : "counted");
    }
    if (wanted && (request->upstream->request != request || request->upstream->stream == NULL)) {
        sim_fail("request %s and its connection to an engine do not belong together",
                 request->log_id);
    }
    if (wanted && request->upstream->paused && net_stream_queued(conn->stream) == 0) {
        sim_fail("request %s: its engine is not read, though its client has taken everything",
                 request->log_id);
    }
}

static void check_conn(const struct conn *conn)
{
    const struct sim_link *link = sim_stream_link(conn->stream);
    if (conn->stream == NULL) {
        sim_fail("a closed connection is among the open ones");
    }
    if (sim_stream_is_over(conn->stream) && conn->request.sm.now != REQUEST_READING) {
        sim_fail("client %zu has gone, its request %s goes on in state %u", link->number,
                 conn->request.log_id, conn->request.sm.now);
    }
    size_t queued = net_stream_queued(conn->stream);
    uint64_t queued_max = conn->worker->router->config->connection_buffer_bytes + QUEUE_BYTES_MORE;
    if (queued > queued_max) {
        sim_fail("client %zu: %zu bytes wait for it", link->number, queued);
    }
    if (conn->pending.size > PENDING_BYTES_MAX) {
        sim_fail("client %zu: %zu bytes of later requests are kept", link->number,
                 conn->pending.size);
    }
    if (conn->request.body_charged != conn->request.body.size + conn->request.body_reserved ||
        (conn->request.body_reserved > 0 && conn->request.sm.now != REQUEST_READING)) {
        sim_fail("client %zu: %llu bytes are charged for its body of %zu, %llu reserved",
                 link->number, (unsigned long long)conn->request.body_charged,
                 conn->request.body.size, (unsigned long long)conn->request.body_reserved);
    }
    check_timer(&conn->request);
    check_upstream_of(conn);
}

static void check_pools(const struct worker *worker)
{
    for (size_t i = 0; i < worker->router->slot_count; i++) {
        size_t count = 0;
        list_foreach (link, &worker->pools[i]) {
            const struct upstream *upstream = LIST_ITEM(link, struct upstream, idle);
            struct sim_link *to = sim_stream_link(upstream->stream);
            if (sim_link_to(to, SIM_ROUTER)->read > to->garbage_from) {
                sim_fail("engine link %zu: kept, though the engine said more", to->number);
            }
            count++;
            if (upstream->request != NULL || upstream->stream == NULL || upstream->ended ||
                !upstream->connected || upstream->endpoint != i) {
                sim_fail("an idle connection to engine %zu is in use or gone", i);
            }
        }
        if (count != worker->pool_sizes[i]) {
            sim_fail("engine %zu: %zu idle connections are counted, %zu are there", i,
                     worker->pool_sizes[i], count);
        }
    }
}

/* Connections that are closed keep their bodies until the next turn. */
static uint64_t body_bytes_of(const struct list *conns)
{
    uint64_t bytes = 0;
    list_foreach (link, conns) {
        bytes += LIST_ITEM(link, struct conn, link)->request.body_charged;
    }
    return bytes;
}

/* Nobody waits while an engine has a place, save for one that has tried it. */
static void check_place(const struct router *router, const struct request *request)
{
    uint32_t max = router->config->backend_requests_max;
    if (!request->ticket.waiting || request->ticket.tried_before ||
        !admit_has_room(&router->admit)) {
        return;
    }
    for (size_t i = 0; i < router->slot_count; i++) {
        if (route_serves(router->fleet, i, request->model) &&
            route_endpoint_is_up(router->fleet, i) &&
            !route_endpoint_is_ejected(router->fleet, i) &&
            (max == 0 || route_endpoint_load(router->fleet, i).in_flight < max)) {
            sim_fail("request %s waits, though engine %zu has a place", request->log_id, i);
        }
    }
}

/* A backend is held by its connections and by the requests that were sent to it, until they end. */
static void check_holds(const struct router *router)
{
    unsigned held[SIM_ENGINES_MAX] = {0};
    const struct worker *worker = &router->workers[0];
    list_foreach (link, &worker->upstreams) {
        held[LIST_ITEM(link, struct upstream, all)->endpoint]++;
    }
    list_foreach (link, &worker->dead_upstreams) {
        held[LIST_ITEM(link, struct upstream, all)->endpoint]++;
    }
    list_foreach (link, &worker->conns) {
        const struct request *request = &LIST_ITEM(link, struct conn, link)->request;
        held[request->choice.endpoint] += request->holds_choice ? 1 : 0;
        for (size_t i = 0; i < request->excluded_count; i++) {
            held[request->excluded[i]]++;
        }
    }
    for (size_t i = 0; i < router->slot_count; i++) {
        const struct backend *backend = router->backends[i];
        unsigned counted = backend == NULL ? 0 : atomic_load(&backend->hold_count);
        if (counted != held[i]) {
            sim_fail("engine %zu is held %u times, counted are %u", i, held[i], counted);
        }
    }
}

static void check_limits(const struct router *router, uint64_t running, uint64_t waiting)
{
    const struct config *config = router->config;
    if (router->admit.running != running || router->admit.waiting != waiting) {
        sim_fail("%llu requests run and %llu wait, counted are %llu and %llu",
                 (unsigned long long)running, (unsigned long long)waiting,
                 (unsigned long long)router->admit.running,
                 (unsigned long long)router->admit.waiting);
    }
    if (running > router->admit.limits.running_max || waiting > config->queued_max) {
        sim_fail("%llu requests run and %llu wait, more than may", (unsigned long long)running,
                 (unsigned long long)waiting);
    }
    for (size_t i = 0; i < router->slot_count; i++) {
        uint32_t in_flight = route_endpoint_load(router->fleet, i).in_flight;
        if (config->backend_requests_max > 0 && in_flight > config->backend_requests_max) {
            sim_fail("engine %zu has %u requests, at most %u may be there", i, in_flight,
                     config->backend_requests_max);
        }
    }
}

static void check_load(struct router *router)
{
    uint64_t running = 0;
    uint64_t waiting = 0;
    uint32_t in_flight[SIM_ENGINES_MAX] = {0};
    uint64_t queued[SIM_ENGINES_MAX] = {0};
    const struct worker *worker = &router->workers[0];
    uint64_t body_bytes = body_bytes_of(&worker->conns) + body_bytes_of(&worker->dead);
    list_foreach (link, &worker->conns) {
        const struct request *request = &LIST_ITEM(link, struct conn, link)->request;
        bool granted = request->queued && !request->ticket.waiting; /* Its mail is on its way. */
        check_place(router, request);
        running += request->charged || granted;
        waiting += request->queued && !granted;
        if (request->charged || granted) {
            in_flight[request->choice.endpoint]++;
            queued[request->choice.endpoint] +=
                request->charged && request->prefilled ? 0 : request->choice.uncached_bytes;
        }
    }
    for (size_t i = 0; i < router->slot_count; i++) {
        struct route_load load = route_endpoint_load(router->fleet, i);
        if (load.in_flight != in_flight[i] || load.queued_bytes != queued[i]) {
            sim_fail("engine %zu: %u in flight and %llu bytes queued, should be %u and %llu", i,
                     load.in_flight, (unsigned long long)load.queued_bytes, in_flight[i],
                     (unsigned long long)queued[i]);
        }
    }
    check_limits(router, running, waiting);
    check_holds(router);
    uint64_t charged = atomic_load(&router->bodies.bytes_used);
    if (charged != body_bytes) {
        sim_fail("%llu bytes of bodies are charged, %llu are there", (unsigned long long)charged,
                 (unsigned long long)body_bytes);
    }
}

void sim_check_turn(void *user)
{
    const struct sim *sim = user;
    struct router *router = sim->router;
    if (router == NULL) {
        return; /* It is being made. */
    }
    struct worker *worker = &router->workers[0];
    list_foreach (link, &worker->conns) {
        check_conn(LIST_ITEM(link, struct conn, link));
    }
    list_foreach (link, &worker->upstreams) {
        const struct upstream *upstream = LIST_ITEM(link, struct upstream, all);
        if (upstream->request == NULL && list_empty(&upstream->idle)) {
            sim_fail("a connection to engine %zu is nobody's", upstream->endpoint);
        }
        if (upstream->request != NULL && upstream->request->upstream != upstream) {
            sim_fail("a connection to engine %zu has lost its request", upstream->endpoint);
        }
    }
    check_pools(worker);
    check_load(router);
}

/* ---- When all is quiet ---- */

void sim_check_quiet(struct sim *sim)
{
    struct router *router = sim->router;
    struct worker *worker = &router->workers[0];
    sim_check_turn(sim);
    if (!list_empty(&worker->conns)) {
        const struct conn *conn = LIST_ITEM(worker->conns.next, struct conn, link);
        sim_fail("client %zu has long gone, its connection is still there (state %u%s)",
                 sim_stream_link(conn->stream)->number, conn->request.sm.now,
                 conn->lingering ? ", lingering" : "");
    }
    if (!list_empty(&worker->upstreams) || sim_loop_streams(worker->loop) > 0) {
        sim_fail("%zu connections are still there", sim_loop_streams(worker->loop));
    }
    if (sim_loop_timers_running(worker->loop) > 1) { /* The sweep's. */
        sim_fail("%zu timers still run", sim_loop_timers_running(worker->loop));
    }
    if (!list_empty(&worker->dead) || !list_empty(&worker->dead_upstreams)) {
        sim_fail("closed connections are not freed");
    }
    if (atomic_load(&router->bodies.finisher) != NULL || !list_empty(&worker->paused)) {
        sim_fail("somebody still reads a body, or waits to");
    }
    if (router->gone_count > 0) {
        sim_fail("%zu engines have gone and are still there", router->gone_count);
    }
    const char *breach = NULL;
    if (hashtrie_check(router->trie, &breach) != HASHTRIE_OK) {
        sim_fail("the trie: %s", breach);
    }
}
