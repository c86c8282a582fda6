/* The bound on request bodies: who may read on, who waits, who is woken. */
#include "proxy/body.h"
#include "support/test.h"

enum { MIB = 1024 * 1024 };

static int a;
static int b;
static int c;

static void the_soft_limit_leaves_room_for_one_body(void **state)
{
    (void)state;
    struct bodies bodies;
    bodies_init(&bodies, 100 * MIB, 10 * MIB);
    assert_int_equal(bodies.bytes_soft, 90 * MIB);
    bodies_init(&bodies, 100 * MIB, 64 * MIB); /* Never less than half. */
    assert_int_equal(bodies.bytes_soft, 50 * MIB);
}

static void one_goes_on_past_the_limit(void **state)
{
    (void)state;
    struct bodies bodies;
    bodies_init(&bodies, 10 * MIB, 2 * MIB);
    bodies_add(&bodies, 8 * MIB - 1);
    assert_true(bodies_may_read(&bodies, &a));
    assert_true(bodies_may_read(&bodies, &b));
    bodies_add(&bodies, 1);
    assert_true(bodies_may_read(&bodies, &a)); /* The finisher from now on. */
    assert_false(bodies_may_read(&bodies, &b));
    assert_false(bodies_may_read(&bodies, &c));
    assert_true(bodies_may_read(&bodies, &a));
}

static void those_that_wait_are_woken_once(void **state)
{
    (void)state;
    struct bodies bodies;
    bodies_init(&bodies, 10 * MIB, 2 * MIB);
    bodies_add(&bodies, 9 * MIB);
    assert_true(bodies_may_read(&bodies, &a));
    assert_false(bodies_may_read(&bodies, &b));
    assert_false(bodies_free(&bodies, &c, MIB / 2)); /* Still too much, and no finisher. */
    assert_true(bodies_free(&bodies, &c, 2 * MIB));
    assert_false(bodies_free(&bodies, &c, MIB)); /* Nobody waits any more. */
    assert_true(bodies_may_read(&bodies, &b));
}

static void the_next_finisher_follows_the_first(void **state)
{
    (void)state;
    struct bodies bodies;
    bodies_init(&bodies, 10 * MIB, 2 * MIB);
    bodies_add(&bodies, 10 * MIB);
    assert_true(bodies_may_read(&bodies, &a));
    assert_false(bodies_may_read(&bodies, &b));
    assert_true(bodies_free(&bodies, &a, MIB)); /* Full as before, but somebody may finish. */
    assert_true(bodies_may_read(&bodies, &b));
    assert_false(bodies_may_read(&bodies, &c));
}

static void a_reservation_given_back_wakes_as_well(void **state)
{
    (void)state;
    struct bodies bodies;
    bodies_init(&bodies, 10 * MIB, 2 * MIB);
    bodies_add(&bodies, 9 * MIB);
    assert_true(bodies_may_read(&bodies, &a));
    assert_false(bodies_may_read(&bodies, &b));
    assert_false(bodies_give_back(&bodies, MIB));
    assert_true(bodies_give_back(&bodies, 1));
    assert_true(bodies_may_read(&bodies, &b));
    assert_true(bodies_may_read(&bodies, &a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_soft_limit_leaves_room_for_one_body),
        cmocka_unit_test(one_goes_on_past_the_limit),
        cmocka_unit_test(those_that_wait_are_woken_once),
        cmocka_unit_test(the_next_finisher_follows_the_first),
        cmocka_unit_test(a_reservation_given_back_wakes_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
