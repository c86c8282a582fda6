/* Who reads the store and stays: it costs what would be spilled, no more. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/copy.h"
#include "store/internal.h"
#include "unit/store_support.h"

enum {
    KEY_CHUNKS = 200,
    FILL_KEYS = 8000,  /* More than LMDB and a socket take of a copy before it waits. */
    CHURN_KEYS = 40000 /* Several times what the cap has room for. */
};

static uint64_t file_bytes(const struct test_store *test)
{
    struct stat file;
    char *path = test_path(test->directory, "data.mdb");
    assert_int_equal(stat(path, &file), 0);
    test_path_free(path);
    return (uint64_t)file.st_size;
}

static void insert_key(struct test_store *test, uint32_t i, hashtrie_endpoint endpoint)
{
    struct test_key key = test_store_key(1, (uint64_t)i * 1000, KEY_CHUNKS);
    test_store_insert(test, &key, endpoint);
}

static void stop_here(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    (void)raise(SIGSTOP);
}

/* Reads the store as a tool does, and stops in the middle. */
static void start_reader(pid_t *pid, int go[2], const char *directory, const char *copy)
{
    assert_int_equal(pipe(go), 0);
    *pid = fork();
    assert_true(*pid >= 0);
    if (*pid == 0) {
        char byte;
        struct hashtrie_copy_options options = {.on_progress = stop_here};
        struct hashtrie_copy_result result;
        bool told = read(go[0], &byte, 1) == 1;
        _exit(told && hashtrie_store_copy(directory, copy, &options, &result) == HASHTRIE_OK ? 0
                                                                                             : 1);
    }
}

static void wait_for_stop(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
}

static void churn(struct test_store *test, uint32_t from, uint32_t to, hashtrie_endpoint endpoint)
{
    for (uint32_t i = from; i < to; i++) {
        insert_key(test, i, endpoint);
        if (i % 100 == 0) {
            (void)test_store_try_checkpoint(test); /* It may find no pages. */
            assert_true(file_bytes(test) <= HASHTRIE_STORE_BYTES_MIN);
        }
    }
}

static struct hashtrie_store_stats stats_of(struct test_store *test)
{
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    return stats;
}

static void wait_until_pinned(struct test_store *test)
{
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    for (int i = 0; i < 500 && stats_of(test).pinned_pid == 0; i++) {
        (void)nanosleep(&pause, NULL);
    }
}

/* The store again takes and gives back what it is told; nothing was moved aside. */
static void expect_service(struct test_store *test, uint32_t first, hashtrie_endpoint endpoint)
{
    struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
    enum hashtrie_status status = HASHTRIE_EFULL;
    for (int i = 0; i < 200 && status != HASHTRIE_OK; i++) {
        status = test_store_try_checkpoint(test);
        (void)nanosleep(&pause, NULL);
    }
    assert_int_equal(status, HASHTRIE_OK);
    churn(test, first, first + 2000, endpoint);
    test_store_checkpoint(test);
    assert_int_equal(stats_of(test).state, HASHTRIE_STORE_OK);
    assert_false(test_store_was_told(test, "data.mdb.bad"));
    struct test_key key = test_store_key(1, (uint64_t)(first + 1500) * 1000, KEY_CHUNKS);
    assert_int_equal(test_store_recall(test, &key).chunk_count, KEY_CHUNKS);
}

static void test_a_stopped_reader_costs_spills_and_a_killed_one_nothing(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    test.budget = (size_t)4 << 20;
    char *copy = test_path(test.directory, "copy");
    pid_t pid = 0;
    int go[2];
    start_reader(&pid, go, test.directory, copy);
    test_store_open(&test);
    hashtrie_endpoint endpoint = test_store_endpoint(&test, "http://engine:8000");
    churn(&test, 0, FILL_KEYS, endpoint);
    assert_int_equal(write(go[1], "g", 1), 1);
    wait_for_stop(pid);
    char owner[32];
    (void)snprintf(owner, sizeof owner, "process %ld ", (long)pid);
    churn(&test, FILL_KEYS, FILL_KEYS + CHURN_KEYS, endpoint);
    wait_until_pinned(&test);
    struct hashtrie_store_stats stats = stats_of(&test);
    assert_int_equal(stats.pinned_pid, pid);
    assert_int_equal(stats.state, HASHTRIE_STORE_FULL);
    assert_int_equal(stats.repeated_batch_count, 0); /* The map's end was never met. */
    assert_true(test_store_was_told(&test, owner));
    test_store_check(&test);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    expect_service(&test, 2 * (FILL_KEYS + CHURN_KEYS), endpoint);
    test_store_close(&test);
    test_store_expect_clean(&test);
    (void)close(go[0]);
    (void)close(go[1]);
    test_path_free(copy);
    test_store_fini(&test);
}

/* ---- A snapshot of our own on a disk that does not take it ---- */

struct slow_copy {
    struct copy copy;
    struct test_store *test;
    sem_t go_on;
    enum hashtrie_status ran;
};

static bool wait_for_disk(void *user, uint64_t bytes)
{
    struct slow_copy *slow = user;
    (void)bytes;
    while (sem_wait(&slow->go_on) != 0) {
    }
    (void)sem_post(&slow->go_on); /* From then on it is fast. */
    return true;
}

static void *run_copy(void *user)
{
    struct slow_copy *slow = user;
    slow->ran = copy_run(&slow->copy, &slow->test->store->env);
    return NULL;
}

static void test_a_snapshot_gives_up_before_it_costs_a_checkpoint(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    struct slow_copy slow = {.test = &test};
    test_store_open(&test);
    hashtrie_endpoint endpoint = test_store_endpoint(&test, "http://engine:8000");
    churn(&test, 0, FILL_KEYS, endpoint);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(sem_init(&slow.go_on, 0, 0), 0);
    assert_int_equal(copy_open(&slow.copy, fileno(file), wait_for_disk, &slow), HASHTRIE_OK);
    test.store->snapshots.copy = &slow.copy;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_copy, &slow), 0);
    uint32_t next = FILL_KEYS;
    while (atomic_load(&slow.copy.stopped) == HASHTRIE_OK) {
        assert_true(next < FILL_KEYS + CHURN_KEYS);
        churn(&test, next, next + 100, endpoint);
        next += 100;
    }
    assert_int_equal(pthread_join(thread, NULL), 0); /* While its disk still hangs. */
    assert_int_not_equal(slow.ran, HASHTRIE_OK);
    expect_service(&test, 2 * (FILL_KEYS + CHURN_KEYS), endpoint);
    assert_int_equal(stats_of(&test).repeated_batch_count, 0);
    test.store->snapshots.copy = NULL;
    assert_int_equal(sem_post(&slow.go_on), 0);
    assert_int_equal(copy_close(&slow.copy, slow.ran), HASHTRIE_EFULL);
    assert_int_equal(fclose(file), 0);
    test_store_close(&test);
    test_store_expect_clean(&test);
    (void)sem_destroy(&slow.go_on);
    test_store_fini(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stopped_reader_costs_spills_and_a_killed_one_nothing),
        cmocka_unit_test(test_a_snapshot_gives_up_before_it_costs_a_checkpoint),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store pins", tests, NULL, NULL);
}
