/* Repair: states and runs, each from its tree and from stray pages, put together by row. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/repair.h"

enum { STRAYS_TRIED_MAX = 64 }; /* Versions of one row that are looked at. */

static int compare_strays(const void *left, const void *right)
{
    uint64_t a = ((const struct stray *)left)->row;
    uint64_t b = ((const struct stray *)right)->row;
    return (a > b) - (a < b);
}

static void strays_sort(struct strays *strays)
{
    if (strays->count > 1) {
        qsort(strays->list, strays->count, sizeof *strays->list, compare_strays);
    }
}

static bool stream_init(struct repair *repair, struct stream *stream, uint64_t root)
{
    size_t size = repair->pages.page_bytes;
    stream->page = mem_alloc(&repair->mem, size);
    stream->overflow = mem_alloc(&repair->mem, size);
    return stream->page != NULL && stream->overflow != NULL &&
           pages_walk_init(&stream->walk, &repair->mem, &repair->pages, root, ROW_KEY_SIZE);
}

static void stream_fini(struct repair *repair, struct stream *stream)
{
    size_t size = repair->pages.page_bytes;
    mem_free(&repair->mem, stream->page, size);
    mem_free(&repair->mem, stream->overflow, size);
    mem_free(&repair->mem, stream->strays.list,
             stream->strays.capacity * sizeof *stream->strays.list);
    if (stream->walk.buffers != NULL) {
        pages_walk_fini(&stream->walk);
    }
}

/* The tree's next record. */
static void stream_next(struct repair *repair, struct stream *stream)
{
    struct pages_node node;
    stream->index++;
    while (stream->leaf == NULL || stream->index >= stream->count) {
        uint64_t number = 0;
        stream->leaf = pages_walk_next(&stream->walk, &number);
        stream->row = UINT64_MAX;
        if (stream->leaf == NULL) {
            return;
        }
        repair_progress(repair, 1);
        stream->index = 0;
        stream->count = pages_node_count(&repair->pages, stream->leaf);
    }
    CHECK(pages_node_at(&repair->pages, stream->leaf, stream->index, &node)); /* A sane leaf. */
    stream->row = record_get_u64(node.key);
}

static uint64_t stream_row(const struct stream *stream)
{
    uint64_t stray =
        stream->at < stream->strays.count ? stream->strays.list[stream->at].row : UINT64_MAX;
    return stray < stream->row ? stray : stream->row;
}

/* Leaves everything below a row behind. */
static void stream_seek(struct repair *repair, struct stream *stream, uint64_t row)
{
    while (stream->row < row) {
        stream_next(repair, stream);
    }
    while (stream->at < stream->strays.count && stream->strays.list[stream->at].row < row) {
        stream->at++;
    }
}

/*
 * The stream's version number `version` of a row: 0 is the tree's, then come stray ones. False:
 * there are no more; node->key_size 0: this one cannot be read.
 */
static bool stream_version(struct repair *repair, struct stream *stream, uint64_t row,
                           size_t version, struct pages_node *node)
{
    *node = (struct pages_node){0};
    if (version == 0) {
        if (stream->row == row &&
            !pages_node_at(&repair->pages, stream->leaf, stream->index, node)) {
            *node = (struct pages_node){0};
        }
        return true;
    }
    size_t at = stream->at + version - 1;
    if (version > STRAYS_TRIED_MAX || at >= stream->strays.count ||
        stream->strays.list[at].row != row) {
        return false;
    }
    const struct stray *stray = &stream->strays.list[at];
    if (!pages_read(&repair->pages, stray->page, stream->page) ||
        !pages_node_at(&repair->pages, stream->page, stray->index, node)) {
        *node = (struct pages_node){0};
    }
    return true;
}

/* A row as it is put together. */
struct joined {
    struct trie_record record;
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    bool stray;
};

/* Finds the run that fits a state. */
static bool join_run(struct repair *repair, uint64_t row, struct joined *joined)
{
    struct pages_node node;
    for (size_t i = 0; stream_version(repair, &repair->runs, row, i, &node); i++) {
        uint32_t length = 0;
        const unsigned char *bytes =
            node.key_size == 0 || node.value_size > RUN_BYTES_MAX
                ? NULL
                : pages_value(&repair->pages, &node, repair->runs.overflow);
        if (bytes != NULL &&
            record_decode_run(bytes, node.value_size, joined->record.prefix, joined->run,
                              &length) &&
            record_run_fits(&joined->record, joined->run, length)) {
            joined->record.run = joined->run;
            joined->stray = joined->stray || i > 0;
            return true;
        }
    }
    return false;
}

/* The best state of a row that has a run; false: none. */
static bool join(struct repair *repair, uint64_t row, struct joined *best, struct joined *tried)
{
    struct pages_node node;
    bool found = false;
    for (size_t i = 0; stream_version(repair, &repair->states, row, i, &node); i++) {
        if (node.key_size == 0 || !repair_is_state(&node, &tried->record, tried->holders) ||
            (found && tried->record.bucket <= best->record.bucket)) {
            continue;
        }
        tried->stray = i > 0;
        if (join_run(repair, row, tried)) {
            *best = *tried;
            best->record.run = best->run;
            best->record.holders = best->holders;
            found = true;
        }
        if (found && i == 0) {
            return true;
        }
    }
    return found;
}

static enum hashtrie_status join_all(struct repair *repair, struct joined *best,
                                     struct joined *tried)
{
    enum hashtrie_status status = HASHTRIE_OK;
    stream_next(repair, &repair->states);
    stream_next(repair, &repair->runs);
    for (uint64_t after = 0; status == HASHTRIE_OK;) {
        uint64_t state_row = stream_row(&repair->states);
        uint64_t run_row = stream_row(&repair->runs);
        uint64_t row = state_row < run_row ? state_row : run_row;
        if (row == UINT64_MAX) {
            break;
        }
        CHECK(row >= after);
        stream_seek(repair, &repair->states, row);
        stream_seek(repair, &repair->runs, row);
        if (join(repair, row, best, tried)) {
            status = build_ready(&repair->build);
            if (status == HASHTRIE_OK) {
                status = build_put(&repair->build, &best->record);
            }
            repair->result.stray_count += best->stray;
        } else {
            repair->result.lost_count++;
        }
        after = row + 1;
        stream_seek(repair, &repair->states, after);
        stream_seek(repair, &repair->runs, after);
    }
    return status;
}

enum hashtrie_status repair_join(struct repair *repair)
{
    if (!stream_init(repair, &repair->states, repair->roots[DB_STATE]) ||
        !stream_init(repair, &repair->runs, repair->roots[DB_RUNS])) {
        return HASHTRIE_ENOMEM;
    }
    strays_sort(&repair->states.strays);
    strays_sort(&repair->runs.strays);
    struct joined *joined = mem_alloc(&repair->mem, 2 * sizeof *joined);
    if (joined == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = join_all(repair, joined, joined + 1);
    mem_free(&repair->mem, joined, 2 * sizeof *joined);
    return status;
}

void repair_join_fini(struct repair *repair)
{
    stream_fini(repair, &repair->states);
    stream_fini(repair, &repair->runs);
}
