/* `tree --top N`: the nodes of the whole store that were used last, stand for the most text, or
 * have the most holders. A heap of N: the least of those kept is on top. */
#include <inttypes.h>
#include <string.h>

#include "dump/dump.h"

struct top {
    struct dump *dump;
    struct hashtrie_reader_node *nodes; /* Owned: dump->options.top. */
    size_t count;
    uint64_t seen;
    uint64_t total;
};

static uint64_t rank(const struct dump *dump, const struct hashtrie_reader_node *node)
{
    switch (dump->options.by) {
    case DUMP_BY_BYTES:
        return node->chunk_count;
    case DUMP_BY_HOLDERS:
        return node->held_by_all ? UINT64_MAX : node->holder_count;
    case DUMP_BY_RECENCY:
        break;
    }
    return node->used_unix_s;
}

static bool is_less(const struct top *top, size_t a, size_t b)
{
    return rank(top->dump, &top->nodes[a]) < rank(top->dump, &top->nodes[b]);
}

static void swap(struct top *top, size_t a, size_t b)
{
    struct hashtrie_reader_node node = top->nodes[a];
    top->nodes[a] = top->nodes[b];
    top->nodes[b] = node;
}

static void sift_up(struct top *top, size_t at)
{
    while (at > 0 && is_less(top, at, (at - 1) / 2)) {
        swap(top, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static void sift_down(struct top *top, size_t count)
{
    size_t at = 0;
    for (size_t child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && is_less(top, child + 1, child)) {
            child++;
        }
        if (!is_less(top, child, at)) {
            return;
        }
        swap(top, at, child);
        at = child;
    }
}

static bool on_row(void *user, const struct hashtrie_reader_node *node, uint64_t stored_bytes)
{
    struct top *top = user;
    (void)stored_bytes;
    dump_progress(top->dump, "looking at nodes", ++top->seen, top->total);
    if (top->count < top->dump->options.top) {
        top->nodes[top->count++] = *node;
        sift_up(top, top->count - 1);
    } else if (rank(top->dump, node) > rank(top->dump, &top->nodes[0])) {
        top->nodes[0] = *node;
        sift_down(top, top->count);
    }
    return true;
}

/* Largest first. */
static void sort(struct top *top)
{
    for (size_t count = top->count; count > 1; count--) {
        swap(top, 0, count - 1);
        sift_down(top, count - 1);
    }
}

static void print_text(const struct top *top, const struct dump_names *names, uint64_t chunk_size)
{
    const struct dump *dump = top->dump;
    (void)printf("%s%-*s  %8s  %6s  %10s  %6s  %7s  %s%s\n", dump_style(dump, DUMP_BOLD),
                 (int)DUMP_HASH_DIGITS, "NODE", "DEPTH", "CHUNKS", "TEXT", "USED", "HOLDERS",
                 "HELD BY", dump_style(dump, DUMP_PLAIN));
    for (size_t i = 0; i < top->count; i++) {
        const struct hashtrie_reader_node *node = &top->nodes[i];
        char age[DUMP_TEXT_BYTES];
        char text[DUMP_TEXT_BYTES];
        dump_format_age(age, dump->now_s, node->used_unix_s);
        dump_format_bytes(text, node->chunk_count * chunk_size);
        (void)printf("%0*" PRIx64 "  %8" PRIu32 "  %6" PRIu32 "  %10s  %6s  %7" PRIu32 "  ",
                     (int)DUMP_HASH_DIGITS, dump_hash_shown(node->end), node->depth,
                     node->chunk_count, text, age, node->holder_count);
        dump_print_holders(dump, names, node);
        (void)putchar('\n'); /* Errors are seen by the last fflush(). */
    }
}

static enum dump_exit print_json(struct dump *dump, const struct top *top,
                                 const struct dump_names *names)
{
    json_write_array(&dump->json);
    for (size_t i = 0; i < top->count; i++) {
        json_write_object(&dump->json);
        dump_json_node(dump, names, &top->nodes[i]);
        json_write_end(&dump->json);
        dump_json_flush(dump);
    }
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

enum dump_exit dump_top(struct dump *dump)
{
    struct dump_names names = {.mem = &dump->mem};
    struct top top = {.dump = dump};
    struct hashtrie_reader_info info;
    size_t size = dump->options.top * sizeof *top.nodes;
    top.nodes = mem_alloc(&dump->mem, size);
    enum hashtrie_status status =
        top.nodes == NULL ? HASHTRIE_ENOMEM : hashtrie_reader_get_info(dump->reader, &info);
    if (status == HASHTRIE_OK) {
        top.total = info.node_count;
        status = dump_names_read(&names, &dump->mem, dump->reader);
    }
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_rows(dump->reader, on_row, &top);
        dump_progress_end(dump);
    }
    enum dump_exit result = DUMP_OK;
    if (status != HASHTRIE_OK && status != HASHTRIE_ECORRUPT) {
        result = dump_cannot(dump, status);
    } else {
        sort(&top);
        if (status == HASHTRIE_ECORRUPT) {
            dump_warn_damaged();
        }
        if (dump->options.json) {
            result = print_json(dump, &top, &names);
        } else {
            print_text(&top, &names, info.chunk_size);
        }
    }
    dump_names_free(&names);
    mem_free(&dump->mem, top.nodes, size);
    return result;
}
