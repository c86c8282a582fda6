/*
 * The n-th allocation fails, once and for good, for every n until nothing fails any more: each call
 * ends with a clean status, hashtrie_check() finds nothing wrong, nothing leaks, and the trie is
 * usable afterwards.
 */
#include "support/keys.h"
#include "support/memory_store.h"
#include "support/test.h"
#include "trie/internal.h"

enum { ENDPOINTS = 70, INSERTS = 60, CHILDREN = 1200, NOW_S = 1700000000 };

static void check(const struct hashtrie *trie)
{
    const char *breach = NULL;
    if (hashtrie_check(trie, &breach) != HASHTRIE_OK) {
        fail_msg("hashtrie_check: %s", breach);
    }
}

static bool is_clean(enum hashtrie_status status)
{
    return status == HASHTRIE_OK || status == HASHTRIE_EFULL;
}

/* Splits, long runs, many holders, batches, conflicts and grafts: every path that allocates. */
static void scenario(struct hashtrie *trie, struct mem *mem)
{
    struct memory_store *store = memory_store_new(trie, mem);
    struct random random = {.state = 5};
    struct test_key *keys = mem_alloc(mem, INSERTS * sizeof *keys);
    assert_non_null(keys);
    hashtrie_endpoint endpoints[ENDPOINTS];
    size_t endpoint_count = 0;
    for (int i = 0; i < ENDPOINTS; i++) {
        char name[] = "http://00";
        name[7] = (char)('0' + i / 10);
        name[8] = (char)('0' + i % 10);
        enum hashtrie_status status =
            hashtrie_endpoint_add(trie, name, "m", &endpoints[endpoint_count]);
        assert_true(is_clean(status));
        endpoint_count += status == HASHTRIE_OK;
    }
    for (uint32_t i = 0; i < INSERTS && endpoint_count > 0; i++) {
        test_key_random(&keys[i], i == 0 ? NULL : &keys[random_below(&random, i)], &random);
        struct hashtrie_key key = test_key_view(&keys[i]);
        for (size_t j = 0; j < 1 + (i % 5 == 0 ? endpoint_count - 1 : 0); j++) {
            enum hashtrie_status status =
                hashtrie_insert(trie, &key, endpoints[(i + j) % endpoint_count], NOW_S);
            assert_true(is_clean(status));
        }
        memory_store_take(store, 4);
        memory_store_commit(store, i % 7 == 0);
        if (i % 10 == 9) { /* Forget what is hot, so that grafts and conflicts come up. */
            trie->threshold_bytes = 1;
            trie->target_bytes = 0;
            while (hashtrie_evict_step(trie)) {
            }
            trie->threshold_bytes = trie->mem.bytes_limit;
            trie->evicting = false;
            memory_store_reload(store, &key);
        }
    }
    check(trie);
    mem_free(mem, keys, INSERTS * sizeof *keys);
    memory_store_free(store);
}

/* Restarts, departures, returns, and endpoints that a store tells of. A failure changes nothing. */
static void endpoints_come_and_go(struct hashtrie *trie, struct mem *mem)
{
    (void)mem;
    static const char *const generations[] = {"first", "second", "third"};
    for (uint32_t i = 0; i < ENDPOINTS; i++) {
        char name[] = "http://00";
        name[7] = (char)('0' + i / 10);
        name[8] = (char)('0' + i % 10);
        struct trie_endpoint stored = {
            .id = 1000 + 10 * i, .name = name, .model = "m", .generation = "stored"};
        hashtrie_endpoint endpoint = 0;
        enum hashtrie_status status = i % 3 == 0
                                          ? trie_endpoint_restore(trie, &stored)
                                          : hashtrie_endpoint_add(trie, name, "m", &endpoint);
        assert_true(is_clean(status));
        if (hashtrie_endpoint_add(trie, name, "another model", &endpoint) != HASHTRIE_OK) {
            continue;
        }
        for (size_t j = 0; j < sizeof generations / sizeof *generations; j++) {
            struct trie_endpoint before;
            struct trie_endpoint after;
            assert_true(trie_endpoint_get(trie, endpoint, &before));
            status = hashtrie_endpoint_set_generation(trie, endpoint, generations[j]);
            assert_true(is_clean(status));
            assert_true(trie_endpoint_get(trie, endpoint, &after));
            assert_string_equal(after.generation,
                                status == HASHTRIE_OK ? generations[j] : before.generation);
            assert_true(status == HASHTRIE_OK || after.id == before.id);
        }
        if (i % 4 == 0) {
            hashtrie_endpoint_remove(trie, endpoint);
        }
        check(trie);
    }
}

/* One system prompt and many questions: the edge table grows. */
static void fan_out(struct hashtrie *trie, struct mem *mem)
{
    (void)mem;
    hashtrie_endpoint endpoint = 0;
    if (hashtrie_endpoint_add(trie, "http://a", "m", &endpoint) != HASHTRIE_OK) {
        return;
    }
    for (uint64_t i = 0; i < CHILDREN; i++) {
        uint64_t hashes[2] = {test_key_next(1, 0), test_key_next(2, i)};
        struct hashtrie_key key = {.namespace_hash = 1, .hashes = hashes, .count = 2};
        enum hashtrie_status status = hashtrie_insert(trie, &key, endpoint, NOW_S);
        assert_true(is_clean(status));
        if (status != HASHTRIE_OK) {
            check(trie);
        }
    }
}

typedef void scenario_run(struct hashtrie *trie, struct mem *mem);

static void expect_usable(struct hashtrie *trie)
{
    hashtrie_endpoint endpoint = 0;
    assert_int_equal(hashtrie_endpoint_add(trie, "http://after", "m", &endpoint), HASHTRIE_OK);
    struct test_key key = {.namespace_hash = 99};
    for (uint64_t i = 0; i < 10; i++) {
        test_key_push(&key, i);
    }
    struct hashtrie_key view = test_key_view(&key);
    assert_int_equal(hashtrie_insert(trie, &view, endpoint, NOW_S), HASHTRIE_OK);
    struct hashtrie_match match;
    hashtrie_match(trie, &view, NOW_S, &match);
    assert_int_equal(match.holders[0].chunk_count, 10);
    check(trie);
}

/* True: the scenario has no more allocations than `n`, so none failed. */
static bool fail_after(scenario_run *run, uint64_t n, uint64_t count)
{
    struct mem mem; /* The test's own: nothing fails there. */
    mem_init(&mem, SIZE_MAX);
    struct hashtrie_options options = hashtrie_options_default((size_t)64 << 20);
    struct hashtrie *trie = NULL;
    assert_int_equal(hashtrie_new(&options, &trie), HASHTRIE_OK);
    trie->mem.fail_after = n;
    trie->mem.fail_count = count;
    run(trie, &mem);
    bool complete = trie->mem.fail_after > 0; /* Fewer allocations than that. */
    check(trie);
    trie->mem.fail_after = UINT64_MAX;
    expect_usable(trie);
    hashtrie_free(trie);
    mem_fini(&mem);
    return complete;
}

/* `sparse`: not each n, ever fewer of them. */
static void each_failure(scenario_run *run, uint64_t count, uint64_t sparse)
{
    uint64_t n = 0;
    while (!fail_after(run, n, count)) {
        n += 1 + (sparse == 0 ? 0 : n / sparse);
    }
    print_message("%u allocations in the scenario\n", (unsigned)n);
    assert_true(n > 100);
}

static void every_single_failure(void **state)
{
    (void)state;
    each_failure(scenario, 1, 0);
}

/* Each tries the rest of the scenario without memory. */
static void every_failure_for_good(void **state)
{
    (void)state;
    each_failure(scenario, UINT64_MAX, 50);
}

static void endpoints_without_memory(void **state)
{
    (void)state;
    each_failure(endpoints_come_and_go, 1, 0);
    each_failure(endpoints_come_and_go, UINT64_MAX, 0);
}

static void edges_without_memory(void **state)
{
    (void)state;
    each_failure(fan_out, 1, 20);
    each_failure(fan_out, UINT64_MAX, 20);
}

static void a_batch_without_memory(void **state)
{
    (void)state;
    struct trie_batch batch;
    enum hashtrie_status status = HASHTRIE_ENOMEM;
    for (uint64_t n = 0; status != HASHTRIE_OK; n++) {
        struct mem mem;
        mem_init(&mem, SIZE_MAX);
        mem.fail_after = n;
        status = trie_batch_init(&batch, &mem, (size_t)64 * 1024);
        if (status == HASHTRIE_OK) {
            assert_true(n > 0);
            trie_batch_fini(&batch);
        }
        assert_true(status == HASHTRIE_OK || status == HASHTRIE_ENOMEM);
        mem_fini(&mem); /* Nothing is left, whatever became of it. */
    }
}

static void making_a_trie(void **state)
{
    (void)state;
    /* hashtrie_new() has a memory account of its own: a budget too small for the endpoints' table
     * stands in. */
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    struct hashtrie *trie = NULL;
    assert_int_equal(hashtrie_new(&options, &trie), HASHTRIE_OK);
    enum hashtrie_status status = HASHTRIE_OK;
    for (int i = 0; i < 20000 && status == HASHTRIE_OK; i++) {
        char name[] = "http://00000000";
        int value = i;
        for (int digit = 14; digit > 6; digit--, value /= 10) {
            name[digit] = (char)('0' + value % 10);
        }
        hashtrie_endpoint endpoint;
        status = hashtrie_endpoint_add(trie, name, "m", &endpoint);
    }
    assert_int_equal(status, HASHTRIE_EFULL);
    check(trie);
    hashtrie_free(trie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_single_failure),     cmocka_unit_test(every_failure_for_good),
        cmocka_unit_test(endpoints_without_memory), cmocka_unit_test(edges_without_memory),
        cmocka_unit_test(a_batch_without_memory),   cmocka_unit_test(making_a_trie),
    };
    return cmocka_run_group_tests_name("trie memory faults", tests, NULL, NULL);
}
