/*
 * The trie against a naive model, under random operations: a list of every prompt that was ever
 * sent to an endpoint.
 *
 * Without eviction a match must find exactly what the list says. With eviction, a small budget and
 * a store that forgets and fails, it may find less, but never claim what was not sent; after every
 * operation hashtrie_check() recounts all, and what a store has acknowledged is found in trie and
 * store together.
 */
#include "support/keys.h"
#include "support/memory_store.h"
#include "support/test.h"
#include "trie/trie.h"

enum {
    ENDPOINTS = 5,
    LEDGER_MAX = 1500,
    OPERATIONS = 4000,
};

struct ledger_entry {
    struct test_key *key;
    int endpoint;
    bool acknowledged; /* A checkpoint that began after it has ended. */
};

struct world {
    struct random random;
    struct hashtrie *trie;
    struct memory_store *store; /* NULL: none attached. */
    struct mem mem;
    hashtrie_endpoint slots[ENDPOINTS];
    struct ledger_entry ledger[LEDGER_MAX];
    size_t ledger_count;
    uint64_t now_s;
    uint32_t generation;
    size_t looks;
    size_t losses;           /* Looks that missed what was acknowledged. */
    uint32_t missed_percent; /* Requests whose reload came too late: routed on what is hot. */
};

static void check(const struct world *world)
{
    const char *breach = NULL;
    if (hashtrie_check(world->trie, &breach) != HASHTRIE_OK) {
        fail_msg("hashtrie_check: %s", breach);
    }
}

/* `threshold`: from which share of the budget on leaves are evicted, down to half of that. */
static void world_init(struct world *world, uint64_t seed, size_t budget, double threshold)
{
    *world = (struct world){.random = {.state = seed}, .now_s = 1700000000};
    mem_init(&world->mem, SIZE_MAX);
    struct hashtrie_options options = hashtrie_options_default(budget);
    options.seed = seed;
    options.threshold = threshold;
    options.target = threshold / 2;
    assert_int_equal(hashtrie_new(&options, &world->trie), HASHTRIE_OK);
    for (int i = 0; i < ENDPOINTS; i++) {
        char name[] = "http://engine-0:8000";
        name[14] = (char)('0' + i);
        assert_int_equal(hashtrie_endpoint_add(world->trie, name, "m", &world->slots[i]),
                         HASHTRIE_OK);
    }
}

static void world_fini(struct world *world)
{
    for (size_t i = 0; i < world->ledger_count; i++) {
        mem_free(&world->mem, world->ledger[i].key, sizeof *world->ledger[i].key);
    }
    hashtrie_free(world->trie);
    mem_fini(&world->mem);
}

static const struct test_key *some_key(struct world *world)
{
    if (world->ledger_count == 0) {
        return NULL;
    }
    return world->ledger[random_below(&world->random, (uint32_t)world->ledger_count)].key;
}

static uint32_t naive_length(const struct world *world, const struct test_key *key, int endpoint,
                             bool acknowledged)
{
    uint32_t best = 0;
    for (size_t i = 0; i < world->ledger_count; i++) {
        const struct ledger_entry *entry = &world->ledger[i];
        if (entry->endpoint == endpoint && (entry->acknowledged || !acknowledged)) {
            uint32_t common = test_key_common(entry->key, key);
            best = common > best ? common : best;
        }
    }
    return best;
}

static uint32_t matched_length(const struct hashtrie_match *match, hashtrie_endpoint endpoint)
{
    for (size_t i = 0; i < match->holder_count; i++) {
        if (match->holders[i].endpoint == endpoint) {
            return match->holders[i].chunk_count;
        }
    }
    return 0;
}

/* `exact`: the trie must know all that the list knows; else no more than it. */
static void compare(struct world *world, const struct test_key *key, bool exact)
{
    struct hashtrie_key view = test_key_view(key);
    struct hashtrie_match match;
    hashtrie_match(world->trie, &view, world->now_s, &match);
    for (int i = 0; i < ENDPOINTS; i++) {
        uint32_t naive = naive_length(world, key, i, false);
        uint32_t found = matched_length(&match, world->slots[i]);
        if (exact) {
            assert_int_equal(found, naive);
        } else {
            assert_true(found <= naive);
        }
    }
}

static void insert(struct world *world, bool may_fail)
{
    if (world->ledger_count == LEDGER_MAX) {
        return;
    }
    struct test_key *key = mem_alloc(&world->mem, sizeof *key);
    assert_non_null(key);
    test_key_random(key, some_key(world), &world->random);
    int endpoint = (int)random_below(&world->random, ENDPOINTS);
    struct hashtrie_key view = test_key_view(key);
    if (world->store != NULL && random_below(&world->random, 100) >= world->missed_percent) {
        memory_store_reload(world->store, &view);
    }
    enum hashtrie_status status =
        hashtrie_insert(world->trie, &view, world->slots[endpoint], world->now_s);
    assert_true(status == HASHTRIE_OK || may_fail);
    world->ledger[world->ledger_count++] =
        (struct ledger_entry){.key = key, .endpoint = endpoint, .acknowledged = false};
}

/* The engine restarts or is taken away and comes back: it holds nothing. */
static void forget_endpoint(struct world *world)
{
    int endpoint = (int)random_below(&world->random, ENDPOINTS);
    char generation[] = "start-0000";
    uint32_t value = ++world->generation;
    for (int i = 9; i > 5; i--, value /= 10) {
        generation[i] = (char)('0' + value % 10);
    }
    hashtrie_endpoint slot = world->slots[endpoint];
    assert_int_equal(hashtrie_endpoint_set_generation(world->trie, slot, generation), HASHTRIE_OK);
    for (size_t i = world->ledger_count; i-- > 0;) {
        struct ledger_entry *entry = &world->ledger[i];
        if (entry->endpoint == endpoint) {
            mem_free(&world->mem, entry->key, sizeof *entry->key);
            *entry = world->ledger[--world->ledger_count];
        }
    }
}

static void first_generations(struct world *world)
{
    for (int i = 0; i < ENDPOINTS; i++) {
        assert_int_equal(hashtrie_endpoint_set_generation(world->trie, world->slots[i], "first"),
                         HASHTRIE_OK);
    }
}

static void probe(struct world *world, bool exact)
{
    struct test_key key;
    test_key_random(&key, some_key(world), &world->random);
    compare(world, &key, exact);
}

static void finds_exactly_what_was_sent(void **state)
{
    (void)state;
    struct world world;
    world_init(&world, test_seed(), (size_t)64 << 20, 0.9);
    first_generations(&world);
    for (int i = 0; i < OPERATIONS; i++) {
        uint32_t dice = random_below(&world.random, 100);
        world.now_s += random_below(&world.random, 5);
        if (dice < 40) {
            insert(&world, false);
        } else if (dice < 41) {
            forget_endpoint(&world);
        } else {
            probe(&world, true);
        }
        if (i % 8 == 0) {
            check(&world);
        }
    }
    world_fini(&world);
}

static void never_passes_its_budget(void **state)
{
    (void)state;
    struct world world;
    world_init(&world, test_seed(), HASHTRIE_BUDGET_MIN, 0.9);
    first_generations(&world);
    struct hashtrie_stats stats;
    for (int i = 0; i < OPERATIONS * 4; i++) {
        if (world.ledger_count ==
            LEDGER_MAX) { /* The list forgets: then nothing can be compared any more. */
            for (size_t j = 0; j < world.ledger_count; j++) {
                mem_free(&world.mem, world.ledger[j].key, sizeof *world.ledger[j].key);
            }
            world.ledger_count = 0;
        }
        insert(&world, true);
        hashtrie_get_stats(world.trie, &stats);
        assert_true(stats.bytes_used <= stats.bytes_budget);
        if (i % 64 == 0) {
            check(&world);
        }
    }
    assert_true(stats.evicted_node_count > 0);
    while (hashtrie_evict_step(world.trie)) {
        check(&world);
    }
    world_fini(&world);
}

/* ---- With a store ---- */

static void acknowledge(struct world *world, size_t count)
{
    for (size_t i = 0; i < count && i < world->ledger_count; i++) {
        world->ledger[i].acknowledged = true;
    }
}

/* One look for what was acknowledged. Only late reloads may cost some of it. */
static void expect_found(struct world *world, uint32_t found, uint32_t acknowledged)
{
    world->looks++;
    if (found < acknowledged) {
        world->losses++;
        assert_true(world->missed_percent > 0);
    }
}

/* Store alone, as after a crash: every endpoint is found as far as a checkpoint has acknowledged.
 */
static void check_store_covers(struct world *world, const struct test_key *key)
{
    struct hashtrie_key view = test_key_view(key);
    for (int i = 0; i < ENDPOINTS; i++) {
        struct trie_endpoint endpoint;
        assert_true(trie_endpoint_get(world->trie, world->slots[i], &endpoint));
        uint32_t stored = memory_store_length(world->store, &view, endpoint.id);
        expect_found(world, stored, naive_length(world, key, i, true));
        assert_true(stored <= naive_length(world, key, i, false));
    }
}

static void checkpoint(struct world *world, uint32_t fail_one_in)
{
    uint64_t mark = trie_dirty_mark(world->trie);
    size_t count = world->ledger_count;
    for (int i = 0; i < 10000 && !trie_dirty_done(world->trie, mark); i++) {
        memory_store_take(world->store, 1 + random_below(&world->random, 6));
        check(world);
        if (random_below(&world->random, 4) == 0) {
            insert(world, true); /* While the batch is in flight. */
        }
        bool fail = fail_one_in != 0 && random_below(&world->random, fail_one_in) == 0;
        memory_store_commit(world->store, fail);
        check(world);
        const struct test_key *key = some_key(world);
        if (key != NULL) {
            check_store_covers(world, key);
        }
    }
    assert_true(trie_dirty_done(world->trie, mark));
    acknowledge(world, count);
}

static void reload(struct world *world)
{
    struct test_key key;
    test_key_random(&key, some_key(world), &world->random);
    struct hashtrie_key view = test_key_view(&key);
    memory_store_reload(world->store, &view);
    check(world);
    struct hashtrie_match match;
    hashtrie_match(world->trie, &view, world->now_s, &match);
    for (int i = 0; i < ENDPOINTS;
         i++) { /* Trie and store together know all that was acknowledged. */
        expect_found(world, matched_length(&match, world->slots[i]),
                     naive_length(world, &key, i, true));
    }
}

/* Everything clean goes, as under memory pressure. */
static void evict_everything_clean(struct world *world)
{
    struct hashtrie_stats before;
    struct hashtrie_stats after;
    do {
        hashtrie_get_stats(world->trie, &before);
        (void)hashtrie_evict_step(world->trie);
        hashtrie_get_stats(world->trie, &after);
    } while (after.evicted_node_count > before.evicted_node_count);
    check(world);
}

static void runs_with_a_store(uint64_t seed, uint32_t fail_one_in, uint32_t missed_percent)
{
    struct world world;
    world_init(&world, seed, (size_t)8 << 20, 0.003); /* Evicts early, never forced. */
    first_generations(&world);
    world.missed_percent = missed_percent;
    world.store = memory_store_new(world.trie, &world.mem);
    for (int i = 0; i < OPERATIONS / 2; i++) {
        uint32_t dice = random_below(&world.random, 100);
        world.now_s += random_below(&world.random, 5);
        if (dice < 30) {
            insert(&world, true);
        } else if (dice < 40) {
            checkpoint(&world, fail_one_in);
        } else if (dice < 70) {
            reload(&world);
        } else if (dice < 72) {
            evict_everything_clean(&world);
        } else {
            probe(&world, false);
        }
        check(&world);
    }
    struct hashtrie_stats stats;
    hashtrie_get_stats(world.trie, &stats);
    assert_int_equal(stats.dropped_node_count, 0);
    assert_true(stats.spilled_node_count > 0 && stats.reloaded_node_count > 0);
    print_message("%zu of %zu looks missed what was acknowledged\n", world.losses, world.looks);
    assert_true(world.losses * 10 <= world.looks); /* A blind overwrite loses about half. */
    memory_store_free(world.store);
    world_fini(&world);
}

static void store_keeps_what_it_acknowledged(void **state)
{
    (void)state;
    runs_with_a_store(test_seed(), 0, 0);
}

static void store_that_fails_loses_nothing_acknowledged(void **state)
{
    (void)state;
    runs_with_a_store(test_seed(), 5, 0);
}

/* What a late reload would have told is met again by the first write of the new node, and joined
 * there. */
static void late_reloads_overwrite_nothing(void **state)
{
    (void)state;
    runs_with_a_store(test_seed(), 0, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_exactly_what_was_sent),
        cmocka_unit_test(never_passes_its_budget),
        cmocka_unit_test(store_keeps_what_it_acknowledged),
        cmocka_unit_test(store_that_fails_loses_nothing_acknowledged),
        cmocka_unit_test(late_reloads_overwrite_nothing),
    };
    return cmocka_run_group_tests_name("trie model", tests, NULL, NULL);
}
