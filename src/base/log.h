/*
 * Log lines: collected in memory, written to a file descriptor in one write() per flush.
 * One `struct log` per thread; its owner flushes it (a loop does so every turn). Errors are flushed
 * at once. A line is `2026-08-05T12:00:00.123Z info the message`. Control characters are replaced,
 * so no input can forge a line.
 */
#ifndef HASHTRIE_BASE_LOG_H
#define HASHTRIE_BASE_LOG_H

#include "base/buf.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

struct log {
    struct mem mem;
    struct buf lines;     /* At most LOG_BYTES_MAX; flushed when full. */
    enum log_level level; /* Lines above it are not made. */
    int fd;
    uint64_t lines_lost; /* Longer than the buffer, or the descriptor took no more. */
};

void log_init(struct log *log, int fd, enum log_level level);
void log_fini(struct log *log); /* Flushes. */
void log_flush(struct log *log);
__attribute__((format(printf, 3, 4))) void log_write(struct log *log, enum log_level level,
                                                     const char *format, ...);

#endif
