/* Checks the grammar over the tokens that simdjson found, and links containers to their ends. */
#include <string.h>

#include "base/check.h"
#include "json/internal.h"

struct json_parser *json_parser_new(struct mem *mem)
{
    struct json_parser *parser = mem_alloc(mem, sizeof *parser);
    if (parser != NULL) {
        parser->mem = mem;
        parser->scan_blocks = json_scan_choice(0);
        parser->index = NULL;
        parser->words = NULL;
        parser->capacity = 0;
        parser->count = 0;
    }
    return parser;
}

static void free_words(struct json_parser *parser)
{
    mem_free(parser->mem, parser->words, parser->capacity * sizeof *parser->words);
    parser->words = NULL;
    parser->capacity = 0;
}

static bool reserve_words(struct json_parser *parser, size_t size)
{
    size_t needed = JSON_INDEX_OFFSETS(size);
    if (parser->capacity >= needed) {
        return true;
    }
    size_t capacity = parser->capacity + parser->capacity / 2;
    capacity = capacity > needed ? capacity : needed;
    free_words(parser); /* Nothing in it is worth a copy, and both at once need not fit. */
    parser->words = mem_alloc(parser->mem, capacity * sizeof *parser->words);
    if (parser->words == NULL) {
        return false;
    }
    parser->capacity = capacity;
    return true;
}

void json_parser_free(struct json_parser *parser)
{
    if (parser != NULL) {
        free_words(parser);
        json_index_free(parser->index);
        mem_free(parser->mem, parser, sizeof *parser);
    }
}

void json_parser_release(struct json_parser *parser)
{
    parser->count = 0;
    parser->bytes = NULL;
    if (parser->capacity * sizeof *parser->words > JSON_KEEP_BYTES) {
        free_words(parser);
    }
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static size_t skip_digits(struct span text, size_t at)
{
    while (at < text.size && is_digit(text.data[at])) {
        at++;
    }
    return at;
}

/* -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)? and nothing behind it. */
static bool number_valid(struct span text)
{
    size_t at = text.size > 0 && text.data[0] == '-' ? 1 : 0;
    size_t digits = skip_digits(text, at) - at;
    if (digits == 0 || (digits > 1 && text.data[at] == '0')) {
        return false;
    }
    at += digits;
    if (at < text.size && text.data[at] == '.') {
        size_t end = skip_digits(text, at + 1);
        if (end == at + 1) {
            return false;
        }
        at = end;
    }
    if (at < text.size && (text.data[at] == 'e' || text.data[at] == 'E')) {
        at++;
        at += at < text.size && (text.data[at] == '+' || text.data[at] == '-');
        size_t end = skip_digits(text, at);
        if (end == at) {
            return false;
        }
        at = end;
    }
    return at == text.size;
}

/*
 * The walk over the tokens. A local of json_parse() that every function here is inlined around, so
 * that it lives in registers: a store to the words could else change any of it.
 */
struct walk {
    const struct json_parser *parser;
    const char *bytes;
    uint32_t *words;
    uint32_t *open; /* Tokens of the containers that are open. */
    uint32_t count;
    uint32_t token; /* Next to look at. */
    unsigned depth;
};

/* The byte that the next token begins with; '\0' behind the last one. */
static inline char walk_byte(const struct walk *walk)
{
    if (walk->token >= walk->count) {
        return '\0';
    }
    return walk->bytes[walk->words[walk->token]];
}

/* The next token, a string; it is marked if it is not in the usual form. */
static inline bool walk_string(struct walk *walk)
{
    uint32_t start = walk->words[walk->token] + 1;
    uint32_t end = walk->words[walk->token + 1] - 1;
    while (json_is_blank(walk->bytes[end])) {
        end--; /* Stops at the opening quote at the latest. */
    }
    if (end < start || walk->bytes[end] != '"') {
        return false;
    }
    size_t readable = walk->parser->size - start;
    if (json_is_short_and_plain(walk->bytes + start, end - start, readable)) {
        walk->token++;
        return true;
    }
    enum json_form form =
        json_check_escapes(walk->parser->scan_blocks, walk->bytes + start, end - start, readable);
    if (form == JSON_FORM_UNUSUAL) {
        walk->words[walk->token] = json_word(JSON_WORD_UNUSUAL, walk->words[walk->token]);
    }
    walk->token++;
    return form != JSON_FORM_INVALID;
}

/* The next token, a number or one of the three words. */
static bool walk_scalar(struct walk *walk, char first)
{
    if (walk->token >= walk->count) {
        return false;
    }
    struct span text = json_token_text(walk->parser, walk->token++);
    size_t readable = walk->parser->size - (size_t)(text.data - walk->bytes);
    uint64_t digits = 0;
    if (is_digit(first) && text.size <= sizeof digits && readable >= sizeof digits &&
        json_digits(text.data, text.size, &digits)) {
        return first != '0' || text.size == 1;
    }
    switch (first) {
    case 't':
        return span_is(text, "true");
    case 'f':
        return span_is(text, "false");
    case 'n':
        return span_is(text, "null");
    default:
        return number_valid(text);
    }
}

/* A member's key and colon. */
static inline bool walk_key(struct walk *walk)
{
    if (walk_byte(walk) != '"' || !walk_string(walk) || walk_byte(walk) != ':') {
        return false;
    }
    walk->token++;
    return true;
}

static inline bool walk_in_object(const struct walk *walk)
{
    return json_word_kind(walk->words[walk->open[walk->depth - 1]]) == JSON_WORD_OBJECT;
}

/* Behind a value: commas and closing brackets up to where the next value must begin, or the end. */
static inline bool walk_behind(struct walk *walk)
{
    while (walk->depth > 0) {
        bool object = walk_in_object(walk);
        char byte = walk_byte(walk);
        if (byte == ',') {
            walk->token++;
            return !object || walk_key(walk);
        }
        if (byte != json_bracket(object)) {
            return false;
        }
        uint32_t opener = walk->open[--walk->depth]; /* Learns where it is closed. */
        walk->words[opener] = json_word(json_word_kind(walk->words[opener]), walk->token++);
    }
    return true;
}

/* One value, or its opening bracket, and what follows up to the next one. */
static inline enum json_status walk_value(struct walk *walk)
{
    char byte = walk_byte(walk);
    bool object = byte == '{';
    if (!object && byte != '[') {
        bool valid = byte == '"' ? walk_string(walk) : walk_scalar(walk, byte);
        return valid && walk_behind(walk) ? JSON_OK : JSON_INVALID;
    }
    if (walk->depth == JSON_DEPTH_MAX) {
        return JSON_TOO_DEEP;
    }
    walk->open[walk->depth++] = walk->token;
    walk->words[walk->token++] = json_word(object ? JSON_WORD_OBJECT : JSON_WORD_ARRAY, 0);
    if (walk_byte(walk) == json_bracket(object)) {
        return walk_behind(walk) ? JSON_OK : JSON_INVALID;
    }
    return !object || walk_key(walk) ? JSON_OK : JSON_INVALID;
}

enum json_status json_parse(struct json_parser *parser, const char *bytes, size_t size)
{
    parser->count = 0;
    if (size > JSON_BYTES_MAX) {
        return JSON_TOO_BIG;
    }
    if (size == 0) {
        return JSON_INVALID;
    }
    if (!reserve_words(parser, size)) {
        return JSON_NO_MEMORY;
    }
    uint32_t count = 0;
    enum json_index_status found =
        json_index_build(&parser->index, bytes, size, parser->words, &count);
    if (found != JSON_INDEX_OK) {
        return found == JSON_INDEX_INVALID ? JSON_INVALID : JSON_NO_MEMORY;
    }
    parser->bytes = bytes;
    parser->size = size;
    struct walk walk = {.parser = parser,
                        .bytes = bytes,
                        .words = parser->words,
                        .open = parser->open,
                        .count = count};
    enum json_status status = JSON_OK;
    do {
        status = walk_value(&walk);
    } while (status == JSON_OK && walk.depth > 0);
    if (status == JSON_OK && walk.token != count) {
        return JSON_INVALID; /* More than one value. */
    }
    parser->count = status == JSON_OK ? count : 0;
    return status;
}
