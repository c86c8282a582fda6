/* Reading values of a checked document. */
#include <string.h>

#include "base/check.h"
#include "json/internal.h"

enum { INT_DIGITS_MAX = 19 }; /* Of an int64_t; more digits than that fit no uint64_t either. */

struct json_value json_root(const struct json_parser *parser)
{
    return parser->count == 0 ? json_absent() : (struct json_value){.token = 0};
}

struct span json_member_text(const struct json_parser *parser, struct json_value value)
{
    REQUIRE(value.token > 1 && value.token < parser->count);
    uint32_t colon = json_word_value(parser->words[value.token - 1]);
    REQUIRE(parser->bytes[colon] == ':');
    if (!json_is_container(parser, value.token)) {
        return json_token_text(parser, value.token);
    }
    uint32_t start = colon + 1;
    while (json_is_blank(parser->bytes[start])) {
        start++;
    }
    uint32_t end = parser->words[json_word_value(parser->words[value.token])] + 1;
    return (struct span){.data = parser->bytes + start, .size = end - start};
}

/* Rewrites piece by piece, so that no text needs memory. */
static bool unusual_is(struct span text, const char *wanted, size_t wanted_size)
{
    char piece[64];
    size_t at = 0;
    for (size_t size; (size = json_to_usual(&text, piece, sizeof piece)) > 0; at += size) {
        if (size > wanted_size - at || memcmp(piece, wanted + at, size) != 0) {
            return false;
        }
    }
    return at == wanted_size;
}

bool json_is_text(const struct json_parser *parser, struct json_value value, const char *text)
{
    if (json_kind(parser, value) != JSON_STRING) {
        return false;
    }
    if (!json_is_usual(parser, value)) {
        return unusual_is(json_text(parser, value), text, strlen(text));
    }
    return span_is(json_text(parser, value), text);
}

/*
 * One to eight digits without a branch per digit; 8 bytes can be read at `text`. Pairs, then fours,
 * then all eight are joined inside one word (Lemire, "Quickly parsing eight digits").
 */
static bool parse_eight(const char *text, size_t size, uint64_t *out)
{
    uint64_t word = 0;
    if (!json_digits(text, size, &word)) {
        return false;
    }
    word = word * 10 + (word >> 8);
    word = ((word & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064) +
            (word >> 16 & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x0000271000000001)) >>
           32;
    *out = word;
    return true;
}

/* -? digits, nothing else, and it fits. The grammar has no leading zeros. */
static bool parse_int(const struct json_parser *parser, struct span text, int64_t *out)
{
    uint64_t number = 0;
    size_t behind = (size_t)(parser->bytes + parser->size - text.data);
    if (text.size <= sizeof number && behind >= sizeof number && text.data[0] != '-') {
        bool digits = parse_eight(text.data, text.size, &number);
        *out = digits ? (int64_t)number : *out;
        return digits;
    }
    bool negative = text.data[0] == '-';
    if (text.size - negative > INT_DIGITS_MAX) {
        return false;
    }
    for (size_t i = negative; i < text.size; i++) {
        unsigned digit = (unsigned)(text.data[i] - '0');
        if (digit > 9) {
            return false;
        }
        number = number * 10 + digit;
    }
    if (number > (uint64_t)INT64_MAX + negative) {
        return false;
    }
    *out = negative ? (int64_t)(0 - number) : (int64_t)number;
    return true;
}

bool json_read_int(const struct json_parser *parser, struct json_value value, int64_t *out)
{
    return json_kind(parser, value) == JSON_NUMBER &&
           parse_int(parser, json_text(parser, value), out);
}

/* Up to eight digits with nothing between them and their comma, as nearly all token ids have it.
 * Stops before the first other element. Returns how many. */
static size_t next_short_ints(const struct json_parser *parser, struct json_cursor *cursor,
                              int64_t *out, size_t count_max)
{
    const uint32_t *words = parser->words;
    uint32_t token = cursor->token;
    size_t count = 0;
    while (count < count_max && token + 1 < parser->count) {
        uint64_t number = 0;
        size_t start = words[token]; /* Beyond the document: no number. */
        size_t size = words[token + 1] - start;
        if (start + sizeof number > parser->size || size > sizeof number ||
            parser->bytes[start + size] != ',' ||
            !parse_eight(parser->bytes + start, size, &number)) {
            break;
        }
        out[count++] = (int64_t)number;
        token += 2;
    }
    cursor->token = token;
    return count;
}

static bool starts_number(char byte)
{
    return byte == '-' || (byte >= '0' && byte <= '9');
}

size_t json_next_ints(const struct json_parser *parser, struct json_cursor *cursor, int64_t *out,
                      size_t count_max)
{
    size_t count = 0;
    while (count < count_max && !cursor->object && cursor->token < parser->count) {
        size_t more = next_short_ints(parser, cursor, out + count, count_max - count);
        count += more;
        if (more > 0) {
            continue;
        }
        uint32_t word = parser->words[cursor->token];
        if (json_word_kind(word) != JSON_WORD_PLAIN || !starts_number(parser->bytes[word]) ||
            !parse_int(parser, json_token_text(parser, cursor->token), &out[count])) {
            break;
        }
        cursor->token = json_token_behind(parser, cursor->token);
        count++;
    }
    return count;
}

struct json_value json_find(const struct json_parser *parser, struct json_value object,
                            const char *name)
{
    struct json_value found = json_absent();
    struct json_cursor cursor = json_first(parser, object);
    struct json_value key;
    struct json_value value;
    while (json_next_member(parser, &cursor, &key, &value)) {
        if (json_is_text(parser, key, name)) {
            found = value;
        }
    }
    return found;
}
