/*
 * Bringing the store up: the folder, its lock, the cap, the environment, what the trie has to be
 * told. Writer thread; again after every failure, and when another file is in place.
 *
 *     closed -> folder locked -> environment open -> endpoints known -> up
 *        ^                                                              |
 *        +------------------ an error, or the files are gone -----------+
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/build.h"
#include "store/internal.h"

enum {
    LIMIT_PERCENT = 80, /* Of the cap's pages: deleting and committing need pages too. */
    RESERVED_BATCHES = 4,
    ID_AFTER_DAMAGE = 1 << 20 /* Next endpoint id where the stored one is unreadable. */
};

/* ---- The cap ---- */

uint64_t store_limit_pages(const struct hashtrie_store *store, uint64_t bytes, size_t rows)
{
    uint64_t pages = bytes / store->env.page_bytes;
    uint64_t reserve = (uint64_t)RESERVED_BATCHES * PAGES_PER_ROW * rows;
    uint64_t share = pages * LIMIT_PERCENT / 100;
    return pages > reserve && pages - reserve < share ? pages - reserve : share;
}

/* Told when it changes: every attempt to open comes here. */
static void tell_cap(const struct hashtrie_store *store, uint64_t before)
{
    if (store->cap_bytes == before) {
        return;
    }
    if (store->cap_bytes < store->max_bytes) {
        store_event(store, HASHTRIE_EVENT_WARNING,
                    "the store is limited to %" PRIu64 " bytes of the %" PRIu64
                    " asked for: that is 90 %% of the space there is for it",
                    store->cap_bytes, store->max_bytes);
    }
}

/* Before the environment is opened: how large it may get. */
static void set_cap(struct hashtrie_store *store)
{
    uint64_t before = store->cap_bytes;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t space = env_space(store->directory);
    uint64_t cap = store->max_bytes < space ? store->max_bytes : space;
    cap = cap < HASHTRIE_STORE_BYTES_MIN ? HASHTRIE_STORE_BYTES_MIN : cap;
    store->cap_bytes = cap / page * page;
    counter_set(&store->counters.cap_bytes, store->cap_bytes);
    store->rows_max = (size_t)clamp_u64(store->cap_bytes / page / BATCH_CAP_PARTS, BATCH_ROWS_FLOOR,
                                        TRIE_BATCH_NODES_MAX);
    store->rows_now = store->rows_max;
    tell_cap(store, before);
}

/* ---- The environment ---- */

enum hashtrie_status store_count(struct hashtrie_store *store, MDB_txn *txn)
{
    uint64_t nodes = 0;
    uint64_t endpoints = 0;
    enum hashtrie_status status = env_entries(&store->env, txn, DB_EDGES, &nodes);
    if (status == HASHTRIE_OK) {
        status = env_entries(&store->env, txn, DB_ENDPOINTS, &endpoints);
    }
    if (status == HASHTRIE_OK) {
        status = env_used_pages(&store->env, txn, &store->used_pages);
    }
    if (status == HASHTRIE_OK) {
        counter_set(&store->counters.nodes, nodes);
        counter_set(&store->counters.endpoints, endpoints);
    }
    return status;
}

/* A field of meta; `other` if it is missing or unreadable. */
static uint64_t meta_or(struct hashtrie_store *store, MDB_txn *txn, enum meta_field field,
                        uint64_t other)
{
    uint64_t number = 0;
    bool good = env_meta_get(&store->env, txn, field, &number) == HASHTRIE_OK;
    return good ? number : other;
}

static enum hashtrie_status read_figures(struct hashtrie_store *store)
{
    MDB_txn *txn = NULL;
    enum hashtrie_status status = env_status(mdb_txn_begin(store->env.mdb, NULL, MDB_RDONLY, &txn));
    if (status != HASHTRIE_OK) {
        return status;
    }
    status = store_count(store, txn);
    uint64_t bucket = meta_or(store, txn, META_NEWEST_BUCKET, 0);
    uint64_t now_bucket = clock_unix_ns() / CLOCK_NS_PER_S / TRIE_BUCKET_SECONDS;
    store->newest_bucket = (uint32_t)(bucket <= UINT32_MAX ? bucket : now_bucket);
    store->chunk_count = meta_or(store, txn, META_CHUNK_COUNT, 0);
    uint64_t next_id = meta_or(store, txn, META_NEXT_ENDPOINT_ID, ID_AFTER_DAMAGE);
    store->changes.next_id = next_id <= TRIE_STORED_ID_MAX ? (uint32_t)next_id : ID_AFTER_DAMAGE;
    if (!store->opened) {
        store->opened = true;
        store->reloads_found_before = meta_or(store, txn, META_RELOADS_FOUND, 0);
        store->reloads_missed_before = meta_or(store, txn, META_RELOADS_MISSED, 0);
    }
    counter_set(&store->counters.chunks, store->chunk_count);
    counter_set(&store->counters.last_checkpoint_ms,
                meta_or(store, txn, META_LAST_CHECKPOINT_MS, 0));
    counter_set(&store->counters.bytes, env_extend_file(&store->env));
    mdb_txn_abort(txn);
    return status;
}

static enum hashtrie_status open_env(struct hashtrie_store *store)
{
    enum hashtrie_status status =
        env_open(&store->env, store->directory, store->cap_bytes, store->chunk_size);
    if (status == HASHTRIE_OK) {
        status = read_figures(store);
    }
    if (status == HASHTRIE_OK) {
        store->limit_pages = store_limit_pages(store, store->cap_bytes, store->rows_max);
    } else {
        env_close(&store->env);
    }
    return status;
}

void store_env_close(struct hashtrie_store *store)
{
    store_env_lock(store);
    env_close(&store->env);
    store_env_unlock(store);
}

/* ---- What the trie has to be told ---- */

/*
 * Another file than before: what readers took from the old one is void, its filter says nothing,
 * and all that is hot has to be written to it. The caller keeps transactions away.
 */
static void join(struct hashtrie_store *store)
{
    hashtrie_lock(store->trie);
    atomic_store_explicit(&store->filter_ready, false, memory_order_relaxed);
    store->env_number++;
    store->released_txn = 0; /* The new file counts from its own start. */
    trie_follow(store->trie, store->newest_bucket, store->changes.next_id);
    hashtrie_unlock(store->trie);
    endpoints_forget(store);
    enum hashtrie_status status = endpoints_restore(store);
    if (status != HASHTRIE_OK) {
        store_event(store, HASHTRIE_EVENT_ERROR, "not all endpoints could be restored: %s",
                    hashtrie_strerror(status));
    }
    uint32_t cursor = 0;
    bool more = true;
    while (more) {
        hashtrie_lock(store->trie);
        more = trie_mark_unsaved(store->trie, &cursor);
        hashtrie_unlock(store->trie);
    }
    store->joined = true;
}

/* The background thread makes a filter for this file. */
static void want_filter(struct hashtrie_store *store)
{
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    control->refilter = control->opened; /* The first one it makes by itself. */
    control->opened = true;
    CHECK(pthread_cond_broadcast(&control->wake) == 0);
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
}

/* ---- Up ---- */

static enum hashtrie_status ensure_directory(struct hashtrie_store *store)
{
    if (store->directory_fd >= 0) {
        return HASHTRIE_OK;
    }
    enum hashtrie_status status = env_directory_open(store->directory, &store->directory_fd);
    if (status == HASHTRIE_OK) {
        build_clear(store->directory);
    }
    return status;
}

static void tell_problem(struct hashtrie_store *store, enum hashtrie_status status)
{
    uint64_t holder = status == HASHTRIE_EBUSY ? store_lock_holder(store->directory) : 0;
    counter_set(&store->counters.holder_pid, holder);
    int before = atomic_exchange_explicit(&store->problem, (int)status, memory_order_relaxed);
    bool was_off = store_set_state(store, HASHTRIE_STORE_OFF) == HASHTRIE_STORE_OFF;
    if (was_off && before == (int)status) {
        return;
    }
    if (status == HASHTRIE_EBUSY) {
        char pid[32] = "unknown";
        if (holder > 0) {
            (void)snprintf(pid, sizeof pid, "%" PRIu64, holder);
        }
        store_event(store, HASHTRIE_EVENT_WARNING,
                    "%s: another router has the folder open (process: %s); requests are served "
                    "from memory alone until it lets go, which is tried every second",
                    store->directory, pid);
        return;
    }
    store_event(store, HASHTRIE_EVENT_ERROR,
                "%s cannot be opened: %s; requests are served from memory alone, and it is tried "
                "again",
                store->directory, hashtrie_strerror(status));
}

static void tell_up(struct hashtrie_store *store, bool another)
{
    if (counter_get(&store->counters.restore_ns) == 0) {
        counter_set(&store->counters.restore_ns, clock_monotonic_ns() - store->open_start_ns);
    }
    enum hashtrie_store_state before = HASHTRIE_STORE_FAILED;
    if (another) {
        struct hashtrie_stats stats;
        hashtrie_lock(store->trie);
        hashtrie_get_stats(store->trie, &stats);
        hashtrie_unlock(store->trie);
        before =
            store_set_state(store, stats.node_count > 0 ? HASHTRIE_STORE_FRESH : HASHTRIE_STORE_OK);
    } else {
        before = store_set_state(store, HASHTRIE_STORE_FAILED); /* Until it takes a checkpoint. */
    }
    atomic_store_explicit(&store->problem, HASHTRIE_OK, memory_order_relaxed);
    if (before == HASHTRIE_STORE_OFF) {
        store_event(store, HASHTRIE_EVENT_INFO, "%s is open: %" PRIu64 " nodes", store->directory,
                    counter_get(&store->counters.nodes));
    }
}

bool store_refuses(enum hashtrie_status status)
{
    return status == HASHTRIE_EINVAL || status == HASHTRIE_ENETFS || status == HASHTRIE_EACCES ||
           status == HASHTRIE_ENOMEM;
}

static bool is_same(struct env_file_id left, struct env_file_id right)
{
    return left.device == right.device && left.inode == right.inode;
}

static enum hashtrie_status open_and_join(struct hashtrie_store *store, bool *another)
{
    store_env_lock(store);
    enum hashtrie_status status = open_env(store);
    if (status == HASHTRIE_OK) {
        struct env_files files = env_files(&store->env, store->directory);
        *another = !store->joined || !is_same(files.data, store->files.data);
        store->files = files;
        if (*another) {
            join(store);
        }
    }
    store_env_unlock(store);
    return status;
}

/* The mark comes first: opening it can be what crashes. */
static enum hashtrie_status open_marked(struct hashtrie_store *store, bool *another)
{
    store_mark_open(store);
    enum hashtrie_status status = open_and_join(store, another);
    if (status == HASHTRIE_EVERSION || status == HASHTRIE_ECORRUPT) {
        status = store_replace(store, hashtrie_strerror(status), status == HASHTRIE_ECORRUPT);
        status = status == HASHTRIE_OK ? open_and_join(store, another) : status;
        store->crashes = 0;
    }
    if (status == HASHTRIE_OK && *another) {
        store_mark_open(store); /* The file may be new. */
    }
    return status;
}

enum hashtrie_status store_come_up(struct hashtrie_store *store)
{
    bool another = false;
    enum hashtrie_status status = ensure_directory(store);
    if (status == HASHTRIE_OK) {
        set_cap(store);
        status = store_inspect(store);
    }
    if (status == HASHTRIE_OK) {
        status = open_marked(store, &another);
    }
    bool refused = store_refuses(status) && !store->joined;
    if (status != HASHTRIE_OK && !refused && !store_stopping(store)) {
        tell_problem(store, status);
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    tell_up(store, another);
    if (another) {
        want_filter(store);
    }
    return HASHTRIE_OK;
}

/* ---- Watching ---- */

void store_look(struct hashtrie_store *store)
{
    store_mark_look(store);
    if (store->env.mdb == NULL || env_files_in_place(&store->files, store->directory)) {
        return;
    }
    store_event(store, HASHTRIE_EVENT_ERROR,
                "the files of %s are gone or were replaced: they are made anew from what is in "
                "memory",
                store->directory);
    store_env_close(store);
    (void)store_set_state(store, HASHTRIE_STORE_FAILED);
    store->files = (struct env_files){{0}, {0}, {0}}; /* Inodes are given out again. */
    (void)close(store->directory_fd);                 /* And its lock with it. */
    store->directory_fd = -1;
    store->inspected = false;
    store->retry_ns = 1; /* Now. */
}
