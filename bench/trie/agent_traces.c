/* Recorded conversations as chat bodies. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/trie/agent.h"
#include "bench/trie/bench.h"
#include "json/json.h"

enum { PATH_BYTES = 4096, LINE_BYTES_MAX = 64 * 1024 * 1024 };

/* One body: the messages' text up to `end`. */
static void add_prefix(struct agent_bodies *bodies, const char *messages, const char *end)
{
    static const char head[] = "{\"model\": \"recorded\", \"messages\": ";
    size_t offset = bodies->bytes.size;
    while (end > messages && end[-1] != '}' && end[-1] != '[') { /* The comma. */
        end--;
    }
    bool ok = buf_append(&bodies->bytes, head, sizeof head - 1) &&
              buf_append(&bodies->bytes, messages, (size_t)(end - messages)) &&
              buf_append_text(&bodies->bytes, "]}");
    bench_check(ok ? HASHTRIE_OK : HASHTRIE_ENOMEM, "recorded conversations");
    agent_bodies_add(bodies, offset);
}

static void add_conversation(struct agent_bodies *bodies, const struct json_parser *json)
{
    struct json_value messages = json_find(json, json_root(json), "messages");
    struct json_cursor cursor = json_first(json, messages);
    struct json_value message;
    while (json_next_element(json, &cursor, &message)) {
        struct json_value key;
        struct json_value value;
        struct json_cursor members = json_first(json, message);
        bool answer = json_is_text(json, json_find(json, message, "role"), "assistant");
        if (answer && json_next_member(json, &members, &key, &value)) {
            const char *end = json_text(json, key).data;
            while (*end != '{') {
                end--;
            }
            add_prefix(bodies, json_member_text(json, messages).data, end);
        }
    }
}

static _Noreturn void fail(const char *path, const char *what)
{
    (void)fprintf(stderr, "bench-trie: %s: %s\n", path, what);
    exit(1);
}

void agent_bodies_load(struct agent_bodies *bodies, const char *dir)
{
    char path[PATH_BYTES];
    int size = snprintf(path, sizeof path, "%s/conversations.jsonl", dir);
    FILE *file = size > 0 && size < PATH_BYTES ? fopen(path, "re") : NULL;
    if (file == NULL) {
        fail(path, strerror(errno));
    }
    struct json_parser *json = json_parser_new(bodies->bytes.mem);
    if (json == NULL) {
        fail(path, "out of memory");
    }
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, file)) > 0) {
        if (length > LINE_BYTES_MAX || json_parse(json, line, (size_t)length) != JSON_OK) {
            fail(path, "a line is no JSON");
        }
        add_conversation(bodies, json);
    }
    free(line);
    json_parser_free(json);
    (void)fclose(file); /* Read only. */
}
