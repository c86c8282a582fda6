/*
 * multipart/form-data (RFC 7578), as far as one short field of it is looked for. The body stays as
 * it is. A part begins behind a delimiter line, has a head up to an empty line, and ends before the
 * next delimiter.
 */
#include "http/http.h"

enum { BOUNDARY_BYTES_MAX = 70 /* RFC 2046, 5.1.1 */, DELIMITER_EXTRA = 4 /* CRLF, two dashes */ };

static struct span skip(struct span text, size_t size)
{
    return (struct span){.data = text.data + size, .size = text.size - size};
}

/* What follows `needle` in `text`; data NULL: it is not in there. `before` is what precedes it. */
static struct span find(struct span text, struct span needle, struct span *before)
{
    const char *at =
        text.size < needle.size ? NULL : memmem(text.data, text.size, needle.data, needle.size);
    if (at == NULL) {
        return (struct span){0};
    }
    *before = (struct span){.data = text.data, .size = (size_t)(at - text.data)};
    return skip(text, before->size + needle.size);
}

/* Cuts the value of parameter `name` out of `text`, which stands behind "type/subtype": tokens or
 * quoted strings without escapes. data NULL: none. */
static struct span parameter(struct span text, const char *name)
{
    while (text.size > 0) {
        size_t length = 0;
        bool quoted = false;
        while (length < text.size && (quoted || text.data[length] != ';')) {
            quoted ^= text.data[length] == '"';
            length++;
        }
        struct span item = span_trim((struct span){.data = text.data, .size = length});
        const char *equals = memchr(item.data, '=', item.size);
        if (equals != NULL &&
            span_is_nocase((struct span){.data = item.data, .size = (size_t)(equals - item.data)},
                           name)) {
            struct span value = skip(item, (size_t)(equals - item.data) + 1);
            bool in_quotes = value.size >= 2 && value.data[0] == '"';
            return in_quotes ? (struct span){.data = value.data + 1, .size = value.size - 2}
                             : value;
        }
        text = skip(text, length < text.size ? length + 1 : length);
    }
    return (struct span){0};
}

bool http_multipart_boundary(struct span content_type, struct span *boundary)
{
    static const char type[] = "multipart/form-data";
    struct span start = {.data = content_type.data, .size = sizeof type - 1};
    if (content_type.size < start.size || !span_is_nocase(start, type)) {
        return false;
    }
    *boundary = parameter(skip(content_type, start.size), "boundary");
    return true;
}

/* Of a part's head: the name in its Content-Disposition. */
static struct span part_name(struct span head)
{
    static const char name[] = "content-disposition:";
    while (head.size > 0) {
        const char *end = memchr(head.data, '\n', head.size);
        size_t length = end == NULL ? head.size : (size_t)(end - head.data);
        struct span line = {.data = head.data, .size = length};
        struct span start = {.data = line.data, .size = sizeof name - 1};
        if (line.size > start.size && span_is_nocase(start, name)) {
            if (line.data[line.size - 1] == '\r') {
                line.size--;
            }
            return parameter(skip(line, start.size), "name");
        }
        head = skip(head, end == NULL ? length : length + 1);
    }
    return (struct span){0};
}

struct span http_multipart_field(struct span body, struct span boundary, const char *name)
{
    static const struct span blank = {.data = "\r\n\r\n", .size = 4};
    char delimiter[BOUNDARY_BYTES_MAX + DELIMITER_EXTRA];
    if (boundary.size == 0 || boundary.size > BOUNDARY_BYTES_MAX) {
        return (struct span){0};
    }
    memcpy(delimiter, "\r\n--", DELIMITER_EXTRA);
    memcpy(delimiter + DELIMITER_EXTRA, boundary.data, boundary.size);
    struct span mark = {.data = delimiter, .size = boundary.size + DELIMITER_EXTRA};
    struct span before = {0};
    /* The first delimiter may stand at the very start, without the line end before it. */
    struct span first = skip(mark, 2);
    struct span rest = body.size >= first.size && memcmp(body.data, first.data, first.size) == 0
                           ? skip(body, first.size)
                           : find(body, mark, &before);
    while (rest.data != NULL) {
        struct span head = {0};
        struct span value = {0};
        struct span content = find(rest, blank, &head);
        if (content.data == NULL) {
            return content;
        }
        rest = find(content, mark, &value);
        if (rest.data != NULL && span_is(part_name(head), name)) {
            return value;
        }
    }
    return (struct span){0};
}
