/*
 * Reloads: from the store back into the trie, by the reader threads.
 *
 *     asked -> queued -> read (LMDB, one short read transaction) -> grafted (trie's lock) ->
 * answered
 *
 * A second request for the same key joins the first one's job. What was read is grafted only if no
 * batch was released since the snapshot, else it is read again: nodes released meanwhile may have
 * been changed and evicted, and the snapshot would bring an older form back.
 */
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/internal.h"

enum {
    WALK_ROWS_MAX = 64,          /* Read in one transaction. */
    GRAFTS_PER_HOLD = 16,        /* In one hold of the trie's lock. */
    READS_MAX = 8,               /* Of one job, while batches keep being released. */
    WALK_SHRINK = 4,             /* Each takes fewer rows, so that less can happen meanwhile. */
    WALKS_MAX = 64,              /* Of one job: 4,096 rows, some 10 ms. */
    WAITING_BYTES_MAX = 32 << 20 /* Copied keys and waiters of all jobs. */
};

struct waiter {
    struct waiter *next;
    hashtrie_store_on_reload *on_done;
    void *user;
};

struct reload_job {
    struct list link;  /* Used or free. */
    struct list queue; /* Waiting for a thread. */
    uint64_t prefix;
    uint32_t fp;
    size_t depth;
    struct hashtrie_key key;
    uint64_t *hashes;       /* Those of the key; owned. */
    struct waiter *waiters; /* Owned. */
};

/* Rows read, one after the other along the key. */
struct reload_walk {
    uint64_t txn_id;     /* The snapshot they are of, ... */
    uint64_t env_number; /* ... and its file. */
    size_t depth;        /* Of the first row. */
    size_t end;          /* Where the next one would be. */
    bool more;           /* It ended at count_max. */
    size_t count_max;
    size_t count;
    struct {
        struct trie_record record;
        uint32_t run[TRIE_RUN_LENGTH_MAX];
        struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    } rows[WALK_ROWS_MAX];
};

/* ---- The table of jobs ---- */

enum hashtrie_status reload_init(struct hashtrie_store *store)
{
    struct reloads *reloads = &store->reloads;
    mem_init(&reloads->mem, WAITING_BYTES_MAX);
    list_init(&reloads->queue);
    list_init(&reloads->used);
    list_init(&reloads->free);
    reloads->jobs = mem_alloc(&store->mem, HASHTRIE_STORE_RELOAD_JOBS_MAX * sizeof *reloads->jobs);
    if (reloads->jobs == NULL) {
        return HASHTRIE_ENOMEM;
    }
    for (uint32_t i = 0; i < HASHTRIE_STORE_RELOAD_JOBS_MAX; i++) {
        list_push_back(&reloads->free, &reloads->jobs[i].link);
    }
    for (uint32_t i = 0; i < store->reader_count; i++) {
        struct reader_thread *reader = &store->readers[i];
        reader->store = store;
        reader->walk = mem_alloc(&store->mem, sizeof *reader->walk);
        if (reader->walk == NULL) {
            return HASHTRIE_ENOMEM;
        }
    }
    return HASHTRIE_OK;
}

void reload_fini(struct hashtrie_store *store)
{
    struct reloads *reloads = &store->reloads;
    if (reloads->jobs != NULL) {
        CHECK(list_empty(&reloads->used));
        mem_free(&store->mem, reloads->jobs,
                 HASHTRIE_STORE_RELOAD_JOBS_MAX * sizeof *reloads->jobs);
        mem_fini(&reloads->mem);
    }
    for (uint32_t i = 0; i < store->reader_count; i++) {
        mem_free(&store->mem, store->readers[i].walk, sizeof *store->readers[i].walk);
    }
}

static struct reload_job *find_job(const struct reloads *reloads, uint64_t prefix, uint32_t fp)
{
    list_foreach (link, &reloads->used) {
        struct reload_job *job = LIST_ITEM(link, struct reload_job, link);
        if (job->prefix == prefix && job->fp == fp) {
            return job;
        }
    }
    return NULL;
}

static struct reload_job *add_job(struct reloads *reloads, const struct hashtrie_key *key,
                                  size_t depth)
{
    if (list_empty(&reloads->free)) {
        return NULL;
    }
    size_t size = key->count * sizeof *key->hashes;
    uint64_t *hashes = mem_alloc(&reloads->mem, size);
    if (hashes == NULL) {
        return NULL;
    }
    memcpy(hashes, key->hashes, size);
    struct reload_job *job = LIST_ITEM(reloads->free.next, struct reload_job, link);
    list_remove(&job->link);
    *job = (struct reload_job){
        .prefix = depth == 0 ? key->namespace_hash : key->hashes[depth - 1],
        .fp = (uint32_t)key->hashes[depth],
        .depth = depth,
        .hashes = hashes,
        .key = {.namespace_hash = key->namespace_hash, .hashes = hashes, .count = key->count}};
    list_push_back(&reloads->used, &job->link);
    list_push_back(&reloads->queue, &job->queue);
    CHECK(pthread_cond_signal(&reloads->wake) == 0);
    return job;
}

/* Whether a reload may be tried at all; while the store is slow, one a second. */
static bool may_try(struct hashtrie_store *store, struct reloads *reloads)
{
    enum hashtrie_store_state state = store_state(store);
    if (reloads->stopping) {
        return false;
    }
    if (state != HASHTRIE_STORE_SLOW) {
        return state == HASHTRIE_STORE_OK || state == HASHTRIE_STORE_FRESH ||
               state == HASHTRIE_STORE_FULL; /* That can still be read. */
    }
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns < reloads->probe_ns + SLOW_PROBE_MS * CLOCK_NS_PER_MS) {
        return false;
    }
    reloads->probe_ns = now_ns;
    return true;
}

enum hashtrie_status hashtrie_store_reload(struct hashtrie_store *store,
                                           const struct hashtrie_key *key, size_t depth,
                                           hashtrie_store_on_reload *on_done, void *user)
{
    if (depth >= key->count || key->count > HASHTRIE_CHUNK_COUNT_MAX || on_done == NULL) {
        return HASHTRIE_EINVAL;
    }
    struct reloads *reloads = &store->reloads;
    uint64_t prefix = depth == 0 ? key->namespace_hash : key->hashes[depth - 1];
    enum hashtrie_status status = HASHTRIE_EBUSY;
    CHECK(pthread_mutex_lock(&reloads->lock) == 0);
    struct waiter *waiter = NULL;
    if (may_try(store, reloads)) {
        waiter = mem_alloc(&reloads->mem, sizeof *waiter);
    }
    if (waiter != NULL) {
        struct reload_job *job = find_job(reloads, prefix, (uint32_t)key->hashes[depth]);
        job = job != NULL ? job : add_job(reloads, key, depth);
        if (job != NULL) {
            *waiter = (struct waiter){.next = job->waiters, .on_done = on_done, .user = user};
            job->waiters = waiter;
            status = HASHTRIE_OK;
        } else {
            mem_free(&reloads->mem, waiter, sizeof *waiter);
        }
    }
    CHECK(pthread_mutex_unlock(&reloads->lock) == 0);
    counter_add(status == HASHTRIE_OK ? &store->counters.reloads : &store->counters.reloads_refused,
                1);
    return status;
}

/* ---- Reading ---- */

static uint32_t common_length(const struct trie_record *record, const struct hashtrie_key *key)
{
    size_t rest = key->count - record->depth;
    uint32_t length = record->length < rest ? record->length : (uint32_t)rest;
    uint32_t i = 0;
    while (i < length && record->run[i] == (uint32_t)key->hashes[record->depth + i]) {
        i++;
    }
    return i;
}

/* Reads the row at `depth` into the next place. ENOENT: there is none that fits the key. */
static enum hashtrie_status read_row(struct hashtrie_store *store, MDB_txn *txn,
                                     const struct hashtrie_key *key, size_t depth,
                                     struct reload_walk *walk)
{
    uint64_t prefix = depth == 0 ? key->namespace_hash : key->hashes[depth - 1];
    struct row row = {0};
    enum hashtrie_status status = row_find(&store->env, txn, prefix, (uint32_t)key->hashes[depth],
                                           walk->rows[walk->count].holders, &row);
    if (status != HASHTRIE_OK) {
        return status;
    }
    if (row.record.depth != depth) {
        return HASHTRIE_ENOENT; /* Another prompt's chain with the same hash. */
    }
    status = row_read_run(&store->env, txn, &row, walk->rows[walk->count].run);
    if (status != HASHTRIE_OK) {
        return status;
    }
    const struct trie_record *record = &row.record;
    size_t end = depth + record->length;
    if (end <= key->count && common_length(record, key) == record->length &&
        key->hashes[end - 1] != record->end) {
        return HASHTRIE_ENOENT; /* Equal fingerprints, another prompt. */
    }
    walk->rows[walk->count++].record = row.record;
    return HASHTRIE_OK;
}

static enum hashtrie_status read_rows(struct hashtrie_store *store, MDB_txn *txn,
                                      const struct reload_job *job, struct reload_walk *walk)
{
    walk->end = walk->depth;
    while (walk->count < walk->count_max && walk->end < job->key.count) {
        enum hashtrie_status status = read_row(store, txn, &job->key, walk->end, walk);
        if (status == HASHTRIE_ECORRUPT) {
            counter_add(&store->counters.corrupt, 1);
        }
        if (status != HASHTRIE_OK) {
            return walk->count > 0 ? HASHTRIE_OK : status;
        }
        const struct trie_record *record = &walk->rows[walk->count - 1].record;
        if (common_length(record, &job->key) < record->length) {
            return HASHTRIE_OK; /* The key leaves it inside. */
        }
        walk->end += record->length;
    }
    walk->more = walk->end < job->key.count;
    return HASHTRIE_OK;
}

/* One read transaction, no longer than it takes to copy the rows out. */
static enum hashtrie_status take_snapshot(struct hashtrie_store *store,
                                          const struct reload_job *job, struct reload_walk *walk)
{
    walk->count = 0;
    walk->more = false;
    if (store->env.mdb == NULL) {
        return HASHTRIE_EBUSY;
    }
    MDB_txn *txn = NULL;
    enum hashtrie_status status = env_status(mdb_txn_begin(store->env.mdb, NULL, MDB_RDONLY, &txn));
    if (status != HASHTRIE_OK) {
        return status;
    }
    walk->txn_id = mdb_txn_id(txn);
    walk->env_number = store->env_number; /* Stays while the environment is open. */
    status = read_rows(store, txn, job, walk);
    mdb_txn_abort(txn);
    return status;
}

static enum hashtrie_status read_job(struct reader_thread *reader, const struct reload_job *job)
{
    struct hashtrie_store *store = reader->store;
    CHECK(pthread_rwlock_rdlock(&store->env_lock) == 0);
    store_timing_begin(&reader->read_start_ns);
    enum hashtrie_status status = take_snapshot(store, job, reader->walk);
    store_timing_end(store, &reader->read_start_ns);
    CHECK(pthread_rwlock_unlock(&store->env_lock) == 0);
    return status;
}

/* ---- Grafting ---- */

struct grafting {
    size_t next; /* Row. */
    bool stale;  /* A batch was released since the snapshot. */
    bool no_room;
};

/* A bounded step under the trie's lock. True: there is more to do. */
static bool graft_step(struct hashtrie_store *store, const struct reload_job *job,
                       const struct reload_walk *walk, struct grafting *grafting)
{
    if (store->released_txn > walk->txn_id || store->env_number != walk->env_number) {
        grafting->stale = true;
        return false;
    }
    for (int i = 0; i < GRAFTS_PER_HOLD && grafting->next < walk->count; i++) {
        enum hashtrie_status status =
            trie_graft(store->trie, &job->key, &walk->rows[grafting->next].record);
        if (status == HASHTRIE_EFULL) {
            grafting->no_room = true;
            return false;
        }
        grafting->next++; /* ENOENT: it is there already, or does not fit there any more. */
    }
    return grafting->next < walk->count;
}

static struct grafting graft(struct hashtrie_store *store, const struct reload_job *job,
                             const struct reload_walk *walk)
{
    struct grafting grafting = {0};
    bool more = walk->count > 0;
    while (more) {
        hashtrie_lock(store->trie);
        more = graft_step(store, job, walk, &grafting);
        hashtrie_unlock(store->trie);
    }
    return grafting;
}

/* One walk's rows, read again while batches overtake it, ever fewer of them. EBUSY: never grafted
 * stale. */
static enum hashtrie_status run_walk(struct reader_thread *reader, const struct reload_job *job,
                                     struct grafting *grafting)
{
    struct hashtrie_store *store = reader->store;
    struct reload_walk *walk = reader->walk;
    walk->count_max = WALK_ROWS_MAX;
    for (int i = 0; i < READS_MAX; i++) {
        enum hashtrie_status status = read_job(reader, job);
        if (status != HASHTRIE_OK) {
            return status;
        }
        *grafting = graft(store, job, walk);
        if (!grafting->stale) {
            return grafting->no_room && grafting->next == 0 ? HASHTRIE_EFULL : HASHTRIE_OK;
        }
        counter_add(&store->counters.reloads_repeated, 1);
        walk->count_max = walk->count_max > WALK_SHRINK ? walk->count_max / WALK_SHRINK : 1;
    }
    return HASHTRIE_EBUSY;
}

/* Walk after walk, each in a read transaction of its own, until the key or what is stored of it
 * ends. */
static enum hashtrie_status run_job(struct reader_thread *reader, const struct reload_job *job)
{
    struct reload_walk *walk = reader->walk;
    walk->depth = job->depth;
    for (int walks = 0; walks < WALKS_MAX; walks++) {
        struct grafting grafting = {0};
        enum hashtrie_status status = run_walk(reader, job, &grafting);
        if (status != HASHTRIE_OK) {
            return walks > 0 ? HASHTRIE_OK : status;
        }
        if (grafting.no_room || !walk->more) {
            break;
        }
        walk->depth = walk->end;
    }
    return HASHTRIE_OK;
}

/* ---- The thread ---- */

/* The next job; NULL: the store closes and none is left. *stopping: do not look, only answer. */
static struct reload_job *next_job(struct reloads *reloads, bool *stopping)
{
    struct reload_job *job = NULL;
    CHECK(pthread_mutex_lock(&reloads->lock) == 0);
    while (list_empty(&reloads->queue) && !reloads->stopping) {
        CHECK(pthread_cond_wait(&reloads->wake, &reloads->lock) == 0);
    }
    *stopping = reloads->stopping;
    if (!list_empty(&reloads->queue)) {
        job = LIST_ITEM(reloads->queue.next, struct reload_job, queue);
        list_remove(&job->queue);
    }
    CHECK(pthread_mutex_unlock(&reloads->lock) == 0);
    return job;
}

/* From here on nobody can join it. */
static struct waiter *end_job(struct reloads *reloads, struct reload_job *job)
{
    CHECK(pthread_mutex_lock(&reloads->lock) == 0);
    struct waiter *waiters = job->waiters;
    mem_free(&reloads->mem, job->hashes, job->key.count * sizeof *job->hashes);
    list_remove(&job->link);
    list_push_back(&reloads->free, &job->link);
    CHECK(pthread_mutex_unlock(&reloads->lock) == 0);
    return waiters;
}

static void answer(struct reloads *reloads, struct waiter *waiters, enum hashtrie_status status)
{
    while (waiters != NULL) {
        struct waiter *waiter = waiters;
        waiters = waiter->next;
        waiter->on_done(waiter->user, status);
        CHECK(pthread_mutex_lock(&reloads->lock) == 0);
        mem_free(&reloads->mem, waiter, sizeof *waiter);
        CHECK(pthread_mutex_unlock(&reloads->lock) == 0);
    }
}

static void count_answer(struct hashtrie_store *store, enum hashtrie_status status)
{
    if (status == HASHTRIE_OK) {
        counter_add(&store->counters.reloads_found, 1);
    } else if (status == HASHTRIE_ENOENT) {
        counter_add(&store->counters.reloads_missed, 1);
    }
}

void *reload_main(void *user)
{
    struct reader_thread *reader = user;
    struct hashtrie_store *store = reader->store;
    bool stopping = false;
    for (;;) {
        struct reload_job *job = next_job(&store->reloads, &stopping);
        if (job == NULL) {
            return NULL;
        }
        enum hashtrie_status status = stopping ? HASHTRIE_EBUSY : run_job(reader, job);
        count_answer(store, status);
        answer(&store->reloads, end_job(&store->reloads, job), status);
    }
}
