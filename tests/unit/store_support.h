/* A trie with a store in a temporary folder, and what tests do to both. */
#ifndef HASHTRIE_TESTS_UNIT_STORE_SUPPORT_H
#define HASHTRIE_TESTS_UNIT_STORE_SUPPORT_H

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hashtrie/store.h"

#include "support/keys.h"
#include "support/test.h"
#include "trie/trie.h"

enum { TEST_WAIT_MS = 60000, TEST_EVENTS_MAX = 32, TEST_EVENT_BYTES = 512 };

struct test_store {
    char *directory;
    struct hashtrie *trie;
    struct hashtrie_store *store;
    uint64_t now_s;
    size_t budget;
    double threshold; /* Of eviction; 0: the default. */
    struct hashtrie_store_options options;
    char events[TEST_EVENTS_MAX][TEST_EVENT_BYTES]; /* Of open; later ones may be lost. */
    size_t event_count;
    size_t trouble_count; /* Errors and warnings, but not of a disk that is slow. */
};

/* Events come from several threads. */
static inline pthread_mutex_t *test_store_event_lock(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    return &lock;
}

static inline void test_store_on_event(void *user, enum hashtrie_event_level level,
                                       const char *text)
{
    struct test_store *test = user;
    (void)pthread_mutex_lock(test_store_event_lock());
    test->trouble_count += level != HASHTRIE_EVENT_INFO && strstr(text, "slow") == NULL;
    if (test->event_count < TEST_EVENTS_MAX) {
        (void)snprintf(test->events[test->event_count++], TEST_EVENT_BYTES, "%s", text);
    }
    (void)pthread_mutex_unlock(test_store_event_lock());
}

static inline bool test_store_was_told(const struct test_store *test, const char *part)
{
    bool told = false;
    (void)pthread_mutex_lock(test_store_event_lock());
    for (size_t i = 0; i < test->event_count; i++) {
        told = told || strstr(test->events[i], part) != NULL;
    }
    (void)pthread_mutex_unlock(test_store_event_lock());
    return told;
}

static inline size_t test_store_trouble_count(const struct test_store *test)
{
    (void)pthread_mutex_lock(test_store_event_lock());
    size_t count = test->trouble_count;
    (void)pthread_mutex_unlock(test_store_event_lock());
    return count;
}

/* For tests with thousands of commits: where syncing costs nothing, unless told otherwise. */
static inline void test_store_prefer_memory(void)
{
    if (access("/dev/shm", W_OK) == 0) {
        (void)setenv("TMPDIR", "/dev/shm", 0);
    }
}

/* A small trie and a small store that writes when it is told to. */
static inline void test_store_init(struct test_store *test)
{
    *test = (struct test_store){
        .directory = test_directory_make(), .now_s = 1700000000, .budget = (size_t)16 << 20};
    test->options = hashtrie_store_options_default(test->directory);
    test->options.max_bytes = HASHTRIE_STORE_BYTES_MIN;
    test->options.checkpoint_interval_ms = HASHTRIE_STORE_INTERVAL_MAX_MS;
    test->options.open_timeout_ms = TEST_WAIT_MS;
    test->options.on_event = test_store_on_event;
    test->options.user = test;
}

static inline enum hashtrie_status test_store_try_open(struct test_store *test)
{
    struct hashtrie_options options = hashtrie_options_default(test->budget);
    options.seed = 42;
    options.chunk_size = test->options.chunk_size;
    if (test->threshold > 0) {
        options.threshold = test->threshold;
        options.target = test->threshold / 2;
    }
    assert_int_equal(hashtrie_new(&options, &test->trie), HASHTRIE_OK);
    test->event_count = 0;
    test->trouble_count = 0;
    enum hashtrie_status status = hashtrie_store_open(test->trie, &test->options, &test->store);
    if (status != HASHTRIE_OK) {
        hashtrie_free(test->trie);
        test->trie = NULL;
    }
    return status;
}

static inline void test_store_open(struct test_store *test)
{
    assert_int_equal(test_store_try_open(test), HASHTRIE_OK);
}

static inline void test_store_check(struct test_store *test)
{
    const char *breach = NULL;
    hashtrie_lock(test->trie);
    enum hashtrie_status status = hashtrie_check(test->trie, &breach);
    hashtrie_unlock(test->trie);
    if (status != HASHTRIE_OK) {
        fail_msg("hashtrie_check: %s", breach);
    }
}

static inline void test_store_close(struct test_store *test)
{
    test_store_check(test);
    assert_int_equal(hashtrie_store_close(test->store, TEST_WAIT_MS), HASHTRIE_OK);
    hashtrie_free(test->trie);
    test->store = NULL;
    test->trie = NULL;
}

static inline void test_store_fini(struct test_store *test)
{
    test_directory_remove(test->directory);
    test->directory = NULL;
}

static inline void test_store_checkpoint(struct test_store *test)
{
    assert_int_equal(hashtrie_store_checkpoint(test->store, TEST_WAIT_MS), HASHTRIE_OK);
}

/* A checkpoint that may fail. */
static inline enum hashtrie_status test_store_try_checkpoint(struct test_store *test)
{
    return hashtrie_store_checkpoint(test->store, TEST_WAIT_MS);
}

static inline hashtrie_endpoint test_store_endpoint(struct test_store *test, const char *name)
{
    hashtrie_endpoint endpoint = 0;
    hashtrie_lock(test->trie);
    enum hashtrie_status status = hashtrie_endpoint_add(test->trie, name, "model", &endpoint);
    hashtrie_unlock(test->trie);
    assert_int_equal(status, HASHTRIE_OK);
    return endpoint;
}

static inline void test_store_insert(struct test_store *test, const struct test_key *key,
                                     hashtrie_endpoint endpoint)
{
    struct hashtrie_key view = test_key_view(key);
    hashtrie_lock(test->trie);
    enum hashtrie_status status = hashtrie_insert(test->trie, &view, endpoint, test->now_s);
    hashtrie_unlock(test->trie);
    assert_int_equal(status, HASHTRIE_OK);
}

static inline struct hashtrie_match test_store_match(struct test_store *test,
                                                     const struct test_key *key)
{
    struct hashtrie_key view = test_key_view(key);
    struct hashtrie_match match;
    hashtrie_lock(test->trie);
    hashtrie_match(test->trie, &view, test->now_s, &match);
    hashtrie_unlock(test->trie);
    return match;
}

struct test_reload {
    sem_t done;
    enum hashtrie_status status;
};

static inline void test_store_on_reload(void *user, enum hashtrie_status status)
{
    struct test_reload *reload = user;
    reload->status = status;
    (void)sem_post(&reload->done);
}

/* One job, waited for. */
static inline enum hashtrie_status test_store_reload(struct test_store *test,
                                                     const struct test_key *key, size_t depth)
{
    struct hashtrie_key view = test_key_view(key);
    struct test_reload reload = {.status = HASHTRIE_EIO};
    assert_int_equal(sem_init(&reload.done, 0, 0), 0);
    enum hashtrie_status status =
        hashtrie_store_reload(test->store, &view, depth, test_store_on_reload, &reload);
    if (status == HASHTRIE_OK) {
        while (sem_wait(&reload.done) != 0) {
        }
        status = reload.status;
    }
    (void)sem_destroy(&reload.done);
    return status;
}

/* Reloads along the key until the store knows no more, and matches. */
static inline struct hashtrie_match test_store_recall(struct test_store *test,
                                                      const struct test_key *key)
{
    struct hashtrie_key view = test_key_view(key);
    for (;;) {
        struct hashtrie_match match = test_store_match(test, key);
        hashtrie_lock(test->trie);
        bool may_have = hashtrie_store_may_have(test->store, &view, match.chunk_count);
        hashtrie_unlock(test->trie);
        if (!may_have || test_store_reload(test, key, match.chunk_count) != HASHTRIE_OK) {
            return match;
        }
        if (test_store_match(test, key).chunk_count == match.chunk_count) {
            return match;
        }
    }
}

/* Chunks of a matched key that the endpoint holds. */
static inline uint32_t test_store_held(const struct hashtrie_match *match,
                                       hashtrie_endpoint endpoint)
{
    for (size_t i = 0; i < match->holder_count; i++) {
        if (match->holders[i].endpoint == endpoint) {
            return match->holders[i].chunk_count;
        }
    }
    return (uint32_t)match->all_chunk_count;
}

static inline void test_store_on_finding(void *user, const char *text)
{
    size_t *count = user;
    if ((*count)++ < 10) {
        print_message("finding: %s\n", text);
    }
}

/* Verifies the folder's store, which must be closed. */
static inline struct hashtrie_verify_result test_store_verify(struct test_store *test)
{
    struct hashtrie_reader *reader = NULL;
    size_t told = 0;
    struct hashtrie_verify_options options = {.on_finding = test_store_on_finding, .user = &told};
    struct hashtrie_verify_result result;
    assert_int_equal(hashtrie_reader_open(test->directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_verify(reader, &options, &result), HASHTRIE_OK);
    assert_int_equal(result.damage_count, told);
    hashtrie_reader_close(reader);
    return result;
}

static inline void test_store_expect_clean(struct test_store *test)
{
    assert_int_equal(test_store_verify(test).damage_count, 0);
}

static inline struct test_key test_store_key(uint64_t namespace_hash, uint64_t first,
                                             uint32_t count)
{
    struct test_key key = {.namespace_hash = namespace_hash};
    for (uint32_t i = 0; i < count; i++) {
        test_key_push(&key, first + i);
    }
    return key;
}

#endif
