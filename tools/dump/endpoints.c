/* `endpoints`: the engines that the store knows, one line for each incarnation. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dump/dump.h"
#include "json/json.h"

enum { JSON_BYTES_MAX_ALL = 256 << 20, NAME_COLUMNS_MAX = 60 };

struct listing {
    struct dump *dump;
    struct json_writer *writer;
    int name_columns;
    uint64_t count;
};

static bool measure(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct listing *listing = user;
    size_t length = strlen(endpoint->name);
    int columns = length < NAME_COLUMNS_MAX ? (int)length : NAME_COLUMNS_MAX;
    listing->name_columns = columns > listing->name_columns ? columns : listing->name_columns;
    listing->count++;
    return true;
}

static bool print_one(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct listing *listing = user;
    char age[DUMP_TEXT_BYTES];
    char sent[DUMP_TEXT_BYTES];
    dump_format_age(age, listing->dump->now_s, endpoint->seen_unix_s);
    dump_format_bytes(sent, (uint64_t)endpoint->odometer_kib * 1024);
    (void)printf("%6" PRIu32 "  ", endpoint->id); /* Errors are seen by the last fflush(). */
    dump_print_text(endpoint->name);
    int pad = listing->name_columns - (int)strlen(endpoint->name);
    (void)printf("%*s  %8s  %12s  ", pad > 0 ? pad : 0, "", age, sent);
    dump_print_text(endpoint->model[0] == '\0' ? "-" : endpoint->model);
    (void)printf("  ");
    dump_print_text(endpoint->generation[0] == '\0' ? "-" : endpoint->generation);
    (void)putchar('\n');
    return true;
}

static bool write_one(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct json_writer *writer = ((struct listing *)user)->writer;
    json_write_object(writer);
    json_write_key(writer, "id");
    json_write_uint(writer, endpoint->id);
    json_write_key(writer, "url");
    json_write_text(writer, endpoint->name);
    json_write_key(writer, "model");
    json_write_text(writer, endpoint->model);
    json_write_key(writer, "generation");
    json_write_text(writer, endpoint->generation);
    json_write_key(writer, "odometer_kib");
    json_write_uint(writer, endpoint->odometer_kib);
    json_write_key(writer, "written");
    json_write_uint(writer, endpoint->seen_unix_s);
    json_write_end(writer);
    return true;
}

static enum dump_exit print_json(struct dump *dump)
{
    struct buf buf;
    struct json_writer writer;
    buf_init(&buf, &dump->mem, JSON_BYTES_MAX_ALL);
    json_writer_init(&writer, &buf);
    struct listing listing = {.dump = dump, .writer = &writer};
    json_write_array(&writer);
    enum hashtrie_status status = hashtrie_reader_endpoints(dump->reader, write_one, &listing);
    json_write_end(&writer);
    enum dump_exit result = status == HASHTRIE_OK ? dump_write_json(&buf, json_writer_ok(&writer))
                                                  : dump_cannot(dump, status);
    buf_fini(&buf);
    return result;
}

enum dump_exit dump_endpoints(struct dump *dump)
{
    if (dump->json) {
        return print_json(dump);
    }
    struct listing listing = {.dump = dump, .name_columns = 3};
    enum hashtrie_status status = hashtrie_reader_endpoints(dump->reader, measure, &listing);
    if (status == HASHTRIE_OK && listing.count == 0) {
        (void)printf("no endpoints\n");
        return DUMP_OK;
    }
    if (status == HASHTRIE_OK) {
        (void)printf("%6s  %-*s  %8s  %12s  %s  %s\n", "ID", listing.name_columns, "URL", "WRITTEN",
                     "SENT", "MODEL", "GENERATION");
        status = hashtrie_reader_endpoints(dump->reader, print_one, &listing);
    }
    return status == HASHTRIE_OK ? DUMP_OK : dump_cannot(dump, status);
}
