/*
 * Escapes of JSON strings, read and rewritten: to the characters they stand for, or to the usual
 * form. The text is one that json_check_escapes() has seen; all reads are bounded all the same.
 */
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/check.h"
#include "json/internal.h"

#define REPLACEMENT 0xfffdu

enum { BLOCK = 16, UNICODE_ESCAPE_SIZE = 2 + JSON_UNICODE_DIGITS };

/* What a letter behind a backslash stands for; 0: no such escape (`u` is apart). */
static const char simple_escapes[256] = {
    ['n'] = '\n', ['t'] = '\t', ['r'] = '\r',  ['b'] = '\b',
    ['f'] = '\f', ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',
};

/* The letter that a character is usually escaped with; 0: it is not, or as \u00xx. */
static const char usual_letters[128] = {
    ['\n'] = 'n', ['\t'] = 't', ['\r'] = 'r',  ['\b'] = 'b',
    ['\f'] = 'f', ['"'] = '"',  ['\\'] = '\\',
};

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

/* The character that an escape stands for, a pair of surrogates included, and the bytes of text it
 * takes. */
static inline unsigned read_escape(const char *text, size_t size, size_t *taken)
{
    REQUIRE(size >= 2);
    if (text[1] != 'u') {
        *taken = 2;
        return (unsigned char)simple_escapes[(unsigned char)text[1]];
    }
    unsigned unit = json_code_unit(text + 2, size - 2);
    REQUIRE(unit != JSON_NO_CODE_UNIT);
    *taken = UNICODE_ESCAPE_SIZE;
    if (unit < 0xd800 || unit >= 0xe000) {
        return unit;
    }
    const char *next = text + UNICODE_ESCAPE_SIZE;
    size_t left = size - UNICODE_ESCAPE_SIZE;
    if (unit < 0xdc00 && left > 2 && next[0] == '\\' && next[1] == 'u') {
        unsigned low = json_code_unit(next + 2, left - 2);
        if (low >= 0xdc00 && low < 0xe000) {
            *taken = (size_t)2 * UNICODE_ESCAPE_SIZE;
            return 0x10000 + ((unit - 0xd800) << 10 | (low - 0xdc00));
        }
    }
    return REPLACEMENT;
}

size_t json_decode(struct span *text, char *out, size_t out_size)
{
    REQUIRE(out_size >= JSON_DECODE_MIN);
    const char *at = text->data;
    const char *end = at + text->size;
    size_t written = 0;
    while (at < end && out_size - written >= JSON_DECODE_MIN) {
        if (*at != '\\') {
            out[written++] = *at++;
            continue;
        }
        size_t taken = 0;
        unsigned code = read_escape(at, (size_t)(end - at), &taken);
        written += put_utf8(out + written, code);
        at += taken;
    }
    *text = (struct span){.data = at, .size = (size_t)(end - at)};
    return written;
}

static size_t put_usual(char *out, unsigned code)
{
    static const char digits[] = "0123456789abcdef";
    if (code < sizeof usual_letters && usual_letters[code] != '\0') {
        out[0] = '\\';
        out[1] = usual_letters[code];
        return 2;
    }
    if (code < ' ') {
        const char escape[UNICODE_ESCAPE_SIZE] = {
            '\\', 'u', '0', '0', digits[code >> 4], digits[code & 0xf],
        };
        memcpy(out, escape, sizeof escape);
        return sizeof escape;
    }
    return put_utf8(out, code);
}

/* Two bytes of an escape that may have to be rewritten, if the first one is not escaped itself. */
static bool looks_unusual(const char *text)
{
    return text[0] == '\\' && (text[1] == 'u' || text[1] == '/');
}

/* Where in BLOCK bytes the first one is that looks_unusual(); BLOCK: nowhere. One more byte is
 * read. */
static size_t find_in_block(const char *block)
{
#ifdef __SSE2__
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)block);
    __m128i behind = _mm_loadu_si128((const __m128i *)(const void *)(block + 1));
    __m128i letters = _mm_or_si128(_mm_cmpeq_epi8(behind, _mm_set1_epi8('u')),
                                   _mm_cmpeq_epi8(behind, _mm_set1_epi8('/')));
    __m128i found = _mm_and_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')), letters);
    unsigned mask = (unsigned)_mm_movemask_epi8(found);
    return mask == 0 ? BLOCK : (size_t)__builtin_ctz(mask);
#else
    size_t at = 0;
    while (at < BLOCK && !looks_unusual(block + at)) {
        at++;
    }
    return at;
#endif
}

/* Whether an odd number of backslashes stands before `at`; `start` is no escaped byte. */
static bool is_escaped_at(const char *start, const char *at)
{
    size_t count = 0;
    while (at > start && at[-1] == '\\') {
        at--;
        count++;
    }
    return count % 2 != 0;
}

/* Copies up to the first escape of a kind that may have to be rewritten, at most `most` > 1 bytes,
 * and never half an escape. Returns how many. `text` and `out` have room for `most`. */
static size_t copy_usual(const char *text, size_t most, char *out)
{
    size_t done = 0;
    while (most - done > BLOCK) {
        memcpy(out + done, text + done, BLOCK);
        size_t run = find_in_block(text + done);
        done += run;
        if (run < BLOCK) {
            if (!is_escaped_at(text, text + done)) {
                return done;
            }
            done++; /* The second one of two backslashes. */
        }
    }
    while (done < most) {
        if (most - done > 1 && looks_unusual(text + done) && !is_escaped_at(text, text + done)) {
            return done;
        }
        out[done] = text[done];
        done++;
    }
    return done - is_escaped_at(text, text + done);
}

size_t json_to_usual(struct span *text, char *out, size_t out_size)
{
    REQUIRE(out_size >= JSON_USUAL_MIN);
    const char *at = text->data;
    const char *end = at + text->size;
    size_t written = 0;
    while (at < end && out_size - written >= JSON_USUAL_MIN) {
        size_t left = (size_t)(end - at);
        size_t taken = 0;
        if (*at == '\\' && left > 1 && looks_unusual(at)) {
            unsigned code = read_escape(at, left, &taken);
            written += put_usual(out + written, code);
        } else {
            size_t room = out_size - written;
            taken = copy_usual(at, left < room ? left : room, out + written);
            written += taken;
        }
        at += taken;
    }
    *text = (struct span){.data = at, .size = (size_t)(end - at)};
    return written;
}
