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

/* Without LMDB's table of readers: nobody writes meanwhile. */
enum hashtrie_status reader_open_alone(const char *directory, struct hashtrie_reader **out);

/* On failure nothing is open. */
enum hashtrie_status reader_slice_begin(struct hashtrie_reader *reader, enum env_db db,
                                        struct reader_slice *slice);
void reader_slice_end(struct reader_slice *slice);

/* ---- reader.c: nodes ---- */

void reader_fill_node(const struct trie_record *record, const struct trie_stored_holder *holders,
                      struct hashtrie_reader_node *out);
enum hashtrie_status reader_read_node(struct hashtrie_reader *reader, MDB_txn *txn, uint64_t prefix,
                                      uint32_t fp, struct hashtrie_reader_node *out);

/* ---- scan.c ---- */

/* Whether an edge's key is not before a place, as all are that a scan meets there but in a damaged
 * file. */
bool reader_place_reached(const struct hashtrie_reader_place *place, const unsigned char *key);
/* Moves a place behind a key; false: there is none. */
bool reader_place_after(struct hashtrie_reader_place *place, uint64_t prefix, uint32_t fp);
/* The first edge from the place on (MDB_SET_RANGE), or the one behind *prefix and *fp, to which the
 * place is moved (MDB_NEXT). ENOENT: there is none. ECORRUPT: its key is out of order. */
enum hashtrie_status reader_slice_edge(struct reader_slice *slice, MDB_cursor_op op,
                                       struct hashtrie_reader_place *place, uint64_t *prefix,
                                       uint32_t *fp);

#endif
