/*
 * Is the simulator right? Figures that others have found on the Mooncake conversation trace, found
 * again: first by caches alone (each request served at once), then with the whole engine.
 */
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "bench/sim/blocks.h"
#include "bench/sim/commands.h"
#include "bench/sim/traces.h"

enum { BLOCKS_MAX = 1 << 12, ENGINES_MAX = 8 }; /* Of a prompt; of a fleet. */

struct fleet {
    struct sim_blocks *caches[ENGINES_MAX];
    double sent[ENGINES_MAX];     /* Blocks, ... */
    double uncached[ENGINES_MAX]; /* ... of which it had to compute so many. */
    size_t count;
};

/* Which engine: by turns; the longest prefix; the least of what it lacks of this prompt plus all it
 * ever had to compute, which is a naive load; by a hash of the first two blocks. */
enum rule { BY_TURNS, BY_LONGEST, BY_COST, BY_HASH };

static size_t choose(const struct fleet *fleet, enum rule rule, size_t number,
                     const uint64_t *hashes, size_t count)
{
    size_t best = 0;
    double least = 0;
    if (rule == BY_TURNS) {
        return number % fleet->count;
    }
    if (rule == BY_HASH) {
        return sim_mix(hashes[0] + 3 * hashes[count > 1 ? 1 : 0]) % fleet->count;
    }
    for (size_t i = 0; i < fleet->count; i++) {
        double held = (double)sim_blocks_peek(fleet->caches[i], hashes, count);
        double cost = (rule == BY_COST ? fleet->uncached[i] : 0) - held;
        if (i == 0 || cost < least) {
            best = i;
            least = cost;
        }
    }
    return best;
}

static size_t serve(struct fleet *fleet, size_t engine, const uint64_t *hashes, size_t count)
{
    static uint32_t taken[BLOCKS_MAX];
    struct sim_blocks *cache = fleet->caches[engine];
    size_t matched = 0;
    if (!sim_blocks_take(cache, hashes, count, count, taken, &matched)) {
        return 0;
    }
    for (size_t at = matched; at < count; at++) {
        sim_blocks_name(cache, taken[at], hashes[at]);
    }
    sim_blocks_release(cache, taken, count);
    fleet->sent[engine] += (double)count;
    fleet->uncached[engine] += (double)(count - matched);
    return matched;
}

struct replay {
    double hits;      /* Per cent of all blocks. */
    double imbalance; /* Blocks sent to the engine that got most, to the mean. */
};

/* Ids as they stand in the trace, the last partial block of a prompt included. */
static struct replay replay(const struct sim_workload *workload, size_t engine_count,
                            size_t block_count, enum rule rule)
{
    struct fleet fleet = {.count = engine_count};
    static uint64_t hashes[BLOCKS_MAX];
    double hits = 0;
    double most = 0;
    for (size_t i = 0; i < engine_count; i++) {
        fleet.caches[i] = sim_blocks_new(block_count);
    }
    for (size_t i = 0; i < workload->request_count; i++) {
        const struct sim_request *request = &workload->requests[i];
        CHECK(request->piece_count <= BLOCKS_MAX);
        for (uint32_t at = 0; at < request->piece_count; at++) {
            hashes[at] = sim_mix(workload->pieces[request->piece_first + at].id);
        }
        size_t engine = choose(&fleet, rule, i, hashes, request->piece_count);
        hits += (double)serve(&fleet, engine, hashes, request->piece_count);
    }
    for (size_t i = 0; i < engine_count; i++) {
        most = fmax(most, fleet.sent[i]);
        sim_blocks_free(fleet.caches[i]);
    }
    double blocks = (double)workload->piece_count;
    return (struct replay){.hits = 100 * hits / blocks,
                           .imbalance = most * (double)engine_count / blocks};
}

/* ---- Tables: what is known, what is found ---- */

static void tell_lru(struct document *document, const struct sim_workload *workload)
{
    static const struct {
        const char *name;
        size_t blocks; /* 0: endless. */
        double known;
    } rows[] = {{"1k blocks", 1000, 4.5},      {"3k blocks", 3000, 6.5},
                {"10k blocks", 10000, 21.2},   {"30k blocks", 30000, 32.6},
                {"100k blocks", 100000, 36.4}, {"endless", 0, 36.64}};
    static const char *const columns[] = {"one cache", "known %", "found %"};
    document_table(document, "One LRU cache over the whole trace: blocks hit", columns, 3);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t blocks = rows[i].blocks == 0 ? workload->piece_count : rows[i].blocks;
        document_text(document, rows[i].name);
        document_number(document, rows[i].known, 2);
        document_number(document, replay(workload, 1, blocks, BY_LONGEST).hits, 2);
    }
    document_table_end(document);
}

static void tell_rules(struct document *document, const struct sim_workload *workload)
{
    static const struct {
        const char *name;
        enum rule rule;
        double known_4;
        double known_8;
    } rows[] = {{"by turns", BY_TURNS, 15.9, 8.9},
                {"longest prefix", BY_LONGEST, 21.2, 6.5},
                {"prefix + load", BY_COST, 29.3, 23.8},
                {"hash of 2 blocks", BY_HASH, 35.1, 30.7}};
    static const char *const columns[] = {"rule",       "4: known %", "found %",  "imbalance",
                                          "8: known %", "found %",    "imbalance"};
    document_table(document,
                   "Blocks hit with four engines of 10,000 blocks, with eight of 3,000; each "
                   "request served at once",
                   columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct replay four = replay(workload, 4, 10000, rows[i].rule);
        struct replay eight = replay(workload, 8, 3000, rows[i].rule);
        document_text(document, rows[i].name);
        document_number(document, rows[i].known_4, 1);
        document_number(document, four.hits, 1);
        document_number(document, four.imbalance, 2);
        document_number(document, rows[i].known_8, 1);
        document_number(document, eight.hits, 1);
        document_number(document, eight.imbalance, 2);
    }
    document_table_end(document);
}

/* With time, queues and answers in the caches, hits should come out alike. */
static void tell_simulated(const struct sim_command *command, const struct sim_workload *workload)
{
    static const struct {
        const char *policy;
        double known_4; /* 0: none. */
        double known_8;
    } rows[] = {{"random", 15.9, 8.9},
                {"roundrobin", 15.9, 8.9},
                {"python", 21.2, 6.5},
                {"ours", 0, 0},
                {"oracle", 0, 0}};
    static const char *const columns[] = {"policy",     "4: known %", "found %",  "imbalance",
                                          "8: known %", "found %",    "imbalance"};
    struct document *document = command->document;
    document_table(document, "The same in time, with whole engines: prompt tokens hit", columns,
                   sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct sim_policy *policy = sim_policy_find(rows[i].policy, strlen(rows[i].policy));
        double known[] = {rows[i].known_4, rows[i].known_8};
        static const char *const cases[] = {"mooncake", "mooncake-small"};
        document_text(document, rows[i].policy);
        for (size_t at = 0; at < 2; at++) {
            const struct sim_case *which = sim_case_find(cases[at], strlen(cases[at]));
            struct sim_setup setup = sim_case_setup(which, workload, policy, command->seed, 1);
            struct sim_result result;
            sim_run(&setup, &result);
            document_number(document, known[at] > 0 ? known[at] : NAN, 1);
            document_number(document, 100 * result.hit_rate, 1);
            document_number(document, result.imbalance, 2);
            sim_result_free(&result);
        }
    }
    document_table_end(document);
}

void sim_yardsticks(const struct sim_command *command)
{
    if (command->traces_dir == NULL) {
        sim_fail("yardsticks", "they need --traces DIR with mooncake_conversation.jsonl");
    }
    struct sim_workload workload = {0};
    struct sim_generate how = {.seconds = 3600, .rate = 1, .traces_dir = command->traces_dir};
    sim_mooncake(&workload, &how);
    tell_lru(command->document, &workload);
    tell_rules(command->document, &workload);
    tell_simulated(command, &workload);
    sim_workload_free(&workload);
}
