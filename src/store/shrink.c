/*
 * A cap that was made smaller: LMDB never gives pages back, so the most recently used rows are
 * copied into a new file, which takes the old one's place. Writer thread, once after opening;
 * requests are served from memory and, by reloads, from the old file meanwhile.
 *
 *     data.mdb -> data.mdb.new/data.mdb: rows, ages, edges, each in the order of its keys -> synced
 *              -> environment closed -> renamed to data.mdb -> opened again
 *
 * Whatever stops it, data.mdb is the old file or the new one, whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/build.h"
#include "store/folder.h"
#include "store/internal.h"

enum {
    KEEP_PERCENT = 95, /* Of the rows that the limit has room for on the average. */
    LOOK_PUTS = 1024,  /* Between looks at the clock and at whether the store closes. */
    TELL_S = 10,
    ATTEMPTS = 3, /* Each with fewer rows: those used last may be larger than the average. */
};

#define SPARE_BYTES (UINT64_C(64) << 20) /* Of disk, besides the new file. */

struct shrink {
    struct hashtrie_store *store;
    MDB_txn *txn; /* Of the old file. */
    struct build build;
    unsigned char cutoff[AGE_KEY_SIZE]; /* The oldest age entry that stays. */
    uint64_t keep;                      /* Rows. */
    uint64_t puts;
    uint64_t start_ns;
    uint64_t tell_ns;
};

/* ---- What stays ---- */

/* Walks back from the newest age entry. ENOENT: there is none. */
static enum hashtrie_status find_cutoff(struct shrink *shrink)
{
    MDB_cursor *cursor = NULL;
    enum hashtrie_status status =
        env_status(mdb_cursor_open(shrink->txn, shrink->store->env.dbi[DB_AGE], &cursor));
    if (status != HASHTRIE_OK) {
        return status;
    }
    MDB_val key;
    MDB_val value;
    status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_LAST));
    for (uint64_t i = 0; i < shrink->keep && status == HASHTRIE_OK; i++) {
        if (key.mv_size == AGE_KEY_SIZE) {
            memcpy(shrink->cutoff, key.mv_data, AGE_KEY_SIZE);
        }
        status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_PREV));
    }
    mdb_cursor_close(cursor);
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

/* ---- Copying ---- */

/* Now and then: EBUSY if the store closes. */
static enum hashtrie_status look(struct shrink *shrink)
{
    struct hashtrie_store *store = shrink->store;
    if (++shrink->puts % LOOK_PUTS != 0) {
        return HASHTRIE_OK;
    }
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns >= shrink->tell_ns) {
        shrink->tell_ns = now_ns + TELL_S * CLOCK_NS_PER_S;
        store_event(store, HASHTRIE_EVENT_INFO, "making the store's file smaller: %" PRIu64 " %%",
                    shrink->puts * 100 / (shrink->keep * 4 + 1));
    }
    return store_stopping(store) ? HASHTRIE_EBUSY : HASHTRIE_OK;
}

static enum hashtrie_status append(struct shrink *shrink, enum env_db db, MDB_val key,
                                   MDB_val value)
{
    struct build *build = &shrink->build;
    enum hashtrie_status status = look(shrink);
    if (status == HASHTRIE_OK) {
        status = build_ready(build);
    }
    return status == HASHTRIE_OK
               ? env_status(mdb_put(build->txn, build->env.dbi[db], &key, &value, MDB_APPEND))
               : status;
}

/* The state of a row in the new file. */
static bool kept(struct shrink *shrink, uint64_t row, struct trie_record *record)
{
    unsigned char name[ROW_KEY_SIZE];
    record_put_u64(name, row);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value;
    MDB_txn *txn = shrink->build.txn;
    return txn != NULL && mdb_get(txn, shrink->build.env.dbi[DB_STATE], &key, &value) == 0 &&
           record_decode_state(value.mv_data, value.mv_size, row, record, NULL);
}

/* A state, and its run; what cannot be read is left out. */
static enum hashtrie_status copy_row(struct shrink *shrink, MDB_val key, MDB_val value)
{
    struct trie_record record;
    unsigned char age[AGE_KEY_SIZE];
    MDB_val run;
    if (key.mv_size != ROW_KEY_SIZE) {
        return HASHTRIE_OK;
    }
    uint64_t row = record_get_u64(key.mv_data);
    if (!record_decode_state(value.mv_data, value.mv_size, row, &record, NULL)) {
        return HASHTRIE_OK;
    }
    record_age_key(age, record.bucket, record.depth, row);
    if (memcmp(age, shrink->cutoff, sizeof age) < 0 ||
        mdb_get(shrink->txn, shrink->store->env.dbi[DB_RUNS], &key, &run) != MDB_SUCCESS) {
        return HASHTRIE_OK;
    }
    enum hashtrie_status status = append(shrink, DB_STATE, key, value);
    if (status == HASHTRIE_OK) {
        status = append(shrink, DB_RUNS, key, run);
    }
    shrink->build.node_count++;
    shrink->build.chunk_count += record.length;
    return status;
}

static enum hashtrie_status copy_age(struct shrink *shrink, MDB_val key, MDB_val value)
{
    struct trie_record record;
    unsigned char age[AGE_KEY_SIZE];
    if (key.mv_size != AGE_KEY_SIZE || memcmp(key.mv_data, shrink->cutoff, AGE_KEY_SIZE) < 0) {
        return HASHTRIE_OK;
    }
    uint64_t row = record_get_u64((const unsigned char *)key.mv_data + 8);
    if (!kept(shrink, row, &record)) {
        return HASHTRIE_OK;
    }
    record_age_key(age, record.bucket, record.depth, row);
    bool right = memcmp(age, key.mv_data, sizeof age) == 0;
    return right ? append(shrink, DB_AGE, key, value) : HASHTRIE_OK;
}

static enum hashtrie_status copy_edge(struct shrink *shrink, MDB_val key, MDB_val value)
{
    struct trie_record record;
    unsigned char edge[EDGE_KEY_SIZE];
    uint64_t row = 0;
    if (key.mv_size != EDGE_KEY_SIZE || !record_decode_row(value.mv_data, value.mv_size, &row) ||
        !kept(shrink, row, &record)) {
        return HASHTRIE_OK;
    }
    record_edge_key(edge, record.prefix, record.fp);
    bool right = memcmp(edge, key.mv_data, sizeof edge) == 0;
    return right ? append(shrink, DB_EDGES, key, value) : HASHTRIE_OK;
}

static enum hashtrie_status copy_endpoint(struct shrink *shrink, MDB_val key, MDB_val value)
{
    return append(shrink, DB_ENDPOINTS, key, value);
}

/* Calls `copy` for all of a database in the order of its keys. */
static enum hashtrie_status copy_db(struct shrink *shrink, enum env_db db,
                                    enum hashtrie_status (*copy)(struct shrink *, MDB_val, MDB_val))
{
    MDB_cursor *cursor = NULL;
    enum hashtrie_status status =
        env_status(mdb_cursor_open(shrink->txn, shrink->store->env.dbi[db], &cursor));
    MDB_val key;
    MDB_val value;
    while (status == HASHTRIE_OK) {
        status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
        if (status == HASHTRIE_ENOENT) {
            break;
        }
        if (status == HASHTRIE_OK) {
            status = copy(shrink, key, value);
        }
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

static enum hashtrie_status copy_all(struct shrink *shrink)
{
    static const struct {
        enum env_db db;
        enum hashtrie_status (*copy)(struct shrink *, MDB_val, MDB_val);
    } steps[] = {{DB_ENDPOINTS, copy_endpoint},
                 {DB_STATE, copy_row},
                 {DB_AGE, copy_age},
                 {DB_EDGES, copy_edge}};
    struct hashtrie_store *store = shrink->store;
    enum hashtrie_status status = find_cutoff(shrink);
    for (size_t i = 0; i < sizeof steps / sizeof *steps && status == HASHTRIE_OK; i++) {
        status = copy_db(shrink, steps[i].db, steps[i].copy);
    }
    shrink->build.next_endpoint_id = store->changes.next_id;
    shrink->build.newest_bucket = store->newest_bucket;
    shrink->build.last_checkpoint_ms = counter_get(&store->counters.last_checkpoint_ms);
    return status;
}

/* Makes the new file in `folder`. */
static enum hashtrie_status make_file(struct shrink *shrink, const char *folder)
{
    struct hashtrie_store *store = shrink->store;
    enum hashtrie_status status =
        build_create(&shrink->build, folder, store->cap_bytes, store->chunk_size);
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = env_status(mdb_txn_begin(store->env.mdb, NULL, MDB_RDONLY, &shrink->txn));
    if (status == HASHTRIE_OK) {
        status = copy_all(shrink);
        mdb_txn_abort(shrink->txn);
    }
    if (status != HASHTRIE_OK) {
        build_abandon(&shrink->build);
        return status;
    }
    return build_finish(&shrink->build);
}

/* A file that keeps to the cap. */
static enum hashtrie_status make_small_file(struct shrink *shrink, const char *folder)
{
    uint64_t cap = shrink->store->cap_bytes;
    for (int i = 0; i < ATTEMPTS; i++) {
        enum hashtrie_status status = make_file(shrink, folder);
        if (status != HASHTRIE_OK) {
            return status;
        }
        uint64_t bytes = env_file_bytes(folder);
        if (bytes <= cap) {
            return HASHTRIE_OK;
        }
        shrink->keep =
            (uint64_t)((double)shrink->keep * (double)cap / (double)bytes * KEEP_PERCENT / 100);
        folder_remove(folder);
    }
    return HASHTRIE_EFULL;
}

/* ---- The exchange ---- */

/*
 * lock.mdb tells of the old file's transactions: gone before the new one is there, and again what a
 * reader may have made between the two.
 */
static enum hashtrie_status exchange(struct hashtrie_store *store, const char *folder)
{
    char from[ENV_PATH_BYTES_MAX];
    char to[ENV_PATH_BYTES_MAX];
    char lock[ENV_PATH_BYTES_MAX];
    if (!env_path(from, folder, "data.mdb") || !env_path(to, store->directory, "data.mdb") ||
        !env_path(lock, store->directory, "lock.mdb")) {
        return HASHTRIE_EINVAL;
    }
    store_env_close(store);
    (void)unlink(lock); /* If it cannot, the rename cannot either. */
    enum hashtrie_status status = rename(from, to) == 0 ? HASHTRIE_OK : env_status(errno);
    (void)unlink(lock);
    if (status == HASHTRIE_OK && fsync(store->directory_fd) != 0) {
        status = env_status(errno);
    }
    return status;
}

/* Rows that stay, and whether there is disk for them. */
static bool plan(struct shrink *shrink)
{
    struct hashtrie_store *store = shrink->store;
    uint64_t rows = counter_get(&store->counters.nodes);
    uint64_t pages =
        store->used_pages < store->limit_pages ? store->used_pages : store->limit_pages;
    shrink->keep = rows;
    if (store->used_pages > store->limit_pages) {
        shrink->keep = (uint64_t)((double)rows * (double)pages / (double)store->used_pages *
                                  KEEP_PERCENT / 100);
    }
    uint64_t needed = pages * store->env.page_bytes + SPARE_BYTES;
    if (env_free_bytes(store->directory) >= needed) {
        return true;
    }
    store_event(store, HASHTRIE_EVENT_WARNING,
                "the store's file has %" PRIu64 " bytes, more than its limit of %" PRIu64
                ". It keeps its size, as making it smaller takes %" PRIu64
                " bytes of disk; what is in it is deleted down to the limit",
                counter_get(&store->counters.bytes), store->cap_bytes, needed);
    return false;
}

static void tell_end(const struct shrink *shrink, uint64_t before, uint64_t rows,
                     enum hashtrie_status status)
{
    struct hashtrie_store *store = shrink->store;
    double seconds = (double)(clock_monotonic_ns() - shrink->start_ns) / (double)CLOCK_NS_PER_S;
    if (status == HASHTRIE_OK) {
        counter_add(&store->counters.deleted, count_less(rows, shrink->build.node_count));
        store_event(
            store, HASHTRIE_EVENT_INFO,
            "the store's file was made smaller: %" PRIu64 " to %" PRIu64 " bytes, the %" PRIu64
            " most recently used of %" PRIu64 " nodes are kept; it took %.1f s",
            before, env_file_bytes(store->directory), shrink->build.node_count, rows, seconds);
    } else if (status != HASHTRIE_EBUSY) {
        store_event(store, HASHTRIE_EVENT_WARNING, "the store's file could not be made smaller: %s",
                    hashtrie_strerror(status));
    }
}

enum hashtrie_status shrink_file(struct hashtrie_store *store)
{
    char folder[ENV_PATH_BYTES_MAX];
    struct shrink shrink = {.store = store, .start_ns = clock_monotonic_ns()};
    uint64_t before = counter_get(&store->counters.bytes);
    uint64_t rows = counter_get(&store->counters.nodes);
    shrink.tell_ns = shrink.start_ns + CLOCK_NS_PER_S;
    if (!env_path(folder, store->directory, "data.mdb.new")) {
        return HASHTRIE_OK;
    }
    folder_remove(folder); /* What a crash has left. */
    if (before <= store->cap_bytes || !plan(&shrink)) {
        return HASHTRIE_OK;
    }
    store_event(store, HASHTRIE_EVENT_INFO,
                "the store's file has %" PRIu64 " bytes, more than its limit of %" PRIu64
                ": it is made smaller; nothing is written meanwhile",
                before, store->cap_bytes);
    enum hashtrie_status status = make_small_file(&shrink, folder);
    if (status == HASHTRIE_OK) {
        status = exchange(store, folder);
    }
    folder_remove(folder);
    tell_end(&shrink, before, rows, status);
    return store->env.mdb == NULL ? store_come_up(store) : HASHTRIE_OK;
}
