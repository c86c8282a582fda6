/* What a batch's outcomes do to the nodes, where that is too rare for random operations. */
#include "support/keys.h"
#include "support/memory_store.h"
#include "support/test.h"
#include "trie/trie.h"

enum { NOW_S = 1700000000 };

struct fixture {
    struct mem mem;
    struct hashtrie *trie;
    struct memory_store *store;
    hashtrie_endpoint a;
    hashtrie_endpoint b;
};

static void trie_make(struct fixture *fixture)
{
    struct hashtrie_options options = hashtrie_options_default((size_t)8 << 20);
    assert_int_equal(hashtrie_new(&options, &fixture->trie), HASHTRIE_OK);
}

static void endpoints_add(struct fixture *fixture)
{
    assert_int_equal(hashtrie_endpoint_add(fixture->trie, "http://a", "m", &fixture->a),
                     HASHTRIE_OK);
    assert_int_equal(hashtrie_endpoint_add(fixture->trie, "http://b", "m", &fixture->b),
                     HASHTRIE_OK);
}

static int setup(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    mem_init(&fixture.mem, SIZE_MAX);
    trie_make(&fixture);
    fixture.store = memory_store_new(fixture.trie, &fixture.mem);
    endpoints_add(&fixture);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    memory_store_free(fixture->store);
    hashtrie_free(fixture->trie);
    mem_fini(&fixture->mem);
    return 0;
}

/* The trie goes, the store stays. */
static void restart(struct fixture *fixture)
{
    memory_store_detach(fixture->store);
    hashtrie_free(fixture->trie);
    trie_make(fixture);
    memory_store_attach(fixture->store, fixture->trie);
    endpoints_add(fixture);
}

/* A key of `count` chunks 0, 1, 2 .., the last one `last`. */
static struct hashtrie_key make_key(struct test_key *key, uint32_t count, uint64_t last)
{
    *key = (struct test_key){.namespace_hash = 77};
    for (uint32_t i = 0; i + 1 < count; i++) {
        test_key_push(key, i);
    }
    test_key_push(key, last);
    return test_key_view(key);
}

static void insert(const struct fixture *fixture, uint32_t count, uint64_t last,
                   hashtrie_endpoint endpoint, uint64_t now_s)
{
    static struct test_key bytes;
    struct hashtrie_key key = make_key(&bytes, count, last);
    assert_int_equal(hashtrie_insert(fixture->trie, &key, endpoint, now_s), HASHTRIE_OK);
}

static void write_all(const struct fixture *fixture)
{
    for (int i = 0; i < 10 && trie_dirty_count(fixture->trie) > 0; i++) {
        memory_store_take(fixture->store, 100);
        memory_store_commit(fixture->store, false);
    }
    assert_int_equal(trie_dirty_count(fixture->trie), 0);
}

static uint32_t held_by(const struct fixture *fixture, uint32_t count, uint64_t last,
                        hashtrie_endpoint endpoint)
{
    static struct test_key bytes;
    struct hashtrie_key key = make_key(&bytes, count, last);
    struct hashtrie_match match;
    hashtrie_match(fixture->trie, &key, NOW_S, &match);
    for (size_t i = 0; i < match.holder_count; i++) {
        if (match.holders[i].endpoint == endpoint) {
            return match.holders[i].chunk_count;
        }
    }
    return 0;
}

/*
 * A new node is split while its first write is under way. That write was none under the lower
 * half's key: what the store holds there, unseen, is met and joined, not overwritten.
 */
static void a_split_in_flight_stays_new(void **state)
{
    struct fixture *fixture = *state;
    insert(fixture, 5, 4, fixture->b, NOW_S);
    insert(fixture, 4, 9, fixture->b, NOW_S); /* [0 1 2] [3 4] [9] */
    write_all(fixture);
    restart(fixture);
    memory_store_forget(fixture->store, 1); /* [0 1 2]: its lower half was written before it. */
    insert(fixture, 5, 4, fixture->a, NOW_S);
    memory_store_take(fixture->store, 100);
    insert(fixture, 4, 8, fixture->a, NOW_S); /* Splits what is being written. */
    memory_store_commit(fixture->store, false);
    write_all(fixture);
    assert_int_equal(held_by(fixture, 5, 4, fixture->a), 5);
    assert_int_equal(held_by(fixture, 5, 4, fixture->b), 5);
}

/* A node whose row the cap has deleted is found gone at its next state write, and written in full.
 */
static void a_node_that_is_gone_is_written_again(void **state)
{
    struct fixture *fixture = *state;
    insert(fixture, 3, 2, fixture->a, NOW_S);
    write_all(fixture);
    memory_store_forget(fixture->store, 0);
    insert(fixture, 3, 2, fixture->b, NOW_S);
    write_all(fixture);
    restart(fixture);
    static struct test_key bytes;
    struct hashtrie_key key = make_key(&bytes, 3, 2);
    memory_store_reload(fixture->store, &key);
    assert_int_equal(held_by(fixture, 3, 2, fixture->a), 3);
    assert_int_equal(held_by(fixture, 3, 2, fixture->b), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_split_in_flight_stays_new, setup, teardown),
        cmocka_unit_test_setup_teardown(a_node_that_is_gone_is_written_again, setup, teardown),
    };
    return cmocka_run_group_tests_name("trie batch", tests, NULL, NULL);
}
