/*
 * The edge table: (parent, first fingerprint) -> child. Private to the room.
 *
 * Linear hashing (Litwin, VLDB 1980): buckets are chains through node.edge_next; the table grows
 * and shrinks by one bucket at a time, sixteen to a cell, so that no single call pays for a
 * doubling. The directory of those cells lies in address space of its own that never moves. The
 * hash is keyed by a seed, so that prompts cannot be crafted to fill one bucket.
 */
#ifndef HASHTRIE_TRIE_EDGES_H
#define HASHTRIE_TRIE_EDGES_H

#include "trie/cells.h"

struct edges {
    struct cells *cells; /* Borrowed. */
    uint32_t *directory; /* Cell of each sixteen buckets. */
    size_t directory_max;
    size_t page_count; /* Of the directory: charged, and kept. */
    size_t cell_count; /* In the directory. */
    uint64_t seed;
    size_t bucket_count;
    size_t base; /* Power of two, base <= bucket_count < 2 x base. */
    size_t edge_count;
};

/* False: no memory. */
bool edges_init(struct edges *edges, struct cells *cells, struct mem *mem, uint64_t seed);
void edges_fini(struct edges *edges, struct mem *mem);

/* node.parent and node.run of `index` must be set. Growing may fail for lack of memory: chains get
 * longer. */
void edges_insert(struct edges *edges, struct mem *mem, uint32_t index);
void edges_remove(struct edges *edges, uint32_t index);

/* The child; NODE_NONE: there is none. */
uint32_t edges_find(const struct edges *edges, uint32_t parent, uint32_t fp);

size_t edges_bytes(const struct edges *edges); /* Of the directory, recounted. */

#endif
