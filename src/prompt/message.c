/* One message of a conversation: the part of the key's layout (see key.c) that repeats. */
#include "base/check.h"
#include "prompt/internal.h"

#define NAME(text)                               \
    {                                            \
        .data = (text), .size = sizeof(text) - 1 \
    }

enum message_field {
    MESSAGE_ROLE,
    MESSAGE_CONTENT,
    MESSAGE_NAME,
    MESSAGE_TOOL_CALLS,
    MESSAGE_TOOL_CALL_ID,
    MESSAGE_REASONING,
    MESSAGE_REASONING_CONTENT,
    MESSAGE_FUNCTION_CALL,
    MESSAGE_FIELD_COUNT,
};

static const struct span message_names[MESSAGE_FIELD_COUNT] = {
    [MESSAGE_ROLE] = NAME("role"),
    [MESSAGE_CONTENT] = NAME("content"),
    [MESSAGE_NAME] = NAME("name"),
    [MESSAGE_TOOL_CALLS] = NAME("tool_calls"),
    [MESSAGE_TOOL_CALL_ID] = NAME("tool_call_id"),
    [MESSAGE_REASONING] = NAME("reasoning"),
    [MESSAGE_REASONING_CONTENT] = NAME("reasoning_content"),
    [MESSAGE_FUNCTION_CALL] = NAME("function_call"),
};

enum part_field {
    PART_TYPE,
    PART_TEXT,
    PART_IMAGE_URL,
    PART_SOURCE,
    PART_VIDEO_URL,
    PART_AUDIO_URL,
    PART_INPUT_AUDIO,
    PART_REFUSAL,
    PART_THINKING,
    PART_FIELD_COUNT,
};

static const struct span part_names[PART_FIELD_COUNT] = {
    [PART_TYPE] = NAME("type"),
    [PART_TEXT] = NAME("text"),
    [PART_IMAGE_URL] = NAME("image_url"),
    [PART_SOURCE] = NAME("source"),
    [PART_VIDEO_URL] = NAME("video_url"),
    [PART_AUDIO_URL] = NAME("audio_url"),
    [PART_INPUT_AUDIO] = NAME("input_audio"),
    [PART_REFUSAL] = NAME("refusal"),
    [PART_THINKING] = NAME("thinking"),
};

/* Types of parts whose meaning is one string: the field, or a member of the object that it is. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): a short table, in order of sense. */
static const struct part_type {
    struct span type;
    const char *inner;      /* NULL: the field is always the string itself. */
    const char *inner_else; /* Where the first one is no string. */
    enum part_field field;
    char tag;
} part_types[] = {
    {NAME("text"), NULL, NULL, PART_TEXT, TAG_TEXT},
    {NAME("input_text"), NULL, NULL, PART_TEXT, TAG_TEXT},
    {NAME("output_text"), NULL, NULL, PART_TEXT, TAG_TEXT},
    {NAME("image_url"), "url", NULL, PART_IMAGE_URL, TAG_IMAGE},
    {NAME("input_image"), "url", NULL, PART_IMAGE_URL, TAG_IMAGE},
    {NAME("image"), "data", "url", PART_SOURCE, TAG_IMAGE},
    {NAME("video_url"), "url", NULL, PART_VIDEO_URL, TAG_VIDEO},
    {NAME("audio_url"), "url", NULL, PART_AUDIO_URL, TAG_AUDIO},
    {NAME("input_audio"), "data", NULL, PART_INPUT_AUDIO, TAG_AUDIO},
    {NAME("refusal"), NULL, NULL, PART_REFUSAL, TAG_REFUSAL},
    {NAME("thinking"), NULL, NULL, PART_THINKING, TAG_REASONING},
};

void prompt_emit_value(struct emit *emit, char tag, struct json_value value)
{
    prompt_emit_tag(emit, tag);
    if (json_kind(emit->reader->json, value) == JSON_STRING) {
        prompt_emit_string(emit, value);
    } else {
        prompt_emit_tag(emit, TAG_JSON);
        prompt_emit_canonical(emit, value, NULL);
    }
}

void prompt_emit_piece(struct emit *emit, char tag, struct json_value value)
{
    enum json_kind kind = json_kind(emit->reader->json, value);
    if (kind != JSON_ABSENT && kind != JSON_NULL) {
        prompt_emit_value(emit, tag, value);
    }
}

static bool is_string(const struct json_parser *json, struct json_value value)
{
    return json_kind(json, value) == JSON_STRING;
}

/* The string that a part of a known type stands for; something else if it has another shape. */
static struct json_value part_string(const struct json_parser *json, const struct part_type *type,
                                     struct json_value value)
{
    if (type->inner == NULL || json_kind(json, value) != JSON_OBJECT) {
        return value;
    }
    struct json_value string = json_find(json, value, type->inner);
    bool other = !is_string(json, string) && type->inner_else != NULL;
    return other ? json_find(json, value, type->inner_else) : string;
}

/* A part's tag and string. False: no type that is known, or not in its shape. */
static bool read_part(const struct json_parser *json, struct json_value part, char *tag,
                      struct json_value *string)
{
    *tag = TAG_TEXT;
    *string = part;
    if (is_string(json, part)) {
        return true;
    }
    struct json_value fields[PART_FIELD_COUNT];
    prompt_find_fields(json, part, part_names, PART_FIELD_COUNT, fields);
    struct json_value type = fields[PART_TYPE];
    *string = fields[PART_TEXT];
    if (json_kind(json, type) == JSON_ABSENT) { /* vLLM takes {"text": "..."} as well. */
        return is_string(json, *string);
    }
    for (size_t i = 0; i < sizeof part_types / sizeof *part_types; i++) {
        if (prompt_is_name(json, type, part_types[i].type)) {
            *tag = part_types[i].tag;
            *string = part_string(json, &part_types[i], fields[part_types[i].field]);
            return is_string(json, *string);
        }
    }
    return false;
}

static void emit_part(struct emit *emit, struct json_value part)
{
    char tag = TAG_JSON;
    struct json_value string;
    if (read_part(emit->reader->json, part, &tag, &string)) {
        prompt_emit_tag(emit, tag);
        prompt_emit_string(emit, string);
    } else {
        /* Anthropic's clients move this mark from turn to turn; it is not in the prompt. */
        prompt_emit_tag(emit, TAG_JSON);
        prompt_emit_canonical(emit, part, "cache_control");
    }
}

/* The one text that `content` consists of, as a string or as a single part, is empty. */
static bool content_is_blank(const struct json_parser *json, struct json_value content)
{
    struct json_cursor cursor = json_first(json, content);
    struct json_value part = content;
    struct json_value second;
    if (json_kind(json, content) == JSON_ARRAY &&
        (!json_next_element(json, &cursor, &part) || json_next_element(json, &cursor, &second))) {
        return false;
    }
    char tag = TAG_JSON;
    struct json_value string;
    return read_part(json, part, &tag, &string) && tag == TAG_TEXT &&
           json_text(json, string).size == 0;
}

static void emit_content(struct emit *emit, struct json_value content)
{
    const struct json_parser *json = emit->reader->json;
    if (content_is_blank(json, content)) {
        return; /* As if there was none: templates write the same. */
    }
    if (json_kind(json, content) != JSON_ARRAY) {
        prompt_emit_piece(emit, TAG_TEXT, content);
        return;
    }
    struct json_cursor cursor = json_first(json, content);
    struct json_value part;
    while (!emit->closed && json_next_element(json, &cursor, &part)) {
        emit_part(emit, part);
    }
}

/* Calls: none at all is the same as an empty list. */
static void emit_calls(struct emit *emit, char tag, struct json_value calls)
{
    struct json_cursor cursor = json_first(emit->reader->json, calls);
    struct json_value call;
    if (json_kind(emit->reader->json, calls) != JSON_ARRAY ||
        json_next_element(emit->reader->json, &cursor, &call)) {
        prompt_emit_piece(emit, tag, calls);
    }
}

void prompt_emit_turn(struct emit *emit, const char *role, struct json_value content)
{
    struct span text = span_of(role);
    prompt_emit_tag(emit, TAG_MESSAGE);
    prompt_emit_bytes(emit, text.data, text.size);
    emit_content(emit, content);
}

void prompt_emit_message(struct emit *emit, struct json_value message)
{
    const struct json_parser *json = emit->reader->json;
    struct json_value fields[MESSAGE_FIELD_COUNT];
    prompt_find_fields(json, message, message_names, MESSAGE_FIELD_COUNT, fields);
    if (!is_string(json, fields[MESSAGE_ROLE])) {
        prompt_emit_tag(emit, TAG_JSON); /* Items of the Responses API, and nonsense. */
        prompt_emit_canonical(emit, message, NULL);
        return;
    }
    bool reasons = is_string(json, fields[MESSAGE_REASONING]);
    prompt_emit_piece(emit, TAG_MESSAGE, fields[MESSAGE_ROLE]);
    prompt_emit_piece(emit, TAG_NAME, fields[MESSAGE_NAME]);
    prompt_emit_piece(emit, TAG_CALL_ID, fields[MESSAGE_TOOL_CALL_ID]);
    prompt_emit_piece(emit, TAG_REASONING,
                      fields[reasons ? MESSAGE_REASONING : MESSAGE_REASONING_CONTENT]);
    emit_content(emit, fields[MESSAGE_CONTENT]);
    emit_calls(emit, TAG_TOOL_CALLS, fields[MESSAGE_TOOL_CALLS]);
    prompt_emit_piece(emit, TAG_FUNCTION_CALL, fields[MESSAGE_FUNCTION_CALL]);
}
