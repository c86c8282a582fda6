/*
 * MDB_MAP_FULL from each place where LMDB returns it: put, delete, commit; once and for ever. The
 * calls of the store go through those below, which count them and fail the ones they are told to.
 */
#include <dlfcn.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <unistd.h>

#include "store/record.h"
#include "unit/store_support.h"

enum call { CALL_PUT, CALL_DELETE, CALL_COMMIT, CALLS };

/* Written by the test while the writer waits for it. */
static struct {
    atomic_int which;        /* Calls that fail; CALLS: none. */
    atomic_long after;       /* So many of them go well before. */
    atomic_long fail;        /* Then so many fail. */
    atomic_long failed;      /* Have failed so far. */
    atomic_bool victim_only; /* CALL_DELETE: of the first row met, again and again. */
    atomic_ullong victim;    /* 0: not met yet. */
} fault = {.which = CALLS};

static bool fails(enum call call)
{
    if (atomic_load(&fault.which) != (int)call || atomic_fetch_sub(&fault.after, 1) > 0) {
        return false;
    }
    if (atomic_fetch_sub(&fault.fail, 1) <= 0) {
        return false;
    }
    (void)atomic_fetch_add(&fault.failed, 1);
    return true;
}

static void set_fault(enum call call, long after, long fail)
{
    atomic_store(&fault.after, after);
    atomic_store(&fault.fail, fail);
    atomic_store(&fault.failed, 0);
    atomic_store(&fault.victim_only, false);
    atomic_store(&fault.victim, 0);
    atomic_store(&fault.which, (int)call);
}

static void *next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    assert_non_null(found);
    return found;
}

/* LMDB's transaction is lost with the first such error: here it is only ended by the store. */
int mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data, unsigned flags)
{
    int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *, unsigned) = NULL;
    *(void **)&real = next("mdb_put");
    return fails(CALL_PUT) ? MDB_MAP_FULL : real(txn, dbi, key, data, flags);
}

static bool is_meant(const MDB_val *key)
{
    if (!atomic_load(&fault.victim_only)) {
        return true;
    }
    if (key->mv_size != ROW_KEY_SIZE) {
        return false;
    }
    unsigned long long row = record_get_u64(key->mv_data);
    unsigned long long none = 0;
    (void)atomic_compare_exchange_strong(&fault.victim, &none, row);
    return atomic_load(&fault.victim) == row;
}

int mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data)
{
    int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *) = NULL;
    *(void **)&real = next("mdb_del");
    return is_meant(key) && fails(CALL_DELETE) ? MDB_MAP_FULL : real(txn, dbi, key, data);
}

int mdb_txn_commit(MDB_txn *txn)
{
    int (*real)(MDB_txn *) = NULL;
    *(void **)&real = next("mdb_txn_commit");
    if (fails(CALL_COMMIT)) {
        mdb_txn_abort(txn);
        return MDB_MAP_FULL;
    }
    return real(txn);
}

/* ---- A store near its limit, so that every transaction deletes too ---- */

static uint32_t inserted;

static void insert_some(struct test_store *test, uint32_t count)
{
    static struct test_key key;
    hashtrie_endpoint endpoint = test_store_endpoint(test, "http://a");
    for (uint32_t i = 0; i < count; i++) {
        key = test_store_key(7, (uint64_t)inserted++ << 32, 900);
        test_store_insert(test, &key, endpoint);
        test->now_s += 10;
    }
}

static void fill(struct test_store *test)
{
    struct hashtrie_store_stats stats = {0};
    test->budget = (size_t)128 << 20;
    test_store_open(test);
    while (stats.deleted_node_count < 100) {
        insert_some(test, 500);
        test_store_checkpoint(test);
        hashtrie_store_get_stats(test->store, &stats);
    }
}

static void expect_found(struct test_store *test, uint32_t count)
{
    static struct test_key key;
    for (uint32_t i = inserted - count; i < inserted; i++) {
        key = test_store_key(7, (uint64_t)i << 32, 900);
        assert_int_equal(test_store_recall(test, &key).chunk_count, 900);
    }
}

static int setup(void **state)
{
    static struct test_store test;
    inserted = 0;
    test_store_init(&test);
    fill(&test);
    *state = &test;
    return 0;
}

static int teardown(void **state)
{
    struct test_store *test = *state;
    atomic_store(&fault.which, CALLS);
    test_store_close(test);
    test_store_expect_clean(test);
    test_store_open(test);
    expect_found(test, 100);
    test_store_close(test);
    test_store_fini(test);
    return 0;
}

/* One such call in a checkpoint: it succeeds all the same, with a smaller batch. */
static void once(struct test_store *test, enum call call)
{
    struct hashtrie_store_stats before;
    struct hashtrie_store_stats after;
    static const long places[] = {0, 1, 2, 3, 7, 20, 100, 301};
    long failed = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        hashtrie_store_get_stats(test->store, &before);
        insert_some(test, 100);
        set_fault(call, places[i], 1);
        test_store_checkpoint(test);
        atomic_store(&fault.which, CALLS);
        failed += atomic_load(&fault.failed);
        hashtrie_store_get_stats(test->store, &after);
        assert_int_equal(after.state, HASHTRIE_STORE_OK);
        assert_int_equal(after.repeated_batch_count - before.repeated_batch_count,
                         atomic_load(&fault.failed));
        test_store_check(test);
    }
    assert_true(failed > 0);
}

static void a_put_finds_the_map_full(void **state)
{
    once(*state, CALL_PUT);
}

static void a_delete_finds_the_map_full(void **state)
{
    once(*state, CALL_DELETE);
}

static void a_commit_finds_the_map_full(void **state)
{
    once(*state, CALL_COMMIT);
}

/* For a while nothing works: the checkpoint fails, nothing is lost, and it is told. */
static void a_map_that_stays_full_is_waited_for(void **state)
{
    struct test_store *test = *state;
    struct hashtrie_store_stats stats;
    for (int call = 0; call < CALLS; call++) {
        insert_some(test, 100);
        set_fault((enum call)call, 0, 1000000);
        assert_int_equal(test_store_try_checkpoint(test), HASHTRIE_EFULL);
        hashtrie_store_get_stats(test->store, &stats);
        assert_int_equal(stats.state, HASHTRIE_STORE_FULL);
        assert_int_equal(stats.problem, HASHTRIE_EFULL);
        expect_found(test, 100);
        atomic_store(&fault.which, CALLS);
        test_store_checkpoint(test);
        hashtrie_store_get_stats(test->store, &stats);
        assert_int_equal(stats.state, HASHTRIE_STORE_OK);
    }
}

/*
 * The live-lock of a map full to the brim: the oldest row can never be deleted, whoever tries it.
 * No page is left for what is new until the store passes that row over and deletes others.
 */
static void a_row_that_cannot_be_deleted_is_passed_over(void **state)
{
    struct test_store *test = *state;
    struct hashtrie_store_stats before;
    struct hashtrie_store_stats after;
    insert_some(test, 100);
    hashtrie_store_get_stats(test->store, &before);
    set_fault(CALL_DELETE, 0, 1000000);
    atomic_store(&fault.victim_only, true);
    (void)test_store_try_checkpoint(test);
    hashtrie_store_get_stats(test->store, &after);
    assert_true(atomic_load(&fault.failed) > 1);                       /* It was tried again, ... */
    assert_true(after.deleted_node_count > before.deleted_node_count); /* ... and others went. */
    expect_found(test, 100);
    atomic_store(&fault.which, CALLS);
    test_store_checkpoint(test);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_put_finds_the_map_full),
        CASE(a_delete_finds_the_map_full),
        CASE(a_commit_finds_the_map_full),
        CASE(a_map_that_stays_full_is_waited_for),
        CASE(a_row_that_cannot_be_deleted_is_passed_over),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store full", tests, NULL, NULL);
}
