/*
 * Records of an exported stream, as bytes. Private to the room. Pure functions. FORMAT.md has the
 * format; each record ends with a checksum that is seeded with that of the record before, so none
 * can be changed, moved or left out unseen.
 */
#ifndef HASHTRIE_STORE_STREAM_H
#define HASHTRIE_STORE_STREAM_H

#include "store/record.h"

enum {
    STREAM_VERSION = 1,
    STREAM_RECORD_BYTES_MAX = 8192,
};

enum stream_kind { STREAM_END, STREAM_HEADER, STREAM_ENDPOINT, STREAM_NODE };

struct stream_header {
    uint64_t version;
    uint64_t chunk_size;
    uint64_t hash_seed;
    uint64_t created_s;
    uint64_t node_count; /* About; for progress. */
};

struct stream_end {
    uint64_t endpoint_count;
    uint64_t node_count;
};

struct stream_record {
    enum stream_kind kind;
    struct stream_header header;
    struct stream_end end;
    struct record_endpoint endpoint;
    struct trie_record node; /* Its run and holders are those below. */
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
};

/* Return the size; `to` has STREAM_RECORD_BYTES_MAX. *chain: checksum of the record before, 0 at
 * first; becomes this one's. */
size_t stream_encode_header(unsigned char *to, const struct stream_header *header, uint64_t *chain);
size_t stream_encode_endpoint(unsigned char *to, const struct record_endpoint *endpoint,
                              uint64_t *chain);
size_t stream_encode_node(unsigned char *to, const struct trie_record *node, uint64_t *chain);
size_t stream_encode_end(unsigned char *to, const struct stream_end *counts, uint64_t *chain);

/* Decodes the record that begins at `bytes`; any bytes are fine. Returns its size; 0: there is no
 * whole record there, or it is wrong. Of *out what `kind` names is set. */
size_t stream_decode(const void *bytes, size_t size, uint64_t *chain, struct stream_record *out);

#endif
