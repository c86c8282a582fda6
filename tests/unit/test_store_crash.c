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

#include "unit/store_ledger.h"

enum {
    LEDGER_MAX = 4000,
    ROUNDS = 8,
    OPERATIONS = 1000, /* Of a child that nobody kills. */
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
    hashtrie_endpoint slots[LEDGER_ENDPOINTS];
};

static void send_one(struct world *world)
{
    struct ledger *ledger = world->ledger;
    size_t at = atomic_load(&ledger->count);
    if (at == LEDGER_MAX) {
        return;
    }
    struct ledger_key *key = &ledger->keys[at];
    ledger_make_key(&world->random, ledger->keys, at, key);
    (void)ledger_recall(&world->test, key);
    atomic_store(&ledger->count, at + 1);
    struct hashtrie_key sent = ledger_view(key);
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
        size_t known = atomic_load(&world->ledger->count);
        ledger_make_key(&world->random, world->ledger->keys, known, &key);
        assert_int_equal(
            ledger_check_key(&world->test, world->slots, world->ledger->keys, known, &key), 0);
    }
}

/* In the child: until it is killed, or for so many operations. */
static int work(struct world *world)
{
    ledger_open(&world->test, world->slots);
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
    ledger_open(&world->test, world->slots);
    size_t count = atomic_load(&world->ledger->count);
    int wrong = 0;
    for (size_t i = 0; i < count && wrong < 5; i++) {
        wrong += ledger_check_key(&world->test, world->slots, world->ledger->keys, count,
                                  &world->ledger->keys[i]);
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
