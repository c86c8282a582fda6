/* Recorded conversations. Who said what is kept; when they began and went on is drawn. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hashtrie/chunk.h"

#include "base/random.h"
#include "bench/e2e/replay.h"
#include "bench/sim/traces.h"
#include "json/json.h"

enum { TOKEN_BYTES = 4 };

#define SESSION_GAP_S 10.0 /* Between the starts of two sessions, on average, */
#define ROUND_GAP_S   20.0 /* and between two rounds of one. */

struct reader {
    const char *path;
    struct mem mem;
    struct json_parser *json;
    FILE *file;
    char *line;
    size_t capacity;
    struct buf text; /* Of the message being read. */
    struct random random;
};

static void reader_open(struct reader *reader, const char *path, uint64_t seed)
{
    *reader = (struct reader){.path = path, .random = {sim_mix(seed + 1)}};
    mem_init(&reader->mem, SIZE_MAX);
    buf_init(&reader->text, &reader->mem, SIZE_MAX);
    reader->json = json_parser_new(&reader->mem);
    reader->file = fopen(path, "re");
    if (reader->json == NULL || reader->file == NULL) {
        sim_fail(path, strerror(errno));
    }
}

static void reader_close(struct reader *reader)
{
    (void)fclose(reader->file); /* Read only. */
    json_parser_free(reader->json);
    buf_fini(&reader->text);
    mem_fini(&reader->mem);
    free(reader->line);
}

/* The next document, up to `delimiter`. False: the end. */
static bool read_next(struct reader *reader, int delimiter)
{
    ssize_t size = getdelim(&reader->line, &reader->capacity, delimiter, reader->file);
    if (size > 0 && json_parse(reader->json, reader->line, (size_t)size) != JSON_OK) {
        sim_fail(reader->path, "this is no JSON");
    }
    return size > 0;
}

/* ---- Text ---- */

/* Appends the text of a string; other kinds as they stand in the file. */
static void decode(struct reader *reader, struct json_value value)
{
    struct span text = json_text(reader->json, value);
    if (json_kind(reader->json, value) != JSON_STRING ||
        !buf_reserve(&reader->text, text.size + JSON_DECODE_MIN)) {
        return;
    }
    size_t size = 0;
    do {
        size = json_decode(&text, reader->text.data + reader->text.size,
                           reader->text.capacity - reader->text.size);
        reader->text.size += size;
    } while (size > 0);
}

/* ---- Conversations ---- */

struct names {
    const char *role;
    const char *content;
    const char *answerer;
};

struct session {
    uint32_t number;
    double start_s;
};

static double draw_exponential(struct reader *reader, double mean)
{
    double draw = ((double)(random_next(&reader->random) >> 11) + 0.5) / (double)(1ULL << 53);
    return -log(draw) * mean;
}

/* The message's text into reader->text. */
static void read_message(struct reader *reader, struct json_value message,
                         const struct names *names)
{
    reader->text.size = 0;
    decode(reader, json_find(reader->json, message, names->role));
    (void)buf_append_text(&reader->text, "\n"); /* There is no limit to it. */
    decode(reader, json_find(reader->json, message, names->content));
    struct json_value calls = json_find(reader->json, message, "tool_calls");
    if (json_kind(reader->json, calls) == JSON_ARRAY) {
        struct span text = json_member_text(reader->json, calls);
        (void)buf_append(&reader->text, text.data, text.size);
    }
}

/* Each answer of the assistant is one request whose prompt is everything before it. */
static void add_conversation(struct reader *reader, struct json_value messages,
                             const struct names *names, struct session session,
                             struct sim_workload *out)
{
    struct sim_workload said = {0}; /* One request: the prompt so far. */
    (void)sim_add_request(&said, 0, 1);
    struct json_cursor cursor = json_first(reader->json, messages);
    struct json_value message;
    double at_s = session.start_s;
    while (json_next_element(reader->json, &cursor, &message)) {
        struct json_value role = json_find(reader->json, message, names->role);
        read_message(reader, message, names);
        if (!json_is_text(reader->json, role, names->answerer)) {
            sim_add_text(&said, (struct span){reader->text.data, reader->text.size});
            continue;
        }
        uint32_t tokens = (uint32_t)((reader->text.size + TOKEN_BYTES - 1) / TOKEN_BYTES);
        uint64_t id = hashtrie_hash_namespace(reader->text.data, reader->text.size);
        if (said.piece_count > 0) {
            struct sim_request *request =
                sim_add_request(out, (uint64_t)(at_s * (double)SIM_NS_PER_S), tokens);
            request->session = session.number;
            request->answer = id;
            for (size_t i = 0; i < said.piece_count; i++) {
                sim_add_piece(out, said.pieces[i].id, said.pieces[i].tokens);
            }
            at_s += draw_exponential(reader, ROUND_GAP_S);
        }
        sim_add_piece(&said, id, tokens);
    }
    sim_workload_free(&said);
}

/* Sessions begin at random, in the order of the file. */
static struct session next_session(struct reader *reader, struct session before)
{
    return (struct session){.number = before.number + 1,
                            .start_s = before.start_s + draw_exponential(reader, SESSION_GAP_S)};
}

/* What has been read, at the rate asked for, as long as asked for. */
static void shape(struct sim_workload *out, double rate, double seconds)
{
    double last_ns = (double)(out->requests[out->request_count - 1].arrival_ns + 1);
    double count = (double)out->request_count;
    double factor = rate > 0 ? count / rate * (double)SIM_NS_PER_S / last_ns : 1;
    size_t kept = 0;
    for (size_t i = 0; i < out->request_count; i++) {
        double at_ns = (double)out->requests[i].arrival_ns * factor;
        out->requests[i].arrival_ns = (uint64_t)at_ns;
        kept += seconds <= 0 || at_ns <= seconds * (double)SIM_NS_PER_S ? 1 : 0;
    }
    out->request_count = kept; /* They are in order. */
}

static void read_list(struct reader *reader, struct sim_workload *out)
{
    static const struct names names = {"from", "value", "gpt"};
    struct session session = {0};
    struct json_value one;
    if (!read_next(reader, EOF)) {
        return;
    }
    struct json_cursor cursor = json_first(reader->json, json_root(reader->json));
    while (json_next_element(reader->json, &cursor, &one)) {
        session = next_session(reader, session);
        add_conversation(reader, json_find(reader->json, one, "conversations"), &names, session,
                         out);
    }
}

static void read_lines(struct reader *reader, struct sim_workload *out)
{
    static const struct names names = {"role", "content", "assistant"};
    struct session session = {0};
    while (read_next(reader, '\n')) {
        session = next_session(reader, session);
        add_conversation(reader, json_find(reader->json, json_root(reader->json), "messages"),
                         &names, session, out);
    }
}

void conversations_read(const char *path, uint64_t seed, double rate, double seconds,
                        struct sim_workload *out)
{
    struct reader reader;
    reader_open(&reader, path, seed);
    int first = getc(reader.file);
    (void)ungetc(first, reader.file);
    if (first == '[') {
        read_list(&reader, out);
    } else {
        read_lines(&reader, out);
    }
    reader_close(&reader);
    if (out->request_count == 0) {
        sim_fail(path, "there is no conversation with an answer in it");
    }
    sim_sort(out);
    shape(out, rate, seconds);
}
