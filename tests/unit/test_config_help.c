#include <string.h>

#include "config/options.h"
#include "support/config_fixture.h"
#include "support/test.h"

static void help_names_every_option_within_80_columns(void **state)
{
    (void)state;
    struct mem mem;
    struct buf help;
    mem_init(&mem, SIZE_MAX);
    buf_init(&help, &mem, 1 << 20);
    assert_true(config_help(&help) && buf_append(&help, "", 1));
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        assert_non_null(strstr(help.data, option_name(&options[i])));
        assert_true(options[i].variable == NULL || strstr(help.data, options[i].variable) != NULL);
    }
    const char *line = help.data;
    while (*line != '\0') {
        size_t size = strcspn(line, "\n");
        if (size > 80 || (size > 0 && line[size - 1] == ' ')) {
            fail_msg("%zu columns: %.*s|", size, (int)size, line);
        }
        line += size + 1;
    }
    assert_non_null(strstr(help.data, "A size from 16MiB to 16TiB. Default:"));
    buf_fini(&help);
    mem_fini(&mem);
}

static void describe_tells_values_and_where_they_came_from(void **state)
{
    (void)state;
    struct config_fixture fixture;
    config_fixture_init(&fixture);
    fixture.variables = ARGUMENTS("HASHTRIE_CHUNK_SIZE", "256");
    config_fixture_load_served(&fixture, ARGUMENTS("--port", "7"));
    struct buf out;
    buf_init(&out, &fixture.mem, 1 << 20);
    assert_true(config_describe(&fixture.config, &out) && buf_append(&out, "", 1));
    static const char *const pieces[] = {" 7  (flag)", " 256  (environment)", " 8GiB  (default)",
                                         "--static-aliases ", "(not set)"};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        assert_non_null(strstr(out.data, pieces[i]));
    }
    buf_fini(&out);
    config_fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_names_every_option_within_80_columns),
        cmocka_unit_test(describe_tells_values_and_where_they_came_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
