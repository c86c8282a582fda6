/*
 * `diff`: nodes that are in one of two stores alone, or differ: in their run, or in who holds them.
 * Both are walked side by side in key order. Holders are compared by the engines' URLs: ids are a
 * store's own.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "dump/dump.h"

enum { WINDOW_NODES = 128 };

struct side {
    struct hashtrie_reader *reader;
    struct dump_names names;
    struct hashtrie_reader_place place;
    struct hashtrie_reader_node nodes[WINDOW_NODES];
    size_t count;
    size_t at;
    uint64_t node_count; /* Looked at. */
};

struct diff {
    struct dump *dump;
    struct side sides[2];
    uint64_t total;
    uint64_t only_count[2];
    uint64_t run_count;
    uint64_t holder_count;
    uint64_t same_count;
    uint64_t shown;
};

/* The side's next node; NULL: that was all. */
static const struct hashtrie_reader_node *peek(struct side *side, enum hashtrie_status *status)
{
    while (side->at == side->count && !side->place.ended) {
        side->at = 0;
        *status = hashtrie_reader_slice(side->reader, &side->place, side->nodes, WINDOW_NODES,
                                        &side->count);
        if (*status != HASHTRIE_OK) {
            side->count = 0;
            return NULL;
        }
    }
    return side->at < side->count ? &side->nodes[side->at] : NULL;
}

static void advance(struct side *side)
{
    side->at++;
    side->node_count++;
}

static int compare_keys(const struct hashtrie_reader_node *a, const struct hashtrie_reader_node *b)
{
    if (a == NULL || b == NULL) {
        return (a == NULL) - (b == NULL);
    }
    if (a->prefix != b->prefix) {
        return a->prefix < b->prefix ? -1 : 1;
    }
    return (a->fingerprint > b->fingerprint) - (a->fingerprint < b->fingerprint);
}

/* Every living holder of a is one of b. */
static bool holders_within(const struct dump_names *a_names, const struct hashtrie_reader_node *a,
                           const struct dump_names *b_names, const struct hashtrie_reader_node *b)
{
    for (uint32_t i = 0; i < a->holder_count; i++) {
        const char *name = dump_names_find(a_names, a->holders[i].endpoint_id);
        bool found = name == NULL; /* One that is gone holds nothing. */
        for (uint32_t k = 0; k < b->holder_count && !found; k++) {
            const char *other = dump_names_find(b_names, b->holders[k].endpoint_id);
            found = other != NULL && strcmp(name, other) == 0;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool same_holders(const struct diff *diff, const struct hashtrie_reader_node *a,
                         const struct hashtrie_reader_node *b)
{
    const struct dump_names *a_names = &diff->sides[0].names;
    const struct dump_names *b_names = &diff->sides[1].names;
    // NOLINTNEXTLINE(readability-suspicious-call-argument): both ways
    bool back = holders_within(b_names, b, a_names, a);
    return a->held_by_all == b->held_by_all && holders_within(a_names, a, b_names, b) && back;
}

/* ---- Telling ---- */

static void json_difference(struct diff *diff, const char *kind,
                            const struct hashtrie_reader_node *nodes[2])
{
    static const char *const keys[2] = {"a", "b"};
    struct dump *dump = diff->dump;
    json_write_object(&dump->json);
    dump_json_text(dump, "kind", kind);
    for (size_t i = 0; i < 2; i++) {
        if (nodes[i] != NULL) {
            json_write_key(&dump->json, keys[i]);
            json_write_object(&dump->json);
            dump_json_node(dump, &diff->sides[i].names, nodes[i]);
            json_write_end(&dump->json);
        }
    }
    json_write_end(&dump->json);
    dump_json_flush(dump);
}

static void print_side(const struct diff *diff, size_t i, const struct hashtrie_reader_node *node)
{
    const struct dump *dump = diff->dump;
    (void)printf("%s%c %016" PRIx64 "/%08" PRIx32 "  depth %6" PRIu32 "  chunks %4" PRIu32 "  ",
                 dump_style(dump, i == 0 ? DUMP_RED : DUMP_GREEN), i == 0 ? '-' : '+', node->prefix,
                 node->fingerprint, node->depth, node->chunk_count);
    dump_print_holders(dump, &diff->sides[i].names, node);
    (void)printf("%s\n", dump_style(dump, DUMP_PLAIN)); /* Errors are seen by the last fflush(). */
}

static void tell(struct diff *diff, const char *kind, const struct hashtrie_reader_node *a,
                 const struct hashtrie_reader_node *b)
{
    const struct hashtrie_reader_node *nodes[2] = {a, b};
    if (diff->shown++ >= diff->dump->options.limit) {
        return;
    }
    dump_progress_end(diff->dump);
    if (diff->dump->options.json) {
        json_difference(diff, kind, nodes);
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        if (nodes[i] != NULL) {
            print_side(diff, i, nodes[i]);
        }
    }
}

static void compare(struct diff *diff, const struct hashtrie_reader_node *a,
                    const struct hashtrie_reader_node *b)
{
    if (a->end != b->end || a->chunk_count != b->chunk_count || a->depth != b->depth) {
        diff->run_count++;
        tell(diff, "run", a, b);
    } else if (!same_holders(diff, a, b)) {
        diff->holder_count++;
        tell(diff, "holders", a, b);
    } else {
        diff->same_count++;
    }
}

/* What comes next in key order: in one store alone, or in both. */
static void step(struct diff *diff, const struct hashtrie_reader_node *a,
                 const struct hashtrie_reader_node *b)
{
    int order = compare_keys(a, b);
    if (order == 0) {
        compare(diff, a, b);
    } else if (order < 0) {
        diff->only_count[0]++;
        tell(diff, "only_a", a, NULL);
    } else {
        diff->only_count[1]++;
        tell(diff, "only_b", NULL, b);
    }
    if (order <= 0) {
        advance(&diff->sides[0]);
    }
    if (order >= 0) {
        advance(&diff->sides[1]);
    }
    dump_progress(diff->dump, "comparing", diff->sides[0].node_count + diff->sides[1].node_count,
                  diff->total);
}

static enum hashtrie_status walk(struct diff *diff)
{
    enum hashtrie_status status = HASHTRIE_OK;
    for (;;) {
        const struct hashtrie_reader_node *a = peek(&diff->sides[0], &status);
        if (status != HASHTRIE_OK) {
            return status;
        }
        const struct hashtrie_reader_node *b = peek(&diff->sides[1], &status);
        if (status != HASHTRIE_OK || (a == NULL && b == NULL)) {
            return status;
        }
        step(diff, a, b);
    }
}

/* ---- All of it ---- */

static uint64_t difference_count(const struct diff *diff)
{
    return diff->only_count[0] + diff->only_count[1] + diff->run_count + diff->holder_count;
}

static void print_result(const struct diff *diff)
{
    if (diff->shown > diff->dump->options.limit) {
        (void)printf("... and %" PRIu64 " more (--limit %" PRIu32 ")\n",
                     diff->shown - diff->dump->options.limit, diff->dump->options.limit);
    }
    dump_print_count("the same", diff->same_count);
    dump_print_count("only in the first", diff->only_count[0]);
    dump_print_count("only in the second", diff->only_count[1]);
    dump_print_count("other runs", diff->run_count);
    dump_print_count("other holders", diff->holder_count);
}

static enum dump_exit json_result(const struct diff *diff)
{
    struct dump *dump = diff->dump;
    json_write_end(&dump->json); /* Of the differences. */
    dump_json_number(dump, "same", diff->same_count);
    dump_json_number(dump, "only_a", diff->only_count[0]);
    dump_json_number(dump, "only_b", diff->only_count[1]);
    dump_json_number(dump, "runs", diff->run_count);
    dump_json_number(dump, "holders", diff->holder_count);
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

static enum dump_exit cannot_read(const struct dump *dump, size_t side, enum hashtrie_status status)
{
    (void)fprintf(stderr, "hashtrie-dump: cannot read the store in %s: %s\n", dump->arguments[side],
                  hashtrie_strerror(status));
    return DUMP_CANNOT;
}

static enum hashtrie_status open_side(struct diff *diff, size_t i)
{
    struct side *side = &diff->sides[i];
    struct hashtrie_reader_info info;
    side->names.mem = &diff->dump->mem;
    enum hashtrie_status status = hashtrie_reader_open(diff->dump->arguments[i], &side->reader);
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_get_info(side->reader, &info);
    }
    if (status == HASHTRIE_OK) {
        diff->total += info.node_count;
        dump_warn_lockless(&info);
        status = dump_names_read(&side->names, &diff->dump->mem, side->reader);
    }
    return status;
}

static enum dump_exit run(struct diff *diff)
{
    struct dump *dump = diff->dump;
    for (size_t i = 0; i < 2; i++) {
        enum hashtrie_status status = open_side(diff, i);
        if (status != HASHTRIE_OK) {
            return cannot_read(dump, i, status);
        }
    }
    if (dump->options.json) {
        json_write_object(&dump->json);
        json_write_key(&dump->json, "differences");
        json_write_array(&dump->json);
    }
    enum hashtrie_status status = walk(diff);
    dump_progress_end(dump);
    if (status != HASHTRIE_OK) {
        return dump_cannot_do("read one of the stores", status);
    }
    if (diff->sides[0].place.corrupt_count + diff->sides[1].place.corrupt_count > 0) {
        dump_warn_damaged();
    }
    enum dump_exit result = DUMP_OK;
    if (dump->options.json) {
        result = json_result(diff);
    } else {
        print_result(diff);
    }
    return result == DUMP_OK && difference_count(diff) > 0 ? DUMP_FAULTS : result;
}

/* LMDB allows a process to open a file once. */
static bool are_same(const struct dump *dump)
{
    struct stat a;
    struct stat b;
    return stat(dump->arguments[0], &a) == 0 && stat(dump->arguments[1], &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

enum dump_exit dump_diff(struct dump *dump)
{
    if (are_same(dump)) {
        return dump_usage("both folders are the same");
    }
    struct diff *diff = mem_alloc_zero(&dump->mem, sizeof *diff);
    if (diff == NULL) {
        return dump_cannot(dump, HASHTRIE_ENOMEM);
    }
    diff->dump = dump;
    enum dump_exit result = run(diff);
    for (size_t i = 0; i < 2; i++) {
        dump_names_free(&diff->sides[i].names);
        hashtrie_reader_close(diff->sides[i].reader);
    }
    mem_free(&dump->mem, diff, sizeof *diff);
    return result;
}
