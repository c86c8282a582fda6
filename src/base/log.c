#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    LOG_BYTES_MAX = 256 * 1024,
    LOG_LINE_BYTES_MAX = 4096,
    LOG_FLUSH_BYTES = 64 * 1024,
};

void log_init(struct log *log, int fd, enum log_level level)
{
    *log = (struct log){.level = level, .fd = fd};
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

/* "2026-08-05T12:00:00.123Z info " */
static size_t stamp(char *out, size_t size, enum log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    uint64_t now_ns = clock_unix_ns();
    time_t seconds = (time_t)(now_ns / CLOCK_NS_PER_S);
    struct tm utc;
    (void)gmtime_r(&seconds, &utc);
    size_t length = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
    int rest = snprintf(out + length, size - length, ".%03uZ %s ",
                        (unsigned)(now_ns % CLOCK_NS_PER_S / CLOCK_NS_PER_MS), names[level]);
    return length + (size_t)rest;
}

void log_write(struct log *log, enum log_level level, const char *format, ...)
{
    if (level > log->level) {
        return;
    }
    char line[LOG_LINE_BYTES_MAX];
    size_t head = stamp(line, sizeof line, level);
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start(). */
    int length = vsnprintf(line + head, sizeof line - head, format, arguments);
    va_end(arguments);
    size_t end = head + (length < 0 ? 0 : (size_t)length);
    if (end > sizeof line - 1) {
        end = sizeof line - 1;
    }
    for (size_t i = head; i < end; i++) {
        unsigned char byte = (unsigned char)line[i];
        if (byte < ' ' || byte == 0x7f) {
            line[i] = '?';
        }
    }
    line[end] = '\n';
    if (!buf_append(&log->lines, line, end + 1)) {
        log->lines_lost++;
    }
    if (level == LOG_ERROR || log->lines.size > LOG_FLUSH_BYTES) {
        log_flush(log);
    }
}
