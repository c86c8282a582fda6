/* The queue: order, ranks, shares, deadlines of those that leave, when to come back. */
#include "base/clock.h"
#include "base/random.h"
#include "proxy/admit.h"
#include "support/test.h"

enum { TICKETS = 64 };

struct fixture {
    struct admit admit;
    struct admit_ticket tickets[TICKETS];
    size_t model;    /* Which may go; SIZE_MAX: any. */
    uint64_t barred; /* Client for which there is no place. */
};

static void setup(struct fixture *fixture, uint64_t waiting_max, uint64_t of_client_max)
{
    struct admit_limits limits = {
        .running_max = 1, .waiting_max = waiting_max, .waiting_of_client_max = of_client_max};
    *fixture = (struct fixture){.model = SIZE_MAX, .barred = UINT64_MAX};
    admit_init(&fixture->admit, &limits, 1);
}

static bool may(void *user, struct admit_ticket *ticket)
{
    const struct fixture *fixture = user;
    return (fixture->model == SIZE_MAX || ticket->model == fixture->model) &&
           ticket->client != fixture->barred;
}

static enum admit_verdict join(struct fixture *fixture, size_t number, struct admit_ticket ticket)
{
    fixture->tickets[number] = ticket;
    return admit_join(&fixture->admit, &fixture->tickets[number], 0);
}

/* The number of the next; -1: nobody. */
static int next_at(struct fixture *fixture, uint64_t now_ns)
{
    struct admit_ticket *ticket = admit_grant(&fixture->admit, may, fixture, now_ns);
    return ticket == NULL ? -1 : (int)(ticket - fixture->tickets);
}

static int next(struct fixture *fixture)
{
    return next_at(fixture, 0);
}

static struct admit_ticket ordinary(uint64_t client)
{
    return (struct admit_ticket){.rank = ADMIT_ORDINARY, .client = client};
}

static void first_come_first_served(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 10, 10);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(join(&fixture, i, ordinary(i)), ADMIT_WAITS);
    }
    admit_leave(&fixture.admit, &fixture.tickets[2]);
    assert_int_equal(fixture.admit.waiting, 4);
    assert_int_equal(next(&fixture), 0);
    assert_int_equal(next(&fixture), 1);
    assert_int_equal(next(&fixture), 3);
    assert_true(admit_is_waited_for(&fixture.admit, 0));
    assert_int_equal(next(&fixture), 4);
    assert_false(admit_is_waited_for(&fixture.admit, 0));
    assert_int_equal(next(&fixture), -1);
    admit_fini(&fixture.admit);
}

static void the_queue_is_bounded_and_one_client_has_a_share_of_it(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 4, 2);
    assert_int_equal(join(&fixture, 0, ordinary(7)), ADMIT_WAITS);
    assert_int_equal(join(&fixture, 1, ordinary(7)), ADMIT_WAITS);
    assert_int_equal(join(&fixture, 2, ordinary(7)), ADMIT_CLIENT_FULL);
    assert_int_equal(join(&fixture, 3, ordinary(8)), ADMIT_WAITS);
    assert_int_equal(join(&fixture, 4, ordinary(9)), ADMIT_WAITS);
    assert_int_equal(join(&fixture, 5, ordinary(10)), ADMIT_QUEUE_FULL);
    assert_int_equal(next(&fixture), 0);
    assert_int_equal(join(&fixture, 2, ordinary(7)), ADMIT_WAITS); /* Its share is free again. */
    for (int i = 0; i < 4; i++) {
        assert_true(next(&fixture) >= 0);
    }
    admit_fini(&fixture.admit);
}

static void ranks_go_first_but_nobody_starves(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, TICKETS, TICKETS);
    (void)join(&fixture, 0, (struct admit_ticket){.rank = ADMIT_BACKGROUND, .client = 1});
    (void)join(&fixture, 1, (struct admit_ticket){.rank = ADMIT_ORDINARY, .client = 1});
    for (size_t i = 2; i < 22; i++) {
        (void)join(&fixture, i, (struct admit_ticket){.rank = ADMIT_URGENT, .client = 1});
    }
    for (int i = 0; i < ADMIT_PASSED_OVER_MAX; i++) {
        assert_int_equal(next(&fixture), 2 + i);
    }
    int ninth = next(&fixture);
    int tenth = next(&fixture);
    assert_int_equal(ninth + tenth, 1); /* Both were passed over as often as one may be. */
    assert_int_equal(next(&fixture), 2 + ADMIT_PASSED_OVER_MAX);
    while (next(&fixture) >= 0) {
    }
    admit_fini(&fixture.admit);
}

static void models_take_turns(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, 10, 10);
    for (size_t i = 0; i < 6; i++) {
        (void)join(&fixture, i, (struct admit_ticket){.model = i < 3 ? 0 : 700, .client = 1});
    }
    assert_int_equal(next(&fixture), 0);
    assert_int_equal(next(&fixture), 3);
    assert_int_equal(next(&fixture), 1);
    fixture.model = 0; /* The other model's engines are full. */
    assert_int_equal(next(&fixture), 2);
    assert_int_equal(next(&fixture), -1);
    fixture.model = SIZE_MAX;
    assert_int_equal(next(&fixture), 4);
    assert_int_equal(next(&fixture), 5);
    admit_fini(&fixture.admit);
}

static void those_tried_before_go_first_where_they_can(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, TICKETS, TICKETS);
    (void)join(&fixture, 0, (struct admit_ticket){.rank = ADMIT_URGENT, .client = 1});
    for (size_t i = 1; i < 20; i++) {
        (void)join(&fixture, i, (struct admit_ticket){.tried_before = true, .client = 9});
    }
    fixture.barred = 9;
    assert_int_equal(next(&fixture), 0); /* However many of them cannot go there. */
    assert_int_equal(next(&fixture), -1);
    fixture.barred = UINT64_MAX;
    int first = next(&fixture);
    assert_int_equal(first, 1 + 2 * ADMIT_RETRIES_LOOKED_AT); /* Eight were looked at each time. */
    while (next(&fixture) >= 0) {
    }
    admit_fini(&fixture.admit);
}

static void they_come_back_when_there_may_be_a_place(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture, TICKETS, TICKETS);
    assert_int_equal(admit_retry_after_s(&fixture.admit, 0), 1);
    for (size_t i = 0; i < 10; i++) {
        (void)join(&fixture, i, ordinary(i));
    }
    for (uint64_t i = 1; i <= 5; i++) {
        assert_true(next_at(&fixture, i * 2 * CLOCK_NS_PER_S) >= 0);
    }
    /* Five wait, and one goes every two seconds. */
    assert_int_equal(admit_retry_after_s(&fixture.admit, 10 * CLOCK_NS_PER_S), 6 * 2 + 1);
    /* Nothing has gone for five seconds. */
    assert_int_equal(admit_retry_after_s(&fixture.admit, 15 * CLOCK_NS_PER_S), 6 * 5 + 1);
    assert_int_equal(admit_retry_after_s(&fixture.admit, 1000 * CLOCK_NS_PER_S),
                     ADMIT_RETRY_AFTER_MAX_S);
    while (next(&fixture) >= 0) {
    }
    admit_fini(&fixture.admit);
}

/* Any order of joining, leaving and granting: the counts stay right, and a rank's order. */
static void anything_at_random(void **state)
{
    (void)state;
    struct fixture fixture;
    struct random random = {.state = test_seed()};
    uint64_t joined[TICKETS] = {0};
    uint64_t clock = 1;
    setup(&fixture, 40, 15);
    for (size_t step = 0; step < 20000 * test_scale(); step++) {
        size_t i = random_below(&random, TICKETS);
        struct admit_ticket *ticket = &fixture.tickets[i];
        fixture.model = random_below(&random, 3) == 0 ? SIZE_MAX : random_below(&random, 3);
        if (random_below(&random, 3) == 0) {
            int granted = next_at(&fixture, step);
            for (size_t k = 0; granted >= 0 && k < TICKETS; k++) {
                const struct admit_ticket *other = &fixture.tickets[k];
                const struct admit_ticket *taken = &fixture.tickets[granted];
                bool same =
                    other->waiting && other->model == taken->model && other->rank == taken->rank;
                assert_true(!same || joined[k] > joined[granted]);
            }
        } else if (ticket->waiting) {
            admit_leave(&fixture.admit, ticket);
        } else {
            joined[i] = clock++;
            (void)join(&fixture, i,
                       (struct admit_ticket){.model = random_below(&random, 3),
                                             .rank = (enum admit_rank)random_below(&random, 3),
                                             .client = random_below(&random, 4)});
        }
        uint64_t waiting = 0;
        for (size_t k = 0; k < TICKETS; k++) {
            waiting += fixture.tickets[k].waiting ? 1 : 0;
        }
        assert_int_equal(fixture.admit.waiting, waiting);
        assert_true(waiting <= 40);
    }
    fixture.model = SIZE_MAX;
    while (next(&fixture) >= 0) {
    }
    admit_fini(&fixture.admit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(the_queue_is_bounded_and_one_client_has_a_share_of_it),
        cmocka_unit_test(ranks_go_first_but_nobody_starves),
        cmocka_unit_test(models_take_turns),
        cmocka_unit_test(those_tried_before_go_first_where_they_can),
        cmocka_unit_test(they_come_back_when_there_may_be_a_place),
        cmocka_unit_test(anything_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
