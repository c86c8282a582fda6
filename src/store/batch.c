/*
 * One batch in one write transaction, in key order: for each entry the edge is looked up first, and
 * what is found decides.
 *
 *     state alone   found, same end             new state, age moved
 *                   absent, or another end      GONE: the trie writes it in full next time
 *     first write   absent                      new row
 *                   found                       CONFLICT: nothing is written, the trie merges both
 *     structure     absent                      new row
 *                   found, same run             new state
 *                   found, another run          new row, the old one is deleted
 *
 * A record that cannot be read counts as absent, and what is left of it is deleted. Time never goes
 * down: the later of two buckets is kept.
 */
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"

enum {
    DELETES_PER_ROW = 4,   /* By the cap, for each row inserted. */
    ENFORCE_EVERY_ROWS = 8 /* How often the limit is looked at. */
};

static int compare_keys(const void *left, const void *right)
{
    const struct write_order *a = left;
    const struct write_order *b = right;
    if (a->prefix != b->prefix) {
        return a->prefix < b->prefix ? -1 : 1;
    }
    if (a->fp != b->fp) {
        return a->fp < b->fp ? -1 : 1;
    }
    return (a->index > b->index) -
           (a->index < b->index); /* What was taken later is written last. */
}

static size_t align_up(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/*
 * A copy of a stored row for the trie to merge, in the store's own bytes. False: no room for it in
 * this batch; the entry stays FAILED and comes first in the next one.
 */
static bool keep_found(struct write *write, const struct trie_record *record,
                       struct trie_entry *entry)
{
    struct hashtrie_store *store = write->store;
    uint32_t holder_count = record->holder_count == TRIE_HELD_BY_ALL ? 0 : record->holder_count;
    size_t run_size = align_up(record->length * sizeof(uint32_t));
    size_t holders_size = align_up(holder_count * sizeof(struct trie_stored_holder));
    size_t size = sizeof *record + run_size + holders_size;
    if (size > store->found_bytes_max - write->found_used) {
        return false;
    }
    unsigned char *to = store->found_bytes + write->found_used;
    struct trie_record *copy = (void *)to;
    uint32_t *run = (void *)(to + sizeof *copy);
    struct trie_stored_holder *holders = (void *)(to + sizeof *copy + run_size);
    *copy = *record;
    copy->run = memcpy(run, record->run, record->length * sizeof *run);
    if (holder_count > 0) {
        memcpy(holders, record->holders, holder_count * sizeof *holders);
    }
    copy->holders = holders;
    write->found_used += size;
    entry->found = copy;
    entry->outcome = TRIE_CONFLICT;
    return true;
}

static enum hashtrie_status insert_row(struct write *write, struct trie_entry *entry,
                                       uint32_t bucket)
{
    struct trie_record record = entry->record;
    record.bucket = bucket;
    enum hashtrie_status status = row_put(&write->store->env, write->txn, write->next_row, &record);
    if (status == HASHTRIE_OK) {
        write->next_row++;
        write->inserted++;
        write->delete_quota += DELETES_PER_ROW;
        write->chunks += record.length;
        entry->outcome = TRIE_WRITTEN;
    }
    return status;
}

/* What is under the key cannot be read: it goes as far as it can be found. */
static enum hashtrie_status replace_damaged(struct write *write, struct trie_entry *entry,
                                            const struct row *row)
{
    write->corrupt++;
    write->chunks = count_less(write->chunks, row->record.length);
    enum hashtrie_status status = row_delete(&write->store->env, write->txn, row->number,
                                             row->record.length > 0 ? &row->record : NULL);
    return status == HASHTRIE_OK ? insert_row(write, entry, entry->record.bucket) : status;
}

static enum hashtrie_status write_state(struct write *write, struct trie_entry *entry,
                                        const struct row *row)
{
    struct trie_record record = entry->record;
    record.bucket = record.bucket > row->record.bucket ? record.bucket : row->record.bucket;
    enum hashtrie_status status = row_put_state(&write->store->env, write->txn, row, &record);
    if (status == HASHTRIE_OK) {
        write->delete_quota++; /* Holders take room too. */
        write->touched++;
        entry->outcome = TRIE_WRITTEN;
    }
    return status;
}

/* An entry with structure whose key is in the store, readable. */
static enum hashtrie_status write_over(struct write *write, struct trie_entry *entry,
                                       struct row *row, const uint32_t *run)
{
    const struct trie_record *record = &entry->record;
    if (entry->first_write) {
        (void)keep_found(write, &row->record, entry);
        write->incomplete++;
        return HASHTRIE_OK;
    }
    if (row->record.end == record->end && row->record.length == record->length &&
        memcmp(run, record->run, record->length * sizeof *run) == 0) {
        return write_state(write, entry, row);
    }
    enum hashtrie_status status =
        row_delete(&write->store->env, write->txn, row->number, &row->record);
    if (status != HASHTRIE_OK) {
        return status;
    }
    write->chunks = count_less(write->chunks, row->record.length);
    uint32_t bucket = record->bucket > row->record.bucket ? record->bucket : row->record.bucket;
    return insert_row(write, entry, bucket);
}

static enum hashtrie_status write_structure(struct write *write, struct trie_entry *entry)
{
    const struct env *env = &write->store->env;
    const struct trie_record *record = &entry->record;
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    struct row row = {0};
    enum hashtrie_status status =
        row_find(env, write->txn, record->prefix, record->fp, holders, &row);
    if (status == HASHTRIE_OK) {
        bool same_depth = row.record.depth == record->depth;
        status = same_depth ? row_read_run(env, write->txn, &row, run) : HASHTRIE_ECORRUPT;
    }
    switch ((int)status) {
    case HASHTRIE_OK:
        return write_over(write, entry, &row, run);
    case HASHTRIE_ENOENT:
        return insert_row(write, entry, record->bucket);
    case HASHTRIE_ECORRUPT:
        return replace_damaged(write, entry, &row);
    default:
        return status;
    }
}

static enum hashtrie_status write_state_alone(struct write *write, struct trie_entry *entry)
{
    const struct trie_record *record = &entry->record;
    struct row row = {0};
    enum hashtrie_status status =
        row_find(&write->store->env, write->txn, record->prefix, record->fp, NULL, &row);
    if (status == HASHTRIE_OK && row.record.end == record->end &&
        row.record.depth == record->depth) {
        return write_state(write, entry, &row);
    }
    if (status == HASHTRIE_OK || status == HASHTRIE_ENOENT || status == HASHTRIE_ECORRUPT) {
        entry->outcome = TRIE_GONE;
        write->incomplete++;
        return HASHTRIE_OK;
    }
    return status;
}

/* Entries by key; bits of the filter are set before anything is committed. */
static void order_entries(struct hashtrie_store *store)
{
    for (size_t i = 0; i < store->batch.count; i++) {
        const struct trie_record *record = &store->batch.entries[i].record;
        store->order[i] =
            (struct write_order){.prefix = record->prefix, .fp = record->fp, .index = (uint32_t)i};
        filter_add(&store->filter, record->prefix, record->fp);
        filter_add(&store->filter_next, record->prefix, record->fp);
    }
    qsort(store->order, store->batch.count, sizeof *store->order, compare_keys);
}

enum hashtrie_status batch_write(struct write *write)
{
    struct hashtrie_store *store = write->store;
    order_entries(store);
    enum hashtrie_status status = row_next_number(&store->env, write->txn, &write->next_row);
    for (size_t i = 0; i < store->batch.count && status == HASHTRIE_OK; i++) {
        struct trie_entry *entry = &store->batch.entries[store->order[i].index];
        uint32_t bucket = entry->record.bucket;
        write->newest_bucket = bucket > write->newest_bucket ? bucket : write->newest_bucket;
        status = entry->structure ? write_structure(write, entry) : write_state_alone(write, entry);
        if (status == HASHTRIE_OK && i % ENFORCE_EVERY_ROWS == 0) {
            status = cap_enforce(write);
        }
    }
    return status == HASHTRIE_OK ? cap_enforce(write) : status;
}
