/* Opening, closing, figures, and what the threads share: state, events, the size cap. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/signals.h"
#include "store/internal.h"

enum { EVENT_BYTES_MAX = 1024 };

struct hashtrie_store_options hashtrie_store_options_default(const char *directory)
{
    return (struct hashtrie_store_options){.directory = directory,
                                           .max_bytes = UINT64_C(8) << 30,
                                           .checkpoint_interval_ms = 1000,
                                           .reload_thread_count = 2,
                                           .chunk_size = HASHTRIE_CHUNK_SIZE_DEFAULT,
                                           .snapshot_keep = 3,
                                           .open_timeout_ms = 1000,
                                           .check_in_child = true};
}

/* ---- State and events ---- */

void store_event(const struct hashtrie_store *store, enum hashtrie_event_level level,
                 const char *format, ...)
{
    if (store->on_event == NULL) {
        return;
    }
    char text[EVENT_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments); /* Cut off if it is longer. */
    va_end(arguments);
    store->on_event(store->user, level, text);
}

enum hashtrie_store_state store_set_state(struct hashtrie_store *store,
                                          enum hashtrie_store_state state)
{
    REQUIRE(state != HASHTRIE_STORE_SLOW);
    return (enum hashtrie_store_state)atomic_exchange_explicit(&store->state, (int)state,
                                                               memory_order_relaxed);
}

static bool hangs(const atomic_uint_fast64_t *start_ns, uint64_t now_ns)
{
    uint64_t start = counter_get(start_ns);
    return start != 0 && now_ns > start + SLOW_MS * CLOCK_NS_PER_MS;
}

enum hashtrie_store_state store_state(struct hashtrie_store *store)
{
    enum hashtrie_store_state state =
        (enum hashtrie_store_state)atomic_load_explicit(&store->state, memory_order_relaxed);
    if (state != HASHTRIE_STORE_OK && state != HASHTRIE_STORE_FRESH) {
        return state;
    }
    uint64_t now_ns = clock_monotonic_ns();
    bool slow = hangs(&store->write_start_ns, now_ns);
    for (uint32_t i = 0; i < store->reader_count; i++) {
        slow = slow || hangs(&store->readers[i].read_start_ns, now_ns);
    }
    if (slow) {
        atomic_store_explicit(&store->slow, true, memory_order_relaxed);
    }
    slow = slow || atomic_load_explicit(&store->slow, memory_order_relaxed);
    return slow ? HASHTRIE_STORE_SLOW : state;
}

void store_timing_begin(atomic_uint_fast64_t *start_ns)
{
    counter_set(start_ns, clock_monotonic_ns());
}

void store_tell_slow(struct hashtrie_store *store)
{
    if (store_state(store) == HASHTRIE_STORE_SLOW &&
        !atomic_exchange_explicit(&store->slow_told, true, memory_order_relaxed)) {
        store_event(store, HASHTRIE_EVENT_WARNING,
                    "the store's disk is slow: one access takes over %d ms; requests do not wait "
                    "for it meanwhile",
                    SLOW_MS);
    }
}

void store_timing_end(struct hashtrie_store *store, atomic_uint_fast64_t *start_ns)
{
    uint64_t took_ns = clock_monotonic_ns() - counter_get(start_ns);
    bool slow = took_ns > SLOW_MS * CLOCK_NS_PER_MS;
    counter_set(start_ns, 0);
    atomic_store_explicit(&store->slow, slow, memory_order_relaxed);
    store_tell_slow(store);
    if (store_state(store) != HASHTRIE_STORE_SLOW) { /* Others may hang still. */
        atomic_store_explicit(&store->slow_told, false, memory_order_relaxed);
    }
}

void store_env_lock(struct hashtrie_store *store)
{
    snapshots_block(store, true);
    CHECK(pthread_rwlock_wrlock(&store->env_lock) == 0);
}

void store_env_unlock(struct hashtrie_store *store)
{
    CHECK(pthread_rwlock_unlock(&store->env_lock) == 0);
    snapshots_block(store, false);
}

bool store_stopping(struct hashtrie_store *store)
{
    CHECK(pthread_mutex_lock(&store->control.lock) == 0);
    bool stopping = store->control.stopping;
    CHECK(pthread_mutex_unlock(&store->control.lock) == 0);
    return stopping;
}

bool control_wait_until(struct control *control, uint64_t deadline_ns)
{
    if (clock_monotonic_ns() >= deadline_ns) {
        return false;
    }
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / CLOCK_NS_PER_S),
                             .tv_nsec = (long)(deadline_ns % CLOCK_NS_PER_S)};
    int code = pthread_cond_timedwait(&control->wake, &control->lock, &until);
    CHECK(code == 0 || code == ETIMEDOUT);
    return code == 0;
}

/* ---- Making and unmaking ---- */

static bool options_valid(const struct hashtrie_store_options *options)
{
    return options->directory != NULL && options->directory[0] != '\0' &&
           strnlen(options->directory, ENV_PATH_BYTES_MAX) < ENV_PATH_BYTES_MAX / 2 &&
           options->max_bytes >= HASHTRIE_STORE_BYTES_MIN &&
           options->max_bytes <= HASHTRIE_STORE_BYTES_MAX &&
           options->checkpoint_interval_ms >= HASHTRIE_STORE_INTERVAL_MIN_MS &&
           options->checkpoint_interval_ms <= HASHTRIE_STORE_INTERVAL_MAX_MS &&
           options->reload_thread_count >= 1 &&
           options->reload_thread_count <= HASHTRIE_STORE_RELOAD_THREADS_MAX &&
           (options->snapshot_interval_s == 0 ||
            options->snapshot_interval_s >= HASHTRIE_SNAPSHOT_INTERVAL_MIN_S) &&
           options->snapshot_keep >= 1 && options->snapshot_keep <= HASHTRIE_SNAPSHOT_KEEP_MAX &&
           (options->snapshot_directory == NULL ||
            strnlen(options->snapshot_directory, ENV_PATH_BYTES_MAX) < ENV_PATH_BYTES_MAX / 2) &&
           options->chunk_size >= HASHTRIE_CHUNK_SIZE_MIN &&
           options->chunk_size <= HASHTRIE_CHUNK_SIZE_MAX;
}

static void init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    CHECK(pthread_condattr_init(&attributes) == 0);
    CHECK(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(condition, &attributes) == 0);
    CHECK(pthread_condattr_destroy(&attributes) == 0);
}

static void init_locks(struct hashtrie_store *store)
{
    CHECK(pthread_rwlock_init(&store->env_lock, NULL) == 0);
    CHECK(pthread_mutex_init(&store->write_lock, NULL) == 0);
    CHECK(pthread_mutex_init(&store->control.lock, NULL) == 0);
    CHECK(pthread_mutex_init(&store->reloads.lock, NULL) == 0);
    CHECK(pthread_mutex_init(&store->snapshots.lock, NULL) == 0);
    init_condition(&store->control.wake);
    init_condition(&store->control.done);
    init_condition(&store->reloads.wake);
}

static void fini_locks(struct hashtrie_store *store)
{
    (void)pthread_cond_destroy(&store->reloads.wake); /* Fail only while used. */
    (void)pthread_cond_destroy(&store->control.done);
    (void)pthread_cond_destroy(&store->control.wake);
    (void)pthread_mutex_destroy(&store->snapshots.lock);
    (void)pthread_mutex_destroy(&store->reloads.lock);
    (void)pthread_mutex_destroy(&store->control.lock);
    (void)pthread_mutex_destroy(&store->write_lock);
    (void)pthread_rwlock_destroy(&store->env_lock);
}

static struct hashtrie_store *new_store(struct hashtrie *trie,
                                        const struct hashtrie_store_options *options)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct hashtrie_store *store = mem_alloc_zero(&mem, sizeof *store);
    if (store == NULL) {
        return NULL;
    }
    store->mem = mem;
    store->trie = trie;
    store->open_start_ns = clock_monotonic_ns();
    store->directory_fd = -1;
    store->mark_fd = -1;
    store->check_in_child = options->check_in_child;
    store->crash_mark = options->crash_mark;
    atomic_init(&store->state, HASHTRIE_STORE_OPENING);
    counter_set(&store->counters.cap_bytes, options->max_bytes);
    store->max_bytes = options->max_bytes;
    store->chunk_size = options->chunk_size;
    store->interval_ms = options->checkpoint_interval_ms;
    store->on_event = options->on_event;
    store->user = options->user;
    store->reader_count = options->reload_thread_count;
    store->snapshots.interval_s = options->snapshot_interval_s;
    store->snapshots.keep = options->snapshot_keep;
    mem_init(&store->writer_mem, SIZE_MAX);
    mem_init(&store->filter_mem, SIZE_MAX);
    init_locks(store);
    return store;
}

/* False: no memory. */
static bool copy_texts(struct hashtrie_store *store, const struct hashtrie_store_options *options)
{
    const char *snapshots = options->snapshot_directory;
    store->directory = mem_strndup(&store->mem, options->directory, strlen(options->directory));
    if (snapshots != NULL) {
        store->snapshots.directory = mem_strndup(&store->mem, snapshots, strlen(snapshots));
    }
    return store->directory != NULL && (snapshots == NULL || store->snapshots.directory != NULL);
}

static void free_store(struct hashtrie_store *store)
{
    filter_fini(&store->filter, &store->filter_mem);
    filter_fini(&store->filter_next, &store->filter_mem);
    mem_fini(&store->filter_mem);
    reload_fini(store);
    if (store->batch.mem != NULL) {
        trie_batch_fini(&store->batch);
    }
    buf_fini(&store->changes.list);
    buf_fini(&store->changes.bytes);
    mem_free(&store->writer_mem, store->order, TRIE_BATCH_NODES_MAX * sizeof *store->order);
    mem_free(&store->writer_mem, store->found_bytes, store->found_bytes_max);
    mem_free(&store->writer_mem, store->endpoints,
             store->endpoint_capacity * sizeof *store->endpoints);
    mem_fini(&store->writer_mem);
    env_close(&store->env);
    if (store->directory_fd >= 0) {
        (void)close(store->directory_fd); /* Gives the lock up. */
    }
    fini_locks(store);
    mem_free_text(&store->mem, store->directory);
    mem_free_text(&store->mem, store->snapshots.directory);
    struct mem mem = store->mem;
    mem_free(&mem, store, sizeof *store);
    mem_fini(&mem);
}

static enum hashtrie_status init_writer(struct hashtrie_store *store)
{
    struct hashtrie_stats stats;
    hashtrie_lock(store->trie);
    hashtrie_get_stats(store->trie, &stats);
    hashtrie_unlock(store->trie);
    uint64_t bytes = stats.bytes_budget / BATCH_BUDGET_PARTS;
    uint64_t of_cap = store->max_bytes / BATCH_CAP_PARTS;
    bytes = clamp_u64(bytes < of_cap ? bytes : of_cap, BATCH_BYTES_MIN, BATCH_BYTES_MAX);
    enum { CHANGE_BYTES_MAX = 16 << 20 }; /* What finds no room goes with the next transaction. */
    buf_init(&store->changes.list, &store->writer_mem, CHANGE_BYTES_MAX);
    buf_init(&store->changes.bytes, &store->writer_mem, CHANGE_BYTES_MAX);
    store->order = mem_alloc(&store->writer_mem, TRIE_BATCH_NODES_MAX * sizeof *store->order);
    store->found_bytes = mem_alloc(&store->writer_mem, (size_t)bytes);
    store->found_bytes_max = store->found_bytes == NULL ? 0 : (size_t)bytes;
    if (store->order == NULL || store->found_bytes == NULL) {
        return HASHTRIE_ENOMEM;
    }
    return trie_batch_init(&store->batch, &store->writer_mem, (size_t)bytes);
}

/* ---- Threads ---- */

static void stop_threads(struct hashtrie_store *store, uint32_t readers, bool background)
{
    CHECK(pthread_mutex_lock(&store->reloads.lock) == 0);
    store->reloads.stopping = true;
    CHECK(pthread_cond_broadcast(&store->reloads.wake) == 0);
    CHECK(pthread_mutex_unlock(&store->reloads.lock) == 0);
    for (uint32_t i = 0; i < readers; i++) {
        CHECK(pthread_join(store->readers[i].thread, NULL) == 0);
    }
    if (background) {
        CHECK(pthread_join(store->background, NULL) == 0);
    }
    snapshots_stop(store);
}

static void stop_writer(struct hashtrie_store *store, uint32_t timeout_ms)
{
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    control->stopping = true;
    control->stop_deadline_ns = clock_monotonic_ns() + timeout_ms * CLOCK_NS_PER_MS;
    CHECK(pthread_cond_broadcast(&control->wake) == 0);
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
}

/* Signals are for the program's own threads. */
static enum hashtrie_status start_threads(struct hashtrie_store *store)
{
    sigset_t before;
    signals_block(&before);
    uint32_t readers = 0;
    bool background = false;
    bool complete = true;
    while (readers < store->reader_count && complete) {
        struct reader_thread *reader = &store->readers[readers];
        complete = pthread_create(&reader->thread, NULL, reload_main, reader) == 0;
        readers += complete;
    }
    if (complete) {
        background = pthread_create(&store->background, NULL, background_main, store) == 0;
        complete = background && pthread_create(&store->writer, NULL, writer_main, store) == 0;
    }
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (!complete) {
        stop_writer(store, 0);
        stop_threads(store, readers, background);
        return HASHTRIE_ENOMEM;
    }
    return HASHTRIE_OK;
}

/* ---- Open and close ---- */

/* The first attempt's status; OK too while it goes on. */
static enum hashtrie_status wait_until_up(struct hashtrie_store *store, uint32_t timeout_ms)
{
    struct control *control = &store->control;
    uint64_t until_ns = clock_monotonic_ns() + timeout_ms * CLOCK_NS_PER_MS;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    int code = 0;
    while (!control->tried && code == 0) {
        struct timespec until = {.tv_sec = (time_t)(until_ns / CLOCK_NS_PER_S),
                                 .tv_nsec = (long)(until_ns % CLOCK_NS_PER_S)};
        code = pthread_cond_timedwait(&control->done, &control->lock, &until);
        CHECK(code == 0 || code == ETIMEDOUT);
    }
    enum hashtrie_status status = control->tried ? control->first_status : HASHTRIE_OK;
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
    return status;
}

static void detach(struct hashtrie_store *store)
{
    hashtrie_lock(store->trie);
    trie_attach(store->trie, NULL, NULL, 0, 0);
    hashtrie_unlock(store->trie);
}

static void end(struct hashtrie_store *store, uint32_t timeout_ms)
{
    stop_writer(store, timeout_ms);
    stop_threads(store, store->reader_count, true);
    CHECK(pthread_join(store->writer, NULL) == 0);
    bool clean = store->env.mdb != NULL && store->final_status == HASHTRIE_OK;
    env_close(&store->env);
    store_mark_closed(store, clean);
    detach(store);
}

enum hashtrie_status hashtrie_store_open(struct hashtrie *trie,
                                         const struct hashtrie_store_options *options,
                                         struct hashtrie_store **out)
{
    REQUIRE(trie != NULL && options != NULL && out != NULL);
    if (!options_valid(options) || options->chunk_size != trie_chunk_size(trie)) {
        return HASHTRIE_EINVAL;
    }
    struct hashtrie_store *store = new_store(trie, options);
    if (store == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status = HASHTRIE_ENOMEM;
    if (!copy_texts(store, options)) {
        goto fail_store;
    }
    status = init_writer(store);
    if (status == HASHTRIE_OK) {
        status = reload_init(store);
    }
    if (status != HASHTRIE_OK) {
        goto fail_store;
    }
    hashtrie_lock(trie);
    trie_attach(trie, writer_wake, store, 0, 0);
    hashtrie_unlock(trie);
    status = start_threads(store);
    if (status != HASHTRIE_OK) {
        detach(store);
        goto fail_store;
    }
    status = wait_until_up(store, options->open_timeout_ms);
    if (status != HASHTRIE_OK && store_refuses(status)) {
        end(store, 0);
        goto fail_store;
    }
    *out = store;
    return HASHTRIE_OK;
fail_store:
    free_store(store);
    return status;
}

enum hashtrie_status hashtrie_store_close(struct hashtrie_store *store, uint32_t timeout_ms)
{
    if (store == NULL) {
        return HASHTRIE_OK;
    }
    end(store, timeout_ms);
    enum hashtrie_status status = store->final_status;
    free_store(store);
    return status;
}

void hashtrie_store_hand_over(struct hashtrie_store *store)
{
    struct control *control = &store->control;
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    control->handing_over = true;
    control->asked++;
    CHECK(pthread_cond_broadcast(&control->wake) == 0);
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
}

enum hashtrie_status hashtrie_store_checkpoint(struct hashtrie_store *store, uint32_t timeout_ms)
{
    struct control *control = &store->control;
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * CLOCK_NS_PER_MS;
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / CLOCK_NS_PER_S),
                             .tv_nsec = (long)(deadline_ns % CLOCK_NS_PER_S)};
    CHECK(pthread_mutex_lock(&control->lock) == 0);
    uint64_t ticket = ++control->asked;
    CHECK(pthread_cond_broadcast(&control->wake) == 0);
    int code = 0;
    while (control->ended < ticket && code == 0) {
        code = pthread_cond_timedwait(&control->done, &control->lock, &until);
        CHECK(code == 0 || code == ETIMEDOUT);
    }
    enum hashtrie_status status = HASHTRIE_EBUSY;
    if (control->completed >= ticket) {
        status = HASHTRIE_OK;
    } else if (control->ended >= ticket) {
        status = control->last_status;
    }
    CHECK(pthread_mutex_unlock(&control->lock) == 0);
    return status;
}
