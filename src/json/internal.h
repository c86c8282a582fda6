/* What the files of the room share. */
#ifndef HASHTRIE_JSON_INTERNAL_H
#define HASHTRIE_JSON_INTERNAL_H

#include <endian.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "json/index.h"
#include "json/json.h"

#define JSON_UNICODE_DIGITS 4U
#define JSON_NO_CODE_UNIT   UINT32_MAX

/* ---- escapes.c ---- */

enum json_form { JSON_FORM_INVALID, JSON_FORM_USUAL, JSON_FORM_UNUSUAL };

struct json_scan;
/* Of 64 bytes each; of the last one, those whose bits are in `last` count. */
typedef void json_scan_blocks(struct json_scan *scan, const char *text, size_t blocks,
                              uint64_t last);

/* The ones that this CPU can run, the fastest at rank 0; NULL: no more. */
json_scan_blocks *json_scan_choice(unsigned rank);

/* Of the text between a string's quotes. Control characters and UTF-8 have been checked. `readable`
 * bytes, `size` or more, may be read. */
enum json_form json_check_escapes(json_scan_blocks *scan_blocks, const char *text, size_t size,
                                  size_t readable);

/* The code unit of the four digits that `text` begins with; JSON_NO_CODE_UNIT if with none. */
unsigned json_code_unit(const char *text, size_t size);

/* At most 16 bytes, no escape among them: most keys and many values. False says nothing. */
static inline bool json_is_short_and_plain(const char *text, size_t size, size_t readable)
{
#ifdef __SSE2__
    if (size > sizeof(__m128i) || readable < sizeof(__m128i)) {
        return false;
    }
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)text);
    unsigned found = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    return (found & ((1U << size) - 1)) == 0;
#else
    return size <= 16 && readable > 0 && memchr(text, '\\', size) == NULL;
#endif
}

/*
 * One to eight digits as the upper bytes of a word, without what stands behind them; 8 bytes can be
 * read at `text`. False: not only digits.
 */
static inline bool json_digits(const char *text, size_t size, uint64_t *out)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t word;
    memcpy(&word, text, sizeof word);
    unsigned unused = (unsigned)(sizeof word - size) * 8;
    word = le64toh(word) << unused;
    uint64_t zeros = ones * '0' << unused;
    uint64_t high = ones * 0xf0;
    *out = word - zeros;
    return (word & high) == zeros && ((word + (ones * 6 << unused)) & high) == zeros;
}

static inline uint32_t json_word(uint32_t kind, uint32_t value)
{
    return kind << JSON_WORD_KIND_SHIFT | value;
}

#endif
