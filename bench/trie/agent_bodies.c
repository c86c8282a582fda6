/*
 * Chat bodies as coding agents send them: a system prompt, tools with their schemas, and a long
 * history of calls (arguments are JSON inside a JSON string) and their results (source code, logs).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "bench/trie/agent.h"
#include "bench/trie/bench.h"

enum {
    CONVERSATIONS = 32,
    TURNS = 5, /* Bodies of each. */
    BODY_MIN = 100 * 1000,
    BODY_MEDIAN = 400 * 1000,
    BODY_MAX = 3500 * 1000,
    TOOLS = 18,
    RESULT_MEDIAN = 4000,
    RESULT_MAX = 60 * 1000,
};

struct author {
    struct buf *out;    /* The JSON. */
    struct buf text;    /* A string before it is written as JSON. */
    struct buf history; /* The messages so far, as JSON. */
    struct random random;
    bool ascii;
    unsigned calls; /* Numbers the tool calls. */
};

void agent_bodies_init(struct agent_bodies *bodies, struct mem *mem)
{
    buf_init(&bodies->bytes, mem, SIZE_MAX / 2);
    bodies->list = NULL;
    bodies->count = 0;
}

void agent_bodies_fini(struct agent_bodies *bodies)
{
    buf_fini(&bodies->bytes);
    bench_free(bodies->list);
}

void agent_bodies_add(struct agent_bodies *bodies, size_t offset)
{
    static const char padding[AGENT_PADDING];
    if ((bodies->count & (bodies->count - 1)) == 0) {
        size_t capacity = bodies->count == 0 ? 1 : 2 * bodies->count;
        struct agent_body *list = bench_alloc(capacity * sizeof *list);
        if (bodies->count > 0) {
            memcpy(list, bodies->list, bodies->count * sizeof *list);
        }
        bench_free(bodies->list);
        bodies->list = list;
    }
    bodies->list[bodies->count++] =
        (struct agent_body){.offset = offset, .size = bodies->bytes.size - offset};
    CHECK(buf_append(&bodies->bytes, padding, sizeof padding));
}

/* ---- Text ---- */

static void put(struct buf *out, const char *text)
{
    CHECK(buf_append_text(out, text));
}

static const char *pick(struct author *author, const char *const *list, size_t count)
{
    return list[random_below(&author->random, (uint32_t)count)];
}

#define PICK(author, list) pick(author, list, sizeof(list) / sizeof *(list))

static bool chance(struct author *author, uint32_t percent)
{
    return random_below(&author->random, 100) < percent;
}

static void put_word(struct author *author)
{
    static const char *const words[] = {
        "the",     "request", "file",    "returns",  "when",    "handler", "is",      "not",
        "value",   "of",      "a",       "test",     "fails",   "because", "index",   "should",
        "we",      "need",    "to",      "update",   "config",  "before",  "running", "it",
        "parser",  "cache",   "default", "timeout",  "in",      "this",    "case",    "and",
        "session", "module",  "error",   "function", "already", "called",  "with",    "an",
    };
    static const char *const foreign[] = {
        "caf\xc3\xa9",      "\xe2\x80\x94",
        "na\xc3\xafve",     "\xe2\x9c\x85",
        "gro\xc3\x9f",      "\xe6\x96\x87\xe4\xbb\xb6\xe4\xb8\x8d\xe5\xad\x98\xe5\x9c\xa8",
        "\xf0\x9f\x9a\x80",
    };
    put(&author->text, chance(author, 2) ? PICK(author, foreign) : PICK(author, words));
}

static void put_prose(struct author *author, size_t size)
{
    size_t end = author->text.size + size;
    while (author->text.size < end) {
        put_word(author);
        put(&author->text, chance(author, 90)   ? " "
                           : chance(author, 50) ? ", "
                           : chance(author, 70) ? ". "
                                                : ".\n\n");
        if (chance(author, 2)) {
            put(&author->text, chance(author, 50) ? "`src/app.py` " : "\"as is\" ");
        }
    }
}

static void put_name(struct author *author)
{
    static const char *const names[] = {
        "self", "request", "result", "items", "config", "index",  "path",   "node",  "buffer",
        "size", "token",   "parent", "cache", "count",  "client", "status", "state", "session",
    };
    put(&author->text, PICK(author, names));
    if (chance(author, 30)) {
        put(&author->text, "_");
        put(&author->text, PICK(author, names));
    }
}

static void put_code_line(struct author *author, bool tabs)
{
    static const char *const operators[] = {" = ", " == ", " + ", ".", ", ", "(", "[", " in "};
    static const char *const starts[] = {"", "", "", "if ", "return ", "for ", "const ", "def "};
    static const char *const ends[] = {"", ":", ";", ")", "):", ");", " {", "]"};
    for (uint32_t depth = random_below(&author->random, 4); depth > 0; depth--) {
        put(&author->text, tabs ? "\t" : "    ");
    }
    put(&author->text, PICK(author, starts));
    put_name(author);
    for (uint32_t more = 1 + random_below(&author->random, 5); more > 0; more--) {
        put(&author->text, PICK(author, operators));
        if (chance(author, 15)) {
            put(&author->text, "\"");
            put_name(author);
            put(&author->text, chance(author, 20) ? "\\n\"" : "\"");
        } else {
            put_name(author);
        }
    }
    put(&author->text, PICK(author, ends));
    if (chance(author, 8)) {
        put(&author->text, tabs ? " // " : "  # ");
        put_prose(author, 30);
    }
    put(&author->text, "\n");
}

static void put_code(struct author *author, size_t size)
{
    bool tabs = chance(author, 30);
    size_t end = author->text.size + size;
    while (author->text.size < end) {
        put_code_line(author, tabs);
        put(&author->text, chance(author, 12) ? "\n" : "");
    }
}

static void put_log(struct author *author, size_t size)
{
    static const char *const levels[] = {"INFO", "DEBUG", "WARNING", "ERROR"};
    size_t end = author->text.size + size;
    while (author->text.size < end) {
        CHECK(buf_printf(&author->text, "2026-03-%02u %02u:%02u:%02u,%03u %s ",
                         1 + random_below(&author->random, 28), random_below(&author->random, 24),
                         random_below(&author->random, 60), random_below(&author->random, 60),
                         random_below(&author->random, 1000), PICK(author, levels)));
        put_name(author);
        CHECK(buf_printf(&author->text, ".py:%u: ", random_below(&author->random, 900)));
        put_prose(author, 20 + random_below(&author->random, 60));
        if (chance(author, 15)) {
            CHECK(buf_printf(&author->text, "{\"id\": %u, \"ok\": true, \"name\": \"",
                             random_below(&author->random, 100000)));
            put_name(author);
            put(&author->text, "\"}");
        }
        put(&author->text, "\n");
    }
}

/* ---- JSON ---- */

static size_t utf8_read(const unsigned char *at, uint32_t *code)
{
    if (*at < 0xe0) {
        *code = (uint32_t)(at[0] & 0x1f) << 6 | (at[1] & 0x3f);
        return 2;
    }
    if (*at < 0xf0) {
        *code = (uint32_t)(at[0] & 0x0f) << 12 | (uint32_t)(at[1] & 0x3f) << 6 | (at[2] & 0x3f);
        return 3;
    }
    *code = (uint32_t)(at[0] & 0x07) << 18 | (uint32_t)(at[1] & 0x3f) << 12 |
            (uint32_t)(at[2] & 0x3f) << 6 | (at[3] & 0x3f);
    return 4;
}

/* One character that is not ASCII; returns its bytes. */
static size_t put_beyond_ascii(struct buf *out, const unsigned char *at, bool ascii)
{
    uint32_t code = 0;
    size_t length = utf8_read(at, &code);
    if (!ascii) {
        CHECK(buf_append(out, at, length));
    } else if (code < 0x10000) {
        CHECK(buf_printf(out, "\\u%04x", code));
    } else {
        code -= 0x10000;
        CHECK(buf_printf(out, "\\u%04x\\u%04x", 0xd800 + (code >> 10), 0xdc00 + (code & 0x3ff)));
    }
    return length;
}

/* The text as a JSON string. It has no control characters but these. */
static void put_string(struct buf *out, const struct buf *text, bool ascii)
{
    put(out, "\"");
    const unsigned char *at = (const unsigned char *)text->data;
    const unsigned char *end = at + text->size;
    while (at < end) {
        if (*at >= 0x80) {
            at += put_beyond_ascii(out, at, ascii);
            continue;
        }
        bool special = *at == '"' || *at == '\\';
        const char *escape = *at == '\n' ? "\\n" : *at == '\t' ? "\\t" : special ? "\\" : "";
        put(out, escape);
        CHECK(*at < ' ' || buf_append(out, at, 1));
        at++;
    }
    put(out, "\"");
}

/* JSON with `'` for quotes; in the author's style. */
static void put_json(struct author *author, const char *json)
{
    for (; *json != '\0'; json++) {
        CHECK(buf_append(author->out, *json == '\'' ? "\"" : json, 1));
        put(author->out, author->ascii && (*json == ':' || *json == ',') ? " " : "");
    }
}

static void put_text(struct author *author)
{
    put_string(author->out, &author->text, author->ascii);
    author->text.size = 0;
}

static void put_call_id(struct author *author)
{
    CHECK(buf_printf(author->out, "\"call_%08x%08x\"", author->calls * 2654435761U,
                     author->calls ^ 0x5bd1e995U));
}

static void put_property(struct author *author, bool last)
{
    static const char *const types[] = {"string", "string", "integer", "boolean"};
    put_name(author);
    put_text(author);
    put_json(author, ":{'type':'");
    put(author->out, PICK(author, types));
    put_json(author, "','description':");
    put_prose(author, 20 + random_below(&author->random, 120));
    put_text(author);
    if (chance(author, 20)) {
        put_json(author, ",'enum':['auto','content','files_with_matches','count']");
    }
    if (chance(author, 15)) {
        put_json(author, ",'minimum':0,'maximum':1000,'default':100");
    }
    put_json(author, last ? "}" : "},");
}

static void put_tools(struct author *author)
{
    put_json(author, "'tools':[");
    for (unsigned tool = 0; tool < TOOLS; tool++) {
        put_json(author, tool > 0 ? ",{'type':'function','function':{'name':"
                                  : "{'type':'function','function':{'name':");
        put_name(author);
        put_text(author);
        put_json(author, ",'description':");
        put_prose(author, 200 + random_below(&author->random, 1500));
        put_text(author);
        put_json(author, ",'parameters':{'type':'object','properties':{");
        for (uint32_t more = 1 + random_below(&author->random, 7); more > 0; more--) {
            put_property(author, more == 1);
        }
        put_json(author, "},'required':['path','command'],'additionalProperties':false},"
                         "'strict':false}}");
    }
    put_json(author, "]");
}

/* ---- Messages ---- */

/* exp() of a normal variate times `median`. */
static size_t log_normal(struct author *author, size_t median, double sigma, size_t least,
                         size_t most)
{
    double normal = -6;
    for (int i = 0; i < 12; i++) {
        normal += (double)random_below(&author->random, 1U << 30) / (1U << 30);
    }
    double value = (double)median * exp(sigma * normal);
    return value < (double)least ? least : value > (double)most ? most : (size_t)value;
}

static void put_user(struct author *author)
{
    bool parts = chance(author, 40);
    put_json(author, parts ? ",{'role':'user','content':[{'type':'text','text':"
                           : ",{'role':'user','content':");
    put_prose(author, log_normal(author, 400, 1.0, 20, 20000));
    put_text(author);
    put_json(author, parts ? ",'cache_control':{'type':'ephemeral'}}]}" : "}");
}

/* An edit: its arguments are JSON of their own, written compactly and then escaped once more. */
static void put_call(struct author *author)
{
    struct buf arguments;
    buf_init(&arguments, author->text.mem, SIZE_MAX / 2);
    put(&arguments, "{\"path\":\"src/module/file.py\",\"old_text\":");
    put_code(author, log_normal(author, 300, 1.0, 20, 8000));
    put_string(&arguments, &author->text, author->ascii);
    author->text.size = 0;
    put(&arguments, ",\"new_text\":");
    put_code(author, log_normal(author, 400, 1.0, 20, 8000));
    put_string(&arguments, &author->text, author->ascii);
    author->text.size = 0;
    put(&arguments, "}");
    put_json(author, ",{'role':'assistant','content':");
    put_prose(author, log_normal(author, 120, 1.0, 10, 4000));
    put_text(author);
    put_json(author, ",'tool_calls':[{'id':");
    put_call_id(author);
    put_json(author, ",'type':'function','function':{'name':'edit_file','arguments':");
    put_string(author->out, &arguments, author->ascii);
    put_json(author, "}}]}");
    buf_fini(&arguments);
}

static void put_result(struct author *author)
{
    bool parts = chance(author, 15);
    put_json(author, ",{'role':'tool','tool_call_id':");
    put_call_id(author);
    put_json(author, parts ? ",'content':[{'type':'text','text':" : ",'content':");
    size_t size = log_normal(author, RESULT_MEDIAN, 1.2, 20, RESULT_MAX);
    (chance(author, 65) ? put_code : put_log)(author, size);
    put_text(author);
    put_json(author, parts ? "}]}" : "}");
    author->calls++;
}

/* The next messages, up to where an assistant is to answer. */
static void put_turn(struct author *author)
{
    if (chance(author, 8)) {
        put_user(author);
    }
    put_call(author);
    put_result(author);
}

static void put_head(struct author *author)
{
    put_json(author, "{'model':'coder-large','stream':true,'temperature':0.2,'max_tokens':8192,");
    put_tools(author);
    put_json(author, ",'messages':[{'role':'system','content':");
    put_prose(author, 8000 + random_below(&author->random, 8000));
    put_text(author);
    put_json(author, "}");
    put_user(author);
}

static void generate_conversation(struct author *author, struct agent_bodies *bodies)
{
    size_t size = log_normal(author, BODY_MEDIAN, 0.9, BODY_MIN, BODY_MAX);
    author->history.size = 0;
    author->out = &author->history;
    put_head(author);
    while (author->history.size < size) {
        put_turn(author);
    }
    for (unsigned turn = 0; turn < TURNS; turn++) {
        size_t offset = bodies->bytes.size;
        CHECK(buf_append(&bodies->bytes, author->history.data, author->history.size));
        put(&bodies->bytes, "]}");
        agent_bodies_add(bodies, offset);
        put_turn(author);
    }
}

void agent_bodies_generate(struct agent_bodies *bodies, uint64_t seed, enum agent_style style)
{
    struct author author = {.random = {.state = seed}, .ascii = style == AGENT_ASCII};
    buf_init(&author.text, bodies->bytes.mem, SIZE_MAX / 2);
    buf_init(&author.history, bodies->bytes.mem, SIZE_MAX / 2);
    for (unsigned i = 0; i < CONVERSATIONS; i++) {
        generate_conversation(&author, bodies);
    }
    buf_fini(&author.history);
    buf_fini(&author.text);
}
