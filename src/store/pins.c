/* Who reads the store, and what that costs: pages freed since the oldest read transaction began
 * cannot be used again. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/env.h"

enum { DBI_FREE = 0 }; /* LMDB's list of free pages: transaction -> count, pages. */

/* LMDB tells its readers as lines of text: pid, thread, transaction or "-". */
static int on_reader(const char *line, void *user)
{
    struct env_readers *readers = user;
    long pid = 0;
    size_t thread = 0;
    size_t txn = 0;
    if (sscanf(line, "%ld %zx %zu", &pid, &thread, &txn) != 3) {
        return 0; /* A heading, or a slot without a transaction. */
    }
    readers->oldest_txn = txn < readers->oldest_txn ? txn : readers->oldest_txn;
    if (pid != (long)getpid() && txn < readers->other_txn) {
        readers->other_txn = txn;
        readers->other_pid = pid;
    }
    return 0;
}

void env_readers(const struct env *env, struct env_readers *out)
{
    *out = (struct env_readers){.oldest_txn = UINT64_MAX, .other_txn = UINT64_MAX};
    (void)mdb_reader_list(env->mdb, on_reader, out); /* A closed environment has none. */
}

/* Free pages that transactions before `oldest` have left. */
static enum hashtrie_status count_free(MDB_txn *txn, uint64_t oldest, uint64_t *pages)
{
    MDB_cursor *cursor = NULL;
    enum hashtrie_status status = env_status(mdb_cursor_open(txn, DBI_FREE, &cursor));
    MDB_val key;
    MDB_val value;
    while (status == HASHTRIE_OK) {
        size_t id = 0;
        size_t count = 0;
        status = env_status(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
        if (status == HASHTRIE_OK && key.mv_size == sizeof id && value.mv_size >= sizeof count) {
            memcpy(&id, key.mv_data, sizeof id);
            memcpy(&count, value.mv_data, sizeof count);
        }
        if (id >= oldest) {
            break;
        }
        *pages += count;
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

enum hashtrie_status env_spare_pages(const struct env *env, uint64_t oldest, uint64_t *pages)
{
    MDB_txn *txn = NULL;
    MDB_envinfo info;
    enum hashtrie_status status = env_status(mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn));
    if (status != HASHTRIE_OK) {
        return status;
    }
    uint64_t spare = 0;
    status = count_free(txn, oldest, &spare);
    if (status == HASHTRIE_OK) {
        status = env_status(mdb_env_info(env->mdb, &info));
    }
    mdb_txn_abort(txn);
    if (status != HASHTRIE_OK) {
        return status;
    }
    uint64_t in_map = env->map_bytes / env->page_bytes;
    uint64_t in_file = (uint64_t)info.me_last_pgno + 1;
    *pages = spare + (in_map > in_file ? in_map - in_file : 0);
    return HASHTRIE_OK;
}
