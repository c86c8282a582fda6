#include "proxy/upstream.h"

#include "base/check.h"
#include "base/clock.h"

static void on_read(void *user, const char *bytes, size_t size)
{
    struct upstream *upstream = user;
    if (upstream->request == NULL) {
        upstream_close(upstream); /* Nobody asked. */
        return;
    }
    upstream->got_bytes = true;
    request_on_engine_bytes(upstream->request, bytes, size);
}

static void on_end(void *user, enum net_status status)
{
    struct upstream *upstream = user;
    upstream->ended = true;
    if (upstream->request == NULL) {
        upstream_close(upstream);
        return;
    }
    request_on_engine_end(upstream->request, status);
}

static void on_written(void *user, enum net_status status)
{
    struct upstream *upstream = user;
    if (upstream->request != NULL) {
        request_on_engine_written(upstream->request, status);
    }
}

static const struct net_stream_events events = {
    .on_read = on_read, .on_end = on_end, .on_written = on_written};

static void on_connected(void *user, enum net_status status)
{
    struct upstream *upstream = user;
    struct request *request = upstream->request;
    REQUIRE(request != NULL);
    if (status == NET_OK) {
        upstream->connected = true;
        net_stream_set_events(upstream->stream, &events, upstream);
        status = net_stream_read_start(upstream->stream);
    }
    request_on_connected(request, status);
}

static struct upstream *take_idle(struct request *request, size_t endpoint)
{
    struct worker *worker = request->worker;
    struct list *pool = &worker->pools[endpoint];
    while (!list_empty(pool)) {
        struct upstream *upstream = LIST_ITEM(pool->prev, struct upstream, idle);
        if (net_now_ns() - upstream->idle_since_ns >= upstream->idle_limit_ns ||
            net_stream_is_stale(upstream->stream)) {
            upstream_close(upstream);
            continue;
        }
        list_remove(&upstream->idle);
        worker->pool_sizes[endpoint]--;
        upstream->request = request;
        upstream->reused = true;
        upstream->served++;
        upstream->got_bytes = false;
        upstream->untaken = SIZE_MAX;
        upstream->paused = false;
        http_parser_reset(upstream->parser, request->to_head);
        return upstream;
    }
    return NULL;
}

static struct upstream *upstream_new(struct request *request, size_t endpoint)
{
    struct worker *worker = request->worker;
    struct upstream *upstream = mem_alloc(&worker->mem, sizeof *upstream);
    if (upstream == NULL) {
        return NULL;
    }
    *upstream = (struct upstream){.worker = worker,
                                  .endpoint = endpoint,
                                  .backend = worker->router->backends[endpoint],
                                  .request = request,
                                  .made_ns = net_now_ns(),
                                  .idle_limit_ns = worker->router->config->upstream_idle_timeout_ns,
                                  .untaken = SIZE_MAX,
                                  .served = 1,
                                  .served_max = UINT32_MAX};
    list_init(&upstream->idle);
    upstream->parser = http_parser_new(&worker->mem, HTTP_RESPONSES, http_limits_default());
    if (upstream->parser == NULL) {
        goto fail_memory;
    }
    upstream->stream =
        net_connect(worker->loop, &upstream->backend->address, on_connected, upstream);
    if (upstream->stream == NULL) {
        goto fail_parser;
    }
    backend_hold(upstream->backend);
    http_parser_reset(upstream->parser, request->to_head);
    list_push_back(&worker->upstreams, &upstream->all);
    return upstream;

fail_parser:
    http_parser_free(upstream->parser);
fail_memory:
    mem_free(&worker->mem, upstream, sizeof *upstream);
    return NULL;
}

struct upstream *upstream_acquire(struct request *request, size_t endpoint, bool fresh)
{
    struct upstream *upstream = fresh ? NULL : take_idle(request, endpoint);
    return upstream != NULL ? upstream : upstream_new(request, endpoint);
}

void upstream_note_keep_alive(struct upstream *upstream, const struct http_head *head)
{
    struct http_keep_alive said = http_keep_alive_of(head);
    if (said.timeout_s != HTTP_NOT_SAID) {
        /* A fifth less, for the way there. */
        uint64_t limit_ns = said.timeout_s * CLOCK_NS_PER_S / 5 * 4;
        uint64_t own_ns = upstream->worker->router->config->upstream_idle_timeout_ns;
        upstream->idle_limit_ns = limit_ns < own_ns ? limit_ns : own_ns;
    }
    if (said.max != HTTP_NOT_SAID) {
        upstream->served_max = said.max;
    }
}

void upstream_release(struct upstream *upstream, bool reusable)
{
    struct worker *worker = upstream->worker;
    size_t *pool_size = &worker->pool_sizes[upstream->endpoint];
    uint64_t now_ns = net_now_ns();
    upstream->request = NULL;
    if (!reusable || now_ns - upstream->made_ns >= ROUTER_POOL_AGE_NS ||
        atomic_load(&upstream->backend->gone) || upstream->ended || !upstream->connected ||
        worker->drained || *pool_size >= ROUTER_POOL_IDLE_MAX ||
        net_stream_queued(upstream->stream) > 0 || upstream->idle_limit_ns == 0 ||
        upstream->served >= upstream->served_max ||
        net_stream_read_start(upstream->stream) != NET_OK) {
        upstream_close(upstream);
        return;
    }
    upstream->idle_since_ns = now_ns;
    list_push_back(&worker->pools[upstream->endpoint], &upstream->idle);
    (*pool_size)++;
}

void upstream_close(struct upstream *upstream)
{
    struct worker *worker = upstream->worker;
    REQUIRE(upstream->stream != NULL);
    net_stream_close(upstream->stream);
    upstream->stream = NULL;
    upstream->request = NULL;
    if (!list_empty(&upstream->idle)) {
        list_remove(&upstream->idle);
        worker->pool_sizes[upstream->endpoint]--;
    }
    list_remove(&upstream->all);
    list_push_back(&worker->dead_upstreams, &upstream->all);
}

void upstream_free(struct upstream *upstream)
{
    REQUIRE(upstream->stream == NULL);
    list_remove(&upstream->all);
    http_parser_free(upstream->parser);
    backend_let_go(upstream->backend);
    mem_free(&upstream->worker->mem, upstream, sizeof *upstream);
}

void upstream_sweep(struct worker *worker, uint64_t now_ns)
{
    size_t count = atomic_load_explicit(&worker->router->slot_count, memory_order_relaxed);
    for (size_t i = 0; i < count; i++) {
        while (!list_empty(&worker->pools[i])) {
            struct upstream *oldest = LIST_ITEM(worker->pools[i].next, struct upstream, idle);
            if (now_ns - oldest->idle_since_ns < oldest->idle_limit_ns &&
                !atomic_load(&oldest->backend->gone)) {
                break; /* One behind it with a shorter limit has to wait; it is not used. */
            }
            upstream_close(oldest);
        }
    }
}

bool upstream_is_stuck(struct upstream *upstream, uint64_t now_ns)
{
    uint64_t limit_ns = upstream->worker->router->config->send_timeout_ns;
    if (limit_ns == 0 || net_stream_queued(upstream->stream) == 0) {
        return false;
    }
    size_t untaken = net_stream_unread(upstream->stream);
    if (untaken != upstream->untaken) {
        upstream->untaken = untaken;
        upstream->taken_ns = now_ns;
    }
    return now_ns - upstream->taken_ns > limit_ns;
}

void upstream_pause(struct upstream *upstream)
{
    upstream->paused = true;
    net_stream_read_stop(upstream->stream);
}

void upstream_resume(struct upstream *upstream)
{
    upstream->paused = false;
    if (!upstream->ended) {
        (void)net_stream_read_start(upstream->stream); /* Has worked on this stream before. */
    }
}
