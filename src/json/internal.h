/*
 * The document as its tokens, private to the room.
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
#ifndef HASHTRIE_JSON_INTERNAL_H
#define HASHTRIE_JSON_INTERNAL_H

#include "json/index.h"
#include "json/json.h"

#define JSON_WORD_KIND_SHIFT 30
#define JSON_WORD_PLAIN      0u
#define JSON_WORD_UNUSUAL    1u
#define JSON_WORD_OBJECT     2u
#define JSON_WORD_ARRAY      3u
#define JSON_WORD_MASK       ((UINT32_C(1) << JSON_WORD_KIND_SHIFT) - 1)

#define JSON_UNICODE_DIGITS 4u
#define JSON_NO_CODE_UNIT   UINT32_MAX

/* ---- escapes.c ---- */

enum json_form { JSON_FORM_INVALID, JSON_FORM_USUAL, JSON_FORM_UNUSUAL };

struct json_scan;
typedef void json_scan_blocks(struct json_scan *scan, const char *text, size_t blocks);

/* The ones that this CPU can run, the fastest at rank 0; NULL: no more. */
json_scan_blocks *json_scan_choice(unsigned rank);

/* Of the text between a string's quotes. Control characters and UTF-8 have been checked. */
enum json_form json_check_escapes(json_scan_blocks *scan_blocks, const char *text, size_t size);

/* The code unit of the four digits that `text` begins with; JSON_NO_CODE_UNIT if with none. */
unsigned json_code_unit(const char *text, size_t size);

/* ---- The document ---- */

struct json_parser {
    struct mem *mem;
    json_scan_blocks *scan_blocks;
    struct json_index *index; /* Owned; NULL before the first document. */
    const char *bytes;        /* The document, borrowed. */
    size_t size;
    uint32_t *words; /* The index's. */
    uint32_t count;  /* Tokens; 0: no document. */
    uint32_t open[JSON_DEPTH_MAX];
};

static inline uint32_t json_word(uint32_t kind, uint32_t value)
{
    return kind << JSON_WORD_KIND_SHIFT | value;
}

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
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
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

#endif
