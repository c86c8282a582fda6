/* The reader of the Prometheus text format: what it takes, what it refuses, in pieces of any size.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "discovery/exposition.h"
#include "support/test.h"

enum { TEXT_BYTES_MAX = 256 };

struct seen {
    size_t count;
    char text[TEXT_BYTES_MAX]; /* Of the last sample, labels as name=value. */
    double value;
};

static void on_sample(void *user, const struct exposition_sample *sample)
{
    struct seen *seen = user;
    seen->count++;
    seen->value = sample->value;
    int size =
        snprintf(seen->text, sizeof seen->text, "%.*s", (int)sample->name.size, sample->name.data);
    for (size_t i = 0; i < sample->label_count && size < TEXT_BYTES_MAX; i++) {
        const struct exposition_label *label = &sample->labels[i];
        size += snprintf(seen->text + size, sizeof seen->text - (size_t)size, " %.*s=%.*s",
                         (int)label->name.size, label->name.data, (int)label->value.size,
                         label->value.data);
    }
}

/* Reads `text` in pieces of `step` bytes. */
static struct seen read_in(const char *text, size_t size, size_t step, uint64_t *bad)
{
    struct mem mem;
    struct seen seen = {0};
    struct exposition reader;
    mem_init(&mem, SIZE_MAX);
    exposition_init(&reader, &mem, on_sample, &seen);
    for (size_t at = 0; at < size; at += step) {
        exposition_feed(&reader, text + at, size - at < step ? size - at : step);
    }
    assert_int_equal(reader.sample_count, seen.count);
    *bad = reader.bad_line_count;
    exposition_fini(&reader);
    mem_fini(&mem);
    return seen;
}

static void good_lines_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *text;
        double value;
    } good[] = {
        {"a 1\n", "a", 1},
        {"a:b_c9 1.5e+03 1700000000000\n", "a:b_c9", 1500},
        {"a{} 2\n", "a", 2},
        {"a{x=\"y\"} 3\r\n", "a x=y", 3},
        {"a{x=\"y\",z=\"\",} 4\n", "a x=y z=", 4},
        {" a {x = \"y\"}\t5 \n", "a x=y", 5},
        {"a{x=\"\\\\ \\\" , } \"} 6\n", "a x=\\ \" , } ", 6},
        {"a{x=\"\\n\"} -7\n", "a x=\n", -7},
        {"a +Inf\n", "a", INFINITY},
        {"a -Inf\n", "a", -INFINITY},
        {"# HELP a b\n# TYPE a gauge\n\na 8\n", "a", 8},
        {"a{x=\"\xff\xfe\"} 9\n", "a x=\xff\xfe", 9},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        size_t size = strlen(good[i].line);
        for (size_t step = 1; step <= size; step++) {
            uint64_t bad = 0;
            struct seen seen = read_in(good[i].line, size, step, &bad);
            assert_int_equal(seen.count, 1);
            assert_int_equal(bad, 0);
            assert_string_equal(seen.text, good[i].text);
            assert_true(seen.value == good[i].value);
        }
    }
    uint64_t bad = 0;
    assert_true(isnan(read_in("a NaN\n", 6, 6, &bad).value));
}

static void bad_lines_are_skipped_and_counted(void **state)
{
    (void)state;
    static const char *const bad_lines[] = {
        "a\n",
        "a{\n",
        "a{} \n",
        "a{x}1\n",
        "a{x=1} 1\n",
        "a{x=\"1} 1\n",
        "a{x=\"\\q\"} 1\n",
        "a{x=\"y\"z=\"\"} 1\n",
        "a{,} 1\n",
        "9a 1\n",
        "a 0x10\n",
        "a nan\n",
        "a infinity\n",
        "a 1 2 3\n",
        "a 1 x\n",
        "a 1e\n",
        "a --1\n",
        "<html>\n",
        "a{x=\"\\\n",
        "a\x01 1\n",
        "{\"a\":1} 1\n",
        "a 1,5\n",
        "a{x=\"y\"} # 1\n",
        "a 1111111111111111111111111111111111111111111111111111111111111111\n",
    };
    for (size_t i = 0; i < sizeof bad_lines / sizeof *bad_lines; i++) {
        char text[TEXT_BYTES_MAX];
        uint64_t bad = 0;
        int size = snprintf(text, sizeof text, "%sgood 1\n", bad_lines[i]);
        struct seen seen = read_in(text, (size_t)size, 3, &bad);
        if (seen.count != 1 || bad != 1) {
            fail_msg("%s: %zu samples, %llu bad lines", bad_lines[i], seen.count,
                     (unsigned long long)bad);
        }
        assert_string_equal(seen.text, "good");
    }
}

static void a_last_line_without_its_end_is_not_used(void **state)
{
    (void)state;
    uint64_t bad = 0;
    assert_int_equal(read_in("a 1\nb 12", 8, 8, &bad).count, 1);
}

static void long_lines_and_many_labels_are_skipped(void **state)
{
    (void)state;
    struct mem mem;
    struct buf text;
    uint64_t bad = 0;
    mem_init(&mem, SIZE_MAX);
    buf_init(&text, &mem, 1024 * 1024);
    assert_true(buf_append_text(&text, "a{x=\""));
    for (int i = 0; i < 4 * EXPOSITION_LINE_BYTES_MAX; i++) {
        assert_true(buf_append(&text, "y", 1));
    }
    assert_true(buf_append_text(&text, "\"} 1\nb{"));
    for (int i = 0; i <= EXPOSITION_LABELS_MAX; i++) {
        assert_true(buf_printf(&text, "l%d=\"\",", i));
    }
    assert_true(buf_append_text(&text, "} 1\ngood 1\n"));
    for (size_t step = 1; step < 40000; step = step * 3 + 1) {
        struct seen seen = read_in(text.data, text.size, step, &bad);
        assert_int_equal(seen.count, 1);
        assert_int_equal(bad, 2);
        assert_string_equal(seen.text, "good");
    }
    buf_fini(&text);
    mem_fini(&mem);
}

/* Any bytes at all: nothing but counts comes of it, and no byte outside is touched (sanitizers). */
static void noise_does_no_harm(void **state)
{
    (void)state;
    static const char alphabet[] = "a1{}=\",\\ \n\n.#-+eN\xff\t";
    struct random random = {.state = test_seed()};
    for (int round = 0; round < 3000; round++) {
        size_t size = random_below(&random, 400) + 1;
        char *text = malloc(size); /* Of its own, so that reading past its end is seen. */
        assert_non_null(text);
        for (size_t i = 0; i < size; i++) {
            text[i] = alphabet[random_below(&random, sizeof alphabet - 1)];
        }
        uint64_t bad = 0;
        (void)read_in(text, size, random_below(&random, 50) + 1, &bad);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_lines_are_read),
        cmocka_unit_test(bad_lines_are_skipped_and_counted),
        cmocka_unit_test(a_last_line_without_its_end_is_not_used),
        cmocka_unit_test(long_lines_and_many_labels_are_skipped),
        cmocka_unit_test(noise_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
