/* `verify`: every record and every link. */
#include <inttypes.h>
#include <stdio.h>

#include "dump/dump.h"

enum { FINDINGS_SHOWN_MAX = 100 };

struct verifying {
    struct dump *dump;
    uint64_t shown;
};

static void on_finding(void *user, const char *text)
{
    struct verifying *verifying = user;
    dump_progress_end(verifying->dump);
    if (verifying->shown++ < FINDINGS_SHOWN_MAX) {
        dump_print_text(text);
        (void)putchar('\n'); /* Errors are seen by the last fflush(). */
    }
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

enum dump_exit dump_verify(struct dump *dump)
{
    struct verifying verifying = {.dump = dump};
    struct hashtrie_verify_options options = {
        .on_finding = on_finding, .on_progress = on_progress, .user = &verifying};
    struct hashtrie_verify_result result;
    enum hashtrie_status status = hashtrie_reader_verify(dump->reader, &options, &result);
    dump_progress_end(dump);
    if (status != HASHTRIE_OK && status != HASHTRIE_ECORRUPT) {
        return dump_cannot(dump, status);
    }
    if (verifying.shown > FINDINGS_SHOWN_MAX) {
        (void)printf("... and %" PRIu64 " more\n", verifying.shown - FINDINGS_SHOWN_MAX);
    }
    char nodes[DUMP_TEXT_BYTES];
    char faults[DUMP_TEXT_BYTES];
    dump_format_count(nodes, result.node_count);
    dump_format_count(faults, result.damage_count);
    (void)printf("%s nodes verified, %s faults\n", nodes, faults);
    if (result.links_counted) {
        print_soft("nodes without their parent (it was deleted first)", result.detached_count);
        print_soft("nodes used later than their parent", result.inverted_count);
    } else {
        (void)printf("too many nodes to look at parents\n");
    }
    return status == HASHTRIE_OK && result.damage_count == 0 ? DUMP_OK : DUMP_FAULTS;
}
