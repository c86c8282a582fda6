/* One row across the four databases that hold it. Always within the caller's transaction. */
#include "store/internal.h"

static enum hashtrie_status get(MDB_txn *txn, MDB_dbi dbi, const unsigned char *name, size_t size,
                                MDB_val *value)
{
    MDB_val key = env_val(name, size);
    return env_status(mdb_get(txn, dbi, &key, value));
}

static enum hashtrie_status put(MDB_txn *txn, MDB_dbi dbi, MDB_val key, MDB_val value,
                                unsigned flags)
{
    return env_status(mdb_put(txn, dbi, &key, &value, flags));
}

/* What is not there counts as deleted: only damage makes it so. */
static enum hashtrie_status del(MDB_txn *txn, MDB_dbi dbi, const unsigned char *name, size_t size)
{
    MDB_val key = env_val(name, size);
    enum hashtrie_status status = env_status(mdb_del(txn, dbi, &key, NULL));
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

enum hashtrie_status row_find(const struct env *env, MDB_txn *txn, uint64_t prefix, uint32_t fp,
                              struct trie_stored_holder *holders, struct row *out)
{
    unsigned char edge[EDGE_KEY_SIZE];
    record_edge_key(edge, prefix, fp);
    MDB_val value;
    enum hashtrie_status status = get(txn, env->dbi[DB_EDGES], edge, sizeof edge, &value);
    if (status != HASHTRIE_OK) {
        return status;
    }
    *out = (struct row){0};
    if (!record_decode_row(value.mv_data, value.mv_size, &out->number)) {
        return HASHTRIE_ECORRUPT;
    }
    unsigned char name[ROW_KEY_SIZE];
    record_put_u64(name, out->number);
    status = get(txn, env->dbi[DB_STATE], name, sizeof name, &value);
    if (status != HASHTRIE_OK) {
        return status == HASHTRIE_ENOENT ? HASHTRIE_ECORRUPT : status;
    }
    struct trie_record record;
    if (!record_decode_state(value.mv_data, value.mv_size, out->number, &record, holders)) {
        return HASHTRIE_ECORRUPT;
    }
    if (record.prefix != prefix || record.fp != fp) {
        out->number = 0; /* Another key's row, which may be right for that. */
        return HASHTRIE_ECORRUPT;
    }
    out->record = record;
    return HASHTRIE_OK;
}

enum hashtrie_status row_read_run(const struct env *env, MDB_txn *txn, struct row *row,
                                  uint32_t *run)
{
    unsigned char name[ROW_KEY_SIZE];
    record_put_u64(name, row->number);
    MDB_val value;
    enum hashtrie_status status = get(txn, env->dbi[DB_RUNS], name, sizeof name, &value);
    if (status != HASHTRIE_OK) {
        return status == HASHTRIE_ENOENT ? HASHTRIE_ECORRUPT : status;
    }
    uint32_t length = 0;
    if (!record_decode_run(value.mv_data, value.mv_size, row->record.prefix, run, &length) ||
        !record_run_fits(&row->record, run, length)) {
        return HASHTRIE_ECORRUPT;
    }
    row->record.run = run;
    return HASHTRIE_OK;
}

/* Number of the last row of a database; *number stays if there is none. */
static enum hashtrie_status last_number(MDB_txn *txn, MDB_dbi dbi, uint64_t *number)
{
    MDB_cursor *cursor = NULL;
    enum hashtrie_status status = env_status(mdb_cursor_open(txn, dbi, &cursor));
    if (status != HASHTRIE_OK) {
        return status;
    }
    MDB_val key;
    MDB_val value;
    status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_LAST));
    mdb_cursor_close(cursor);
    if (status == HASHTRIE_ENOENT) {
        return HASHTRIE_OK;
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    if (key.mv_size != ROW_KEY_SIZE || record_get_u64(key.mv_data) == UINT64_MAX) {
        return HASHTRIE_ECORRUPT;
    }
    uint64_t last = record_get_u64(key.mv_data);
    *number = last > *number ? last : *number;
    return HASHTRIE_OK;
}

enum hashtrie_status row_next_number(const struct env *env, MDB_txn *txn, uint64_t *number)
{
    uint64_t last = 0;
    enum hashtrie_status status = last_number(txn, env->dbi[DB_RUNS], &last);
    if (status == HASHTRIE_OK) {
        status = last_number(txn, env->dbi[DB_STATE], &last);
    }
    *number = last + 1;
    return status;
}

static enum hashtrie_status put_age(const struct env *env, MDB_txn *txn, uint64_t number,
                                    const struct trie_record *record)
{
    unsigned char age[AGE_KEY_SIZE];
    record_age_key(age, record->bucket, record->depth, number);
    return put(txn, env->dbi[DB_AGE], env_val(age, sizeof age), env_val(NULL, 0), 0);
}

static enum hashtrie_status delete_age(const struct env *env, MDB_txn *txn, uint64_t number,
                                       const struct trie_record *record)
{
    unsigned char age[AGE_KEY_SIZE];
    record_age_key(age, record->bucket, record->depth, number);
    return del(txn, env->dbi[DB_AGE], age, sizeof age);
}

static enum hashtrie_status put_state(const struct env *env, MDB_txn *txn, uint64_t number,
                                      const struct trie_record *record, unsigned flags)
{
    unsigned char name[ROW_KEY_SIZE];
    unsigned char bytes[STATE_BYTES_MAX];
    record_put_u64(name, number);
    size_t size = record_encode_state(bytes, number, record);
    return put(txn, env->dbi[DB_STATE], env_val(name, sizeof name), env_val(bytes, size), flags);
}

enum hashtrie_status row_put(const struct env *env, MDB_txn *txn, uint64_t number,
                             const struct trie_record *record)
{
    unsigned char name[ROW_KEY_SIZE];
    unsigned char bytes[RUN_BYTES_MAX];
    record_put_u64(name, number);
    size_t size = record_encode_run(bytes, record->prefix, record->run, record->length);
    enum hashtrie_status status =
        put(txn, env->dbi[DB_RUNS], env_val(name, sizeof name), env_val(bytes, size), MDB_APPEND);
    if (status == HASHTRIE_OK) {
        status = put_state(env, txn, number, record, MDB_APPEND);
    }
    if (status == HASHTRIE_OK) {
        status = put_age(env, txn, number, record);
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    unsigned char edge[EDGE_KEY_SIZE];
    record_edge_key(edge, record->prefix, record->fp);
    record_encode_row(bytes, number);
    return put(txn, env->dbi[DB_EDGES], env_val(edge, sizeof edge), env_val(bytes, ROW_VALUE_SIZE),
               0);
}

enum hashtrie_status row_put_state(const struct env *env, MDB_txn *txn, const struct row *old,
                                   const struct trie_record *record)
{
    enum hashtrie_status status = put_state(env, txn, old->number, record, 0);
    if (status == HASHTRIE_OK && old->record.bucket != record->bucket) {
        status = delete_age(env, txn, old->number, &old->record);
        if (status == HASHTRIE_OK) {
            status = put_age(env, txn, old->number, record);
        }
    }
    return status;
}

enum hashtrie_status row_delete(const struct env *env, MDB_txn *txn, uint64_t number,
                                const struct trie_record *record)
{
    unsigned char name[ROW_KEY_SIZE];
    record_put_u64(name, number);
    enum hashtrie_status status = del(txn, env->dbi[DB_RUNS], name, sizeof name);
    if (status == HASHTRIE_OK) {
        status = del(txn, env->dbi[DB_STATE], name, sizeof name);
    }
    if (status == HASHTRIE_OK && record != NULL) {
        status = delete_age(env, txn, number, record);
    }
    return status;
}

enum hashtrie_status row_delete_edge(const struct env *env, MDB_txn *txn, uint64_t prefix,
                                     uint32_t fp)
{
    unsigned char edge[EDGE_KEY_SIZE];
    record_edge_key(edge, prefix, fp);
    return del(txn, env->dbi[DB_EDGES], edge, sizeof edge);
}
