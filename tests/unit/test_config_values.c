#include <string.h>

#include "base/random.h"
#include "config/options.h"
#include "support/test.h"

static void sizes_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"1", 1},
        {"512MiB", UINT64_C(512) << 20},
        {"512mib", UINT64_C(512) << 20},
        {"8GiB", UINT64_C(8) << 30},
        {"1.5GiB", UINT64_C(3) << 29},
        {"64KB", 64000},
        {"2TB", UINT64_C(2000000000000)},
        {"7B", 7},
        {"18446744073709551615", UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t bytes = 1;
        assert_true(value_read_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    static const char *const bad[] = {"",
                                      "MiB",
                                      "-1",
                                      "1 MiB",
                                      "1XiB",
                                      "1.MiB",
                                      ".5MiB",
                                      "18446744073709551616",
                                      "1e3",
                                      "0x10",
                                      "16777216TiB",
                                      "1MiB ",
                                      "1.00000000000000000001MiB"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t bytes = 0;
        if (value_read_size(bad[i], &bytes)) {
            fail_msg("\"%s\" was read as a size", bad[i]);
        }
    }
}

static void durations_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t nanoseconds;
    } good[] = {
        {"0", 0},
        {"500us", 500000},
        {"20ms", 20000000},
        {"1s", 1000000000},
        {"0.5s", 500000000},
        {"5m", UINT64_C(300000000000)},
        {"1h", UINT64_C(3600000000000)},
        {"2d", UINT64_C(172800000000000)},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t nanoseconds = 1;
        assert_true(value_read_duration(good[i].text, &nanoseconds));
        assert_int_equal(nanoseconds, good[i].nanoseconds);
    }
    static const char *const bad[] = {"", "1", "20", "s", "1sec", "-1s", "1 s", "99999999999d"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t nanoseconds = 0;
        if (value_read_duration(bad[i], &nanoseconds)) {
            fail_msg("\"%s\" was read as a duration", bad[i]);
        }
    }
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    struct random random = {test_seed()};
    struct mem mem;
    struct buf buf;
    mem_init(&mem, SIZE_MAX);
    buf_init(&buf, &mem, 256);
    for (int i = 0; i < 10000; i++) {
        uint64_t value = random_next(&random) >> random_below(&random, 64);
        value = value >> (unsigned)random_below(&random, 3) * 10 << random_below(&random, 20);
        uint64_t back = 0;
        buf.size = 0;
        assert_true(value_write_size(&buf, value) && buf_append(&buf, "", 1));
        assert_true(value_read_size(buf.data, &back));
        assert_int_equal(back, value);
        value -= value % 1000;
        buf.size = 0;
        assert_true(value_write_duration(&buf, value) && buf_append(&buf, "", 1));
        assert_true(value_read_duration(buf.data, &back));
        assert_int_equal(back, value);
    }
    buf_fini(&buf);
    mem_fini(&mem);
}

static void decimals_are_read(void **state)
{
    (void)state;
    double value = 0;
    assert_true(value_read_decimal("0.9", &value) && value == 0.9);
    assert_true(value_read_decimal("1", &value) && value == 1);
    assert_true(value_read_decimal(".5", &value) && value == 0.5);
    assert_false(value_read_decimal("", &value));
    assert_false(value_read_decimal(".", &value));
    assert_false(value_read_decimal("1e1", &value));
    assert_false(value_read_decimal("nan", &value));
    assert_false(value_read_decimal("0.5 ", &value));
}

/* Every option of the table is complete, and its own default passes its own checks. */
static void the_table_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        const struct option *option = &options[i];
        assert_non_null(option->help);
        assert_non_null(option_name(option));
        assert_true(option->kind == OPTION_SWITCH || option_default(option) != NULL);
        assert_true(option->flag == NULL || option->kind == OPTION_SWITCH ||
                    option_metavar(option) != NULL);
        struct config config = {0};
        if (option->fallback != NULL) {
            assert_true(option_store(option, option->fallback, false, &config));
        }
        for (size_t k = 0; k < i; k++) {
            assert_true(option->flag == NULL || options[k].flag == NULL ||
                        strcmp(option->flag, options[k].flag) != 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(decimals_are_read),
        cmocka_unit_test(the_table_is_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
