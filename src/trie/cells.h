/*
 * The memory of the trie: cells of one cache line in one region of address space. Private to the
 * room.
 *
 * Nodes, the rest of long runs, holders and the edge table's buckets all lie in cells, so whatever
 * is freed can be used for whatever is needed next: there is no fragmentation, and the process's
 * memory never exceeds the budget, whatever the workload did before. Cells name each other by
 * 32-bit index and never move.
 *
 * What needs more than a cell is a bundle: a cell that names up to 14 others, and the next bundle.
 * Free cells are bundles too, so freeing a long run touches one cell in fifteen, and taking and
 * giving single cells touches the first bundle alone. What needs less takes a half; two free halves
 * become a cell again.
 *
 *     bundle   [ cell .. cell | count | next bundle ]        half   [ 28 bytes | state ]
 */
#ifndef HASHTRIE_TRIE_CELLS_H
#define HASHTRIE_TRIE_CELLS_H

#include <assert.h>
#include <stdbool.h>

#include "base/mem.h"
#include "trie/node.h"

enum {
    CELL_BYTES = 64,
    CELL_WORDS = CELL_BYTES / 4,
    HALF_BYTES = CELL_BYTES / 2,
    HALF_WORDS = HALF_BYTES / 4 - 1, /* To be used; its state follows. */
    BUNDLE_CELLS = CELL_WORDS - 2,
};

/* Indices are below this; halves are named by twice their cell's index, plus 1 for the second. */
#define CELLS_MAX UINT32_C(0x7fffffff)

struct bundle {
    uint32_t cells[BUNDLE_CELLS];
    uint32_t count;
    uint32_t next; /* NODE_NONE: none. */
};

union cell {
    struct node node;
    struct bundle bundle;
    uint32_t words[CELL_WORDS];
};

static_assert(sizeof(union cell) == CELL_BYTES, "a cell is one cache line");

struct cells {
    union cell *base;
    uint64_t *node_map;   /* A bit for each cell: is a node. Charged as the cells are. */
    uint32_t count_max;   /* What the region has room for. */
    uint32_t count;       /* These have memory; charged in pages. */
    uint32_t free_head;   /* Bundles of free cells. */
    uint32_t half_head;   /* Free halves whose other half is in use, doubly linked. */
    uint32_t free_count;  /* Cells in free bundles, the bundles' own included, ... */
    uint32_t free_halves; /* ... and free halves. */
};

/* Reserves address space for bytes_max bytes of cells; takes no memory. False: none to be had. */
bool cells_init(struct cells *cells, size_t bytes_max);
void cells_fini(struct cells *cells, struct mem *mem);

/* One cell, its contents undefined; NODE_NONE: the region or the budget is used up. */
uint32_t cells_take(struct cells *cells, struct mem *mem);
void cells_give(struct cells *cells, uint32_t index);
void cells_give_bundles(struct cells *cells, uint32_t first); /* With all that they name. */

uint32_t cells_take_half(struct cells *cells, struct mem *mem); /* NODE_NONE as above. */
void cells_give_half(struct cells *cells, uint32_t half);

/* That the cell is a node, or no longer. */
void cells_mark_node(struct cells *cells, uint32_t index, bool is_node);
/* The node there, or NULL: that cell is something else. */
struct node *cells_find_node(const struct cells *cells, uint32_t index);

/* Bytes of cells and halves in use; charged for cells that hold nothing. */
size_t cells_used_bytes(const struct cells *cells);
size_t cells_spare_bytes(const struct cells *cells);
/* Recounted: what cells and node map are charged for; the free cells, CELLS_MAX if there are more
 * than cells. */
size_t cells_bytes(const struct cells *cells);
uint32_t cells_recount_free(const struct cells *cells);

static inline uint32_t *half_words(const struct cells *cells, uint32_t half)
{
    return cells->base[half / 2].words + (size_t)(half & 1) * (HALF_WORDS + 1);
}

#endif
