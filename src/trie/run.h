/*
 * The fingerprints of a node's run: the first lies in the node, the others in a block, but for a
 * second and last one. Private to the room.
 */
#ifndef HASHTRIE_TRIE_RUN_H
#define HASHTRIE_TRIE_RUN_H

#include "trie/block.h"

/* Words of the block that a run of that length needs. */
static inline uint32_t run_block_words(uint32_t length)
{
    return length > NODE_RUN_INLINE ? length - 1 : 0;
}

/* Fingerprints from elsewhere: as they are, or the low halves of chain hashes. One is NULL. */
struct run_source {
    const uint32_t *fps;
    const uint64_t *hashes;
};

/* Copies the whole run. */
void run_read(const struct cells *cells, const struct node *node, uint32_t *to);
/* How many of the run's first `length` fingerprints are equal to the source's. */
uint32_t run_common(const struct cells *cells, const struct node *node, struct run_source source,
                    uint32_t length);
/* Puts `length` fingerprints into the node and `block`, which is for run_block_words() of them. */
void run_write(const struct cells *cells, struct node *node, uint32_t block,
               struct run_source source, uint32_t length);
void run_give(struct cells *cells, const struct node *node);

#endif
