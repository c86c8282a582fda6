/* The text format: https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4). */
#include "metrics/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { DIGITS_FEWEST = 15, DIGITS_EXACT = 17 };

static void put(struct metrics_writer *writer, const char *bytes, size_t size)
{
    if (!writer->failed && !buf_append(writer->out, bytes, size)) {
        writer->failed = true;
    }
}

static void put_text(struct metrics_writer *writer, const char *text)
{
    put(writer, text, strlen(text));
}

static bool is_name(const char *name, bool colon_allowed)
{
    if (*name == '\0' || (*name >= '0' && *name <= '9')) {
        return false;
    }
    for (; *name != '\0'; name++) {
        char byte = *name;
        bool fine = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                    (byte >= '0' && byte <= '9') || byte == '_' || (byte == ':' && colon_allowed);
        if (!fine) {
            return false;
        }
    }
    return true;
}

/* The second byte's range depends on the first: no overlong forms, surrogates or codes past
 * U+10FFFF. */
static bool is_second_byte(unsigned char lead, unsigned char second)
{
    switch (lead) {
    case 0xe0:
        return second >= 0xa0;
    case 0xed:
        return second <= 0x9f;
    case 0xf0:
        return second >= 0x90;
    case 0xf4:
        return second <= 0x8f;
    default:
        return true;
    }
}

/* Length of the UTF-8 sequence at `bytes`, 0 if it is none: overlong forms, surrogates and cut
 * sequences are none. */
static size_t utf8_length(const unsigned char *bytes, size_t size)
{
    unsigned char lead = bytes[0];
    size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (length == 0 || lead > 0xf4 || length > size) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if (length > 1 && !is_second_byte(lead, bytes[1])) {
        return 0;
    }
    return length;
}

static void put_label_value(struct metrics_writer *writer, const char *value, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t length = utf8_length((const unsigned char *)value + at, size - at);
        if (length == 0) {
            put_text(writer, "?");
            at++;
            continue;
        }
        switch (value[at]) {
        case '\\':
            put_text(writer, "\\\\");
            break;
        case '"':
            put_text(writer, "\\\"");
            break;
        case '\n':
            put_text(writer, "\\n");
            break;
        default:
            put(writer, value + at, length);
            break;
        }
        at += length;
    }
}

void metrics_put_labels(struct metrics_writer *writer, const struct metrics_label *labels,
                        const char *bound)
{
    size_t count = 0;
    for (const struct metrics_label *label = labels; label != NULL && label->name != NULL;
         label++) {
        REQUIRE(count < METRICS_LABELS_MAX && is_name(label->name, false));
        put_text(writer, count == 0 ? "{" : ",");
        put_text(writer, label->name);
        put_text(writer, "=\"");
        size_t size = label->value_size != 0 ? label->value_size : strlen(label->value);
        put_label_value(writer, label->value, size);
        put_text(writer, "\"");
        count++;
    }
    if (bound != NULL) {
        put_text(writer, count == 0 ? "{le=\"" : ",le=\"");
        put_text(writer, bound);
        put_text(writer, "\"");
        count++;
    }
    if (count > 0) {
        put_text(writer, "}");
    }
}

struct metrics_number metrics_format_number(double value)
{
    struct metrics_number number = {""};
    if (isnan(value)) {
        return (struct metrics_number){"NaN"};
    }
    if (isinf(value)) {
        (void)snprintf(number.text, sizeof number.text, "%s", value > 0 ? "+Inf" : "-Inf");
        return number;
    }
    for (int digits = DIGITS_FEWEST; digits <= DIGITS_EXACT; digits++) {
        (void)snprintf(number.text, sizeof number.text, "%.*g", digits, value);
        if (strtod(number.text, NULL) == value) {
            break;
        }
    }
    return number;
}

struct metrics_number metrics_format_count(uint64_t value)
{
    struct metrics_number number = {""};
    (void)snprintf(number.text, sizeof number.text, "%" PRIu64, value);
    return number;
}

void metrics_put_sample(struct metrics_writer *writer, const char *suffix,
                        const struct metrics_label *labels, const char *bound, const char *number)
{
    REQUIRE(writer->family != NULL);
    put_text(writer, writer->family);
    put_text(writer, suffix);
    metrics_put_labels(writer, labels, bound);
    put_text(writer, " ");
    put_text(writer, number);
    put_text(writer, "\n");
}

void metrics_begin(struct metrics_writer *writer, struct buf *out)
{
    *writer = (struct metrics_writer){.out = out};
}

bool metrics_end(struct metrics_writer *writer)
{
    writer->family = NULL;
    return !writer->failed;
}

void metrics_family(struct metrics_writer *writer, const char *name, enum metrics_kind kind,
                    const char *help)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    REQUIRE(is_name(name, true));
    REQUIRE(strpbrk(help, "\\\n") == NULL); /* Help texts are ours: none needs escaping. */
    writer->family = name;
    writer->kind = kind;
    put_text(writer, "# HELP ");
    put_text(writer, name);
    put_text(writer, " ");
    put_text(writer, help);
    put_text(writer, "\n# TYPE ");
    put_text(writer, name);
    put_text(writer, " ");
    put_text(writer, kinds[kind]);
    put_text(writer, "\n");
}

void metrics_sample(struct metrics_writer *writer, double value, const struct metrics_label *labels)
{
    REQUIRE(writer->kind != METRICS_HISTOGRAM);
    metrics_put_sample(writer, "", labels, NULL, metrics_format_number(value).text);
}

void metrics_sample_u64(struct metrics_writer *writer, uint64_t value,
                        const struct metrics_label *labels)
{
    REQUIRE(writer->kind != METRICS_HISTOGRAM);
    metrics_put_sample(writer, "", labels, NULL, metrics_format_count(value).text);
}

void metrics_single(struct metrics_writer *writer, const char *name, enum metrics_kind kind,
                    const char *help, double value)
{
    metrics_family(writer, name, kind, help);
    metrics_sample(writer, value, METRICS_NO_LABELS);
}

void metrics_single_u64(struct metrics_writer *writer, const char *name, enum metrics_kind kind,
                        const char *help, uint64_t value)
{
    metrics_family(writer, name, kind, help);
    metrics_sample_u64(writer, value, METRICS_NO_LABELS);
}
