/* `export` and `import`: contents as a stream, out and in. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "dump/dump.h"

enum { NAME_BYTES_MAX = 2048, FILE_MODE = 0600 };

struct transfer {
    struct dump *dump;
    int fd;
    const char *path; /* NULL: standard input or output. */
    int error;        /* errno of what failed. */
    struct dump_names names;
    struct hashtrie_rename renames[DUMP_RENAMES_MAX];
    char old_names[DUMP_RENAMES_MAX][NAME_BYTES_MAX + 1];
};

static const char *named_file(const struct dump *dump)
{
    const char *path = dump->arguments[1];
    return path == NULL || strcmp(path, "-") == 0 ? NULL : path;
}

static struct transfer *transfer_new(struct dump *dump)
{
    struct transfer *transfer = mem_alloc_zero(&dump->mem, sizeof *transfer);
    if (transfer != NULL) {
        transfer->dump = dump;
        transfer->path = named_file(dump);
        transfer->names.mem = &dump->mem;
    }
    return transfer;
}

static enum dump_exit file_failed(const struct transfer *transfer, const char *what,
                                  const char *standard)
{
    (void)fprintf(stderr, "hashtrie-dump: cannot %s %s: %s\n", what,
                  transfer->path == NULL ? standard : transfer->path, strerror(transfer->error));
    return DUMP_CANNOT;
}

/* ---- Export ---- */

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    struct transfer *transfer = user;
    dump_progress(transfer->dump, "moving nodes", done, total);
}

static bool on_bytes(void *user, const void *bytes, size_t size)
{
    struct transfer *transfer = user;
    const char *at = bytes;
    while (size > 0) {
        ssize_t written = write(transfer->fd, at, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            transfer->error = written < 0 ? errno : EIO;
            return false;
        }
        at += written;
        size -= (size_t)written;
    }
    return true;
}

static enum dump_exit export_stream(struct transfer *transfer)
{
    struct hashtrie_export_options options = {
        .on_bytes = on_bytes, .on_progress = on_progress, .user = transfer};
    struct hashtrie_export_result result;
    enum hashtrie_status status = hashtrie_reader_export(transfer->dump->reader, &options, &result);
    dump_progress_end(transfer->dump);
    if (status == HASHTRIE_OK && transfer->path != NULL && fsync(transfer->fd) != 0) {
        transfer->error = errno;
        status = HASHTRIE_EIO;
    }
    if (transfer->error != 0) {
        return file_failed(transfer, "write", "to standard output");
    }
    if (status != HASHTRIE_OK) {
        return dump_cannot(transfer->dump, status);
    }
    if (result.damage_count > 0) {
        dump_warn_damaged();
    }
    (void)fprintf(stderr,
                  "%" PRIu64 " endpoints and %" PRIu64 " nodes exported, %" PRIu64 " bytes\n",
                  result.endpoint_count, result.node_count, result.byte_count);
    return result.damage_count == 0 ? DUMP_OK : DUMP_FAULTS;
}

/* A file that is there is not overwritten, and one that did not become whole is removed. */
static enum dump_exit export_to_file(struct transfer *transfer)
{
    transfer->fd = open(transfer->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)FILE_MODE);
    if (transfer->fd < 0) {
        transfer->error = errno;
        return file_failed(transfer, "write", "");
    }
    enum dump_exit result = export_stream(transfer);
    (void)close(transfer->fd); /* Synced before. */
    if (result == DUMP_CANNOT) {
        (void)unlink(transfer->path); /* Of no use. */
    }
    return result;
}

/* ---- Export as JSON: an object a line, for programs that read no msgpack ---- */

static bool json_endpoint(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct dump *dump = user;
    json_write_object(&dump->json);
    dump_json_text(dump, "kind", "endpoint");
    dump_json_number(dump, "id", endpoint->id);
    dump_json_text(dump, "url", endpoint->name);
    dump_json_text(dump, "model", endpoint->model);
    dump_json_text(dump, "generation", endpoint->generation);
    dump_json_number(dump, "odometer_kib", endpoint->odometer_kib);
    dump_json_number(dump, "written", endpoint->seen_unix_s);
    json_write_end(&dump->json);
    return dump_json_end(dump) == DUMP_OK;
}

static bool json_node(void *user, const struct hashtrie_reader_node *node)
{
    struct transfer *transfer = user;
    struct dump *dump = transfer->dump;
    uint32_t run[HASHTRIE_READER_RUN_MAX];
    uint32_t count = 0;
    enum hashtrie_status status =
        hashtrie_reader_run(dump->reader, node->prefix, node->fingerprint, run, &count);
    if (status != HASHTRIE_OK || count != node->chunk_count) {
        return true; /* Split or deleted meanwhile. */
    }
    json_write_object(&dump->json);
    dump_json_text(dump, "kind", "node");
    dump_json_node(dump, &transfer->names, node);
    json_write_key(&dump->json, "run");
    json_write_array(&dump->json);
    for (uint32_t i = 0; i < count; i++) {
        json_write_uint(&dump->json, run[i]);
    }
    json_write_end(&dump->json);
    json_write_end(&dump->json);
    return dump_json_end(dump) == DUMP_OK && ferror(stdout) == 0;
}

static enum dump_exit export_json(struct transfer *transfer)
{
    struct dump *dump = transfer->dump;
    if (transfer->path != NULL) {
        return dump_usage("export --json writes to standard output: give no FILE");
    }
    enum hashtrie_status status = dump_names_read(&transfer->names, &dump->mem, dump->reader);
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_endpoints(dump->reader, json_endpoint, dump);
    }
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_nodes(dump->reader, 0, UINT64_MAX, json_node, transfer);
    }
    dump_names_free(&transfer->names);
    if (status == HASHTRIE_ECORRUPT) {
        dump_warn_damaged();
        return DUMP_FAULTS;
    }
    return status == HASHTRIE_OK ? DUMP_OK : dump_cannot(dump, status);
}

enum dump_exit dump_export(struct dump *dump)
{
    struct transfer *transfer = transfer_new(dump);
    enum dump_exit result = DUMP_CANNOT;
    if (transfer == NULL) {
        return dump_cannot(dump, HASHTRIE_ENOMEM);
    }
    if (dump->options.json) {
        result = export_json(transfer);
    } else if (transfer->path != NULL) {
        result = export_to_file(transfer);
    } else if (isatty(STDOUT_FILENO) == 1) {
        result = dump_usage("the stream is binary: name a FILE, or send it elsewhere");
    } else {
        transfer->fd = STDOUT_FILENO;
        result = export_stream(transfer);
    }
    mem_free(&dump->mem, transfer, sizeof *transfer);
    return result;
}

/* ---- Import ---- */

static bool on_read(void *user, void *bytes, size_t size, size_t *got)
{
    struct transfer *transfer = user;
    ssize_t count = 0;
    do {
        count = read(transfer->fd, bytes, size);
    } while (count < 0 && errno == EINTR);
    transfer->error = count < 0 ? errno : 0;
    *got = count < 0 ? 0 : (size_t)count;
    return count >= 0;
}

static bool take_renames(struct transfer *transfer)
{
    const struct dump_options *options = &transfer->dump->options;
    for (size_t i = 0; i < options->rename_count; i++) {
        const char *text = options->renames[i];
        const char *equals = strchr(text, '=');
        size_t size = (size_t)(equals - text);
        if (size > NAME_BYTES_MAX || strlen(equals + 1) > NAME_BYTES_MAX) {
            (void)dump_usage("--rename: a name has at most %d bytes", (int)NAME_BYTES_MAX);
            return false;
        }
        memcpy(transfer->old_names[i], text, size);
        transfer->renames[i] =
            (struct hashtrie_rename){.old_name = transfer->old_names[i], .new_name = equals + 1};
    }
    return true;
}

static enum dump_exit tell_import(struct dump *dump, const struct hashtrie_import_result *result)
{
    const struct {
        const char *key;
        const char *name;
        uint64_t count;
    } counts[] = {
        {"endpoints", "endpoints", result->endpoint_count},
        {"new_endpoints", "new here", result->new_endpoint_count},
        {"old_endpoints", "restarted since", result->old_endpoint_count},
        {"nodes", "nodes", result->node_count},
        {"added", "rows added", result->added_count},
        {"joined", "rows joined", result->joined_count},
        {"conflicts", "conflicts", result->conflict_count},
    };
    if (dump->options.json) {
        json_write_object(&dump->json);
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (dump->options.json) {
            dump_json_number(dump, counts[i].key, counts[i].count);
        } else {
            dump_print_count(counts[i].name, counts[i].count);
        }
    }
    if (!dump->options.json) {
        return DUMP_OK;
    }
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

static const char *import_problem(enum hashtrie_status status)
{
    switch ((int)status) {
    case HASHTRIE_EBUSY:
        return "a router has the store open; stop that first";
    case HASHTRIE_EVERSION:
        return "stream and store do not have the same format version, chunk size and hash seed";
    case HASHTRIE_ECORRUPT:
        return "the stream is damaged or cut short, or the store is damaged; what came before "
               "stays";
    case HASHTRIE_EFULL:
        return "the store's cap has no room for more; what came before stays (see --max-size)";
    default:
        return hashtrie_strerror(status);
    }
}

static enum dump_exit run_import(struct transfer *transfer)
{
    struct dump *dump = transfer->dump;
    struct hashtrie_import_options options = {.on_read = on_read,
                                              .on_progress = on_progress,
                                              .user = transfer,
                                              .renames = transfer->renames,
                                              .rename_count = dump->options.rename_count,
                                              .max_bytes = dump->options.max_bytes};
    struct hashtrie_import_result result;
    enum hashtrie_status status = hashtrie_store_import(dump->arguments[0], &options, &result);
    dump_progress_end(dump);
    if (transfer->error != 0) {
        return file_failed(transfer, "read", "standard input");
    }
    enum dump_exit told = tell_import(dump, &result);
    if (status != HASHTRIE_OK) {
        (void)fprintf(stderr, "hashtrie-dump: cannot import into %s: %s\n", dump->arguments[0],
                      import_problem(status));
        return DUMP_CANNOT;
    }
    return told;
}

enum dump_exit dump_import(struct dump *dump)
{
    struct transfer *transfer = transfer_new(dump);
    enum dump_exit result = DUMP_USAGE;
    if (transfer == NULL) {
        return dump_cannot_do("import", HASHTRIE_ENOMEM);
    }
    bool renames = take_renames(transfer);
    transfer->fd =
        transfer->path == NULL ? STDIN_FILENO : open(transfer->path, O_RDONLY | O_CLOEXEC);
    if (renames && transfer->fd < 0) {
        transfer->error = errno;
        result = file_failed(transfer, "read", "");
    } else if (renames) {
        result = run_import(transfer);
    }
    if (transfer->path != NULL && transfer->fd >= 0) {
        (void)close(transfer->fd); /* Only read. */
    }
    mem_free(&dump->mem, transfer, sizeof *transfer);
    return result;
}
