/*
 * The edge table: (parent, first fingerprint) -> child. Private to the room.
 *
 * Linear hashing (Litwin, VLDB 1980): buckets are chains through node.edge_next; the table grows
 * and shrinks by one bucket at a time, in segments that never move, so that no single call pays for
 * a doubling. The hash is keyed by a seed, so that prompts cannot be crafted to fill one bucket.
 */
#ifndef HASHTRIE_TRIE_EDGES_H
#define HASHTRIE_TRIE_EDGES_H

#include "trie/slab.h"

struct edges {
    uint32_t **segments; /* Heads of buckets. */
    size_t segment_count;
    size_t segment_capacity;
    uint64_t seed;
    size_t bucket_count;
    size_t base; /* Power of two, base <= bucket_count < 2 x base. */
    size_t edge_count;
};

/* False: no memory. */
bool edges_init(struct edges *edges, struct mem *mem, uint64_t seed);
void edges_fini(struct edges *edges, struct mem *mem);

/* node.parent, node.run and node.end of `index` must be set. Growing may fail for lack of memory:
 * chains get longer. */
void edges_insert(struct edges *edges, const struct slab *slab, struct mem *mem, uint32_t index);
void edges_remove(struct edges *edges, const struct slab *slab, struct mem *mem, uint32_t index);

/* First node of the bucket where the child would be; follow edge_next, compare parent and
 * fingerprint. */
uint32_t edges_bucket(const struct edges *edges, uint32_t parent, uint32_t fp);

/* The child itself; NODE_NONE: there is none. */
uint32_t edges_find(const struct edges *edges, const struct slab *slab, uint32_t parent,
                    uint32_t fp);

size_t edges_bytes(const struct edges *edges); /* What it is charged for, recounted. */

#endif
