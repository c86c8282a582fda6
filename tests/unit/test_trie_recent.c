/* How far back an engine's cache is taken to reach: as a real least-recently-used cache does. */
#include "hashtrie/trie.h"

#include "base/random.h"
#include "support/test.h"

enum { CHUNK = 128, CAPACITY_CHUNKS = 1024, PROMPT_CHUNKS = 16, NOW_S = 1700000000 };

struct fixture {
    struct hashtrie *trie;
    hashtrie_endpoint engine;
};

static int setup(void **state)
{
    static struct fixture fixture;
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN * 4);
    assert_int_equal(hashtrie_new(&options, &fixture.trie), HASHTRIE_OK);
    assert_int_equal(hashtrie_endpoint_add(fixture.trie, "http://a", "m", &fixture.engine),
                     HASHTRIE_OK);
    hashtrie_endpoint_set_capacity(fixture.trie, fixture.engine, CAPACITY_CHUNKS * CHUNK);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    const char *breach = NULL;
    assert_int_equal(hashtrie_check(fixture->trie, &breach), HASHTRIE_OK);
    hashtrie_free(fixture->trie);
    return 0;
}

/* Prompt number `number` has nothing in common with others. */
static struct hashtrie_key prompt(uint64_t number, size_t count, uint64_t *hashes)
{
    for (size_t i = 0; i < count; i++) {
        struct random random = {.state = number << 20 | i};
        hashes[i] = random_next(&random);
    }
    return (struct hashtrie_key){.namespace_hash = 1, .hashes = hashes, .count = count};
}

static void use(struct fixture *fixture, uint64_t number, size_t count)
{
    uint64_t hashes[CAPACITY_CHUNKS];
    struct hashtrie_key key = prompt(number, count, hashes);
    assert_int_equal(hashtrie_insert(fixture->trie, &key, fixture->engine, NOW_S), HASHTRIE_OK);
}

static bool is_held(struct fixture *fixture, uint64_t number)
{
    uint64_t hashes[PROMPT_CHUNKS];
    struct hashtrie_match match;
    struct hashtrie_key key = prompt(number, PROMPT_CHUNKS, hashes);
    hashtrie_match(fixture->trie, &key, NOW_S, &match);
    return match.holder_count > 0;
}

static void what_is_used_again_and_again_leaves_less_room_for_the_rest(void **state)
{
    struct fixture *fixture = *state;
    use(fixture, 1, PROMPT_CHUNKS);
    for (uint64_t i = 0; i < 64; i++) {
        use(fixture, 2, CAPACITY_CHUNKS / 2); /* Half of the cache, always in use. */
        use(fixture, 10 + i, PROMPT_CHUNKS);
        if (i < 28) { /* 31 of these fill the other half. */
            assert_true(is_held(fixture, 1));
        } else if (i > 34) {
            assert_false(is_held(fixture, 1));
        }
    }
    assert_true(is_held(fixture, 2));
}

static void without_that_it_reaches_as_far_as_its_capacity(void **state)
{
    struct fixture *fixture = *state;
    for (uint64_t i = 0; i < 64; i++) {
        use(fixture, i, PROMPT_CHUNKS);
    }
    assert_true(is_held(fixture, 2));
    for (uint64_t i = 64; i < 68; i++) {
        use(fixture, i, PROMPT_CHUNKS);
    }
    assert_false(is_held(fixture, 0));
}

/* An exact cache of whole prompts, the most recently used first. */
static bool lru_use(uint64_t *cache, size_t room, uint64_t number)
{
    size_t at = 0;
    while (at + 1 < room && cache[at] != number) {
        at++;
    }
    bool hit = cache[at] == number;
    for (; at > 0; at--) {
        cache[at] = cache[at - 1];
    }
    cache[0] = number;
    return hit;
}

static void it_agrees_with_a_real_cache_on_a_skewed_load(void **state)
{
    struct fixture *fixture = *state;
    enum { ROOM = CAPACITY_CHUNKS / PROMPT_CHUNKS, ROUNDS = 20000 };
    uint64_t cache[ROOM] = {0};
    struct random random = {.state = test_seed()};
    int wrong = 0;
    for (int i = 0; i < ROUNDS; i++) {
        /* Cubed: a few are asked for most of the time. */
        uint64_t draw = random_below(&random, 1000);
        uint64_t number = 1 + draw * draw * draw / 4000000;
        bool held = is_held(fixture, number);
        wrong += held != lru_use(cache, ROOM, number) ? 1 : 0;
        use(fixture, number, PROMPT_CHUNKS);
    }
    assert_true(wrong < ROUNDS / 50); /* 2 %. */
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(what_is_used_again_and_again_leaves_less_room_for_the_rest),
        CASE(without_that_it_reaches_as_far_as_its_capacity),
        CASE(it_agrees_with_a_real_cache_on_a_skewed_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
