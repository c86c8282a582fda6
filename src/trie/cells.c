#include "trie/cells.h"

#include "base/check.h"

enum {
    PAGE_BYTES = 4096,
    CELLS_PER_PAGE = PAGE_BYTES / CELL_BYTES,
    MAP_BITS = 64, /* Of one word of the node map. */
    CELLS_PER_MAP_PAGE = PAGE_BYTES * 8,
};

/* Words of a half; the first two while it is free. */
enum { HALF_PREV, HALF_NEXT, HALF_STATE = HALF_WORDS };
enum { STATE_USED = 1, STATE_FREE = 2 };

static size_t round_up(size_t number, size_t unit)
{
    return (number + unit - 1) / unit * unit;
}

static size_t map_bytes(size_t cell_count)
{
    return round_up(cell_count, CELLS_PER_MAP_PAGE) / 8;
}

bool cells_init(struct cells *cells, size_t bytes_max)
{
    REQUIRE(bytes_max >= PAGE_BYTES && bytes_max / CELL_BYTES < CELLS_MAX);
    uint32_t count_max = (uint32_t)(bytes_max / PAGE_BYTES * CELLS_PER_PAGE);
    *cells = (struct cells){.base = mem_map((size_t)count_max * CELL_BYTES),
                            .node_map = mem_map(map_bytes(count_max)),
                            .count_max = count_max,
                            .free_head = NODE_NONE,
                            .half_head = NODE_NONE};
    if (cells->base == NULL || cells->node_map == NULL) {
        mem_unmap(cells->base, (size_t)count_max * CELL_BYTES);
        mem_unmap(cells->node_map, map_bytes(count_max));
        return false;
    }
    return true;
}

void cells_fini(struct cells *cells, struct mem *mem)
{
    mem_unbook(mem, cells_bytes(cells));
    mem_unmap(cells->base, (size_t)cells->count_max * CELL_BYTES);
    mem_unmap(cells->node_map, map_bytes(cells->count_max));
    *cells = (struct cells){.free_head = NODE_NONE, .half_head = NODE_NONE};
}

/* The next cell that never held anything. */
static uint32_t take_fresh(struct cells *cells, struct mem *mem)
{
    if (cells->count % CELLS_PER_PAGE == 0) {
        size_t bytes = cells->count % CELLS_PER_MAP_PAGE == 0 ? 2 * PAGE_BYTES : PAGE_BYTES;
        if (cells->count == cells->count_max || !mem_book(mem, bytes)) {
            return NODE_NONE;
        }
    }
    return cells->count++;
}

uint32_t cells_take(struct cells *cells, struct mem *mem)
{
    if (mem_fault_due(mem)) {
        return NODE_NONE;
    }
    uint32_t index = cells->free_head;
    if (index == NODE_NONE) {
        return take_fresh(cells, mem);
    }
    struct bundle *first = &cells->base[index].bundle;
    cells->free_count--;
    if (first->count > 0) {
        return first->cells[--first->count];
    }
    cells->free_head = first->next;
    return index;
}

void cells_give(struct cells *cells, uint32_t index)
{
    DCHECK(index < cells->count);
    cells->free_count++;
    CHECK(cells->free_count <= cells->count);
    if (cells->free_head != NODE_NONE) {
        struct bundle *first = &cells->base[cells->free_head].bundle;
        if (first->count < BUNDLE_CELLS) {
            first->cells[first->count++] = index;
            return;
        }
    }
    struct bundle *bundle = &cells->base[index].bundle;
    bundle->count = 0;
    bundle->next = cells->free_head;
    cells->free_head = index;
}

void cells_give_bundles(struct cells *cells, uint32_t first)
{
    for (uint32_t index = first; index != NODE_NONE;) {
        struct bundle *bundle = &cells->base[index].bundle;
        uint32_t next = bundle->next;
        CHECK(bundle->count <= BUNDLE_CELLS);
        cells->free_count += bundle->count + 1;
        CHECK(cells->free_count <= cells->count);
        bundle->next = cells->free_head;
        cells->free_head = index;
        index = next;
    }
}

static void half_push(struct cells *cells, uint32_t half)
{
    uint32_t *words = half_words(cells, half);
    words[HALF_PREV] = NODE_NONE;
    words[HALF_NEXT] = cells->half_head;
    words[HALF_STATE] = STATE_FREE;
    if (cells->half_head != NODE_NONE) {
        half_words(cells, cells->half_head)[HALF_PREV] = half;
    }
    cells->half_head = half;
    cells->free_halves++;
}

static void half_unlink(struct cells *cells, uint32_t half)
{
    const uint32_t *words = half_words(cells, half);
    uint32_t prev = words[HALF_PREV];
    uint32_t next = words[HALF_NEXT];
    if (prev != NODE_NONE) {
        half_words(cells, prev)[HALF_NEXT] = next;
    } else {
        cells->half_head = next;
    }
    if (next != NODE_NONE) {
        half_words(cells, next)[HALF_PREV] = prev;
    }
    cells->free_halves--;
}

uint32_t cells_take_half(struct cells *cells, struct mem *mem)
{
    uint32_t half = cells->half_head;
    if (half == NODE_NONE) {
        uint32_t cell = cells_take(cells, mem);
        if (cell == NODE_NONE) {
            return NODE_NONE;
        }
        half = 2 * cell;
        half_push(cells, half + 1);
    } else if (mem_fault_due(mem)) {
        return NODE_NONE;
    } else {
        half_unlink(cells, half);
    }
    half_words(cells, half)[HALF_STATE] = STATE_USED;
    return half;
}

void cells_give_half(struct cells *cells, uint32_t half)
{
    CHECK(half_words(cells, half)[HALF_STATE] == STATE_USED);
    uint32_t other = half ^ 1U;
    if (half_words(cells, other)[HALF_STATE] == STATE_FREE) {
        half_unlink(cells, other);
        cells_give(cells, half / 2);
    } else {
        half_push(cells, half);
    }
}

void cells_mark_node(struct cells *cells, uint32_t index, bool is_node)
{
    uint64_t bit = UINT64_C(1) << index % MAP_BITS;
    uint64_t *word = &cells->node_map[index / MAP_BITS];
    CHECK(((*word & bit) != 0) != is_node);
    *word ^= bit;
}

struct node *cells_find_node(const struct cells *cells, uint32_t index)
{
    bool is_node =
        index < cells->count && (cells->node_map[index / MAP_BITS] >> index % MAP_BITS & 1) != 0;
    return is_node ? &cells->base[index].node : NULL;
}

size_t cells_bytes(const struct cells *cells)
{
    return round_up((size_t)cells->count * CELL_BYTES, PAGE_BYTES) + map_bytes(cells->count);
}

size_t cells_used_bytes(const struct cells *cells)
{
    return (size_t)(cells->count - cells->free_count) * CELL_BYTES -
           (size_t)cells->free_halves * HALF_BYTES;
}

size_t cells_spare_bytes(const struct cells *cells)
{
    return round_up((size_t)cells->count * CELL_BYTES, PAGE_BYTES) - cells_used_bytes(cells);
}

uint32_t cells_recount_free(const struct cells *cells)
{
    uint32_t count = 0;
    for (uint32_t index = cells->free_head; index != NODE_NONE && count <= cells->count;) {
        const struct bundle *bundle = &cells->base[index].bundle;
        count += 1 + bundle->count;
        index = bundle->next;
    }
    return count <= cells->count ? count : CELLS_MAX;
}
