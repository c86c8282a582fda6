/*
 * Snapshots of a store: their names, listing, clearing up. Private to the room.
 *
 * While one is being written it is called NAME.part and its folder is locked (flock), so that what
 * a crash left can be told from what another process is writing.
 */
#ifndef HASHTRIE_STORE_SNAPSHOT_H
#define HASHTRIE_STORE_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "hashtrie/status.h"

#include "store/env.h"

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
uint64_t snapshot_unix_s(const struct snapshot_name *name); /* When it was begun. */

/* Makes the folder if missing, and removes what writers that died have left in it. */
enum hashtrie_status snapshot_folder_open(const char *directory);
/* Removes all snapshots but the newest `keep`. */
enum hashtrie_status snapshot_prune(const char *directory, size_t keep);

/* directory/NAME for one begun now. */
enum hashtrie_status snapshot_new_path(const char *directory, char path[ENV_PATH_BYTES_MAX]);

/* One being written. */
struct snapshot_part {
    char path[ENV_PATH_BYTES_MAX]; /* That it will have. */
    char part[ENV_PATH_BYTES_MAX]; /* That it has: with .part behind it. */
    int folder;                    /* Locked. */
    int file;                      /* Its data.mdb, empty. */
};

/* Makes path.part with an empty data.mdb. EEXIST: there is something under `path`. */
enum hashtrie_status snapshot_begin(const char *path, struct snapshot_part *out);
/* OK: the file is whole and synced: the snapshot gets its name, for good. Else, or if that fails,
 * all is removed. Returns what came of it. */
enum hashtrie_status snapshot_end(struct snapshot_part *part, enum hashtrie_status status);

#endif
