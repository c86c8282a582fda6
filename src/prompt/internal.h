/* What the files of the room share. */
#ifndef HASHTRIE_PROMPT_INTERNAL_H
#define HASHTRIE_PROMPT_INTERNAL_H

#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "json/json.h"
#include "prompt/prompt.h"

enum {
    EMIT_STAGE_BYTES = 4096,        /* Small pieces are handed on together, by this much. */
    EMIT_DIRECT_MIN = 256,          /* Larger ones are handed on where they lie. */
    KEY_TAGS_MAX = 1 << 20,         /* A key ends there: bodies that are all structure. */
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
    uint64_t order; /* The key's first eight bytes, as a number that orders as they do. */
    uint32_t at;    /* Of the key in its usual form: in the body, or in reader->rewritten. */
    uint32_t size;  /* MEMBER_REWRITTEN is or-ed in where it lies in the latter. */
    uint32_t value; /* Token; later members have higher ones. */
};

#define MEMBER_REWRITTEN (UINT32_C(1) << 31)

/* A container that is being written in canonical form. */
struct frame {
    struct json_cursor cursor; /* Of an array, or of an object that is not sorted. */
    bool object;
    bool sorted;
    size_t next;           /* Of an object: its members in reader->members, from here ... */
    size_t end;            /* ... to here, as indexes. */
    size_t first;          /* Where they began. */
    size_t rewritten_size; /* Of reader->rewritten before them. */
};

struct prompt_reader {
    struct mem *mem;
    struct json_parser *json; /* Owned. */
    const char *body;         /* Borrowed. */
    size_t body_size;
    struct buf model;     /* The decoded name, if it has escapes. */
    struct buf places;    /* struct prompt_place. */
    struct buf members;   /* struct member: a stack. */
    struct buf rewritten; /* Keys that were not in their usual form: a stack, too. */
    struct json_value fields[FIELD_COUNT];
    enum source source;
    struct frame frames[JSON_DEPTH_MAX];
};

/* ---- emit.c: bytes to the sink ---- */

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

struct emit {
    struct prompt_reader *reader;
    prompt_sink *sink;
    void *user;
    bool closed; /* What is written from here on goes nowhere: loops can end. */
    bool failed; /* Closed for want of memory. */
    uint32_t tags_left;
    size_t staged;
    unsigned char stage[EMIT_STAGE_BYTES];
};

void prompt_emit_init(struct emit *emit, struct prompt_reader *reader, prompt_sink *sink,
                      void *user);
enum prompt_status prompt_emit_end(struct emit *emit);
void prompt_emit_fail(struct emit *emit);  /* No memory: closes. */
void prompt_emit_close(struct emit *emit); /* After what is staged. */
void prompt_emit_flush(struct emit *emit);
void prompt_emit_large(struct emit *emit, const void *bytes, size_t size);

/* Room for `size` small bytes. */
static inline unsigned char *prompt_emit_room(struct emit *emit, size_t size)
{
    DCHECK(size <= EMIT_STAGE_BYTES);
    if (EMIT_STAGE_BYTES - emit->staged < size) {
        prompt_emit_flush(emit);
    }
    return emit->stage + emit->staged;
}

static inline void prompt_emit_bytes(struct emit *emit, const void *bytes, size_t size)
{
    if (size >= EMIT_DIRECT_MIN) {
        prompt_emit_large(emit, bytes, size);
        return;
    }
    unsigned char *room = prompt_emit_room(emit, size);
    const unsigned char *from = bytes;
    if (size > 16) {
        memcpy(room, from, size);
    } else if (size >= 8) { /* Two halves that overlap: no call, no loop. */
        memcpy(room, from, 8);
        memcpy(room + size - 8, from + size - 8, 8);
    } else if (size >= 4) {
        memcpy(room, from, 4);
        memcpy(room + size - 4, from + size - 4, 4);
    } else {
        for (size_t i = 0; i < size; i++) {
            room[i] = from[i];
        }
    }
    emit->staged += size;
}

static inline void prompt_emit_tag(struct emit *emit, char tag)
{
    unsigned char *room = prompt_emit_room(emit, 2);
    room[0] = TAG_ESCAPE;
    room[1] = (unsigned char)tag;
    emit->staged += 2;
    if (--emit->tags_left == 0) {
        prompt_emit_close(emit);
    }
}

static inline void prompt_emit_token(struct emit *emit, uint32_t token)
{
    unsigned char *room = prompt_emit_room(emit, 4); /* Little end first. */
    for (unsigned i = 0; i < 4; i++) {
        room[i] = (unsigned char)(token >> (8 * i));
    }
    emit->staged += 4;
}

void prompt_emit_string(struct emit *emit, struct json_value string); /* In its usual form. */

/* ---- canonical.c ---- */

/*
 * Any value, delimited so that different values never write the same. `skip`: a member of the
 * outermost object to leave out, or NULL; it stays in objects that are too large to be sorted.
 */
void prompt_emit_canonical(struct emit *emit, struct json_value value, const char *skip);

/* ---- fields.c: members by name ---- */

/* The value is the string `name`, which is one without escapes and NUL-terminated. */
bool prompt_is_name(const struct json_parser *json, struct json_value value, struct span name);

/*
 * Fills out[i] with the last member named names[i], or absent. One pass over the object, whatever
 * it is.
 */
void prompt_find_fields(const struct json_parser *json, struct json_value object,
                        const struct span *names, size_t count, struct json_value *out);

/* ---- message.c ---- */

void prompt_emit_value(struct emit *emit, char tag, struct json_value value);
/* The same, but nothing for null and what is absent. */
void prompt_emit_piece(struct emit *emit, char tag, struct json_value value);
void prompt_emit_message(struct emit *emit, struct json_value message);
/* A message made of a role and a content that stand elsewhere. */
void prompt_emit_turn(struct emit *emit, const char *role, struct json_value content);

#endif
