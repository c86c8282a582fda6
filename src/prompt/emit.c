/* Bytes to the sink: small pieces gathered, large ones in place. */
#include <string.h>

#include "base/check.h"
#include "prompt/internal.h"

void prompt_emit_init(struct emit *emit, struct prompt_reader *reader, prompt_sink *sink,
                      void *user)
{
    emit->reader =
        reader; /* The stage stays as it is: nothing of it is read before it is written. */
    emit->sink = sink;
    emit->user = user;
    emit->failed = false;
    emit->staged = 0;
}

static void flush(struct emit *emit)
{
    if (emit->staged > 0) {
        emit->sink(emit->user, emit->stage, emit->staged);
        emit->staged = 0;
    }
}

enum prompt_status prompt_emit_end(struct emit *emit)
{
    flush(emit);
    return emit->failed ? PROMPT_NO_MEMORY : PROMPT_OK;
}

/* Room for `size` small bytes. */
static unsigned char *stage_room(struct emit *emit, size_t size)
{
    DCHECK(size <= EMIT_STAGE_BYTES);
    if (EMIT_STAGE_BYTES - emit->staged < size) {
        flush(emit);
    }
    return emit->stage + emit->staged;
}

void prompt_emit_bytes(struct emit *emit, const void *bytes, size_t size)
{
    if (emit->failed || size == 0) {
        return;
    }
    if (size >= EMIT_DIRECT_MIN) {
        flush(emit);
        emit->sink(emit->user, bytes, size);
        return;
    }
    memcpy(stage_room(emit, size), bytes, size);
    emit->staged += size;
}

void prompt_emit_tag(struct emit *emit, char tag)
{
    if (!emit->failed) {
        unsigned char *room = stage_room(emit, 2);
        room[0] = TAG_ESCAPE;
        room[1] = (unsigned char)tag;
        emit->staged += 2;
    }
}

void prompt_emit_token(struct emit *emit, uint32_t token)
{
    if (!emit->failed) {
        unsigned char *room = stage_room(emit, 4);
        for (unsigned i = 0; i < 4; i++) {
            room[i] = (unsigned char)(token >> (8 * i));
        }
        emit->staged += 4;
    }
}

void prompt_emit_string(struct emit *emit, struct json_value string)
{
    const struct json_parser *json = emit->reader->json;
    struct span text = json_text(json, string);
    if (json_is_usual(json, string)) {
        prompt_emit_bytes(emit, text.data, text.size);
        return;
    }
    while (!emit->failed && text.size > 0) {
        unsigned char *room = stage_room(emit, JSON_USUAL_MIN);
        emit->staged += json_to_usual(&text, (char *)room, EMIT_STAGE_BYTES - emit->staged);
    }
}
