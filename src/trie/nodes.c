/* Making, splitting and removing nodes: slab, run, edges, LRU and counts change together here and
 * nowhere else. */
#include <string.h>

#include "trie/internal.h"

static size_t run_bytes(uint32_t length)
{
    return length * sizeof(uint32_t);
}

static bool run_alloc(struct hashtrie *trie, uint32_t length, uint32_t **out)
{
    *out = NULL;
    if (length > NODE_RUN_INLINE) {
        *out = evict_alloc(trie, run_bytes(length));
    }
    return length <= NODE_RUN_INLINE || *out != NULL;
}

static void run_free(struct hashtrie *trie, struct node *node)
{
    if (node->length > NODE_RUN_INLINE) {
        mem_free(&trie->mem, node->run.many, run_bytes(node->length));
    }
}

/* Makes `array` (or, for few, the node) hold `length` fingerprints from `from`, which may be the
 * node's own. */
static void run_set(struct node *node, uint32_t *array, const uint32_t *from, uint32_t length)
{
    if (array != NULL) {
        memcpy(array, from, run_bytes(length));
        node->run.many = array;
    } else {
        memmove(node->run.few, from, run_bytes(length));
    }
    node_set_length(node, length);
}

uint32_t nodes_add_namespace(struct hashtrie *trie, uint64_t namespace_hash)
{
    uint32_t index = evict_alloc_node(trie);
    if (index == NODE_NONE) {
        return NODE_NONE;
    }
    *node_at(trie, index) = (struct node){.end = namespace_hash,
                                          .parent = NODE_ROOT,
                                          .bucket = trie->bucket,
                                          .batch_pos = NODE_BATCH_NONE};
    edges_insert(&trie->edges, &trie->slab, &trie->mem, index);
    node_at(trie, NODE_ROOT)->child_count++;
    lru_push_front(trie, index);
    return index;
}

static void fill_run(uint32_t *to, const struct node_spec *spec)
{
    if (spec->fingerprints != NULL) {
        memcpy(to, spec->fingerprints, run_bytes(spec->length));
        return;
    }
    for (uint32_t i = 0; i < spec->length; i++) {
        to[i] = (uint32_t)spec->hashes[i];
    }
}

uint32_t nodes_add(struct hashtrie *trie, const struct node_spec *spec)
{
    REQUIRE(spec->length > 0 && spec->length <= TRIE_RUN_LENGTH_MAX);
    REQUIRE(trie->pinned == spec->parent);
    uint32_t *array = NULL;
    if (!run_alloc(trie, spec->length, &array)) {
        return NODE_NONE;
    }
    uint32_t index = evict_alloc_node(trie);
    if (index == NODE_NONE) {
        mem_free(&trie->mem, array, run_bytes(spec->length));
        return NODE_NONE;
    }
    struct node *parent = node_at(trie, spec->parent);
    struct node *node = node_at(trie, index);
    *node = (struct node){.end = spec->end,
                          .parent = spec->parent,
                          .bucket = trie->bucket,
                          .batch_pos = NODE_BATCH_NONE};
    node_set_depth(node, node_depth_end(parent));
    node_set_length(node, spec->length);
    if (array != NULL) {
        node->run.many = array;
    }
    fill_run(array != NULL ? array : node->run.few, spec);
    edges_insert(&trie->edges, &trie->slab, &trie->mem, index);
    parent->child_count++;
    lru_insert_after(trie, spec->parent, index);
    trie->chunk_count += spec->length;
    return index;
}

/* Everything a split needs, taken before anything changes. */
struct split_parts {
    uint32_t upper;
    uint32_t *upper_run; /* NULL: lies in the node. */
    uint32_t *lower_run;
};

static bool split_prepare(struct hashtrie *trie, const struct node *lower, uint32_t length,
                          struct split_parts *parts)
{
    *parts = (struct split_parts){.upper = NODE_NONE};
    if (!run_alloc(trie, length, &parts->upper_run)) {
        return false;
    }
    if (!run_alloc(trie, lower->length - length, &parts->lower_run)) {
        goto fail_upper_run;
    }
    parts->upper = evict_alloc_node(trie);
    if (parts->upper == NODE_NONE) {
        goto fail_lower_run;
    }
    struct node *upper = node_at(trie, parts->upper);
    *upper = (struct node){.bucket = lower->bucket, .batch_pos = NODE_BATCH_NONE};
    if (!holders_copy(trie, upper, lower)) {
        goto fail_node;
    }
    return true;
fail_node:
    slab_free(&trie->slab, &trie->mem, parts->upper);
fail_lower_run:
    mem_free(&trie->mem, parts->lower_run, run_bytes(lower->length - length));
fail_upper_run:
    mem_free(&trie->mem, parts->upper_run, run_bytes(length));
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
    edges_remove(&trie->edges, &trie->slab, &trie->mem, index);

    uint32_t *old_run = lower->length > NODE_RUN_INLINE ? lower->run.many : NULL;
    uint32_t old_length = lower->length;
    const uint32_t *run = node_run(lower);
    run_set(upper, parts.upper_run, run, length);
    run_set(lower, parts.lower_run, run + length, old_length - length);
    mem_free(&trie->mem, old_run, run_bytes(old_length));

    upper->end = end;
    upper->depth = lower->depth;
    upper->parent = lower->parent;
    upper->child_count = 1;
    node_set_depth(lower, lower->depth + length);
    lower->parent = parts.upper;
    edges_insert(&trie->edges, &trie->slab, &trie->mem, parts.upper);
    edges_insert(&trie->edges, &trie->slab, &trie->mem, index);
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
    edges_remove(&trie->edges, &trie->slab, &trie->mem, index);
    lru_remove(trie, index);
    node_at(trie, node->parent)->child_count--;
    trie->chunk_count -= node->length;
    run_free(trie, node);
    holders_free(trie, node);
    slab_free(&trie->slab, &trie->mem, index);
}
