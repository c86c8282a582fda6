#include <stdio.h>

#include "route/route.h"
#include "support/test.h"

enum { CHUNK = 128, ENDPOINTS = 4 };

struct fixture {
    struct mem mem;
    struct route_fleet *fleet;
};

static int setup(void **state)
{
    static struct fixture fixture;
    mem_init(&fixture.mem, SIZE_MAX);
    fixture.fleet = route_fleet_new(&fixture.mem, 7);
    assert_non_null(fixture.fleet);
    for (int i = 0; i < ENDPOINTS; i++) {
        assert_int_equal(route_endpoint_add(fixture.fleet), i);
        assert_true(route_endpoint_serves(fixture.fleet, (size_t)i, "m"));
    }
    assert_true(route_endpoint_serves(fixture.fleet, 3, "other"));
    assert_true(route_endpoint_serves(fixture.fleet, 3, "other"));
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    route_fleet_free(fixture->fleet);
    mem_fini(&fixture->mem);
    return 0;
}

static struct route_query query(uint64_t prompt_bytes)
{
    return (struct route_query){.policy = ROUTE_PREFIXAWARE,
                                .model = 0,
                                .has_prompt = true,
                                .prompt_bytes = prompt_bytes,
                                .chunk_bytes = CHUNK};
}

static struct route_choice pick(struct fixture *fixture, const struct route_query *asked)
{
    struct route_choice choice;
    assert_true(route_pick(fixture->fleet, asked, &choice));
    return choice;
}

/* On an idle fleet one matching chunk decides. */
static void one_chunk_decides_when_idle(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holders[] = {{.endpoint = 2, .bytes = CHUNK}};
    struct route_query asked = query(10 * CHUNK);
    asked.holders = holders;
    asked.holder_count = 1;
    for (int i = 0; i < 100; i++) {
        struct route_choice choice = pick(fixture, &asked);
        assert_int_equal(choice.endpoint, 2);
        assert_int_equal(choice.outcome, ROUTE_HOLDER);
        assert_int_equal(choice.held_bytes, CHUNK);
        assert_int_equal(choice.uncached_bytes, 9 * CHUNK);
    }
}

static void load_outweighs_a_short_match(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holders[] = {{.endpoint = 2, .bytes = CHUNK}};
    struct route_query asked = query(10 * CHUNK);
    asked.holders = holders;
    asked.holder_count = 1;
    route_request_sent(fixture->fleet, 2, 1000, 0);
    struct route_choice choice = pick(fixture, &asked);
    assert_int_not_equal(choice.endpoint, 2);
    assert_int_equal(choice.outcome, ROUTE_SPREAD);
    assert_int_equal(choice.held_bytes, 0);
    route_request_prefilled(fixture->fleet, 2, 1000);
    route_request_ended(fixture->fleet, 2, 0);
    assert_int_equal(pick(fixture, &asked).endpoint, 2);
}

/* The rule of the header, to the byte: a holder wins as long as 3 x what it saves is more than its
 * load. */
static void the_price_is_as_written(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t held = 100 * CHUNK; /* Saves 3 x 12,800 = 38,400. */
    struct route_holder holders[] = {{.endpoint = 1, .bytes = held}};
    struct route_query asked = query(200 * CHUNK);
    asked.holders = holders;
    asked.holder_count = 1;
    /* One request in flight costs 2,000, 25,600 / 20 for this prompt, 5,000 / 10 for its own. */
    route_request_sent(fixture->fleet, 1, 38400 - 2000 - 1280 - 500 - 1, 5000);
    assert_int_equal(pick(fixture, &asked).endpoint, 1);
    route_request_prefilled(fixture->fleet, 1, 38400 - 2000 - 1280 - 500 - 1);
    route_request_ended(fixture->fleet, 1, 5000);
    route_request_sent(fixture->fleet, 1, 38400 - 2000 - 1280 - 500 + 1, 5000);
    assert_int_not_equal(pick(fixture, &asked).endpoint, 1);
}

static void a_shorter_holder_may_win(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holders[] = {{.endpoint = 0, .bytes = 900 * CHUNK},
                                     {.endpoint = 1, .bytes = 800 * CHUNK}};
    struct route_query asked = query(1000 * CHUNK);
    asked.holders = holders;
    asked.holder_count = 2;
    route_request_sent(fixture->fleet, 0, 100000, 0);
    struct route_choice choice = pick(fixture, &asked);
    assert_int_equal(choice.endpoint, 1);
    assert_int_equal(choice.outcome, ROUTE_SHORTER);
}

static void ties_are_broken_at_random(void **state)
{
    struct fixture *fixture = *state;
    int seen[ENDPOINTS] = {0};
    struct route_query asked = query(10 * CHUNK);
    for (int i = 0; i < 4000; i++) {
        struct route_choice choice = pick(fixture, &asked);
        assert_int_equal(choice.outcome, ROUTE_NO_HOLDER);
        seen[choice.endpoint]++;
    }
    for (int i = 0; i < ENDPOINTS; i++) {
        assert_in_range(seen[i], 800, 1200);
    }
}

static void of_equal_ones_that_which_was_sent_least_is_taken(void **state)
{
    struct fixture *fixture = *state;
    struct route_query asked = query(10 * CHUNK);
    int seen[ENDPOINTS] = {0};
    for (int i = 0; i < 10 * ENDPOINTS; i++) {
        struct route_choice choice = pick(fixture, &asked);
        seen[choice.endpoint]++;
        route_request_sent(fixture->fleet, choice.endpoint, choice.uncached_bytes, 0);
        route_request_prefilled(fixture->fleet, choice.endpoint, choice.uncached_bytes);
        route_request_ended(fixture->fleet, choice.endpoint, 0);
    }
    for (int i = 0; i < ENDPOINTS; i++) {
        assert_int_equal(seen[i], 10);
    }
}

static void work_off(struct fixture *fixture, size_t endpoint, uint64_t bytes)
{
    route_request_sent(fixture->fleet, endpoint, bytes, 0);
    route_request_prefilled(fixture->fleet, endpoint, bytes);
    route_request_ended(fixture->fleet, endpoint, 0);
}

static void one_that_comes_later_begins_with_the_mean_of_what_was_sent(void **state)
{
    struct fixture *fixture = *state;
    struct route_query asked = query(10 * CHUNK);
    work_off(fixture, 0, 100);
    work_off(fixture, 1, 200);
    work_off(fixture, 2, 300);
    work_off(fixture, 3, 1000);
    route_endpoint_free(fixture->fleet, 3);
    assert_int_equal(route_endpoint_add(fixture->fleet), 3); /* With 200, as 1 has. */
    assert_true(route_endpoint_serves(fixture->fleet, 3, "m"));
    work_off(fixture, 0, 99);
    assert_int_equal(pick(fixture, &asked).endpoint, 0);
    work_off(fixture, 0, 2);
    work_off(fixture, 1, 1);
    assert_int_equal(pick(fixture, &asked).endpoint, 3);
}

static void what_all_hold_decides_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct route_query asked = query(10 * CHUNK);
    asked.all_held_bytes = 8 * CHUNK;
    route_request_sent(fixture->fleet, 0, 0, 0);
    struct route_choice choice = pick(fixture, &asked);
    assert_int_not_equal(choice.endpoint, 0);
    assert_int_equal(choice.outcome, ROUTE_HOLDER);
    assert_int_equal(choice.uncached_bytes, 2 * CHUNK);
}

static void down_excluded_and_others_models_are_no_candidates(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holders[] = {{.endpoint = 0, .bytes = 5 * CHUNK},
                                     {.endpoint = 99, .bytes = 5 * CHUNK}};
    uint32_t excluded[] = {1};
    struct route_query asked = query(10 * CHUNK);
    asked.holders = holders;
    asked.holder_count = 2;
    asked.excluded = excluded;
    asked.excluded_count = 1;
    route_endpoint_set_up(fixture->fleet, 0, false);
    route_endpoint_set_up(fixture->fleet, 2, false);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(pick(fixture, &asked).endpoint, 3);
    }
    route_endpoint_set_up(fixture->fleet, 3, false);
    struct route_choice choice;
    assert_false(route_pick(fixture->fleet, &asked, &choice));
    asked.policy = ROUTE_ROUNDROBIN;
    assert_false(route_pick(fixture->fleet, &asked, &choice));
    route_endpoint_set_up(fixture->fleet, 0, true);
    int other = route_model_find(fixture->fleet, "other", 5);
    assert_true(other > 0);
    asked.model = (size_t)other; /* Only endpoint 3 serves it, and that is down. */
    assert_false(route_pick(fixture->fleet, &asked, &choice));
    assert_int_equal(route_model_find(fixture->fleet, "oth", 3), -1);
}

static void roundrobin_rotates_evenly(void **state)
{
    struct fixture *fixture = *state;
    struct route_query asked = query(CHUNK);
    asked.policy = ROUTE_ROUNDROBIN;
    size_t last = ENDPOINTS;
    int seen[ENDPOINTS] = {0};
    for (int i = 0; i < 40; i++) {
        struct route_choice choice = pick(fixture, &asked);
        assert_int_not_equal(choice.endpoint, last);
        assert_int_equal(choice.outcome, ROUTE_ROTATED);
        last = choice.endpoint;
        seen[last]++;
    }
    for (int i = 0; i < ENDPOINTS; i++) {
        assert_int_equal(seen[i], 10);
    }
}

static void prefill_time_is_learned(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(route_prefill_ns(fixture->fleet, 0), 0);
    route_request_sent(fixture->fleet, 0, 1000, 0);
    assert_int_equal(route_prefill_ns(fixture->fleet, 0), 0); /* Nothing learned yet. */
    route_learn_prefill(fixture->fleet, 0, 1000, 5000);
    assert_int_equal(route_prefill_ns(fixture->fleet, 0), 5000);
    for (int i = 0; i < 100; i++) {
        route_learn_prefill(fixture->fleet, 0, 1000, 10000);
    }
    assert_in_range(route_prefill_ns(fixture->fleet, 0), 9900, 10000);
    assert_int_equal(route_endpoint_load(fixture->fleet, 0).in_prefill, 1);
}

static void out_of_memory_is_told(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 1000; n++) {
        struct mem mem;
        mem_init(&mem, SIZE_MAX);
        mem.fail_after = n;
        mem.fail_count = 1;
        struct route_fleet *fleet = route_fleet_new(&mem, 1);
        bool complete = fleet != NULL && route_endpoint_add(fleet) == 0 &&
                        route_endpoint_serves(fleet, 0, "m") &&
                        route_endpoint_serves(fleet, 0, "n");
        route_fleet_free(fleet);
        mem_fini(&mem);
        if (complete) {
            assert_true(n > 5);
            return;
        }
    }
    fail_msg("never succeeds");
}

/* ---- Ejection ---- */

enum { PAUSE_NS = 1000 };

static size_t picked_at(struct fixture *fixture, uint64_t now_ns)
{
    struct route_query asked = query(10 * CHUNK);
    asked.now_ns = now_ns;
    return pick(fixture, &asked).endpoint;
}

/* How many of 200 requests, each over before the next, endpoint 2 gets. */
static size_t share_of_2(struct fixture *fixture, uint64_t now_ns)
{
    size_t share = 0;
    for (int i = 0; i < 200; i++) {
        share += picked_at(fixture, now_ns) == 2 ? 1 : 0;
    }
    return share;
}

static void send_and_fail(struct fixture *fixture, size_t endpoint, uint64_t now_ns)
{
    route_request_sent(fixture->fleet, endpoint, 0, 0); /* No bytes: it stays as good as others. */
    route_request_prefilled(fixture->fleet, endpoint, 0);
    route_request_ended(fixture->fleet, endpoint, 0);
    (void)route_endpoint_failed(fixture->fleet, endpoint, now_ns);
}

static void an_endpoint_that_fails_in_a_row_is_ejected_for_a_while(void **state)
{
    struct fixture *fixture = *state;
    route_fleet_set_ejection(fixture->fleet, 3, PAUSE_NS);
    assert_int_equal(route_endpoint_failed(fixture->fleet, 2, 0), 0);
    assert_int_equal(route_endpoint_failed(fixture->fleet, 2, 0), 0);
    assert_false(route_endpoint_answered(fixture->fleet, 2)); /* Not in a row. */
    assert_int_equal(route_endpoint_failed(fixture->fleet, 2, 0), 0);
    assert_int_equal(route_endpoint_failed(fixture->fleet, 2, 0), 0);
    assert_true(share_of_2(fixture, 0) > 20);
    assert_int_equal(route_endpoint_failed(fixture->fleet, 2, 0), PAUSE_NS);
    assert_true(route_endpoint_is_ejected(fixture->fleet, 2));
    assert_int_equal(route_endpoint_failed(fixture->fleet, 2, 5), 0); /* Is already. */
    assert_int_equal(share_of_2(fixture, PAUSE_NS - 1), 0);
    assert_true(share_of_2(fixture, PAUSE_NS) > 20);
}

/* Of 100 requests that stay, how many each of two gets. */
static void count_split(struct route_fleet *fleet, uint64_t now_ns, size_t counts[2])
{
    struct route_query query = {.policy = ROUTE_PREFIXAWARE, .chunk_bytes = 128, .now_ns = now_ns};
    struct route_choice choice;
    counts[0] = 0;
    counts[1] = 0;
    for (int i = 0; i < 110; i++) {
        assert_true(route_pick(fleet, &query, &choice));
        counts[choice.endpoint]++;
        route_request_sent(fleet, choice.endpoint, 0, 0);
    }
    for (size_t e = 0; e < 2; e++) {
        for (size_t i = 0; i < counts[e]; i++) {
            route_request_prefilled(fleet, e, 0);
            route_request_ended(fleet, e, 0);
        }
    }
}

static void one_that_comes_later_gets_a_share_that_grows(void **state)
{
    (void)state;
    enum { START_NS = 1000 };
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct route_fleet *fleet = route_fleet_new(&mem, test_seed());
    for (size_t e = 0; e < 2; e++) {
        assert_int_equal(route_endpoint_add(fleet), e);
        assert_true(route_endpoint_serves(fleet, e, "m"));
    }
    size_t counts[2];
    route_endpoint_warm_up(fleet, 1, 5); /* Not asked for. */
    count_split(fleet, 5, counts);
    assert_int_equal(counts[1], 55);
    route_fleet_set_slow_start(fleet, START_NS);
    route_endpoint_warm_up(fleet, 1, 10);
    count_split(fleet, 10, counts);
    assert_int_equal(counts[1], 10); /* A tenth of the other's. */
    size_t before = counts[1];
    for (uint64_t now_ns = 10 + 110; now_ns < 10 + START_NS; now_ns += 110) {
        count_split(fleet, now_ns, counts);
        assert_true(counts[1] > before);
        before = counts[1];
    }
    count_split(fleet, 10 + START_NS, counts);
    assert_int_equal(counts[1], 55);
    route_endpoint_warm_up(fleet, 1, 5000);
    count_split(fleet, 50000, counts); /* Nobody asked in between. */
    assert_int_equal(counts[1], 55);
    route_fleet_free(fleet);
    mem_fini(&mem);
}

static void an_ejected_endpoint_is_another_one_but_no_sound_one(void **state)
{
    struct fixture *fixture = *state;
    uint32_t excluded[ENDPOINTS] = {0};
    for (uint32_t endpoint = 0; endpoint < ENDPOINTS; endpoint++) {
        excluded[endpoint] = endpoint;
    }
    excluded[2] = 0; /* All but 2. */
    route_fleet_set_ejection(fixture->fleet, 1, PAUSE_NS);
    assert_true(route_has_sound_other(fixture->fleet, 0, 0, excluded, ENDPOINTS));
    (void)route_endpoint_failed(fixture->fleet, 2, 0);
    assert_false(route_has_sound_other(fixture->fleet, 0, 0, excluded, ENDPOINTS));
    assert_true(route_has_other(fixture->fleet, 0, 0, excluded, ENDPOINTS));
    route_endpoint_set_up(fixture->fleet, 2, false);
    assert_false(route_has_other(fixture->fleet, 0, 0, excluded, ENDPOINTS));
}

static void one_request_probes_an_endpoint_whose_pause_is_over(void **state)
{
    struct fixture *fixture = *state;
    route_fleet_set_ejection(fixture->fleet, 1, PAUSE_NS);
    (void)route_endpoint_failed(fixture->fleet, 2, 0);
    assert_true(share_of_2(fixture, PAUSE_NS) > 0);
    route_request_sent(fixture->fleet, 2, CHUNK, 0);
    for (size_t other = 0; other < ENDPOINTS; other++) { /* The others are busier by far. */
        for (int i = 0; i < 5 && other != 2; i++) {
            route_request_sent(fixture->fleet, other, CHUNK, 0);
        }
    }
    assert_int_equal(share_of_2(fixture, PAUSE_NS), 0); /* The probe is under way. */
    route_request_prefilled(fixture->fleet, 2, CHUNK);
    route_request_ended(fixture->fleet, 2, 0);
    assert_int_equal(share_of_2(fixture, PAUSE_NS), 200); /* It ended without a verdict. */
    assert_true(route_endpoint_answered(fixture->fleet, 2));
    assert_false(route_endpoint_is_ejected(fixture->fleet, 2));
    assert_false(route_endpoint_answered(fixture->fleet, 2)); /* Told once. */
}

static void pauses_double_up_to_a_limit_and_start_anew_after_an_answer(void **state)
{
    struct fixture *fixture = *state;
    route_fleet_set_ejection(fixture->fleet, 1, PAUSE_NS);
    uint64_t now_ns = 0;
    for (unsigned i = 0; i < 6; i++) {
        unsigned doublings = i < ROUTE_EJECTION_DOUBLINGS ? i : ROUTE_EJECTION_DOUBLINGS;
        uint64_t pause_ns = (uint64_t)PAUSE_NS << doublings;
        send_and_fail(fixture, 2, now_ns);
        assert_int_equal(share_of_2(fixture, now_ns + pause_ns - 1), 0);
        now_ns += pause_ns;
        assert_true(share_of_2(fixture, now_ns) > 0);
    }
    assert_true(route_endpoint_answered(fixture->fleet, 2));
    assert_int_equal(route_endpoint_failed(fixture->fleet, 2, now_ns), PAUSE_NS);
}

static void the_ejected_are_taken_where_nobody_else_is_left(void **state)
{
    struct fixture *fixture = *state;
    route_fleet_set_ejection(fixture->fleet, 1, PAUSE_NS);
    for (size_t i = 0; i < ENDPOINTS; i++) {
        (void)route_endpoint_failed(fixture->fleet, i, 0);
    }
    struct route_holder holders[] = {{.endpoint = 1, .bytes = 8 * CHUNK}};
    struct route_query asked = query(10 * CHUNK);
    asked.holders = holders;
    asked.holder_count = 1;
    assert_int_equal(pick(fixture, &asked).endpoint, 1); /* By the same rule as ever. */
    uint32_t excluded[] = {0, 1, 3};
    asked.excluded = excluded;
    asked.excluded_count = 3;
    assert_int_equal(pick(fixture, &asked).endpoint, 2);
    route_endpoint_set_up(fixture->fleet, 2, false);
    struct route_choice choice;
    assert_false(route_pick(fixture->fleet, &asked, &choice)); /* Down is down. */
    asked.policy = ROUTE_ROUNDROBIN;
    asked.excluded_count = 0;
    for (int i = 0; i < 9; i++) {
        assert_int_not_equal(pick(fixture, &asked).endpoint, 2);
    }
    (void)route_endpoint_answered(fixture->fleet, 3);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(pick(fixture, &asked).endpoint, 3);
    }
}

static void without_a_limit_nobody_is_ejected(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(route_endpoint_failed(fixture->fleet, 2, 0), 0);
    }
    assert_true(share_of_2(fixture, 0) > 20);
}

/* ---- The other policies ---- */

static void load(struct fixture *fixture, size_t endpoint, int requests)
{
    for (int i = 0; i < requests; i++) {
        route_request_sent(fixture->fleet, endpoint, 1, 0);
    }
}

static void unload(struct fixture *fixture, size_t endpoint, int requests)
{
    for (int i = 0; i < requests; i++) {
        route_request_prefilled(fixture->fleet, endpoint, 1);
        route_request_ended(fixture->fleet, endpoint, 0);
    }
}

/* Places as uhashring 2.3 gives them. */
static void sessions_have_the_places_of_the_python_router(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"http://127.0.0.1:19001", "http://127.0.0.1:19002",
                                        "http://10.0.0.3:8000"};
    static const struct {
        const char *session;
        size_t endpoint;
    } places[] = {{"a", 1}, {"b", 0}, {"user-1", 2}, {"user-2", 2}, {"12345", 0}, {"9527", 0}};
    assert_true(route_fleet_set_ring(fixture->fleet, names, 3));
    struct route_query asked = query(100);
    asked.policy = ROUTE_SESSION;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        asked.session = span_of(places[i].session);
        struct route_choice choice = pick(fixture, &asked);
        assert_int_equal(choice.endpoint, places[i].endpoint);
        assert_int_equal(choice.outcome, ROUTE_SESSION_KEPT);
    }
}

/* Others keep their places when an endpoint goes, and its own come back with it. */
static void a_session_moves_only_with_its_endpoint(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"http://a", "http://b", NULL, "http://d"};
    enum { SESSIONS = 300 };
    size_t before[SESSIONS];
    size_t counts[ENDPOINTS] = {0};
    char name[16];
    assert_true(route_fleet_set_ring(fixture->fleet, names, ENDPOINTS));
    struct route_query asked = query(100);
    asked.policy = ROUTE_SESSION;
    for (int round = 0; round < 3; round++) {
        route_endpoint_set_up(fixture->fleet, 1, round != 1);
        for (int i = 0; i < SESSIONS; i++) {
            int size = snprintf(name, sizeof name, "session-%d", i);
            asked.session = (struct span){.data = name, .size = (size_t)size};
            size_t now = pick(fixture, &asked).endpoint;
            assert_true(now != 2 && (round != 1 || now != 1));
            if (round == 0) {
                before[i] = now;
                counts[now]++;
            }
            assert_true(now == before[i] || (round == 1 && before[i] == 1));
        }
    }
    assert_true(counts[0] > 50 && counts[1] > 50 && counts[3] > 50);
}

static void without_a_session_the_least_loaded_is_taken(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"http://a", "http://b", "http://c", "http://d"};
    assert_true(route_fleet_set_ring(fixture->fleet, names, ENDPOINTS));
    load(fixture, 0, 2);
    load(fixture, 1, 1);
    load(fixture, 3, 1);
    struct route_query asked = query(100);
    asked.policy = ROUTE_SESSION;
    assert_int_equal(pick(fixture, &asked).endpoint, 2);
    asked.policy = ROUTE_LEASTLOAD;
    assert_int_equal(pick(fixture, &asked).endpoint, 2);
    assert_int_equal(pick(fixture, &asked).outcome, ROUTE_BY_LOAD);
    load(fixture, 2, 1);
    size_t seen[ENDPOINTS] = {0};
    for (int i = 0; i < 300; i++) {
        seen[pick(fixture, &asked).endpoint]++;
    }
    assert_true(seen[0] == 0 && seen[1] > 50 && seen[2] > 50 && seen[3] > 50);
    uint32_t excluded[] = {1, 2, 3};
    asked.excluded = excluded;
    asked.excluded_count = 3;
    assert_int_equal(pick(fixture, &asked).endpoint, 0);
    unload(fixture, 0, 2);
    unload(fixture, 1, 1);
    unload(fixture, 2, 1);
    unload(fixture, 3, 1);
}

/* score = share held - beta x (in flight - mean) / max(1, mean) */
static void loadaware_weighs_share_against_load(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holders[] = {{.endpoint = 1, .bytes = 600}, {.endpoint = 2, .bytes = 300}};
    struct route_query asked = query(1000);
    asked.policy = ROUTE_LOADAWARE;
    asked.beta = 1;
    asked.holders = holders;
    asked.holder_count = 2;
    assert_int_equal(pick(fixture, &asked).endpoint, 1);
    /* Mean 1/2: of 1 it is 0.6 - 1.5, of 2 0.3 + 0.5, of the others 0.5. */
    load(fixture, 1, 2);
    struct route_choice choice = pick(fixture, &asked);
    assert_int_equal(choice.endpoint, 2);
    assert_int_equal(choice.held_bytes, 300);
    assert_int_equal(choice.uncached_bytes, 700);
    asked.beta = 0.1;
    assert_int_equal(pick(fixture, &asked).endpoint, 1);
    /* Mean 2: of 1 it is 0.6, of 2 0.3 - 2, of 0 and 3 it is 1. */
    load(fixture, 2, 6);
    asked.beta = 1;
    choice = pick(fixture, &asked);
    assert_int_equal(choice.endpoint, 0);
    assert_int_equal(choice.outcome, ROUTE_SPREAD);
    asked.holder_count = 0;
    assert_int_equal(pick(fixture, &asked).outcome, ROUTE_BY_LOAD);
    unload(fixture, 1, 2);
    unload(fixture, 2, 6);
}

static void urgent_requests_go_to_the_least_loaded(void **state)
{
    struct fixture *fixture = *state;
    struct route_query asked = query(100);
    asked.policy = ROUTE_PRIORITY;
    load(fixture, 0, 1);
    load(fixture, 1, 1);
    load(fixture, 2, 1);
    for (size_t i = 0; i < 2 * (size_t)ENDPOINTS; i++) {
        assert_int_equal(pick(fixture, &asked).endpoint, i % ENDPOINTS);
        asked.urgent = true;
        assert_int_equal(pick(fixture, &asked).endpoint, 3);
        asked.urgent = false;
    }
    unload(fixture, 0, 1);
    unload(fixture, 1, 1);
    unload(fixture, 2, 1);
}

static void a_ring_without_memory_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"http://a", "http://b"};
    struct route_query asked = query(100);
    asked.policy = ROUTE_SESSION;
    asked.session = span_of("x");
    assert_true(route_fleet_set_ring(fixture->fleet, names, 1));
    assert_int_equal(pick(fixture, &asked).endpoint, 0);
    fixture->mem.fail_after = 0;
    assert_false(route_fleet_set_ring(fixture->fleet, names + 1, 1));
    fixture->mem.fail_after = UINT64_MAX;
    assert_int_equal(pick(fixture, &asked).outcome, ROUTE_SESSION_KEPT);
    assert_true(route_fleet_set_ring(fixture->fleet, NULL, 0));
    assert_int_equal(pick(fixture, &asked).outcome, ROUTE_BY_LOAD);
}

/* One at its limit is passed over by every policy; all at it: nobody, though there are others. */
static void a_full_endpoint_is_no_candidate(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holders[] = {{.endpoint = 2, .bytes = 10 * CHUNK}};
    route_fleet_set_limit(fixture->fleet, 1);
    for (int policy = 0; policy < ROUTE_POLICY_COUNT; policy++) {
        struct route_query asked = query(10 * CHUNK);
        struct route_choice choice;
        asked.policy = (enum route_policy)policy;
        asked.holders = holders;
        asked.holder_count = 1;
        route_request_sent(fixture->fleet, 2, CHUNK, 0);
        for (int i = 0; i < 20; i++) {
            assert_int_not_equal(pick(fixture, &asked).endpoint, 2);
        }
        route_request_sent(fixture->fleet, 0, CHUNK, 0);
        route_request_sent(fixture->fleet, 1, CHUNK, 0);
        assert_int_equal(pick(fixture, &asked).endpoint, 3);
        route_request_sent(fixture->fleet, 3, CHUNK, 0);
        assert_false(route_pick(fixture->fleet, &asked, &choice));
        assert_true(route_has_other(fixture->fleet, 0, 0, NULL, 0));
        for (size_t i = 0; i < ENDPOINTS; i++) {
            route_request_prefilled(fixture->fleet, i, CHUNK);
            route_request_ended(fixture->fleet, i, 0);
        }
    }
}

/* One that is fine but busy is waited for; only where none is fine, one that is ejected is taken.
 */
static void an_ejected_endpoint_does_not_stand_in_for_a_busy_one(void **state)
{
    struct fixture *fixture = *state;
    struct route_query asked = query(10 * CHUNK);
    struct route_choice choice;
    route_fleet_set_limit(fixture->fleet, 1);
    route_fleet_set_ejection(fixture->fleet, 1, 1000);
    for (size_t i = 1; i < ENDPOINTS; i++) {
        assert_int_equal(route_endpoint_failed(fixture->fleet, i, 0), 1000);
    }
    route_request_sent(fixture->fleet, 0, CHUNK, 0);
    assert_false(route_pick(fixture->fleet, &asked, &choice));
    route_endpoint_set_up(fixture->fleet, 0, false);
    assert_int_not_equal(pick(fixture, &asked).endpoint, 0);
    route_request_prefilled(fixture->fleet, 0, CHUNK);
    route_request_ended(fixture->fleet, 0, 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(one_chunk_decides_when_idle),
        CASE(load_outweighs_a_short_match),
        CASE(the_price_is_as_written),
        CASE(a_shorter_holder_may_win),
        CASE(ties_are_broken_at_random),
        CASE(of_equal_ones_that_which_was_sent_least_is_taken),
        CASE(one_that_comes_later_begins_with_the_mean_of_what_was_sent),
        CASE(what_all_hold_decides_nothing),
        CASE(down_excluded_and_others_models_are_no_candidates),
        CASE(roundrobin_rotates_evenly),
        CASE(prefill_time_is_learned),
        CASE(an_endpoint_that_fails_in_a_row_is_ejected_for_a_while),
        CASE(one_that_comes_later_gets_a_share_that_grows),
        CASE(an_ejected_endpoint_is_another_one_but_no_sound_one),
        CASE(one_request_probes_an_endpoint_whose_pause_is_over),
        CASE(pauses_double_up_to_a_limit_and_start_anew_after_an_answer),
        CASE(the_ejected_are_taken_where_nobody_else_is_left),
        CASE(without_a_limit_nobody_is_ejected),
        cmocka_unit_test(out_of_memory_is_told),
        CASE(sessions_have_the_places_of_the_python_router),
        CASE(a_session_moves_only_with_its_endpoint),
        CASE(without_a_session_the_least_loaded_is_taken),
        CASE(loadaware_weighs_share_against_load),
        CASE(urgent_requests_go_to_the_least_loaded),
        CASE(a_ring_without_memory_changes_nothing),
        CASE(a_full_endpoint_is_no_candidate),
        CASE(an_ejected_endpoint_does_not_stand_in_for_a_busy_one),
    };
    return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
