/* `stats`: how much is in a store, how deep, how old, and how well it fits. */
#include <inttypes.h>
#include <string.h>

#include "dump/dump.h"

struct figures {
    struct dump *dump;
    struct hashtrie_reader_info info;
    uint64_t node_count; /* Of the scan, as the rest. */
    uint64_t depth_max;  /* In chunks, to the end of a run. */
    uint64_t depth_sum;
    uint64_t namespace_node_count; /* At depth 0. */
    uint64_t holder_count;
    uint64_t unheld_count; /* Nodes without holders. */
    uint64_t stored_bytes;
    struct dump_ages ages;
    bool damaged;
};

static bool on_row(void *user, const struct hashtrie_reader_node *node, uint64_t stored_bytes)
{
    struct figures *figures = user;
    uint64_t end = (uint64_t)node->depth + node->chunk_count;
    figures->node_count++;
    figures->depth_max = end > figures->depth_max ? end : figures->depth_max;
    figures->depth_sum += end;
    figures->namespace_node_count += node->depth == 0;
    figures->holder_count += node->holder_count;
    figures->unheld_count += node->holder_count == 0 && !node->held_by_all;
    figures->stored_bytes += stored_bytes;
    dump_ages_add(&figures->ages, figures->dump->now_s, node->used_unix_s);
    dump_progress(figures->dump, "looking at nodes", figures->node_count, figures->info.node_count);
    return true;
}

static double ratio(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : (double)part / (double)whole;
}

static uint64_t head_room(const struct hashtrie_reader_info *info)
{
    return info->cap_bytes > info->used_bytes ? info->cap_bytes - info->used_bytes : 0;
}

/* ---- JSON ---- */

static void json_scan(struct dump *dump, const struct figures *figures)
{
    struct json_writer *json = &dump->json;
    dump_json_number(dump, "depth_max", figures->depth_max);
    json_write_key(json, "depth_mean");
    json_write_double(json, ratio(figures->depth_sum, figures->node_count));
    dump_json_number(dump, "top_nodes", figures->namespace_node_count);
    dump_json_number(dump, "holders", figures->holder_count);
    dump_json_number(dump, "nodes_without_holder", figures->unheld_count);
    dump_json_number(dump, "record_bytes", figures->stored_bytes);
    json_write_key(json, "page_fill");
    json_write_double(json, ratio(figures->stored_bytes, figures->info.used_bytes));
    dump_json_ages(dump, "ages", &figures->ages);
}

static enum dump_exit print_json(struct dump *dump, const struct figures *figures)
{
    const struct hashtrie_reader_info *info = &figures->info;
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
        {"page_bytes", info->page_bytes},
        {"file_bytes", info->file_bytes},
        {"used_bytes", info->used_bytes},
        {"max_bytes", info->cap_bytes},
        {"head_room_bytes", head_room(info)},
        {"oldest_use", info->oldest_use_unix_s},
        {"newest_use", info->newest_use_unix_s},
        {"last_checkpoint_ms", info->last_checkpoint_unix_ms},
        {"reloads_found", info->reload_found_count},
        {"reloads_missed", info->reload_missed_count},
    };
    json_write_object(&dump->json);
    dump_json_text(dump, "directory", dump->arguments[0]);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        dump_json_number(dump, numbers[i].key, numbers[i].number);
    }
    json_write_key(&dump->json, "closed_in_order");
    json_write_bool(&dump->json, info->clean);
    if (!dump->options.quick) {
        json_scan(dump, figures);
    }
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

/* ---- Text ---- */

static void print_time(const struct dump *dump, const char *name, uint64_t unix_s)
{
    char time[DUMP_TEXT_BYTES];
    char age[DUMP_TEXT_BYTES];
    char both[2 * DUMP_TEXT_BYTES + 8] = "-";
    dump_format_time(time, unix_s);
    dump_format_age(age, dump->now_s, unix_s);
    if (unix_s != 0) {
        (void)snprintf(both, sizeof both, "%s (%s ago)", time, age);
    }
    dump_print_value(name, both);
}

static void print_reloads(const struct hashtrie_reader_info *info)
{
    char found[DUMP_TEXT_BYTES];
    char missed[DUMP_TEXT_BYTES];
    char both[3 * DUMP_TEXT_BYTES];
    dump_format_count(found, info->reload_found_count);
    dump_format_count(missed, info->reload_missed_count);
    (void)snprintf(both, sizeof both, "%s found, %s missed", found, missed);
    dump_print_value("reloads", both);
}

static void print_scan(const struct dump *dump, const struct figures *figures)
{
    char text[2 * DUMP_TEXT_BYTES];
    (void)snprintf(text, sizeof text, "%" PRIu64 " chunks at most, %.1f on average",
                   figures->depth_max, ratio(figures->depth_sum, figures->node_count));
    dump_print_value("depth", text);
    (void)snprintf(text, sizeof text, "%.2f",
                   ratio(figures->stored_bytes, figures->info.used_bytes));
    dump_print_value("page fill", text);
    (void)snprintf(text, sizeof text, "%.2f a node",
                   ratio(figures->holder_count, figures->node_count));
    dump_print_value("holders", text);
    dump_print_count("without holder", figures->unheld_count);
    (void)printf("\n%s%-20s%14s%9s%s\n", dump_style(dump, DUMP_BOLD), "LAST USED WITHIN", "NODES",
                 "SHARE", dump_style(dump, DUMP_PLAIN));
    for (size_t i = 0; i < DUMP_AGE_CLASSES; i++) {
        char count[DUMP_TEXT_BYTES];
        dump_format_count(count, figures->ages.count[i]);
        (void)printf("%-20s%14s%7.1f %%\n", dump_age_name(i), count,
                     100 * ratio(figures->ages.count[i], figures->node_count));
    }
}

static void print_text(const struct dump *dump, const struct figures *figures)
{
    const struct hashtrie_reader_info *info = &figures->info;
    char text[2 * DUMP_TEXT_BYTES];
    char bytes[DUMP_TEXT_BYTES];
    dump_print_value("store", dump->arguments[0]);
    dump_print_count("nodes", info->node_count);
    dump_print_count("chunks", info->chunk_count);
    dump_print_bytes("text they stand for", info->chunk_count * info->chunk_size);
    dump_print_count("endpoints", info->endpoint_count);
    dump_print_bytes("file", info->file_bytes);
    dump_print_bytes("in use", info->used_bytes);
    dump_print_bytes("cap", info->cap_bytes);
    dump_format_bytes(bytes, head_room(info));
    (void)snprintf(text, sizeof text, "%s (%.0f %%)", bytes,
                   100 * ratio(head_room(info), info->cap_bytes));
    dump_print_value("head-room", text);
    print_time(dump, "last checkpoint", info->last_checkpoint_unix_ms / 1000);
    print_time(dump, "oldest use", info->oldest_use_unix_s);
    print_time(dump, "newest use", info->newest_use_unix_s);
    print_reloads(info);
    dump_print_value("closed in order",
                     info->clean ? "yes" : "no (a router is running, or it was killed)");
    (void)snprintf(text, sizeof text, "%" PRIu64 " bytes", info->chunk_size);
    dump_print_value("chunk size", text);
    (void)snprintf(text, sizeof text, "%" PRIu64, info->format_version);
    dump_print_value("format version", text);
    if (!dump->options.quick) {
        print_scan(dump, figures);
    }
}

enum dump_exit dump_stats(struct dump *dump)
{
    struct figures figures = {.dump = dump};
    enum hashtrie_status status = hashtrie_reader_get_info(dump->reader, &figures.info);
    if (status == HASHTRIE_OK && !dump->options.quick) {
        status = hashtrie_reader_rows(dump->reader, on_row, &figures);
        dump_progress_end(dump);
        figures.damaged = status == HASHTRIE_ECORRUPT;
    }
    if (status != HASHTRIE_OK && !figures.damaged) {
        return dump_cannot(dump, status);
    }
    if (figures.damaged) {
        dump_warn_damaged();
    }
    if (dump->options.json) {
        return print_json(dump, &figures);
    }
    print_text(dump, &figures);
    return DUMP_OK;
}
