#include <math.h>
#include <string.h>

#include "metrics/metrics.h"
#include "support/test.h"

struct fixture {
    struct mem mem;
    struct buf buf;
    struct metrics_writer writer;
};

static void fixture_init(struct fixture *fixture, size_t size_max)
{
    mem_init(&fixture->mem, SIZE_MAX);
    buf_init(&fixture->buf, &fixture->mem, size_max);
    metrics_begin(&fixture->writer, &fixture->buf);
}

static void expect_and_fini(struct fixture *fixture, const char *expected)
{
    assert_true(metrics_end(&fixture->writer));
    assert_true(buf_append(&fixture->buf, "", 1));
    assert_string_equal(fixture->buf.data, expected);
    buf_fini(&fixture->buf);
    mem_fini(&fixture->mem);
}

static void a_family_has_one_head_and_its_samples(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture, 4096);
    metrics_family(&fixture.writer, "hashtrie_nodes", METRICS_GAUGE, "Nodes known.");
    metrics_sample_u64(&fixture.writer, 5, METRICS_LABEL("tier", "hot"));
    metrics_sample_u64(&fixture.writer, 9, METRICS_LABEL("tier", "cold"));
    metrics_single(&fixture.writer, "vllm:x_total", METRICS_COUNTER, "X.", 1.5);
    expect_and_fini(&fixture, "# HELP hashtrie_nodes Nodes known.\n"
                              "# TYPE hashtrie_nodes gauge\n"
                              "hashtrie_nodes{tier=\"hot\"} 5\n"
                              "hashtrie_nodes{tier=\"cold\"} 9\n"
                              "# HELP vllm:x_total X.\n"
                              "# TYPE vllm:x_total counter\n"
                              "vllm:x_total 1.5\n");
}

static void numbers_are_exact(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture, 4096);
    metrics_family(&fixture.writer, "n", METRICS_GAUGE, "N.");
    metrics_sample_u64(&fixture.writer, UINT64_MAX, METRICS_NO_LABELS);
    metrics_sample(&fixture.writer, 0.1, METRICS_NO_LABELS);
    metrics_sample(&fixture.writer, 1.0 / 3, METRICS_NO_LABELS);
    metrics_sample(&fixture.writer, (double)NAN, METRICS_NO_LABELS);
    metrics_sample(&fixture.writer, (double)INFINITY, METRICS_NO_LABELS);
    metrics_sample(&fixture.writer, -(double)INFINITY, METRICS_NO_LABELS);
    metrics_sample(&fixture.writer, 1790000000, METRICS_NO_LABELS);
    expect_and_fini(&fixture, "# HELP n N.\n# TYPE n gauge\n"
                              "n 18446744073709551615\nn 0.1\nn 0.3333333333333333\n"
                              "n NaN\nn +Inf\nn -Inf\nn 1790000000\n");
}

static void label_values_cannot_break_the_format(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture, 4096);
    metrics_family(&fixture.writer, "n", METRICS_GAUGE, "N.");
    metrics_sample_u64(&fixture.writer, 1, METRICS_LABEL("m", "a\\b\"c\nd"));
    metrics_sample_u64(&fixture.writer, 2, METRICS_LABEL("m", "日本\xff\xc0\xaf\xed\xa0\x80z"));
    metrics_sample_u64(&fixture.writer, 3, METRICS_LABELS({"a", "xyz", 2}, {"b", "", 0}));
    metrics_sample_u64(&fixture.writer, 4, METRICS_LABEL("m", "\xf0\x9f"));
    expect_and_fini(&fixture, "# HELP n N.\n# TYPE n gauge\n"
                              "n{m=\"a\\\\b\\\"c\\nd\"} 1\n"
                              "n{m=\"日本??????z\"} 2\n"
                              "n{a=\"xy\",b=\"\"} 3\n"
                              "n{m=\"??\"} 4\n");
}

static void running_out_of_room_is_told_at_the_end(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture, 30);
    metrics_single(&fixture.writer, "n", METRICS_GAUGE, "A help text that is too long.", 1);
    assert_false(metrics_end(&fixture.writer));
    buf_fini(&fixture.buf);
    mem_fini(&fixture.mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_family_has_one_head_and_its_samples),
        cmocka_unit_test(numbers_are_exact),
        cmocka_unit_test(label_values_cannot_break_the_format),
        cmocka_unit_test(running_out_of_room_is_told_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
