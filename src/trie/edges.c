#include "trie/edges.h"

#include "base/check.h"

enum {
    CELL_BUCKETS = CELL_WORDS,
    BUCKETS_MIN = 4 * CELL_BUCKETS,
    BUCKETS_GROWN_PER_INSERT = 2, /* Catches up after growth that failed. */
    SPLITS_AHEAD = 2,
    PAGE_BYTES = 4096,
    ENTRIES_PER_PAGE = PAGE_BYTES / sizeof(uint32_t),
};

static uint64_t edge_hash(const struct edges *edges, uint32_t parent, uint32_t fp)
{
    uint64_t mixed = ((uint64_t)parent << 32 | fp) ^ edges->seed;
    mixed ^= mixed >> 32;
    mixed *= UINT64_C(0xd6e8feb86659fd93);
    mixed ^= mixed >> 32;
    mixed *= UINT64_C(0xd6e8feb86659fd93);
    return mixed ^ mixed >> 32;
}

static size_t bucket_number(const struct edges *edges, uint32_t parent, uint32_t fp)
{
    uint64_t hash = edge_hash(edges, parent, fp);
    size_t number = hash & (2 * edges->base - 1);
    return number < edges->bucket_count ? number : number - edges->base;
}

static uint32_t *bucket_head(const struct edges *edges, size_t number)
{
    uint32_t cell = edges->directory[number / CELL_BUCKETS];
    return &edges->cells->base[cell].words[number % CELL_BUCKETS];
}

static struct node *node_of(const struct edges *edges, uint32_t index)
{
    return &edges->cells->base[index].node;
}

uint32_t edges_find(const struct edges *edges, uint32_t parent, uint32_t fp)
{
    uint32_t index = *bucket_head(edges, bucket_number(edges, parent, fp));
    while (index != NODE_NONE) {
        const struct node *node = node_of(edges, index);
        if (node->parent == parent && node_fp(node) == fp) {
            break;
        }
        index = node->edge_next;
    }
    return index;
}

/* Room for sixteen more buckets. */
static bool cell_add(struct edges *edges, struct mem *mem)
{
    if (edges->cell_count == edges->directory_max) {
        return false;
    }
    if (edges->cell_count == edges->page_count * ENTRIES_PER_PAGE) {
        if (!mem_book(mem, PAGE_BYTES)) {
            return false;
        }
        edges->page_count++;
    }
    uint32_t cell = cells_take(edges->cells, mem);
    if (cell == NODE_NONE) {
        return false;
    }
    for (size_t i = 0; i < CELL_BUCKETS; i++) {
        edges->cells->base[cell].words[i] = NODE_NONE;
    }
    edges->directory[edges->cell_count++] = cell;
    return true;
}

static void cell_drop_last(struct edges *edges)
{
    CHECK(edges->directory != NULL);
    edges->cell_count--;
    cells_give(edges->cells, edges->directory[edges->cell_count]);
}

bool edges_init(struct edges *edges, struct cells *cells, struct mem *mem, uint64_t seed)
{
    size_t directory_max = cells->count_max / CELL_BUCKETS + BUCKETS_MIN / CELL_BUCKETS;
    *edges = (struct edges){.cells = cells,
                            .directory = mem_map(directory_max * sizeof(uint32_t)),
                            .directory_max = directory_max,
                            .seed = seed,
                            .bucket_count = BUCKETS_MIN,
                            .base = BUCKETS_MIN};
    bool added = edges->directory != NULL;
    while (added && edges->cell_count < BUCKETS_MIN / CELL_BUCKETS) {
        added = cell_add(edges, mem);
    }
    if (!added) {
        edges_fini(edges, mem);
    }
    return added;
}

void edges_fini(struct edges *edges, struct mem *mem)
{
    REQUIRE(edges->edge_count == 0);
    while (edges->cell_count > 0) {
        cell_drop_last(edges);
    }
    mem_unbook(mem, edges_bytes(edges));
    mem_unmap(edges->directory, edges->directory_max * sizeof *edges->directory);
    edges->directory = NULL;
}

/* Adds one bucket and moves to it what belongs there from the one it was split off. */
static bool bucket_add(struct edges *edges, struct mem *mem)
{
    size_t added = edges->bucket_count;
    if (added / CELL_BUCKETS >= edges->cell_count && !cell_add(edges, mem)) {
        return false;
    }
    uint32_t *from = bucket_head(edges, added - edges->base);
    uint32_t *to = bucket_head(edges, added);
    CHECK(*to == NODE_NONE);
    edges->bucket_count++;
    while (*from != NODE_NONE) {
        uint32_t index = *from;
        struct node *node = node_of(edges, index);
        if (bucket_number(edges, node->parent, node_fp(node)) == added) {
            *from = node->edge_next;
            node->edge_next = *to;
            *to = index;
        } else {
            from = &node->edge_next;
        }
    }
    if (edges->bucket_count == 2 * edges->base) {
        edges->base *= 2;
    }
    return true;
}

/* Takes the last bucket away; its chain goes back to where it was split from. */
static void bucket_drop(struct edges *edges)
{
    if (edges->bucket_count == edges->base) {
        edges->base /= 2;
    }
    size_t dropped = --edges->bucket_count;
    uint32_t *from = bucket_head(edges, dropped);
    uint32_t *to = bucket_head(edges, dropped - edges->base);
    while (*to != NODE_NONE) {
        to = &node_of(edges, *to)->edge_next;
    }
    *to = *from;
    *from = NODE_NONE;
    if (dropped % CELL_BUCKETS == 0) {
        cell_drop_last(edges);
    }
}

/* Fetches what the splits of the coming inserts will read: by then the prompts between have pushed
 * it out of the cache. */
static void prefetch_splits(const struct edges *edges)
{
    size_t ahead = edges->bucket_count - edges->base + SPLITS_AHEAD;
    if (ahead + CELL_BUCKETS < edges->base) {
        __builtin_prefetch(bucket_head(edges, ahead + CELL_BUCKETS));
        uint32_t index = *bucket_head(edges, ahead);
        if (index != NODE_NONE) {
            __builtin_prefetch(node_of(edges, index));
        }
    }
}

void edges_insert(struct edges *edges, struct mem *mem, uint32_t index)
{
    struct node *node = node_of(edges, index);
    uint32_t *head = bucket_head(edges, bucket_number(edges, node->parent, node_fp(node)));
    node->edge_next = *head;
    *head = index;
    edges->edge_count++;
    for (int i = 0; i < BUCKETS_GROWN_PER_INSERT && edges->edge_count > edges->bucket_count; i++) {
        if (!bucket_add(edges, mem)) {
            break;
        }
        prefetch_splits(edges);
    }
}

void edges_remove(struct edges *edges, uint32_t index)
{
    struct node *node = node_of(edges, index);
    uint32_t *link = bucket_head(edges, bucket_number(edges, node->parent, node_fp(node)));
    while (*link != index) {
        CHECK(*link != NODE_NONE);
        link = &node_of(edges, *link)->edge_next;
    }
    *link = node->edge_next;
    edges->edge_count--;
    if (edges->bucket_count > BUCKETS_MIN && edges->edge_count < edges->bucket_count / 2) {
        bucket_drop(edges);
    }
}

size_t edges_bytes(const struct edges *edges)
{
    return edges->page_count * PAGE_BYTES;
}
