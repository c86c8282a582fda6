/* What the files of the room share. */
#ifndef HASHTRIE_PROMPT_INTERNAL_H
#define HASHTRIE_PROMPT_INTERNAL_H

#include "base/buf.h"
#include "json/json.h"
#include "prompt/prompt.h"

enum {
    EMIT_STAGE_BYTES = 4096,        /* Small pieces are handed on together, by this much. */
    EMIT_DIRECT_MIN = 256,          /* Larger ones are handed on where they lie. */
    READER_KEEP_BYTES = 256 * 1024, /* Each working buffer keeps this much between bodies. */
};

/* Fields of the body that count. */
enum field {
    FIELD_MODEL,
    FIELD_STREAM,
    FIELD_LORA_REQUEST,
    FIELD_LORA_PATH,
    FIELD_LORA_NAME,
    FIELD_CACHE_SALT,
    FIELD_MESSAGES,
    FIELD_PROMPT,
    FIELD_INPUT,
    FIELD_INSTRUCTIONS,
    FIELD_SYSTEM,
    FIELD_ADD_SPECIAL_TOKENS,
    /* Of the preamble, in the order of the key. */
    FIELD_CHAT_TEMPLATE,
    FIELD_CHAT_TEMPLATE_KWARGS,
    FIELD_REASONING_EFFORT,
    FIELD_REASONING,
    FIELD_TOOLS,
    FIELD_FUNCTIONS,
    FIELD_DOCUMENTS,
    FIELD_MM_PROCESSOR_KWARGS,
    FIELD_COUNT,
};

/* Where the prompt comes from. */
enum source { SOURCE_NONE, SOURCE_MESSAGES, SOURCE_INPUT, SOURCE_PROMPT };

/* A member of an object that is being sorted. */
struct member {
    uint32_t at;    /* Of the key in its usual form: in the body, or in reader->rewritten. */
    uint32_t size;  /* MEMBER_REWRITTEN is or-ed in where it lies in the latter. */
    uint32_t value; /* Token; later members have higher ones. */
};

#define MEMBER_REWRITTEN (UINT32_C(1) << 31)

/* A container that is being written in canonical form. */
struct frame {
    struct json_cursor cursor; /* Of an array. */
    bool object;
    size_t next;           /* Of an object: its members in reader->members, from here ... */
    size_t end;            /* ... to here, as indexes. */
    size_t first;          /* Where they began. */
    size_t rewritten_size; /* Of reader->rewritten before them. */
};

struct prompt_reader {
    struct mem *mem;
    struct json_parser *json; /* Owned. */
    const char *body;         /* Borrowed. */
    struct buf model;         /* The decoded name, if it has escapes. */
    struct buf places;        /* struct prompt_place. */
    struct buf members;       /* struct member: a stack. */
    struct buf rewritten;     /* Keys that were not in their usual form: a stack, too. */
    struct json_value fields[FIELD_COUNT];
    enum source source;
    struct frame frames[JSON_DEPTH_MAX];
};

/* ---- emit.c: bytes to the sink ---- */

struct emit {
    struct prompt_reader *reader;
    prompt_sink *sink;
    void *user;
    bool failed; /* Out of memory; nothing more is written. */
    size_t staged;
    unsigned char stage[EMIT_STAGE_BYTES];
};

void prompt_emit_init(struct emit *emit, struct prompt_reader *reader, prompt_sink *sink,
                      void *user);
enum prompt_status prompt_emit_end(struct emit *emit);
void prompt_emit_bytes(struct emit *emit, const void *bytes, size_t size);
void prompt_emit_tag(struct emit *emit, char tag);
void prompt_emit_token(struct emit *emit, uint32_t token); /* Four bytes, little end first. */
void prompt_emit_string(struct emit *emit, struct json_value string); /* In its usual form. */

/* ---- canonical.c ---- */

/*
 * Any value, delimited so that different values never write the same. `skip`: a member of the
 * outermost object to leave out, or NULL.
 */
void prompt_emit_canonical(struct emit *emit, struct json_value value, const char *skip);

/* ---- fields.c: members by name ---- */

/*
 * Fills out[i] with the last member named names[i], or absent. One pass over the object, whatever
 * it is.
 */
void prompt_find_fields(const struct json_parser *json, struct json_value object,
                        const struct span *names, size_t count, struct json_value *out);

/* ---- message.c ---- */

void prompt_emit_piece(struct emit *emit, char tag, struct json_value value);
void prompt_emit_message(struct emit *emit, struct json_value message);
/* A message made of a role and a content that stand elsewhere. */
void prompt_emit_turn(struct emit *emit, const char *role, struct json_value content);

/*
 * Tags stand behind a byte 0xff, which no UTF-8 text has. The canonical form has its own, in small
 * letters and brackets.
 */
enum {
    TAG_ESCAPE = 0xff,
    TAG_LORA = 'L',
    TAG_SALT = 'S',
    TAG_FIELD = 'F',
    TAG_MESSAGE = 'M',
    TAG_NAME = 'N',
    TAG_CALL_ID = 'D',
    TAG_REASONING = 'R',
    TAG_TEXT = 'C',
    TAG_IMAGE = 'G',
    TAG_VIDEO = 'V',
    TAG_AUDIO = 'A',
    TAG_REFUSAL = 'X',
    TAG_JSON = 'J',
    TAG_TOOL_CALLS = 'O',
    TAG_FUNCTION_CALL = 'U',
    TAG_PROMPT = 'P',
    TAG_TOKENS = 'I',
};

#endif
