/*
 * A node of the hot trie: one cache line. Private to the room.
 *
 *       namespace (empty run)        The root (node 0) has no run either; its children are the
 *           |                        namespaces.
 *     [ f0 f1 f2 .. ]  run           A run is chunks without a branch. Its first fingerprint lies
 *        /        \                  in the node, the rest in a block. A child's key is
 *    [ .. ]      [ .. ]              (parent's `end`, run[0]).
 *
 * Nodes name each other by the index of their cell. Children are found in the edge table only.
 */
#ifndef HASHTRIE_TRIE_NODE_H
#define HASHTRIE_TRIE_NODE_H

#include <assert.h>
#include <stdint.h>

#include "trie/trie.h"

enum {
    NODE_RUN_INLINE = 2,
    NODE_BATCH_NONE = 2047,
};

#define NODE_NONE UINT32_MAX
#define NODE_ROOT UINT32_C(0)

enum node_flag {
    NODE_STRUCT = 1, /* Key or run not in the store as it is here. */
    NODE_STATE = 2,  /* Holders or bucket not in the store as they are here. */
    NODE_NEW = 4,    /* Not known to be stored under this key. */
};

/* Who has the prefix that ends with this node: 8 bytes. */
struct holder {
    hashtrie_endpoint endpoint;
    uint16_t age_minute;   /* Unix minutes of its last use, modulo 2^16. */
    uint32_t odometer_kib; /* The endpoint's odometer at its last use, modulo 2^32. */
};

struct node {
    uint64_t end; /* Chain hash of the run's last chunk; of a namespace: its hash. */
    uint32_t run[NODE_RUN_INLINE]; /* The first fingerprint (of a namespace: the low half of `end`);
                                      the second, or the block of all after the first. */
    union {
        struct holder one;
        uint32_t block; /* Of more than one. */
    } holders;
    uint32_t parent;
    uint32_t edge_next; /* Next in the edge table's bucket. */
    uint32_t lru_prev;  /* Towards the head: more recently used. */
    uint32_t lru_next;
    uint32_t dirty_prev; /* Towards the queue's head: written sooner. Valid while STRUCT or STATE is
                            set. */
    uint32_t dirty_next;
    uint32_t child_count;
    uint32_t bucket;     /* Last use, in TRIE_BUCKET_SECONDS. */
    uint32_t depth : 20; /* Chunks before the run. */
    uint32_t length : 12;
    uint32_t batch_pos : 11; /* Entry of the batch in flight that is a copy of this node. */
    uint32_t holder_count : 8;
    uint32_t flags : 13;
};

static_assert(sizeof(struct node) == 64, "a node is one cache line");
static_assert(sizeof(struct holder) == 8, "a holder is 8 bytes");
static_assert((int)TRIE_BATCH_NODES_MAX < (int)NODE_BATCH_NONE, "a batch position fits its field");
static_assert((int)TRIE_RUN_LENGTH_MAX < 1 << 12, "a length fits its field");
static_assert(HASHTRIE_CHUNK_COUNT_MAX < 1 << 20, "a depth fits its field");
static_assert(HASHTRIE_HOLDERS_MAX < TRIE_HELD_BY_ALL, "the mark for all is no count");

/* The fingerprint that the parent's edge to it carries. */
static inline uint32_t node_fp(const struct node *node)
{
    return node->run[0];
}

/* Bit fields take no more than their width: these keep conversions in one place. */
static inline void node_set_depth(struct node *node, uint32_t depth)
{
    node->depth = depth & 0xfffffU;
}

static inline void node_set_length(struct node *node, uint32_t length)
{
    node->length = length & 0xfffU;
}

static inline void node_set_batch_pos(struct node *node, size_t position)
{
    node->batch_pos = (uint32_t)position & 0x7ffU;
}

static inline void node_set_holder_count(struct node *node, uint32_t count)
{
    node->holder_count = count & 0xffU;
}

static inline void node_set_flags(struct node *node, uint32_t flags)
{
    node->flags = (node->flags | flags) & 0x1fffU;
}

static inline void node_clear_flags(struct node *node, uint32_t flags)
{
    node->flags &= ~flags & 0x1fffU;
}

static inline uint32_t node_depth_end(const struct node *node)
{
    return node->depth + node->length;
}

static inline bool node_is_dirty(const struct node *node)
{
    return (node->flags & (NODE_STRUCT | NODE_STATE)) != 0;
}

#endif
