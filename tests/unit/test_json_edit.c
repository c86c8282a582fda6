#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "json/json.h"
#include "support/test.h"

enum { TEXT_BYTES_MAX = 4096 };

static const char *const names[] = {"a", "key"};

/* `text` without "a" and "key", and with "new":1 as its last member; NULL: too many pieces. */
static const char *edited(const char *text)
{
    static char out[TEXT_BYTES_MAX];
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct json_parser *parser = json_parser_new(&mem);
    assert_non_null(parser);
    assert_int_equal(json_parse(parser, text, strlen(text)), JSON_OK);
    struct json_edit edit;
    bool fits = json_leave_out(parser, names, 2, &edit);
    if (fits) {
        size_t size = 0;
        for (size_t i = 0; i < edit.piece_count; i++) {
            assert_true(edit.pieces[i].size > 0);
            memcpy(out + size, edit.pieces[i].data, edit.pieces[i].size);
            size += edit.pieces[i].size;
        }
        (void)snprintf(out + size, sizeof out - size, "%s",
                       edit.comma ? ",\"new\":1}" : "\"new\":1}");
        assert_int_equal(json_parse(parser, out, strlen(out)), JSON_OK);
    }
    json_parser_free(parser);
    mem_fini(&mem);
    return fits ? out : NULL;
}

static void named_members_go_and_all_else_stays_as_it_is(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{}", "{\"new\":1}"},
        {" { } ", " { \"new\":1}"},
        {"{\"a\":1}", "{\"new\":1}"},
        {"{\"b\":1}", "{\"b\":1,\"new\":1}"},
        {"{\"a\":1,\"b\":2}", "{\"b\":2,\"new\":1}"},
        {"{\"b\":2,\"a\":1}", "{\"b\":2,\"new\":1}"},
        {"{\"b\":2 , \"a\" : [1,{\"b\":2}] , \"c\":{\"a\":1}\n}",
         "{\"b\":2 , \"c\":{\"a\":1}\n,\"new\":1}"},
        {"{\"a\":1,\"a\":\"}\",\"key\":null,\"c\":\"a\"}", "{\"c\":\"a\",\"new\":1}"},
        {"{\"\\u0061\":1,\"k\\u0065y\":2,\"\\u0062\":3}", "{\"\\u0062\":3,\"new\":1}"},
        {"{\"A\":1,\"aa\":2,\"\":3}", "{\"A\":1,\"aa\":2,\"\":3,\"new\":1}"},
        {"{\"b\":1,\"key\":{},\"a\":[]}", "{\"b\":1,\"new\":1}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_string_equal(edited(cases[i][0]), cases[i][1]);
    }
}

/* {"b":0 and `count` times more, then }. */
static const char *repeated(const char *more, int count)
{
    static char text[TEXT_BYTES_MAX];
    int size = snprintf(text, sizeof text, "{\"b\":0");
    for (int i = 0; i < count; i++) {
        size += snprintf(text + size, sizeof text - (size_t)size, "%s", more);
    }
    (void)snprintf(text + size, sizeof text - (size_t)size, "}");
    return text;
}

static void pieces_are_bounded(void **state)
{
    (void)state;
    static const char apart[] = ",\"a\":1,\"b\":2";
    assert_non_null(edited(repeated(apart, JSON_PIECES_MAX - 1)));
    assert_null(edited(repeated(apart, JSON_PIECES_MAX)));
    assert_string_equal(edited(repeated(",\"a\":1", 100)), "{\"b\":0,\"new\":1}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_members_go_and_all_else_stays_as_it_is),
        cmocka_unit_test(pieces_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
