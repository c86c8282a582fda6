/*
 * The store as its threads share it. Private to the room.
 *
 *     callers                    writer                       readers (1 to 4)      background
 *        | reload() -- jobs ------------------------------------>|                      |
 *        | checkpoint() -- control ->|                           |                      |
 *        |                           | take, write, release      | walk, graft          | filter,
 *        |                           v                           v                      v warm-up
 *                       trie (its lock)            LMDB (env_lock, write_lock)
 *
 * Locks, in this order; each thread may skip some, none goes back:
 *   write_lock      held by the writer over a write transaction, and by whoever publishes a filter
 *   env_lock        read: over any transaction; write: while the environment is closed and opened
 *   the trie's lock never held over LMDB
 *   control.lock, reloads.lock   short, nothing is taken inside
 */
#ifndef HASHTRIE_STORE_INTERNAL_H
#define HASHTRIE_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "hashtrie/store.h"

#include "base/buf.h"
#include "base/list.h"
#include "base/mem.h"
#include "store/env.h"
#include "store/filter.h"
#include "trie/trie.h"

enum {
    SLOW_MS = 1000,          /* A commit or a read that takes longer makes the store SLOW. */
    SLOW_PROBE_MS = 1000,    /* One reload in that time is let through while it is. */
    BATCH_ROWS_FLOOR = 32,   /* A batch is not halved below that. */
    BATCH_BYTES_MIN = 65536, /* What trie_batch_init() asks for. */
    BATCH_BYTES_MAX = 2 << 20,
    BATCH_CAP_PARTS = 64,   /* A batch takes at most 1/64 of the cap. */
    BATCH_BUDGET_PARTS = 8, /* And at most 1/8 of the trie's budget. */
    PAGES_PER_ROW = 4, /* That a batch dirties: edge, run or state, age, and for what it deletes. */
};

/* What the threads tell each other about checkpoints. */
struct control {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* For writer and background. */
    pthread_cond_t done; /* A checkpoint has ended. */
    bool due;            /* The trie asks for a checkpoint. */
    bool stopping;
    bool handing_over; /* The next checkpoint that succeeds is the last. */
    bool opened;       /* The store has been up. */
    bool tried;        /* The first attempt to come up has ended with first_status. */
    bool refilter;     /* The background thread shall build the filter anew. */
    uint64_t stop_deadline_ns;
    uint64_t asked;     /* Number of the last hashtrie_store_checkpoint() call. */
    uint64_t started;   /* What `asked` was when the last checkpoint began. */
    uint64_t ended;     /* What `asked` was when the last ended checkpoint began. */
    uint64_t completed; /* The same, of the last that succeeded. */
    enum hashtrie_status last_status;
    enum hashtrie_status first_status;
};

/* Written by one thread each, read by any. */
struct counters {
    atomic_uint_fast64_t checkpoints;
    atomic_uint_fast64_t failures;
    atomic_uint_fast64_t repeated;
    atomic_uint_fast64_t last_checkpoint_ms;
    atomic_uint_fast64_t timed[HASHTRIE_STORE_CHECKPOINT_BOUNDS + 1];
    atomic_uint_fast64_t timed_ns_sum;
    atomic_uint_fast64_t written;
    atomic_uint_fast64_t touched;
    atomic_uint_fast64_t deleted;
    atomic_uint_fast64_t corrupt;
    atomic_uint_fast64_t recovered[HASHTRIE_RECOVERIES];
    atomic_uint_fast64_t nodes;
    atomic_uint_fast64_t chunks;
    atomic_uint_fast64_t endpoints;
    atomic_uint_fast64_t bytes;
    atomic_uint_fast64_t cap_bytes;
    atomic_uint_fast64_t restore_ns;
    atomic_uint_fast64_t holder_pid; /* Of the folder's lock, when it was last refused. */
    atomic_uint_fast64_t warm_done;
    atomic_uint_fast64_t warm_total; /* 0: not known yet. */
    atomic_uint_fast64_t reloads;
    atomic_uint_fast64_t reloads_refused;
    atomic_uint_fast64_t reloads_found;
    atomic_uint_fast64_t reloads_missed;
    atomic_uint_fast64_t reloads_repeated;
};

struct reload_job;
struct reload_walk;

struct reloads {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct mem mem; /* Of jobs' keys and waiters. */
    struct list queue;
    struct list used; /* Queued or running. */
    struct list free;
    struct reload_job *jobs; /* Owned: HASHTRIE_STORE_RELOAD_JOBS_MAX. */
    bool stopping;
    uint64_t probe_ns; /* When the last was let through while SLOW. */
};

/* An endpoint as it was last written. */
struct endpoint_stored {
    uint32_t id; /* 0: none. */
    uint32_t odometer_kib;
    uint64_t texts_hash;
};

struct endpoint_change {
    size_t slot;
    uint32_t old_id;            /* To be deleted; 0: none. */
    struct endpoint_stored now; /* id 0: gone. */
    size_t offset;              /* Its record in the bytes below. */
    size_t size;
};

/* What the next transaction has to write about endpoints. */
struct endpoint_changes {
    struct buf list; /* struct endpoint_change each. */
    struct buf bytes;
    uint32_t next_id;
    bool all; /* Empty the database first: it may hold what the trie does not know. */
};

struct reader_thread {
    struct hashtrie_store *store;
    pthread_t thread;
    struct mem mem;
    struct reload_walk *walk;           /* Owned: records on their way from LMDB to the trie. */
    atomic_uint_fast64_t read_start_ns; /* 0: not reading. */
};

struct copy;

struct snapshots {
    pthread_mutex_t lock;
    char *directory; /* Owned; NULL: there are none. */
    uint32_t interval_s;
    uint32_t keep;
    struct copy *copy; /* Under way, borrowed from its thread; NULL: none. */
    bool running;
    bool started; /* The thread is to be joined. */
    bool failed;  /* The last one, and the schedule does not know yet. */
    bool blocked; /* The environment is being closed. */
    bool stopping;
    pthread_t thread;
    hashtrie_store_on_snapshot *on_done;
    void *user;
    uint64_t due_ns; /* Background thread. */
    atomic_uint_fast64_t done_bytes;
    atomic_uint_fast64_t total_bytes;
    atomic_uint_fast64_t count;
    atomic_uint_fast64_t failures;
    atomic_uint_fast64_t last_unix_s;
    atomic_uint_fast64_t last_bytes;
    atomic_uint_fast64_t last_took_ns;
};

/* A read transaction of another process that stays: no page freed since can be used again. */
struct pin {
    uint64_t txn; /* The background thread's, as the next one. */
    bool told;
    bool holding;                  /* The writer's: it waits for pages. */
    atomic_uint_fast64_t since_ns; /* First seen; 0: there is none. */
    atomic_uint_fast64_t pid;
};

struct hashtrie_store {    // NOLINT(clang-analyzer-optin.performance.Padding): grouped by thread.
    struct hashtrie *trie; /* Borrowed. */
    struct mem mem;        /* Of what lives as long as the store. */
    char *directory;       /* Owned. */
    int directory_fd;      /* Its lock keeps other routers out. */
    uint64_t max_bytes;
    size_t chunk_size;
    uint32_t interval_ms;
    hashtrie_store_on_event *on_event;
    void *user;
    uint64_t open_start_ns;
    bool check_in_child;
    struct hashtrie_crash_mark *crash_mark; /* Borrowed; may be NULL. */

    pthread_rwlock_t env_lock;
    struct env env;

    atomic_int state;   /* enum hashtrie_store_state; SLOW is kept apart. */
    atomic_int problem; /* enum hashtrie_status: why it is not up. */
    atomic_bool slow;
    atomic_bool slow_told;               /* Since the last access in time. */
    atomic_uint_fast64_t write_start_ns; /* 0: not writing. */
    struct control control;
    struct counters counters;
    /* Under the trie's lock. */
    uint64_t released_txn; /* Last transaction whose batch the trie was told of. */
    uint64_t env_number;   /* One more for each other file. Changes under env_lock too. */

    pthread_mutex_t write_lock;
    struct filter filter;      /* Read under the trie's lock; changed under both. */
    struct filter filter_next; /* Being built; written under write_lock. */
    struct mem filter_mem;     /* Background thread. */
    atomic_uint_fast64_t filter_bytes;
    atomic_bool filter_ready;
    atomic_uint_fast64_t filter_rows; /* Found when it was built. */
    atomic_uint_fast64_t filter_capacity;
    atomic_uint_fast64_t filter_added; /* Rows since then. */
    atomic_uint_fast64_t filter_removed;

    /* The writer's own. */
    pthread_t writer;
    struct mem writer_mem;
    struct trie_batch batch;
    struct write_order *order;  /* Owned: TRIE_BATCH_NODES_MAX. */
    unsigned char *found_bytes; /* Owned: stored records met by first writes; found_bytes_max. */
    size_t found_bytes_max;
    struct endpoint_stored *endpoints; /* Owned, by slot. */
    size_t endpoint_capacity;
    struct endpoint_changes changes;
    bool joined;            /* A file has been open: the trie's ids are those of its line. */
    int mark_fd;            /* For a crash handler; -1: none. */
    unsigned crashes;       /* Of runs before this one on this file. */
    bool inspected;         /* By this run; the mark is its own. */
    bool suspect;           /* An error in this run: look at the file before it is opened again. */
    const char *damage;     /* The file is to be replaced: why. */
    struct env_files files; /* Those that are, or were last, open. */
    uint64_t cap_bytes;
    bool endpoints_known; /* The database holds nothing but what `endpoints` says. */
    uint32_t newest_bucket;
    uint64_t chunk_count;
    bool opened;                   /* Once at least: what follows is known. */
    uint64_t reloads_found_before; /* Before it was opened, as the next. */
    uint64_t reloads_missed_before;
    uint64_t limit_pages;    /* Past it the oldest are deleted. */
    uint64_t used_pages;     /* At the last commit. */
    bool limit_lowered;      /* Since the device is full. */
    uint64_t device_full_ns; /* Since when; 0: it is not. */
    bool shrunk;             /* Has been tried. */
    size_t rows_max;         /* Of a batch, at best. */
    size_t rows_now;         /* After halving. */
    unsigned good_batches;   /* Since the last one that did not fit. */
    bool failing;            /* The last checkpoint failed, and that was told. */
    unsigned failures_in_row;
    unsigned damage_in_row;   /* Of these, the contents were at fault. */
    unsigned hopeless_in_row; /* Attempts to delete that found no page. */
    uint64_t last_start_ns;   /* Of a checkpoint. */
    uint64_t retry_ns;
    enum hashtrie_status final_status;

    struct reloads reloads;
    struct reader_thread readers[HASHTRIE_STORE_RELOAD_THREADS_MAX];
    uint32_t reader_count;

    pthread_t background;
    uint64_t housekept_ns; /* The background thread's, as the next one. */
    uint64_t readers_checked_ns;
    struct pin pin;
    struct snapshots snapshots;
};

/* ---- store.c ---- */

__attribute__((format(printf, 3, 4))) void store_event(const struct hashtrie_store *store,
                                                       enum hashtrie_event_level level,
                                                       const char *format, ...);
/* Returns the state that was. */
enum hashtrie_store_state store_set_state(struct hashtrie_store *store,
                                          enum hashtrie_store_state state);
enum hashtrie_store_state store_state(struct hashtrie_store *store); /* SLOW included. */
/* An event when the store has become slow, also while the access hangs. */
void store_tell_slow(struct hashtrie_store *store);
/* Around what may hang on the disk: *start_ns is what store_state() watches. */
void store_timing_begin(atomic_uint_fast64_t *start_ns);
void store_timing_end(struct hashtrie_store *store, atomic_uint_fast64_t *start_ns);
void store_env_lock(
    struct hashtrie_store *store); /* For writing, without waiting for a snapshot. */
void store_env_unlock(struct hashtrie_store *store);
bool store_stopping(struct hashtrie_store *store);                      /* It is being closed. */
bool control_wait_until(struct control *control, uint64_t deadline_ns); /* False: it has passed. */

/* ---- open.c ---- */

/* Opens the folder and the environment where they are not, and makes trie and file know each other.
 * A failure is told once. Writer thread, between batches. */
enum hashtrie_status store_come_up(struct hashtrie_store *store);
/* Whether the first attempt's failure is the operator's to mend: hashtrie_store_open() fails. */
bool store_refuses(enum hashtrie_status status);
/* holder.c. Its pid; 0: nobody, or unknown. Reads /proc. */
uint64_t store_lock_holder(const char *directory);
void store_env_close(struct hashtrie_store *store);
/* Closes the environment if its files are gone or replaced. Writer thread, between batches. */
void store_look(struct hashtrie_store *store);
uint64_t store_limit_pages(const struct hashtrie_store *store, uint64_t bytes, size_t rows);
/* Counts of the store as they are in a transaction. */
enum hashtrie_status store_count(struct hashtrie_store *store, MDB_txn *txn);

static inline uint64_t clamp_u64(uint64_t value, uint64_t low, uint64_t high)
{
    if (value < low) {
        return low;
    }
    return value > high ? high : value;
}

/* ---- recover.c ---- */

/* Before the environment is opened: the file is checked if the last run, or this one so far, says
 * so, and replaced if it is damaged. */
enum hashtrie_status store_inspect(struct hashtrie_store *store);
/* Moves data.mdb aside. salvage: in its place comes what can be had of its contents. */
enum hashtrie_status store_replace(struct hashtrie_store *store, const char *why, bool salvage);
void store_mark_open(struct hashtrie_store *store);
void store_mark_closed(struct hashtrie_store *store, bool clean); /* Once the file is closed. */
void store_mark_look(struct hashtrie_store *store);               /* From time to time. */

static inline void counter_add(atomic_uint_fast64_t *counter, uint64_t count)
{
    (void)atomic_fetch_add_explicit(counter, count, memory_order_relaxed);
}

static inline void counter_set(atomic_uint_fast64_t *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

static inline uint64_t counter_get(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- rows.c: one row in a transaction ---- */

/* A row as it lies in the store; a copy. */
struct row {
    uint64_t number;
    struct trie_record record; /* `run` and `holders` only where asked for. */
};

/*
 * The row under a key. ENOENT: none. ECORRUPT: its state is unreadable or belongs to another key;
 * out->number tells which row to delete then, 0: none. holders NULL: not wanted.
 */
enum hashtrie_status row_find(const struct env *env, MDB_txn *txn, uint64_t prefix, uint32_t fp,
                              struct trie_stored_holder *holders, struct row *out);
/* Decodes the run of a found row into `run` (TRIE_RUN_LENGTH_MAX) and sets record.run to it. */
enum hashtrie_status row_read_run(const struct env *env, MDB_txn *txn, struct row *row,
                                  uint32_t *run);
enum hashtrie_status row_next_number(const struct env *env, MDB_txn *txn, uint64_t *number);
enum hashtrie_status row_put(const struct env *env, MDB_txn *txn, uint64_t number,
                             const struct trie_record *record);
/* State and age entry of a row that stays. */
enum hashtrie_status row_put_state(const struct env *env, MDB_txn *txn, const struct row *old,
                                   const struct trie_record *record);
/* Run, state and, where `record` is known, age entry. The edge stays. */
enum hashtrie_status row_delete(const struct env *env, MDB_txn *txn, uint64_t number,
                                const struct trie_record *record);
enum hashtrie_status row_delete_edge(const struct env *env, MDB_txn *txn, uint64_t prefix,
                                     uint32_t fp);

/* ---- batch.c: one batch in one transaction ---- */

struct write_order {
    uint64_t prefix;
    uint32_t fp;
    uint32_t index;
};

struct write {
    struct hashtrie_store *store;
    MDB_txn *txn;
    uint64_t next_row;
    size_t found_used;
    size_t inserted;   /* Rows. */
    size_t touched;    /* States alone. */
    size_t deleted;    /* By the cap. */
    size_t incomplete; /* Entries not written. */
    size_t corrupt;
    size_t delete_quota;
    uint64_t chunks; /* In all runs; what meta gets. */
    uint32_t newest_bucket;
};

enum hashtrie_status batch_write(struct write *write);

/* The count of chunks is kept across damage: it may be off, but never below 0. */
static inline uint64_t count_less(uint64_t from, uint64_t count)
{
    return count < from ? from - count : 0;
}

/* ---- cap.c ---- */

/* Deletes the oldest rows while the store is over its limit, up to write->delete_quota. */
enum hashtrie_status cap_enforce(struct write *write);
/* Deletes up to `count` of the oldest rows, the first `skip` passed over. ENOENT: no row is left.
 */
enum hashtrie_status cap_delete(struct write *write, size_t count, size_t skip);
bool cap_exceeded(struct write *write, enum hashtrie_status *status);

/* ---- commit.c ---- */

/*
 * What is in store->batch and what changed of endpoints; on success *txn_id is set and every entry
 * has its outcome. covered_ms: this completes a checkpoint begun then; 0: it does not.
 */
enum hashtrie_status commit_batch(struct hashtrie_store *store, uint64_t covered_ms,
                                  uint64_t *txn_id);
/* `count` of the oldest rows, the first `skip` passed over; count 0: as many as it takes to come
 * below the limit, a bounded number. */
enum hashtrie_status commit_deletes(struct hashtrie_store *store, size_t count, size_t skip);
enum hashtrie_status commit_clean(struct hashtrie_store *store);

/* ---- endpoints.c ---- */

/* From the file into the trie. Where the trie knows endpoints already (the store comes late, or
 * another file does), both are brought together. */
enum hashtrie_status endpoints_restore(struct hashtrie_store *store);
/* What has changed since the last commit, read from the trie (takes its lock); what finds no room
 * waits for the next time. */
void endpoints_collect(struct hashtrie_store *store);
bool endpoints_changed(const struct hashtrie_store *store);
enum hashtrie_status endpoints_write(struct hashtrie_store *store, MDB_txn *txn);
void endpoints_committed(struct hashtrie_store *store);
void endpoints_forget(struct hashtrie_store *store); /* Another file: write all of them again. */

/* ---- pins.c ---- */

/* Looks for other processes' read transactions that stay; a second or more apart. */
void pins_look(struct hashtrie_store *store, uint64_t now_ns);
/* Whether a read transaction leaves too few pages for the writer to go on: *pid says whose. One of
 * our own is over soon: a snapshot is stopped. Writer thread. */
bool pins_hold(struct hashtrie_store *store, long *pid);

/* ---- shrink.c ---- */

/* Once after opening: makes a file that is larger than the cap smaller, and opens it. Fails if it
 * cannot be opened. Writer thread. */
enum hashtrie_status shrink_file(struct hashtrie_store *store);

/* ---- snapshots.c ---- */

void snapshots_look(struct hashtrie_store *store);                  /* Background thread, once. */
void snapshots_tick(struct hashtrie_store *store, uint64_t now_ns); /* Starts one if it is due. */
/* Ends the one under way, if there is one, with that status. */
void snapshots_stop_copy(struct hashtrie_store *store, enum hashtrie_status why);
/* Around taking env_lock for writing: a copy would hold it for long. */
void snapshots_block(struct hashtrie_store *store, bool blocked);
void snapshots_stop(struct hashtrie_store *store); /* For good; waits for the thread. */

/* ---- writer.c, reload.c, background.c: the threads ---- */

void *writer_main(void *user); /* `user`: the store. */
void writer_wake(void *user);  /* A trie_wake. */
void *reload_main(void *user); /* `user`: the struct reader_thread. */
enum hashtrie_status reload_init(struct hashtrie_store *store);
void reload_fini(struct hashtrie_store *store);
void *background_main(void *user);

#endif
