/* What was sent to which endpoint, and how much of it a checkpoint has acknowledged: what a store
 * has to know after a crash, and what it may claim. */
#ifndef HASHTRIE_TESTS_UNIT_STORE_LEDGER_H
#define HASHTRIE_TESTS_UNIT_STORE_LEDGER_H

#include <stdatomic.h>

#include "base/random.h"
#include "unit/store_support.h"

enum {
    LEDGER_ENDPOINTS = 4,
    LEDGER_KEY_CHUNKS = 1300, /* Long enough for runs of full length. */
};

struct ledger_key {
    atomic_bool acknowledged; /* A checkpoint has ended that began after it was sent. */
    uint64_t namespace_hash;
    uint32_t count;
    int endpoint;
    uint64_t hashes[LEDGER_KEY_CHUNKS];
};

static inline struct hashtrie_key ledger_view(const struct ledger_key *key)
{
    return (struct hashtrie_key){
        .namespace_hash = key->namespace_hash, .hashes = key->hashes, .count = key->count};
}

static inline void ledger_push(struct ledger_key *key, uint64_t symbol)
{
    uint64_t chain = key->count == 0 ? key->namespace_hash : key->hashes[key->count - 1];
    key->hashes[key->count++] = test_key_next(chain, symbol);
}

/* Often a prefix of one of the `known` with something behind it. */
static inline void ledger_make_key(struct random *random, const struct ledger_key *keys,
                                   size_t known, struct ledger_key *key)
{
    key->count = 0;
    key->namespace_hash = 1 + random_below(random, 2);
    if (known > 0 && random_below(random, 8) != 0) {
        const struct ledger_key *base = &keys[random_below(random, (uint32_t)known)];
        key->namespace_hash = base->namespace_hash;
        key->count = random_below(random, base->count + 1);
        memcpy(key->hashes, base->hashes, key->count * sizeof *key->hashes);
    }
    uint32_t more = random_below(random, 40) == 0 ? random_below(random, LEDGER_KEY_CHUNKS)
                                                  : 1 + random_below(random, 6);
    for (uint32_t i = 0; i < more && key->count < LEDGER_KEY_CHUNKS; i++) {
        ledger_push(key, random_below(random, 3));
    }
    key->endpoint = (int)random_below(random, LEDGER_ENDPOINTS);
}

/* Opens, and makes the endpoints known. */
static inline void ledger_open(struct test_store *test, hashtrie_endpoint slots[LEDGER_ENDPOINTS])
{
    test_store_open(test);
    for (int i = 0; i < LEDGER_ENDPOINTS; i++) {
        char name[] = "http://engine-0";
        name[14] = (char)('0' + i);
        slots[i] = test_store_endpoint(test, name);
    }
}

/* As a router does it: what the store knows comes back first. */
static inline struct hashtrie_match ledger_recall(struct test_store *test,
                                                  const struct ledger_key *key)
{
    static struct test_key copy;
    copy.namespace_hash = key->namespace_hash;
    copy.count = key->count;
    memcpy(copy.hashes, key->hashes, key->count * sizeof *key->hashes);
    return test_store_recall(test, &copy);
}

static inline uint32_t ledger_common(const struct ledger_key *a, const struct ledger_key *b)
{
    uint32_t length = a->count < b->count ? a->count : b->count;
    uint32_t i = 0;
    while (a->namespace_hash == b->namespace_hash && i < length && a->hashes[i] == b->hashes[i]) {
        i++;
    }
    return i;
}

/* How far a key was sent to each endpoint: at least what was acknowledged, at most all. */
struct ledger_bounds {
    uint32_t least[LEDGER_ENDPOINTS];
    uint32_t most[LEDGER_ENDPOINTS];
};

static inline struct ledger_bounds ledger_bounds_of(const struct ledger_key *keys, size_t count,
                                                    const struct ledger_key *key)
{
    struct ledger_bounds bounds = {{0}, {0}};
    for (size_t i = 0; i < count; i++) {
        const struct ledger_key *sent = &keys[i];
        uint32_t length = ledger_common(sent, key);
        uint32_t *most = &bounds.most[sent->endpoint];
        uint32_t *least = &bounds.least[sent->endpoint];
        *most = length > *most ? length : *most;
        *least = atomic_load(&sent->acknowledged) && length > *least ? length : *least;
    }
    return bounds;
}

/* 0 if all that was acknowledged is found and nothing is claimed that was not sent. */
static inline int ledger_check_key(struct test_store *test,
                                   const hashtrie_endpoint slots[LEDGER_ENDPOINTS],
                                   const struct ledger_key *keys, size_t count,
                                   const struct ledger_key *key)
{
    struct ledger_bounds bounds = ledger_bounds_of(keys, count, key);
    struct hashtrie_match match = ledger_recall(test, key);
    int wrong = 0;
    for (int i = 0; i < LEDGER_ENDPOINTS; i++) {
        uint32_t held = test_store_held(&match, slots[i]);
        if (held < bounds.least[i] || held > bounds.most[i]) {
            print_error("endpoint %d: %u chunks of %u, expected %u to %u\n", i, held, key->count,
                        bounds.least[i], bounds.most[i]);
            wrong++;
        }
    }
    return wrong;
}

#endif
