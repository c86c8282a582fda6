/* Snapshots: their names, and those of a store that serves. */
#include <sys/stat.h>
#include <time.h>

#include "store/snapshot.h"
#include "unit/store_support.h"

enum { KEYS = 12 };

static void make_folder(const char *parent, const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", parent, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void test_the_list_is_newest_first_and_takes_whole_ones_only(void **state)
{
    (void)state;
    char *directory = test_directory_make();
    static const char *const names[] = {"snapshot-20260102T030405Z",
                                        "snapshot-20260102T030405Z-2",
                                        "snapshot-20260102T030405Z-1",
                                        "snapshot-20251231T235959Z",
                                        "snapshot-20270101T000000Z.part",
                                        "snapshot-20270101T000000Z-0",
                                        "snapshot-20270101T000000Z-11",
                                        "snapshot-2027",
                                        "other"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        make_folder(directory, names[i]);
    }
    struct snapshot_list list;
    assert_int_equal(snapshot_list(directory, &list), HASHTRIE_OK);
    assert_int_equal(list.count, 4);
    assert_string_equal(list.names[0].text, "snapshot-20260102T030405Z-2");
    assert_string_equal(list.names[1].text, "snapshot-20260102T030405Z-1");
    assert_string_equal(list.names[2].text, "snapshot-20260102T030405Z");
    assert_string_equal(list.names[3].text, "snapshot-20251231T235959Z");
    test_directory_remove(directory);
    assert_int_equal(snapshot_list("/nonexistent", &list), HASHTRIE_ENOENT);
}

/* A link with a snapshot's name, or a left-over's, may lead to anybody's store: what is there
 * stays. A file is no snapshot either. */
static void test_links_are_no_snapshots_and_what_they_lead_to_stays(void **state)
{
    (void)state;
    char *directory = test_directory_make();
    static const char *const names[] = {"snapshot-20260102T030405Z",
                                        "snapshot-20260102T030406Z.part"};
    make_folder(directory, "folder");
    test_file_write_text(directory, "theirs/data.mdb", "theirs");
    test_file_write_text(directory, "folder/snapshot-20270101T000000Z", "a file");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/folder/%s", directory, names[i]);
        assert_int_equal(symlink("../theirs", path), 0);
    }
    char *folder = test_path(directory, "folder");
    char *theirs = test_path(directory, "theirs/data.mdb");
    struct snapshot_list list;
    assert_int_equal(snapshot_list(folder, &list), HASHTRIE_OK);
    assert_int_equal(list.count, 0);
    assert_int_equal(snapshot_folder_open(folder), HASHTRIE_OK);
    assert_int_equal(snapshot_prune(folder, 0), HASHTRIE_OK);
    assert_int_equal(access(theirs, F_OK), 0);
    test_path_free(theirs);
    test_path_free(folder);
    test_directory_remove(directory);
}

static void test_a_full_list_holds_the_newest(void **state)
{
    (void)state;
    char *directory = test_directory_make();
    char name[SNAPSHOT_NAME_BYTES * 2];
    for (int i = 0; i < SNAPSHOTS_LISTED_MAX + 10; i++) {
        (void)snprintf(name, sizeof name, "snapshot-20260102T%06dZ", i);
        make_folder(directory, name);
    }
    struct snapshot_list list;
    assert_int_equal(snapshot_list(directory, &list), HASHTRIE_OK);
    assert_int_equal(list.count, SNAPSHOTS_LISTED_MAX);
    assert_string_equal(list.names[0].text, name);
    assert_string_equal(list.names[SNAPSHOTS_LISTED_MAX - 1].text, "snapshot-20260102T000010Z");
    test_directory_remove(directory);
}

/* ---- Of a store that serves ---- */

struct made {
    sem_t done;
    enum hashtrie_status status;
    char path[512];
    uint64_t bytes;
};

static void on_made(void *user, const struct hashtrie_snapshot_result *result)
{
    struct made *made = user;
    made->status = result->status;
    made->bytes = result->bytes;
    (void)snprintf(made->path, sizeof made->path, "%s", result->path == NULL ? "" : result->path);
    (void)sem_post(&made->done);
}

static void wait_made(struct made *made)
{
    while (sem_wait(&made->done) != 0) {
    }
}

struct snapshot_test {
    struct test_store test;
    char *folder;
    struct made made;
    hashtrie_endpoint endpoint;
};

static void open_test(struct snapshot_test *world)
{
    test_store_init(&world->test);
    world->folder = test_path(world->test.directory, "snapshots");
    world->test.options.snapshot_directory = world->folder;
    world->test.options.snapshot_keep = 2;
    assert_int_equal(sem_init(&world->made.done, 0, 0), 0);
}

static void close_test(struct snapshot_test *world)
{
    (void)sem_destroy(&world->made.done);
    test_path_free(world->folder);
    test_store_fini(&world->test);
}

static void make_snapshot(struct snapshot_test *world)
{
    assert_int_equal(hashtrie_store_snapshot(world->test.store, on_made, &world->made),
                     HASHTRIE_OK);
    wait_made(&world->made);
    assert_int_equal(world->made.status, HASHTRIE_OK);
}

static void test_snapshots_open_as_stores_and_the_newest_are_kept(void **state)
{
    (void)state;
    struct snapshot_test world;
    open_test(&world);
    test_store_open(&world.test);
    world.endpoint = test_store_endpoint(&world.test, "http://engine:8000");
    char first[sizeof world.made.path];
    struct snapshot_list list;
    for (uint32_t i = 0; i < KEYS; i++) { /* Within a second or two: names get suffixes. */
        struct test_key key = test_store_key(1, i * 1000, 50);
        test_store_insert(&world.test, &key, world.endpoint);
        test_store_checkpoint(&world.test);
        make_snapshot(&world);
        if (i == 0) {
            memcpy(first, world.made.path, sizeof first);
        }
        assert_int_equal(snapshot_list(world.folder, &list), HASHTRIE_OK);
        assert_int_equal(list.count, i == 0 ? 1 : 2);
        assert_string_equal(strrchr(world.made.path, '/') + 1, list.names[0].text);
    }
    assert_int_equal(access(first, F_OK), -1);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(world.test.store, &stats);
    assert_int_equal(stats.snapshot_count, KEYS);
    assert_int_equal(stats.last_snapshot_bytes, world.made.bytes);
    assert_true(stats.last_snapshot_unix_s > 0 && stats.last_snapshot_seconds > 0);
    test_store_close(&world.test);
    world.test.options.directory = world.made.path;
    world.test.options.snapshot_directory = NULL;
    test_store_open(&world.test);
    for (uint32_t i = 0; i < KEYS; i++) {
        struct test_key key = test_store_key(1, i * 1000, 50);
        assert_int_equal(test_store_recall(&world.test, &key).chunk_count, 50);
    }
    assert_int_equal(hashtrie_store_snapshot(world.test.store, on_made, &world.made),
                     HASHTRIE_EINVAL);
    test_store_close(&world.test);
    close_test(&world);
}

static void test_one_at_a_time_and_closing_ends_it(void **state)
{
    (void)state;
    struct snapshot_test world;
    open_test(&world);
    test_store_open(&world.test);
    enum hashtrie_status second = HASHTRIE_OK;
    int tries = 0;
    do { /* The first may be over before the second is asked for. */
        assert_int_equal(hashtrie_store_snapshot(world.test.store, on_made, &world.made),
                         HASHTRIE_OK);
        second = hashtrie_store_snapshot(world.test.store, on_made, &world.made);
        wait_made(&world.made);
        if (second == HASHTRIE_OK) {
            wait_made(&world.made);
        }
    } while (second == HASHTRIE_OK && ++tries < 9);
    assert_int_equal(second, HASHTRIE_EBUSY);
    enum hashtrie_status last = hashtrie_store_snapshot(world.test.store, on_made, &world.made);
    test_store_close(&world.test); /* It is told, whatever came of it. */
    if (last == HASHTRIE_OK) {
        wait_made(&world.made);
    }
    close_test(&world);
}

static void test_the_schedule_begins_at_once_and_left_overs_go(void **state)
{
    (void)state;
    struct snapshot_test world;
    open_test(&world);
    make_folder(world.test.directory, "snapshots");
    test_file_write_text(world.folder, "snapshot-20260102T030405Z.part/data.mdb", "half");
    test_file_write_text(world.folder, "other.part/data.mdb", "whole");
    world.test.options.snapshot_interval_s = 3600;
    test_store_open(&world.test);
    struct hashtrie_store_stats stats = {0};
    struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    for (int i = 0; i < 3000 && stats.snapshot_count == 0; i++) {
        (void)nanosleep(&pause, NULL);
        hashtrie_store_get_stats(world.test.store, &stats);
    }
    assert_int_equal(stats.snapshot_count, 1);
    test_store_close(&world.test);
    char *left_over = test_path(world.folder, "snapshot-20260102T030405Z.part");
    char *other = test_path(world.folder, "other.part/data.mdb");
    assert_int_equal(access(left_over, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
    test_path_free(left_over);
    test_path_free(other);
    close_test(&world);
}

static void test_a_folder_that_cannot_be_made_is_told(void **state)
{
    (void)state;
    struct snapshot_test world;
    open_test(&world);
    test_file_write_text(world.test.directory, "snapshots", "a file");
    test_store_open(&world.test);
    assert_int_equal(hashtrie_store_snapshot(world.test.store, on_made, &world.made), HASHTRIE_OK);
    wait_made(&world.made);
    assert_int_equal(world.made.status, HASHTRIE_EINVAL);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(world.test.store, &stats);
    assert_int_equal(stats.snapshot_failure_count, 1);
    test_store_close(&world.test);
    close_test(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_list_is_newest_first_and_takes_whole_ones_only),
        cmocka_unit_test(test_a_full_list_holds_the_newest),
        cmocka_unit_test(test_links_are_no_snapshots_and_what_they_lead_to_stays),
        cmocka_unit_test(test_snapshots_open_as_stores_and_the_newest_are_kept),
        cmocka_unit_test(test_one_at_a_time_and_closing_ends_it),
        cmocka_unit_test(test_the_schedule_begins_at_once_and_left_overs_go),
        cmocka_unit_test(test_a_folder_that_cannot_be_made_is_told),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store snapshots", tests, NULL, NULL);
}
