/*
 * bench-store: speed of the store through the library, with conversations of 64k tokens. Prints a
 * table, or one JSON object with --json. `DIR` is where the store goes: a disk that counts.
 *
 *     write    5,000 inserts a second in real time: does the writer keep up, and at what cost?
 *     restore  opens that store; to the first prompt matched again
 *     reload   cold prefixes: asked, read, put back, matched
 */
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hashtrie/hashtrie.h"

#include "base/clock.h"
#include "base/random.h"

enum {
    ENDPOINTS = 8,
    SYSTEMS = 16, /* Shared beginnings, */
    SYSTEM_CHUNKS = 40,
    FIRST_CHUNKS = 1500, /* then a first prompt of its own, */
    TURNS = 20,          /* then turns of 25 to 74 chunks: 2,000 on the average of all. */
    TURN_CHUNKS_MIN = 25,
    TURN_CHUNKS_SPREAD = 50,
    CHUNKS_MAX = SYSTEM_CHUNKS + FIRST_CHUNKS + TURNS * (TURN_CHUNKS_MIN + TURN_CHUNKS_SPREAD),
    RELOADS = 2000,
    FIGURES_MAX = 32,
    WAIT_MS = 120000,
    BUDGET_MIB = 1024,
};

struct figure {
    const char *key;
    const char *unit;
    double value;
    double limit; /* 0: informative; negative: at least so much. */
};

struct bench {
    const char *directory;
    uint64_t seed;
    uint32_t rate;          /* Inserts a second. */
    uint32_t seconds;       /* Measured. */
    uint32_t conversations; /* Open at a time: each has a turn every conversations / rate s. */
    uint32_t *turns;        /* Owned: of each conversation, so far. */
    uint32_t *generations;  /* Owned: how many have ended in its place. */
    uint32_t *lengths;      /* Owned: chunks. */
    struct hashtrie *trie;
    struct hashtrie_store *store;
    struct figure figures[FIGURES_MAX];
    size_t figure_count;
};

static void check(enum hashtrie_status status, const char *what)
{
    if (status != HASHTRIE_OK) {
        (void)fprintf(stderr, "bench-store: %s: %s\n", what, hashtrie_strerror(status));
        exit(1);
    }
}

static void report(struct bench *bench, const char *key, const char *unit, double value,
                   double limit)
{
    bench->figures[bench->figure_count++] =
        (struct figure){.key = key, .unit = unit, .value = value, .limit = limit};
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL) {
        (void)fprintf(stderr, "bench-store: no memory\n");
        exit(1);
    }
    return memory;
}

/* ---- Conversations ---- */

static void fill(uint64_t *hashes, size_t from, size_t to, uint64_t seed)
{
    for (size_t i = from; i < to; i++) {
        struct random random = {.state = seed ^ (i * UINT64_C(0x9e3779b97f4a7c15))};
        hashes[i] = random_next(&random);
    }
}

/* The prompt of a conversation as it stands. */
static struct hashtrie_key prompt(const struct bench *bench, uint32_t number, uint64_t *hashes)
{
    uint64_t own = bench->seed + ((uint64_t)number << 32 | bench->generations[number]);
    fill(hashes, 0, SYSTEM_CHUNKS, bench->seed + number % SYSTEMS);
    fill(hashes, SYSTEM_CHUNKS, bench->lengths[number], own * UINT64_C(0xd1342543de82ef95));
    return (struct hashtrie_key){
        .namespace_hash = 1, .hashes = hashes, .count = bench->lengths[number]};
}

static void next_turn(struct bench *bench, uint32_t number, struct random *random)
{
    if (bench->turns[number]++ % TURNS == 0) {
        bench->generations[number]++;
        bench->lengths[number] = SYSTEM_CHUNKS + FIRST_CHUNKS;
    }
    bench->lengths[number] += TURN_CHUNKS_MIN + random_below(random, TURN_CHUNKS_SPREAD);
}

static void insert(struct bench *bench, uint32_t number, uint64_t *hashes)
{
    struct hashtrie_key key = prompt(bench, number, hashes);
    hashtrie_lock(bench->trie);
    enum hashtrie_status status =
        hashtrie_insert(bench->trie, &key, number % ENDPOINTS, clock_unix_ns() / CLOCK_NS_PER_S);
    hashtrie_unlock(bench->trie);
    check(status, "cannot insert");
}

/* ---- Opening ---- */

static void open_all(struct bench *bench)
{
    struct hashtrie_options options = hashtrie_options_default((size_t)BUDGET_MIB << 20);
    options.seed = bench->seed;
    check(hashtrie_new(&options, &bench->trie), "cannot make a trie");
    struct hashtrie_store_options store_options = hashtrie_store_options_default(bench->directory);
    check(hashtrie_store_open(bench->trie, &store_options, &bench->store), "cannot open a store");
    for (size_t i = 0; i < ENDPOINTS; i++) {
        char name[32];
        hashtrie_endpoint endpoint = 0;
        (void)snprintf(name, sizeof name, "http://engine-%zu:8000", i);
        hashtrie_lock(bench->trie);
        enum hashtrie_status status = hashtrie_endpoint_add(bench->trie, name, "m", &endpoint);
        hashtrie_unlock(bench->trie);
        check(status, "cannot add an endpoint");
    }
}

static void close_all(struct bench *bench)
{
    check(hashtrie_store_close(bench->store, WAIT_MS), "cannot close the store");
    hashtrie_free(bench->trie);
}

static struct hashtrie_store_stats stats_of(struct bench *bench)
{
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(bench->store, &stats);
    return stats;
}

static uint64_t dropped(struct bench *bench)
{
    struct hashtrie_stats stats;
    hashtrie_lock(bench->trie);
    hashtrie_get_stats(bench->trie, &stats);
    hashtrie_unlock(bench->trie);
    return stats.dropped_node_count;
}

/* CPU time of all threads but this one. */
static double others_cpu_s(void)
{
    struct timespec process;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &process); /* Cannot fail. */
    return (double)process.tv_sec + (double)process.tv_nsec / 1e9 -
           (double)clock_thread_cpu_ns() / 1e9;
}

/* ---- write ---- */

/* All conversations somewhere in their course. */
static void begin_conversations(struct bench *bench, uint64_t *hashes, struct random *random)
{
    for (uint32_t i = 0; i < bench->conversations; i++) {
        uint32_t turns = 1 + random_below(random, TURNS);
        for (uint32_t turn = 0; turn < turns; turn++) {
            next_turn(bench, i, random);
            insert(bench, i, hashes);
        }
        if (i % 256 == 0) {
            check(hashtrie_store_checkpoint(bench->store, WAIT_MS), "cannot write");
        }
    }
    check(hashtrie_store_checkpoint(bench->store, WAIT_MS), "cannot write");
}

struct pace {
    double lag_max_s;  /* Of the last checkpoint behind the clock. */
    double late_max_s; /* Of the inserts behind their time: then the benchmark is too slow. */
};

static void send_at_rate(struct bench *bench, uint64_t *hashes, struct random *random,
                         struct pace *pace)
{
    uint64_t start_ns = clock_monotonic_ns();
    uint64_t count = (uint64_t)bench->rate * bench->seconds;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t due_ns = start_ns + i * CLOCK_NS_PER_S / bench->rate;
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns < due_ns) {
            struct timespec pause = {.tv_nsec = (long)(due_ns - now_ns)};
            (void)nanosleep(&pause, NULL);
        } else if ((double)(now_ns - due_ns) / 1e9 > pace->late_max_s) {
            pace->late_max_s = (double)(now_ns - due_ns) / 1e9;
        }
        uint32_t number = (uint32_t)(i % bench->conversations);
        next_turn(bench, number, random);
        insert(bench, number, hashes);
        if (i % 64 == 0) {
            double lag = (double)clock_unix_ns() / 1e9 - stats_of(bench).last_checkpoint_unix_s;
            pace->lag_max_s = lag > pace->lag_max_s ? lag : pace->lag_max_s;
        }
    }
}

static void run_write(struct bench *bench, uint64_t *hashes)
{
    struct random random = {.state = bench->seed};
    struct pace pace = {0};
    begin_conversations(bench, hashes, &random);
    struct hashtrie_store_stats before = stats_of(bench);
    uint64_t dropped_before = dropped(bench);
    double cpu_before = others_cpu_s();
    uint64_t start_ns = clock_monotonic_ns();
    send_at_rate(bench, hashes, &random, &pace);
    double seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    double cpu = others_cpu_s() - cpu_before;
    struct hashtrie_store_stats after = stats_of(bench);
    double rows = (double)(after.written_node_count - before.written_node_count);
    double states = (double)(after.touched_node_count - before.touched_node_count);
    double checkpoints = (double)(after.checkpoint_timed_count - before.checkpoint_timed_count);
    report(bench, "inserts_per_s", "1/s", (double)bench->rate * bench->seconds / seconds,
           -(double)bench->rate * 0.99);
    report(bench, "new_rows_per_s", "1/s", rows / seconds, 0);
    report(bench, "rows_written_per_s", "1/s", (rows + states) / seconds, 0);
    report(bench, "store_cores", "cores", cpu / seconds, 1);
    report(bench, "store_cpu_per_row", "us", cpu * 1e6 / (rows + states), 0);
    report(bench, "checkpoint_mean", "ms",
           (after.checkpoint_seconds_sum - before.checkpoint_seconds_sum) * 1e3 /
               (checkpoints > 0 ? checkpoints : 1),
           0);
    report(bench, "checkpoint_lag_max", "s", pace.lag_max_s, 2.5);
    report(bench, "insert_late_max", "s", pace.late_max_s, 0);
    report(bench, "dropped_nodes", "", (double)(dropped(bench) - dropped_before), 0);
}

/* ---- reload and restore ---- */

struct waiting {
    sem_t done;
    enum hashtrie_status status;
};

static void on_reload(void *user, enum hashtrie_status status)
{
    struct waiting *waiting = user;
    waiting->status = status;
    (void)sem_post(&waiting->done);
}

static struct hashtrie_match match_of(struct bench *bench, const struct hashtrie_key *key)
{
    struct hashtrie_match match;
    hashtrie_lock(bench->trie);
    hashtrie_match(bench->trie, key, clock_unix_ns() / CLOCK_NS_PER_S, &match);
    hashtrie_unlock(bench->trie);
    return match;
}

/* Matches, asks the store, matches again: chunks known in the end. */
static size_t recall(struct bench *bench, const struct hashtrie_key *key, struct waiting *waiting)
{
    struct hashtrie_match match = match_of(bench, key);
    if (hashtrie_store_reload(bench->store, key, match.chunk_count, on_reload, waiting) !=
        HASHTRIE_OK) {
        return match.chunk_count;
    }
    while (sem_wait(&waiting->done) != 0) {
    }
    return match_of(bench, key).chunk_count;
}

static int compare_u64(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void run_restore(struct bench *bench, uint64_t *hashes, struct waiting *waiting)
{
    uint64_t start_ns = clock_monotonic_ns();
    open_all(bench);
    uint64_t opened_ns = clock_monotonic_ns();
    struct hashtrie_key key = prompt(bench, 0, hashes);
    size_t known = recall(bench, &key, waiting);
    uint64_t end_ns = clock_monotonic_ns();
    report(bench, "store_bytes", "MiB", (double)stats_of(bench).bytes / (1 << 20), 0);
    report(bench, "store_nodes", "", (double)stats_of(bench).node_count, 0);
    report(bench, "open", "ms", (double)(opened_ns - start_ns) / 1e6, 0);
    report(bench, "first_match", "ms", (double)(end_ns - start_ns) / 1e6, 100);
    report(bench, "first_match_share", "", (double)known / (double)key.count, -1);
}

static void run_reload(struct bench *bench, uint64_t *hashes, struct waiting *waiting)
{
    uint32_t count = bench->conversations < RELOADS ? bench->conversations - 1 : RELOADS;
    uint64_t *times_ns = allocate(count, sizeof *times_ns);
    uint64_t known = 0;
    uint64_t asked = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = 1 + (uint32_t)((uint64_t)i * (bench->conversations - 1) / count);
        struct hashtrie_key key = prompt(bench, number, hashes);
        uint64_t start_ns = clock_monotonic_ns();
        known += recall(bench, &key, waiting);
        times_ns[i] = clock_monotonic_ns() - start_ns;
        asked += key.count;
    }
    qsort(times_ns, count, sizeof *times_ns, compare_u64);
    size_t middle = count / 2;
    size_t tail = count * 99 / 100;
    report(bench, "reload_p50", "us", (double)times_ns[middle] / 1e3, 300);
    report(bench, "reload_p99", "us", (double)times_ns[tail] / 1e3, 0);
    report(bench, "reload_hit_share", "", (double)known / (double)asked, -0.99);
    free(times_ns);
}

/* ---- The program ---- */

static void print(const struct bench *bench, bool json)
{
    for (size_t i = 0; i < bench->figure_count; i++) {
        const struct figure *figure = &bench->figures[i];
        if (json) {
            (void)printf("%s\"%s\": %.6g", i == 0 ? "{" : ", ", figure->key, figure->value);
            continue;
        }
        bool missed =
            figure->limit > 0 ? figure->value > figure->limit : figure->value < -figure->limit;
        (void)printf("%-20s %12.4g %-6s", figure->key, figure->value, figure->unit);
        if (figure->limit != 0) {
            (void)printf(" %s %g%s", figure->limit > 0 ? "<=" : ">=",
                         figure->limit > 0 ? figure->limit : -figure->limit,
                         missed ? "  MISSED" : "");
        }
        (void)printf("\n");
    }
    (void)printf("%s", json ? "}\n" : "");
}

static uint32_t number_of(const char *option, const char *text, uint32_t min, uint32_t max)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < min || number > max) {
        (void)fprintf(stderr, "bench-store: %s takes a number from %u to %u, not '%s'\n", option,
                      min, max, text);
        exit(2);
    }
    return (uint32_t)number;
}

static int usage(FILE *out, int status)
{
    (void)fprintf(out, "usage: bench-store [--json] [--seed N] [--rate N] [--seconds N]\n"
                       "                   [--conversations N] DIR\n"
                       "DIR: an empty folder for the store, on the disk that is meant; it stays.\n"
                       "Defaults: 5000 inserts a second for 20 s over 50000 conversations.\n");
    return status;
}

int main(int argc, char **argv)
{
    struct bench bench = {.seed = 1, .rate = 5000, .seconds = 20, .conversations = 50000};
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            return usage(stdout, 0);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            bench.seed = number_of("--seed", argv[++i], 0, UINT32_MAX);
        } else if (strcmp(argv[i], "--rate") == 0 && i + 1 < argc) {
            bench.rate = number_of("--rate", argv[++i], 1, 1000000);
        } else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            bench.seconds = number_of("--seconds", argv[++i], 1, 3600);
        } else if (strcmp(argv[i], "--conversations") == 0 && i + 1 < argc) {
            bench.conversations = number_of("--conversations", argv[++i], 2, 10000000);
        } else if (argv[i][0] != '-' && bench.directory == NULL) {
            bench.directory = argv[i];
        } else {
            return usage(stderr, 2);
        }
    }
    if (bench.directory == NULL) {
        return usage(stderr, 2);
    }
    struct waiting waiting = {.status = HASHTRIE_OK};
    uint64_t *hashes = allocate(CHUNKS_MAX, sizeof *hashes);
    bench.turns = allocate(bench.conversations, sizeof *bench.turns);
    bench.generations = allocate(bench.conversations, sizeof *bench.generations);
    bench.lengths = allocate(bench.conversations, sizeof *bench.lengths);
    if (sem_init(&waiting.done, 0, 0) != 0) {
        perror("bench-store: semaphore");
        exit(1);
    }
    open_all(&bench);
    run_write(&bench, hashes);
    close_all(&bench);
    run_restore(&bench, hashes, &waiting);
    run_reload(&bench, hashes, &waiting);
    close_all(&bench);
    print(&bench, json);
    (void)sem_destroy(&waiting.done);
    free(bench.lengths);
    free(bench.generations);
    free(bench.turns);
    free(hashes);
    return 0;
}
