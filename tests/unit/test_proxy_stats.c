#include "proxy/stats.h"
#include "support/test.h"

static void counters_add_up(void **state)
{
    (void)state;
    struct mem mem;
    struct stats stats;
    mem_init(&mem, SIZE_MAX);
    assert_true(stats_init(&stats, &mem));
    stats_add(&stats.incoming[STATS_MODEL_UNKNOWN], 1);
    stats_add(&stats.retries, 2);
    stats_add(&stats.retries, 3);
    assert_int_equal(stats_get(&stats.retries), 5);
    stats_fini(&stats);
    mem_fini(&mem);
}

static void no_memory_is_an_answer(void **state)
{
    (void)state;
    struct mem mem;
    struct stats stats;
    mem_init(&mem, SIZE_MAX);
    mem.fail_after = 0;
    mem.fail_count = UINT64_MAX;
    assert_false(stats_init(&stats, &mem));
    stats_fini(&stats);
    mem_fini(&mem);
}

static void failures_have_a_type(void **state)
{
    (void)state;
    assert_int_equal(stats_error_of(NET_REFUSED, true), STATS_CONNECT_REFUSED);
    assert_int_equal(stats_error_of(NET_TIMED_OUT, true), STATS_CONNECT_TIMEOUT);
    assert_int_equal(stats_error_of(NET_NO_NAME, true), STATS_CONNECT_FAILED);
    assert_int_equal(stats_error_of(NET_RESET, false), STATS_DISCONNECTED);
    assert_int_equal(stats_error_of(NET_INVALID, false), STATS_BAD_ANSWER);
    assert_string_equal(stats_error_name(STATS_BAD_ANSWER), "InvalidResponse");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_add_up),
        cmocka_unit_test(no_memory_is_an_answer),
        cmocka_unit_test(failures_have_a_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
