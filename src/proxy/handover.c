#include "proxy/handover.h"

#include "base/check.h"

enum { PARAMS_BYTES_MAX = HANDOVER_ANSWER_BYTES_MAX + 1024 }; /* And a host's name. */

#define PARAMS "kv_transfer_params"

void handover_init(struct handover *handover, struct mem *mem)
{
    handover->prefill.piece_count = 0;
    handover->decode.piece_count = 0;
    buf_init(&handover->params, mem, PARAMS_BYTES_MAX);
}

void handover_fini(struct handover *handover)
{
    buf_fini(&handover->params);
}

bool handover_read_body(struct handover *handover, const struct json_parser *body)
{
    static const char *const prefill_names[] = {"max_tokens", "max_completion_tokens", "min_tokens",
                                                "stream",     "stream_options",        PARAMS};
    static const char *const decode_names[] = {PARAMS};
    return json_leave_out(body, prefill_names, sizeof prefill_names / sizeof *prefill_names,
                          &handover->prefill) &&
           json_leave_out(body, decode_names, 1, &handover->decode);
}

static size_t put_parts(const struct json_edit *edit, struct span members, struct span *parts)
{
    REQUIRE(edit->piece_count > 0);
    memcpy(parts, edit->pieces, edit->piece_count * sizeof *parts);
    parts[edit->piece_count] = members;
    return edit->piece_count + 1;
}

size_t handover_prefill_parts(const struct handover *handover,
                              struct span parts[HANDOVER_PARTS_MAX])
{
    static const char members[] =
        ",\"max_tokens\":1,\"stream\":false,\"" PARAMS "\":{\"do_remote_decode\":true,"
        "\"do_remote_prefill\":false,\"remote_engine_id\":null,\"remote_block_ids\":null,"
        "\"remote_host\":null,\"remote_port\":null}}";
    size_t skipped = handover->prefill.comma ? 0 : 1;
    return put_parts(&handover->prefill,
                     (struct span){.data = members + skipped, .size = sizeof members - 1 - skipped},
                     parts);
}

size_t handover_decode_parts(const struct handover *handover, struct span parts[HANDOVER_PARTS_MAX])
{
    REQUIRE(handover->params.size > 0);
    return put_parts(&handover->decode,
                     (struct span){.data = handover->params.data, .size = handover->params.size},
                     parts);
}

/* ---- The answer ---- */

/* Names a machine to others: an engine that was told nothing says `localhost`, and one that listens
 * everywhere 0.0.0.0. */
static bool is_reachable(const struct json_parser *parser, struct json_value host)
{
    static const char *const own[] = {"", "localhost", "127.0.0.1", "0.0.0.0", "::", "::1"};
    if (json_kind(parser, host) != JSON_STRING) {
        return false;
    }
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (json_is_text(parser, host, own[i])) {
            return false;
        }
    }
    return true;
}

/* The object that has been parsed, with that host. */
static enum handover_status put_with_host(const struct json_parser *params, const char *host,
                                          struct buf *out)
{
    static const char *const names[] = {"remote_host"};
    struct json_edit edit;
    if (!json_leave_out(params, names, 1, &edit)) {
        return HANDOVER_INVALID;
    }
    bool done = true;
    for (size_t i = 0; i < edit.piece_count && done; i++) {
        done = buf_append(out, edit.pieces[i].data, edit.pieces[i].size);
    }
    done = done && buf_append_text(out, edit.comma ? ",\"remote_host\":" : "\"remote_host\":") &&
           json_append_string(out, span_of(host)) && buf_append_text(out, "}");
    return done ? HANDOVER_OK : HANDOVER_NO_MEMORY;
}

static enum handover_status put_params(struct json_parser *parser, struct span text,
                                       const char *host, struct buf *out)
{
    if (json_parse(parser, text.data, text.size) != JSON_OK) {
        return HANDOVER_NO_MEMORY; /* It has been parsed before, as a part. */
    }
    struct json_value given = json_find(parser, json_root(parser), "remote_host");
    if (!is_reachable(parser, given)) {
        return put_with_host(parser, host, out);
    }
    return buf_append(out, text.data, text.size) ? HANDOVER_OK : HANDOVER_NO_MEMORY;
}

static enum handover_status read_answer(struct json_parser *parser, struct span answer,
                                        const char *host, struct buf *out)
{
    enum json_status status = json_parse(parser, answer.data, answer.size);
    if (status != JSON_OK) {
        return status == JSON_NO_MEMORY ? HANDOVER_NO_MEMORY : HANDOVER_INVALID;
    }
    struct json_value root = json_root(parser);
    if (json_kind(parser, root) != JSON_OBJECT) {
        return HANDOVER_INVALID;
    }
    struct json_value params = json_find(parser, root, PARAMS);
    if (json_kind(parser, params) == JSON_OBJECT) {
        return put_params(parser, json_member_text(parser, params), host, out);
    }
    /* What the client may have sent under that name does not count. */
    return buf_append_text(out, "null") ? HANDOVER_NONE : HANDOVER_NO_MEMORY;
}

enum handover_status handover_read_answer(struct handover *handover, struct span answer,
                                          const char *host)
{
    struct buf *out = &handover->params;
    out->size = 0;
    struct json_parser *parser = json_parser_new(out->mem);
    if (parser == NULL) {
        return HANDOVER_NO_MEMORY;
    }
    enum handover_status status = HANDOVER_NO_MEMORY;
    if (buf_append_text(out, handover->decode.comma ? ",\"" PARAMS "\":" : "\"" PARAMS "\":")) {
        status = read_answer(parser, answer, host, out);
    }
    if (!buf_append_text(out, "}")) {
        status = HANDOVER_NO_MEMORY;
    }
    json_parser_free(parser);
    return status;
}
