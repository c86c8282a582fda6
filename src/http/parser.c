/*
 * llhttp, pulled, with a check of the raw head behind it.
 *
 * The head's bytes are kept as they came (bounded), and llhttp's spans become offsets into them.
 * Before HTTP_GOT_HEAD is told, every line is looked at once more, since llhttp 8 takes forms that
 * proxies disagree about, which is what request smuggling lives from: blanks before the colon,
 * folded lines, empty names, no Host or several, other versions than 1.0 and 1.1, chunked in 1.0,
 * repeated Content-Length, Content-Length beside Transfer-Encoding, other start lines than the
 * exact one. The cases: tests/http.
 */
#include "base/check.h"
#include "http/internal.h"

static struct http_parser *self(llhttp_t *llhttp)
{
    return llhttp->data;
}

static size_t offset(const struct http_parser *parser, const char *at)
{
    return parser->input_base + (size_t)(at - parser->input);
}

static int on_url(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = self(llhttp);
    if (parser->target_size == 0) {
        parser->target = offset(parser, at);
    }
    parser->target_size += size;
    if (parser->target_size > parser->limits.target_bytes_max) {
        return http_parser_fail(parser, 414, "request target is too long");
    }
    return 0;
}

/* A name that does not fit is none of the forbidden ones. */
static int note_trailer(struct http_parser *parser, const char *at, size_t size)
{
    for (size_t i = 0; i < size && parser->trailer_name_size < TRAILER_NAME_MAX; i++) {
        parser->trailer_name[parser->trailer_name_size++] = at[i];
    }
    return 0;
}

/* What frames, routes or authorizes, or says how to read the content, comes before it or not at
 * all (RFC 9110, 6.5.1). */
static bool trailer_is_forbidden(const struct http_parser *parser)
{
    static const char *const names[] = {"authorization",
                                        "connection",
                                        "content-encoding",
                                        "content-length",
                                        "content-range",
                                        "content-type",
                                        "cookie",
                                        "expect",
                                        "host",
                                        "keep-alive",
                                        "proxy-authorization",
                                        "set-cookie",
                                        "te",
                                        "transfer-encoding",
                                        "upgrade"};
    struct span name = {.data = parser->trailer_name, .size = parser->trailer_name_size};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (span_is_nocase(name, names[i])) {
            return true;
        }
    }
    return false;
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = self(llhttp);
    if (parser->head_done) {
        return note_trailer(parser, at, size); /* The rest: see check_trailers(). */
    }
    if (parser->place_count == 0 || parser->in_value) {
        if (parser->place_count == parser->limits.header_count_max) {
            return http_parser_fail(parser, 431, "too many headers");
        }
        parser->places[parser->place_count++] = (struct header_place){.name = offset(parser, at)};
        parser->in_value = false;
    }
    parser->places[parser->place_count - 1].name_size += size;
    return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = self(llhttp);
    if (parser->head_done) {
        return 0;
    }
    if (parser->place_count == 0) {
        return http_parser_fail(parser, 400, "header without a name");
    }
    struct header_place *place = &parser->places[parser->place_count - 1];
    if (place->value_size == 0) {
        place->value = offset(parser, at);
    }
    place->value_size += size;
    parser->in_value = true;
    return 0;
}

static int on_header_value_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = self(llhttp);
    parser->in_value = true; /* Also after an empty value. */
    if (parser->head_done && trailer_is_forbidden(parser)) {
        return http_parser_fail(parser, 400, "forbidden trailer");
    }
    parser->trailer_name_size = 0;
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = self(llhttp);
    llhttp->upgrade = 0; /* Never tunnelled: the message is one like any other. */
    bool response = parser->kind == HTTP_RESPONSES;
    if (parser->to_head || (response && http_status_is_bodiless(llhttp->status_code))) {
        llhttp->flags |= F_SKIPBODY;
    }
    parser->event = HTTP_GOT_HEAD;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = self(llhttp);
    if (size == 0) {
        return 0; /* Of a call without bytes. */
    }
    parser->event = HTTP_GOT_BODY;
    parser->body = (struct span){.data = at, .size = size};
    return HPE_PAUSED;
}

/* Stops behind the line of the last chunk, so that the trailers' bytes are seen apart. */
static int on_chunk_header(llhttp_t *llhttp)
{
    self(llhttp)->chunk_ended = false;
    return llhttp->content_length == 0 ? HPE_PAUSED : HPE_OK;
}

static int on_chunk_complete(llhttp_t *llhttp)
{
    self(llhttp)->chunk_ended = true;
    return HPE_OK;
}

static int on_message_complete(llhttp_t *llhttp)
{
    self(llhttp)->event = HTTP_GOT_END;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_chunk_complete = on_chunk_complete,
    .on_message_complete = on_message_complete,
};

struct http_parser *http_parser_new(struct mem *mem, enum http_kind kind, struct http_limits limits)
{
    REQUIRE(limits.header_count_max <= HTTP_HEADERS_MAX);
    struct http_parser *parser = mem_alloc(mem, sizeof *parser);
    if (parser == NULL) {
        return NULL;
    }
    parser->mem = mem;
    parser->kind = kind;
    parser->limits = limits;
    buf_init(&parser->raw, mem, limits.head_bytes_max);
    http_parser_reset(parser, false);
    return parser;
}

void http_parser_free(struct http_parser *parser)
{
    if (parser != NULL) {
        buf_fini(&parser->raw);
        mem_free(parser->mem, parser, sizeof *parser);
    }
}

void http_parser_reset(struct http_parser *parser, bool to_head)
{
    llhttp_init(&parser->llhttp, parser->kind == HTTP_REQUESTS ? HTTP_REQUEST : HTTP_RESPONSE,
                &settings);
    parser->llhttp.data = parser;
    parser->raw.size = 0;
    parser->target_size = 0;
    parser->place_count = 0;
    parser->in_value = false;
    parser->to_head = to_head;
    parser->head_done = false;
    parser->chunk_ended = false;
    parser->line_ended = false;
    parser->in_trailers = false;
    parser->trailer_cr = false;
    parser->trailer_begins = true;
    parser->trailer_bytes = 0;
    parser->trailer_name_size = 0;
    parser->paused = false;
    parser->event = HTTP_NEED_MORE;
    parser->head = (struct http_head){0};
}

const struct http_head *http_parser_head(const struct http_parser *parser)
{
    REQUIRE(parser->head_done);
    return &parser->head;
}

struct http_error http_parser_error(const struct http_parser *parser)
{
    REQUIRE(parser->event == HTTP_BROKEN);
    return parser->error;
}

bool http_parser_in_head(const struct http_parser *parser)
{
    return !parser->head_done;
}

bool http_parser_between_chunks(const struct http_parser *parser)
{
    /* Not in the next one's line. */
    return parser->chunk_ended && parser->line_ended;
}

bool http_parser_idle(const struct http_parser *parser)
{
    size_t i = 0;
    while (i < parser->raw.size && (parser->raw.data[i] == '\r' || parser->raw.data[i] == '\n')) {
        i++;
    }
    return !parser->head_done && i == parser->raw.size;
}

/* ---- Driving llhttp ---- */

static unsigned status_of(llhttp_errno_t code)
{
    return code == HPE_INVALID_METHOD ? 501 : code == HPE_INVALID_VERSION ? 505 : 400;
}

static const char *text_of(llhttp_errno_t code)
{
    switch ((int)code) {
    case HPE_INVALID_METHOD:
        return "unknown method";
    case HPE_INVALID_VERSION:
        return "not HTTP/1.0 or HTTP/1.1";
    case HPE_INVALID_URL:
        return "malformed request target";
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return "malformed or repeated Content-Length";
    case HPE_INVALID_TRANSFER_ENCODING:
        return "malformed Transfer-Encoding";
    case HPE_INVALID_CHUNK_SIZE:
        return "malformed chunk size";
    case HPE_INVALID_HEADER_TOKEN:
        return "malformed header";
    default:
        return "malformed HTTP message";
    }
}

/* Keeps what was used up of the head; more than the limit is refused. */
static void keep_head(struct http_parser *parser, const char *bytes, size_t size)
{
    if (!buf_append(&parser->raw, bytes, size)) {
        bool full = size > parser->raw.size_max - parser->raw.size;
        (void)http_parser_fail(parser, full ? 431 : 503,
                               full ? "head is too long" : "out of memory");
    }
}

/* Trailers may be forwarded as they came. llhttp checks most; it takes folded lines, empty names,
 * a bare LF as the last line, and any number. */
static void check_trailers(struct http_parser *parser, const char *bytes, size_t size)
{
    parser->trailer_bytes += size;
    if (parser->trailer_bytes > parser->limits.head_bytes_max) {
        (void)http_parser_fail(parser, 431, "trailers are too long");
    }
    for (size_t i = 0; i < size; i++) {
        if (parser->trailer_begins && (bytes[i] == ' ' || bytes[i] == '\t' || bytes[i] == ':')) {
            (void)http_parser_fail(parser, 400, "malformed trailer");
        }
        if (bytes[i] == '\n' && !parser->trailer_cr) {
            (void)http_parser_fail(parser, 400, "trailer does not end in CRLF");
        }
        parser->trailer_cr = bytes[i] == '\r';
        parser->trailer_begins = bytes[i] == '\n';
    }
}

/* One run of llhttp, up to the next event. Returns the bytes that it used up. */
static size_t run(struct http_parser *parser, const char *bytes, size_t size)
{
    if (parser->paused) {
        llhttp_resume(&parser->llhttp);
        parser->paused = false;
    }
    llhttp_errno_t code = llhttp_execute(&parser->llhttp, bytes, size);
    size_t used = size;
    if (code == HPE_PAUSED) {
        parser->paused = true;
        used = (size_t)(llhttp_get_error_pos(&parser->llhttp) - bytes);
    } else if (code != HPE_OK) {
        (void)http_parser_fail(parser, status_of(code), text_of(code));
    }
    if (parser->in_trailers) {
        check_trailers(parser, bytes, used);
    }
    return used;
}

enum http_event http_parse(struct http_parser *parser, const char *bytes, size_t size,
                           size_t *consumed, struct span *body)
{
    REQUIRE(parser->event != HTTP_BROKEN && parser->event != HTTP_GOT_END);
    bool in_head = !parser->head_done;
    parser->event = HTTP_NEED_MORE;
    parser->input = bytes;
    parser->input_base = parser->raw.size;
    *consumed = run(parser, bytes, size);
    if (parser->paused && parser->event == HTTP_NEED_MORE) { /* By on_chunk_header(). */
        parser->in_trailers = true;
        if (*consumed < size) {
            *consumed += run(parser, bytes + *consumed, size - *consumed);
        }
    }
    parser->chunk_ended = parser->chunk_ended && parser->event != HTTP_BROKEN;
    parser->line_ended = *consumed > 0 ? bytes[*consumed - 1] == '\n' : parser->line_ended;
    if (in_head && parser->event != HTTP_BROKEN) {
        keep_head(parser, bytes, *consumed);
        if (parser->event == HTTP_GOT_HEAD) {
            (void)http_finish_head(parser);
        }
    }
    *body = parser->event == HTTP_GOT_BODY ? parser->body : (struct span){0};
    return parser->event;
}

enum http_event http_parse_eof(struct http_parser *parser)
{
    if (parser->event == HTTP_GOT_END || http_parser_idle(parser)) {
        return parser->event == HTTP_GOT_END ? HTTP_GOT_END : HTTP_NEED_MORE;
    }
    if (parser->event != HTTP_BROKEN && parser->head_done && parser->head.until_eof) {
        parser->event = HTTP_GOT_END;
        return HTTP_GOT_END;
    }
    (void)http_parser_fail(parser, 400, "connection ended inside a message");
    return HTTP_BROKEN;
}
