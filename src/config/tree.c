#include "config/tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "json/json.h"

enum { VALUES_FIRST = 64, JSON_PIECE_BYTES = 512 };

/* ---- Building ---- */

void tree_init(struct tree *tree, struct mem *mem)
{
    *tree = (struct tree){.mem = mem};
    buf_init(&tree->text, mem, (size_t)2 * TREE_BYTES_MAX);
}

void tree_fini(struct tree *tree)
{
    mem_free(tree->mem, tree->values, tree->capacity * sizeof *tree->values);
    buf_fini(&tree->text);
}

bool tree_fail(struct tree *tree, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(tree->problem, sizeof tree->problem, format, arguments);
    va_end(arguments);
    return false;
}

bool tree_add_text(struct tree *tree, struct span text, size_t *out)
{
    if (text.size > 0 && memchr(text.data, '\0', text.size) != NULL) {
        return tree_fail(tree, "it has a text with a NUL in it");
    }
    *out = tree->text.size;
    if (!buf_reserve(&tree->text, text.size + 1) ||
        !buf_append(&tree->text, text.data, text.size) || !buf_append(&tree->text, "", 1)) {
        return tree_fail(tree, "its texts are too long, or memory is out");
    }
    return true;
}

static bool grow(struct tree *tree)
{
    if (tree->count < tree->capacity) {
        return true;
    }
    size_t capacity = tree->capacity == 0 ? VALUES_FIRST : tree->capacity * 2;
    if (tree->count == TREE_VALUES_MAX) {
        return tree_fail(tree, "it has more than %d values", TREE_VALUES_MAX);
    }
    struct tree_value *values =
        mem_realloc(tree->mem, tree->values, tree->capacity * sizeof *tree->values,
                    capacity * sizeof *tree->values);
    if (values == NULL) {
        return tree_fail(tree, "out of memory");
    }
    tree->values = values;
    tree->capacity = capacity;
    return true;
}

/* Quadratic, which the limit of a map's members bounds: some 10 ms. */
static bool is_new_key(const struct tree *tree, const struct tree_value *map, size_t key)
{
    const char *text = tree->text.data + key;
    for (uint32_t at = map->first; at != 0; at = tree->values[at].next) {
        if (strcmp(tree_key(tree, at), text) == 0) {
            return false;
        }
    }
    return true;
}

bool tree_add(struct tree *tree, uint32_t parent, size_t key, enum tree_kind kind, uint32_t *out)
{
    if (!grow(tree)) {
        return false;
    }
    uint32_t number = (uint32_t)tree->count++;
    tree->values[number] = (struct tree_value){.kind = kind, .key = key};
    *out = number;
    if (number == 0) {
        return true;
    }
    struct tree_value *in = &tree->values[parent];
    CHECK(in->kind == TREE_LIST || in->kind == TREE_MAP);
    if (in->kind == TREE_MAP && in->count++ == TREE_MEMBERS_MAX) {
        return tree_fail(tree, "a map has more than %d members", TREE_MEMBERS_MAX);
    }
    if (in->kind == TREE_MAP && !is_new_key(tree, in, key)) {
        return tree_fail(tree, "\"%.100s\" is there twice", tree->text.data + key);
    }
    if (in->last == 0) {
        in->first = number;
    } else {
        tree->values[in->last].next = number;
    }
    in->last = number;
    return true;
}

/* ---- JSON ---- */

struct json_reader {
    struct tree *tree;
    const struct json_parser *parser;
};

static bool add_json_string(const struct json_reader *reader, struct json_value value, size_t *out)
{
    struct tree *tree = reader->tree;
    struct span text = json_text(reader->parser, value);
    struct buf decoded;
    buf_init(&decoded, tree->mem, TREE_BYTES_MAX);
    bool fits = true;
    char piece[JSON_PIECE_BYTES];
    while (fits && text.size > 0) {
        fits = buf_append(&decoded, piece, json_decode(&text, piece, sizeof piece));
    }
    bool added = fits ? tree_add_text(tree, (struct span){decoded.data, decoded.size}, out)
                      : tree_fail(tree, "out of memory");
    buf_fini(&decoded);
    return added;
}

static enum tree_kind kind_of_json(enum json_kind kind)
{
    switch (kind) {
    case JSON_OBJECT:
        return TREE_MAP;
    case JSON_ARRAY:
        return TREE_LIST;
    case JSON_NULL:
    case JSON_ABSENT:
        return TREE_NULL;
    case JSON_STRING:
    case JSON_NUMBER:
    case JSON_TRUE:
    case JSON_FALSE:
    default:
        return TREE_TEXT;
    }
}

/* One value without what is in it. */
static bool add_json(const struct json_reader *reader, uint32_t parent, size_t key,
                     struct json_value value, uint32_t *out)
{
    struct tree *tree = reader->tree;
    enum json_kind kind = json_kind(reader->parser, value);
    if (!tree_add(tree, parent, key, kind_of_json(kind), out)) {
        return false;
    }
    struct tree_value *added = &tree->values[*out];
    if (kind == JSON_STRING) {
        added->quoted = true;
        return add_json_string(reader, value, &added->text);
    }
    return added->kind != TREE_TEXT ||
           tree_add_text(tree, json_text(reader->parser, value), &added->text);
}

struct json_level {
    struct json_cursor cursor;
    uint32_t number;
};

/* Depth by depth, with a stack of its own. */
static bool add_all_json(const struct json_reader *reader, struct json_value root)
{
    struct tree *tree = reader->tree;
    struct json_level levels[TREE_DEPTH_MAX];
    unsigned depth = 1;
    levels[0].cursor = json_first(reader->parser, root);
    if (!add_json(reader, 0, 0, root, &levels[0].number)) {
        return false;
    }
    while (depth > 0) {
        struct json_level *level = &levels[depth - 1];
        struct json_value name = json_absent();
        struct json_value value = json_absent();
        size_t key = 0;
        bool member = json_next_member(reader->parser, &level->cursor, &name, &value);
        if (!member && !json_next_element(reader->parser, &level->cursor, &value)) {
            depth--;
            continue;
        }
        uint32_t number = 0;
        if ((member && !add_json_string(reader, name, &key)) ||
            !add_json(reader, level->number, key, value, &number)) {
            return false;
        }
        enum tree_kind kind = tree->values[number].kind;
        if (kind != TREE_LIST && kind != TREE_MAP) {
            continue;
        }
        if (depth == TREE_DEPTH_MAX) {
            return tree_fail(tree, "it is nested more than %d deep", TREE_DEPTH_MAX);
        }
        levels[depth++] =
            (struct json_level){.cursor = json_first(reader->parser, value), .number = number};
    }
    return true;
}

bool tree_read_json(struct tree *tree, struct span text)
{
    struct json_parser *parser = json_parser_new(tree->mem);
    bool read = false;
    enum json_status status =
        parser == NULL ? JSON_NO_MEMORY : json_parse(parser, text.data, text.size);
    if (status == JSON_OK) {
        struct json_reader reader = {.tree = tree, .parser = parser};
        read = add_all_json(&reader, json_root(parser));
    } else {
        (void)tree_fail(tree, status == JSON_NO_MEMORY  ? "out of memory"
                              : status == JSON_TOO_DEEP ? "it is nested too deep"
                                                        : "it is not JSON");
    }
    json_parser_free(parser);
    return read;
}
