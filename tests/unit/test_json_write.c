/* The writer's punctuation, escapes, numbers, and what happens when the buffer is full. */
#include <math.h>
#include <string.h>

#include "json/json.h"
#include "support/test.h"

enum { BYTES_MAX = 4096 };

static struct mem mem;

static void assert_written(const struct buf *out, const char *text)
{
    assert_int_equal(out->size, strlen(text));
    assert_memory_equal(out->data, text, out->size);
}

static void write_sample(struct buf *out, struct json_writer *writer)
{
    json_writer_init(writer, out);
    json_write_object(writer);
    json_write_key(writer, "object");
    json_write_text(writer, "list");
    json_write_key(writer, "data");
    json_write_array(writer);
    json_write_object(writer);
    json_write_key(writer, "i\"d");
    json_write_int(writer, -7);
    json_write_key(writer, "u");
    json_write_uint(writer, UINT64_MAX);
    json_write_end(writer);
    json_write_object(writer);
    json_write_end(writer);
    json_write_bool(writer, true);
    json_write_bool(writer, false);
    json_write_null(writer);
    json_write_text(writer, NULL);
    json_write_end(writer);
    json_write_key(writer, "x");
    json_write_double(writer, 0.5);
    json_write_end(writer);
}

static const char sample[] =
    "{\"object\":\"list\",\"data\":[{\"i\\\"d\":-7,\"u\":18446744073709551615},"
    "{},true,false,null,null],\"x\":0.5}";

static void test_punctuation(void **state)
{
    (void)state;
    struct buf out;
    struct json_writer writer;
    mem_init(&mem, SIZE_MAX);
    buf_init(&out, &mem, BYTES_MAX);
    write_sample(&out, &writer);
    assert_true(json_writer_ok(&writer));
    assert_written(&out, sample);
    buf_fini(&out);
    mem_fini(&mem);
}

static void test_full_buffer(void **state)
{
    (void)state;
    mem_init(&mem, SIZE_MAX);
    for (size_t most = 0; most < sizeof sample + 1; most++) {
        struct buf out;
        struct json_writer writer;
        buf_init(&out, &mem, most);
        write_sample(&out, &writer);
        assert_true(out.size <= most);
        assert_true(json_writer_ok(&writer) ? most >= sizeof sample - 1 : most < sizeof sample + 8);
        buf_fini(&out);
    }
    mem_fini(&mem);
}

static void assert_string(const char *bytes, size_t size, const char *wanted)
{
    struct buf out;
    buf_init(&out, &mem, BYTES_MAX);
    assert_true(json_append_string(&out, (struct span){.data = bytes, .size = size}));
    assert_written(&out, wanted);
    buf_fini(&out);
}

static void test_strings(void **state)
{
    (void)state;
    mem_init(&mem, SIZE_MAX);
    assert_string("", 0, "\"\"");
    assert_string("a\"b\\c/d", 7, "\"a\\\"b\\\\c/d\"");
    assert_string("\n\r\t\x01\x1f\0", 6, "\"\\n\\r\\t\\u0001\\u001f\\u0000\"");
    assert_string("\xe4\xbd\xa0\xf0\x9f\x98\x80\x7f", 8, "\"\xe4\xbd\xa0\xf0\x9f\x98\x80\x7f\"");
    assert_string("a\xff"
                  "b",
                  3,
                  "\"a\xef\xbf\xbd"
                  "b\"");
    assert_string("\xc0\x80", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_string("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_string("\xe4\xbd", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    mem_fini(&mem);
}

static void test_doubles(void **state)
{
    (void)state;
    static const struct {
        double number;
        const char *text;
    } cases[] = {{0.1, "0.1"},   {1.0 / 3, "0.33333333333333331"}, {1e300, "1e+300"},
                 {-2.5, "-2.5"}, {1792023451.25, "1792023451.25"}, {INFINITY, "null"},
                 {NAN, "null"}};
    mem_init(&mem, SIZE_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out;
        struct json_writer writer;
        buf_init(&out, &mem, BYTES_MAX);
        json_writer_init(&writer, &out);
        json_write_double(&writer, cases[i].number);
        assert_true(json_writer_ok(&writer));
        assert_written(&out, cases[i].text);
        buf_fini(&out);
    }
    mem_fini(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_punctuation),
        cmocka_unit_test(test_full_buffer),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_doubles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
