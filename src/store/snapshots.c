/*
 * Snapshots of the store while it serves: when one is due, and the thread that makes it. One at a
 * time; the thread lives as long as that takes.
 *
 *     asked for or due -> NAME.part -> copied (LMDB's read transaction) -> synced -> NAME -> pruned
 *                              |  closing, the environment is closed, or pages run short
 *                              +-> stopped, removed, told
 */
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/signals.h"
#include "store/copy.h"
#include "store/internal.h"
#include "store/snapshot.h"

enum {
    TELL_FIRST_MS = 1000, /* Progress in the log: what takes longer than that, */
    TELL_EVERY_MS = 10000,
    RETRY_S = 60, /* After a failure, or the interval, if that is less. */
};

/* One on its way. */
struct making {
    struct hashtrie_store *store;
    uint64_t tell_ns; /* Progress, next. */
    uint64_t start_ns;
    struct copy copy;
    struct snapshot_part part;
};

static bool on_bytes(void *user, uint64_t bytes)
{
    struct making *making = user;
    struct snapshots *snapshots = &making->store->snapshots;
    counter_set(&snapshots->done_bytes, bytes);
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns >= making->tell_ns) {
        making->tell_ns = now_ns + TELL_EVERY_MS * CLOCK_NS_PER_MS;
        store_event(making->store, HASHTRIE_EVENT_INFO,
                    "snapshot %s: %" PRIu64 " of at most %" PRIu64 " MiB", making->part.path,
                    bytes >> 20, counter_get(&snapshots->total_bytes) >> 20);
    }
    return true;
}

/* From here on it can be stopped. False: not now. */
static bool publish_copy(struct snapshots *snapshots, struct copy *copy)
{
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    bool allowed = !snapshots->blocked && !snapshots->stopping;
    snapshots->copy = allowed ? copy : NULL;
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
    return allowed;
}

static void withdraw_copy(struct snapshots *snapshots)
{
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    snapshots->copy = NULL;
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
}

static enum hashtrie_status run_copy(struct hashtrie_store *store, struct copy *copy)
{
    if (!publish_copy(&store->snapshots, copy)) {
        return HASHTRIE_EBUSY;
    }
    enum hashtrie_status status = HASHTRIE_EIO;
    CHECK(pthread_rwlock_rdlock(&store->env_lock) == 0);
    if (store->env.mdb != NULL) {
        status = copy_run(copy, &store->env);
    }
    CHECK(pthread_rwlock_unlock(&store->env_lock) == 0);
    return status;
}

static enum hashtrie_status make_copy(struct making *making)
{
    struct hashtrie_store *store = making->store;
    counter_set(&store->snapshots.done_bytes, 0);
    counter_set(&store->snapshots.total_bytes, counter_get(&store->counters.bytes));
    enum hashtrie_status status = copy_open(&making->copy, making->part.file, on_bytes, making);
    if (status == HASHTRIE_OK) {
        status = run_copy(store, &making->copy);
        withdraw_copy(&store->snapshots);
        status = copy_close(&making->copy, status);
    }
    return status;
}

static enum hashtrie_status make_snapshot(struct making *making)
{
    const char *directory = making->store->snapshots.directory;
    char path[ENV_PATH_BYTES_MAX];
    enum hashtrie_status status = snapshot_folder_open(directory);
    if (status == HASHTRIE_OK) {
        status = snapshot_new_path(directory, path);
    }
    if (status == HASHTRIE_OK) {
        status = snapshot_begin(path, &making->part);
    }
    return status == HASHTRIE_OK ? snapshot_end(&making->part, make_copy(making)) : status;
}

static void prune(struct hashtrie_store *store)
{
    struct snapshots *snapshots = &store->snapshots;
    enum hashtrie_status status = snapshot_prune(snapshots->directory, snapshots->keep);
    if (status != HASHTRIE_OK) {
        store_event(store, HASHTRIE_EVENT_WARNING, "old snapshots in %s cannot be removed: %s",
                    snapshots->directory, hashtrie_strerror(status));
    }
}

static void note_made(struct making *making, struct hashtrie_snapshot_result *result)
{
    struct hashtrie_store *store = making->store;
    struct snapshots *snapshots = &store->snapshots;
    uint64_t took_ns = clock_monotonic_ns() - making->start_ns;
    result->path = making->part.path;
    result->bytes = making->copy.bytes;
    result->seconds = (double)took_ns / (double)CLOCK_NS_PER_S;
    counter_add(&snapshots->count, 1);
    counter_set(&snapshots->last_unix_s, clock_unix_ns() / CLOCK_NS_PER_S);
    counter_set(&snapshots->last_bytes, result->bytes);
    counter_set(&snapshots->last_took_ns, took_ns);
    store_event(store, HASHTRIE_EVENT_INFO, "snapshot %s: %" PRIu64 " bytes in %.3f s",
                result->path, result->bytes, result->seconds);
    prune(store);
}

static void note_not_made(struct making *making, enum hashtrie_status status)
{
    struct hashtrie_store *store = making->store;
    counter_add(&store->snapshots.failures, 1);
    store_event(store, HASHTRIE_EVENT_WARNING, "no snapshot was made: %s",
                status == HASHTRIE_EFULL
                    ? "too much is written meanwhile for the room that the store's cap leaves"
                    : hashtrie_strerror(status));
}

static void *snapshot_main(void *user)
{
    struct hashtrie_store *store = user;
    struct snapshots *snapshots = &store->snapshots;
    struct making making = {.store = store, .start_ns = clock_monotonic_ns()};
    making.tell_ns = making.start_ns + TELL_FIRST_MS * CLOCK_NS_PER_MS;
    struct hashtrie_snapshot_result result = {.status = make_snapshot(&making)};
    if (result.status == HASHTRIE_OK) {
        note_made(&making, &result);
    } else {
        note_not_made(&making, result.status);
    }
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    hashtrie_store_on_snapshot *on_done = snapshots->on_done;
    void *on_done_user = snapshots->user;
    snapshots->failed = result.status != HASHTRIE_OK;
    snapshots->running = false;
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
    if (on_done != NULL) {
        on_done(on_done_user, &result);
    }
    return NULL;
}

/* ---- Starting and stopping ---- */

enum hashtrie_status hashtrie_store_snapshot(struct hashtrie_store *store,
                                             hashtrie_store_on_snapshot *on_done, void *user)
{
    struct snapshots *snapshots = &store->snapshots;
    if (snapshots->directory == NULL) {
        return HASHTRIE_EINVAL;
    }
    sigset_t before;
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    bool busy = snapshots->running || snapshots->stopping;
    if (!busy && snapshots->started) { /* The last one has ended, but for its on_done. */
        CHECK(pthread_join(snapshots->thread, NULL) == 0);
        snapshots->started = false;
    }
    if (!busy) {
        snapshots->on_done = on_done;
        snapshots->user = user;
        signals_block(&before); /* They are for the program's threads. */
        snapshots->started = pthread_create(&snapshots->thread, NULL, snapshot_main, store) == 0;
        CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
        snapshots->running = snapshots->started;
    }
    bool started = snapshots->started;
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
    if (busy) {
        return HASHTRIE_EBUSY;
    }
    return started ? HASHTRIE_OK : HASHTRIE_ENOMEM;
}

void snapshots_stop_copy(struct hashtrie_store *store, enum hashtrie_status why)
{
    struct snapshots *snapshots = &store->snapshots;
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    if (snapshots->copy != NULL) {
        copy_stop(snapshots->copy, why);
    }
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
}

void snapshots_block(struct hashtrie_store *store, bool blocked)
{
    CHECK(pthread_mutex_lock(&store->snapshots.lock) == 0);
    store->snapshots.blocked = blocked;
    CHECK(pthread_mutex_unlock(&store->snapshots.lock) == 0);
    if (blocked) {
        snapshots_stop_copy(store, HASHTRIE_EBUSY);
    }
}

void snapshots_stop(struct hashtrie_store *store)
{
    struct snapshots *snapshots = &store->snapshots;
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    snapshots->stopping = true;
    bool started = snapshots->started;
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
    snapshots_stop_copy(store, HASHTRIE_EBUSY);
    if (started) {
        CHECK(pthread_join(snapshots->thread, NULL) == 0);
        snapshots->started = false;
    }
}

/* ---- The schedule ---- */

/* Once: removes left-overs; from the newest snapshot there is, when the next one is due. */
void snapshots_look(struct hashtrie_store *store)
{
    struct snapshots *snapshots = &store->snapshots;
    if (snapshots->directory == NULL) {
        return;
    }
    struct snapshot_list list = {0};
    enum hashtrie_status status = snapshot_folder_open(snapshots->directory);
    if (status == HASHTRIE_OK) {
        status = snapshot_list(snapshots->directory, &list);
    }
    if (status != HASHTRIE_OK) {
        store_event(store, HASHTRIE_EVENT_WARNING, "snapshots cannot be kept in %s: %s",
                    snapshots->directory, hashtrie_strerror(status));
    }
    uint64_t newest_s = list.count > 0 ? snapshot_unix_s(&list.names[0]) : 0;
    uint64_t now_s = clock_unix_ns() / CLOCK_NS_PER_S;
    uint64_t age_s = newest_s < now_s ? now_s - newest_s : 0;
    uint64_t wait_s = age_s < snapshots->interval_s ? snapshots->interval_s - age_s : 0;
    snapshots->due_ns = clock_monotonic_ns() + wait_s * CLOCK_NS_PER_S;
    counter_set(&snapshots->last_unix_s, newest_s);
}

void snapshots_tick(struct hashtrie_store *store, uint64_t now_ns)
{
    struct snapshots *snapshots = &store->snapshots;
    if (snapshots->due_ns == 0 || snapshots->interval_s == 0) { /* Not looked yet, or never. */
        return;
    }
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    bool again = snapshots->failed && !snapshots->running;
    snapshots->failed = snapshots->failed && !again;
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
    uint64_t retry_ns = now_ns + RETRY_S * CLOCK_NS_PER_S;
    if (again && retry_ns < snapshots->due_ns) {
        snapshots->due_ns = retry_ns;
    }
    if (now_ns >= snapshots->due_ns) {
        snapshots->due_ns = now_ns + snapshots->interval_s * CLOCK_NS_PER_S;
        enum hashtrie_status status = hashtrie_store_snapshot(store, NULL, NULL);
        (void)status; /* One under way is as good. */
    }
}
