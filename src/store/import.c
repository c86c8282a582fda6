/*
 * Import: an exported stream merged into a store, row by row, by key.
 *
 *     no row under the key            the node becomes one
 *     the same run                    holders and time of use are joined
 *     one run begins with the other   the shorter is the upper half: it gets the holders of both;
 *                                     the rest of the longer goes on below it
 *     they part inside                the hash between is not known (a row tells that of its run's
 *                                     last chunk alone): the one used last wins
 *
 * Runs are compared by their fingerprints, under the same 64-bit prefix.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "hashtrie/maintenance.h"

#include "base/check.h"
#include "base/clock.h"
#include "store/build.h"
#include "store/stream.h"

enum {
    INPUT_BYTES = 64 * 1024, /* Read at once; holds a record of any size. */
    PROGRESS_NODES = 256,
    KNOWN_MAX = 1 << 20, /* Endpoints here, and in the stream. */
};

static_assert(INPUT_BYTES >= 2 * STREAM_RECORD_BYTES_MAX, "a record fits");

#define NEW_STORE_BYTES (UINT64_C(8) << 30) /* As the router's --store-max-size. */

/* An endpoint of the store. */
struct known {
    uint32_t id;
    uint32_t odometer_kib;
    uint64_t seen_s;
    uint64_t name_hash;
    uint64_t generation_hash; /* 0: unknown. */
};

/* What one of the stream is here. */
struct mapped {
    uint32_t from;
    uint32_t to;             /* 0: nothing. */
    uint32_t odometer_shift; /* To be added to holders' odometers. */
};

struct table {
    void *list; /* Owned. */
    size_t count;
    size_t capacity;
};

struct import {
    struct mem mem;
    const struct hashtrie_import_options *options;
    struct hashtrie_import_result *result;
    struct build build;
    bool open;
    uint64_t first_new_id; /* Endpoints from it on came with this stream. */
    struct table known;    /* struct known. */
    struct table mapped;   /* struct mapped, ascending. */
    unsigned char input[INPUT_BYTES];
    size_t input_at;
    size_t input_size;
    bool input_ended;
    uint64_t chain;
    uint64_t total;
    bool complete; /* The stream's end was seen, and its counts are right. */
    struct stream_record record;
    /* The node that is being merged, and the row that is there. */
    struct trie_record node;
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    struct row row;
    uint32_t row_run[TRIE_RUN_LENGTH_MAX];
    struct trie_stored_holder row_holders[HASHTRIE_HOLDERS_MAX];
};

/* ---- Input ---- */

static enum hashtrie_status fill(struct import *import)
{
    memmove(import->input, import->input + import->input_at, import->input_size - import->input_at);
    import->input_size -= import->input_at;
    import->input_at = 0;
    while (import->input_size < STREAM_RECORD_BYTES_MAX && !import->input_ended) {
        size_t got = 0;
        if (!import->options->on_read(import->options->user, import->input + import->input_size,
                                      INPUT_BYTES - import->input_size, &got) ||
            got > INPUT_BYTES - import->input_size) {
            return HASHTRIE_EIO;
        }
        import->input_size += got;
        import->input_ended = got == 0;
    }
    return HASHTRIE_OK;
}

static enum hashtrie_status next_record(struct import *import)
{
    if (import->input_size - import->input_at < STREAM_RECORD_BYTES_MAX) {
        enum hashtrie_status status = fill(import);
        if (status != HASHTRIE_OK) {
            return status;
        }
    }
    size_t size =
        stream_decode(import->input + import->input_at, import->input_size - import->input_at,
                      &import->chain, &import->record);
    import->input_at += size;
    return size == 0 ? HASHTRIE_ECORRUPT : HASHTRIE_OK;
}

/* ---- Endpoints ---- */

static bool table_add(struct import *import, struct table *table, const void *item, size_t size)
{
    if (table->count == KNOWN_MAX) {
        return false;
    }
    if (table->count == table->capacity) {
        size_t capacity = table->capacity == 0 ? 64 : table->capacity * 2;
        void *grown =
            mem_realloc(&import->mem, table->list, table->capacity * size, capacity * size);
        if (grown == NULL) {
            return false;
        }
        table->list = grown;
        table->capacity = capacity;
    }
    memcpy((unsigned char *)table->list + table->count++ * size, item, size);
    return true;
}

static uint64_t text_hash(const char *text)
{
    return text[0] == '\0' ? 0 : record_hash(text, strlen(text), 1);
}

static bool add_known(struct import *import, const struct record_endpoint *endpoint)
{
    struct known known = {.id = endpoint->id,
                          .odometer_kib = endpoint->odometer_kib,
                          .seen_s = endpoint->seen_s,
                          .name_hash = text_hash(endpoint->name),
                          .generation_hash = text_hash(endpoint->generation)};
    return table_add(import, &import->known, &known, sizeof known);
}

static enum hashtrie_status read_known(struct import *import)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    enum hashtrie_status status = build_ready(&import->build);
    if (status == HASHTRIE_OK) {
        status = env_status(
            mdb_cursor_open(import->build.txn, import->build.env.dbi[DB_ENDPOINTS], &cursor));
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    int code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    for (; code == MDB_SUCCESS && status == HASHTRIE_OK;
         code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (key.mv_size == ENDPOINT_KEY_SIZE &&
            record_decode_endpoint(value.mv_data, value.mv_size, record_get_u32(key.mv_data),
                                   &import->record.endpoint) &&
            !add_known(import, &import->record.endpoint)) {
            status = HASHTRIE_ENOMEM;
        }
    }
    mdb_cursor_close(cursor);
    return status != HASHTRIE_OK || code == MDB_NOTFOUND ? status : env_status(code);
}

/* The newest one here of that name; NULL: none. */
static const struct known *find_known(const struct import *import, uint64_t name_hash)
{
    const struct known *list = import->known.list;
    for (size_t i = import->known.count; i > 0; i--) {
        if (list[i - 1].name_hash == name_hash) {
            return &list[i - 1];
        }
    }
    return NULL;
}

static void rename_endpoint(const struct import *import, struct record_endpoint *endpoint)
{
    for (size_t i = 0; i < import->options->rename_count; i++) {
        const struct hashtrie_rename *rename = &import->options->renames[i];
        if (strcmp(rename->old_name, endpoint->name) == 0) {
            memcpy(endpoint->name, rename->new_name, strlen(rename->new_name) + 1);
            return;
        }
    }
}

static enum hashtrie_status put_new(struct import *import, struct record_endpoint *endpoint,
                                    struct mapped *mapped)
{
    if (import->build.next_endpoint_id >= UINT32_MAX) {
        return HASHTRIE_EFULL;
    }
    endpoint->id = (uint32_t)import->build.next_endpoint_id;
    mapped->to = endpoint->id;
    import->result->new_endpoint_count++;
    if (!add_known(import, endpoint)) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = build_ready(&import->build);
    return status == HASHTRIE_OK ? build_put_endpoint(&import->build, endpoint) : status;
}

static enum hashtrie_status take_endpoint(struct import *import)
{
    struct record_endpoint *endpoint = &import->record.endpoint;
    struct mapped mapped = {.from = endpoint->id};
    const struct mapped *before = import->mapped.list;
    if (import->mapped.count > 0 && before[import->mapped.count - 1].from >= endpoint->id) {
        return HASHTRIE_ECORRUPT; /* Not ascending. */
    }
    rename_endpoint(import, endpoint);
    import->result->endpoint_count++;
    enum hashtrie_status status = HASHTRIE_OK;
    const struct known *known = find_known(import, text_hash(endpoint->name));
    uint64_t generation = text_hash(endpoint->generation);
    if (known != NULL &&
        (known->generation_hash == generation || known->generation_hash == 0 || generation == 0)) {
        mapped.to = known->id;
        mapped.odometer_shift = known->odometer_kib - endpoint->odometer_kib; /* Wraps. */
    } else if (known != NULL && known->id < import->first_new_id &&
               known->seen_s >= endpoint->seen_s) {
        import->result->old_endpoint_count++;
    } else {
        status = put_new(import, endpoint, &mapped);
    }
    if (status == HASHTRIE_OK && !table_add(import, &import->mapped, &mapped, sizeof mapped)) {
        status = HASHTRIE_ENOMEM;
    }
    return status;
}

static int compare_mapped(const void *key, const void *item)
{
    uint32_t id = *(const uint32_t *)key;
    uint32_t other = ((const struct mapped *)item)->from;
    return (id > other) - (id < other);
}

/* ---- Merging ---- */

/* Adds a holder, or joins it with the same one: the later use counts. */
static void join_holder(struct trie_record *record, struct trie_stored_holder *holders,
                        const struct trie_stored_holder *holder)
{
    if (record->holder_count == TRIE_HELD_BY_ALL) {
        return;
    }
    for (uint32_t i = 0; i < record->holder_count; i++) {
        if (holders[i].id == holder->id) {
            holders[i] = holders[i].last_used_s >= holder->last_used_s ? holders[i] : *holder;
            return;
        }
    }
    if (record->holder_count == HASHTRIE_HOLDERS_MAX) {
        record->holder_count = TRIE_HELD_BY_ALL;
        return;
    }
    holders[record->holder_count++] = *holder;
}

/* Holders and time of `from` are joined to those of `to`. */
static void join(struct trie_record *to, struct trie_stored_holder *holders,
                 const struct trie_record *from)
{
    to->bucket = to->bucket > from->bucket ? to->bucket : from->bucket;
    if (from->holder_count == TRIE_HELD_BY_ALL) {
        to->holder_count = TRIE_HELD_BY_ALL;
        return;
    }
    for (uint32_t i = 0; i < from->holder_count; i++) {
        join_holder(to, holders, &from->holders[i]);
    }
}

/* A time that lies ahead of this clock would keep rows alive for ever. */
static uint32_t bucket_here(const struct import *import, uint32_t bucket)
{
    uint64_t now = clock_unix_ns() / CLOCK_NS_PER_S / TRIE_BUCKET_SECONDS;
    uint64_t newest = import->build.newest_bucket > now ? import->build.newest_bucket : now;
    return bucket > newest ? (uint32_t)newest : bucket;
}

/* The node as it is here: its holders by their ids here, without those that are nothing. */
static void take_node(struct import *import)
{
    const struct trie_record *from = &import->record.node;
    const struct mapped *list = import->mapped.list;
    import->node = *from;
    import->node.bucket = bucket_here(import, from->bucket);
    memcpy(import->run, from->run, from->length * sizeof *from->run);
    import->node.run = import->run;
    import->node.holders = import->holders;
    if (from->holder_count == TRIE_HELD_BY_ALL) {
        return;
    }
    import->node.holder_count = 0;
    for (uint32_t i = 0; i < from->holder_count; i++) {
        struct trie_stored_holder holder = from->holders[i];
        const struct mapped *mapped =
            import->mapped.count == 0
                ? NULL
                : bsearch(&holder.id, list, import->mapped.count, sizeof *list, compare_mapped);
        if (mapped != NULL && mapped->to != 0) {
            holder.id = mapped->to;
            holder.odometer_kib += mapped->odometer_shift; /* Wraps. */
            join_holder(&import->node, import->holders, &holder);
        }
    }
}

/* Drops the first `count` chunks of the node's run: it goes on below a row that ends with `end`. */
static void cut_front(struct import *import, uint32_t count, uint64_t end)
{
    struct trie_record *node = &import->node;
    node->length -= count;
    node->depth += count;
    memmove(import->run, import->run + count, node->length * sizeof *import->run);
    node->prefix = end;
    node->fp = import->run[0];
}

/* The state of the row that is there, joined with the node's. */
static enum hashtrie_status join_row(struct import *import)
{
    struct trie_record joined = import->row.record;
    joined.holders = import->row_holders;
    join(&joined, import->row_holders, &import->node);
    import->result->joined_count++;
    import->build.newest_bucket =
        joined.bucket > import->build.newest_bucket ? joined.bucket : import->build.newest_bucket;
    return row_put_state(&import->build.env, import->build.txn, &import->row, &joined);
}

/* The node is the beginning of the row: it becomes the upper half, the row's rest the node. */
static enum hashtrie_status put_upper(struct import *import)
{
    struct trie_record lower = import->row.record;
    lower.holders = import->row_holders;
    uint32_t length = import->node.length;
    uint64_t end = import->node.end;
    struct trie_record upper = import->node;
    join(&upper, import->holders, &lower);
    enum hashtrie_status status = build_put(&import->build, &upper);
    import->node = lower;
    memcpy(import->run, import->row_run, lower.length * sizeof *import->run);
    memcpy(import->holders, import->row_holders, sizeof import->holders);
    import->node.run = import->run;
    import->node.holders = import->holders;
    cut_front(import, length, end);
    import->result->added_count++;
    return status;
}

static enum hashtrie_status put_row(struct import *import)
{
    import->result->added_count++;
    return build_put(&import->build, &import->node);
}

static uint32_t common_length(const struct import *import)
{
    uint32_t length = import->node.length < import->row.record.length ? import->node.length
                                                                      : import->row.record.length;
    uint32_t i = 0;
    while (i < length && import->run[i] == import->row_run[i]) {
        i++;
    }
    return i;
}

/* One step of merging; *done: nothing is left of the node. */
static enum hashtrie_status merge_with_row(struct import *import, bool *done)
{
    const struct trie_record *row = &import->row.record;
    uint32_t common = common_length(import);
    bool row_ends = common == row->length;
    bool node_ends = common == import->node.length;
    *done = true;
    if (row->depth != import->node.depth ||
        (row_ends && node_ends && row->end != import->node.end) || (!row_ends && !node_ends)) {
        import->result->conflict_count++;
        return import->node.bucket > row->bucket ? put_row(import) : HASHTRIE_OK;
    }
    if (row_ends && node_ends) {
        return join_row(import);
    }
    *done = false;
    if (node_ends) {
        return put_upper(import);
    }
    enum hashtrie_status status = join_row(import);
    cut_front(import, common, row->end);
    return status;
}

static enum hashtrie_status merge(struct import *import)
{
    struct build *build = &import->build;
    bool done = false;
    enum hashtrie_status status = build_ready(build); /* An upper and its lower half go together. */
    for (int i = 0; i < TRIE_RUN_LENGTH_MAX && !done && status == HASHTRIE_OK; i++) {
        build->rows_in_txn++;
        status = row_find(&build->env, build->txn, import->node.prefix, import->node.fp,
                          import->row_holders, &import->row);
        if (status == HASHTRIE_OK) {
            status = row_read_run(&build->env, build->txn, &import->row, import->row_run);
        }
        if (status == HASHTRIE_OK) {
            status = merge_with_row(import, &done);
        } else if (status == HASHTRIE_ENOENT) {
            done = true;
            status = put_row(import);
        }
    }
    return status;
}

/* ---- The stream ---- */

static uint64_t cap_of(const char *directory, const struct hashtrie_import_options *options)
{
    struct hashtrie_reader *reader = NULL;
    struct hashtrie_reader_info info;
    uint64_t cap = NEW_STORE_BYTES;
    if (options->max_bytes != 0) {
        return options->max_bytes;
    }
    if (hashtrie_reader_open(directory, &reader) == HASHTRIE_OK) {
        if (hashtrie_reader_get_info(reader, &info) == HASHTRIE_OK) {
            cap = info.cap_bytes;
        }
        hashtrie_reader_close(reader);
    }
    return cap < HASHTRIE_STORE_BYTES_MIN ? HASHTRIE_STORE_BYTES_MIN : cap;
}

static enum hashtrie_status begin(struct import *import, const char *directory)
{
    enum hashtrie_status status = next_record(import);
    const struct stream_header *header = &import->record.header;
    if (status != HASHTRIE_OK) {
        return status;
    }
    if (import->record.kind != STREAM_HEADER) {
        return HASHTRIE_ECORRUPT;
    }
    if (header->version != STREAM_VERSION || header->hash_seed != HASHTRIE_HASH_SEED ||
        header->chunk_size < HASHTRIE_CHUNK_SIZE_MIN ||
        header->chunk_size > HASHTRIE_CHUNK_SIZE_MAX) {
        return HASHTRIE_EVERSION;
    }
    import->total = header->node_count;
    status = build_open(&import->build, directory, cap_of(directory, import->options),
                        header->chunk_size);
    import->open = status == HASHTRIE_OK;
    import->first_new_id = import->build.next_endpoint_id;
    return status == HASHTRIE_OK ? read_known(import) : status;
}

static enum hashtrie_status take_record(struct import *import)
{
    struct hashtrie_import_result *result = import->result;
    const struct stream_end *end = &import->record.end;
    switch (import->record.kind) {
    case STREAM_ENDPOINT:
        return result->node_count == 0 ? take_endpoint(import) : HASHTRIE_ECORRUPT;
    case STREAM_NODE:
        take_node(import);
        result->node_count++;
        if (import->options->on_progress != NULL && result->node_count % PROGRESS_NODES == 0) {
            import->options->on_progress(import->options->user, result->node_count, import->total);
        }
        return merge(import);
    case STREAM_END:
        import->complete =
            end->endpoint_count == result->endpoint_count && end->node_count == result->node_count;
        return import->complete ? HASHTRIE_OK : HASHTRIE_ECORRUPT;
    case STREAM_HEADER:
        break;
    }
    return HASHTRIE_ECORRUPT;
}

static enum hashtrie_status run(struct import *import, const char *directory)
{
    enum hashtrie_status status = begin(import, directory);
    while (status == HASHTRIE_OK && !import->complete) {
        status = next_record(import);
        if (status == HASHTRIE_OK) {
            status = take_record(import);
        }
    }
    return status;
}

/* A stream that ends too early, and a store that is full, leave what was merged. */
static enum hashtrie_status finish(struct import *import, enum hashtrie_status status)
{
    if (!import->open) {
        return status;
    }
    bool keep = status == HASHTRIE_OK || status == HASHTRIE_EFULL ||
                (status == HASHTRIE_ECORRUPT && import->result->node_count > 0);
    if (!keep) {
        build_abandon(&import->build);
        return status;
    }
    enum hashtrie_status finished = build_finish(&import->build);
    return status == HASHTRIE_OK ? finished : status;
}

enum hashtrie_status hashtrie_store_import(const char *directory,
                                           const struct hashtrie_import_options *options,
                                           struct hashtrie_import_result *out)
{
    for (size_t i = 0; i < options->rename_count; i++) {
        if (strnlen(options->renames[i].new_name, ENDPOINT_TEXT_BYTES_MAX + 1) >
            ENDPOINT_TEXT_BYTES_MAX) {
            return HASHTRIE_EINVAL;
        }
    }
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct import *import = mem_alloc_zero(&mem, sizeof *import);
    if (import == NULL) {
        return HASHTRIE_ENOMEM;
    }
    *out = (struct hashtrie_import_result){0};
    mem_init(&import->mem, SIZE_MAX);
    import->options = options;
    import->result = out;
    enum hashtrie_status status = finish(import, run(import, directory));
    mem_free(&import->mem, import->known.list, import->known.capacity * sizeof(struct known));
    mem_free(&import->mem, import->mapped.list, import->mapped.capacity * sizeof(struct mapped));
    mem_fini(&import->mem);
    mem_free(&mem, import, sizeof *import);
    mem_fini(&mem);
    return status;
}
