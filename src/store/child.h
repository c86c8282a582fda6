/*
 * Work that may crash or never end, in a forked child: reading a damaged file with LMDB. Private to
 * the room.
 *
 * The child has one thread, the caller's; it may allocate (glibc's malloc survives fork) and open
 * files, and must touch no lock of the store. Its signals are at their defaults, it leaves no core,
 * says nothing, and dies with its parent.
 */
#ifndef HASHTRIE_STORE_CHILD_H
#define HASHTRIE_STORE_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "hashtrie/status.h"

/* For the child to tell how far it is. */
struct child_line {
    int fd;
    uint64_t told_ns;
};
void child_tell(struct child_line *line, uint64_t done, uint64_t total);

struct child_job {
    enum hashtrie_status (*work)(void *user, struct child_line *line); /* In the child. */
    void *user;                                                        /* For work. */
    uint32_t cpu_seconds_max; /* More is a crash: it would never end. */
    /* In the parent, several times a second; total 0: nothing was told yet. False: give up. */
    bool (*on_progress)(void *owner, uint64_t done, uint64_t total);
    void *owner; /* For on_progress. */
};

enum child_end {
    CHILD_ENDED,   /* *status is what work returned. */
    CHILD_CRASHED, /* By itself: a fault, an abort, endless work. */
    CHILD_KILLED,  /* From outside, or given up. */
    CHILD_NONE     /* It could not be made. */
};

/* Waits for the end. */
enum child_end child_run(const struct child_job *job, enum hashtrie_status *status);

#endif
