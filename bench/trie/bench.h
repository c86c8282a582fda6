/* What the workloads of bench-trie share: figures, time, memory, and a generator of prompts. */
#ifndef HASHTRIE_BENCH_TRIE_BENCH_H
#define HASHTRIE_BENCH_TRIE_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hashtrie/trie.h"

#include "base/random.h"

enum {
    BENCH_FIGURES_MAX = 96,
    BENCH_HASHES_MAX = 16384,
    BENCH_CHUNK = HASHTRIE_CHUNK_SIZE_DEFAULT,
    BENCH_NOW_S = 1700000000,
};

/* One measured number. `limit` 0: informative; negative: at least so much. */
struct bench_figure {
    const char *workload;
    const char *key; /* In the JSON object. */
    const char *unit;
    double value;
    double limit;
};

struct bench {
    uint64_t seed;
    bool long_run;
    const char *traces; /* Folder of recorded conversations, or NULL. */
    struct bench_figure figures[BENCH_FIGURES_MAX];
    size_t figure_count;
};

void bench_report(struct bench *bench, const char *workload, const char *key, const char *unit,
                  double value, double limit);

/* Ends the program with a message if `status` is no success: a benchmark that cannot run shows no
 * figures. */
void bench_check(enum hashtrie_status status, const char *what);

struct hashtrie *bench_trie_new(const struct bench *bench, size_t budget_bytes);
/* Adds endpoints 0 .. count - 1; their numbers are the same. */
void bench_endpoints_add(struct hashtrie *trie, size_t count);

void *bench_alloc(size_t size); /* Never NULL; all of it touched. */
void bench_free(void *pointer);
uint64_t bench_rss_anon_bytes(void);

void bench_fill_random(struct random *random, unsigned char *bytes, size_t size);

/* Match, insert at the deepest holder (else at `fallback`), as a router does it. */
void bench_route(struct hashtrie *trie, const struct hashtrie_key *key, hashtrie_endpoint fallback);

int bench_compare_u64(const void *a, const void *b);

/* The workloads, one function each. */
void bench_multiround(struct bench *bench);
void bench_hot(struct bench *bench);
void bench_agent(struct bench *bench);
void bench_short(struct bench *bench);
void bench_fanout(struct bench *bench);
void bench_churn(struct bench *bench);
void bench_fleet(struct bench *bench);
void bench_threads(struct bench *bench);

#endif
