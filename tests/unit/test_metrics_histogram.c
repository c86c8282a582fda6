#include <math.h>
#include <pthread.h>

#include "metrics/metrics.h"
#include "support/test.h"

enum { OBSERVATIONS = 200000 };

static const struct metrics_bounds bounds = {3, {0.1, 1, 10}};

static void write_to(struct buf *buf, const struct metrics_histogram *histogram,
                     const struct metrics_label *labels)
{
    struct metrics_writer writer;
    metrics_begin(&writer, buf);
    metrics_family(&writer, "h", METRICS_HISTOGRAM, "H.");
    metrics_histogram_write(&writer, histogram, labels);
    assert_true(metrics_end(&writer));
    assert_true(buf_append(buf, "", 1));
}

static void buckets_are_cumulative_and_bounds_belong_to_them(void **state)
{
    (void)state;
    struct mem mem;
    struct buf buf;
    mem_init(&mem, SIZE_MAX);
    buf_init(&buf, &mem, 4096);
    struct metrics_histogram histogram;
    metrics_histogram_init(&histogram, &bounds);
    const double values[] = {0.05, 0.1, 0.5, 10, 11, (double)NAN};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        metrics_histogram_observe(&histogram, values[i]);
    }
    write_to(&buf, &histogram, METRICS_LABEL("server", "u"));
    assert_string_equal(buf.data, "# HELP h H.\n# TYPE h histogram\n"
                                  "h_bucket{server=\"u\",le=\"0.1\"} 2\n"
                                  "h_bucket{server=\"u\",le=\"1\"} 3\n"
                                  "h_bucket{server=\"u\",le=\"10\"} 4\n"
                                  "h_bucket{server=\"u\",le=\"+Inf\"} 5\n"
                                  "h_sum{server=\"u\"} 21.65\n"
                                  "h_count{server=\"u\"} 5\n");
    buf_fini(&buf);
    mem_fini(&mem);
}

static void merging_adds_up(void **state)
{
    (void)state;
    struct metrics_histogram one;
    struct metrics_histogram two;
    metrics_histogram_init(&one, &bounds);
    metrics_histogram_init(&two, &bounds);
    metrics_histogram_observe(&one, 0.5);
    const uint64_t counts[] = {1, 2, 3, 4};
    metrics_histogram_set(&two, counts, 12.5);
    metrics_histogram_merge(&one, &two);
    assert_int_equal(metrics_histogram_count(&one), 11);
    assert_true(fabs(metrics_histogram_sum(&one) - 13) < 1e-9);
    assert_int_equal(atomic_load(&one.counts[1]), 3);
    assert_int_equal(metrics_histogram_count(&two), 10);
}

static void *observe_many(void *user)
{
    struct metrics_histogram *histogram = user;
    for (int i = 0; i < OBSERVATIONS; i++) {
        metrics_histogram_observe(histogram, i % 2 == 0 ? 0.05 : 5);
    }
    return NULL;
}

static void a_reader_beside_the_writer_sees_rising_counts(void **state)
{
    (void)state;
    struct metrics_histogram histogram;
    metrics_histogram_init(&histogram, &bounds);
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, observe_many, &histogram), 0);
    uint64_t last = 0;
    while (last < OBSERVATIONS) {
        uint64_t now = metrics_histogram_count(&histogram);
        assert_true(now >= last);
        last = now;
    }
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_int_equal(metrics_histogram_count(&histogram), OBSERVATIONS);
    assert_true(fabs(metrics_histogram_sum(&histogram) - OBSERVATIONS / 2 * 5.05) < 1e-3);
}

static void the_bounds_in_use_rise(void **state)
{
    (void)state;
    const struct metrics_bounds *all[] = {&metrics_bounds_request, &metrics_bounds_route,
                                          &metrics_bounds_disk};
    for (size_t i = 0; i < 3; i++) {
        assert_true(all[i]->count > 1 && all[i]->count <= METRICS_BUCKETS_MAX);
        for (size_t k = 1; k < all[i]->count; k++) {
            assert_true(all[i]->bounds[k] > all[i]->bounds[k - 1]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_cumulative_and_bounds_belong_to_them),
        cmocka_unit_test(merging_adds_up),
        cmocka_unit_test(a_reader_beside_the_writer_sees_rising_counts),
        cmocka_unit_test(the_bounds_in_use_rise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
