/* What --help and --check-config print, made from the table. */
#include <string.h>

#include "config/legacy.h"

enum { COLUMNS = 80, INDENT = 6, TEXT_BYTES_MAX = 1024, LEGACY_BYTES_MAX = 4096, NAME_COLUMN = 42 };

struct section {
    enum option_id first; /* The section's options: from here to the next section's first. */
    const char *title;
};

static const struct section sections[] = {
    {OPTION_HELP, "General"},
    {OPTION_HOST, "Server"},
    {OPTION_SERVICE_DISCOVERY, "Backends"},
    {OPTION_ROUTING_LOGIC, "Routing"},
    {OPTION_MAX_MEMORY, "Memory"},
    {OPTION_STORE_PATH, "Store"},
};
enum { SECTION_COUNT = sizeof sections / sizeof sections[0] };

static const char intro[] =
    "usage: hashtrie-router --static-backends URL,... --static-models MODEL,...\n"
    "                       [options]\n"
    "\n"
    "Routes requests to LLM engines that speak the OpenAI API, each to the engine\n"
    "that most likely still holds the KV cache of its prompt.\n"
    "\n"
    "Sizes: 512MiB, 8GiB, 64KB or plain bytes. Durations: 20ms, 1s, 5m, 1h. Options\n"
    "may be shortened as long as they stay unambiguous. A flag wins over its\n"
    "variable.\n";

/* Appends words, breaking lines before COLUMNS. */
static bool write_wrapped(struct buf *out, const char *text, size_t size)
{
    size_t column = COLUMNS; /* The first word starts a line. */
    size_t at = 0;
    bool done = true;
    while (at < size && done) {
        const char *space = memchr(text + at, ' ', size - at);
        size_t length = space != NULL ? (size_t)(space - text) - at : size - at;
        if (length > 0 && column + 1 + length > COLUMNS) {
            bool first = at == 0;
            done = (first || buf_append(out, "\n", 1)) && buf_printf(out, "%*s", INDENT, "");
            column = INDENT;
        } else if (length > 0) {
            done = buf_append(out, " ", 1);
            column++;
        }
        done = done && buf_append(out, text + at, length);
        column += length;
        at += length + 1;
    }
    return done && buf_append(out, "\n", 1);
}

/* "Port to listen on. A whole number from 0 to 65535. Default: 8001." */
static bool write_description(const struct option *option, struct buf *out)
{
    bool done = buf_append_text(out, option->help);
    if (option->kind != OPTION_SWITCH && option->kind != OPTION_TEXT &&
        option->kind != OPTION_LIST) {
        size_t start = out->size + 1;
        done = done && buf_append(out, " ", 1) && option_write_range(option, out);
        if (done && out->data[start] >= 'a' && out->data[start] <= 'z') {
            out->data[start] = (char)(out->data[start] - 'a' + 'A');
        }
        done = done && buf_append(out, ".", 1);
    }
    if (option->kind != OPTION_SWITCH) {
        done = done && buf_printf(out, " Default: %s.", option_default(option));
    }
    return done;
}

static bool write_names(const struct option *option, struct buf *out)
{
    if (option->flag == NULL) {
        return buf_printf(out, "  %s (variable only)\n", option->variable);
    }
    bool done = buf_printf(out, "  %s", option->flag);
    if (option_metavar(option) != NULL) {
        done = done && buf_printf(out, " %s", option_metavar(option));
    }
    if (option->variable != NULL) {
        done = done && buf_printf(out, " (or %s)", option->variable);
    }
    return done && buf_append(out, "\n", 1);
}

static bool write_option(const struct option *option, struct buf *out)
{
    struct buf text;
    buf_init(&text, out->mem, TEXT_BYTES_MAX);
    bool done = write_names(option, out) && write_description(option, &text) &&
                write_wrapped(out, text.data, text.size);
    buf_fini(&text);
    return done;
}

/* "--callbacks MODULE.INSTANCE, --enable-batch-api, ..." */
static bool write_legacy(struct buf *out, bool refused)
{
    struct buf text;
    buf_init(&text, out->mem, LEGACY_BYTES_MAX);
    bool done = true;
    for (size_t i = 0; i < legacy_flag_count && done; i++) {
        const struct legacy_flag *flag = &legacy_flags[i];
        if (flag->refused == refused) {
            done = buf_printf(&text, "%s%s%s%s", text.size == 0 ? "" : ", ", flag->flag,
                              flag->metavar != NULL ? " " : "",
                              flag->metavar != NULL ? flag->metavar : "");
        }
    }
    done = done && buf_append(&text, ".", 1) &&
           buf_printf(out, "\nOf the Python router, %s\n",
                      refused ? "refused" : "accepted without effect") &&
           write_wrapped(out, text.data, text.size);
    buf_fini(&text);
    return done;
}

bool config_help(struct buf *out)
{
    bool done = buf_append_text(out, intro);
    size_t section = 0;
    for (size_t i = 0; i < OPTION_ID_COUNT && done; i++) {
        if (section < SECTION_COUNT && sections[section].first == (enum option_id)i) {
            done = buf_printf(out, "\n%s\n", sections[section].title);
            section++;
        }
        done = done && write_option(&options[i], out);
    }
    return done && write_legacy(out, false) && write_legacy(out, true);
}

bool config_describe(const struct config *config, struct buf *out)
{
    static const char *const sources[] = {"default", "environment", "file", "flag"};
    bool done = true;
    for (size_t i = (size_t)OPTION_HOST; i < OPTION_ID_COUNT && done; i++) {
        const struct config_value *value = &config->values[i];
        const char *name = option_name(&options[i]);
        if (value->text == NULL) {
            done = buf_printf(out, "%-*s (not set)\n", NAME_COLUMN, name);
        } else {
            done = buf_printf(out, "%-*s %s  (%s)\n", NAME_COLUMN, name, value->text,
                              sources[value->source]);
        }
    }
    return done;
}
