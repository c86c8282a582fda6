/* The trie as a whole: making, freeing, lock, time, figures. */
#include "trie/internal.h"

enum {
    SECONDS_PER_MINUTE = 60,
    CELLS_PERCENT =
        94, /* Of the budget; the rest is for endpoints and the edge table's directory. */
};

struct hashtrie_options hashtrie_options_default(size_t budget_bytes)
{
    return (struct hashtrie_options){.budget_bytes = budget_bytes,
                                     .threshold = 0.9,
                                     .target = 0.5,
                                     .chunk_size = HASHTRIE_CHUNK_SIZE_DEFAULT};
}

static bool options_valid(const struct hashtrie_options *options)
{
    return options->budget_bytes >= HASHTRIE_BUDGET_MIN &&
           options->budget_bytes <= HASHTRIE_BUDGET_MAX && options->target > 0 &&
           options->target <= options->threshold && options->threshold <= 1 &&
           options->chunk_size >= HASHTRIE_CHUNK_SIZE_MIN &&
           options->chunk_size <= HASHTRIE_CHUNK_SIZE_MAX && options->chunk_size % 8 == 0 &&
           options->max_entry_age_s <= HASHTRIE_ENTRY_AGE_MAX_S;
}

static enum hashtrie_status root_add(struct hashtrie *trie)
{
    uint32_t root = cells_take(&trie->cells, &trie->mem);
    if (root == NODE_NONE) {
        return HASHTRIE_ENOMEM;
    }
    CHECK(root == NODE_ROOT);
    cells_mark_node(&trie->cells, root, true);
    trie->node_count = 1;
    *node_at(trie, root) = (struct node){.parent = NODE_NONE,
                                         .edge_next = NODE_NONE,
                                         .lru_prev = NODE_NONE,
                                         .lru_next = NODE_NONE,
                                         .batch_pos = NODE_BATCH_NONE};
    return HASHTRIE_OK;
}

enum hashtrie_status hashtrie_new(const struct hashtrie_options *options, struct hashtrie **out)
{
    if (!options_valid(options)) {
        return HASHTRIE_EINVAL;
    }
    struct mem mem;
    mem_init(&mem, options->budget_bytes);
    struct hashtrie *trie = mem_alloc(&mem, sizeof *trie);
    if (trie == NULL) {
        return HASHTRIE_ENOMEM;
    }
    double budget = (double)options->budget_bytes;
    *trie = (struct hashtrie){
        .mem = mem,
        .chunk_size = options->chunk_size,
        .threshold_bytes = (size_t)(options->threshold * budget),
        .target_bytes = (size_t)(options->target * budget),
        .max_age_minutes = (options->max_entry_age_s + SECONDS_PER_MINUTE - 1) / SECONDS_PER_MINUTE,
        .pinned = NODE_NONE,
        .lru_head = NODE_NONE,
        .lru_tail = NODE_NONE,
        .dirty_head = NODE_NONE,
        .dirty_tail = NODE_NONE,
        .next_endpoint_id = 1,
    };
    enum hashtrie_status status = HASHTRIE_ENOMEM;
    if (!cells_init(&trie->cells, options->budget_bytes / 100 * CELLS_PERCENT)) {
        goto fail_trie;
    }
    status = root_add(trie);
    if (status != HASHTRIE_OK) {
        goto fail_cells;
    }
    status = HASHTRIE_ENOMEM;
    if (!edges_init(&trie->edges, &trie->cells, &trie->mem, options->seed)) {
        goto fail_cells;
    }
    if (pthread_mutex_init(&trie->lock, NULL) != 0) {
        goto fail_edges;
    }
    *out = trie;
    return HASHTRIE_OK;
fail_edges:
    edges_fini(&trie->edges, &trie->mem);
fail_cells:
    cells_fini(&trie->cells, &trie->mem);
fail_trie:
    mem = trie->mem;
    mem_free(&mem, trie, sizeof *trie);
    mem_fini(&mem);
    return status;
}

void hashtrie_free(struct hashtrie *trie)
{
    if (trie == NULL) {
        return;
    }
    REQUIRE(trie->batch == NULL);
    while (trie->lru_tail != NODE_NONE) {
        nodes_remove_leaf(trie, trie->lru_tail);
    }
    edges_fini(&trie->edges, &trie->mem);
    cells_fini(&trie->cells, &trie->mem);
    endpoints_fini(trie);
    (void)pthread_mutex_destroy(
        &trie->lock); /* Fails only while held, which is the caller's fault. */
    struct mem mem = trie->mem;
    mem_free(&mem, trie, sizeof *trie);
    mem_fini(&mem);
}

void hashtrie_lock(struct hashtrie *trie)
{
    CHECK(pthread_mutex_lock(&trie->lock) == 0);
}

void hashtrie_unlock(struct hashtrie *trie)
{
    CHECK(pthread_mutex_unlock(&trie->lock) == 0);
}

size_t trie_chunk_size(const struct hashtrie *trie)
{
    return trie->chunk_size;
}

void trie_set_time(struct hashtrie *trie, uint64_t now_s)
{
    uint64_t bucket = now_s / TRIE_BUCKET_SECONDS;
    if (bucket > trie->bucket && bucket <= UINT32_MAX) {
        trie->bucket = (uint32_t)bucket;
    }
}

void hashtrie_get_stats(const struct hashtrie *trie, struct hashtrie_stats *out)
{
    *out = (struct hashtrie_stats){
        .bytes_used = evict_bytes_held(trie),
        .bytes_budget = trie->mem.bytes_limit,
        .node_count = trie->node_count - 1, /* Without the root. */
        .chunk_count = trie->chunk_count,
        .endpoint_count = trie->endpoint_used,
        .dirty_node_count = trie->dirty_count,
        .evicted_node_count = trie->evicted_count,
        .spilled_node_count = trie->spilled_count,
        .dropped_node_count = trie->dropped_count,
        .reloaded_node_count = trie->reloaded_count,
        .unrecorded_count = trie->unrecorded_count,
        .collision_count = trie->collision_count,
        .conflict_count = trie->conflict_count,
    };
}
