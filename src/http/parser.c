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
#include <llhttp.h>

#include "base/check.h"
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

static struct http_parser *self(llhttp_t *llhttp)
{
    return llhttp->data;
}

static int fail(struct http_parser *parser, unsigned status, const char *text)
{
    if (parser->event != HTTP_BROKEN) {
        parser->event = HTTP_BROKEN;
        parser->error = (struct http_error){.status = status, .text = text};
    }
    return HPE_USER;
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
        return fail(parser, 414, "request target is too long");
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
            return fail(parser, 431, "too many headers");
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
        return fail(parser, 400, "header without a name");
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
        return fail(parser, 400, "forbidden trailer");
    }
    parser->trailer_name_size = 0;
    return 0;
}

/* 1xx, 204 and 304 have no body whatever their headers say (RFC 9112, 6.3). */
static bool status_is_bodiless(unsigned status)
{
    return status < 200 || status == 204 || status == 304;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = self(llhttp);
    llhttp->upgrade = 0; /* Never tunnelled: the message is one like any other. */
    bool response = parser->kind == HTTP_RESPONSES;
    if (parser->to_head || (response && status_is_bodiless(llhttp->status_code))) {
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

/* ---- The head, once complete ---- */

static bool is_token_byte(unsigned char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') ||
           (byte != '\0' && strchr("!#$%&'*+-.^_`|~", byte) != NULL);
}

static bool line_is_clean(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)line[i];
        if ((byte < ' ' && byte != '\t') || byte == 0x7f) {
            return false;
        }
    }
    return true;
}

/* name ":" value, the name a token that begins the line and ends at the colon. */
static const char *check_header_line(const char *line, size_t size)
{
    if (line[0] == ' ' || line[0] == '\t') {
        return "folded header line";
    }
    size_t i = 0;
    while (i < size && is_token_byte((unsigned char)line[i])) {
        i++;
    }
    if (i == 0 || i == size || line[i] != ':') {
        return "malformed header name";
    }
    return NULL;
}

/* The start line is taken as one writes it: llhttp takes more blanks, and other protocols' names.
 */
static bool request_line_is_exact(const struct http_parser *parser, struct span line)
{
    const char *raw = parser->raw.data;
    struct span method = span_of(llhttp_method_name((llhttp_method_t)parser->llhttp.method));
    struct span target = {.data = raw + parser->target, .size = parser->target_size};
    static const char version[] = " HTTP/1.";
    size_t size = sizeof version - 1;
    return line.size == method.size + 1 + target.size + size + 1 &&
           memcmp(line.data, method.data, method.size) == 0 && line.data[method.size] == ' ' &&
           target.data == line.data + method.size + 1 &&
           memcmp(target.data + target.size, version, size) == 0;
}

static bool status_line_is_exact(struct span line)
{
    enum { VERSION_SIZE = 8, STATUS_END = 12 }; /* "HTTP/1.1", "HTTP/1.1 200" */
    if (line.size < STATUS_END || memcmp(line.data, "HTTP/1.", VERSION_SIZE - 1) != 0 ||
        line.data[VERSION_SIZE] != ' ') {
        return false;
    }
    for (size_t i = VERSION_SIZE + 1; i < STATUS_END; i++) {
        if (line.data[i] < '0' || line.data[i] > '9') {
            return false;
        }
    }
    return line.size == STATUS_END || line.data[STATUS_END] == ' ';
}

static const char *check_start_line(const struct http_parser *parser, struct span line)
{
    bool exact = parser->kind == HTTP_REQUESTS ? request_line_is_exact(parser, line)
                                               : status_line_is_exact(line);
    return exact ? NULL : "malformed start line";
}

/* Every line ends in CRLF and holds no control bytes. NULL: fine. */
static const char *check_lines(const struct http_parser *parser)
{
    const struct buf *raw = &parser->raw;
    size_t at = 0;
    size_t lines = 0;
    while (at + 1 < raw->size && raw->data[at] == '\r' && raw->data[at + 1] == '\n') {
        at += 2; /* Empty lines before a request line are to be ignored (RFC 9112, 2.2). */
    }
    while (at < raw->size) {
        const char *line = raw->data + at;
        const char *end = memchr(line, '\n', raw->size - at);
        if (end == NULL || end == line || end[-1] != '\r') {
            return "line does not end in CRLF";
        }
        size_t size = (size_t)(end - line) - 1;
        at += size + 2;
        if (!line_is_clean(line, size)) {
            return "control byte in the head";
        }
        const char *error = NULL;
        if (lines == 0) {
            error = check_start_line(parser, (struct span){.data = line, .size = size});
        } else if (size > 0) {
            error = check_header_line(line, size);
        }
        if (error != NULL) {
            return error;
        }
        lines++;
    }
    return NULL;
}

static void collect_headers(struct http_parser *parser)
{
    const char *raw = parser->raw.data;
    for (size_t i = 0; i < parser->place_count; i++) {
        const struct header_place *place = &parser->places[i];
        parser->headers[i] = (struct http_header){
            .name = {.data = raw + place->name, .size = place->name_size},
            .value =
                span_trim((struct span){.data = raw + place->value, .size = place->value_size})};
    }
}

static size_t count_headers(const struct http_head *head, const char *name)
{
    size_t count = 0;
    for (size_t i = 0; i < head->header_count; i++) {
        count += span_is_nocase(head->headers[i].name, name);
    }
    return count;
}

static bool connection_names(const struct http_head *head, const char *token)
{
    for (size_t i = 0; i < head->header_count; i++) {
        struct span list = head->headers[i].value;
        struct span item;
        while (span_is_nocase(head->headers[i].name, "connection") &&
               span_next_item(&list, &item)) {
            if (span_is_nocase(item, token)) {
                return true;
            }
        }
    }
    return false;
}

/* Digits alone, without overflow. */
static bool parse_length(struct span value, uint64_t *out)
{
    uint64_t length = 0;
    for (size_t i = 0; i < value.size; i++) {
        char byte = value.data[i];
        if (byte < '0' || byte > '9' || length > (UINT64_MAX - 9) / 10) {
            return false;
        }
        length = length * 10 + (uint64_t)(byte - '0');
    }
    *out = length;
    return value.size > 0;
}

/* How the body is delimited. NULL: fine. */
static const char *read_framing(struct http_head *head)
{
    size_t lengths = count_headers(head, "content-length");
    size_t encodings = count_headers(head, "transfer-encoding");
    head->content_length = HTTP_LENGTH_UNKNOWN;
    if (lengths > 1 || encodings > 1) {
        return "repeated Content-Length or Transfer-Encoding";
    }
    if (lengths == 1 && encodings == 1) {
        return "Content-Length beside Transfer-Encoding";
    }
    if (lengths == 1 && !parse_length(http_header(head, "content-length"), &head->content_length)) {
        return "malformed Content-Length";
    }
    if (encodings == 1) {
        if (!span_is_nocase(http_header(head, "transfer-encoding"), "chunked")) {
            return "Transfer-Encoding other than chunked";
        }
        if (head->version_minor == 0) {
            return "Transfer-Encoding in HTTP/1.0";
        }
        head->chunked = true;
    }
    return NULL;
}

/* llhttp goes by its own reading of the framing: a head that it reads another way is refused. */
static bool framing_agrees(const struct http_parser *parser)
{
    const struct http_head *head = &parser->head;
    bool length_known = head->content_length != HTTP_LENGTH_UNKNOWN;
    bool length_seen = (parser->llhttp.flags & F_CONTENT_LENGTH) != 0;
    return head->chunked == ((parser->llhttp.flags & F_CHUNKED) != 0) &&
           length_known == length_seen &&
           (!length_known || head->content_length == parser->llhttp.content_length);
}

/* host[:port], loosely: bytes that no host, address or port holds are refused, and no host. */
static bool host_is_valid(struct span host)
{
    for (size_t i = 0; i < host.size; i++) {
        unsigned char byte = (unsigned char)host.data[i];
        bool outside = byte <= ' ' || byte >= 0x7f || strchr("\"#,/<>?@\\^`{|}", byte) != NULL;
        if (outside) {
            return false;
        }
    }
    return host.size > 0;
}

/* A path with its query, or "*" of OPTIONS; nothing for CONNECT, which is never served. */
static bool target_is_valid(const struct http_head *head)
{
    if (span_is(head->method, "CONNECT")) {
        return false;
    }
    if (span_is(head->target, "*")) {
        return span_is(head->method, "OPTIONS");
    }
    for (size_t i = 0; i < head->target.size; i++) {
        unsigned char byte = (unsigned char)head->target.data[i];
        if (byte <= ' ' || byte >= 0x7f || byte == '#') {
            return false;
        }
    }
    return head->target.size > 0 && head->target.data[0] == '/';
}

static int read_request(struct http_parser *parser)
{
    struct http_head *head = &parser->head;
    const char *method = llhttp_method_name((llhttp_method_t)parser->llhttp.method);
    head->method = span_of(method);
    head->target =
        (struct span){.data = parser->raw.data + parser->target, .size = parser->target_size};
    size_t hosts = count_headers(head, "host");
    if (hosts > 1 || (hosts == 0 && head->version_minor == 1)) {
        return fail(parser, 400, hosts > 1 ? "more than one Host" : "no Host");
    }
    if (hosts == 1 && !host_is_valid(http_header(head, "host"))) {
        return fail(parser, 400, "malformed Host");
    }
    if (!target_is_valid(head)) {
        return fail(parser, 400, "request target is not a path");
    }
    size_t expects = head->version_minor == 1 ? count_headers(head, "expect") : 0;
    head->expect_continue =
        expects == 1 && span_is_nocase(http_header(head, "expect"), "100-continue");
    if (expects > 0 && !head->expect_continue) {
        return fail(parser, 417, "Expect other than 100-continue");
    }
    head->has_body =
        head->chunked || (head->content_length != HTTP_LENGTH_UNKNOWN && head->content_length > 0);
    return 0;
}

static int read_response(struct http_parser *parser)
{
    enum { STATUS_MIN = 100, STATUS_MAX = 599 };
    struct http_head *head = &parser->head;
    head->status = parser->llhttp.status_code;
    if (head->status < STATUS_MIN || head->status > STATUS_MAX) {
        return fail(parser, 400, "status is not from 100 to 599");
    }
    bool bodiless = parser->to_head || status_is_bodiless(head->status);
    head->until_eof = !bodiless && !head->chunked && head->content_length == HTTP_LENGTH_UNKNOWN;
    head->has_body = !bodiless && (head->until_eof || head->chunked || head->content_length > 0);
    head->keep_alive = head->keep_alive && !head->until_eof;
    return 0;
}

/* Fills parser->head from what was collected. */
static int finish_head(struct http_parser *parser)
{
    if (parser->llhttp.http_major != 1 || parser->llhttp.http_minor > 1) {
        return fail(parser, 505, "not HTTP/1.0 or HTTP/1.1");
    }
    const char *error = check_lines(parser);
    if (error != NULL) {
        return fail(parser, 400, error);
    }
    struct http_head *head = &parser->head;
    collect_headers(parser);
    *head = (struct http_head){.headers = parser->headers,
                               .header_count = parser->place_count,
                               .version_minor = parser->llhttp.http_minor};
    error = read_framing(head);
    if (error == NULL && !framing_agrees(parser)) {
        error = "malformed Content-Length or Transfer-Encoding";
    }
    if (error != NULL) {
        return fail(parser, 400, error);
    }
    head->keep_alive = head->version_minor == 1 ? !connection_names(head, "close")
                                                : connection_names(head, "keep-alive");
    parser->head_done = true;
    if (parser->kind == HTTP_REQUESTS) {
        return read_request(parser);
    }
    return read_response(parser);
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
        (void)fail(parser, full ? 431 : 503, full ? "head is too long" : "out of memory");
    }
}

/* Trailers may be forwarded as they came. llhttp checks most; it takes folded lines, empty names,
 * a bare LF as the last line, and any number. */
static void check_trailers(struct http_parser *parser, const char *bytes, size_t size)
{
    parser->trailer_bytes += size;
    if (parser->trailer_bytes > parser->limits.head_bytes_max) {
        (void)fail(parser, 431, "trailers are too long");
    }
    for (size_t i = 0; i < size; i++) {
        if (parser->trailer_begins && (bytes[i] == ' ' || bytes[i] == '\t' || bytes[i] == ':')) {
            (void)fail(parser, 400, "malformed trailer");
        }
        if (bytes[i] == '\n' && !parser->trailer_cr) {
            (void)fail(parser, 400, "trailer does not end in CRLF");
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
        (void)fail(parser, status_of(code), text_of(code));
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
            (void)finish_head(parser);
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
    (void)fail(parser, 400, "connection ended inside a message");
    return HTTP_BROKEN;
}
