/* The retry budget: its floor, its share, its window. */
#include "proxy/budget.h"
#include "support/test.h"

static unsigned take_all(struct budget *budget, double share, uint64_t now_s)
{
    unsigned taken = 0;
    while (taken < 100000 && budget_take_retry(budget, share, now_s)) {
        taken++;
    }
    return taken;
}

static void without_requests_the_floor_is_granted(void **state)
{
    (void)state;
    struct budget budget = {0};
    assert_int_equal(take_all(&budget, 0.2, 1000), BUDGET_FLOOR);
    assert_int_equal(take_all(&budget, 0.2, 1001), 0);
    assert_int_equal(take_all(&budget, 0.2, 1000 + BUDGET_WINDOW_S - 1), 0);
    assert_int_equal(take_all(&budget, 0.2, 1000 + BUDGET_WINDOW_S), BUDGET_FLOOR);
}

static void a_share_of_the_requests_is_granted_besides(void **state)
{
    (void)state;
    struct budget budget = {0};
    for (unsigned i = 0; i < 1000; i++) {
        budget_add_request(&budget, 5 + i / 500);
    }
    assert_int_equal(take_all(&budget, 0.2, 6), BUDGET_FLOOR + 200);
    assert_int_equal(take_all(&budget, 0.3, 6), 100);
    assert_int_equal(take_all(&budget, 0, 6), 0);
    /* The first 500 leave the window before the retries do. */
    assert_int_equal(take_all(&budget, 0.5, 5 + BUDGET_WINDOW_S), 0);
    assert_int_equal(take_all(&budget, 0.5, 6 + BUDGET_WINDOW_S), BUDGET_FLOOR);
}

static void a_clock_that_steps_back_or_far_ahead_does_no_harm(void **state)
{
    (void)state;
    struct budget budget = {0};
    budget_add_request(&budget, 1000);
    budget_add_request(&budget, 10);
    assert_int_equal(budget.request_sum, 2);
    assert_int_equal(take_all(&budget, 1, UINT64_MAX), BUDGET_FLOOR);
    assert_int_equal(budget.request_sum, 0);
    assert_int_equal(take_all(&budget, 1, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_requests_the_floor_is_granted),
        cmocka_unit_test(a_share_of_the_requests_is_granted_besides),
        cmocka_unit_test(a_clock_that_steps_back_or_far_ahead_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
