#include <stdio.h>
#include <string.h>

#include "hashtrie/status.h"

#include "support/test.h"

static void each_status_has_its_own_text(void **state)
{
    (void)state;
    const enum hashtrie_status all[] = {
#define VALUE(name, value, text) HASHTRIE_##name,
        HASHTRIE_STATUS_MAP(VALUE)
#undef VALUE
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_true(strlen(hashtrie_strerror(all[i])) > 0);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(all[i], all[j]);
            assert_string_not_equal(hashtrie_strerror(all[i]), hashtrie_strerror(all[j]));
        }
    }
    assert_string_equal(hashtrie_strerror(HASHTRIE_EINVAL), "invalid argument");
    assert_string_equal(hashtrie_strerror((enum hashtrie_status)1234), "unknown status");
}

static void the_library_that_runs_is_that_of_the_headers(void **state)
{
    (void)state;
    char version[32];
    (void)snprintf(version, sizeof version, "%d.%d.%d", HASHTRIE_VERSION_MAJOR,
                   HASHTRIE_VERSION_MINOR, HASHTRIE_VERSION_PATCH);
    assert_string_equal(hashtrie_version(), version);
    assert_int_equal(hashtrie_format_version(), HASHTRIE_FORMAT_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_status_has_its_own_text),
        cmocka_unit_test(the_library_that_runs_is_that_of_the_headers),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
