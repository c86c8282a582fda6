/*
 * The trie against a naive model (support/naive_trie.h), under random operations, in many small
 * worlds, each with settings of its own; hashtrie_check() recounts everything after each operation.
 *
 * Without eviction a match must find exactly what the model says, whatever ages, fills up, restarts
 * or wraps around. With a budget it may find less, but never claim what was not sent; and what was
 * just recorded is found. Where fingerprints collide, no more is claimed than the fingerprints say.
 *
 * test_trie_store.c has the same with a store. Operations: a million, a tenth of it with DCHECK;
 * HASHTRIE_TEST_SCALE multiplies.
 */
#include <stdio.h>

#include "support/keys.h"
#include "support/naive_trie.h"
#include "support/test.h"
#include "trie/internal.h"

enum {
    KEYS = 48, /* Known keys: others go on from them. */
    ENDPOINTS_MAX = 90,
    CHUNKS_MAX = 3000,
    PREFIXES_MAX = 8192,
    TERMINAL = 7, /* The last symbol of keys that must not end inside a run. */
    GENERATIONS = 4,
    BUDGET_LEAST = 56 * 1024, /* Below what users may ask for, so that little fills it. */
#ifdef HASHTRIE_DCHECK
    OPERATIONS = 100000,
#else
    OPERATIONS = 1000000,
#endif
};

struct settings {
    uint32_t endpoint_count;
    size_t chunk_size;
    uint32_t max_age_s; /* 0: none. */
    bool capacities;    /* Odometers count. */
    bool fits;          /* The budget is never reached. */
    bool collisions;
    bool long_keys;
    uint32_t steps; /* How far time goes in one: seconds. */
    uint32_t operations;
};

struct endpoint_state {
    bool known;
    hashtrie_endpoint slot;
    bool has_generation;
};

struct prefix {
    uint64_t next; /* What it is made from. */
    uint64_t hash; /* 0: an empty place. */
};

struct world {
    struct random random;
    struct mem mem;
    struct settings settings;
    struct hashtrie *trie;
    struct naive *naive;
    struct endpoint_state endpoints[ENDPOINTS_MAX];
    uint32_t generation;
    struct test_key *keys; /* KEYS of them. */
    uint32_t key_count;
    struct test_key *fresh;  /* The key at hand. */
    struct test_key *shadow; /* What the model is told of it. */
    struct prefix *prefixes; /* Where fingerprints collide: PREFIXES_MAX places, else NULL. */
    uint32_t prefix_count;
    uint64_t now_s;
    uint64_t end_s;
    uint64_t unsent_bytes; /* Odometers know what was sent modulo 4 TiB: no world sends more. */
    uint64_t recorded;
    uint64_t refused;
    uint64_t evicted;
    uint64_t collided;
};

static void check(const struct world *world)
{
    const char *breach = NULL;
    if (hashtrie_check(world->trie, &breach) != HASHTRIE_OK) {
        fail_msg("hashtrie_check: %s", breach);
    }
    struct hashtrie_stats stats;
    hashtrie_get_stats(world->trie, &stats);
    assert_true(stats.bytes_used <= stats.bytes_budget);
}

static bool one_in(struct world *world, uint32_t count)
{
    return random_below(&world->random, count) == 0;
}

/* ---- Keys ---- */

/*
 * Where fingerprints collide there are four of them, and the model is told fingerprints alone. The
 * upper half of a hash is a number of its own for each prefix, so that whole hashes do not.
 */
static void collide(struct world *world, struct test_key *key, uint32_t from)
{
    for (uint32_t i = from; i < key->count; i++) {
        uint64_t before = i == 0 ? key->namespace_hash : key->hashes[i - 1];
        uint64_t next = test_key_next(before, key->hashes[i]);
        uint32_t place = next % PREFIXES_MAX;
        while (world->prefixes[place].hash != 0 && world->prefixes[place].next != next) {
            place = (place + 1) % PREFIXES_MAX;
        }
        struct prefix *prefix = &world->prefixes[place];
        if (prefix->hash == 0) {
            assert_true(++world->prefix_count < PREFIXES_MAX);
            prefix->next = next;
            prefix->hash = (uint64_t)world->prefix_count << 32 | (next >> 8 & 3);
        }
        key->hashes[i] = prefix->hash;
    }
}

static struct hashtrie_key shadow_of(struct world *world, const struct test_key *key)
{
    if (!world->settings.collisions) {
        return test_key_view(key);
    }
    uint64_t chain = key->namespace_hash;
    for (uint32_t i = 0; i < key->count; i++) {
        chain = test_key_next(chain, (uint32_t)key->hashes[i]);
        world->shadow->hashes[i] = chain;
    }
    world->shadow->count = key->count;
    world->shadow->namespace_hash = key->namespace_hash;
    return test_key_view(world->shadow);
}

static bool ages(const struct world *world)
{
    return world->settings.max_age_s != 0 || world->settings.capacities;
}

/*
 * A random key that often shares a prefix with a known one. Where entries age, a request that ends
 * inside a run freshens all of the run, which the model knows nothing of: there, keys to be sent
 * have a last symbol of their own.
 */
static struct hashtrie_key make_key(struct world *world, bool to_send)
{
    struct random *random = &world->random;
    struct test_key *key = world->fresh;
    key->count = 0;
    key->namespace_hash = UINT64_C(0x1111111111111111) * (1 + random_below(random, 3));
    if (world->settings.collisions && one_in(world, 8)) { /* Equal low halves. */
        key->namespace_hash ^= UINT64_C(1) << 40;
    }
    if (world->key_count > 0 && !one_in(world, 10)) {
        const struct test_key *base = &world->keys[random_below(random, world->key_count)];
        uint32_t most = ages(world) && base->count > 0 ? base->count - 1 : base->count;
        uint32_t keep = one_in(world, 4) ? most : random_below(random, most + 1);
        key->namespace_hash = base->namespace_hash;
        for (uint32_t i = 0; i < keep; i++) {
            key->hashes[i] = base->hashes[i];
        }
        key->count = keep;
    }
    uint32_t kept = key->count;
    bool is_long = world->settings.long_keys && one_in(world, 30);
    uint32_t more = random_below(random, is_long ? CHUNKS_MAX : 7);
    for (uint32_t i = 0; i < more && key->count < CHUNKS_MAX; i++) {
        test_key_push(key, random_below(random, 3));
    }
    if (to_send && ages(world)) {
        test_key_push(key, TERMINAL);
    }
    if (world->settings.collisions) {
        collide(world, key, kept);
    }
    return test_key_view(key);
}

static void remember_key(struct world *world)
{
    uint32_t place =
        world->key_count < KEYS ? world->key_count++ : random_below(&world->random, KEYS);
    struct test_key *key = &world->keys[place];
    key->namespace_hash = world->fresh->namespace_hash;
    key->count = world->fresh->count;
    for (uint32_t i = 0; i < key->count; i++) {
        key->hashes[i] = world->fresh->hashes[i];
    }
}

/* ---- Requests ---- */

static void compare(struct world *world, const struct hashtrie_key *key)
{
    struct naive_found naive;
    struct hashtrie_key shadow = shadow_of(world, world->fresh);
    naive_find(world->naive, &shadow, world->now_s, UINT64_MAX, &naive);
    struct hashtrie_match match;
    hashtrie_match(world->trie, key, world->now_s, &match);
    uint32_t found[NAIVE_SLOTS_MAX] = {0};
    for (size_t i = 0; i < match.holder_count; i++) {
        struct hashtrie_holder holder = match.holders[i];
        assert_true(found[holder.endpoint] == 0 && holder.chunk_count > match.all_chunk_count);
        assert_true(holder.chunk_count <= match.chunk_count);
        assert_true(i == 0 || holder.chunk_count <= match.holders[i - 1].chunk_count);
        found[holder.endpoint] = holder.chunk_count;
    }
    bool exact = world->settings.fits && !world->settings.collisions;
    assert_true(match.chunk_count <= naive.known && match.all_chunk_count <= naive.all);
    assert_true(!exact || match.chunk_count == naive.known);
    assert_true(!exact || match.all_chunk_count == naive.all);
    for (int slot = 0; slot < NAIVE_SLOTS_MAX; slot++) {
        if (exact) {
            assert_int_equal(found[slot], naive.length[slot]);
        } else {
            assert_true(found[slot] <= naive.length[slot] || found[slot] <= naive.all);
        }
    }
}

/* What was just recorded is found, whole. */
static void expect_recorded(struct world *world, const struct hashtrie_key *key,
                            hashtrie_endpoint slot)
{
    struct hashtrie_match match;
    hashtrie_match(world->trie, key, world->now_s, &match);
    uint32_t length = (uint32_t)match.all_chunk_count;
    for (size_t i = 0; i < match.holder_count; i++) {
        length = match.holders[i].endpoint == slot ? match.holders[i].chunk_count : length;
    }
    assert_int_equal(length, key->count);
}

static void insert(struct world *world)
{
    struct endpoint_state *to =
        &world->endpoints[random_below(&world->random, world->settings.endpoint_count)];
    struct hashtrie_key key = make_key(world, true);
    if (!to->known) {
        hashtrie_endpoint nobody = (hashtrie_endpoint)trie_endpoint_slot_count(world->trie);
        assert_int_equal(hashtrie_insert(world->trie, &key, nobody, world->now_s), HASHTRIE_EINVAL);
        return;
    }
    uint64_t collisions = world->trie->collision_count;
    enum hashtrie_status status = hashtrie_insert(world->trie, &key, to->slot, world->now_s);
    assert_true(status == HASHTRIE_OK || (status == HASHTRIE_EFULL && !world->settings.fits));
    bool whole = status == HASHTRIE_OK && world->trie->collision_count == collisions;
    world->recorded += whole;
    world->refused += status == HASHTRIE_EFULL;
    check(world);
    struct hashtrie_key shadow = shadow_of(world, world->fresh);
    naive_insert(world->naive, &shadow, to->slot, world->now_s);
    const struct endpoint *sent = &world->trie->endpoints[to->slot];
    if (sent->capacity_kib != 0) {
        naive_endpoint_set_reach(world->naive, to->slot,
                                 endpoint_odometer_kib(sent) - sent->evicted_kib);
    }
    remember_key(world);
    if (whole) {
        expect_recorded(world, &key, to->slot);
    }
}

static void probe(struct world *world)
{
    struct hashtrie_key key = make_key(world, false);
    compare(world, &key);
}

/* ---- Endpoints ---- */

static void name_of(uint32_t number, char name[16])
{
    (void)snprintf(name, 16, "http://engine%02u", (unsigned)number % 100);
}

/* Its cache's size becomes known while it is empty. */
static void draw_capacity(struct world *world, const struct endpoint_state *endpoint)
{
    uint64_t bytes = 0;
    if (world->settings.capacities && !one_in(world, 4)) {
        bytes = (uint64_t)random_below(&world->random, 200) * world->settings.chunk_size;
    }
    hashtrie_endpoint_set_capacity(world->trie, endpoint->slot, bytes);
    naive_endpoint_set_capacity(world->naive, endpoint->slot, bytes);
}

static void add_endpoint(struct world *world, uint32_t number)
{
    struct endpoint_state *endpoint = &world->endpoints[number];
    char name[16];
    name_of(number, name);
    hashtrie_endpoint slot = 0;
    enum hashtrie_status status = hashtrie_endpoint_add(world->trie, name, "model", &slot);
    if (status != HASHTRIE_OK) {
        assert_true(status == HASHTRIE_EFULL && !world->settings.fits);
        return;
    }
    if (endpoint->known) { /* It was there all along: nothing changes. */
        assert_int_equal(slot, endpoint->slot);
        return;
    }
    *endpoint = (struct endpoint_state){.known = true, .slot = slot};
    naive_endpoint_forget(world->naive, slot);
    draw_capacity(world, endpoint);
}

static void remove_endpoint(struct world *world, struct endpoint_state *endpoint)
{
    hashtrie_endpoint_remove(world->trie, endpoint->slot);
    naive_endpoint_forget(world->naive, endpoint->slot);
    endpoint->known = false;
}

static void restart_endpoint(struct world *world, struct endpoint_state *endpoint)
{
    char generation[] = "start-0000";
    uint32_t value = ++world->generation;
    for (int i = 9; i > 5; i--, value /= 10) {
        generation[i] = (char)('0' + value % 10);
    }
    enum hashtrie_status status =
        hashtrie_endpoint_set_generation(world->trie, endpoint->slot, generation);
    if (status != HASHTRIE_OK) {
        assert_true(status == HASHTRIE_EFULL && !world->settings.fits);
        return;
    }
    if (endpoint->has_generation) {
        naive_endpoint_forget(world->naive, endpoint->slot);
        draw_capacity(world, endpoint);
    }
    endpoint->has_generation = true;
}

static void change_endpoint(struct world *world)
{
    uint32_t number = random_below(&world->random, world->settings.endpoint_count);
    struct endpoint_state *endpoint = &world->endpoints[number];
    uint32_t dice = random_below(&world->random, 8);
    if (!endpoint->known || dice == 0) {
        add_endpoint(world, number);
    } else if (dice < 3) {
        remove_endpoint(world, endpoint);
    } else if (dice < 5) {
        restart_endpoint(world, endpoint);
    } else if (world->settings.fits && ages(world)) { /* Sent much that this trie is not told of. */
        uint64_t bytes = random_next(&world->random) >> (one_in(world, 3) ? 25 : 40);
        bytes = bytes < world->unsent_bytes ? bytes : 0;
        world->unsent_bytes -= bytes;
        endpoint_charge(&world->trie->endpoints[endpoint->slot], bytes);
        naive_endpoint_charge(world->naive, endpoint->slot, bytes);
    }
}

/* An endpoint that a store tells of, its odometer about to pass what 32 bits hold. */
static void restore_endpoint(struct world *world, uint32_t number)
{
    struct endpoint_state *endpoint = &world->endpoints[number];
    char name[16];
    name_of(number, name);
    struct trie_endpoint stored = {.id = 1000 + number,
                                   .odometer_kib =
                                       UINT32_MAX - random_below(&world->random, 1 << 10),
                                   .name = name,
                                   .model = "",
                                   .generation = "before"};
    hashtrie_endpoint slot = (hashtrie_endpoint)trie_endpoint_slot_count(world->trie);
    enum hashtrie_status status = trie_endpoint_restore(world->trie, &stored);
    if (status == HASHTRIE_OK) {
        *endpoint = (struct endpoint_state){.known = true, .slot = slot, .has_generation = true};
        naive_endpoint_set_odometer(world->naive, slot, stored.odometer_kib);
        draw_capacity(world, endpoint);
    }
    assert_true(status == HASHTRIE_OK || !world->settings.fits);
}

/* ---- Worlds ---- */

static struct settings draw_settings(struct random *random, bool fits, bool collisions)
{
    static const size_t chunk_sizes[] = {64, 128, 128, 1024, 4096};
    struct settings settings = {.fits = fits, .collisions = collisions, .endpoint_count = 5};
    settings.endpoint_count = 1 + random_below(random, 6);
    if (random_below(random, 6) == 0) { /* More than a node can name. */
        settings.endpoint_count = 60 + random_below(random, ENDPOINTS_MAX - 60);
    }
    settings.chunk_size = chunk_sizes[random_below(random, 5)];
    if (!collisions && random_below(random, 3) == 0) {
        settings.max_age_s = 60 + random_below(random, HASHTRIE_ENTRY_AGE_MAX_S - 60);
    }
    settings.capacities = fits && !collisions && random_below(random, 3) == 0;
    settings.long_keys = !collisions && random_below(random, 3) == 0;
    settings.steps = 1U << (2 * random_below(random, 11)); /* Up to 12 days. */
    settings.operations = 50 + random_below(random, 400);
    if (!collisions && random_below(random, 50) == 0) {
        settings.operations *= 10;
    }
    return settings;
}

static void world_init(struct world *world, struct random *random, bool fits, bool collisions)
{
    *world = (struct world){.random = {.state = random_next(random)}};
    world->settings = draw_settings(&world->random, fits, collisions);
    const struct settings *settings = &world->settings;
    world->now_s = 1700000000 + random_below(&world->random, 1 << 24);
    world->end_s = world->now_s + 45 * 24 * 3600;
    world->unsent_bytes = UINT64_C(3) << 40;
    mem_init(&world->mem, SIZE_MAX);
    struct hashtrie_options options =
        hashtrie_options_default(fits ? (size_t)16 << 20 : HASHTRIE_BUDGET_MIN);
    options.threshold = 1;
    options.seed = random_next(&world->random);
    options.chunk_size = settings->chunk_size;
    options.max_entry_age_s = settings->max_age_s;
    assert_int_equal(hashtrie_new(&options, &world->trie), HASHTRIE_OK);
    if (!fits) {
        size_t budget = BUDGET_LEAST + random_below(&world->random, 64 * 1024);
        world->trie->mem.bytes_limit = budget;
        world->trie->threshold_bytes = one_in(world, 2)
                                           ? budget - random_below(&world->random, 1024)
                                           : 8 * 1024 + random_below(&world->random, 32 * 1024);
        world->trie->target_bytes = random_below(&world->random, 1024 * 8);
    }
    if (one_in(world, 4)) { /* The count of matches passes what 32 bits hold. */
        world->trie->match_number = UINT32_MAX - random_below(&world->random, 100);
    }
    world->naive = naive_new(&world->mem, settings->chunk_size, (settings->max_age_s + 59) / 60);
    world->keys = mem_alloc(&world->mem, (KEYS + 2) * sizeof *world->keys);
    assert_non_null(world->keys);
    if (collisions) {
        world->prefixes = mem_alloc_zero(&world->mem, PREFIXES_MAX * sizeof *world->prefixes);
        assert_non_null(world->prefixes);
    }
    world->fresh = &world->keys[KEYS];
    world->shadow = &world->keys[KEYS + 1];
    bool restored = one_in(world, 3);
    for (uint32_t i = 0; i < settings->endpoint_count; i++) {
        if (restored && !one_in(world, 3)) {
            restore_endpoint(world, i);
        } else {
            add_endpoint(world, i);
        }
    }
}

static void world_fini(struct world *world)
{
    world->evicted = world->trie->evicted_count;
    world->collided = world->trie->collision_count;
    assert_true(!world->settings.fits || world->evicted == 0);
    hashtrie_free(world->trie);
    naive_free(world->naive);
    mem_free(&world->mem, world->prefixes, PREFIXES_MAX * sizeof *world->prefixes);
    mem_free(&world->mem, world->keys, (KEYS + 2) * sizeof *world->keys);
    mem_fini(&world->mem);
}

/* Time goes on in steps, stands still, or steps back. A world has 45 days: ages are minutes modulo
 * 2^16. */
static void pass_time(struct world *world)
{
    uint32_t step = random_below(&world->random, world->settings.steps);
    if (one_in(world, 100)) {
        world->now_s -= random_below(&world->random, 1000);
    } else if (world->now_s + step < world->end_s) {
        world->now_s += step;
    }
}

static void operate(struct world *world)
{
    uint32_t dice = random_below(&world->random, 100);
    pass_time(world);
    if (dice < 40) {
        insert(world);
    } else if (dice < 45) {
        change_endpoint(world);
    } else if (dice < 48 && !world->settings.fits) {
        (void)hashtrie_evict_step(world->trie);
    } else {
        probe(world);
    }
    check(world);
}

/* Worlds until `operations` have been done; `*sum`: what happened in them. */
static void live(bool fits, bool collisions, size_t operations, struct world *sum)
{
    struct random random = {.state = test_seed()};
    static struct world world;
    size_t worlds = 0;
    for (size_t done = 0; done < operations; worlds++) {
        world_init(&world, &random, fits, collisions);
        for (uint32_t i = 0; i < world.settings.operations; i++, done++) {
            operate(&world);
        }
        world_fini(&world);
        sum->recorded += world.recorded;
        sum->refused += world.refused;
        sum->evicted += world.evicted;
        sum->collided += world.collided;
    }
    print_message("%zu worlds, %zu operations, %u recorded, %u refused, %u evicted, %u collided\n",
                  worlds, operations, (unsigned)sum->recorded, (unsigned)sum->refused,
                  (unsigned)sum->evicted, (unsigned)sum->collided);
    assert_true(sum->recorded > operations / 10);
}

static void finds_exactly_what_was_sent(void **state)
{
    (void)state;
    struct world sum = {0};
    live(true, false, OPERATIONS / 2 * test_scale(), &sum);
}

static void keeps_its_budget_and_claims_nothing_else(void **state)
{
    (void)state;
    struct world sum = {0};
    live(false, false, OPERATIONS / 10 * 3 * test_scale(), &sum);
    assert_true(sum.evicted > 0);
}

static void claims_no_more_than_fingerprints_say(void **state)
{
    (void)state;
    struct world sum = {0};
    live(true, true, OPERATIONS / 10 * test_scale(), &sum);
    assert_true(sum.collided > 0);
    live(false, true, OPERATIONS / 10 * test_scale(), &sum);
    assert_true(sum.evicted > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_exactly_what_was_sent),
        cmocka_unit_test(keeps_its_budget_and_claims_nothing_else),
        cmocka_unit_test(claims_no_more_than_fingerprints_say),
    };
    return cmocka_run_group_tests_name("trie model", tests, NULL, NULL);
}
