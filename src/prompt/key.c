/*
 * The layout of the prompt key.
 *
 *     key          = conversation | texts | tokens
 *     conversation = { field } [ turn of the role "system" ] { message }
 *     field        = 0xff 'F' name  canonical JSON
 *     message      = 0xff 'M' role  [ 'N' name ] [ 'D' tool_call_id ] [ 'R' reasoning ]
 *                    { part }  [ 'O' tool_calls ] [ 'U' function_call ]
 *     part         = 'C' text | 'G' image | 'V' video | 'A' audio | 'X' refusal | 'R' thinking
 *                  | 'J' canonical JSON
 *     texts        = { 0xff 'P' text | 0xff 'P' 0xff 'J' canonical JSON }
 *     tokens       = 0xff 'I' { four bytes, little end first } [ oddity ]
 *     oddity       = 0xfffffffe as a token  canonical JSON of the whole prompt
 *
 * Every tag stands behind 0xff, and text is UTF-8, which has no 0xff: different structures never
 * write the same. Nothing is closed and no length is written before what it counts, so a longer
 * text at the end, or one more message, only appends.
 *
 * A key ends after KEY_TAGS_MAX tags: what is all structure is no prompt.
 *
 * Texts stay escaped, in the usual form (see json.h): as nearly all bodies have them already, their
 * bytes are hashed where they lie.
 *
 * Fields that count, in this order: chat_template, chat_template_kwargs, reasoning_effort,
 * reasoning, tools, functions, documents, mm_processor_kwargs: chat templates write them before the
 * first message. add_special_tokens counts where it is not the default. Empty ones (null, "", [],
 * {}) count as absent. Anthropic's `system` and the Responses API's `instructions` are a first
 * turn, as engines treat them.
 *
 * Left out, since they do not change what a prompt begins with: add_generation_prompt,
 * continue_final_message (the prompt's end, which the next turn replaces), tool_choice (templates
 * do not see it), response_format, sampling.
 */
#include "prompt/internal.h"

/* Token ids at or above this are not ids. What stands between two lists of ids, or before a list
 * that turns out to hold something else, can be none, then. */
#define TOKEN_LIMIT  INT64_C(0x80000000)
#define TOKEN_BREAK  UINT32_C(0xffffffff)
#define TOKEN_ODDITY UINT32_C(0xfffffffe)

enum { TOKEN_BATCH = 64 };

static const struct {
    enum field field;
    const char *name;
} preamble[] = {
    {FIELD_CHAT_TEMPLATE, "chat_template"},
    {FIELD_CHAT_TEMPLATE_KWARGS, "chat_template_kwargs"},
    {FIELD_REASONING_EFFORT, "reasoning_effort"},
    {FIELD_REASONING, "reasoning"},
    {FIELD_TOOLS, "tools"},
    {FIELD_FUNCTIONS, "functions"},
    {FIELD_DOCUMENTS, "documents"},
    {FIELD_MM_PROCESSOR_KWARGS, "mm_processor_kwargs"},
};

static bool is_empty(const struct json_parser *json, struct json_value value)
{
    struct json_cursor cursor = json_first(json, value);
    struct json_value key;
    switch (json_kind(json, value)) {
    case JSON_ABSENT:
    case JSON_NULL:
        return true;
    case JSON_STRING:
        return json_text(json, value).size == 0;
    case JSON_ARRAY:
        return !json_next_element(json, &cursor, &value);
    case JSON_OBJECT:
        return !json_next_member(json, &cursor, &key, &value);
    case JSON_NUMBER:
    case JSON_TRUE:
    case JSON_FALSE:
        break;
    }
    return false;
}

static void emit_field(struct emit *emit, const char *name, struct json_value value)
{
    if (!is_empty(emit->reader->json, value)) {
        struct span text = span_of(name);
        prompt_emit_tag(emit, TAG_FIELD);
        prompt_emit_bytes(emit, text.data, text.size);
        prompt_emit_canonical(emit, value, NULL);
    }
}

static void emit_special_tokens(struct emit *emit, enum json_kind unusual)
{
    struct json_value value = emit->reader->fields[FIELD_ADD_SPECIAL_TOKENS];
    if (json_kind(emit->reader->json, value) == unusual) {
        emit_field(emit, "add_special_tokens", value);
    }
}

static void emit_conversation(struct emit *emit, struct json_value messages)
{
    const struct prompt_reader *reader = emit->reader;
    for (size_t i = 0; i < sizeof preamble / sizeof *preamble; i++) {
        emit_field(emit, preamble[i].name, reader->fields[preamble[i].field]);
    }
    emit_special_tokens(emit, JSON_TRUE);
    struct json_value first_turn =
        reader->fields[reader->source == SOURCE_INPUT ? FIELD_INSTRUCTIONS : FIELD_SYSTEM];
    if (!is_empty(reader->json, first_turn)) {
        prompt_emit_turn(emit, "system", first_turn);
    }
    if (json_kind(reader->json, messages) == JSON_STRING) {
        prompt_emit_turn(emit, "user", messages);
        return;
    }
    if (json_kind(reader->json, messages) != JSON_ARRAY) {
        prompt_emit_piece(emit, TAG_PROMPT, messages);
        return;
    }
    struct json_cursor cursor = json_first(reader->json, messages);
    struct json_value message;
    while (!emit->closed && json_next_element(reader->json, &cursor, &message)) {
        prompt_emit_message(emit, message);
    }
}

/* The ids of a list up to its end. False: there is something else in it. */
static bool emit_ids(struct emit *emit, struct json_value list)
{
    const struct json_parser *json = emit->reader->json;
    int64_t numbers[TOKEN_BATCH];
    struct json_cursor cursor = json_first(json, list);
    size_t count;
    while ((count = json_next_ints(json, &cursor, numbers, TOKEN_BATCH)) > 0) {
        for (size_t i = 0; i < count; i++) {
            if (numbers[i] < 0 || numbers[i] >= TOKEN_LIMIT) {
                return false;
            }
            prompt_emit_token(emit, (uint32_t)numbers[i]);
        }
    }
    struct json_value other;
    return json_kind(json, list) == JSON_ARRAY && !json_next_element(json, &cursor, &other);
}

static bool emit_id_lists(struct emit *emit, struct json_value lists)
{
    const struct json_parser *json = emit->reader->json;
    struct json_cursor cursor = json_first(json, lists);
    struct json_value list;
    for (size_t i = 0; i < KEY_TAGS_MAX && json_next_element(json, &cursor, &list); i++) {
        if (i > 0) {
            prompt_emit_token(emit, TOKEN_BREAK);
        }
        if (!emit_ids(emit, list)) {
            return false;
        }
    }
    return true;
}

static void emit_texts(struct emit *emit, struct json_value array)
{
    struct json_cursor cursor = json_first(emit->reader->json, array);
    struct json_value text;
    while (!emit->closed && json_next_element(emit->reader->json, &cursor, &text)) {
        prompt_emit_value(emit, TAG_PROMPT, text);
    }
}

/* What its first element is says what a list is taken for. */
static void emit_prompt(struct emit *emit, struct json_value prompt)
{
    const struct json_parser *json = emit->reader->json;
    emit_special_tokens(emit, JSON_FALSE);
    struct json_cursor cursor = json_first(json, prompt);
    struct json_value first = json_absent();
    (void)json_next_element(json, &cursor, &first); /* No list, or empty: absent. */
    enum json_kind kind = json_kind(json, first);
    if (kind == JSON_STRING) {
        emit_texts(emit, prompt);
    } else if (kind == JSON_NUMBER || kind == JSON_ARRAY) {
        prompt_emit_tag(emit, TAG_TOKENS);
        bool ids = kind == JSON_NUMBER ? emit_ids(emit, prompt) : emit_id_lists(emit, prompt);
        if (!ids) {
            prompt_emit_token(emit, TOKEN_ODDITY);
            prompt_emit_canonical(emit, prompt, NULL);
        }
    } else {
        prompt_emit_piece(emit, TAG_PROMPT, prompt);
    }
}

enum prompt_status prompt_key(const struct prompt *prompt, prompt_sink *sink, void *user)
{
    struct prompt_reader *reader = prompt->reader;
    struct emit emit;
    prompt_emit_init(&emit, reader, sink, user);
    switch (reader->source) {
    case SOURCE_MESSAGES:
        emit_conversation(&emit, reader->fields[FIELD_MESSAGES]);
        break;
    case SOURCE_INPUT:
        emit_conversation(&emit, reader->fields[FIELD_INPUT]);
        break;
    case SOURCE_PROMPT:
        emit_prompt(&emit, reader->fields[FIELD_PROMPT]);
        break;
    case SOURCE_NONE:
        break;
    }
    return prompt_emit_end(&emit);
}

/* The adapter's name, where an object gives one; else what stands there. */
static struct json_value lora_name(const struct json_parser *json, struct json_value lora)
{
    static const char *const names[] = {"lora_name", "name", "lora_path", "path"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct json_value name = json_find(json, lora, names[i]);
        if (json_kind(json, name) == JSON_STRING) {
            return name;
        }
    }
    return lora;
}

enum prompt_status prompt_namespace(const struct prompt *prompt, struct span model,
                                    prompt_sink *sink, void *user)
{
    static const enum field loras[] = {FIELD_LORA_REQUEST, FIELD_LORA_PATH, FIELD_LORA_NAME};
    struct prompt_reader *reader = prompt->reader;
    struct emit emit;
    prompt_emit_init(&emit, reader, sink, user);
    prompt_emit_bytes(&emit, model.data, model.size);
    for (size_t i = 0; i < sizeof loras / sizeof *loras; i++) {
        struct json_value lora = reader->fields[loras[i]];
        if (!is_empty(reader->json, lora)) {
            prompt_emit_piece(&emit, TAG_LORA, lora_name(reader->json, lora));
        }
    }
    if (!is_empty(reader->json, reader->fields[FIELD_CACHE_SALT])) {
        prompt_emit_piece(&emit, TAG_SALT, reader->fields[FIELD_CACHE_SALT]);
    }
    return prompt_emit_end(&emit);
}
