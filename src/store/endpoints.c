/* Endpoints between the trie and the store: restored at open, written with every batch if they have
 * changed. */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/internal.h"

enum {
    SLOTS_PER_HOLD = 64,            /* Looked at in one hold of the trie's lock. */
    KEPT_UNSEEN_S = 30 * 24 * 3600, /* An engine not used for so long has another cache by now. */
    RESTORED_BUDGET_PARTS = 32,     /* The trie may be filled to 1/32 by restored endpoints. */
};

/* ---- Restoring ---- */

/* Endpoints that nobody uses any more must not fill the trie's budget. */
static bool has_share_left(struct hashtrie_store *store)
{
    struct hashtrie_stats stats;
    hashtrie_lock(store->trie);
    hashtrie_get_stats(store->trie, &stats);
    hashtrie_unlock(store->trie);
    return stats.bytes_used < stats.bytes_budget / RESTORED_BUDGET_PARTS;
}

static void restore_one(struct hashtrie_store *store, const struct record_endpoint *record,
                        uint64_t now_s)
{
    if (record->seen_s + KEPT_UNSEEN_S < now_s || !has_share_left(store)) {
        return;
    }
    struct trie_endpoint endpoint = {.id = record->id,
                                     .odometer_kib = record->odometer_kib,
                                     .name = record->name,
                                     .model = record->model,
                                     .generation = record->generation};
    hashtrie_lock(store->trie);
    enum hashtrie_status status = trie_endpoint_restore(store->trie, &endpoint);
    if (status == HASHTRIE_EEXIST && !store->joined) {
        status = trie_endpoint_adopt(store->trie, &endpoint);
    }
    hashtrie_unlock(store->trie);
    if (status != HASHTRIE_OK && status != HASHTRIE_EEXIST) {
        store_event(store, HASHTRIE_EVENT_WARNING, "endpoint %s is not restored: %s", record->name,
                    hashtrie_strerror(status));
    }
}

static void note_conflict(struct hashtrie_store *store, const struct record_endpoint *record,
                          bool *conflict)
{
    struct trie_endpoint endpoint = {.id = record->id, .name = record->name};
    hashtrie_lock(store->trie);
    *conflict = *conflict || !trie_endpoint_agrees(store->trie, &endpoint);
    hashtrie_unlock(store->trie);
}

/* From the newest id down, so that of two with one name the newer counts. With `conflict`: only
 * looks whether ids mean the same here as there. */
static enum hashtrie_status each_record(struct hashtrie_store *store, MDB_cursor *cursor,
                                        struct record_endpoint *record, bool *conflict)
{
    uint64_t now_s = clock_unix_ns() / CLOCK_NS_PER_S;
    MDB_val key;
    MDB_val value;
    int code = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
    for (; code == MDB_SUCCESS; code = mdb_cursor_get(cursor, &key, &value, MDB_PREV)) {
        bool good = key.mv_size == ENDPOINT_KEY_SIZE &&
                    record_decode_endpoint(value.mv_data, value.mv_size,
                                           record_get_u32(key.mv_data), record);
        if (good && conflict != NULL) {
            note_conflict(store, record, conflict);
        } else if (good) {
            restore_one(store, record, now_s);
        } else if (conflict == NULL) {
            counter_add(&store->counters.corrupt, 1);
        }
    }
    return code == MDB_NOTFOUND ? HASHTRIE_OK : env_status(code);
}

/* Ids that were given out without this file, or for another one, make way for those in it. */
static enum hashtrie_status restore_all(struct hashtrie_store *store, MDB_cursor *cursor,
                                        struct record_endpoint *record)
{
    bool conflict = !store->joined;
    if (!conflict) {
        enum hashtrie_status status = each_record(store, cursor, record, &conflict);
        if (status != HASHTRIE_OK) {
            return status;
        }
    }
    if (conflict) {
        hashtrie_lock(store->trie);
        trie_endpoints_renumber(store->trie, trie_endpoint_next_id(store->trie));
        hashtrie_unlock(store->trie);
    }
    return each_record(store, cursor, record, NULL);
}

enum hashtrie_status endpoints_restore(struct hashtrie_store *store)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    struct record_endpoint *record = mem_alloc(&store->mem, sizeof *record);
    if (record == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = env_status(mdb_txn_begin(store->env.mdb, NULL, MDB_RDONLY, &txn));
    if (status != HASHTRIE_OK) {
        goto free_record;
    }
    status = env_status(mdb_cursor_open(txn, store->env.dbi[DB_ENDPOINTS], &cursor));
    if (status == HASHTRIE_OK) {
        status = restore_all(store, cursor, record);
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
free_record:
    mem_free(&store->mem, record, sizeof *record);
    return status;
}

/* ---- What has changed ---- */

static uint64_t texts_hash(const struct trie_endpoint *endpoint)
{
    uint64_t hash = record_hash(endpoint->name, strlen(endpoint->name), 0);
    hash = record_hash(endpoint->model, strlen(endpoint->model), hash);
    return record_hash(endpoint->generation, strlen(endpoint->generation), hash);
}

static bool slots_reserve(struct hashtrie_store *store, size_t count)
{
    if (count <= store->endpoint_capacity) {
        return true;
    }
    size_t capacity = count + count / 2;
    size_t old_size = store->endpoint_capacity * sizeof *store->endpoints;
    struct endpoint_stored *grown =
        mem_realloc(&store->writer_mem, store->endpoints, old_size, capacity * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    memset(grown + store->endpoint_capacity, 0,
           (capacity - store->endpoint_capacity) * sizeof *grown);
    store->endpoints = grown;
    store->endpoint_capacity = capacity;
    return true;
}

/* Notes one slot if it is not as it was written. False: no room for more in this transaction. */
static bool collect_slot(struct hashtrie_store *store, size_t slot, uint64_t now_s)
{
    struct endpoint_changes *changes = &store->changes;
    const struct endpoint_stored *old = &store->endpoints[slot];
    struct trie_endpoint endpoint;
    struct endpoint_change change = {.slot = slot, .old_id = old->id};
    if (!trie_endpoint_get(store->trie, slot, &endpoint)) {
        return old->id == 0 || buf_append(&changes->list, &change, sizeof change);
    }
    change.now = (struct endpoint_stored){.id = endpoint.id,
                                          .odometer_kib = endpoint.odometer_kib,
                                          .texts_hash = texts_hash(&endpoint)};
    if (!changes->all && old->id == change.now.id && old->odometer_kib == change.now.odometer_kib &&
        old->texts_hash == change.now.texts_hash) {
        return true;
    }
    unsigned char bytes[ENDPOINT_BYTES_MAX];
    change.offset = changes->bytes.size;
    change.size = record_encode_endpoint(bytes, &endpoint, now_s);
    return buf_append(&changes->bytes, bytes, change.size) &&
           buf_append(&changes->list, &change, sizeof change);
}

void endpoints_collect(struct hashtrie_store *store)
{
    struct endpoint_changes *changes = &store->changes;
    changes->list.size = 0;
    changes->bytes.size = 0;
    changes->all = !store->endpoints_known;
    uint64_t now_s = clock_unix_ns() / CLOCK_NS_PER_S;
    bool more = true;
    for (size_t slot = 0; more;) {
        hashtrie_lock(store->trie);
        size_t count = trie_endpoint_slot_count(store->trie);
        changes->next_id = trie_endpoint_next_id(store->trie);
        bool room = slots_reserve(store, count);
        for (int i = 0; i < SLOTS_PER_HOLD && slot < count && room; i++, slot++) {
            room = collect_slot(store, slot, now_s);
        }
        more = slot < count && room;
        hashtrie_unlock(store->trie);
    }
}

bool endpoints_changed(const struct hashtrie_store *store)
{
    return store->changes.list.size > 0 || store->changes.all;
}

/* ---- Writing them ---- */

static enum hashtrie_status write_change(struct hashtrie_store *store, MDB_txn *txn,
                                         const struct endpoint_change *change)
{
    MDB_dbi dbi = store->env.dbi[DB_ENDPOINTS];
    unsigned char name[ENDPOINT_KEY_SIZE];
    MDB_val key = env_val(name, sizeof name);
    if (change->old_id != 0 && change->old_id != change->now.id) {
        record_put_u32(name, change->old_id);
        enum hashtrie_status status = env_status(mdb_del(txn, dbi, &key, NULL));
        if (status != HASHTRIE_OK && status != HASHTRIE_ENOENT) {
            return status;
        }
    }
    if (change->now.id == 0) {
        return HASHTRIE_OK;
    }
    record_put_u32(name, change->now.id);
    MDB_val value = env_val(store->changes.bytes.data + change->offset, change->size);
    return env_status(mdb_put(txn, dbi, &key, &value, 0));
}

static struct endpoint_change change_at(const struct endpoint_changes *changes, size_t offset)
{
    struct endpoint_change change;
    memcpy(&change, changes->list.data + offset, sizeof change);
    return change;
}

enum hashtrie_status endpoints_write(struct hashtrie_store *store, MDB_txn *txn)
{
    const struct endpoint_changes *changes = &store->changes;
    enum hashtrie_status status = HASHTRIE_OK;
    if (changes->all) {
        status = env_status(mdb_drop(txn, store->env.dbi[DB_ENDPOINTS], 0));
    }
    for (size_t at = 0; at < changes->list.size && status == HASHTRIE_OK;
         at += sizeof(struct endpoint_change)) {
        struct endpoint_change change = change_at(changes, at);
        status = write_change(store, txn, &change);
    }
    return status;
}

void endpoints_committed(struct hashtrie_store *store)
{
    struct endpoint_changes *changes = &store->changes;
    for (size_t at = 0; at < changes->list.size; at += sizeof(struct endpoint_change)) {
        struct endpoint_change change = change_at(changes, at);
        CHECK(change.slot < store->endpoint_capacity);
        store->endpoints[change.slot] = change.now;
    }
    changes->list.size = 0;
    changes->bytes.size = 0;
    changes->all = false;
    store->endpoints_known = true;
}

void endpoints_forget(struct hashtrie_store *store)
{
    if (store->endpoints != NULL) {
        memset(store->endpoints, 0, store->endpoint_capacity * sizeof *store->endpoints);
    }
    store->endpoints_known = false;
}
