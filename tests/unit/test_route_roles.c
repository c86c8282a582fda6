/* Endpoints that prefill, and endpoints that decode. */
#include "route/route.h"
#include "support/test.h"

enum { CHUNK = 128, TOKENS_COST = ROUTE_IN_FLIGHT_TOKENS * ROUTE_BYTES_PER_TOKEN };

/* 0 and 1 prefill, 2 and 3 decode, 4 does neither. */
enum { ENDPOINTS = 5 };

struct fixture {
    struct mem mem;
    struct route_fleet *fleet;
};

static int setup(void **state)
{
    static const unsigned roles[ENDPOINTS] = {ROUTE_PREFILL, ROUTE_PREFILL, ROUTE_DECODE,
                                              ROUTE_DECODE, ROUTE_PLAIN};
    static struct fixture fixture;
    mem_init(&fixture.mem, SIZE_MAX);
    fixture.fleet = route_fleet_new(&fixture.mem, 7);
    assert_non_null(fixture.fleet);
    for (int i = 0; i < ENDPOINTS; i++) {
        assert_int_equal(route_endpoint_add(fixture.fleet), i);
        assert_true(route_endpoint_serves(fixture.fleet, (size_t)i, "m"));
        route_endpoint_set_roles(fixture.fleet, (size_t)i, roles[i]);
    }
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

static struct route_query query(enum route_policy policy, unsigned roles)
{
    return (struct route_query){.policy = policy,
                                .roles = roles,
                                .has_prompt = true,
                                .prompt_bytes = 10 * CHUNK,
                                .chunk_bytes = CHUNK};
}

/* Bit e: endpoint e was chosen in some of many picks. */
static unsigned chosen(struct fixture *fixture, const struct route_query *asked)
{
    unsigned seen = 0;
    for (int i = 0; i < 200; i++) {
        struct route_choice choice;
        assert_true(route_pick(fixture->fleet, asked, &choice));
        seen |= 1U << choice.endpoint;
    }
    return seen;
}

static void only_those_with_the_role_are_candidates(void **state)
{
    static const enum route_policy policies[] = {ROUTE_PREFIXAWARE, ROUTE_ROUNDROBIN,
                                                 ROUTE_LEASTLOAD, ROUTE_LOADAWARE};
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        struct route_query asked = query(policies[i], ROUTE_PREFILL);
        assert_int_equal(chosen(fixture, &asked), 0x03);
        asked.roles = ROUTE_DECODE;
        assert_int_equal(chosen(fixture, &asked), 0x0c);
        asked.roles = ROUTE_DECODE | ROUTE_PLAIN;
        assert_int_equal(chosen(fixture, &asked), 0x1c);
        asked.roles = 0;
        assert_int_equal(chosen(fixture, &asked), 0x1f);
    }
}

static void a_holder_of_another_role_does_not_count(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holders[] = {{.endpoint = 2, .bytes = 10 * CHUNK},
                                     {.endpoint = 1, .bytes = CHUNK}};
    struct route_query asked = query(ROUTE_PREFIXAWARE, ROUTE_PREFILL);
    asked.holders = holders;
    asked.holder_count = 2;
    struct route_choice choice;
    assert_true(route_pick(fixture->fleet, &asked, &choice));
    assert_int_equal(choice.endpoint, 1);
    assert_int_equal(choice.outcome, ROUTE_HOLDER);
    asked.roles = ROUTE_DECODE;
    assert_true(route_pick(fixture->fleet, &asked, &choice));
    assert_int_equal(choice.endpoint, 2);
}

/* Fetching a prompt is cheaper than computing it: less load outweighs it. */
static void what_is_fetched_costs_a_third(void **state)
{
    struct fixture *fixture = *state;
    struct route_holder holder = {.endpoint = 2, .bytes = 2 * TOKENS_COST};
    struct route_query asked = query(ROUTE_PREFIXAWARE, ROUTE_DECODE);
    asked.prompt_bytes = 2 * TOKENS_COST + CHUNK;
    asked.holders = &holder;
    asked.holder_count = 1;
    asked.received = true;
    for (int load = 0; load < 8; load++) {
        asked.received = true;
        assert_int_equal(chosen(fixture, &asked), load < 2 ? 0x04 : 0x08);
        asked.received = false;
        assert_int_equal(chosen(fixture, &asked), load < 6 ? 0x04 : 0x08);
        route_request_sent(fixture->fleet, 2, 0, 0);
    }
}

static void others_are_those_with_the_role(void **state)
{
    struct fixture *fixture = *state;
    uint32_t excluded[] = {0};
    assert_true(route_has_other(fixture->fleet, 0, ROUTE_PREFILL, excluded, 1));
    route_endpoint_set_up(fixture->fleet, 1, false);
    assert_false(route_has_other(fixture->fleet, 0, ROUTE_PREFILL, excluded, 1));
    assert_false(route_has_sound_other(fixture->fleet, 0, ROUTE_PREFILL, excluded, 1));
    assert_true(route_has_sound_other(fixture->fleet, 0, ROUTE_DECODE, excluded, 1));
    assert_true(route_has_other(fixture->fleet, 0, 0, excluded, 1));
}

static void a_busy_one_of_another_role_is_not_waited_for(void **state)
{
    struct fixture *fixture = *state;
    route_fleet_set_limit(fixture->fleet, 1);
    route_fleet_set_ejection(fixture->fleet, 1, 1000);
    route_endpoint_set_up(fixture->fleet, 1, false);
    assert_int_equal(route_endpoint_failed(fixture->fleet, 0, 1), 1000);
    route_request_sent(fixture->fleet, 2, 0, 0); /* Full. */
    struct route_query asked = query(ROUTE_PREFIXAWARE, ROUTE_PREFILL);
    struct route_choice choice;
    assert_true(route_pick(fixture->fleet, &asked, &choice)); /* Ejected, but there is no other. */
    assert_int_equal(choice.endpoint, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(only_those_with_the_role_are_candidates),
        CASE(a_holder_of_another_role_does_not_count),
        CASE(what_is_fetched_costs_a_third),
        CASE(others_are_those_with_the_role),
        CASE(a_busy_one_of_another_role_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
