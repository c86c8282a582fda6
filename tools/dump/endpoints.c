/* `endpoints`: the engines that the store knows, one line for each incarnation: how much each
 * holds, and how long ago that was used. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dump/dump.h"

enum { ENGINES_MAX = 1 << 20, NAME_COLUMNS_MAX = 60 };

struct engine {
    uint32_t id;
    uint32_t odometer_kib;
    uint64_t seen_unix_s;
    char *name; /* Owned, as the next two. */
    char *model;
    char *generation;
    uint64_t node_count; /* That it holds. */
    uint64_t chunk_count;
    struct dump_ages ages;
};

struct listing {
    struct dump *dump;
    struct engine *engines; /* Owned, by id. */
    size_t count;
    size_t capacity;
    uint64_t chunk_size;
    uint64_t seen; /* Nodes. */
    uint64_t total;
    uint64_t by_all_count;
    uint64_t gone_count; /* Holders that are no endpoint any more. */
};

static char *copy(struct listing *listing, const char *text)
{
    return mem_strndup(&listing->dump->mem, text, strlen(text));
}

static void free_text(struct listing *listing, char *text)
{
    if (text != NULL) {
        mem_free(&listing->dump->mem, text, strlen(text) + 1);
    }
}

static bool add_engine(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct listing *listing = user;
    if (listing->count == listing->capacity) {
        size_t capacity = listing->capacity == 0 ? 64 : listing->capacity * 2;
        struct engine *grown =
            mem_realloc(&listing->dump->mem, listing->engines, listing->capacity * sizeof *grown,
                        capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        listing->engines = grown;
        listing->capacity = capacity;
    }
    struct engine *engine = &listing->engines[listing->count++];
    *engine = (struct engine){.id = endpoint->id,
                              .odometer_kib = endpoint->odometer_kib,
                              .seen_unix_s = endpoint->seen_unix_s,
                              .name = copy(listing, endpoint->name),
                              .model = copy(listing, endpoint->model),
                              .generation = copy(listing, endpoint->generation)};
    return engine->name != NULL && engine->model != NULL && engine->generation != NULL &&
           listing->count < ENGINES_MAX;
}

static int compare_ids(const void *key, const void *item)
{
    uint32_t id = *(const uint32_t *)key;
    uint32_t other = ((const struct engine *)item)->id;
    return (id > other) - (id < other);
}

static bool on_row(void *user, const struct hashtrie_reader_node *node, uint64_t stored_bytes)
{
    struct listing *listing = user;
    (void)stored_bytes;
    dump_progress(listing->dump, "looking at nodes", ++listing->seen, listing->total);
    listing->by_all_count += node->held_by_all;
    for (uint32_t i = 0; i < node->holder_count; i++) {
        const struct hashtrie_reader_holder *holder = &node->holders[i];
        struct engine *engine =
            listing->count == 0 ? NULL
                                : bsearch(&holder->endpoint_id, listing->engines, listing->count,
                                          sizeof *listing->engines, compare_ids);
        if (engine == NULL) {
            listing->gone_count++;
            continue;
        }
        engine->node_count++;
        engine->chunk_count += node->chunk_count;
        dump_ages_add(&engine->ages, listing->dump->now_s, holder->last_used_unix_s);
    }
    return true;
}

/* ---- Text ---- */

static int name_columns(const struct listing *listing)
{
    size_t columns = 3;
    for (size_t i = 0; i < listing->count; i++) {
        size_t length = strlen(listing->engines[i].name);
        columns = length > columns ? length : columns;
    }
    return (int)(columns < NAME_COLUMNS_MAX ? columns : NAME_COLUMNS_MAX);
}

static void print_head(const struct listing *listing, int columns)
{
    const struct dump *dump = listing->dump;
    (void)printf("%s%6s  %-*s  %8s  %10s", dump_style(dump, DUMP_BOLD), "ID", columns, "URL",
                 "WRITTEN", "SENT");
    if (!dump->options.quick) {
        (void)printf("  %12s  %10s", "NODES", "TEXT");
        for (size_t i = 0; i < DUMP_AGE_CLASSES; i++) {
            (void)printf("  %5s", dump_age_name(i));
        }
    }
    (void)printf("  %s  %s%s\n", "MODEL", "GENERATION", dump_style(dump, DUMP_PLAIN));
}

static void print_held(const struct listing *listing, const struct engine *engine)
{
    char nodes[DUMP_TEXT_BYTES];
    char bytes[DUMP_TEXT_BYTES];
    dump_format_count(nodes, engine->node_count);
    dump_format_bytes(bytes, engine->chunk_count * listing->chunk_size);
    (void)printf("  %12s  %10s", nodes, bytes);
    for (size_t i = 0; i < DUMP_AGE_CLASSES; i++) {
        double share = engine->node_count == 0
                           ? 0
                           : (double)engine->ages.count[i] / (double)engine->node_count;
        (void)printf("  %3.0f %%", 100 * share);
    }
}

static void print_text(const struct listing *listing)
{
    const struct dump *dump = listing->dump;
    int columns = name_columns(listing);
    if (listing->count == 0) {
        (void)printf("no endpoints\n"); /* Errors are seen by the last fflush(). */
        return;
    }
    print_head(listing, columns);
    for (size_t i = 0; i < listing->count; i++) {
        const struct engine *engine = &listing->engines[i];
        char age[DUMP_TEXT_BYTES];
        char sent[DUMP_TEXT_BYTES];
        dump_format_age(age, dump->now_s, engine->seen_unix_s);
        dump_format_bytes(sent, (uint64_t)engine->odometer_kib * 1024);
        (void)printf("%6" PRIu32 "  ", engine->id);
        dump_print_column(engine->name, columns);
        (void)printf("  %8s  %10s", age, sent);
        if (!dump->options.quick) {
            print_held(listing, engine);
        }
        (void)printf("  ");
        dump_print_text(engine->model[0] == '\0' ? "-" : engine->model);
        (void)printf("  ");
        dump_print_text(engine->generation[0] == '\0' ? "-" : engine->generation);
        (void)putchar('\n');
    }
    char count[DUMP_TEXT_BYTES];
    if (listing->by_all_count > 0) {
        dump_format_count(count, listing->by_all_count);
        (void)printf("besides: %s nodes count as held by all engines\n", count);
    }
    if (listing->gone_count > 0) {
        dump_format_count(count, listing->gone_count);
        (void)printf("besides: %s times a node names an engine that went or restarted\n", count);
    }
}

/* ---- JSON ---- */

static enum dump_exit print_json(struct listing *listing)
{
    struct dump *dump = listing->dump;
    json_write_array(&dump->json);
    for (size_t i = 0; i < listing->count; i++) {
        const struct engine *engine = &listing->engines[i];
        json_write_object(&dump->json);
        dump_json_number(dump, "id", engine->id);
        dump_json_text(dump, "url", engine->name);
        dump_json_text(dump, "model", engine->model);
        dump_json_text(dump, "generation", engine->generation);
        dump_json_number(dump, "odometer_kib", engine->odometer_kib);
        dump_json_number(dump, "written", engine->seen_unix_s);
        if (!dump->options.quick) {
            dump_json_number(dump, "nodes", engine->node_count);
            dump_json_number(dump, "chunks", engine->chunk_count);
            dump_json_number(dump, "text_bytes", engine->chunk_count * listing->chunk_size);
            dump_json_ages(dump, "ages", &engine->ages);
        }
        json_write_end(&dump->json);
        dump_json_flush(dump);
    }
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

static enum hashtrie_status read_all(struct listing *listing)
{
    struct dump *dump = listing->dump;
    struct hashtrie_reader_info info;
    enum hashtrie_status status = hashtrie_reader_get_info(dump->reader, &info);
    if (status == HASHTRIE_OK) {
        listing->total = info.node_count;
        listing->chunk_size = info.chunk_size;
        status = hashtrie_reader_endpoints(dump->reader, add_engine, listing);
    }
    if (status == HASHTRIE_OK && !dump->options.quick) {
        status = hashtrie_reader_rows(dump->reader, on_row, listing);
        dump_progress_end(dump);
    }
    return status;
}

enum dump_exit dump_endpoints(struct dump *dump)
{
    struct listing listing = {.dump = dump};
    enum hashtrie_status status = read_all(&listing);
    enum dump_exit result = DUMP_OK;
    if (status == HASHTRIE_ECORRUPT) {
        dump_warn_damaged();
        status = HASHTRIE_OK;
    }
    if (status != HASHTRIE_OK) {
        result = dump_cannot(dump, status);
    } else if (dump->options.json) {
        result = print_json(&listing);
    } else {
        print_text(&listing);
    }
    for (size_t i = 0; i < listing.count; i++) {
        free_text(&listing, listing.engines[i].name);
        free_text(&listing, listing.engines[i].model);
        free_text(&listing, listing.engines[i].generation);
    }
    mem_free(&dump->mem, listing.engines, listing.capacity * sizeof *listing.engines);
    return result;
}
