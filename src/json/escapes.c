/*
 * Checks the escapes of a string and tells whether all of its characters stand in the usual form
 * (see json.h). 64 bytes at a time as bit masks; which bytes are escaped follows from the runs of
 * backslashes without a branch per run (simdjson's method).
 */
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/check.h"
#include "json/internal.h"

enum { BLOCK = 64 };

/* The bytes of one block, a bit each, the first one lowest. */
struct masks {
    uint64_t backslash;
    uint64_t letter;  /* May stand behind a backslash. */
    uint64_t unusual; /* 'u' and '/'. */
};

struct json_scan {
    const char *end;  /* Of the string. */
    uint64_t escaped; /* 1: the last byte of the block before escapes the first one of the next. */
    uint64_t wrong;   /* Not 0: invalid. */
    bool unusual;
};

/* The value of a hexadecimal digit plus one; 0: it is none. */
static const unsigned char hex_value[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

unsigned json_code_unit(const char *text, size_t size)
{
    if (size < JSON_UNICODE_DIGITS) {
        return JSON_NO_CODE_UNIT;
    }
    const unsigned char *digits = (const unsigned char *)text;
    unsigned a = hex_value[digits[0]];
    unsigned b = hex_value[digits[1]];
    unsigned c = hex_value[digits[2]];
    unsigned d = hex_value[digits[3]];
    if (a == 0 || b == 0 || c == 0 || d == 0) {
        return JSON_NO_CODE_UNIT;
    }
    return (a - 1) << 12 | (b - 1) << 8 | (c - 1) << 4 | (d - 1);
}

/* A control character without a shorter form, in small letters, is usual. */
static void check_unicode(struct json_scan *scan, const char *digits)
{
    unsigned unit = json_code_unit(digits, (size_t)(scan->end - digits));
    bool shorter = unit == '\b' || unit == '\t' || unit == '\n' || unit == '\f' || unit == '\r';
    if (unit == JSON_NO_CODE_UNIT) {
        scan->wrong = 1;
    } else if (unit >= ' ' || shorter || (digits[3] >= 'A' && digits[3] <= 'F')) {
        scan->unusual = true;
    }
}

/* The bytes behind unescaped backslashes; backslashes may come from the block before. */
static uint64_t find_escaped(uint64_t backslash, uint64_t *carry)
{
    const uint64_t odd_bits = UINT64_C(0xaaaaaaaaaaaaaaaa);
    uint64_t starts = backslash & ~*carry;
    uint64_t ends = (((starts << 1) | odd_bits) - starts) ^ odd_bits;
    uint64_t escaped = ends ^ (backslash | *carry);
    *carry = (ends & backslash) >> (BLOCK - 1);
    return escaped;
}

static inline void take_block(struct json_scan *scan, const char *text, struct masks masks,
                              uint64_t counts)
{
    uint64_t escaped = find_escaped(masks.backslash & counts, &scan->escaped);
    scan->wrong |= escaped & ~(masks.letter & counts);
    for (uint64_t found = escaped & masks.unusual; found != 0; found &= found - 1) {
        const char *letter = text + __builtin_ctzll(found);
        if (*letter == '/') {
            scan->unusual = true;
        } else {
            check_unicode(scan, letter + 1);
        }
    }
}

/* What may stand behind a backslash. */
enum { LETTER = 1, LETTER_UNUSUAL = 2 };

static const unsigned char letters[256] = {
    ['n'] = LETTER,
    ['t'] = LETTER,
    ['r'] = LETTER,
    ['b'] = LETTER,
    ['f'] = LETTER,
    ['"'] = LETTER,
    ['\\'] = LETTER,
    ['/'] = LETTER | LETTER_UNUSUAL,
    ['u'] = LETTER | LETTER_UNUSUAL,
};

static void scan_plain(struct json_scan *scan, const char *text, size_t blocks, uint64_t last)
{
    for (; blocks > 0; blocks--, text += BLOCK) {
        struct masks masks = {0};
        for (unsigned i = 0; i < BLOCK; i++) {
            unsigned char letter = letters[(unsigned char)text[i]];
            masks.backslash |= (uint64_t)(text[i] == '\\') << i;
            masks.letter |= (uint64_t)(letter != 0) << i;
            masks.unusual |= (uint64_t)((letter & LETTER_UNUSUAL) != 0) << i;
        }
        take_block(scan, text, masks, blocks > 1 ? ~UINT64_C(0) : last);
    }
}

#if defined(__x86_64__)

static inline uint64_t join_sse2(const __m128i parts[4])
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < 4; i++) {
        mask |= (uint64_t)(unsigned)_mm_movemask_epi8(parts[i]) << (16 * i);
    }
    return mask;
}

static inline __m128i equal_sse2(__m128i bytes, char byte)
{
    return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte));
}

static void scan_sse2(struct json_scan *scan, const char *text, size_t blocks, uint64_t last)
{
    for (; blocks > 0; blocks--, text += BLOCK) {
        __m128i bytes[4];
        __m128i backslash[4];
        __m128i letter[4];
        __m128i unusual[4];
        for (size_t i = 0; i < 4; i++) {
            bytes[i] = _mm_loadu_si128((const __m128i *)(const void *)(text + (size_t)16 * i));
            backslash[i] = equal_sse2(bytes[i], '\\');
        }
        struct masks masks = {.backslash = join_sse2(backslash)};
        if ((masks.backslash | scan->escaped) == 0) {
            continue;
        }
        for (unsigned i = 0; i < 4; i++) {
            unusual[i] = _mm_or_si128(equal_sse2(bytes[i], 'u'), equal_sse2(bytes[i], '/'));
            letter[i] = _mm_or_si128(backslash[i], unusual[i]);
            letter[i] = _mm_or_si128(letter[i], equal_sse2(bytes[i], '"'));
            letter[i] = _mm_or_si128(letter[i], equal_sse2(bytes[i], 'b'));
            letter[i] = _mm_or_si128(letter[i], equal_sse2(bytes[i], 'f'));
            letter[i] = _mm_or_si128(letter[i], equal_sse2(bytes[i], 'n'));
            letter[i] = _mm_or_si128(letter[i], equal_sse2(bytes[i], 'r'));
            letter[i] = _mm_or_si128(letter[i], equal_sse2(bytes[i], 't'));
        }
        masks.letter = join_sse2(letter);
        masks.unusual = join_sse2(unusual);
        take_block(scan, text, masks, blocks > 1 ? ~UINT64_C(0) : last);
    }
}

/*
 * Letters by their two halves: a byte is one if the entries of both have a bit in common.
 *     2: " /   5: \   6: b f n   7: r t u
 */
__attribute__((target("avx2"))) static inline uint64_t letters_avx2(__m256i bytes)
{
    const __m256i low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, 1 | 4 | 8, 0, 8, 8, 4, 0, 0, 0, 0, 0, 2, 0, 4, 1));
    const __m256i high =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 1, 0, 0, 2, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i half = _mm256_set1_epi8(0x0f);
    __m256i lows = _mm256_shuffle_epi8(low, _mm256_and_si256(bytes, half));
    __m256i highs = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), half));
    __m256i none = _mm256_cmpeq_epi8(_mm256_and_si256(lows, highs), _mm256_setzero_si256());
    return (uint32_t)~_mm256_movemask_epi8(none);
}

__attribute__((target("avx2"))) static inline uint64_t unusual_avx2(__m256i bytes)
{
    __m256i either = _mm256_or_si256(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('u')),
                                     _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('/')));
    return (uint32_t)_mm256_movemask_epi8(either);
}

__attribute__((target("avx2"))) static inline uint64_t backslash_avx2(__m256i bytes)
{
    __m256i equal = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\\'));
    return (uint32_t)_mm256_movemask_epi8(equal);
}

__attribute__((target("avx2"))) static void scan_avx2(struct json_scan *scan, const char *text,
                                                      size_t blocks, uint64_t last)
{
    for (; blocks > 0; blocks--, text += BLOCK) {
        __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)text);
        __m256i second = _mm256_loadu_si256((const __m256i *)(const void *)(text + 32));
        struct masks masks = {.backslash = backslash_avx2(first) | backslash_avx2(second) << 32};
        if ((masks.backslash | scan->escaped) != 0) {
            masks.letter = letters_avx2(first) | letters_avx2(second) << 32;
            masks.unusual = unusual_avx2(first) | unusual_avx2(second) << 32;
            take_block(scan, text, masks, blocks > 1 ? ~UINT64_C(0) : last);
        }
    }
}

json_scan_blocks *json_scan_choice(unsigned rank)
{
    static json_scan_blocks *const choices[] = {scan_avx2, scan_sse2, scan_plain, NULL};
    unsigned first = __builtin_cpu_supports("avx2") ? 0 : 1;
    return choices[first + rank];
}

#else

json_scan_blocks *json_scan_choice(unsigned rank)
{
    return rank == 0 ? scan_plain : NULL;
}

#endif

enum json_form json_check_escapes(json_scan_blocks *scan_blocks, const char *text, size_t size,
                                  size_t readable)
{
    struct json_scan scan = {.end = text + size};
    size_t whole = size / BLOCK;
    size_t rest = size % BLOCK;
    uint64_t last = (UINT64_C(1) << rest) - 1;
    if (rest == 0) {
        scan_blocks(&scan, text, whole, ~UINT64_C(0));
    } else if (readable - whole * BLOCK >= BLOCK) {
        scan_blocks(&scan, text, whole + 1, last);
    } else { /* At the document's end. */
        char copy[BLOCK] = {0};
        scan_blocks(&scan, text, whole, ~UINT64_C(0));
        memcpy(copy, text + whole * BLOCK, rest);
        scan.end = copy + rest;
        scan_blocks(&scan, copy, 1, last);
    }
    if (scan.wrong != 0 || scan.escaped != 0) {
        return JSON_FORM_INVALID;
    }
    return scan.unusual ? JSON_FORM_UNUSUAL : JSON_FORM_USUAL;
}
