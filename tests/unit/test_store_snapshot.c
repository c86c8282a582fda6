#include <sys/stat.h>

#include "store/snapshot.h"
#include "store_support.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_list_is_newest_first_and_takes_whole_ones_only),
        cmocka_unit_test(test_a_full_list_holds_the_newest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
