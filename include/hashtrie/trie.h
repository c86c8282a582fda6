/*
 * The hot trie: which endpoint holds the KV cache of which prompt prefix, in memory, under an exact
 * byte budget.
 *
 * A node is a run of consecutive chunks without a branch; it knows its holders: the endpoints that
 * were sent a prompt through it, and when. Matching finds, for a prompt, how far each endpoint
 * holds it. Inserting records a choice. Past `threshold` of the budget the least recently used
 * leaves are evicted, a bounded number a call; with a store attached (hashtrie/store.h) what is
 * evicted can be found again there.
 *
 * Threads: every call below except hashtrie_new(), hashtrie_free() and hashtrie_lock() needs the
 * trie's lock when several threads, or a store, share the trie: hold it with hashtrie_lock() over
 * match, choice and insert, so that two requests with the same prefix see each other. No call
 * blocks, reads a clock or touches a disk.
 *
 * Times are Unix seconds, passed in; they may stand still or step back.
 */
#ifndef HASHTRIE_TRIE_H
#define HASHTRIE_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hashtrie/chunk.h"
#include "hashtrie/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HASHTRIE_HOLDERS_MAX     64U    /* A node with more counts as held by every endpoint. */
#define HASHTRIE_ENDPOINTS_MAX   65535U /* Known at one time. */
#define HASHTRIE_BUDGET_MIN      (UINT64_C(1) << 20)
#define HASHTRIE_ENTRY_AGE_MAX_S (21U * 24U * 3600U) /* Largest max_entry_age_s. */

struct hashtrie;

/* Number of a known endpoint; valid from hashtrie_endpoint_add() until hashtrie_endpoint_remove().
 */
typedef uint16_t hashtrie_endpoint;

struct hashtrie_options {
    size_t budget_bytes;      /* At least HASHTRIE_BUDGET_MIN. Never exceeded, at any moment. */
    double threshold;         /* Share of the budget from which on leaves are evicted. 0 < target <=
                                 threshold <= 1. */
    double target;            /* Share down to which eviction goes on over later calls. */
    size_t chunk_size;        /* HASHTRIE_CHUNK_SIZE_MIN .. _MAX; a multiple of 8. */
    uint32_t max_entry_age_s; /* A holder unused for longer does not count. 0: no such limit. */
    uint64_t
        seed; /* Of the edge table, against crafted collisions. Take it from a random source. */
};

/* Threshold 0.9, target 0.5, chunk size 128, no age limit, seed 0; budget as given. */
HASHTRIE_API struct hashtrie_options hashtrie_options_default(size_t budget_bytes);

/* EINVAL: an option is outside its range. ENOMEM. On success *out is owned by the caller. */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_new(const struct hashtrie_options *options, struct hashtrie **out);

/* NULL is fine. A store attached to it must have been closed before. */
HASHTRIE_API void hashtrie_free(struct hashtrie *trie);

HASHTRIE_API void hashtrie_lock(struct hashtrie *trie);
HASHTRIE_API void hashtrie_unlock(struct hashtrie *trie);

/* ---- Endpoints ---- */

/*
 * Makes an endpoint known, or finds the known one of that name: one that went and came back within
 * its lifetime here (or was restored from a store) keeps its entries. `name` is its URL, `model`
 * what it serves (for people who read the store; may be ""). Both are copied. EFULL:
 * HASHTRIE_ENDPOINTS_MAX are known, or no budget is left.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status hashtrie_endpoint_add(struct hashtrie *trie,
                                                                           const char *name,
                                                                           const char *model,
                                                                           hashtrie_endpoint *out);

/* Forgets the endpoint and, in O(1), all it holds. Its number may be given out again. */
HASHTRIE_API void hashtrie_endpoint_remove(struct hashtrie *trie, hashtrie_endpoint endpoint);

/*
 * Tells which start of the engine answers there now (its process start time, its pod's UID). If
 * another one was known, the engine has restarted: its KV cache is empty, and it holds nothing from
 * now on. O(1). The first generation told for an endpoint that never had one changes nothing.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_endpoint_set_generation(struct hashtrie *trie, hashtrie_endpoint endpoint,
                                 const char *generation);

/*
 * Bytes of prompt that the engine's KV cache takes; 0 (the start value): unknown. Once more than
 * that has been sent to the engine uncached since an entry was last used, the engine must have
 * evicted it, and it no longer counts.
 */
HASHTRIE_API void hashtrie_endpoint_set_capacity(struct hashtrie *trie, hashtrie_endpoint endpoint,
                                                 uint64_t bytes);

/* ---- Routing ---- */

struct hashtrie_holder {
    hashtrie_endpoint endpoint;
    uint32_t chunk_count; /* It holds the first so many chunks of the prompt. */
};

struct hashtrie_match {
    size_t chunk_count;     /* Length of the longest known prefix, held by anybody or not. */
    size_t all_chunk_count; /* So much counts as held by every endpoint (more holders than a node
                               can name). */
    size_t holder_count;
    struct hashtrie_holder holders[HASHTRIE_HOLDERS_MAX]; /* Deepest first; each endpoint once. */
};

/*
 * Longest known prefix of `key` and who holds how much of it. A miss is not an error: all counts
 * are 0. Changes nothing. O(nodes on the path + holders looked at); allocates nothing.
 */
HASHTRIE_API void hashtrie_match(struct hashtrie *trie, const struct hashtrie_key *key,
                                 uint64_t now_s, struct hashtrie_match *out);

/*
 * Records that `endpoint` was just sent the prompt `key`, all of it, and marks its path as most
 * recently used. The chunks that the endpoint did not hold are added to its odometer. A full hit
 * allocates nothing. EFULL: the budget has no room and nothing could be evicted for it; a prefix of
 * the path may have been recorded. EINVAL: no such endpoint.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status hashtrie_insert(struct hashtrie *trie,
                                                                     const struct hashtrie_key *key,
                                                                     hashtrie_endpoint endpoint,
                                                                     uint64_t now_s);

/*
 * Goes on with an eviction that has begun (past threshold, not yet down at target), a bounded step;
 * call it when idle. True: there is more to do.
 */
HASHTRIE_API bool hashtrie_evict_step(struct hashtrie *trie);

/* ---- What it looks like ---- */

struct hashtrie_stats {
    uint64_t bytes_used; /* Exact: allocations as the allocator rounds them. */
    uint64_t bytes_budget;
    uint64_t node_count;  /* Namespaces included. */
    uint64_t chunk_count; /* In all runs. */
    uint64_t endpoint_count;
    uint64_t dirty_node_count;    /* Not yet in the store as they are here. */
    uint64_t evicted_node_count;  /* Since the start, as the rest: dropped for room, ... */
    uint64_t spilled_node_count;  /* ... of these, known to be in the store; */
    uint64_t dropped_node_count;  /* ... of these, lost because a store was attached but had not
                                     saved them yet. */
    uint64_t reloaded_node_count; /* Put back from the store. */
    uint64_t unrecorded_count;    /* Inserts that ended in EFULL or ENOMEM. */
    uint64_t collision_count;     /* Fingerprint met with another chain hash. */
    uint64_t conflict_count;      /* Stored and hot run part inside; the newer won. */
};

HASHTRIE_API void hashtrie_get_stats(const struct hashtrie *trie, struct hashtrie_stats *out);

/* Recounts nodes, bytes, links and queues from scratch: O(everything), for tests. ECORRUPT names
 * the first breach. */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status hashtrie_check(const struct hashtrie *trie,
                                                                    const char **breach);

#ifdef __cplusplus
}
#endif

#endif
