/*
 * What a trie without a budget knows, in the plainest form: for each prefix, by its chain hash, who
 * was sent a prompt through it and when. No runs, no splits, no fences, nothing modulo anything.
 */
#ifndef HASHTRIE_TESTS_SUPPORT_NAIVE_TRIE_H
#define HASHTRIE_TESTS_SUPPORT_NAIVE_TRIE_H

#include "hashtrie/trie.h"

#include "base/mem.h"

enum { NAIVE_SLOTS_MAX = 128 };

struct naive;

struct naive_found {
    uint32_t known;                   /* Chunks that anybody ever was sent. */
    uint32_t all;                     /* Of these, held by more than a node can name. */
    uint32_t length[NAIVE_SLOTS_MAX]; /* By endpoint; 0 where that is not more than `all`. */
};

struct naive *naive_new(struct mem *mem, size_t chunk_size, uint32_t max_age_minutes);
void naive_free(struct naive *naive);

/* Added, removed or restarted: holds nothing from here on. */
void naive_endpoint_forget(struct naive *naive, hashtrie_endpoint slot);
void naive_endpoint_set_capacity(struct naive *naive, hashtrie_endpoint slot, uint64_t bytes);
/* How far back its cache reaches; what that is asks tests/unit/test_trie_recent.c. */
void naive_endpoint_set_reach(struct naive *naive, hashtrie_endpoint slot, uint64_t kib);
void naive_endpoint_set_odometer(struct naive *naive, hashtrie_endpoint slot, uint64_t kib);
void naive_endpoint_charge(struct naive *naive, hashtrie_endpoint slot, uint64_t bytes);

void naive_insert(struct naive *naive, const struct hashtrie_key *key, hashtrie_endpoint slot,
                  uint64_t now_s);
/* Of the first `serial` inserts; UINT64_MAX: of all. */
void naive_find(struct naive *naive, const struct hashtrie_key *key, uint64_t now_s,
                uint64_t serial, struct naive_found *out);
uint64_t naive_serial(const struct naive *naive); /* How many were inserted. */
/* Forgets who became a holder after that. */
void naive_drop_after(struct naive *naive, uint64_t serial);

#endif
