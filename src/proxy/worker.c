/*
 * One loop and what lives on it. Runs on its own thread; the first worker runs on the main thread.
 *
 * Its end: ROUTER_DRAINING -> the listener closes, idle connections close, busy ones close after
 * their answer -> the last one gone stops the loop. ROUTER_ENDING tells what is left,
 * ROUTER_CUTTING cuts it.
 */
#include "base/check.h"
#include "base/clock.h"
#include "proxy/backends.h"
#include "proxy/conn.h"
#include "proxy/engines.h"
#include "proxy/figures_log.h"
#include "proxy/queue.h"
#include "proxy/tls.h"
#include "proxy/upstream.h"

enum { SCRATCH_BYTES_MAX = 4 * NET_READ_BYTES, EVICT_TURNS = 16 };

/* ---- Turns ---- */

static void free_dead(struct worker *worker)
{
    while (!list_empty(&worker->dead)) {
        conn_free(LIST_ITEM(worker->dead.next, struct conn, link));
    }
    while (!list_empty(&worker->dead_upstreams)) {
        upstream_free(LIST_ITEM(worker->dead_upstreams.next, struct upstream, all));
    }
}

static void flush_log(struct worker *worker)
{
    if (worker->log.lines.size > 0) {
        pthread_mutex_lock(&worker->router->log_mutex);
        log_flush(&worker->log);
        pthread_mutex_unlock(&worker->router->log_mutex);
    }
}

/* Inserts evict as they go; this goes on when none come. Asked at each turn, it would cost an event
 * of a stream a twentieth more. */
static bool evict_now_and_then(struct worker *worker)
{
    struct hashtrie *trie = worker->router->trie;
    if (worker->number != 0 || worker->turns_to_evict-- > 0) {
        return false;
    }
    hashtrie_lock(trie);
    bool more = hashtrie_evict_step(trie);
    hashtrie_unlock(trie);
    worker->turns_to_evict = more ? 0 : EVICT_TURNS;
    return more;
}

static bool on_turn(void *user)
{
    struct worker *worker = user;
    free_dead(worker);
    flush_log(worker);
    return evict_now_and_then(worker);
}

/* While it drains, this falls to 0 and stays there: no new requests come. */
static void count_unsettled(struct worker *worker)
{
    size_t count = 0;
    list_foreach_safe (link, &worker->conns) {
        count += conn_is_unsettled(LIST_ITEM(link, struct conn, link));
    }
    atomic_store(&worker->unsettled, count);
}

static void on_sweep(void *user)
{
    struct worker *worker = user;
    uint64_t now_ns = net_now_ns();
    list_foreach_safe (link, &worker->conns) {
        conn_sweep(LIST_ITEM(link, struct conn, link), now_ns);
    }
    upstream_sweep(worker, now_ns);
    worker->turns_to_evict = 0;
    if (worker->drained) {
        count_unsettled(worker);
    }
    atomic_store_explicit(&worker->swept_ns, now_ns, memory_order_relaxed);
    if (worker->number == 0) {
        life_sweep(worker->router, now_ns);
        tls_sweep(worker->router, now_ns);
        backends_sweep(worker->router);
        figures_log_sweep(worker->router, now_ns);
    }
    net_timer_start(worker->sweep, ROUTER_SWEEP_NS);
}

/* ---- Wakes ---- */

static void take_mailbox(struct worker *worker)
{
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&worker->mailbox_mutex);
    while (!list_empty(&worker->mailbox)) {
        struct list *link = worker->mailbox.next;
        list_remove(link);
        list_push_back(&done, link);
    }
    pthread_mutex_unlock(&worker->mailbox_mutex);
    while (!list_empty(&done)) {
        struct reload_wait *wait = LIST_ITEM(done.next, struct reload_wait, link);
        list_remove(&wait->link);
        reload_wait_done(wait);
    }
}

/* Those that may read again; each could bring as much as one read. */
static void resume_paused(struct worker *worker)
{
    struct bodies *bodies = &worker->router->bodies;
    uint64_t promised = 0;
    while (!list_empty(&worker->paused)) {
        struct conn *conn = LIST_ITEM(worker->paused.next, struct conn, pause_link);
        bool first = promised == 0;
        if (!first && atomic_load(&bodies->bytes_used) + promised >= bodies->bytes_soft) {
            atomic_store(&bodies->waiting, true);
            return;
        }
        if (!bodies_may_read(bodies, &conn->request)) {
            return;
        }
        promised += CONN_BODY_READ_BYTES;
        conn_resume(conn);
    }
}

static void drain(struct worker *worker)
{
    worker->drained = true;
    worker_unlisten(worker);
    list_foreach_safe (link, &worker->conns) {
        conn_drain(LIST_ITEM(link, struct conn, link));
    }
    list_foreach_safe (link, &worker->upstreams) {
        struct upstream *upstream = LIST_ITEM(link, struct upstream, all);
        if (upstream->request == NULL) {
            upstream_close(upstream);
        }
    }
}

static void end_all(struct worker *worker)
{
    size_t count = 0;
    worker->ended = true;
    list_foreach_safe (link, &worker->conns) {
        count += conn_end(LIST_ITEM(link, struct conn, link));
    }
    if (count > 0) {
        log_write(&worker->log, LOG_WARNING,
                  "%zu requests still ran after the drain timeout: they are cut off", count);
    }
}

static void cut_all(struct worker *worker)
{
    while (!list_empty(&worker->conns)) {
        conn_abort_cut(LIST_ITEM(worker->conns.next, struct conn, link));
    }
}

void worker_conn_gone(struct worker *worker)
{
    /* The first worker has the signals and the drain timer: it is the last to go. */
    bool wanted = worker->number == 0 && atomic_load(&worker->router->others_running) > 0;
    if (worker->drained && list_empty(&worker->conns) && !wanted) {
        net_loop_stop(worker->loop);
    }
}

static void on_wake(void *user)
{
    struct worker *worker = user;
    settings_follow(worker);
    take_mailbox(worker);
    queue_take_granted(worker);
    resume_paused(worker);
    if (worker->number == 0) {
        engines_take_suspected(worker->router);
    }
    enum router_phase phase = router_phase(worker->router);
    if (phase >= ROUTER_DRAINING && !worker->drained) {
        drain(worker);
    }
    if (phase >= ROUTER_ENDING && !worker->ended) {
        end_all(worker);
    }
    if (phase >= ROUTER_CUTTING) {
        cut_all(worker);
    }
    worker_conn_gone(worker);
}

void router_wake_all(struct router *router)
{
    for (size_t i = 0; i < router->worker_count; i++) {
        if (router->workers[i].wake != NULL) {
            net_wake_send(router->workers[i].wake);
        }
    }
}

/* ---- Life ---- */

static bool init_pools(struct worker *worker)
{
    worker->pools = mem_alloc(&worker->mem, ROUTE_ENDPOINTS_MAX * sizeof *worker->pools);
    worker->pool_sizes =
        mem_alloc_zero(&worker->mem, ROUTE_ENDPOINTS_MAX * sizeof *worker->pool_sizes);
    if (worker->pools == NULL || worker->pool_sizes == NULL) {
        return false;
    }
    for (size_t i = 0; i < ROUTE_ENDPOINTS_MAX; i++) {
        list_init(&worker->pools[i]);
    }
    return true;
}

static bool init_loop(struct worker *worker)
{
    worker->loop = net_loop_new(&worker->mem);
    if (worker->loop == NULL) {
        return false;
    }
    net_loop_on_turn(worker->loop, on_turn, worker);
    worker->wake = net_wake_new(worker->loop, on_wake, worker);
    worker->sweep = net_timer_new(worker->loop, on_sweep, worker);
    if (worker->wake == NULL || worker->sweep == NULL) {
        return false;
    }
    net_timer_start(worker->sweep, ROUTER_SWEEP_NS);
    return true;
}

bool worker_init(struct worker *worker, struct router *router, size_t number)
{
    *worker = (struct worker){.router = router, .number = number};
    atomic_init(&worker->swept_ns, net_now_ns());
    atomic_init(&worker->unsettled, SIZE_MAX);
    mem_init(&worker->mem, SIZE_MAX);
    log_init(&worker->log, router->log->fd, router->log->level, router->log->format);
    buf_init(&worker->scratch, &worker->mem, SCRATCH_BYTES_MAX);
    list_init(&worker->conns);
    list_init(&worker->dead);
    list_init(&worker->paused);
    list_init(&worker->upstreams);
    list_init(&worker->dead_upstreams);
    list_init(&worker->mailbox);
    list_init(&worker->granted);
    pthread_mutex_init(&worker->mailbox_mutex, NULL);
    worker->random_id[0] = random_system_seed();
    worker->random_id[1] = random_system_seed();
    worker->random.state = random_system_seed();
    worker->reader = prompt_reader_new(&worker->mem);
    settings_follow(worker);
    return worker->reader != NULL && stats_init(&worker->stats, &worker->mem) &&
           init_pools(worker) && init_loop(worker);
}

void worker_run(struct worker *worker)
{
    net_loop_run(worker->loop);
    atomic_store_explicit(&worker->swept_ns, UINT64_MAX, memory_order_relaxed);
    atomic_store(&worker->unsettled, 0);
    free_dead(worker);
    flush_log(worker);
    if (worker->number != 0) {
        atomic_fetch_sub(&worker->router->others_running, 1);
        net_wake_send(worker->router->workers[0].wake);
    }
}

/* The store is closed: every reload has been answered. */
void worker_fini(struct worker *worker)
{
    if (worker->loop != NULL) {
        worker_unlisten(worker);
        cut_all(worker);
        while (!list_empty(&worker->upstreams)) {
            upstream_close(LIST_ITEM(worker->upstreams.next, struct upstream, all));
        }
        take_mailbox(worker);
        free_dead(worker);
        net_wake_close(worker->wake);
        net_timer_close(worker->sweep);
        net_loop_free(worker->loop);
    }
    mem_free(&worker->mem, worker->pools, ROUTE_ENDPOINTS_MAX * sizeof *worker->pools);
    mem_free(&worker->mem, worker->pool_sizes, ROUTE_ENDPOINTS_MAX * sizeof *worker->pool_sizes);
    mem_free(&worker->mem, worker->hashes, worker->hash_capacity * sizeof *worker->hashes);
    stats_fini(&worker->stats);
    settings_let_go(worker->settings);
    prompt_reader_free(worker->reader);
    buf_fini(&worker->scratch);
    log_fini(&worker->log);
    pthread_mutex_destroy(&worker->mailbox_mutex);
    mem_fini(&worker->mem);
}
