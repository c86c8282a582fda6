#include "trie/block.h"

#include "trie/internal.h"

enum { BUNDLE_WORDS_MAX = BUNDLE_CELLS * CELL_WORDS };

/* Cells that the next bundle names where `words` are left: one per 15, since the places that name
 * no cell hold words themselves. */
static uint32_t bundle_cells(uint32_t words)
{
    return words < BUNDLE_WORDS_MAX ? words / (CELL_WORDS - 1) : BUNDLE_CELLS;
}

size_t block_bytes(uint32_t words)
{
    if (words <= CELL_WORDS) {
        return words > HALF_WORDS ? CELL_BYTES : words > 0 ? HALF_BYTES : 0;
    }
    uint32_t rest = words % BUNDLE_WORDS_MAX;
    uint32_t cells = words / BUNDLE_WORDS_MAX * (BUNDLE_CELLS + 1);
    return (size_t)(cells + (rest > 0 ? bundle_cells(rest) + 1 : 0)) * CELL_BYTES;
}

/* A bundle that names `count` cells; false: no room, nothing is kept. */
static bool take_bundle(struct hashtrie *trie, uint32_t count, int *evictions, uint32_t *out)
{
    uint32_t index = evict_take_cell(trie, evictions);
    if (index == NODE_NONE) {
        return false;
    }
    struct bundle *bundle = &trie->cells.base[index].bundle;
    bundle->count = 0;
    bundle->next = NODE_NONE;
    while (bundle->count < count) {
        uint32_t cell = evict_take_cell(trie, evictions);
        if (cell == NODE_NONE) {
            cells_give_bundles(&trie->cells, index);
            return false;
        }
        __builtin_prefetch(trie->cells.base + cell, 1);
        bundle->cells[bundle->count++] = cell;
    }
    *out = index;
    return true;
}

static bool take_bundles(struct hashtrie *trie, uint32_t words, uint32_t *out)
{
    int evictions = EVICT_FORCED_NODES;
    uint32_t first = NODE_NONE;
    uint32_t *link = &first;
    while (words > 0) {
        if (!take_bundle(trie, bundle_cells(words), &evictions, link)) {
            cells_give_bundles(&trie->cells, first);
            return false;
        }
        link = &trie->cells.base[*link].bundle.next;
        words -= words < BUNDLE_WORDS_MAX ? words : BUNDLE_WORDS_MAX;
    }
    *out = first;
    return true;
}

bool block_take(struct hashtrie *trie, uint32_t words, uint32_t *out)
{
    if (words > CELL_WORDS) {
        return take_bundles(trie, words, out);
    }
    int evictions = EVICT_FORCED_NODES;
    *out = NODE_NONE;
    if (words > HALF_WORDS) {
        *out = evict_take_cell(trie, &evictions);
    } else if (words > 0) {
        *out = evict_take_half(trie, &evictions);
    }
    return words == 0 || *out != NODE_NONE;
}

void block_give(struct cells *cells, uint32_t block, uint32_t words)
{
    if (words > CELL_WORDS) {
        cells_give_bundles(cells, block);
    } else if (words > HALF_WORDS) {
        cells_give(cells, block);
    } else if (words > 0) {
        cells_give_half(cells, block);
    }
}

void block_next(const struct cells *cells, struct block_piece *piece)
{
    piece->count = 0;
    if (piece->left == 0) {
        return;
    }
    if (piece->place == BUNDLE_CELLS) {
        piece->bundle = cells->base[piece->bundle].bundle.next;
        piece->place = 0;
    }
    struct bundle *bundle = &cells->base[piece->bundle].bundle;
    uint32_t most = CELL_WORDS;
    if (piece->place < bundle->count) {
        piece->words = cells->base[bundle->cells[piece->place]].words;
    } else {
        piece->words = bundle->cells + bundle->count;
        most = BUNDLE_CELLS - bundle->count;
    }
    piece->place++;
    piece->count = piece->left < most ? piece->left : most;
    piece->left -= piece->count;
}
