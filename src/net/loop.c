/* Loops, wakes, timers, signals. Every handle is one allocation, freed in its close callback. */
#include "base/check.h"
#include "base/clock.h"
#include "net/internal.h"

uint64_t net_now_ns(void)
{
    return clock_monotonic_ns();
}

uint64_t net_unix_ns(void)
{
    return clock_unix_ns();
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* Its being active is all that matters. */
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct net_loop *loop = prepare->data;
    tls_read_ready(loop);
    bool more = loop->on_turn != NULL && loop->on_turn(loop->user);
    if (more || !list_empty(&loop->ready)) {
        (void)uv_idle_start(&loop->idle, on_idle); /* Cannot fail with a callback given. */
    } else {
        (void)uv_idle_stop(&loop->idle); /* Never fails. */
    }
}

struct net_loop *net_loop_new(struct mem *mem)
{
    struct net_loop *loop = mem_alloc(mem, sizeof *loop);
    if (loop == NULL) {
        return NULL;
    }
    loop->mem = mem;
    loop->on_turn = NULL;
    loop->user = NULL;
    loop->streams_open = 0;
    if (uv_loop_init(&loop->uv) != 0) {
        mem_free(mem, loop, sizeof *loop);
        return NULL;
    }
    tls_loop_init(loop);
    (void)uv_prepare_init(&loop->uv, &loop->prepare); /* These four never fail. */
    (void)uv_idle_init(&loop->uv, &loop->idle);
    loop->prepare.data = loop;
    (void)uv_prepare_start(&loop->prepare, on_prepare);
    uv_unref((uv_handle_t *)&loop->prepare);
    return loop;
}

void net_loop_free(struct net_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    loop->on_turn = NULL;
    tls_loop_fini(loop);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0) {
        /* Lets the close callbacks come; once more if a stop was still asked for. */
    }
    CHECK(loop->streams_open == 0);
    CHECK(uv_loop_close(&loop->uv) == 0);
    mem_free(loop->mem, loop, sizeof *loop);
}

void net_loop_on_turn(struct net_loop *loop, net_turn *on_turn, void *user)
{
    loop->on_turn = on_turn;
    loop->user = user;
}

void net_loop_run(struct net_loop *loop)
{
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT); /* What is still open is closed by its owner. */
}

void net_loop_stop(struct net_loop *loop)
{
    uv_stop(&loop->uv);
}

/* ---- Wakes ---- */

struct net_wake {
    uv_async_t async;
    struct net_loop *loop;
    void (*on_wake)(void *user);
    void *user;
};

static void on_wake_closed(uv_handle_t *handle)
{
    struct net_wake *wake = handle->data;
    mem_free(wake->loop->mem, wake, sizeof *wake);
}

static void on_async(uv_async_t *async)
{
    struct net_wake *wake = async->data;
    wake->on_wake(wake->user);
}

struct net_wake *net_wake_new(struct net_loop *loop, void (*on_wake)(void *user), void *user)
{
    struct net_wake *wake = mem_alloc(loop->mem, sizeof *wake);
    if (wake == NULL) {
        return NULL;
    }
    wake->loop = loop;
    wake->on_wake = on_wake;
    wake->user = user;
    if (uv_async_init(&loop->uv, &wake->async, on_async) != 0) {
        mem_free(loop->mem, wake, sizeof *wake);
        return NULL;
    }
    wake->async.data = wake;
    return wake;
}

void net_wake_send(struct net_wake *wake)
{
    (void)uv_async_send(&wake->async); /* Fails only on a handle that was closed. */
}

void net_wake_close(struct net_wake *wake)
{
    if (wake != NULL) {
        uv_close((uv_handle_t *)&wake->async, on_wake_closed);
    }
}

/* ---- Timers ---- */

struct net_timer {
    uv_timer_t timer;
    struct net_loop *loop;
    void (*on_timer)(void *user);
    void *user;
};

static void on_timer_closed(uv_handle_t *handle)
{
    struct net_timer *timer = handle->data;
    mem_free(timer->loop->mem, timer, sizeof *timer);
}

static void timer_due(uv_timer_t *handle)
{
    struct net_timer *timer = handle->data;
    timer->on_timer(timer->user);
}

struct net_timer *net_timer_new(struct net_loop *loop, void (*on_timer)(void *user), void *user)
{
    struct net_timer *timer = mem_alloc(loop->mem, sizeof *timer);
    if (timer == NULL) {
        return NULL;
    }
    timer->loop = loop;
    timer->on_timer = on_timer;
    timer->user = user;
    (void)uv_timer_init(&loop->uv, &timer->timer); /* Never fails. */
    timer->timer.data = timer;
    return timer;
}

void net_timer_start(struct net_timer *timer, uint64_t delay_ns)
{
    uint64_t delay_ms = delay_ns / CLOCK_NS_PER_MS + (delay_ns % CLOCK_NS_PER_MS != 0);
    uv_update_time(&timer->loop->uv); /* The loop's time is that of the turn's start. */
    int status = uv_timer_start(&timer->timer, timer_due, delay_ms, 0);
    CHECK(status == 0); /* Fails only on a closing handle. */
}

void net_timer_stop(struct net_timer *timer)
{
    (void)uv_timer_stop(&timer->timer); /* Never fails. */
}

void net_timer_close(struct net_timer *timer)
{
    if (timer != NULL) {
        uv_close((uv_handle_t *)&timer->timer, on_timer_closed);
    }
}

/* ---- Signals ---- */

struct net_signal {
    uv_signal_t signal;
    struct net_loop *loop;
    void (*on_signal)(void *user, int number);
    void *user;
};

static void on_signal_closed(uv_handle_t *handle)
{
    struct net_signal *signal = handle->data;
    mem_free(signal->loop->mem, signal, sizeof *signal);
}

static void signal_came(uv_signal_t *handle, int number)
{
    struct net_signal *signal = handle->data;
    signal->on_signal(signal->user, number);
}

struct net_signal *net_signal_new(struct net_loop *loop, int number,
                                  void (*on_signal)(void *user, int number), void *user)
{
    struct net_signal *signal = mem_alloc(loop->mem, sizeof *signal);
    if (signal == NULL) {
        return NULL;
    }
    signal->loop = loop;
    signal->on_signal = on_signal;
    signal->user = user;
    if (uv_signal_init(&loop->uv, &signal->signal) != 0) {
        mem_free(loop->mem, signal, sizeof *signal);
        return NULL;
    }
    signal->signal.data = signal;
    if (uv_signal_start(&signal->signal, signal_came, number) != 0) {
        net_signal_close(signal);
        return NULL;
    }
    return signal;
}

void net_signal_close(struct net_signal *signal)
{
    if (signal != NULL) {
        uv_close((uv_handle_t *)&signal->signal, on_signal_closed);
    }
}
