/*
 * Deterministic simulation of the router: src/proxy and all rooms below it as they are, but for
 * src/net, in whose place net_sim.c runs it on virtual time between scripted clients and engines.
 *
 *     build/tests/sim_router                      seeds 1 to 10,000 (500 with sanitizers)
 *     HASHTRIE_SIM_SEEDS=1000000 ...              more of them
 *     HASHTRIE_SIM_FIRST=1000001 ...              from that one on
 *     HASHTRIE_SEED=17 ...                        that one, with a trace of all that happens
 *     HASHTRIE_SEED=17 HASHTRIE_SIM_TRACE=2 ...   with the router's own log as well; 0: no trace
 *
 * A run ends in this order: the clients are over, the router has let go of everything, SIGTERM (in
 * some runs it comes before), the router's end. What must hold: books.c, invariants.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "proxy/backends.h"
#include "proxy/proxy.h"
#include "proxy/router.h"
#include "sim/scripts.h"

#ifndef SIM_SEEDS
#define SIM_SEEDS 10000
#endif

enum { FAILURES_MAX = 5, SEED_SECONDS_MAX = 120, MESSAGES_BYTES_MAX = 1 << 20 };

#define LOOK_EVERY_NS  (10 * CLOCK_NS_PER_S)
#define CLIENTS_MAX_NS (4 * 3600 * CLOCK_NS_PER_S)
#define QUIET_AFTER_NS                                                        \
    (400 * CLOCK_NS_PER_S) /* More than any timeout of a client's connection. \
                            */

/* ---- One run ---- */

static uint64_t pick_ns(uint64_t low_ns, uint64_t high_ns)
{
    return low_ns + random_next(&sim_world->random) % (high_ns - low_ns);
}

static void choose_profile(struct sim *sim)
{
    struct sim_profile *profile = &sim->profile;
    *profile = (struct sim_profile){
        .calm = sim_chance(25),
        .bytewise = sim_chance(40),
        .stale_percent = sim_chance(30) ? 10 : 0,
        .prefill_ns = sim_chance(50) ? CLOCK_NS_PER_MS : 20 * CLOCK_NS_PER_S,
        .body_max = sim_chance(80) ? 3000 : 300000,
        .answer_max = sim_chance(80) ? 3000 : 700000,
        .signal_early = sim_chance(15),
        .changing = sim_chance(30),
    };
    sim->weather = (struct sim_weather){.delay_ns = 30 * CLOCK_NS_PER_MS};
    if (profile->calm) {
        return;
    }
    profile->faults = sim_chance(12);
    profile->dark_percent = sim_chance(30) ? 10 : 0;
    profile->refuse_percent = sim_chance(40) ? 25 : 0;
    profile->engine_error_percent = sim_chance(50) ? 20 : 0;
    profile->engine_break_percent = sim_chance(60) ? 30 : 0;
    profile->leave_percent = sim_chance(50) ? 40 : 0;
    profile->slow_percent = sim_chance(40) ? 40 : 0;
    profile->malformed_percent = sim_chance(30) ? 15 : 0;
    sim->weather.stall_percent = sim_chance(30) ? 3 : 0;
    sim->weather.stall_ns = 100 * CLOCK_NS_PER_S;
}

static void choose_limits(struct config *config)
{
    config->requests_max = sim_chance(30) ? 1 + sim_below(6) : 0;
    config->backend_requests_max = sim_chance(30) ? 1 + sim_below(3) : 0;
    config->queued_max = sim_below(12);
    config->client_queued_max = 1 + sim_below(6);
    config->queue_timeout_ns = pick_ns(CLOCK_NS_PER_S / 10, 60 * CLOCK_NS_PER_S);
}

static void choose_config(struct sim *sim, const struct config *config)
{
    bool calm = sim->profile.calm;
    sim->config = *config;
    sim->engine_count = 1 + sim_below(SIM_ENGINES_MAX);
    sim->config.backend_count = sim->engine_count;
    sim->config.routing = (enum config_routing)sim_below(CONFIG_LOADAWARE + 1);
    sim->config.proxy_all_paths = sim_chance(40);
    sim->config.failover_attempts_max = sim_below(4);
    sim->config.failover_on_busy = sim_chance(40);
    sim->config.eject_after_failures = sim_below(4);
    sim->config.connect_timeout_ns = pick_ns(CLOCK_NS_PER_S, 10 * CLOCK_NS_PER_S);
    sim->config.first_byte_timeout_ns =
        calm || sim_chance(30) ? 0 : pick_ns(CLOCK_NS_PER_S, 60 * CLOCK_NS_PER_S);
    sim->config.idle_timeout_ns =
        calm || sim_chance(30) ? 0 : pick_ns(CLOCK_NS_PER_S, 60 * CLOCK_NS_PER_S);
    sim->config.send_timeout_ns =
        calm || sim_chance(30) ? 0 : pick_ns(CLOCK_NS_PER_S, 60 * CLOCK_NS_PER_S);
    sim->config.connection_buffer_bytes = sim_chance(50) ? 16 * 1024 : 256 * 1024;
    sim->config.client_stall_timeout_ns = pick_ns(20 * CLOCK_NS_PER_S, 80 * CLOCK_NS_PER_S);
    sim->config.upstream_idle_timeout_ns = pick_ns(0, 8 * CLOCK_NS_PER_S);
    sim->config.drain_timeout_ns = pick_ns(0, 40 * CLOCK_NS_PER_S);
    sim->config.shutdown_delay_ns = sim_chance(30) ? pick_ns(0, 10 * CLOCK_NS_PER_S) : 0;
    choose_limits(&sim->config);
    if (calm && sim->engine_count > 1 && sim_chance(40)) {
        sim->profile.bad_engines = 1 + sim_below((uint32_t)sim->engine_count - 1);
        sim->config.failover_attempts_max = sim->profile.bad_engines;
        sim->config.retry_budget = 100;
    }
    sim->config.body_bytes_max = 400000;
    sim->config.buffered_bytes_max = sim_chance(50) ? 800000 : SIM_BUFFERED_AMPLE;
}

static void on_signal_time(void *user)
{
    struct sim *sim = user;
    sim->signalled_ns = sim_world->now_ns;
    sim_trace("SIGTERM");
    sim_net_signal(SIGTERM);
}

static void on_change_time(void *user)
{
    struct sim *sim = user;
    struct backend_wish wishes[SIM_ENGINES_MAX] = {{0}};
    size_t count = 0;
    if (sim->calm_since_ns != 0 || sim->signalled_ns != 0) {
        return;
    }
    for (size_t i = 0; i < sim->engine_count; i++) {
        if (i + 1 == sim->engine_count || sim_chance(60)) {
            const struct config_backend *backend = &sim->config.backends[i];
            wishes[count++] =
                (struct backend_wish){.url = backend->url, .models = &backend->model, 1};
        }
    }
    struct buf why;
    buf_init(&why, &sim_world->mem, BACKENDS_WHY_MAX);
    sim_trace("%zu engines are wished for", count);
    CHECK(router_set_backends(sim->router, wishes, count, &why));
    buf_fini(&why);
    sim_event_after(&sim->change, sim_between(CLOCK_NS_PER_MS, 20 * CLOCK_NS_PER_S));
}

static void check_end_time(const struct sim *sim)
{
    uint64_t limit_ns = sim->config.shutdown_delay_ns + sim->config.drain_timeout_ns +
                        2 * ROUTER_LINGER_NS + CLOCK_NS_PER_S;
    if (sim_world->now_ns > sim->signalled_ns + limit_ns) {
        sim_fail("the router took %.1f s to end",
                 (double)(sim_world->now_ns - sim->signalled_ns) / 1e9);
    }
}

static void on_look(void *user)
{
    struct sim *sim = user;
    uint64_t now_ns = sim_world->now_ns;
    if (sim->calm_since_ns == 0 && sim_client_not_over(sim) == NULL) {
        sim->calm_since_ns = now_ns;
    }
    sim_event_after(&sim->calm_down, LOOK_EVERY_NS);
    if (sim->signalled_ns != 0) {
        check_end_time(sim);
        return;
    }
    if (sim->calm_since_ns == 0 && now_ns > SIM_BEGIN_NS + CLIENTS_MAX_NS) {
        sim_check_quiet(sim); /* Says what is left. */
        sim_fail("client %zu waits for ever", sim_client_not_over(sim)->link->number);
    }
    bool dark = sim->profile.dark_percent > 0; /* Engines behind it are waited for: see engine.c. */
    uint64_t quiet_ns = QUIET_AFTER_NS + (dark ? 3600 * CLOCK_NS_PER_S : 0);
    if (sim->calm_since_ns != 0 && now_ns >= sim->calm_since_ns + quiet_ns) {
        sim_check_quiet(sim);
        on_signal_time(sim);
    }
}

static void begin_faults(struct sim *sim)
{
    if (sim->profile.faults) {
        struct mem *mem = &sim->router->workers[0].mem;
        mem->fail_after = sim_below(300);
        mem->fail_count = sim_chance(70) ? 1 + sim_below(3) : 1 + sim_below(200);
    }
}

static void run_router(struct sim *sim, struct log *log)
{
    sim->router = NULL;
    struct router *router = router_new(&sim->config, log);
    CHECK(router != NULL);
    sim->router = router;
    sim_engines_begin(sim);
    sim_clients_begin(sim);
    begin_faults(sim);
    sim_event_init(&sim->signal, on_signal_time, sim);
    sim_event_init(&sim->calm_down, on_look, sim);
    sim_event_after(&sim->calm_down, LOOK_EVERY_NS);
    sim_event_init(&sim->change, on_change_time, sim);
    if (sim->profile.changing) {
        sim_event_after(&sim->change, sim_between(CLOCK_NS_PER_MS, 20 * CLOCK_NS_PER_S));
    }
    if (sim->profile.signal_early) {
        sim_event_after(&sim->signal, sim_between(0, 60 * CLOCK_NS_PER_S));
    }
    CHECK(router_run(router));
    check_end_time(sim);
    router->workers[0].mem.fail_after = UINT64_MAX;
    router_free(router); /* CHECKs that all memory has come back. */
}

static void sum_up(const struct sim *sim)
{
    sim_trace("%zu requests: %zu served, %zu refused, %zu cut, %zu tries more; %zu clients left",
              sim->request_count, sim->served, sim->refused, sim->cut, sim->retried, sim->left);
}

static void end_world(struct sim *sim)
{
    sim_event_cancel(&sim->signal);
    sim_event_cancel(&sim->calm_down);
    sim_event_cancel(&sim->change);
    sim_clients_end(sim);
    sim_engines_end(sim);
    sim_requests_end(sim);
    while (!list_empty(&sim->links)) {
        sim_link_free(LIST_ITEM(sim->links.next, struct sim_link, all));
    }
    CHECK(list_empty(&sim_world->events));
    sim_free(sim, sizeof *sim);
    mem_fini(&sim_world->mem);
}

static void run_seed(uint64_t seed, const struct config *config, int trace, int log_fd)
{
    struct sim_world world = {
        .random = {.state = seed * UINT64_C(0x9e3779b97f4a7c15)},
        .system = {.state = ~seed},
        .now_ns = SIM_BEGIN_NS,
        .tracing = trace > 0,
        .seed = seed,
    };
    mem_init(&world.mem, SIZE_MAX);
    list_init(&world.events);
    sim_world = &world;
    struct sim *sim = sim_alloc(sizeof *sim);
    list_init(&sim->links);
    choose_profile(sim);
    choose_config(sim, config);
    struct sim_hooks hooks = {.accept = sim_engine_accept,
                              .before_read = sim_check_before_read,
                              .after_read = sim_check_after_read,
                              .after_turn = sim_check_turn,
                              .user = sim};
    sim_net_init(&hooks);
    struct log log;
    log_init(&log, log_fd, trace > 1 ? LOG_DEBUG : LOG_INFO, LOG_TEXT);
    run_router(sim, &log);
    log_fini(&log);
    sum_up(sim);
    end_world(sim);
    sim_world = NULL;
}

/* ---- Many ---- */

static const char *no_variable(void *user, const char *name)
{
    (void)user;
    (void)name;
    return NULL;
}

static void load_config(struct mem *mem, struct config *config)
{
    static char arguments[][160] = {
        "hashtrie-router",
        "--no-store",
        "--threads",
        "1",
        "--max-memory",
        "1MiB",
        "--engine-stats-interval",
        "0",
        "--static-backends",
        "http://127.0.0.1:9000,http://127.0.0.1:9001,http://127.0.0.1:9002,http://127.0.0.1:9003",
        "--static-models",
        "m,m,m,m",
    };
    enum { COUNT = sizeof arguments / sizeof *arguments };
    char *argv[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        argv[i] = arguments[i];
    }
    struct buf messages;
    buf_init(&messages, mem, MESSAGES_BYTES_MAX);
    struct config_input input = {
        .argc = COUNT, .argv = argv, .lookup = no_variable, .root = "/nowhere", .mem = mem};
    enum config_action action = config_load(&input, config, &messages);
    if (action != CONFIG_RUN) {
        (void)fprintf(stderr, "%.*s", (int)messages.size, messages.data);
    }
    CHECK(action == CONFIG_RUN);
    buf_fini(&messages);
}

static uint64_t number_of(const char *variable, uint64_t missing)
{
    const char *text = getenv(variable);
    return text == NULL || *text == '\0' ? missing : strtoull(text, NULL, 10);
}

/* Seeds in a process of its own: *now is the one that runs. True: all of them have passed. */
static bool run_in_child(const struct config *config, volatile uint64_t *now, uint64_t last)
{
    (void)fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int log_fd = open("/dev/null", O_WRONLY);
        for (; *now <= last; ++*now) {
            (void)alarm(SEED_SECONDS_MAX); /* One that does not end fails as well. */
            run_seed(*now, config, 0, log_fd);
        }
        exit(EXIT_SUCCESS); /* With what a sanitizer has to say at the end. */
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

static int run_many(const char *program, const struct config *config)
{
    uint64_t count = number_of("HASHTRIE_SIM_SEEDS", SIM_SEEDS);
    uint64_t first = number_of("HASHTRIE_SIM_FIRST", 1);
    uint64_t last = first + count - 1;
    unsigned failures = 0;
    volatile uint64_t *now =
        mmap(NULL, sizeof *now, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(now != MAP_FAILED);
    *now = first;
    while (*now <= last && failures < FAILURES_MAX && !run_in_child(config, now, last)) {
        failures++;
        (void)printf("FAILED; again, with a trace: HASHTRIE_SEED=%llu %s\n",
                     (unsigned long long)*now, program);
        ++*now;
    }
    (void)printf("%llu seeds from %llu on, %u failed\n", (unsigned long long)(*now - first),
                 (unsigned long long)first, failures);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    (void)argc;
    struct mem mem;
    struct config config;
    int status = EXIT_SUCCESS;
    mem_init(&mem, SIZE_MAX);
    load_config(&mem, &config);
    uint64_t seed = number_of("HASHTRIE_SEED", 0);
    if (seed == 0) {
        status = run_many(argv[0], &config);
    } else {
        int trace = (int)number_of("HASHTRIE_SIM_TRACE", 1);
        int log_fd = trace > 1 ? STDERR_FILENO : open("/dev/null", O_WRONLY);
        run_seed(seed, &config, trace, log_fd);
    }
    config_fini(&config);
    mem_fini(&mem);
    return status;
}
