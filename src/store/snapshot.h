/*
 * Snapshots of a store: their names, listing, clearing up. Private to the room.
 *
 * While one is being written it is called NAME.part and its folder is locked (flock), so that what
 * a crash left can be told from what another process is writing.
 */
#ifndef HASHTRIE_STORE_SNAPSHOT_H
#define HASHTRIE_STORE_SNAPSHOT_H

#include <stddef.h>

#include "hashtrie/status.h"

enum {
    SNAPSHOT_NAME_BYTES = 32, /* Of a name with its terminating zero. */
    SNAPSHOTS_LISTED_MAX = 256
};

struct snapshot_name {
    char text[SNAPSHOT_NAME_BYTES];
};

struct snapshot_list {
    size_t count;
    struct snapshot_name names[SNAPSHOTS_LISTED_MAX]; /* Newest first. */
};

/* The whole snapshots in a folder; of more than the list holds, the newest. ENOENT: no such folder.
 * What is in them is not looked at. */
enum hashtrie_status snapshot_list(const char *directory, struct snapshot_list *out);

#endif
