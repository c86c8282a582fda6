/*
 * Another file in the place of a store's: fetched under a name of its own, then swapped in. The
 * folder is locked by the caller. Private to the room.
 */
#ifndef HASHTRIE_STORE_BACKUP_H
#define HASHTRIE_STORE_BACKUP_H

#include "hashtrie/store.h"

#include "store/env.h"

#define BACKUP_PART  "data.mdb.part" /* Being written. */
#define BACKUP_WHOLE "data.mdb.new"  /* Whole and synced, on its way into place. */

/* Verifies a snapshot and copies it to directory/BACKUP_PART, synced. Status as in
 * hashtrie_snapshot_restore(). */
enum hashtrie_status backup_fetch(const char *snapshot, const char *directory,
                                  const struct hashtrie_copy_options *options);
/* BACKUP_PART, whole and synced, becomes data.mdb; an old one is moved aside, under the name
 * `aside`. */
enum hashtrie_status backup_put_in_place(const char *directory, int directory_fd,
                                         char aside[ENV_PATH_BYTES_MAX]);
/* What a crash amid that has left is brought to its end. */
enum hashtrie_status backup_end(const char *directory);

#endif
