/*
 * The dirty queue and the batch in flight.
 *
 * Order rule: where a stored run was split, its lower half must reach the store no later than its
 * upper half, or the store would hold a shortened run without its tail. So the upper half is queued
 * directly behind the lower one, and if the lower one is not queued, both go to the front.
 */
#include "trie/internal.h"

size_t dirty_node_bytes(const struct node *node)
{
    return sizeof *node + node->length * sizeof(uint32_t);
}

static void queue_between(struct hashtrie *trie, uint32_t prev, uint32_t index, uint32_t next)
{
    struct node *node = node_at(trie, index);
    node->dirty_prev = prev;
    node->dirty_next = next;
    if (prev != NODE_NONE) {
        node_at(trie, prev)->dirty_next = index;
    } else {
        trie->dirty_head = index;
    }
    if (next != NODE_NONE) {
        node_at(trie, next)->dirty_prev = index;
    } else {
        trie->dirty_tail = index;
    }
    trie->dirty_count++;
    trie->dirty_bytes += dirty_node_bytes(node);
}

static void queue_remove(struct hashtrie *trie, uint32_t index)
{
    struct node *node = node_at(trie, index);
    if (node->dirty_prev != NODE_NONE) {
        node_at(trie, node->dirty_prev)->dirty_next = node->dirty_next;
    } else {
        trie->dirty_head = node->dirty_next;
    }
    if (node->dirty_next != NODE_NONE) {
        node_at(trie, node->dirty_next)->dirty_prev = node->dirty_prev;
    } else {
        trie->dirty_tail = node->dirty_prev;
    }
    trie->dirty_count--;
    trie->dirty_bytes -= dirty_node_bytes(node);
}

/* Ahead of what was queued before: a mark made earlier has that much more to wait for. */
static void queue_front(struct hashtrie *trie, uint32_t index)
{
    queue_between(trie, NODE_NONE, index, trie->dirty_head);
    trie->dirty_progress--;
}

void dirty_mark(struct hashtrie *trie, uint32_t index, uint32_t flags)
{
    struct node *node = node_at(trie, index);
    if (!trie->attached || node->length == 0 || (flags & (NODE_STRUCT | NODE_STATE)) == 0) {
        return;
    }
    bool queued = node_is_dirty(node);
    node_set_flags(node, flags);
    if (!queued) {
        queue_between(trie, trie->dirty_tail, index, NODE_NONE);
        if (trie->wake != NULL && trie_checkpoint_due(trie)) {
            trie->wake(trie->wake_user);
        }
    }
}

void dirty_split(struct hashtrie *trie, uint32_t lower_index, uint32_t upper_index)
{
    if (!trie->attached) {
        return;
    }
    struct node *lower = node_at(trie, lower_index);
    struct node *upper = node_at(trie, upper_index);
    bool queued = node_is_dirty(lower);
    if (queued && lower->batch_pos != NODE_BATCH_NONE) {
        /* Used again since it was taken: it waits behind what came later, and would so even if the
         * batch failed. */
        queue_remove(trie, lower_index);
        queued = false;
    }
    node_set_flags(upper, (lower->flags & NODE_NEW) | NODE_STRUCT | NODE_STATE);
    node_set_flags(lower, NODE_STRUCT | NODE_STATE);
    if (queued) {
        queue_between(trie, lower_index, upper_index, lower->dirty_next);
        trie->dirty_progress--;
    } else {
        queue_front(trie, upper_index);
        queue_front(trie, lower_index);
    }
}

void dirty_requeue_front(struct hashtrie *trie, uint32_t index, uint32_t flags)
{
    struct node *node = node_at(trie, index);
    if (node_is_dirty(node)) {
        queue_remove(trie, index);
    }
    node_set_flags(node, flags);
    queue_front(trie, index);
}

void dirty_forget(struct hashtrie *trie, uint32_t index)
{
    struct node *node = node_at(trie, index);
    if (node_is_dirty(node)) {
        queue_remove(trie, index);
        node_clear_flags(node, NODE_STRUCT | NODE_STATE);
    }
    if (node->batch_pos != NODE_BATCH_NONE) {
        trie->batch->entries[node->batch_pos].node = NODE_NONE;
        node->batch_pos = NODE_BATCH_NONE;
    }
}

size_t trie_dirty_count(const struct hashtrie *trie)
{
    return trie->dirty_count;
}

bool trie_checkpoint_due(const struct hashtrie *trie)
{
    return trie->dirty_bytes > (trie->mem.bytes_limit - trie->threshold_bytes) / 2;
}

uint64_t trie_dirty_mark(struct hashtrie *trie)
{
    return (uint64_t)(trie->dirty_progress + (int64_t)trie->dirty_count);
}

size_t trie_dirty_left(const struct hashtrie *trie, uint64_t mark)
{
    int64_t left = (int64_t)mark - trie->dirty_progress;
    return left > 0 ? (size_t)left : 0;
}

bool trie_dirty_done(const struct hashtrie *trie, uint64_t mark)
{
    return trie->dirty_count == 0 || trie->dirty_progress >= (int64_t)mark;
}

/* ---- The batch ---- */

enum hashtrie_status trie_batch_init(struct trie_batch *batch, struct mem *mem, size_t bytes_max)
{
    REQUIRE(bytes_max >= (size_t)64 * 1024);
    *batch = (struct trie_batch){.mem = mem, .bytes_max = bytes_max};
    batch->entries = mem_alloc(mem, TRIE_BATCH_NODES_MAX * sizeof *batch->entries);
    batch->bytes = mem_alloc(mem, bytes_max);
    if (batch->entries == NULL || batch->bytes == NULL) {
        trie_batch_fini(batch);
        return HASHTRIE_ENOMEM;
    }
    return HASHTRIE_OK;
}

void trie_batch_fini(struct trie_batch *batch)
{
    REQUIRE(batch->count == 0);
    mem_free(batch->mem, batch->entries, TRIE_BATCH_NODES_MAX * sizeof *batch->entries);
    mem_free(batch->mem, batch->bytes, batch->bytes_max);
    *batch = (struct trie_batch){.mem = batch->mem};
}

/* Copies run and live holders into the batch's bytes; false: no room. */
static bool copy_record(const struct hashtrie *trie, struct node *node, struct trie_batch *batch,
                        struct trie_record *record)
{
    size_t run_size = node->length * sizeof(uint32_t);
    size_t holders_max = node->holder_count == TRIE_HELD_BY_ALL ? 0 : node->holder_count;
    size_t needed = run_size + holders_max * sizeof(struct trie_stored_holder);
    if (needed > batch->bytes_max - batch->bytes_used) {
        return false;
    }
    uint32_t *run = (void *)(batch->bytes + batch->bytes_used);
    run_read(&trie->cells, node, run);
    struct trie_stored_holder *holders = (void *)(batch->bytes + batch->bytes_used + run_size);
    *record = (struct trie_record){.prefix = node_at(trie, node->parent)->end,
                                   .end = node->end,
                                   .fp = run[0],
                                   .depth = node->depth,
                                   .length = node->length,
                                   .bucket = node->bucket,
                                   .run = run,
                                   .holders = holders,
                                   .holder_count = TRIE_HELD_BY_ALL};
    if (node->holder_count != TRIE_HELD_BY_ALL) {
        record->holder_count = (uint32_t)holders_store(trie, node, holders);
    }
    batch->bytes_used += needed;
    return true;
}

size_t trie_batch_take(struct hashtrie *trie, struct trie_batch *batch, size_t count_max)
{
    REQUIRE(trie->batch == NULL || trie->batch == batch);
    REQUIRE(count_max <= TRIE_BATCH_NODES_MAX);
    size_t taken = 0;
    while (taken < TRIE_TAKE_NODES_PER_CALL && batch->count < count_max &&
           trie->dirty_head != NODE_NONE) {
        uint32_t index = trie->dirty_head;
        struct node *node = node_at(trie, index);
        struct trie_entry *entry = &batch->entries[batch->count];
        if (node->batch_pos != NODE_BATCH_NONE || !copy_record(trie, node, batch, &entry->record)) {
            break; /* Dirtied again since it was taken: the next batch has it. */
        }
        entry->structure = (node->flags & NODE_STRUCT) != 0;
        entry->first_write = (node->flags & NODE_NEW) != 0;
        entry->outcome = TRIE_FAILED;
        entry->found = NULL;
        entry->node = index;
        queue_remove(trie, index);
        node_clear_flags(node, NODE_STRUCT | NODE_STATE);
        node_set_batch_pos(node, batch->count);
        batch->count++;
        taken++;
        trie->dirty_progress++;
        trie->batch = batch;
    }
    return taken;
}

static bool has_key(const struct hashtrie *trie, const struct node *node,
                    const struct trie_record *record)
{
    return node_at(trie, node->parent)->end == record->prefix && node_fp(node) == record->fp;
}

/*
 * An entry that was not written goes to the queue's front. Where its run was split meanwhile, all
 * its parts do, the lower before the upper: other entries of the batch, upper halves of the whole
 * run perhaps, come back behind it and must not be written before any of it.
 */
static void requeue_entry(struct hashtrie *trie, const struct trie_entry *entry, uint32_t flags)
{
    uint32_t lower = entry->node;
    dirty_requeue_front(trie, lower, flags);
    while (node_at(trie, lower)->depth > entry->record.depth) {
        uint32_t upper = node_at(trie, lower)->parent;
        struct node *node = node_at(trie, upper);
        if (node_is_dirty(node)) {
            queue_remove(trie, upper);
        }
        node_set_flags(node, NODE_STRUCT | NODE_STATE);
        queue_between(trie, lower, upper, node_at(trie, lower)->dirty_next);
        trie->dirty_progress--;
        lower = upper;
    }
}

static void release_entry(struct hashtrie *trie, const struct trie_entry *entry)
{
    if (entry->node == NODE_NONE) {
        return; /* Evicted meanwhile. */
    }
    struct node *node = node_at(trie, entry->node);
    node->batch_pos = NODE_BATCH_NONE;
    bool same_key = has_key(trie, node, &entry->record);
    switch (entry->outcome) {
    case TRIE_WRITTEN:
        if (same_key) {
            node_clear_flags(node, NODE_NEW);
        }
        break;
    case TRIE_FAILED:
        requeue_entry(trie, entry, entry->structure ? NODE_STRUCT | NODE_STATE : NODE_STATE);
        break;
    case TRIE_GONE:
        requeue_entry(trie, entry, NODE_NEW | NODE_STRUCT | NODE_STATE);
        break;
    case TRIE_CONFLICT:
        if (same_key) {
            graft_conflict(trie, entry->node, entry->found);
        } /* Else it was split: both halves are queued, and the upper one will meet the record
             again. */
        break;
    }
}

bool trie_batch_release(struct hashtrie *trie, struct trie_batch *batch)
{
    for (int i = 0; i < TRIE_TAKE_NODES_PER_CALL && batch->count > 0; i++) {
        const struct trie_entry *entry = &batch->entries[batch->count - 1];
        release_entry(trie, entry);
        batch->count--;
    }
    if (batch->count == 0) {
        batch->bytes_used = 0;
        trie->batch = NULL;
    }
    return batch->count > 0;
}

/* ---- Attaching ---- */

void trie_attach(struct hashtrie *trie, trie_wake *wake, void *user, uint32_t newest_bucket,
                 uint32_t next_endpoint_id)
{
    REQUIRE(trie->batch == NULL);
    while (trie->dirty_head != NODE_NONE) { /* What another store was to be told. */
        uint32_t index = trie->dirty_head;
        queue_remove(trie, index);
        node_clear_flags(node_at(trie, index), NODE_STRUCT | NODE_STATE);
    }
    trie->attached = wake != NULL;
    trie->wake = wake;
    trie->wake_user = user;
    if (wake != NULL) {
        trie_follow(trie, newest_bucket, next_endpoint_id);
    }
}

void trie_follow(struct hashtrie *trie, uint32_t newest_bucket, uint32_t next_endpoint_id)
{
    trie->bucket = newest_bucket > trie->bucket ? newest_bucket : trie->bucket;
    trie->next_endpoint_id =
        next_endpoint_id > trie->next_endpoint_id ? next_endpoint_id : trie->next_endpoint_id;
}

bool trie_mark_unsaved(struct hashtrie *trie, uint32_t *cursor)
{
    enum { CELLS_PER_CALL = 1024 };
    for (int i = 0; i < CELLS_PER_CALL && *cursor < trie->cells.count; i++, (*cursor)++) {
        struct node *node = cells_find_node(&trie->cells, *cursor);
        if (node != NULL && node->length > 0) {
            dirty_mark(trie, *cursor, NODE_NEW | NODE_STRUCT | NODE_STATE);
        }
    }
    return *cursor < trie->cells.count;
}
