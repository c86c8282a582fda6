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

#ifdef __cplusplus
}
#endif

#endif
