#include "store/stream.h"

#include "base/check.h"
#include "store/wire.h"

enum {
    HEADER_FIELDS = 8, /* Kind and checksum included, as in all of these. */
    ENDPOINT_FIELDS = 8,
    NODE_FIELDS = 8,
    END_FIELDS = 4,
    HOLDER_FIELDS = 3,
    SEAL_BYTES = 9, /* The checksum as a uint 64. */
};

static const char magic[] = "hashtrie-export";

/* ---- Out ---- */

// NOLINTNEXTLINE(readability-non-const-parameter): written through the packing.
static void begin(struct packing *packing, msgpack_packer *packer, unsigned char *to,
                  uint32_t fields, enum stream_kind kind)
{
    *packing = (struct packing){.to = to, .capacity = STREAM_RECORD_BYTES_MAX - SEAL_BYTES};
    msgpack_packer_init(packer, packing, on_packed);
    /* What the packer returns is that of on_packed: there is room for the largest of each kind. */
    (void)msgpack_pack_array(packer, fields);
    (void)msgpack_pack_uint8(packer, (uint8_t)kind);
}

static size_t end(struct packing *packing, uint64_t *chain)
{
    CHECK(packing->size > 0 && packing->size < packing->capacity);
    *chain = record_hash(packing->to, packing->size, *chain);
    packing->to[packing->size] = 0xcf;
    record_put_u64(packing->to + packing->size + 1, *chain);
    return packing->size + SEAL_BYTES;
}

size_t stream_encode_header(unsigned char *to, const struct stream_header *header, uint64_t *chain)
{
    struct packing packing;
    msgpack_packer packer;
    begin(&packing, &packer, to, HEADER_FIELDS, STREAM_HEADER);
    pack_text(&packer, magic);
    (void)msgpack_pack_uint64(&packer, header->version);
    (void)msgpack_pack_uint64(&packer, header->chunk_size);
    (void)msgpack_pack_uint64(&packer, header->hash_seed);
    (void)msgpack_pack_uint64(&packer, header->created_s);
    (void)msgpack_pack_uint64(&packer, header->node_count);
    return end(&packing, chain);
}

size_t stream_encode_endpoint(unsigned char *to, const struct record_endpoint *endpoint,
                              uint64_t *chain)
{
    struct packing packing;
    msgpack_packer packer;
    begin(&packing, &packer, to, ENDPOINT_FIELDS, STREAM_ENDPOINT);
    (void)msgpack_pack_uint32(&packer, endpoint->id);
    pack_text(&packer, endpoint->name);
    pack_text(&packer, endpoint->model);
    pack_text(&packer, endpoint->generation);
    (void)msgpack_pack_uint32(&packer, endpoint->odometer_kib);
    (void)msgpack_pack_uint64(&packer, endpoint->seen_s);
    return end(&packing, chain);
}

size_t stream_encode_node(unsigned char *to, const struct trie_record *node, uint64_t *chain)
{
    struct packing packing;
    msgpack_packer packer;
    unsigned char run[4 * TRIE_RUN_LENGTH_MAX];
    size_t run_size = (size_t)4 * node->length;
    for (uint32_t i = 0; i < node->length; i++) {
        record_put_u32(run + (size_t)4 * i, node->run[i]);
    }
    begin(&packing, &packer, to, NODE_FIELDS, STREAM_NODE);
    (void)msgpack_pack_uint64(&packer, node->prefix);
    (void)msgpack_pack_uint64(&packer, node->end);
    (void)msgpack_pack_uint32(&packer, node->depth);
    (void)msgpack_pack_uint64(&packer, (uint64_t)node->bucket * TRIE_BUCKET_SECONDS);
    (void)msgpack_pack_bin(&packer, run_size);
    (void)msgpack_pack_bin_body(&packer, run, run_size);
    if (node->holder_count == TRIE_HELD_BY_ALL) {
        (void)msgpack_pack_nil(&packer);
    } else {
        (void)msgpack_pack_array(&packer, (size_t)HOLDER_FIELDS * node->holder_count);
        for (uint32_t i = 0; i < node->holder_count; i++) {
            (void)msgpack_pack_uint32(&packer, node->holders[i].id);
            (void)msgpack_pack_uint32(&packer, node->holders[i].last_used_s);
            (void)msgpack_pack_uint32(&packer, node->holders[i].odometer_kib);
        }
    }
    return end(&packing, chain);
}

size_t stream_encode_end(unsigned char *to, const struct stream_end *counts, uint64_t *chain)
{
    struct packing packing;
    msgpack_packer packer;
    begin(&packing, &packer, to, END_FIELDS, STREAM_END);
    (void)msgpack_pack_uint64(&packer, counts->endpoint_count);
    (void)msgpack_pack_uint64(&packer, counts->node_count);
    return end(&packing, chain);
}

/* ---- In ---- */

static uint32_t decode_header(struct unpacking *in, struct stream_header *out)
{
    char text[ENDPOINT_TEXT_BYTES_MAX + 1];
    take_text(in, text);
    in->failed = in->failed || strcmp(text, magic) != 0;
    *out = (struct stream_header){.version = take_uint(in, UINT64_MAX)};
    out->chunk_size = take_uint(in, UINT64_MAX);
    out->hash_seed = take_uint(in, UINT64_MAX);
    out->created_s = take_uint(in, UINT64_MAX);
    out->node_count = take_uint(in, UINT64_MAX);
    return HEADER_FIELDS;
}

static uint32_t decode_endpoint(struct unpacking *in, struct record_endpoint *out)
{
    out->id = (uint32_t)take_uint(in, UINT32_MAX - 1);
    take_text(in, out->name);
    take_text(in, out->model);
    take_text(in, out->generation);
    out->odometer_kib = (uint32_t)take_uint(in, UINT32_MAX);
    out->seen_s = take_uint(in, UINT64_MAX);
    /* Together they must fit a stored record. */
    size_t size = strlen(out->name) + strlen(out->model) + strlen(out->generation);
    in->failed = in->failed || out->id == 0 || out->name[0] == '\0' || size > ENDPOINT_BYTES_MAX;
    return ENDPOINT_FIELDS;
}

static void decode_holders(struct unpacking *in, struct stream_record *out)
{
    struct trie_record *node = &out->node;
    if (take_nil(in)) {
        node->holder_count = TRIE_HELD_BY_ALL;
        return;
    }
    uint32_t fields = take_array(in);
    if (fields % HOLDER_FIELDS != 0 || fields > HOLDER_FIELDS * HASHTRIE_HOLDERS_MAX) {
        in->failed = true;
        return;
    }
    node->holder_count = fields / HOLDER_FIELDS;
    for (uint32_t i = 0; i < node->holder_count; i++) {
        out->holders[i].id = (uint32_t)take_uint(in, UINT32_MAX);
        out->holders[i].last_used_s = (uint32_t)take_uint(in, UINT32_MAX);
        out->holders[i].odometer_kib = (uint32_t)take_uint(in, UINT32_MAX);
    }
}

static uint32_t decode_node(struct unpacking *in, struct stream_record *out)
{
    struct trie_record *node = &out->node;
    *node = (struct trie_record){.prefix = take_uint(in, UINT64_MAX)};
    node->end = take_uint(in, UINT64_MAX);
    node->depth = (uint32_t)take_uint(in, HASHTRIE_CHUNK_COUNT_MAX);
    node->bucket =
        (uint32_t)(take_uint(in, (uint64_t)UINT32_MAX * TRIE_BUCKET_SECONDS) / TRIE_BUCKET_SECONDS);
    size_t size = 0;
    const unsigned char *bytes = take_bin(in, &size);
    node->length = (uint32_t)(size / 4);
    if (in->failed || size == 0 || size % 4 != 0 || size > sizeof out->run ||
        node->length > HASHTRIE_CHUNK_COUNT_MAX - node->depth) {
        in->failed = true;
        return NODE_FIELDS;
    }
    for (uint32_t i = 0; i < node->length; i++) {
        out->run[i] = record_get_u32(bytes + (size_t)4 * i);
    }
    node->run = out->run;
    node->holders = out->holders;
    node->fp = out->run[0];
    decode_holders(in, out);
    in->failed = in->failed || out->run[node->length - 1] != (uint32_t)node->end;
    return NODE_FIELDS;
}

static uint32_t decode_end(struct unpacking *in, struct stream_end *out)
{
    *out = (struct stream_end){.endpoint_count = take_uint(in, UINT64_MAX)};
    out->node_count = take_uint(in, UINT64_MAX);
    return END_FIELDS;
}

size_t stream_decode(const void *bytes, size_t size, uint64_t *chain, struct stream_record *out)
{
    const unsigned char *from = bytes;
    struct unpacking in = {.at = from, .end = from + size};
    uint32_t fields = take_array(&in);
    uint64_t kind = take_uint(&in, STREAM_NODE);
    uint32_t expected = 0;
    if (in.failed) {
        return 0;
    }
    out->kind = (enum stream_kind)kind;
    switch (out->kind) {
    case STREAM_HEADER:
        expected = decode_header(&in, &out->header);
        break;
    case STREAM_ENDPOINT:
        expected = decode_endpoint(&in, &out->endpoint);
        break;
    case STREAM_NODE:
        expected = decode_node(&in, out);
        break;
    case STREAM_END:
        expected = decode_end(&in, &out->end);
        break;
    }
    if (in.failed || fields != expected || in.end - in.at < SEAL_BYTES || *in.at != 0xcf) {
        return 0;
    }
    uint64_t checksum = record_hash(from, (size_t)(in.at - from), *chain);
    if (record_get_u64(in.at + 1) != checksum) {
        return 0;
    }
    *chain = checksum;
    return (size_t)(in.at - from) + SEAL_BYTES;
}
