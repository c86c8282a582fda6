/*
 * Histograms with fixed bounds. One writer: its load and store of a counter need not be one atomic
 * step. Readers on other threads see each counter whole (relaxed atomics), which is all a scrape
 * needs; the count it prints is the sum of the buckets it read, so the output always adds up.
 */
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "metrics/text.h"

const struct metrics_bounds metrics_bounds_request = {
    11, {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}};
const struct metrics_bounds metrics_bounds_route = {16,
                                                    {0.000001, 0.0000025, 0.000005, 0.00001,
                                                     0.000025, 0.00005, 0.0001, 0.00025, 0.0005,
                                                     0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1}};
const struct metrics_bounds metrics_bounds_disk = {
    13, {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}};
const struct metrics_bounds metrics_bounds_first_token = {
    20, {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
         0.75,  1,     2.5,  5,    7.5,  10,   20,   40,  80,   160}};
const struct metrics_bounds metrics_bounds_between_tokens = {19,
                                                             {0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                                              0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5,
                                                              7.5, 10, 20, 40, 80}};

static double double_from_bits(uint64_t bits)
{
    double value = 0;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t bits_from_double(double value)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void add_count(_Atomic uint64_t *counter, uint64_t count)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + count, memory_order_relaxed);
}

static void add_sum(struct metrics_histogram *histogram, double value)
{
    double sum = metrics_histogram_sum(histogram) + value;
    atomic_store_explicit(&histogram->sum_bits, bits_from_double(sum), memory_order_relaxed);
}

void metrics_histogram_init(struct metrics_histogram *histogram,
                            const struct metrics_bounds *bounds)
{
    REQUIRE(bounds->count <= METRICS_BUCKETS_MAX);
    histogram->bounds = bounds;
    for (size_t i = 0; i <= METRICS_BUCKETS_MAX; i++) {
        atomic_init(&histogram->counts[i], 0);
    }
    atomic_init(&histogram->sum_bits, 0);
}

void metrics_histogram_observe(struct metrics_histogram *histogram, double value)
{
    metrics_histogram_observe_many(histogram, value, 1);
}

void metrics_histogram_observe_many(struct metrics_histogram *histogram, double value,
                                    uint64_t count)
{
    if (isnan(value)) {
        return;
    }
    size_t bucket = 0;
    while (bucket < histogram->bounds->count && value > histogram->bounds->bounds[bucket]) {
        bucket++;
    }
    add_count(&histogram->counts[bucket], count);
    add_sum(histogram, value * (double)count);
}

void metrics_histogram_merge(struct metrics_histogram *into, const struct metrics_histogram *from)
{
    REQUIRE(into->bounds == from->bounds);
    for (size_t i = 0; i <= into->bounds->count; i++) {
        add_count(&into->counts[i], atomic_load_explicit(&from->counts[i], memory_order_relaxed));
    }
    add_sum(into, metrics_histogram_sum(from));
}

void metrics_histogram_set(struct metrics_histogram *histogram, const uint64_t *counts, double sum)
{
    for (size_t i = 0; i <= histogram->bounds->count; i++) {
        atomic_store_explicit(&histogram->counts[i], counts[i], memory_order_relaxed);
    }
    atomic_store_explicit(&histogram->sum_bits, bits_from_double(sum), memory_order_relaxed);
}

uint64_t metrics_histogram_count(const struct metrics_histogram *histogram)
{
    uint64_t count = 0;
    for (size_t i = 0; i <= histogram->bounds->count; i++) {
        count += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
    }
    return count;
}

double metrics_histogram_sum(const struct metrics_histogram *histogram)
{
    return double_from_bits(atomic_load_explicit(&histogram->sum_bits, memory_order_relaxed));
}

void metrics_histogram_write(struct metrics_writer *writer,
                             const struct metrics_histogram *histogram,
                             const struct metrics_label *labels)
{
    REQUIRE(writer->kind == METRICS_HISTOGRAM);
    size_t bound_count = histogram->bounds->count;
    uint64_t count = 0;
    for (size_t i = 0; i <= bound_count; i++) {
        count += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        double bound = i < bound_count ? histogram->bounds->bounds[i] : (double)INFINITY;
        metrics_put_sample(writer, "_bucket", labels, metrics_format_number(bound).text,
                           metrics_format_count(count).text);
    }
    metrics_put_sample(writer, "_sum", labels, NULL,
                       metrics_format_number(metrics_histogram_sum(histogram)).text);
    metrics_put_sample(writer, "_count", labels, NULL, metrics_format_count(count).text);
}
