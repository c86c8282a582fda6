#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    LOG_BYTES_MAX = 256 * 1024,
    LOG_MESSAGE_BYTES_MAX = 4096, /* The rest of a longer one is cut off. */
    LOG_FLUSH_BYTES = 64 * 1024,
};

void log_init(struct log *log, int fd, enum log_level level, enum log_format format)
{
    *log = (struct log){.level = level, .format = format, .fd = fd};
    mem_init(&log->mem, SIZE_MAX);
    buf_init(&log->lines, &log->mem, LOG_BYTES_MAX);
}

void log_fini(struct log *log)
{
    log_flush(log);
    buf_fini(&log->lines);
    mem_fini(&log->mem);
}

void log_flush(struct log *log)
{
    size_t done = 0;
    while (done < log->lines.size) {
        ssize_t written = write(log->fd, log->lines.data + done, log->lines.size - done);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            log->lines_lost++;
            break;
        }
        done += (size_t)written;
    }
    log->lines.size = 0;
}

/* "2026-08-05T12:00:00.123Z" */
static bool put_time(struct buf *out)
{
    char text[32];
    uint64_t now_ns = clock_unix_ns();
    time_t seconds = (time_t)(now_ns / CLOCK_NS_PER_S);
    struct tm utc;
    (void)gmtime_r(&seconds, &utc);
    size_t length = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    return buf_append(out, text, length) &&
           buf_printf(out, ".%03uZ", (unsigned)(now_ns % CLOCK_NS_PER_S / CLOCK_NS_PER_MS));
}

static bool put_text(struct buf *out, struct span text, bool escaped, bool ascii)
{
    if (!buf_reserve(out, 2 * text.size)) {
        return false;
    }
    char *end = out->data + out->size;
    for (size_t i = 0; i < text.size; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        if (escaped && (byte == '"' || byte == '\\')) {
            *end++ = '\\';
        }
        bool odd = byte < ' ' || byte == 0x7f || (ascii && byte > 0x7f);
        *end++ = (char)(odd ? '?' : text.data[i]);
    }
    out->size = (size_t)(end - out->data);
    return true;
}

static bool put_quoted(struct log *log, struct span text)
{
    struct buf *out = &log->lines;
    return buf_append_text(out, "\"") && put_text(out, text, true, log->format == LOG_JSON) &&
           buf_append_text(out, "\"");
}

static bool needs_quotes(struct span text)
{
    for (size_t i = 0; i < text.size; i++) {
        char byte = text.data[i];
        if (byte <= ' ' || byte == '"' || byte == '\\' || byte == '=') {
            return true;
        }
    }
    return text.size == 0;
}

static bool put_value(struct log *log, const struct log_field *field)
{
    struct buf *out = &log->lines;
    switch (field->kind) {
    case LOG_FIELD_COUNT:
        return buf_append_number(out, field->count);
    case LOG_FIELD_SECONDS:
        return buf_printf(out, "%llu.%06llu", (unsigned long long)(field->count / CLOCK_NS_PER_S),
                          (unsigned long long)(field->count % CLOCK_NS_PER_S / CLOCK_NS_PER_US));
    case LOG_FIELD_TEXT:
    default:
        return log->format == LOG_JSON || needs_quotes(field->text)
                   ? put_quoted(log, field->text)
                   : put_text(out, field->text, false, false);
    }
}

static bool put_line(struct log *log, enum log_level level, struct span message,
                     const struct log_field *fields, size_t field_count)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    struct buf *out = &log->lines;
    bool json = log->format == LOG_JSON;
    bool fits = buf_append_text(out, json ? "{\"time\":\"" : "") && put_time(out) &&
                buf_append_text(out, json ? "\",\"level\":\"" : " ") &&
                buf_append_text(out, names[level]) &&
                buf_append_text(out, json ? "\",\"message\":" : " ") &&
                (json ? put_quoted(log, message) : put_text(out, message, false, false));
    for (size_t i = 0; fits && i < field_count; i++) {
        fits = buf_append_text(out, json ? ",\"" : " ") && buf_append_text(out, fields[i].name) &&
               buf_append_text(out, json ? "\":" : "=") && put_value(log, &fields[i]);
    }
    return fits && buf_append_text(out, json ? "}\n" : "\n");
}

void log_event(struct log *log, enum log_level level, const char *message,
               const struct log_field *fields, size_t field_count)
{
    if (level > log->level) {
        return;
    }
    size_t before = log->lines.size;
    struct span text = {.data = message, .size = strlen(message)};
    if (!put_line(log, level, text, fields, field_count)) {
        log->lines.size = before;
        log->lines_lost++;
    }
    if (level == LOG_ERROR || log->lines.size > LOG_FLUSH_BYTES) {
        log_flush(log);
    }
}

void log_write(struct log *log, enum log_level level, const char *format, ...)
{
    if (level > log->level) {
        return;
    }
    char message[LOG_MESSAGE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start(). */
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    log_event(log, level, length < 0 ? format : message, NULL, 0);
}
