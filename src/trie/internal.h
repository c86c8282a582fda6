/* What the files of this room share: the trie itself and the steps that several of them take.
 * Private to the room. */
#ifndef HASHTRIE_TRIE_INTERNAL_H
#define HASHTRIE_TRIE_INTERNAL_H

#include <pthread.h>

#include "base/check.h"
#include "base/mem.h"
#include "trie/cells.h"
#include "trie/edges.h"
#include "trie/node.h"
#include "trie/run.h"

enum {
    EVICT_SCAN_MAX =
        32, /* Dirty leaves passed over before something is dropped or the search ends. */
    EVICT_SLICE_NODES = 32,    /* Evicted by one call on the way down to the target. */
    EVICT_FORCED_NODES = 1024, /* Evicted for one block or node at the hard budget. */
    ODOMETER_STATE_PARTS =
        32, /* A holder's odometer is rewritten when it moved by 1/32 of the capacity. */
    RECENT_BUCKETS = 64,
    RECENT_PARTS = 60, /* Of the capacity: a bucket's width. The buckets reach further. */
};

struct recent;

struct endpoint {
    char *name;              /* Owned; NULL: the slot is free. */
    char *model;             /* Owned. */
    char *generation;        /* Owned. */
    uint64_t odometer_bytes; /* Never goes down, not even when the slot changes hands. */
    uint32_t capacity_kib;   /* 0: unknown. */
    uint32_t evicted_kib;    /* By its odometer: its cache has dropped what was last used before. */
    struct recent *recent;   /* Owned; NULL: no capacity, or no memory. */
    uint32_t fence;          /* Holders with an odometer below are dead. */
    uint32_t stored_ahead; /* Stored odometers of it are this much (KiB, modulo 2^32) above ours. */
    uint32_t id;           /* Incarnation. */
    uint32_t match_seen;   /* Number of the match that has listed it already. */
};

struct hashtrie {
    struct mem mem; /* Its limit is the budget: no allocation passes it. */
    pthread_mutex_t lock;
    struct cells cells;
    struct edges edges;
    size_t chunk_size;
    size_t threshold_bytes;
    size_t target_bytes;
    uint32_t max_age_minutes; /* 0: none. */
    bool evicting;            /* Between threshold and target. */
    uint32_t pinned;          /* End of the path at hand: never evicted. */
    uint32_t bucket;          /* Newest time seen; never goes down. */

    uint32_t lru_head;
    uint32_t lru_tail;

    uint32_t dirty_head;
    uint32_t dirty_tail;
    size_t dirty_count;
    size_t dirty_bytes;
    int64_t
        dirty_progress; /* Nodes taken minus nodes queued ahead of others: see trie_dirty_mark(). */
    struct trie_batch *batch; /* In flight, or NULL. */
    bool attached;
    trie_wake *wake;
    void *wake_user;

    struct endpoint *endpoints;
    size_t endpoint_count; /* Slots, free ones included. */
    size_t endpoint_capacity;
    size_t endpoint_used;
    struct endpoint_id *ids; /* Of used slots and some that have gone, ascending; capacity as
                                endpoints. */
    size_t id_count;
    uint32_t next_endpoint_id;
    uint32_t match_number;

    size_t node_count; /* The root included. */
    uint64_t chunk_count;
    uint64_t evicted_count;
    uint64_t spilled_count;
    uint64_t dropped_count;
    uint64_t reloaded_count;
    uint64_t unrecorded_count;
    uint64_t collision_count;
    uint64_t conflict_count;
};

struct endpoint_id {
    uint32_t id;
    hashtrie_endpoint slot;
};

static inline struct node *node_at(const struct hashtrie *trie, uint32_t index)
{
    return &trie->cells.base[index].node;
}

/* ---- trie.c ---- */

/* Time in buckets never goes down. */
void trie_set_time(struct hashtrie *trie, uint64_t now_s);

/* ---- walk.c: following a key ---- */

struct walk {
    uint32_t node;   /* Last node of the path; NODE_NONE: not even the namespace is known. */
    size_t matched;  /* Chunks. */
    uint32_t inside; /* Of these, inside `node`'s run; 0: all of the run matched. */
    bool
        collision; /* A fingerprint matched and its chain hash did not: nothing may be hung here. */
};

struct walk trie_walk(const struct hashtrie *trie, const struct hashtrie_key *key);

/* Chain hash of the first `count` chunks. */
static inline uint64_t key_hash_before(const struct hashtrie_key *key, size_t count)
{
    return count == 0 ? key->namespace_hash : key->hashes[count - 1];
}

/* ---- nodes.c: making, splitting and removing nodes ---- */

/* Hangs an empty-run node below the root. NODE_NONE: no memory, or another namespace has its
 * fingerprint. */
uint32_t nodes_add_namespace(struct hashtrie *trie, uint64_t namespace_hash);

/* What a new node gets. */
struct node_spec {
    uint32_t parent;
    uint64_t end;
    uint32_t length;
    struct run_source run;
};

/* A leaf without holders, clean, just behind its parent in the LRU list. NODE_NONE: no memory. */
uint32_t nodes_add(struct hashtrie *trie, const struct node_spec *spec);

/*
 * Splits `index` after `length` chunks. It keeps its place, its children and its `end` as the lower
 * half; the new upper half is returned, with `end`. Both become STRUCT. NODE_NONE: no memory,
 * nothing changed.
 */
uint32_t nodes_split(struct hashtrie *trie, uint32_t index, uint32_t length, uint64_t end);

void nodes_remove_leaf(struct hashtrie *trie, uint32_t index);

/* ---- graft.c ---- */

/* The stored record `found` and the hot node under its key become one. The node is queued again. */
void graft_conflict(struct hashtrie *trie, uint32_t index, const struct trie_record *found);

/* ---- lru.c ---- */

void lru_push_front(struct hashtrie *trie, uint32_t index);
void lru_insert_before(struct hashtrie *trie, uint32_t place,
                       uint32_t index); /* Nearer the head. */
void lru_insert_after(struct hashtrie *trie, uint32_t place, uint32_t index);
void lru_remove(struct hashtrie *trie, uint32_t index);

/* ---- holders.c ---- */

uint32_t clock_minute(const struct hashtrie *trie);
bool holder_is_live(const struct hashtrie *trie, const struct node *node,
                    const struct holder *holder);
/* Live or not; NULL: none, also where the node counts as held by all. */
struct holder *holders_find(const struct hashtrie *trie, struct node *node,
                            hashtrie_endpoint endpoint);

/* Holders in pieces that lie together: `for (p = holders_first(..); p.count > 0; holders_next(..,
 * &p))`: p.at[0 .. p.count - 1]. None where the node counts as held by all. */
struct holder_piece {
    struct holder *at;
    uint32_t count;
    struct block_piece words;
};
struct holder_piece holders_first(const struct hashtrie *trie, struct node *node);
void holders_next(const struct hashtrie *trie, struct holder_piece *piece);

/* Makes `endpoint` a holder as of now. Returns the flags to set (NODE_STATE or 0), or -1: no
 * memory. */
int holders_touch(struct hashtrie *trie, struct node *node, hashtrie_endpoint endpoint);
/* Adds or freshens one; false: no memory. */
bool holders_join(struct hashtrie *trie, struct node *node, struct holder holder);
/* The live ones of `from`, to a node without holders. False: no room. */
bool holders_copy(struct hashtrie *trie, struct node *to, struct node *from);
size_t holders_bytes(const struct node *node); /* Of their block. */
void holders_free(struct hashtrie *trie, struct node *node);
void holders_set_all(struct hashtrie *trie, struct node *node);

/* To and from the stored form; `to` has room for HASHTRIE_HOLDERS_MAX. Returns how many are live.
 */
size_t holders_store(const struct hashtrie *trie, struct node *node, struct trie_stored_holder *to);
/* Joins what the record says of known endpoints; true: that changed something. `*failed` is set
 * without memory. */
bool holders_load(struct hashtrie *trie, struct node *node, const struct trie_record *record,
                  bool *failed);

/* ---- evict.c ---- */

/* Bytes of the budget that hold something. */
size_t evict_bytes_held(const struct hashtrie *trie);
/* A cell, a half; nodes are evicted for it as long as *evictions are left. NODE_NONE: no room. */
uint32_t evict_take_cell(struct hashtrie *trie, int *evictions);
uint32_t evict_take_half(struct hashtrie *trie, int *evictions);
/* After an insert: starts or goes on with eviction. */
void evict_slice(struct hashtrie *trie);

/* ---- dirty.c ---- */

/* All of these do nothing while no store is attached. */
void dirty_mark(struct hashtrie *trie, uint32_t index, uint32_t flags);
void dirty_split(struct hashtrie *trie, uint32_t lower, uint32_t upper); /* The order rule. */
void dirty_requeue_front(struct hashtrie *trie, uint32_t index, uint32_t flags);
void dirty_forget(struct hashtrie *trie, uint32_t index); /* Out of queue and batch. */
size_t dirty_node_bytes(const struct node *node);

/* ---- endpoints.c ---- */

struct endpoint *endpoint_at(struct hashtrie *trie,
                             hashtrie_endpoint endpoint); /* NULL: not in use. */
/* Uncached bytes were sent to it. At most 1 TiB at a time. */
void endpoint_charge(struct endpoint *endpoint, uint64_t bytes);
int endpoint_slot_of_id(const struct hashtrie *trie, uint32_t id); /* -1: unknown. */
void endpoints_unsee(struct hashtrie *trie);                       /* No match has listed any. */
void endpoints_fini(struct hashtrie *trie);

/* ---- recent.c ---- */

/* Its capacity is told, or that it is unknown. */
void recent_start(struct hashtrie *trie, struct endpoint *endpoint);
void recent_free(struct hashtrie *trie, struct endpoint *endpoint);
size_t recent_bytes(const struct endpoint *endpoint); /* That it takes. */
/* A run of chunks was sent to it, all of which it has now. `was_live`: it had them, and `moved_kib`
 * were sent since they were used. */
void recent_use(struct endpoint *endpoint, uint32_t chunks, bool was_live, uint32_t moved_kib);
/* After the uses of one prompt. */
void recent_measure(struct hashtrie *trie, struct endpoint *endpoint);

static inline uint32_t endpoint_odometer_kib(const struct endpoint *endpoint)
{
    return (uint32_t)(endpoint->odometer_bytes >> 10);
}

#endif
