/*
 * Where nodes live: segments of fixed size that never move, named by 32-bit index. Private to the
 * room. Places are taken from the fullest segments first, and a segment without nodes is given
 * back.
 */
#ifndef HASHTRIE_TRIE_SLAB_H
#define HASHTRIE_TRIE_SLAB_H

#include "base/mem.h"
#include "trie/node.h"

enum {
    SLAB_SEGMENT_BITS = 9,
    SLAB_SEGMENT_NODES = 1 << SLAB_SEGMENT_BITS, /* 32 KiB. */
};

struct slab_segment {
    uint32_t prev; /* In the list of segments with free places; most lately filled ones first. */
    uint32_t next; /* There, or in the list of segments that are not allocated. */
    uint16_t free_head;
    uint16_t free_count;
};

struct slab {
    struct node **nodes;           /* Per segment; NULL: not allocated. */
    struct slab_segment *segments; /* Their book-keeping, apart so that a look-up stays small. */
    size_t segment_count;
    size_t segment_capacity;
    uint32_t partial_head; /* First segment with free places. */
    uint32_t absent_head;  /* First segment number without memory. */
    size_t node_count;     /* In use. */
    size_t free_count;     /* Places that have memory and no node. */
};

void slab_init(struct slab *slab);
void slab_fini(struct slab *slab, struct mem *mem); /* All nodes must have been freed. */

/* NODE_NONE: no memory. The node's contents are undefined but for the flag NODE_FREE, which is
 * cleared. */
uint32_t slab_alloc(struct slab *slab, struct mem *mem);
void slab_free(struct slab *slab, struct mem *mem, uint32_t index);

static inline struct node *slab_node(const struct slab *slab, uint32_t index)
{
    return &slab->nodes[index >> SLAB_SEGMENT_BITS][index & (SLAB_SEGMENT_NODES - 1)];
}

/* The indices that may be in use are below this; NULL from slab_find() for one that is not. */
static inline uint32_t slab_index_end(const struct slab *slab)
{
    return (uint32_t)(slab->segment_count << SLAB_SEGMENT_BITS);
}

size_t slab_bytes(const struct slab *slab); /* What it is charged for, recounted. */

struct node *slab_find(const struct slab *slab, uint32_t index);

#endif
