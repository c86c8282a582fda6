/*
 * What a checkpoint has acknowledged is never lost, whatever kills the router: a child works at
 * random on a trie that forgets and a store, and is killed at a random moment; another one goes on
 * with the same store. The ledger of what was sent and what was acknowledged is shared memory.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "unit/store_support.h"

enum {
    ENDPOINTS = 4,
    LEDGER_MAX = 4000,
    KEY_CHUNKS = 1300, /* Long enough for runs of full length. */
    ROUNDS = 8,
    OPERATIONS = 1000, /* Of a child that nobody kills. */
};

struct ledger_key {
    atomic_bool acknowledged; /* A checkpoint has ended that began after it was sent. */
    uint64_t namespace_hash;
    uint32_t count;
    int endpoint;
    uint64_t hashes[KEY_CHUNKS];
};

struct ledger {
    atomic_size_t count; /* Noted before they are sent. */
    size_t round_start;  /* What was sent before that child, and not acknowledged, may be lost. */
    atomic_int ready;
    uint64_t spilled; /* Nodes, by children that came to their end. */
    uint64_t reloaded;
    struct ledger_key keys[LEDGER_MAX];
};

struct world {
    struct test_store test;
    struct ledger *ledger;
    struct random random;
    hashtrie_endpoint slots[ENDPOINTS];
};

static struct hashtrie_key view(const struct ledger_key *key)
{
    return (struct hashtrie_key){
        .namespace_hash = key->namespace_hash, .hashes = key->hashes, .count = key->count};
}

/* Often a prefix of an older one with something behind it. */
static void make_key(struct world *world, struct ledger_key *key, size_t known)
{
    struct random *random = &world->random;
    key->count = 0;
    key->namespace_hash = 1 + random_below(random, 2);
    if (known > 0 && random_below(random, 8) != 0) {
        const struct ledger_key *base = &world->ledger->keys[random_below(random, (uint32_t)known)];
        key->namespace_hash = base->namespace_hash;
        key->count = random_below(random, base->count + 1);
        memcpy(key->hashes, base->hashes, key->count * sizeof *key->hashes);
    }
    uint32_t more = random_below(random, 40) == 0 ? random_below(random, KEY_CHUNKS)
                                                  : 1 + random_below(random, 6);
    for (uint32_t i = 0; i < more && key->count < KEY_CHUNKS; i++) {
        uint64_t chain = key->count == 0 ? key->namespace_hash : key->hashes[key->count - 1];
        key->hashes[key->count++] = test_key_next(chain, random_below(random, 3));
    }
    key->endpoint = (int)random_below(random, ENDPOINTS);
}

static void open_world(struct world *world)
{
    test_store_open(&world->test);
    for (int i = 0; i < ENDPOINTS; i++) {
        char name[] = "http://engine-0";
        name[14] = (char)('0' + i);
        world->slots[i] = test_store_endpoint(&world->test, name);
    }
}

/* As a router does it: what the store knows comes back first. */
static struct hashtrie_match recall(struct world *world, const struct ledger_key *key)
{
    static struct test_key copy;
    copy.namespace_hash = key->namespace_hash;
    copy.count = key->count;
    memcpy(copy.hashes, key->hashes, key->count * sizeof *key->hashes);
    return test_store_recall(&world->test, &copy);
}

static uint32_t common_length(const struct ledger_key *a, const struct ledger_key *b)
{
    uint32_t length = a->count < b->count ? a->count : b->count;
    uint32_t i = 0;
    while (a->namespace_hash == b->namespace_hash && i < length && a->hashes[i] == b->hashes[i]) {
        i++;
    }
    return i;
}

/* How far the key was sent to each endpoint: at least what was acknowledged, at most all. */
struct bounds {
    uint32_t least[ENDPOINTS];
    uint32_t most[ENDPOINTS];
};

static struct bounds bounds_of(const struct ledger *ledger, const struct ledger_key *key)
{
    struct bounds bounds = {{0}, {0}};
    size_t count = atomic_load(&ledger->count);
    for (size_t i = 0; i < count; i++) {
        const struct ledger_key *sent = &ledger->keys[i];
        uint32_t length = common_length(sent, key);
        uint32_t *most = &bounds.most[sent->endpoint];
        uint32_t *least = &bounds.least[sent->endpoint];
        *most = length > *most ? length : *most;
        *least = atomic_load(&sent->acknowledged) && length > *least ? length : *least;
    }
    return bounds;
}

/* 0 if all that was acknowledged is found and nothing is claimed that was not sent. */
static int check_key(struct world *world, const struct ledger_key *key)
{
    struct bounds bounds = bounds_of(world->ledger, key);
    struct hashtrie_match match = recall(world, key);
    int wrong = 0;
    for (int i = 0; i < ENDPOINTS; i++) {
        uint32_t held = test_store_held(&match, world->slots[i]);
        if (held < bounds.least[i] || held > bounds.most[i]) {
            print_error("endpoint %d: %u chunks of %u, expected %u to %u\n", i, held, key->count,
                        bounds.least[i], bounds.most[i]);
            wrong++;
        }
    }
    return wrong;
}

static void send_one(struct world *world)
{
    struct ledger *ledger = world->ledger;
    size_t at = atomic_load(&ledger->count);
    if (at == LEDGER_MAX) {
        return;
    }
    struct ledger_key *key = &ledger->keys[at];
    make_key(world, key, at);
    (void)recall(world, key);
    atomic_store(&ledger->count, at + 1);
    struct hashtrie_key sent = view(key);
    struct hashtrie *trie = world->test.trie;
    hashtrie_lock(trie);
    enum hashtrie_status status =
        hashtrie_insert(trie, &sent, world->slots[key->endpoint], world->test.now_s);
    hashtrie_unlock(trie);
    assert_int_equal(status, HASHTRIE_OK);
}

static void checkpoint(struct world *world)
{
    size_t count = atomic_load(&world->ledger->count);
    test_store_checkpoint(&world->test);
    for (size_t i = world->ledger->round_start; i < count; i++) {
        atomic_store(&world->ledger->keys[i].acknowledged, true);
    }
}

static void operate(struct world *world)
{
    uint32_t dice = random_below(&world->random, 100);
    world->test.now_s += random_below(&world->random, 8) == 0;
    if (dice < 60) {
        send_one(world);
    } else if (dice < 68) {
        checkpoint(world);
    } else if (dice < 80) {
        hashtrie_lock(world->test.trie);
        (void)hashtrie_evict_step(world->test.trie);
        hashtrie_unlock(world->test.trie);
    } else {
        static struct ledger_key key;
        make_key(world, &key, atomic_load(&world->ledger->count));
        assert_int_equal(check_key(world, &key), 0);
    }
}

/* In the child: until it is killed, or for so many operations. */
static int work(struct world *world)
{
    open_world(world);
    atomic_store(&world->ledger->ready, 1);
    for (int i = 0; i < OPERATIONS; i++) {
        operate(world);
    }
    struct hashtrie_stats stats;
    hashtrie_lock(world->test.trie);
    hashtrie_get_stats(world->test.trie, &stats);
    hashtrie_unlock(world->test.trie);
    world->ledger->spilled += stats.spilled_node_count;
    world->ledger->reloaded += stats.reloaded_node_count;
    return stats.dropped_node_count == 0 ? 0 : 1; /* Else it proves nothing. */
}

static void kill_later(pid_t child, struct ledger *ledger, struct random *random)
{
    siginfo_t ended = {.si_pid = 0};
    while (atomic_load(&ledger->ready) == 0 && ended.si_pid == 0) {
        (void)waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT);
        (void)usleep(1000); /* The moment is what is random. */
    }
    struct timespec moment = {.tv_nsec = (long)random_below(random, 250000000)};
    (void)nanosleep(&moment, NULL);
    (void)kill(child, SIGKILL);
}

/* All that the ledger says, after the crash. */
static void check_all(struct world *world)
{
    test_store_expect_clean(&world->test);
    open_world(world);
    size_t count = atomic_load(&world->ledger->count);
    int wrong = 0;
    for (size_t i = 0; i < count && wrong < 5; i++) {
        wrong += check_key(world, &world->ledger->keys[i]);
    }
    assert_int_equal(wrong, 0);
    test_store_close(&world->test);
}

static void nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    static struct world world;
    world = (struct world){.random = {.state = test_seed()}};
    test_store_init(&world.test);
    world.test.options.max_bytes = UINT64_C(1) << 30;
    world.test.threshold = 0.005; /* Evicts early, and never what is not saved. */
    world.test.options.checkpoint_interval_ms = HASHTRIE_STORE_INTERVAL_MIN_MS;
    world.ledger =
        mmap(NULL, sizeof *world.ledger, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(world.ledger != MAP_FAILED);
    for (int round = 0; round < ROUNDS; round++) {
        atomic_store(&world.ledger->ready, 0);
        world.ledger->round_start = atomic_load(&world.ledger->count);
        world.random.state += 1;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            world.test.options.user = &world.test;
            _exit(work(&world));
        }
        bool killed = round % 4 != 3;
        if (killed) {
            kill_later(child, world.ledger, &world.random);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(killed ? (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
                                 (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                           : WIFEXITED(status) && WEXITSTATUS(status) == 0);
        check_all(&world);
        print_message("round %d: %zu sent\n", round, atomic_load(&world.ledger->count));
    }
    print_message("%lu nodes spilled, %lu reloaded\n", (unsigned long)world.ledger->spilled,
                  (unsigned long)world.ledger->reloaded);
    assert_true(world.ledger->spilled > 100 && world.ledger->reloaded > 100);
    (void)munmap(world.ledger, sizeof *world.ledger);
    test_store_fini(&world.test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_acknowledged_is_lost),
    };
    return cmocka_run_group_tests_name("store crash", tests, NULL, NULL);
}
