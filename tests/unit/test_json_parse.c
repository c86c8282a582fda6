/* What counts as JSON, and that no bytes whatever make the parser read past the document. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "json/json.h"
#include "support/test.h"

static struct mem mem;

static int setup(void **state)
{
    mem_init(&mem, SIZE_MAX);
    *state = json_parser_new(&mem);
    return 0;
}

static int teardown(void **state)
{
    json_parser_free(*state);
    mem_fini(&mem);
    return 0;
}

/* Parses a copy without a byte to spare, so that a sanitizer sees every read past the end. */
static enum json_status parse_exact(struct json_parser *parser, const char *bytes, size_t size)
{
    char *copy = malloc(size > 0 ? size : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    enum json_status status = json_parse(parser, copy, size);
    json_parser_release(parser);
    free(copy);
    return status;
}

static void test_accepts(void **state)
{
    static const char *const valid[] = {
        "{}",
        "[]",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12.5e+3",
        "1E5",
        "0.0",
        "\"\"",
        "\"a\"",
        " \t\r\n[ ] \n",
        "[1]",
        "[1,2 , 3]",
        "{\"a\":1}",
        "{ \"a\" : { } , \"b\" : [ ] }",
        "[[[]],[{}]]",
        "\"\\u0000\\ud800 \\n\\\"\\\\\\/\\b\\f\\r\\t\"",
        "\"\xe4\xbd\xa0\xf0\x9f\x98\x80\"",
        "{\"\":\"\"}",
        "{\"a\":1,\"a\":2}",
        "123456789012345678901234567890",
        "\"a]b}c,d:e\"",
        "[\"x\"   ]",
        "1e999",
        "\"\x7f\"",
    };
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        if (parse_exact(*state, valid[i], strlen(valid[i])) != JSON_OK) {
            fail_msg("refused: %s", valid[i]);
        }
    }
}

static void test_refuses(void **state)
{
    static const char *const invalid[] = {
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a",
        "a",
        "tru",
        "truee",
        "nul",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "1.e1",
        "0x10",
        "1 2",
        "[1 2]",
        "[1,]",
        "[,1]",
        "[,]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{1:2}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "[1}",
        "{\"a\":1]",
        "[]]",
        "{}{}",
        "[] 1",
        "\"a\"b",
        "\"a\"\"b\"",
        "1\"a\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\\"",
        "\"a\nb\"",
        "\"\x01\"",
        "'a'",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xe4\xbd\"",
        "\xe4",
        "[1]\x0c",
        "[1\x1a]",
        "{\"a\"\x1a 1}",
        "{\"a\":1:2}",
        "[1:2]",
        "{\"a\",1}",
        "[\"a\":1]",
        "[true,fals]",
        "// a\n1",
        "[1] //",
        "\xef\xbb\xbf{}",
        "{\"a\":{}",
        "[[]",
        "{\"a\":[}",
        "[{\"a\":1]}",
    };
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        if (parse_exact(*state, invalid[i], strlen(invalid[i])) != JSON_INVALID) {
            fail_msg("not refused: %s", invalid[i]);
        }
    }
    assert_int_equal(parse_exact(*state, "1\0", 2), JSON_INVALID);
    assert_int_equal(parse_exact(*state, "\"a\0b\"", 5), JSON_INVALID);
}

static enum json_status parse_nested(struct json_parser *parser, char open, char close,
                                     size_t depth)
{
    char *text = malloc(2 * depth);
    assert_non_null(text);
    memset(text, open, depth);
    memset(text + depth, close, depth);
    enum json_status status = json_parse(parser, text, 2 * depth);
    free(text);
    return status;
}

static void test_depth(void **state)
{
    assert_int_equal(parse_nested(*state, '[', ']', JSON_DEPTH_MAX), JSON_OK);
    assert_int_equal(parse_nested(*state, '[', ']', JSON_DEPTH_MAX + 1), JSON_TOO_DEEP);
    assert_int_equal(parse_nested(*state, '[', ']', 3000000), JSON_TOO_DEEP);
    assert_int_equal(parse_nested(*state, '{', '}', 100), JSON_INVALID);
}

static const char sample[] =
    "{\"model\": \"m\\u00e9\", \"messages\": [{\"role\":\"user\",\"content\":\"\xe4\xbd\xa0 "
    "\\\"x\\\" \\ud83d\\ude00\"}],"
    " \"n\": -1.5e-3, \"t\": [true, false, null, {}, []], \"s\": \"                                "
    "        \"}";

static void test_truncations_and_noise(void **state)
{
    for (size_t size = 0; size < sizeof sample - 1; size++) {
        assert_int_equal(parse_exact(*state, sample, size), JSON_INVALID);
    }
    assert_int_equal(parse_exact(*state, sample, sizeof sample - 1), JSON_OK);
    struct random random = {.state = test_seed()};
    static const char alphabet[] = "{}[]:,\"\\u0d8 \ntruefalsn1-.eE\xe4\xbd\xa0\x01";
    for (int round = 0; round < 20000; round++) {
        char text[sizeof sample];
        memcpy(text, sample, sizeof sample);
        size_t changes = 1 + random_below(&random, 4);
        for (size_t i = 0; i < changes; i++) {
            text[random_below(&random, sizeof sample - 1)] =
                alphabet[random_below(&random, sizeof alphabet - 1)];
        }
        (void)parse_exact(*state, text, sizeof sample - 1);
        size_t size = random_below(&random, 40);
        for (size_t i = 0; i < size; i++) {
            text[i] = alphabet[random_below(&random, sizeof alphabet - 1)];
        }
        (void)parse_exact(*state, text, size);
    }
}

static void test_large_and_back(void **state)
{
    size_t count = 6000000; /* One byte each and a comma: as many tokens as fit. */
    size_t size = 2 * count + 1;
    char *text = malloc(size);
    assert_non_null(text);
    text[0] = '[';
    for (size_t i = 1; i < size; i += 2) {
        text[i] = '7';
        text[i + 1] = ',';
    }
    text[size - 1] = ']';
    assert_int_equal(json_parse(*state, text, size), JSON_OK);
    struct json_cursor cursor = json_first(*state, json_root(*state));
    struct json_value value;
    size_t seen = 0;
    while (json_next_element(*state, &cursor, &value)) {
        seen++;
    }
    assert_int_equal(seen, count);
    json_parser_release(*state);
    free(text);
    assert_int_equal(json_kind(*state, json_root(*state)), JSON_ABSENT);
    assert_int_equal(parse_exact(*state, "[1]", 3), JSON_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_accepts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncations_and_noise, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_and_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
