/*
 * What is done to a store while no router has it open: repair, and moving contents in and out.
 *
 * Threads: each call is one thread's work and shares nothing with others. They block on the disk.
 */
#ifndef HASHTRIE_MAINTENANCE_H
#define HASHTRIE_MAINTENANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hashtrie/status.h"
#include "hashtrie/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `done` of `total` in units of the call's own. */
typedef void hashtrie_on_progress(void *user, uint64_t done, uint64_t total);

/* ---- Repair ---- */

struct hashtrie_repair_options {
    size_t chunk_size; /* Used where the damaged store no longer tells its own. 0: ECORRUPT then. */
    hashtrie_on_progress *on_progress; /* In pages of the file; may be NULL. */
    void *user;
};

struct hashtrie_repair_result {
    uint64_t node_count;     /* Written, ... */
    uint64_t chunk_count;    /* ... and the chunks in their runs. */
    uint64_t endpoint_count; /* Written. */
    uint64_t stray_count; /* Of the nodes: found on pages that nothing leads to any more. They may
                             be older than what was lost. */
    uint64_t lost_count;  /* Nodes of which only one half, state or run, could be read. */
    uint64_t damaged_page_count; /* Unreadable, or out of order. What was only on these is lost
                                    without being counted. */
};

/*
 * Writes what can be read of the store in `directory` as a new, sound store into `out_directory`,
 * which is made if missing and must not hold a store; holders, times of use and endpoint ids stay.
 * The damaged file is only read, page by page and without LMDB, so no damage can crash the caller;
 * nobody may write to it meanwhile. Memory: 1/8 byte a page four times, and up to 128 MiB for what
 * is found on stray pages. The copy is synced before this returns OK, and is removed after a
 * failure. `options` may be NULL.
 *
 * ENOENT: no data.mdb in `directory`. EEXIST: there is one in `out_directory`. EBUSY: somebody has
 * that open. EVERSION: another format version. ECORRUPT: nothing in it tells that it is a store.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_store_repair(const char *directory, const char *out_directory,
                      const struct hashtrie_repair_options *options,
                      struct hashtrie_repair_result *out);

/* ---- Contents as a stream: FORMAT.md of the store documents it ---- */

struct hashtrie_export_options {
    bool (*on_bytes)(void *user, const void *bytes, size_t size); /* False: EIO, and it ends. */
    hashtrie_on_progress *on_progress;                            /* In nodes; may be NULL. */
    void *user;
};

struct hashtrie_export_result {
    uint64_t endpoint_count;
    uint64_t node_count;
    uint64_t byte_count;
    uint64_t damage_count; /* Nodes that could not be read and were left out. */
};

/*
 * All endpoints and nodes that can be read, also of a store that a router runs on: each node is as
 * it was at some moment meanwhile. In slices, as the scans of hashtrie/store.h.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_reader_export(struct hashtrie_reader *reader,
                       const struct hashtrie_export_options *options,
                       struct hashtrie_export_result *out);

struct hashtrie_rename {
    const char *old_name;
    const char *new_name;
};

struct hashtrie_import_options {
    /* The next bytes, at most `size`; *got is 0 at the end. False: EIO. */
    bool (*on_read)(void *user, void *bytes, size_t size, size_t *got);
    hashtrie_on_progress *on_progress; /* In nodes; may be NULL. */
    void *user;
    const struct hashtrie_rename *renames; /* Endpoints that have another name here. */
    size_t rename_count;
    uint64_t max_bytes; /* Cap of the store; 0: what it has, 8 GiB for a new one. */
};

struct hashtrie_import_result {
    uint64_t endpoint_count;     /* Read, ... */
    uint64_t new_endpoint_count; /* ... of these, not known here before, ... */
    uint64_t old_endpoint_count; /* ... and dropped: here the same engine has restarted since. */
    uint64_t node_count;         /* Read, ... */
    uint64_t added_count;        /* ... rows that are new here, ... */
    uint64_t joined_count;       /* ... and those that were here: holders and times were joined. */
    uint64_t conflict_count; /* Two runs under one key that part inside: the one used last won. */
};

/*
 * Merges an exported stream into the store of a directory, which is made if missing. An endpoint
 * is the same as one here if name and generation are (an unknown generation equals any). What is
 * committed stays when it fails; `out` tells how far it came.
 *
 * EBUSY: a router has it open. EVERSION: the stream, or the store, is of another version, chunk
 * size or seed. EINVAL: a new name has more than 2048 bytes. ECORRUPT: the stream is damaged or cut
 * short, or the store is. EFULL: the cap has no room for more. EIO, ENOSPC, EACCES, ENOMEM.
 */
HASHTRIE_API HASHTRIE_NODISCARD enum hashtrie_status
hashtrie_store_import(const char *directory, const struct hashtrie_import_options *options,
                      struct hashtrie_import_result *out);

#ifdef __cplusplus
}
#endif

#endif
