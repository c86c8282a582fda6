/* Sums over a window that slides. */
#include "base/random.h"
#include "proxy/recent.h"
#include "support/test.h"

#define SECOND UINT64_C(1000000000)
#define MINUTE (60 * SECOND)

static const struct recent_sums one = {
    .arrivals = 1, .ended = 2, .latency_us = 3, .streams = 4, .gaps = 5, .stream_us = 6};

static void what_is_older_than_the_window_leaves(void **state)
{
    (void)state;
    struct recent recent = {0};
    for (uint64_t i = 0; i < 120; i++) {
        recent_add(&recent, MINUTE, 1000 * SECOND + i * SECOND / 2, &one);
    }
    struct recent_sums sums = recent_get(&recent, MINUTE, 1059 * SECOND);
    assert_int_equal(sums.arrivals, 120);
    assert_int_equal(sums.ended, 240);
    assert_int_equal(sums.latency_us, 360);
    assert_int_equal(sums.streams, 480);
    assert_int_equal(sums.gaps, 600);
    assert_int_equal(sums.stream_us, 720);
    assert_int_equal(recent_get(&recent, MINUTE, 1089 * SECOND).arrivals, 60);
    assert_int_equal(recent_get(&recent, MINUTE, 1080 * SECOND).arrivals, 60); /* Steps back. */
    sums = recent_get(&recent, MINUTE, 5000 * SECOND);
    assert_memory_equal(&sums, &(struct recent_sums){0}, sizeof sums);
}

/* Against all that was added, at random times and with any window. */
static void sums_are_those_of_the_last_slots(void **state)
{
    (void)state;
    enum { ADDED_MAX = 400 };
    struct random random = {.state = test_seed()};
    uint64_t window_ns = (1 + random_below(&random, 3600)) * SECOND;
    uint64_t slot_ns = window_ns / RECENT_SLOTS;
    uint64_t times[ADDED_MAX];
    struct recent recent = {0};
    uint64_t now_ns = random_below(&random, UINT32_MAX);
    for (size_t i = 0; i < ADDED_MAX; i++) {
        now_ns += random_below(&random, (uint32_t)(slot_ns / 1000)) * 4000;
        times[i] = now_ns;
        recent_add(&recent, window_ns, now_ns, &one);
        uint64_t slot = now_ns / slot_ns;
        uint32_t expected = 0;
        for (size_t k = 0; k <= i; k++) {
            expected += times[k] / slot_ns + RECENT_SLOTS > slot ? 1 : 0;
        }
        struct recent_sums sums = recent_get(&recent, window_ns, now_ns);
        assert_int_equal(sums.arrivals, expected);
        assert_int_equal(sums.stream_us, 6 * (uint64_t)expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_older_than_the_window_leaves),
        cmocka_unit_test(sums_are_those_of_the_last_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
