/* What the files of the room share: the parser itself. Private to the room. */
#ifndef HASHTRIE_HTTP_INTERNAL_H
#define HASHTRIE_HTTP_INTERNAL_H

#include <llhttp.h>

#include "http/http.h"

struct header_place {
    size_t name;
    size_t name_size;
    size_t value;
    size_t value_size;
};

enum { TRAILER_NAME_MAX = 32 }; /* More than the longest forbidden name has. */

struct http_parser {
    struct mem *mem;
    enum http_kind kind;
    struct http_limits limits;
    llhttp_t llhttp;
    struct buf raw; /* The head as it came. */
    const char *input;
    size_t input_base; /* Offset in `raw` of input[0] while the head is read. */
    size_t target;
    size_t target_size;
    struct header_place places[HTTP_HEADERS_MAX];
    size_t place_count;
    bool in_value; /* The last span was a header's value: the next name starts another header. */
    bool to_head;
    bool head_done;
    bool chunk_ended;    /* And the line of the next one has not. */
    bool line_ended;     /* The last byte was a line feed. */
    bool in_trailers;    /* The last chunk's line has been read. */
    bool trailer_cr;     /* The last byte was CR. */
    bool trailer_begins; /* The next byte is the first of its line. */
    size_t trailer_bytes;
    char trailer_name[TRAILER_NAME_MAX]; /* Its beginning. */
    size_t trailer_name_size;
    bool paused;
    enum http_event event;
    struct span body;
    struct http_head head;
    struct http_header headers[HTTP_HEADERS_MAX];
    struct http_error error;
};

/* ---- check.c ---- */

/* Notes the first error; returns what tells llhttp to stop. */
int http_parser_fail(struct http_parser *parser, unsigned status, const char *text);
/* 1xx, 204 and 304 have no body whatever their headers say (RFC 9112, 6.3). */
bool http_status_is_bodiless(unsigned status);
/* Fills parser->head from what was collected. Not 0: refused. */
int http_finish_head(struct http_parser *parser);

#endif
