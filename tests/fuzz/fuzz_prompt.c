/*
 * The prompt key from any body. What comes out is the same when it is asked for again, when it is
 * hashed in the pieces it comes in, and when the body is written anew with other white space and
 * other escapes.
 */
#include <stdlib.h>
#include <string.h>

#include "hashtrie/chunk.h"

#include "base/buf.h"
#include "base/check.h"
#include "fuzz/fuzz.h"
#include "json/json.h"
#include "prompt/prompt.h"

enum { KEY_BYTES_MAX = 64 << 20, HASHES_MAX = 1 << 12, CHUNK_SIZE = 64, DECODE_BYTES = 64 };

static void append(void *user, const void *bytes, size_t size)
{
    REQUIRE(size > 0 && buf_append(user, bytes, size));
}

static void hash(void *user, const void *bytes, size_t size)
{
    hashtrie_hasher_update(user, bytes, size);
}

/* Namespace, then key. False: the body was refused. */
static bool read_key(struct mem *mem, const char *body, size_t size, struct buf *out)
{
    struct prompt_reader *reader = prompt_reader_new(mem);
    REQUIRE(reader != NULL);
    struct prompt prompt;
    bool fine = prompt_read(reader, body, size, &prompt) == PROMPT_OK;
    if (fine) {
        for (size_t i = 0; i < prompt.model_place_count; i++) {
            const struct prompt_place *place = &prompt.model_places[i];
            REQUIRE(place->offset <= size && place->size <= size - place->offset);
            REQUIRE(i == 0 || place->offset > prompt.model_places[i - 1].offset);
        }
        REQUIRE(prompt_namespace(&prompt, prompt.model, append, out) == PROMPT_OK);
        size_t key_from = out->size;
        REQUIRE(prompt_key(&prompt, append, out) == PROMPT_OK);
        REQUIRE(prompt.has_prompt || out->size == key_from);

        static uint64_t whole[HASHES_MAX];
        static uint64_t pieces[HASHES_MAX];
        struct hashtrie_hasher hasher;
        hashtrie_hasher_init(&hasher, 1, CHUNK_SIZE, pieces, HASHES_MAX);
        REQUIRE(prompt_key(&prompt, hash, &hasher) == PROMPT_OK);
        size_t key_size = out->size - key_from;
        size_t count = key_size == 0 ? 0
                                     : hashtrie_hash_chunks(1, out->data + key_from, key_size,
                                                            CHUNK_SIZE, whole, HASHES_MAX);
        REQUIRE(hasher.bytes == key_size && hasher.count == count);
        REQUIRE(memcmp(whole, pieces, count * sizeof *whole) == 0);
    }
    prompt_release(reader);
    prompt_reader_free(reader);
    return fine;
}

/* ---- The same body, written anew ---- */

static void rewrite_string(const struct json_parser *parser, struct json_value value,
                           struct buf *out)
{
    struct span text = json_text(parser, value);
    struct buf decoded;
    buf_init(&decoded, out->mem, KEY_BYTES_MAX);
    char piece[DECODE_BYTES];
    for (size_t size; (size = json_decode(&text, piece, sizeof piece)) > 0;) {
        REQUIRE(buf_append(&decoded, piece, size));
    }
    REQUIRE(buf_append(out, "\"", 1));
    for (size_t i = 0; i < decoded.size; i++) {
        unsigned char byte = (unsigned char)decoded.data[i];
        bool escape = byte < 0x80 && (byte < ' ' || byte == '"' || byte == '\\' || byte % 4 == 0);
        REQUIRE(escape ? buf_printf(out, "\\u%04x", byte) : buf_append(out, &decoded.data[i], 1));
    }
    REQUIRE(buf_append(out, "\"", 1));
    buf_fini(&decoded);
}

struct open_container {
    struct json_cursor cursor;
    bool object;
    bool begun;
};

/* Without recursion: `open` is the stack. Writes a scalar, or opens a container. */
static size_t rewrite_value(const struct json_parser *parser, struct json_value value,
                            struct buf *out, struct open_container *open, size_t depth)
{
    enum json_kind kind = json_kind(parser, value);
    if (kind == JSON_OBJECT || kind == JSON_ARRAY) {
        REQUIRE(depth < JSON_DEPTH_MAX);
        open[depth] = (struct open_container){.cursor = json_first(parser, value),
                                              .object = kind == JSON_OBJECT};
        REQUIRE(buf_append_text(out, kind == JSON_OBJECT ? " {" : "\n["));
        return depth + 1;
    }
    if (kind == JSON_STRING) {
        rewrite_string(parser, value, out);
    } else {
        struct span text = json_text(parser, value);
        REQUIRE(buf_append(out, text.data, text.size) && buf_append(out, "\t", 1));
    }
    return depth;
}

static void rewrite(const struct json_parser *parser, struct buf *out)
{
    static struct open_container open[JSON_DEPTH_MAX];
    size_t depth = rewrite_value(parser, json_root(parser), out, open, 0);
    while (depth > 0) {
        struct open_container *top = &open[depth - 1];
        struct json_value key = json_absent();
        struct json_value value;
        bool more = top->object ? json_next_member(parser, &top->cursor, &key, &value)
                                : json_next_element(parser, &top->cursor, &value);
        if (!more) {
            REQUIRE(buf_append_text(out, top->object ? "} " : "]\r"));
            depth--;
            continue;
        }
        REQUIRE(!top->begun || buf_append_text(out, " ,"));
        top->begun = true;
        if (top->object) {
            rewrite_string(parser, key, out);
            REQUIRE(buf_append_text(out, " : "));
        }
        depth = rewrite_value(parser, value, out, open, depth);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    char *body = malloc(size + (size == 0)); /* No byte to spare. */
    REQUIRE(body != NULL);
    memcpy(body, data, size);
    struct buf first;
    struct buf second;
    struct buf anew;
    buf_init(&first, &mem, KEY_BYTES_MAX);
    buf_init(&second, &mem, KEY_BYTES_MAX);
    buf_init(&anew, &mem, KEY_BYTES_MAX);
    bool fine = read_key(&mem, body, size, &first);
    struct json_parser *parser = json_parser_new(&mem);
    REQUIRE(parser != NULL);
    bool valid = json_parse(parser, body, size) == JSON_OK;
    REQUIRE(valid || !fine);
    if (valid) {
        rewrite(parser, &anew);
        REQUIRE(read_key(&mem, anew.data, anew.size, &second) == fine);
        REQUIRE(first.size == second.size);
        REQUIRE(first.size == 0 || memcmp(first.data, second.data, first.size) == 0);
    }
    json_parser_free(parser);
    buf_fini(&first);
    buf_fini(&second);
    buf_fini(&anew);
    free(body);
    mem_fini(&mem);
    return 0;
}
