/*
 * A compact copy of an open environment into a file, and of a file into a file. Private to the
 * room.
 *
 *     caller's thread: LMDB walks its pages -> socket pair -> drain thread: writes, syncs, counts
 *
 * LMDB holds a read transaction for as long as it walks, so the pages freed meanwhile cannot be
 * used again and the store's file grows. Whoever sees it grow too far stops the copy; because of
 * the socket that works at once, even while the drain hangs on a disk of its own.
 */
#ifndef HASHTRIE_STORE_COPY_H
#define HASHTRIE_STORE_COPY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "hashtrie/status.h"

#include "store/env.h"

/* Told the bytes written so far; false: stop. */
typedef bool copy_on_bytes(void *user, uint64_t bytes);

struct copy {
    int file; /* Borrowed: written from its start. */
    int source;
    int sink;
    pthread_t drain;
    copy_on_bytes *on_bytes; /* From the drain's thread. */
    void *user;
    atomic_int stopped; /* enum hashtrie_status: why; OK: it is not. */
    enum hashtrie_status drained;
    uint64_t bytes;
};

/* Starts the drain. */
enum hashtrie_status copy_open(struct copy *copy, int file, copy_on_bytes *on_bytes, void *user);
/* Walks the environment. Returns once LMDB's read transaction is over. */
enum hashtrie_status copy_run(struct copy *copy, const struct env *env);
/* Waits until all is written and synced. `status`: what copy_run() said. */
enum hashtrie_status copy_close(struct copy *copy, enum hashtrie_status status);
/* From any thread between copy_open() and copy_close(): copy_run() fails soon, copy_close() returns
 * `why`. The first one counts. */
void copy_stop(struct copy *copy, enum hashtrie_status why);

/* Copies a whole file; what is written is synced. ECORRUPT: it got shorter meanwhile. */
enum hashtrie_status copy_file(int from, int to, copy_on_bytes *on_bytes, void *user);

#endif
