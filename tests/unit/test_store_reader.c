/* Looking into a store: what is told is what was put in, and planted faults are found. */
#include <lmdb.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/record.h"
#include "unit/store_support.h"

enum { CONVERSATIONS = 50, MORE = 5 };

/* Conversations with a system prompt in common, of two engines. */
static struct test_key conversation(uint32_t number, uint32_t more)
{
    struct test_key key = test_store_key(7, 0, 10);
    for (uint32_t i = 0; i < 20 + more; i++) {
        test_key_push(&key, ((uint64_t)number + 1) << 32 | i);
    }
    return key;
}

static void fill(struct test_store *test)
{
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    hashtrie_endpoint b = test_store_endpoint(test, "http://b");
    for (uint32_t i = 0; i < CONVERSATIONS; i++) {
        struct test_key key = conversation(i, 0);
        test_store_insert(test, &key, i % 2 == 0 ? a : b);
        key = conversation(i, MORE);
        test_store_insert(test, &key, i % 2 == 0 ? a : b);
    }
    test_store_close(test);
}

static int setup(void **state)
{
    static struct test_store test;
    test_store_init(&test);
    fill(&test);
    *state = &test;
    return 0;
}

static int teardown(void **state)
{
    test_store_fini(*state);
    return 0;
}

static struct hashtrie_reader *open_reader(const struct test_store *test)
{
    struct hashtrie_reader *reader = NULL;
    assert_int_equal(hashtrie_reader_open(test->directory, &reader), HASHTRIE_OK);
    return reader;
}

/* ---- Reading ---- */

static void figures_are_right(void **state)
{
    struct test_store *test = *state;
    struct hashtrie_reader *reader = open_reader(test);
    struct hashtrie_reader_info info;
    assert_int_equal(hashtrie_reader_get_info(reader, &info), HASHTRIE_OK);
    assert_int_equal(info.format_version, HASHTRIE_FORMAT_VERSION);
    assert_int_equal(info.chunk_size, HASHTRIE_CHUNK_SIZE_DEFAULT);
    assert_true(info.hash_seed == HASHTRIE_HASH_SEED);
    assert_true(info.clean && !info.lockless);
    assert_int_equal(info.endpoint_count, 2);
    assert_int_equal(info.next_endpoint_id, 3);
    assert_int_equal(info.node_count, 1 + 2 * CONVERSATIONS);
    assert_int_equal(info.chunk_count, 10 + (20 + MORE) * CONVERSATIONS);
    assert_int_equal(info.cap_bytes, HASHTRIE_STORE_BYTES_MIN);
    assert_true(info.used_bytes > 0 && info.used_bytes <= info.file_bytes);
    assert_true(info.newest_use_unix_s == test->now_s / 10 * 10);
    assert_true(info.oldest_use_unix_s == info.newest_use_unix_s);
    assert_true(info.last_checkpoint_unix_ms > 0);
    hashtrie_reader_close(reader);
}

struct seen {
    uint32_t nodes;
    uint32_t chunks;
    uint32_t prefixes;
    uint32_t namespaces;
    uint32_t endpoints;
    uint32_t stop_after;
    uint64_t last_prefix;
};

static bool on_node(void *user, const struct hashtrie_reader_node *node)
{
    struct seen *seen = user;
    seen->nodes++;
    seen->chunks += node->chunk_count;
    assert_true(node->prefix >= seen->last_prefix);
    seen->last_prefix = node->prefix;
    assert_true(node->holder_count == 1 || (node->depth == 0 && node->holder_count == 2));
    return seen->nodes != seen->stop_after;
}

static bool on_prefix(void *user, uint64_t prefix, uint32_t depth)
{
    struct seen *seen = user;
    seen->prefixes++;
    seen->namespaces += depth == 0;
    assert_true(depth != 0 || prefix == 7);
    return true;
}

static bool on_endpoint(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct seen *seen = user;
    seen->endpoints++;
    assert_string_equal(endpoint->name, endpoint->id == 1 ? "http://a" : "http://b");
    assert_string_equal(endpoint->model, "model");
    assert_true(endpoint->odometer_kib > 0 && endpoint->seen_unix_s > 1600000000);
    return true;
}

static void everything_is_told_once(void **state)
{
    struct hashtrie_reader *reader = open_reader(*state);
    struct seen seen = {.stop_after = 0};
    assert_int_equal(hashtrie_reader_nodes(reader, 0, UINT64_MAX, on_node, &seen), HASHTRIE_OK);
    assert_int_equal(seen.nodes, 1 + 2 * CONVERSATIONS);
    assert_int_equal(seen.chunks, 10 + (20 + MORE) * CONVERSATIONS);
    assert_int_equal(hashtrie_reader_prefixes(reader, 0, UINT64_MAX, on_prefix, &seen),
                     HASHTRIE_OK);
    assert_int_equal(seen.prefixes, 2 + CONVERSATIONS);
    assert_int_equal(seen.namespaces, 1);
    assert_int_equal(hashtrie_reader_endpoints(reader, on_endpoint, &seen), HASHTRIE_OK);
    assert_int_equal(seen.endpoints, 2);
    struct test_key key = conversation(0, 0);
    seen = (struct seen){.stop_after = 0};
    assert_int_equal(hashtrie_reader_nodes(reader, key.hashes[9], key.hashes[9], on_node, &seen),
                     HASHTRIE_OK);
    assert_int_equal(seen.nodes, CONVERSATIONS); /* Below the system prompt. */
    seen = (struct seen){.stop_after = 3};
    assert_int_equal(hashtrie_reader_nodes(reader, 0, UINT64_MAX, on_node, &seen), HASHTRIE_OK);
    assert_int_equal(seen.nodes, 3);
    hashtrie_reader_close(reader);
}

static void a_node_is_found_by_its_key(void **state)
{
    struct hashtrie_reader *reader = open_reader(*state);
    struct test_key key = conversation(3, MORE);
    struct hashtrie_reader_node node;
    assert_int_equal(hashtrie_reader_find(reader, 7, (uint32_t)key.hashes[0], &node), HASHTRIE_OK);
    assert_true(node.depth == 0 && node.chunk_count == 10 && node.end == key.hashes[9]);
    assert_int_equal(node.holder_count, 2);
    assert_int_equal(hashtrie_reader_find(reader, node.end, (uint32_t)key.hashes[10], &node),
                     HASHTRIE_OK);
    assert_true(node.depth == 10 && node.chunk_count == 20 && node.holder_count == 1);
    assert_int_equal(node.holders[0].endpoint_id, 2);
    assert_int_equal(hashtrie_reader_find(reader, 8, 1, &node), HASHTRIE_ENOENT);
    hashtrie_reader_close(reader);
}

/* Another process reads while this one writes. */
static void a_store_in_use_can_be_read(void **state)
{
    struct test_store *test = *state;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    int stop[2];
    assert_int_equal(pipe(stop), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* The store of the parent is not touched here. */
        int wrong = 0;
        for (int i = 0; i < 30; i++) {
            struct hashtrie_reader *reader = NULL;
            struct hashtrie_verify_options options = {.user = NULL};
            struct hashtrie_verify_result result = {.node_count = 0};
            wrong += hashtrie_reader_open(test->directory, &reader) != HASHTRIE_OK;
            wrong += hashtrie_reader_verify(reader, &options, &result) != HASHTRIE_OK;
            wrong += result.damage_count != 0 || result.node_count == 0;
            hashtrie_reader_close(reader);
        }
        _exit(wrong == 0 ? 0 : 1);
    }
    int status = 0;
    static struct test_key key;
    for (uint32_t i = 0; waitpid(child, &status, WNOHANG) == 0; i++) {
        key = test_store_key(9, (uint64_t)i << 32, 30);
        test_store_insert(test, &key, a);
        test_store_checkpoint(test);
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    test_store_close(test);
    test_store_expect_clean(test);
}

static void what_is_no_store_is_refused(void **state)
{
    struct test_store *test = *state;
    struct hashtrie_reader *reader = NULL;
    char *empty = test_directory_make();
    assert_int_equal(hashtrie_reader_open(empty, &reader), HASHTRIE_ENOENT);
    char garbage[9000] = {1, 2, 3};
    test_file_write(empty, "data.mdb", garbage, sizeof garbage);
    assert_int_equal(hashtrie_reader_open(empty, &reader), HASHTRIE_ECORRUPT);
    char *data = test_path(empty, "data.mdb");
    assert_int_equal(unlink(data), 0);
    assert_int_equal(mkfifo(data, 0600), 0);
    assert_int_equal(hashtrie_reader_open(empty, &reader), HASHTRIE_EINVAL);
    test_path_free(data);
    test_directory_remove(empty);
    char *missing = test_path(test->directory, "missing");
    assert_int_equal(hashtrie_reader_open(missing, &reader), HASHTRIE_ENOENT);
    test_path_free(missing);
    assert_null(reader);
}

/* ---- Faults ---- */

/* One raw write transaction on the closed store. */
struct raw {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cursor;
};

static struct raw raw_open(const struct test_store *test, const char *database)
{
    struct raw raw = {.env = NULL};
    assert_int_equal(mdb_env_create(&raw.env), 0);
    assert_int_equal(mdb_env_set_maxdbs(raw.env, 8), 0);
    assert_int_equal(mdb_env_open(raw.env, test->directory, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(raw.env, NULL, 0, &raw.txn), 0);
    assert_int_equal(mdb_dbi_open(raw.txn, database, 0, &raw.dbi), 0);
    assert_int_equal(mdb_cursor_open(raw.txn, raw.dbi, &raw.cursor), 0);
    return raw;
}

static void raw_close(struct raw *raw)
{
    mdb_cursor_close(raw->cursor);
    assert_int_equal(mdb_txn_commit(raw->txn), 0);
    mdb_env_close(raw->env);
}

static void delete_first(const struct test_store *test, const char *database)
{
    struct raw raw = raw_open(test, database);
    MDB_val key;
    MDB_val value;
    assert_int_equal(mdb_cursor_get(raw.cursor, &key, &value, MDB_FIRST), 0);
    assert_int_equal(mdb_cursor_del(raw.cursor, 0), 0);
    raw_close(&raw);
}

/* Flips a bit in the value that comes `skip` after the first; `from_end`: at which byte. */
static void flip(const struct test_store *test, const char *database, int skip, size_t from_end)
{
    struct raw raw = raw_open(test, database);
    MDB_val key;
    MDB_val value;
    assert_int_equal(mdb_cursor_get(raw.cursor, &key, &value, MDB_FIRST), 0);
    for (int i = 0; i < skip; i++) {
        assert_int_equal(mdb_cursor_get(raw.cursor, &key, &value, MDB_NEXT), 0);
    }
    unsigned char bytes[RUN_BYTES_MAX];
    unsigned char name[64];
    assert_true(value.mv_size <= sizeof bytes && value.mv_size > from_end);
    memcpy(bytes, value.mv_data, value.mv_size);
    memcpy(name, key.mv_data, key.mv_size);
    bytes[value.mv_size - 1 - from_end] ^= 4;
    MDB_val copy = {.mv_size = value.mv_size, .mv_data = bytes};
    MDB_val key_copy = {.mv_size = key.mv_size, .mv_data = name};
    assert_int_equal(mdb_put(raw.txn, raw.dbi, &key_copy, &copy, 0), 0);
    raw_close(&raw);
}

static uint64_t damage(struct test_store *test)
{
    return test_store_verify(test).damage_count;
}

/* All is asked for and used; nothing crashes, what cannot be read is not believed. */
static void use_and_repair(struct test_store *test)
{
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    hashtrie_endpoint b = test_store_endpoint(test, "http://b");
    for (uint32_t i = 0; i < CONVERSATIONS; i++) {
        struct test_key key = conversation(i, MORE);
        struct hashtrie_match match = test_store_recall(test, &key);
        assert_true(test_store_held(&match, i % 2 == 0 ? b : a) <= 10);
        test_store_insert(test, &key, i % 2 == 0 ? a : b);
    }
    test_store_close(test);
    test_store_open(test);
    for (uint32_t i = 0; i < CONVERSATIONS; i++) {
        struct test_key key = conversation(i, MORE);
        struct hashtrie_match match = test_store_recall(test, &key);
        assert_int_equal(test_store_held(&match, i % 2 == 0 ? a : b), 30 + MORE);
    }
    test_store_close(test);
}

static void a_whole_store_has_no_faults(void **state)
{
    struct test_store *test = *state;
    struct hashtrie_verify_result result = test_store_verify(test);
    assert_int_equal(result.damage_count, 0);
    assert_int_equal(result.node_count, 1 + 2 * CONVERSATIONS);
    assert_true(result.links_counted);
    assert_int_equal(result.detached_count, 0);
    assert_int_equal(result.inverted_count, 0);
    use_and_repair(test);
    assert_int_equal(damage(test), 0);
}

static void a_missing_edge_is_found(void **state)
{
    delete_first(*state, "edges");
    assert_int_equal(damage(*state), 1);
    use_and_repair(*state);
}

static void a_missing_run_is_found_and_replaced(void **state)
{
    delete_first(*state, "runs");
    assert_int_equal(damage(*state), 1);
    use_and_repair(*state);
    assert_int_equal(damage(*state), 0);
}

static void a_missing_state_is_found(void **state)
{
    delete_first(*state, "state");
    assert_int_equal(damage(*state), 3); /* Edge, run and age entry lead nowhere. */
    use_and_repair(*state);
    assert_int_equal(damage(*state), 1); /* The age entry goes when its time comes. */
}

static void a_missing_age_entry_is_found(void **state)
{
    delete_first(*state, "age");
    assert_int_equal(damage(*state), 1);
    use_and_repair(*state);
}

static void a_flipped_bit_is_found(void **state)
{
    struct test_store *test = *state;
    static const char *const databases[] = {"runs", "state", "edges"};
    for (size_t i = 0; i < sizeof databases / sizeof *databases; i++) {
        flip(test, databases[i], 7 * (int)i, 5);
        assert_true(damage(test) > 0);
        use_and_repair(test);
    }
}

static void an_edge_to_another_row_is_found(void **state)
{
    struct test_store *test = *state;
    flip(test, "edges", 3, ROW_VALUE_SIZE - 1); /* The lowest byte: a row that exists. */
    assert_true(damage(test) > 0);
    use_and_repair(test);
}

static void a_holder_from_nowhere_is_found(void **state)
{
    struct test_store *test = *state;
    struct raw raw = raw_open(test, "meta");
    unsigned char name[META_KEY_SIZE];
    unsigned char bytes[META_VALUE_SIZE];
    record_put_u32(name, META_NEXT_ENDPOINT_ID);
    record_encode_meta(bytes, META_NEXT_ENDPOINT_ID, 2); /* Endpoint 2 was never given out. */
    MDB_val key = {.mv_size = sizeof name, .mv_data = name};
    MDB_val value = {.mv_size = sizeof bytes, .mv_data = bytes};
    assert_int_equal(mdb_put(raw.txn, raw.dbi, &key, &value, 0), 0);
    raw_close(&raw);
    assert_int_equal(damage(test), 1 + CONVERSATIONS);
    use_and_repair(test);
    assert_int_equal(damage(test), 0); /* No id is given out twice all the same. */
}

static void a_node_without_its_parent_is_harmless(void **state)
{
    struct test_store *test = *state;
    struct test_key key = conversation(0, 0);
    unsigned char edge[EDGE_KEY_SIZE];
    unsigned char number[ROW_KEY_SIZE];
    uint64_t row = 0;
    record_edge_key(edge, key.hashes[9], (uint32_t)key.hashes[10]);
    struct raw raw = raw_open(test, "edges");
    MDB_val name = {.mv_size = sizeof edge, .mv_data = edge};
    MDB_val value;
    assert_int_equal(mdb_get(raw.txn, raw.dbi, &name, &value), 0);
    assert_true(record_decode_row(value.mv_data, value.mv_size, &row));
    record_put_u64(number, row);
    assert_int_equal(mdb_del(raw.txn, raw.dbi, &name, NULL), 0);
    raw_close(&raw);
    static const char *const databases[] = {"runs", "state", "age"};
    for (size_t i = 0; i < 3; i++) {
        raw = raw_open(test, databases[i]);
        MDB_val found;
        MDB_val data;
        int code = mdb_cursor_get(raw.cursor, &found, &data, MDB_FIRST);
        while (code == 0 &&
               memcmp((unsigned char *)found.mv_data + found.mv_size - 8, number, 8) != 0) {
            code = mdb_cursor_get(raw.cursor, &found, &data, MDB_NEXT);
        }
        assert_int_equal(code, 0);
        assert_int_equal(mdb_cursor_del(raw.cursor, 0), 0);
        raw_close(&raw);
    }
    struct hashtrie_verify_result result = test_store_verify(test);
    assert_int_equal(result.damage_count, 0);
    assert_int_equal(result.detached_count, 1);
    use_and_repair(test);
    assert_int_equal(damage(test), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(figures_are_right),
        CASE(everything_is_told_once),
        CASE(a_node_is_found_by_its_key),
        CASE(a_store_in_use_can_be_read),
        CASE(what_is_no_store_is_refused),
        CASE(a_whole_store_has_no_faults),
        CASE(a_missing_edge_is_found),
        CASE(a_missing_run_is_found_and_replaced),
        CASE(a_missing_state_is_found),
        CASE(a_missing_age_entry_is_found),
        CASE(a_flipped_bit_is_found),
        CASE(an_edge_to_another_row_is_found),
        CASE(a_holder_from_nowhere_is_found),
        CASE(a_node_without_its_parent_is_harmless),
    };
    return cmocka_run_group_tests_name("store reader", tests, NULL, NULL);
}
