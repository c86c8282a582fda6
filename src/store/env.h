/*
 * The LMDB environment: directory, lock, opening, moving aside, and what LMDB's codes mean. Private
 * to the room.
 *
 * Always the default flags (a sync at every commit) and MDB_NOTLS. One open environment per file
 * and process.
 */
#ifndef HASHTRIE_STORE_ENV_H
#define HASHTRIE_STORE_ENV_H

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "hashtrie/status.h"

#include "store/record.h"

enum env_db { DB_META, DB_ENDPOINTS, DB_EDGES, DB_RUNS, DB_STATE, DB_AGE, DB_COUNT };

enum { ENV_PATH_BYTES_MAX = 4096 };

struct env {
    MDB_env *mdb; /* NULL: not open. */
    MDB_dbi dbi[DB_COUNT];
    size_t page_bytes;
    uint64_t map_bytes;
};

/*
 * The one place where LMDB's codes and errno, which it mixes, become statuses. EFULL: the map is
 * full. ENOSPC: the device is. ECORRUPT: the contents are at fault.
 */
enum hashtrie_status env_status(int code);

/*
 * Makes the directory if missing and takes the lock on it that keeps other routers out: held while
 * *fd is open. EINVAL: no directory. EBUSY: locked. ENETFS.
 */
enum hashtrie_status env_directory_open(const char *directory, int *fd);

/* directory/name; false: too long. */
bool env_path(char path[ENV_PATH_BYTES_MAX], const char *directory, const char *name);

uint64_t env_free_bytes(const char *directory); /* Of the device; UINT64_MAX: unknown. */
/* 90 % of the bytes that data.mdb could take: what it has and what is free. */
uint64_t env_space(const char *directory);

struct env_file_id {
    uint64_t device;
    uint64_t inode;
};

/* Which files are meant by their names. */
struct env_files {
    struct env_file_id directory;
    struct env_file_id data;
    struct env_file_id lock;
};

/* Of an open environment. */
struct env_files env_files(const struct env *env, const char *directory);
/* False: one of them is gone, or another one has its name. True too where that cannot be told. */
bool env_files_in_place(const struct env_files *files, const char *directory);

/* Size of data.mdb; 0: there is none. */
uint64_t env_file_bytes(const char *directory);

/*
 * Opens data.mdb for writing, making it if missing, checks that it is a store of this format, chunk
 * size and seed, and marks it as open (not clean). The map is map_bytes, or if the file is larger
 * its size and what deleting takes. ECORRUPT, EVERSION: the contents are at fault; move it aside.
 * The environment of any failure is closed.
 */
enum hashtrie_status env_open(struct env *env, const char *directory, uint64_t map_bytes,
                              uint64_t chunk_size);
/* Opens it for reading alone; *lockless: without LMDB's table of readers. */
enum hashtrie_status env_open_readonly(struct env *env, const char *directory, bool *lockless);
/* Opens it for reading without LMDB's table of readers: nobody writes meanwhile. */
enum hashtrie_status env_open_alone(struct env *env, const char *directory, uint64_t chunk_size);
void env_close(struct env *env);
const char *env_db_name(enum env_db db);

/*
 * Renames data.mdb to data.mdb.bad-TIME (`name`, ENV_PATH_BYTES_MAX bytes, gets the new path) and
 * removes lock.mdb and what was moved aside before. ENOENT: there was none.
 */
enum hashtrie_status env_move_aside(const char *directory, char *name);

/*
 * After a commit: the file is made as long as its pages say (LMDB does not write free pages at the
 * end), so that a file cut short can be told from a whole one. Returns its size.
 */
uint64_t env_extend_file(const struct env *env);

/* ---- Readers: their snapshots hold pages back ---- */

struct env_readers {
    uint64_t oldest_txn; /* Of any read transaction; UINT64_MAX: there is none. */
    uint64_t other_txn;  /* Of those of other processes; UINT64_MAX: there is none. */
    long other_pid;      /* Whose that is. */
};

void env_readers(const struct env *env, struct env_readers *out);
/* Pages that the next write transaction can take, while transaction `oldest` is being read. */
enum hashtrie_status env_spare_pages(const struct env *env, uint64_t oldest, uint64_t *pages);

/* ---- Transactions ---- */

enum hashtrie_status env_meta_get(const struct env *env, MDB_txn *txn, enum meta_field field,
                                  uint64_t *number);
enum hashtrie_status env_meta_put(const struct env *env, MDB_txn *txn, enum meta_field field,
                                  uint64_t number);
enum hashtrie_status env_entries(const struct env *env, MDB_txn *txn, enum env_db db,
                                 uint64_t *count);
/* Pages of all databases, free ones not counted. */
enum hashtrie_status env_used_pages(const struct env *env, MDB_txn *txn, uint64_t *pages);

static inline MDB_val env_val(const void *bytes, size_t size)
{
    MDB_val value = {.mv_size = size};
    /* LMDB takes what it only reads through a pointer to non-const. */
    memcpy(&value.mv_data, &bytes, sizeof bytes);
    return value;
}

/* Whether a scan that began at `from` goes on behind it: keys out of order, which is damage, could
 * lead it in a circle. */
static inline bool env_goes_on(const MDB_val *key, const unsigned char *from, size_t size)
{
    int order = memcmp(key->mv_data, from, key->mv_size < size ? key->mv_size : size);
    return order > 0 || (order == 0 && key->mv_size > size);
}

#endif
