#include "base/random.h"
#include "store/filter.h"
#include "support/test.h"

static void never_a_false_negative_and_few_false_positives(void **state)
{
    (void)state;
    enum { ROWS = 100000 };
    uint64_t seed = test_seed();
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct filter filter;
    assert_true(filter_init(&filter, &mem, ROWS / 3 * 2, (size_t)1 << 20));
    assert_true(filter.capacity >= ROWS - 2);
    struct random random = {.state = seed};
    for (int i = 0; i < ROWS; i++) {
        uint64_t prefix = random_next(&random);
        filter_add(&filter, prefix, (uint32_t)random_next(&random));
    }
    random.state = seed;
    for (int i = 0; i < ROWS; i++) {
        uint64_t prefix = random_next(&random);
        assert_true(filter_may_have(&filter, prefix, (uint32_t)random_next(&random)));
    }
    int wrong = 0;
    for (int i = 0; i < ROWS; i++) {
        uint64_t prefix = random_next(&random);
        wrong += filter_may_have(&filter, prefix, (uint32_t)random_next(&random));
    }
    assert_true(wrong < ROWS / 400);
    filter_fini(&filter, &mem);
    mem_fini(&mem);
}

/* Children of one node differ in the fingerprint alone. */
static void tells_siblings_apart(void **state)
{
    (void)state;
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct filter filter;
    assert_true(filter_init(&filter, &mem, 0, (size_t)1 << 20));
    for (uint32_t fp = 0; fp < 30000; fp++) {
        filter_add(&filter, 42, fp);
    }
    int wrong = 0;
    for (uint32_t fp = 30000; fp < 60000; fp++) {
        wrong += filter_may_have(&filter, 42, fp);
    }
    assert_true(wrong < 100);
    filter_fini(&filter, &mem);
    mem_fini(&mem);
}

static void keeps_to_its_memory(void **state)
{
    (void)state;
    struct mem mem;
    mem_init(&mem, (size_t)1 << 20);
    struct filter filter = {0};
    assert_true(filter_may_have(&filter, 1, 2)); /* Not built: maybe. */
    filter_add(&filter, 1, 2);
    assert_false(filter_init(&filter, &mem, UINT64_C(1) << 40, (size_t)2 << 20));
    assert_true(filter_init(&filter, &mem, UINT64_C(1) << 40, (size_t)64 << 10));
    assert_int_equal(filter_bytes(&filter), 64 << 10);
    filter_add(&filter, 1, 2);
    assert_true(filter_may_have(&filter, 1, 2));
    filter_fini(&filter, &mem);
    mem_fini(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_a_false_negative_and_few_false_positives),
        cmocka_unit_test(tells_siblings_apart),
        cmocka_unit_test(keeps_to_its_memory),
    };
    return cmocka_run_group_tests_name("store filter", tests, NULL, NULL);
}
