/* What is written: merging with what is there, the size cap, disks that fail. */
#include <lmdb.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "unit/store_support.h"

#ifdef HASHTRIE_DCHECK
enum { CHURN_TIMES = 4 }; /* Sanitizers are slow. */
#else
enum { CHURN_TIMES = 20 }; /* What is written, in caps. */
#endif

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

/* ---- A first write that finds a record under its key ---- */

/*
 * One run stored by one router, another under the same key inserted by the next one without looking
 * into the store first (as when a reload comes too late). Returns with the store open a third time,
 * nothing hot.
 */
static void meet(struct test_store *test, const struct test_key *stored,
                 const struct test_key *inserted, uint64_t *conflicts)
{
    test_store_open(test);
    test_store_insert(test, stored, test_store_endpoint(test, "http://stored"));
    test_store_close(test);
    test_store_open(test);
    test_store_insert(test, inserted, test_store_endpoint(test, "http://inserted"));
    test_store_checkpoint(test);
    struct hashtrie_stats stats;
    hashtrie_lock(test->trie);
    hashtrie_get_stats(test->trie, &stats);
    hashtrie_unlock(test->trie);
    *conflicts = stats.conflict_count;
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
}

static void expect_held(struct test_store *test, const struct test_key *key, uint32_t by_stored,
                        uint32_t by_inserted)
{
    struct hashtrie_match match = test_store_recall(test, key);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://stored")),
                     by_stored);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://inserted")),
                     by_inserted);
}

static void equal_runs_join_their_holders(void **state)
{
    struct test_store *test = *state;
    struct test_key key = test_store_key(7, 0, 30);
    uint64_t conflicts = 0;
    meet(test, &key, &key, &conflicts);
    assert_int_equal(conflicts, 0);
    expect_held(test, &key, 30, 30);
    test_store_close(test);
}

static void a_shorter_stored_run_becomes_the_upper_half(void **state)
{
    struct test_store *test = *state;
    struct test_key stored = test_store_key(7, 0, 12);
    struct test_key inserted = test_store_key(7, 0, 30);
    uint64_t conflicts = 0;
    meet(test, &stored, &inserted, &conflicts);
    assert_int_equal(conflicts, 0);
    expect_held(test, &inserted, 12, 30);
    test_store_close(test);
}

static void a_longer_stored_run_keeps_its_rest(void **state)
{
    struct test_store *test = *state;
    struct test_key stored = test_store_key(7, 0, 30);
    struct test_key inserted = test_store_key(7, 0, 12);
    uint64_t conflicts = 0;
    meet(test, &stored, &inserted, &conflicts);
    assert_int_equal(conflicts, 0);
    expect_held(test, &stored, 30, 12);
    test_store_close(test);
}

static void runs_that_part_inside_leave_the_newer(void **state)
{
    struct test_store *test = *state;
    struct test_key stored = test_store_key(7, 0, 30);
    struct test_key inserted = test_store_key(7, 0, 12);
    test_key_push(&inserted, 1000);
    uint64_t conflicts = 0;
    meet(test, &stored, &inserted, &conflicts);
    assert_int_equal(conflicts, 1);
    expect_held(test, &inserted, 0, 13);
    test_store_close(test);
}

/* With the reload in time, both are kept. */
static void runs_that_part_inside_are_both_kept_after_a_reload(void **state)
{
    struct test_store *test = *state;
    struct test_key stored = test_store_key(7, 0, 30);
    struct test_key inserted = test_store_key(7, 0, 12);
    test_key_push(&inserted, 1000);
    test_store_open(test);
    test_store_insert(test, &stored, test_store_endpoint(test, "http://stored"));
    test_store_close(test);
    test_store_open(test);
    assert_int_equal(test_store_recall(test, &inserted).chunk_count, 12);
    test_store_insert(test, &inserted, test_store_endpoint(test, "http://inserted"));
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
    expect_held(test, &stored, 30, 12);
    expect_held(test, &inserted, 12, 13);
    test_store_close(test);
}

/* ---- The size cap ---- */

static uint64_t file_bytes(const struct test_store *test)
{
    char *path = test_path(test->directory, "data.mdb");
    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    test_path_free(path);
    return (uint64_t)file.st_size;
}

/* Length of a key; nine in ten take a page of their own. */
static uint32_t churn_length(uint32_t number)
{
    return number % 10 == 0 ? 1 + number % 300 : 600 + number % 400;
}

/* Many times what the cap has room for. */
static void the_cap_holds_under_churn(void **state)
{
    struct test_store *test = *state;
    enum { KEYS = 4600 * CHURN_TIMES, NEWEST = 300, PER_CHECKPOINT = 3000, PAGE_BYTES = 4096 };
    struct random random = {.state = test_seed()};
    uint64_t first = random_next(&random);
    test->budget = (size_t)64 << 20;
    test_store_open(test);
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://a");
    uint64_t pages_sent = 0;
    static struct test_key key;
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t length = churn_length(i);
        key = test_store_key(7, first + ((uint64_t)i << 32), length);
        test_store_insert(test, &key, endpoint);
        pages_sent += length > 500;
        if (i % PER_CHECKPOINT == PER_CHECKPOINT - 1) {
            test->now_s += 10;
            test_store_checkpoint(test);
            assert_true(file_bytes(test) <= HASHTRIE_STORE_BYTES_MIN);
        }
    }
    assert_true(pages_sent * PAGE_BYTES >= CHURN_TIMES * HASHTRIE_STORE_BYTES_MIN);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.checkpoint_failure_count, 0); /* No full map at any time. */
    assert_int_equal(stats.state, HASHTRIE_STORE_OK);
    assert_true(stats.deleted_node_count > KEYS / 2 && stats.bytes <= HASHTRIE_STORE_BYTES_MIN);
    print_message("%u keys, %lu kept, %lu bytes\n", (unsigned)KEYS, (unsigned long)stats.node_count,
                  (unsigned long)stats.bytes);
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
    for (uint32_t i = KEYS - NEWEST; i < KEYS; i++) { /* The newest are there. */
        uint32_t length = churn_length(i);
        key = test_store_key(7, first + ((uint64_t)i << 32), length);
        assert_int_equal(test_store_recall(test, &key).chunk_count, length);
    }
    test_store_close(test);
}

/* The cap deletes the row of a hot node; the next touch of the node finds it gone and writes it in
 * full. */
static void a_hot_node_whose_row_went_is_written_again(void **state)
{
    struct test_store *test = *state;
    test->budget = (size_t)128 << 20;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    static struct test_key hot;
    static struct test_key key;
    hot = test_store_key(8, 0, 50);
    test_store_insert(test, &hot, a);
    test_store_checkpoint(test);
    for (uint32_t i = 0; i < 8000; i++) {
        key = test_store_key(7, (uint64_t)i << 32, 900);
        test_store_insert(test, &key, a);
        test->now_s += i % 100 == 0 ? 10 : 0;
    }
    test_store_checkpoint(test);
    test_store_insert(test, &hot, test_store_endpoint(test, "http://b"));
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
    key = test_store_key(7, 0, 900);
    assert_int_equal(test_store_recall(test, &key).chunk_count, 0); /* That row went. */
    struct hashtrie_match match = test_store_recall(test, &hot);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://a")), 50);
    assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://b")), 50);
    test_store_close(test);
}

/* Small rows, each a write in many pages. */
static void the_cap_holds_with_small_rows(void **state)
{
    struct test_store *test = *state;
    enum { ROUNDS = 6 * CHURN_TIMES, KEYS = 2500 };
    test->budget = (size_t)64 << 20;
    test_store_open(test);
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://a");
    static struct test_key key;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        test->now_s += 10;
        for (uint32_t i = 0; i < KEYS; i++) {
            uint32_t number = i % 2 == 0 || round == 0 ? round * KEYS + i : (round - 1) * KEYS + i;
            key = test_store_key(7, (uint64_t)number << 32, 3);
            test_store_insert(test, &key, endpoint);
        }
        test_store_checkpoint(test);
        assert_true(file_bytes(test) <= HASHTRIE_STORE_BYTES_MIN);
    }
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.checkpoint_failure_count, 0);
    assert_true(stats.deleted_node_count > 0 || CHURN_TIMES < 20);
    test_store_close(test);
    test_store_expect_clean(test);
}

/* ---- Trouble ---- */

/* A limit on file size stands for a disk that refuses: all goes on in memory, and once the disk
 * takes writes again everything is saved. */
static void a_disk_that_fails_is_survived(void **state)
{
    struct test_store *test = *state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit tight = {.rlim_cur = (rlim_t)512 << 10, .rlim_max = before.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    test_store_open(test);
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://a");
    static struct test_key key;
    key = test_store_key(7, 1, 100);
    test_store_insert(test, &key, endpoint);
    test_store_checkpoint(test);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    for (uint32_t i = 2; i < 1000; i++) {
        key = test_store_key(7, (uint64_t)i << 32, 900);
        test_store_insert(test, &key, endpoint);
    }
    enum hashtrie_status status = test_store_try_checkpoint(test);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_not_equal(status, HASHTRIE_OK);
    assert_false(stats.up);
    assert_true(stats.checkpoint_failure_count > 0);
    struct hashtrie_key view = test_key_view(&key);
    assert_int_equal(hashtrie_store_reload(test->store, &view, 0, test_store_on_reload, NULL),
                     HASHTRIE_EBUSY); /* Nobody waits for such a disk. */
    assert_int_equal(test_store_match(test, &key).chunk_count, 900);
    test_store_check(test);
    test_store_checkpoint(test);
    hashtrie_store_get_stats(test->store, &stats);
    assert_true(stats.up);
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
    for (uint32_t i = 2; i < 1000; i++) {
        key = test_store_key(7, (uint64_t)i << 32, 900);
        assert_int_equal(test_store_recall(test, &key).chunk_count, 900);
    }
    test_store_close(test);
    (void)signal(SIGXFSZ, SIG_DFL);
}

/* Another process that sits on a read transaction keeps every page from being used again. */
static pid_t pin_pages(const struct test_store *test)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        MDB_env *env = NULL;
        MDB_txn *txn = NULL;
        bool good = mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, 8) == 0 &&
                    mdb_env_open(env, test->directory, MDB_RDONLY, 0) == 0 &&
                    mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0;
        (void)!write(ready[1], good ? "y" : "n", 1);
        for (;;) {
            (void)pause();
        }
    }
    char answer = 'n';
    assert_int_equal(read(ready[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    (void)close(ready[0]);
    (void)close(ready[1]);
    return child;
}

static void a_full_map_is_survived(void **state)
{
    struct test_store *test = *state;
    test->budget = (size_t)128 << 20;
    test_store_open(test); /* Makes the file. */
    test_store_close(test);
    pid_t child = pin_pages(test);
    test_store_open(test);
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://a");
    static struct test_key key;
    enum hashtrie_status status = HASHTRIE_OK;
    uint32_t count = 0;
    while (status == HASHTRIE_OK && count < 20000) {
        for (uint32_t i = 0; i < 500; i++, count++) {
            key = test_store_key(7, (uint64_t)count << 32, 900);
            test_store_insert(test, &key, endpoint);
        }
        status = test_store_try_checkpoint(test);
        assert_true(file_bytes(test) <= HASHTRIE_STORE_BYTES_MIN);
    }
    assert_int_not_equal(status, HASHTRIE_OK);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.state, HASHTRIE_STORE_FULL);
    test_store_check(test);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    for (int i = 0; i < 20 && status != HASHTRIE_OK; i++) {
        status = test_store_try_checkpoint(test);
    }
    assert_int_equal(status, HASHTRIE_OK);
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.state, HASHTRIE_STORE_OK);
    assert_true(stats.node_count > 1000);
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
    assert_int_equal(test_store_recall(test, &key).chunk_count, 900);
    test_store_close(test);
}

/* A file that is damaged while it is open is replaced, and what is hot is written anew. */
static void a_file_damaged_while_open_is_replaced(void **state)
{
    struct test_store *test = *state;
    test_store_open(test);
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://a");
    static struct test_key key;
    for (uint32_t i = 0; i < 200; i++) {
        key = test_store_key(7, (uint64_t)i << 32, 300);
        test_store_insert(test, &key, endpoint);
    }
    test_store_checkpoint(test);
    char *path = test_path(test->directory, "data.mdb");
    FILE *file = fopen(path, "r+be");
    assert_non_null(file);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    static char zeroes[4096];
    for (long at = 8192; at < status.st_size; at += 4096) { /* All but the two heads. */
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fwrite(zeroes, 1, sizeof zeroes, file), sizeof zeroes);
    }
    assert_int_equal(fclose(file), 0);
    test_path_free(path);
    key = test_store_key(8, 0, 20);
    test_store_insert(test, &key, endpoint);
    enum hashtrie_status result = HASHTRIE_EIO;
    for (int i = 0; i < 10 && result != HASHTRIE_OK; i++) {
        result = test_store_try_checkpoint(test);
    }
    assert_int_equal(result, HASHTRIE_OK);
    assert_true(test_store_was_told(test, "data.mdb.bad-"));
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
    assert_int_equal(test_store_recall(test, &key).chunk_count, 20);
    for (uint32_t i = 0; i < 200; i++) {
        key = test_store_key(7, (uint64_t)i << 32, 300);
        struct hashtrie_match match = test_store_recall(test, &key);
        assert_int_equal(test_store_held(&match, test_store_endpoint(test, "http://a")), 300);
    }
    test_store_close(test);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(equal_runs_join_their_holders),
        CASE(a_shorter_stored_run_becomes_the_upper_half),
        CASE(a_longer_stored_run_keeps_its_rest),
        CASE(runs_that_part_inside_leave_the_newer),
        CASE(runs_that_part_inside_are_both_kept_after_a_reload),
        CASE(the_cap_holds_under_churn),
        CASE(the_cap_holds_with_small_rows),
        CASE(a_hot_node_whose_row_went_is_written_again),
        CASE(a_disk_that_fails_is_survived),
        CASE(a_full_map_is_survived),
        CASE(a_file_damaged_while_open_is_replaced),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store writer", tests, NULL, NULL);
}
