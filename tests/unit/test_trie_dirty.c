/*
 * A checkpoint is complete once all that was dirty at its start is written: also what comes back
 * unwritten from a batch, whatever happened to it while the batch was under way.
 */
#include <string.h>

#include "support/keys.h"
#include "support/test.h"
#include "trie/internal.h"

enum { NOW_S = 1700000000, KEY_CHUNKS = 10, OTHERS = 5, SHARED = 4, BATCH_BYTES = 1 << 20 };

struct fixture {
    struct hashtrie *trie;
    struct mem mem;
    struct trie_batch batch;
    hashtrie_endpoint endpoints[2];
    struct test_key key;
    uint64_t mark;
};

static void on_wake(void *user)
{
    (void)user;
}

static struct test_key key_of(uint64_t first, size_t count)
{
    struct test_key key = {.namespace_hash = 42};
    for (uint64_t i = 0; i < count; i++) {
        test_key_push(&key, first + i);
    }
    return key;
}

static void insert(struct fixture *fixture, const struct test_key *key, int endpoint)
{
    struct hashtrie_key view = test_key_view(key);
    assert_int_equal(hashtrie_insert(fixture->trie, &view, fixture->endpoints[endpoint], NOW_S),
                     HASHTRIE_OK);
}

/* A key is in the batch under way, all that a mark waits for; others were inserted since; the key
 * was used again. */
static int setup(void **state)
{
    static struct fixture fixture;
    struct hashtrie_options options = hashtrie_options_default((size_t)8 << 20);
    assert_int_equal(hashtrie_new(&options, &fixture.trie), HASHTRIE_OK);
    trie_attach(fixture.trie, on_wake, NULL, 0, 1);
    mem_init(&fixture.mem, SIZE_MAX);
    assert_int_equal(trie_batch_init(&fixture.batch, &fixture.mem, BATCH_BYTES), HASHTRIE_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(hashtrie_endpoint_add(fixture.trie, i == 0 ? "http://a" : "http://b", "m",
                                               &fixture.endpoints[i]),
                         HASHTRIE_OK);
    }
    fixture.key = key_of(0, KEY_CHUNKS);
    insert(&fixture, &fixture.key, 0);
    fixture.mark = trie_dirty_mark(fixture.trie);
    assert_int_equal(trie_dirty_left(fixture.trie, fixture.mark), 1);
    assert_int_equal(trie_batch_take(fixture.trie, &fixture.batch, 1), 1);
    assert_int_equal(trie_dirty_left(fixture.trie, fixture.mark), 0); /* What comes later is not
                                                                         for this batch. */
    assert_true(trie_dirty_done(fixture.trie, fixture.mark));
    for (uint64_t i = 1; i <= OTHERS; i++) {
        struct test_key other = key_of(1000 * i, KEY_CHUNKS);
        insert(&fixture, &other, 0);
    }
    insert(&fixture, &fixture.key, 1);
    *state = &fixture;
    return 0;
}

static void release(struct fixture *fixture, enum trie_outcome outcome)
{
    for (size_t i = 0; i < fixture->batch.count; i++) {
        fixture->batch.entries[i].outcome = outcome;
    }
    while (trie_batch_release(fixture->trie, &fixture->batch)) {
    }
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    const char *breach = NULL;
    release(fixture, TRIE_WRITTEN);
    assert_int_equal(hashtrie_check(fixture->trie, &breach), HASHTRIE_OK);
    trie_attach(fixture->trie, NULL, NULL, 0, 0);
    trie_batch_fini(&fixture->batch);
    hashtrie_free(fixture->trie);
    mem_fini(&fixture->mem);
    return 0;
}

/* Takes one by one what the mark still waits for: all chunks of the key must be among it, a lower
 * part never behind its upper one. */
static void expect_waited_for(struct fixture *fixture)
{
    const struct test_key *key = &fixture->key;
    uint32_t taken = 0;
    uint32_t depth_before = UINT32_MAX;
    while (!trie_dirty_done(fixture->trie, fixture->mark)) {
        size_t at = fixture->batch.count;
        assert_int_equal(trie_batch_take(fixture->trie, &fixture->batch, at + 1), 1);
        const struct trie_record *record = &fixture->batch.entries[at].record;
        uint32_t end = record->depth + record->length;
        if (end <= key->count && record->end == key->hashes[end - 1]) {
            assert_true(end < depth_before);
            depth_before = end;
            taken += record->length;
        }
    }
    assert_int_equal(taken, KEY_CHUNKS);
}

/* The store has the first chunks of the key under it. */
static void conflict_with_shorter(struct fixture *fixture)
{
    uint32_t run[SHARED];
    for (size_t i = 0; i < SHARED; i++) {
        run[i] = (uint32_t)fixture->key.hashes[i];
    }
    struct trie_record found = {.prefix = fixture->key.namespace_hash,
                                .end = fixture->key.hashes[SHARED - 1],
                                .fp = run[0],
                                .length = SHARED,
                                .run = run};
    fixture->batch.entries[0].found = &found;
    release(fixture, TRIE_CONFLICT);
}

static void used_again_then_failed(void **state)
{
    release(*state, TRIE_FAILED);
    expect_waited_for(*state);
}

static void used_again_then_met_a_shorter_one(void **state)
{
    conflict_with_shorter(*state);
    expect_waited_for(*state);
}

/* Another key goes off inside the run. */
static void split(struct fixture *fixture)
{
    struct test_key other = key_of(0, SHARED);
    test_key_push(&other, 77);
    insert(fixture, &other, 0);
}

static void split_then_failed(void **state)
{
    split(*state);
    release(*state, TRIE_FAILED);
    expect_waited_for(*state);
}

static void split_then_met_a_shorter_one(void **state)
{
    split(*state);
    conflict_with_shorter(*state);
    expect_waited_for(*state);
}

/* Both halves of a stored run were under way, and the lower one was split meanwhile: what comes
 * back in front must not put the shortened upper half before any of its tail. */
static void a_lower_half_split_then_failed(void **state)
{
    struct fixture *fixture = *state;
    do {
        release(fixture, TRIE_WRITTEN);
    } while (trie_batch_take(fixture->trie, &fixture->batch, TRIE_BATCH_NODES_MAX) > 0);
    split(fixture);
    fixture->mark = trie_dirty_mark(fixture->trie);
    while (trie_batch_take(fixture->trie, &fixture->batch, TRIE_BATCH_NODES_MAX) > 0) {
    }
    struct test_key other = key_of(0, SHARED + 3);
    test_key_push(&other, 88);
    insert(fixture, &other, 0);
    release(fixture, TRIE_FAILED);
    expect_waited_for(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(used_again_then_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(used_again_then_met_a_shorter_one, setup, teardown),
        cmocka_unit_test_setup_teardown(split_then_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(split_then_met_a_shorter_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lower_half_split_then_failed, setup, teardown),
    };
    return cmocka_run_group_tests_name("trie dirty", tests, NULL, NULL);
}
