/* Paths that the router answers itself. */
#include "base/check.h"
#include "base/clock.h"
#include "json/json.h"
#include "proxy/conn.h"
#include "proxy/ids.h"
#include "proxy/request.h"
#include "proxy/scrape.h"

enum { ADMIN_BYTES_MAX = 4 * 1024 * 1024, SCRAPE_BYTES_MAX = 64 * 1024 * 1024 };

void admin_send_json(struct request *request, unsigned status, struct buf *body,
                     const struct json_writer *writer)
{
    if (json_writer_ok(writer)) {
        answer_text(request, status, "application/json",
                    (struct span){.data = body->data, .size = body->size});
    } else {
        answer_error(request, 500, "Out of memory.");
    }
}

static void serve_version(struct request *request, struct buf *body)
{
    struct json_writer writer;
    json_writer_init(&writer, body);
    json_write_object(&writer);
    json_write_key(&writer, "version");
    json_write_text(&writer, hashtrie_version());
    json_write_end(&writer);
    admin_send_json(request, 200, body, &writer);
}

static void write_model(struct json_writer *writer, const char *name, uint64_t created)
{
    json_write_object(writer);
    json_write_key(writer, "id");
    json_write_text(writer, name);
    json_write_key(writer, "object");
    json_write_text(writer, "model");
    json_write_key(writer, "created");
    json_write_uint(writer, created);
    json_write_key(writer, "owned_by");
    json_write_text(writer, "vllm");
    json_write_key(writer, "root");
    json_write_null(writer);
    json_write_key(writer, "parent");
    json_write_null(writer);
    json_write_end(writer);
}

/* Models that are served now, in the order in which they came; aliases are not listed. */
static void serve_models(struct request *request, struct buf *body)
{
    struct router *router = request->worker->router;
    struct json_writer writer;
    json_writer_init(&writer, body);
    json_write_object(&writer);
    json_write_key(&writer, "object");
    json_write_text(&writer, "list");
    json_write_key(&writer, "data");
    json_write_array(&writer);
    for (size_t i = 0; i < route_model_count(router->fleet); i++) {
        const char *name = route_model_name(router->fleet, i);
        if (name[0] != '\0' && route_model_is_served(router->fleet, i)) {
            write_model(&writer, name, router->start_unix_s);
        }
    }
    json_write_end(&writer);
    json_write_end(&writer);
    admin_send_json(request, 200, body, &writer);
}

/* Lock held. */
static void write_engine(struct json_writer *writer, const struct router *router,
                         const struct backend *backend)
{
    char id[BACKEND_TEXT_MAX + 1];
    backend_write_id(backend, id);
    json_write_object(writer);
    json_write_key(writer, "engine_id");
    json_write_text(writer, id);
    json_write_key(writer, "serving_models");
    json_write_array(writer);
    for (size_t i = 0; i < route_model_count(router->fleet); i++) {
        const char *name = route_model_name(router->fleet, i);
        if (name[0] != '\0' && route_serves(router->fleet, backend->number, i)) {
            json_write_text(writer, name);
        }
    }
    json_write_end(writer);
    json_write_key(writer, "created");
    json_write_uint(writer, router->start_unix_s);
    json_write_end(writer);
}

static void serve_engines(struct request *request, struct buf *body)
{
    struct router *router = request->worker->router;
    struct json_writer writer;
    json_writer_init(&writer, body);
    json_write_array(&writer);
    hashtrie_lock(router->trie);
    for (size_t i = 0; i < router->slot_count; i++) {
        const struct backend *backend = router->backends[i];
        if (backend != NULL && !atomic_load(&backend->gone)) {
            write_engine(&writer, router, backend);
        }
    }
    hashtrie_unlock(router->trie);
    json_write_end(&writer);
    admin_send_json(request, 200, body, &writer);
}

static void serve_metrics(struct request *request, struct buf *body)
{
    body->size_max = SCRAPE_BYTES_MAX;
    if (scrape_write(request->worker, body)) {
        answer_text(request, 200, METRICS_CONTENT_TYPE,
                    (struct span){.data = body->data, .size = body->size});
    } else {
        answer_error(request, 500, "Out of memory.");
    }
}

static const struct {
    const char *path;
    void (*serve)(struct request *request, struct buf *body);
} paths[] = {
    {"/health", health_serve},   {"/ready", health_serve_ready}, {"/version", serve_version},
    {"/metrics", serve_metrics}, {"/v1/models", serve_models},   {"/engines", serve_engines},
};

static const char snapshot_path[] = "/admin/snapshot";

static bool serve_admin(struct request *request, struct span method, struct span path)
{
    if (!span_is(path, snapshot_path)) {
        return false;
    }
    if (!admin_may(request)) {
        answer_error(request, 403,
                     "/admin/ is for loopback, or with the key of "
                     "--admin-key-file as a bearer token.");
    } else if (!span_is(method, "POST")) {
        answer_not_allowed(request, "POST");
    } else {
        admin_ask_snapshot(request);
    }
    return true;
}

/* What --admin-port has to itself is there alone, beside the probes. */
static bool is_served_at(const struct request *request, struct span path)
{
    bool own = path_is_below(path, "/admin") || span_is(path, "/metrics");
    if (request->conn->admin) {
        return own || span_is(path, "/health") || span_is(path, "/ready") ||
               span_is(path, "/version");
    }
    return !own || !request->worker->router->has_admin_port;
}

bool admin_serve(struct request *request, struct span method, struct span path)
{
    if (!is_served_at(request, path)) {
        return false;
    }
    if (serve_admin(request, method, path)) {
        return true;
    }
    if (path_is_below(path, "/v1/files") || path_is_below(path, "/v1/batches")) {
        answer_error(request, 501, "The batch API is not served by this router.");
        return true;
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (!span_is(path, paths[i].path)) {
            continue;
        }
        if (!span_is(method, "GET") && !span_is(method, "HEAD")) {
            answer_not_allowed(request, "GET");
            return true;
        }
        struct buf body;
        buf_init(&body, &request->worker->mem, ADMIN_BYTES_MAX);
        paths[i].serve(request, &body);
        buf_fini(&body);
        return true;
    }
    return false;
}

bool admin_has(struct span path)
{
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (span_is(path, paths[i].path)) {
            return true;
        }
    }
    return span_is(path, snapshot_path);
}
