/*
 * Escapes of JSON strings. Decoding reads text that json_escapes_valid() has seen; all reads are
 * bounded all the same.
 */
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/check.h"
#include "json/internal.h"

#define REPLACEMENT 0xfffdu

enum { UNICODE_ESCAPE_SIZE = 6, BLOCK = 16 };

/* What a letter behind a backslash stands for; 0: no such escape (`u` is apart). */
static const char simple_escapes[256] = {
    ['n'] = '\n', ['t'] = '\t', ['r'] = '\r',  ['b'] = '\b',
    ['f'] = '\f', ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',
};

static char simple_escape(char letter)
{
    return simple_escapes[(unsigned char)letter];
}

/* The value of a hexadecimal digit plus one; 0: it is none. */
static const unsigned char hex_value[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* The code unit of `\uXXXX`, or above 0xffff if that is not what stands there. */
static unsigned code_unit(const char *text, size_t size)
{
    if (size < UNICODE_ESCAPE_SIZE || text[0] != '\\' || text[1] != 'u') {
        return UINT32_MAX;
    }
    const unsigned char *digits = (const unsigned char *)text + 2;
    unsigned a = hex_value[digits[0]];
    unsigned b = hex_value[digits[1]];
    unsigned c = hex_value[digits[2]];
    unsigned d = hex_value[digits[3]];
    if (a == 0 || b == 0 || c == 0 || d == 0) {
        return UINT32_MAX;
    }
    return (a - 1) << 12 | (b - 1) << 8 | (c - 1) << 4 | (d - 1);
}

/* Where the first backslash of BLOCK bytes is; BLOCK: nowhere. */
static size_t find_in_block(const char *block)
{
#ifdef __SSE2__
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)block);
    unsigned found = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    return found == 0 ? BLOCK : (size_t)__builtin_ctz(found);
#else
    const char *found = memchr(block, '\\', BLOCK);
    return found == NULL ? BLOCK : (size_t)(found - block);
#endif
}

static const char *find_backslash(const char *at, const char *end)
{
    while (end - at >= BLOCK) {
        size_t run = find_in_block(at);
        at += run;
        if (run < BLOCK) {
            return at;
        }
    }
    while (at < end && *at != '\\') {
        at++;
    }
    return at;
}

bool json_escapes_valid(const char *text, size_t size)
{
    const char *end = text + size;
    const char *at = text;
    while (at < end) {
        if (*at != '\\') { /* Escapes often come in a row. */
            at = find_backslash(at, end);
            continue;
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

/* Copies up to the first backslash or `most` bytes; returns how many. Both sides have room for
 * `most`. */
static size_t copy_run(const char *text, size_t most, char *out)
{
    size_t done = 0;
    while (most - done >= BLOCK) {
        memcpy(out + done, text + done, BLOCK);
        size_t run = find_in_block(text + done);
        done += run;
        if (run < BLOCK) {
            return done;
        }
    }
    while (done < most && text[done] != '\\') {
        out[done] = text[done];
        done++;
    }
    return done;
}

size_t json_decode(struct span *text, char *out, size_t out_size)
{
    REQUIRE(out_size >= JSON_DECODE_MIN);
    const char *at = text->data;
    const char *end = at + text->size;
    size_t written = 0;
    while (at < end && out_size - written >= JSON_DECODE_MIN) {
        if (*at == '\\') {
            size_t more = 0;
            at += decode_escape(at, (size_t)(end - at), out + written, &more);
            written += more;
            continue;
        }
        size_t left = (size_t)(end - at);
        size_t room = out_size - written;
        size_t run = copy_run(at, left < room ? left : room, out + written);
        at += run;
        written += run;
    }
    *text = (struct span){.data = at, .size = (size_t)(end - at)};
    return written;
}
