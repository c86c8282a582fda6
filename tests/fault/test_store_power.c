/*
 * Power loss. A worker runs a store on the preloaded disk, which writes down all it does to its
 * files. From that trace folders are built as they may be after power went at a random moment
 * (support/crash_model.h), and each must open, verify, and hold all that a checkpoint had
 * acknowledged by then.
 *
 * HASHTRIE_POWER_IMAGES: how many in all; 150 if it is not set.
 *
 * The worker and the checker of one image are this program again with other arguments.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/env.h"
#include "store/snapshot.h"
#include "support/crash_model.h"
#include "unit/store_ledger.h"

enum {
    IMAGES = 150,
    GROW_KEYS = 500,
    CAP_KEYS = 4500,
    CAP_KEYS_SURE = 400, /* The youngest of them are in any store of the smallest cap. */
    CAP_KEY_CHUNKS = 900,
    CAP_KEYS_PER_CHECKPOINT = 25,
    ASIDE_KEYS = 60,
    SNAPSHOT_KEYS = 200,
    SNAPSHOT_EVERY = 25, /* Keys. */
    SNAPSHOT_KEEP = 2,
    CHILD_SECONDS_MAX = 120,
    ARGUMENTS = 7,
};

/* Names of folders and files below a temporary one. */
#define STORE     "store"
#define SNAPSHOTS "snapshots"

/* What worker and checker of a scenario share. */
struct power {
    struct test_store test;
    hashtrie_endpoint slots[LEDGER_ENDPOINTS];
    struct ledger_key *keys;
    size_t key_count;
    struct random random;
    disk_mark_function *mark; /* Worker: tells the trace what was acknowledged, what was sent. */
    size_t acknowledged;
    size_t sent;
    char *snapshots; /* Their folder, or NULL. */
};

static void power_init(struct power *power, const char *folder, uint64_t seed, size_t key_count)
{
    test_store_init(&power->test);
    test_directory_remove(power->test.directory);
    power->test.directory = test_path(folder, STORE);
    power->test.options.directory = power->test.directory;
    power->random.state = seed;
    power->key_count = key_count;
    power->keys = calloc(key_count, sizeof *power->keys);
    assert_non_null(power->keys);
}

static void power_fini(struct power *power)
{
    free(power->keys);
    test_path_free(power->snapshots);
    test_path_free(power->test.directory);
}

static void insert(struct power *power, size_t number)
{
    struct test_store *test = &power->test;
    struct hashtrie_key view = ledger_view(&power->keys[number]);
    power->sent = number + 1;
    power->mark(power->acknowledged, power->sent);
    (void)ledger_recall(test, &power->keys[number]);
    hashtrie_lock(test->trie);
    enum hashtrie_status status =
        hashtrie_insert(test->trie, &view, power->slots[power->keys[number].endpoint], test->now_s);
    hashtrie_unlock(test->trie);
    assert_int_equal(status, HASHTRIE_OK);
}

static void acknowledge(struct power *power)
{
    power->acknowledged = power->sent;
    power->mark(power->acknowledged, power->sent);
}

static void checkpoint(struct power *power)
{
    test_store_checkpoint(&power->test);
    acknowledge(power);
}

static void close_and_acknowledge(struct power *power)
{
    test_store_close(&power->test);
    acknowledge(power);
}

/* Verifies what is there, before anybody repairs it by opening. False: it cannot be read at all. */
static bool verify_as_found(const char *directory)
{
    struct hashtrie_reader *reader = NULL;
    struct hashtrie_verify_result result;
    size_t told = 0;
    struct hashtrie_verify_options options = {.on_finding = test_store_on_finding, .user = &told};
    if (hashtrie_reader_open(directory, &reader) != HASHTRIE_OK) {
        return false;
    }
    assert_int_equal(hashtrie_reader_verify(reader, &options, &result), HASHTRIE_OK);
    assert_int_equal(result.damage_count, 0);
    hashtrie_reader_close(reader);
    return true;
}

static bool was_moved_aside(const struct power *power)
{
    return test_store_was_told(&power->test, ".bad-");
}

/* Every key from the first on, but only those from `first_sure` on have to be there. */
static void check_keys(struct power *power, size_t first_sure)
{
    for (size_t i = 0; i < power->acknowledged; i++) {
        atomic_store(&power->keys[i].acknowledged, i >= first_sure);
    }
    int wrong = 0;
    for (size_t i = first_sure; i < power->sent && wrong < 5; i++) {
        wrong +=
            ledger_check_key(&power->test, power->slots, power->keys, power->sent, &power->keys[i]);
    }
    assert_int_equal(wrong, 0);
}

/* ---- A store that grows, is closed and opened, forgets and reloads ---- */

static void grow_init(struct power *power, const char *folder, uint64_t seed)
{
    power_init(power, folder, seed, GROW_KEYS);
    power->test.options.max_bytes = UINT64_C(256) << 20;
    power->test.threshold = 0.005;
    for (size_t i = 0; i < GROW_KEYS; i++) {
        ledger_make_key(&power->random, power->keys, i, &power->keys[i]);
    }
}

static void grow_work(struct power *power)
{
    ledger_open(&power->test, power->slots);
    for (size_t i = 0; i < GROW_KEYS; i++) {
        insert(power, i);
        uint32_t dice = random_below(&power->random, 100);
        power->test.now_s += random_below(&power->random, 4);
        if (dice < 15) {
            checkpoint(power);
        } else if (dice < 18) {
            close_and_acknowledge(power);
            ledger_open(&power->test, power->slots);
        }
    }
    close_and_acknowledge(power);
}

static void grow_check(struct power *power)
{
    bool readable = verify_as_found(power->test.directory);
    assert_true(readable || power->acknowledged == 0);
    ledger_open(&power->test, power->slots);
    assert_true(power->acknowledged == 0 || !was_moved_aside(power));
    check_keys(power, 0);
    test_store_close(&power->test);
    test_store_expect_clean(&power->test);
}

/* ---- A store at its cap: each key is 10 seconds younger than the one before ---- */

static void cap_init(struct power *power, const char *folder, uint64_t seed)
{
    power_init(power, folder, seed, CAP_KEYS);
    for (size_t i = 0; i < CAP_KEYS; i++) {
        struct ledger_key *key = &power->keys[i];
        key->namespace_hash = i + 1;
        key->endpoint = (int)(i % LEDGER_ENDPOINTS);
        while (key->count < CAP_KEY_CHUNKS) {
            ledger_push(key, key->count);
        }
    }
}

static void cap_work(struct power *power)
{
    struct hashtrie_store_stats stats;
    ledger_open(&power->test, power->slots);
    for (size_t i = 0; i < CAP_KEYS; i++) {
        insert(power, i);
        power->test.now_s += 10;
        if (i % CAP_KEYS_PER_CHECKPOINT == 0) {
            checkpoint(power);
        }
    }
    hashtrie_store_get_stats(power->test.store, &stats);
    assert_true(stats.deleted_node_count > CAP_KEYS / 10);
    close_and_acknowledge(power);
}

static void cap_check(struct power *power)
{
    bool readable = verify_as_found(power->test.directory);
    assert_true(readable || power->acknowledged == 0);
    power->test.now_s += 10 * power->sent;
    ledger_open(&power->test, power->slots);
    assert_true(env_file_bytes(power->test.directory) <= HASHTRIE_STORE_BYTES_MIN);
    check_keys(power,
               power->acknowledged > CAP_KEYS_SURE ? power->acknowledged - CAP_KEYS_SURE : 0);
    test_store_close(&power->test);
    test_store_expect_clean(&power->test);
}

/* ---- A store of another chunk size is moved aside, and never lost ---- */

static void aside_init(struct power *power, const char *folder, uint64_t seed)
{
    power_init(power, folder, seed, 2 * (size_t)ASIDE_KEYS);
    for (size_t i = 0; i < 2 * ASIDE_KEYS; i++) {
        ledger_make_key(&power->random, power->keys, i, &power->keys[i]);
    }
}

static void aside_work(struct power *power)
{
    power->test.options.chunk_size = 128;
    for (size_t i = 0; i < 2 * ASIDE_KEYS; i++) {
        if (i == ASIDE_KEYS) {
            close_and_acknowledge(power);
            power->test.options.chunk_size = 256;
        }
        if (i % ASIDE_KEYS == 0) {
            ledger_open(&power->test, power->slots);
        }
        insert(power, i);
        if (i % 10 == 9) {
            checkpoint(power);
        }
    }
    assert_true(was_moved_aside(power));
    close_and_acknowledge(power);
}

/* The first half's store is there, whatever its name is by now: data.mdb of a folder of its own. */
static void expect_first_store(struct power *power)
{
    char command[3 * ENV_PATH_BYTES_MAX];
    struct power first = {.acknowledged = ASIDE_KEYS, .sent = ASIDE_KEYS, .keys = power->keys};
    test_store_init(&first.test);
    int size = snprintf(command, sizeof command,
                        "cp \"$(ls -d '%s'/data.mdb.bad-* 2>/dev/null || echo '%s'/data.mdb)\" "
                        "'%s/data.mdb'",
                        power->test.directory, power->test.directory, first.test.directory);
    assert_true(size > 0 && (size_t)size < sizeof command);
    assert_int_equal(system(command), 0); // NOLINT(cert-env33-c): names are the test's own.
    ledger_open(&first.test, first.slots);
    assert_false(was_moved_aside(&first));
    check_keys(&first, 0);
    test_store_close(&first.test);
    test_store_fini(&first.test);
}

static void aside_check(struct power *power)
{
    bool readable = verify_as_found(power->test.directory);
    assert_true(readable || power->acknowledged == 0 || power->acknowledged == ASIDE_KEYS);
    if (power->acknowledged >= ASIDE_KEYS) {
        expect_first_store(power);
    }
    power->test.options.chunk_size = 256;
    ledger_open(&power->test, power->slots);
    size_t sent = power->sent;
    power->sent = sent > ASIDE_KEYS ? sent : 0; /* Of the first half nothing may be claimed. */
    if (sent > ASIDE_KEYS) {
        check_keys(power, ASIDE_KEYS);
    }
    test_store_close(&power->test);
    test_store_expect_clean(&power->test);
}

/* ---- A cap that is made smaller: another file takes the store's place ---- */

static void shrink_work(struct power *power)
{
    power->test.options.max_bytes = UINT64_C(64) << 20;
    ledger_open(&power->test, power->slots);
    for (size_t i = 0; i < CAP_KEYS; i++) {
        insert(power, i);
        power->test.now_s += 10;
        if (i == CAP_KEYS - 10) {
            close_and_acknowledge(power);
            assert_true(env_file_bytes(power->test.directory) > HASHTRIE_STORE_BYTES_MIN);
            power->test.options.max_bytes = HASHTRIE_STORE_BYTES_MIN;
            ledger_open(&power->test, power->slots);
        }
        if (i % CAP_KEYS_PER_CHECKPOINT == 0 || i > CAP_KEYS - 10) {
            checkpoint(power);
        }
    }
    assert_true(env_file_bytes(power->test.directory) <= HASHTRIE_STORE_BYTES_MIN);
    close_and_acknowledge(power);
}

static void shrink_check(struct power *power)
{
    bool readable = verify_as_found(power->test.directory);
    assert_true(readable || power->acknowledged == 0);
    power->test.now_s += 10 * power->sent;
    ledger_open(&power->test, power->slots);
    check_keys(power,
               power->acknowledged > CAP_KEYS_SURE ? power->acknowledged - CAP_KEYS_SURE : 0);
    test_store_checkpoint(&power->test); /* The file is made smaller before it. */
    test_store_close(&power->test);
    assert_true(env_file_bytes(power->test.directory) <= HASHTRIE_STORE_BYTES_MIN);
    test_store_expect_clean(&power->test);
}

/* ---- Snapshots ---- */

static void snapshot_init(struct power *power, const char *folder, uint64_t seed)
{
    power_init(power, folder, seed, SNAPSHOT_KEYS);
    power->snapshots = test_path(folder, SNAPSHOTS);
    power->test.options.snapshot_directory = power->snapshots;
    power->test.options.snapshot_keep = SNAPSHOT_KEEP;
    for (size_t i = 0; i < SNAPSHOT_KEYS; i++) {
        ledger_make_key(&power->random, power->keys, i, &power->keys[i]);
    }
}

static void on_snapshot(void *user, const struct hashtrie_snapshot_result *result)
{
    assert_int_equal(result->status, HASHTRIE_OK);
    (void)sem_post(user);
}

/* Nothing but snapshots is acknowledged here: what was in the store before each. */
static void snapshot_work(struct power *power)
{
    sem_t done;
    assert_int_equal(sem_init(&done, 0, 0), 0);
    ledger_open(&power->test, power->slots);
    for (size_t i = 0; i < SNAPSHOT_KEYS; i++) {
        insert(power, i);
        if (i % 5 == 4) {
            test_store_checkpoint(&power->test);
        }
        if (i % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1) {
            assert_int_equal(hashtrie_store_snapshot(power->test.store, on_snapshot, &done),
                             HASHTRIE_OK);
            while (sem_wait(&done) != 0) {
            }
            acknowledge(power);
        }
    }
    test_store_close(&power->test);
    (void)sem_destroy(&done);
}

/* Whatever has a snapshot's name is whole; the newest has all that was acknowledged. */
static void snapshot_check(struct power *power)
{
    static struct snapshot_list list;
    enum hashtrie_status status = snapshot_list(power->snapshots, &list);
    assert_true(status == HASHTRIE_OK || status == HASHTRIE_ENOENT);
    assert_true(list.count > 0 || power->acknowledged == 0);
    for (size_t i = 0; i < list.count; i++) {
        char *path = test_path(power->snapshots, list.names[i].text);
        assert_true(verify_as_found(path));
        test_path_free(path);
    }
    assert_true(verify_as_found(power->test.directory) || power->acknowledged == 0);
    if (list.count > 0) {
        test_path_free(power->test.directory);
        power->test.directory = test_path(power->snapshots, list.names[0].text);
        power->test.options.directory = power->test.directory;
        power->test.options.snapshot_directory = NULL;
        ledger_open(&power->test, power->slots);
        check_keys(power, 0);
        test_store_close(&power->test);
    }
}

/* ---- Scenarios ---- */

struct scenario {
    const char *name;
    void (*init)(struct power *power, const char *folder, uint64_t seed);
    void (*work)(struct power *power);
    void (*check)(struct power *power);
};

static const struct scenario scenarios[] = {
    {"grow", grow_init, grow_work, grow_check},
    {"cap", cap_init, cap_work, cap_check},
    {"aside", aside_init, aside_work, aside_check},
    {"shrink", cap_init, shrink_work, shrink_check},
    {"snapshot", snapshot_init, snapshot_work, snapshot_check},
};

enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

/* arguments: program, "work" or "check", scenario, folder, seed[, acknowledged, sent] */
static int act(char **arguments)
{
    static struct power power;
    const struct scenario *scenario = scenarios;
    while (strcmp(scenario->name, arguments[2]) != 0) {
        scenario++;
        assert_true(scenario < scenarios + SCENARIOS);
    }
    (void)alarm(CHILD_SECONDS_MAX);
    scenario->init(&power, arguments[3], strtoull(arguments[4], NULL, 10));
    if (strcmp(arguments[1], "work") == 0) {
        void *found = dlsym(RTLD_DEFAULT, "disk_mark");
        assert_non_null(found);
        memcpy(&power.mark, &found, sizeof found);
        scenario->work(&power);
    } else {
        power.acknowledged = strtoull(arguments[5], NULL, 10);
        power.sent = strtoull(arguments[6], NULL, 10);
        scenario->check(&power);
    }
    power_fini(&power);
    return 0;
}

/* This program with other arguments. Its exit status, or 128 and the signal that ended it. */
static int run(char *const arguments[], const char *root, const char *trace)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (root != NULL) {
            (void)setenv("LD_PRELOAD", TEST_DISK_LIBRARY, 1);
            (void)setenv("HASHTRIE_DISK_ROOT", root, 1);
            (void)setenv("HASHTRIE_DISK_TRACE", trace, 1);
        }
        (void)execv("/proc/self/exe", arguments);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Moments worth a crash of their own: syncs and durable writes; changes of names. */
static bool is_edge(const struct disk_record *record)
{
    return record->kind != DISK_MARK && (record->kind != DISK_WRITE || record->durable != 0);
}

static bool is_of_names(const struct disk_record *record)
{
    return record->kind <= DISK_UNLINK || record->kind == DISK_SYNC_DIR;
}

/* Any, at an edge, or at a change of names or shortly after it. */
static size_t random_moment(const struct crash_model *model, struct random *random)
{
    uint32_t count = (uint32_t)crash_model_records(model);
    uint32_t dice = random_below(random, 3);
    size_t moment = random_below(random, count + 1);
    bool (*wanted)(const struct disk_record *record) = dice == 1 ? is_edge : is_of_names;
    while (dice > 0 && moment < count && !wanted(crash_model_record(model, moment))) {
        moment = dice == 1 ? moment + 1 : random_below(random, count + 1);
    }
    moment += dice == 2 ? random_below(random, 8) : 0;
    return moment < count ? moment : count;
}

static int by_number(const void *a, const void *b)
{
    const size_t *left = a;
    const size_t *right = b;
    return (*left > *right) - (*left < *right);
}

/* 0: what may be left if power goes now is as it should be. */
static int check_image(const struct crash_model *model, const struct scenario *scenario,
                       const char *seed, size_t moment, struct random *random)
{
    char acknowledged[24];
    char sent[24];
    char *folder = test_directory_make();
    uint64_t replay = random->state;
    enum crash_kind kind = (enum crash_kind)random_below(random, CRASH_KINDS);
    assert_true(crash_model_image(model, kind, random, folder));
    (void)snprintf(acknowledged, sizeof acknowledged, "%" PRIu64, crash_model_mark_first(model));
    (void)snprintf(sent, sizeof sent, "%" PRIu64, crash_model_mark_second(model));
    char name[24];
    char seed_text[24];
    (void)snprintf(name, sizeof name, "%s", scenario->name);
    (void)snprintf(seed_text, sizeof seed_text, "%s", seed);
    char program[] = "power";
    char check[] = "check";
    char *arguments[ARGUMENTS + 1] = {program,   check,        name, folder,
                                      seed_text, acknowledged, sent, NULL};
    int status = run(arguments, NULL, NULL);
    if (status != 0) {
        print_error("%s: status %d after power loss at record %zu of %zu, kind %d, state %" PRIu64
                    ", %s of %s acknowledged: see %s\n",
                    scenario->name, status, moment, crash_model_records(model), (int)kind, replay,
                    acknowledged, sent, folder);
        test_path_free(folder); /* It stays, to be looked at. */
        return 1;
    }
    test_directory_remove(folder);
    return 0;
}

static void run_scenario(const struct scenario *scenario, size_t images)
{
    struct random random = {.state = test_seed()};
    char name[24];
    char seed[24];
    char program[] = "power";
    char work[] = "work";
    (void)snprintf(name, sizeof name, "%s", scenario->name);
    (void)snprintf(seed, sizeof seed, "%" PRIu64, random.state);
    char *folder = test_directory_make();
    char *root = test_path(folder, "root");
    char *trace = test_path(folder, "trace");
    assert_int_equal(mkdir(root, 0700), 0);
    char *arguments[ARGUMENTS + 1] = {program, work, name, root, seed, NULL};
    assert_int_equal(run(arguments, root, trace), 0);

    size_t *moments = calloc(images, sizeof *moments);
    struct crash_model *model = crash_model_new(trace);
    assert_true(moments != NULL && model != NULL);
    for (size_t i = 0; i < images; i++) {
        moments[i] = random_moment(model, &random);
    }
    qsort(moments, images, sizeof *moments, by_number);
    int wrong = 0;
    size_t done = 0;
    for (size_t i = 0; i < images && wrong < 3; i++) {
        for (; done < moments[i]; done++) {
            crash_model_step(model);
        }
        wrong += check_image(model, scenario, seed, moments[i], &random);
    }
    for (; done < crash_model_records(model); done++) {
        crash_model_step(model);
    }
    assert_true(crash_model_is(model, root));
    print_message("%s: %zu images of %zu records\n", scenario->name, images,
                  crash_model_records(model));
    crash_model_free(model);
    free(moments);
    test_path_free(root);
    test_path_free(trace);
    test_directory_remove(folder);
    assert_int_equal(wrong, 0);
}

static size_t image_count(void)
{
    const char *text = getenv("HASHTRIE_POWER_IMAGES");
    size_t count = text == NULL ? IMAGES : strtoull(text, NULL, 10);
    return (count + SCENARIOS - 1) / SCENARIOS;
}

static void power_goes_while_a_store_grows(void **state)
{
    (void)state;
    run_scenario(&scenarios[0], image_count());
}

static void power_goes_at_the_cap(void **state)
{
    (void)state;
    run_scenario(&scenarios[1], image_count());
}

static void power_goes_while_a_store_is_moved_aside(void **state)
{
    (void)state;
    run_scenario(&scenarios[2], image_count());
}

static void power_goes_while_a_file_is_made_smaller(void **state)
{
    (void)state;
    run_scenario(&scenarios[3], image_count());
}

static void power_goes_while_snapshots_are_made(void **state)
{
    (void)state;
    run_scenario(&scenarios[4], image_count());
}

int main(int argc, char **argv)
{
    test_store_prefer_memory();
    if (argc >= 5) {
        return act(argv);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_goes_while_a_store_grows),
        cmocka_unit_test(power_goes_at_the_cap),
        cmocka_unit_test(power_goes_while_a_store_is_moved_aside),
        cmocka_unit_test(power_goes_while_a_file_is_made_smaller),
        cmocka_unit_test(power_goes_while_snapshots_are_made),
    };
    return cmocka_run_group_tests_name("store power", tests, NULL, NULL);
}
