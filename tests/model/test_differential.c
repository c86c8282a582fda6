/*
 * The trie against the Python HashTrie's rule, on whole chunks: one node per chunk, whoever was
 * sent a prompt is put into every node of its path, and a match walks down as long as the next
 * chunk's node exists and shares an available endpoint with those left; what is left is the answer.
 *
 * Prompts are bytes and go through the hash; the rule works on the chunks themselves. Budget
 * without limit, no ageing. Prompts: 100,000, a tenth of it with DCHECK; HASHTRIE_TEST_SCALE
 * multiplies.
 *
 * A node keeps 32 bits of each chunk's hash, so that now and then (some runs in a hundred) a chunk
 * is taken for another. A world with such a difference is made again under other hashes: a mistake
 * of the trie would show there, too.
 */
#include <string.h>

#include "hashtrie/chunk.h"
#include "hashtrie/trie.h"

#include "base/mem.h"
#include "base/random.h"
#include "support/test.h"

enum {
    ENDPOINTS_MAX = 128,
    MASK_WORDS = ENDPOINTS_MAX / 64,
    CHUNKS_MAX = 1500,
    CHUNK_BYTES_MAX = 256,
    KEPT = 512, /* Prompts that later ones go on from. */
    NAMESPACES = 3,
#ifdef HASHTRIE_DCHECK
    PROMPTS = 10000,
#else
    PROMPTS = 100000,
#endif
};

struct mask {
    uint64_t words[MASK_WORDS];
};

static bool mask_has(const struct mask *mask, uint32_t bit)
{
    return (mask->words[bit / 64] >> bit % 64 & 1) != 0;
}

static void mask_add(struct mask *mask, uint32_t bit)
{
    mask->words[bit / 64] |= UINT64_C(1) << bit % 64;
}

static struct mask mask_and(const struct mask *a, const struct mask *b)
{
    struct mask both;
    for (int i = 0; i < MASK_WORDS; i++) {
        both.words[i] = a->words[i] & b->words[i];
    }
    return both;
}

static bool mask_is_empty(const struct mask *mask)
{
    return (mask->words[0] | mask->words[1]) == 0;
}

static bool mask_equal(const struct mask *a, const struct mask *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* ---- The rule: nodes in an array, children by (parent, chunk) in an open hash table ---- */

struct rule_node {
    uint32_t parent;
    uint64_t chunk;
    struct mask endpoints;
};

struct rule {
    struct rule_node *nodes; /* nodes[0 .. NAMESPACES - 1] are roots. */
    uint32_t count;
    uint32_t capacity;
    uint32_t *table; /* 0: empty, as no root is anybody's child. */
    uint32_t table_mask;
};

static void rule_init(struct rule *rule, struct mem *mem, uint32_t capacity)
{
    uint32_t slots = 1;
    while (slots < capacity * 2) {
        slots *= 2;
    }
    *rule = (struct rule){.count = NAMESPACES, .capacity = capacity, .table_mask = slots - 1};
    rule->nodes = mem_alloc_zero(mem, capacity * sizeof *rule->nodes);
    rule->table = mem_alloc_zero(mem, slots * sizeof *rule->table);
    assert_true(rule->nodes != NULL && rule->table != NULL);
}

static void rule_fini(struct rule *rule, struct mem *mem)
{
    mem_free(mem, rule->nodes, rule->capacity * sizeof *rule->nodes);
    mem_free(mem, rule->table, ((size_t)rule->table_mask + 1) * sizeof *rule->table);
}

/* Where the child is or belongs. */
static uint32_t *rule_child(const struct rule *rule, uint32_t parent, uint64_t chunk)
{
    struct random mixer = {.state = chunk ^ (uint64_t)parent << 32};
    uint32_t slot = (uint32_t)random_next(&mixer) & rule->table_mask;
    while (rule->table[slot] != 0 && (rule->nodes[rule->table[slot]].parent != parent ||
                                      rule->nodes[rule->table[slot]].chunk != chunk)) {
        slot = (slot + 1) & rule->table_mask;
    }
    return &rule->table[slot];
}

/* ---- Prompts ---- */

struct prompt {
    uint32_t namespace;
    uint32_t count;
    uint64_t chunks[CHUNKS_MAX]; /* Each stands for that many bytes made from it. */
};

static void rule_insert(struct rule *rule, const struct prompt *prompt, uint32_t endpoint)
{
    uint32_t node = prompt->namespace;
    for (uint32_t i = 0; i < prompt->count; i++) {
        uint32_t *child = rule_child(rule, node, prompt->chunks[i]);
        if (*child == 0) {
            assert_true(rule->count < rule->capacity);
            rule->nodes[rule->count] =
                (struct rule_node){.parent = node, .chunk = prompt->chunks[i]};
            *child = rule->count++;
        }
        node = *child;
        mask_add(&rule->nodes[node].endpoints, endpoint);
    }
}

static uint32_t rule_match(const struct rule *rule, const struct prompt *prompt,
                           const struct mask *available, struct mask *selected)
{
    uint32_t node = prompt->namespace;
    *selected = *available;
    for (uint32_t i = 0; i < prompt->count; i++) {
        node = *rule_child(rule, node, prompt->chunks[i]);
        struct mask left = mask_and(&rule->nodes[node].endpoints, selected);
        if (node == 0 || mask_is_empty(&left)) {
            return i;
        }
        *selected = left;
    }
    return prompt->count;
}

/*
 * Goes on from an earlier prompt, or begins anew: few first chunks, so that many share them; then
 * chunks of which now and then one is common to all places.
 */
static void prompt_random(struct prompt *prompt, const struct prompt *base, struct random *random)
{
    prompt->count = 0;
    prompt->namespace = random_below(random, NAMESPACES);
    if (base != NULL && random_below(random, 6) != 0) {
        prompt->namespace = base->namespace;
        uint32_t keep =
            random_below(random, 3) == 0 ? base->count : random_below(random, base->count + 1);
        memcpy(prompt->chunks, base->chunks, keep * sizeof prompt->chunks[0]);
        prompt->count = keep;
    }
    uint32_t more = random_below(random, 300) == 0 ? random_below(random, CHUNKS_MAX)
                                                   : random_below(random, 12);
    for (uint32_t i = 0; i < more && prompt->count < CHUNKS_MAX; i++) {
        prompt->chunks[prompt->count++] =
            random_below(random, 3) == 0 ? random_below(random, 4) : random_next(random);
    }
}

struct world {
    struct random random;
    struct mem mem;
    struct rule rule;
    struct hashtrie *trie;
    uint32_t endpoint_count;
    size_t chunk_size;
    struct prompt *kept; /* KEPT of them. */
    uint32_t kept_count;
    unsigned char *bytes;
    uint64_t hashes[CHUNKS_MAX];
    uint32_t salt;        /* Of all hashes. */
    uint64_t differences; /* Matches that the rule does not agree with. */
    uint64_t held_by_all; /* Matches that met more holders than a node can name. */
};

/* The prompt's bytes, a tail of less than a chunk behind them, hashed. */
static struct hashtrie_key key_of(struct world *world, const struct prompt *prompt)
{
    size_t size = 0;
    for (uint32_t i = 0; i < prompt->count; i++) {
        struct random filler = {.state = prompt->chunks[i]};
        for (size_t from = 0; from < world->chunk_size; from += 8, size += 8) {
            uint64_t word = random_next(&filler);
            memcpy(world->bytes + size, &word, sizeof word);
        }
    }
    size += random_below(&world->random, (uint32_t)world->chunk_size);
    uint32_t namespace[] = {prompt->namespace, world->salt};
    struct hashtrie_key key = {.namespace_hash =
                                   hashtrie_hash_namespace(namespace, sizeof namespace),
                               .hashes = world->hashes};
    key.count = hashtrie_hash_chunks(key.namespace_hash, world->bytes, size, world->chunk_size,
                                     world->hashes, CHUNKS_MAX);
    assert_int_equal(key.count, prompt->count);
    return key;
}

/* Of the endpoints that are available: those that hold most. */
static uint32_t best_of(const struct world *world, const struct hashtrie_match *match,
                        const struct mask *available, struct mask *selected)
{
    uint32_t best = (uint32_t)match->all_chunk_count;
    *selected = *available;
    for (size_t i = 0; i < match->holder_count; i++) {
        uint32_t endpoint = match->holders[i].endpoint;
        uint32_t length = match->holders[i].chunk_count;
        assert_true(endpoint < world->endpoint_count);
        if (!mask_has(available, endpoint) || length < best || length <= match->all_chunk_count) {
            continue;
        }
        if (length > best) {
            *selected = (struct mask){0};
        }
        best = length;
        mask_add(selected, endpoint);
    }
    return best;
}

static void compare(struct world *world, const struct prompt *prompt)
{
    struct mask available = {0};
    uint32_t all = random_below(&world->random, 3); /* 0: all are; else about half. */
    for (uint32_t i = 0; i < world->endpoint_count; i++) {
        if (all == 0 || random_below(&world->random, 2) == 0) {
            mask_add(&available, i);
        }
    }
    struct mask expected;
    uint32_t expected_length = rule_match(&world->rule, prompt, &available, &expected);
    struct hashtrie_key key = key_of(world, prompt);
    struct hashtrie_match match;
    hashtrie_match(world->trie, &key, 0, &match);
    struct mask found;
    uint32_t length = best_of(world, &match, &available, &found);
    if (match.all_chunk_count > 0 && length == match.all_chunk_count) {
        /* The one difference: past HASHTRIE_HOLDERS_MAX everybody counts as a holder. */
        assert_true(length >= expected_length && world->endpoint_count > HASHTRIE_HOLDERS_MAX);
        world->held_by_all++;
        return;
    }
    if (length != expected_length || !mask_equal(&found, &expected)) {
        world->differences++;
    }
}

/* As a router goes: most are sent where the rule says, some elsewhere. */
static void route(struct world *world, const struct prompt *prompt)
{
    uint32_t endpoint = random_below(&world->random, world->endpoint_count);
    if (random_below(&world->random, 2) == 0) {
        struct mask all;
        memset(&all, 0xff, sizeof all);
        struct mask holders;
        (void)rule_match(&world->rule, prompt, &all, &holders);
        for (uint32_t i = 0; i < world->endpoint_count; i++) {
            if (mask_has(&holders, (endpoint + i) % world->endpoint_count)) {
                endpoint = (endpoint + i) % world->endpoint_count;
                break;
            }
        }
    }
    struct hashtrie_key key = key_of(world, prompt);
    assert_int_equal(hashtrie_insert(world->trie, &key, (hashtrie_endpoint)endpoint, 0),
                     HASHTRIE_OK);
    rule_insert(&world->rule, prompt, endpoint);
}

static void world_init(struct world *world, uint64_t seed, uint32_t endpoint_count,
                       size_t chunk_size, uint32_t node_max)
{
    *world = (struct world){
        .random = {.state = seed}, .endpoint_count = endpoint_count, .chunk_size = chunk_size};
    mem_init(&world->mem, SIZE_MAX);
    rule_init(&world->rule, &world->mem, node_max);
    world->kept = mem_alloc(&world->mem, KEPT * sizeof *world->kept);
    world->bytes = mem_alloc_zero(&world->mem, (size_t)(CHUNKS_MAX + 1) * CHUNK_BYTES_MAX);
    assert_true(world->kept != NULL && world->bytes != NULL);
    struct hashtrie_options options = hashtrie_options_default((size_t)8 << 30);
    options.threshold = 1;
    options.chunk_size = chunk_size;
    options.seed = random_next(&world->random);
    assert_int_equal(hashtrie_new(&options, &world->trie), HASHTRIE_OK);
    for (uint32_t i = 0; i < endpoint_count; i++) {
        char name[] = "http://000";
        hashtrie_endpoint slot = 0;
        name[7] = (char)('0' + i / 100);
        name[8] = (char)('0' + i / 10 % 10);
        name[9] = (char)('0' + i % 10);
        assert_int_equal(hashtrie_endpoint_add(world->trie, name, "m", &slot), HASHTRIE_OK);
        assert_int_equal(slot, i);
    }
}

static void world_fini(struct world *world)
{
    rule_fini(&world->rule, &world->mem);
    mem_free(&world->mem, world->kept, KEPT * sizeof *world->kept);
    mem_free(&world->mem, world->bytes, (size_t)(CHUNKS_MAX + 1) * CHUNK_BYTES_MAX);
    hashtrie_free(world->trie);
    mem_fini(&world->mem);
}

/* Returns the differences. */
static uint64_t live(uint64_t seed, uint32_t salt, uint32_t endpoint_count, size_t chunk_size,
                     size_t prompt_count, uint64_t *held_by_all)
{
    static struct world world;
    world_init(&world, seed, endpoint_count, chunk_size,
               (uint32_t)prompt_count * 16 + CHUNKS_MAX * 4);
    world.salt = salt;
    static struct prompt prompt;
    for (size_t i = 0; i < prompt_count; i++) {
        const struct prompt *base =
            world.kept_count == 0 ? NULL
                                  : &world.kept[random_below(&world.random, world.kept_count)];
        prompt_random(&prompt, base, &world.random);
        compare(&world, &prompt);
        if (random_below(&world.random, 4) != 0) {
            route(&world, &prompt);
            uint32_t place =
                world.kept_count < KEPT ? world.kept_count++ : random_below(&world.random, KEPT);
            world.kept[place] = prompt;
        }
    }
    const char *breach = NULL;
    assert_int_equal(hashtrie_check(world.trie, &breach), HASHTRIE_OK);
    struct hashtrie_stats stats;
    hashtrie_get_stats(world.trie, &stats);
    assert_int_equal(stats.evicted_node_count, 0);
    print_message("%zu prompts, %u chunks in %u nodes, %u differences\n", prompt_count,
                  world.rule.count - NAMESPACES, (unsigned)stats.node_count,
                  (unsigned)world.differences);
    /* Two chunks with one fingerprint count as one, whether a match has met them or not. */
    bool all_there = stats.chunk_count == world.rule.count - NAMESPACES;
    uint64_t differences = world.differences + (all_there ? 0 : 1);
    *held_by_all = world.held_by_all;
    world_fini(&world);
    return differences;
}

static uint64_t holders_agree(uint32_t endpoint_count, size_t chunk_size, size_t prompt_count)
{
    enum { SALTS = 3 };
    uint64_t seed = test_seed();
    uint64_t held_by_all = 0;
    uint64_t differences = 1;
    for (uint32_t salt = 0; salt < SALTS && differences > 0; salt++) {
        differences =
            live(seed, salt, endpoint_count, chunk_size, prompt_count * test_scale(), &held_by_all);
    }
    assert_int_equal(differences, 0);
    return held_by_all;
}

static void few_endpoints(void **state)
{
    (void)state;
    (void)holders_agree(4, 128, PROMPTS);
}

static void as_many_as_a_node_can_name(void **state)
{
    (void)state;
    assert_int_equal(holders_agree(HASHTRIE_HOLDERS_MAX, 64, PROMPTS / 4), 0);
}

static void more_than_a_node_can_name(void **state)
{
    (void)state;
    enum { WORLDS_MAX = 20 }; /* A small one may hold no node with so many. */
    uint64_t held_by_all = 0;
    for (int i = 0; i < WORLDS_MAX && held_by_all == 0; i++) {
        held_by_all = holders_agree(ENDPOINTS_MAX, 256, PROMPTS / 4);
    }
    assert_true(held_by_all > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_endpoints),
        cmocka_unit_test(as_many_as_a_node_can_name),
        cmocka_unit_test(more_than_a_node_can_name),
    };
    return cmocka_run_group_tests_name("differential", tests, NULL, NULL);
}
