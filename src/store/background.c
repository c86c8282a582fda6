/*
 * The background thread: builds the filter, then reads the most recently used nodes ahead into the
 * page cache, then waits until the filter has to be made anew. Every second it looks for readers
 * that died or stay, and whether a snapshot is due.
 *
 * The filter is complete because a filter being built is published to the writer before its scan
 * begins, and not in the middle of a transaction: what is committed later has set its bits, and
 * what was committed before is seen by the scan.
 */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/internal.h"

enum {
    SCAN_ROWS_PER_TXN = 512, /* A read transaction holds all free pages back: short ones. */
    WARM_ROWS_PER_TXN = 32,  /* Each may have to be read from the disk. */
    WARM_BYTES_PER_S = 128 << 20,
    WARM_ROW_BYTES = 200, /* Of a row, besides its run. */
    HOUSEKEEPING_S = 1,
    READERS_CHECK_S = 10,
    TELL_S = 10, /* Between lines about a long read-ahead. */
};

#define WARM_BYTES_MAX (UINT64_C(512) << 20) /* Read ahead at most. */

static void check_readers(struct hashtrie_store *store)
{
    int dead = 0;
    CHECK(pthread_rwlock_rdlock(&store->env_lock) == 0);
    if (store->env.mdb != NULL) {
        (void)mdb_reader_check(store->env.mdb, &dead); /* Dead readers only hold pages back. */
    }
    CHECK(pthread_rwlock_unlock(&store->env_lock) == 0);
}

/* What is due every so often, also in the middle of long work. */
static void keep_house(struct hashtrie_store *store)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns < store->housekept_ns + HOUSEKEEPING_S * CLOCK_NS_PER_S) {
        return;
    }
    store->housekept_ns = now_ns;
    if (now_ns >= store->readers_checked_ns + READERS_CHECK_S * CLOCK_NS_PER_S) {
        store->readers_checked_ns = now_ns;
        check_readers(store);
    }
    pins_look(store, now_ns);
    snapshots_tick(store, now_ns);
}

/* A read transaction and a cursor for one slice of a scan. */
struct slice {
    MDB_txn *txn;
    MDB_cursor *cursor;
};

static enum hashtrie_status slice_begin(struct hashtrie_store *store, enum env_db db,
                                        struct slice *slice)
{
    CHECK(pthread_rwlock_rdlock(&store->env_lock) == 0);
    *slice = (struct slice){0};
    if (store->env.mdb == NULL) {
        return HASHTRIE_EIO;
    }
    enum hashtrie_status status =
        env_status(mdb_txn_begin(store->env.mdb, NULL, MDB_RDONLY, &slice->txn));
    if (status == HASHTRIE_OK) {
        status = env_status(mdb_cursor_open(slice->txn, store->env.dbi[db], &slice->cursor));
    }
    return status;
}

static void slice_end(struct hashtrie_store *store, struct slice *slice)
{
    if (slice->cursor != NULL) {
        mdb_cursor_close(slice->cursor);
    }
    if (slice->txn != NULL) {
        mdb_txn_abort(slice->txn);
    }
    CHECK(pthread_rwlock_unlock(&store->env_lock) == 0);
}

/* ---- The filter ---- */

/* Adds the edges from `from` on; leaves the next one's key there. ENOENT: that was the last. */
static enum hashtrie_status scan_slice(struct hashtrie_store *store, struct filter *filter,
                                       unsigned char from[EDGE_KEY_SIZE], uint64_t *rows)
{
    struct slice slice;
    enum hashtrie_status status = slice_begin(store, DB_EDGES, &slice);
    MDB_val key = env_val(from, EDGE_KEY_SIZE);
    MDB_val value;
    if (status == HASHTRIE_OK) {
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_SET_RANGE));
    }
    for (int i = 0; i < SCAN_ROWS_PER_TXN && status == HASHTRIE_OK; i++) {
        if (key.mv_size == EDGE_KEY_SIZE) {
            const unsigned char *name = key.mv_data;
            filter_add(filter, record_get_u64(name), record_get_u32(name + 8));
            (*rows)++;
        }
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_NEXT));
    }
    if (status == HASHTRIE_OK) {
        bool good = key.mv_size == EDGE_KEY_SIZE && env_goes_on(&key, from, EDGE_KEY_SIZE);
        status = good ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
    }
    if (status == HASHTRIE_OK) {
        memcpy(from, key.mv_data, EDGE_KEY_SIZE);
    }
    slice_end(store, &slice);
    return status;
}

static void publish_next(struct hashtrie_store *store, const struct filter *next)
{
    CHECK(pthread_mutex_lock(&store->write_lock) == 0);
    store->filter_next = *next;
    CHECK(pthread_mutex_unlock(&store->write_lock) == 0);
    counter_set(&store->filter_bytes, filter_bytes(&store->filter) + filter_bytes(next));
}

static uint64_t env_number(struct hashtrie_store *store)
{
    hashtrie_lock(store->trie);
    uint64_t number = store->env_number;
    hashtrie_unlock(store->trie);
    return number;
}

/* Puts the filter built of that file in place, or drops it: if `built` is NULL, or another file is
 * open by now. Returns what is to be freed. */
static struct filter replace_filter(struct hashtrie_store *store, const struct filter *built,
                                    uint64_t number)
{
    CHECK(pthread_mutex_lock(&store->write_lock) == 0);
    hashtrie_lock(store->trie);
    bool good = built != NULL && number == store->env_number;
    struct filter old = good ? store->filter : store->filter_next;
    if (good) {
        store->filter = *built;
        atomic_store_explicit(&store->filter_ready, true, memory_order_relaxed);
    }
    store->filter_next = (struct filter){0};
    hashtrie_unlock(store->trie);
    CHECK(pthread_mutex_unlock(&store->write_lock) == 0);
    return old;
}

static bool build_filter(struct hashtrie_store *store)
{
    struct filter next = {0};
    uint64_t number = env_number(store);
    if (!filter_init(&next, &store->filter_mem, counter_get(&store->counters.nodes),
                     HASHTRIE_STORE_FILTER_BYTES_MAX)) {
        return false;
    }
    publish_next(store, &next);
    uint64_t added_before = counter_get(&store->filter_added);
    uint64_t removed_before = counter_get(&store->filter_removed);
    unsigned char from[EDGE_KEY_SIZE] = {0};
    uint64_t rows = 0;
    enum hashtrie_status status = HASHTRIE_OK;
    while (status == HASHTRIE_OK && !store_stopping(store)) {
        status = scan_slice(store, &next, from, &rows);
        keep_house(store);
    }
    bool complete = status == HASHTRIE_ENOENT;
    struct filter old = replace_filter(store, complete ? &next : NULL, number);
    filter_fini(&old, &store->filter_mem);
    counter_set(&store->filter_bytes, filter_bytes(&store->filter));
    if (complete) {
        counter_set(&store->filter_rows, rows);
        counter_set(&store->filter_capacity, next.capacity);
        (void)atomic_fetch_sub_explicit(&store->filter_added, added_before, memory_order_relaxed);
        (void)atomic_fetch_sub_explicit(&store->filter_removed, removed_before,
                                        memory_order_relaxed);
    }
    if (status == HASHTRIE_ECORRUPT) { /* Looking again would find the same. */
        counter_add(&store->counters.corrupt, 1);
        store_event(store, HASHTRIE_EVENT_ERROR,
                    "the list of nodes is damaged, and cannot be read to its end: whatever is not "
                    "in memory is asked for on disk; see `hashtrie-dump verify`");
    }
    return complete || status == HASHTRIE_ECORRUPT;
}

/* ---- Reading ahead ---- */

/* Touches the value under a row's number, so that its page is in memory. Returns its size. */
static size_t touch(struct hashtrie_store *store, MDB_txn *txn, enum env_db db,
                    const unsigned char *number)
{
    MDB_val key = env_val(number, ROW_KEY_SIZE);
    MDB_val value;
    if (mdb_get(txn, store->env.dbi[db], &key, &value) != MDB_SUCCESS || value.mv_size == 0) {
        return 0;
    }
    const volatile unsigned char *bytes = value.mv_data;
    (void)bytes[0];
    (void)bytes[value.mv_size - 1];
    return value.mv_size;
}

/* Newest first, from `from` (empty: the end) backwards; leaves there where to go on. ENOENT: no
 * more. */
static enum hashtrie_status warm_slice(struct hashtrie_store *store,
                                       unsigned char from[AGE_KEY_SIZE], bool *begun,
                                       uint64_t *bytes)
{
    struct slice slice;
    enum hashtrie_status status = slice_begin(store, DB_AGE, &slice);
    MDB_val key = env_val(from, AGE_KEY_SIZE);
    MDB_val value;
    if (status == HASHTRIE_OK && *begun) {
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_SET_RANGE));
        status = status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
    }
    if (status == HASHTRIE_OK) { /* Without a position the last entry is taken. */
        status =
            env_status(mdb_cursor_get(slice.cursor, &key, &value, *begun ? MDB_PREV : MDB_LAST));
    }
    for (int i = 0; i < WARM_ROWS_PER_TXN && status == HASHTRIE_OK; i++) {
        if (key.mv_size != AGE_KEY_SIZE) {
            status = HASHTRIE_ECORRUPT;
            break;
        }
        memcpy(from, key.mv_data, AGE_KEY_SIZE);
        *begun = true;
        (void)touch(store, slice.txn, DB_STATE, from + 8);
        *bytes += WARM_ROW_BYTES + touch(store, slice.txn, DB_RUNS, from + 8);
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_PREV));
    }
    slice_end(store, &slice);
    return status;
}

/* Waits for `wait_ns`, or until `early` or the end. */
static void wait_for(struct hashtrie_store *store, uint64_t wait_ns, const bool *early)
{
    struct control *control = &store->control;
    uint64_t until_ns = clock_monotonic_ns() + wait_ns;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    bool waiting = true;
    while (waiting && !control->stopping && (early == NULL || !*early)) {
        waiting = control_wait_until(control, until_ns);
    }
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
}

static void tell_warm(const struct hashtrie_store *store, uint64_t bytes, uint64_t start_ns,
                      const char *what)
{
    uint64_t took_ns = clock_monotonic_ns() - start_ns;
    store_event(store, HASHTRIE_EVENT_INFO,
                "%s ahead what was used last: %" PRIu64 " MiB in %.1f s", what, bytes >> 20,
                (double)took_ns / (double)CLOCK_NS_PER_S);
}

/* Requests do not wait for it: each reloads its own path. It spares them the disk. */
static void warm_up(struct hashtrie_store *store)
{
    struct counters *counters = &store->counters;
    uint64_t all = counter_get(&counters->bytes);
    uint64_t start_ns = clock_monotonic_ns();
    uint64_t tell_ns = start_ns + TELL_S * CLOCK_NS_PER_S;
    counter_set(&counters->warm_total, (all < WARM_BYTES_MAX ? all : WARM_BYTES_MAX) + 1);
    unsigned char from[AGE_KEY_SIZE] = {0};
    bool begun = false;
    uint64_t bytes = 0;
    enum hashtrie_status status = HASHTRIE_OK;
    while (status == HASHTRIE_OK && bytes < WARM_BYTES_MAX && !store_stopping(store)) {
        uint64_t before = bytes;
        status = warm_slice(store, from, &begun, &bytes);
        wait_for(store, (bytes - before) * CLOCK_NS_PER_S / WARM_BYTES_PER_S, NULL);
        counter_set(&counters->warm_done, bytes < all ? bytes : all);
        if (clock_monotonic_ns() >= tell_ns) {
            tell_ns += TELL_S * CLOCK_NS_PER_S;
            tell_warm(store, bytes, start_ns, "reading");
        }
        keep_house(store);
    }
    if (bytes > 0) {
        tell_warm(store, bytes, start_ns, "read");
    }
    counter_set(&counters->warm_total, 1);
    counter_set(&counters->warm_done, 1);
}

/* ---- The thread ---- */

void *background_main(void *user)
{
    struct hashtrie_store *store = user;
    struct control *control = &store->control;
    wait_for(store, UINT64_MAX / 2, &control->opened);
    bool built = build_filter(store);
    snapshots_look(store);
    warm_up(store);
    uint64_t next_ns = clock_monotonic_ns() + HOUSEKEEPING_S * CLOCK_NS_PER_S;
    while (!store_stopping(store)) {
        wait_for(store, SLOW_MS * CLOCK_NS_PER_MS, &control->refilter);
        store_tell_slow(store);
        CHECK(pthread_mutex_lock(&control->lock) == 0);
        bool wanted = control->refilter;
        control->refilter = false;
        CHECK(pthread_mutex_unlock(&control->lock) == 0);
        bool due = clock_monotonic_ns() >= next_ns;
        if ((wanted || (due && !built)) && !store_stopping(store)) {
            built = build_filter(store) || built;
        }
        if (due) {
            keep_house(store);
            next_ns = clock_monotonic_ns() + HOUSEKEEPING_S * CLOCK_NS_PER_S;
        }
    }
    return NULL;
}
