/* Bytes to the sink: small pieces gathered, large ones in place. */
#include "prompt/internal.h"

void prompt_emit_init(struct emit *emit, struct prompt_reader *reader, prompt_sink *sink,
                      void *user)
{
    emit->reader =
        reader; /* The stage stays as it is: nothing of it is read before it is written. */
    emit->sink = sink;
    emit->user = user;
    emit->closed = false;
    emit->failed = false;
    emit->tags_left = KEY_TAGS_MAX;
    emit->staged = 0;
}

void prompt_emit_flush(struct emit *emit)
{
    if (emit->staged > 0) {
        emit->sink(emit->user, emit->stage, emit->staged);
        emit->staged = 0;
    }
}

static void sink_nothing(void *user, const void *bytes, size_t size)
{
    (void)user;
    (void)bytes;
    (void)size;
}

void prompt_emit_close(struct emit *emit)
{
    prompt_emit_flush(emit);
    emit->sink = sink_nothing;
    emit->closed = true;
}

void prompt_emit_fail(struct emit *emit)
{
    prompt_emit_close(emit);
    emit->failed = true;
}

enum prompt_status prompt_emit_end(struct emit *emit)
{
    prompt_emit_flush(emit);
    return emit->failed ? PROMPT_NO_MEMORY : PROMPT_OK;
}

void prompt_emit_large(struct emit *emit, const void *bytes, size_t size)
{
    prompt_emit_flush(emit);
    emit->sink(emit->user, bytes, size);
}

void prompt_emit_string(struct emit *emit, struct json_value string)
{
    const struct json_parser *json = emit->reader->json;
    struct span text = json_text(json, string);
    if (json_is_usual(json, string)) {
        prompt_emit_bytes(emit, text.data, text.size);
        return;
    }
    while (!emit->closed && text.size > 0) {
        unsigned char *room = prompt_emit_room(emit, JSON_USUAL_MIN);
        emit->staged += json_to_usual(&text, (char *)room, EMIT_STAGE_BYTES - emit->staged);
    }
}
