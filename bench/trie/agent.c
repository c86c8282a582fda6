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
static void route_body(struct router *router, const char *body, size_t size,
                       hashtrie_endpoint fallback)
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
    bench_route(router->trie, &key, fallback);
    prompt_release(router->reader);
}

struct sum {
    double bytes;
    double index_ns; /* simdjson's first stage. */
    double dom_ns;
    double route_ns;
};

/* All bodies from `from` up to *end, which is set so that they have GROUP_BYTES. */
static void run_group(struct router *router, struct agent_dom *dom,
                      const struct agent_bodies *bodies, size_t from, size_t *end, bool route_first,
                      struct sum *sum)
{
    size_t bytes = 0;
    size_t to = from;
    while (to < bodies->count && bytes < GROUP_BYTES) {
        bytes += bodies->list[to++].size;
    }
    for (int pass = 0; pass < 2; pass++) {
        uint64_t start = clock_thread_cpu_ns();
        if (route_first == (pass == 0)) {
            for (size_t i = from; i < to; i++) {
                route_body(router, bodies->bytes.data + bodies->list[i].offset,
                           bodies->list[i].size, (hashtrie_endpoint)(i % ENDPOINTS));
            }
            sum->route_ns += (double)(clock_thread_cpu_ns() - start);
            continue;
        }
        for (size_t i = from; i < to; i++) {
            CHECK(agent_dom_parse(dom, bodies->bytes.data + bodies->list[i].offset,
                                  bodies->list[i].size));
        }
        sum->dom_ns += (double)(clock_thread_cpu_ns() - start);
    }
    uint64_t start = clock_thread_cpu_ns();
    for (size_t i = from; i < to; i++) {
        CHECK(agent_dom_index(dom, bodies->bytes.data + bodies->list[i].offset,
                              bodies->list[i].size));
    }
    sum->index_ns += (double)(clock_thread_cpu_ns() - start);
    sum->bytes += (double)bytes;
    *end = to;
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
    struct sum sum = {0};
    struct agent_dom *dom = agent_dom_new(largest(bodies));
    struct router router = {.reader = prompt_reader_new(mem)};
    CHECK(dom != NULL && router.reader != NULL);
    router.hashes = bench_alloc(HASHES_PER_BODY * sizeof *router.hashes);
    buf_init(&router.name, mem, SIZE_MAX / 2);
    for (int repeat = 0; repeat <= REPEATS; repeat++) {
        router.trie = bench_trie_new(bench, (size_t)1 << 30);
        bench_endpoints_add(router.trie, ENDPOINTS);
        for (size_t i = 0; i < bodies->count;) {
            run_group(&router, dom, bodies, i, &i, repeat % 2 == 0, &sum);
        }
        hashtrie_free(router.trie);
        sum = repeat == 0 ? (struct sum){0} : sum;
    }
    buf_fini(&router.name);
    bench_free(router.hashes);
    prompt_reader_free(router.reader);
    agent_dom_free(dom);
    return sum;
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
    bench_report(bench, "agent", "agent_gb_per_s", "GB/s", sum.bytes / sum.route_ns, 0);
    bench_report(bench, "agent", "agent_ratio", "", sum.dom_ns / sum.route_ns, -0.7);
    bench_report(bench, "agent", "agent_dom_gb_per_s", "GB/s", sum.bytes / sum.dom_ns, 0);
    bench_report(bench, "agent", "agent_index_gb_per_s", "GB/s", sum.bytes / sum.index_ns, 0);
    agent_bodies_init(&bodies, &mem);
    agent_bodies_generate(&bodies, bench->seed, AGENT_ASCII);
    sum = run_bodies(bench, &mem, &bodies);
    agent_bodies_fini(&bodies);
    bench_report(bench, "agent", "agent_ascii_gb_per_s", "GB/s", sum.bytes / sum.route_ns, 0);
    bench_report(bench, "agent", "agent_ascii_ratio", "", sum.dom_ns / sum.route_ns, -0.7);
    if (bench->traces != NULL) {
        agent_bodies_init(&bodies, &mem);
        agent_bodies_load(&bodies, bench->traces);
        sum = run_bodies(bench, &mem, &bodies);
        agent_bodies_fini(&bodies);
        bench_report(bench, "agent", "agent_traces_gb_per_s", "GB/s", sum.bytes / sum.route_ns, 0);
        bench_report(bench, "agent", "agent_traces_ratio", "", sum.dom_ns / sum.route_ns, 0);
    }
    mem_fini(&mem);
}
