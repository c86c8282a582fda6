/*
 * Whether a store that nobody has open can be worked with. Runs in a child (child.h): LMDB trusts
 * its pages, and a damaged one can end the process that reads it. Private to the room.
 */
#ifndef HASHTRIE_STORE_PROBE_H
#define HASHTRIE_STORE_PROBE_H

#include <stddef.h>

#include "store/child.h"

struct probe {
    const char *directory;
    size_t chunk_size;
    uint64_t map_bytes; /* It may have been opened with that. */
};

/*
 * A sample, some 10 ms: meta pages, roots, endpoints, the free list, some records of every
 * database. A bad record is a miss later, and no fault here. ECORRUPT. EVERSION: of another format
 * or chunk size. EACCES, EIO. `user`: struct probe.
 */
enum hashtrie_status probe_sample(void *user, struct child_line *line);
/* Every page and every record; any fault is ECORRUPT. */
enum hashtrie_status probe_all(void *user, struct child_line *line);

#endif
