#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

enum { BUF_BYTES_FIRST = 256, DIGITS_MAX = 20, READ_BYTES = 16 * 1024 };

void buf_init(struct buf *buf, struct mem *mem, size_t size_max)
{
    *buf = (struct buf){.mem = mem, .size_max = size_max};
}

void buf_fini(struct buf *buf)
{
    mem_free(buf->mem, buf->data, buf->capacity);
    *buf = (struct buf){.mem = buf->mem, .size_max = buf->size_max};
}

bool buf_reserve(struct buf *buf, size_t extra)
{
    if (extra <= buf->capacity - buf->size) {
        return true;
    }
    if (extra > buf->size_max || buf->size > buf->size_max - extra) {
        return false;
    }
    size_t needed = buf->size + extra;
    size_t capacity = buf->capacity < BUF_BYTES_FIRST ? BUF_BYTES_FIRST : buf->capacity * 2;
    if (capacity > buf->size_max) {
        capacity = buf->size_max;
    }
    if (capacity < needed) {
        capacity = needed;
    }
    char *data = mem_realloc(buf->mem, buf->data, buf->capacity, capacity);
    if (data == NULL) {
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

bool buf_append(struct buf *buf, const void *bytes, size_t size)
{
    if (size == 0) {
        return true;
    }
    if (!buf_reserve(buf, size)) {
        return false;
    }
    memcpy(buf->data + buf->size, bytes, size);
    buf->size += size;
    return true;
}

bool buf_append_text(struct buf *buf, const char *text)
{
    return buf_append(buf, text, strlen(text));
}

bool buf_append_number(struct buf *buf, uint64_t number)
{
    char digits[DIGITS_MAX];
    size_t begin = sizeof digits;
    do {
        digits[--begin] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return buf_append(buf, digits + begin, sizeof digits - begin);
}

bool buf_append_file(struct buf *buf, int file)
{
    char bytes[READ_BYTES];
    for (;;) {
        ssize_t size = read(file, bytes, sizeof bytes);
        if (size == 0) {
            return true;
        }
        if (size < 0 && errno != EINTR) {
            return false;
        }
        if (size > 0 && !buf_append(buf, bytes, (size_t)size)) {
            errno = EFBIG;
            return false;
        }
    }
}

bool buf_printf(struct buf *buf, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start(). */
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    CHECK(length >= 0);
    if (!buf_reserve(buf, (size_t)length + 1)) {
        return false;
    }
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start(). */
    (void)vsnprintf(buf->data + buf->size, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buf->size += (size_t)length;
    return true;
}
