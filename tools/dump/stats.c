/* `stats`: what is in the store. */
#include <inttypes.h>
#include <stdio.h>

#include "dump/dump.h"
#include "json/json.h"

enum { JSON_BYTES = 64 * 1024 };

static enum dump_exit print_json(struct dump *dump, const struct hashtrie_reader_info *info)
{
    struct buf buf;
    struct json_writer writer;
    buf_init(&buf, &dump->mem, JSON_BYTES);
    json_writer_init(&writer, &buf);
    const struct {
        const char *key;
        uint64_t number;
    } numbers[] = {
        {"format_version", info->format_version},
        {"chunk_size", info->chunk_size},
        {"nodes", info->node_count},
        {"chunks", info->chunk_count},
        {"endpoints", info->endpoint_count},
        {"next_endpoint_id", info->next_endpoint_id},
        {"file_bytes", info->file_bytes},
        {"used_bytes", info->used_bytes},
        {"max_bytes", info->cap_bytes},
        {"oldest_use", info->oldest_use_unix_s},
        {"newest_use", info->newest_use_unix_s},
        {"last_checkpoint_ms", info->last_checkpoint_unix_ms},
    };
    json_write_object(&writer);
    json_write_key(&writer, "directory");
    json_write_text(&writer, dump->directory);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        json_write_key(&writer, numbers[i].key);
        json_write_uint(&writer, numbers[i].number);
    }
    json_write_key(&writer, "closed_in_order");
    json_write_bool(&writer, info->clean);
    json_write_end(&writer);
    enum dump_exit result = dump_write_json(&buf, json_writer_ok(&writer));
    buf_fini(&buf);
    return result;
}

static void print_count(const char *name, uint64_t count)
{
    char text[DUMP_TEXT_BYTES];
    dump_format_count(text, count);
    (void)printf("%-20s%s\n", name, text); /* Errors are seen by the last fflush(). */
}

static void print_bytes(const char *name, uint64_t bytes)
{
    char text[DUMP_TEXT_BYTES];
    dump_format_bytes(text, bytes);
    (void)printf("%-20s%s\n", name, text);
}

static void print_time(const struct dump *dump, const char *name, uint64_t unix_s)
{
    char time[DUMP_TEXT_BYTES];
    char age[DUMP_TEXT_BYTES];
    dump_format_time(time, unix_s);
    dump_format_age(age, dump->now_s, unix_s);
    if (unix_s == 0) {
        (void)printf("%-20s-\n", name);
    } else {
        (void)printf("%-20s%s (%s ago)\n", name, time, age);
    }
}

static void print_text(const struct dump *dump, const struct hashtrie_reader_info *info)
{
    (void)printf("%-20s%s\n", "store", dump->directory);
    print_count("nodes", info->node_count);
    print_count("chunks", info->chunk_count);
    print_bytes("text they stand for", info->chunk_count * info->chunk_size);
    print_count("endpoints", info->endpoint_count);
    print_bytes("file", info->file_bytes);
    print_bytes("in use", info->used_bytes);
    print_bytes("limit", info->cap_bytes);
    print_time(dump, "last checkpoint", info->last_checkpoint_unix_ms / 1000);
    print_time(dump, "oldest use", info->oldest_use_unix_s);
    print_time(dump, "newest use", info->newest_use_unix_s);
    (void)printf("%-20s%s\n", "closed in order",
                 info->clean ? "yes" : "no (a router is running, or it was killed)");
    (void)printf("%-20s%" PRIu64 " bytes\n", "chunk size", info->chunk_size);
    (void)printf("%-20s%" PRIu64 "\n", "format version", info->format_version);
}

enum dump_exit dump_stats(struct dump *dump)
{
    struct hashtrie_reader_info info;
    enum hashtrie_status status = hashtrie_reader_get_info(dump->reader, &info);
    if (status != HASHTRIE_OK) {
        return dump_cannot(dump, status);
    }
    if (dump->json) {
        return print_json(dump, &info);
    }
    print_text(dump, &info);
    return DUMP_OK;
}
