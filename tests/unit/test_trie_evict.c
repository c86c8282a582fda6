/* Eviction where the budget leaves no choice. */
#include "hashtrie/trie.h"

#include "support/keys.h"
#include "support/test.h"

enum { BUDGET = 1 << 20, TURNS = 60, CHUNKS_PER_TURN = 10, OTHER_CHUNKS = 300, LAST_CHUNKS = 1000 };

static struct hashtrie_stats stats_of(const struct hashtrie *trie)
{
    struct hashtrie_stats stats;
    hashtrie_get_stats(trie, &stats);
    return stats;
}

static void extend(struct test_key *key, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        test_key_push(key, i);
    }
}

/* A conversation of many turns, and so of many nodes, that nobody has used for longer than all
 * else: when it goes on, room comes from the others. */
static void oldest_conversation_goes_on(void **state)
{
    (void)state;
    struct hashtrie_options options = hashtrie_options_default(BUDGET);
    options.threshold = 1;
    struct hashtrie *trie;
    hashtrie_endpoint endpoint;
    assert_int_equal(hashtrie_new(&options, &trie), HASHTRIE_OK);
    assert_int_equal(hashtrie_endpoint_add(trie, "http://e", "m", &endpoint), HASHTRIE_OK);

    static struct test_key conversation = {.namespace_hash = 1};
    for (int turn = 0; turn < TURNS; turn++) {
        extend(&conversation, CHUNKS_PER_TURN);
        struct hashtrie_key view = test_key_view(&conversation);
        assert_int_equal(hashtrie_insert(trie, &view, endpoint, 0), HASHTRIE_OK);
    }
    for (uint64_t number = 2; stats_of(trie).evicted_node_count == 0; number++) {
        static struct test_key other;
        other = (struct test_key){.namespace_hash = 1};
        test_key_push(&other, number << 32);
        extend(&other, OTHER_CHUNKS);
        struct hashtrie_key view = test_key_view(&other);
        assert_int_equal(hashtrie_insert(trie, &view, endpoint, 0), HASHTRIE_OK);
    }

    extend(&conversation, LAST_CHUNKS);
    struct hashtrie_key view = test_key_view(&conversation);
    assert_int_equal(hashtrie_insert(trie, &view, endpoint, 0), HASHTRIE_OK);
    struct hashtrie_match match;
    hashtrie_match(trie, &view, 0, &match);
    assert_int_equal(match.holder_count, 1);
    assert_int_equal(match.holders[0].chunk_count, conversation.count);
    const char *breach = NULL;
    assert_int_equal(hashtrie_check(trie, &breach), HASHTRIE_OK);
    hashtrie_free(trie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oldest_conversation_goes_on),
    };
    return cmocka_run_group_tests_name("trie evict", tests, NULL, NULL);
}
