/*
 * Reading and writing JSON.
 *
 * Reading: json_parse() checks a whole document once (grammar, UTF-8, escapes) and keeps an index
 * of its tokens, four bytes each, beside the document, which stays the caller's and is never copied
 * or changed. Values are then reached in any order at O(1) per step, and strings are spans into the
 * document. Input is hostile: no call recurses, reads past `size` or throws.
 * simdjson (https://github.com/simdjson/simdjson) finds the tokens; no padding is needed behind the
 * document.
 *
 * Beyond the standard: a surrogate without its partner (\ud800) is read as U+FFFD. Of equal keys
 * the last counts, as in Python. Numbers are kept as text.
 *
 * The usual form of a string is the one that JSON.stringify() and most other writers give it: the
 * escapes \" \\ \b \f \n \r \t, \u00xx in small letters for other control characters, all else as
 * it is. It writes each character in one way only, so strings are equal if their usual forms are,
 * and what begins with the same characters begins with the same bytes.
 *
 * Writing: a cursor over a `struct buf` that places commas and colons by itself.
 *
 * Thread rule: one thread per parser at a time.
 */
#ifndef HASHTRIE_JSON_JSON_H
#define HASHTRIE_JSON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/span.h"

enum {
    JSON_DEPTH_MAX = 1024,                   /* Open containers; Python gives up there, too. */
    JSON_DECODE_MIN = 4,                     /* Bytes that one character may need. */
    JSON_USUAL_MIN = 6,                      /* The same in the usual form. */
    JSON_KEEP_BYTES = 8 * 1024 * 1024,       /* A parser keeps an index of this size. */
    JSON_BYTES_MAX = 1024 * 1024 * 1024 - 1, /* Larger documents are refused. */
};

enum json_status {
    JSON_OK,
    JSON_INVALID,  /* Not JSON, or not UTF-8. */
    JSON_TOO_DEEP, /* More than JSON_DEPTH_MAX open containers. */
    JSON_TOO_BIG,  /* More than JSON_BYTES_MAX bytes. */
    JSON_NO_MEMORY,
};

enum json_kind {
    JSON_ABSENT, /* What a search did not find. */
    JSON_OBJECT,
    JSON_ARRAY,
    JSON_STRING,
    JSON_NUMBER,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
};

struct json_parser;

/* A value of the document that was parsed last; plain data, valid until the next json_parse(). */
struct json_value {
    uint32_t token;
};

static inline struct json_value json_absent(void)
{
    return (struct json_value){.token = UINT32_MAX};
}

/* ---- Parsing ---- */

struct json_parser *
json_parser_new(struct mem *mem);                  /* NULL: no memory. Takes nothing large yet. */
void json_parser_free(struct json_parser *parser); /* NULL is fine. */

/*
 * The index takes 4 bytes of address space per byte of document, all of it charged to the parser's
 * `mem`, but touched only as far as there are tokens. `bytes` must stay while values are read.
 */
enum json_status json_parse(struct json_parser *parser, const char *bytes, size_t size);

/* Forgets the document and gives an index larger than JSON_KEEP_BYTES back. */
void json_parser_release(struct json_parser *parser);

/* ---- Values; after JSON_OK ---- */

struct json_value json_root(const struct json_parser *parser);
static inline enum json_kind json_kind(const struct json_parser *parser, struct json_value value);

/* STRING: the bytes between the quotes, escapes as they came. NUMBER and the literals: their text.
 */
static inline struct span json_text(const struct json_parser *parser, struct json_value value);
static inline bool json_is_usual(const struct json_parser *parser,
                                 struct json_value value); /* STRING. */

/* A member's value as it stands in the document, of any kind. REQUIREs that it is a member's. */
struct span json_member_text(const struct json_parser *parser, struct json_value value);

/*
 * Decodes from the front of `text` (of a string of this parser) as many whole characters as fit
 * into `out`, moves `text` behind them and returns the bytes written; 0 once `text` is empty.
 * out_size is at least JSON_DECODE_MIN. The decoded text is never longer than `text`.
 */
size_t json_decode(struct span *text, char *out, size_t out_size);
/* The same to the usual form, which is never longer than `text` either; for JSON_USUAL_MIN. */
size_t json_to_usual(struct span *text, char *out, size_t out_size);

/* The string is `text`, which has no character that must be escaped. False for other kinds. */
bool json_is_text(const struct json_parser *parser, struct json_value value, const char *text);

/* The number is an integer without fraction and exponent that fits. */
bool json_read_int(const struct json_parser *parser, struct json_value value, int64_t *out);

/*
 * Walking: `cursor = json_first(parser, container)`, then json_next_*() until it is false. A
 * container of the other kind, or no container at all, has nothing to give.
 */
struct json_cursor {
    uint32_t token;
    bool object;
};

static inline struct json_cursor json_first(const struct json_parser *parser,
                                            struct json_value container);
static inline bool json_next_element(const struct json_parser *parser, struct json_cursor *cursor,
                                     struct json_value *value);
/* As many of the next elements as are integers (see json_read_int()), at most count_max; returns
 * how many. */
size_t json_next_ints(const struct json_parser *parser, struct json_cursor *cursor, int64_t *out,
                      size_t count_max);
static inline bool json_next_member(const struct json_parser *parser, struct json_cursor *cursor,
                                    struct json_value *key, struct json_value *value);

/* The last member of that name, or absent. O(members). */
struct json_value json_find(const struct json_parser *parser, struct json_value object,
                            const char *name);

/* ---- Editing: a document whose root is an object, without some of its members ---- */

enum { JSON_PIECES_MAX = 12 };

/* Pieces of the document, borrowed from it: all that is kept, up to the brace that closes the
 * object. */
struct json_edit {
    struct span pieces[JSON_PIECES_MAX];
    size_t piece_count;
    bool comma; /* One is due before a further member. */
};

/* Leaves out each member that has one of the names, however often and with whatever escapes. False:
 * that would make more than JSON_PIECES_MAX pieces. O(members x names). */
bool json_leave_out(const struct json_parser *parser, const char *const *names, size_t name_count,
                    struct json_edit *out);

/* ---- Writing ---- */

enum { JSON_WRITE_DEPTH_MAX = 64 };

/*
 * The first failure (the buffer is full) sticks: write on, then ask json_writer_ok() once. What is
 * in the buffer then is cut off somewhere. Containers are closed by the caller; CHECKed.
 */
struct json_writer {
    struct buf *out; /* Borrowed. */
    uint64_t arrays; /* Bit d: the container at depth d is an array. */
    unsigned depth;
    bool comma;     /* Something stands before the next item. */
    bool after_key; /* The next item is the value of a key. */
    bool failed;
};

void json_writer_init(struct json_writer *writer, struct buf *out);
bool json_writer_ok(const struct json_writer *writer); /* All written, all closed. */

void json_write_object(struct json_writer *writer); /* Opens. */
void json_write_array(struct json_writer *writer);  /* Opens. */
void json_write_end(struct json_writer *writer);    /* Closes the innermost. */
void json_write_key(struct json_writer *writer, const char *key);
void json_write_key_span(struct json_writer *writer, struct span key);
/* Any bytes; those that are not UTF-8 become U+FFFD. */
void json_write_string(struct json_writer *writer, struct span text);
void json_write_text(struct json_writer *writer, const char *text); /* NULL: null. */
void json_write_int(struct json_writer *writer, int64_t number);
void json_write_uint(struct json_writer *writer, uint64_t number);
void json_write_double(struct json_writer *writer, double number); /* Not finite: null. */
void json_write_bool(struct json_writer *writer, bool value);
void json_write_null(struct json_writer *writer);

/* The string alone, quotes included, without a writer. False: the buffer is full. */
bool json_append_string(struct buf *out, struct span text);

#include "json/values.h"

#endif
