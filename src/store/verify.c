/*
 * Verifying a store: every record and every link between the databases, in slices.
 *
 *     edges   each leads to a row whose state names this edge, whose run fits, which has its age
 *             entry, and whose holders are endpoints as they can be
 *     runs    each row has a state
 *     state   each can be read, and its edge leads here
 *     age     each row has a state with this time and depth
 *
 * A slice sees one moment of the store, so a router that writes meanwhile does not disturb. Then,
 * softly, over the whole: nodes whose parent is gone, nodes used later than their parent.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/random.h"
#include "store/reader.h"

enum {
    ROWS_PER_SLICE = 128,
    FINDINGS_BYTES_MAX = 1 << 20, /* Of one slice; what does not fit is counted, not told. */
    FINDING_BYTES_MAX = 256,
};

#define LINK_ROWS_MAX (UINT64_C(1) << 25) /* Above it the soft counts are left out. */

/* Where runs end, and when each was last used: open addressing, 0 is a free place. */
struct links {
    uint64_t *ends;    /* Mix of a run's end and its depth there. Owned. */
    uint32_t *buckets; /* Owned. */
    size_t capacity;   /* A power of two. */
    size_t count;
    bool overflow;
};

struct verify {
    struct hashtrie_reader *reader;
    const struct hashtrie_verify_options *options;
    struct hashtrie_verify_result *result;
    struct buf findings; /* Texts, each with its NUL, told between slices. */
    struct links links;
    uint64_t done;
    uint64_t total;
};

/* One entry of the database that is scanned. */
struct entry {
    MDB_txn *txn;
    MDB_val key;
    MDB_val value;
};

typedef void check_entry(struct verify *verify, const struct entry *entry);

/* ---- Findings ---- */

__attribute__((format(printf, 2, 3))) static void finding(struct verify *verify, const char *format,
                                                          ...)
{
    char text[FINDING_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start(). */
    (void)vsnprintf(text, sizeof text, format, arguments); /* Ours are shorter. */
    va_end(arguments);
    verify->result->damage_count++;
    (void)buf_append(&verify->findings, text, strlen(text) + 1); /* Counted all the same. */
}

static void tell(struct verify *verify)
{
    for (size_t at = 0; at < verify->findings.size;) {
        const char *text = verify->findings.data + at;
        if (verify->options->on_finding != NULL) {
            verify->options->on_finding(verify->options->user, text);
        }
        at += strlen(text) + 1;
    }
    verify->findings.size = 0;
    if (verify->options->on_progress != NULL) {
        uint64_t done = verify->done < verify->total ? verify->done : verify->total;
        verify->options->on_progress(verify->options->user, done, verify->total);
    }
}

/* ---- Links ---- */

static uint64_t link_mix(uint64_t end, uint32_t depth)
{
    struct random mixer = {.state = end ^ (uint64_t)depth << 40};
    uint64_t mixed = random_next(&mixer);
    return mixed == 0 ? 1 : mixed;
}

static bool links_init(struct links *links, struct mem *mem, uint64_t rows)
{
    *links = (struct links){.overflow = rows > LINK_ROWS_MAX};
    if (links->overflow) {
        return true;
    }
    size_t capacity = 1024;
    while (capacity / 4 * 3 < rows + rows / 8) { /* Some more may come while it is read. */
        capacity *= 2;
    }
    links->ends = mem_alloc_zero(mem, capacity * sizeof *links->ends);
    links->buckets = mem_alloc_zero(mem, capacity * sizeof *links->buckets);
    links->capacity = capacity;
    return links->ends != NULL && links->buckets != NULL;
}

static void links_fini(struct links *links, struct mem *mem)
{
    mem_free(mem, links->ends, links->capacity * sizeof *links->ends);
    mem_free(mem, links->buckets, links->capacity * sizeof *links->buckets);
}

/* The place of that end, or the free one where it would be. */
static size_t links_place(const struct links *links, uint64_t mixed)
{
    size_t place = (size_t)mixed & (links->capacity - 1);
    while (links->ends[place] != 0 && links->ends[place] != mixed) {
        place = (place + 1) & (links->capacity - 1);
    }
    return place;
}

static void links_add(struct links *links, const struct trie_record *record)
{
    links->overflow = links->overflow || links->count >= links->capacity / 4 * 3;
    if (links->overflow) {
        return;
    }
    uint64_t mixed = link_mix(record->end, record->depth + record->length);
    size_t place = links_place(links, mixed);
    links->count += links->ends[place] == 0;
    links->ends[place] = mixed;
    links->buckets[place] = record->bucket;
}

/* ---- One entry of each database ---- */

static enum hashtrie_status get(const struct verify *verify, MDB_txn *txn, enum env_db db,
                                const unsigned char *name, size_t size, MDB_val *value)
{
    MDB_val key = env_val(name, size);
    return env_status(mdb_get(txn, verify->reader->env.dbi[db], &key, value));
}

/* Holders: ids that were given out, odometers that the endpoint has reached. */
static void check_holders(struct verify *verify, MDB_txn *txn, const struct trie_record *record)
{
    uint64_t next_id = 0;
    if (record->holder_count == TRIE_HELD_BY_ALL ||
        env_meta_get(&verify->reader->env, txn, META_NEXT_ENDPOINT_ID, &next_id) != HASHTRIE_OK) {
        return;
    }
    for (uint32_t i = 0; i < record->holder_count; i++) {
        const struct trie_stored_holder *holder = &record->holders[i];
        if (holder->id >= next_id) {
            finding(verify,
                    "node %016" PRIx64 "/%08" PRIx32 ": holder %" PRIu32 " was never given out",
                    record->prefix, record->fp, holder->id);
            continue;
        }
        unsigned char name[ENDPOINT_KEY_SIZE];
        record_put_u32(name, holder->id);
        MDB_val value;
        struct record_endpoint endpoint;
        if (get(verify, txn, DB_ENDPOINTS, name, sizeof name, &value) == HASHTRIE_OK &&
            record_decode_endpoint(value.mv_data, value.mv_size, holder->id, &endpoint) &&
            (int32_t)(holder->odometer_kib - endpoint.odometer_kib) > 0) {
            finding(verify,
                    "node %016" PRIx64 "/%08" PRIx32 ": holder %" PRIu32
                    " is ahead of its endpoint's odometer",
                    record->prefix, record->fp, holder->id);
        }
    }
}

/* The rest of an edge's row: run, age entry, holders. */
static void check_row(struct verify *verify, MDB_txn *txn, struct row *row)
{
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    const struct trie_record *record = &row->record;
    if (row_read_run(&verify->reader->env, txn, row, run) != HASHTRIE_OK) {
        finding(verify, "node %016" PRIx64 "/%08" PRIx32 ": its run is missing or damaged",
                record->prefix, record->fp);
    }
    unsigned char age[AGE_KEY_SIZE];
    record_age_key(age, record->bucket, record->depth, row->number);
    MDB_val value;
    if (get(verify, txn, DB_AGE, age, sizeof age, &value) != HASHTRIE_OK) {
        finding(verify, "node %016" PRIx64 "/%08" PRIx32 ": it has no age entry", record->prefix,
                record->fp);
    }
    check_holders(verify, txn, record);
    links_add(&verify->links, record);
}

static void check_edge(struct verify *verify, const struct entry *entry)
{
    verify->result->node_count++;
    uint64_t number = 0;
    if (entry->key.mv_size != EDGE_KEY_SIZE ||
        !record_decode_row(entry->value.mv_data, entry->value.mv_size, &number)) {
        finding(verify, "edges: an entry has the wrong size");
        return;
    }
    const unsigned char *key = entry->key.mv_data;
    uint64_t prefix = record_get_u64(key);
    uint32_t fp = record_get_u32(key + 8);
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    struct row row = {0};
    enum hashtrie_status status =
        row_find(&verify->reader->env, entry->txn, prefix, fp, holders, &row);
    if (status != HASHTRIE_OK) {
        finding(verify,
                "node %016" PRIx64 "/%08" PRIx32
                ": its state is missing, damaged or another node's (row %" PRIu64 ")",
                prefix, fp, number);
        return;
    }
    check_row(verify, entry->txn, &row);
}

static void check_run(struct verify *verify, const struct entry *entry)
{
    MDB_val value;
    if (entry->key.mv_size != ROW_KEY_SIZE) {
        finding(verify, "runs: a key has the wrong size");
    } else if (get(verify, entry->txn, DB_STATE, entry->key.mv_data, ROW_KEY_SIZE, &value) !=
               HASHTRIE_OK) {
        finding(verify, "row %" PRIu64 ": a run without a state",
                record_get_u64(entry->key.mv_data));
    }
}

static void check_state(struct verify *verify, const struct entry *entry)
{
    if (entry->key.mv_size != ROW_KEY_SIZE) {
        finding(verify, "state: a key has the wrong size");
        return;
    }
    uint64_t number = record_get_u64(entry->key.mv_data);
    struct trie_record record;
    if (!record_decode_state(entry->value.mv_data, entry->value.mv_size, number, &record, NULL)) {
        finding(verify, "row %" PRIu64 ": its state is damaged", number);
        return;
    }
    unsigned char edge[EDGE_KEY_SIZE];
    record_edge_key(edge, record.prefix, record.fp);
    MDB_val value;
    uint64_t leads_to = 0;
    if (get(verify, entry->txn, DB_EDGES, edge, sizeof edge, &value) != HASHTRIE_OK ||
        !record_decode_row(value.mv_data, value.mv_size, &leads_to) || leads_to != number) {
        finding(verify, "row %" PRIu64 ": no edge leads to it", number);
    }
}

static void check_age(struct verify *verify, const struct entry *entry)
{
    if (entry->key.mv_size != AGE_KEY_SIZE) {
        finding(verify, "age: a key has the wrong size");
        return;
    }
    const unsigned char *key = entry->key.mv_data;
    uint64_t number = record_get_u64(key + 8);
    MDB_val value;
    struct trie_record record;
    if (get(verify, entry->txn, DB_STATE, key + 8, ROW_KEY_SIZE, &value) != HASHTRIE_OK) {
        finding(verify, "row %" PRIu64 ": an age entry without a state", number);
    } else if (record_decode_state(value.mv_data, value.mv_size, number, &record, NULL) &&
               (record.bucket != record_get_u32(key) || record.depth != ~record_get_u32(key + 4))) {
        finding(verify, "row %" PRIu64 ": an age entry of another time or depth", number);
    }
}

static void count_links(struct verify *verify, const struct entry *entry)
{
    struct trie_record record;
    if (verify->links.overflow || entry->key.mv_size != ROW_KEY_SIZE ||
        !record_decode_state(entry->value.mv_data, entry->value.mv_size,
                             record_get_u64(entry->key.mv_data), &record, NULL) ||
        record.depth == 0) {
        return;
    }
    size_t place = links_place(&verify->links, link_mix(record.prefix, record.depth));
    if (verify->links.ends[place] == 0) {
        verify->result->detached_count++;
    } else {
        verify->result->inverted_count += verify->links.buckets[place] < record.bucket;
    }
}

/* ---- Scans ---- */

/* Where a scan goes on: a copy of a key, of any size that LMDB allows. */
struct position {
    unsigned char bytes[512];
    size_t size;
};

static enum hashtrie_status scan_slice(struct verify *verify, enum env_db db, check_entry *check,
                                       struct position *position)
{
    struct reader_slice slice;
    enum hashtrie_status status = reader_slice_begin(verify->reader, db, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    struct entry entry = {.txn = slice.txn, .key = env_val(position->bytes, position->size)};
    status = env_status(mdb_cursor_get(slice.cursor, &entry.key, &entry.value,
                                       position->size == 0 ? MDB_FIRST : MDB_SET_RANGE));
    for (int i = 0; i < ROWS_PER_SLICE && status == HASHTRIE_OK; i++) {
        check(verify, &entry);
        verify->done++;
        status = env_status(mdb_cursor_get(slice.cursor, &entry.key, &entry.value, MDB_NEXT));
    }
    if (status == HASHTRIE_OK && (entry.key.mv_size > sizeof position->bytes ||
                                  !env_goes_on(&entry.key, position->bytes, position->size))) {
        status = HASHTRIE_ECORRUPT;
    }
    if (status == HASHTRIE_OK) {
        position->size = entry.key.mv_size;
        memcpy(position->bytes, entry.key.mv_data, entry.key.mv_size);
    }
    reader_slice_end(&slice);
    return status;
}

static enum hashtrie_status scan(struct verify *verify, enum env_db db, const char *name,
                                 check_entry *check)
{
    struct position position = {.size = 0};
    enum hashtrie_status status = HASHTRIE_OK;
    while (status == HASHTRIE_OK) {
        status = scan_slice(verify, db, check, &position);
        if (status != HASHTRIE_OK && status != HASHTRIE_ENOENT) {
            finding(verify, "%s: %s; what follows was not looked at", name,
                    hashtrie_strerror(status));
        }
        tell(verify);
    }
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

static enum hashtrie_status scan_all(struct verify *verify)
{
    static const struct {
        const char *name;
        check_entry *check;
        enum env_db db;
    } passes[] = {
        {"edges", check_edge, DB_EDGES},  {"runs", check_run, DB_RUNS},
        {"state", check_state, DB_STATE}, {"age", check_age, DB_AGE},
        {"state", count_links, DB_STATE},
    };
    enum hashtrie_status first = HASHTRIE_OK;
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
        enum hashtrie_status status = scan(verify, passes[i].db, passes[i].name, passes[i].check);
        first = first == HASHTRIE_OK ? status : first;
    }
    return first;
}

enum hashtrie_status hashtrie_reader_verify(struct hashtrie_reader *reader,
                                            const struct hashtrie_verify_options *options,
                                            struct hashtrie_verify_result *out)
{
    enum { PASSES = 5 };
    struct hashtrie_reader_info info;
    enum hashtrie_status status = hashtrie_reader_get_info(reader, &info);
    if (status != HASHTRIE_OK) {
        return status;
    }
    *out = (struct hashtrie_verify_result){0};
    struct verify verify = {
        .reader = reader, .options = options, .result = out, .total = info.node_count * PASSES};
    buf_init(&verify.findings, &reader->mem, FINDINGS_BYTES_MAX);
    status = HASHTRIE_ENOMEM;
    if (links_init(&verify.links, &reader->mem, info.node_count)) {
        status = scan_all(&verify);
    }
    out->links_counted = !verify.links.overflow;
    if (!out->links_counted) {
        out->detached_count = 0;
        out->inverted_count = 0;
    }
    links_fini(&verify.links, &reader->mem);
    buf_fini(&verify.findings);
    return status;
}
