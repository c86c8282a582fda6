/*
 * bench-trie: speed and size of the hot trie. Prints a table, or one JSON object with --json.
 * Ratios are taken within one run, against XXH3 over the same bytes; nothing here passes or fails.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "bench/trie/bench.h"

static const struct {
    const char *name;
    void (*run)(struct bench *bench);
} workloads[] = {
    {"multiround", bench_multiround}, {"hot", bench_hot},         {"agent", bench_agent},
    {"short", bench_short},           {"fanout", bench_fanout},   {"churn", bench_churn},
    {"fleet", bench_fleet},           {"threads", bench_threads},
};

void bench_report(struct bench *bench, const char *workload, const char *key, const char *unit,
                  double value, double limit)
{
    CHECK(bench->figure_count < BENCH_FIGURES_MAX);
    bench->figures[bench->figure_count++] = (struct bench_figure){
        .workload = workload, .key = key, .unit = unit, .value = value, .limit = limit};
}

void bench_check(enum hashtrie_status status, const char *what)
{
    if (status != HASHTRIE_OK) {
        (void)fprintf(stderr, "bench-trie: %s: %s\n", what, hashtrie_strerror(status));
        exit(1);
    }
}

struct hashtrie *bench_trie_new(const struct bench *bench, size_t budget_bytes)
{
    struct hashtrie_options options = hashtrie_options_default(budget_bytes);
    options.seed = bench->seed;
    struct hashtrie *trie = NULL;
    bench_check(hashtrie_new(&options, &trie), "cannot make a trie");
    return trie;
}

void bench_endpoints_add(struct hashtrie *trie, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "http://engine-%zu:8000", i);
        hashtrie_endpoint endpoint = 0;
        bench_check(hashtrie_endpoint_add(trie, name, "m", &endpoint), "cannot add an endpoint");
        CHECK(endpoint == i);
    }
}

void *bench_alloc(size_t size)
{
    void *pointer = malloc(size);
    if (pointer == NULL) {
        (void)fprintf(stderr, "bench-trie: no memory for %zu bytes\n", size);
        exit(1);
    }
    memset(pointer, 1, size);
    return pointer;
}

void bench_free(void *pointer)
{
    free(pointer);
}

uint64_t bench_rss_anon_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    uint64_t kib = 0;
    char line[128];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        /* NOLINTNEXTLINE(cert-err34-c): the kernel writes no number that does not fit. */
        if (sscanf(line, "RssAnon: %" SCNu64, &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file); /* Read only. */
    }
    return kib * 1024;
}

void bench_fill_random(struct random *random, unsigned char *bytes, size_t size)
{
    size_t i = 0;
    for (; i + sizeof(uint64_t) <= size; i += sizeof(uint64_t)) {
        uint64_t value = random_next(random);
        memcpy(bytes + i, &value, sizeof value);
    }
    for (; i < size; i++) {
        bytes[i] = (unsigned char)random_next(random);
    }
}

void bench_route(struct hashtrie *trie, const struct hashtrie_key *key, hashtrie_endpoint fallback)
{
    struct hashtrie_match match;
    hashtrie_lock(trie);
    hashtrie_match(trie, key, BENCH_NOW_S, &match);
    hashtrie_endpoint endpoint = match.holder_count > 0 ? match.holders[0].endpoint : fallback;
    enum hashtrie_status status = hashtrie_insert(trie, key, endpoint, BENCH_NOW_S);
    hashtrie_unlock(trie);
    bench_check(status, "cannot insert");
}

int bench_compare_u64(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void print_json(const struct bench *bench)
{
    (void)printf("{\"seed\": %" PRIu64, bench->seed);
    for (size_t i = 0; i < bench->figure_count; i++) {
        (void)printf(", \"%s\": %.6g", bench->figures[i].key, bench->figures[i].value);
    }
    (void)printf("}\n");
}

static void print_table(const struct bench *bench)
{
    (void)printf("%-12s %-24s %14s %-8s %s\n", "workload", "figure", "value", "unit", "target");
    for (size_t i = 0; i < bench->figure_count; i++) {
        const struct bench_figure *figure = &bench->figures[i];
        (void)printf("%-12s %-24s %14.4g %-8s", figure->workload, figure->key, figure->value,
                     figure->unit);
        if (figure->limit > 0) {
            (void)printf(" <= %g%s", figure->limit,
                         figure->value <= figure->limit ? "" : "  MISSED");
        } else if (figure->limit < 0) {
            (void)printf(" >= %g%s", -figure->limit,
                         figure->value >= -figure->limit ? "" : "  MISSED");
        }
        (void)printf("\n");
    }
}

static int usage(FILE *out, int status)
{
    (void)fprintf(out,
                  "usage: bench-trie [--json] [--long] [--seed N] [--traces DIR] [WORKLOAD ...]\n"
                  "workloads (default: all):");
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        (void)fprintf(out, " %s", workloads[i].name);
    }
    (void)fprintf(out, "\n--long takes the full sizes: 10 million short prompts, 60 s of churn\n"
                       "--traces: `agent` runs over DIR/conversations.jsonl, too: a line is\n"
                       "{\"messages\": [...]} as chat bodies have them\n");
    return status;
}

static void run_named(struct bench *bench, const char *name)
{
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(name, workloads[i].name) == 0) {
            workloads[i].run(bench);
            return;
        }
    }
    exit(usage(stderr, 2));
}

static uint64_t parse_seed(const char *text)
{
    char *end = NULL;
    errno = 0;
    uint64_t seed = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0') {
        (void)fprintf(stderr, "bench-trie: --seed takes a number, not '%s'\n", text);
        exit(2);
    }
    return seed;
}

int main(int argc, char **argv)
{
    struct bench bench = {.seed = 1};
    bool json = false;
    int named = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--long") == 0) {
            bench.long_run = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            bench.seed = parse_seed(argv[++i]);
        } else if (strcmp(argv[i], "--traces") == 0 && i + 1 < argc) {
            bench.traces = argv[++i];
        } else if (strcmp(argv[i], "--help") == 0) {
            return usage(stdout, 0);
        } else if (argv[i][0] == '-') {
            return usage(stderr, 2);
        } else {
            argv[named++] = argv[i];
        }
    }
    for (int i = 0; i < named; i++) {
        run_named(&bench, argv[i]);
    }
    for (size_t i = 0; named == 0 && i < sizeof workloads / sizeof *workloads; i++) {
        (void)fprintf(stderr, "%s ...\n", workloads[i].name);
        workloads[i].run(&bench);
    }
    if (json) {
        print_json(&bench);
    } else {
        print_table(&bench);
    }
    return 0;
}
