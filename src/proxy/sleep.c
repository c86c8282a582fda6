#include "proxy/sleep.h"

#include "proxy/ids.h"
#include "proxy/queue.h"
#include "proxy/request.h"

bool sleep_read(struct request *request)
{
    struct router *router = request->worker->router;
    request->pin = path_parameter(request->target, "id");
    if (request->pin.size == 0) {
        answer_error(request, 400, "Invalid request: missing target Engine Id.");
        return false;
    }
    hashtrie_lock(router->trie);
    const struct backend *backend = backend_by_id(router, request->pin);
    int model = backend == NULL ? -1 : route_endpoint_model(router->fleet, backend->number, 0);
    hashtrie_unlock(router->trie);
    if (model < 0) {
        answer_error(
            request, 400, "Engine with Id %.*s not found.",
            (int)(request->pin.size < BACKEND_TEXT_MAX ? request->pin.size : BACKEND_TEXT_MAX),
            request->pin.data);
        return false;
    }
    request->model = (size_t)model;
    return true;
}

static void note(struct request *request, bool asleep)
{
    struct router *router = request->worker->router;
    size_t endpoint = request->choice.endpoint;
    hashtrie_lock(router->trie);
    if (asleep != route_endpoint_is_asleep(router->fleet, endpoint)) {
        route_endpoint_set_asleep(router->fleet, endpoint, asleep);
        if (!asleep) {
            route_endpoint_warm_up(router->fleet, endpoint, net_now_ns());
            queue_grant_all(router);
        }
    }
    hashtrie_unlock(router->trie);
    log_write(&request->worker->log, LOG_INFO,
              asleep ? "Engine %s sleeps: it gets no requests, its prefixes are kept"
                     : "Engine %s is awake",
              router->backends[endpoint]->url);
}

bool sleep_is_done(struct request *request)
{
    struct span path = path_of(request->target);
    bool asleep = span_is(path, "/sleep");
    if (request->path_kind != PATH_SLEEP || request->status / 100 != 2 ||
        !(asleep || span_is(path, "/wake_up"))) {
        return false; /* The client gets the engine's answer as it is. */
    }
    request_first_byte(request);
    net_timer_stop(request->timer);
    note(request, asleep);
    request_load_ended(request);
    request_drop_upstream(request, request->complete && request->reusable);
    answer_text(request, 200, "application/json", span_of("{\"status\":\"success\"}"));
    return true;
}
