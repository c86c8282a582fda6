/*
 * Log lines: collected in memory, written to a file descriptor in one write() per flush.
 * One `struct log` per thread; its owner flushes it (a loop does so every turn). Errors are flushed
 * at once.
 *
 *     text  2026-08-05T12:00:00.123Z info Request ended id=7 status=200 seconds=0.210
 *     json  {"time":"2026-08-05T12:00:00.123Z","level":"info","message":"Request ended","id":"7",
 *           "status":200,"seconds":0.210}                                          (in one line)
 *
 * No input can forge a line or a field: control characters become '?', in JSON also bytes that are
 * not ASCII; quotes and backslashes are escaped in JSON, and in fields of text, where a value with
 * blanks stands in quotes.
 */
#ifndef HASHTRIE_BASE_LOG_H
#define HASHTRIE_BASE_LOG_H

#include "base/buf.h"
#include "base/span.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct log {
    struct mem mem;
    struct buf lines;     /* At most LOG_BYTES_MAX; flushed when full. */
    enum log_level level; /* Lines above it are not made. */
    enum log_format format;
    int fd;
    uint64_t lines_lost; /* Longer than the buffer, or the descriptor took no more. */
};

enum log_field_kind { LOG_FIELD_TEXT, LOG_FIELD_COUNT, LOG_FIELD_SECONDS };

struct log_field {
    const char *name;
    enum log_field_kind kind;
    struct span text;
    uint64_t count; /* Seconds: nanoseconds, written in microseconds. */
};

void log_init(struct log *log, int fd, enum log_level level, enum log_format format);
void log_fini(struct log *log); /* Flushes. */
void log_flush(struct log *log);
__attribute__((format(printf, 3, 4))) void log_write(struct log *log, enum log_level level,
                                                     const char *format, ...);
/* A message and what a machine is to find behind it. */
void log_event(struct log *log, enum log_level level, const char *message,
               const struct log_field *fields, size_t field_count);

#endif
