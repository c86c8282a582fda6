/* Reloads: shared, bounded, answered exactly once, right while the store is being written. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/random.h"
#include "unit/store_support.h"

static int setup(void **state)
{
    static struct test_store test;
    test_store_init(&test);
    *state = &test;
    return 0;
}

static int teardown(void **state)
{
    test_store_fini(*state);
    return 0;
}

struct tally {
    atomic_uint answers;
    atomic_uint with[16]; /* By -status. */
    sem_t each;
};

static void tally_init(struct tally *tally)
{
    *tally = (struct tally){.answers = 0};
    assert_int_equal(sem_init(&tally->each, 0, 0), 0);
}

static void on_reload(void *user, enum hashtrie_status status)
{
    struct tally *tally = user;
    atomic_fetch_add(&tally->answers, 1);
    atomic_fetch_add(&tally->with[-(int)status], 1);
    (void)sem_post(&tally->each);
}

static void wait_for(struct tally *tally, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        while (sem_wait(&tally->each) != 0) {
        }
    }
    assert_int_equal(atomic_load(&tally->answers), count);
}

/* A store with one conversation in it, opened again: nothing is hot. */
static struct test_key reopened_with_one(struct test_store *test)
{
    struct test_key key = test_store_key(7, 0, 20);
    test->options.reload_thread_count = 1;
    test_store_open(test);
    test_store_insert(test, &key, test_store_endpoint(test, "http://a"));
    test_store_close(test);
    test_store_open(test);
    return key;
}

static void says_no_where_nothing_is(void **state)
{
    struct test_store *test = *state;
    struct test_key key = reopened_with_one(test);
    struct test_key other = test_store_key(9, 0, 20);
    struct hashtrie_store_stats stats = {0};
    while (!stats.filter_ready) {
        (void)usleep(1000); /* Of the background thread's first work. */
        hashtrie_store_get_stats(test->store, &stats);
    }
    struct hashtrie_key view = test_key_view(&key);
    hashtrie_lock(test->trie);
    assert_true(hashtrie_store_may_have(test->store, &view, 0));
    assert_false(hashtrie_store_may_have(test->store, &view, 20)); /* The key ends there. */
    hashtrie_unlock(test->trie);
    int wrong = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        other = test_store_key(9 + i, 0, 1);
        view = test_key_view(&other);
        hashtrie_lock(test->trie);
        wrong += hashtrie_store_may_have(test->store, &view, 0);
        hashtrie_unlock(test->trie);
    }
    assert_true(wrong < 10);
    assert_int_equal(test_store_reload(test, &other, 0), HASHTRIE_ENOENT);
    assert_int_equal(test_store_reload(test, &key, 20), HASHTRIE_EINVAL);
    while (stats.warmup_ratio < 1.0) {
        (void)usleep(1000);
        hashtrie_store_get_stats(test->store, &stats);
    }
    test_store_close(test);
}

/* What is written later is in the filter, too. */
static void the_filter_knows_what_was_written_since(void **state)
{
    struct test_store *test = *state;
    (void)reopened_with_one(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    enum { KEYS = 60000 }; /* More than the first filter was made for: it grows meanwhile. */
    static struct test_key key;
    for (uint32_t i = 0; i < KEYS; i++) {
        key = test_store_key(7, (uint64_t)(i + 1) << 32, 2);
        test_store_insert(test, &key, a);
        if (i % 5000 == 0) {
            test_store_checkpoint(test);
        }
    }
    test_store_checkpoint(test);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    for (int i = 0; i < 5000 && stats.filter_bytes <= 65536; i++) {
        (void)usleep(1000);
        hashtrie_store_get_stats(test->store, &stats);
    }
    assert_true(stats.filter_bytes > 65536);
    for (uint32_t i = 0; i < KEYS; i++) {
        key = test_store_key(7, (uint64_t)(i + 1) << 32, 2);
        struct hashtrie_key view = test_key_view(&key);
        hashtrie_lock(test->trie);
        bool may_have = hashtrie_store_may_have(test->store, &view, 0);
        hashtrie_unlock(test->trie);
        assert_true(may_have || stats.deleted_node_count > 0);
    }
    test_store_close(test);
}

static void one_job_answers_all_who_wait_for_the_same(void **state)
{
    struct test_store *test = *state;
    enum { WAITERS = 100 };
    struct test_key key = reopened_with_one(test);
    struct hashtrie_key view = test_key_view(&key);
    struct tally tally;
    tally_init(&tally);
    hashtrie_lock(test->trie); /* The reader cannot graft meanwhile. */
    for (int i = 0; i < WAITERS; i++) {
        assert_int_equal(hashtrie_store_reload(test->store, &view, 0, on_reload, &tally),
                         HASHTRIE_OK);
    }
    hashtrie_unlock(test->trie);
    wait_for(&tally, WAITERS);
    assert_int_equal(atomic_load(&tally.with[0]), WAITERS);
    assert_int_equal(test_store_match(test, &key).chunk_count, 20);
    struct hashtrie_stats stats;
    hashtrie_lock(test->trie);
    hashtrie_get_stats(test->trie, &stats);
    hashtrie_unlock(test->trie);
    assert_int_equal(stats.reloaded_node_count, 1);
    test_store_close(test);
}

static void the_table_is_bounded(void **state)
{
    struct test_store *test = *state;
    struct test_key key = reopened_with_one(test);
    struct hashtrie_key view = test_key_view(&key);
    struct tally tally;
    tally_init(&tally);
    static struct test_key others[HASHTRIE_STORE_RELOAD_JOBS_MAX];
    hashtrie_lock(test->trie);
    assert_int_equal(hashtrie_store_reload(test->store, &view, 0, on_reload, &tally),
                     HASHTRIE_OK); /* Keeps the one reader at the lock. */
    unsigned accepted = 1;
    for (uint64_t i = 0; i < HASHTRIE_STORE_RELOAD_JOBS_MAX; i++) {
        others[i] = test_store_key(100 + i, i, 3);
        struct hashtrie_key other = test_key_view(&others[i]);
        enum hashtrie_status status =
            hashtrie_store_reload(test->store, &other, 0, on_reload, &tally);
        assert_int_equal(status,
                         accepted < HASHTRIE_STORE_RELOAD_JOBS_MAX ? HASHTRIE_OK : HASHTRIE_EBUSY);
        accepted += status == HASHTRIE_OK;
    }
    assert_int_equal(hashtrie_store_reload(test->store, &view, 0, on_reload, &tally),
                     HASHTRIE_OK); /* Joining takes no place. */
    accepted++;
    hashtrie_unlock(test->trie);
    wait_for(&tally, accepted);
    assert_int_equal(atomic_load(&tally.with[0]), 2);
    assert_int_equal(atomic_load(&tally.with[-HASHTRIE_ENOENT]), accepted - 2);
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(test->store, &stats);
    assert_int_equal(stats.reload_count, accepted);
    assert_int_equal(stats.reload_refused_count, 1);
    test_store_close(test);
}

static void closing_answers_everybody(void **state)
{
    struct test_store *test = *state;
    struct tally tally;
    tally_init(&tally);
    (void)reopened_with_one(test);
    unsigned accepted = 0;
    static struct test_key key;
    for (uint64_t i = 0; i < 200; i++) {
        key = test_store_key(100 + i, i, 3);
        struct hashtrie_key view = test_key_view(&key);
        accepted += hashtrie_store_reload(test->store, &view, 0, on_reload, &tally) == HASHTRIE_OK;
    }
    test_store_close(test);
    assert_int_equal(atomic_load(&tally.answers), accepted);
}

/* The hot part has changed while the reader was busy: what it brings is put where it still fits. */
static void a_late_answer_fits_or_is_dropped(void **state)
{
    struct test_store *test = *state;
    struct test_key key = reopened_with_one(test);
    struct test_key branch = test_store_key(7, 0, 8);
    test_key_push(&branch, 777);
    struct hashtrie_key view = test_key_view(&key);
    struct hashtrie_key other = test_key_view(&branch);
    struct tally tally;
    tally_init(&tally);
    hashtrie_endpoint b = test_store_endpoint(test, "http://b");
    hashtrie_lock(test->trie);
    assert_int_equal(hashtrie_store_reload(test->store, &view, 0, on_reload, &tally), HASHTRIE_OK);
    assert_int_equal(hashtrie_insert(test->trie, &other, b, test->now_s), HASHTRIE_OK);
    hashtrie_unlock(test->trie);
    wait_for(&tally, 1);
    assert_int_equal(test_store_match(test, &branch).chunk_count, 9);
    test_store_check(test);
    test_store_close(test);
    test_store_expect_clean(test);
}

/* ---- Readers and the writer at the same time ---- */

#ifdef HASHTRIE_DCHECK
enum { MANY = 250 }; /* Sanitizers are slow. */
#else
enum { MANY = 1000 };
#endif

enum { WORKERS = 3, CONVERSATIONS = 40, TURNS = MANY, ATTEMPTS = 5, TURNS_PER_CHECKPOINT = 100 };

struct worker {
    struct test_store *test;
    pthread_t thread;
    uint64_t seed;
    hashtrie_endpoint endpoint;
    int number;
    int failures;
};

/* Conversations of its own that grow turn by turn on its own endpoint. */
static void *converse(void *user)
{
    struct worker *worker = user;
    struct test_store *test = worker->test;
    struct random random = {.state = worker->seed};
    uint32_t turns[CONVERSATIONS] = {0};
    static _Thread_local struct test_key key;
    for (int i = 0; i < TURNS * 4; i++) {
        uint32_t number = random_below(&random, CONVERSATIONS);
        uint64_t first = (uint64_t)worker->number << 40 | (uint64_t)number << 20;
        key = test_store_key(5, 0, 30); /* The same system prompt for all. */
        uint32_t own = turns[number] * 7;
        for (uint32_t j = 0; j < own; j++) {
            test_key_push(&key, first + j);
        }
        bool known = turns[number] == 0;
        for (int j = 0; j < ATTEMPTS && !known; j++) { /* Others may evict it meanwhile. */
            struct hashtrie_match match = test_store_recall(test, &key);
            known = test_store_held(&match, worker->endpoint) == key.count;
        }
        worker->failures += !known;
        turns[number] += turns[number] < 60;
        for (uint32_t j = own; j < turns[number] * 7; j++) {
            test_key_push(&key, first + j);
        }
        test_store_insert(test, &key, worker->endpoint);
        if (i % TURNS_PER_CHECKPOINT == 0) { /* Besides those that come by themselves. */
            worker->failures += test_store_try_checkpoint(test) != HASHTRIE_OK;
        }
    }
    return NULL;
}

static void reading_and_writing_go_together(void **state)
{
    struct test_store *test = *state;
    uint64_t seed = test_seed();
    test->options.checkpoint_interval_ms = HASHTRIE_STORE_INTERVAL_MIN_MS;
    test->options.max_bytes = UINT64_C(256) << 20;
    test->options.reload_thread_count = 3;
    test->threshold = 0.005; /* What is hot now is cold soon. */
    test_store_open(test);
    struct worker workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        char name[] = "http://engine-0";
        name[14] = (char)('0' + i);
        workers[i] = (struct worker){.test = test,
                                     .seed = seed + (uint64_t)i,
                                     .endpoint = test_store_endpoint(test, name),
                                     .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, converse, &workers[i]), 0);
    }
    int failures = 0;
    for (int i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        failures += workers[i].failures;
    }
    struct hashtrie_stats stats;
    struct hashtrie_store_stats store_stats;
    hashtrie_lock(test->trie);
    hashtrie_get_stats(test->trie, &stats);
    hashtrie_unlock(test->trie);
    hashtrie_store_get_stats(test->store, &store_stats);
    print_message("%d of %d turns unknown, %lu dropped, %lu reloaded, %lu read again\n", failures,
                  WORKERS * TURNS * 4, (unsigned long)stats.dropped_node_count,
                  (unsigned long)stats.reloaded_node_count,
                  (unsigned long)store_stats.reload_repeated_count);
    assert_true(stats.reloaded_node_count > 100);
    assert_int_equal(failures, 0);
    test_store_close(test);
    test_store_expect_clean(test);
}

/* A conversation of many short turns is many rows: all of them come back for one request. */
static void a_long_chain_comes_back_whole(void **state)
{
    struct test_store *test = *state;
    enum { LINKS = 300 };
    static struct test_key key;
    key = test_store_key(7, 0, LINKS);
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    for (uint32_t i = 1; i <= LINKS; i++) {
        key.count = i;
        test_store_insert(test, &key, a);
    }
    test_store_close(test);
    test_store_open(test);
    assert_int_equal(test_store_match(test, &key).chunk_count, 0);
    assert_int_equal(test_store_reload(test, &key, 0), HASHTRIE_OK);
    struct hashtrie_match match = test_store_match(test, &key);
    assert_int_equal(match.holder_count, 1);
    assert_int_equal(match.holders[0].chunk_count, LINKS);
    test_store_close(test);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(says_no_where_nothing_is),
        CASE(a_long_chain_comes_back_whole),
        CASE(the_filter_knows_what_was_written_since),
        CASE(one_job_answers_all_who_wait_for_the_same),
        CASE(the_table_is_bounded),
        CASE(closing_answers_everybody),
        CASE(a_late_answer_fits_or_is_dropped),
        CASE(reading_and_writing_go_together),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store reload", tests, NULL, NULL);
}
