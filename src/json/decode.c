/*
 * Escapes of JSON strings. Decoding reads text that json_escapes_valid() has seen; all reads are
 * bounded all the same.
 */
#include <string.h>

#include "base/check.h"
#include "json/internal.h"

#define REPLACEMENT 0xfffdu

enum { UNICODE_ESCAPE_SIZE = 6, BLOCK = 16 };

/* What a letter behind a backslash stands for; 0: no such escape (`u` is apart). */
static char simple_escape(char letter)
{
    switch (letter) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case '"':
    case '\\':
    case '/':
        return letter;
    default:
        return '\0';
    }
}

/* The value of a hexadecimal digit, or 0x100. */
static unsigned hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9') {
        return (unsigned)(byte - '0');
    }
    char lower = (char)(byte | 0x20);
    return lower >= 'a' && lower <= 'f' ? (unsigned)(lower - 'a') + 10 : 0x100;
}

/* The code unit of `\uXXXX`, or above 0xffff if that is not what stands there. */
static unsigned code_unit(const char *text, size_t size)
{
    if (size < UNICODE_ESCAPE_SIZE || text[0] != '\\' || text[1] != 'u') {
        return UINT32_MAX;
    }
    unsigned digits[4];
    for (size_t i = 0; i < 4; i++) {
        digits[i] = hex_digit(text[2 + i]);
    }
    if (((digits[0] | digits[1] | digits[2] | digits[3]) & 0x100) != 0) {
        return UINT32_MAX;
    }
    return digits[0] << 12 | digits[1] << 8 | digits[2] << 4 | digits[3];
}

bool json_escapes_valid(const char *text, size_t size)
{
    const char *end = text + size;
    const char *at = text;
    while (at < end) {
        if (*at != '\\') {
            at = memchr(at, '\\', (size_t)(end - at));
            if (at == NULL) {
                return true;
            }
        }
        if (end - at < 2) {
            return false;
        }
        if (at[1] == 'u') {
            if (code_unit(at, (size_t)(end - at)) > 0xffff) {
                return false;
            }
            at += UNICODE_ESCAPE_SIZE;
        } else if (simple_escape(at[1]) != '\0') {
            at += 2;
        } else {
            return false;
        }
    }
    return true;
}

static size_t put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* One escape, a pair of surrogates included. Returns the bytes of text it took. */
static size_t decode_escape(const char *text, size_t size, char *out, size_t *out_size)
{
    REQUIRE(size >= 2);
    if (text[1] != 'u') {
        out[0] = simple_escape(text[1]);
        *out_size = 1;
        return 2;
    }
    unsigned unit = code_unit(text, size);
    REQUIRE(unit <= 0xffff);
    size_t taken = UNICODE_ESCAPE_SIZE;
    if (unit >= 0xd800 && unit < 0xdc00) {
        unsigned low = code_unit(text + taken, size - taken);
        if (low >= 0xdc00 && low < 0xe000) {
            unit = 0x10000 + ((unit - 0xd800) << 10 | (low - 0xdc00));
            taken += UNICODE_ESCAPE_SIZE;
        }
    }
    if (unit >= 0xd800 && unit < 0xe000) {
        unit = REPLACEMENT;
    }
    *out_size = put_utf8(out, unit);
    return taken;
}

/* Whole blocks without a backslash are copied; returns how many bytes. */
static size_t copy_blocks(const char *text, size_t size, char *out, size_t room)
{
    size_t most = size < room ? size : room;
    size_t done = 0;
    while (most - done >= BLOCK) {
        char block[BLOCK];
        memcpy(block, text + done, BLOCK);
        unsigned found = 0;
        for (size_t i = 0; i < BLOCK; i++) {
            found |= block[i] == '\\';
        }
        if (found != 0) {
            break;
        }
        memcpy(out + done, block, BLOCK);
        done += BLOCK;
    }
    return done;
}

size_t json_decode(struct span *text, char *out, size_t out_size)
{
    REQUIRE(out_size >= JSON_DECODE_MIN);
    const char *at = text->data;
    const char *end = at + text->size;
    size_t written = 0;
    while (at < end) {
        if (*at == '\\') {
            if (out_size - written < JSON_DECODE_MIN) {
                break;
            }
            size_t more = 0;
            at += decode_escape(at, (size_t)(end - at), out + written, &more);
            written += more;
            continue;
        }
        size_t copied = copy_blocks(at, (size_t)(end - at), out + written, out_size - written);
        at += copied;
        written += copied;
        while (at < end && *at != '\\' && written < out_size) {
            out[written++] = *at++;
        }
        if (written == out_size) {
            break;
        }
    }
    *text = (struct span){.data = at, .size = (size_t)(end - at)};
    return written;
}
