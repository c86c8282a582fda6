/*
 * Writing a store that no router has open: repair and import. Private to the room.
 *
 * Rows go out in transactions of bounded size that are not synced each; build_finish() syncs once.
 * Until then a power loss may leave the file unusable, so build_open() takes a new file alone, or
 * (import) one whose owner was told so.
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
    bool fresh;            /* The file is new: failure removes it. */
    uint64_t map_bytes;    /* Of the finished store. */
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
/* Puts a row in place of one with the same key. After any failure only build_abandon() may follow.
 */
enum hashtrie_status build_put(struct build *build, const struct trie_record *record);
enum hashtrie_status build_put_endpoint(struct build *build, const struct record_endpoint *record);
/* When the record of an endpoint that is there was written. ENOENT: it is not. */
enum hashtrie_status build_endpoint_seen(struct build *build, uint32_t id, uint64_t *seen_s);
/* Writes what belongs to the whole, marks it as closed in order, syncs and closes. */
enum hashtrie_status build_finish(struct build *build);
void build_abandon(struct build *build);

#endif
