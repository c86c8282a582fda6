/* What a request leaves when it is over: a line in the log that tells its whole story, a span, and
 * its part of the statistics. */
#include "base/clock.h"
#include "proxy/backends.h"
#include "proxy/disagg.h"
#include "proxy/engines.h"
#include "proxy/traces.h"

enum { FIELDS_MAX = 24 };

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
    add_count(fields, "failed_tries", disagg_failed_tries(request));
    add_count(fields, "prompt_bytes", request->prompt_bytes);
    add_count(fields, "matched_bytes", request->choice.held_bytes);
}

static void add_prefill(struct fields *fields, const struct request *request)
{
    const struct disagg *disagg = request->disagg;
    const struct backend *backend = request->worker->router->backends[disagg->prefill.endpoint];
    add_text(fields, "prefill_endpoint", span_of(backend->url));
    add_text(fields, "prefill_decision", span_of(route_outcome_name(disagg->prefill.outcome)));
    add_count(fields, "prefill_matched_bytes", disagg->prefill.held_bytes);
    add_seconds(fields, "prefill_seconds", disagg->prefill_ns);
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
    if (request->disagg != NULL && request->disagg->prefill_ns > 0) {
        add_prefill(&fields, request);
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

const char *request_why_cut(const struct request *request)
{
    return request->timed_out ? "nothing more of it in time" : net_status_text(request->failure);
}

/* What a request that was routed leaves in the statistics. */
static void count_end(struct request *request)
{
    struct stats *stats = &request->worker->stats;
    if (request->client_gone) {
        stats_add(&stats->cancelled, 1);
    }
    if (!request->routed || request->client_gone) {
        return;
    }
    struct stats_series *series = request->series;
    if (series == NULL) {
        return;
    }
    double seconds = (double)(net_now_ns() - request->begin_ns) / 1e9;
    metrics_histogram_observe(request->complete ? &series->success : &series->error, seconds);
    if (request->complete) {
        double held = (double)request->choice.held_bytes;
        meter_count(&request->meter,
                    request->prompt_bytes > 0 ? held / (double)request->prompt_bytes : 0);
    }
    if (request->failed && request->answering) {
        if (!request->blamed) {
            engines_failed(request->worker, request->choice.endpoint);
        }
        enum stats_error error =
            request->timed_out ? STATS_IDLE_TIMEOUT : stats_error_of(request->failure, false);
        stats_add(&series->errors[error], 1);
        log_write(&request->worker->log, LOG_WARNING,
                  "Request %s: %s failed in the middle of its answer: %s", request->log_id,
                  request->worker->router->backends[request->choice.endpoint]->url,
                  request_why_cut(request));
    }
}

void request_report_end(struct request *request)
{
    count_end(request);
    if (request->path_kind != PATH_LOCAL) {
        log_end(request);
        traces_end(request);
    }
}
