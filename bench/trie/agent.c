/*
 * agent: from a body's bytes to its endpoint (parse, key, hash, match, insert) against simdjson's
 * DOM parser alone over the same bodies.
 */
#include "bench/trie/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "bench/trie/bench.h"
#include "prompt/prompt.h"

enum {
    REPEATS = 5,
    GROUP_BYTES = 1024 * 1024, /* Timed together, so that neither side finds a body in the caches
                                  near the core because the other has just read it. */
    HASHES_PER_BODY = 128 * 1024,
    ENDPOINTS = 4,
};

struct router {
    struct prompt_reader *reader;
    struct hashtrie *trie;
    struct buf name; /* Of the namespace. */
    uint64_t *hashes;
    size_t requests; /* So far: endpoints take turns where nobody holds a prefix. */
};

static void sink_hasher(void *user, const void *bytes, size_t size)
{
    hashtrie_hasher_update(user, bytes, size);
}

static void sink_buf(void *user, const void *bytes, size_t size)
{
    CHECK(buf_append(user, bytes, size));
}

/* As src/proxy/pick.c does it. */
static void route_body(struct router *router, const char *body, size_t size)
{
    struct prompt prompt;
    CHECK(prompt_read(router->reader, body, size, &prompt) == PROMPT_OK);
    router->name.size = 0;
    CHECK(prompt_namespace(&prompt, prompt.model, sink_buf, &router->name) == PROMPT_OK);
    uint64_t namespace_hash = hashtrie_hash_namespace(router->name.data, router->name.size);
    struct hashtrie_hasher hasher;
    hashtrie_hasher_init(&hasher, namespace_hash, BENCH_CHUNK, router->hashes, HASHES_PER_BODY);
    CHECK(prompt_key(&prompt, sink_hasher, &hasher) == PROMPT_OK);
    struct hashtrie_key key = {
        .namespace_hash = namespace_hash, .hashes = router->hashes, .count = hasher.count};
    bench_route(router->trie, &key, (hashtrie_endpoint)(router->requests++ % ENDPOINTS));
    prompt_release(router->reader);
}

/* What is timed. */
enum side {
    SIDE_ROUTE, /* All of ours. */
    SIDE_DOM,   /* simdjson's DOM. */
    SIDE_INDEX, /* simdjson's first stage alone. */
};

struct sum {
    double bytes;
    double ns[SIDE_INDEX + 1];
};

struct run {
    const struct agent_bodies *bodies;
    struct router router;
    struct agent_dom *dom;
    struct sum sum;
};

/* Bodies from `from` on that have GROUP_BYTES together; returns the index behind them. */
static size_t group_end(const struct agent_bodies *bodies, size_t from)
{
    size_t bytes = 0;
    size_t end = from;
    while (end < bodies->count && bytes < GROUP_BYTES) {
        bytes += bodies->list[end++].size;
    }
    return end;
}

static void run_one(struct run *run, enum side side, const struct agent_body *body)
{
    const char *bytes = run->bodies->bytes.data + body->offset;
    switch (side) {
    case SIDE_ROUTE:
        route_body(&run->router, bytes, body->size);
        break;
    case SIDE_DOM:
        CHECK(agent_dom_parse(run->dom, bytes, body->size));
        break;
    case SIDE_INDEX:
        CHECK(agent_dom_index(run->dom, bytes, body->size));
        break;
    }
}

static void time_group(struct run *run, enum side side, size_t from, size_t end)
{
    uint64_t start = clock_thread_cpu_ns();
    for (size_t i = from; i < end; i++) {
        run_one(run, side, &run->bodies->list[i]);
    }
    run->sum.ns[side] += (double)(clock_thread_cpu_ns() - start);
}

/* All bodies once. Who comes first in a group changes from repeat to repeat. */
static void run_all(struct run *run, int repeat)
{
    for (size_t from = 0, end; from < run->bodies->count; from = end) {
        end = group_end(run->bodies, from);
        time_group(run, repeat % 2 == 0 ? SIDE_ROUTE : SIDE_DOM, from, end);
        time_group(run, repeat % 2 == 0 ? SIDE_DOM : SIDE_ROUTE, from, end);
        time_group(run, SIDE_INDEX, from, end);
        for (size_t i = from; i < end; i++) {
            run->sum.bytes += (double)run->bodies->list[i].size;
        }
    }
}

static size_t largest(const struct agent_bodies *bodies)
{
    size_t size = 0;
    for (size_t i = 0; i < bodies->count; i++) {
        size = bodies->list[i].size > size ? bodies->list[i].size : size;
    }
    return size;
}

/* A trie for each repeat: later turns of a conversation bring new chunks, as they do in service.
 * The first repeat warms up and does not count. */
static struct sum run_bodies(const struct bench *bench, struct mem *mem,
                             const struct agent_bodies *bodies)
{
    struct run run = {.bodies = bodies, .dom = agent_dom_new(largest(bodies))};
    struct router *router = &run.router;
    router->reader = prompt_reader_new(mem);
    CHECK(run.dom != NULL && router->reader != NULL);
    router->hashes = bench_alloc(HASHES_PER_BODY * sizeof *router->hashes);
    buf_init(&router->name, mem, SIZE_MAX / 2);
    for (int repeat = 0; repeat <= REPEATS; repeat++) {
        router->trie = bench_trie_new(bench, (size_t)1 << 30);
        bench_endpoints_add(router->trie, ENDPOINTS);
        run_all(&run, repeat);
        hashtrie_free(router->trie);
        if (repeat == 0) { /* Warmed up. */
            run.sum = (struct sum){0};
        }
    }
    buf_fini(&router->name);
    bench_free(router->hashes);
    prompt_reader_free(router->reader);
    agent_dom_free(run.dom);
    return run.sum;
}

static double rate(const struct sum *sum, enum side side)
{
    return sum->bytes / sum->ns[side]; /* GB/s. */
}

void bench_agent(struct bench *bench)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct agent_bodies bodies;
    agent_bodies_init(&bodies, &mem);
    agent_bodies_generate(&bodies, bench->seed, AGENT_COMPACT);
    struct sum sum = run_bodies(bench, &mem, &bodies);
    agent_bodies_fini(&bodies);
    bench_report(bench, "agent", "agent_gb_per_s", "GB/s", rate(&sum, SIDE_ROUTE), 0);
    bench_report(bench, "agent", "agent_ratio", "", rate(&sum, SIDE_ROUTE) / rate(&sum, SIDE_DOM),
                 -0.7);
    bench_report(bench, "agent", "agent_dom_gb_per_s", "GB/s", rate(&sum, SIDE_DOM), 0);
    bench_report(bench, "agent", "agent_index_gb_per_s", "GB/s", rate(&sum, SIDE_INDEX), 0);
    agent_bodies_init(&bodies, &mem);
    agent_bodies_generate(&bodies, bench->seed, AGENT_ASCII);
    sum = run_bodies(bench, &mem, &bodies);
    agent_bodies_fini(&bodies);
    bench_report(bench, "agent", "agent_ascii_gb_per_s", "GB/s", rate(&sum, SIDE_ROUTE), 0);
    bench_report(bench, "agent", "agent_ascii_ratio", "",
                 rate(&sum, SIDE_ROUTE) / rate(&sum, SIDE_DOM), -0.7);
    if (bench->traces != NULL) {
        agent_bodies_init(&bodies, &mem);
        agent_bodies_load(&bodies, bench->traces);
        sum = run_bodies(bench, &mem, &bodies);
        agent_bodies_fini(&bodies);
        bench_report(bench, "agent", "agent_traces_gb_per_s", "GB/s", rate(&sum, SIDE_ROUTE), 0);
        bench_report(bench, "agent", "agent_traces_ratio", "",
                     rate(&sum, SIDE_ROUTE) / rate(&sum, SIDE_DOM), 0);
    }
    mem_fini(&mem);
}
