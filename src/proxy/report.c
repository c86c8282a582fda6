/* What a request leaves when it is over: a line in the log that tells its whole story, and a span.
 */
#include "base/clock.h"
#include "proxy/request.h"
#include "proxy/traces.h"

enum { FIELDS_MAX = 16 };

struct fields {
    struct log_field list[FIELDS_MAX];
    size_t count;
};

static void add_text(struct fields *fields, const char *name, struct span text)
{
    fields->list[fields->count++] =
        (struct log_field){.name = name, .kind = LOG_FIELD_TEXT, .text = text};
}

static void add_count(struct fields *fields, const char *name, uint64_t count)
{
    fields->list[fields->count++] =
        (struct log_field){.name = name, .kind = LOG_FIELD_COUNT, .count = count};
}

static void add_seconds(struct fields *fields, const char *name, uint64_t nanoseconds)
{
    fields->list[fields->count++] =
        (struct log_field){.name = name, .kind = LOG_FIELD_SECONDS, .count = nanoseconds};
}

static const char *end_name(const struct request *request)
{
    if (request->client_gone) {
        return "client-gone";
    }
    if (request->cut) {
        return "cut";
    }
    return request->complete ? "complete" : "answered-here";
}

static void add_route(struct fields *fields, const struct request *request)
{
    const struct router *router = request->worker->router;
    add_text(fields, "model", span_of(route_model_name(router->fleet, request->model)));
    add_text(fields, "endpoint", span_of(router->backends[request->choice.endpoint]->url));
    add_text(fields, "decision", span_of(route_outcome_name(request->choice.outcome)));
    add_count(fields, "failed_tries", request->excluded_count);
    add_count(fields, "prompt_bytes", request->prompt_bytes);
    add_count(fields, "matched_bytes", request->choice.held_bytes);
}

static void log_end(const struct request *request)
{
    struct log *log = &request->worker->log;
    if (log->level < LOG_INFO) {
        return;
    }
    struct fields fields = {.count = 0};
    add_text(&fields, "id", span_of(request->log_id));
    add_count(&fields, "status", request->status);
    add_text(&fields, "end", span_of(end_name(request)));
    char trace[TRACE_ID_BYTES];
    if (request->worker->router->traces != NULL) {
        trace_write_id(&request->trace, trace);
        add_text(&fields, "trace_id", (struct span){.data = trace, .size = sizeof trace});
    }
    if (request->routed) {
        add_route(&fields, request);
    }
    if (request->waited_ns > 0) {
        add_seconds(&fields, "queue_seconds", request->waited_ns);
    }
    if (request->answer_ns > 0) {
        add_seconds(&fields, "first_byte_seconds", request->answer_ns - request->begin_ns);
    }
    add_seconds(&fields, "seconds", net_now_ns() - request->begin_ns);
    add_count(&fields, "answer_bytes", request->answer_bytes);
    log_event(log, LOG_INFO, "Request ended", fields.list, fields.count);
}

void request_report_end(const struct request *request)
{
    if (request->path_kind != PATH_LOCAL) {
        log_end(request);
        traces_end(request);
    }
}
