/*
 * Flags and variables from any text: lines, of which those with a leading '$' are NAME=value of the
 * environment and the others arguments.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "config/config.h"
#include "fuzz/fuzz.h"

enum { LINES_MAX = 32, MESSAGES_BYTES_MAX = 16 << 20 };

struct lines {
    char *arguments[LINES_MAX + 1];
    int argument_count;
    char *variables[LINES_MAX];
    size_t variable_count;
};

static const char *look_up(void *user, const char *name)
{
    const struct lines *lines = user;
    size_t size = strlen(name);
    for (size_t i = 0; i < lines->variable_count; i++) {
        if (strncmp(lines->variables[i], name, size) == 0 && lines->variables[i][size] == '=') {
            return lines->variables[i] + size + 1;
        }
    }
    return NULL;
}

static void cut_lines(char *text, struct lines *lines)
{
    for (char *line = text; line != NULL;) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end++ = '\0';
        }
        if (line[0] == '$' && lines->variable_count < LINES_MAX) {
            lines->variables[lines->variable_count++] = line + 1;
        } else if (lines->argument_count < LINES_MAX) {
            lines->arguments[lines->argument_count++] = line;
        }
        line = end;
    }
}

static void read_messages(const struct buf *messages)
{
    const char *text = messages->data;
    size_t size = messages->size;
    const char *line = NULL;
    size_t line_size = 0;
    while (config_message_next(&text, &size, &line, &line_size)) {
        REQUIRE(line >= messages->data && line + line_size <= messages->data + messages->size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char program[] = "hashtrie-router";
    struct lines lines = {.arguments = {program}, .argument_count = 1};
    char *text = malloc(size + 1);
    REQUIRE(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    cut_lines(text, &lines);

    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct buf messages;
    struct buf described;
    buf_init(&messages, &mem, MESSAGES_BYTES_MAX);
    buf_init(&described, &mem, MESSAGES_BYTES_MAX);
    struct config config;
    struct config_input input = {.argc = lines.argument_count,
                                 .argv = lines.arguments,
                                 .lookup = look_up,
                                 .user = &lines,
                                 .root = "/nowhere",
                                 .mem = &mem};
    enum config_action action = config_load(&input, &config, &messages);
    read_messages(&messages);
    if (action == CONFIG_RUN || action == CONFIG_CHECK) {
        REQUIRE(config.backend_count <= CONFIG_BACKENDS_MAX);
        REQUIRE(config_describe(&config, &described));
    } else if (action == CONFIG_REFUSED) {
        REQUIRE(messages.size > 0);
    }
    config_fini(&config);
    buf_fini(&messages);
    buf_fini(&described);
    mem_fini(&mem);
    free(text);
    return 0;
}
