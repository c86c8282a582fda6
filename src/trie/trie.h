/*
 * The trie's door for the store: dirty nodes out, stored nodes in. Everything else is
 * hashtrie/trie.h.
 *
 * A node *is* its key: (prefix, fp) = the chain hash before its run and its first fingerprint.
 * Nothing outside the trie names a node in any other way. Rules: the dirty queue's order, compare
 * on first write, grafting.
 *
 * Every call needs the trie's lock held, except where it says otherwise.
 */
#ifndef HASHTRIE_TRIE_TRIE_H
#define HASHTRIE_TRIE_TRIE_H

#include "hashtrie/trie.h"

#include "base/mem.h"

enum {
    TRIE_RUN_LENGTH_MAX = 1000,    /* Chunks of one node: a stored run fits one 4 KiB page. */
    TRIE_TAKE_NODES_PER_CALL = 32, /* Taken or released in one lock hold. */
    TRIE_BATCH_NODES_MAX = 2000,
    TRIE_STORED_ID_MAX = INT32_MAX, /* No store gets that far; what is left is for new endpoints. */
    TRIE_HELD_BY_ALL = 255,         /* holder_count: more holders than can be named. */
};

/* A holder as it is stored: by incarnation, not by a number of this process. */
struct trie_stored_holder {
    uint32_t id;           /* Incarnation of an endpoint; never reused within a store. */
    uint32_t last_used_s;  /* Unix seconds. */
    uint32_t odometer_kib; /* The endpoint's odometer at that time, modulo 2^32. */
};

/* A node as it is stored. `run` and `holders` point into the owner's memory. */
struct trie_record {
    uint64_t prefix; /* Chain hash before the run. */
    uint64_t end;    /* Chain hash of the run's last chunk. */
    uint32_t fp;     /* run[0]. */
    uint32_t depth;  /* Chunks before the run. */
    uint32_t length; /* Chunks in the run, 1 .. TRIE_RUN_LENGTH_MAX. */
    uint32_t bucket; /* Last use, Unix time in units of TRIE_BUCKET_SECONDS. */
    const uint32_t *run;
    const struct trie_stored_holder *holders;
    uint32_t
        holder_count; /* At most HASHTRIE_HOLDERS_MAX, or TRIE_HELD_BY_ALL (no holders then). */
};

enum { TRIE_BUCKET_SECONDS = 10 };

/* ---- Dirty nodes: one batch in flight at a time ---- */

enum trie_outcome {
    TRIE_WRITTEN, /* Committed as it was taken. */
    TRIE_FAILED,  /* Not committed: the node is queued again, in front. */
    TRIE_GONE,    /* A write of state alone found no such record (absent, or another `end`): needs a
                     full write. */
    TRIE_CONFLICT /* A first write found a record under the key that the trie has not seen; see
                     `found`. */
};

struct trie_entry {
    struct trie_record record; /* Its run and holders point into the batch. */
    bool structure;   /* Key or run not in the store as here: write everything. Else state alone. */
    bool first_write; /* Not known to be stored under this key: compare before overwriting. */
    enum trie_outcome outcome; /* Set by the writer before release. */
    const struct trie_record
        *found;    /* With TRIE_CONFLICT: the stored record, valid until this entry is released. */
    uint32_t node; /* Private to the trie. */
};

/* Copies of dirty nodes on their way to the store; made once by the writer and used again. Charged
 * to `mem`. */
struct trie_batch {
    struct mem *mem;
    struct trie_entry *entries; /* TRIE_BATCH_NODES_MAX. */
    size_t count;
    unsigned char *bytes; /* Where runs and holders are copied to. */
    size_t bytes_used;
    size_t bytes_max;
};

/* No lock needed. NULL on failure of allocation is reported as ENOMEM. bytes_max at least 64 KiB.
 */
enum hashtrie_status trie_batch_init(struct trie_batch *batch, struct mem *mem, size_t bytes_max);
void trie_batch_fini(struct trie_batch *batch);

/*
 * Moves up to TRIE_TAKE_NODES_PER_CALL nodes from the queue's head into the batch, in queue order.
 * Returns how many; 0: nothing is dirty or the batch is full. Entries come closed under order:
 * write them in one transaction, in any order. After the first take of a batch, read the endpoints
 * (trie_endpoint_get) last: an odometer must not be older than a holder's. Sequence: take .. take,
 * (unlock) write, commit, release .. release, batch is empty again.
 */
size_t trie_batch_take(struct hashtrie *trie, struct trie_batch *batch, size_t count_max);

/*
 * Tells the trie what became of up to TRIE_TAKE_NODES_PER_CALL entries, from the batch's END (so
 * that failed ones go back to the queue's front in their order), and removes them from the batch.
 * True: entries are left, call again (the lock may be dropped between). When it returns false the
 * batch is empty and its bytes may be reused.
 */
bool trie_batch_release(struct hashtrie *trie, struct trie_batch *batch);

size_t trie_dirty_count(const struct hashtrie *trie);
/* Bytes held by dirty nodes have passed half of (budget - threshold): a checkpoint is due now. */
bool trie_checkpoint_due(const struct hashtrie *trie);

/*
 * Everything up to now gets a number; once trie_dirty_done() says so, all of it is in the
 * store. This is how a checkpoint knows that it is complete: mark = trie_dirty_mark(); write
 * batches until trie_dirty_done(mark).
 */
uint64_t trie_dirty_mark(struct hashtrie *trie);
/* Nodes to be taken until then, at least. Take no more: they would stand for what comes back to the
 * queue unwritten. */
size_t trie_dirty_left(const struct hashtrie *trie, uint64_t mark);
bool trie_dirty_done(const struct hashtrie *trie, uint64_t mark);

/* ---- The store attaches ---- */

size_t trie_chunk_size(const struct hashtrie *trie); /* No lock needed: it never changes. */

/* Called with the lock held when a checkpoint has become due or eviction waits for dirty nodes.
 * Must only signal. */
typedef void trie_wake(void *user);

/*
 * From here on evicting a dirty node counts as a loss, and every node is taken to be unknown to the
 * store (NEW). newest_bucket: the store's; time here never falls below it. next_endpoint_id: first
 * id not in use there. NULL wake detaches.
 */
void trie_attach(struct hashtrie *trie, trie_wake *wake, void *user, uint32_t newest_bucket,
                 uint32_t next_endpoint_id);

/* While attached: the store in place is another one now, with this time and next id. */
void trie_follow(struct hashtrie *trie, uint32_t newest_bucket, uint32_t next_endpoint_id);

/* Marks nodes from `*cursor` on as not stored, a bounded number (parents first is not needed);
 * false: all done. For a store that was replaced by an empty one. *cursor starts at 0. */
bool trie_mark_unsaved(struct hashtrie *trie, uint32_t *cursor);

/* ---- Endpoints, as stored ---- */

struct trie_endpoint {
    uint32_t id;
    uint32_t odometer_kib;
    const char *name; /* Borrowed until the lock is dropped, as the next two. */
    const char *model;
    const char *generation; /* "" unknown. */
};

/* Endpoint number `slot` (0 .. trie_endpoint_slot_count() - 1); false: that slot is free. */
bool trie_endpoint_get(const struct hashtrie *trie, size_t slot, struct trie_endpoint *out);
size_t trie_endpoint_slot_count(const struct hashtrie *trie);
/* A known endpoint's generation is told in other words: what it holds stays. The text is not longer
 * than HASHTRIE_ENDPOINT_TEXT_MAX. EFULL: no room is left in the budget. */
enum hashtrie_status trie_endpoint_refine(struct hashtrie *trie, size_t slot,
                                          const char *generation);
uint32_t trie_endpoint_next_id(const struct hashtrie *trie);

/* At open, after trie_attach(): makes a stored incarnation known under its id. EEXIST: id or name
 * is known already. EINVAL: a text or the id is none that a store has. */
enum hashtrie_status trie_endpoint_restore(struct hashtrie *trie,
                                           const struct trie_endpoint *endpoint);

/*
 * For a store that comes when endpoints are known already.
 *
 * agrees: the id is not in use here under another name. renumber: gives all known endpoints new
 * ids, from first_id on; between batches. adopt, after that: a known endpoint becomes the stored
 * incarnation of its name, its entries here following those in the store. EEXIST: it cannot be the
 * same one (another generation, or it was removed or restarted since); it stays what it is. EFULL.
 */
bool trie_endpoint_agrees(const struct hashtrie *trie, const struct trie_endpoint *endpoint);
void trie_endpoints_renumber(struct hashtrie *trie, uint32_t first_id);
enum hashtrie_status trie_endpoint_adopt(struct hashtrie *trie,
                                         const struct trie_endpoint *endpoint);

/* ---- Reload ---- */

/* How many chunks of `key` are known, by anybody. Touches nothing. */
size_t trie_known_length(const struct hashtrie *trie, const struct hashtrie_key *key);

/*
 * Puts a stored record back where the path of `key` now ends, splitting there if that is inside a
 * run; drops it if it does not fit there any more (its depth is not where the match ends). The
 * record must have been checked against the key: prefix == hashes[depth - 1] (or the namespace), fp
 * == low half of hashes[depth], and, where the key covers all of it, end == hashes[depth + length -
 * 1]. Holders are filtered by known ids; odometers ahead of their endpoint's are clamped. The new
 * node is clean. ENOENT: did not fit. EFULL: no room. ECORRUPT: deeper than any key.
 */
enum hashtrie_status trie_graft(struct hashtrie *trie, const struct hashtrie_key *key,
                                const struct trie_record *record);

#endif
