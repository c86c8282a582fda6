/* Looking headers up, and writing heads. */
#include "http/http.h"

enum { KEEP_ALIVE_DIGITS_MAX = 6 };

struct span http_header(const struct http_head *head, const char *name)
{
    struct span wanted = span_of(name);
    for (size_t i = 0; i < head->header_count; i++) {
        if (span_equal_nocase(head->headers[i].name, wanted)) {
            return head->headers[i].value;
        }
    }
    return (struct span){0};
}

/* "NAME=DIGITS": what is no such thing, or too large to be meant, counts as not said. */
static void read_parameter(struct span item, const char *name, uint32_t *out)
{
    const char *equals = memchr(item.data, '=', item.size);
    if (equals == NULL ||
        !span_is_nocase((struct span){item.data, (size_t)(equals - item.data)}, name)) {
        return;
    }
    uint32_t value = 0;
    const char *end = item.data + item.size;
    if (equals + 1 == end || end - equals > KEEP_ALIVE_DIGITS_MAX + 1) {
        return;
    }
    for (const char *digit = equals + 1; digit < end; digit++) {
        if (*digit < '0' || *digit > '9') {
            return;
        }
        value = value * 10 + (uint32_t)(*digit - '0');
    }
    *out = value;
}

struct http_keep_alive http_keep_alive_of(const struct http_head *head)
{
    struct http_keep_alive said = {.timeout_s = HTTP_NOT_SAID, .max = HTTP_NOT_SAID};
    struct span list = http_header(head, "keep-alive");
    struct span item;
    while (list.data != NULL && span_next_item(&list, &item)) {
        if (item.size > 0) {
            read_parameter(item, "timeout", &said.timeout_s);
            read_parameter(item, "max", &said.max);
        }
    }
    return said;
}

static bool is_among(struct span name, const struct span *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (span_equal_nocase(name, names[i])) {
            return true;
        }
    }
    return false;
}

bool http_is_hop_by_hop(const struct http_head *head, struct span name)
{
    static const struct span own[] = {SPAN("connection"),
                                      SPAN("keep-alive"),
                                      SPAN("proxy-connection"),
                                      SPAN("proxy-authenticate"),
                                      SPAN("proxy-authorization"),
                                      SPAN("proxy-authentication-info"),
                                      SPAN("te"),
                                      SPAN("trailer"),
                                      SPAN("transfer-encoding"),
                                      SPAN("upgrade"),
                                      SPAN("http2-settings")};
    if (is_among(name, own, sizeof own / sizeof *own)) {
        return true;
    }
    /* They frame, route and describe the message: nobody may have them dropped by naming them. */
    static const struct span kept[] = {SPAN("content-length"), SPAN("host"), SPAN("content-type"),
                                       SPAN("content-encoding")};
    if (is_among(name, kept, sizeof kept / sizeof *kept)) {
        return false;
    }
    for (size_t i = 0; i < head->header_count; i++) {
        if (!span_is_nocase(head->headers[i].name, "connection")) {
            continue;
        }
        struct span list = head->headers[i].value;
        struct span item;
        while (span_next_item(&list, &item)) {
            if (span_equal_nocase(item, name)) {
                return true;
            }
        }
    }
    return false;
}

static bool append(struct buf *out, struct span span)
{
    return buf_append(out, span.data, span.size);
}

bool http_write_status_line(struct buf *out, unsigned status)
{
    return buf_append_text(out, "HTTP/1.1 ") && buf_append_number(out, status) &&
           buf_append_text(out, " ") && buf_append_text(out, http_reason(status)) &&
           buf_append_text(out, "\r\n");
}

bool http_write_header(struct buf *out, struct span name, struct span value)
{
    return append(out, name) && buf_append_text(out, ": ") && append(out, value) &&
           buf_append_text(out, "\r\n");
}

bool http_write_header_text(struct buf *out, const char *name, const char *value)
{
    return http_write_header(out, span_of(name), span_of(value));
}

bool http_write_header_number(struct buf *out, const char *name, uint64_t value)
{
    return buf_append_text(out, name) && buf_append_text(out, ": ") &&
           buf_append_number(out, value) && buf_append_text(out, "\r\n");
}

bool http_write_head_end(struct buf *out)
{
    return buf_append_text(out, "\r\n");
}

bool http_write_chunk_head(struct buf *out, size_t size)
{
    return buf_printf(out, "%zx\r\n", size);
}

const char *http_reason(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "";
}
