/* Making, splitting and removing nodes: cells, run, edges, LRU and counts change together here and
 * nowhere else. */
#include "trie/internal.h"

/* A place for a node, its contents undefined. */
static uint32_t place_take(struct hashtrie *trie)
{
    int evictions = EVICT_FORCED_NODES;
    uint32_t index = evict_take_cell(trie, &evictions);
    if (index != NODE_NONE) {
        cells_mark_node(&trie->cells, index, true);
        trie->node_count++;
    }
    return index;
}

static void place_give(struct hashtrie *trie, uint32_t index)
{
    cells_mark_node(&trie->cells, index, false);
    cells_give(&trie->cells, index);
    trie->node_count--;
}

uint32_t nodes_add_namespace(struct hashtrie *trie, uint64_t namespace_hash)
{
    uint32_t index = place_take(trie);
    if (index == NODE_NONE) {
        return NODE_NONE;
    }
    *node_at(trie, index) = (struct node){.end = namespace_hash,
                                          .run = {(uint32_t)namespace_hash},
                                          .parent = NODE_ROOT,
                                          .bucket = trie->bucket,
                                          .batch_pos = NODE_BATCH_NONE};
    edges_insert(&trie->edges, &trie->mem, index);
    node_at(trie, NODE_ROOT)->child_count++;
    lru_push_front(trie, index);
    return index;
}

uint32_t nodes_add(struct hashtrie *trie, const struct node_spec *spec)
{
    REQUIRE(spec->length > 0 && spec->length <= TRIE_RUN_LENGTH_MAX);
    REQUIRE(trie->pinned == spec->parent);
    uint32_t block = NODE_NONE;
    if (!block_take(trie, run_block_words(spec->length), &block)) {
        return NODE_NONE;
    }
    uint32_t index = place_take(trie);
    if (index == NODE_NONE) {
        block_give(&trie->cells, block, run_block_words(spec->length));
        return NODE_NONE;
    }
    struct node *parent = node_at(trie, spec->parent);
    struct node *node = node_at(trie, index);
    *node = (struct node){.end = spec->end,
                          .parent = spec->parent,
                          .bucket = trie->bucket,
                          .batch_pos = NODE_BATCH_NONE};
    node_set_depth(node, node_depth_end(parent));
    run_write(&trie->cells, node, block, spec->run, spec->length);
    edges_insert(&trie->edges, &trie->mem, index);
    parent->child_count++;
    lru_insert_after(trie, spec->parent, index);
    trie->chunk_count += spec->length;
    return index;
}

/* Everything a split needs, taken before anything changes. */
struct split_parts {
    uint32_t upper;
    uint32_t upper_block;
    uint32_t lower_block;
};

static bool split_prepare(struct hashtrie *trie, struct node *lower, uint32_t length,
                          struct split_parts *parts)
{
    uint32_t upper_words = run_block_words(length);
    uint32_t lower_words = run_block_words(lower->length - length);
    if (!block_take(trie, upper_words, &parts->upper_block)) {
        return false;
    }
    if (!block_take(trie, lower_words, &parts->lower_block)) {
        goto fail_upper_block;
    }
    parts->upper = place_take(trie);
    if (parts->upper == NODE_NONE) {
        goto fail_lower_block;
    }
    struct node *upper = node_at(trie, parts->upper);
    *upper = (struct node){.bucket = lower->bucket, .batch_pos = NODE_BATCH_NONE};
    if (!holders_copy(trie, upper, lower)) {
        goto fail_place;
    }
    return true;
fail_place:
    place_give(trie, parts->upper);
fail_lower_block:
    block_give(&trie->cells, parts->lower_block, lower_words);
fail_upper_block:
    block_give(&trie->cells, parts->upper_block, upper_words);
    return false;
}

uint32_t nodes_split(struct hashtrie *trie, uint32_t index, uint32_t length, uint64_t end)
{
    struct node *lower = node_at(trie, index);
    REQUIRE(length > 0 && length < lower->length);
    REQUIRE(trie->pinned == index);
    struct split_parts parts;
    if (!split_prepare(trie, lower, length, &parts)) {
        return NODE_NONE;
    }
    struct node *upper = node_at(trie, parts.upper);
    if (node_is_dirty(lower)) {
        trie->dirty_bytes -= dirty_node_bytes(lower);
    }
    edges_remove(&trie->edges, index);

    uint32_t run[TRIE_RUN_LENGTH_MAX];
    run_read(&trie->cells, lower, run);
    uint32_t lower_length = lower->length - length;
    run_give(&trie->cells, lower);
    run_write(&trie->cells, upper, parts.upper_block, (struct run_source){.fps = run}, length);
    run_write(&trie->cells, lower, parts.lower_block, (struct run_source){.fps = run + length},
              lower_length);

    upper->end = end;
    upper->depth = lower->depth;
    upper->parent = lower->parent;
    upper->child_count = 1;
    node_set_depth(lower, lower->depth + length);
    lower->parent = parts.upper;
    edges_insert(&trie->edges, &trie->mem, parts.upper);
    edges_insert(&trie->edges, &trie->mem, index);
    lru_insert_before(trie, index, parts.upper);
    if (node_is_dirty(lower)) {
        trie->dirty_bytes += dirty_node_bytes(lower);
    }
    dirty_split(trie, index, parts.upper);
    return parts.upper;
}

void nodes_remove_leaf(struct hashtrie *trie, uint32_t index)
{
    struct node *node = node_at(trie, index);
    REQUIRE(node->child_count == 0 && index != NODE_ROOT);
    dirty_forget(trie, index);
    edges_remove(&trie->edges, index);
    lru_remove(trie, index);
    node_at(trie, node->parent)->child_count--;
    trie->chunk_count -= node->length;
    run_give(&trie->cells, node);
    holders_free(trie, node);
    place_give(trie, index);
}
