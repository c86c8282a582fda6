/*
 * Words that a node keeps outside itself: the rest of its run, its holders. Private to the room.
 *
 *     up to 7 words    a half
 *     up to 16         a cell
 *     more             a chain of bundles: 16 words in each cell that they name, the last ones in
 *                      the last bundle itself
 *
 * The number of words is the owner's to know; it fixes the form.
 */
#ifndef HASHTRIE_TRIE_BLOCK_H
#define HASHTRIE_TRIE_BLOCK_H

#include "trie/cells.h"

struct hashtrie;

/* Takes a block for `words` words, 0 included; evicts for it, a bounded number of nodes. False: no
 * room. */
bool block_take(struct hashtrie *trie, uint32_t words, uint32_t *out);
void block_give(struct cells *cells, uint32_t block, uint32_t words);
/* Bytes of the cells or the half that a block takes. */
size_t block_bytes(uint32_t words);

/*
 * Its words, in pieces that lie together:
 * `for (p = block_first(..); p.count > 0; block_next(.., &p))`: p.words[0 .. p.count - 1].
 */
struct block_piece {
    uint32_t *words;
    uint32_t count;
    uint32_t left; /* In later pieces. */
    uint32_t bundle;
    uint32_t place; /* Of the next piece in the bundle. */
};

void block_next(const struct cells *cells, struct block_piece *piece);

static inline struct block_piece block_first(const struct cells *cells, uint32_t block,
                                             uint32_t words)
{
    if (words == 0) {
        return (struct block_piece){.count = 0};
    }
    if (words <= CELL_WORDS) {
        uint32_t *at = words <= HALF_WORDS ? half_words(cells, block) : cells->base[block].words;
        return (struct block_piece){.words = at, .count = words};
    }
    struct block_piece piece = {.left = words, .bundle = block};
    block_next(cells, &piece);
    return piece;
}

#endif
