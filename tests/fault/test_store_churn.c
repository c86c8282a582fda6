/*
 * A store under its cap for long: 20 times the cap's worth of prompts go through it. The file never
 * passes the cap, no transaction meets the end of the map, and what is left is what was used last.
 *
 * HASHTRIE_CHURN_MIB=256 gives it a cap of 256 MiB instead of 16: some minutes, and then times are
 * looked at, too.
 */
#include <inttypes.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "unit/store_support.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { TURNOVERS = 4 };
#else
enum { TURNOVERS = 20 };
#endif

enum {
    CHUNKS_MAX = 900, /* Of a prompt that is one node. */
    NODE_BYTES = 180, /* Of a stored node, besides its run. */
    KEYS_PER_BUCKET = 100,
    BUCKET_S = 10,
    TENTHS = 10,
    LONG_MIB = 128, /* From then on times mean something. */
};

struct churn {
    struct test_store test;
    uint64_t cap;
    uint32_t *used; /* Owned, by key: number of the step of its last use. */
    uint32_t key_count;
    uint32_t keys_max;
    uint32_t steps;
    uint32_t keys_per_checkpoint;
    uint64_t bytes;
    uint64_t commit_ns[TENTHS]; /* Of processors: others' load does not count. */
    uint32_t commit_count[TENTHS];
    struct random random;
    hashtrie_endpoint endpoint;
};

static uint64_t cap_of_environment(void)
{
    const char *text = getenv("HASHTRIE_CHURN_MIB");
    uint64_t mib = text == NULL ? 0 : strtoull(text, NULL, 10);
    return mib == 0 ? HASHTRIE_STORE_BYTES_MIN : mib << 20;
}

/* Short ones and long ones, so that rows of all sizes lie side by side. */
static uint32_t length_of(uint32_t key)
{
    struct random random = {.state = key};
    return random_below(&random, 4) == 0 ? 1 + random_below(&random, CHUNKS_MAX)
                                         : 1 + random_below(&random, 40);
}

static struct test_key key_number(uint32_t key)
{
    return test_store_key(1, (uint64_t)key << 16, length_of(key));
}

static void start(struct churn *churn)
{
    *churn = (struct churn){.cap = cap_of_environment(), .random = {.state = test_seed()}};
    test_store_init(&churn->test);
    churn->test.budget = (size_t)8 << 20;
    churn->test.options.max_bytes = churn->cap;
    test_store_open(&churn->test);
    churn->endpoint = test_store_endpoint(&churn->test, "http://engine:8000");
    churn->keys_max = (uint32_t)(churn->cap * TURNOVERS / NODE_BYTES);
    churn->used = calloc(churn->keys_max, sizeof *churn->used);
    assert_non_null(churn->used);
    churn->keys_per_checkpoint = churn->cap == HASHTRIE_STORE_BYTES_MIN ? 400 : 4000;
}

static void use(struct churn *churn, uint32_t key)
{
    struct test_key prompt = key_number(key);
    test_store_insert(&churn->test, &prompt, churn->endpoint);
    churn->used[key] = ++churn->steps;
    churn->test.now_s += churn->steps % KEYS_PER_BUCKET == 0 ? BUCKET_S : 0;
}

/* A new prompt, or now and then one of the last thousands again. */
static void step(struct churn *churn)
{
    uint32_t recent = churn->key_count < 5000 ? churn->key_count : 5000;
    if (recent > 0 && random_below(&churn->random, 4) == 0) {
        use(churn, churn->key_count - 1 - random_below(&churn->random, recent));
        return;
    }
    uint32_t key = churn->key_count++;
    assert_true(churn->key_count < churn->keys_max);
    churn->bytes += NODE_BYTES + length_of(key) * sizeof(uint32_t);
    use(churn, key);
}

static void checkpoint(struct churn *churn)
{
    struct stat file;
    uint64_t start_ns = clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
    test_store_checkpoint(&churn->test);
    uint64_t tenth = churn->bytes * TENTHS / (churn->cap * TURNOVERS);
    tenth = tenth < TENTHS ? tenth : TENTHS - 1;
    churn->commit_ns[tenth] += clock_read_ns(CLOCK_PROCESS_CPUTIME_ID) - start_ns;
    churn->commit_count[tenth]++;
    char *path = test_path(churn->test.directory, "data.mdb");
    assert_int_equal(stat(path, &file), 0);
    assert_true((uint64_t)file.st_size <= churn->cap);
    test_path_free(path);
}

static double mean_ms(const struct churn *churn, int tenth)
{
    uint32_t count = churn->commit_count[tenth];
    return count == 0 ? 0 : (double)churn->commit_ns[tenth] / count / 1e6;
}

static int compare_newest_first(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;
    return (a < b) - (a > b);
}

static bool add_stored(void *user, const struct hashtrie_reader_node *node, uint64_t bytes)
{
    (void)node;
    *(uint64_t *)user += bytes;
    return true;
}

/* Of as many keys as the store has nodes, those used last: how many of them it has. */
static double share_of_newest(const struct churn *churn, struct hashtrie_reader *reader,
                              uint64_t node_count)
{
    uint32_t *order = calloc(churn->key_count, sizeof *order);
    assert_non_null(order);
    memcpy(order, churn->used, churn->key_count * sizeof *order);
    qsort(order, churn->key_count, sizeof *order, compare_newest_first);
    uint32_t oldest = order[node_count - 1];
    uint64_t found = 0;
    for (uint32_t key = 0; key < churn->key_count; key++) {
        struct test_key prompt = key_number(key);
        struct hashtrie_reader_node node;
        if (churn->used[key] >= oldest &&
            hashtrie_reader_find(reader, 1, (uint32_t)prompt.hashes[0], &node) == HASHTRIE_OK) {
            found++;
        }
    }
    free(order);
    return (double)found / (double)node_count;
}

static void expect_newest(const struct churn *churn)
{
    struct hashtrie_reader *reader = NULL;
    struct hashtrie_reader_info info;
    assert_int_equal(hashtrie_reader_open(churn->test.directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_get_info(reader, &info), HASHTRIE_OK);
    assert_true(info.node_count > 1000 && info.node_count < churn->key_count);
    uint64_t stored = 0;
    assert_int_equal(hashtrie_reader_rows(reader, add_stored, &stored), HASHTRIE_OK);
    double fill = (double)stored / (double)info.used_bytes;
    double newest = share_of_newest(churn, reader, info.node_count);
    print_message("%" PRIu64 " of %" PRIu32 " nodes, fill %.2f, %.1f %% of them the newest\n",
                  info.node_count, churn->key_count, fill, newest * 100);
    assert_true(fill > 0.6);
    assert_true(newest >= 0.95);
    hashtrie_reader_close(reader);
}

static void test_twenty_turnovers(void **state)
{
    (void)state;
    struct churn churn;
    start(&churn);
    while (churn.bytes < churn.cap * TURNOVERS) {
        for (uint32_t i = 0; i < churn.keys_per_checkpoint; i++) {
            step(&churn);
        }
        checkpoint(&churn);
    }
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(churn.test.store, &stats);
    assert_int_equal(stats.repeated_batch_count, 0); /* MDB_MAP_FULL. */
    assert_int_equal(stats.checkpoint_failure_count, 0);
    double second = mean_ms(&churn, 1);
    double last = mean_ms(&churn, TENTHS - 1);
    print_message("a checkpoint takes %.2f ms of a processor in the second tenth, %.2f ms in the "
                  "last\n",
                  second, last);
    if (churn.cap >= (uint64_t)LONG_MIB << 20) {
        assert_true(last <= 1.5 * second);
    }
    test_store_close(&churn.test);
    test_store_expect_clean(&churn.test);
    expect_newest(&churn);
    free(churn.used);
    test_store_fini(&churn.test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_twenty_turnovers)};
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store churn", tests, NULL, NULL);
}
