/*
 * Prometheus text, version 0.0.4, and the histograms behind it.
 *
 *     struct metrics_writer writer;
 *     metrics_begin(&writer, &buf);
 *     metrics_family(&writer, "hashtrie_nodes", METRICS_GAUGE, "Nodes known.");
 *     metrics_sample(&writer, 5, METRICS_LABEL("tier", "hot"));
 *     metrics_sample(&writer, 9, METRICS_LABEL("tier", "cold"));
 *     bool complete = metrics_end(&writer);
 *
 * Names of families and labels are the program's own and are checked; label values may hold
 * anything (a model name comes from a client) and are escaped, bytes that are no UTF-8 become '?'.
 * Running out of room is remembered: only metrics_end() tells.
 *
 * Threads: a writer belongs to one call. A histogram is updated by one thread and may be read or
 * merged by any other at the same time without a lock; the reader may see an observation's parts
 * apart from each other, never a torn number.
 */
#ifndef HASHTRIE_METRICS_METRICS_H
#define HASHTRIE_METRICS_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum { METRICS_BUCKETS_MAX = 24, METRICS_LABELS_MAX = 8 };

enum metrics_kind { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

struct metrics_label {
    const char *name; /* [a-zA-Z_][a-zA-Z0-9_]*; NULL ends a list of labels. */
    const char *value;
    size_t value_size; /* 0: `value` ends at its NUL. */
};

/* Lists of labels for the calls below; METRICS_NO_LABELS for none. */
#define METRICS_NO_LABELS NULL
#define METRICS_LABEL(name, value) \
    (const struct metrics_label[]) \
    {                              \
        {(name), (value), 0},      \
        {                          \
            NULL, NULL, 0          \
        }                          \
    }
#define METRICS_LABELS(...)        \
    (const struct metrics_label[]) \
    {                              \
        __VA_ARGS__,               \
        {                          \
            NULL, NULL, 0          \
        }                          \
    }

struct metrics_writer {
    struct buf *out;        /* Borrowed. */
    const char *family;     /* Borrowed; NULL before the first. */
    enum metrics_kind kind; /* Of `family`. */
    bool failed;            /* `out` took no more. */
};

void metrics_begin(struct metrics_writer *writer, struct buf *out);
/* True: all that was written is in the buffer. */
bool metrics_end(struct metrics_writer *writer);

/* Writes HELP and TYPE. All samples of a family follow it at once: the format wants one group. */
void metrics_family(struct metrics_writer *writer, const char *name, enum metrics_kind kind,
                    const char *help);

/* A sample of the current counter or gauge. NaN and infinities are written as the format says. */
void metrics_sample(struct metrics_writer *writer, double value,
                    const struct metrics_label *labels);
/* The same for whole numbers: exact over all 64 bits. */
void metrics_sample_u64(struct metrics_writer *writer, uint64_t value,
                        const struct metrics_label *labels);

/* A family of one sample without labels. */
void metrics_single(struct metrics_writer *writer, const char *name, enum metrics_kind kind,
                    const char *help, double value);
void metrics_single_u64(struct metrics_writer *writer, const char *name, enum metrics_kind kind,
                        const char *help, uint64_t value);

/* ---- Histograms ---- */

/* Upper bounds of the buckets, rising; +Inf is not among them. Static data. */
struct metrics_bounds {
    size_t count; /* At most METRICS_BUCKETS_MAX. */
    double bounds[METRICS_BUCKETS_MAX];
};

extern const struct metrics_bounds metrics_bounds_request; /* 50 ms .. 120 s: whole requests. */
extern const struct metrics_bounds metrics_bounds_route;   /* 1 us .. 100 ms: routing decisions. */
extern const struct metrics_bounds metrics_bounds_disk;    /* 1 ms .. 10 s: checkpoints. */
/* As vLLM has them: */
extern const struct metrics_bounds metrics_bounds_first_token;    /* 1 ms .. 160 s. */
extern const struct metrics_bounds metrics_bounds_between_tokens; /* 10 ms .. 80 s. */

struct metrics_histogram {
    const struct metrics_bounds *bounds;              /* Borrowed, static. */
    _Atomic uint64_t counts[METRICS_BUCKETS_MAX + 1]; /* Not cumulative; the last is +Inf. */
    _Atomic uint64_t sum_bits;                        /* The sum, a double, as its bits. */
};

void metrics_histogram_init(struct metrics_histogram *histogram,
                            const struct metrics_bounds *bounds);
/* NaN is left out. Only the thread that owns the histogram. */
void metrics_histogram_observe(struct metrics_histogram *histogram, double value);
void metrics_histogram_observe_many(struct metrics_histogram *histogram, double value,
                                    uint64_t count);
/* Adds what `from` has (any thread's) to `into` (the caller's own); both have the same bounds. */
void metrics_histogram_merge(struct metrics_histogram *into, const struct metrics_histogram *from);
/* Takes over counts kept elsewhere: `counts` per bucket, not cumulative, bounds->count + 1 of them.
 */
void metrics_histogram_set(struct metrics_histogram *histogram, const uint64_t *counts, double sum);
uint64_t metrics_histogram_count(const struct metrics_histogram *histogram);
double metrics_histogram_sum(const struct metrics_histogram *histogram);

/* _bucket, _sum and _count of the current family, a histogram, with `labels` before `le`. */
void metrics_histogram_write(struct metrics_writer *writer,
                             const struct metrics_histogram *histogram,
                             const struct metrics_label *labels);

#endif
