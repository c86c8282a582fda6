/* Loops, timers, wakes, signals, listeners: see net_sim.h. Streams: stream_sim.c. */
#include "sim/net_sim.h"

#include <string.h>

#include "base/check.h"
#include "sim/internal.h"

static struct {
    const struct sim_hooks *hooks;
    struct net_listener *listener; /* At most one: the router has one loop here. */
    struct list signals;
} net;

void sim_net_init(const struct sim_hooks *hooks)
{
    net.hooks = hooks;
    net.listener = NULL;
    list_init(&net.signals);
}

const struct sim_hooks *sim_net_hooks(void)
{
    return net.hooks;
}

const char *net_status_text(enum net_status status)
{
    static const char *const texts[] = {
#define TEXT(name, text) [NET_##name] = (text),
        NET_STATUS_MAP(TEXT)
#undef TEXT
    };
    return texts[status];
}

const char *net_status_name(enum net_status status)
{
    static const char *const names[] = {
#define NAME(name, text) [NET_##name] = #name,
        NET_STATUS_MAP(NAME)
#undef NAME
    };
    return names[status];
}

uint64_t net_now_ns(void)
{
    return clock_monotonic_ns();
}

uint64_t net_unix_ns(void)
{
    return clock_unix_ns();
}

/* ---- Loops ---- */

struct net_loop *net_loop_new(struct mem *mem)
{
    struct net_loop *loop = mem_alloc_zero(mem, sizeof *loop);
    if (loop != NULL) {
        loop->mem = mem;
        list_init(&loop->timers);
        list_init(&loop->streams);
        list_init(&loop->closed);
        list_init(&loop->wakes);
    }
    return loop;
}

void net_loop_free(struct net_loop *loop)
{
    if (loop != NULL) {
        sim_streams_free_closed(loop);
        CHECK(list_empty(&loop->streams) && list_empty(&loop->timers) && list_empty(&loop->wakes));
        CHECK(loop->timer_count == 0);
        mem_free(loop->mem, loop, sizeof *loop);
    }
}

void net_loop_on_turn(struct net_loop *loop, net_turn *on_turn, void *user)
{
    loop->on_turn = on_turn;
    loop->user = user;
}

void net_loop_stop(struct net_loop *loop)
{
    loop->stopped = true;
}

static void run_timers(struct net_loop *loop)
{
    while (sim_queue_next_ns(&loop->timers) <= sim_world->now_ns) {
        struct sim_event *event = LIST_ITEM(loop->timers.next, struct sim_event, link);
        list_remove(&event->link);
        event->run(event->user);
    }
}

static bool has_signal(void)
{
    list_foreach (link, &net.signals) {
        if (LIST_ITEM(link, struct net_signal, link)->raised) {
            return true;
        }
    }
    return false;
}

static bool has_work(struct net_loop *loop)
{
    list_foreach (link, &loop->wakes) {
        if (LIST_ITEM(link, struct net_wake, link)->sent) {
            return true;
        }
    }
    return has_signal() || sim_streams_ready(loop) ||
           (net.listener != NULL && net.listener->knock_count > 0);
}

/* Waits as poll() does: until something is there, or the first timer is due. */
static void wait_for_work(struct net_loop *loop)
{
    sim_world_run_due();
    while (!has_work(loop) && sim_queue_next_ns(&loop->timers) > sim_world->now_ns) {
        uint64_t timer_ns = sim_queue_next_ns(&loop->timers);
        uint64_t world_ns = sim_queue_next_ns(&sim_world->events);
        uint64_t next_ns = timer_ns < world_ns ? timer_ns : world_ns;
        if (next_ns == SIM_NEVER) {
            sim_fail("the router waits for nothing");
        }
        sim_world->now_ns = next_ns > sim_world->now_ns ? next_ns : sim_world->now_ns;
        sim_world_run_due();
    }
}

static void accept_first(struct net_listener *listener)
{
    struct sim_link *link = listener->knocks[0];
    listener->knock_count--;
    memmove(listener->knocks, listener->knocks + 1, listener->knock_count * sizeof link);
    struct net_stream *stream = sim_stream_new(listener->loop);
    if (stream == NULL) {
        sim_link_reset(link, SIM_ROUTER);
        return;
    }
    stream->link = link;
    link->stream = stream;
    listener->on_accept(listener->user, stream);
}

void net_listener_take_all(struct net_listener *listener)
{
    while (listener->knock_count > 0) {
        accept_first(listener);
    }
}

static void run_listener(void)
{
    while (net.listener != NULL && net.listener->knock_count > 0) {
        accept_first(net.listener);
    }
}

static void run_wakes(struct net_loop *loop)
{
    list_foreach_safe (link, &loop->wakes) {
        struct net_wake *wake = LIST_ITEM(link, struct net_wake, link);
        if (wake->sent) {
            wake->sent = false;
            wake->on_wake(wake->user);
        }
    }
    list_foreach_safe (link, &net.signals) {
        struct net_signal *signal = LIST_ITEM(link, struct net_signal, link);
        if (signal->raised) {
            signal->raised = false;
            signal->on_signal(signal->user, signal->number);
        }
    }
}

void net_loop_run(struct net_loop *loop)
{
    loop->stopped = false;
    while (!loop->stopped) {
        run_timers(loop);
        bool more = loop->on_turn != NULL && loop->on_turn(loop->user);
        if (more || loop->stopped) {
            sim_world_run_due();
        } else {
            wait_for_work(loop);
        }
        sim_streams_run(loop);
        if (sim_chance(50)) {
            run_listener();
            run_wakes(loop);
        } else {
            run_wakes(loop);
            run_listener();
        }
        sim_streams_free_closed(loop);
        net.hooks->after_turn(net.hooks->user);
        sim_world->now_ns += sim_below(20) * CLOCK_NS_PER_US;
    }
}

size_t sim_loop_streams(const struct net_loop *loop)
{
    size_t count = 0;
    list_foreach (link, &loop->streams) {
        count++;
    }
    return count;
}

size_t sim_loop_timers_running(const struct net_loop *loop)
{
    size_t count = 0;
    list_foreach (link, &loop->timers) {
        count++;
    }
    return count;
}

/* ---- Wakes ---- */

struct net_wake *net_wake_new(struct net_loop *loop, void (*on_wake)(void *user), void *user)
{
    struct net_wake *wake = mem_alloc(loop->mem, sizeof *wake);
    if (wake != NULL) {
        *wake = (struct net_wake){.loop = loop, .on_wake = on_wake, .user = user};
        list_push_back(&loop->wakes, &wake->link);
    }
    return wake;
}

void net_wake_send(struct net_wake *wake)
{
    wake->sent = true;
}

void net_wake_close(struct net_wake *wake)
{
    if (wake != NULL) {
        list_remove(&wake->link);
        mem_free(wake->loop->mem, wake, sizeof *wake);
    }
}

/* ---- Timers ---- */

struct net_timer {
    struct sim_event event;
    struct net_loop *loop;
};

struct net_timer *net_timer_new(struct net_loop *loop, void (*on_timer)(void *user), void *user)
{
    struct net_timer *timer = mem_alloc(loop->mem, sizeof *timer);
    if (timer != NULL) {
        sim_event_init(&timer->event, on_timer, user);
        timer->loop = loop;
        loop->timer_count++;
    }
    return timer;
}

/* As libuv counts: in whole milliseconds of the clock. */
void net_timer_start(struct net_timer *timer, uint64_t delay_ns)
{
    uint64_t delay_ms = delay_ns / CLOCK_NS_PER_MS + (delay_ns % CLOCK_NS_PER_MS != 0);
    uint64_t now_ms = sim_world->now_ns / CLOCK_NS_PER_MS;
    sim_event_plan(&timer->loop->timers, &timer->event, (now_ms + delay_ms) * CLOCK_NS_PER_MS);
}

void net_timer_stop(struct net_timer *timer)
{
    sim_event_cancel(&timer->event);
}

void net_timer_close(struct net_timer *timer)
{
    if (timer != NULL) {
        sim_event_cancel(&timer->event);
        timer->loop->timer_count--;
        mem_free(timer->loop->mem, timer, sizeof *timer);
    }
}

bool sim_timer_is_running(const struct net_timer *timer)
{
    return sim_event_is_planned(&timer->event);
}

/* ---- Signals ---- */

struct net_signal *net_signal_new(struct net_loop *loop, int number,
                                  void (*on_signal)(void *user, int number), void *user)
{
    struct net_signal *signal = mem_alloc(loop->mem, sizeof *signal);
    if (signal != NULL) {
        *signal = (struct net_signal){
            .mem = loop->mem, .number = number, .on_signal = on_signal, .user = user};
        list_push_back(&net.signals, &signal->link);
    }
    return signal;
}

void net_signal_close(struct net_signal *signal)
{
    if (signal != NULL) {
        list_remove(&signal->link);
        mem_free(signal->mem, signal, sizeof *signal);
    }
}

void sim_net_signal(int number)
{
    list_foreach (link, &net.signals) {
        struct net_signal *signal = LIST_ITEM(link, struct net_signal, link);
        signal->raised = signal->raised || signal->number == number;
    }
}

/* ---- Folders: nothing is watched ---- */

struct net_watch *net_watch_new(struct net_loop *loop, void (*on_change)(void *user), void *user)
{
    (void)loop;
    (void)on_change;
    (void)user;
    return NULL;
}

bool net_watch_start(struct net_watch *watch, const char *folder)
{
    (void)watch;
    (void)folder;
    return false;
}

void net_watch_close(struct net_watch *watch)
{
    (void)watch;
}

/* ---- Descriptors of others: there are none ---- */

struct net_poll *net_poll_new(struct net_loop *loop, int fd, net_poll_ready *on_ready, void *user)
{
    (void)loop;
    (void)fd;
    (void)on_ready;
    (void)user;
    return NULL;
}

bool net_poll_set(struct net_poll *poll, unsigned events)
{
    (void)poll;
    (void)events;
    return false;
}

void net_poll_close(struct net_poll *poll)
{
    REQUIRE(poll == NULL);
}

enum net_status net_listening_address(int descriptor, struct net_address *address)
{
    (void)descriptor;
    (void)address;
    return NET_INVALID;
}

enum net_status net_listen_passed(struct net_loop *loop, int descriptor, int backlog,
                                  void (*on_accept)(void *user, struct net_stream *stream),
                                  void *user, struct net_listener **out)
{
    (void)loop;
    (void)descriptor;
    (void)backlog;
    (void)on_accept;
    (void)user;
    (void)out;
    return NET_INVALID;
}

/* ---- Listeners ---- */

enum net_status net_listen(struct net_loop *loop, const struct net_listen_options *options,
                           void (*on_accept)(void *user, struct net_stream *stream), void *user,
                           struct net_listener **out, uint16_t *port_out)
{
    (void)options;
    struct net_listener *listener = mem_alloc(loop->mem, sizeof *listener);
    if (listener == NULL) {
        return NET_NO_MEMORY;
    }
    REQUIRE(net.listener == NULL);
    *listener = (struct net_listener){.loop = loop, .on_accept = on_accept, .user = user};
    net.listener = listener;
    *out = listener;
    *port_out = 80;
    return NET_OK;
}

void net_listener_set_tls(struct net_listener *listener, struct net_tls *tls)
{
    (void)listener;
    CHECK(tls == NULL); /* Nothing here is enciphered. */
}

void net_listener_on_starved(struct net_listener *listener,
                             void (*on_starved)(void *user, bool starved))
{
    (void)listener;
    (void)on_starved; /* There is always room. */
}

void net_listener_close(struct net_listener *listener)
{
    if (listener != NULL) {
        for (size_t i = 0; i < listener->knock_count; i++) {
            sim_link_reset(listener->knocks[i], SIM_ROUTER);
        }
        net.listener = NULL;
        mem_free(listener->loop->mem, listener, sizeof *listener);
    }
}

bool sim_net_knock(struct sim_link *link)
{
    struct net_listener *listener = net.listener;
    if (listener == NULL || listener->knock_count == SIM_KNOCKS_MAX) {
        return false;
    }
    listener->knocks[listener->knock_count++] = link;
    return true;
}
