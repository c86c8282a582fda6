/* Who reads the store, and what that costs: pages freed since the oldest read transaction began
 * cannot be used again. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/internal.h"

enum {
    DBI_FREE = 0,        /* LMDB's list of free pages: transaction -> count, pages. */
    BATCHES_IN_HAND = 2, /* Pages for so many are left while somebody holds the others back. */
    LAG_TXNS = 4,        /* A reader that is not further behind holds nothing worth a look. */
    TELL_S = 10,         /* A pin that lasts so long is told. */
};

/* LMDB tells its readers as lines of text: pid, thread, transaction or "-". */
static int on_reader(const char *line, void *user)
{
    struct env_readers *readers = user;
    long pid = 0;
    size_t thread = 0;
    size_t txn = 0;
    /* NOLINTNEXTLINE(cert-err34-c): LMDB writes no number that does not fit. */
    if (sscanf(line, "%ld %zx %zu", &pid, &thread, &txn) != 3 || pid == 0) {
        return 0; /* A heading, a slot without a transaction, or one given back just now. */
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

/* ---- What the store makes of it ---- */

static uint64_t newest_txn(const struct env *env)
{
    MDB_envinfo info;
    return mdb_env_info(env->mdb, &info) == MDB_SUCCESS ? info.me_last_txnid : 0;
}

static void end_pin(struct hashtrie_store *store)
{
    struct pin *pin = &store->pin;
    if (pin->told) {
        store_event(store, HASHTRIE_EVENT_INFO,
                    "process %" PRIu64 " has ended its read transaction of the store",
                    (uint64_t)counter_get(&pin->pid));
    }
    counter_set(&pin->since_ns, 0);
    pin->told = false;
    pin->txn = 0;
}

static void tell_pin(struct hashtrie_store *store, uint64_t now_ns)
{
    struct pin *pin = &store->pin;
    uint64_t seconds = (now_ns - counter_get(&pin->since_ns)) / CLOCK_NS_PER_S;
    if (pin->told || seconds < TELL_S) {
        return;
    }
    pin->told = true;
    store_event(store, HASHTRIE_EVENT_WARNING,
                "process %" PRIu64 " has held a read transaction of the store for %" PRIu64
                " s: the pages freed since cannot be used until it ends",
                (uint64_t)counter_get(&pin->pid), seconds);
}

void pins_look(struct hashtrie_store *store, uint64_t now_ns)
{
    struct pin *pin = &store->pin;
    struct env_readers readers = {.other_txn = UINT64_MAX};
    uint64_t newest = 0;
    CHECK(pthread_rwlock_rdlock(&store->env_lock) == 0);
    if (store->env.mdb != NULL) {
        env_readers(&store->env, &readers);
        newest = newest_txn(&store->env);
    }
    CHECK(pthread_rwlock_unlock(&store->env_lock) == 0);
    if (readers.other_txn >= newest) { /* None, or it holds nothing. */
        end_pin(store);
        return;
    }
    if (readers.other_txn != pin->txn || (uint64_t)readers.other_pid != counter_get(&pin->pid)) {
        end_pin(store);
        pin->txn = readers.other_txn;
        counter_set(&pin->pid, (uint64_t)readers.other_pid);
        counter_set(&pin->since_ns, now_ns);
    }
    tell_pin(store, now_ns);
}

/* Whether the oldest reader leaves too few pages. */
static bool too_few(const struct hashtrie_store *store, struct env_readers *readers)
{
    const struct env *env = &store->env;
    uint64_t pages = 0;
    env_readers(env, readers);
    return readers->oldest_txn != UINT64_MAX && readers->oldest_txn + LAG_TXNS < newest_txn(env) &&
           env_spare_pages(env, readers->oldest_txn, &pages) == HASHTRIE_OK &&
           pages < (uint64_t)BATCHES_IN_HAND * PAGES_PER_ROW * store->rows_now;
}

bool pins_hold(struct hashtrie_store *store, long *pid)
{
    struct env_readers readers;
    if (store->env.mdb == NULL || !too_few(store, &readers)) {
        return false;
    }
    int dead = 0;
    (void)mdb_reader_check(store->env.mdb, &dead); /* Told by `dead` alone. */
    if (dead > 0 && !too_few(store, &readers)) {
        return false;
    }
    snapshots_stop_copy(store, HASHTRIE_EFULL);
    *pid = readers.other_txn <= readers.oldest_txn ? readers.other_pid : (long)getpid();
    return true;
}
