/* Prompts of the kinds that routers see: conversations, full hits, short ones. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bench/trie/bench.h"

enum {
    ROUNDS = 5,
    CONVERSATIONS = 1000,
    TOKEN_BYTES = 4,
    TOKENS_MIN = 8 * 1024,
    TOKENS_MAX = 64 * 1024,
    HOT_PROMPTS = 64,
    SHORT_CHUNKS_MAX = 4,
    NAMESPACE = 9,
};

/* ---- multiround: speed and memory ---- */

struct multiround {
    double hash_ns;
    double route_ns;
    double bytes;
    double routes;
};

/* One conversation: its prompt grows by a fifth each round. Hashing alone comes first and again, so
 * both are warm. */
static void converse(struct hashtrie *trie, const unsigned char *bytes, size_t size,
                     uint64_t *hashes, hashtrie_endpoint fallback, struct multiround *sum)
{
    size_t step = size / ROUNDS;
    uint64_t times[3];
    for (int pass = 0; pass < 2; pass++) {
        times[0] = clock_thread_cpu_ns();
        for (size_t round = 1; round <= ROUNDS; round++) {
            (void)hashtrie_hash_chunks(NAMESPACE, bytes, step * round, BENCH_CHUNK, hashes,
                                       BENCH_HASHES_MAX);
        }
    }
    times[1] = clock_thread_cpu_ns();
    for (size_t round = 1; round <= ROUNDS; round++) {
        struct hashtrie_key key = {.namespace_hash = NAMESPACE, .hashes = hashes};
        key.count = hashtrie_hash_chunks(NAMESPACE, bytes, step * round, BENCH_CHUNK, hashes,
                                         BENCH_HASHES_MAX);
        bench_route(trie, &key, fallback);
        sum->bytes += (double)(step * round);
        sum->routes++;
    }
    times[2] = clock_thread_cpu_ns();
    sum->hash_ns += (double)(times[1] - times[0]);
    sum->route_ns += (double)(times[2] - times[1]);
}

void bench_multiround(struct bench *bench)
{
    struct random random = {.state = bench->seed};
    size_t size_max = (size_t)TOKENS_MAX * TOKEN_BYTES;
    unsigned char *bytes = bench_alloc(size_max);
    uint64_t *hashes = bench_alloc(BENCH_HASHES_MAX * sizeof *hashes);
    uint64_t rss_before = bench_rss_anon_bytes();
    struct hashtrie *trie = bench_trie_new(bench, (size_t)4 << 30);
    bench_endpoints_add(trie, 4);
    struct multiround sum = {0};
    for (uint32_t i = 0; i < CONVERSATIONS; i++) {
        size_t tokens = TOKENS_MIN + random_below(&random, TOKENS_MAX - TOKENS_MIN);
        bench_fill_random(&random, bytes, tokens * TOKEN_BYTES);
        converse(trie, bytes, tokens * TOKEN_BYTES, hashes, (hashtrie_endpoint)(i % 4), &sum);
    }
    struct hashtrie_stats stats;
    hashtrie_get_stats(trie, &stats);
    double chunks = (double)stats.chunk_count;
    double rss = (double)(bench_rss_anon_bytes() - rss_before);
    bench_report(bench, "multiround", "hash_us", "us", sum.hash_ns / sum.routes / 1e3, 0);
    bench_report(bench, "multiround", "route_us", "us", sum.route_ns / sum.routes / 1e3, 0);
    bench_report(bench, "multiround", "route_ratio", "", sum.route_ns / sum.hash_ns, 1.2);
    bench_report(bench, "multiround", "gb_per_s", "GB/s", sum.bytes / sum.route_ns, 0);
    bench_report(bench, "memory", "bytes_per_chunk", "bytes", (double)stats.bytes_used / chunks,
                 5.0);
    bench_report(bench, "memory", "rss_bytes_per_chunk", "bytes", rss / chunks, 5.0);
    bench_report(bench, "memory", "rss_to_counted", "", rss / (double)stats.bytes_used, 1.1);
    hashtrie_free(trie);
    bench_free(hashes);
    bench_free(bytes);
}

/* ---- hot: full hits ---- */

struct hot {
    double hash_us; /* Of one prompt. */
    double full_us; /* Hash, match and insert. */
};

static struct hot run_hot(const struct bench *bench, const unsigned char *bytes, size_t size,
                          size_t prompts, size_t repeats)
{
    size_t chunks = size / BENCH_CHUNK;
    uint64_t *hashes = bench_alloc(chunks * sizeof *hashes);
    struct hashtrie *trie = bench_trie_new(bench, (size_t)1 << 30);
    bench_endpoints_add(trie, 4);
    double hash_ns = 0;
    double full_ns = 0;
    for (size_t repeat = 0; repeat <= repeats;
         repeat++) { /* The first one fills the trie and is not counted. */
        uint64_t start = clock_thread_cpu_ns();
        for (size_t i = 0; i < prompts; i++) {
            (void)hashtrie_hash_chunks(NAMESPACE, bytes + i * size, size, BENCH_CHUNK, hashes,
                                       chunks);
        }
        uint64_t middle = clock_thread_cpu_ns();
        for (size_t i = 0; i < prompts; i++) {
            struct hashtrie_key key = {.namespace_hash = NAMESPACE, .hashes = hashes};
            key.count = hashtrie_hash_chunks(NAMESPACE, bytes + i * size, size, BENCH_CHUNK, hashes,
                                             chunks);
            bench_route(trie, &key, (hashtrie_endpoint)(i % 4));
        }
        uint64_t end = clock_thread_cpu_ns();
        hash_ns += repeat > 0 ? (double)(middle - start) : 0;
        full_ns += repeat > 0 ? (double)(end - middle) : 0;
    }
    hashtrie_free(trie);
    bench_free(hashes);
    double count = (double)(prompts * repeats);
    return (struct hot){.hash_us = hash_ns / count / 1e3, .full_us = full_ns / count / 1e3};
}

/* U+3000 .. U+9FFF in UTF-8: three bytes each. */
static void fill_cjk(struct random *random, unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i + 3 <= size; i += 3) {
        uint32_t point = 0x3000 + random_below(random, 0x7000);
        bytes[i] = (unsigned char)(0xe0 | point >> 12);
        bytes[i + 1] = (unsigned char)(0x80 | (point >> 6 & 0x3f));
        bytes[i + 2] = (unsigned char)(0x80 | (point & 0x3f));
    }
}

void bench_hot(struct bench *bench)
{
    enum { BIG = 1 << 20, BIG_PROMPTS = 4 };
    struct random random = {.state = bench->seed};
    unsigned char *bytes = bench_alloc((size_t)BIG * BIG_PROMPTS);
    for (size_t i = 0; i < (size_t)BIG * BIG_PROMPTS; i++) {
        bytes[i] = (unsigned char)(' ' + random_below(&random, 95));
    }
    struct hot small = run_hot(bench, bytes, 4096, HOT_PROMPTS, 2000);
    struct hot middle = run_hot(bench, bytes, 65536, HOT_PROMPTS, 200);
    struct hot big = run_hot(bench, bytes, BIG, BIG_PROMPTS, 100);
    fill_cjk(&random, bytes, (size_t)65536 * HOT_PROMPTS);
    struct hot cjk = run_hot(bench, bytes, 65536, HOT_PROMPTS, 200);
    bench_report(bench, "hot", "hot4k_us", "us", small.full_us, 0);
    bench_report(bench, "hot", "hot4k_ratio", "", small.full_us / small.hash_us, 2.0);
    bench_report(bench, "hot", "hot64k_us", "us", middle.full_us, 0);
    bench_report(bench, "hot", "hot64k_ratio", "", middle.full_us / middle.hash_us, 1.3);
    bench_report(bench, "hot", "hot1m_us", "us", big.full_us, 0);
    bench_report(bench, "hot", "hot1m_ratio", "", big.full_us / big.hash_us, 1.15);
    bench_report(bench, "hot", "cjk_to_ascii", "", cjk.full_us / middle.full_us, 1.1);
    bench_free(bytes);
}

/* ---- short: one to four chunks, all distinct ---- */

void bench_short(struct bench *bench)
{
    size_t count = bench->long_run ? 10000000 : 2000000;
    struct random random = {.state = bench->seed};
    struct hashtrie *trie = bench_trie_new(bench, (size_t)4 << 30);
    bench_endpoints_add(trie, 4);
    uint64_t start = clock_thread_cpu_ns();
    for (size_t i = 0; i < count; i++) {
        uint64_t hashes[SHORT_CHUNKS_MAX];
        struct hashtrie_key key = {.namespace_hash = NAMESPACE, .hashes = hashes};
        key.count = 1 + random_below(&random, SHORT_CHUNKS_MAX);
        for (size_t j = 0; j < key.count; j++) {
            hashes[j] = random_next(&random);
        }
        bench_route(trie, &key, (hashtrie_endpoint)(i % 4));
    }
    double ns = (double)(clock_thread_cpu_ns() - start);
    struct hashtrie_stats stats;
    hashtrie_get_stats(trie, &stats);
    bench_report(bench, "short", "short_us", "us", ns / (double)count / 1e3, 1.0);
    bench_report(bench, "short", "bytes_per_node", "bytes",
                 (double)stats.bytes_used / (double)stats.node_count, 96);
    hashtrie_free(trie);
}
