#include "trie/edges.h"

#include "base/check.h"

enum {
    SEGMENT_BITS = 10,
    SEGMENT_BUCKETS = 1 << SEGMENT_BITS, /* 4 KiB. */
    SEGMENT_CAPACITY_FIRST = 8,
    BUCKETS_MIN = 64,
    BUCKETS_GROWN_PER_INSERT = 2, /* Catches up after growth that failed. */
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
    return &edges->segments[number >> SEGMENT_BITS][number & (SEGMENT_BUCKETS - 1)];
}

uint32_t edges_bucket(const struct edges *edges, uint32_t parent, uint32_t fp)
{
    return *bucket_head(edges, bucket_number(edges, parent, fp));
}

uint32_t edges_find(const struct edges *edges, const struct slab *slab, uint32_t parent,
                    uint32_t fp)
{
    uint32_t index = edges_bucket(edges, parent, fp);
    while (index != NODE_NONE) {
        const struct node *node = slab_node(slab, index);
        if (node->parent == parent && node_fp(node) == fp) {
            break;
        }
        index = node->edge_next;
    }
    return index;
}

static bool segment_add(struct edges *edges, struct mem *mem)
{
    if (edges->segment_count == edges->segment_capacity) {
        size_t old = edges->segment_capacity;
        size_t capacity = old == 0 ? SEGMENT_CAPACITY_FIRST : old * 2;
        uint32_t **segments =
            mem_realloc(mem, edges->segments, old * sizeof *segments, capacity * sizeof *segments);
        if (segments == NULL) {
            return false;
        }
        edges->segments = segments;
        edges->segment_capacity = capacity;
    }
    uint32_t *segment = mem_alloc(mem, SEGMENT_BUCKETS * sizeof *segment);
    if (segment == NULL) {
        return false;
    }
    for (size_t i = 0; i < SEGMENT_BUCKETS; i++) {
        segment[i] = NODE_NONE;
    }
    edges->segments[edges->segment_count++] = segment;
    return true;
}

static void segment_drop_last(struct edges *edges, struct mem *mem)
{
    edges->segment_count--;
    mem_free(mem, edges->segments[edges->segment_count], SEGMENT_BUCKETS * sizeof(uint32_t));
}

bool edges_init(struct edges *edges, struct mem *mem, uint64_t seed)
{
    *edges = (struct edges){.seed = seed, .bucket_count = BUCKETS_MIN, .base = BUCKETS_MIN};
    if (!segment_add(edges, mem)) {
        edges_fini(edges, mem);
        return false;
    }
    return true;
}

void edges_fini(struct edges *edges, struct mem *mem)
{
    REQUIRE(edges->edge_count == 0);
    while (edges->segment_count > 0) {
        segment_drop_last(edges, mem);
    }
    mem_free(mem, edges->segments, edges->segment_capacity * sizeof *edges->segments);
    edges->segments = NULL;
    edges->segment_capacity = 0;
}

/* Adds one bucket and moves to it what belongs there from the one it was split off. */
static bool bucket_add(struct edges *edges, const struct slab *slab, struct mem *mem)
{
    size_t added = edges->bucket_count;
    if (added >> SEGMENT_BITS >= edges->segment_count && !segment_add(edges, mem)) {
        return false;
    }
    uint32_t *from = bucket_head(edges, added - edges->base);
    uint32_t *to = bucket_head(edges, added);
    CHECK(*to == NODE_NONE);
    edges->bucket_count++;
    while (*from != NODE_NONE) {
        uint32_t index = *from;
        struct node *node = slab_node(slab, index);
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
static void bucket_drop(struct edges *edges, const struct slab *slab, struct mem *mem)
{
    if (edges->bucket_count == edges->base) {
        edges->base /= 2;
    }
    size_t dropped = --edges->bucket_count;
    uint32_t *from = bucket_head(edges, dropped);
    uint32_t *to = bucket_head(edges, dropped - edges->base);
    while (*to != NODE_NONE) {
        to = &slab_node(slab, *to)->edge_next;
    }
    *to = *from;
    *from = NODE_NONE;
    if ((dropped & (SEGMENT_BUCKETS - 1)) == 0) {
        segment_drop_last(edges, mem);
    }
}

void edges_insert(struct edges *edges, const struct slab *slab, struct mem *mem, uint32_t index)
{
    struct node *node = slab_node(slab, index);
    uint32_t *head = bucket_head(edges, bucket_number(edges, node->parent, node_fp(node)));
    node->edge_next = *head;
    *head = index;
    edges->edge_count++;
    for (int i = 0; i < BUCKETS_GROWN_PER_INSERT && edges->edge_count > edges->bucket_count; i++) {
        if (!bucket_add(edges, slab, mem)) {
            break;
        }
    }
}

void edges_remove(struct edges *edges, const struct slab *slab, struct mem *mem, uint32_t index)
{
    struct node *node = slab_node(slab, index);
    uint32_t *link = bucket_head(edges, bucket_number(edges, node->parent, node_fp(node)));
    while (*link != index) {
        CHECK(*link != NODE_NONE);
        link = &slab_node(slab, *link)->edge_next;
    }
    *link = node->edge_next;
    edges->edge_count--;
    if (edges->bucket_count > BUCKETS_MIN && edges->edge_count < edges->bucket_count / 2) {
        bucket_drop(edges, slab, mem);
    }
}

size_t edges_bytes(const struct edges *edges)
{
    return mem_charge(edges->segment_capacity * sizeof *edges->segments) +
           edges->segment_count * mem_charge(SEGMENT_BUCKETS * sizeof(uint32_t));
}
