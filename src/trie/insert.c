/* Recording a choice: the path is made as far as it is missing, then touched from its deepest node
 * up. */
#include "trie/internal.h"

/* The missing part of the path, in runs of at most TRIE_RUN_LENGTH_MAX. False: no room for all of
 * it. */
static bool add_rest(struct hashtrie *trie, const struct hashtrie_key *key, size_t from)
{
    while (from < key->count) {
        size_t rest = key->count - from;
        size_t length = rest < TRIE_RUN_LENGTH_MAX ? rest : TRIE_RUN_LENGTH_MAX;
        struct node_spec spec = {.parent = trie->pinned,
                                 .end = key->hashes[from + length - 1],
                                 .length = (uint32_t)length,
                                 .run = {.hashes = key->hashes + from}};
        uint32_t index = nodes_add(trie, &spec);
        if (index == NODE_NONE) {
            return false;
        }
        dirty_mark(trie, index, NODE_NEW | NODE_STRUCT | NODE_STATE);
        trie->pinned = index;
        from += length;
    }
    return true;
}

/* Ends inside a run that the endpoint holds as a whole: it claims no more than it has, so no split
 * is needed. */
static bool ends_inside_own(const struct hashtrie *trie, const struct walk *walk,
                            const struct hashtrie_key *key, hashtrie_endpoint endpoint)
{
    struct node *node = node_at(trie, walk->node);
    if (walk->matched < key->count) {
        return false;
    }
    const struct holder *holder = holders_find(trie, node, endpoint);
    return node->holder_count == TRIE_HELD_BY_ALL ||
           (holder != NULL && holder_is_live(trie, node, holder));
}

/* Leaves the end of the path in trie->pinned (NODE_NONE: not even a namespace). False: no room for
 * all of it. */
static bool make_path(struct hashtrie *trie, const struct hashtrie_key *key,
                      const struct walk *walk, hashtrie_endpoint endpoint)
{
    trie->pinned = walk->node;
    if (walk->collision) {
        return true; /* Nothing may hang here; what is known above is touched. */
    }
    if (walk->node == NODE_NONE) {
        trie->pinned = nodes_add_namespace(trie, key->namespace_hash);
        if (trie->pinned == NODE_NONE) {
            return false;
        }
    } else if (walk->inside > 0 && !ends_inside_own(trie, walk, key, endpoint)) {
        uint32_t upper =
            nodes_split(trie, walk->node, walk->inside, key->hashes[walk->matched - 1]);
        if (upper == NODE_NONE) {
            trie->pinned = node_at(trie, walk->node)->parent;
            return false;
        }
        trie->pinned = upper;
    }
    return add_rest(trie, key, walk->matched);
}

/* Chunks of the key that the endpoint holds already. */
static size_t held_length(const struct hashtrie *trie, const struct hashtrie_key *key,
                          hashtrie_endpoint endpoint)
{
    for (uint32_t index = trie->pinned; index != NODE_NONE && index != NODE_ROOT;
         index = node_at(trie, index)->parent) {
        struct node *node = node_at(trie, index);
        const struct holder *holder = holders_find(trie, node, endpoint);
        if (node->holder_count == TRIE_HELD_BY_ALL ||
            (holder != NULL && holder_is_live(trie, node, holder))) {
            size_t end = node_depth_end(node);
            return end < key->count ? end : key->count;
        }
    }
    return 0;
}

/* Deepest first, so that a parent ends up nearer the head than its child. False: no memory for a
 * holder. */
static bool touch_path(struct hashtrie *trie, hashtrie_endpoint endpoint)
{
    bool complete = true;
    for (uint32_t index = trie->pinned; index != NODE_NONE && index != NODE_ROOT;) {
        struct node *node = node_at(trie, index);
        lru_remove(trie, index);
        lru_push_front(trie, index);
        if (node->length == 0) {
            node->bucket = trie->bucket;
        } else {
            int flags = holders_touch(trie, node, endpoint);
            complete = complete && flags >= 0;
            dirty_mark(trie, index, flags > 0 ? (uint32_t)flags : 0);
        }
        index = node->parent;
    }
    return complete;
}

enum hashtrie_status hashtrie_insert(struct hashtrie *trie, const struct hashtrie_key *key,
                                     hashtrie_endpoint endpoint, uint64_t now_s)
{
    REQUIRE(key->count <= HASHTRIE_CHUNK_COUNT_MAX);
    struct endpoint *receiver = endpoint_at(trie, endpoint);
    if (receiver == NULL) {
        return HASHTRIE_EINVAL;
    }
    trie_set_time(trie, now_s);
    struct walk walk = trie_walk(trie, key);
    trie->collision_count += walk.collision;
    bool complete = make_path(trie, key, &walk, endpoint);
    size_t held = held_length(trie, key, endpoint);
    endpoint_charge(receiver, (uint64_t)(key->count - held) * trie->chunk_size);
    complete = touch_path(trie, endpoint) && complete;
    recent_measure(trie, receiver);
    evict_slice(trie);
    trie->pinned = NODE_NONE;
    if (!complete) {
        trie->unrecorded_count++;
        return HASHTRIE_EFULL;
    }
    return HASHTRIE_OK;
}
