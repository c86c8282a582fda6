/* hashtrie-dump as it is called: what it prints, and its exit status. */
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit/dump_support.h"

static void helps(void **state)
{
    struct dump_fixture *fixture = *state;
    assert_int_equal(dump(fixture, "--help"), 0);
    expect(fixture, "usage: hashtrie-dump COMMAND [OPTIONS] DIR [ARGUMENT]");
    expect(fixture, "verify");
    assert_int_equal(dump(fixture, "--version"), 0);
    expect(fixture, hashtrie_version());
}

static void wrong_usage_is_told(void **state)
{
    struct dump_fixture *fixture = *state;
    static const char *const words[] = {
        "",
        "nonsense $DIR",
        "stats",
        "stats $DIR more",
        "stats --depth 3 $DIR",
        "tree --top 10001 $DIR",
        "tree --top 3 --by size $DIR",
        "tree --top 3 $DIR abc",
        "nonsense --help",
        "lookup --prompt $DIR",
        "import --rename x $DIR",
        "import --max-size 3MiB $DIR",
        "import --max-size 64 MiB $DIR",
        "watch --interval 0 $DIR",
        "watch --interval x $DIR",
        "watch --count 0 $DIR",
        "diff $DIR",
        "diff $DIR $DIR",
        "snapshot $DIR",
        "tree --depth 0 $DIR",
        "tree --depth 65 $DIR",
        "tree --limit x $DIR",
        "tree --nonsense $DIR",
        "tree $DIR xyz",
        "tree $DIR 12345678123456789",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        assert_int_equal(dump(fixture, words[i]), 2);
        expect(fixture, "hashtrie-dump");
    }
}

static void what_cannot_be_opened_is_told(void **state)
{
    struct dump_fixture *fixture = *state;
    assert_int_equal(dump(fixture, "stats $DIR/missing"), 3);
    expect(fixture, "not found");
    test_file_write_text(fixture->test.directory, "other/data.mdb", "no store");
    assert_int_equal(dump(fixture, "verify $DIR/other"), 3);
    assert_int_equal(dump(fixture, "stats $DIR >/dev/full"), 3);
}

static void stats_are_shown(void **state)
{
    struct dump_fixture *fixture = *state;
    assert_int_equal(dump(fixture, "stats $DIR"), 0);
    expect(fixture, "nodes               31\n");
    expect(fixture, "chunks              40\n");
    expect(fixture, "endpoints           2\n");
    expect(fixture, "cap                 16.0 MiB\n");
    expect(fixture, "closed in order     yes\n");
    assert_int_equal(dump(fixture, "stats --json $DIR"), 0);
    expect(fixture, "\"nodes\":31");
    expect(fixture, "\"chunk_size\":128");
    expect(fixture, "\"closed_in_order\":true");
}

static void endpoints_are_shown(void **state)
{
    struct dump_fixture *fixture = *state;
    assert_int_equal(dump(fixture, "endpoints $DIR"), 0);
    expect(fixture, "     1  http://engine-a:8000");
    expect(fixture, "     2  http://engine-b:8000");
    assert_int_equal(dump(fixture, "endpoints $DIR --json"), 0);
    expect(fixture, "\"url\":\"http://engine-b:8000\"");
    expect(fixture, "\"model\":\"model\"");
}

static void the_tree_is_shown(void **state)
{
    struct dump_fixture *fixture = *state;
    assert_int_equal(dump(fixture, "tree $DIR --depth 1"), 0);
    expect(fixture, "namespace abcdef0123456789\n");
    expect(fixture, "http://engine-a:8000");
    assert_int_equal(dump(fixture, "tree $DIR --depth 2 --limit 4"), 0);
    expect(fixture, "... 26 more");
    char words[64];
    struct test_key shared = test_store_key(UINT64_C(0xabcdef0123456789), 0, 10);
    (void)snprintf(words, sizeof words, "tree $DIR %08x", (unsigned)(shared.hashes[9] >> 32));
    assert_int_equal(dump(fixture, words), 0);
    expect(fixture, "below ");
    expect(fixture, "... 20 more");
    assert_int_equal(dump(fixture, "tree $DIR 0000000000000001"), 0);
    expect(fixture, "nothing is stored below");
}

static void a_store_in_use_can_be_read(void **state)
{
    struct dump_fixture *fixture = *state;
    test_store_open(&fixture->test);
    assert_int_equal(dump(fixture, "verify $DIR"), 0);
    assert_int_equal(dump(fixture, "stats $DIR"), 0);
    expect(fixture, "a router is running");
    test_store_close(&fixture->test);
}

static void verify_tells_faults(void **state)
{
    struct dump_fixture *fixture = *state;
    assert_int_equal(dump(fixture, "verify $DIR"), 0);
    expect(fixture, "31 nodes verified, 0 faults");
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi dbi = 0;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 8), 0);
    assert_int_equal(mdb_env_open(env, fixture->test.directory, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "runs", 0, &dbi), 0);
    assert_int_equal(mdb_drop(txn, dbi, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    assert_int_equal(dump(fixture, "verify $DIR"), 1);
    expect(fixture, "its run is missing or damaged");
    expect(fixture, "31 faults");
}

/* Pages of noise: whatever becomes of the reader, it is told as damage. */
static void a_torn_file_is_told_as_damage(void **state)
{
    struct dump_fixture *fixture = *state;
    char *path = test_path(fixture->test.directory, "data.mdb");
    FILE *file = fopen(path, "r+be");
    assert_non_null(file);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    unsigned char noise[4096];
    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = (unsigned char)(i * 31 + 7);
    }
    for (long at = 8192; at < status.st_size; at += 4096) {
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fwrite(noise, 1, sizeof noise, file), sizeof noise);
    }
    assert_int_equal(fclose(file), 0);
    int code = dump(fixture, "verify $DIR");
    assert_true(code == 1 || code == 3);
    assert_int_equal(truncate(path, 8192), 0);
    code = dump(fixture, "verify $DIR");
    assert_true(code == 1 || code == 3);
    test_path_free(path);
}

static void empty_stores_are_fine(void **state)
{
    struct dump_fixture *fixture = *state;
    struct test_store empty;
    test_store_init(&empty);
    test_store_open(&empty);
    test_store_close(&empty);
    struct test_store filled = fixture->test;
    fixture->test = empty;
    assert_int_equal(dump(fixture, "stats $DIR"), 0);
    assert_int_equal(dump(fixture, "tree $DIR"), 0);
    expect(fixture, "the store is empty");
    assert_int_equal(dump(fixture, "endpoints $DIR"), 0);
    expect(fixture, "no endpoints");
    assert_int_equal(dump(fixture, "verify $DIR"), 0);
    fixture->test = filled;
    test_store_fini(&empty);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, dump_setup, dump_teardown)
    const struct CMUnitTest tests[] = {
        CASE(helps),
        CASE(wrong_usage_is_told),
        CASE(what_cannot_be_opened_is_told),
        CASE(stats_are_shown),
        CASE(endpoints_are_shown),
        CASE(the_tree_is_shown),
        CASE(a_store_in_use_can_be_read),
        CASE(verify_tells_faults),
        CASE(a_torn_file_is_told_as_damage),
        CASE(empty_stores_are_fine),
    };
    return cmocka_run_group_tests_name("dump", tests, NULL, NULL);
}
