/*
 * From the bytes of a prompt to its chain hashes.
 *
 * A prompt is cut into chunks of `chunk_size` bytes; only whole chunks count, as engines cache
 * whole blocks.
 *
 *     hash[i] = XXH3_64bits_withSeed(chunk[i], hash[i - 1]),   hash[-1] = the namespace's hash
 *
 * so two prompts with equal hash[i] have equal first i + 1 chunks, up to 64-bit collisions. XXH3:
 * https://github.com/Cyan4973/xxHash. Hashes depend on nothing but these bytes: same on every
 * machine.
 *
 * Pure functions over the caller's memory; any thread. Pointers may be NULL where the size or count
 * that goes with them is 0. A chunk size outside HASHTRIE_CHUNK_SIZE_MIN .. _MAX ends the process
 * with a message.
 */
#ifndef HASHTRIE_CHUNK_H
#define HASHTRIE_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "hashtrie/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HASHTRIE_CHUNK_SIZE_DEFAULT 128U
#define HASHTRIE_CHUNK_SIZE_MIN     64U
#define HASHTRIE_CHUNK_SIZE_MAX     4096U
#define HASHTRIE_CHUNK_COUNT_MAX    0xfffffU /* Of a key: leave later chunks out. */
#define HASHTRIE_HASH_SEED          UINT64_C(0x6861736874726965) /* "hashtrie": of namespaces. */

/*
 * The hashes of one prompt. Borrowed by every call that takes it.
 * hashes[i] is the chain hash of chunk i; the array may be NULL where count is 0.
 */
struct hashtrie_key {
    uint64_t namespace_hash;
    const uint64_t *hashes;
    size_t count; /* At most HASHTRIE_CHUNK_COUNT_MAX. */
};

/* Hash of what keeps prompts apart that share text but no KV cache: model, adapter, cache salt.
 * O(size). */
HASHTRIE_API uint64_t hashtrie_hash_namespace(const void *bytes, size_t size);

/*
 * Hashes the whole chunks of `size` bytes into `hashes`, at most `hash_count_max`; returns how many
 * were written. O(size).
 */
HASHTRIE_API size_t hashtrie_hash_chunks(uint64_t namespace_hash, const void *bytes, size_t size,
                                         size_t chunk_size, uint64_t *hashes,
                                         size_t hash_count_max);

/*
 * The same over bytes that come in pieces. Pieces are read in place; only a chunk that lies across
 * two pieces is copied. After the last piece, `count` hashes are in `hashes`; `bytes` counts all
 * bytes that came, the unhashed tail included. Fields are for reading; nothing has to be freed.
 */
struct hashtrie_hasher {
    uint64_t chain;
    uint64_t *hashes; /* Borrowed from the caller. */
    size_t count;
    size_t count_max;
    uint64_t bytes;
    size_t chunk_size;
    size_t pending_size;
    unsigned char pending[HASHTRIE_CHUNK_SIZE_MAX];
};

/* Room for `hash_count_max` hashes at `hashes` must last as long as the hasher. O(1). */
HASHTRIE_API void hashtrie_hasher_init(struct hashtrie_hasher *hasher, uint64_t namespace_hash,
                                       size_t chunk_size, uint64_t *hashes, size_t hash_count_max);
/* The next piece; nothing of it is kept but up to a chunk's bytes. O(size). */
HASHTRIE_API void hashtrie_hasher_update(struct hashtrie_hasher *hasher, const void *bytes,
                                         size_t size);

#ifdef __cplusplus
}
#endif

#endif
