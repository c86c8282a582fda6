/* Reading a store for people: figures, endpoints, nodes. Callbacks run outside any transaction. */
#include "store/reader.h"

#include <assert.h>
#include <string.h>

#include "base/check.h"

enum {
    NODES_PER_SLICE = 128,
    PREFIXES_PER_SLICE = 128,
    ENDPOINTS_PER_SLICE = 32,
};

static enum hashtrie_status open_reader(const char *directory, bool alone,
                                        struct hashtrie_reader **out)
{
    if (strnlen(directory, ENV_PATH_BYTES_MAX) >= ENV_PATH_BYTES_MAX / 2) {
        return HASHTRIE_EINVAL;
    }
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct hashtrie_reader *reader = mem_alloc_zero(&mem, sizeof *reader);
    if (reader == NULL) {
        return HASHTRIE_ENOMEM;
    }
    reader->mem = mem;
    memcpy(reader->directory, directory, strlen(directory));
    enum hashtrie_status status =
        alone ? env_open_alone(&reader->env, reader->directory, 0)
              : env_open_readonly(&reader->env, reader->directory, &reader->lockless);
    if (status != HASHTRIE_OK) {
        hashtrie_reader_close(reader);
        return status;
    }
    *out = reader;
    return HASHTRIE_OK;
}

enum hashtrie_status hashtrie_reader_open(const char *directory, struct hashtrie_reader **out)
{
    return open_reader(directory, false, out);
}

enum hashtrie_status reader_open_alone(const char *directory, struct hashtrie_reader **out)
{
    return open_reader(directory, true, out);
}

void hashtrie_reader_close(struct hashtrie_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    env_close(&reader->env);
    struct mem mem = reader->mem;
    mem_free(&mem, reader, sizeof *reader);
    mem_fini(&mem);
}

enum hashtrie_status reader_slice_begin(struct hashtrie_reader *reader, enum env_db db,
                                        struct reader_slice *slice)
{
    *slice = (struct reader_slice){0};
    enum hashtrie_status status =
        env_status(mdb_txn_begin(reader->env.mdb, NULL, MDB_RDONLY, &slice->txn));
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = env_status(mdb_cursor_open(slice->txn, reader->env.dbi[db], &slice->cursor));
    if (status != HASHTRIE_OK) {
        mdb_txn_abort(slice->txn);
    }
    return status;
}

void reader_slice_end(struct reader_slice *slice)
{
    mdb_cursor_close(slice->cursor);
    mdb_txn_abort(slice->txn);
}

/* ---- Figures ---- */

static uint64_t meta_or_0(struct hashtrie_reader *reader, MDB_txn *txn, enum meta_field field)
{
    uint64_t number = 0;
    bool good = env_meta_get(&reader->env, txn, field, &number) == HASHTRIE_OK;
    return good ? number : 0;
}

static void read_meta(struct hashtrie_reader *reader, MDB_txn *txn,
                      struct hashtrie_reader_info *out)
{
    out->format_version = meta_or_0(reader, txn, META_FORMAT);
    out->chunk_size = meta_or_0(reader, txn, META_CHUNK_SIZE);
    out->hash_seed = meta_or_0(reader, txn, META_HASH_SEED);
    out->next_endpoint_id = meta_or_0(reader, txn, META_NEXT_ENDPOINT_ID);
    out->newest_use_unix_s = meta_or_0(reader, txn, META_NEWEST_BUCKET) * TRIE_BUCKET_SECONDS;
    out->last_checkpoint_unix_ms = meta_or_0(reader, txn, META_LAST_CHECKPOINT_MS);
    out->clean = meta_or_0(reader, txn, META_CLEAN) == 1;
    out->chunk_count = meta_or_0(reader, txn, META_CHUNK_COUNT);
    uint64_t cap_bytes = meta_or_0(reader, txn, META_CAP_BYTES);
    out->cap_bytes = cap_bytes != 0 ? cap_bytes : reader->env.map_bytes;
    out->reload_found_count = meta_or_0(reader, txn, META_RELOADS_FOUND);
    out->reload_missed_count = meta_or_0(reader, txn, META_RELOADS_MISSED);
}

enum hashtrie_status hashtrie_reader_get_info(struct hashtrie_reader *reader,
                                              struct hashtrie_reader_info *out)
{
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(reader, DB_AGE, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    struct hashtrie_reader_info info = {.lockless = reader->lockless,
                                        .file_bytes = env_file_bytes(reader->directory),
                                        .page_bytes = reader->env.page_bytes};
    read_meta(reader, slice.txn, &info);
    MDB_val key;
    MDB_val value;
    if (mdb_cursor_get(slice.cursor, &key, &value, MDB_FIRST) == MDB_SUCCESS &&
        key.mv_size == AGE_KEY_SIZE) {
        info.oldest_use_unix_s = (uint64_t)record_get_u32(key.mv_data) * TRIE_BUCKET_SECONDS;
    }
    uint64_t pages = 0;
    status = env_used_pages(&reader->env, slice.txn, &pages);
    info.used_bytes = pages * reader->env.page_bytes;
    if (status == HASHTRIE_OK) {
        status = env_entries(&reader->env, slice.txn, DB_EDGES, &info.node_count);
    }
    if (status == HASHTRIE_OK) {
        status = env_entries(&reader->env, slice.txn, DB_ENDPOINTS, &info.endpoint_count);
    }
    reader_slice_end(&slice);
    if (status == HASHTRIE_OK) {
        *out = info;
    }
    return status;
}

/* ---- Endpoints ---- */

/* Copies readable endpoints from id *from on; *from is then where to go on. ENOENT: that was all.
 */
static enum hashtrie_status endpoints_slice(struct hashtrie_reader *reader, uint64_t *from,
                                            struct record_endpoint *records, size_t *count)
{
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(reader, DB_ENDPOINTS, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    unsigned char name[ENDPOINT_KEY_SIZE];
    record_put_u32(name, (uint32_t)*from);
    MDB_val key = env_val(name, sizeof name);
    MDB_val value;
    status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_SET_RANGE));
    *count = 0;
    while (status == HASHTRIE_OK && *count < ENDPOINTS_PER_SLICE) {
        if (key.mv_size == ENDPOINT_KEY_SIZE && record_get_u32(key.mv_data) >= *from) {
            uint32_t id = record_get_u32(key.mv_data);
            *count += record_decode_endpoint(value.mv_data, value.mv_size, id, &records[*count]);
            *from = (uint64_t)id + 1;
        }
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_NEXT));
    }
    reader_slice_end(&slice);
    return status == HASHTRIE_OK && *from > UINT32_MAX ? HASHTRIE_ENOENT : status;
}

static bool tell_endpoints(const struct record_endpoint *records, size_t count,
                           hashtrie_reader_on_endpoint *on_endpoint, void *user)
{
    for (size_t i = 0; i < count; i++) {
        struct hashtrie_reader_endpoint endpoint = {.id = records[i].id,
                                                    .odometer_kib = records[i].odometer_kib,
                                                    .seen_unix_s = records[i].seen_s,
                                                    .name = records[i].name,
                                                    .model = records[i].model,
                                                    .generation = records[i].generation};
        if (!on_endpoint(user, &endpoint)) {
            return false;
        }
    }
    return true;
}

enum hashtrie_status hashtrie_reader_endpoints(struct hashtrie_reader *reader,
                                               hashtrie_reader_on_endpoint *on_endpoint, void *user)
{
    size_t size = ENDPOINTS_PER_SLICE * sizeof(struct record_endpoint);
    struct record_endpoint *records = mem_alloc(&reader->mem, size);
    if (records == NULL) {
        return HASHTRIE_ENOMEM;
    }
    uint64_t from = 0;
    enum hashtrie_status status = HASHTRIE_OK;
    bool more = true;
    while (status == HASHTRIE_OK && more) {
        size_t count = 0;
        status = endpoints_slice(reader, &from, records, &count);
        more = tell_endpoints(records, count, on_endpoint, user);
    }
    mem_free(&reader->mem, records, size);
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

/* ---- Nodes ---- */

void reader_fill_node(const struct trie_record *record, const struct trie_stored_holder *holders,
                      struct hashtrie_reader_node *out)
{
    bool by_all = record->holder_count == TRIE_HELD_BY_ALL;
    *out = (struct hashtrie_reader_node){
        .prefix = record->prefix,
        .end = record->end,
        .fingerprint = record->fp,
        .depth = record->depth,
        .chunk_count = record->length,
        .used_unix_s = (uint64_t)record->bucket * TRIE_BUCKET_SECONDS,
        .held_by_all = by_all,
        .holder_count = by_all ? 0 : record->holder_count,
    };
    for (uint32_t i = 0; i < out->holder_count; i++) {
        out->holders[i] =
            (struct hashtrie_reader_holder){.endpoint_id = holders[i].id,
                                            .last_used_unix_s = holders[i].last_used_s,
                                            .odometer_kib = holders[i].odometer_kib};
    }
}

enum hashtrie_status reader_read_node(struct hashtrie_reader *reader, MDB_txn *txn, uint64_t prefix,
                                      uint32_t fp, struct hashtrie_reader_node *out)
{
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    struct row row = {0};
    enum hashtrie_status status = row_find(&reader->env, txn, prefix, fp, holders, &row);
    if (status == HASHTRIE_OK) {
        reader_fill_node(&row.record, holders, out);
    }
    return status;
}

enum hashtrie_status hashtrie_reader_find(struct hashtrie_reader *reader, uint64_t prefix,
                                          uint32_t fingerprint, struct hashtrie_reader_node *out)
{
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(reader, DB_EDGES, &slice);
    if (status == HASHTRIE_OK) {
        status = reader_read_node(reader, slice.txn, prefix, fingerprint, out);
        reader_slice_end(&slice);
    }
    return status;
}

static_assert(HASHTRIE_READER_RUN_MAX == TRIE_RUN_LENGTH_MAX, "callers have room for any run");

enum hashtrie_status hashtrie_reader_run(struct hashtrie_reader *reader, uint64_t prefix,
                                         uint32_t fingerprint, uint32_t *run, uint32_t *chunk_count)
{
    struct reader_slice slice;
    struct row row = {0};
    enum hashtrie_status status = reader_slice_begin(reader, DB_EDGES, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = row_find(&reader->env, slice.txn, prefix, fingerprint, NULL, &row);
    if (status == HASHTRIE_OK) {
        status = row_read_run(&reader->env, slice.txn, &row, run);
    }
    reader_slice_end(&slice);
    if (status == HASHTRIE_OK) {
        *chunk_count = row.record.length;
    }
    return status;
}

/* A scan over the edges of a range of prefixes. */
struct scan {
    struct hashtrie_reader *reader;
    unsigned char next[EDGE_KEY_SIZE]; /* Where the next slice begins. */
    uint64_t last_prefix;
    uint64_t corrupt;
    size_t count; /* Of what this slice has found. */
    union {
        struct hashtrie_reader_node *nodes; /* NODES_PER_SLICE. */
        struct found_prefix *prefixes;      /* PREFIXES_PER_SLICE. */
    } found;
};

struct found_prefix {
    uint64_t prefix;
    uint32_t depth;
};

/* The edge under the cursor. ENOENT: past the range. */
static enum hashtrie_status edge_at(struct scan *scan, const MDB_val *key, uint64_t *prefix,
                                    uint32_t *fp)
{
    if (key->mv_size != EDGE_KEY_SIZE) {
        return HASHTRIE_ECORRUPT;
    }
    const unsigned char *name = key->mv_data;
    if (memcmp(name, scan->next, EDGE_KEY_SIZE) < 0) {
        return HASHTRIE_ECORRUPT; /* Keys out of order could lead in a circle. */
    }
    memcpy(scan->next, name, EDGE_KEY_SIZE);
    *prefix = record_get_u64(name);
    *fp = record_get_u32(name + 8);
    return *prefix > scan->last_prefix ? HASHTRIE_ENOENT : HASHTRIE_OK;
}

static enum hashtrie_status nodes_slice(struct scan *scan)
{
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(scan->reader, DB_EDGES, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    MDB_val key = env_val(scan->next, EDGE_KEY_SIZE);
    MDB_val value;
    scan->count = 0;
    status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_SET_RANGE));
    for (int i = 0; i <= NODES_PER_SLICE && status == HASHTRIE_OK; i++) {
        uint64_t prefix = 0;
        uint32_t fp = 0;
        status = edge_at(scan, &key, &prefix, &fp);
        if (status != HASHTRIE_OK || i == NODES_PER_SLICE) {
            break; /* The next slice begins with this one. */
        }
        enum hashtrie_status read =
            reader_read_node(scan->reader, slice.txn, prefix, fp, &scan->found.nodes[scan->count]);
        scan->count += read == HASHTRIE_OK;
        scan->corrupt += read != HASHTRIE_OK;
        struct hashtrie_reader_place place = {0};
        if (!reader_place_after(&place, prefix, fp)) {
            status = HASHTRIE_ENOENT;
            break;
        }
        record_edge_key(scan->next, place.prefix, place.fingerprint);
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_NEXT));
    }
    reader_slice_end(&slice);
    return status;
}

enum hashtrie_status hashtrie_reader_nodes(struct hashtrie_reader *reader, uint64_t first_prefix,
                                           uint64_t last_prefix, hashtrie_reader_on_node *on_node,
                                           void *user)
{
    struct scan scan = {.reader = reader, .last_prefix = last_prefix};
    record_edge_key(scan.next, first_prefix, 0);
    size_t size = NODES_PER_SLICE * sizeof *scan.found.nodes;
    scan.found.nodes = mem_alloc(&reader->mem, size);
    if (scan.found.nodes == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = HASHTRIE_OK;
    bool more = true;
    while (status == HASHTRIE_OK && more) {
        status = nodes_slice(&scan);
        for (size_t i = 0; i < scan.count && more; i++) {
            more = on_node(user, &scan.found.nodes[i]);
        }
        scan.count = 0;
    }
    mem_free(&reader->mem, scan.found.nodes, size);
    if (status == HASHTRIE_OK || status == HASHTRIE_ENOENT) {
        return scan.corrupt == 0 ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
    }
    return status;
}

/* ---- Prefixes ---- */

/* The depth of the edge's node; the next edge looked at is that of the next prefix, or after damage
 * the next one. ENOENT: that was the last. */
static enum hashtrie_status take_prefix(struct scan *scan, MDB_txn *txn, uint64_t prefix,
                                        uint32_t fp)
{
    struct hashtrie_reader_node node;
    bool good = reader_read_node(scan->reader, txn, prefix, fp, &node) == HASHTRIE_OK;
    if (good) {
        scan->found.prefixes[scan->count++] =
            (struct found_prefix){.prefix = prefix, .depth = node.depth};
    } else {
        scan->corrupt++;
    }
    if ((good || fp == UINT32_MAX) && prefix == UINT64_MAX) {
        return HASHTRIE_ENOENT;
    }
    if (good || fp == UINT32_MAX) {
        record_edge_key(scan->next, prefix + 1, 0);
    } else {
        record_edge_key(scan->next, prefix, fp + 1);
    }
    return HASHTRIE_OK;
}

static enum hashtrie_status prefixes_slice(struct scan *scan)
{
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(scan->reader, DB_EDGES, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    scan->count = 0;
    for (int i = 0; i < PREFIXES_PER_SLICE && status == HASHTRIE_OK; i++) {
        MDB_val key = env_val(scan->next, EDGE_KEY_SIZE);
        MDB_val value;
        uint64_t prefix = 0;
        uint32_t fp = 0;
        status = env_status(mdb_cursor_get(slice.cursor, &key, &value, MDB_SET_RANGE));
        if (status == HASHTRIE_OK) {
            status = edge_at(scan, &key, &prefix, &fp);
        }
        if (status == HASHTRIE_OK) {
            status = take_prefix(scan, slice.txn, prefix, fp);
        }
    }
    reader_slice_end(&slice);
    return status;
}

enum hashtrie_status hashtrie_reader_prefixes(struct hashtrie_reader *reader, uint64_t first_prefix,
                                              uint64_t last_prefix,
                                              hashtrie_reader_on_prefix *on_prefix, void *user)
{
    struct scan scan = {.reader = reader, .last_prefix = last_prefix};
    record_edge_key(scan.next, first_prefix, 0);
    size_t size = PREFIXES_PER_SLICE * sizeof *scan.found.prefixes;
    scan.found.prefixes = mem_alloc(&reader->mem, size);
    if (scan.found.prefixes == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = HASHTRIE_OK;
    bool more = true;
    while (status == HASHTRIE_OK && more) {
        status = prefixes_slice(&scan);
        for (size_t i = 0; i < scan.count && more; i++) {
            more = on_prefix(user, scan.found.prefixes[i].prefix, scan.found.prefixes[i].depth);
        }
        scan.count = 0;
    }
    mem_free(&reader->mem, scan.found.prefixes, size);
    if (status == HASHTRIE_OK || status == HASHTRIE_ENOENT) {
        return scan.corrupt == 0 ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
    }
    return status;
}
