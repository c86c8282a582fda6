/* `tree`: namespaces, and below them the nodes used last, a few at each level. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dump/dump.h"

enum { INDENT = 2, HASH_DIGITS_MAX = 16 };

struct tree {
    struct dump *dump;
    struct dump_names names;
    int hash_columns;
    uint64_t prefixes_seen;
    uint64_t corrupt;
    bool only_namespaces; /* Of the prefixes scanned, those of depth 0. */
    struct {
        uint64_t *prefixes; /* Owned: limit. */
        size_t count;
        uint64_t more;
    } starts;
};

/* The children of one node that were used last. */
struct level {
    struct hashtrie_reader_node *nodes; /* Owned: limit. Last used first. */
    size_t count;
    size_t limit;
    uint64_t more;
};

static void print_node(const struct tree *tree, const struct hashtrie_reader_node *node, int level)
{
    char age[DUMP_TEXT_BYTES];
    dump_format_age(age, tree->dump->now_s, node->used_unix_s);
    int indent = INDENT * level;
    (void)printf("%*s%0*" PRIx64 "%*s  %8" PRIu32 "  %6" PRIu32 "  %6s  ", indent, "",
                 (int)DUMP_HASH_DIGITS, dump_hash_shown(node->end),
                 tree->hash_columns - indent - DUMP_HASH_DIGITS, "", node->depth, node->chunk_count,
                 age);
    dump_print_holders(tree->dump, &tree->names, node);
    (void)putchar('\n'); /* Errors are seen by the last fflush(). */
}

/* ---- Levels ---- */

static bool keep_newest(void *user, const struct hashtrie_reader_node *node)
{
    struct level *level = user;
    if (level->count == level->limit) {
        level->more++;
        if (node->used_unix_s <= level->nodes[level->count - 1].used_unix_s) {
            return true;
        }
        level->count--;
    }
    size_t at = level->count++;
    while (at > 0 && level->nodes[at - 1].used_unix_s < node->used_unix_s) {
        level->nodes[at] = level->nodes[at - 1];
        at--;
    }
    level->nodes[at] = *node;
    return true;
}

static void print_more(const struct tree *tree, uint64_t more, int level)
{
    char text[DUMP_TEXT_BYTES];
    if (more > 0) {
        dump_format_count(text, more);
        (void)printf("%*s... %s more (--limit %" PRIu32 ")\n", INDENT * level, "", text,
                     tree->dump->options.limit);
    }
}

static enum hashtrie_status show_children(struct tree *tree, uint64_t prefix, int level);

// NOLINTNEXTLINE(misc-no-recursion): as the next.
static enum hashtrie_status show_node(struct tree *tree, const struct hashtrie_reader_node *node,
                                      int level)
{
    struct dump *dump = tree->dump;
    bool deeper = (uint32_t)level < dump->options.depth;
    enum hashtrie_status status = HASHTRIE_OK;
    if (!dump->options.json) {
        print_node(tree, node, level);
        return deeper ? show_children(tree, node->end, level + 1) : HASHTRIE_OK;
    }
    json_write_object(&dump->json);
    dump_json_node(dump, &tree->names, node);
    if (deeper) {
        status = show_children(tree, node->end, level + 1);
    }
    json_write_end(&dump->json);
    dump_json_flush(dump);
    return status;
}

static void begin_children(struct tree *tree, const struct level *children)
{
    if (tree->dump->options.json) {
        dump_json_number(tree->dump, "more_children", children->more);
        json_write_key(&tree->dump->json, "children");
        json_write_array(&tree->dump->json);
    }
}

/* Recurses at most DUMP_LEVELS_MAX deep. */
// NOLINTNEXTLINE(misc-no-recursion): so deep, and no deeper.
static enum hashtrie_status show_children(struct tree *tree, uint64_t prefix, int level)
{
    struct dump *dump = tree->dump;
    size_t size = dump->options.limit * sizeof(struct hashtrie_reader_node);
    struct level children = {.limit = dump->options.limit, .nodes = mem_alloc(&dump->mem, size)};
    if (children.nodes == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status =
        hashtrie_reader_nodes(dump->reader, prefix, prefix, keep_newest, &children);
    if (status == HASHTRIE_ECORRUPT) { /* Those that can be read are shown. */
        tree->corrupt++;
        status = HASHTRIE_OK;
    }
    begin_children(tree, &children);
    for (size_t i = 0; i < children.count && status == HASHTRIE_OK; i++) {
        status = show_node(tree, &children.nodes[i], level);
    }
    if (dump->options.json) {
        json_write_end(&dump->json);
    } else {
        print_more(tree, children.more, level);
    }
    mem_free(&dump->mem, children.nodes, size);
    return status;
}

/* ---- Where it starts ---- */

static bool add_start(void *user, uint64_t prefix, uint32_t depth)
{
    struct tree *tree = user;
    dump_progress(tree->dump, "prefixes looked at", ++tree->prefixes_seen, 0);
    if (tree->only_namespaces && depth != 0) {
        return true;
    }
    if (tree->starts.count == tree->dump->options.limit) {
        tree->starts.more++;
        return true;
    }
    tree->starts.prefixes[tree->starts.count++] = prefix;
    return true;
}

/* The range of hashes that begin with these hex digits; false: they are none. */
static bool parse_hash(const char *text, uint64_t *first, uint64_t *last)
{
    size_t digits = strspn(text, "0123456789abcdefABCDEF");
    if (digits == 0 || digits > HASH_DIGITS_MAX || text[digits] != '\0') {
        return false;
    }
    unsigned shift = (unsigned)(4 * (HASH_DIGITS_MAX - digits));
    uint64_t value = strtoull(text, NULL, 16);
    *first = shift == 0 ? value : value << shift;
    *last = shift == 0 ? value : *first | ((UINT64_C(1) << shift) - 1);
    return true;
}

static enum hashtrie_status print_starts(struct tree *tree)
{
    const struct dump *dump = tree->dump;
    enum hashtrie_status status = HASHTRIE_OK;
    tree->hash_columns = (int)dump->options.depth * INDENT + DUMP_HASH_DIGITS;
    (void)printf("%s%-*s  %8s  %6s  %6s  %s%s\n", dump_style(dump, DUMP_BOLD), tree->hash_columns,
                 "NODE", "DEPTH", "CHUNKS", "USED", "HELD BY", dump_style(dump, DUMP_PLAIN));
    for (size_t i = 0; i < tree->starts.count && status == HASHTRIE_OK; i++) {
        (void)printf("%s %016" PRIx64 "\n", tree->only_namespaces ? "namespace" : "below",
                     tree->starts.prefixes[i]);
        status = show_children(tree, tree->starts.prefixes[i], 1);
    }
    print_more(tree, tree->starts.more, 0);
    return status;
}

static enum hashtrie_status json_starts(struct tree *tree)
{
    struct dump *dump = tree->dump;
    enum hashtrie_status status = HASHTRIE_OK;
    json_write_object(&dump->json);
    dump_json_number(dump, "more_prefixes", tree->starts.more);
    json_write_key(&dump->json, "prefixes");
    json_write_array(&dump->json);
    for (size_t i = 0; i < tree->starts.count && status == HASHTRIE_OK; i++) {
        json_write_object(&dump->json);
        dump_json_hash(dump, "prefix", tree->starts.prefixes[i]);
        status = show_children(tree, tree->starts.prefixes[i], 1);
        json_write_end(&dump->json);
    }
    json_write_end(&dump->json);
    json_write_end(&dump->json);
    return status;
}

static enum dump_exit show(struct tree *tree)
{
    struct dump *dump = tree->dump;
    enum hashtrie_status status = HASHTRIE_OK;
    if (dump->options.json) {
        status = json_starts(tree);
    } else if (tree->starts.count == 0) {
        (void)printf("%s\n", dump->arguments[1] == NULL ? "the store is empty"
                                                        : "nothing is stored below that hash");
    } else {
        status = print_starts(tree);
    }
    if (tree->corrupt > 0) {
        dump_warn_damaged();
    }
    if (status != HASHTRIE_OK) {
        return dump_cannot(dump, status);
    }
    return dump->options.json ? dump_json_end(dump) : DUMP_OK;
}

static enum dump_exit run(struct tree *tree, uint64_t first, uint64_t last)
{
    struct dump *dump = tree->dump;
    enum hashtrie_status status = dump_names_read(&tree->names, &dump->mem, dump->reader);
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_prefixes(dump->reader, first, last, add_start, tree);
        dump_progress_end(dump);
    }
    if (status == HASHTRIE_ECORRUPT) {
        tree->corrupt++;
        status = HASHTRIE_OK;
    }
    return status == HASHTRIE_OK ? show(tree) : dump_cannot(dump, status);
}

enum dump_exit dump_tree(struct dump *dump)
{
    uint64_t first = 0;
    uint64_t last = UINT64_MAX;
    const char *hash = dump->arguments[1];
    if (dump->options.top > 0) {
        return hash == NULL ? dump_top(dump)
                            : dump_usage("--top looks at the whole store: give no HASH");
    }
    if (hash != NULL && !parse_hash(hash, &first, &last)) {
        return dump_usage("%s is no hash: 1 to %d hex digits are needed", hash,
                          (int)HASH_DIGITS_MAX);
    }
    struct tree tree = {
        .dump = dump, .names = {.mem = &dump->mem}, .only_namespaces = hash == NULL};
    size_t size = dump->options.limit * sizeof *tree.starts.prefixes;
    tree.starts.prefixes = mem_alloc(&dump->mem, size);
    if (tree.starts.prefixes == NULL) {
        return dump_cannot(dump, HASHTRIE_ENOMEM);
    }
    enum dump_exit result = run(&tree, first, last);
    mem_free(&dump->mem, tree.starts.prefixes, size);
    dump_names_free(&tree.names);
    return result;
}
