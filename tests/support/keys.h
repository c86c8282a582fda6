/* Keys for tests of trie and store: chains over a small alphabet, so that prefixes are shared and
 * runs branch. */
#ifndef HASHTRIE_TESTS_SUPPORT_KEYS_H
#define HASHTRIE_TESTS_SUPPORT_KEYS_H

#include "hashtrie/chunk.h"

#include "base/random.h"

enum { TEST_KEY_CHUNKS_MAX = 4096 };

struct test_key {
    uint64_t namespace_hash;
    uint32_t count;
    uint64_t hashes[TEST_KEY_CHUNKS_MAX];
};

enum { TEST_ALPHABET = 8 };

/* The chain hash after `symbol`. Symbols of a small alphabet are its last bits, so that siblings
 * never have one fingerprint by chance: where that is asked about, a test makes it so. */
static inline uint64_t test_key_next(uint64_t chain, uint64_t symbol)
{
    struct random mixer = {.state = chain ^ (symbol + 1) * UINT64_C(0x9e3779b97f4a7c15)};
    uint64_t next = random_next(&mixer);
    return symbol < TEST_ALPHABET ? next - next % TEST_ALPHABET + symbol : next;
}

static inline void test_key_push(struct test_key *key, uint64_t symbol)
{
    uint64_t chain = key->count == 0 ? key->namespace_hash : key->hashes[key->count - 1];
    key->hashes[key->count++] = test_key_next(chain, symbol);
}

static inline struct hashtrie_key test_key_view(const struct test_key *key)
{
    return (struct hashtrie_key){
        .namespace_hash = key->namespace_hash, .hashes = key->hashes, .count = key->count};
}

/* Chunks that two keys share from the start. */
static inline uint32_t test_key_common(const struct test_key *a, const struct test_key *b)
{
    uint32_t length = a->count < b->count ? a->count : b->count;
    uint32_t i = 0;
    while (a->namespace_hash == b->namespace_hash && i < length && a->hashes[i] == b->hashes[i]) {
        i++;
    }
    return i;
}

/*
 * A random key that often shares a prefix with `base` (may be NULL): cut it somewhere, go on with
 * random symbols. Mostly short; now and then longer than a node's run may be.
 */
static inline void test_key_random(struct test_key *key, const struct test_key *base,
                                   struct random *random)
{
    key->count = 0;
    key->namespace_hash = UINT64_C(0x1111111111111111) * (1 + random_below(random, 2));
    if (base != NULL && random_below(random, 8) != 0) {
        key->namespace_hash = base->namespace_hash;
        uint32_t keep = base->count == 0 ? 0 : random_below(random, base->count + 1);
        for (uint32_t i = 0; i < keep; i++) {
            key->hashes[key->count++] = base->hashes[i];
        }
    }
    uint32_t more =
        random_below(random, 60) == 0 ? random_below(random, 2500) : random_below(random, 7);
    for (uint32_t i = 0; i < more && key->count < TEST_KEY_CHUNKS_MAX; i++) {
        test_key_push(key, random_below(random, 3));
    }
}

#endif
