/*
 * Stored nodes come back: grafted along a request's key (reload), or met by the first write of a
 * new node (conflict).
 */
#include "trie/internal.h"

/* The node that a record of that depth can hang from; NODE_NONE: the path does not end there (any
 * more), or no room. */
static uint32_t graft_place(struct hashtrie *trie, const struct hashtrie_key *key,
                            const struct trie_record *record, enum hashtrie_status *status)
{
    struct walk walk = trie_walk(trie, key);
    if (walk.collision || walk.matched != record->depth) {
        *status = HASHTRIE_ENOENT;
        return NODE_NONE;
    }
    *status = HASHTRIE_EFULL;
    trie->pinned = walk.node;
    if (walk.node == NODE_NONE) {
        return nodes_add_namespace(trie, key->namespace_hash);
    }
    if (walk.inside > 0) {
        return nodes_split(trie, walk.node, walk.inside, key->hashes[walk.matched - 1]);
    }
    return walk.node;
}

enum hashtrie_status trie_graft(struct hashtrie *trie, const struct hashtrie_key *key,
                                const struct trie_record *record)
{
    REQUIRE(record->depth < key->count);
    REQUIRE(record->prefix == key_hash_before(key, record->depth));
    REQUIRE(record->fp == (uint32_t)key->hashes[record->depth]);
    REQUIRE(record->length > 0 && record->length <= TRIE_RUN_LENGTH_MAX);
    if (record->length > HASHTRIE_CHUNK_COUNT_MAX - record->depth) {
        return HASHTRIE_ECORRUPT;
    }
    enum hashtrie_status status = HASHTRIE_OK;
    trie->pinned = graft_place(trie, key, record, &status);
    if (trie->pinned == NODE_NONE) {
        return status;
    }
    struct node_spec spec = {.parent = trie->pinned,
                             .end = record->end,
                             .length = record->length,
                             .run = {.fps = record->run}};
    uint32_t index = nodes_add(trie, &spec);
    if (index == NODE_NONE) {
        trie->pinned = NODE_NONE;
        return HASHTRIE_EFULL;
    }
    trie->pinned = index;
    struct node *node = node_at(trie, index);
    node->bucket = record->bucket < trie->bucket ? record->bucket : trie->bucket;
    bool failed = false;
    (void)holders_load(trie, node, record, &failed); /* What found no room is a hint less. */
    trie->reloaded_count++;
    evict_slice(trie);
    trie->pinned = NODE_NONE;
    return HASHTRIE_OK;
}

/* ---- Conflict: N, the hot node, and E, the stored record, have one key ---- */

/* N stays as it is, E's holders or not; it is written in full over E. */
static void overwrite(struct hashtrie *trie, uint32_t index)
{
    dirty_requeue_front(trie, index, NODE_STRUCT | NODE_STATE);
    node_clear_flags(node_at(trie, index), NODE_NEW);
}

/* E is a prefix of N: N is split there, the upper half is E. */
static void merge_shorter(struct hashtrie *trie, uint32_t index, const struct trie_record *found)
{
    dirty_requeue_front(trie, index, NODE_STRUCT | NODE_STATE); /* And the upper half behind it. */
    uint32_t upper_index = nodes_split(trie, index, found->length, found->end);
    if (upper_index == NODE_NONE) {
        trie->conflict_count++;
        overwrite(trie, index);
        return;
    }
    struct node *upper = node_at(trie, upper_index);
    bool failed = false;
    (void)holders_load(trie, upper, found, &failed);
    node_clear_flags(upper, NODE_NEW | NODE_STRUCT); /* Stored as it is, but for its holders. */
}

/* N is a prefix of E: E's rest becomes a child of N and is written before N, so that nothing of E
 * is ever missing. */
static void merge_longer(struct hashtrie *trie, uint32_t index, const struct trie_record *found)
{
    struct node *node = node_at(trie, index);
    uint32_t length = node->length;
    bool failed = false;
    (void)holders_load(trie, node, found, &failed);
    overwrite(trie, index);
    bool taken = edges_find(&trie->edges, index, found->run[length]) != NODE_NONE;
    struct node_spec spec = {.parent = index,
                             .end = found->end,
                             .length = found->length - length,
                             .run = {.fps = found->run + length}};
    uint32_t rest = taken ? NODE_NONE : nodes_add(trie, &spec);
    if (rest == NODE_NONE) {
        trie->conflict_count++;
        return;
    }
    trie->pinned = rest;
    node = node_at(trie, rest);
    node->bucket = found->bucket < trie->bucket ? found->bucket : trie->bucket;
    (void)holders_load(trie, node, found, &failed);
    dirty_requeue_front(trie, rest, NODE_NEW | NODE_STRUCT | NODE_STATE);
}

void graft_conflict(struct hashtrie *trie, uint32_t index, const struct trie_record *found)
{
    REQUIRE(found != NULL && found->length > 0 && found->length <= TRIE_RUN_LENGTH_MAX);
    trie->pinned = index;
    struct node *node = node_at(trie, index);
    uint32_t length = node->length < found->length ? node->length : found->length;
    uint32_t shared =
        run_common(&trie->cells, node, (struct run_source){.fps = found->run}, length);
    bool failed = false;
    if (shared == node->length && shared == found->length && node->end == found->end) {
        (void)holders_load(trie, node, found, &failed);
        dirty_requeue_front(trie, index, NODE_STATE);
        node_clear_flags(node, NODE_NEW | NODE_STRUCT);
    } else if (shared == found->length && shared < node->length) {
        merge_shorter(trie, index, found);
    } else if (shared == node->length && shared < found->length) {
        merge_longer(trie, index, found);
    } else {
        trie->conflict_count++;
        overwrite(trie, index);
    }
    trie->pinned = NODE_NONE;
}
