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
 *
 * Pointers must not be NULL except where it says so; a promise that the caller breaks ends the
 * process. Out-parameters are written only on success. Threads and locks do not survive fork():
 * make the trie, and open its store, in the process that uses them.
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

#define HASHTRIE_HOLDERS_MAX \
    64U /* A node with more counts as held by every endpoint, while it is known. */
#define HASHTRIE_ENDPOINTS_MAX     65535U /* Known at one time. */
#define HASHTRIE_ENDPOINT_TEXT_MAX 2048U  /* Bytes of a name, a model or a generation. */
#define HASHTRIE_BUDGET_MIN        (UINT64_C(1) << 20)
#define HASHTRIE_BUDGET_MAX        (UINT64_C(128) << 30) /* Nodes are named by 31 bits. */
#define HASHTRIE_ENTRY_AGE_MAX_S   (21U * 24U * 3600U)   /* Largest max_entry_age_s. */

struct hashtrie;

/*
 * Number of a known endpoint; valid from hashtrie_endpoint_add() until hashtrie_endpoint_remove(),
 * after which another endpoint may get it. Numbers are small: lowest free one first.
 */
typedef uint16_t hashtrie_endpoint;

struct hashtrie_options {
    size_t budget_bytes;      /* HASHTRIE_BUDGET_MIN .. _MAX. Never exceeded, at any moment, by
                                 the memory that the trie takes from the system. Address space
                                 for it is reserved at once, memory as it is needed. */
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

/* O(1). EINVAL: an option is outside its range. ENOMEM. On success *out is owned by the caller. */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_new(const struct hashtrie_options *options, struct hashtrie **out);

/* NULL is fine. A store attached to it must have been closed before. O(nodes). */
HASHTRIE_API void hashtrie_free(struct hashtrie *trie);

/* Not recursive; unlocked by the thread that locked it (Go: runtime.LockOSThread). A store's
 * threads hold it for some microseconds at a time. */
HASHTRIE_API void hashtrie_lock(struct hashtrie *trie);
HASHTRIE_API void hashtrie_unlock(struct hashtrie *trie);

/* ---- Endpoints ---- */

/*
 * Makes an endpoint known, or finds the known one of that name: one that went and came back within
 * its lifetime here (or was restored from a store) keeps its entries. `name` is its URL, `model`
 * what it serves (the router separates several by commas; may be ""). Both are copied.
 * O(endpoints). EINVAL: the name is empty, or a text is longer than HASHTRIE_ENDPOINT_TEXT_MAX.
 * EFULL: HASHTRIE_ENDPOINTS_MAX are known, or no room is left in the budget.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status hashtrie_endpoint_add(struct hashtrie *trie,
                                                                           const char *name,
                                                                           const char *model,
                                                                           hashtrie_endpoint *out);

/*
 * The name of a known endpoint; NULL: none has that number. Owned by the trie, until the endpoint
 * is removed. After hashtrie_store_open() this tells which endpoints came back: ask 0, 1, 2 ..
 * until hashtrie_stats.endpoint_count of them were found. O(1).
 */
HASHTRIE_API const char *hashtrie_endpoint_name(const struct hashtrie *trie,
                                                hashtrie_endpoint endpoint);

/*
 * Forgets the endpoint and all it holds, however much that is: O(1) but for a binary search among
 * the endpoints. EINVAL: no such endpoint.
 */
HASHTRIE_API enum hashtrie_status hashtrie_endpoint_remove(struct hashtrie *trie,
                                                           hashtrie_endpoint endpoint);

/*
 * Tells which start of the engine answers there now (its process start time, its pod's UID). If
 * another one was known, the engine has restarted: its KV cache is empty, and it holds nothing from
 * now on. The first generation told for an endpoint that never had one changes nothing. Copied.
 * O(1) as above. EINVAL: no such endpoint, or the text is empty or longer than
 * HASHTRIE_ENDPOINT_TEXT_MAX. EFULL: no room is left in the budget.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_endpoint_set_generation(struct hashtrie *trie, hashtrie_endpoint endpoint,
                                 const char *generation);

/*
 * Bytes of prompt that the engine's KV cache takes; 0 (the start value): unknown. Once it would be
 * full of what was used since an entry's last use, the engine must have evicted that, and it no
 * longer counts. Rounded up to KiB. Past 1 TiB, or if unknown, an entry counts until 1 TiB has been
 * sent. O(1). EINVAL: no such endpoint.
 */
HASHTRIE_API enum hashtrie_status
hashtrie_endpoint_set_capacity(struct hashtrie *trie, hashtrie_endpoint endpoint, uint64_t bytes);

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
 * are 0. `key->count` is at most HASHTRIE_CHUNK_COUNT_MAX. Records nothing; allocates nothing.
 * O(nodes on the path + their holders + one run): a long prompt is a handful of nodes, each of up
 * to 1000 chunks and HASHTRIE_HOLDERS_MAX holders.
 */
HASHTRIE_API void hashtrie_match(struct hashtrie *trie, const struct hashtrie_key *key,
                                 uint64_t now_s, struct hashtrie_match *out);

/*
 * Records that `endpoint` was just sent the prompt `key`, all of it, and marks its path as most
 * recently used. `key->count` is at most HASHTRIE_CHUNK_COUNT_MAX. The chunks that the endpoint did
 * not hold are added to its odometer. A full hit allocates nothing. O(chunks that are new + nodes
 * on the path + their holders), and at a full budget an eviction of at most as much as is needed.
 * EINVAL: no such endpoint. EFULL: the budget, or the machine, has no room and nothing could be
 * evicted for it; a prefix of the path may have been recorded.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status hashtrie_insert(struct hashtrie *trie,
                                                                     const struct hashtrie_key *key,
                                                                     hashtrie_endpoint endpoint,
                                                                     uint64_t now_s);

/*
 * Goes on with an eviction that has begun (past threshold, not yet down at target), at most 32
 * nodes a call; call it when idle. True: there is more to do. Inserts take such a step, too.
 */
HASHTRIE_API bool hashtrie_evict_step(struct hashtrie *trie);

/* ---- What it looks like ---- */

struct hashtrie_stats {
    uint64_t bytes_used; /* Exact. Memory once taken from the system is kept for what comes next
                            and does not count while it holds nothing. */
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
    uint64_t unrecorded_count;    /* Inserts that ended in EFULL. */
    uint64_t collision_count;     /* Fingerprint met with another chain hash. */
    uint64_t conflict_count;      /* Stored and hot run part inside; the newer won. */
};

/* O(1). */
HASHTRIE_API void hashtrie_get_stats(const struct hashtrie *trie, struct hashtrie_stats *out);

/* Recounts nodes, bytes, links and queues from scratch: O(everything), for tests. ECORRUPT:
 * *breach, a static text, says what was found wrong first, or that there was no memory for the
 * check. */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status hashtrie_check(const struct hashtrie *trie,
                                                                    const char **breach);

#ifdef __cplusplus
}
#endif

#endif
