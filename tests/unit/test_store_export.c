/* Export and import: what goes out comes back, merges by key, and no stream can do harm. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hashtrie/maintenance.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "unit/store_support.h"

enum { CONVERSATIONS = 120, STREAM_BYTES_MAX = 64 << 20, NODES_MAX = 8192 };

struct fixture {
    struct test_store from;
    struct test_store to;
    struct mem mem;
    struct buf stream;
    size_t read_at;
    struct hashtrie_reader_node nodes[2][NODES_MAX];
    size_t node_count;
};

static int setup(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    test_store_prefer_memory();
    test_store_init(&fixture.from);
    test_store_init(&fixture.to);
    mem_init(&fixture.mem, SIZE_MAX);
    buf_init(&fixture.stream, &fixture.mem, STREAM_BYTES_MAX);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    buf_fini(&fixture->stream);
    mem_fini(&fixture->mem);
    test_store_fini(&fixture->from);
    test_store_fini(&fixture->to);
    return 0;
}

static bool on_bytes(void *user, const void *bytes, size_t size)
{
    struct fixture *fixture = user;
    return buf_append(&fixture->stream, bytes, size);
}

static struct hashtrie_export_result export(struct fixture *fixture, const char *directory)
{
    struct hashtrie_reader *reader = NULL;
    struct hashtrie_export_options options = {.on_bytes = on_bytes, .user = fixture};
    struct hashtrie_export_result result;
    fixture->stream.size = 0;
    assert_int_equal(hashtrie_reader_open(directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_export(reader, &options, &result), HASHTRIE_OK);
    hashtrie_reader_close(reader);
    assert_int_equal(result.byte_count, fixture->stream.size);
    assert_int_equal(result.damage_count, 0);
    return result;
}

/* In pieces of an odd size, so that records lie across. */
static bool on_read(void *user, void *bytes, size_t size, size_t *got)
{
    struct fixture *fixture = user;
    size_t left = fixture->stream.size - fixture->read_at;
    size = size < 977 ? size : 977;
    *got = size < left ? size : left;
    if (*got > 0) {
        memcpy(bytes, fixture->stream.data + fixture->read_at, *got);
    }
    fixture->read_at += *got;
    return true;
}

static enum hashtrie_status try_import(struct fixture *fixture, uint64_t max_bytes,
                                       struct hashtrie_import_result *result)
{
    static const struct hashtrie_rename renames[] = {{"http://old", "http://new"}};
    struct hashtrie_import_options options = {.on_read = on_read,
                                              .user = fixture,
                                              .renames = renames,
                                              .rename_count = 1,
                                              .max_bytes = max_bytes};
    fixture->read_at = 0;
    return hashtrie_store_import(fixture->to.directory, &options, result);
}

static struct hashtrie_import_result import(struct fixture *fixture)
{
    struct hashtrie_import_result result;
    assert_int_equal(try_import(fixture, 0, &result), HASHTRIE_OK);
    test_store_expect_clean(&fixture->to);
    return result;
}

/* ---- Contents ---- */

/* A shared beginning, then its own. */
static struct test_key conversation(uint32_t number, uint32_t turns)
{
    struct test_key key = test_store_key(7, 0, 10);
    for (uint32_t i = 0; i < turns * 9; i++) {
        test_key_push(&key, ((uint64_t)number + 1) << 32 | i);
    }
    return key;
}

static void insert(struct test_store *test, uint32_t number, uint32_t turns, const char *name)
{
    hashtrie_endpoint endpoint = test_store_endpoint(test, name);
    struct test_key key = conversation(number, turns);
    test_store_insert(test, &key, endpoint);
}

static void fill(struct test_store *test, uint32_t first, uint32_t count, const char *name)
{
    test_store_open(test);
    insert(test, 0, 0, name);
    for (uint32_t i = first; i < first + count; i++) {
        insert(test, i, i % 4 + 1, name);
        test->now_s += 1;
    }
    test_store_close(test);
}

static bool keep_node(void *user, const struct hashtrie_reader_node *node)
{
    struct fixture *fixture = user;
    assert_true(fixture->node_count < NODES_MAX);
    fixture->nodes[1][fixture->node_count++] = *node;
    return true;
}

static size_t read_nodes(struct fixture *fixture, const char *directory,
                         struct hashtrie_reader_node *nodes)
{
    struct hashtrie_reader *reader = NULL;
    fixture->node_count = 0;
    assert_int_equal(hashtrie_reader_open(directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_nodes(reader, 0, UINT64_MAX, keep_node, fixture), HASHTRIE_OK);
    hashtrie_reader_close(reader);
    size_t count = fixture->node_count;
    if (nodes != fixture->nodes[1]) {
        memcpy(nodes, fixture->nodes[1], count * sizeof *nodes);
    }
    return count;
}

/* The endpoint holds all of the conversation, as far as the store knows. */
static void expect_held(struct test_store *test, uint32_t number, uint32_t turns, const char *name)
{
    struct test_key key = conversation(number, turns);
    struct hashtrie_match match = test_store_recall(test, &key);
    assert_int_equal(match.chunk_count, key.count);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, name)), key.count);
}

/* ---- Tests ---- */

static void a_new_store_gets_all(void **state)
{
    struct fixture *fixture = *state;
    fill(&fixture->from, 0, CONVERSATIONS, "http://a");
    fill(&fixture->from, 0, CONVERSATIONS / 2, "http://b");
    struct hashtrie_export_result out = export(fixture, fixture->from.directory);
    struct hashtrie_import_result in = import(fixture);
    assert_int_equal(out.endpoint_count, 2);
    assert_int_equal(in.endpoint_count, 2);
    assert_int_equal(in.new_endpoint_count, 2);
    assert_int_equal(in.node_count, out.node_count);
    assert_int_equal(in.added_count, out.node_count);
    size_t before = read_nodes(fixture, fixture->from.directory, fixture->nodes[0]);
    size_t after = read_nodes(fixture, fixture->to.directory, fixture->nodes[1]);
    assert_int_equal(before, after);
    assert_int_equal(before, out.node_count);
    assert_memory_equal(fixture->nodes[0], fixture->nodes[1], before * sizeof *fixture->nodes[0]);
}

static void importing_twice_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    fill(&fixture->from, 0, CONVERSATIONS, "http://a");
    struct hashtrie_export_result out = export(fixture, fixture->from.directory);
    (void)import(fixture);
    size_t before = read_nodes(fixture, fixture->to.directory, fixture->nodes[0]);
    struct hashtrie_import_result again = import(fixture);
    assert_int_equal(again.added_count, 0);
    assert_int_equal(again.joined_count, out.node_count);
    assert_int_equal(again.new_endpoint_count, 0);
    assert_int_equal(read_nodes(fixture, fixture->to.directory, fixture->nodes[1]), before);
    assert_memory_equal(fixture->nodes[0], fixture->nodes[1], before * sizeof *fixture->nodes[0]);
}

/* Here and there overlap: same conversations, longer ones here, longer ones there. */
static void two_stores_merge(void **state)
{
    struct fixture *fixture = *state;
    fill(&fixture->from, 0, CONVERSATIONS, "http://a");
    test_store_open(&fixture->to);
    insert(&fixture->to, 0, 0, "http://b");
    for (uint32_t i = CONVERSATIONS / 2; i < CONVERSATIONS * 2; i++) {
        insert(&fixture->to, i, i % 3 + 1, "http://b");
    }
    test_store_close(&fixture->to);
    (void)export(fixture, fixture->from.directory);
    struct hashtrie_import_result result = import(fixture);
    assert_int_equal(result.conflict_count, 0);
    assert_true(result.joined_count > 0);
    test_store_open(&fixture->to);
    for (uint32_t i = 0; i < CONVERSATIONS; i++) {
        expect_held(&fixture->to, i, i % 4 + 1, "http://a");
    }
    for (uint32_t i = CONVERSATIONS / 2; i < CONVERSATIONS * 2; i++) {
        expect_held(&fixture->to, i, i % 3 + 1, "http://b");
    }
    test_store_close(&fixture->to);
    test_store_expect_clean(&fixture->to);
}

/* Two runs that part inside: of the one used last all is known, of neither a lie. */
static void of_a_conflict_the_newer_wins(void **state)
{
    struct fixture *fixture = *state;
    test_store_open(&fixture->to);
    insert(&fixture->to, 1, 2, "http://b");
    test_store_close(&fixture->to);
    fixture->from.now_s += 1000;
    test_store_open(&fixture->from);
    insert(&fixture->from, 2, 2, "http://a");
    test_store_close(&fixture->from);
    (void)export(fixture, fixture->from.directory);
    assert_int_equal(import(fixture).conflict_count, 1);
    test_store_open(&fixture->to);
    expect_held(&fixture->to, 2, 2, "http://a");
    struct test_key loser = conversation(1, 2);
    assert_int_equal(test_store_recall(&fixture->to, &loser).chunk_count, 10);
    test_store_close(&fixture->to);
}

static void endpoints_can_be_renamed(void **state)
{
    struct fixture *fixture = *state;
    fill(&fixture->from, 0, 5, "http://old");
    fill(&fixture->to, 5, 5, "http://new");
    (void)export(fixture, fixture->from.directory);
    struct hashtrie_import_result result = import(fixture);
    assert_int_equal(result.new_endpoint_count, 0);
    test_store_open(&fixture->to);
    for (uint32_t i = 0; i < 10; i++) {
        expect_held(&fixture->to, i, i % 4 + 1, "http://new");
    }
    test_store_close(&fixture->to);
}

static void set_generation(struct test_store *test, const char *generation)
{
    test_store_open(test);
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://a");
    hashtrie_lock(test->trie);
    assert_int_equal(hashtrie_endpoint_set_generation(test->trie, endpoint, generation),
                     HASHTRIE_OK);
    hashtrie_unlock(test->trie);
    insert(test, 90, 1, "http://a");
    test_store_close(test);
}

/* What an engine held before it restarted is not brought back. */
static void a_restarted_engine_holds_nothing_of_before(void **state)
{
    struct fixture *fixture = *state;
    fill(&fixture->from, 0, 5, "http://a");
    set_generation(&fixture->from, "first");
    fill(&fixture->to, 5, 5, "http://a");
    set_generation(&fixture->to, "second");
    (void)export(fixture, fixture->from.directory);
    struct hashtrie_import_result result = import(fixture);
    assert_int_equal(result.old_endpoint_count, 1);
    test_store_open(&fixture->to);
    struct test_key key = conversation(2, 3);
    struct hashtrie_match match = test_store_recall(&fixture->to, &key);
    assert_int_equal(test_store_held(&match, test_store_endpoint(&fixture->to, "http://a")), 10);
    test_store_close(&fixture->to);
}

/* A stream from a machine whose clock is ahead must not keep its rows here for ever. */
static void times_to_come_count_as_now(void **state)
{
    struct fixture *fixture = *state;
    uint64_t now_s = clock_unix_ns() / CLOCK_NS_PER_S;
    fixture->from.now_s = now_s + UINT64_C(10) * 365 * 86400;
    fill(&fixture->from, 0, 5, "http://a");
    (void)export(fixture, fixture->from.directory);
    (void)import(fixture);
    struct hashtrie_reader *reader = NULL;
    struct hashtrie_reader_info info;
    assert_int_equal(hashtrie_reader_open(fixture->to.directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_get_info(reader, &info), HASHTRIE_OK);
    hashtrie_reader_close(reader);
    assert_true(info.newest_use_unix_s >= now_s - 3600);
    assert_true(info.newest_use_unix_s <= now_s + 3600);
}

static void names_that_are_too_long_are_refused(void **state)
{
    struct fixture *fixture = *state;
    char name[2050];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    struct hashtrie_rename rename = {"http://a", name};
    struct hashtrie_import_options options = {
        .on_read = on_read, .user = fixture, .renames = &rename, .rename_count = 1};
    struct hashtrie_import_result result;
    assert_int_equal(hashtrie_store_import(fixture->to.directory, &options, &result),
                     HASHTRIE_EINVAL);
}

static void a_store_in_use_is_not_imported_into(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie_import_result result;
    fill(&fixture->from, 0, 20, "http://a");
    (void)export(fixture, fixture->from.directory);
    test_store_open(&fixture->to);
    assert_int_equal(try_import(fixture, 0, &result), HASHTRIE_EBUSY);
    test_store_close(&fixture->to);
}

static void other_chunk_sizes_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie_import_result result;
    fill(&fixture->from, 0, 20, "http://a");
    (void)export(fixture, fixture->from.directory);
    struct hashtrie_options options = hashtrie_options_default(fixture->to.budget);
    options.chunk_size = 256;
    fixture->to.options.chunk_size = 256;
    assert_int_equal(hashtrie_new(&options, &fixture->to.trie), HASHTRIE_OK);
    assert_int_equal(
        hashtrie_store_open(fixture->to.trie, &fixture->to.options, &fixture->to.store),
        HASHTRIE_OK);
    test_store_close(&fixture->to);
    assert_int_equal(try_import(fixture, 0, &result), HASHTRIE_EVERSION);
}

static void the_cap_is_kept(void **state)
{
    struct fixture *fixture = *state;
    fixture->from.options.max_bytes = HASHTRIE_STORE_BYTES_MIN * 8;
    fixture->from.budget = (size_t)128 << 20;
    test_store_open(&fixture->from);
    hashtrie_endpoint a = test_store_endpoint(&fixture->from, "http://a");
    for (uint32_t i = 0; i < 6000; i++) {
        struct test_key key = test_store_key(7, ((uint64_t)i + 1) << 32, 900);
        test_store_insert(&fixture->from, &key, a);
    }
    test_store_close(&fixture->from);
    (void)export(fixture, fixture->from.directory);
    struct hashtrie_import_result result;
    assert_int_equal(try_import(fixture, HASHTRIE_STORE_BYTES_MIN, &result), HASHTRIE_EFULL);
    assert_true(result.added_count > 1000);
    struct hashtrie_reader *reader = NULL;
    struct hashtrie_reader_info info;
    assert_int_equal(hashtrie_reader_open(fixture->to.directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_get_info(reader, &info), HASHTRIE_OK);
    hashtrie_reader_close(reader);
    assert_true(info.file_bytes <= HASHTRIE_STORE_BYTES_MIN);
    assert_true(info.node_count > 1000);
    assert_true(info.clean);
    test_store_expect_clean(&fixture->to);
}

static void remove_to(struct fixture *fixture)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    for (size_t i = 0; i < 2; i++) {
        char *path = test_path(fixture->to.directory, names[i]);
        (void)unlink(path);
        test_path_free(path);
    }
}

/* Cut short or changed anywhere, it is told, and what was taken is sound. */
static void damaged_streams_are_told(void **state)
{
    struct fixture *fixture = *state;
    struct random random = {.state = test_seed()};
    struct hashtrie_import_result result;
    fill(&fixture->from, 0, 20, "http://a");
    (void)export(fixture, fixture->from.directory);
    size_t size = fixture->stream.size;
    for (int i = 0; i < 300; i++) {
        size_t at = random_below(&random, (uint32_t)size);
        bool cut = i % 3 == 0;
        char was = fixture->stream.data[at];
        if (cut) {
            fixture->stream.size = at;
        } else {
            fixture->stream.data[at] = (char)(was ^ 1 << random_below(&random, 8));
        }
        remove_to(fixture);
        enum hashtrie_status status = try_import(fixture, 0, &result);
        assert_true(status == HASHTRIE_ECORRUPT || status == HASHTRIE_EVERSION);
        char *path = test_path(fixture->to.directory, "data.mdb");
        if (access(path, F_OK) == 0) {
            test_store_expect_clean(&fixture->to);
        }
        test_path_free(path);
        fixture->stream.size = size;
        fixture->stream.data[at] = was;
    }
    remove_to(fixture);
    (void)import(fixture);
}

static bool on_read_or_die(void *user, void *bytes, size_t size, size_t *got)
{
    const struct fixture *fixture = user;
    if (fixture->read_at >= fixture->stream.size / 2) {
        (void)raise(SIGKILL);
    }
    return on_read(user, bytes, size, got);
}

/* A first import that is killed leaves no store; the next begins anew. */
static void a_killed_first_import_leaves_no_store(void **state)
{
    struct fixture *fixture = *state;
    fill(&fixture->from, 0, CONVERSATIONS, "http://a");
    struct hashtrie_export_result out = export(fixture, fixture->from.directory);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct hashtrie_import_options options = {.on_read = on_read_or_die, .user = fixture};
        struct hashtrie_import_result result;
        fixture->read_at = 0;
        _exit((int)hashtrie_store_import(fixture->to.directory, &options, &result));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    char *path = test_path(fixture->to.directory, "data.mdb");
    char *unfinished = test_path(fixture->to.directory, "unfinished/data.mdb");
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(unfinished, F_OK), 0);
    assert_int_equal(import(fixture).added_count, out.node_count);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(access(unfinished, F_OK), -1);
    test_path_free(path);
    test_path_free(unfinished);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_new_store_gets_all),
        CASE(importing_twice_changes_nothing),
        CASE(two_stores_merge),
        CASE(of_a_conflict_the_newer_wins),
        CASE(endpoints_can_be_renamed),
        CASE(a_restarted_engine_holds_nothing_of_before),
        CASE(times_to_come_count_as_now),
        CASE(names_that_are_too_long_are_refused),
        CASE(a_store_in_use_is_not_imported_into),
        CASE(other_chunk_sizes_are_refused),
        CASE(the_cap_is_kept),
        CASE(a_killed_first_import_leaves_no_store),
        CASE(damaged_streams_are_told),
    };
    return cmocka_run_group_tests_name("export", tests, NULL, NULL);
}
