/*
 * The part of json.h that is inlined where it is called, since bodies have many values: the
 * document as its tokens. Private to the room as far as it is not declared in json.h.
 *
 * One 32-bit word per token, made from the offset where it begins:
 *
 *     31 30 29                     0
 *     [kind][ offset or token      ]
 *
 *     kind 0     brackets that close, `,` `:`, numbers, literals, strings in the usual form: offset
 *     kind 1     a string that is not in the usual form: offset
 *     kind 2, 3  an object, an array: the token that closes it
 *
 * A container's own offset is not needed once the grammar is checked. A token reaches to the next
 * one or to the end; behind the last one stands a word with the document's size.
 */
#ifndef HASHTRIE_JSON_VALUES_H
#define HASHTRIE_JSON_VALUES_H

#include "base/check.h"

#define JSON_WORD_KIND_SHIFT 30
#define JSON_WORD_PLAIN      0u
#define JSON_WORD_UNUSUAL    1u
#define JSON_WORD_OBJECT     2u
#define JSON_WORD_ARRAY      3u
#define JSON_WORD_MASK       ((UINT32_C(1) << JSON_WORD_KIND_SHIFT) - 1)

struct json_index;
struct json_scan;

struct json_parser {
    const char *bytes; /* The document, borrowed. */
    size_t size;
    uint32_t *words; /* Owned; NULL: none. */
    uint32_t count;  /* Tokens; 0: no document. */
    size_t capacity; /* Of words. */
    struct mem *mem;
    void (*scan_blocks)(struct json_scan *scan, const char *text, size_t blocks, uint64_t last);
    struct json_index *index; /* Owned; NULL before the first document. */
    uint32_t open[JSON_DEPTH_MAX];
};

static inline uint32_t json_word_kind(uint32_t word)
{
    return word >> JSON_WORD_KIND_SHIFT;
}

static inline uint32_t json_word_value(uint32_t word)
{
    return word & JSON_WORD_MASK;
}

/* What closes a container. */
static inline char json_bracket(bool object)
{
    static const char brackets[] = {']', '}'};
    return brackets[object];
}

static inline bool json_is_blank(char byte)
{
    return byte <= ' ' && (byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t');
}

/* From the start of a token that is no container to its last byte that is not blank. */
static inline struct span json_token_text(const struct json_parser *parser, uint32_t token)
{
    uint32_t start = json_word_value(parser->words[token]);
    uint32_t end = json_word_value(parser->words[token + 1]);
    while (end > start && json_is_blank(parser->bytes[end - 1])) {
        end--;
    }
    return (struct span){.data = parser->bytes + start, .size = end - start};
}

static inline bool json_is_container(const struct json_parser *parser, uint32_t token)
{
    return json_word_kind(parser->words[token]) >= JSON_WORD_OBJECT;
}

static inline enum json_kind json_kind(const struct json_parser *parser, struct json_value value)
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
    case JSON_WORD_UNUSUAL:
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

static inline struct span json_text(const struct json_parser *parser, struct json_value value)
{
    REQUIRE(value.token < parser->count);
    REQUIRE(!json_is_container(parser, value.token));
    struct span text = json_token_text(parser, value.token);
    if (text.data[0] == '"') {
        text.data++;
        text.size -= 2;
    }
    return text;
}

static inline bool json_is_usual(const struct json_parser *parser, struct json_value value)
{
    REQUIRE(value.token < parser->count);
    return json_word_kind(parser->words[value.token]) == JSON_WORD_PLAIN;
}

static inline struct json_cursor json_first(const struct json_parser *parser,
                                            struct json_value container)
{
    if (container.token >= parser->count || !json_is_container(parser, container.token)) {
        return (struct json_cursor){.token = parser->count};
    }
    uint32_t word = parser->words[container.token];
    return (struct json_cursor){.token = container.token + 1,
                                .object = json_word_kind(word) == JSON_WORD_OBJECT};
}

/* The token behind a value, its comma included; a closing bracket stays. */
static inline uint32_t json_token_behind(const struct json_parser *parser, uint32_t token)
{
    uint32_t next =
        json_is_container(parser, token) ? json_word_value(parser->words[token]) + 1 : token + 1;
    bool comma = next < parser->count && parser->bytes[parser->words[next]] == ',';
    return comma ? next + 1 : next;
}

/* The cursor stands on a closing bracket, or was given nothing to walk. */
static inline bool json_at_end(const struct json_parser *parser, const struct json_cursor *cursor)
{
    if (cursor->token >= parser->count) {
        return true;
    }
    uint32_t word = parser->words[cursor->token];
    if (json_word_kind(word) != JSON_WORD_PLAIN) {
        return false;
    }
    return parser->bytes[word] == json_bracket(cursor->object);
}

static inline bool json_next_element(const struct json_parser *parser, struct json_cursor *cursor,
                                     struct json_value *value)
{
    if (cursor->object || json_at_end(parser, cursor)) {
        return false;
    }
    *value = (struct json_value){.token = cursor->token};
    cursor->token = json_token_behind(parser, cursor->token);
    return true;
}

static inline bool json_next_member(const struct json_parser *parser, struct json_cursor *cursor,
                                    struct json_value *key, struct json_value *value)
{
    if (!cursor->object || json_at_end(parser, cursor)) {
        return false;
    }
    *key = (struct json_value){.token = cursor->token};
    *value = (struct json_value){.token = cursor->token + 2}; /* Behind the colon. */
    cursor->token = json_token_behind(parser, value->token);
    return true;
}

#endif
