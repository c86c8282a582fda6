/*
 * What the store's databases hold, as bytes. Private to the room. Pure functions.
 *
 * FORMAT.md has keys, values, checksums and versions. Keys are big-endian, values little-endian.
 *
 * Decoders take any bytes: they never read outside, allocate nothing, and return false unless the
 * checksum, the version, every bound and the length are right.
 */
#ifndef HASHTRIE_STORE_RECORD_H
#define HASHTRIE_STORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trie/trie.h"

enum {
    RECORD_VERSION = 1,
    EDGE_KEY_SIZE = 12,
    ROW_KEY_SIZE = 8,
    AGE_KEY_SIZE = 16,
    ENDPOINT_KEY_SIZE = 4,
    META_KEY_SIZE = 4,
    ROW_VALUE_SIZE = 8,
    META_VALUE_SIZE = 16,
    CHECKSUM_SIZE = 8,
    RUN_HEADER_SIZE = 12,
    RUN_BYTES_MAX = RUN_HEADER_SIZE + 4 * TRIE_RUN_LENGTH_MAX, /* Fits one overflow page. */
    STATE_BYTES_MAX = 64 + HASHTRIE_HOLDERS_MAX * 15,
    ENDPOINT_TEXT_BYTES_MAX = 2048, /* Of a name, a model, a generation. */
    ENDPOINT_BYTES_MAX = 4000,      /* Fits one page; see record_encode_endpoint(). */
};

/* Fields of `meta`; the first is the format version, whatever the format. */
enum meta_field {
    META_FORMAT,
    META_CHUNK_SIZE,
    META_HASH_SEED,
    META_NEXT_ENDPOINT_ID,
    META_NEWEST_BUCKET,
    META_LAST_CHECKPOINT_MS,
    META_CLEAN,
    META_CHUNK_COUNT,   /* Chunks in all runs. */
    META_CAP_BYTES,     /* In force when it was opened last. */
    META_RELOADS_FOUND, /* Reloads answered, over all openings. */
    META_RELOADS_MISSED,
    META_FIELDS
};

/* ---- Keys ---- */

void record_put_u32(unsigned char *to, uint32_t value); /* Big-endian, as in keys. */
void record_put_u64(unsigned char *to, uint64_t value);
uint32_t record_get_u32(const unsigned char *from);
uint64_t record_get_u64(const unsigned char *from);
void record_edge_key(unsigned char key[EDGE_KEY_SIZE], uint64_t prefix, uint32_t fp);
void record_age_key(unsigned char key[AGE_KEY_SIZE], uint32_t bucket, uint32_t depth, uint64_t row);

/* The value of an edge. */
void record_encode_row(unsigned char value[ROW_VALUE_SIZE], uint64_t row);
bool record_decode_row(const void *bytes, size_t size, uint64_t *row);

/* XXH3. `bytes` may not be NULL. */
uint64_t record_hash(const void *bytes, size_t size, uint64_t seed);

/* ---- Values ---- */

/* Returns the size; `to` has RUN_BYTES_MAX bytes. */
size_t record_encode_run(unsigned char *to, uint64_t prefix, const uint32_t *run, uint32_t length);
/* `run` has room for TRIE_RUN_LENGTH_MAX. */
bool record_decode_run(const void *bytes, size_t size, uint64_t prefix, uint32_t *run,
                       uint32_t *length);

/* Returns the size; `to` has STATE_BYTES_MAX bytes. The record's run is not part of it. */
size_t record_encode_state(unsigned char *to, uint64_t row, const struct trie_record *record);
/*
 * Sets all but `run`. `holders` has room for HASHTRIE_HOLDERS_MAX and is what out->holders points
 * to; NULL: they are checked and not kept.
 */
bool record_decode_state(const void *bytes, size_t size, uint64_t row, struct trie_record *out,
                         struct trie_stored_holder *holders);

/* Whether a decoded run belongs to a decoded state. */
bool record_run_fits(const struct trie_record *state, const uint32_t *run, uint32_t length);

struct record_endpoint {
    uint32_t id;
    uint32_t odometer_kib;
    uint64_t seen_s; /* Unix time at which the record was written. */
    char name[ENDPOINT_TEXT_BYTES_MAX + 1];
    char model[ENDPOINT_TEXT_BYTES_MAX + 1];
    char generation[ENDPOINT_TEXT_BYTES_MAX + 1];
};

/*
 * Returns the size; `to` has ENDPOINT_BYTES_MAX bytes. Texts that do not fit together are left out:
 * the model first, then the generation (the engine then counts as never asked).
 */
size_t record_encode_endpoint(unsigned char *to, const struct trie_endpoint *endpoint,
                              uint64_t seen_s);
bool record_decode_endpoint(const void *bytes, size_t size, uint32_t id,
                            struct record_endpoint *out);

void record_encode_meta(unsigned char value[META_VALUE_SIZE], enum meta_field field,
                        uint64_t number);
bool record_decode_meta(const void *bytes, size_t size, enum meta_field field, uint64_t *number);

#endif
