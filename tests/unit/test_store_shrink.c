/* Caps that change between two starts. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "unit/store_support.h"

#define LARGE_BYTES (UINT64_C(64) << 20)
#define SMALL_BYTES HASHTRIE_STORE_BYTES_MIN

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CRASHES = 2 };
#else
enum { CRASHES = 15 };
#endif

enum {
    KEYS = 30000,
    KEY_CHUNKS = 300,
    KEYS_PER_BUCKET = 200,
    BUCKET_S = 10,
    CRASH_US_MAX = 150000
};

static struct test_key key_number(uint32_t i)
{
    return test_store_key(1, (uint64_t)i * 1000, KEY_CHUNKS);
}

static uint64_t file_bytes(const struct test_store *test)
{
    struct stat file;
    char *path = test_path(test->directory, "data.mdb");
    assert_int_equal(stat(path, &file), 0);
    test_path_free(path);
    return (uint64_t)file.st_size;
}

/* Later keys are used later. */
static void fill(struct test_store *test)
{
    test->options.max_bytes = LARGE_BYTES;
    test_store_open(test);
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://engine:8000");
    for (uint32_t i = 0; i < KEYS; i++) {
        struct test_key key = key_number(i);
        test_store_insert(test, &key, endpoint);
        test->now_s += i % KEYS_PER_BUCKET == 0 ? BUCKET_S : 0;
        if (i % 1000 == 999) {
            test_store_checkpoint(test);
        }
    }
    test_store_close(test);
    assert_true(file_bytes(test) > 2 * SMALL_BYTES);
}

static bool known(struct test_store *test, uint32_t i)
{
    struct test_key key = key_number(i);
    return test_store_recall(test, &key).chunk_count == KEY_CHUNKS;
}

static void test_a_smaller_cap_keeps_what_was_used_last(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    fill(&test);
    test.options.max_bytes = SMALL_BYTES;
    test_store_open(&test);
    test_store_checkpoint(&test); /* What comes before it: the file is made smaller. */
    assert_true(test_store_was_told(&test, "made smaller"));
    assert_true(file_bytes(&test) <= SMALL_BYTES);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test.store, &stats);
    assert_true(stats.node_count > KEYS / 5 && stats.node_count < KEYS);
    assert_int_equal(stats.deleted_node_count, KEYS - stats.node_count);
    uint32_t first = KEYS - (uint32_t)stats.node_count; /* A key is a node here. */
    assert_true(known(&test, KEYS - 1));
    assert_true(known(&test, first + KEYS_PER_BUCKET)); /* Those of a bucket are equals. */
    assert_false(known(&test, first - KEYS_PER_BUCKET));
    assert_false(known(&test, 0));
    hashtrie_endpoint endpoint = test_store_endpoint(&test, "http://engine:8000");
    for (uint32_t i = KEYS; i < KEYS + 2000; i++) { /* It goes on as any other. */
        struct test_key key = key_number(i);
        test_store_insert(&test, &key, endpoint);
    }
    test_store_checkpoint(&test);
    assert_true(known(&test, KEYS + 1999));
    test_store_close(&test);
    assert_true(file_bytes(&test) <= SMALL_BYTES);
    test_store_expect_clean(&test);
    test_store_open(&test);
    assert_false(test_store_was_told(&test, "made smaller"));
    assert_true(known(&test, KEYS - 1));
    test_store_close(&test);
    test_store_fini(&test);
}

static void test_a_larger_cap_holds_at_once(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    test.options.max_bytes = SMALL_BYTES;
    test_store_open(&test);
    test_store_close(&test);
    fill(&test);
    test_store_open(&test);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test.store, &stats);
    assert_int_equal(stats.max_bytes, LARGE_BYTES);
    assert_true(known(&test, 0) && known(&test, KEYS - 1));
    test_store_close(&test);
    test_store_fini(&test);
}

/* A router with the smaller cap, to be killed. */
static pid_t start_shrinking(const struct test_store *test)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct test_store child = *test;
        test_store_open(&child);
        _exit(hashtrie_store_checkpoint(child.store, TEST_WAIT_MS) == HASHTRIE_OK ? 0 : 1);
    }
    return pid;
}

static void copy_data(const struct test_store *test, const char *from, const char *to)
{
    char command[1024];
    (void)snprintf(command, sizeof command, "cd '%s' && cp %s %s", test->directory, from, to);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): a test. */
}

static void test_killed_at_any_moment_it_is_the_old_file_or_the_new_one(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    struct test_store test;
    test_store_init(&test);
    fill(&test);
    copy_data(&test, "data.mdb", "large");
    test.options.max_bytes = SMALL_BYTES;
    test.options.on_event = NULL;
    int unfinished = 0;
    for (int i = 0; i < CRASHES; i++) {
        pid_t pid = start_shrinking(&test);
        struct timespec moment = {.tv_nsec = 1000 * (long)random_below(&random, CRASH_US_MAX)};
        (void)nanosleep(&moment, NULL);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        test_store_expect_clean(&test);
        if (file_bytes(&test) > SMALL_BYTES) {
            unfinished++;
        } else {
            copy_data(&test, "large", "data.mdb"); /* Once more. */
        }
    }
    assert_true(unfinished > 0 || CRASHES < 10);
    test.options.on_event = test_store_on_event;
    test_store_open(&test);
    test_store_checkpoint(&test);
    assert_true(file_bytes(&test) <= SMALL_BYTES);
    assert_true(known(&test, KEYS - 1));
    char *left = test_path(test.directory, "data.mdb.new");
    assert_int_equal(access(left, F_OK), -1);
    test_path_free(left);
    test_store_close(&test);
    test_store_expect_clean(&test);
    test_store_fini(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_smaller_cap_keeps_what_was_used_last),
        cmocka_unit_test(test_a_larger_cap_holds_at_once),
        cmocka_unit_test(test_killed_at_any_moment_it_is_the_old_file_or_the_new_one),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store shrink", tests, NULL, NULL);
}
