/*
 * The check of a complete head: line by line, then what its headers say together. What llhttp takes
 * and proxies disagree about is refused here; parser.c has the list.
 */
#include "http/internal.h"

int http_parser_fail(struct http_parser *parser, unsigned status, const char *text)
{
    if (parser->event != HTTP_BROKEN) {
        parser->event = HTTP_BROKEN;
        parser->error = (struct http_error){.status = status, .text = text};
    }
    return HPE_USER;
}

bool http_status_is_bodiless(unsigned status)
{
    return status < 200 || status == 204 || status == 304;
}

/* A table: it is asked for each byte of every name. */
static const bool is_token[256] = {
    ['!'] = true, ['#'] = true, ['$'] = true, ['%'] = true, ['&'] = true, ['\''] = true,
    ['*'] = true, ['+'] = true, ['-'] = true, ['.'] = true, ['^'] = true, ['_'] = true,
    ['`'] = true, ['|'] = true, ['~'] = true, ['0'] = true, ['1'] = true, ['2'] = true,
    ['3'] = true, ['4'] = true, ['5'] = true, ['6'] = true, ['7'] = true, ['8'] = true,
    ['9'] = true, ['a'] = true, ['b'] = true, ['c'] = true, ['d'] = true, ['e'] = true,
    ['f'] = true, ['g'] = true, ['h'] = true, ['i'] = true, ['j'] = true, ['k'] = true,
    ['l'] = true, ['m'] = true, ['n'] = true, ['o'] = true, ['p'] = true, ['q'] = true,
    ['r'] = true, ['s'] = true, ['t'] = true, ['u'] = true, ['v'] = true, ['w'] = true,
    ['x'] = true, ['y'] = true, ['z'] = true, ['A'] = true, ['B'] = true, ['C'] = true,
    ['D'] = true, ['E'] = true, ['F'] = true, ['G'] = true, ['H'] = true, ['I'] = true,
    ['J'] = true, ['K'] = true, ['L'] = true, ['M'] = true, ['N'] = true, ['O'] = true,
    ['P'] = true, ['Q'] = true, ['R'] = true, ['S'] = true, ['T'] = true, ['U'] = true,
    ['V'] = true, ['W'] = true, ['X'] = true, ['Y'] = true, ['Z'] = true};

static bool line_is_clean(const char *line, size_t size)
{
    unsigned char clean = 1; /* No way out of the loop: compilers take many bytes at once. */
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)line[i];
        clean &= (byte >= ' ' || byte == '\t') && byte != 0x7f;
    }
    return clean != 0;
}

/* name ":" value, the name a token that begins the line and ends at the colon. */
static const char *check_header_line(const char *line, size_t size)
{
    if (line[0] == ' ' || line[0] == '\t') {
        return "folded header line";
    }
    size_t i = 0;
    while (i < size && is_token[(unsigned char)line[i]]) {
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
    struct span wanted = span_of(name);
    size_t count = 0;
    for (size_t i = 0; i < head->header_count; i++) {
        count += span_equal_nocase(head->headers[i].name, wanted);
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
        return http_parser_fail(parser, 400, hosts > 1 ? "more than one Host" : "no Host");
    }
    if (hosts == 1 && !host_is_valid(http_header(head, "host"))) {
        return http_parser_fail(parser, 400, "malformed Host");
    }
    if (!target_is_valid(head)) {
        return http_parser_fail(parser, 400, "request target is not a path");
    }
    size_t expects = head->version_minor == 1 ? count_headers(head, "expect") : 0;
    head->expect_continue =
        expects == 1 && span_is_nocase(http_header(head, "expect"), "100-continue");
    if (expects > 0 && !head->expect_continue) {
        return http_parser_fail(parser, 417, "Expect other than 100-continue");
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
        return http_parser_fail(parser, 400, "status is not from 100 to 599");
    }
    bool bodiless = parser->to_head || http_status_is_bodiless(head->status);
    head->until_eof = !bodiless && !head->chunked && head->content_length == HTTP_LENGTH_UNKNOWN;
    head->has_body = !bodiless && (head->until_eof || head->chunked || head->content_length > 0);
    head->keep_alive = head->keep_alive && !head->until_eof;
    return 0;
}

int http_finish_head(struct http_parser *parser)
{
    if (parser->llhttp.http_major != 1 || parser->llhttp.http_minor > 1) {
        return http_parser_fail(parser, 505, "not HTTP/1.0 or HTTP/1.1");
    }
    const char *error = check_lines(parser);
    if (error != NULL) {
        return http_parser_fail(parser, 400, error);
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
        return http_parser_fail(parser, 400, error);
    }
    head->keep_alive = head->version_minor == 1 ? !connection_names(head, "close")
                                                : connection_names(head, "keep-alive");
    parser->head_done = true;
    if (parser->kind == HTTP_REQUESTS) {
        return read_request(parser);
    }
    return read_response(parser);
}
