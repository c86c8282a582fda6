/*
 * HTTP messages from any bytes. Byte 0: requests or responses, whether answers are to HEAD, the
 * size of the pieces the bytes come in. However they are cut, heads, bodies and the end of each
 * message are the same. Also URLs of backends (bit 7 of byte 0).
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "fuzz/fuzz.h"
#include "http/http.h"

enum { OUTCOME_BYTES_MAX = 1 << 20 };

static void note_head(struct buf *out, const struct http_head *head)
{
    REQUIRE(head->header_count <= HTTP_HEADERS_MAX);
    REQUIRE(buf_printf(out, "[%.*s %.*s %u %u %d%d%d%d%d %llu", (int)head->method.size,
                       head->method.data, (int)head->target.size, head->target.data, head->status,
                       head->version_minor, head->chunked, head->keep_alive, head->expect_continue,
                       head->has_body, head->until_eof, (unsigned long long)head->content_length));
    for (size_t i = 0; i < head->header_count; i++) {
        const struct http_header *header = &head->headers[i];
        REQUIRE(buf_append(out, header->name.data, header->name.size));
        REQUIRE(header->value.size == 0 || buf_append(out, header->value.data, header->value.size));
        (void)http_is_hop_by_hop(head, header->name);
    }
    (void)http_header(head, "connection");
}

/* All messages in the bytes, given in pieces of `step`, as text: what was read, and where it ended.
 */
static void read_messages(struct buf *out, struct mem *mem, uint32_t mode, struct fuzz_input bytes,
                          size_t step)
{
    struct http_parser *parser = http_parser_new(
        mem, (mode & 1) != 0 ? HTTP_RESPONSES : HTTP_REQUESTS, http_limits_default());
    REQUIRE(parser != NULL);
    http_parser_reset(parser, (mode & 2) != 0);
    size_t used = 0;
    size_t given = 0;
    enum http_event event = HTTP_NEED_MORE;
    while (event != HTTP_BROKEN) {
        if (event == HTTP_NEED_MORE) {
            REQUIRE(used == given);
            if (given == bytes.size) {
                break;
            }
            given += step < bytes.size - given ? step : bytes.size - given;
        }
        size_t left = given - used;
        char *piece = malloc(left + (left == 0)); /* No byte to spare. */
        REQUIRE(piece != NULL);
        memcpy(piece, bytes.data + used, left);
        size_t consumed = 0;
        struct span body;
        event = http_parse(parser, piece, left, &consumed, &body);
        REQUIRE(consumed <= left);
        used += consumed;
        if (event == HTTP_GOT_HEAD) {
            note_head(out, http_parser_head(parser));
        } else if (event == HTTP_GOT_BODY) {
            REQUIRE(body.size > 0 && body.data >= piece);
            REQUIRE(body.data + body.size <= piece + consumed);
            REQUIRE(buf_append(out, body.data, body.size));
        } else if (event == HTTP_GOT_END) {
            REQUIRE(buf_printf(out, "]%zu", used));
            http_parser_reset(parser, (mode & 2) != 0);
        }
        free(piece);
    }
    if (event != HTTP_BROKEN) {
        event = http_parse_eof(parser);
    }
    if (event == HTTP_BROKEN) {
        struct http_error error = http_parser_error(parser);
        REQUIRE(error.text != NULL && ((mode & 1) != 0 || error.status >= 400));
    }
    REQUIRE(buf_printf(out, " %d", (int)event));
    http_parser_free(parser);
}

static void read_url(struct fuzz_input bytes)
{
    char *copy = malloc(bytes.size + (bytes.size == 0));
    REQUIRE(copy != NULL);
    memcpy(copy, bytes.data, bytes.size);
    struct span text = {.data = copy, .size = bytes.size};
    struct http_url url;
    const char *error = NULL;
    if (http_url_parse(text, &url, &error)) {
        REQUIRE(url.host.size > 0 && url.host.data >= copy);
        REQUIRE(url.host.data + url.host.size <= copy + bytes.size);
    } else {
        REQUIRE(error != NULL);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {.data = data, .size = size};
    uint32_t mode = fuzz_take(&input);
    if ((mode & 0x80) != 0) {
        read_url(input);
        return 0;
    }
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct buf whole;
    struct buf cut;
    buf_init(&whole, &mem, OUTCOME_BYTES_MAX);
    buf_init(&cut, &mem, OUTCOME_BYTES_MAX);
    read_messages(&whole, &mem, mode, input, SIZE_MAX);
    read_messages(&cut, &mem, mode, input, 1 + (mode >> 2));
    REQUIRE(whole.size == cut.size && memcmp(whole.data, cut.data, whole.size) == 0);
    buf_fini(&whole);
    buf_fini(&cut);
    mem_fini(&mem);
    return 0;
}
