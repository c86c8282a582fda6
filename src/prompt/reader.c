/* Reading a body: the fields that count, the model, where the prompt comes from. */
#include <string.h>

#include "base/check.h"
#include "prompt/internal.h"

/* No real limit: what is in a working buffer is bounded by the body, and charged to `mem`. */
#define WORK_BYTES_MAX (SIZE_MAX / 2)

#define NAME(text)                               \
    {                                            \
        .data = (text), .size = sizeof(text) - 1 \
    }

static const struct span field_names[FIELD_COUNT] = {
    [FIELD_MODEL] = NAME("model"),
    [FIELD_STREAM] = NAME("stream"),
    [FIELD_LORA_REQUEST] = NAME("lora_request"),
    [FIELD_LORA_PATH] = NAME("lora_path"),
    [FIELD_LORA_NAME] = NAME("lora_name"),
    [FIELD_CACHE_SALT] = NAME("cache_salt"),
    [FIELD_MESSAGES] = NAME("messages"),
    [FIELD_PROMPT] = NAME("prompt"),
    [FIELD_INPUT] = NAME("input"),
    [FIELD_INSTRUCTIONS] = NAME("instructions"),
    [FIELD_SYSTEM] = NAME("system"),
    [FIELD_ADD_SPECIAL_TOKENS] = NAME("add_special_tokens"),
    [FIELD_CHAT_TEMPLATE] = NAME("chat_template"),
    [FIELD_CHAT_TEMPLATE_KWARGS] = NAME("chat_template_kwargs"),
    [FIELD_REASONING_EFFORT] = NAME("reasoning_effort"),
    [FIELD_REASONING] = NAME("reasoning"),
    [FIELD_TOOLS] = NAME("tools"),
    [FIELD_FUNCTIONS] = NAME("functions"),
    [FIELD_DOCUMENTS] = NAME("documents"),
    [FIELD_MM_PROCESSOR_KWARGS] = NAME("mm_processor_kwargs"),
};

struct prompt_reader *prompt_reader_new(struct mem *mem)
{
    struct prompt_reader *reader = mem_alloc(mem, sizeof *reader);
    if (reader == NULL) {
        return NULL;
    }
    reader->mem = mem;
    reader->body = NULL;
    reader->body_size = 0;
    reader->source = SOURCE_NONE;
    reader->json = json_parser_new(mem);
    if (reader->json == NULL) {
        mem_free(mem, reader, sizeof *reader);
        return NULL;
    }
    buf_init(&reader->model, mem, WORK_BYTES_MAX);
    buf_init(&reader->places, mem, WORK_BYTES_MAX);
    buf_init(&reader->members, mem, WORK_BYTES_MAX);
    buf_init(&reader->rewritten, mem, WORK_BYTES_MAX);
    return reader;
}

void prompt_reader_free(struct prompt_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    buf_fini(&reader->rewritten);
    buf_fini(&reader->members);
    buf_fini(&reader->places);
    buf_fini(&reader->model);
    json_parser_free(reader->json);
    mem_free(reader->mem, reader, sizeof *reader);
}

static void release_buf(struct buf *buf)
{
    buf->size = 0;
    if (buf->capacity > READER_KEEP_BYTES) {
        buf_fini(buf);
    }
}

void prompt_release(struct prompt_reader *reader)
{
    release_buf(&reader->model);
    release_buf(&reader->places);
    release_buf(&reader->members);
    release_buf(&reader->rewritten);
    json_parser_release(reader->json);
    reader->body = NULL;
    reader->source = SOURCE_NONE;
}

static enum prompt_status status_of(enum json_status status)
{
    switch (status) {
    case JSON_OK:
        return PROMPT_OK;
    case JSON_TOO_DEEP:
        return PROMPT_TOO_DEEP;
    case JSON_NO_MEMORY:
        return PROMPT_NO_MEMORY;
    case JSON_INVALID:
    case JSON_TOO_BIG:
        break;
    }
    return PROMPT_NOT_JSON;
}

static bool push_place(struct prompt_reader *reader, struct json_value value)
{
    struct span text = json_member_text(reader->json, value);
    struct prompt_place place = {.offset = (size_t)(text.data - reader->body), .size = text.size};
    return buf_append(&reader->places, &place, sizeof place);
}

/* Every `model` of the body, not just the one that counts: an engine may read another. */
static bool find_places(struct prompt_reader *reader)
{
    struct json_cursor cursor = json_first(reader->json, json_root(reader->json));
    struct json_value key;
    struct json_value value;
    while (json_next_member(reader->json, &cursor, &key, &value)) {
        if (json_is_text(reader->json, key, "model") && !push_place(reader, value)) {
            return false;
        }
    }
    return true;
}

/* The decoded name; escapes are rare in it. False: no memory. */
static bool read_model(struct prompt_reader *reader, struct span *model)
{
    struct json_value value = reader->fields[FIELD_MODEL];
    struct span text = json_text(reader->json, value);
    if (text.size > 0 && memchr(text.data, '\\', text.size) != NULL) {
        struct buf *out = &reader->model;
        if (!buf_reserve(out, text.size + JSON_DECODE_MIN)) {
            return false;
        }
        out->size = json_decode(&text, out->data, out->capacity);
        CHECK(text.size == 0);
        text = (struct span){.data = out->data, .size = out->size};
    }
    *model = text;
    return true;
}

/* `input` is a conversation in the Responses API and texts to embed elsewhere. A list of items, or
 * instructions beside it, tell them apart. */
static bool input_is_conversation(const struct prompt_reader *reader)
{
    const struct json_parser *json = reader->json;
    struct json_value input = reader->fields[FIELD_INPUT];
    if (json_kind(json, input) == JSON_STRING) {
        return json_kind(json, reader->fields[FIELD_INSTRUCTIONS]) == JSON_STRING;
    }
    struct json_cursor cursor = json_first(json, input);
    struct json_value item;
    if (!json_next_element(json, &cursor, &item)) {
        return false;
    }
    return json_kind(json, json_find(json, item, "role")) == JSON_STRING ||
           json_kind(json, json_find(json, item, "type")) == JSON_STRING;
}

/* Something that could be a prompt: not null, not empty. */
static bool is_present(const struct json_parser *json, struct json_value value)
{
    struct json_cursor cursor = json_first(json, value);
    struct json_value element;
    enum json_kind kind = json_kind(json, value);
    if (kind == JSON_STRING) {
        return json_text(json, value).size > 0;
    }
    if (kind == JSON_ARRAY) {
        return json_next_element(json, &cursor, &element);
    }
    return kind != JSON_ABSENT && kind != JSON_NULL;
}

static enum source find_source(const struct prompt_reader *reader)
{
    if (is_present(reader->json, reader->fields[FIELD_MESSAGES])) {
        return SOURCE_MESSAGES;
    }
    if (is_present(reader->json, reader->fields[FIELD_PROMPT])) {
        return SOURCE_PROMPT;
    }
    return input_is_conversation(reader) ? SOURCE_INPUT : SOURCE_NONE;
}

enum prompt_status prompt_read(struct prompt_reader *reader, const char *body, size_t size,
                               struct prompt *out)
{
    prompt_release(reader);
    enum prompt_status status = status_of(json_parse(reader->json, body, size));
    if (status != PROMPT_OK) {
        return status;
    }
    struct json_value root = json_root(reader->json);
    if (json_kind(reader->json, root) != JSON_OBJECT) {
        return PROMPT_NOT_OBJECT;
    }
    reader->body = body;
    reader->body_size = size;
    prompt_find_fields(reader->json, root, field_names, FIELD_COUNT, reader->fields);
    if (json_kind(reader->json, reader->fields[FIELD_MODEL]) != JSON_STRING) {
        return PROMPT_NO_MODEL;
    }
    struct span model;
    if (!find_places(reader) || !read_model(reader, &model)) {
        return PROMPT_NO_MEMORY;
    }
    reader->source = find_source(reader);
    *out = (struct prompt){
        .reader = reader,
        .model = model,
        .model_places = (const struct prompt_place *)(const void *)reader->places.data,
        .model_place_count = reader->places.size / sizeof(struct prompt_place),
        .stream = json_kind(reader->json, reader->fields[FIELD_STREAM]) == JSON_TRUE,
        .has_prompt = reader->source != SOURCE_NONE,
    };
    return PROMPT_OK;
}

/* ---- Other members ---- */

const struct json_parser *prompt_json(const struct prompt *prompt)
{
    return prompt->reader->json;
}

static bool append_decoded(struct span text, struct buf *out)
{
    if (!buf_reserve(out, text.size + JSON_DECODE_MIN)) {
        return false;
    }
    out->size += json_decode(&text, out->data + out->size, out->capacity - out->size);
    CHECK(text.size == 0);
    return true;
}

bool prompt_member_text(const struct prompt *prompt, const char *name, struct buf *out, bool *fits)
{
    const struct json_parser *json = prompt->reader->json;
    struct json_value value = json_find(json, json_root(json), name);
    enum json_kind kind = json_kind(json, value);
    *fits = true;
    if (kind == JSON_ABSENT || kind == JSON_NULL) {
        return false;
    }
    struct span text = json_member_text(json, value);
    if (kind == JSON_STRING) {
        *fits = append_decoded(json_text(json, value), out);
    } else if (kind == JSON_TRUE || kind == JSON_FALSE) {
        *fits = buf_append_text(out, kind == JSON_TRUE ? "True" : "False");
    } else {
        *fits = buf_append(out, text.data, text.size);
    }
    return true;
}
