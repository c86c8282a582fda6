/*
 * The size cap: past the limit the least recently used rows are deleted, deepest first among
 * equals, in the transactions that insert. Deleting needs pages too, so the limit lies well below
 * the map.
 *
 * An age entry that its row does not confirm is damage and is itself all that is deleted.
 */
#include <string.h>

#include "store/internal.h"

/* The age entry after the first `skip`; its key is copied out. */
static enum hashtrie_status oldest(struct write *write, size_t skip,
                                   unsigned char key_out[AGE_KEY_SIZE])
{
    MDB_cursor *cursor = NULL;
    enum hashtrie_status status =
        env_status(mdb_cursor_open(write->txn, write->store->env.dbi[DB_AGE], &cursor));
    if (status != HASHTRIE_OK) {
        return status;
    }
    MDB_val key;
    MDB_val value;
    status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_FIRST));
    for (size_t i = 0; i < skip && status == HASHTRIE_OK; i++) {
        status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    if (status == HASHTRIE_OK && key.mv_size != AGE_KEY_SIZE) {
        status = HASHTRIE_ECORRUPT;
    }
    if (status == HASHTRIE_OK) {
        memcpy(key_out, key.mv_data, AGE_KEY_SIZE);
    }
    mdb_cursor_close(cursor);
    return status;
}

/* The state of a row; ECORRUPT: none, or unreadable. */
static enum hashtrie_status read_state(struct write *write, uint64_t number,
                                       struct trie_record *record)
{
    unsigned char name[ROW_KEY_SIZE];
    record_put_u64(name, number);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value;
    enum hashtrie_status status =
        env_status(mdb_get(write->txn, write->store->env.dbi[DB_STATE], &key, &value));
    if (status == HASHTRIE_ENOENT) {
        return HASHTRIE_ECORRUPT;
    }
    if (status == HASHTRIE_OK &&
        !record_decode_state(value.mv_data, value.mv_size, number, record, NULL)) {
        return HASHTRIE_ECORRUPT;
    }
    return status;
}

static enum hashtrie_status delete_age_entry(struct write *write, const unsigned char *age)
{
    MDB_val key = env_val(age, AGE_KEY_SIZE);
    return env_status(mdb_del(write->txn, write->store->env.dbi[DB_AGE], &key, NULL));
}

/* The edge goes only if it leads to this row. */
static enum hashtrie_status delete_edge_to(struct write *write, uint64_t number,
                                           const struct trie_record *record)
{
    struct row row = {0};
    enum hashtrie_status status =
        row_find(&write->store->env, write->txn, record->prefix, record->fp, NULL, &row);
    if (status == HASHTRIE_ENOENT || (status == HASHTRIE_OK && row.number != number)) {
        return HASHTRIE_OK;
    }
    if (status != HASHTRIE_OK && status != HASHTRIE_ECORRUPT) {
        return status;
    }
    return row_delete_edge(&write->store->env, write->txn, record->prefix, record->fp);
}

static enum hashtrie_status delete_row(struct write *write, const unsigned char *age)
{
    uint64_t number = record_get_u64(age + 8);
    struct trie_record record = {0};
    enum hashtrie_status status = read_state(write, number, &record);
    if (status == HASHTRIE_ECORRUPT) { /* What is left of it cannot be found by anybody. */
        write->corrupt++;
        status = row_delete(&write->store->env, write->txn, number, NULL);
        return status == HASHTRIE_OK ? delete_age_entry(write, age) : status;
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    unsigned char expected[AGE_KEY_SIZE];
    record_age_key(expected, record.bucket, record.depth, number);
    if (memcmp(expected, age, AGE_KEY_SIZE) != 0) {
        write->corrupt++;
        return delete_age_entry(write, age);
    }
    status = delete_edge_to(write, number, &record);
    if (status == HASHTRIE_OK) {
        status = row_delete(&write->store->env, write->txn, number, &record);
    }
    if (status == HASHTRIE_OK) {
        write->chunks = count_less(write->chunks, record.length);
        write->deleted++;
    }
    return status;
}

enum hashtrie_status cap_delete(struct write *write, size_t count, size_t skip)
{
    for (size_t i = 0; i < count; i++) {
        unsigned char age[AGE_KEY_SIZE];
        enum hashtrie_status status = oldest(write, skip, age);
        if (status == HASHTRIE_OK) {
            status = delete_row(write, age);
        }
        if (status != HASHTRIE_OK) {
            return status == HASHTRIE_ENOENT && i > 0 ? HASHTRIE_OK : status;
        }
    }
    return HASHTRIE_OK;
}

bool cap_exceeded(struct write *write, enum hashtrie_status *status)
{
    uint64_t pages = 0;
    *status = env_used_pages(&write->store->env, write->txn, &pages);
    return *status == HASHTRIE_OK && pages > write->store->limit_pages;
}

enum hashtrie_status cap_enforce(struct write *write)
{
    enum hashtrie_status status = HASHTRIE_OK;
    while (write->delete_quota > 0 && status == HASHTRIE_OK && cap_exceeded(write, &status)) {
        write->delete_quota--;
        status = cap_delete(write, 1, 0);
    }
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}
