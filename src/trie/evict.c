/*
 * Eviction: least recently used leaf first, in bounded steps. Clean leaves are dropped, the store
 * has them; dirty ones are passed over, and only where the budget leaves no choice is one dropped
 * unsaved.
 */
#include "trie/internal.h"

size_t evict_bytes_held(const struct hashtrie *trie)
{
    return trie->mem.bytes_used - cells_spare_bytes(&trie->cells);
}

static bool is_unsaved(const struct node *node)
{
    return node_is_dirty(node) || node->batch_pos != NODE_BATCH_NONE;
}

static void drop(struct hashtrie *trie, uint32_t index)
{
    const struct node *node = node_at(trie, index);
    trie->evicted_count++;
    if (trie->attached && node->length > 0) {
        if (is_unsaved(node)) {
            trie->dropped_count++;
        } else {
            trie->spilled_count++;
        }
    }
    nodes_remove_leaf(trie, index);
}

/* The path at hand is in use. At the tail, its nodes would hide the leaves that may go. */
static void path_to_front(struct hashtrie *trie)
{
    uint32_t index = trie->pinned;
    while (index != NODE_ROOT) { /* Deepest first: no child may be nearer the head. */
        lru_remove(trie, index);
        lru_push_front(trie, index);
        index = node_at(trie, index)->parent;
    }
}

/* One leaf from the LRU list's tail. `forced`: a dirty one if no clean one is near. False: nothing
 * could go. */
static bool evict_one(struct hashtrie *trie, bool forced)
{
    if (trie->lru_tail != NODE_NONE && trie->lru_tail == trie->pinned) {
        path_to_front(trie);
    }
    uint32_t dirty_leaf = NODE_NONE;
    uint32_t index = trie->lru_tail;
    for (int i = 0; i < EVICT_SCAN_MAX && index != NODE_NONE; i++) {
        const struct node *node = node_at(trie, index);
        if (node->child_count == 0 && index != trie->pinned) {
            if (!is_unsaved(node)) {
                drop(trie, index);
                return true;
            }
            dirty_leaf = dirty_leaf == NODE_NONE ? index : dirty_leaf;
        }
        index = node->lru_prev;
    }
    if (dirty_leaf != NODE_NONE && trie->wake != NULL) {
        trie->wake(trie->wake_user);
    }
    if (!forced || dirty_leaf == NODE_NONE) {
        return false;
    }
    drop(trie, dirty_leaf);
    return true;
}

uint32_t evict_take_cell(struct hashtrie *trie, int *evictions)
{
    uint32_t index = cells_take(&trie->cells, &trie->mem);
    while (index == NODE_NONE && *evictions > 0 && evict_one(trie, true)) {
        (*evictions)--;
        index = cells_take(&trie->cells, &trie->mem);
    }
    return index;
}

uint32_t evict_take_half(struct hashtrie *trie, int *evictions)
{
    uint32_t half = cells_take_half(&trie->cells, &trie->mem);
    while (half == NODE_NONE && *evictions > 0 && evict_one(trie, true)) {
        (*evictions)--;
        half = cells_take_half(&trie->cells, &trie->mem);
    }
    return half;
}

void evict_slice(struct hashtrie *trie)
{
    if (evict_bytes_held(trie) > trie->threshold_bytes) {
        trie->evicting = true;
    }
    for (int i = 0; i < EVICT_SLICE_NODES && trie->evicting; i++) {
        if (evict_bytes_held(trie) <= trie->target_bytes) {
            trie->evicting = false;
        } else if (!evict_one(trie, false)) {
            break;
        }
    }
}

bool hashtrie_evict_step(struct hashtrie *trie)
{
    uint64_t before = trie->evicted_count;
    trie->pinned = NODE_NONE;
    evict_slice(trie);
    return trie->evicting && trie->evicted_count > before;
}
