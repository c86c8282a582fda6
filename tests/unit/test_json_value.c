/* Reaching values: walking, finding, texts, escapes. */
#include <string.h>

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

static void parse(struct json_parser *parser, const char *text)
{
    assert_int_equal(json_parse(parser, text, strlen(text)), JSON_OK);
}

static void assert_span(struct span span, const char *text)
{
    assert_int_equal(span.size, strlen(text));
    assert_memory_equal(span.data, text, span.size);
}

static void test_kinds(void **state)
{
    struct json_parser *parser = *state;
    parse(parser, "[{},[],\"s\",\"\\n\",-1,true,false,null]");
    static const enum json_kind kinds[] = {JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_STRING,
                                           JSON_NUMBER, JSON_TRUE,  JSON_FALSE,  JSON_NULL};
    struct json_cursor cursor = json_first(parser, json_root(parser));
    struct json_value value;
    size_t i = 0;
    for (; json_next_element(parser, &cursor, &value); i++) {
        assert_int_equal(json_kind(parser, value), kinds[i]);
    }
    assert_int_equal(i, sizeof kinds / sizeof *kinds);
    assert_int_equal(json_kind(parser, json_absent()), JSON_ABSENT);
}

static void test_walks_the_right_kind_only(void **state)
{
    struct json_parser *parser = *state;
    struct json_value key = json_absent();
    struct json_value value = json_absent();
    parse(parser, "{\"a\":1}");
    struct json_cursor cursor = json_first(parser, json_root(parser));
    assert_false(json_next_element(parser, &cursor, &value));
    assert_true(json_next_member(parser, &cursor, &key, &value));
    assert_false(json_next_member(parser, &cursor, &key, &value));
    assert_false(json_next_member(parser, &cursor, &key, &value));
    cursor = json_first(parser, value); /* A number. */
    assert_false(json_next_element(parser, &cursor, &value));
    cursor = json_first(parser, json_absent());
    assert_false(json_next_member(parser, &cursor, &key, &value));
    assert_false(json_next_element(parser, &cursor, &value));
    parse(parser, "[[1,2],3]");
    cursor = json_first(parser, json_root(parser));
    assert_false(json_next_member(parser, &cursor, &key, &value));
    assert_true(json_next_element(parser, &cursor, &value));
    assert_true(json_next_element(parser, &cursor, &value));
    assert_span(json_text(parser, value), "3");
    assert_false(json_next_element(parser, &cursor, &value));
}

static void test_find(void **state)
{
    struct json_parser *parser = *state;
    parse(parser, "{\"a\":1, \"b\" : {\"a\":[3]} ,\"\\u0061\":  2  , \"c\":\"x\" }");
    assert_span(json_text(parser, json_find(parser, json_root(parser), "a")), "2");
    struct json_value inner = json_find(parser, json_root(parser), "b");
    assert_int_equal(json_kind(parser, json_find(parser, inner, "a")), JSON_ARRAY);
    assert_int_equal(json_kind(parser, json_find(parser, inner, "b")), JSON_ABSENT);
    assert_int_equal(json_kind(parser, json_find(parser, json_root(parser), "")), JSON_ABSENT);
    assert_true(json_is_text(parser, json_find(parser, json_root(parser), "c"), "x"));
    assert_false(json_is_text(parser, json_find(parser, json_root(parser), "a"), "2"));
}

static void test_member_text(void **state)
{
    struct json_parser *parser = *state;
    parse(parser, "{\"a\" :  { \"x\": [1, 2] } , \"b\":\"q\\n\"  ,\"c\":[ ],\"d\": -5\n}");
    static const char *const texts[] = {"{ \"x\": [1, 2] }", "\"q\\n\"", "[ ]", "-5"};
    struct json_cursor cursor = json_first(parser, json_root(parser));
    struct json_value key;
    struct json_value value;
    for (size_t i = 0; json_next_member(parser, &cursor, &key, &value); i++) {
        assert_span(json_member_text(parser, value), texts[i]);
    }
}

static void test_read_int(void **state)
{
    static const struct {
        const char *text;
        bool fits;
        int64_t number;
    } cases[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"42", true, 42},
        {"-42", true, -42},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"99999999999999999999999", false, 0},
        {"1.0", false, 0},
        {"1e2", false, 0},
        {"true", false, 0},
        {"\"1\"", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t number = 0;
        parse(*state, cases[i].text);
        assert_int_equal(json_read_int(*state, json_root(*state), &number), cases[i].fits);
        assert_true(number == cases[i].number);
    }
}

/* Whatever the batch, the same integers up to the first other element. */
static void test_next_ints(void **state)
{
    struct json_parser *parser = *state;
    static const int64_t wanted[] = {1, 22, 333, 4444, 0, 123456789, -5, 12345678, 1234567, 9};
    enum { COUNT = sizeof wanted / sizeof *wanted };
    parse(parser, "[1,22, 333 ,4444,0,123456789,-5,12345678,1234567\n,9,1.5,7]");
    for (size_t batch = 1; batch <= COUNT + 2; batch++) {
        struct json_cursor cursor = json_first(parser, json_root(parser));
        int64_t numbers[COUNT + 2];
        size_t count = 0;
        for (size_t more; (more = json_next_ints(parser, &cursor, numbers, batch)) > 0;) {
            assert_true(more <= batch && count + more <= COUNT);
            assert_memory_equal(numbers, wanted + count, more * sizeof *numbers);
            count += more;
        }
        struct json_value other = json_absent();
        assert_int_equal(count, COUNT);
        assert_true(json_next_element(parser, &cursor, &other));
        assert_span(json_text(parser, other), "1.5");
    }
    static const char *const none[] = {"[]", "[[1]]", "[\"1\",2]", "{\"a\":1}", "[1e3]", "7"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        parse(parser, none[i]);
        struct json_cursor cursor = json_first(parser, json_root(parser));
        int64_t number = 0;
        assert_int_equal(json_next_ints(parser, &cursor, &number, 1), 0);
    }
}

/* Decodes with every size of the output buffer: the pieces must always join to the same. */
static void assert_decodes(struct json_parser *parser, const char *json, const char *wanted,
                           size_t wanted_size)
{
    parse(parser, json);
    for (size_t piece = JSON_DECODE_MIN; piece < 70; piece++) {
        struct span text = json_text(parser, json_root(parser));
        char whole[512];
        size_t at = 0;
        for (size_t size; (size = json_decode(&text, whole + at, piece)) > 0; at += size) {
            assert_true(size <= piece && at + size + piece <= sizeof whole);
        }
        assert_int_equal(text.size, 0);
        assert_int_equal(at, wanted_size);
        assert_memory_equal(whole, wanted, wanted_size);
    }
}

#define ASSERT_DECODES(parser, json, wanted) assert_decodes(parser, json, wanted, sizeof wanted - 1)

static void test_decode(void **state)
{
    ASSERT_DECODES(*state, "\"\"", "");
    ASSERT_DECODES(*state, "\"plain\"", "plain");
    ASSERT_DECODES(*state, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t");
    ASSERT_DECODES(*state, "\"a\\u0000b\\u0041\\u00e9\\u4f60\\uFFFF\"",
                   "a\0b"
                   "A\xc3\xa9\xe4\xbd\xa0\xef\xbf\xbf");
    ASSERT_DECODES(*state, "\"\\ud83d\\ude00 \\uD83D\\uDE00\"",
                   "\xf0\x9f\x98\x80 \xf0\x9f\x98\x80");
    ASSERT_DECODES(*state, "\"0123456789abcdef0123456789abcdef\\n0123456789abcdefg\\t\\\\\"",
                   "0123456789abcdef0123456789abcdef\n0123456789abcdefg\t\\");
    ASSERT_DECODES(*state, "\"\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xbd\xa0\xe5\xa5\xbd\\n\xe5\xa5\xbd\"",
                   "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xbd\xa0\xe5\xa5\xbd\n\xe5\xa5\xbd");
}

static void test_lone_surrogates(void **state)
{
    ASSERT_DECODES(*state, "\"\\ud800\"", "\xef\xbf\xbd");
    ASSERT_DECODES(*state, "\"\\udc00\"", "\xef\xbf\xbd");
    ASSERT_DECODES(*state, "\"\\ud800x\"", "\xef\xbf\xbdx");
    ASSERT_DECODES(*state, "\"\\ud800\\n\"", "\xef\xbf\xbd\n");
    ASSERT_DECODES(*state, "\"\\ud800\\u0041\"",
                   "\xef\xbf\xbd"
                   "A");
    ASSERT_DECODES(*state, "\"\\ud800\\ud83d\\ude00\"", "\xef\xbf\xbd\xf0\x9f\x98\x80");
    ASSERT_DECODES(*state, "\"\\udc00\\ud800\"", "\xef\xbf\xbd\xef\xbf\xbd");
}

static void test_is_usual(void **state)
{
    static const char *const usual[] = {
        "\"\"",
        "\"a/\xc3\xa9\x7f\"",
        "\"\\\"\\\\\\b\\f\\n\\r\\t\"",
        "\"\\u0000\\u001f\\u001b\"",
        "\"\\\\u0041\"",
    };
    static const char *const unusual[] = {
        "\"\\/\"",     "\"\\u0041\"", "\"\\u000a\"", "\"\\u0008\"",       "\"\\u001F\"",
        "\"\\u0020\"", "\"\\u007f\"", "\"\\ud800\"", "\"\\n\\n\\u0022\"",
    };
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        parse(*state, usual[i]);
        assert_true(json_is_usual(*state, json_root(*state)));
    }
    for (size_t i = 0; i < sizeof unusual / sizeof *unusual; i++) {
        parse(*state, unusual[i]);
        assert_false(json_is_usual(*state, json_root(*state)));
    }
}

static void test_is_text(void **state)
{
    parse(*state, "[\"model\",\"mod\\u0065l\",\"mode\",\"mod\\u0065ls\",\"mod\\u0065\",7]");
    static const bool wanted[] = {true, true, false, false, false, false};
    struct json_cursor cursor = json_first(*state, json_root(*state));
    struct json_value value;
    for (size_t i = 0; json_next_element(*state, &cursor, &value); i++) {
        assert_int_equal(json_is_text(*state, value, "model"), wanted[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_walks_the_right_kind_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_find, setup, teardown),
        cmocka_unit_test_setup_teardown(test_member_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_int, setup, teardown),
        cmocka_unit_test_setup_teardown(test_next_ints, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decode, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lone_surrogates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_is_usual, setup, teardown),
        cmocka_unit_test_setup_teardown(test_is_text, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
