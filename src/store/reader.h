/* What reading a store for people (reader.c) and verifying it (verify.c) share. Private to the
 * room. */
#ifndef HASHTRIE_STORE_READER_H
#define HASHTRIE_STORE_READER_H

#include "hashtrie/store.h"

#include "base/mem.h"
#include "store/env.h"
#include "store/internal.h"

struct hashtrie_reader {
    struct mem mem;
    struct env env;
    bool lockless;
    char directory[ENV_PATH_BYTES_MAX];
};

/* A read transaction and a cursor on one database, for one slice of a scan. */
struct reader_slice {
    MDB_txn *txn;
    MDB_cursor *cursor;
};

/* On failure nothing is open. */
enum hashtrie_status reader_slice_begin(struct hashtrie_reader *reader, enum env_db db,
                                        struct reader_slice *slice);
void reader_slice_end(struct reader_slice *slice);

#endif
