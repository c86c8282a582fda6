#include <string.h>

#include "support/config_fixture.h"
#include "support/test.h"

static struct config_fixture fixture;

static int set_up(void **state)
{
    (void)state;
    config_fixture_init(&fixture);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    config_fixture_fini(&fixture);
    return 0;
}

static void expect_message(const char *part)
{
    assert_int_equal(fixture.action, CONFIG_REFUSED);
    if (strstr(fixture.messages.data, part) == NULL) {
        fail_msg("\"%s\" is missing in: %s", part, fixture.messages.data);
    }
}

static void both_forms_of_a_value_are_read(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS("--port", "81", "--host=::1"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_int_equal(fixture.config.port, 81);
    assert_string_equal(fixture.config.host, "::1");
    config_fixture_load_served(&fixture, ARGUMENTS("--store-path=/a=b", "--port=1", "--port=2"));
    assert_string_equal(fixture.config.store_path, "/a=b");
    assert_int_equal(fixture.config.port, 2); /* The last one wins. */
}

static void an_unambiguous_start_is_enough(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS("--po", "81", "--max-inst=5"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_int_equal(fixture.config.port, 81);
    assert_int_equal(fixture.config.failover_attempts_max, 5);
    config_fixture_load_served(&fixture, ARGUMENTS("--max-b", "1MiB"));
    expect_message("--max-b is ambiguous: it could be --max-body-size, --max-buffered-bytes");
    config_fixture_load_served(&fixture, ARGUMENTS("--", "x"));
    expect_message("unknown option --");
}

static void an_unknown_flag_names_the_nearest(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS("--prot", "81"));
    expect_message("unknown option --prot; did you mean --port?");
    assert_null(strstr(fixture.messages.data, "\"81\"")); /* It was the value of the mistake. */
    config_fixture_load_served(&fixture, ARGUMENTS("--checkpiont-interval=1s"));
    expect_message("did you mean --checkpoint-interval?");
    config_fixture_load_served(&fixture, ARGUMENTS("--zzzzzzzzzzzzzzzzz"));
    expect_message("--help lists all");
    config_fixture_load_served(&fixture, ARGUMENTS("-x"));
    expect_message("unknown option -x");
}

static void values_are_needed_where_they_are_needed(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS("--port"));
    expect_message("--port needs a value: --port N");
    config_fixture_load_served(&fixture, ARGUMENTS("--host", "--port", "1"));
    expect_message("--host needs a value");
    config_fixture_load_served(&fixture, ARGUMENTS("--no-store=yes"));
    expect_message("--no-store takes no value");
    config_fixture_load_served(&fixture, ARGUMENTS("stray"));
    expect_message("\"stray\" is no option");
}

static void a_name_of_any_length_is_refused_calmly(void **state)
{
    (void)state;
    char name[5000];
    memset(name, 'a', sizeof name);
    name[0] = '-';
    name[1] = '-';
    name[sizeof name - 1] = '\0';
    config_fixture_load_served(&fixture, ARGUMENTS(name));
    assert_int_equal(fixture.action, CONFIG_REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_forms_of_a_value_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_unambiguous_start_is_enough, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_unknown_flag_names_the_nearest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_are_needed_where_they_are_needed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_of_any_length_is_refused_calmly, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
