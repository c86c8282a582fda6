/*
 * The trie with a store (support/memory_store.h) that forgets nothing, against naive models, under
 * random operations: batches fail, requests come while they are in flight, reloads come too late,
 * engines restart, go and come back, everything clean is evicted, and the router is killed.
 *
 * `sent` knows all that was ever sent: no more may be claimed. `kept` lacks what no checkpoint had
 * acknowledged when the router was killed: trie and store together know all of it, and the store
 * alone what is acknowledged. hashtrie_check() after every operation.
 *
 * Operations: 30,000, a fifth of it with DCHECK; HASHTRIE_TEST_SCALE multiplies.
 */
#include <stdio.h>

#include "support/keys.h"
#include "support/memory_store.h"
#include "support/naive_trie.h"
#include "support/test.h"
#include "trie/trie.h"

enum {
    KEYS = 48,
    ENDPOINTS_MAX = 80, /* More than a node can name. */
    NAME_BYTES = 24,
    WORLD_OPERATIONS = 300,
    BATCHES_MAX = 10000, /* Of one checkpoint. */
#ifdef HASHTRIE_DCHECK
    OPERATIONS = 6000,
#else
    OPERATIONS = 30000,
#endif
};

struct endpoint_state {
    bool known;
    hashtrie_endpoint slot;
    uint32_t generation;
};

struct world {
    struct random random;
    struct mem mem;
    struct hashtrie *trie;
    struct memory_store *store;
    struct naive *sent;
    struct naive *kept;
    uint64_t acknowledged; /* Serial of `kept` at the start of the last complete checkpoint. */
    struct test_key *keys; /* KEYS of them. */
    uint32_t key_count;
    struct test_key *fresh;
    struct endpoint_state endpoints[ENDPOINTS_MAX];
    uint32_t endpoint_count;
    uint32_t generation;
    uint64_t now_s;
    uint32_t missed_percent; /* Requests whose reload comes too late: routed on what is hot. */
    uint32_t failed_percent; /* Batches that are not committed. */
    uint32_t batch_max;
};

struct sum {
    size_t looks;
    size_t losses; /* Looks that missed what is kept. */
    uint64_t spilled;
    uint64_t reloaded;
    uint64_t conflicts;
    size_t crashes;
};

static void check(const struct world *world)
{
    const char *breach = NULL;
    if (hashtrie_check(world->trie, &breach) != HASHTRIE_OK) {
        fail_msg("hashtrie_check: %s", breach);
    }
}

static bool in_percent(struct world *world, uint32_t percent)
{
    return random_below(&world->random, 100) < percent;
}

static struct hashtrie_key make_key(struct world *world)
{
    const struct test_key *base =
        world->key_count == 0 ? NULL : &world->keys[random_below(&world->random, world->key_count)];
    test_key_random(world->fresh, base, &world->random);
    return test_key_view(world->fresh);
}

static void remember_key(struct world *world)
{
    uint32_t place =
        world->key_count < KEYS ? world->key_count++ : random_below(&world->random, KEYS);
    world->keys[place] = *world->fresh;
}

/* ---- What trie and models say ---- */

static void find(struct world *world, const struct hashtrie_key *key, uint32_t *found)
{
    struct hashtrie_match match;
    hashtrie_match(world->trie, key, world->now_s, &match);
    for (int slot = 0; slot < NAIVE_SLOTS_MAX; slot++) {
        found[slot] = (uint32_t)match.all_chunk_count;
    }
    for (size_t i = 0; i < match.holder_count; i++) {
        found[match.holders[i].endpoint] = match.holders[i].chunk_count;
    }
}

/* The models call endpoints by their number here, whatever slots the trie gives them. */
static uint32_t claim(const struct naive_found *naive, uint32_t number)
{
    return naive->length[number] > naive->all ? naive->length[number] : naive->all;
}

/* Nothing is claimed that was not sent. */
static void expect_no_more(struct world *world, const struct hashtrie_key *key)
{
    uint32_t found[NAIVE_SLOTS_MAX];
    find(world, key, found);
    struct naive_found sent;
    naive_find(world->sent, key, world->now_s, UINT64_MAX, &sent);
    for (uint32_t i = 0; i < world->endpoint_count; i++) {
        const struct endpoint_state *endpoint = &world->endpoints[i];
        assert_true(!endpoint->known || found[endpoint->slot] <= claim(&sent, i));
    }
}

static void look(const struct world *world, uint32_t found, uint32_t kept, struct sum *sum)
{
    sum->looks++;
    if (found < kept) {
        sum->losses++;
        assert_true(world->missed_percent > 0);
    }
}

/* Trie and store together know all that is kept. */
static void look_up(struct world *world, struct sum *sum)
{
    struct hashtrie_key key = make_key(world);
    memory_store_reload(world->store, &key);
    check(world);
    uint32_t found[NAIVE_SLOTS_MAX];
    find(world, &key, found);
    struct naive_found kept;
    naive_find(world->kept, &key, world->now_s, UINT64_MAX, &kept);
    for (uint32_t i = 0; i < world->endpoint_count; i++) {
        const struct endpoint_state *endpoint = &world->endpoints[i];
        if (endpoint->known) {
            look(world, found[endpoint->slot], claim(&kept, i), sum);
        }
    }
    expect_no_more(world, &key);
}

/* The store alone, as after a crash, knows all that is acknowledged. */
static void look_into_store(struct world *world, struct sum *sum)
{
    struct hashtrie_key key = make_key(world);
    struct naive_found kept;
    struct naive_found sent;
    naive_find(world->kept, &key, world->now_s, world->acknowledged, &kept);
    naive_find(world->sent, &key, world->now_s, UINT64_MAX, &sent);
    for (uint32_t i = 0; i < world->endpoint_count; i++) {
        const struct endpoint_state *endpoint = &world->endpoints[i];
        struct trie_endpoint stored;
        if (endpoint->known && trie_endpoint_get(world->trie, endpoint->slot, &stored)) {
            uint32_t length = memory_store_length(world->store, &key, stored.id);
            assert_true(length <= claim(&sent, i));
            look(world, length, claim(&kept, i), sum);
        }
    }
}

/* ---- Requests, engines ---- */

static void insert(struct world *world)
{
    uint32_t number = random_below(&world->random, world->endpoint_count);
    const struct endpoint_state *to = &world->endpoints[number];
    struct hashtrie_key key = make_key(world);
    if (!to->known) {
        return;
    }
    if (!in_percent(world, world->missed_percent)) {
        memory_store_reload(world->store, &key);
    }
    assert_int_equal(hashtrie_insert(world->trie, &key, to->slot, world->now_s), HASHTRIE_OK);
    naive_insert(world->sent, &key, (hashtrie_endpoint)number, world->now_s);
    naive_insert(world->kept, &key, (hashtrie_endpoint)number, world->now_s);
    remember_key(world);
}

static void forget(struct world *world, uint32_t number)
{
    naive_endpoint_forget(world->sent, (hashtrie_endpoint)number);
    naive_endpoint_forget(world->kept, (hashtrie_endpoint)number);
}

/* Tells the trie which start of the engine answers. */
static void tell_generation(struct world *world, const struct endpoint_state *endpoint)
{
    char text[NAME_BYTES];
    (void)snprintf(text, sizeof text, "start-%u", endpoint->generation);
    assert_int_equal(hashtrie_endpoint_set_generation(world->trie, endpoint->slot, text),
                     HASHTRIE_OK);
}

static void introduce(struct world *world, uint32_t number)
{
    struct endpoint_state *endpoint = &world->endpoints[number];
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof name, "http://engine%u", number);
    assert_int_equal(hashtrie_endpoint_add(world->trie, name, "m", &endpoint->slot), HASHTRIE_OK);
    endpoint->known = true;
}

static void change_endpoint(struct world *world)
{
    uint32_t number = random_below(&world->random, world->endpoint_count);
    struct endpoint_state *endpoint = &world->endpoints[number];
    if (!endpoint->known) { /* Back, and started anew. */
        endpoint->generation = ++world->generation;
        introduce(world, number);
        forget(world, number);
        tell_generation(world, endpoint);
    } else if (in_percent(world, 60)) {
        endpoint->generation = ++world->generation;
        tell_generation(world, endpoint);
        forget(world, number);
    } else {
        hashtrie_endpoint_remove(world->trie, endpoint->slot);
        forget(world, number);
        endpoint->known = false;
    }
}

/* ---- The store ---- */

static void checkpoint(struct world *world, struct sum *sum)
{
    uint64_t mark = trie_dirty_mark(world->trie);
    uint64_t serial = naive_serial(world->kept);
    for (int i = 0; i < BATCHES_MAX && !trie_dirty_done(world->trie, mark); i++) {
        size_t left = trie_dirty_left(world->trie, mark); /* As the writer: no further. */
        size_t most = 1 + random_below(&world->random, world->batch_max);
        memory_store_take(world->store, most < left ? most : left);
        check(world);
        if (in_percent(world, 25)) { /* While the batch is in flight. */
            insert(world);
        }
        if (in_percent(world, 3)) {
            change_endpoint(world);
        }
        memory_store_commit(world->store, in_percent(world, world->failed_percent));
        check(world);
        look_into_store(world, sum);
    }
    assert_true(trie_dirty_done(world->trie, mark));
    world->acknowledged = serial;
    look_into_store(world, sum);
}

/* Everything clean goes, as under memory pressure. */
static void evict_everything_clean(struct world *world)
{
    struct hashtrie_stats before;
    struct hashtrie_stats after;
    do {
        hashtrie_get_stats(world->trie, &before);
        (void)hashtrie_evict_step(world->trie);
        hashtrie_get_stats(world->trie, &after);
    } while (after.evicted_node_count > before.evicted_node_count);
}

static void trie_make(struct world *world)
{
    struct hashtrie_options options = hashtrie_options_default((size_t)8 << 20);
    options.seed = random_next(&world->random);
    options.threshold = 0.003; /* Evicts early, never forced. */
    options.target = options.threshold / 2;
    assert_int_equal(hashtrie_new(&options, &world->trie), HASHTRIE_OK);
}

static void count(const struct world *world, struct sum *sum)
{
    struct hashtrie_stats stats;
    hashtrie_get_stats(world->trie, &stats);
    assert_int_equal(stats.dropped_node_count, 0);
    sum->spilled += stats.spilled_node_count;
    sum->reloaded += stats.reloaded_node_count;
    sum->conflicts += stats.conflict_count;
}

/* The trie is gone. A new one knows the endpoints that the store knew at its last commit. */
static void crash(struct world *world, struct sum *sum)
{
    sum->crashes++;
    count(world, sum);
    memory_store_detach(world->store);
    hashtrie_free(world->trie);
    trie_make(world);
    memory_store_attach(world->store, world->trie);
    naive_drop_after(world->kept, world->acknowledged);
    for (uint32_t i = 0; i < world->endpoint_count; i++) {
        if (world->endpoints[i].known) {
            introduce(world, i);
            tell_generation(world, &world->endpoints[i]);
        }
    }
    check(world);
}

/* ---- Worlds ---- */

static void world_init(struct world *world, struct random *random, uint32_t failed_percent,
                       uint32_t missed_percent)
{
    *world = (struct world){.random = {.state = random_next(random)},
                            .now_s = 1700000000,
                            .failed_percent = failed_percent,
                            .missed_percent = missed_percent};
    mem_init(&world->mem, SIZE_MAX);
    trie_make(world);
    world->store = memory_store_new(world->trie, &world->mem);
    world->sent = naive_new(&world->mem, HASHTRIE_CHUNK_SIZE_DEFAULT, 0);
    world->kept = naive_new(&world->mem, HASHTRIE_CHUNK_SIZE_DEFAULT, 0);
    world->keys = mem_alloc(&world->mem, (KEYS + 1) * sizeof *world->keys);
    assert_non_null(world->keys);
    world->fresh = &world->keys[KEYS];
    world->batch_max = in_percent(world, 50) ? 6 : 100;
    world->endpoint_count = in_percent(world, 10) ? ENDPOINTS_MAX : 5;
    for (uint32_t i = 0; i < world->endpoint_count; i++) {
        introduce(world, i);
        tell_generation(world, &world->endpoints[i]);
    }
}

static void world_fini(struct world *world, struct sum *sum)
{
    count(world, sum);
    memory_store_free(world->store);
    hashtrie_free(world->trie);
    naive_free(world->sent);
    naive_free(world->kept);
    mem_free(&world->mem, world->keys, (KEYS + 1) * sizeof *world->keys);
    mem_fini(&world->mem);
}

static void operate(struct world *world, struct sum *sum)
{
    uint32_t dice = random_below(&world->random, 100);
    world->now_s += random_below(&world->random, 5);
    if (dice < 35) {
        insert(world);
    } else if (dice < 45) {
        checkpoint(world, sum);
    } else if (dice < 70) {
        look_up(world, sum);
    } else if (dice < 73) {
        evict_everything_clean(world);
    } else if (dice < 76) {
        change_endpoint(world);
    } else if (dice < 77) {
        crash(world, sum);
    } else {
        struct hashtrie_key key = make_key(world);
        expect_no_more(world, &key);
    }
    check(world);
}

static struct sum live(uint32_t failed_percent, uint32_t missed_percent)
{
    struct random random = {.state = test_seed()};
    struct sum sum = {0};
    static struct world world;
    size_t operations = OPERATIONS / 3 * test_scale();
    for (size_t done = 0; done < operations; done += WORLD_OPERATIONS) {
        world_init(&world, &random, failed_percent, missed_percent);
        for (int i = 0; i < WORLD_OPERATIONS; i++) {
            operate(&world, &sum);
        }
        world_fini(&world, &sum);
    }
    print_message("%zu of %zu looks missed what is kept; %u spilled, %u reloaded, %u conflicts, "
                  "%zu crashes\n",
                  sum.losses, sum.looks, (unsigned)sum.spilled, (unsigned)sum.reloaded,
                  (unsigned)sum.conflicts, sum.crashes);
    assert_true(sum.spilled > 0 && sum.reloaded > 0 && sum.crashes > 0);
    return sum;
}

static void nothing_is_lost(void **state)
{
    (void)state;
    (void)live(0, 0);
}

static void failed_commits_lose_nothing(void **state)
{
    (void)state;
    (void)live(20, 0);
}

/* What a late reload would have told is met again by the first write of the new node, and joined
 * there. A blind overwrite loses about half. */
static void late_reloads_overwrite_little(void **state)
{
    (void)state;
    struct sum sum = live(5, 10);
    assert_true(sum.losses * 10 <= sum.looks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(failed_commits_lose_nothing),
        cmocka_unit_test(late_reloads_overwrite_little),
    };
    return cmocka_run_group_tests_name("trie model with a store", tests, NULL, NULL);
}
