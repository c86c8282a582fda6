/*
 * Growable byte buffer with a hard maximum, charged to a `struct mem`. One owner.
 * Appending returns false when the maximum or the memory limit would be passed; the contents stay
 * as they were.
 */
#ifndef HASHTRIE_BASE_BUF_H
#define HASHTRIE_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

struct buf {
    struct mem *mem; /* Borrowed. */
    char *data;      /* Owned; NULL while empty. Not NUL-terminated. */
    size_t size;     /* Bytes in use. */
    size_t capacity;
    size_t size_max;
};

void buf_init(struct buf *buf, struct mem *mem, size_t size_max);
void buf_fini(struct buf *buf); /* Frees the memory; the buffer is empty and usable again. */
bool buf_reserve(struct buf *buf, size_t extra); /* Room for `extra` more bytes behind `size`. */
bool buf_append(struct buf *buf, const void *bytes, size_t size);
bool buf_append_text(struct buf *buf, const char *text);
bool buf_append_number(struct buf *buf, uint64_t number); /* In decimal. */
/* What is left of an open file. False: errno says why (EFBIG: no room); what came before is kept.
 */
bool buf_append_file(struct buf *buf, int file);
__attribute__((format(printf, 2, 3))) bool buf_printf(struct buf *buf, const char *format, ...);

#endif
