/* `snapshot` and `restore`: consistent copies of a store, out and in. */
#include "dump/dump.h"

static void on_copying(void *user, uint64_t done, uint64_t total)
{
    dump_progress(user, "copying", done, total);
}

static enum dump_exit tell(struct dump *dump, const struct hashtrie_copy_result *result)
{
    char bytes[DUMP_TEXT_BYTES];
    if (dump->options.json) {
        json_write_object(&dump->json);
        dump_json_text(dump, "written", dump->arguments[1]);
        dump_json_number(dump, "bytes", result->bytes);
        json_write_key(&dump->json, "seconds");
        json_write_double(&dump->json, result->seconds);
        json_write_end(&dump->json);
        return dump_json_end(dump);
    }
    dump_format_bytes(bytes, result->bytes);
    dump_print_text(dump->arguments[1]);
    (void)printf(": %s in %.1f s\n", bytes, result->seconds); /* Seen by the last fflush(). */
    return DUMP_OK;
}

static enum dump_exit failed(const struct dump *dump, const char *what, const char *why)
{
    (void)fprintf(stderr, "hashtrie-dump: cannot %s %s to %s: %s\n", what, dump->arguments[0],
                  dump->arguments[1], why);
    return DUMP_CANNOT;
}

enum dump_exit dump_snapshot(struct dump *dump)
{
    struct hashtrie_copy_options options = {.on_progress = on_copying, .user = dump};
    struct hashtrie_copy_result result;
    enum hashtrie_status status =
        hashtrie_store_copy(dump->arguments[0], dump->arguments[1], &options, &result);
    dump_progress_end(dump);
    switch ((int)status) {
    case HASHTRIE_OK:
        return tell(dump, &result);
    case HASHTRIE_EEXIST:
        return failed(dump, "copy", "there is something under that name already");
    case HASHTRIE_EFULL:
        return failed(dump, "copy",
                      "its router needs the space that the copy holds back; try "
                      "again when it writes less");
    default:
        return failed(dump, "copy", hashtrie_strerror(status));
    }
}

enum dump_exit dump_restore(struct dump *dump)
{
    struct hashtrie_copy_options options = {.on_progress = on_copying, .user = dump};
    struct hashtrie_copy_result result;
    enum hashtrie_status status =
        hashtrie_snapshot_restore(dump->arguments[0], dump->arguments[1], &options, &result);
    dump_progress_end(dump);
    switch ((int)status) {
    case HASHTRIE_OK:
        return tell(dump, &result);
    case HASHTRIE_EBUSY:
        return failed(dump, "restore", "a router has it open; stop that first");
    case HASHTRIE_ECORRUPT:
        return failed(dump, "restore", "the snapshot does not verify; see `hashtrie-dump verify`");
    default:
        return failed(dump, "restore", hashtrie_strerror(status));
    }
}
