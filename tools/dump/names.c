/* Names of endpoints by id, and nodes with the names of their holders. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dump/dump.h"

enum {
    NAMES_MAX = 1 << 20, /* Endpoints that are named; others are shown by id. */
    HOLDERS_SHOWN_MAX = 4,
};

struct dump_name {
    uint32_t id;
    char *text; /* Owned. */
};

static bool add_name(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct dump_names *names = user;
    if (names->count == names->capacity) {
        size_t capacity = names->capacity == 0 ? 64 : names->capacity * 2;
        struct dump_name *grown = mem_realloc(
            names->mem, names->list, names->capacity * sizeof *grown, capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        names->list = grown;
        names->capacity = capacity;
    }
    char *text = mem_strndup(names->mem, endpoint->name, strlen(endpoint->name));
    if (text == NULL) {
        return false;
    }
    names->list[names->count++] = (struct dump_name){.id = endpoint->id, .text = text};
    return names->count < NAMES_MAX;
}

enum hashtrie_status dump_names_read(struct dump_names *names, struct mem *mem,
                                     struct hashtrie_reader *reader)
{
    *names = (struct dump_names){.mem = mem};
    return hashtrie_reader_endpoints(reader, add_name, names);
}

void dump_names_free(struct dump_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        mem_free(names->mem, names->list[i].text, strlen(names->list[i].text) + 1);
    }
    mem_free(names->mem, names->list, names->capacity * sizeof *names->list);
    *names = (struct dump_names){.mem = names->mem};
}

static int compare_ids(const void *key, const void *item)
{
    uint32_t id = *(const uint32_t *)key;
    uint32_t other = ((const struct dump_name *)item)->id;
    return (id > other) - (id < other);
}

const char *dump_names_find(const struct dump_names *names, uint32_t id)
{
    const struct dump_name *name = names->count == 0 ? NULL
                                                     : bsearch(&id, names->list, names->count,
                                                               sizeof *names->list, compare_ids);
    return name == NULL ? NULL : name->text;
}

void dump_print_name(const struct dump_names *names, uint32_t id)
{
    const char *name = dump_names_find(names, id);
    if (name != NULL) {
        dump_print_text(name);
    } else {
        (void)printf("#%" PRIu32 " (gone)", id); /* Errors are seen by the last fflush(). */
    }
}

void dump_print_holders(const struct dump *dump, const struct dump_names *names,
                        const struct hashtrie_reader_node *node)
{
    if (node->held_by_all) {
        (void)printf("all");
    } else if (node->holder_count == 0) {
        (void)printf("-");
    }
    for (uint32_t i = 0; i < node->holder_count && i < HOLDERS_SHOWN_MAX; i++) {
        char age[DUMP_TEXT_BYTES];
        dump_format_age(age, dump->now_s, node->holders[i].last_used_unix_s);
        (void)printf("%s", i == 0 ? "" : ", ");
        dump_print_name(names, node->holders[i].endpoint_id);
        (void)printf(" %s", age);
    }
    if (node->holder_count > HOLDERS_SHOWN_MAX) {
        (void)printf(", %" PRIu32 " more", node->holder_count - HOLDERS_SHOWN_MAX);
    }
}

void dump_json_node(struct dump *dump, const struct dump_names *names,
                    const struct hashtrie_reader_node *node)
{
    struct json_writer *json = &dump->json;
    dump_json_hash(dump, "prefix", node->prefix);
    dump_json_number(dump, "fingerprint", node->fingerprint);
    dump_json_hash(dump, "end", node->end);
    dump_json_number(dump, "depth", node->depth);
    dump_json_number(dump, "chunks", node->chunk_count);
    dump_json_number(dump, "used", node->used_unix_s);
    json_write_key(json, "held_by_all");
    json_write_bool(json, node->held_by_all);
    json_write_key(json, "holders");
    json_write_array(json);
    for (uint32_t i = 0; i < node->holder_count; i++) {
        const struct hashtrie_reader_holder *holder = &node->holders[i];
        json_write_object(json);
        dump_json_number(dump, "id", holder->endpoint_id);
        dump_json_text(dump, "url", dump_names_find(names, holder->endpoint_id));
        dump_json_number(dump, "used", holder->last_used_unix_s);
        dump_json_number(dump, "odometer_kib", holder->odometer_kib);
        json_write_end(json);
    }
    json_write_end(json);
}
