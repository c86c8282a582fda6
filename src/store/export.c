/* Export: endpoints and nodes as a stream, in slices; callbacks run outside any transaction. */
#include <string.h>

#include "hashtrie/maintenance.h"

#include "base/clock.h"
#include "store/reader.h"
#include "store/stream.h"

enum { NODES_PER_SLICE = 128, SLICE_BYTES_MAX = 2 << 20 };

struct exporting {
    struct hashtrie_reader *reader;
    const struct hashtrie_export_options *options;
    struct hashtrie_export_result *result;
    uint64_t chain;
    uint64_t total;
    struct buf out; /* Of one slice. */
    struct hashtrie_reader_place place;
};

static enum hashtrie_status put(struct exporting *exporting, const unsigned char *bytes,
                                size_t size)
{
    return buf_append(&exporting->out, bytes, size) ? HASHTRIE_OK : HASHTRIE_ENOMEM;
}

/* What has come together goes out. */
static enum hashtrie_status flush(struct exporting *exporting)
{
    const struct hashtrie_export_options *options = exporting->options;
    bool more = exporting->out.size == 0 ||
                options->on_bytes(options->user, exporting->out.data, exporting->out.size);
    exporting->result->byte_count += exporting->out.size;
    exporting->out.size = 0;
    if (options->on_progress != NULL) {
        options->on_progress(options->user, exporting->result->node_count, exporting->total);
    }
    return more ? HASHTRIE_OK : HASHTRIE_EIO;
}

static enum hashtrie_status put_header(struct exporting *exporting)
{
    struct hashtrie_reader_info info;
    unsigned char bytes[STREAM_RECORD_BYTES_MAX];
    enum hashtrie_status status = hashtrie_reader_get_info(exporting->reader, &info);
    if (status != HASHTRIE_OK) {
        return status;
    }
    struct stream_header header = {.version = STREAM_VERSION,
                                   .chunk_size = info.chunk_size,
                                   .hash_seed = info.hash_seed,
                                   .created_s = clock_unix_ns() / CLOCK_NS_PER_S,
                                   .node_count = info.node_count};
    exporting->total = info.node_count;
    return put(exporting, bytes, stream_encode_header(bytes, &header, &exporting->chain));
}

struct endpoints {
    struct exporting *exporting;
    enum hashtrie_status status;
};

static bool put_endpoint(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct endpoints *endpoints = user;
    struct exporting *exporting = endpoints->exporting;
    struct record_endpoint record = {.id = endpoint->id,
                                     .odometer_kib = endpoint->odometer_kib,
                                     .seen_s = endpoint->seen_unix_s};
    /* The reader's texts come from records of the same size. */
    memcpy(record.name, endpoint->name, strlen(endpoint->name));
    memcpy(record.model, endpoint->model, strlen(endpoint->model));
    memcpy(record.generation, endpoint->generation, strlen(endpoint->generation));
    unsigned char bytes[STREAM_RECORD_BYTES_MAX];
    endpoints->status =
        put(exporting, bytes, stream_encode_endpoint(bytes, &record, &exporting->chain));
    if (endpoints->status == HASHTRIE_OK) {
        exporting->result->endpoint_count++;
        endpoints->status = flush(exporting);
    }
    return endpoints->status == HASHTRIE_OK;
}

static enum hashtrie_status put_node(struct exporting *exporting, MDB_txn *txn, uint64_t prefix,
                                     uint32_t fp)
{
    const struct env *env = &exporting->reader->env;
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    struct row row = {0};
    enum hashtrie_status status = row_find(env, txn, prefix, fp, holders, &row);
    if (status == HASHTRIE_OK) {
        status = row_read_run(env, txn, &row, run);
    }
    if (status != HASHTRIE_OK) {
        exporting->result->damage_count++;
        return HASHTRIE_OK; /* Left out. */
    }
    unsigned char bytes[STREAM_RECORD_BYTES_MAX];
    exporting->result->node_count++;
    return put(exporting, bytes, stream_encode_node(bytes, &row.record, &exporting->chain));
}

static enum hashtrie_status nodes_slice(struct exporting *exporting)
{
    struct reader_slice slice;
    struct hashtrie_reader_place *place = &exporting->place;
    enum hashtrie_status status = reader_slice_begin(exporting->reader, DB_EDGES, &slice);
    if (status != HASHTRIE_OK) {
        return status;
    }
    uint64_t prefix = 0;
    uint32_t fp = 0;
    status = reader_slice_edge(&slice, MDB_SET_RANGE, place, &prefix, &fp);
    for (int i = 0; i < NODES_PER_SLICE && status == HASHTRIE_OK; i++) {
        status = put_node(exporting, slice.txn, prefix, fp);
        if (status == HASHTRIE_OK) {
            status = reader_slice_edge(&slice, MDB_NEXT, place, &prefix, &fp);
        }
    }
    reader_slice_end(&slice);
    place->ended = place->ended || status == HASHTRIE_ENOENT;
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

static enum hashtrie_status put_end(struct exporting *exporting)
{
    unsigned char bytes[STREAM_RECORD_BYTES_MAX];
    struct stream_end end = {.endpoint_count = exporting->result->endpoint_count,
                             .node_count = exporting->result->node_count};
    return put(exporting, bytes, stream_encode_end(bytes, &end, &exporting->chain));
}

static enum hashtrie_status run(struct exporting *exporting)
{
    struct endpoints endpoints = {.exporting = exporting};
    enum hashtrie_status status = put_header(exporting);
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_endpoints(exporting->reader, put_endpoint, &endpoints);
    }
    status = status == HASHTRIE_OK ? endpoints.status : status;
    while (status == HASHTRIE_OK && !exporting->place.ended) {
        status = nodes_slice(exporting);
        if (status == HASHTRIE_OK) {
            status = flush(exporting);
        }
    }
    if (status == HASHTRIE_OK) {
        status = put_end(exporting);
    }
    return status == HASHTRIE_OK ? flush(exporting) : status;
}

enum hashtrie_status hashtrie_reader_export(struct hashtrie_reader *reader,
                                            const struct hashtrie_export_options *options,
                                            struct hashtrie_export_result *out)
{
    *out = (struct hashtrie_export_result){0};
    struct exporting exporting = {.reader = reader, .options = options, .result = out};
    buf_init(&exporting.out, &reader->mem, SLICE_BYTES_MAX);
    enum hashtrie_status status = run(&exporting);
    buf_fini(&exporting.out);
    return status;
}
