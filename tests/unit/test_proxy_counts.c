/* Counts by key, against a plain array. */
#include "base/random.h"
#include "proxy/counts.h"
#include "support/test.h"

enum { KEYS = 200, STEPS = 20000, MAX = 5 };

static void they_count_as_an_array_does(void **state)
{
    (void)state;
    struct mem mem;
    struct counts counts;
    uint64_t plain[KEYS] = {0};
    struct random random = {.state = test_seed()};
    mem_init(&mem, SIZE_MAX);
    counts_init(&counts, &mem, random_next(&random));
    for (size_t i = 0; i < STEPS * test_scale(); i++) {
        uint32_t key = random_below(&random, KEYS);
        if (random_below(&random, 2) == 0) {
            bool fits = plain[key] < MAX;
            assert_int_equal(counts_add(&counts, key, MAX), fits);
            plain[key] += fits ? 1 : 0;
        } else if (plain[key] > 0) {
            counts_drop(&counts, key);
            plain[key]--;
        }
        uint32_t other = random_below(&random, KEYS);
        assert_int_equal(counts_of(&counts, other), plain[other]);
    }
    for (uint32_t key = 0; key < KEYS; key++) {
        assert_int_equal(counts_of(&counts, key), plain[key]);
    }
    counts_fini(&counts);
    mem_fini(&mem);
}

static void without_memory_nothing_is_counted(void **state)
{
    (void)state;
    struct mem mem;
    struct counts counts;
    mem_init(&mem, 16);
    counts_init(&counts, &mem, 1);
    assert_false(counts_add(&counts, 7, 1));
    assert_int_equal(counts_of(&counts, 7), 0);
    counts_fini(&counts);
    mem_fini(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_count_as_an_array_does),
        cmocka_unit_test(without_memory_nothing_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
