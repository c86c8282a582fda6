#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "dump/dump.h"

enum { PROGRESS_AFTER_MS = 1000, PROGRESS_EVERY_MS = 200 };

void dump_format_bytes(char text[DUMP_TEXT_BYTES], uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    double value = (double)bytes;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, DUMP_TEXT_BYTES, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

void dump_format_count(char text[DUMP_TEXT_BYTES], uint64_t count)
{
    char digits[DUMP_TEXT_BYTES];
    int size = snprintf(digits, sizeof digits, "%" PRIu64, count);
    size_t at = 0;
    for (int i = 0; i < size; i++) {
        if (i > 0 && (size - i) % 3 == 0) {
            text[at++] = ',';
        }
        text[at++] = digits[i];
    }
    text[at] = '\0';
}

void dump_format_age(char text[DUMP_TEXT_BYTES], uint64_t now_s, uint64_t then_s)
{
    enum { MINUTE_S = 60, HOUR_S = 3600, DAY_S = 86400 };
    uint64_t age = now_s > then_s ? now_s - then_s : 0;
    if (then_s == 0) {
        (void)snprintf(text, DUMP_TEXT_BYTES, "-");
    } else if (age < MINUTE_S) {
        (void)snprintf(text, DUMP_TEXT_BYTES, "%" PRIu64 "s", age);
    } else if (age < HOUR_S) {
        (void)snprintf(text, DUMP_TEXT_BYTES, "%" PRIu64 "m", age / MINUTE_S);
    } else if (age < DAY_S) {
        (void)snprintf(text, DUMP_TEXT_BYTES, "%" PRIu64 "h", age / HOUR_S);
    } else {
        (void)snprintf(text, DUMP_TEXT_BYTES, "%" PRIu64 "d", age / DAY_S);
    }
}

void dump_format_time(char text[DUMP_TEXT_BYTES], uint64_t unix_s)
{
    time_t seconds = (time_t)unix_s;
    struct tm date;
    if (unix_s == 0 || unix_s > INT32_MAX * UINT64_C(2) || gmtime_r(&seconds, &date) == NULL ||
        strftime(text, DUMP_TEXT_BYTES, "%Y-%m-%d %H:%M:%S UTC", &date) == 0) {
        (void)snprintf(text, DUMP_TEXT_BYTES, "-");
    }
}

void dump_print_text(const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        (void)putchar(byte < 0x20 || byte == 0x7f ? '?' : byte); /* Seen by the last fflush(). */
    }
}

void dump_progress(struct dump *dump, const char *what, uint64_t done, uint64_t total)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns < dump->start_ns + PROGRESS_AFTER_MS * CLOCK_NS_PER_MS ||
        now_ns < dump->progress_ns + PROGRESS_EVERY_MS * CLOCK_NS_PER_MS ||
        isatty(STDERR_FILENO) != 1) {
        return;
    }
    dump->progress_ns = now_ns;
    dump->progress_shown = true;
    if (total > 0) {
        (void)fprintf(stderr, "\r%s: %3.0f %%\033[K", what, 100.0 * (double)done / (double)total);
    } else {
        (void)fprintf(stderr, "\r%s: %" PRIu64 "\033[K", what, done);
    }
}

void dump_progress_end(struct dump *dump)
{
    if (dump->progress_shown) {
        (void)fprintf(stderr, "\r\033[K");
        dump->progress_shown = false;
    }
}

enum dump_exit dump_cannot(const struct dump *dump, enum hashtrie_status status)
{
    const char *hint = "";
    switch ((int)status) {
    case HASHTRIE_ENOENT:
        hint = " (no data.mdb with a store in it there)";
        break;
    case HASHTRIE_ECORRUPT:
        hint = " (not an LMDB file, or a damaged one)";
        break;
    case HASHTRIE_EVERSION:
        hint = " (try the hashtrie-dump of the version that wrote it)";
        break;
    default:
        break;
    }
    (void)fprintf(stderr, "hashtrie-dump: cannot read the store in %s: %s%s\n", dump->directory,
                  hashtrie_strerror(status), hint);
    return DUMP_CANNOT_OPEN;
}

enum dump_exit dump_write_json(struct buf *buf, bool complete)
{
    if (!complete) {
        (void)fprintf(stderr, "hashtrie-dump: out of memory\n");
        return DUMP_CANNOT_OPEN;
    }
    (void)fwrite(buf->data, 1, buf->size, stdout); /* Errors are seen by the last fflush(). */
    (void)putchar('\n');
    return DUMP_OK;
}
