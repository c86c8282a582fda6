/* Following a key down the trie: match, and who holds how much of it. */
#include "trie/internal.h"

static uint32_t find_namespace(const struct hashtrie *trie, uint64_t hash, bool *collision)
{
    uint32_t index = edges_find(&trie->edges, NODE_ROOT, (uint32_t)hash);
    *collision = index != NODE_NONE && node_at(trie, index)->end != hash;
    return *collision ? NODE_NONE : index;
}

/* True: the whole run lies within the key, and its end's chain hash is the key's there: all of it
 * is equal. */
static bool covers_whole(const struct node *node, const struct hashtrie_key *key, size_t depth)
{
    size_t end = depth + node->length;
    return end <= key->count && key->hashes[end - 1] == node->end;
}

struct walk trie_walk(const struct hashtrie *trie, const struct hashtrie_key *key)
{
    struct walk walk = {.node = NODE_NONE};
    walk.node = find_namespace(trie, key->namespace_hash, &walk.collision);
    if (walk.node == NODE_NONE) {
        return walk;
    }
    while (walk.matched < key->count) {
        uint32_t child = edges_find(&trie->edges, walk.node, (uint32_t)key->hashes[walk.matched]);
        if (child == NODE_NONE) {
            break;
        }
        const struct node *node = node_at(trie, child);
        if (covers_whole(node, key, walk.matched)) {
            walk.node = child;
            walk.matched += node->length;
            continue;
        }
        size_t rest = key->count - walk.matched;
        size_t length = node->length < rest ? node->length : rest;
        uint32_t common =
            run_common(&trie->cells, node,
                       (struct run_source){.hashes = key->hashes + walk.matched}, (uint32_t)length);
        CHECK(common > 0);
        if (common == node->length) { /* Equal fingerprints, another chain hash. */
            walk.collision = true;
            break;
        }
        walk.node = child;
        walk.matched += common;
        walk.inside = common;
        break;
    }
    return walk;
}

size_t trie_known_length(const struct hashtrie *trie, const struct hashtrie_key *key)
{
    return trie_walk(trie, key).matched;
}

/*
 * Lists the live holders of one node that are not listed yet. Not all that are listed need be among
 * them: after a crash or a late reload a node may know a holder that those above it do not.
 */
static void list_holders(struct hashtrie *trie, struct node *node, uint32_t chunk_count,
                         struct hashtrie_match *out)
{
    struct holder_piece piece = holders_first(trie, node);
    for (; piece.count > 0; holders_next(trie, &piece)) {
        for (uint32_t i = 0; i < piece.count && out->holder_count < HASHTRIE_HOLDERS_MAX; i++) {
            const struct holder *holder = &piece.at[i];
            struct endpoint *endpoint = &trie->endpoints[holder->endpoint];
            if (endpoint->match_seen == trie->match_number || !holder_is_live(trie, node, holder)) {
                continue;
            }
            endpoint->match_seen = trie->match_number;
            out->holders[out->holder_count++] =
                (struct hashtrie_holder){.endpoint = holder->endpoint, .chunk_count = chunk_count};
        }
    }
}

void hashtrie_match(struct hashtrie *trie, const struct hashtrie_key *key, uint64_t now_s,
                    struct hashtrie_match *out)
{
    REQUIRE(key->count <= HASHTRIE_CHUNK_COUNT_MAX);
    trie_set_time(trie, now_s);
    struct walk walk = trie_walk(trie, key);
    trie->collision_count += walk.collision;
    out->chunk_count = walk.matched;
    out->all_chunk_count = 0;
    out->holder_count = 0;
    if (++trie->match_number == 0) { /* All numbers have been used: none may seem seen. */
        endpoints_unsee(trie);
        trie->match_number = 1;
    }
    uint32_t reach = (uint32_t)walk.matched;
    for (uint32_t index = walk.node; reach > 0; index = node_at(trie, index)->parent) {
        struct node *node = node_at(trie, index);
        if (node->holder_count == TRIE_HELD_BY_ALL) {
            out->all_chunk_count = reach;
            break;
        }
        list_holders(trie, node, reach, out);
        reach = node->depth;
    }
}
