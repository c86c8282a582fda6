/* Private to the room: pieces of the text format that the histogram's part shares. */
#ifndef HASHTRIE_METRICS_TEXT_H
#define HASHTRIE_METRICS_TEXT_H

#include "metrics/metrics.h"

struct metrics_number {
    char text[40]; /* Enough for any double or 64-bit number. */
};

/* `{a="b",le="bound"}`; nothing where there are no labels. `bound` may be NULL. */
void metrics_put_labels(struct metrics_writer *writer, const struct metrics_label *labels,
                        const char *bound);
/* One line: family, suffix, labels, number. */
void metrics_put_sample(struct metrics_writer *writer, const char *suffix,
                        const struct metrics_label *labels, const char *bound, const char *number);
/* The shortest decimal form that reads back as the same number. */
struct metrics_number metrics_format_number(double value);
struct metrics_number metrics_format_count(uint64_t value);

#endif
