/*
 * The store: what the hot trie knows, on disk (LMDB), under a size cap, so that a restarted router
 * goes on where it stopped and what was evicted from memory can be found again.
 *
 *     DIR/data.mdb            the store; never larger than the cap
 *     DIR/lock.mdb            LMDB's table of readers
 *     DIR/data.mdb.new/       a smaller one being made, after the cap was lowered
 *     DIR/data.mdb.bad-TIME   a file that could not be used, moved aside; one is kept
 *     DIR/mark                how the last run ended: in order, or not, or by a crash
 *
 * A *snapshot* is a folder snapshot-YYYYMMDDTHHMMSSZ (a second one of that second ends in -1 .. -9)
 * in a folder of snapshots, with a data.mdb that opens as a store. It has that name once it is
 * whole and synced, never before.
 *
 * A *checkpoint* writes all that is new since the last one. What was recorded before the start of a
 * completed checkpoint survives kill -9 and power loss. Past the cap the least recently used nodes
 * are deleted. No prompt text is ever written, only hashes.
 *
 * A store has threads of its own: one that writes, 1 to 4 that read for reloads, one for background
 * work. No call below but open, close, checkpoint and the inspection calls waits for the disk.
 * Memory besides the trie's budget: twice the batch (at most 2 MiB, at most 1/8 of the budget, at
 * least 64 KiB), 0.4 MiB a reload thread, at most 32 MiB of waiting reloads, and a filter of 2 to 4
 * bytes a stored node, at most HASHTRIE_STORE_FILTER_BYTES_MAX (twice that while it is rebuilt).
 */
#ifndef HASHTRIE_STORE_H
#define HASHTRIE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hashtrie/chunk.h"
#include "hashtrie/status.h"
#include "hashtrie/trie.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HASHTRIE_STORE_BYTES_MIN          (UINT64_C(16) << 20) /* Smallest cap. */
#define HASHTRIE_STORE_BYTES_MAX          (UINT64_C(1) << 44)
#define HASHTRIE_STORE_INTERVAL_MIN_MS    10u
#define HASHTRIE_STORE_INTERVAL_MAX_MS    3600000u
#define HASHTRIE_STORE_RELOAD_THREADS_MAX 4u
#define HASHTRIE_STORE_RELOAD_JOBS_MAX    256u
#define HASHTRIE_STORE_FILTER_BYTES_MAX   ((size_t)64 << 20)
#define HASHTRIE_SNAPSHOT_INTERVAL_MIN_S  10u
#define HASHTRIE_SNAPSHOT_KEEP_MAX        100u

struct hashtrie_store;

enum hashtrie_event_level { HASHTRIE_EVENT_ERROR, HASHTRIE_EVENT_WARNING, HASHTRIE_EVENT_INFO };

/*
 * Something that an operator should know; one sentence, valid for the call. Comes from the store's
 * threads, never with the trie's lock held; must not call the store.
 */
typedef void hashtrie_store_on_event(void *user, enum hashtrie_event_level level, const char *text);

/*
 * Where a crash leaves its mark. Damage in the file can end the process that has it mapped, again
 * at each start; so a program's handler of SIGSEGV, SIGBUS, SIGABRT, SIGILL and SIGFPE should call
 * hashtrie_crash_mark_write(). After one such mark the next open verifies everything first, after
 * a second one the file is replaced. A SIGKILL leaves none: it says nothing about the file.
 */
struct hashtrie_crash_mark {
    volatile int fd; /* The store's own; -1: none is open. */
};
#define HASHTRIE_CRASH_MARK_INIT \
    {                            \
        -1                       \
    }
/* Async-signal-safe. */
HASHTRIE_API void hashtrie_crash_mark_write(const struct hashtrie_crash_mark *mark);

struct hashtrie_store_options {
    const char *directory;           /* Made if missing, mode 0700. Copied. */
    uint64_t max_bytes;              /* HASHTRIE_STORE_BYTES_MIN .. _MAX. The effective cap is that
                                        or 90 % of the space there is for the file, whichever is less. */
    uint32_t checkpoint_interval_ms; /* HASHTRIE_STORE_INTERVAL_MIN_MS .. _MAX_MS. */
    uint32_t reload_thread_count;    /* 1 .. HASHTRIE_STORE_RELOAD_THREADS_MAX. */
    size_t chunk_size;               /* The one the trie was made with. */
    const char *snapshot_directory;  /* Where snapshots go; made if missing. Copied. NULL: none. */
    uint32_t snapshot_interval_s;    /* 0: only when asked for; else .. _INTERVAL_MIN_S and more. */
    uint32_t snapshot_keep;          /* Of these, the newest so many stay: 1 .. _KEEP_MAX. */
    uint32_t open_timeout_ms; /* hashtrie_store_open() waits so long for the store to be up. */
    bool check_in_child;      /* After a run that did not end in order, the file is looked through
                                 in a forked child, which dies in our stead if it is damaged. The
                                 child has the calling process's memory, runs nothing of its, and
                                 ends with _exit(). False: the file is not checked before use,
                                 and one that is found damaged is replaced by an empty one. */
    struct hashtrie_crash_mark *crash_mark; /* Set while the store is open; NULL: none. Borrowed
                                               until hashtrie_store_close(). */
    hashtrie_store_on_event *on_event;      /* NULL: nobody is told. */
    void *user;                             /* For on_event. */
};

/* 8 GiB, every second, 2 reload threads, chunk size 128, no snapshots (3 kept), a second to open,
 * checks in a child, no mark, no on_event. */
HASHTRIE_API struct hashtrie_store_options hashtrie_store_options_default(const char *directory);

/*
 * Opens or creates the store in a directory and attaches it to the trie: before any endpoint is
 * added to it and before any other thread uses it. Known endpoints come back; nodes stay on disk
 * until a request asks for them (hashtrie_store_reload()). Takes a few milliseconds, whatever the
 * size.
 *
 * What is in the file never makes it fail: a file of another format version, chunk size or hash
 * seed, or one that is no LMDB file, is moved aside with an event, and an empty store takes its
 * place. After a run that did not end in order the file is probed first (some 20 ms), after a crash
 * it is verified as a whole. A damaged one is moved aside too; in its place comes the newest
 * snapshot that verifies, else what can be read of it, else an empty one. Nor does what a disk
 * does: where the store cannot be opened now (another router has it, no space, a read-only or
 * failing device), or not within open_timeout_ms, this succeeds all the same. The trie works from
 * memory, the state is OFF or OPENING, and the store is tried again by its own thread. When it
 * comes up, what it knows and what has been learnt meanwhile are brought together.
 *
 * EINVAL: an option is outside its range, chunk_size is not the trie's, or `directory` is no
 * directory. ENETFS: it is on a network file system. EACCES: no permission. ENOMEM. On success *out
 * is owned by the caller and must be closed before the trie is freed.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_store_open(struct hashtrie *trie, const struct hashtrie_store_options *options,
                    struct hashtrie_store **out);

/*
 * Writes a last checkpoint, waiting at most timeout_ms for it, ends the threads, detaches the trie
 * and frees the store. Reloads not yet answered are answered first (EBUSY). NULL is fine. OK: all
 * that was recorded is on disk. Else the status of what went wrong (EBUSY: out of time); the store
 * is closed all the same, and nothing that was on disk before is lost. A write that hangs in the
 * kernel is waited for. O(nodes that are new). Without the trie's lock; no other call on the store
 * may be under way.
 */
HASHTRIE_API enum hashtrie_status hashtrie_store_close(struct hashtrie_store *store,
                                                       uint32_t timeout_ms);

/*
 * Waits until all that was recorded before this call is on disk. EBUSY: timeout_ms have passed.
 * ENOSPC, EFULL, EIO, ECORRUPT: the attempt failed, EFULL for lack of room in the file; it is
 * repeated later all the same. O(nodes that are new). Any thread, without the trie's lock.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_store_checkpoint(struct hashtrie_store *store, uint32_t timeout_ms);

/*
 * Gives the folder to another process that waits for it, before this one ends: a last checkpoint of
 * all that was recorded before this call, by the store's own thread, which then closes the file and
 * lets go of the folder. Does not wait for it; if the checkpoint fails, it is repeated as ever.
 * After it the state is OFF without a problem, and what is learned is lost with the process. There
 * are no further checkpoints: hashtrie_store_checkpoint() returns EBUSY once its time is over. Any
 * thread, without the trie's lock.
 */
HASHTRIE_API void hashtrie_store_hand_over(struct hashtrie_store *store);

/* ---- Reload: from the store back into the trie ---- */

/*
 * Whether the store may hold a continuation of the first `depth` chunks of `key` (depth =
 * hashtrie_match.chunk_count). False is certain; true is right but for one in a thousand, and
 * always given while the filter is not yet built. False if depth == key->count. O(1). Needs the
 * trie's lock.
 */
HASHTRIE_API bool hashtrie_store_may_have(const struct hashtrie_store *store,
                                          const struct hashtrie_key *key, size_t depth);

/*
 * Called once per accepted reload, from a reload thread, without any lock. OK: nodes were put back:
 * match again. ENOENT: nothing was found. EBUSY: the store is closing or too slow. EFULL: found,
 * but there is no room in the budget. ECORRUPT, EIO: could not be read. Must not block and must not
 * close the store.
 */
typedef void hashtrie_store_on_reload(void *user, enum hashtrie_status status);

/*
 * Looks for what follows the first `depth` chunks of `key` (depth < key->count) and puts it back
 * into the trie where it fits. Copies what it needs of the key. A second reload that misses the
 * same chunk waits for the first. The trie may be used, and the key's path changed, at any time
 * meanwhile. Any thread; better without the trie's lock.
 *
 * EBUSY: HASHTRIE_STORE_RELOAD_JOBS_MAX are under way, the store is slow or down, or there is no
 * memory: go on with what is known. EINVAL: depth is not below key->count, the key is too long, or
 * on_done is NULL. on_done is called only after OK. O(key->count - depth) here; on its thread, one
 * look-up in the file per node.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_store_reload(struct hashtrie_store *store, const struct hashtrie_key *key, size_t depth,
                      hashtrie_store_on_reload *on_done, void *user);

/* ---- Snapshots ---- */

struct hashtrie_snapshot_result {
    enum hashtrie_status status;
    const char *path; /* Of its folder; valid for the call. NULL unless OK, as the next two. */
    uint64_t bytes;
    double seconds;
};

/* Called once, from a thread of the store, without any lock. Must not call the store. */
typedef void hashtrie_store_on_snapshot(void *user, const struct hashtrie_snapshot_result *result);

/*
 * Makes a snapshot, on a thread of its own. While it is copied, pages that are freed cannot be used
 * again: if they run short, it is given up (EFULL) before it costs a checkpoint. Ends with EBUSY if
 * the store is closed meanwhile. Any thread; does not wait for the disk. on_done may be NULL; it is
 * not called unless OK is returned. EBUSY: one is under way. EINVAL: no snapshot_directory. ENOMEM.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_store_snapshot(struct hashtrie_store *store, hashtrie_store_on_snapshot *on_done,
                        void *user);

/* ---- What it looks like ---- */

enum hashtrie_store_state {
    HASHTRIE_STORE_OK,
    HASHTRIE_STORE_SLOW,   /* A read or a commit took over a second: reloads are refused. */
    HASHTRIE_STORE_FULL,   /* No space in the file or on the device: deleting, then trying again. */
    HASHTRIE_STORE_FAILED, /* Input/output errors: trying again after 1, 2, 4 .. 60 s. */
    HASHTRIE_STORE_FRESH,  /* Another file than before is open: all that is in memory is being
                              written to it. */
    HASHTRIE_STORE_OFF,    /* Not open: memory only. Tried again after 1, 2, 4 .. 60 s; every second
                              while another router has the folder. */
    HASHTRIE_STORE_OPENING /* Being opened: memory only until then. */
};

/* "ok", "slow", .. Never NULL. */
HASHTRIE_API const char *hashtrie_store_state_name(enum hashtrie_store_state state);

/* Histogram bounds of checkpoint times, in milliseconds. */
#define HASHTRIE_STORE_CHECKPOINT_BOUNDS_MS                         \
    {                                                               \
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000 \
    }
#define HASHTRIE_STORE_CHECKPOINT_BOUNDS 13

/* What took the place of a file that could not be used. */
enum hashtrie_recovery {
    HASHTRIE_RECOVERED_SNAPSHOT,
    HASHTRIE_RECOVERED_REPAIRED, /* What could be read of it. */
    HASHTRIE_RECOVERED_EMPTY,
    HASHTRIE_RECOVERIES
};

struct hashtrie_store_stats {
    enum hashtrie_store_state state;
    bool up;                      /* Reads and writes work: OK, SLOW or FRESH. */
    enum hashtrie_status problem; /* Of FULL, FAILED and OFF: the reason. */
    uint64_t bytes;               /* Size of data.mdb. */
    uint64_t max_bytes;           /* The effective cap. */
    uint64_t node_count;          /* In the store, hot copies included, ... */
    uint64_t chunk_count;         /* ... and the chunks in their runs. */
    uint64_t endpoint_count;      /* Incarnations on record. */

    uint64_t checkpoint_count;         /* Completed since open, the rest too. */
    uint64_t checkpoint_failure_count; /* Given up; all that was dirty waits for the next. */
    uint64_t repeated_batch_count;     /* Found no space for a transaction; repeated smaller. */
    double last_checkpoint_unix_s;     /* All recorded before it is on disk. Also moves when there
                                          was nothing to write. From the file until the first. */
    uint64_t
        checkpoint_le_count[HASHTRIE_STORE_CHECKPOINT_BOUNDS]; /* Cumulative; those that wrote. */
    uint64_t checkpoint_timed_count;                           /* The bucket +Inf. */
    double checkpoint_seconds_sum;
    uint64_t written_node_count;
    uint64_t touched_node_count; /* Of which holders and time of use alone were written. */
    uint64_t deleted_node_count; /* By the cap. */

    double restore_seconds; /* From hashtrie_store_open() until the store was up. */
    double warmup_ratio;    /* Filter built and recent nodes read into the page cache: 0 .. 1. */
    bool filter_ready;
    uint64_t filter_bytes;

    uint64_t reload_count;         /* Accepted. */
    uint64_t reload_refused_count; /* EBUSY, ENOMEM. */
    uint64_t reload_found_count;   /* Answered OK. */
    uint64_t reload_missed_count; /* Answered ENOENT: the filter was wrong, or it went meanwhile. */
    uint64_t reload_repeated_count; /* Looked up again, since a batch was released meanwhile. */
    uint64_t recovered_count[HASHTRIE_RECOVERIES]; /* Files that could not be used, by what took
                                                      their place. */
    uint64_t corrupt_record_count;                 /* Bad checksum or bounds; treated as a miss. */

    double pinned_seconds; /* Another process's read transaction stays: pages freed since cannot be
                              used again. 0: there is none. */
    uint64_t pinned_pid;   /* Whose. */
    uint64_t holder_pid; /* While OFF with EBUSY: the process that has the folder open; 0: unknown,
                            as where it is in another container. */

    uint64_t snapshot_count; /* Made since open. */
    uint64_t snapshot_failure_count;
    bool snapshot_running;
    double snapshot_ratio;        /* Of the one under way: at least so much is copied. */
    double last_snapshot_unix_s;  /* 0: there is none. */
    uint64_t last_snapshot_bytes; /* Since open, as the next one. */
    double last_snapshot_seconds;
};

/* Any thread, with the trie's lock or without it. O(1). */
HASHTRIE_API void hashtrie_store_get_stats(struct hashtrie_store *store,
                                           struct hashtrie_store_stats *out);

/* ---- Inspection: reading a store, also while a router runs on it ---- */

/*
 * Read-only view for tools. Not in the process that has the store open (LMDB allows one open
 * environment per file and process). One thread at a time. Scans work in slices, each in a short
 * read transaction of its own, so that they do not hold the writer's free pages back; what they
 * tell of a store that is being written is true per node, not at one moment for all. A look-up is
 * O(log nodes) pages of the file, a scan O(what lies in its range). Every call may return EIO,
 * ENOMEM, and ECORRUPT where LMDB's own pages are damaged.
 */
struct hashtrie_reader;

/*
 * ENOENT: no data.mdb in there. EVERSION: another format version. ECORRUPT: not an LMDB file.
 * EACCES, EIO, ENOMEM.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_open(const char *directory, struct hashtrie_reader **out);
HASHTRIE_API void hashtrie_reader_close(struct hashtrie_reader *reader); /* NULL is fine. */

struct hashtrie_reader_info {
    uint64_t format_version;
    uint64_t chunk_size;
    uint64_t hash_seed;
    uint64_t next_endpoint_id;
    uint64_t newest_use_unix_s;       /* To 10 seconds. */
    uint64_t last_checkpoint_unix_ms; /* 0: none yet. */
    bool clean;                       /* Closed in order; false while a router runs on it. */
    bool lockless;                    /* lock.mdb cannot be written: a running router may reuse
                                         pages under this reader. */
    uint64_t file_bytes;
    uint64_t cap_bytes; /* In force when it was last opened by a router. */
    uint64_t page_bytes;
    uint64_t used_bytes;
    uint64_t node_count;
    uint64_t chunk_count;
    uint64_t endpoint_count;
    uint64_t oldest_use_unix_s;  /* 0: empty. */
    uint64_t reload_found_count; /* Of all routers that had it, up to the last commit. */
    uint64_t reload_missed_count;
};

HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_get_info(struct hashtrie_reader *reader, struct hashtrie_reader_info *out);

struct hashtrie_reader_endpoint {
    uint32_t id; /* Of one incarnation: URL and generation. */
    uint32_t odometer_kib;
    uint64_t seen_unix_s;   /* Its record was last written. */
    const char *name;       /* Valid for the callback, as the next two. */
    const char *model;      /* "": not told. */
    const char *generation; /* "": unknown. */
};

/* Callbacks of scans return true to go on. */
typedef bool hashtrie_reader_on_endpoint(void *user,
                                         const struct hashtrie_reader_endpoint *endpoint);

/* All readable endpoints, by id. */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_endpoints(struct hashtrie_reader *reader, hashtrie_reader_on_endpoint *on_endpoint,
                          void *user);

struct hashtrie_reader_holder {
    uint32_t endpoint_id;
    uint32_t last_used_unix_s;
    uint32_t odometer_kib;
};

struct hashtrie_reader_node {
    uint64_t prefix; /* Chain hash before the run: with `fingerprint` the node's key. */
    uint64_t end;    /* Chain hash of the run's last chunk: its children's prefix. */
    uint32_t fingerprint;
    uint32_t depth; /* Chunks before the run. At depth 0 `prefix` is the namespace's hash. */
    uint32_t chunk_count;
    uint64_t used_unix_s; /* To 10 seconds. */
    bool held_by_all;     /* More holders than are named. */
    uint32_t holder_count;
    struct hashtrie_reader_holder holders[HASHTRIE_HOLDERS_MAX];
};

/* ENOENT: no such node. ECORRUPT: its record is damaged. */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_find(struct hashtrie_reader *reader, uint64_t prefix, uint32_t fingerprint,
                     struct hashtrie_reader_node *out);

#define HASHTRIE_READER_RUN_MAX 1000u /* Chunks in the run of one node. */

/* The fingerprints of a node's run; `run` has room for HASHTRIE_READER_RUN_MAX. As
 * hashtrie_reader_find(). */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_run(struct hashtrie_reader *reader, uint64_t prefix, uint32_t fingerprint,
                    uint32_t *run, uint32_t *chunk_count);

typedef bool hashtrie_reader_on_node(void *user, const struct hashtrie_reader_node *node);

/*
 * All readable nodes whose prefix lies in first_prefix .. last_prefix, in key order: (h, h) for the
 * children of the node that ends with h, (0, UINT64_MAX) for all. ECORRUPT: some were damaged and
 * left out.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_nodes(struct hashtrie_reader *reader, uint64_t first_prefix, uint64_t last_prefix,
                      hashtrie_reader_on_node *on_node, void *user);

/*
 * Every readable node once, oldest row first, which is far faster than by key; `stored_bytes`: what
 * it takes in the file, with its keys and LMDB's headers. One that is rewritten meanwhile may come
 * again. ECORRUPT: some were damaged and left out.
 */
typedef bool hashtrie_reader_on_row(void *user, const struct hashtrie_reader_node *node,
                                    uint64_t stored_bytes);

HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_rows(struct hashtrie_reader *reader, hashtrie_reader_on_row *on_row, void *user);

/* Where a scan by key stands. Starts as {0}. */
struct hashtrie_reader_place {
    uint64_t prefix; /* Key of the next node. */
    uint32_t fingerprint;
    bool ended;
    uint64_t corrupt_count; /* Damaged nodes that were left out so far. */
};

/*
 * The next readable nodes in key order, at most node_count_max (at least 1): one short read
 * transaction. *node_count may be 0 before the end. For those who walk two stores side by side.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_slice(struct hashtrie_reader *reader, struct hashtrie_reader_place *place,
                      struct hashtrie_reader_node *nodes, size_t node_count_max,
                      size_t *node_count);

typedef bool hashtrie_reader_on_prefix(void *user, uint64_t prefix, uint32_t depth);

/* Every different prefix in first_prefix .. last_prefix with its depth; those of depth 0 are the
 * namespaces. O(prefixes). */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_prefixes(struct hashtrie_reader *reader, uint64_t first_prefix,
                         uint64_t last_prefix, hashtrie_reader_on_prefix *on_prefix, void *user);

struct hashtrie_verify_options {
    void (*on_finding)(void *user, const char *text); /* One damaged thing; may be NULL. */
    void (*on_progress)(void *user, uint64_t done, uint64_t total); /* May be NULL. */
    void *user;
};

struct hashtrie_verify_result {
    uint64_t node_count;     /* Looked at. */
    uint64_t damage_count;   /* Findings: anything but 0 is damage. */
    bool links_counted;      /* False: too many nodes for the two counts below. */
    uint64_t detached_count; /* Nodes whose parent is gone; harmless, found by their key. */
    uint64_t inverted_count; /* Nodes used later than their parent; harmless. */
};

/*
 * Checks every record and every link. Reads all of the file; 16 to 32 bytes of memory a node. OK:
 * looked at all, see `out` for what was found. ECORRUPT: the file's own structure is broken, `out`
 * tells of what could be seen.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_verify(struct hashtrie_reader *reader,
                       const struct hashtrie_verify_options *options,
                       struct hashtrie_verify_result *out);

/* ---- Copies of a store, for tools ---- */

struct hashtrie_copy_options {
    /* Bytes written so far, and what they will come to; from a thread of the call's own, one call
     * at a time. May be NULL. */
    void (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct hashtrie_copy_result {
    uint64_t bytes; /* Of the copy's data.mdb. */
    double seconds;
};

/*
 * Makes the folder `snapshot` with a consistent, compact copy of a directory's store in it, also
 * while a router runs on that (not in its process). The folder appears whole and synced or not at
 * all; until then it is called `snapshot`.part. Memory: 2.5 MiB.
 *
 * EEXIST: there is something at `snapshot`, or somebody is writing it. EFULL: the store's router
 * needs the pages that the copy held back; try again when it writes less. ENOENT, EVERSION,
 * ECORRUPT: as hashtrie_reader_open(). ENOSPC, EACCES, EIO, ENOMEM. options may be NULL.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_store_copy(const char *directory, const char *snapshot,
                    const struct hashtrie_copy_options *options, struct hashtrie_copy_result *out);

/*
 * Verifies a snapshot and puts it into `directory` as its store, for the next router to open; the
 * directory is made if missing. A data.mdb that is there is moved aside, replacing one moved aside
 * before. Nothing is changed until the copy is whole and synced.
 *
 * ECORRUPT, EVERSION: the snapshot does not verify. ENOENT: there is none. EBUSY: a router has the
 * directory open. ENETFS, ENOSPC, EACCES, EIO, ENOMEM. options may be NULL.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_snapshot_restore(const char *snapshot, const char *directory,
                          const struct hashtrie_copy_options *options,
                          struct hashtrie_copy_result *out);

#ifdef __cplusplus
}
#endif

#endif
