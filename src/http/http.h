/*
 * HTTP/1.x messages without I/O: bytes in, events out, and writers for heads and chunks.
 *
 * The parser is llhttp without leniency, and stricter where llhttp is not: see parser.c. It is
 * pulled:
 *
 *     HTTP_GOT_HEAD   parser->head is complete
 *     HTTP_GOT_BODY   a piece of the body, decoded, inside the bytes just given
 *     HTTP_GOT_END    the message has ended; what follows belongs to the next one:
 * http_parser_reset() HTTP_NEED_MORE   all bytes are used up HTTP_BROKEN  parser->error says what
 * is wrong; the parser is good for nothing but a reset
 *
 * Call on, even without bytes, until it says HTTP_NEED_MORE: a head or a body may be followed by
 * the message's end at once. Each call uses up the first *consumed bytes. A relay that keeps the
 * framing forwards just those bytes: they have been checked. Pure; one parser belongs to one
 * connection.
 */
#ifndef HASHTRIE_HTTP_HTTP_H
#define HASHTRIE_HTTP_HTTP_H

#include <stdint.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/span.h"

enum http_kind { HTTP_REQUESTS, HTTP_RESPONSES };

enum http_event { HTTP_NEED_MORE, HTTP_GOT_HEAD, HTTP_GOT_BODY, HTTP_GOT_END, HTTP_BROKEN };

#define HTTP_LENGTH_UNKNOWN UINT64_MAX

struct http_limits {
    size_t head_bytes_max;   /* Start line and headers. */
    size_t header_count_max; /* At most HTTP_HEADERS_MAX. */
    size_t target_bytes_max;
};

enum {
    HTTP_HEADERS_MAX = 100,
    HTTP_HEAD_BYTES_MAX = 64 * 1024,
    HTTP_TARGET_BYTES_MAX = 8 * 1024,
};

static inline struct http_limits http_limits_default(void)
{
    return (struct http_limits){.head_bytes_max = HTTP_HEAD_BYTES_MAX,
                                .header_count_max = HTTP_HEADERS_MAX,
                                .target_bytes_max = HTTP_TARGET_BYTES_MAX};
}

struct http_header {
    struct span name; /* As it came; compare without regard to case. */
    struct span value;
};

/* Spans point into the parser and are valid until it is reset. */
struct http_head {
    struct span method;     /* Request. */
    struct span target;     /* Request: as it came, query included. */
    unsigned status;        /* Response. */
    unsigned version_minor; /* HTTP/1.0 or 1.1. */
    const struct http_header *headers;
    size_t header_count;
    uint64_t content_length; /* HTTP_LENGTH_UNKNOWN: none given. */
    bool chunked;
    bool keep_alive;      /* The connection may be used again after this message. */
    bool expect_continue; /* Request. */
    bool has_body;        /* A body follows (it may be empty). */
    bool until_eof;       /* Response: the body ends with the connection. */
};

struct http_error {
    unsigned status;  /* What to answer if it is a request. */
    const char *text; /* Static: what is wrong. */
};

struct http_parser;

/* NULL: no memory. */
struct http_parser *http_parser_new(struct mem *mem, enum http_kind kind,
                                    struct http_limits limits);
void http_parser_free(struct http_parser *parser);

/* For the next message. `to_head`: a response to a HEAD request, which has no body whatever its
 * headers say. */
void http_parser_reset(struct http_parser *parser, bool to_head);

enum http_event http_parse(struct http_parser *parser, const char *bytes, size_t size,
                           size_t *consumed, struct span *body);
/* The peer has ended its side: HTTP_GOT_END if that ends the message, HTTP_NEED_MORE if none had
 * begun, else HTTP_BROKEN. */
enum http_event http_parse_eof(struct http_parser *parser);

const struct http_head *
http_parser_head(const struct http_parser *parser);                    /* After HTTP_GOT_HEAD. */
struct http_error http_parser_error(const struct http_parser *parser); /* After HTTP_BROKEN. */
/* Its head is not complete yet. */
bool http_parser_in_head(const struct http_parser *parser);
/* The last byte given was the end of a chunk of a chunked body: a chunk may be put in between. */
bool http_parser_between_chunks(const struct http_parser *parser);
/* Nothing of a message has come since the last reset, but for empty lines. */
bool http_parser_idle(const struct http_parser *parser);

/* First header of that name (lower case), trimmed; data is NULL if there is none. */
struct span http_header(const struct http_head *head, const char *name);

/* What the other side says of the connection's life: "Keep-Alive: timeout=5, max=100". */
struct http_keep_alive {
    uint32_t timeout_s; /* Idle, it is closed after so long. HTTP_NOT_SAID: no word of it. */
    uint32_t max;       /* Of requests on it: some count those to come, some all. As timeout_s. */
};
#define HTTP_NOT_SAID UINT32_MAX
struct http_keep_alive http_keep_alive_of(const struct http_head *head);

/* Named in Connection, or one that belongs to a single connection by itself: never forwarded. */
bool http_is_hop_by_hop(const struct http_head *head, struct span name);

/* ---- Forms ---- */

/* Content-Type is multipart/form-data: *boundary is its parameter, data NULL where there is none.
 */
bool http_multipart_boundary(struct span content_type, struct span *boundary);
/* The first field `name` of such a body; data is NULL if there is none, or the body is not
 * well-formed up to its end. */
struct span http_multipart_field(struct span body, struct span boundary, const char *name);

/* ---- Writers: false means no room in the buffer ---- */

bool http_write_status_line(struct buf *out, unsigned status);
bool http_write_header(struct buf *out, struct span name, struct span value);
bool http_write_header_text(struct buf *out, const char *name, const char *value);
bool http_write_header_number(struct buf *out, const char *name, uint64_t value);
bool http_write_head_end(struct buf *out);
bool http_write_chunk_head(struct buf *out, size_t size); /* Then the bytes, then CRLF. */
const char *http_reason(unsigned status);                 /* "" if unknown. */

/* ---- URLs of backends ---- */

struct http_url {
    struct span host; /* Without brackets. */
    uint16_t port;
    struct span path; /* "" or "/prefix", without a slash at its end. */
    bool ipv6;
    bool secure; /* https:// */
};

/* http[s]://host[:port][/path]. False: *error (static) says what is wrong. Spans point into `text`.
 */
bool http_url_parse(struct span text, struct http_url *out, const char **error);

#endif
