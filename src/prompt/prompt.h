/*
 * From a request's body to its model, its stream flag and its prompt key.
 *
 * The key is the canonical form of what an engine turns into its prompt: requests whose engine-side
 * prompts share a prefix share a prefix of the key, whatever the white space, the order of fields
 * and the escapes in their JSON, and adding a turn only appends. key.c has the layout and the
 * fields that count.
 *
 *     prompt_read()        once per body
 *     prompt_namespace()   bytes whose hash seeds the chain: model, LoRA, cache_salt
 *     prompt_key()         bytes that are cut into chunks
 *     prompt_release()     before the body is freed or the next one read
 *
 * Nothing here fails for what a body says inside valid JSON with a model: odd pieces count as their
 * canonical JSON. Pure. Thread rule: one thread per reader at a time.
 */
#ifndef HASHTRIE_PROMPT_PROMPT_H
#define HASHTRIE_PROMPT_PROMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/span.h"

enum prompt_status {
    PROMPT_OK,
    PROMPT_NOT_JSON,
    PROMPT_NOT_OBJECT,
    PROMPT_NO_MODEL, /* No `model`, or not a string. */
    PROMPT_TOO_DEEP, /* Nested deeper than the json room reads. */
    PROMPT_NO_MEMORY,
};

struct prompt_reader;

/* A piece of the body. */
struct prompt_place {
    size_t offset;
    size_t size;
};

/* Everything borrowed from body and reader: valid until prompt_release(). */
struct prompt {
    struct prompt_reader *reader;
    struct span model; /* Decoded; may hold any characters, U+0000 included. */
    /* Each value of a `model` key in the body, quotes included, in ascending order: to be replaced
     * where another model name is to be forwarded. Mostly one. */
    const struct prompt_place *model_places;
    size_t model_place_count;
    bool stream;
    bool has_prompt; /* False: nothing to match, route by load. */
};

/* Appends the value of the last top-level member `name` as Python's str() shows it: strings
 * decoded, numbers and containers as they stand. False: there is none, or it is null. With *fits
 * false there was no room. */
bool prompt_member_text(const struct prompt *prompt, const char *name, struct buf *out, bool *fits);

/* Takes bytes of a key, in order; valid during the call only. */
typedef void prompt_sink(void *user, const void *bytes, size_t size);

/* The body as it was parsed. */
struct json_parser;
const struct json_parser *prompt_json(const struct prompt *prompt);

struct prompt_reader *prompt_reader_new(struct mem *mem); /* NULL: no memory. */
void prompt_reader_free(struct prompt_reader *reader);    /* NULL is fine. */

/* `body` must stay until prompt_release(). *out is valid after PROMPT_OK alone. */
enum prompt_status prompt_read(struct prompt_reader *reader, const char *body, size_t size,
                               struct prompt *out);

/* `model`: what the request's model stands for (aliases resolved), usually prompt->model. */
enum prompt_status prompt_namespace(const struct prompt *prompt, struct span model,
                                    prompt_sink *sink, void *user);

/* PROMPT_OK or PROMPT_NO_MEMORY; after the latter what came out is a prefix of the key. */
enum prompt_status prompt_key(const struct prompt *prompt, prompt_sink *sink, void *user);

/* Forgets the body; memory that only large bodies need is given back. */
void prompt_release(struct prompt_reader *reader);

#endif
