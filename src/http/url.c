/* URLs of backends. */
#include "http/http.h"

static bool fail(const char **error, const char *text)
{
    *error = text;
    return false;
}

static bool host_byte(char byte, bool ipv6)
{
    bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
    bool digit = byte >= '0' && byte <= '9';
    if (ipv6) {
        bool hex = (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
        return digit || hex || byte == ':' || byte == '.';
    }
    return letter || digit || byte == '-' || byte == '.' || byte == '_';
}

static bool host_is_valid(struct span host, bool ipv6)
{
    for (size_t i = 0; i < host.size; i++) {
        if (!host_byte(host.data[i], ipv6)) {
            return false;
        }
    }
    return host.size > 0 && host.size <= 253;
}

static bool parse_port(struct span text, uint16_t *out)
{
    unsigned port = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || port > UINT16_MAX) {
            return false;
        }
        port = port * 10 + (unsigned)(text.data[i] - '0');
    }
    *out = (uint16_t)port;
    return text.size > 0 && port > 0 && port <= UINT16_MAX;
}

static bool path_is_valid(struct span path)
{
    for (size_t i = 0; i < path.size; i++) {
        unsigned char byte = (unsigned char)path.data[i];
        if (byte <= ' ' || byte >= 0x7f || byte == '?' || byte == '#') {
            return false;
        }
    }
    return true;
}

/* host[:port] or [ipv6][:port]. */
static bool parse_authority(struct span text, struct http_url *out, const char **error)
{
    struct span rest = {0};
    out->ipv6 = text.size > 0 && text.data[0] == '[';
    if (out->ipv6) {
        const char *end = memchr(text.data, ']', text.size);
        if (end == NULL) {
            return fail(error, "the IPv6 address lacks its closing bracket");
        }
        out->host = (struct span){.data = text.data + 1, .size = (size_t)(end - text.data) - 1};
        rest = (struct span){.data = end + 1, .size = text.size - out->host.size - 2};
    } else {
        const char *colon = memchr(text.data, ':', text.size);
        size_t size = colon == NULL ? text.size : (size_t)(colon - text.data);
        out->host = (struct span){.data = text.data, .size = size};
        rest = (struct span){.data = text.data + size, .size = text.size - size};
    }
    if (!host_is_valid(out->host, out->ipv6)) {
        return fail(error, "the host name is missing or malformed");
    }
    out->port = out->secure ? 443 : 80;
    if (rest.size > 0) {
        struct span digits = {.data = rest.data + 1, .size = rest.size - 1};
        if (rest.data[0] != ':' || !parse_port(digits, &out->port)) {
            return fail(error, "the port is not a number from 1 to 65535");
        }
    }
    return true;
}

static bool begins_with(struct span text, const char *start)
{
    size_t size = strlen(start);
    return text.size >= size && memcmp(text.data, start, size) == 0;
}

bool http_url_parse(struct span text, struct http_url *out, const char **error)
{
    static const char plain[] = "http://";
    static const char secure[] = "https://";
    bool is_secure = begins_with(text, secure);
    size_t scheme_size = is_secure ? sizeof secure - 1 : sizeof plain - 1;
    if (!is_secure && !begins_with(text, plain)) {
        return fail(error, "it does not begin with http:// or https://");
    }
    struct span rest = {.data = text.data + scheme_size, .size = text.size - scheme_size};
    const char *slash = rest.size > 0 ? memchr(rest.data, '/', rest.size) : NULL;
    size_t size = slash == NULL ? rest.size : (size_t)(slash - rest.data);
    *out = (struct http_url){.secure = is_secure,
                             .path = {.data = rest.data + size, .size = rest.size - size}};
    while (out->path.size > 0 && out->path.data[out->path.size - 1] == '/') {
        out->path.size--;
    }
    if (!path_is_valid(out->path)) {
        return fail(error, "the path holds a blank, a control byte, ? or #");
    }
    return parse_authority((struct span){.data = rest.data, .size = size}, out, error);
}
