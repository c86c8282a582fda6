/* Opening, closing, restarting: what is refused, what is moved aside, what comes back. */
#include <dirent.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/store_support.h"

static size_t count_files(const char *directory, const char *prefix)
{
    size_t count = 0;
    DIR *listing = opendir(directory);
    assert_non_null(listing);
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    }
    (void)closedir(listing);
    return count;
}

static int setup(void **state)
{
    static struct test_store test;
    test_store_init(&test);
    *state = &test;
    return 0;
}

static int teardown(void **state)
{
    test_store_fini(*state);
    return 0;
}

static void makes_its_folder_for_its_owner_alone(void **state)
{
    struct test_store *test = *state;
    char *inner = test_path(test->directory, "inner");
    test->options.directory = inner;
    test_store_open(test);
    test_store_close(test);
    struct stat folder;
    assert_int_equal(stat(inner, &folder), 0);
    assert_int_equal(folder.st_mode & 0777, 0700);
    test_path_free(inner);
}

static void refuses_bad_options(void **state)
{
    struct test_store *test = *state;
    test->options.max_bytes = HASHTRIE_STORE_BYTES_MIN - 1;
    assert_int_equal(test_store_try_open(test), HASHTRIE_EINVAL);
    test->options.max_bytes = HASHTRIE_STORE_BYTES_MIN;
    test->options.reload_thread_count = HASHTRIE_STORE_RELOAD_THREADS_MAX + 1;
    assert_int_equal(test_store_try_open(test), HASHTRIE_EINVAL);
    test->options.reload_thread_count = 1;
    test->options.checkpoint_interval_ms = 0;
    assert_int_equal(test_store_try_open(test), HASHTRIE_EINVAL);
    test->options.checkpoint_interval_ms = HASHTRIE_STORE_INTERVAL_MIN_MS;
    test->options.directory = "";
    assert_int_equal(test_store_try_open(test), HASHTRIE_EINVAL);
    test_file_write_text(test->directory, "file", "x");
    char *file = test_path(test->directory, "file");
    test->options.directory = file;
    assert_int_equal(test_store_try_open(test), HASHTRIE_EINVAL);
    test_path_free(file);
    test->options.directory = test->directory;
    struct hashtrie_options of_trie = hashtrie_options_default(test->budget);
    of_trie.chunk_size = test->options.chunk_size * 2;
    assert_int_equal(hashtrie_new(&of_trie, &test->trie), HASHTRIE_OK);
    assert_int_equal(hashtrie_store_open(test->trie, &test->options, &test->store),
                     HASHTRIE_EINVAL);
    hashtrie_free(test->trie);
}

static void keeps_a_second_router_out(void **state)
{
    struct test_store *test = *state;
    struct test_store second = *test;
    second.options.user = &second;
    test_store_open(test);
    test_store_open(&second);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(second.store, &stats);
    assert_int_equal(stats.state, HASHTRIE_STORE_OFF);
    assert_int_equal(stats.problem, HASHTRIE_EBUSY);
    assert_false(stats.up);
    assert_true(test_store_was_told(&second, "another router"));
    assert_int_equal(hashtrie_store_checkpoint(second.store, TEST_WAIT_MS), HASHTRIE_EBUSY);
    assert_int_equal(hashtrie_store_close(second.store, TEST_WAIT_MS), HASHTRIE_EBUSY);
    hashtrie_free(second.trie);
    test_store_close(test);
    test_store_open(&second);
    test_store_close(&second);
}

/* A rolling update: the second router serves from memory until the first one ends, then it knows
 * what the first one knew, and what it has learnt itself. Their numbers for endpoints differ. */
static void a_second_router_takes_over(void **state)
{
    struct test_store *test = *state;
    struct test_store second = *test;
    second.options.user = &second;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    hashtrie_endpoint b = test_store_endpoint(test, "http://b");
    struct test_key key = test_store_key(7, 0, 300);
    struct test_key longer = test_store_key(7, 0, 400);
    struct test_key other = test_store_key(8, 0, 50);
    test_store_insert(test, &key, a);
    test_store_insert(test, &other, b);

    test_store_open(&second);
    hashtrie_endpoint c2 = test_store_endpoint(&second, "http://c");
    hashtrie_endpoint b2 = test_store_endpoint(&second, "http://b");
    hashtrie_endpoint a2 = test_store_endpoint(&second, "http://a");
    hashtrie_lock(second.trie);
    hashtrie_endpoint_set_capacity(second.trie, a2, 1 << 20);
    hashtrie_unlock(second.trie);
    test_store_insert(&second, &longer, c2);
    test_store_insert(&second, &other, c2);
    assert_int_equal(test_store_match(&second, &key).holder_count, 1);
    test_store_close(test);

    test_store_checkpoint(&second); /* Tries at once. */
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(second.store, &stats);
    assert_int_equal(stats.state, HASHTRIE_STORE_OK);
    assert_int_equal(stats.problem, HASHTRIE_OK);
    assert_true(test_store_was_told(&second, "is open"));
    struct hashtrie_match match = test_store_recall(&second, &longer);
    assert_int_equal(test_store_held(&match, c2), 400);
    assert_int_equal(test_store_held(&match, a2), 300);
    match = test_store_recall(&second, &other);
    assert_int_equal(test_store_held(&match, b2), 50);
    assert_int_equal(test_store_held(&match, c2), 50);
    test_store_close(&second);
    test_store_expect_clean(&second);

    test_store_open(test);
    match = test_store_recall(test, &longer);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://c")), 400);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://a")), 300);
    test_store_close(test);
}

static enum hashtrie_store_state state_of(struct test_store *test)
{
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    return stats.state;
}

/* The second has it while the first still lives, which touches nothing of it any more. */
static void the_folder_is_handed_over_before_the_end(void **state)
{
    struct test_store *test = *state;
    struct test_store second = *test;
    second.options.user = &second;
    test_store_open(test);
    struct test_key key = test_store_key(7, 0, 300);
    struct test_key late = test_store_key(8, 0, 50);
    test_store_insert(test, &key, test_store_endpoint(test, "http://a"));
    hashtrie_store_hand_over(test->store);
    for (int i = 0; i < TEST_WAIT_MS && state_of(test) != HASHTRIE_STORE_OFF; i++) {
        (void)usleep(1000);
    }
    assert_int_equal(state_of(test), HASHTRIE_STORE_OFF);

    test_store_open(&second);
    assert_int_equal(state_of(&second), HASHTRIE_STORE_OK);
    struct hashtrie_match match = test_store_recall(&second, &key);
    assert_int_equal(test_store_held(&match, test_store_endpoint(&second, "http://a")), 300);
    test_store_insert(test, &late, test_store_endpoint(test, "http://a"));
    assert_int_equal(hashtrie_store_checkpoint(test->store, 10), HASHTRIE_EBUSY);
    assert_int_equal(hashtrie_store_close(test->store, TEST_WAIT_MS), HASHTRIE_OK);
    test->store = NULL;
    hashtrie_free(test->trie);
    test->trie = NULL;
    assert_int_equal(test_store_trouble_count(test), 0);

    test_store_insert(&second, &late, test_store_endpoint(&second, "http://b"));
    test_store_checkpoint(&second);
    test_store_close(&second);
    test_store_expect_clean(&second);
    test_store_open(test); /* Its mark says that it was closed in order: nothing is checked. */
    assert_int_equal(test_store_trouble_count(test), 0);
    match = test_store_recall(test, &late);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://b")), 50);
    test_store_close(test);
}

/* What is stored of an endpoint whose generation changed meanwhile is not its any more. */
static void another_generation_is_not_adopted(void **state)
{
    struct test_store *test = *state;
    struct test_store second = *test;
    second.options.user = &second;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    assert_int_equal(hashtrie_endpoint_set_generation(test->trie, a, "first"), HASHTRIE_OK);
    struct test_key key = test_store_key(7, 0, 300);
    test_store_insert(test, &key, a);
    test_store_open(&second);
    a = test_store_endpoint(&second, "http://a");
    assert_int_equal(hashtrie_endpoint_set_generation(second.trie, a, "second"), HASHTRIE_OK);
    struct test_key begin = test_store_key(7, 0, 100);
    test_store_insert(&second, &begin, a);
    test_store_close(test);
    test_store_checkpoint(&second);
    struct hashtrie_match match = test_store_recall(&second, &key);
    assert_int_equal(match.chunk_count, 300);
    assert_int_equal(test_store_held(&match, a), 100);
    test_store_close(&second);
    test_store_expect_clean(&second);
}

/* The folder goes while the store runs: it is made anew, and what is in memory is written there. */
static void files_that_vanish_are_made_anew(void **state)
{
    struct test_store *test = *state;
    char *inner = test_path(test->directory, "inner");
    char *gone = test_path(test->directory, "gone");
    test->options.directory = inner;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    struct test_key key = test_store_key(7, 0, 300);
    test_store_insert(test, &key, a);
    test_store_checkpoint(test);
    assert_int_equal(rename(inner, gone), 0);
    test_store_checkpoint(test); /* Looks first. */
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.state, HASHTRIE_STORE_OK);
    assert_true(test_store_was_told(test, "gone or were replaced"));
    char *data = test_path(inner, "data.mdb");
    assert_int_equal(unlink(data), 0);
    test_store_checkpoint(test);
    test_store_close(test);
    test_path_free(data);
    test_store_open(test);
    struct hashtrie_match match = test_store_recall(test, &key);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://a")), 300);
    test_store_close(test);
    test->options.directory = test->directory;
    test_path_free(inner);
    test_path_free(gone);
}

static void what_was_known_is_known_after_a_restart(void **state)
{
    struct test_store *test = *state;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    hashtrie_endpoint b = test_store_endpoint(test, "http://b");
    struct test_key key = test_store_key(7, 0, 2500);
    struct test_key other = test_store_key(7, 0, 1200);
    test_key_push(&other, 99999);
    test_store_insert(test, &key, a);
    test_store_insert(test, &other, b);
    struct hashtrie_match before = test_store_match(test, &key);
    assert_int_equal(test_store_held(&before, b), 1200);
    test_store_close(test);

    test_store_open(test);
    hashtrie_endpoint b_again = test_store_endpoint(test, "http://b");
    hashtrie_endpoint a_again = test_store_endpoint(test, "http://a");
    assert_int_equal(test_store_match(test, &key).chunk_count, 0);
    struct hashtrie_match after = test_store_recall(test, &key);
    assert_int_equal(after.chunk_count, 2500);
    assert_int_equal(test_store_held(&after, a_again), 2500);
    assert_int_equal(test_store_held(&after, b_again), 1200);
    after = test_store_recall(test, &other);
    assert_int_equal(test_store_held(&after, b_again), 1201);
    assert_int_equal(test_store_held(&after, a_again), 1200);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_true(stats.up && stats.restore_seconds > 0 && stats.restore_seconds < 10);
    assert_true(stats.node_count >= 4 && stats.chunk_count == 2501);
    assert_int_equal(stats.endpoint_count, 2);
    test_store_close(test);
    test_store_expect_clean(test);
}

static void generations_outlive_a_restart(void **state)
{
    struct test_store *test = *state;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    assert_int_equal(hashtrie_endpoint_set_generation(test->trie, a, "first"), HASHTRIE_OK);
    struct test_key key = test_store_key(7, 0, 10);
    test_store_insert(test, &key, a);
    test_store_close(test);

    test_store_open(test);
    a = test_store_endpoint(test, "http://a");
    assert_int_equal(hashtrie_endpoint_set_generation(test->trie, a, "first"), HASHTRIE_OK);
    struct hashtrie_match match = test_store_recall(test, &key);
    assert_int_equal(test_store_held(&match, a), 10);
    assert_int_equal(hashtrie_endpoint_set_generation(test->trie, a, "second"), HASHTRIE_OK);
    test_store_close(test);

    test_store_open(test);
    a = test_store_endpoint(test, "http://a");
    match = test_store_recall(test, &key);
    assert_int_equal(match.chunk_count, 10);
    assert_int_equal(match.holder_count, 0);
    test_store_close(test);
    test_store_expect_clean(test);
}

static void a_removed_endpoint_is_forgotten(void **state)
{
    struct test_store *test = *state;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    struct test_key key = test_store_key(7, 0, 10);
    test_store_insert(test, &key, a);
    test_store_checkpoint(test);
    hashtrie_lock(test->trie);
    hashtrie_endpoint_remove(test->trie, a);
    hashtrie_unlock(test->trie);
    test_store_close(test);

    test_store_open(test);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.endpoint_count, 0);
    a = test_store_endpoint(test, "http://a");
    struct hashtrie_match match = test_store_recall(test, &key);
    assert_int_equal(match.chunk_count, 10);
    assert_int_equal(match.holder_count, 0);
    test_store_close(test);
}

static void expect_empty_and_working(struct test_store *test, size_t aside)
{
    assert_int_equal(count_files(test->directory, "data.mdb.bad-"), aside);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.node_count, 0);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    struct test_key key = test_store_key(7, 0, 10);
    test_store_insert(test, &key, a);
    test_store_close(test);
    test_store_expect_clean(test);
}

static void what_is_no_store_is_moved_aside(void **state)
{
    struct test_store *test = *state;
    char garbage[20000];
    for (size_t i = 0; i < sizeof garbage; i++) {
        garbage[i] = (char)(i * 7);
    }
    test_file_write(test->directory, "data.mdb", garbage, sizeof garbage);
    test_store_open(test);
    assert_true(test_store_was_told(test, "data.mdb.bad-"));
    expect_empty_and_working(test, 1);
    test_file_write_text(test->directory, "data.mdb", "short");
    test_store_open(test);
    expect_empty_and_working(test, 1); /* One is kept. */
}

static void a_foreign_lmdb_file_is_moved_aside(void **state)
{
    struct test_store *test = *state;
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi dbi = 0;
    MDB_val key = {.mv_size = 3, .mv_data = "key"};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, test->directory, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &key, &key, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    test_store_open(test);
    expect_empty_and_working(test, 1);
}

static void another_chunk_size_starts_empty(void **state)
{
    struct test_store *test = *state;
    test_store_open(test);
    expect_empty_and_working(test, 0);
    test->options.chunk_size = 256;
    test_store_open(test);
    assert_true(test_store_was_told(test, "chunk size"));
    expect_empty_and_working(test, 1);
}

static void a_truncated_file_never_crashes(void **state)
{
    struct test_store *test = *state;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    for (uint32_t i = 0; i < 300; i++) {
        struct test_key key = test_store_key(7, (uint64_t)i << 32, 500);
        test_store_insert(test, &key, a);
    }
    test_store_close(test);
    char *path = test_path(test->directory, "data.mdb");
    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(truncate(path, file.st_size / 2), 0);
    test_path_free(path);
    test_store_open(test);
    a = test_store_endpoint(test, "http://a");
    for (uint32_t i = 0; i < 300; i++) {
        struct test_key key = test_store_key(7, (uint64_t)i << 32, 500);
        (void)test_store_recall(test, &key);
        test_store_insert(test, &key, a);
    }
    (void)test_store_try_checkpoint(test);
    (void)hashtrie_store_close(test->store, 5000);
    hashtrie_free(test->trie);
}

/* A child that is killed in the middle loses nothing that a checkpoint had acknowledged. */
static void a_killed_router_keeps_its_checkpoints(void **state)
{
    struct test_store *test = *state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct test_store inner = *test;
        inner.options.user = &inner;
        test_store_open(&inner);
        hashtrie_endpoint a = test_store_endpoint(&inner, "http://a");
        for (uint32_t i = 0; i < 100; i++) {
            struct test_key key = test_store_key(7, (uint64_t)i << 32, 40 + i);
            test_store_insert(&inner, &key, a);
        }
        bool good = hashtrie_store_checkpoint(inner.store, TEST_WAIT_MS) == HASHTRIE_OK;
        (void)!write(ready[1], good ? "y" : "n", 1);
        for (uint32_t i = 100;; i++) { /* Goes on until it is killed. */
            struct test_key key = test_store_key(7, (uint64_t)i << 32, 40);
            test_store_insert(&inner, &key, a);
            (void)test_store_try_checkpoint(&inner);
        }
    }
    char answer = 'n';
    assert_int_equal(read(ready[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    (void)close(ready[0]);
    (void)close(ready[1]);
    test_store_expect_clean(test);
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    for (uint32_t i = 0; i < 100; i++) {
        struct test_key key = test_store_key(7, (uint64_t)i << 32, 40 + i);
        struct hashtrie_match match = test_store_recall(test, &key);
        assert_int_equal(test_store_held(&match, a), 40 + i);
    }
    test_store_close(test);
    test_store_expect_clean(test);
}

static void checkpoints_come_by_themselves(void **state)
{
    struct test_store *test = *state;
    test->options.checkpoint_interval_ms = HASHTRIE_STORE_INTERVAL_MIN_MS;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    struct test_key key = test_store_key(7, 0, 10);
    test_store_insert(test, &key, a);
    struct hashtrie_store_stats stats = {0};
    for (int i = 0; i < 1000 && stats.checkpoint_timed_count == 0; i++) {
        (void)usleep(10000); /* The interval is what is tested. */
        hashtrie_store_get_stats(test->store, &stats);
    }
    assert_int_equal(stats.node_count, 1);
    assert_true(stats.last_checkpoint_unix_s > 1.6e9);
    assert_int_equal(stats.checkpoint_le_count[HASHTRIE_STORE_CHECKPOINT_BOUNDS - 1],
                     stats.checkpoint_timed_count);
    test_store_close(test);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(makes_its_folder_for_its_owner_alone),
        CASE(refuses_bad_options),
        CASE(keeps_a_second_router_out),
        CASE(a_second_router_takes_over),
        CASE(the_folder_is_handed_over_before_the_end),
        CASE(another_generation_is_not_adopted),
        CASE(files_that_vanish_are_made_anew),
        CASE(what_was_known_is_known_after_a_restart),
        CASE(generations_outlive_a_restart),
        CASE(a_removed_endpoint_is_forgotten),
        CASE(what_is_no_store_is_moved_aside),
        CASE(a_foreign_lmdb_file_is_moved_aside),
        CASE(another_chunk_size_starts_empty),
        CASE(a_truncated_file_never_crashes),
        CASE(a_killed_router_keeps_its_checkpoints),
        CASE(checkpoints_come_by_themselves),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
