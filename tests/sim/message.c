#include "sim/message.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"

void sim_message_init(struct sim_message *message, bool is_request)
{
    *message = (struct sim_message){.is_request = is_request};
    sim_buf_init(&message->head);
    sim_buf_init(&message->body);
    sim_buf_init(&message->line);
    sim_buf_init(&message->trailer);
}

void sim_message_fini(struct sim_message *message)
{
    buf_fini(&message->head);
    buf_fini(&message->body);
    buf_fini(&message->line);
    buf_fini(&message->trailer);
}

void sim_message_reset(struct sim_message *message, bool to_head)
{
    message->part = SIM_IN_HEAD;
    message->to_head = to_head;
    message->head.size = 0;
    message->body.size = 0;
    message->line.size = 0;
    message->trailer.size = 0;
    message->status = 0;
    message->until_end = false;
    message->close = false;
}

/* ---- Heads ---- */

struct span sim_message_header(const struct sim_message *message, const char *name)
{
    size_t name_size = strlen(name);
    const char *at = message->head.data;
    const char *end = at + message->head.size;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        CHECK(line_end != NULL);
        if ((size_t)(line_end - at) > name_size && at[name_size] == ':' &&
            strncasecmp(at, name, name_size) == 0) {
            const char *value = at + name_size + 1;
            return span_trim((struct span){.data = value, .size = (size_t)(line_end - 1 - value)});
        }
        at = line_end + 1;
    }
    return (struct span){0};
}

static uint64_t read_number(struct span text, int base)
{
    char digits[24] = "";
    size_t size = text.size < sizeof digits - 1 ? text.size : sizeof digits - 1;
    memcpy(digits, text.data, size);
    return strtoull(digits, NULL, base);
}

uint64_t sim_message_number(const struct sim_message *message, const char *name, uint64_t missing)
{
    struct span value = sim_message_header(message, name);
    return value.data == NULL ? missing : read_number(value, 10);
}

static void begin_body(struct sim_message *message)
{
    bool old = message->head.size > 8 && memcmp(message->head.data, "HTTP/1.0", 8) == 0;
    struct span connection = sim_message_header(message, "connection");
    message->close =
        span_is_nocase(connection, "close") || (old && !span_is_nocase(connection, "keep-alive"));
    uint64_t length = sim_message_number(message, "content-length", UINT64_MAX);
    bool chunked = sim_message_header(message, "transfer-encoding").data != NULL;
    bool bodyless = message->to_head || message->status / 100 == 1 || message->status == 204 ||
                    message->status == 304;
    if (bodyless || length == 0 || (message->is_request && length == UINT64_MAX && !chunked)) {
        message->part = SIM_WHOLE;
    } else if (chunked) {
        message->part = length == UINT64_MAX ? SIM_IN_CHUNK_SIZE : SIM_BROKEN;
    } else if (length != UINT64_MAX) {
        message->part = SIM_IN_LENGTH;
        message->left = length;
    } else {
        message->part = SIM_IN_REST;
        message->until_end = true;
    }
}

static void end_head(struct sim_message *message)
{
    const char *head = message->head.data;
    if (!message->is_request) {
        if (message->head.size < 15 || memcmp(head, "HTTP/1.", 7) != 0) {
            message->part = SIM_BROKEN;
            return;
        }
        message->status = (unsigned)read_number((struct span){.data = head + 9, .size = 3}, 10);
        if (message->status < 100 || message->status > 599) {
            message->part = SIM_BROKEN;
            return;
        }
    }
    begin_body(message);
}

static size_t read_head(struct sim_message *message, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sim_append(&message->head, bytes + i, 1);
        size_t have = message->head.size;
        if (have >= 4 && memcmp(message->head.data + have - 4, "\r\n\r\n", 4) == 0) {
            end_head(message);
            return i + 1;
        }
    }
    return size;
}

/* ---- Bodies ---- */

static bool is_hex(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') ||
           (byte >= 'A' && byte <= 'F');
}

static void end_line(struct sim_message *message)
{
    struct buf *line = &message->line;
    bool ends_well = line->size >= 2 && line->data[line->size - 2] == '\r';
    if (message->part == SIM_IN_CHUNK_END) {
        message->part = ends_well && line->size == 2 ? SIM_IN_CHUNK_SIZE : SIM_BROKEN;
    } else if (message->part == SIM_IN_TRAILER) {
        sim_append(&message->trailer, line->data, line->size);
        message->part = line->size == 2 ? SIM_WHOLE : SIM_IN_TRAILER;
    } else if (!ends_well || !is_hex(line->data[0])) {
        message->part = SIM_BROKEN;
    } else {
        message->left = read_number((struct span){.data = line->data, .size = line->size}, 16);
        message->part = message->left == 0 ? SIM_IN_TRAILER : SIM_IN_CHUNK;
    }
    line->size = 0;
}

static size_t read_line(struct sim_message *message, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sim_append(&message->line, bytes + i, 1);
        if (bytes[i] == '\n') {
            end_line(message);
            return i + 1;
        }
    }
    return size;
}

static size_t read_counted(struct sim_message *message, const char *bytes, size_t size)
{
    size_t taken = size < message->left ? size : (size_t)message->left;
    sim_append(&message->body, bytes, taken);
    message->left -= taken;
    if (message->left == 0) {
        message->part = message->part == SIM_IN_CHUNK ? SIM_IN_CHUNK_END : SIM_WHOLE;
    }
    return taken;
}

static size_t read_some(struct sim_message *message, const char *bytes, size_t size)
{
    switch (message->part) {
    case SIM_IN_HEAD:
        return read_head(message, bytes, size);
    case SIM_IN_LENGTH:
    case SIM_IN_CHUNK:
        return read_counted(message, bytes, size);
    case SIM_IN_CHUNK_SIZE:
    case SIM_IN_CHUNK_END:
    case SIM_IN_TRAILER:
        return read_line(message, bytes, size);
    case SIM_IN_REST:
        sim_append(&message->body, bytes, size);
        return size;
    case SIM_WHOLE:
    case SIM_BROKEN:
    default:
        return 0;
    }
}

size_t sim_message_read(struct sim_message *message, const char *bytes, size_t size)
{
    size_t used = 0;
    while (used < size && message->part != SIM_WHOLE && message->part != SIM_BROKEN) {
        used += read_some(message, bytes + used, size - used);
    }
    return used;
}
