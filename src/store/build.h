/*
 * Writing a store that no router has open: repair and import. Private to the room.
 *
 * Rows go out in transactions of bounded size, each of which leaves a sound store. Those of a new
 * file are not synced each: build_finish() syncs once.
 */
#ifndef HASHTRIE_STORE_BUILD_H
#define HASHTRIE_STORE_BUILD_H

#include "base/mem.h"
#include "store/env.h"
#include "store/internal.h"

struct build {
    struct env env;
    MDB_txn *txn;          /* NULL: none is open. */
    const char *directory; /* Borrowed. */
    int directory_fd;      /* Its lock keeps routers out. */
    bool fresh;            /* The file is new. */
    const char *folder;    /* Where it is: `directory`, or `unfinished` while it is new. */
    char unfinished[ENV_PATH_BYTES_MAX];
    uint64_t map_bytes;   /* Of the finished store: its cap. */
    uint64_t limit_pages; /* No new rows above it; 0: none. */
    uint64_t next_row;
    size_t rows_in_txn;
    uint64_t node_count;
    uint64_t chunk_count;
    uint64_t next_endpoint_id;
    uint64_t newest_bucket;
    uint64_t last_checkpoint_ms;
};

/* A new store in a directory without one. EEXIST: there is one. EBUSY: somebody has it open. */
enum hashtrie_status build_create(struct build *build, const char *directory, uint64_t map_bytes,
                                  uint64_t chunk_size);
/* The same, or opens the one that is there. EVERSION: that has another format or chunk size. */
enum hashtrie_status build_open(struct build *build, const char *directory, uint64_t map_bytes,
                                uint64_t chunk_size);
/*
 * Before anything is put: there is a transaction, with room for a node's worth of rows. EFULL: the
 * limit is reached; what was put so far is kept by build_finish().
 */
enum hashtrie_status build_ready(struct build *build);
/* Puts a row in place of one with the same key. After any failure only build_abandon() may follow.
 */
enum hashtrie_status build_put(struct build *build, const struct trie_record *record);
enum hashtrie_status build_put_endpoint(struct build *build, const struct record_endpoint *record);
/* When the record of an endpoint that is there was written. ENOENT: it is not. */
enum hashtrie_status build_endpoint_seen(struct build *build, uint32_t id, uint64_t *seen_s);
/* Writes what belongs to the whole, marks it as closed in order, syncs and closes. */
enum hashtrie_status build_finish(struct build *build);
/* Drops what is not committed, and a new file as a whole. */
void build_abandon(struct build *build);
/* Removes the new file that a builder which died has left. The directory is locked. */
void build_clear(const char *directory);

#endif
