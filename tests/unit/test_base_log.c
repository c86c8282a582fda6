/* Log lines in both formats, whatever is put into them. */
#include "base/log.h"
#include "support/test.h"

static const char *last_line(struct log *log)
{
    assert_true(buf_append(&log->lines, "", 1));
    return log->lines.data;
}

/* From behind the time stamp, "2026-08-05T12:00:00.123Z", which `prefix` bytes stand before. */
static const char *rest_of(struct log *log, size_t prefix)
{
    const char *line = last_line(log);
    assert_int_equal(line[prefix + 10], 'T');
    assert_int_equal(line[prefix + 23], 'Z');
    return line + prefix + 24;
}

static const struct log_field fields[] = {
    {.name = "id", .kind = LOG_FIELD_TEXT, .text = {"a7", 2}},
    {.name = "model", .kind = LOG_FIELD_TEXT, .text = {"a \"b\" \\ c\nd", 11}},
    {.name = "empty", .kind = LOG_FIELD_TEXT},
    {.name = "status", .kind = LOG_FIELD_COUNT, .count = 200},
    {.name = "seconds", .kind = LOG_FIELD_SECONDS, .count = 1002003000},
};
enum { FIELD_COUNT = sizeof fields / sizeof *fields };

static void text_has_fields_behind_the_message(void **state)
{
    (void)state;
    struct log log;
    log_init(&log, -1, LOG_INFO, LOG_TEXT);
    log_event(&log, LOG_INFO, "Request ended", fields, FIELD_COUNT);
    assert_string_equal(rest_of(&log, 0),
                        " info Request ended id=a7 model=\"a \\\"b\\\" \\\\ c?d\" "
                        "empty=\"\" status=200 seconds=1.002003\n");
    log.lines.size = 0;
    log_fini(&log);
}

static void json_is_one_object(void **state)
{
    (void)state;
    struct log log;
    log_init(&log, -1, LOG_INFO, LOG_JSON);
    log_event(&log, LOG_WARNING, "Request ended", fields, FIELD_COUNT);
    assert_string_equal(rest_of(&log, 9),
                        "\",\"level\":\"warning\",\"message\":\"Request ended\",\"id\":\"a7\","
                        "\"model\":\"a \\\"b\\\" \\\\ c?d\",\"empty\":\"\",\"status\":200,"
                        "\"seconds\":1.002003}\n");
    log.lines.size = 0;
    log_fini(&log);
}

static void no_input_forges_a_line(void **state)
{
    (void)state;
    struct log log;
    log_init(&log, -1, LOG_INFO, LOG_JSON);
    log_write(&log, LOG_INFO, "a%s", "\"}\n{\"level\":\"error\xff\x7f");
    assert_string_equal(rest_of(&log, 9), "\",\"level\":\"info\",\"message\":"
                                          "\"a\\\"}?{\\\"level\\\":\\\"error??\"}\n");
    log.lines.size = 0;
    log_fini(&log);
}

static void less_severe_lines_are_not_made(void **state)
{
    (void)state;
    struct log log;
    log_init(&log, -1, LOG_WARNING, LOG_TEXT);
    log_write(&log, LOG_INFO, "not made");
    log_event(&log, LOG_DEBUG, "nor this", NULL, 0);
    assert_int_equal(log.lines.size, 0);
    log_write(&log, LOG_WARNING, "made");
    assert_string_equal(rest_of(&log, 0), " warning made\n");
    log.lines.size = 0;
    log_fini(&log);
}

static void what_does_not_fit_leaves_nothing(void **state)
{
    (void)state;
    struct log log;
    log_init(&log, -1, LOG_INFO, LOG_JSON);
    log.mem.bytes_limit = 600;
    log_write(&log, LOG_INFO, "fits");
    size_t before = log.lines.size;
    log_write(&log, LOG_INFO, "%1000s", "does not");
    assert_int_equal(log.lines.size, before);
    assert_int_equal(log.lines_lost, 1);
    log.lines.size = 0;
    log_fini(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_has_fields_behind_the_message),
        cmocka_unit_test(json_is_one_object),
        cmocka_unit_test(no_input_forges_a_line),
        cmocka_unit_test(less_severe_lines_are_not_made),
        cmocka_unit_test(what_does_not_fit_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
