/*
 * Repair: a new store from what can be read of a damaged one.
 *
 * Every record says by its checksum whether it is whole, and a row's state tells its key: so edges
 * and ages, and all branches of the trees, can be done without.
 *
 *     mark    walk all trees of the file; pages in them are live, those in the free list free
 *     stray   pages that are neither, where there was damage: their records are noted by row
 *     join    states in ascending order of rows, each with its run: from the trees first, then
 *             from stray pages; what fits together is written
 *
 * A stray page may hold an older version of a record. Of several the one used last counts, and none
 * counts against one in a tree. What comes back that way was true once: a hint like all others.
 */
#include "store/repair.h"

#include <stdio.h>
#include <string.h>

enum {
    STRAYS_MAX = 4 << 20, /* Noted of states, and of runs. */
    PROGRESS_PAGES = 256,
    FREE_LIST_BYTES_MAX = 2 << 20, /* LMDB's largest is about 1 MiB. */
};

void repair_progress(struct repair *repair, uint64_t pages)
{
    repair->done += pages;
    if (repair->options->on_progress != NULL && repair->done % PROGRESS_PAGES < pages) {
        uint64_t done = repair->done < repair->total ? repair->done : repair->total;
        repair->options->on_progress(repair->options->user, done, repair->total);
    }
}

/* ---- Mark ---- */

static void mark_overflow(struct repair *repair, const struct pages_node *node)
{
    size_t bytes = node->value_size + PAGES_HEADER_BYTES;
    for (size_t at = 0; node->value == NULL && at < bytes && at < FREE_LIST_BYTES_MAX;
         at += repair->pages.page_bytes) {
        pages_set_add(&repair->live, node->overflow + at / repair->pages.page_bytes);
    }
}

/* Calls `on_leaf` with every sane leaf of a tree and marks the tree's pages. */
static enum hashtrie_status mark_tree(struct repair *repair, uint64_t root, size_t key_size,
                                      enum hashtrie_status (*on_leaf)(struct repair *,
                                                                      const unsigned char *))
{
    struct pages_walk walk;
    if (!pages_walk_init(&walk, &repair->mem, &repair->pages, root, key_size)) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = HASHTRIE_OK;
    uint64_t number = 0;
    for (const unsigned char *leaf = pages_walk_next(&walk, &number);
         leaf != NULL && status == HASHTRIE_OK; leaf = pages_walk_next(&walk, &number)) {
        status = on_leaf(repair, leaf);
        repair_progress(repair, 1);
    }
    pages_set_add_all(&repair->live, &walk.seen);
    pages_walk_fini(&walk);
    return status;
}

static enum hashtrie_status mark_leaf(struct repair *repair, const unsigned char *leaf)
{
    for (uint32_t i = 0; i < pages_node_count(&repair->pages, leaf); i++) {
        struct pages_node node;
        if (pages_node_at(&repair->pages, leaf, i, &node)) {
            mark_overflow(repair, &node);
        }
    }
    return HASHTRIE_OK;
}

/* A value of the free list: a count, then numbers of pages. */
static enum hashtrie_status mark_free_list(struct repair *repair, const struct pages_node *node)
{
    size_t size = node->value_size;
    size_t step = repair->pages.page_bytes;
    if (size > FREE_LIST_BYTES_MAX) {
        return HASHTRIE_OK;
    }
    unsigned char *bytes = mem_alloc(&repair->mem, size + 2 * step);
    if (bytes == NULL) {
        return HASHTRIE_ENOMEM;
    }
    bool good = true;
    const unsigned char *list = node->value;
    if (list == NULL) {
        for (size_t at = 0; at < size + PAGES_HEADER_BYTES && good; at += step) {
            good = pages_read(&repair->pages, node->overflow + at / step, bytes + at);
        }
        list = bytes + PAGES_HEADER_BYTES;
    }
    for (size_t at = sizeof(uint64_t); at + sizeof(uint64_t) <= size && good;
         at += sizeof(uint64_t)) {
        uint64_t number = 0;
        memcpy(&number, list + at, sizeof number);
        pages_set_add(&repair->live, number);
    }
    mem_free(&repair->mem, bytes, size + 2 * step);
    return HASHTRIE_OK;
}

static enum hashtrie_status mark_free_leaf(struct repair *repair, const unsigned char *leaf)
{
    enum hashtrie_status status = HASHTRIE_OK;
    for (uint32_t i = 0; i < pages_node_count(&repair->pages, leaf) && status == HASHTRIE_OK; i++) {
        struct pages_node node;
        if (pages_node_at(&repair->pages, leaf, i, &node)) {
            mark_overflow(repair, &node);
            status = mark_free_list(repair, &node);
        }
    }
    return status;
}

static const struct {
    const char *name;
    size_t key_size;
} trees[DB_COUNT] = {
    [DB_META] = {"meta", META_KEY_SIZE},   [DB_ENDPOINTS] = {"endpoints", ENDPOINT_KEY_SIZE},
    [DB_EDGES] = {"edges", EDGE_KEY_SIZE}, [DB_RUNS] = {"runs", ROW_KEY_SIZE},
    [DB_STATE] = {"state", ROW_KEY_SIZE},  [DB_AGE] = {"age", AGE_KEY_SIZE},
};

static enum hashtrie_status find_roots(struct repair *repair, const unsigned char *leaf)
{
    for (uint32_t i = 0; i < pages_node_count(&repair->pages, leaf); i++) {
        struct pages_node node;
        if (!pages_node_at(&repair->pages, leaf, i, &node) || !node.is_tree) {
            continue;
        }
        for (int db = 0; db < DB_COUNT; db++) {
            if (node.key_size == strlen(trees[db].name) &&
                memcmp(node.key, trees[db].name, node.key_size) == 0) {
                repair->roots[db] = pages_tree_root(&node);
                repair->result.damaged_page_count -= repair->result.damaged_page_count > 0;
            }
        }
    }
    return HASHTRIE_OK;
}

static enum hashtrie_status mark(struct repair *repair)
{
    pages_set_add(&repair->live, 0);
    pages_set_add(&repair->live, 1);
    for (int db = 0; db < DB_COUNT; db++) {
        repair->roots[db] = PAGES_NONE;
    }
    repair->result.damaged_page_count = DB_COUNT; /* Less one for each tree that is found. */
    enum hashtrie_status status = mark_tree(repair, repair->pages.main_root, 0, find_roots);
    for (int db = 0; db < DB_COUNT && status == HASHTRIE_OK; db++) {
        status = mark_tree(repair, repair->roots[db], trees[db].key_size, mark_leaf);
    }
    if (status == HASHTRIE_OK) {
        status = mark_tree(repair, repair->pages.free_root, 0, mark_free_leaf);
    }
    repair->result.damaged_page_count += repair->pages.damaged_count;
    return status;
}

/* ---- Records of leaves ---- */

/* The fixed part of a run's record; its checksum needs the state's prefix. */
static bool looks_like_run(const struct repair *repair, const struct pages_node *node)
{
    const unsigned char *bytes = node->value;
    if (node->key_size != ROW_KEY_SIZE || node->value_size <= RUN_HEADER_SIZE ||
        node->value_size > RUN_BYTES_MAX || (node->value_size - RUN_HEADER_SIZE) % 4 != 0) {
        return false;
    }
    if (bytes == NULL) {
        return node->overflow < repair->pages.page_count;
    }
    return bytes[CHECKSUM_SIZE] == RECORD_VERSION && bytes[CHECKSUM_SIZE + 1] == 0;
}

bool repair_is_state(const struct pages_node *node, struct trie_record *record,
                     struct trie_stored_holder *holders)
{
    return node->key_size == ROW_KEY_SIZE && node->value != NULL &&
           record_decode_state(node->value, node->value_size, record_get_u64(node->key), record,
                               holders);
}

/* The larger counts: of two versions it is the newer. */
static void take_meta(struct repair *repair, const struct pages_node *node)
{
    uint64_t number = 0;
    uint32_t field = node->key_size == META_KEY_SIZE ? record_get_u32(node->key) : META_FIELDS;
    if (field >= META_FIELDS || node->value == NULL ||
        !record_decode_meta(node->value, node->value_size, (enum meta_field)field, &number)) {
        return;
    }
    if (!repair->meta_known[field] || number > repair->meta[field]) {
        repair->meta[field] = number;
    }
    repair->meta_known[field] = true;
}

static enum hashtrie_status take_meta_leaf(struct repair *repair, const unsigned char *leaf)
{
    for (uint32_t i = 0; i < pages_node_count(&repair->pages, leaf); i++) {
        struct pages_node node;
        if (pages_node_at(&repair->pages, leaf, i, &node)) {
            take_meta(repair, &node);
        }
    }
    return HASHTRIE_OK;
}

static bool take_endpoint(struct repair *repair, const struct pages_node *node)
{
    const unsigned char *bytes =
        node->key_size == ENDPOINT_KEY_SIZE && node->value_size > META_VALUE_SIZE
            ? pages_value(&repair->pages, node, repair->value)
            : NULL;
    return bytes != NULL && record_decode_endpoint(bytes, node->value_size,
                                                   record_get_u32(node->key), &repair->endpoint);
}

/* ---- Stray pages ---- */

static bool stray_add(struct repair *repair, struct strays *strays, uint64_t row, uint64_t page,
                      uint32_t index)
{
    if (strays->count == STRAYS_MAX) {
        repair->result.lost_count++;
        return true;
    }
    if (strays->count == strays->capacity) {
        size_t capacity = strays->capacity == 0 ? 1024 : strays->capacity * 2;
        struct stray *grown = mem_realloc(
            &repair->mem, strays->list, strays->capacity * sizeof *grown, capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        strays->list = grown;
        strays->capacity = capacity;
    }
    strays->list[strays->count++] =
        (struct stray){.row = row, .page = (uint32_t)page, .index = index};
    return true;
}

static bool note_strays(struct repair *repair, uint64_t number)
{
    const struct pages *pages = &repair->pages;
    for (uint32_t i = 0; i < pages_node_count(pages, repair->page); i++) {
        struct pages_node node;
        struct trie_record record;
        if (!pages_node_at(pages, repair->page, i, &node)) {
            continue;
        }
        take_meta(repair, &node);
        struct strays *strays = NULL;
        if (repair_is_state(&node, &record, NULL)) {
            strays = &repair->states.strays;
        } else if (looks_like_run(repair, &node)) {
            strays = &repair->runs.strays;
        }
        if (strays != NULL && !stray_add(repair, strays, record_get_u64(node.key), number, i)) {
            return false;
        }
    }
    return true;
}

/* Every page that is neither in a tree nor free, read into repair->page. */
static enum hashtrie_status scan_strays(struct repair *repair,
                                        enum hashtrie_status (*on_page)(struct repair *, uint64_t))
{
    enum hashtrie_status status = HASHTRIE_OK;
    for (uint64_t i = 0; i < repair->pages.page_count && status == HASHTRIE_OK; i++) {
        if (!pages_set_has(&repair->live, i) && pages_read(&repair->pages, i, repair->page)) {
            status = on_page(repair, i);
        }
        repair_progress(repair, 1);
    }
    return status;
}

static enum hashtrie_status note_page(struct repair *repair, uint64_t number)
{
    return note_strays(repair, number) ? HASHTRIE_OK : HASHTRIE_ENOMEM;
}

/* ---- Endpoints ---- */

static enum hashtrie_status write_endpoint(struct repair *repair)
{
    enum hashtrie_status status = build_ready(&repair->build);
    repair->result.endpoint_count++;
    return status == HASHTRIE_OK ? build_put_endpoint(&repair->build, &repair->endpoint) : status;
}

static enum hashtrie_status endpoints_leaf(struct repair *repair, const unsigned char *leaf)
{
    enum hashtrie_status status = HASHTRIE_OK;
    for (uint32_t i = 0; i < pages_node_count(&repair->pages, leaf) && status == HASHTRIE_OK; i++) {
        struct pages_node node;
        if (pages_node_at(&repair->pages, leaf, i, &node) && take_endpoint(repair, &node)) {
            status = write_endpoint(repair);
        }
    }
    return status;
}

/* Of an endpoint that is known already the record written last counts. */
static enum hashtrie_status endpoints_stray_page(struct repair *repair, uint64_t number)
{
    (void)number;
    enum hashtrie_status status = HASHTRIE_OK;
    for (uint32_t i = 0; i < pages_node_count(&repair->pages, repair->page); i++) {
        struct pages_node node;
        uint64_t seen_s = 0;
        if (!pages_node_at(&repair->pages, repair->page, i, &node) ||
            !take_endpoint(repair, &node)) {
            continue;
        }
        status = build_ready(&repair->build);
        if (status == HASHTRIE_OK) {
            status = build_endpoint_seen(&repair->build, repair->endpoint.id, &seen_s);
        }
        if (status == HASHTRIE_ENOENT) {
            status = write_endpoint(repair);
        } else if (status == HASHTRIE_OK && seen_s < repair->endpoint.seen_s) {
            status = build_put_endpoint(&repair->build, &repair->endpoint);
        }
        if (status != HASHTRIE_OK) {
            return status;
        }
    }
    return HASHTRIE_OK;
}

/* ---- All of it ---- */

/* What the file says of itself; what it no longer says comes from the caller. */
static enum hashtrie_status check_meta(struct repair *repair)
{
    if (repair->meta_known[META_FORMAT] && repair->meta[META_FORMAT] != HASHTRIE_FORMAT_VERSION) {
        return HASHTRIE_EVERSION;
    }
    if (!repair->meta_known[META_CHUNK_SIZE]) {
        repair->meta[META_CHUNK_SIZE] = repair->options->chunk_size;
    }
    return repair->meta[META_CHUNK_SIZE] == 0 ? HASHTRIE_ECORRUPT : HASHTRIE_OK;
}

static enum hashtrie_status look(struct repair *repair)
{
    enum hashtrie_status status = mark(repair);
    if (status == HASHTRIE_OK) {
        status = mark_tree(repair, repair->roots[DB_META], META_KEY_SIZE, take_meta_leaf);
    }
    if (status == HASHTRIE_OK && repair->result.damaged_page_count > 0) {
        status = scan_strays(repair, note_page);
    }
    return status == HASHTRIE_OK ? check_meta(repair) : status;
}

static enum hashtrie_status write_all(struct repair *repair)
{
    enum hashtrie_status status =
        mark_tree(repair, repair->roots[DB_ENDPOINTS], ENDPOINT_KEY_SIZE, endpoints_leaf);
    if (status == HASHTRIE_OK && repair->result.damaged_page_count > 0) {
        status = scan_strays(repair, endpoints_stray_page);
    }
    if (status == HASHTRIE_OK) {
        status = repair_join(repair);
    }
    return status;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static enum hashtrie_status build_all(struct repair *repair, const char *out_directory)
{
    uint64_t map_bytes = larger(repair->pages.map_bytes, HASHTRIE_STORE_BYTES_MIN);
    map_bytes = map_bytes <= HASHTRIE_STORE_BYTES_MAX ? map_bytes : HASHTRIE_STORE_BYTES_MAX;
    enum hashtrie_status status =
        build_create(&repair->build, out_directory, map_bytes, repair->meta[META_CHUNK_SIZE]);
    if (status != HASHTRIE_OK) {
        return status;
    }
    struct build *build = &repair->build;
    build->next_endpoint_id = larger(repair->meta[META_NEXT_ENDPOINT_ID], 1);
    build->newest_bucket = repair->meta[META_NEWEST_BUCKET];
    build->last_checkpoint_ms = repair->meta[META_LAST_CHECKPOINT_MS];
    status = write_all(repair);
    if (status != HASHTRIE_OK) {
        build_abandon(build);
        return status;
    }
    repair->result.node_count = build->node_count;
    repair->result.chunk_count = build->chunk_count;
    return build_finish(build);
}

static void repair_fini(struct repair *repair)
{
    repair_join_fini(repair);
    pages_set_fini(&repair->live, &repair->mem);
    mem_free(&repair->mem, repair->page, repair->pages.page_bytes);
    mem_free(&repair->mem, repair->value, repair->pages.page_bytes);
    pages_close(&repair->pages);
}

static bool repair_init(struct repair *repair)
{
    repair->total = repair->pages.page_count * 2; /* Marked, then written. */
    repair->page = mem_alloc(&repair->mem, repair->pages.page_bytes);
    repair->value = mem_alloc(&repair->mem, repair->pages.page_bytes);
    return repair->page != NULL && repair->value != NULL &&
           pages_set_init(&repair->live, &repair->mem, &repair->pages);
}

enum hashtrie_status hashtrie_store_repair(const char *directory, const char *out_directory,
                                           const struct hashtrie_repair_options *options,
                                           struct hashtrie_repair_result *out)
{
    const struct hashtrie_repair_options defaults = {0};
    char path[ENV_PATH_BYTES_MAX];
    int size = snprintf(path, sizeof path, "%s/data.mdb", directory);
    if (size <= 0 || size >= (int)sizeof path) {
        return HASHTRIE_EINVAL;
    }
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct repair *repair = mem_alloc_zero(&mem, sizeof *repair);
    if (repair == NULL) {
        return HASHTRIE_ENOMEM;
    }
    mem_init(&repair->mem, SIZE_MAX);
    repair->options = options == NULL ? &defaults : options;
    enum hashtrie_status status = pages_open(&repair->pages, path);
    if (status == HASHTRIE_OK) {
        status = repair_init(repair) ? look(repair) : HASHTRIE_ENOMEM;
        if (status == HASHTRIE_OK) {
            status = build_all(repair, out_directory);
        }
        if (status == HASHTRIE_OK) {
            *out = repair->result;
        }
        repair_fini(repair);
        mem_fini(&repair->mem);
    }
    mem_free(&mem, repair, sizeof *repair);
    mem_fini(&mem);
    return status;
}
