#include "bench/sim/traces.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hashtrie/chunk.h"

#include "base/check.h"
#include "base/random.h"
#include "json/json.h"

enum {
    PATH_BYTES = 4096,
    LINE_BYTES_MAX = 64 << 20,
    BLOCKS_MAX = 1 << 16,
    TEXT_PIECE_BYTES = 64,
    TOKEN_BYTES = 4,
};

/* ---- Lines of JSON ---- */

struct reader {
    const char *name;
    FILE *file;
    struct mem mem;
    struct json_parser *json;
    char *line;
    size_t capacity;
};

static void open_reader(struct reader *reader, const struct sim_generate *how, const char *name)
{
    char path[PATH_BYTES];
    int size = snprintf(path, sizeof path, "%s/%s", how->traces_dir, name);
    *reader = (struct reader){.name = name};
    reader->file = size > 0 && size < PATH_BYTES ? fopen(path, "re") : NULL;
    if (reader->file == NULL) {
        sim_fail(path, strerror(errno));
    }
    mem_init(&reader->mem, SIZE_MAX);
    reader->json = json_parser_new(&reader->mem);
    if (reader->json == NULL) {
        sim_fail(path, "out of memory");
    }
}

static bool next_line(struct reader *reader)
{
    ssize_t length = getline(&reader->line, &reader->capacity, reader->file);
    if (length <= 0) {
        return false;
    }
    if (length > LINE_BYTES_MAX ||
        json_parse(reader->json, reader->line, (size_t)length) != JSON_OK) {
        sim_fail(reader->name, "a line is no JSON");
    }
    return true;
}

static void close_reader(struct reader *reader)
{
    free(reader->line);
    json_parser_free(reader->json);
    mem_fini(&reader->mem);
    (void)fclose(reader->file); /* Read only. */
}

static struct json_value member(const struct reader *reader, const char *name)
{
    return json_find(reader->json, json_root(reader->json), name);
}

static int64_t number(const struct reader *reader, const char *name, int64_t least, int64_t most)
{
    int64_t value = 0;
    struct json_value found = member(reader, name);
    if (json_kind(reader->json, found) != JSON_NUMBER ||
        !json_read_int(reader->json, found, &value) || value < least || value > most) {
        sim_fail(reader->name, "a line has a number that is missing or out of range");
    }
    return value;
}

/* ---- Mooncake ---- */

void sim_mooncake(struct sim_workload *workload, const struct sim_generate *how)
{
    struct reader reader;
    int64_t *ids = sim_alloc(BLOCKS_MAX, sizeof *ids);
    open_reader(&reader, how, "mooncake_conversation.jsonl");
    while (next_line(&reader)) {
        int64_t at_ms = number(&reader, "timestamp", 0, INT32_MAX);
        int64_t input =
            number(&reader, "input_length", 1, (int64_t)BLOCKS_MAX * SIM_TRACE_BLOCK_TOKENS);
        int64_t output = number(&reader, "output_length", 1, INT32_MAX);
        if ((double)at_ms > how->seconds * 1000) {
            break;
        }
        struct json_cursor cursor = json_first(reader.json, member(&reader, "hash_ids"));
        size_t count = json_next_ints(reader.json, &cursor, ids, BLOCKS_MAX);
        if (count != (size_t)(input + SIM_TRACE_BLOCK_TOKENS - 1) / SIM_TRACE_BLOCK_TOKENS) {
            sim_fail(reader.name, "a line has not one id per 512 tokens");
        }
        (void)sim_add_request(workload, (uint64_t)((double)at_ms * 1e6 / how->rate),
                              (uint32_t)output);
        for (size_t i = 0; i < count; i++) {
            int64_t rest = input - (int64_t)i * SIM_TRACE_BLOCK_TOKENS;
            uint32_t tokens =
                rest < SIM_TRACE_BLOCK_TOKENS ? (uint32_t)rest : SIM_TRACE_BLOCK_TOKENS;
            sim_add_piece(workload, (uint64_t)ids[i] + 1, tokens);
        }
    }
    close_reader(&reader);
    free(ids);
    sim_sort(workload);
}

/* ---- Text ---- */

void sim_add_text(struct sim_workload *workload, struct span text)
{
    for (size_t at = 0; at < text.size; at += TEXT_PIECE_BYTES) {
        size_t rest = text.size - at;
        size_t size = rest < TEXT_PIECE_BYTES ? rest : TEXT_PIECE_BYTES;
        sim_add_piece(workload, hashtrie_hash_namespace(text.data + at, size),
                      (uint32_t)((size + TOKEN_BYTES - 1) / TOKEN_BYTES));
    }
}

static uint32_t tokens_of(struct span text)
{
    return (uint32_t)(text.size / TOKEN_BYTES) + 1;
}

void sim_magagent(struct sim_workload *workload, const struct sim_generate *how)
{
    struct reader reader;
    int64_t first_us = INT64_MAX;
    int64_t last_us = 0;
    open_reader(&reader, how, "agents_magagent.jsonl");
    while (next_line(&reader)) {
        int64_t at_us = number(&reader, "timestamp", 1, INT64_MAX / 1000);
        struct span input = json_text(reader.json, member(&reader, "input"));
        struct span output = json_text(reader.json, member(&reader, "output"));
        if (input.size == 0) {
            continue; /* Two calls are without. */
        }
        first_us = at_us < first_us ? at_us : first_us;
        last_us = at_us > last_us ? at_us : last_us;
        struct sim_request *request =
            sim_add_request(workload, (uint64_t)at_us * 1000, tokens_of(output));
        struct span session = json_text(reader.json, member(&reader, "session_id"));
        request->session = (uint32_t)hashtrie_hash_namespace(session.data, session.size);
        sim_add_text(workload, input);
    }
    close_reader(&reader);
    double span_s = (double)(last_us - first_us) / 1e6;
    double faster = span_s * how->rate / (double)workload->request_count;
    for (size_t i = 0; i < workload->request_count; i++) {
        struct sim_request *request = &workload->requests[i];
        request->arrival_ns =
            (uint64_t)((double)(request->arrival_ns - (uint64_t)first_us * 1000) / faster);
    }
    sim_sort(workload);
}

/* ---- Conversations ---- */

/* One request per answer of the assistant; its prompt is the text of `messages` before it. */
static void add_conversation(struct sim_workload *workload, const struct reader *reader,
                             double at_s, uint32_t session, struct random *random)
{
    const struct json_parser *json = reader->json;
    struct json_value messages = member(reader, "messages");
    struct json_cursor cursor = json_first(json, messages);
    const char *begin = json_member_text(json, messages).data;
    struct json_value message;
    while (json_next_element(json, &cursor, &message)) {
        struct json_value key;
        struct json_value value;
        struct json_cursor members = json_first(json, message);
        if (!json_is_text(json, json_find(json, message, "role"), "assistant") ||
            !json_next_member(json, &members, &key, &value)) {
            continue;
        }
        const char *end = json_text(json, key).data;
        while (*end != '{') {
            end--;
        }
        struct json_value content = json_find(json, message, "content");
        uint32_t output = json_kind(json, content) == JSON_STRING
                              ? tokens_of(json_text(json, content))
                              : 32; /* It calls a tool. */
        struct sim_request *request = sim_add_request(workload, (uint64_t)(at_s * 1e9), output);
        request->session = session;
        sim_add_text(workload, (struct span){.data = begin, .size = (size_t)(end - begin)});
        at_s += 1 + 0.012 * output + (double)random_below(random, 4000) / 1000;
    }
}

void sim_airline(struct sim_workload *workload, const struct sim_generate *how)
{
    struct reader reader;
    struct random random = {.state = how->seed};
    double at_s = 0;
    uint32_t session = 0;
    open_reader(&reader, how, "conversations.jsonl");
    while (next_line(&reader)) {
        if (json_is_text(reader.json, member(&reader, "src"), "tau-airline")) {
            add_conversation(workload, &reader, at_s, session++, &random);
            at_s -= log(((double)random_below(&random, 1000000) + 0.5) / 1e6) / how->rate;
        }
    }
    close_reader(&reader);
    sim_sort(workload);
}
