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
        parser->count = 0;
    }
    return parser;
}

void json_parser_free(struct json_parser *parser)
{
    if (parser != NULL) {
        json_index_free(parser->index);
        mem_free(parser->mem, parser, sizeof *parser);
    }
}

void json_parser_release(struct json_parser *parser)
{
    parser->count = 0;
    parser->bytes = NULL;
    if (json_index_capacity(parser->index) > 2 * (size_t)JSON_KEEP_BYTES) {
        json_index_free(parser->index);
        parser->index = NULL;
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

/* Marks a string that is not in the usual form. */
static bool check_string(struct json_parser *parser, uint32_t token)
{
    struct span text = json_token_text(parser, token);
    if (text.size < 2 || text.data[text.size - 1] != '"') {
        return false;
    }
    enum json_form form = json_check_escapes(parser->scan_blocks, text.data + 1, text.size - 2);
    if (form == JSON_FORM_UNUSUAL) {
        parser->words[token] = json_word(JSON_WORD_UNUSUAL, parser->words[token]);
    }
    return form != JSON_FORM_INVALID;
}

static bool check_scalar(struct json_parser *parser, uint32_t token)
{
    switch (parser->bytes[parser->words[token]]) {
    case '"':
        return check_string(parser, token);
    case 't':
        return span_is(json_token_text(parser, token), "true");
    case 'f':
        return span_is(json_token_text(parser, token), "false");
    case 'n':
        return span_is(json_token_text(parser, token), "null");
    default:
        return number_valid(json_token_text(parser, token));
    }
}

/* The walk's place in the document. */
struct walk {
    struct json_parser *parser;
    uint32_t token; /* Next to look at. */
    unsigned depth; /* Containers open; their tokens are in parser->open. */
};

static char walk_byte(const struct walk *walk)
{
    const struct json_parser *parser = walk->parser;
    if (walk->token >= parser->count) {
        return '\0'; /* None of what is looked for. */
    }
    return parser->bytes[parser->words[walk->token]];
}

/* A member's key and colon. */
static bool walk_key(struct walk *walk)
{
    if (walk_byte(walk) != '"' || !check_string(walk->parser, walk->token)) {
        return false;
    }
    walk->token++;
    if (walk_byte(walk) != ':') {
        return false;
    }
    walk->token++;
    return true;
}

/* Closes the innermost container at the current token; its opener learns where. */
static void walk_close(struct walk *walk)
{
    struct json_parser *parser = walk->parser;
    uint32_t opener = parser->open[--walk->depth];
    uint32_t kind = json_word_kind(parser->words[opener]);
    parser->words[opener] = json_word(kind, walk->token);
    walk->token++;
}

static bool walk_in_object(const struct walk *walk)
{
    const struct json_parser *parser = walk->parser;
    return json_word_kind(parser->words[parser->open[walk->depth - 1]]) == JSON_WORD_OBJECT;
}

/* Behind a value: commas and closing brackets up to where the next value must begin, or the end. */
static bool walk_behind(struct walk *walk)
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
        walk_close(walk);
    }
    return true;
}

/* Opens a container. *value: the next token begins a value; else this container was empty. */
static enum json_status walk_open(struct walk *walk, bool object, bool *value)
{
    struct json_parser *parser = walk->parser;
    if (walk->depth == JSON_DEPTH_MAX) {
        return JSON_TOO_DEEP;
    }
    parser->open[walk->depth++] = walk->token;
    parser->words[walk->token++] = json_word(object ? JSON_WORD_OBJECT : JSON_WORD_ARRAY, 0);
    *value = walk_byte(walk) != json_bracket(object);
    if (!*value) {
        walk_close(walk);
        return walk_behind(walk) ? JSON_OK : JSON_INVALID;
    }
    return !object || walk_key(walk) ? JSON_OK : JSON_INVALID;
}

/* One value, or its opening bracket, and what follows up to the next one. */
static enum json_status walk_value(struct walk *walk)
{
    char byte = walk_byte(walk);
    if (byte == '{' || byte == '[') {
        bool value = false;
        return walk_open(walk, byte == '{', &value);
    }
    if (walk->token >= walk->parser->count || !check_scalar(walk->parser, walk->token)) {
        return JSON_INVALID;
    }
    walk->token++;
    return walk_behind(walk) ? JSON_OK : JSON_INVALID;
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
    uint32_t count = 0;
    enum json_index_status found =
        json_index_build(&parser->index, bytes, size, &parser->words, &count);
    if (found != JSON_INDEX_OK) {
        return found == JSON_INDEX_INVALID ? JSON_INVALID : JSON_NO_MEMORY;
    }
    parser->bytes = bytes;
    parser->size = size;
    parser->count = count;
    struct walk walk = {.parser = parser};
    enum json_status status = JSON_OK;
    do {
        status = walk_value(&walk);
    } while (status == JSON_OK && walk.depth > 0);
    if (status == JSON_OK && walk.token != count) {
        status = JSON_INVALID; /* More than one value. */
    }
    if (status != JSON_OK) {
        parser->count = 0;
    }
    return status;
}
