/* `verify`: every record and every link; with --repair what can be read as a sound copy. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <unistd.h>

#include "dump/dump.h"

enum { FINDINGS_SHOWN_MAX = 100 };

struct verifying {
    struct dump *dump;
    uint64_t shown;
};

static void on_finding(void *user, const char *text)
{
    struct verifying *verifying = user;
    struct dump *dump = verifying->dump;
    dump_progress_end(dump);
    if (verifying->shown++ >= FINDINGS_SHOWN_MAX) {
        return;
    }
    if (dump->options.json) {
        json_write_text(&dump->json, text);
        return;
    }
    dump_print_text(text);
    (void)putchar('\n'); /* Errors are seen by the last fflush(). */
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    struct verifying *verifying = user;
    dump_progress(verifying->dump, "verifying", done, total);
}

static void print_soft(const char *what, uint64_t count)
{
    char text[DUMP_TEXT_BYTES];
    dump_format_count(text, count);
    if (count > 0) {
        (void)printf("%s %s: harmless\n", text, what);
    }
}

static void print_result(const struct verifying *verifying,
                         const struct hashtrie_verify_result *result)
{
    const struct dump *dump = verifying->dump;
    char nodes[DUMP_TEXT_BYTES];
    char faults[DUMP_TEXT_BYTES];
    if (verifying->shown > FINDINGS_SHOWN_MAX) {
        (void)printf("... and %" PRIu64 " more\n", verifying->shown - FINDINGS_SHOWN_MAX);
    }
    dump_format_count(nodes, result->node_count);
    dump_format_count(faults, result->damage_count);
    (void)printf("%s nodes verified, %s%s faults%s\n", nodes,
                 dump_style(dump, result->damage_count == 0 ? DUMP_GREEN : DUMP_RED), faults,
                 dump_style(dump, DUMP_PLAIN));
    if (result->links_counted) {
        print_soft("nodes without their parent (it was deleted first)", result->detached_count);
        print_soft("nodes used later than their parent", result->inverted_count);
    } else {
        (void)printf("too many nodes to look at parents\n");
    }
}

static enum dump_exit json_result(struct dump *dump, const struct hashtrie_verify_result *result)
{
    json_write_end(&dump->json); /* Of the findings. */
    dump_json_number(dump, "nodes", result->node_count);
    dump_json_number(dump, "faults", result->damage_count);
    json_write_key(&dump->json, "links_counted");
    json_write_bool(&dump->json, result->links_counted);
    dump_json_number(dump, "detached", result->detached_count);
    dump_json_number(dump, "inverted", result->inverted_count);
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

static enum dump_exit verify(struct dump *dump)
{
    struct verifying verifying = {.dump = dump};
    struct hashtrie_verify_options options = {
        .on_finding = on_finding, .on_progress = on_progress, .user = &verifying};
    struct hashtrie_verify_result result;
    if (dump->options.json) {
        json_write_object(&dump->json);
        json_write_key(&dump->json, "findings");
        json_write_array(&dump->json);
    }
    enum hashtrie_status status = hashtrie_reader_verify(dump->reader, &options, &result);
    dump_progress_end(dump);
    if (status != HASHTRIE_OK && status != HASHTRIE_ECORRUPT) {
        return dump_cannot(dump, status);
    }
    if (!dump->options.json) {
        print_result(&verifying, &result);
    } else if (json_result(dump, &result) != DUMP_OK) {
        return DUMP_CANNOT;
    }
    return status == HASHTRIE_OK && result.damage_count == 0 ? DUMP_OK : DUMP_FAULTS;
}

/* ---- Repair ---- */

static void on_repairing(void *user, uint64_t done, uint64_t total)
{
    dump_progress(user, "repairing", done, total);
}

static void print_repaired(const struct dump *dump, const struct hashtrie_repair_result *result)
{
    dump_print_value("repaired copy", dump->options.repair);
    dump_print_count("nodes", result->node_count);
    dump_print_count("chunks", result->chunk_count);
    dump_print_count("endpoints", result->endpoint_count);
    dump_print_count("damaged pages", result->damaged_page_count);
    dump_print_count("nodes half lost", result->lost_count);
    dump_print_count("from stray pages", result->stray_count);
}

static enum dump_exit json_repaired(struct dump *dump, const struct hashtrie_repair_result *result)
{
    json_write_object(&dump->json);
    dump_json_text(dump, "repaired", dump->options.repair);
    dump_json_number(dump, "nodes", result->node_count);
    dump_json_number(dump, "chunks", result->chunk_count);
    dump_json_number(dump, "endpoints", result->endpoint_count);
    dump_json_number(dump, "damaged_pages", result->damaged_page_count);
    dump_json_number(dump, "lost", result->lost_count);
    dump_json_number(dump, "stray", result->stray_count);
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

/* A router that writes meanwhile would make pages look damaged that are not. */
static bool is_in_use(const char *directory)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return false; /* What is wrong with it shows next. */
    }
    bool busy = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    (void)close(fd); /* Gives the lock back. */
    return busy;
}

static enum dump_exit repair(struct dump *dump)
{
    struct hashtrie_repair_options options = {
        .chunk_size = HASHTRIE_CHUNK_SIZE_DEFAULT, .on_progress = on_repairing, .user = dump};
    struct hashtrie_repair_result result;
    if (is_in_use(dump->arguments[0])) {
        (void)fprintf(stderr,
                      "hashtrie-dump: a router has %s open: stop it, or repair a snapshot\n",
                      dump->arguments[0]);
        return DUMP_CANNOT;
    }
    enum hashtrie_status status =
        hashtrie_store_repair(dump->arguments[0], dump->options.repair, &options, &result);
    dump_progress_end(dump);
    if (status == HASHTRIE_EEXIST || status == HASHTRIE_EBUSY) {
        (void)fprintf(stderr,
                      "hashtrie-dump: there is a store in %s already: name another folder\n",
                      dump->options.repair);
        return DUMP_CANNOT;
    }
    if (status != HASHTRIE_OK) {
        return dump_cannot(dump, status);
    }
    if (dump->options.json) {
        enum dump_exit written = json_repaired(dump, &result);
        if (written != DUMP_OK) {
            return written;
        }
    } else {
        print_repaired(dump, &result);
    }
    return result.damaged_page_count == 0 && result.lost_count == 0 ? DUMP_OK : DUMP_FAULTS;
}

enum dump_exit dump_verify(struct dump *dump)
{
    if (dump->options.repair != NULL) {
        return repair(dump);
    }
    struct hashtrie_reader_info info;
    enum hashtrie_status status = hashtrie_reader_open(dump->arguments[0], &dump->reader);
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_get_info(dump->reader, &info);
    }
    if (status != HASHTRIE_OK) {
        return dump_cannot(dump, status);
    }
    dump_warn_lockless(&info);
    return verify(dump);
}
