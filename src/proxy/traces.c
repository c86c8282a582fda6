#include "proxy/traces.h"

#include <stdio.h>

#include "hashtrie/status.h"

#include "base/clock.h"
#include "proxy/disagg.h"

enum { URL_BYTES_MAX = 1024, STATUS_SERVER_ERROR = 500 };

static void on_change(void *user, const char *error)
{
    struct router *router = user;
    struct log *log = &router->workers[0].log;
    if (error != NULL) {
        log_write(log, LOG_WARNING, "Traces cannot be sent to %s: %s",
                  router->config->otel_endpoint, error);
    } else {
        log_write(log, LOG_INFO, "Traces are sent to %s", router->config->otel_endpoint);
    }
}

/* Whatever --otel-endpoint leaves out: the scheme, the path that OTLP asks for. */
static bool make_url(struct router *router, char *url, size_t size)
{
    const char *given = router->config->otel_endpoint;
    bool has_scheme = strstr(given, "://") != NULL;
    const char *scheme = router->config->otel_secure ? "https://" : "http://";
    int length = snprintf(url, size, "%s%s", has_scheme ? "" : scheme, given);
    const char *error = "it is too long";
    struct http_url parts;
    if (length > 0 && (size_t)length < size && http_url_parse(span_of(url), &parts, &error)) {
        if (parts.path.size > 0) {
            return true;
        }
        while (url[length - 1] == '/') {
            length--;
        }
        int more = snprintf(url + length, size - (size_t)length, "/v1/traces");
        if ((size_t)length + (size_t)more < size) {
            return true;
        }
        error = "it is too long";
    }
    log_write(router->log, LOG_ERROR, "--otel-endpoint %s: %s", given, error);
    return false;
}

bool traces_start(struct router *router)
{
    char url[URL_BYTES_MAX];
    if (router->config->otel_endpoint == NULL) {
        return true;
    }
    if (!make_url(router, url, sizeof url)) {
        return false;
    }
    struct worker *first = &router->workers[0];
    struct trace_exporter_options options = {.url = url,
                                             .service = router->config->otel_service_name,
                                             .version = hashtrie_version(),
                                             .on_change = on_change,
                                             .user = router};
    router->traces = trace_exporter_new(first->loop, &first->mem, &options);
    if (router->traces == NULL) {
        log_write(router->log, LOG_ERROR, "Out of memory");
    }
    return router->traces != NULL;
}

void traces_flush(struct router *router)
{
    if (router->traces != NULL) {
        trace_exporter_flush(router->traces);
    }
}

void traces_stop(struct router *router)
{
    trace_exporter_free(router->traces);
    router->traces = NULL;
}

void traces_begin(struct request *request, const struct http_head *head)
{
    if (request->worker->router->traces != NULL) {
        trace_begin(&request->trace, http_header(head, "traceparent"), &request->worker->random);
    }
}

bool traces_write_parent(const struct request *request, struct buf *out)
{
    char parent[TRACE_PARENT_BYTES];
    trace_write_parent(&request->trace, parent);
    return http_write_header(out, span_of("traceparent"),
                             (struct span){.data = parent, .size = sizeof parent});
}

struct attributes {
    struct trace_attribute list[TRACE_ATTRIBUTES_MAX];
    size_t count;
};

static void add_text(struct attributes *to, const char *name, struct span text)
{
    to->list[to->count++] = (struct trace_attribute){.name = name, .text = text};
}

static void add_count(struct attributes *to, const char *name, uint64_t count)
{
    to->list[to->count++] = (struct trace_attribute){.name = name, .count = count};
}

static void describe(const struct request *request, struct attributes *to)
{
    const struct router *router = request->worker->router;
    add_text(to, "http.request.method", request->method);
    add_text(to, "url.path", path_of(request->target));
    add_count(to, "http.response.status_code", request->status);
    add_text(to, "hashtrie.request_id", request->id);
    if (!request->routed) {
        return;
    }
    add_text(to, "gen_ai.request.model", span_of(route_model_name(router->fleet, request->model)));
    add_text(to, "hashtrie.endpoint", span_of(router->backends[request->choice.endpoint]->url));
    add_text(to, "hashtrie.decision", span_of(route_outcome_name(request->choice.outcome)));
    add_count(to, "hashtrie.failed_tries", disagg_failed_tries(request));
    add_count(to, "hashtrie.prompt_bytes", request->prompt_bytes);
    add_count(to, "hashtrie.matched_bytes", request->choice.held_bytes);
    if (request->disagg != NULL && request->disagg->prefill_ns > 0) {
        const struct disagg *disagg = request->disagg;
        add_text(to, "hashtrie.prefill_endpoint",
                 span_of(router->backends[disagg->prefill.endpoint]->url));
        add_text(to, "hashtrie.prefill_decision",
                 span_of(route_outcome_name(disagg->prefill.outcome)));
        add_count(to, "hashtrie.prefill_matched_bytes", disagg->prefill.held_bytes);
        add_count(to, "hashtrie.prefill_milliseconds", disagg->prefill_ns / CLOCK_NS_PER_MS);
    }
}

void traces_end(const struct request *request)
{
    struct router *router = request->worker->router;
    if (router->traces == NULL) {
        return;
    }
    uint64_t now_ns = net_now_ns();
    uint64_t unix_ns = net_unix_ns();
    struct attributes attributes = {.count = 0};
    describe(request, &attributes);
    struct trace_span span = {
        .context = &request->trace,
        .name = request->method,
        .begin_unix_ns = unix_ns - (now_ns - request->begin_ns),
        .first_byte_unix_ns = request->answer_ns == 0 ? 0 : unix_ns - (now_ns - request->answer_ns),
        .end_unix_ns = unix_ns,
        .failed = request->cut || request->status >= STATUS_SERVER_ERROR,
        .attributes = attributes.list,
        .attribute_count = attributes.count,
    };
    trace_exporter_add(router->traces, &span);
}
