#include "bench/sim/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"

enum { HASHES_MAX = 1 << 16, PATH_BYTES = 4096, COPY_BYTES = 1 << 16 };

/* A request on its way. */
struct flight {
    struct sim_job job; /* First: a job is its flight. */
    size_t number;      /* Of its request. */
    struct sim_route route;
    uint64_t first_ns;
    bool had_first; /* Of the attempt that runs. */
};

struct world {
    const struct sim_setup *setup;
    struct sim_router *router;
    struct sim_engine **engines;
    uint64_t *next_ns; /* Of each engine, as the heap knows it. */
    uint32_t *heap;    /* Engines, the one whose step ends first in front. */
    uint32_t *place;   /* Of each engine in the heap. */
    uint64_t *up_ns;   /* When it comes back; 0: it is up. */
    unsigned *generation;
    uint64_t now_ns;
    uint64_t end_ns; /* Of the last answer so far. */
    size_t fault_next;
    uint64_t second_next;  /* The next virtual second with something to do. */
    char kept[PATH_BYTES]; /* Folder with the store as a kill leaves it; empty: none. */
    struct list homeless;  /* Requests that no engine was up for. */
    struct sim_result *result;
};

/* ---- Which engine is next ---- */

static void heap_put(struct world *world, uint32_t at, uint32_t engine)
{
    world->heap[at] = engine;
    world->place[engine] = at;
}

static void heap_update(struct world *world, uint32_t engine)
{
    uint32_t count = (uint32_t)world->setup->engine_count;
    uint32_t at = world->place[engine];
    uint64_t key = sim_engine_next_ns(world->engines[engine]);
    world->next_ns[engine] = key;
    while (at > 0 && world->next_ns[world->heap[(at - 1) / 2]] > key) {
        heap_put(world, at, world->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < count &&
            world->next_ns[world->heap[child + 1]] < world->next_ns[world->heap[child]]) {
            child++;
        }
        if (child >= count || world->next_ns[world->heap[child]] >= key) {
            break;
        }
        heap_put(world, at, world->heap[child]);
        at = child;
    }
    heap_put(world, at, engine);
}

/* ---- Requests ---- */

static const struct sim_request *request_of(const struct world *world, const struct flight *flight)
{
    return &world->setup->workload->requests[flight->number];
}

static void on_first(void *user, struct sim_job *job, uint64_t now_ns)
{
    struct world *world = user;
    struct flight *flight = (struct flight *)(void *)job;
    struct sim_outcome *outcome = &world->result->outcomes[flight->number];
    flight->had_first = true;
    flight->first_ns = now_ns;
    outcome->ttft_s = (double)(now_ns - request_of(world, flight)->arrival_ns) / 1e9;
    outcome->cached_tokens = job->cached_tokens;
    outcome->held_tokens =
        (uint32_t)(flight->route.held_bytes / request_of(world, flight)->token_bytes);
    outcome->engine = (uint32_t)flight->route.engine;
    sim_router_on_first(world->router, &flight->route, now_ns);
}

static void flight_free(struct flight *flight)
{
    union {
        const uint64_t *read;
        uint64_t *own;
    } hashes = {.read = flight->job.hashes};
    free(hashes.own);
    free(flight);
}

static void on_done(void *user, struct sim_job *job, uint64_t now_ns)
{
    struct world *world = user;
    struct flight *flight = (struct flight *)(void *)job;
    world->result->outcomes[flight->number].decode_s = (double)(now_ns - flight->first_ns) / 1e9;
    world->end_ns = now_ns > world->end_ns ? now_ns : world->end_ns;
    sim_router_on_end(world->router, request_of(world, flight), &flight->route, true);
    flight_free(flight);
}

static void send(struct world *world, struct flight *flight)
{
    const struct sim_request *request = request_of(world, flight);
    struct sim_prompt prompt = {.workload = world->setup->workload,
                                .request = request,
                                .block_hashes = flight->job.hashes,
                                .block_count =
                                    request->prompt_tokens / world->setup->engine.block_tokens,
                                .engines = world->engines};
    flight->had_first = false;
    if (!sim_router_send(world->router, &prompt, world->now_ns, &flight->route)) {
        list_push_back(&world->homeless, &flight->job.link);
        return;
    }
    uint32_t engine = (uint32_t)flight->route.engine;
    if (!sim_engine_submit(world->engines[engine], &flight->job, world->now_ns)) {
        world->result->refused_count++;
        sim_router_on_end(world->router, request, &flight->route, false);
        flight_free(flight);
        return;
    }
    heap_update(world, engine);
}

static void arrive(struct world *world, size_t number)
{
    const struct sim_request *request = &world->setup->workload->requests[number];
    uint32_t block_tokens = world->setup->engine.block_tokens;
    size_t block_count = (request->prompt_tokens + request->output_tokens) / block_tokens;
    REQUIRE(block_count <= HASHES_MAX && request->prompt_tokens > 0);
    struct flight *flight = sim_alloc(1, sizeof *flight);
    uint64_t *hashes = sim_alloc(block_count, sizeof *hashes);
    size_t count =
        sim_hash_units(world->setup->workload, request, block_tokens, true, hashes, block_count);
    *flight = (struct flight){.number = number,
                              .job = {.hashes = hashes,
                                      .hash_count = count,
                                      .prompt_tokens = request->prompt_tokens,
                                      .output_tokens = request->output_tokens}};
    list_init(&flight->job.link);
    send(world, flight);
}

static void send_again(struct world *world, struct list *lost)
{
    list_foreach_safe (link, lost) {
        list_remove(link);
        send(world, (struct flight *)(void *)LIST_ITEM(link, struct sim_job, link));
    }
}

/* ---- Faults ---- */

static void copy_file(const char *from, const char *to)
{
    static char bytes[COPY_BYTES];
    FILE *in = fopen(from, "re");
    FILE *out = in == NULL ? NULL : fopen(to, "we");
    size_t size = 0;
    bool ok = out != NULL;
    while (ok && (size = fread(bytes, 1, sizeof bytes, in)) > 0) {
        ok = fwrite(bytes, 1, size, out) == size;
    }
    ok = out != NULL && fclose(out) == 0 && ok && ferror(in) == 0;
    if (!ok) {
        sim_fail(to, strerror(errno));
    }
    (void)fclose(in); /* Read only. */
}

/* A checkpoint is over and nothing is written: what a kill would leave from here on. */
static void keep_store(struct world *world)
{
    char from[PATH_BYTES + 16];
    char to[PATH_BYTES + 16];
    (void)snprintf(world->kept, sizeof world->kept, "%s/killed", world->setup->store_directory);
    (void)mkdir(world->kept, 0700); /* If it cannot be made, the copy fails. */
    (void)snprintf(from, sizeof from, "%s/data.mdb", world->setup->store_directory);
    (void)snprintf(to, sizeof to, "%s/data.mdb", world->kept);
    copy_file(from, to);
}

static struct sim_router *make_router(const struct sim_setup *setup, const char *store_directory)
{
    struct sim_router_options options = {
        .policy = setup->policy,
        .engine_count = setup->engine_count,
        .seed = setup->seed,
        .budget_bytes = setup->budget_bytes == 0 ? SIM_BUDGET_UNBOUNDED : setup->budget_bytes,
        .capacity_bytes = setup->engine.engine.kv_tokens * ROUTE_BYTES_PER_TOKEN,
        .store_directory = store_directory,
        .store_bytes = setup->store_bytes};
    return sim_router_new(&options);
}

/* What the engine had is lost; the router is told so. */
static void drop_engine(struct world *world, uint32_t engine, bool keep_cache, struct list *lost)
{
    struct list dropped;
    list_init(&dropped);
    sim_engine_drop(world->engines[engine], keep_cache, &dropped);
    heap_update(world, engine);
    list_foreach_safe (link, &dropped) {
        struct flight *flight = (struct flight *)(void *)LIST_ITEM(link, struct sim_job, link);
        sim_router_on_end(world->router, request_of(world, flight), &flight->route,
                          flight->had_first);
        list_remove(link);
        list_push_back(lost, link);
    }
}

static void restart_engine(struct world *world, uint32_t engine, uint64_t down_ns,
                           struct list *lost)
{
    drop_engine(world, engine, false, lost);
    sim_router_set_up(world->router, engine, false);
    world->up_ns[engine] = world->now_ns + down_ns;
}

static void come_back(struct world *world)
{
    for (uint32_t i = 0; i < world->setup->engine_count; i++) {
        if (world->up_ns[i] != 0 && world->up_ns[i] <= world->now_ns) {
            world->up_ns[i] = 0;
            world->generation[i]++;
            sim_router_set_up(world->router, i, true);
            sim_router_on_restart(world->router, i, world->generation[i]);
        }
    }
}

/* Its clients are cut off and ask again. */
static void restart_router(struct world *world, struct list *lost)
{
    const struct sim_setup *setup = world->setup;
    for (uint32_t i = 0; i < setup->engine_count; i++) {
        drop_engine(world, i, true, lost);
    }
    sim_router_free(world->router);
    world->router =
        make_router(setup, setup->loses_store || world->kept[0] == '\0' ? NULL : world->kept);
    for (uint32_t i = 0; i < setup->engine_count; i++) {
        sim_router_set_up(world->router, i, world->up_ns[i] == 0);
        sim_router_on_restart(world->router, i, world->generation[i]);
    }
}

static void strike(struct world *world, const struct sim_fault *fault)
{
    struct list lost;
    list_init(&lost);
    switch (fault->kind) {
    case SIM_ENGINE_RESTARTS:
        restart_engine(world, (uint32_t)fault->engine, fault->down_ns, &lost);
        break;
    case SIM_ALL_ENGINES_RESTART:
        for (uint32_t i = 0; i < world->setup->engine_count; i++) {
            restart_engine(world, i, fault->down_ns, &lost);
        }
        break;
    case SIM_ROUTER_RESTARTS:
        restart_router(world, &lost);
        break;
    }
    send_again(world, &lost);
}

/* ---- Time ---- */

/* Once a virtual second: checkpoint, engines that are back. */
static void tick(struct world *world)
{
    struct sim_router_state state = sim_router_state(world->router);
    if (state.trie.bytes_used > world->result->trie_bytes_most) {
        world->result->trie_bytes_most = state.trie.bytes_used;
    }
    sim_router_checkpoint(world->router);
    const struct sim_fault *next = &world->setup->faults[world->fault_next];
    if (world->setup->store_directory != NULL && world->fault_next < world->setup->fault_count &&
        next->kind == SIM_ROUTER_RESTARTS && next->at_ns <= world->now_ns + SIM_NS_PER_S) {
        keep_store(world);
    }
    come_back(world);
    if (!list_empty(&world->homeless)) {
        struct list again;
        list_init(&again);
        list_foreach_safe (link, &world->homeless) {
            list_remove(link);
            list_push_back(&again, link);
        }
        send_again(world, &again);
    }
    world->second_next = world->now_ns + SIM_NS_PER_S;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool is_waiting_for_engines(const struct world *world)
{
    return !list_empty(&world->homeless);
}

static void run(struct world *world)
{
    const struct sim_setup *setup = world->setup;
    size_t number = 0;
    for (;;) {
        uint64_t arrival_ns = number < setup->workload->request_count
                                  ? setup->workload->requests[number].arrival_ns
                                  : UINT64_MAX;
        uint64_t engine_ns = world->next_ns[world->heap[0]];
        uint64_t fault_ns = world->fault_next < setup->fault_count
                                ? setup->faults[world->fault_next].at_ns
                                : UINT64_MAX;
        uint64_t next_ns = least(least(engine_ns, arrival_ns), fault_ns);
        if (next_ns == UINT64_MAX && !is_waiting_for_engines(world)) {
            return;
        }
        if (world->second_next <= next_ns) {
            world->now_ns = world->second_next;
            tick(world);
            continue;
        }
        world->now_ns = next_ns;
        if (engine_ns == next_ns) {
            uint32_t engine = world->heap[0];
            sim_engine_run(world->engines[engine], next_ns);
            heap_update(world, engine);
        } else if (fault_ns == next_ns) {
            strike(world, &setup->faults[world->fault_next++]);
        } else {
            arrive(world, number++);
        }
    }
}

/* ---- Figures ---- */

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return left < right ? -1 : left > right;
}

/* Tokens of the engine that was sent most, to the mean. */
static double imbalance(const struct world *world, const struct sim_result *result)
{
    const struct sim_workload *workload = world->setup->workload;
    double *sent = sim_alloc(world->setup->engine_count, sizeof *sent);
    double sum = 0;
    double most = 0;
    for (size_t i = 0; i < workload->request_count; i++) {
        const struct sim_request *request = &workload->requests[i];
        double tokens = (double)request->prompt_tokens + request->output_tokens;
        double *at = &sent[result->outcomes[i].engine];
        *at += tokens;
        sum += tokens;
        most = fmax(most, *at);
    }
    free(sent);
    return most * (double)world->setup->engine_count / sum;
}

static void sum_up(const struct world *world, struct sim_result *out)
{
    const struct sim_workload *workload = world->setup->workload;
    size_t count = workload->request_count;
    double *ttft = sim_alloc(count, sizeof *ttft);
    double prompt = 0;
    double cached = 0;
    double over = 0;
    double under = 0;
    double output = 0;
    double decode = 0;
    double gaps = 0;
    for (size_t i = 0; i < count; i++) {
        const struct sim_outcome *outcome = &out->outcomes[i];
        ttft[i] = outcome->ttft_s;
        out->ttft_mean_s += outcome->ttft_s / (double)count;
        prompt += workload->requests[i].prompt_tokens;
        cached += outcome->cached_tokens;
        over += fmax(0, (double)outcome->held_tokens - outcome->cached_tokens);
        under += fmax(0, (double)outcome->cached_tokens - outcome->held_tokens);
        output += workload->requests[i].output_tokens;
        decode += outcome->decode_s;
        gaps += workload->requests[i].output_tokens - 1;
    }
    qsort(ttft, count, sizeof *ttft, compare_doubles);
    out->ttft_p50_s = ttft[count / 2];
    out->ttft_p90_s = ttft[count * 90 / 100];
    out->ttft_p99_s = ttft[count * 99 / 100];
    out->itl_mean_s = gaps > 0 ? decode / gaps : 0;
    out->hit_rate = cached / prompt;
    out->over_rate = over / prompt;
    out->under_rate = under / prompt;
    out->output_tokens_per_s = output / ((double)world->end_ns / 1e9);
    free(ttft);
    out->imbalance = imbalance(world, out);
    out->router = sim_router_state(world->router);
}

void sim_run(const struct sim_setup *setup, struct sim_result *out)
{
    size_t engines = setup->engine_count;
    struct world world = {.setup = setup,
                          .result = out,
                          .engines = sim_alloc(engines, sizeof(struct sim_engine *)),
                          .next_ns = sim_alloc(engines, sizeof(uint64_t)),
                          .heap = sim_alloc(engines, sizeof(uint32_t)),
                          .place = sim_alloc(engines, sizeof(uint32_t)),
                          .up_ns = sim_alloc(engines, sizeof(uint64_t)),
                          .generation = sim_alloc(engines, sizeof(unsigned))};
    REQUIRE(setup->workload->request_count > 0 && setup->fault_count <= SIM_FAULTS_MAX);
    *out = (struct sim_result){
        .outcomes = sim_alloc(setup->workload->request_count, sizeof *out->outcomes)};
    list_init(&world.homeless);
    struct sim_engine_events events = {.on_first = on_first, .on_done = on_done, .user = &world};
    world.router = make_router(setup, setup->store_directory);
    for (uint32_t i = 0; i < engines; i++) {
        world.engines[i] = sim_engine_new(&setup->engine, &events);
        world.next_ns[i] = UINT64_MAX;
        heap_put(&world, i, i);
        sim_router_on_restart(world.router, i, 0);
    }
    run(&world);
    sum_up(&world, out);
    sim_router_free(world.router);
    for (size_t i = 0; i < engines; i++) {
        sim_engine_free(world.engines[i]);
    }
    free(world.engines);
    free(world.next_ns);
    free(world.heap);
    free(world.place);
    free(world.up_ns);
    free(world.generation);
}

void sim_result_free(struct sim_result *result)
{
    free(result->outcomes);
    *result = (struct sim_result){0};
}
