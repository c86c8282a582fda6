/*
 * POST /admin/snapshot, and who may use /admin/...: loopback, or who has the key.
 *
 *     asked -> SNAPSHOTTING, while a thread of the store copies -> its mailbox message -> answered
 *          |-> 409 (one is under way), 503 (no store or no folder for it)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json/json.h"
#include "proxy/conn.h"
#include "proxy/request.h"

enum { SNAPSHOT_JSON_BYTES_MAX = 64 * 1024 };

/* ---- Who may ---- */

bool admin_read_key(struct router *router)
{
    const char *path = router->config->admin_key_file;
    if (path == NULL) {
        return true;
    }
    char text[KEY_BYTES_MAX];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof text);
    if (size < 0) {
        log_write(router->log, LOG_ERROR, "--admin-key-file %s cannot be read: %s", path,
                  strerror(errno));
    }
    if (file >= 0) {
        (void)close(file); /* Only read. */
    }
    if (size < 0) {
        return false;
    }
    size_t length = 0;
    while (length < (size_t)size && text[length] != '\n' && text[length] != '\r') {
        length++;
    }
    if (length == 0 || length == sizeof text) {
        log_write(router->log, LOG_ERROR,
                  "--admin-key-file %s: its first line must be a key of 1 to %d bytes", path,
                  KEY_BYTES_MAX - 1);
        return false;
    }
    router->admin_key = mem_strndup(&router->mem, text, length);
    return router->admin_key != NULL;
}

bool admin_may(const struct request *request)
{
    const char *key = request->worker->router->admin_key;
    if (net_stream_is_loopback(request->conn->stream)) {
        return true;
    }
    struct span given = keys_bearer(http_parser_head(request->conn->parser));
    return key != NULL && given.data != NULL && keys_same(span_of(key), given);
}

/* ---- Asking ---- */

/* On a thread of the store. */
static void on_snapshot(void *user, const struct hashtrie_snapshot_result *result)
{
    struct reload_wait *wait = user;
    struct snapshot_answer *answer = wait->snapshot;
    answer->status = result->status;
    answer->bytes = result->bytes;
    answer->seconds = result->seconds;
    (void)snprintf(answer->path, sizeof answer->path, "%s",
                   result->path == NULL ? "" : result->path);
    reload_wait_send(wait);
}

static enum hashtrie_status start(struct request *request)
{
    struct worker *worker = request->worker;
    if (worker->router->store == NULL) {
        return HASHTRIE_EINVAL;
    }
    struct reload_wait *wait = mem_alloc(&worker->mem, sizeof *wait);
    struct snapshot_answer *answer = mem_alloc_zero(&worker->mem, sizeof *answer);
    enum hashtrie_status status = HASHTRIE_ENOMEM;
    if (wait != NULL && answer != NULL) {
        *wait = (struct reload_wait){.worker = worker, .request = request, .snapshot = answer};
        list_init(&wait->link);
        status = hashtrie_store_snapshot(worker->router->store, on_snapshot, wait);
    }
    if (status != HASHTRIE_OK) {
        mem_free(&worker->mem, wait, sizeof *wait);
        mem_free(&worker->mem, answer, sizeof *answer);
        return status;
    }
    request->reload = wait;
    request->reload_over = false;
    return HASHTRIE_OK;
}

void admin_ask_snapshot(struct request *request)
{
    if (!request->body_ended) {
        answer_error(request, 400, "A snapshot is asked for without a body.");
        return;
    }
    switch ((int)start(request)) {
    case HASHTRIE_OK:
        sm_move(&request->sm, REQUEST_SNAPSHOTTING);
        break;
    case HASHTRIE_EBUSY:
        answer_error(request, 409, "A snapshot is being made.");
        break;
    case HASHTRIE_EINVAL:
        answer_error(request, 503,
                     "There is no store, or no folder for snapshots: see "
                     "--snapshot-dir.");
        break;
    default:
        answer_error(request, 503, "Out of memory.");
    }
}

/* ---- Answering ---- */

static void answer_made(struct request *request, const struct snapshot_answer *answer)
{
    struct buf body;
    struct json_writer writer;
    buf_init(&body, &request->worker->mem, SNAPSHOT_JSON_BYTES_MAX);
    json_writer_init(&writer, &body);
    json_write_object(&writer);
    json_write_key(&writer, "path");
    json_write_text(&writer, answer->path);
    json_write_key(&writer, "bytes");
    json_write_uint(&writer, answer->bytes);
    json_write_key(&writer, "seconds");
    json_write_double(&writer, answer->seconds);
    json_write_end(&writer);
    if (json_writer_ok(&writer)) {
        answer_text(request, 200, "application/json",
                    (struct span){.data = body.data, .size = body.size});
    } else {
        answer_error(request, 500, "Out of memory.");
    }
    buf_fini(&body);
}

void admin_answer_snapshot(struct request *request)
{
    const struct snapshot_answer *answer = request->snapshot;
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(request->worker->router->store, &stats);
    if (answer->status == HASHTRIE_OK) {
        answer_made(request, answer);
    } else if (!stats.up) {
        answer_error(request, 503, "No snapshot was made: the store is not open (%s).",
                     hashtrie_store_state_name(stats.state));
    } else {
        answer_error(request, answer->status == HASHTRIE_EFULL ? 503 : 500,
                     "No snapshot was made: %s.", hashtrie_strerror(answer->status));
    }
}

void request_drop_snapshot(struct request *request)
{
    mem_free(&request->worker->mem, request->snapshot, sizeof *request->snapshot);
    request->snapshot = NULL;
}
