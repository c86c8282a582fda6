#include <string.h>

#include "base/random.h"
#include "support/keys.h"
#include "support/test.h"
#include "trie/internal.h"

enum { NOW_S = 1700000000 };

struct fixture {
    struct hashtrie *trie;
    struct test_key key;
};

static int setup_with(void **state, uint32_t max_entry_age_s)
{
    static struct fixture fixture;
    struct hashtrie_options options = hashtrie_options_default((size_t)8 << 20);
    options.max_entry_age_s = max_entry_age_s;
    assert_int_equal(hashtrie_new(&options, &fixture.trie), HASHTRIE_OK);
    fixture.key = (struct test_key){.namespace_hash = 42};
    for (uint64_t i = 0; i < 20; i++) {
        test_key_push(&fixture.key, i);
    }
    *state = &fixture;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, 0);
}

static int setup_ageing(void **state)
{
    return setup_with(state, 3600);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    const char *breach = NULL;
    assert_int_equal(hashtrie_check(fixture->trie, &breach), HASHTRIE_OK);
    hashtrie_free(fixture->trie);
    return 0;
}

static hashtrie_endpoint add(struct fixture *fixture, const char *name)
{
    hashtrie_endpoint endpoint = 0;
    assert_int_equal(hashtrie_endpoint_add(fixture->trie, name, "model", &endpoint), HASHTRIE_OK);
    return endpoint;
}

static void insert(struct fixture *fixture, hashtrie_endpoint endpoint, size_t count,
                   uint64_t now_s)
{
    struct hashtrie_key key = test_key_view(&fixture->key);
    key.count = count;
    assert_int_equal(hashtrie_insert(fixture->trie, &key, endpoint, now_s), HASHTRIE_OK);
}

static struct hashtrie_match match(struct fixture *fixture, uint64_t now_s)
{
    struct hashtrie_key key = test_key_view(&fixture->key);
    struct hashtrie_match out;
    hashtrie_match(fixture->trie, &key, now_s, &out);
    return out;
}

static void same_name_is_same_endpoint(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(add(fixture, "http://a"), add(fixture, "http://a"));
    assert_int_not_equal(add(fixture, "http://a"), add(fixture, "http://b"));
    hashtrie_endpoint out;
    fixture->trie->mem.fail_after = 0; /* It is known, so no room is needed. */
    assert_int_equal(add(fixture, "http://b"), 1);
    assert_int_equal(hashtrie_endpoint_add(fixture->trie, "http://b", "n", &out), HASHTRIE_EFULL);
    fixture->trie->mem.fail_after = UINT64_MAX;
    assert_int_equal(hashtrie_endpoint_add(fixture->trie, "http://b", "n", &out), HASHTRIE_OK);
    assert_int_equal(out, 1);
    assert_string_equal(fixture->trie->endpoints[1].model, "n");
}

static void holders_come_deepest_first(void **state)
{
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    hashtrie_endpoint b = add(fixture, "http://b");
    insert(fixture, a, 5, NOW_S);
    insert(fixture, b, 12, NOW_S);
    struct hashtrie_match out = match(fixture, NOW_S);
    assert_int_equal(out.chunk_count, 12);
    assert_int_equal(out.holder_count, 2);
    assert_int_equal(out.holders[0].endpoint, b);
    assert_int_equal(out.holders[0].chunk_count, 12);
    assert_int_equal(out.holders[1].endpoint, a);
    assert_int_equal(out.holders[1].chunk_count, 5);
}

static void removed_holds_nothing_and_neither_does_its_successor(void **state)
{
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    insert(fixture, a, 20, NOW_S);
    hashtrie_endpoint_remove(fixture->trie, a);
    assert_int_equal(match(fixture, NOW_S).holder_count, 0);
    assert_int_equal(match(fixture, NOW_S).chunk_count, 20);
    hashtrie_endpoint successor = add(fixture, "http://b");
    assert_int_equal(successor, a); /* The number is given out again. */
    assert_int_equal(match(fixture, NOW_S).holder_count, 0);
    insert(fixture, successor, 3, NOW_S);
    assert_int_equal(match(fixture, NOW_S).holders[0].chunk_count, 3);
}

static void a_restarted_engine_holds_nothing(void **state)
{
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    insert(fixture, a, 20, NOW_S);
    assert_int_equal(hashtrie_endpoint_set_generation(fixture->trie, a, "1"), HASHTRIE_OK);
    assert_int_equal(match(fixture, NOW_S).holder_count,
                     1); /* The first one told changes nothing. */
    assert_int_equal(hashtrie_endpoint_set_generation(fixture->trie, a, "1"), HASHTRIE_OK);
    assert_int_equal(match(fixture, NOW_S).holder_count, 1);
    assert_int_equal(hashtrie_endpoint_set_generation(fixture->trie, a, "2"), HASHTRIE_OK);
    assert_int_equal(match(fixture, NOW_S).holder_count, 0);
}

static void capacity_ages_what_the_engine_must_have_evicted(void **state)
{
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    hashtrie_endpoint_set_capacity(fixture->trie, a, 10 * 1024);
    insert(fixture, a, 20, NOW_S); /* 2,560 bytes. */
    struct test_key other = {.namespace_hash = 43};
    for (uint64_t i = 0; i < 80; i++) {
        test_key_push(&other, i);
    }
    struct hashtrie_key key = test_key_view(&other);
    assert_int_equal(hashtrie_insert(fixture->trie, &key, a, NOW_S),
                     HASHTRIE_OK); /* 10 KiB: still there. */
    assert_int_equal(match(fixture, NOW_S).holder_count, 1);
    assert_int_equal(hashtrie_insert(fixture->trie, &key, a, NOW_S),
                     HASHTRIE_OK); /* Cached: costs nothing. */
    assert_int_equal(match(fixture, NOW_S).holder_count, 1);
    other.namespace_hash = 44;
    key.namespace_hash = 44;
    assert_int_equal(hashtrie_insert(fixture->trie, &key, a, NOW_S), HASHTRIE_OK);
    assert_int_equal(match(fixture, NOW_S).holder_count, 0);
    hashtrie_endpoint_set_capacity(fixture->trie, a, 0); /* Unknown: nothing ages. */
    assert_int_equal(match(fixture, NOW_S).holder_count, 1);
}

static void entries_age_by_time(void **state)
{
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    insert(fixture, a, 20, NOW_S);
    assert_int_equal(match(fixture, NOW_S + 3600).holder_count, 1);
    assert_int_equal(match(fixture, NOW_S + 3600 + 120).holder_count, 0);
    assert_int_equal(match(fixture, NOW_S).holder_count, 0); /* Time never steps back. */
    insert(fixture, a, 4, NOW_S + 3600 + 120);
    assert_int_equal(match(fixture, NOW_S).holders[0].chunk_count, 4);
}

/* Entries have 16 bits of minutes: after 45 days they come round. */
static void entries_that_aged_stay_aged(void **state)
{
    const uint64_t round_s = NOW_S + UINT64_C(65536) * 60;
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    hashtrie_endpoint b = add(fixture, "http://b");
    insert(fixture, a, 20, NOW_S);
    assert_int_equal(match(fixture, round_s).holder_count, 0);
    insert(fixture, b, 10, round_s);
    struct hashtrie_match found = match(fixture, round_s);
    assert_int_equal(found.holder_count, 1);
    assert_int_equal(found.holders[0].endpoint, b);
    assert_int_equal(found.holders[0].chunk_count, 10);
}

/* Ages are kept in 16 bits of minutes: 45.5 days. */
static void an_old_entry_stays_old(void **state)
{
    struct fixture *fixture = *state;
    enum { DAY_S = 86400 };
    hashtrie_endpoint idle = 0;
    hashtrie_endpoint busy = 0;
    assert_int_equal(hashtrie_endpoint_add(fixture->trie, "http://idle", "m", &idle), HASHTRIE_OK);
    assert_int_equal(hashtrie_endpoint_add(fixture->trie, "http://busy", "m", &busy), HASHTRIE_OK);
    struct hashtrie_key shared = test_key_view(&fixture->key);
    struct hashtrie_key alone = shared;
    alone.namespace_hash++;
    assert_int_equal(hashtrie_insert(fixture->trie, &alone, idle, NOW_S), HASHTRIE_OK);
    assert_int_equal(hashtrie_insert(fixture->trie, &shared, idle, NOW_S), HASHTRIE_OK);
    struct hashtrie_match match;
    for (uint64_t day = 1; day < 100; day++) {
        uint64_t now_s = NOW_S + day * DAY_S + 1800;
        hashtrie_match(fixture->trie, &alone, now_s, &match);
        assert_int_equal(match.holder_count, 0);
        assert_int_equal(hashtrie_insert(fixture->trie, &shared, busy, now_s), HASHTRIE_OK);
        hashtrie_match(fixture->trie, &shared, now_s, &match);
        assert_int_equal(match.holder_count, 1);
        assert_int_equal(match.holders[0].endpoint, busy);
    }
}

static void too_many_holders_count_as_all(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 70; i++) {
        char name[] = "http://00";
        name[7] = (char)('0' + i / 10);
        name[8] = (char)('0' + i % 10);
        hashtrie_endpoint endpoint = add(fixture, name);
        insert(fixture, endpoint, i == 69 ? 20 : 10, NOW_S);
        struct hashtrie_match out = match(fixture, NOW_S);
        size_t named = (size_t)i + 1;
        if (i < 64) {
            assert_int_equal(out.holder_count, named);
            assert_int_equal(out.all_chunk_count, 0);
        } else {
            assert_int_equal(out.all_chunk_count, 10);
        }
    }
    struct hashtrie_match out = match(fixture, NOW_S);
    assert_int_equal(out.holder_count, 1); /* The one that holds more is still named. */
    assert_int_equal(out.holders[0].chunk_count, 20);
}

static void gone_holders_make_room(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 200; i++) {
        hashtrie_endpoint endpoint = add(fixture, "http://short-lived");
        insert(fixture, endpoint, 20, NOW_S);
        assert_int_equal(match(fixture, NOW_S).holder_count, 1);
        hashtrie_endpoint_remove(fixture->trie, endpoint);
        endpoint = add(fixture, "http://x");
        hashtrie_endpoint_remove(fixture->trie, endpoint);
    }
    assert_int_equal(match(fixture, NOW_S).all_chunk_count, 0);
}

static void on_wake(void *user)
{
    (void)user;
}

/* Entries made before the restart and after it are both live, whatever the odometer stood at. */
static void a_restored_endpoint_goes_on(void **state)
{
    struct fixture *fixture = *state;
    const uint32_t odometers[] = {0, 1, 1000000, INT32_MAX, UINT32_MAX};
    for (uint32_t i = 0; i < sizeof odometers / sizeof *odometers; i++) {
        char name[] = "http://0";
        name[7] = (char)('0' + i);
        trie_attach(fixture->trie, on_wake, NULL, 0, 1);
        struct trie_endpoint stored = {.id = 100 + i,
                                       .odometer_kib = odometers[i],
                                       .name = name,
                                       .model = "m",
                                       .generation = ""};
        assert_int_equal(trie_endpoint_restore(fixture->trie, &stored), HASHTRIE_OK);
        assert_int_equal(trie_endpoint_restore(fixture->trie, &stored), HASHTRIE_EEXIST);
        fixture->key.namespace_hash = 1000 + i;
        struct hashtrie_key key = test_key_view(&fixture->key);
        uint32_t run[20];
        for (size_t j = 0; j < key.count; j++) {
            run[j] = (uint32_t)key.hashes[j];
        }
        struct trie_stored_holder old = {
            .id = 100 + i, .last_used_s = NOW_S - 100, .odometer_kib = odometers[i] - 5};
        struct trie_record record = {.prefix = key.namespace_hash,
                                     .end = key.hashes[9],
                                     .fp = run[0],
                                     .length = 10,
                                     .bucket = NOW_S / 10,
                                     .run = run,
                                     .holders = &old,
                                     .holder_count = 1};
        assert_int_equal(trie_graft(fixture->trie, &key, &record), HASHTRIE_OK);
        struct hashtrie_match out = match(fixture, NOW_S);
        assert_int_equal(out.holder_count, 1);
        assert_int_equal(out.holders[0].chunk_count, 10);
        insert(fixture, out.holders[0].endpoint, 20, NOW_S);
        out = match(fixture, NOW_S);
        assert_int_equal(out.holder_count, 1);
        assert_int_equal(out.holders[0].chunk_count, 20);
        trie_attach(fixture->trie, NULL, NULL, 0, 1);
    }
}

/* Years of traffic: the odometer wraps around several times. New entries live, old ones die. */
static void an_odometer_wraps(void **state)
{
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    insert(fixture, a, 20, NOW_S);
    for (int i = 1; i <= 64; i++) {
        endpoint_charge(&fixture->trie->endpoints[a], UINT64_C(1) << 38); /* 256 GiB. */
        struct hashtrie_match out = match(fixture, NOW_S);
        if (i < 12) { /* Past 3 TiB it looks new: any budget has let go of it long before. */
            assert_int_equal(out.holder_count, i <= 4 ? 1 : 0);
        }
        struct hashtrie_key other = {.namespace_hash = 1000 + (uint64_t)i};
        uint64_t hash = (uint64_t)i;
        other.hashes = &hash;
        other.count = 1;
        assert_int_equal(hashtrie_insert(fixture->trie, &other, a, NOW_S), HASHTRIE_OK);
        hashtrie_match(fixture->trie, &other, NOW_S, &out);
        assert_int_equal(out.holder_count, 1);
    }
}

/* As a program finds out what a store brought back. */
/* Endpoints come, restart and go at random; ids, numbers and count stay what a list of them says.
 */
static void ids_follow_endpoints_that_come_and_go(void **state)
{
    struct fixture *fixture = *state;
    enum { NAMES = 40, ROUNDS = 20000 };
    struct random random = {.state = test_seed()};
    uint32_t ids[NAMES] = {0}; /* 0: not there. */
    hashtrie_endpoint slots[NAMES];
    size_t there = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t i = random_below(&random, NAMES);
        char name[] = "http://00";
        name[7] = (char)('0' + i / 10);
        name[8] = (char)('0' + i % 10);
        char generation[] = "a";
        generation[0] = (char)('a' + random_below(&random, 26));
        uint32_t old = ids[i];
        if (old == 0) {
            assert_int_equal(hashtrie_endpoint_add(fixture->trie, name, "m", &slots[i]),
                             HASHTRIE_OK);
            there++;
        } else if (random_below(&random, 3) == 0) {
            assert_int_equal(hashtrie_endpoint_remove(fixture->trie, slots[i]), HASHTRIE_OK);
            there--;
        } else {
            assert_int_equal(hashtrie_endpoint_set_generation(fixture->trie, slots[i], generation),
                             HASHTRIE_OK);
        }
        struct trie_endpoint now;
        bool known = trie_endpoint_get(fixture->trie, slots[i], &now);
        ids[i] = known ? now.id : 0;
        assert_true(old == 0 || old == ids[i] || endpoint_slot_of_id(fixture->trie, old) == -1);
        for (uint32_t j = 0; j < NAMES; j++) {
            assert_true(ids[j] == 0 || endpoint_slot_of_id(fixture->trie, ids[j]) == (int)slots[j]);
        }
        struct hashtrie_stats stats;
        hashtrie_get_stats(fixture->trie, &stats);
        assert_int_equal(stats.endpoint_count, there);
    }
}

/* A damaged or crafted store may have any id, also one past the next that it tells of. */
static void stored_ids_of_any_size_stay_apart_from_new_ones(void **state)
{
    struct fixture *fixture = *state;
    struct trie_endpoint stored = {
        .id = UINT32_MAX, .name = "http://last", .model = "m", .generation = ""};
    trie_attach(fixture->trie, on_wake, NULL, 0, 1);
    assert_int_equal(trie_endpoint_restore(fixture->trie, &stored), HASHTRIE_EINVAL);
    add(fixture, "http://last");
    assert_int_equal(trie_endpoint_adopt(fixture->trie, &stored), HASHTRIE_EINVAL);
    stored.id = 3;
    assert_int_equal(trie_endpoint_adopt(fixture->trie, &stored), HASHTRIE_OK);
    add(fixture, "http://a");
    add(fixture, "http://b");
    for (uint32_t id = 3; id < 6; id++) {
        assert_int_equal(endpoint_slot_of_id(fixture->trie, id), id - 3);
    }
    for (hashtrie_endpoint slot = 0; slot < 3; slot++) {
        assert_int_equal(hashtrie_endpoint_remove(fixture->trie, slot), HASHTRIE_OK);
    }
    trie_attach(fixture->trie, NULL, NULL, 0, 0);
}

static void names_are_found_by_number(void **state)
{
    struct fixture *fixture = *state;
    hashtrie_endpoint a = add(fixture, "http://a");
    hashtrie_endpoint b = add(fixture, "http://b");
    assert_string_equal(hashtrie_endpoint_name(fixture->trie, a), "http://a");
    assert_string_equal(hashtrie_endpoint_name(fixture->trie, b), "http://b");
    assert_int_equal(hashtrie_endpoint_remove(fixture->trie, a), HASHTRIE_OK);
    assert_null(hashtrie_endpoint_name(fixture->trie, a));
    assert_null(hashtrie_endpoint_name(fixture->trie, 7));
    assert_null(hashtrie_endpoint_name(fixture->trie, UINT16_MAX));
    assert_int_equal(add(fixture, "http://c"), a); /* The lowest free number. */
    assert_string_equal(hashtrie_endpoint_name(fixture->trie, a), "http://c");
}

static void an_endpoint_that_is_not_there_is_told(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie *trie = fixture->trie;
    hashtrie_endpoint a = add(fixture, "http://a");
    assert_int_equal(hashtrie_endpoint_remove(trie, a), HASHTRIE_OK);
    const hashtrie_endpoint absent[] = {a, 7, UINT16_MAX};
    struct hashtrie_key key = test_key_view(&fixture->key);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        assert_int_equal(hashtrie_insert(trie, &key, absent[i], NOW_S), HASHTRIE_EINVAL);
        assert_int_equal(hashtrie_endpoint_remove(trie, absent[i]), HASHTRIE_EINVAL);
        assert_int_equal(hashtrie_endpoint_set_capacity(trie, absent[i], 1), HASHTRIE_EINVAL);
        assert_int_equal(hashtrie_endpoint_set_generation(trie, absent[i], "1"), HASHTRIE_EINVAL);
    }
}

static void texts_have_a_limit(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie *trie = fixture->trie;
    char text[HASHTRIE_ENDPOINT_TEXT_MAX + 2];
    memset(text, 'x', sizeof text);
    text[HASHTRIE_ENDPOINT_TEXT_MAX + 1] = '\0';
    hashtrie_endpoint a = add(fixture, "http://a");
    hashtrie_endpoint b = 99;
    assert_int_equal(hashtrie_endpoint_add(trie, text, "m", &b), HASHTRIE_EINVAL);
    assert_int_equal(hashtrie_endpoint_add(trie, "http://b", text, &b), HASHTRIE_EINVAL);
    assert_int_equal(hashtrie_endpoint_add(trie, "", "m", &b), HASHTRIE_EINVAL);
    assert_int_equal(b, 99);
    assert_int_equal(hashtrie_endpoint_set_generation(trie, a, text), HASHTRIE_EINVAL);
    assert_int_equal(hashtrie_endpoint_set_generation(trie, a, ""), HASHTRIE_EINVAL);
    text[HASHTRIE_ENDPOINT_TEXT_MAX] = '\0';
    assert_int_equal(hashtrie_endpoint_add(trie, text, text, &b), HASHTRIE_OK);
    assert_int_equal(hashtrie_endpoint_set_generation(trie, b, text), HASHTRIE_OK);
}

static void bad_arguments_are_told(void **state)
{
    (void)state;
    struct hashtrie *trie = NULL;
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN - 1);
    assert_int_equal(hashtrie_new(&options, &trie), HASHTRIE_EINVAL);
    options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    options.chunk_size = 100;
    assert_int_equal(hashtrie_new(&options, &trie), HASHTRIE_EINVAL);
    options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    options.target = 0.95;
    assert_int_equal(hashtrie_new(&options, &trie), HASHTRIE_EINVAL);
    assert_null(trie);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(same_name_is_same_endpoint),
        CASE(holders_come_deepest_first),
        CASE(removed_holds_nothing_and_neither_does_its_successor),
        CASE(a_restarted_engine_holds_nothing),
        CASE(capacity_ages_what_the_engine_must_have_evicted),
        cmocka_unit_test_setup_teardown(entries_age_by_time, setup_ageing, teardown),
        cmocka_unit_test_setup_teardown(entries_that_aged_stay_aged, setup_ageing, teardown),
        cmocka_unit_test_setup_teardown(an_old_entry_stays_old, setup_ageing, teardown),
        CASE(too_many_holders_count_as_all),
        CASE(gone_holders_make_room),
        CASE(a_restored_endpoint_goes_on),
        CASE(an_odometer_wraps),
        CASE(ids_follow_endpoints_that_come_and_go),
        CASE(stored_ids_of_any_size_stay_apart_from_new_ones),
        CASE(names_are_found_by_number),
        CASE(an_endpoint_that_is_not_there_is_told),
        CASE(texts_have_a_limit),
        CASE(bad_arguments_are_told),
    };
    return cmocka_run_group_tests_name("trie endpoints", tests, NULL, NULL);
}
