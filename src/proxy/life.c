#include "proxy/life.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "proxy/router.h"

enum { SIGNAL_STATUS = 128 }; /* As shells count: status 143 after SIGTERM. */

#define WATCHDOG_NS_MIN (3 * CLOCK_NS_PER_S)

static const int numbers[] = {SIGTERM, SIGINT};

enum router_phase router_phase(const struct router *router)
{
    return (enum router_phase)atomic_load_explicit(&router->phase, memory_order_relaxed);
}

void life_enter(struct router *router, enum router_phase phase)
{
    REQUIRE(phase >= router_phase(router));
    atomic_store(&router->phase, phase);
    router_wake_all(router);
}

/* ---- At once ---- */

/* Async-signal-safe. The store survives it: see DESIGN.md, section 4. */
_Noreturn static void die_of(int number)
{
    (void)signal(number, SIG_DFL);
    (void)raise(number);           /* Whoever waits for the process sees what it died of. */
    _exit(SIGNAL_STATUS + number); /* PID 1 outlives a signal without a handler. */
}

static void on_signal_die(int number)
{
    die_of(number);
}

void life_die_of_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal_die, .sa_flags = SA_NODEFER};
    (void)sigemptyset(&action.sa_mask); /* Never fails. */
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        (void)sigaction(numbers[i], &action, NULL); /* These can be caught. */
    }
}

static const char *name_of(int number)
{
    return number == SIGTERM ? "SIGTERM" : "SIGINT";
}

static size_t requests_running(struct router *router)
{
    hashtrie_lock(router->trie);
    size_t count = router->admit.running;
    hashtrie_unlock(router->trie);
    return count;
}

_Noreturn static void end_at_once(struct router *router, int number)
{
    struct log *log = &router->workers[0].log;
    log_write(log, LOG_WARNING,
              "Second signal, %s: ending at once; %zu requests are cut off, and what was learned "
              "since the last checkpoint is lost",
              name_of(number), requests_running(router));
    log_flush(log);
    die_of(number);
}

/* ---- Phase by phase ---- */

static void begin_draining(struct router *router, const char *why)
{
    log_write(&router->workers[0].log, LOG_INFO,
              "%s: draining, no new connections, requests may finish", why);
    life_enter(router, ROUTER_DRAINING);
    net_timer_start(router->life_timer, router->config->drain_timeout_ns);
}

static void on_due(void *user)
{
    struct router *router = user;
    switch (router_phase(router)) {
    case ROUTER_LEAVING:
        begin_draining(router, "Shutdown delay over");
        break;
    case ROUTER_DRAINING:
        life_enter(router, ROUTER_ENDING);
        net_timer_start(router->life_timer, ROUTER_LINGER_NS);
        break;
    case ROUTER_ENDING:
        life_enter(router, ROUTER_CUTTING);
        break;
    case ROUTER_SERVING:
    case ROUTER_CUTTING:
    default:
        break;
    }
}

static void on_signal(void *user, int number)
{
    struct router *router = user;
    struct log *log = &router->workers[0].log;
    if (router_phase(router) != ROUTER_SERVING) {
        end_at_once(router, number);
    }
    uint64_t delay_ns = router->config->shutdown_delay_ns;
    life_enter(router, ROUTER_LEAVING);
    (void)service_tell(&router->service, "STOPPING=1\n"); /* It sees the end in any case. */
    if (delay_ns > 0) {
        log_write(log, LOG_INFO, "%s: not ready any more, new connections are served for %.1f s",
                  name_of(number), (double)delay_ns / (double)CLOCK_NS_PER_S);
        net_timer_start(router->life_timer, delay_ns);
    } else {
        begin_draining(router, name_of(number));
    }
}

bool life_watch_signals(struct router *router)
{
    struct net_loop *loop = router->workers[0].loop;
    router->life_timer = net_timer_new(loop, on_due, router);
    bool complete = router->life_timer != NULL;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        router->signals[i] = net_signal_new(loop, numbers[i], on_signal, router);
        complete = complete && router->signals[i] != NULL;
    }
    return complete;
}

void life_unwatch_signals(struct router *router)
{
    net_timer_close(router->life_timer);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        net_signal_close(router->signals[i]);
    }
}

/* ---- The service manager ---- */

static void tell_status(struct router *router, const char *before)
{
    char text[128];
    const char *status = router_readiness(router);
    if (status == router->status_told) {
        return;
    }
    router->status_told = status;
    (void)snprintf(text, sizeof text, "%sSTATUS=%s\n", before, status);
    if (!service_tell(&router->service, text)) {
        log_write(router->log, LOG_WARNING, "The service manager could not be told: %s", status);
        log_flush(router->log);
    }
}

void life_tell_started(struct router *router)
{
    const char *problem =
        service_read(service_environment, NULL, (uint64_t)getpid(), &router->service);
    if (problem != NULL) {
        log_write(router->log, LOG_WARNING, "The service manager: %s", problem);
    }
    if (router->service.watchdog_ns > 0 && router->service.watchdog_ns < WATCHDOG_NS_MIN) {
        log_write(router->log, LOG_WARNING,
                  "The service manager's watchdog should wait for 3 s or more: it hears of this "
                  "process once a second");
    }
    tell_status(router, "READY=1\n");
}

static bool loops_are_alive(const struct router *router, uint64_t now_ns)
{
    uint64_t half_ns = router->service.watchdog_ns / 2;
    uint64_t limit_ns = half_ns > 2 * ROUTER_SWEEP_NS ? half_ns : 2 * ROUTER_SWEEP_NS;
    for (size_t i = 0; i < router->worker_count; i++) {
        uint64_t swept_ns =
            atomic_load_explicit(&router->workers[i].swept_ns, memory_order_relaxed);
        if (swept_ns < now_ns && now_ns - swept_ns > limit_ns) {
            return false;
        }
    }
    return true;
}

/* What answers under way will take is no reason to keep a successor waiting. */
static void hand_store_over(struct router *router)
{
    bool wanted = router->store != NULL && !router->store_handed_over &&
                  router_phase(router) >= ROUTER_DRAINING;
    for (size_t i = 0; i < router->worker_count && wanted; i++) {
        wanted = atomic_load(&router->workers[i].unsettled) == 0;
    }
    if (wanted) {
        router->store_handed_over = true;
        hashtrie_store_hand_over(router->store);
    }
}

void life_sweep(struct router *router, uint64_t now_ns)
{
    hand_store_over(router);
    if (router->service.address_size == 0) {
        return;
    }
    tell_status(router, "");
    if (router->service.watchdog_ns > 0 && loops_are_alive(router, now_ns)) {
        (void)service_tell(&router->service, "WATCHDOG=1\n"); /* The next one may come through. */
    }
}
