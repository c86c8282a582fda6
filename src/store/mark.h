/*
 * How the last process that had the store open has ended: DIR/mark, a few lines of text, so that it
 * can be read without touching the store, and written by a signal handler. Private to the room.
 *
 *     clean BYTES MTIME-NS            closed in order; the file's size and time then
 *     open INODE CRASHES              open; crashes of earlier runs on this file
 *     crashed                         behind it: the run ended so
 */
#ifndef HASHTRIE_STORE_MARK_H
#define HASHTRIE_STORE_MARK_H

#include <stdbool.h>

#include "hashtrie/status.h"

struct mark {
    bool clean;       /* Closed in order, and not changed since. */
    unsigned crashes; /* Of runs on this file, one after the other. */
};

/* Whatever cannot be read is not clean, without crashes. */
struct mark mark_read(const char *directory);
/* From here on the store counts as open. *fd: for what a crash handler appends; the caller closes
 * it. -1 where the file cannot be written at all. */
void mark_open(const char *directory, unsigned crashes, int *fd);
/* The store is closed, in order. */
void mark_close(const char *directory);

#endif
