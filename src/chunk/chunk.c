#include "hashtrie/chunk.h"

#include <string.h>

#include "base/check.h"

/* Inlined: a call per 128-byte chunk costs a tenth of the hash itself. */
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hashtrie_hash_namespace(const void *bytes, size_t size)
{
    return XXH3_64bits_withSeed(size > 0 ? bytes : "", size, HASHTRIE_HASH_SEED);
}

static void chunk_size_check(size_t chunk_size)
{
    REQUIRE(chunk_size >= HASHTRIE_CHUNK_SIZE_MIN);
    REQUIRE(chunk_size <= HASHTRIE_CHUNK_SIZE_MAX);
}

size_t hashtrie_hash_chunks(uint64_t namespace_hash, const void *bytes, size_t size,
                            size_t chunk_size, uint64_t *hashes, size_t hash_count_max)
{
    chunk_size_check(chunk_size);
    const unsigned char *next = bytes;
    size_t count = size / chunk_size;
    if (count > hash_count_max) {
        count = hash_count_max;
    }
    uint64_t chain = namespace_hash;
    if (chunk_size ==
        HASHTRIE_CHUNK_SIZE_DEFAULT) { /* A constant length lets the compiler pick the path. */
        for (size_t i = 0; i < count; i++, next += HASHTRIE_CHUNK_SIZE_DEFAULT) {
            chain = XXH3_64bits_withSeed(next, HASHTRIE_CHUNK_SIZE_DEFAULT, chain);
            hashes[i] = chain;
        }
        return count;
    }
    for (size_t i = 0; i < count; i++, next += chunk_size) {
        chain = XXH3_64bits_withSeed(next, chunk_size, chain);
        hashes[i] = chain;
    }
    return count;
}

void hashtrie_hasher_init(struct hashtrie_hasher *hasher, uint64_t namespace_hash,
                          size_t chunk_size, uint64_t *hashes, size_t hash_count_max)
{
    chunk_size_check(chunk_size);
    /* Not a whole-object initialisation: `pending` is large and needs none. */
    hasher->chain = namespace_hash;
    hasher->hashes = hashes;
    hasher->count = 0;
    hasher->count_max = hash_count_max;
    hasher->bytes = 0;
    hasher->chunk_size = chunk_size;
    hasher->pending_size = 0;
}

/* Hashes the whole chunks of `bytes` in place; returns how many bytes that took. */
static size_t hash_whole_chunks(struct hashtrie_hasher *hasher, const unsigned char *bytes,
                                size_t size)
{
    size_t count =
        hashtrie_hash_chunks(hasher->chain, bytes, size, hasher->chunk_size,
                             hasher->hashes + hasher->count, hasher->count_max - hasher->count);
    if (count > 0) {
        hasher->count += count;
        hasher->chain = hasher->hashes[hasher->count - 1];
    }
    return count * hasher->chunk_size;
}

void hashtrie_hasher_update(struct hashtrie_hasher *hasher, const void *bytes, size_t size)
{
    const unsigned char *next = bytes;
    hasher->bytes += size;
    if (size == 0 || hasher->count == hasher->count_max) {
        return;
    }
    if (hasher->pending_size > 0) {
        size_t missing = hasher->chunk_size - hasher->pending_size;
        size_t part = size < missing ? size : missing;
        memcpy(hasher->pending + hasher->pending_size, next, part);
        hasher->pending_size += part;
        next += part;
        size -= part;
        if (hasher->pending_size < hasher->chunk_size) {
            return;
        }
        (void)hash_whole_chunks(hasher, hasher->pending, hasher->chunk_size);
        hasher->pending_size = 0;
    }
    size_t done = hash_whole_chunks(hasher, next, size);
    size_t rest = size - done;
    if (rest > 0 && rest < hasher->chunk_size) { /* Else the hash array is full. */
        memcpy(hasher->pending, next + done, rest);
        hasher->pending_size = rest;
    }
}
