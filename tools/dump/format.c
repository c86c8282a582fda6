#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "dump/dump.h"

enum {
    PROGRESS_AFTER_MS = 1000,
    PROGRESS_EVERY_MS = 200,
    BAR_COLUMNS = 30,
    NAME_COLUMNS = 20,
    JSON_FLUSH_BYTES = 64 * 1024,
};

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

uint64_t dump_hash_shown(uint64_t hash)
{
    return hash >> (4 * (16 - DUMP_HASH_DIGITS));
}

/* Errors of printing are seen by the last fflush(). */
void dump_print_value(const char *name, const char *value)
{
    (void)printf("%-*s%s\n", (int)NAME_COLUMNS, name, value);
}

void dump_print_count(const char *name, uint64_t count)
{
    char text[DUMP_TEXT_BYTES];
    dump_format_count(text, count);
    dump_print_value(name, text);
}

void dump_print_bytes(const char *name, uint64_t bytes)
{
    char text[DUMP_TEXT_BYTES];
    dump_format_bytes(text, bytes);
    dump_print_value(name, text);
}

void dump_print_text(const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        (void)putchar(byte < 0x20 || byte == 0x7f ? '?' : byte);
    }
}

void dump_print_column(const char *text, int columns)
{
    dump_print_text(text);
    size_t length = strlen(text);
    int pad = length < (size_t)columns ? columns - (int)length : 0;
    (void)printf("%*s", pad, "");
}

const char *dump_style(const struct dump *dump, enum dump_style style)
{
    static const char *const codes[] = {[DUMP_PLAIN] = "\033[0m",
                                        [DUMP_BOLD] = "\033[1m",
                                        [DUMP_RED] = "\033[31m",
                                        [DUMP_GREEN] = "\033[32m",
                                        [DUMP_DIM] = "\033[2m"};
    return dump->colour ? codes[style] : "";
}

/* ---- Progress ---- */

static void print_bar(const char *what, uint64_t done, uint64_t total, uint64_t elapsed_ns)
{
    double share = done < total ? (double)done / (double)total : 1;
    int filled = (int)(share * BAR_COLUMNS);
    (void)fprintf(stderr, "\r%s [", what);
    for (int i = 0; i < BAR_COLUMNS; i++) {
        (void)fputc(i < filled ? '=' : ' ', stderr);
    }
    (void)fprintf(stderr, "] %3.0f %%", 100 * share);
    if (share > 0) {
        double left_s = (double)elapsed_ns / (double)CLOCK_NS_PER_S * (1 - share) / share;
        (void)fprintf(stderr, "  %.0f s left", left_s);
    }
    (void)fprintf(stderr, "\033[K");
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
        print_bar(what, done, total, now_ns - dump->start_ns);
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

/* ---- What is wrong ---- */

static const char *hint_of(enum hashtrie_status status)
{
    switch ((int)status) {
    case HASHTRIE_ENOENT:
        return " (no data.mdb with a store in it there)";
    case HASHTRIE_EINVAL:
        return " (that is no folder, or the data.mdb in it is no file)";
    case HASHTRIE_ECORRUPT:
        return " (not an LMDB file, or a damaged one: see `hashtrie-dump verify --repair`)";
    case HASHTRIE_EVERSION:
        return " (try the hashtrie-dump of the version that wrote it)";
    default:
        return "";
    }
}

enum dump_exit dump_cannot(const struct dump *dump, enum hashtrie_status status)
{
    (void)fprintf(stderr, "hashtrie-dump: cannot read the store in %s: %s%s\n", dump->arguments[0],
                  hashtrie_strerror(status), hint_of(status));
    return DUMP_CANNOT;
}

enum dump_exit dump_cannot_do(const char *what, enum hashtrie_status status)
{
    (void)fprintf(stderr, "hashtrie-dump: cannot %s: %s\n", what, hashtrie_strerror(status));
    return DUMP_CANNOT;
}

void dump_warn_lockless(const struct hashtrie_reader_info *info)
{
    if (info->lockless) {
        (void)fprintf(stderr, "hashtrie-dump: lock.mdb cannot be written: if a router runs on this "
                              "store, what is shown may be mixed up\n");
    }
}

void dump_warn_damaged(void)
{
    (void)fprintf(stderr,
                  "hashtrie-dump: damaged nodes were left out; see `hashtrie-dump verify`\n");
}

enum dump_exit dump_usage(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "hashtrie-dump: ");
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start(). */
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    return DUMP_USAGE;
}

/* ---- JSON ---- */

static void write_out(struct dump *dump)
{
    (void)fwrite(dump->out.data, 1, dump->out.size, stdout);
    dump->out.size = 0;
}

void dump_json_flush(struct dump *dump)
{
    if (dump->out.size >= JSON_FLUSH_BYTES) {
        write_out(dump);
    }
}

void dump_json_number(struct dump *dump, const char *key, uint64_t number)
{
    json_write_key(&dump->json, key);
    json_write_uint(&dump->json, number);
}

void dump_json_text(struct dump *dump, const char *key, const char *text)
{
    json_write_key(&dump->json, key);
    json_write_text(&dump->json, text);
}

void dump_json_hash(struct dump *dump, const char *key, uint64_t hash)
{
    char text[DUMP_TEXT_BYTES];
    (void)snprintf(text, sizeof text, "%016" PRIx64, hash);
    dump_json_text(dump, key, text);
}

enum dump_exit dump_json_end(struct dump *dump)
{
    if (!json_writer_ok(&dump->json)) {
        (void)fprintf(stderr, "hashtrie-dump: out of memory\n");
        return DUMP_CANNOT;
    }
    write_out(dump);
    (void)putchar('\n');
    json_writer_init(&dump->json, &dump->out);
    return DUMP_OK;
}
