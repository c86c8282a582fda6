/* hashtrie_check(): recounts everything from scratch and compares. For tests. */
#include <string.h>

#include "trie/internal.h"

struct recount {
    size_t nodes;
    size_t cell_bytes; /* Of nodes, their runs and holders. */
    size_t dirty;
    size_t dirty_bytes;
    size_t in_batch;
    uint64_t chunks;
    uint64_t children; /* Sum of child counts; every node but the root is somebody's child. */
};

/* Something that must be so. A list of them ends with a NULL text. */
struct fact {
    bool holds;
    const char *text;
};

#define FACT(condition)         \
    {                           \
        (condition), #condition \
    }
#define FACTS(...) first_breach((const struct fact[]){__VA_ARGS__, {true, NULL}})

static const char *first_breach(const struct fact *facts)
{
    while (facts->text != NULL && facts->holds) {
        facts++;
    }
    return facts->text;
}

static bool batch_points_back(const struct hashtrie *trie, uint32_t index, const struct node *node)
{
    return trie->batch != NULL && node->batch_pos < trie->batch->count &&
           trie->batch->entries[node->batch_pos].node == index;
}

static void count_node(const struct node *node, struct recount *sum)
{
    sum->chunks += node->length;
    sum->cell_bytes +=
        CELL_BYTES + block_bytes(run_block_words(node->length)) + holders_bytes(node);
    sum->in_batch += node->batch_pos != NODE_BATCH_NONE;
    if (node_is_dirty(node)) {
        sum->dirty++;
        sum->dirty_bytes += dirty_node_bytes(node);
    }
}

/* The run's last fingerprint; of a namespace: its own. */
static uint32_t run_last(const struct hashtrie *trie, const struct node *node)
{
    if (node->length <= 1 || node->length > TRIE_RUN_LENGTH_MAX) {
        return node->run[0];
    }
    uint32_t run[TRIE_RUN_LENGTH_MAX]; /* Not cleared: most runs are short, and there are many. */
    run_read(&trie->cells, node, run);
    return run[node->length - 1];
}

static const char *check_node(const struct hashtrie *trie, uint32_t index, const struct node *node)
{
    const struct node *parent = cells_find_node(&trie->cells, node->parent);
    if (parent == NULL) {
        return "parent is a node";
    }
    return FACTS(
        FACT(node->depth == node_depth_end(parent)),
        FACT((node->length == 0) == (node->parent == NODE_ROOT)),
        FACT(node->length <= TRIE_RUN_LENGTH_MAX),
        FACT(run_last(trie, node) == (uint32_t)node->end),
        FACT(edges_find(&trie->edges, node->parent, node_fp(node)) == index),
        FACT(node->holder_count <= HASHTRIE_HOLDERS_MAX || node->holder_count == TRIE_HELD_BY_ALL),
        FACT(node->bucket <= trie->bucket),
        FACT(!node_is_dirty(node) || (trie->attached && node->length > 0)),
        FACT(node->batch_pos == NODE_BATCH_NONE || batch_points_back(trie, index, node)));
}

static const char *check_nodes(const struct hashtrie *trie, struct recount *sum)
{
    for (uint32_t index = 0; index < trie->cells.count; index++) {
        const struct node *node = cells_find_node(&trie->cells, index);
        if (node == NULL) {
            continue;
        }
        sum->nodes++;
        sum->children += node->child_count;
        count_node(node, sum);
        const char *breach = index == NODE_ROOT ? NULL : check_node(trie, index, node);
        if (breach != NULL) {
            return breach;
        }
    }
    return FACTS(FACT(sum->nodes == trie->node_count), FACT(sum->chunks == trie->chunk_count),
                 FACT(sum->children == sum->nodes - 1),
                 FACT(trie->edges.edge_count == sum->nodes - 1));
}

/*
 * Head to tail: every node once, no child before its parent, every child counted. `seen` has a
 * place per cell: 0 not met yet, else 1 + children met.
 */
static const char *check_lru(const struct hashtrie *trie, const struct recount *sum, uint32_t *seen)
{
    size_t met = 0;
    uint32_t prev = NODE_NONE;
    const char *breach = NULL;
    seen[NODE_ROOT] = 1;
    for (uint32_t index = trie->lru_head; index != NODE_NONE && breach == NULL; met++) {
        const struct node *node = cells_find_node(&trie->cells, index);
        if (node == NULL) {
            return "the LRU list holds nodes alone";
        }
        breach = FACTS(FACT(node->lru_prev == prev), FACT(seen[index] == 0),
                       FACT(seen[node->parent] != 0)); /* The parent is nearer the head. */
        seen[index] = 1;
        seen[node->parent]++;
        prev = index;
        index = node->lru_next;
    }
    for (uint32_t index = 0; index < trie->cells.count && breach == NULL; index++) {
        const struct node *node = cells_find_node(&trie->cells, index);
        breach = FACTS(FACT(node == NULL || seen[index] == 1 + node->child_count));
    }
    return breach != NULL ? breach
                          : FACTS(FACT(prev == trie->lru_tail), FACT(met == sum->nodes - 1));
}

static size_t batch_links(const struct hashtrie *trie)
{
    size_t links = 0;
    for (size_t i = 0; trie->batch != NULL && i < trie->batch->count; i++) {
        links += trie->batch->entries[i].node != NODE_NONE;
    }
    return links;
}

static const char *check_dirty(const struct hashtrie *trie, const struct recount *sum)
{
    size_t met = 0;
    uint32_t prev = NODE_NONE;
    const char *breach = NULL;
    for (uint32_t index = trie->dirty_head; index != NODE_NONE && breach == NULL; met++) {
        const struct node *node = cells_find_node(&trie->cells, index);
        if (node == NULL) {
            return "the dirty queue holds nodes alone";
        }
        breach = FACTS(FACT(node_is_dirty(node)), FACT(node->dirty_prev == prev),
                       FACT(met < sum->dirty));
        prev = index;
        index = node->dirty_next;
    }
    return breach != NULL ? breach
                          : FACTS(FACT(met == sum->dirty), FACT(prev == trie->dirty_tail),
                                  FACT(trie->dirty_count == sum->dirty),
                                  FACT(trie->dirty_bytes == sum->dirty_bytes),
                                  FACT(sum->in_batch == batch_links(trie)));
}

static size_t endpoint_bytes(const struct hashtrie *trie)
{
    size_t bytes = 0;
    if (trie->endpoint_capacity > 0) {
        bytes += mem_charge(trie->endpoint_capacity * sizeof(struct endpoint));
        bytes += mem_charge(trie->endpoint_capacity * sizeof(struct endpoint_id));
    }
    for (size_t i = 0; i < trie->endpoint_count; i++) {
        const struct endpoint *endpoint = &trie->endpoints[i];
        if (endpoint->name != NULL) {
            bytes += mem_charge(strlen(endpoint->name) + 1) +
                     mem_charge(strlen(endpoint->model) + 1) +
                     mem_charge(strlen(endpoint->generation) + 1);
            bytes += recent_bytes(endpoint);
        }
    }
    return bytes;
}

static const char *check_bytes(const struct hashtrie *trie, const struct recount *sum)
{
    size_t cells = sum->cell_bytes + trie->edges.cell_count * CELL_BYTES;
    size_t bytes = mem_charge(sizeof *trie) + cells_bytes(&trie->cells) +
                   edges_bytes(&trie->edges) + endpoint_bytes(trie);
    return FACTS(FACT(bytes == trie->mem.bytes_used), FACT(cells == cells_used_bytes(&trie->cells)),
                 FACT(cells_recount_free(&trie->cells) == trie->cells.free_count),
                 FACT(trie->mem.bytes_peak <= trie->mem.bytes_limit));
}

static const char *check_links(const struct hashtrie *trie, const struct recount *sum)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    size_t size = (size_t)trie->cells.count * sizeof(uint32_t);
    uint32_t *seen = mem_alloc_zero(&mem, size);
    if (seen == NULL) {
        return "out of memory for the check itself";
    }
    const char *breach = check_lru(trie, sum, seen);
    mem_free(&mem, seen, size);
    return breach;
}

enum hashtrie_status hashtrie_check(const struct hashtrie *trie, const char **breach)
{
    struct recount sum = {0};
    *breach = check_nodes(trie, &sum);
    if (*breach == NULL) {
        *breach = check_links(trie, &sum);
    }
    if (*breach == NULL) {
        *breach = check_dirty(trie, &sum);
    }
    if (*breach == NULL) {
        *breach = check_bytes(trie, &sum);
    }
    return *breach == NULL ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
}
