/* The write transactions there are: a batch, deletes alone, the mark of an orderly end. Writer
 * thread. */
#include <unistd.h>

#include "base/check.h"
#include "store/internal.h"

enum { TRIM_ROWS_PER_TXN = 512 };

static enum hashtrie_status write_meta(struct hashtrie_store *store, const struct write *write,
                                       uint64_t last_checkpoint_ms)
{
    const struct {
        enum meta_field field;
        uint64_t number;
    } fields[] = {
        {META_NEXT_ENDPOINT_ID, store->changes.next_id},
        {META_NEWEST_BUCKET, write->newest_bucket},
        {META_CHUNK_COUNT, write->chunks},
        {META_RELOADS_FOUND,
         store->reloads_found_before + counter_get(&store->counters.reloads_found)},
        {META_RELOADS_MISSED,
         store->reloads_missed_before + counter_get(&store->counters.reloads_missed)},
        {META_LAST_CHECKPOINT_MS, last_checkpoint_ms},
    };
    enum hashtrie_status status = HASHTRIE_OK;
    size_t count = sizeof fields / sizeof *fields - (last_checkpoint_ms == 0 ? 1 : 0);
    for (size_t i = 0; i < count && status == HASHTRIE_OK; i++) {
        status = env_meta_put(&store->env, write->txn, fields[i].field, fields[i].number);
    }
    return status;
}

static enum hashtrie_status write_begin(struct hashtrie_store *store, struct write *write)
{
    *write = (struct write){
        .store = store, .chunks = store->chunk_count, .newest_bucket = store->newest_bucket};
    if (store->env.mdb == NULL) {
        return HASHTRIE_EIO;
    }
    return env_status(mdb_txn_begin(store->env.mdb, NULL, 0, &write->txn));
}

/* LMDB writes a page where its number says, even if damage made that a number beyond the map. */
static void note_size(struct hashtrie_store *store)
{
    int fd = -1;
    uint64_t bytes = env_extend_file(&store->env);
    if (bytes > store->env.map_bytes && mdb_env_get_fd(store->env.mdb, &fd) == MDB_SUCCESS &&
        ftruncate(fd, (off_t)store->env.map_bytes) == 0) {
        store->damage = "pages were written beyond its end";
    }
    counter_set(&store->counters.bytes, bytes);
}

static void count_written(struct hashtrie_store *store, const struct write *write)
{
    store->chunk_count = write->chunks;
    store->newest_bucket = write->newest_bucket;
    counter_set(&store->counters.chunks, write->chunks);
    counter_add(&store->counters.written, write->inserted);
    counter_add(&store->counters.touched, write->touched);
    counter_add(&store->counters.deleted, write->deleted);
    counter_add(&store->counters.corrupt, write->corrupt);
    counter_add(&store->filter_added, write->inserted);
    counter_add(&store->filter_removed, write->deleted);
    note_size(store);
}

/* Commits if all went well so far, else drops the transaction. */
static enum hashtrie_status write_end(struct hashtrie_store *store, struct write *write,
                                      enum hashtrie_status status)
{
    if (write->txn == NULL) {
        return status;
    }
    if (status == HASHTRIE_OK) {
        status = store_count(store, write->txn);
    }
    if (status != HASHTRIE_OK) {
        mdb_txn_abort(write->txn);
        return status;
    }
    status = env_status(mdb_txn_commit(write->txn));
    if (status == HASHTRIE_OK) {
        count_written(store, write);
    }
    return status;
}

static void write_lock(struct hashtrie_store *store)
{
    CHECK(pthread_mutex_lock(&store->write_lock) == 0);
    CHECK(pthread_rwlock_rdlock(&store->env_lock) == 0);
    store_timing_begin(&store->write_start_ns);
}

static void write_unlock(struct hashtrie_store *store)
{
    store_timing_end(store, &store->write_start_ns);
    CHECK(pthread_rwlock_unlock(&store->env_lock) == 0);
    CHECK(pthread_mutex_unlock(&store->write_lock) == 0);
}

enum hashtrie_status commit_batch(struct hashtrie_store *store, uint64_t covered_ms,
                                  uint64_t *txn_id)
{
    struct write write;
    write_lock(store);
    enum hashtrie_status status = write_begin(store, &write);
    if (status == HASHTRIE_OK) {
        *txn_id = mdb_txn_id(write.txn);
        status = batch_write(&write);
    }
    if (status == HASHTRIE_OK) {
        status = endpoints_write(store, write.txn);
    }
    if (status == HASHTRIE_OK) {
        status = write_meta(store, &write, write.incomplete == 0 ? covered_ms : 0);
    }
    status = write_end(store, &write, status);
    write_unlock(store);
    if (status == HASHTRIE_OK) {
        endpoints_committed(store);
    }
    return status;
}

enum hashtrie_status commit_deletes(struct hashtrie_store *store, size_t count, size_t skip)
{
    struct write write;
    write_lock(store);
    enum hashtrie_status status = write_begin(store, &write);
    if (status == HASHTRIE_OK && count > 0) {
        status = cap_delete(&write, count, skip);
    } else if (status == HASHTRIE_OK) {
        write.delete_quota = TRIM_ROWS_PER_TXN;
        status = cap_enforce(&write);
    }
    if (status == HASHTRIE_OK) {
        status = env_meta_put(&store->env, write.txn, META_CHUNK_COUNT, write.chunks);
    }
    status = write_end(store, &write, status);
    write_unlock(store);
    return status;
}

enum hashtrie_status commit_clean(struct hashtrie_store *store)
{
    struct write write;
    write_lock(store);
    enum hashtrie_status status = write_begin(store, &write);
    if (status == HASHTRIE_OK) {
        status = env_meta_put(&store->env, write.txn, META_CLEAN, 1);
    }
    status = write_end(store, &write, status);
    write_unlock(store);
    return status;
}
