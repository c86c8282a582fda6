/* YAML into a tree, by libyaml's events. */
#include <string.h>
#include <yaml.h>

#include "config/tree.h"

enum reading { READ_ON, READ_DONE, READ_FAILED };

struct yaml_reader {
    struct tree *tree;
    uint32_t open[TREE_DEPTH_MAX]; /* Lists and maps that are not closed. */
    unsigned depth;
    bool has_key; /* The next value is the member `key` of the innermost map. */
    size_t key;
    unsigned document_count;
};

static bool fail_at(struct yaml_reader *reader, const yaml_mark_t *mark, const char *what)
{
    return tree_fail(reader->tree, "line %zu: %s", mark->line + 1, what);
}

/* As YAML's core schema has it. */
static bool is_null(const yaml_event_t *event)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    const char *text = (const char *)event->data.scalar.value;
    if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) {
        return false;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool awaits_key(const struct yaml_reader *reader)
{
    return reader->depth > 0 && !reader->has_key &&
           reader->tree->values[reader->open[reader->depth - 1]].kind == TREE_MAP;
}

static bool add_value(struct yaml_reader *reader, enum tree_kind kind, uint32_t *out)
{
    uint32_t parent = reader->depth > 0 ? reader->open[reader->depth - 1] : 0;
    reader->has_key = false;
    return tree_add(reader->tree, parent, reader->key, kind, out);
}

static bool on_scalar(struct yaml_reader *reader, const yaml_event_t *event)
{
    struct span text = {.data = (const char *)event->data.scalar.value,
                        .size = event->data.scalar.length};
    if (event->data.scalar.tag != NULL) {
        return fail_at(reader, &event->start_mark, "tags (!...) are not read");
    }
    if (awaits_key(reader)) {
        reader->has_key = true;
        return tree_add_text(reader->tree, text, &reader->key);
    }
    uint32_t number = 0;
    size_t at = 0;
    bool none = is_null(event);
    if (!tree_add_text(reader->tree, text, &at) ||
        !add_value(reader, none ? TREE_NULL : TREE_TEXT, &number)) {
        return false;
    }
    reader->tree->values[number].text = at;
    reader->tree->values[number].quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return true;
}

static bool on_open(struct yaml_reader *reader, const yaml_event_t *event, enum tree_kind kind,
                    const yaml_char_t *tag)
{
    if (tag != NULL) {
        return fail_at(reader, &event->start_mark, "tags (!...) are not read");
    }
    if (awaits_key(reader)) {
        return fail_at(reader, &event->start_mark, "a key has to be a text");
    }
    if (reader->depth == TREE_DEPTH_MAX) {
        return fail_at(reader, &event->start_mark, "it is nested too deep");
    }
    uint32_t number = 0;
    if (!add_value(reader, kind, &number)) {
        return false;
    }
    reader->open[reader->depth++] = number;
    return true;
}

static bool on_event(struct yaml_reader *reader, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(reader, event);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(reader, event, TREE_LIST, event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return on_open(reader, event, TREE_MAP, event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        reader->depth--;
        return true;
    case YAML_ALIAS_EVENT:
        return fail_at(reader, &event->start_mark, "aliases (*...) are not read");
    case YAML_DOCUMENT_START_EVENT:
        return reader->document_count++ == 0 ||
               fail_at(reader, &event->start_mark, "a second document begins");
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    default:
        return true;
    }
}

bool tree_read_yaml(struct tree *tree, struct span text)
{
    yaml_parser_t parser;
    struct yaml_reader reader = {.tree = tree};
    if (yaml_parser_initialize(&parser) == 0) {
        return tree_fail(tree, "out of memory");
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.data, text.size);
    enum reading reading = READ_ON;
    while (reading == READ_ON) {
        yaml_event_t event;
        if (yaml_parser_parse(&parser, &event) == 0) {
            (void)tree_fail(tree, "line %zu: it is not YAML: %s", parser.problem_mark.line + 1,
                            parser.problem != NULL ? parser.problem : "out of memory");
            reading = READ_FAILED;
            break;
        }
        if (!on_event(&reader, &event)) {
            reading = READ_FAILED;
        } else if (event.type == YAML_STREAM_END_EVENT) {
            reading = READ_DONE;
        }
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    uint32_t root = 0;
    return reading == READ_DONE &&
           (tree->count > 0 || tree_add(tree, 0, 0, TREE_NULL, &root)); /* An empty file. */
}
