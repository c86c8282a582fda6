/* What hurts: fan-out, churn at a full budget, large fleets, two threads. */
#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "bench/trie/bench.h"

enum { NAMESPACE = 9 };

/* ---- fanout: a million children under one system prompt ---- */

static uint64_t fanout_longest_ns(const struct bench *bench, size_t children)
{
    enum { SYSTEM_CHUNKS = 16 };
    struct random random = {.state = bench->seed};
    struct hashtrie *trie = bench_trie_new(bench, (size_t)1 << 30);
    bench_endpoints_add(trie, 4);
    uint64_t hashes[SYSTEM_CHUNKS + 1];
    for (size_t i = 0; i < SYSTEM_CHUNKS; i++) {
        hashes[i] = random_next(&random);
    }
    uint64_t longest = 0;
    for (size_t i = 0; i < children; i++) {
        hashes[SYSTEM_CHUNKS] = random_next(&random);
        struct hashtrie_key key = {
            .namespace_hash = NAMESPACE, .hashes = hashes, .count = SYSTEM_CHUNKS + 1};
        uint64_t start = clock_thread_cpu_ns();
        bench_route(trie, &key, (hashtrie_endpoint)(i % 4));
        uint64_t ns = clock_thread_cpu_ns() - start;
        longest = ns > longest ? ns : longest;
    }
    hashtrie_free(trie);
    return longest;
}

void bench_fanout(struct bench *bench)
{
    enum { REPEATS = 5, CHILDREN = 1000000 };
    uint64_t smallest = UINT64_MAX;
    for (int i = 0; i < REPEATS; i++) {
        uint64_t longest = fanout_longest_ns(bench, CHILDREN);
        smallest = longest < smallest ? longest : smallest;
    }
    bench_report(bench, "fanout", "fanout_max_us", "us", (double)smallest / 1e3, 1000);
}

/* ---- churn: every insert has to make room; long prompts and short ones take turns ---- */

void bench_churn(struct bench *bench)
{
    enum { CHUNKS_MAX = 512, SHORT_MAX = 6, CHURN_PHASE = 400000, SAMPLES_MAX = 1 << 22 };
    double seconds = bench->long_run ? 60 : 10;
    struct random random = {.state = bench->seed};
    uint64_t *samples = bench_alloc(SAMPLES_MAX * sizeof *samples);
    uint64_t rss_before = bench_rss_anon_bytes();
    struct hashtrie *trie = bench_trie_new(bench, (size_t)64 << 20);
    bench_endpoints_add(trie, 4);
    size_t count = 0;
    size_t operations = 0;
    uint64_t hashes[CHUNKS_MAX];
    struct hashtrie_stats stats = {.bytes_budget = 1};
    uint64_t end = clock_monotonic_ns() + (uint64_t)(seconds * 1e9);
    while (clock_monotonic_ns() < end) {
        struct hashtrie_key key = {.namespace_hash = NAMESPACE, .hashes = hashes};
        bool all_short = operations / CHURN_PHASE % 2 == 1;
        key.count = 1 + random_below(&random, all_short ? SHORT_MAX : CHUNKS_MAX);
        for (size_t i = 0; i < key.count; i++) {
            hashes[i] = random_next(&random);
        }
        uint64_t start = clock_thread_cpu_ns();
        bench_route(trie, &key, (hashtrie_endpoint)(operations % 4));
        uint64_t ns = clock_thread_cpu_ns() - start;
        operations++;
        hashtrie_get_stats(trie, &stats);
        CHECK(stats.bytes_used <= stats.bytes_budget);
        if (stats.evicted_node_count > 0 && count < SAMPLES_MAX) {
            samples[count++] = ns;
        }
    }
    double rss = (double)(bench_rss_anon_bytes() - rss_before) / (double)stats.bytes_budget;
    CHECK(count > 1000);
    qsort(samples, count, sizeof *samples, bench_compare_u64);
    size_t middle = count / 2;
    size_t rarest = count / 1000;
    double median = (double)samples[middle];
    double tail = (double)samples[count - rarest - 1];
    bench_report(bench, "churn", "churn_median_us", "us", median / 1e3, 0);
    bench_report(bench, "churn", "churn_p999_us", "us", tail / 1e3, 0);
    bench_report(bench, "churn", "churn_p999_ratio", "", tail / median, 20);
    bench_report(bench, "churn", "churn_rss_to_budget", "", rss, 1.0);
    bench_report(bench, "churn", "churn_max_us", "us", (double)samples[count - 1] / 1e3, 0);
    bench_free(samples);
    hashtrie_free(trie);
}

/* ---- fleet: many holders of the same prefixes ---- */

static double fleet_match_us(const struct bench *bench, size_t endpoints, double *remove_us)
{
    enum { PREFIXES = 32, CHUNKS = 64, MATCHES = 20000 };
    struct random random = {.state = bench->seed};
    struct hashtrie *trie = bench_trie_new(bench, (size_t)1 << 30);
    bench_endpoints_add(trie, endpoints);
    uint64_t hashes[PREFIXES][CHUNKS];
    for (size_t i = 0; i < PREFIXES; i++) {
        for (size_t j = 0; j < CHUNKS; j++) {
            hashes[i][j] = random_next(&random);
        }
        for (size_t j = 0; j < endpoints; j++) {
            struct hashtrie_key key = {
                .namespace_hash = NAMESPACE, .hashes = hashes[i], .count = CHUNKS};
            bench_check(hashtrie_insert(trie, &key, (hashtrie_endpoint)j, BENCH_NOW_S),
                        "cannot insert");
        }
    }
    struct hashtrie_match match;
    uint64_t start = clock_thread_cpu_ns();
    for (size_t i = 0; i < MATCHES; i++) {
        struct hashtrie_key key = {
            .namespace_hash = NAMESPACE, .hashes = hashes[i % PREFIXES], .count = CHUNKS};
        hashtrie_match(trie, &key, BENCH_NOW_S, &match);
    }
    double match_us = (double)(clock_thread_cpu_ns() - start) / MATCHES / 1e3;
    start = clock_thread_cpu_ns();
    for (size_t i = 0; i < endpoints; i++) {
        hashtrie_endpoint_remove(trie, (hashtrie_endpoint)i);
    }
    *remove_us = (double)(clock_thread_cpu_ns() - start) / (double)endpoints / 1e3;
    hashtrie_free(trie);
    return match_us;
}

void bench_fleet(struct bench *bench)
{
    static const struct {
        size_t endpoints;
        const char *match_key;
        const char *remove_key;
    } fleets[] = {{8, "fleet8_match_us", "fleet8_remove_us"},
                  {64, "fleet64_match_us", "fleet64_remove_us"},
                  {1000, "fleet1000_match_us", "fleet1000_remove_us"},
                  {4000, "fleet4000_match_us", "fleet4000_remove_us"}};
    for (size_t i = 0; i < sizeof fleets / sizeof *fleets; i++) {
        double remove_us = 0;
        double match_us = fleet_match_us(bench, fleets[i].endpoints, &remove_us);
        bench_report(bench, "fleet", fleets[i].match_key, "us", match_us, 0);
        bench_report(bench, "fleet", fleets[i].remove_key, "us", remove_us, 0);
    }
}

/* ---- threads: hashing outside the lock, match and insert inside ---- */

enum { THREAD_PROMPT_BYTES = 64 * 1024, THREAD_PROMPTS = 64, THREAD_ROUTES = 20000 };

struct worker {
    struct hashtrie *trie;
    const unsigned char *bytes;
    size_t offset;
};

static void *route_many(void *argument)
{
    struct worker *worker = argument;
    uint64_t hashes[THREAD_PROMPT_BYTES / BENCH_CHUNK];
    for (size_t i = 0; i < THREAD_ROUTES; i++) {
        const unsigned char *prompt =
            worker->bytes + (i + worker->offset) % THREAD_PROMPTS * THREAD_PROMPT_BYTES;
        struct hashtrie_key key = {.namespace_hash = NAMESPACE, .hashes = hashes};
        key.count = hashtrie_hash_chunks(NAMESPACE, prompt, THREAD_PROMPT_BYTES, BENCH_CHUNK,
                                         hashes, THREAD_PROMPT_BYTES / BENCH_CHUNK);
        bench_route(worker->trie, &key, 0);
    }
    return NULL;
}

/* Routes a second. */
static double run_threads(const struct bench *bench, const unsigned char *bytes, size_t threads)
{
    enum { THREADS_MAX = 2 };
    struct hashtrie *trie = bench_trie_new(bench, (size_t)1 << 30);
    bench_endpoints_add(trie, 4);
    pthread_t ids[THREADS_MAX];
    struct worker workers[THREADS_MAX];
    uint64_t start = clock_monotonic_ns();
    for (size_t i = 0; i < threads; i++) {
        workers[i] =
            (struct worker){.trie = trie, .bytes = bytes, .offset = i * THREAD_PROMPTS / 2};
        CHECK(pthread_create(&ids[i], NULL, route_many, &workers[i]) == 0);
    }
    for (size_t i = 0; i < threads; i++) {
        CHECK(pthread_join(ids[i], NULL) == 0);
    }
    double seconds = (double)(clock_monotonic_ns() - start) / 1e9;
    hashtrie_free(trie);
    return (double)(threads * THREAD_ROUTES) / seconds;
}

void bench_threads(struct bench *bench)
{
    enum { REPEATS = 5 };
    struct random random = {.state = bench->seed};
    size_t size = (size_t)THREAD_PROMPT_BYTES * THREAD_PROMPTS;
    unsigned char *bytes = bench_alloc(size);
    bench_fill_random(&random, bytes, size);
    double one = 0;
    double two = 0;
    for (int i = 0; i < REPEATS;
         i++) { /* In turn; the best of each, since the machine's other work only slows. */
        double rate = run_threads(bench, bytes, 1);
        one = rate > one ? rate : one;
        rate = run_threads(bench, bytes, 2);
        two = rate > two ? rate : two;
    }
    bench_report(bench, "threads", "routes_per_s_1", "1/s", one, 0);
    bench_report(bench, "threads", "routes_per_s_2", "1/s", two, 0);
    bench_report(bench, "threads", "threads_ratio", "", two / one, -1.6);
    bench_free(bytes);
}
