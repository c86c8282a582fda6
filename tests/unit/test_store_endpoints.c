#include "unit/store_support.h"

static int setup(void **state)
{
    static struct test_store test;
    test_store_init(&test);
    *state = &test;
    return 0;
}

static int teardown(void **state)
{
    test_store_fini(*state);
    return 0;
}

/* Engines come and go; those on record must not take the place of those that are there. */
static void gone_endpoints_do_not_fill_the_budget(void **state)
{
    enum { ROUNDS = 8, ENDPOINTS = 900 };
    struct test_store *test = *state;
    test->budget = HASHTRIE_BUDGET_MIN;
    for (int round = 0; round < ROUNDS; round++) {
        test_store_open(test);
        hashtrie_endpoint endpoint = 0;
        for (int i = 0; i < ENDPOINTS; i++) {
            char name[64];
            (void)snprintf(name, sizeof name, "http://engine-%d-%d:8000", round, i);
            endpoint = test_store_endpoint(test, name);
        }
        struct test_key key = test_store_key(7, (uint64_t)round << 32, 20);
        test_store_insert(test, &key, endpoint);
        assert_int_equal(test_store_match(test, &key).holder_count, 1);
        test_store_close(test);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gone_endpoints_do_not_fill_the_budget, setup, teardown),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store endpoints", tests, NULL, NULL);
}
