/*
 * A configuration file as a tree: maps, lists, texts. The same tree comes out of YAML and of JSON.
 * Files are hostile: their size, depth and number of values are limited; YAML's aliases, by which
 * a few bytes can stand for millions, and its tags are refused. Private to the room.
 */
#ifndef HASHTRIE_CONFIG_TREE_H
#define HASHTRIE_CONFIG_TREE_H

#include "base/buf.h"
#include "base/span.h"

enum {
    TREE_BYTES_MAX = 1024 * 1024, /* Of a file: a ConfigMap has no more. */
    TREE_VALUES_MAX = 64 * 1024,
    TREE_MEMBERS_MAX = 4096, /* Of one map. */
    TREE_DEPTH_MAX = 8,
    TREE_PROBLEM_BYTES = 256,
};

enum tree_kind {
    TREE_NULL, /* Also what was left empty. */
    TREE_TEXT, /* Text, numbers and truth values, as they are written. */
    TREE_LIST,
    TREE_MAP,
};

struct tree_value {
    enum tree_kind kind;
    bool quoted;    /* TREE_TEXT: it was in quotes, and is text whatever it looks like. */
    size_t key;     /* Offset in `text`, of a map's member. */
    size_t text;    /* The same, of TREE_TEXT. */
    uint32_t first; /* Of a list or map: its first value; 0: none. */
    uint32_t last;
    uint32_t count;
    uint32_t next; /* In the same list or map. */
};

struct tree {
    struct mem *mem;
    struct tree_value *values; /* Owned. The root is number 0. */
    size_t count;
    size_t capacity;
    struct buf text; /* Owned: strings, each ended by NUL. */
    char problem[TREE_PROBLEM_BYTES];
};

void tree_init(struct tree *tree, struct mem *mem);
void tree_fini(struct tree *tree);

/* False: `problem` says what is wrong, and where. */
bool tree_read_json(struct tree *tree, struct span text);
bool tree_read_yaml(struct tree *tree, struct span text);

static inline const char *tree_key(const struct tree *tree, uint32_t value)
{
    return tree->text.data + tree->values[value].key;
}

static inline const char *tree_text(const struct tree *tree, uint32_t value)
{
    return tree->text.data + tree->values[value].text;
}

/* ---- For the two readers: each returns false with the problem told ---- */

bool tree_fail(struct tree *tree, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends a string without NUL in it; *out is where it begins. */
bool tree_add_text(struct tree *tree, struct span text, size_t *out);
/* Makes a value: the root, or the last one of `parent`; in a map, `key` is new there. */
bool tree_add(struct tree *tree, uint32_t parent, size_t key, enum tree_kind kind, uint32_t *out);

#endif
