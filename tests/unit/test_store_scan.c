/* Scans by row and by key tell each node once, and the counters that a store keeps. */
#include "unit/store_support.h"

enum { NODES_MAX = 4096, PROMPTS = 400 };

struct fixture {
    struct test_store test;
    struct hashtrie_reader_node by_key[NODES_MAX];
    size_t count;
};

static bool keep(void *user, const struct hashtrie_reader_node *node)
{
    struct fixture *fixture = user;
    assert_true(fixture->count < NODES_MAX);
    fixture->by_key[fixture->count++] = *node;
    return true;
}

static int setup(void **state)
{
    static struct fixture fixture;
    static struct test_key key;
    static struct test_key before;
    struct random random = {.state = test_seed()};
    test_store_prefer_memory();
    fixture = (struct fixture){0};
    test_store_init(&fixture.test);
    test_store_open(&fixture.test);
    hashtrie_endpoint a = test_store_endpoint(&fixture.test, "http://a");
    for (uint32_t i = 0; i < PROMPTS; i++) {
        test_key_random(&key, i == 0 ? NULL : &before, &random);
        test_store_insert(&fixture.test, &key, a);
        before = key;
    }
    test_store_close(&fixture.test);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    test_store_fini(&fixture->test);
    return 0;
}

static struct hashtrie_reader *open_and_read(struct fixture *fixture)
{
    struct hashtrie_reader *reader = NULL;
    assert_int_equal(hashtrie_reader_open(fixture->test.directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_nodes(reader, 0, UINT64_MAX, keep, fixture), HASHTRIE_OK);
    assert_true(fixture->count > 200);
    return reader;
}

static void slices_of_any_size_tell_the_same(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie_reader *reader = open_and_read(fixture);
    static const size_t sizes[] = {1, 7, 128};
    static struct hashtrie_reader_node nodes[128];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct hashtrie_reader_place place = {0};
        size_t seen = 0;
        while (!place.ended) {
            size_t count = 0;
            assert_int_equal(hashtrie_reader_slice(reader, &place, nodes, sizes[i], &count),
                             HASHTRIE_OK);
            assert_memory_equal(nodes, &fixture->by_key[seen], count * sizeof *nodes);
            seen += count;
        }
        assert_int_equal(seen, fixture->count);
        assert_int_equal(place.corrupt_count, 0);
    }
    hashtrie_reader_close(reader);
}

struct sums {
    uint64_t nodes;
    uint64_t chunks;
    uint64_t bytes;
};

static bool add_up(void *user, const struct hashtrie_reader_node *node, uint64_t stored_bytes)
{
    struct sums *sums = user;
    sums->nodes++;
    sums->chunks += node->chunk_count;
    sums->bytes += stored_bytes;
    return true;
}

static void rows_add_up_to_the_store(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie_reader *reader = open_and_read(fixture);
    struct sums sums = {0};
    struct hashtrie_reader_info info;
    assert_int_equal(hashtrie_reader_rows(reader, add_up, &sums), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_get_info(reader, &info), HASHTRIE_OK);
    assert_int_equal(sums.nodes, info.node_count);
    assert_int_equal(sums.nodes, fixture->count);
    assert_int_equal(sums.chunks, info.chunk_count);
    assert_true(sums.bytes < info.used_bytes);
    assert_true(sums.bytes > info.used_bytes / 3);
    hashtrie_reader_close(reader);
}

static void runs_are_told(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie_reader *reader = open_and_read(fixture);
    static uint32_t run[HASHTRIE_READER_RUN_MAX];
    for (size_t i = 0; i < fixture->count; i += 11) {
        const struct hashtrie_reader_node *node = &fixture->by_key[i];
        uint32_t count = 0;
        assert_int_equal(hashtrie_reader_run(reader, node->prefix, node->fingerprint, run, &count),
                         HASHTRIE_OK);
        assert_int_equal(count, node->chunk_count);
        assert_int_equal(run[0], node->fingerprint);
        assert_int_equal(run[count - 1], (uint32_t)node->end);
    }
    uint32_t count = 0;
    assert_int_equal(hashtrie_reader_run(reader, 1, 2, run, &count), HASHTRIE_ENOENT);
    hashtrie_reader_close(reader);
}

/* Answered reloads are counted over restarts, and the cap is that of the last opening. */
static void counters_are_kept(void **state)
{
    struct fixture *fixture = *state;
    struct test_store *test = &fixture->test;
    struct test_key known = test_store_key(9, 0, 20);
    struct test_key longer = known;
    test_key_push(&longer, 77);
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    test_store_insert(test, &known, a);
    test_store_close(test);
    test->options.max_bytes = HASHTRIE_STORE_BYTES_MIN * 2;
    for (uint32_t round = 0; round < 3; round++) {
        test_store_open(test);
        a = test_store_endpoint(test, "http://a");
        assert_int_equal(test_store_reload(test, &known, 0), HASHTRIE_OK);
        assert_int_equal(test_store_reload(test, &longer, 20), HASHTRIE_ENOENT);
        test_store_insert(test, &known, a); /* Something to write. */
        test->now_s += 60;
        test_store_checkpoint(test);
        test_store_close(test);
        struct hashtrie_reader *reader = NULL;
        struct hashtrie_reader_info info;
        assert_int_equal(hashtrie_reader_open(test->directory, &reader), HASHTRIE_OK);
        assert_int_equal(hashtrie_reader_get_info(reader, &info), HASHTRIE_OK);
        assert_int_equal(info.reload_found_count, round + 1);
        assert_int_equal(info.reload_missed_count, round + 1);
        assert_int_equal(info.cap_bytes, HASHTRIE_STORE_BYTES_MIN * 2);
        hashtrie_reader_close(reader);
    }
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(slices_of_any_size_tell_the_same),
        CASE(rows_add_up_to_the_store),
        CASE(runs_are_told),
        CASE(counters_are_kept),
    };
    return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
