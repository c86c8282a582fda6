/*
 * A client's body (up to the first NUL) and a prefill engine's answer: what the two engines are
 * sent is JSON that keeps every other member of the body as it came, and says what it has to.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "fuzz/fuzz.h"
#include "proxy/handover.h"

enum { TEXT_BYTES_MAX = 64 << 20 };

static const char *const own[] = {"max_tokens", "max_completion_tokens", "min_tokens",
                                  "stream",     "stream_options",        "kv_transfer_params"};
enum { OWN_COUNT = sizeof own / sizeof *own };

/* Of the two bodies, those the router may leave out and put in. */
static bool is_own(const struct json_parser *parser, struct json_value key, bool prefill)
{
    for (size_t i = prefill ? 0 : OWN_COUNT - 1; i < OWN_COUNT; i++) {
        if (json_is_text(parser, key, own[i])) {
            return true;
        }
    }
    return false;
}

/* The next member that is not the router's. */
static bool next_kept(const struct json_parser *parser, struct json_cursor *cursor,
                      struct json_value *key, struct json_value *value, bool prefill)
{
    while (json_next_member(parser, cursor, key, value)) {
        if (!is_own(parser, *key, prefill)) {
            return true;
        }
    }
    return false;
}

static void require_kept(const struct json_parser *before, const struct json_parser *after,
                         bool prefill)
{
    struct json_cursor from = json_first(before, json_root(before));
    struct json_cursor to = json_first(after, json_root(after));
    struct json_value key;
    struct json_value value;
    struct json_value other_key;
    struct json_value other_value;
    while (next_kept(before, &from, &key, &value, prefill)) {
        REQUIRE(next_kept(after, &to, &other_key, &other_value, prefill));
        REQUIRE(span_equal(json_text(before, key), json_text(after, other_key)));
        REQUIRE(span_equal(json_member_text(before, value), json_member_text(after, other_value)));
    }
    REQUIRE(!next_kept(after, &to, &other_key, &other_value, prefill));
}

static size_t count_own(const struct json_parser *parser, bool prefill)
{
    size_t count = 0;
    struct json_cursor cursor = json_first(parser, json_root(parser));
    struct json_value key;
    struct json_value value;
    while (json_next_member(parser, &cursor, &key, &value)) {
        count += is_own(parser, key, prefill);
    }
    return count;
}

static void check_sent(struct mem *mem, const struct json_parser *body, const struct span *parts,
                       size_t part_count, bool prefill)
{
    struct buf sent;
    buf_init(&sent, mem, TEXT_BYTES_MAX);
    REQUIRE(part_count <= HANDOVER_PARTS_MAX);
    for (size_t i = 0; i < part_count; i++) {
        REQUIRE(buf_append(&sent, parts[i].data, parts[i].size));
    }
    struct json_parser *parser = json_parser_new(mem);
    REQUIRE(parser != NULL && json_parse(parser, sent.data, sent.size) == JSON_OK);
    struct json_value root = json_root(parser);
    require_kept(body, parser, prefill);
    if (prefill) {
        REQUIRE(count_own(parser, true) == 3);
        REQUIRE(span_is(json_text(parser, json_find(parser, root, "max_tokens")), "1"));
        REQUIRE(json_kind(parser, json_find(parser, root, "stream")) == JSON_FALSE);
    } else {
        REQUIRE(count_own(parser, false) == 1);
    }
    json_parser_free(parser);
    buf_fini(&sent);
}

static void hand_over(struct mem *mem, const struct json_parser *body, struct span answer)
{
    struct handover handover;
    struct span parts[HANDOVER_PARTS_MAX];
    handover_init(&handover, mem);
    if (handover_read_body(&handover, body)) {
        check_sent(mem, body, parts, handover_prefill_parts(&handover, parts), true);
        enum handover_status status = handover_read_answer(&handover, answer, "10.0.0.7");
        REQUIRE(status != HANDOVER_NO_MEMORY || answer.size > HANDOVER_ANSWER_BYTES_MAX);
        if (status == HANDOVER_OK || status == HANDOVER_NONE) {
            check_sent(mem, body, parts, handover_decode_parts(&handover, parts), false);
        }
    }
    handover_fini(&handover);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    const uint8_t *nul = size == 0 ? NULL : memchr(data, 0, size);
    size_t body_size = nul == NULL ? size : (size_t)(nul - data);
    char *body = malloc(body_size + (body_size == 0)); /* No byte to spare. */
    REQUIRE(body != NULL);
    memcpy(body, data, body_size);
    struct span answer = {0};
    if (nul != NULL) {
        answer = (struct span){.data = (const char *)nul + 1, .size = size - body_size - 1};
    }
    struct json_parser *parser = json_parser_new(&mem);
    REQUIRE(parser != NULL);
    if (json_parse(parser, body, body_size) == JSON_OK &&
        json_kind(parser, json_root(parser)) == JSON_OBJECT) {
        hand_over(&mem, parser, answer);
    }
    json_parser_free(parser);
    free(body);
    mem_fini(&mem);
    return 0;
}
