/*
 * Any sequence of operations on a trie: byte 0 to 3 set it up (budget, age limit, threshold, how
 * hashes collide), then each operation takes a byte and what it needs. hashtrie_check() after each.
 *
 * The budget is set below the smallest that users may ask for, so that few operations reach it.
 */
#include <string.h>

#include "base/check.h"
#include "fuzz/fuzz.h"
#include "support/keys.h"
#include "support/memory_store.h"
#include "trie/internal.h"

enum {
    KEYS = 8,
    NAMES = 80, /* More than a node can name as holders. */
    OPERATIONS_MAX = 2000,
    BUDGET_LEAST = 64 * 1024,
    KEY_CHUNKS_MAX = 3500,
    BATCH_MAX = 100,
};

enum { IN_STORE, TAKEN, WRITTEN }; /* How far the batch is. */

struct world {
    struct fuzz_input input;
    struct mem mem;
    struct hashtrie *trie;
    struct memory_store *store; /* NULL: none attached. */
    int batch;
    struct test_key *keys; /* KEYS of them. */
    bool known[HASHTRIE_ENDPOINTS_MAX];
    uint32_t hash_bits; /* Low bits of a chain hash that differ: few make fingerprints collide. */
    uint64_t now_s;
};

static void push(const struct world *world, struct test_key *key, uint64_t symbol)
{
    test_key_push(key, symbol);
    uint64_t *hash = &key->hashes[key->count - 1];
    *hash = (*hash >> 32 << 32) | (uint32_t)(*hash & world->hash_bits);
}

/* Cuts a known key somewhere and goes on with symbols of its own. */
static struct hashtrie_key take_key(struct world *world)
{
    uint32_t numbers = fuzz_take(&world->input);
    struct test_key *key = &world->keys[numbers % KEYS];
    const struct test_key *base = &world->keys[numbers / KEYS % KEYS];
    uint32_t keep = (uint32_t)fuzz_take_number(&world->input, (numbers & 0x80) != 0 ? 2 : 1);
    uint32_t shape = fuzz_take(&world->input);
    keep = keep < base->count ? keep : base->count;
    if (key != base) {
        memcpy(key->hashes, base->hashes, keep * sizeof key->hashes[0]);
        key->namespace_hash = base->namespace_hash;
    }
    key->count = keep;
    if (keep == 0) {
        key->namespace_hash = UINT64_C(0x100000001) << shape % 3; /* Two have equal low halves. */
        key->namespace_hash |= shape % 4 == 3 ? UINT64_C(1) << 40 : 0;
    }
    uint32_t more = shape >= 0xf8 ? (shape - 0xf7) * 251 : shape >> 4;
    for (uint32_t i = 0; i < more && key->count < KEY_CHUNKS_MAX; i++) {
        push(world, key, (shape >> i % 4) & 1);
    }
    return test_key_view(key);
}

static hashtrie_endpoint take_endpoint(struct world *world)
{
    size_t slots = trie_endpoint_slot_count(world->trie);
    uint32_t number = fuzz_take(&world->input);
    return (hashtrie_endpoint)(slots == 0 ? 0 : number % slots);
}

static void add_endpoint(struct world *world)
{
    char name[] = "http://00";
    uint32_t number = fuzz_take(&world->input) % NAMES;
    name[7] = (char)('0' + number / 10);
    name[8] = (char)('0' + number % 10);
    hashtrie_endpoint slot = 0;
    if (hashtrie_endpoint_add(world->trie, name, "m", &slot) == HASHTRIE_OK) {
        world->known[slot] = true;
    }
}

/* What was just recorded is found, whole. */
static void check_found(struct world *world, const struct hashtrie_key *key,
                        hashtrie_endpoint endpoint)
{
    struct hashtrie_match match;
    hashtrie_match(world->trie, key, world->now_s, &match);
    REQUIRE(match.chunk_count == key->count);
    bool found = match.all_chunk_count == key->count;
    for (size_t i = 0; i < match.holder_count; i++) {
        found = found || (match.holders[i].endpoint == endpoint &&
                          match.holders[i].chunk_count == key->count);
    }
    REQUIRE(found);
}

static void insert(struct world *world)
{
    struct hashtrie_key key = take_key(world);
    hashtrie_endpoint endpoint = take_endpoint(world);
    uint64_t collisions = world->trie->collision_count;
    enum hashtrie_status status = hashtrie_insert(world->trie, &key, endpoint, world->now_s);
    REQUIRE((status == HASHTRIE_EINVAL) == !world->known[endpoint]);
    if (status == HASHTRIE_OK && world->trie->collision_count == collisions) {
        check_found(world, &key, endpoint);
    }
}

static void match(struct world *world)
{
    struct hashtrie_key key = take_key(world);
    struct hashtrie_match match;
    hashtrie_match(world->trie, &key, world->now_s, &match);
    REQUIRE(match.chunk_count <= key.count && match.all_chunk_count <= match.chunk_count);
    REQUIRE(match.chunk_count == trie_known_length(world->trie, &key));
    for (size_t i = 0; i < match.holder_count; i++) {
        REQUIRE(world->known[match.holders[i].endpoint]);
        REQUIRE(match.holders[i].chunk_count <= match.chunk_count);
        REQUIRE(i == 0 || match.holders[i].chunk_count <= match.holders[i - 1].chunk_count);
        for (size_t j = 0; j < i; j++) {
            REQUIRE(match.holders[i].endpoint != match.holders[j].endpoint);
        }
    }
}

static void change_endpoint(struct world *world, bool remove)
{
    hashtrie_endpoint endpoint = take_endpoint(world);
    char generation[] = "a";
    generation[0] = (char)('a' + fuzz_take(&world->input) % 8);
    if (!world->known[endpoint]) {
        return;
    }
    if (remove) {
        hashtrie_endpoint_remove(world->trie, endpoint);
        world->known[endpoint] = false;
    } else {
        enum hashtrie_status status =
            hashtrie_endpoint_set_generation(world->trie, endpoint, generation);
        REQUIRE(status == HASHTRIE_OK || status == HASHTRIE_EFULL);
    }
}

static void set_capacity(struct world *world)
{
    hashtrie_endpoint endpoint = take_endpoint(world);
    uint64_t bytes = fuzz_take_number(&world->input, 2) << 6;
    if (world->known[endpoint]) {
        hashtrie_endpoint_set_capacity(world->trie, endpoint, bytes);
    }
}

/* An endpoint as a store tells of it; its odometer may be about to wrap around. */
static void restore_endpoint(struct world *world)
{
    char name[] = "http://r0";
    name[8] = (char)('0' + fuzz_take(&world->input) % 10);
    struct trie_endpoint stored = {.id = (uint32_t)fuzz_take_number(&world->input, 1),
                                   .odometer_kib = UINT32_MAX - fuzz_take(&world->input) * 8,
                                   .name = name,
                                   .model = "",
                                   .generation = "a"};
    size_t before = trie_endpoint_slot_count(world->trie);
    if (trie_endpoint_restore(world->trie, &stored) == HASHTRIE_OK) {
        world->known[before] = true;
    }
}

/* ---- The store's part ---- */

static void attach(struct world *world)
{
    if (world->store == NULL) {
        world->store = memory_store_new(world->trie, &world->mem);
    } else if (world->batch == IN_STORE) {
        memory_store_free(world->store);
        world->store = NULL;
    }
}

static void release(struct world *world)
{
    if (world->batch == TAKEN) {
        memory_store_write(world->store, fuzz_take(&world->input) % 4 == 0);
        world->batch = WRITTEN;
    } else if (world->batch == WRITTEN && !memory_store_release(world->store)) {
        world->batch = IN_STORE;
    }
}

static void take_batch(struct world *world)
{
    uint32_t count = 1 + fuzz_take(&world->input) % BATCH_MAX;
    if (world->store != NULL && world->batch != WRITTEN) {
        memory_store_take(world->store, count);
        world->batch = TAKEN;
    }
}

static void forget_stored(struct world *world)
{
    uint32_t number = fuzz_take(&world->input);
    if (world->store != NULL && world->batch != WRITTEN) {
        memory_store_forget(world->store, number);
    }
}

static void reload(struct world *world)
{
    struct hashtrie_key key = take_key(world);
    if (world->store != NULL) {
        memory_store_reload(world->store, &key);
    }
}

/* A record that a reader let pass: its run agrees with the key's next chunks for a while. */
static void graft(struct world *world)
{
    struct hashtrie_key key = take_key(world);
    size_t depth = trie_known_length(world->trie, &key);
    static uint32_t run[TRIE_RUN_LENGTH_MAX];
    uint32_t length = 1 + (uint32_t)fuzz_take_number(&world->input, 2) % TRIE_RUN_LENGTH_MAX;
    uint32_t equal = 1 + fuzz_take(&world->input);
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    uint32_t holder_count = fuzz_take(&world->input) % (HASHTRIE_HOLDERS_MAX + 2);
    if (depth == key.count) {
        return;
    }
    for (uint32_t i = 0; i < length; i++) {
        bool same = i < equal && depth + i < key.count;
        run[i] = same ? (uint32_t)key.hashes[depth + i] : i;
    }
    for (uint32_t i = 0; i < holder_count && i < HASHTRIE_HOLDERS_MAX; i++) {
        holders[i] = (struct trie_stored_holder){
            .id = fuzz_take(&world->input),
            .last_used_s = (uint32_t)(world->now_s - fuzz_take(&world->input) * 60),
            .odometer_kib = (uint32_t)fuzz_take_number(&world->input, 1) * 16};
    }
    bool whole = depth + length <= key.count && equal >= length;
    struct trie_record record = {
        .prefix = depth == 0 ? key.namespace_hash : key.hashes[depth - 1],
        .end = whole ? key.hashes[depth + length - 1] : UINT64_C(5) << 40 | run[length - 1],
        .fp = run[0],
        .depth = (uint32_t)depth,
        .length = length,
        .bucket = (uint32_t)(world->now_s / TRIE_BUCKET_SECONDS) + fuzz_take(&world->input) - 128,
        .run = run,
        .holders = holders,
        .holder_count = holder_count > HASHTRIE_HOLDERS_MAX ? TRIE_HELD_BY_ALL : holder_count};
    (void)trie_graft(world->trie, &key, &record);
}

static void mark_unsaved(struct world *world)
{
    uint32_t cursor = 0;
    while (trie_mark_unsaved(world->trie, &cursor)) {
    }
    uint64_t mark = trie_dirty_mark(world->trie);
    REQUIRE(!trie_dirty_done(world->trie, mark) || trie_dirty_count(world->trie) == 0);
}

/* ---- Everything ---- */

static void operate(struct world *world)
{
    uint32_t operation = fuzz_take(&world->input);
    bool starve = operation >= 0xf0; /* Its n-th allocation fails, and all after it. */
    if (starve) {
        operation = fuzz_take(&world->input);
        world->trie->mem.fail_after = operation % 4;
    }
    static void (*const operations[])(struct world *) = {
        insert,  match,         add_endpoint, set_capacity, restore_endpoint, attach, take_batch,
        release, forget_stored, reload,       graft,        mark_unsaved,     insert, insert,
    };
    enum { COUNT = sizeof operations / sizeof *operations };
    switch (operation % (COUNT + 4)) {
    case COUNT:
        change_endpoint(world, false);
        break;
    case COUNT + 1:
        change_endpoint(world, true);
        break;
    case COUNT + 2:
        (void)hashtrie_evict_step(world->trie);
        break;
    case COUNT + 3:
        world->now_s += fuzz_take_number(&world->input, 2) * 64; /* Up to 48 days. */
        break;
    default:
        operations[operation % (COUNT + 4)](world);
        break;
    }
    world->trie->mem.fail_after = UINT64_MAX;
}

static void world_init(struct world *world, struct fuzz_input input)
{
    *world = (struct world){.input = input, .now_s = 1700000000};
    mem_init(&world->mem, SIZE_MAX);
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    size_t budget = BUDGET_LEAST + (size_t)fuzz_take(&world->input) * 1024;
    options.max_entry_age_s = fuzz_take(&world->input) * 3600;
    options.threshold = 0.05 + (double)fuzz_take(&world->input) / 300;
    options.target = options.threshold / 2;
    uint32_t bits = fuzz_take(&world->input);
    world->hash_bits = bits < 128 ? UINT32_MAX : bits & 7;
    REQUIRE(hashtrie_new(&options, &world->trie) == HASHTRIE_OK);
    world->trie->mem.bytes_limit = budget;
    world->trie->threshold_bytes = (size_t)(options.threshold * (double)budget);
    world->trie->target_bytes = world->trie->threshold_bytes / 2;
    world->keys = mem_alloc_zero(&world->mem, KEYS * sizeof *world->keys);
    REQUIRE(world->keys != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    world_init(&world, (struct fuzz_input){.data = data, .size = size});
    for (int i = 0; i < OPERATIONS_MAX && world.input.size > 0; i++) {
        operate(&world);
        const char *breach = NULL;
        REQUIRE(hashtrie_check(world.trie, &breach) == HASHTRIE_OK);
        struct hashtrie_stats stats;
        hashtrie_get_stats(world.trie, &stats);
        REQUIRE(stats.bytes_used <= stats.bytes_budget);
    }
    while (world.batch != IN_STORE) {
        release(&world);
    }
    if (world.store != NULL) {
        memory_store_free(world.store);
    }
    hashtrie_free(world.trie);
    mem_free(&world.mem, world.keys, KEYS * sizeof *world.keys);
    mem_fini(&world.mem);
    return 0;
}
