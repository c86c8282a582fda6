/* `tree`: namespaces, and below them the nodes used last, a few at each level. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dump/dump.h"

enum {
    NAMES_MAX = 65536, /* Endpoints named in the output; others are shown by id. */
    NAME_BYTES_MAX = 128,
    HOLDERS_SHOWN_MAX = 4,
    INDENT = 2,
    HASH_DIGITS_MAX = 16,
};

struct name {
    uint32_t id;
    char text[NAME_BYTES_MAX];
};

struct tree {
    struct dump *dump;
    struct name *names; /* By id. Owned. */
    size_t name_count;
    size_t name_capacity;
    int hash_columns;
    uint64_t prefixes_seen;
    uint64_t corrupt;
    bool out_of_memory;
    bool only_namespaces; /* Of the prefixes scanned, those of depth 0. */
    struct {
        uint64_t *prefixes; /* Owned: dump->limit. */
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

/* ---- Endpoint names ---- */

static bool add_name(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct tree *tree = user;
    if (tree->name_count == tree->name_capacity) {
        size_t capacity = tree->name_capacity == 0 ? 64 : tree->name_capacity * 2;
        struct name *grown =
            mem_realloc(&tree->dump->mem, tree->names, tree->name_capacity * sizeof *grown,
                        capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        tree->names = grown;
        tree->name_capacity = capacity;
    }
    struct name *name = &tree->names[tree->name_count++];
    name->id = endpoint->id;
    (void)snprintf(name->text, sizeof name->text, "%s", endpoint->name); /* Cut off if longer. */
    return tree->name_count < NAMES_MAX;
}

static int compare_ids(const void *key, const void *item)
{
    uint32_t id = *(const uint32_t *)key;
    uint32_t other = ((const struct name *)item)->id;
    return (id > other) - (id < other);
}

static void print_holder(const struct tree *tree, const struct hashtrie_reader_holder *holder)
{
    char age[DUMP_TEXT_BYTES];
    dump_format_age(age, tree->dump->now_s, holder->last_used_unix_s);
    const struct name *name = NULL;
    if (tree->name_count > 0) {
        name = bsearch(&holder->endpoint_id, tree->names, tree->name_count, sizeof *tree->names,
                       compare_ids);
    }
    if (name != NULL) {
        dump_print_text(name->text);
    } else {
        (void)printf("#%" PRIu32 " (gone)", holder->endpoint_id);
    }
    (void)printf(" %s", age); /* Errors are seen by the last fflush(). */
}

/* ---- One node ---- */

static void print_node(const struct tree *tree, const struct hashtrie_reader_node *node, int level)
{
    char age[DUMP_TEXT_BYTES];
    dump_format_age(age, tree->dump->now_s, node->used_unix_s);
    int indent = INDENT * level;
    (void)printf("%*s%0*" PRIx64 "%*s  %8" PRIu32 "  %6" PRIu32 "  %6s  ", indent, "",
                 DUMP_HASH_DIGITS, node->end >> (4 * (HASH_DIGITS_MAX - DUMP_HASH_DIGITS)),
                 tree->hash_columns - indent - DUMP_HASH_DIGITS, "", node->depth, node->chunk_count,
                 age);
    if (node->held_by_all) {
        (void)printf("all");
    } else if (node->holder_count == 0) {
        (void)printf("-");
    }
    for (uint32_t i = 0; i < node->holder_count && i < HOLDERS_SHOWN_MAX; i++) {
        (void)printf("%s", i == 0 ? "" : ", ");
        print_holder(tree, &node->holders[i]);
    }
    if (node->holder_count > HOLDERS_SHOWN_MAX) {
        (void)printf(", %" PRIu32 " more", node->holder_count - HOLDERS_SHOWN_MAX);
    }
    (void)putchar('\n');
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
                     tree->dump->limit);
    }
}

/* Recurses at most DUMP_LEVELS_MAX deep. */
// NOLINTNEXTLINE(misc-no-recursion)
static enum hashtrie_status print_children(struct tree *tree, uint64_t prefix, int level)
{
    struct dump *dump = tree->dump;
    size_t size = dump->limit * sizeof(struct hashtrie_reader_node);
    struct level children = {.limit = dump->limit, .nodes = mem_alloc(&dump->mem, size)};
    if (children.nodes == NULL) {
        return HASHTRIE_ENOMEM;
    }
    enum hashtrie_status status =
        hashtrie_reader_nodes(dump->reader, prefix, prefix, keep_newest, &children);
    if (status == HASHTRIE_ECORRUPT) { /* Those that can be read are shown. */
        tree->corrupt++;
        status = HASHTRIE_OK;
    }
    for (size_t i = 0; i < children.count && status == HASHTRIE_OK; i++) {
        print_node(tree, &children.nodes[i], level);
        if ((uint32_t)level < dump->depth) {
            status = print_children(tree, children.nodes[i].end, level + 1);
        }
    }
    print_more(tree, children.more, level);
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
    if (tree->starts.count == tree->dump->limit) {
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
    tree->hash_columns = (int)dump->depth * INDENT + DUMP_HASH_DIGITS;
    (void)printf("%-*s  %8s  %6s  %6s  %s\n", tree->hash_columns, "NODE", "DEPTH", "CHUNKS", "USED",
                 "HELD BY");
    for (size_t i = 0; i < tree->starts.count && status == HASHTRIE_OK; i++) {
        (void)printf("%s %016" PRIx64 "\n", tree->only_namespaces ? "namespace" : "below",
                     tree->starts.prefixes[i]);
        status = print_children(tree, tree->starts.prefixes[i], 1);
    }
    print_more(tree, tree->starts.more, 0);
    return status;
}

static enum dump_exit run(struct tree *tree, uint64_t first, uint64_t last)
{
    struct dump *dump = tree->dump;
    enum hashtrie_status status = hashtrie_reader_endpoints(dump->reader, add_name, tree);
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_prefixes(dump->reader, first, last, add_start, tree);
        dump_progress_end(dump);
    }
    if (status == HASHTRIE_ECORRUPT) {
        tree->corrupt++;
        status = HASHTRIE_OK;
    }
    if (status == HASHTRIE_OK && tree->starts.count == 0) {
        (void)printf("%s\n", dump->argument == NULL ? "the store is empty"
                                                    : "nothing is stored below that hash");
    } else if (status == HASHTRIE_OK) {
        status = print_starts(tree);
    }
    if (tree->corrupt > 0) {
        (void)fprintf(stderr, "hashtrie-dump: damaged nodes were left out; see `hashtrie-dump "
                              "verify`\n");
    }
    return status == HASHTRIE_OK ? DUMP_OK : dump_cannot(dump, status);
}

enum dump_exit dump_tree(struct dump *dump)
{
    uint64_t first = 0;
    uint64_t last = UINT64_MAX;
    if (dump->argument != NULL && !parse_hash(dump->argument, &first, &last)) {
        (void)fprintf(stderr, "hashtrie-dump: %s is no hash: 1 to %d hex digits are needed\n",
                      dump->argument, (int)HASH_DIGITS_MAX);
        return DUMP_USAGE;
    }
    struct tree tree = {.dump = dump, .only_namespaces = dump->argument == NULL};
    size_t size = dump->limit * sizeof *tree.starts.prefixes;
    tree.starts.prefixes = mem_alloc(&dump->mem, size);
    if (tree.starts.prefixes == NULL) {
        return dump_cannot(dump, HASHTRIE_ENOMEM);
    }
    enum dump_exit result = run(&tree, first, last);
    mem_free(&dump->mem, tree.starts.prefixes, size);
    mem_free(&dump->mem, tree.names, tree.name_capacity * sizeof *tree.names);
    return result;
}
