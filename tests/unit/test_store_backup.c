/* Copies of a store while it is written, and back. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/store_support.h"

enum { KEYS = 300, KEY_CHUNKS = 40 };

static struct test_key key_number(uint32_t i)
{
    return test_store_key(i % 3 + 1, (uint64_t)i * 1000, KEY_CHUNKS);
}

static void fill(struct test_store *test, uint32_t from, uint32_t to)
{
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://engine:8000");
    for (uint32_t i = from; i < to; i++) {
        struct test_key key = key_number(i);
        test_store_insert(test, &key, endpoint);
    }
    test_store_checkpoint(test);
}

/* Opens a folder as a store; how many of the keys it knows whole. */
static uint32_t count_known(const char *directory, uint32_t keys)
{
    struct test_store test;
    test_store_init(&test);
    test.options.directory = directory;
    test_store_open(&test);
    assert_int_equal(test_store_trouble_count(&test), 0);
    uint32_t known = 0;
    for (uint32_t i = 0; i < keys; i++) {
        struct test_key key = key_number(i);
        struct hashtrie_match match = test_store_recall(&test, &key);
        known += match.chunk_count == KEY_CHUNKS;
    }
    test_store_close(&test);
    test_store_fini(&test);
    return known;
}

struct told {
    uint64_t done;
    uint64_t total;
    int calls;
};

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    struct told *told = user;
    assert_true(done >= told->done && done <= total);
    *told = (struct told){.done = done, .total = total, .calls = told->calls + 1};
}

static void test_a_copy_opens_as_the_store(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    test_store_open(&test);
    fill(&test, 0, KEYS);
    test_store_close(&test);
    char *copy = test_path(test.directory, "copies-of/it/"); /* Its parent is missing. */
    struct hashtrie_copy_result result = {0};
    assert_int_equal(hashtrie_store_copy(test.directory, copy, NULL, &result), HASHTRIE_ENOENT);
    test_path_free(copy);
    copy = test_path(test.directory, "copy/");
    struct told told = {0};
    struct hashtrie_copy_options options = {.on_progress = on_progress, .user = &told};
    assert_int_equal(hashtrie_store_copy(test.directory, copy, &options, &result), HASHTRIE_OK);
    assert_true(told.calls > 0 && told.done == result.bytes && result.bytes > 0);
    assert_int_equal(hashtrie_store_copy(test.directory, copy, NULL, &result), HASHTRIE_EEXIST);
    assert_int_equal(count_known(copy, KEYS), KEYS);
    test_path_free(copy);
    test_store_fini(&test);
}

static void test_nothing_to_copy(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    char *copy = test_path(test.directory, "copy");
    struct hashtrie_copy_result result;
    assert_int_equal(hashtrie_store_copy(test.directory, copy, NULL, &result), HASHTRIE_ENOENT);
    assert_int_equal(access(copy, F_OK), -1);
    test_path_free(copy);
    test_store_fini(&test);
}

/* The copier is a process of its own, as a tool is; it is forked before there are threads. */
struct copier {
    pid_t pid;
    int go[2];
};

static void start_copier(struct copier *copier, const char *directory, const char *copy)
{
    assert_int_equal(pipe2(copier->go, O_CLOEXEC), 0);
    copier->pid = fork();
    assert_true(copier->pid >= 0);
    if (copier->pid == 0) {
        char go;
        struct hashtrie_copy_result result;
        bool told = read(copier->go[0], &go, 1) == 1;
        _exit(told && hashtrie_store_copy(directory, copy, NULL, &result) == HASHTRIE_OK ? 0 : 1);
    }
}

static bool copier_ended(struct copier *copier, int flags)
{
    int status = 0;
    pid_t pid = waitpid(copier->pid, &status, flags);
    assert_true(pid >= 0);
    assert_true(pid == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return pid != 0;
}

static void test_a_copy_of_a_store_in_use_has_all_that_was_acknowledged_before(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    char *copy = test_path(test.directory, "copy");
    struct copier copier;
    start_copier(&copier, test.directory, copy);
    test_store_open(&test);
    fill(&test, 0, KEYS);
    assert_int_equal(write(copier.go[1], "g", 1), 1);
    uint32_t next = KEYS;
    do { /* Other rows, in new transactions, as long as it takes. */
        fill(&test, next, next + 10);
        next += 10;
    } while (!copier_ended(&copier, WNOHANG));
    test_store_close(&test);
    assert_int_equal(count_known(copy, KEYS), KEYS);
    (void)close(copier.go[0]);
    (void)close(copier.go[1]);
    test_path_free(copy);
    test_store_fini(&test);
}

static void test_restore_replaces_the_store_and_keeps_the_old_one(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    char *copy = test_path(test.directory, "copy");
    test_store_open(&test);
    fill(&test, 0, KEYS);
    test_store_close(&test);
    struct hashtrie_copy_result result;
    assert_int_equal(hashtrie_store_copy(test.directory, copy, NULL, &result), HASHTRIE_OK);
    test_store_open(&test);
    fill(&test, KEYS, KEYS + 10);
    assert_int_equal(hashtrie_snapshot_restore(copy, test.directory, NULL, &result),
                     HASHTRIE_EBUSY);
    test_store_close(&test);
    assert_int_equal(count_known(test.directory, KEYS + 10), KEYS + 10);
    struct told told = {0};
    struct hashtrie_copy_options options = {.on_progress = on_progress, .user = &told};
    assert_int_equal(hashtrie_snapshot_restore(copy, test.directory, &options, &result),
                     HASHTRIE_OK);
    assert_true(told.total == result.bytes * 2 && told.done == told.total);
    assert_int_equal(count_known(test.directory, KEYS + 10), KEYS);
    char command[512];
    (void)snprintf(command, sizeof command, "ls '%s'/data.mdb.bad-* >/dev/null", test.directory);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): a test. */
    test_path_free(copy);
    test_store_fini(&test);
}

static void test_a_damaged_snapshot_changes_nothing(void **state)
{
    (void)state;
    struct test_store test;
    test_store_init(&test);
    char *copy = test_path(test.directory, "copy");
    char *data = test_path(test.directory, "copy/data.mdb");
    test_store_open(&test);
    fill(&test, 0, KEYS);
    test_store_close(&test);
    struct hashtrie_copy_result result;
    assert_int_equal(hashtrie_snapshot_restore(copy, test.directory, NULL, &result),
                     HASHTRIE_ENOENT);
    assert_int_equal(hashtrie_store_copy(test.directory, copy, NULL, &result), HASHTRIE_OK);
    /* A byte within a record: what LMDB cannot notice. */
    char *bytes = NULL;
    FILE *file = fopen(data, "r+b");
    assert_non_null(file);
    bytes = calloc(1, (size_t)result.bytes);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)result.bytes, file), result.bytes);
    struct test_key key = key_number(7);
    uint32_t fingerprints[3];
    for (int i = 0; i < 3; i++) {
        fingerprints[i] = (uint32_t)key.hashes[10 + i];
    }
    const char *place = memmem(bytes, (size_t)result.bytes, fingerprints, sizeof fingerprints);
    assert_non_null(place);
    assert_int_equal(fseek(file, place - bytes, SEEK_SET), 0);
    assert_int_equal(fputc(~place[0] & 0xff, file), ~place[0] & 0xff);
    assert_int_equal(fclose(file), 0);
    free(bytes);
    assert_int_equal(hashtrie_snapshot_restore(copy, test.directory, NULL, &result),
                     HASHTRIE_ECORRUPT);
    assert_int_equal(count_known(test.directory, KEYS), KEYS);
    test_path_free(data);
    test_path_free(copy);
    test_store_fini(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_copy_opens_as_the_store),
        cmocka_unit_test(test_nothing_to_copy),
        cmocka_unit_test(test_a_copy_of_a_store_in_use_has_all_that_was_acknowledged_before),
        cmocka_unit_test(test_restore_replaces_the_store_and_keeps_the_old_one),
        cmocka_unit_test(test_a_damaged_snapshot_changes_nothing),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store backup", tests, NULL, NULL);
}
