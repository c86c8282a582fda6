/* Scans of a store for people, each slice in a short read transaction: all rows, and nodes by key.
 */
#include <string.h>

#include "base/check.h"
#include "store/reader.h"

enum {
    ROWS_PER_SLICE = 128,
    /* LMDB's of one entry: its place and header. */
    ENTRY_BYTES = 10,
    OVERFLOW_HEADER_BYTES = 16,
    OVERFLOW_NUMBER_BYTES = 8,
};

/* ---- By row ---- */

struct row_scan {
    struct hashtrie_reader *reader;
    uint64_t next;
    uint64_t corrupt;
    size_t count;
    struct hashtrie_reader_node *nodes; /* Owned: ROWS_PER_SLICE. */
    uint64_t bytes[ROWS_PER_SLICE];
};

/* The four entries of a row. A value that does not fit half a page lies on a page of its own. */
static uint64_t stored_bytes(const struct hashtrie_reader *reader, size_t state_size,
                             uint32_t length)
{
    uint64_t run = RUN_HEADER_SIZE + (uint64_t)4 * length;
    if (run + ROW_KEY_SIZE + ENTRY_BYTES > (reader->env.page_bytes - OVERFLOW_HEADER_BYTES) / 2) {
        run += OVERFLOW_HEADER_BYTES + OVERFLOW_NUMBER_BYTES;
    }
    return (uint64_t)4 * ENTRY_BYTES + EDGE_KEY_SIZE + ROW_VALUE_SIZE + AGE_KEY_SIZE +
           (uint64_t)2 * ROW_KEY_SIZE + state_size + run;
}

/* ENOENT: no more. */
static enum hashtrie_status rows_slice(struct row_scan *scan)
{
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(scan->reader, DB_STATE, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    unsigned char name[ROW_KEY_SIZE];
    record_put_u64(name, scan->next);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value;
    status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_SET_RANGE));
    for (int i = 0; i < ROWS_PER_SLICE && status == HASHTRIE_OK; i++) {
        struct trie_record record;
        struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
        if (key.mv_size != ROW_KEY_SIZE || record_get_u64(key.mv_data) == UINT64_MAX ||
            record_get_u64(key.mv_data) < scan->next) {
            status = HASHTRIE_ECORRUPT;
            break;
        }
        uint64_t number = record_get_u64(key.mv_data);
        if (record_decode_state(value.mv_data, value.mv_size, number, &record, holders)) {
            scan->bytes[scan->count] = stored_bytes(scan->reader, value.mv_size, record.length);
            reader_fill_node(&record, holders, &scan->nodes[scan->count++]);
        } else {
            scan->corrupt++;
        }
        scan->next = number + 1;
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_NEXT));
    }
    reader_slice_end(&slice);
    return status;
}

enum hashtrie_status hashtrie_reader_rows(struct hashtrie_reader *reader,
                                          hashtrie_reader_on_row *on_row, void *user)
{
    struct row_scan scan = {.reader = reader};
    size_t size = ROWS_PER_SLICE * sizeof *scan.nodes;
    scan.nodes = mem_alloc(&reader->mem, size);
    if (scan.nodes == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = HASHTRIE_OK;
    bool more = true;
    while (status == HASHTRIE_OK && more) {
        scan.count = 0;
        status = rows_slice(&scan);
        for (size_t i = 0; i < scan.count && more; i++) {
            more = on_row(user, &scan.nodes[i], scan.bytes[i]);
        }
    }
    mem_free(&reader->mem, scan.nodes, size);
    if (status == HASHTRIE_OK || status == HASHTRIE_ENOENT) {
        return scan.corrupt == 0 ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
    }
    return status;
}

/* ---- By key ---- */

bool reader_place_reached(const struct hashtrie_reader_place *place, const unsigned char *key)
{
    unsigned char name[EDGE_KEY_SIZE];
    record_edge_key(name, place->prefix, place->fingerprint);
    return memcmp(key, name, sizeof name) >= 0;
}

bool reader_place_after(struct hashtrie_reader_place *place, uint64_t prefix, uint32_t fp)
{
    place->fingerprint = fp + 1;
    place->prefix = fp == UINT32_MAX ? prefix + 1 : prefix;
    place->ended = fp == UINT32_MAX && prefix == UINT64_MAX;
    return !place->ended;
}

enum hashtrie_status reader_slice_edge(struct reader_slice *slice, MDB_cursor_op op,
                                       struct hashtrie_reader_place *place, uint64_t *prefix,
                                       uint32_t *fp)
{
    if (op == MDB_NEXT && !reader_place_after(place, *prefix, *fp)) {
        return HASHTRIE_ENOENT;
    }
    unsigned char name[EDGE_KEY_SIZE];
    record_edge_key(name, place->prefix, place->fingerprint);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value;
    enum hashtrie_status status = env_status(mdb_cursor_get(slice->cursor, &key, &value, op));
    if (status != HASHTRIE_OK) {
        return status;
    }
    if (key.mv_size != EDGE_KEY_SIZE || !reader_place_reached(place, key.mv_data)) {
        return HASHTRIE_ECORRUPT;
    }
    *prefix = record_get_u64(key.mv_data);
    *fp = record_get_u32((const unsigned char *)key.mv_data + 8);
    return HASHTRIE_OK;
}

enum hashtrie_status hashtrie_reader_slice(struct hashtrie_reader *reader,
                                           struct hashtrie_reader_place *place,
                                           struct hashtrie_reader_node *nodes,
                                           size_t node_count_max, size_t *node_count)
{
    REQUIRE(node_count_max > 0);
    *node_count = 0;
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(reader, DB_EDGES, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    uint64_t prefix = 0;
    uint32_t fp = 0;
    status = reader_slice_edge(&slice, MDB_SET_RANGE, place, &prefix, &fp);
    for (size_t looked = 0; looked < node_count_max && status == HASHTRIE_OK; looked++) {
        if (reader_read_node(reader, slice.txn, prefix, fp, &nodes[*node_count]) == HASHTRIE_OK) {
            ++*node_count;
        } else {
            place->corrupt_count++;
        }
        status = reader_slice_edge(&slice, MDB_NEXT, place, &prefix, &fp);
    }
    reader_slice_end(&slice);
    place->ended = place->ended || status == HASHTRIE_ENOENT;
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}
