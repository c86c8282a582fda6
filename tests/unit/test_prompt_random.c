/*
 * Random conversations, each written in many ways: white space, order of fields, escapes, repeated
 * keys. `what` decides what is said, `style` how it is written: equal `what` must give equal keys,
 * and the key of the first turns is a prefix of the key of all.
 */
#include "base/random.h"
#include "test_prompt_support.h"

enum { MEMBERS_MAX = 24, DEPTH_MAX = 4, TURNS_MAX = 12, ROUNDS = 300 };

struct writer {
    struct mem *mem;
    struct random what;
    struct random style;
};

static void put(struct buf *out, const char *text)
{
    assert_true(buf_append_text(out, text));
}

static void put_blank(struct writer *writer, struct buf *out)
{
    static const char *const blanks[] = {"", "", "", " ", "\n", "\t \r\n"};
    put(out, blanks[random_below(&writer->style, 6)]);
}

/* One of some characters, raw or in one of its escaped forms. */
static void put_character(struct writer *writer, struct buf *out)
{
    enum { LONE_HALF = 10, FORMS = 20 };
    static const char *const forms[FORMS][3] = {
        {"a", "\\u0061", "a"},
        {"b", "\\u0062", "b"},
        {" ", "\\u0020", " "},
        {"\\n", "\\u000a", "\\u000A"},
        {"\\\"", "\\u0022", "\\\""},
        {"\\\\", "\\u005c", "\\u005C"},
        {"/", "\\/", "\\u002f"},
        {"\xc3\xa9", "\\u00e9", "\\u00E9"},
        {"\xe4\xbd\xa0", "\\u4f60", "\\u4F60"},
        {"\xf0\x9f\x98\x80", "\\ud83d\\ude00", "\\uD83D\\uDE00"},
        {"\xef\xbf\xbd", "\\ud800", "\\udfff"},
        {"\\u0000", "\\u0000", "\\u0000"},
        {"\\u001b", "\\u001B", "\\u001b"},
        {"\\b", "\\u0008", "\\u0008"},
        {"\\f", "\\u000c", "\\u000C"},
        {"\\r", "\\u000d", "\\u000D"},
        {"\\t", "\\u0009", "\\t"},
        {"u", "\\u0075", "u"},
        {"\x7f", "\\u007f", "\\u007F"},
        {"\xe2\x80\xa8", "\\u2028", "\xe2\x80\xa8"},
    };
    const char *const *form = forms[random_below(&writer->what, FORMS)];
    put(out, form[random_below(&writer->style, 3)]);
    if (form == forms[LONE_HALF]) {
        put(out, "."); /* So that two lone halves never meet and become a pair. */
    }
}

static void put_string(struct writer *writer, struct buf *out, size_t most)
{
    size_t count = random_below(&writer->what, (uint32_t)most + 1);
    put(out, "\"");
    for (size_t i = 0; i < count; i++) {
        put_character(writer, out);
    }
    put(out, "\"");
}

/* Members that are written in any order, each maybe after a repeated key with another value. */
struct members {
    struct buf list[MEMBERS_MAX];
    size_t count;
};

static struct buf *add_member(struct writer *writer, struct members *members, const char *key)
{
    assert_true(members->count < MEMBERS_MAX);
    struct buf *out = &members->list[members->count++];
    buf_init(out, writer->mem, SIZE_MAX / 2);
    put(out, "\"");
    put(out, key);
    put(out, "\"");
    put_blank(writer, out);
    put(out, ":");
    put_blank(writer, out);
    return out;
}

static void put_repeated(struct writer *writer, struct buf *out, const struct buf *member)
{
    const char *key_end = memchr(member->data + 1, '"', member->size - 1);
    assert_non_null(key_end);
    assert_true(buf_append(out, member->data, (size_t)(key_end - member->data) + 1));
    put(out, random_below(&writer->style, 2) != 0 ? ":[{\"role\":\"x\"}]," : ": \"old\",");
}

static void put_object(struct writer *writer, struct buf *out, struct members *members)
{
    put(out, "{");
    put_blank(writer, out);
    for (size_t i = 0; i < members->count; i++) {
        if (random_below(&writer->style, 4) == 0) {
            put_repeated(writer, out, &members->list[i]);
        }
    }
    for (size_t i = members->count; i > 0; i--) {
        size_t at = random_below(&writer->style, (uint32_t)i);
        assert_true(buf_append(out, members->list[at].data, members->list[at].size));
        buf_fini(&members->list[at]);
        members->list[at] = members->list[i - 1];
        put_blank(writer, out);
        put(out, i > 1 ? "," : "");
        put_blank(writer, out);
    }
    put(out, "}");
}

/* NOLINTNEXTLINE(misc-no-recursion): DEPTH_MAX deep. */
static void put_value(struct writer *writer, struct buf *out, unsigned depth)
{
    static const char *const scalars[] = {"true", "false",  "null",
                                          "0",    "-1.5e3", "18446744073709551616"};
    static const char *const keys[] = {"k", "type", "text", "role", "b", "bb", "a", "name",
                                       "c", "d",    "e",    "f",    "g", "h",  "i", "j"};
    uint32_t pick = random_below(&writer->what, depth < DEPTH_MAX ? 8 : 4);
    if (pick < 2) {
        put(out, scalars[random_below(&writer->what, 6)]);
    } else if (pick < 4) {
        put_string(writer, out, 8);
    } else if (pick < 6) {
        size_t count = random_below(&writer->what, 4);
        put(out, "[");
        for (size_t i = 0; i < count; i++) {
            put(out, i > 0 ? "," : "");
            put_blank(writer, out);
            put_value(writer, out, depth + 1);
            put_blank(writer, out);
        }
        put(out, "]");
    } else {
        struct members members = {.count = 0};
        size_t count = random_below(&writer->what, 17);
        for (size_t i = 0; i < count; i++) {
            put_value(writer, add_member(writer, &members, keys[i]), depth + 1);
        }
        put_object(writer, out, &members);
    }
}

static void put_part(struct writer *writer, struct buf *out)
{
    struct members members = {.count = 0};
    uint32_t pick = random_below(&writer->what, 4);
    if (pick < 2) {
        put(add_member(writer, &members, "type"), "\"text\"");
        put_string(writer, add_member(writer, &members, "text"), 40);
    } else if (pick == 2) {
        struct members inner = {.count = 0};
        put_string(writer, add_member(writer, &inner, "url"), 40);
        put(add_member(writer, &members, "type"), "\"image_url\"");
        put_object(writer, add_member(writer, &members, "image_url"), &inner);
    } else {
        put(add_member(writer, &members, "type"), "\"novel\"");
        put_value(writer, add_member(writer, &members, "novel"), 1);
    }
    put_object(writer, out, &members);
}

static void put_content(struct writer *writer, struct buf *out)
{
    if (random_below(&writer->what, 3) > 0) {
        put_string(writer, out, 200);
        return;
    }
    size_t count = random_below(&writer->what, 4);
    put(out, "[");
    for (size_t i = 0; i < count; i++) {
        put(out, i > 0 ? "," : "");
        put_part(writer, out);
    }
    put(out, "]");
}

static void put_message(struct writer *writer, struct buf *out)
{
    static const char *const roles[] = {"\"user\"", "\"assistant\"", "\"tool\"", "\"system\"", "7"};
    struct members members = {.count = 0};
    put(add_member(writer, &members, "role"), roles[random_below(&writer->what, 5)]);
    put_content(writer, add_member(writer, &members, "content"));
    if (random_below(&writer->what, 4) == 0) {
        put_string(writer, add_member(writer, &members, "name"), 4);
    }
    if (random_below(&writer->what, 4) == 0) {
        put_value(writer, add_member(writer, &members, "tool_calls"), 1);
    }
    put_object(writer, out, &members);
}

/* A body with the first `turns` messages of the conversation that `what` stands for. */
static struct buf write_body(struct mem *mem, uint64_t what, uint64_t style, size_t turns)
{
    struct writer writer = {.mem = mem, .what = {.state = what}, .style = {.state = style}};
    struct buf out;
    buf_init(&out, mem, SIZE_MAX / 2);
    struct members members = {.count = 0};
    put(add_member(&writer, &members, "model"), "\"m\"");
    put(add_member(&writer, &members, "temperature"), "0.5");
    put(add_member(&writer, &members, "stream"), "true");
    put_value(&writer, add_member(&writer, &members, "tools"), 0);
    struct buf *messages = add_member(&writer, &members, "messages");
    put(messages, "[");
    for (size_t i = 0; i < turns; i++) {
        put(messages, i > 0 ? "," : "");
        put_blank(&writer, messages);
        put_message(&writer, messages);
    }
    put(messages, "]");
    put_object(&writer, &out, &members);
    return out;
}

static struct buf key_of(struct prompt_fixture *fixture, uint64_t what, uint64_t style,
                         size_t turns)
{
    struct buf body = write_body(&fixture->mem, what, style, turns);
    struct buf key = prompt_bytes(fixture, PROMPT_WHAT_KEY, body.data, body.size);
    buf_fini(&body);
    return key;
}

static void test_style_does_not_matter(void **state)
{
    struct random random = {.state = test_seed()};
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t what = random_next(&random);
        size_t turns = 1 + random_below(&random, TURNS_MAX);
        struct buf first = key_of(*state, what, random_next(&random), turns);
        for (int i = 0; i < 3; i++) {
            struct buf again = key_of(*state, what, random_next(&random), turns);
            assert_int_equal(again.size, first.size);
            assert_memory_equal(again.data, first.data, first.size);
            buf_fini(&again);
        }
        buf_fini(&first);
    }
}

static void test_turns_only_append(void **state)
{
    struct random random = {.state = test_seed()};
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t what = random_next(&random);
        struct buf all = key_of(*state, what, random_next(&random), TURNS_MAX);
        size_t size_before = 0;
        for (size_t turns = 1; turns < TURNS_MAX; turns++) {
            struct buf some = key_of(*state, what, random_next(&random), turns);
            assert_true(some.size > size_before && some.size < all.size);
            assert_memory_equal(some.data, all.data, some.size);
            size_before = some.size;
            buf_fini(&some);
        }
        buf_fini(&all);
    }
}

static void test_other_words_part(void **state)
{
    struct random random = {.state = test_seed()};
    for (int round = 0; round < ROUNDS; round++) {
        struct buf a = key_of(*state, random_next(&random), 1, TURNS_MAX);
        struct buf b = key_of(*state, random_next(&random), 1, TURNS_MAX);
        size_t common = common_size(&a, &b);
        assert_true(common < a.size && common < b.size);
        buf_fini(&a);
        buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_style_does_not_matter, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_turns_only_append, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_other_words_part, prompt_setup, prompt_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
