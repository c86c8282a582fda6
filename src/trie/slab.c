#include "trie/slab.h"

#include "base/check.h"

enum {
    SEGMENT_BYTES = SLAB_SEGMENT_NODES * (int)sizeof(struct node),
    SEGMENT_CAPACITY_FIRST = 8,
    PLACE_NONE = UINT16_MAX,
    POINTER_BYTES = sizeof(void *),
};

#define SEGMENT_NONE UINT32_MAX

void slab_init(struct slab *slab)
{
    *slab = (struct slab){.partial_head = SEGMENT_NONE, .absent_head = SEGMENT_NONE};
}

void slab_fini(struct slab *slab, struct mem *mem)
{
    REQUIRE(slab->node_count == 0);
    for (size_t i = 0; i < slab->segment_count; i++) {
        mem_free_aligned(mem, slab->nodes[i], SEGMENT_BYTES, sizeof(struct node));
    }
    mem_free(mem, slab->nodes, slab->segment_capacity * POINTER_BYTES);
    mem_free(mem, slab->segments, slab->segment_capacity * sizeof *slab->segments);
    slab_init(slab);
}

struct node *slab_find(const struct slab *slab, uint32_t index)
{
    size_t segment = index >> SLAB_SEGMENT_BITS;
    if (segment >= slab->segment_count || slab->nodes[segment] == NULL) {
        return NULL;
    }
    struct node *node = slab_node(slab, index);
    return (node->flags & NODE_FREE) != 0 ? NULL : node;
}

static void partial_push(struct slab *slab, uint32_t number)
{
    struct slab_segment *segment = &slab->segments[number];
    segment->prev = SEGMENT_NONE;
    segment->next = slab->partial_head;
    if (slab->partial_head != SEGMENT_NONE) {
        slab->segments[slab->partial_head].prev = number;
    }
    slab->partial_head = number;
}

static void partial_remove(struct slab *slab, uint32_t number)
{
    struct slab_segment *segment = &slab->segments[number];
    if (segment->prev != SEGMENT_NONE) {
        slab->segments[segment->prev].next = segment->next;
    } else {
        slab->partial_head = segment->next;
    }
    if (segment->next != SEGMENT_NONE) {
        slab->segments[segment->next].prev = segment->prev;
    }
}

static bool directory_grow(struct slab *slab, struct mem *mem)
{
    size_t old = slab->segment_capacity;
    size_t capacity = old == 0 ? SEGMENT_CAPACITY_FIRST : old * 2;
    if (capacity > NODE_NONE >> SLAB_SEGMENT_BITS) {
        return false;
    }
    struct node **nodes = mem_alloc(mem, capacity * POINTER_BYTES);
    struct slab_segment *segments = mem_alloc(mem, capacity * sizeof *segments);
    if (nodes == NULL || segments == NULL) {
        mem_free(mem, nodes, capacity * POINTER_BYTES);
        mem_free(mem, segments, capacity * sizeof *segments);
        return false;
    }
    for (size_t i = 0; i < slab->segment_count; i++) {
        nodes[i] = slab->nodes[i];
        segments[i] = slab->segments[i];
    }
    mem_free(mem, slab->nodes, old * POINTER_BYTES);
    mem_free(mem, slab->segments, old * sizeof *segments);
    slab->nodes = nodes;
    slab->segments = segments;
    slab->segment_capacity = capacity;
    return true;
}

/* A segment number without memory, taken off its list; SEGMENT_NONE: no memory for a larger
 * directory. */
static uint32_t number_take(struct slab *slab, struct mem *mem)
{
    uint32_t number = slab->absent_head;
    if (number != SEGMENT_NONE) {
        slab->absent_head = slab->segments[number].next;
        return number;
    }
    if (slab->segment_count == slab->segment_capacity && !directory_grow(slab, mem)) {
        return SEGMENT_NONE;
    }
    number = (uint32_t)slab->segment_count++;
    slab->nodes[number] = NULL;
    return number;
}

static void number_give_back(struct slab *slab, uint32_t number)
{
    slab->nodes[number] = NULL;
    slab->segments[number] = (struct slab_segment){.next = slab->absent_head};
    slab->absent_head = number;
}

static bool segment_add(struct slab *slab, struct mem *mem)
{
    uint32_t number = number_take(slab, mem);
    if (number == SEGMENT_NONE) {
        return false;
    }
    struct node *nodes = mem_alloc_aligned(mem, SEGMENT_BYTES, sizeof(struct node));
    if (nodes == NULL) {
        number_give_back(slab, number);
        return false;
    }
    for (uint32_t i = 0; i < SLAB_SEGMENT_NODES; i++) {
        nodes[i].flags = NODE_FREE;
        nodes[i].edge_next = i + 1 < SLAB_SEGMENT_NODES ? i + 1 : PLACE_NONE;
    }
    slab->nodes[number] = nodes;
    slab->segments[number] =
        (struct slab_segment){.free_head = 0, .free_count = SLAB_SEGMENT_NODES};
    slab->free_count += SLAB_SEGMENT_NODES;
    partial_push(slab, number);
    return true;
}

uint32_t slab_alloc(struct slab *slab, struct mem *mem)
{
    if (slab->partial_head == SEGMENT_NONE && !segment_add(slab, mem)) {
        return NODE_NONE;
    }
    uint32_t number = slab->partial_head;
    struct slab_segment *segment = &slab->segments[number];
    uint32_t place = segment->free_head;
    struct node *node = &slab->nodes[number][place];
    CHECK((node->flags & NODE_FREE) != 0);
    segment->free_head = (uint16_t)node->edge_next;
    segment->free_count--;
    if (segment->free_count == 0) {
        partial_remove(slab, number);
    }
    node->flags = 0;
    slab->node_count++;
    slab->free_count--;
    return number << SLAB_SEGMENT_BITS | place;
}

void slab_free(struct slab *slab, struct mem *mem, uint32_t index)
{
    uint32_t number = index >> SLAB_SEGMENT_BITS;
    uint32_t place = index & (SLAB_SEGMENT_NODES - 1);
    struct node *node = slab_node(slab, index);
    struct slab_segment *segment = &slab->segments[number];
    CHECK((node->flags & NODE_FREE) == 0);
    node->flags = NODE_FREE;
    node->edge_next = segment->free_head;
    if (segment->free_count == 0) {
        node->edge_next = PLACE_NONE;
        partial_push(slab, number);
    }
    segment->free_head = (uint16_t)place;
    segment->free_count++;
    slab->node_count--;
    slab->free_count++;
    /* One segment of free places is kept, so that a node that comes and goes does not cost an
     * allocation each time. */
    if (segment->free_count == SLAB_SEGMENT_NODES && slab->free_count > SLAB_SEGMENT_NODES) {
        partial_remove(slab, number);
        mem_free_aligned(mem, slab->nodes[number], SEGMENT_BYTES, sizeof(struct node));
        slab->free_count -= SLAB_SEGMENT_NODES;
        number_give_back(slab, number);
    }
}

size_t slab_bytes(const struct slab *slab)
{
    size_t bytes = 0;
    if (slab->segment_capacity > 0) {
        bytes += mem_charge(slab->segment_capacity * POINTER_BYTES);
        bytes += mem_charge(slab->segment_capacity * sizeof *slab->segments);
    }
    for (size_t i = 0; i < slab->segment_count; i++) {
        bytes += slab->nodes[i] != NULL ? mem_charge(SEGMENT_BYTES + sizeof(struct node)) : 0;
    }
    return bytes;
}
