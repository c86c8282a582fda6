/* Reading values of a checked document. */
#include <string.h>

#include "base/check.h"
#include "json/internal.h"

struct json_value json_root(const struct json_parser *parser)
{
    return parser->count == 0 ? json_absent() : (struct json_value){.token = 0};
}

enum json_kind json_kind(const struct json_parser *parser, struct json_value value)
{
    if (value.token >= parser->count) {
        return JSON_ABSENT;
    }
    uint32_t word = parser->words[value.token];
    switch (json_word_kind(word)) {
    case JSON_WORD_OBJECT:
        return JSON_OBJECT;
    case JSON_WORD_ARRAY:
        return JSON_ARRAY;
    case JSON_WORD_ESCAPED:
        return JSON_STRING;
    default:
        break;
    }
    switch (parser->bytes[word]) {
    case '"':
        return JSON_STRING;
    case 't':
        return JSON_TRUE;
    case 'f':
        return JSON_FALSE;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER;
    }
}

static bool is_container(const struct json_parser *parser, uint32_t token)
{
    return json_word_kind(parser->words[token]) >= JSON_WORD_OBJECT;
}

struct span json_text(const struct json_parser *parser, struct json_value value)
{
    REQUIRE(value.token < parser->count);
    REQUIRE(!is_container(parser, value.token));
    struct span text = json_token_text(parser, value.token);
    if (text.data[0] == '"') {
        text.data++;
        text.size -= 2;
    }
    return text;
}

bool json_is_escaped(const struct json_parser *parser, struct json_value value)
{
    REQUIRE(value.token < parser->count);
    return json_word_kind(parser->words[value.token]) == JSON_WORD_ESCAPED;
}

struct span json_member_text(const struct json_parser *parser, struct json_value value)
{
    REQUIRE(value.token > 1 && value.token < parser->count);
    uint32_t colon = json_word_value(parser->words[value.token - 1]);
    REQUIRE(parser->bytes[colon] == ':');
    if (!is_container(parser, value.token)) {
        return json_token_text(parser, value.token);
    }
    uint32_t start = colon + 1;
    while (json_is_blank(parser->bytes[start])) {
        start++;
    }
    uint32_t end = parser->words[json_word_value(parser->words[value.token])] + 1;
    return (struct span){.data = parser->bytes + start, .size = end - start};
}

/* Decodes piece by piece, so that no text needs memory. */
static bool escaped_is(struct span text, const char *wanted, size_t wanted_size)
{
    char piece[64];
    size_t at = 0;
    for (size_t size; (size = json_decode(&text, piece, sizeof piece)) > 0; at += size) {
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
    if (json_is_escaped(parser, value)) {
        return escaped_is(json_text(parser, value), text, strlen(text));
    }
    return span_is(json_text(parser, value), text);
}

bool json_read_int(const struct json_parser *parser, struct json_value value, int64_t *out)
{
    if (json_kind(parser, value) != JSON_NUMBER) {
        return false;
    }
    struct span text = json_text(parser, value);
    bool negative = text.data[0] == '-';
    uint64_t most = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    uint64_t number = 0;
    for (size_t i = negative; i < text.size; i++) {
        unsigned digit = (unsigned)(text.data[i] - '0');
        if (digit > 9 || number > (most - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - number) : (int64_t)number;
    return true;
}

struct json_cursor json_first(const struct json_parser *parser, struct json_value container)
{
    uint32_t none = parser->count;
    if (container.token >= parser->count || !is_container(parser, container.token)) {
        return (struct json_cursor){.token = none};
    }
    uint32_t word = parser->words[container.token];
    return (struct json_cursor){.token = container.token + 1,
                                .object = json_word_kind(word) == JSON_WORD_OBJECT};
}

/* The token behind a value, its comma included; a closing bracket stays. */
static uint32_t token_behind(const struct json_parser *parser, uint32_t token)
{
    uint32_t next =
        is_container(parser, token) ? json_word_value(parser->words[token]) + 1 : token + 1;
    bool comma = next < parser->count && parser->bytes[parser->words[next]] == ',';
    return comma ? next + 1 : next;
}

/* The cursor stands on a closing bracket, or was given nothing to walk. */
static bool at_end(const struct json_parser *parser, const struct json_cursor *cursor)
{
    if (cursor->token >= parser->count) {
        return true;
    }
    uint32_t word = parser->words[cursor->token];
    if (json_word_kind(word) != JSON_WORD_PLAIN) {
        return false;
    }
    return parser->bytes[word] == (cursor->object ? '}' : ']');
}

bool json_next_element(const struct json_parser *parser, struct json_cursor *cursor,
                       struct json_value *value)
{
    if (cursor->object || at_end(parser, cursor)) {
        return false;
    }
    *value = (struct json_value){.token = cursor->token};
    cursor->token = token_behind(parser, cursor->token);
    return true;
}

bool json_next_member(const struct json_parser *parser, struct json_cursor *cursor,
                      struct json_value *key, struct json_value *value)
{
    if (!cursor->object || at_end(parser, cursor)) {
        return false;
    }
    *key = (struct json_value){.token = cursor->token};
    *value = (struct json_value){.token = cursor->token + 2}; /* Behind the colon. */
    cursor->token = token_behind(parser, value->token);
    return true;
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
