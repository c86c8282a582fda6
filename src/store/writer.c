/*
 * The writer: the one thread that has write transactions.
 *
 *     wait -> take a batch (trie's lock, in slices) -> write and commit (no trie's lock)
 *          -> release it (trie's lock, in slices) -> .. until all that was dirty at the start is
 * done
 *
 * A transaction that fails puts its entries back in front of the queue, and:
 *   no space (in the map or on the device)  FULL: halve the batch, delete the oldest, try again
 *   anything else                           FAILED: open the file again after 1, 2, 4 .. 60 s
 *   damage, twice in a row                  FRESH: replace the file, write all that is hot to it
 *   cannot be opened                        OFF: memory only; tried again with the same delays
 *
 * Without an open environment there are no batches: what is dirty waits in the trie.
 */
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "store/internal.h"

enum {
    BATCHES_PER_CHECKPOINT_MAX = 1 << 20, /* Then it goes on as the next one. */
    FULL_ATTEMPTS_MAX = 12,               /* In one checkpoint, before it waits. */
    FULL_PAUSE_MS = 20,                   /* Between those that could not even delete. */
    DEVICE_FULL_WAIT_S = 60, /* Others may give space back; then the file's size is the limit. */
    GOOD_BATCHES_TO_DOUBLE = 8,
    RETRY_S_MAX = 60,
    LOOK_S = 1,             /* How often it is seen to that the files are still in their place. */
    RETRY_CLOSING_MS = 100, /* Between attempts while the store closes. */
    DAMAGE_UNTIL_FRESH = 2, /* Attempts in a row that found the contents at fault. */
    TRIM_TXNS_PER_CHECKPOINT = 4, /* Transactions of deletes alone, after a checkpoint. */
    HOPELESS_MAX = 60, /* Attempts, one a second, in which no row could be deleted: then FRESH. */
    DEVICE_FULL_BYTES = 1 << 20, /* With less than that free, a device counts as full. */
    SKIP_MAX = 8,                /* Victims passed over where deleting finds no page. */
};

/* What a checkpoint is about. */
struct checkpoint {
    uint64_t mark;       /* Of the trie: done once all dirty at the start is written. */
    uint64_t covered_ms; /* Unix time of the start. */
    uint64_t start_ns;
    bool wrote;
};

void writer_wake(void *user)
{
    struct hashtrie_store *store = user;
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    bool first = !control->due;
    control->due = true;
    if (first) {
        CHECK(pthread_cond_broadcast(&control->wake) == 0);
    }
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
}

/* ---- One batch ---- */

/* Copies dirty nodes until the batch is full or there are no more. True: with it, all of the
 * checkpoint's are taken. */
static bool take_batch(struct hashtrie_store *store, const struct checkpoint *checkpoint)
{
    bool last = false;
    for (size_t taken = 1; taken > 0 && store->batch.count < store->rows_now;) {
        hashtrie_lock(store->trie);
        size_t count_max = store->batch.count + trie_dirty_left(store->trie, checkpoint->mark);
        taken = trie_batch_take(store->trie, &store->batch,
                                count_max < store->rows_now ? count_max : store->rows_now);
        last = trie_dirty_done(store->trie, checkpoint->mark);
        hashtrie_unlock(store->trie);
        if (last) {
            break;
        }
    }
    return last;
}

static void release_batch(struct hashtrie_store *store, uint64_t txn_id)
{
    bool more = store->batch.count > 0;
    while (more) {
        hashtrie_lock(store->trie);
        store->released_txn = txn_id > store->released_txn ? txn_id : store->released_txn;
        more = trie_batch_release(store->trie, &store->batch);
        hashtrie_unlock(store->trie);
    }
}

static void fail_batch(struct hashtrie_store *store)
{
    for (size_t i = 0; i < store->batch.count; i++) {
        store->batch.entries[i].outcome = TRIE_FAILED;
        store->batch.entries[i].found = NULL;
    }
    release_batch(store, 0);
}

static void batch_went_well(struct hashtrie_store *store)
{
    store->failures_in_row = 0;
    store->damage_in_row = 0;
    if (store->rows_now == store->rows_max) {
        return;
    }
    if (++store->good_batches >= GOOD_BATCHES_TO_DOUBLE) {
        size_t rows = store->rows_now * 2;
        store->rows_now = rows < store->rows_max ? rows : store->rows_max;
        store->good_batches = 0;
    }
}

/* After a full device: as space comes back, the limit rises to the cap's again. */
static void review_limit(struct hashtrie_store *store)
{
    if (!store->limit_lowered) {
        return;
    }
    uint64_t space = env_space(store->directory);
    uint64_t bytes = space < store->cap_bytes ? space : store->cap_bytes;
    store->limit_pages = store_limit_pages(store, bytes, store->rows_now);
    store->limit_lowered = bytes < store->cap_bytes || store->rows_now < store->rows_max;
}

/* *complete: all of the checkpoint is in the store. */
static enum hashtrie_status step(struct hashtrie_store *store, struct checkpoint *checkpoint,
                                 bool *complete)
{
    bool last = take_batch(store, checkpoint);
    endpoints_collect(store);
    if (store->batch.count == 0 && !endpoints_changed(store)) {
        *complete = true;
        return HASHTRIE_OK;
    }
    uint64_t txn_id = 0;
    enum hashtrie_status status = commit_batch(store, last ? checkpoint->covered_ms : 0, &txn_id);
    if (status != HASHTRIE_OK) {
        fail_batch(store);
        return status;
    }
    checkpoint->wrote = true;
    release_batch(store, txn_id);
    hashtrie_lock(store->trie);
    *complete = trie_dirty_done(store->trie, checkpoint->mark);
    hashtrie_unlock(store->trie);
    batch_went_well(store);
    return HASHTRIE_OK;
}

/* ---- Trouble ---- */

/* Frees pages with transactions as small as it takes. EFULL: not even one row could be deleted. */
static enum hashtrie_status make_room(struct hashtrie_store *store)
{
    enum hashtrie_status status = HASHTRIE_EFULL;
    int dead = 0;
    (void)mdb_reader_check(store->env.mdb, &dead); /* Dead readers hold pages back. */
    for (size_t count = 64; count > 0; count /= 4) {
        status = commit_deletes(store, count, 0);
        if (status != HASHTRIE_EFULL && status != HASHTRIE_ENOSPC) {
            return status;
        }
    }
    for (size_t skip = 1; skip <= SKIP_MAX; skip++) {
        status = commit_deletes(store, 1, skip);
        if (status != HASHTRIE_EFULL && status != HASHTRIE_ENOSPC) {
            break;
        }
    }
    return status;
}

/* The next attempt begins with an empty file. */
static void start_fresh(struct hashtrie_store *store)
{
    store_env_close(store);
    if (store_replace(store, "not one row could be deleted from it any more", false) ==
        HASHTRIE_OK) {
        store->retry_ns = 1; /* Now. */
    }
}

static void retry_later(struct hashtrie_store *store)
{
    unsigned shift = store->failures_in_row < 6 ? store->failures_in_row : 6;
    uint64_t wait_s = UINT64_C(1) << shift;
    store->retry_ns =
        clock_monotonic_ns() + (wait_s < RETRY_S_MAX ? wait_s : RETRY_S_MAX) * CLOCK_NS_PER_S;
    store->failures_in_row++;
}

/* Another router's lock goes all of a sudden, as it ends: asked for every second. */
static enum hashtrie_status come_up(struct hashtrie_store *store)
{
    enum hashtrie_status status = store_come_up(store);
    if (status == HASHTRIE_EBUSY) {
        store->failures_in_row = 0;
    }
    if (status != HASHTRIE_OK) {
        retry_later(store);
    }
    return status;
}

/* True: rows could be deleted. */
static bool handle_no_space(struct hashtrie_store *store, enum hashtrie_status status)
{
    (void)store_set_state(store, HASHTRIE_STORE_FULL);
    atomic_store_explicit(&store->problem, (int)status, memory_order_relaxed);
    store->good_batches = 0;
    size_t half = store->rows_now / 2;
    store->rows_now = half > BATCH_ROWS_FLOOR ? half : BATCH_ROWS_FLOOR;
    if (status == HASHTRIE_ENOSPC) { /* Go on within the pages that the file has. */
        uint64_t limit =
            store_limit_pages(store, counter_get(&store->counters.bytes), store->rows_now);
        store->limit_pages = limit < store->limit_pages ? limit : store->limit_pages;
        store->limit_lowered = true;
    }
    bool room = make_room(store) != HASHTRIE_EFULL;
    store->hopeless_in_row = room ? 0 : store->hopeless_in_row;
    return room;
}

/* Most likely somebody's read transaction holds the free pages back: it is over soon. */
static void pause_full(struct hashtrie_store *store)
{
    struct control *control = &store->control;
    uint64_t until_ns = clock_monotonic_ns() + FULL_PAUSE_MS * CLOCK_NS_PER_MS;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    while (control_wait_until(control, until_ns)) { /* Only time helps. */
    }
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
}

/*
 * While somebody's read transaction holds the free pages back, the last ones are kept for the time
 * after it: a map that is full to the brim cannot even be deleted from. What is new waits in memory
 * meanwhile and, when the budget is full, is dropped unsaved.
 */
static bool hold(struct hashtrie_store *store)
{
    long pid = 0;
    bool held = !store_stopping(store) && pins_hold(store, &pid); /* The last one takes it all. */
    for (int i = 0; held && pid == (long)getpid() && i < FULL_ATTEMPTS_MAX; i++) {
        pause_full(store); /* One of our own: over soon. */
        held = pins_hold(store, &pid);
    }
    held = held && pid != (long)getpid();
    if (held && !store->pin.holding) {
        (void)store_set_state(store, HASHTRIE_STORE_FULL);
        atomic_store_explicit(&store->problem, HASHTRIE_EFULL, memory_order_relaxed);
        store_event(store, HASHTRIE_EVENT_WARNING,
                    "nothing is written for now: process %ld holds a read transaction of the "
                    "store, and nearly all free pages with it",
                    pid);
    }
    store->pin.holding = held;
    return held;
}

/* No attempt of this checkpoint has helped. */
static void give_up_full(struct hashtrie_store *store, bool room)
{
    store->retry_ns = clock_monotonic_ns() + CLOCK_NS_PER_S;
    long pid = 0;
    if (!room && !pins_hold(store, &pid) && ++store->hopeless_in_row >= HOPELESS_MAX) {
        store->hopeless_in_row = 0;
        start_fresh(store);
    }
}

/* After an error the environment may be unusable (MDB_PANIC): it is opened again. */
static void handle_error(struct hashtrie_store *store, enum hashtrie_status status)
{
    (void)store_set_state(store, HASHTRIE_STORE_FAILED);
    atomic_store_explicit(&store->problem, (int)status, memory_order_relaxed);
    retry_later(store);
    store->suspect = true;
    store->damage_in_row = status == HASHTRIE_ECORRUPT ? store->damage_in_row + 1 : 0;
    if (store->damage_in_row >= DAMAGE_UNTIL_FRESH) {
        store->damage_in_row = 0;
        store->damage = "damage was met while it was in use";
        store->retry_ns = 1; /* Now. */
    }
    store_env_close(store);
}

/* LMDB tells a write that came short, the usual sign of a full device, as an input/output error. */
static bool device_is_full(const struct hashtrie_store *store)
{
    return env_free_bytes(store->directory) < DEVICE_FULL_BYTES;
}

/* A device that has just become full: what is saved is not deleted for what is new, which waits in
 * memory. */
static bool wait_for_space(struct hashtrie_store *store)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (store->device_full_ns == 0) {
        store->device_full_ns = now_ns;
    }
    if (now_ns - store->device_full_ns >= DEVICE_FULL_WAIT_S * CLOCK_NS_PER_S) {
        return false;
    }
    (void)store_set_state(store, HASHTRIE_STORE_FULL);
    atomic_store_explicit(&store->problem, HASHTRIE_ENOSPC, memory_order_relaxed);
    store->retry_ns = now_ns + CLOCK_NS_PER_S;
    return true;
}

/* True: worth another attempt at once. */
static bool handle_failure(struct hashtrie_store *store, enum hashtrie_status status,
                           unsigned *full_attempts)
{
    if (status == HASHTRIE_EIO && device_is_full(store)) {
        status = HASHTRIE_ENOSPC;
    }
    if (status != HASHTRIE_EFULL && status != HASHTRIE_ENOSPC) {
        handle_error(store, status);
        return false;
    }
    if (status == HASHTRIE_ENOSPC && wait_for_space(store)) {
        return false;
    }
    counter_add(&store->counters.repeated, 1);
    bool room = handle_no_space(store, status);
    if (++*full_attempts > FULL_ATTEMPTS_MAX) {
        give_up_full(store, room);
        return false;
    }
    if (!room) {
        pause_full(store);
    }
    return true;
}

/* ---- A checkpoint ---- */

static bool out_of_time(struct hashtrie_store *store)
{
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    bool out = control->stopping && clock_monotonic_ns() >= control->stop_deadline_ns;
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
    return out;
}

/* Over the limit without inserts: the cap was lowered, or the device is full. */
static void trim(struct hashtrie_store *store)
{
    enum hashtrie_status status = HASHTRIE_OK;
    long pid = 0;
    for (int i = 0; i < TRIM_TXNS_PER_CHECKPOINT && status == HASHTRIE_OK &&
                    store->used_pages > store->limit_pages && !pins_hold(store, &pid);
         i++) {
        status = commit_deletes(store, 0, 0);
        if (status == HASHTRIE_EFULL) {
            status = make_room(store);
        }
    }
}

static void note_completed(struct hashtrie_store *store, const struct checkpoint *checkpoint)
{
    static const unsigned bounds_ms[] = HASHTRIE_STORE_CHECKPOINT_BOUNDS_MS;
    struct counters *counters = &store->counters;
    counter_add(&counters->checkpoints, 1);
    counter_set(&counters->last_checkpoint_ms, checkpoint->covered_ms);
    (void)store_set_state(store, HASHTRIE_STORE_OK);
    atomic_store_explicit(&store->problem, HASHTRIE_OK, memory_order_relaxed);
    store->device_full_ns = 0;
    if (store->failing) {
        store->failing = false;
        store_event(store, HASHTRIE_EVENT_INFO, "checkpoints succeed again");
    }
    if (!checkpoint->wrote) {
        return;
    }
    uint64_t took_ns = clock_monotonic_ns() - checkpoint->start_ns;
    int bucket = 0;
    while (bucket < HASHTRIE_STORE_CHECKPOINT_BOUNDS &&
           took_ns > bounds_ms[bucket] * CLOCK_NS_PER_MS) {
        bucket++;
    }
    counter_add(&counters->timed[bucket], 1);
    counter_add(&counters->timed_ns_sum, took_ns);
}

/* The filter has to be made anew once it is too full, or half of what it says is gone. */
static void ask_for_filter(struct hashtrie_store *store)
{
    uint64_t nodes = counter_get(&store->counters.nodes);
    uint64_t removed = counter_get(&store->filter_removed);
    uint64_t rows = counter_get(&store->filter_rows) + counter_get(&store->filter_added);
    bool too_full = rows > counter_get(&store->filter_capacity);
    bool too_old = removed > FILTER_ROWS_MIN && removed > nodes / 2;
    if (!atomic_load_explicit(&store->filter_ready, memory_order_relaxed) ||
        (!too_full && !too_old)) {
        return;
    }
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    if (!control->refilter) {
        control->refilter = true;
        CHECK(pthread_cond_broadcast(&control->wake) == 0);
    }
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
}

static void note_failed(struct hashtrie_store *store, enum hashtrie_status status)
{
    counter_add(&store->counters.failures, 1);
    if (!store->failing) {
        store->failing = true;
        store_event(store, HASHTRIE_EVENT_ERROR, "a checkpoint failed, it will be tried again: %s",
                    hashtrie_strerror(status));
    }
}

static enum hashtrie_status write_all(struct hashtrie_store *store, struct checkpoint *checkpoint)
{
    unsigned full_attempts = 0;
    bool complete = false;
    for (int i = 0; i < BATCHES_PER_CHECKPOINT_MAX && !complete; i++) {
        if (out_of_time(store)) {
            return HASHTRIE_EBUSY;
        }
        if (hold(store)) {
            store->retry_ns = clock_monotonic_ns() + CLOCK_NS_PER_S;
            counter_add(&store->counters.failures, 1);
            return HASHTRIE_EFULL;
        }
        enum hashtrie_status status = step(store, checkpoint, &complete);
        if (status != HASHTRIE_OK && !handle_failure(store, status, &full_attempts)) {
            note_failed(store, status);
            return status;
        }
    }
    return complete ? HASHTRIE_OK : HASHTRIE_EBUSY;
}

static enum hashtrie_status run_checkpoint(struct hashtrie_store *store)
{
    struct checkpoint checkpoint = {.covered_ms = clock_unix_ns() / CLOCK_NS_PER_MS,
                                    .start_ns = clock_monotonic_ns()};
    store->last_start_ns = checkpoint.start_ns;
    if (store->damage != NULL) {
        store_env_close(store);
    }
    enum hashtrie_status status = store->env.mdb == NULL ? come_up(store) : HASHTRIE_OK;
    if (status == HASHTRIE_OK && !store->shrunk) {
        store->shrunk = true;
        status = shrink_file(store);
    }
    if (status != HASHTRIE_OK) {
        return status;
    }
    hashtrie_lock(store->trie);
    checkpoint.mark = trie_dirty_mark(store->trie);
    hashtrie_unlock(store->trie);
    status = write_all(store, &checkpoint);
    if (status != HASHTRIE_OK) {
        return status;
    }
    store->retry_ns = 0;
    note_completed(store, &checkpoint);
    review_limit(store);
    trim(store);
    ask_for_filter(store);
    return HASHTRIE_OK;
}

/* ---- The thread ---- */

static uint64_t next_due_ns(const struct hashtrie_store *store)
{
    return store->retry_ns != 0 ? store->retry_ns
                                : store->last_start_ns + store->interval_ms * CLOCK_NS_PER_MS;
}

/* True: a checkpoint is due, asked for, or the last one. False: so much time has passed. */
static bool wait_for_work(struct hashtrie_store *store)
{
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    uint64_t due_ns = next_due_ns(store);
    uint64_t look_ns = clock_monotonic_ns() + LOOK_S * CLOCK_NS_PER_S;
    uint64_t until_ns = due_ns < look_ns ? due_ns : look_ns;
    bool waiting = true;
    bool asked = false;
    while (waiting && !asked) {
        asked = control->stopping || control->asked != control->started ||
                (control->due && store->retry_ns == 0);
        waiting = asked || control_wait_until(control, until_ns);
    }
    bool due = asked || until_ns == due_ns;
    if (due) {
        control->due = false;
        control->started = control->asked;
    }
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
    return due;
}

/* Tells who waits. True: it was the last one. A store that cannot be opened is not waited for. */
static bool publish(struct hashtrie_store *store, enum hashtrie_status status)
{
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    control->ended = control->started;
    control->last_status = status;
    if (status == HASHTRIE_OK) {
        control->completed = control->started;
    }
    CHECK(pthread_cond_broadcast(&control->done) == 0);
    bool last = control->stopping && (status == HASHTRIE_OK || store->env.mdb == NULL ||
                                      clock_monotonic_ns() >= control->stop_deadline_ns);
    if (control->stopping && !last) {
        uint64_t until_ns = clock_monotonic_ns() + RETRY_CLOSING_MS * CLOCK_NS_PER_MS;
        while (control_wait_until(control, until_ns)) { /* Nobody has to be waited for but time. */
        }
    }
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
    return last;
}

/* False: it is the operator's to mend, and nothing has begun. */
static bool first_come_up(struct hashtrie_store *store)
{
    struct control *control = &store->control;
    enum hashtrie_status status = come_up(store);
    store->last_start_ns = clock_monotonic_ns();
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    control->tried = true;
    control->first_status = status;
    CHECK(pthread_cond_broadcast(&control->done) == 0);
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
    return status == HASHTRIE_OK || !store_refuses(status);
}

static bool handing_over(struct hashtrie_store *store)
{
    CHECK(pthread_mutex_lock(&store->control.lock) == 0);
    bool handing_over = store->control.handing_over;
    CHECK(pthread_mutex_unlock(&store->control.lock) == 0);
    return handing_over;
}

/* Another process may have it now. */
static void let_go(struct hashtrie_store *store)
{
    bool clean = store->final_status == HASHTRIE_OK;
    store_env_close(store);
    store_mark_closed(store, clean);
    (void)close(store->directory_fd); /* And its lock with it. */
    store->directory_fd = -1;
    (void)store_set_state(store, HASHTRIE_STORE_OFF);
    store_event(store, HASHTRIE_EVENT_INFO, "%s is handed over, its last checkpoint is done",
                store->directory);
}

void *writer_main(void *user)
{
    struct hashtrie_store *store = user;
    bool handed_over = false;
    bool last = !first_come_up(store);
    enum hashtrie_status status = last ? store->control.first_status : HASHTRIE_OK;
    while (!last) {
        bool due = wait_for_work(store);
        store_look(store);
        if (due) {
            bool stopping = store_stopping(store);
            bool leaving = handing_over(store);
            status = run_checkpoint(store);
            last = publish(store, status) && stopping;
            handed_over = leaving && status == HASHTRIE_OK;
            last = last || handed_over;
        }
    }
    store->final_status = status == HASHTRIE_OK ? commit_clean(store) : status;
    if (handed_over) {
        let_go(store);
    }
    return NULL;
}
