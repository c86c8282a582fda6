/*
 * Spans wait in `pending`, written as JSON already, and are sent together: once a second, one POST
 * at a time. What the collector does not take for now (no connection, 429, 502 to 504) is sent
 * again with what has come meanwhile; anything else it refuses is dropped.
 */
#include <pthread.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "fetch/fetch.h"
#include "json/json.h"
#include "trace/trace.h"

enum {
    KIND_SERVER = 2,
    STATUS_ERROR = 2,
    FRAME_BYTES_MAX = 4096, /* What stands around the spans. */
    ANSWER_BYTES_MAX = 64 * 1024,
    NUMBER_BYTES = 24,
};

struct trace_exporter {
    struct mem *mem;       /* Borrowed: the loop's. */
    struct net_loop *loop; /* Borrowed. */
    struct fetcher *fetcher;
    struct net_timer *timer;
    struct fetch *fetch; /* Under way; NULL: none. */
    char *url;
    size_t url_bytes;
    void (*on_change)(void *user, const char *error);
    void *user;
    struct buf prefix; /* Of each body. */
    struct buf body;   /* Being sent, or to be sent again. */
    struct span sent;  /* What is posted of it. */
    uint64_t body_span_count;
    bool failing;
    bool flushing;

    pthread_mutex_t mutex; /* Of what follows. */
    struct mem spans_mem;
    struct buf pending;
    uint64_t pending_count;
    struct trace_stats stats;
};

static const char suffix[] = "]}]}]}";

/* ---- Spans as JSON ---- */

static void write_hex_member(struct json_writer *writer, const char *name, const char *text,
                             size_t size)
{
    json_write_key(writer, name);
    json_write_string(writer, (struct span){.data = text, .size = size});
}

/* 64-bit numbers are strings in OTLP's JSON. */
static void write_number_text(struct json_writer *writer, const char *name, uint64_t number)
{
    char text[NUMBER_BYTES];
    int size = snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    write_hex_member(writer, name, text, (size_t)size);
}

static void write_attribute(struct json_writer *writer, const struct trace_attribute *attribute)
{
    json_write_object(writer);
    json_write_key(writer, "key");
    json_write_text(writer, attribute->name);
    json_write_key(writer, "value");
    json_write_object(writer);
    if (attribute->text.data != NULL) {
        json_write_key(writer, "stringValue");
        json_write_string(writer, attribute->text);
    } else {
        write_number_text(writer, "intValue", attribute->count);
    }
    json_write_end(writer);
    json_write_end(writer);
}

static void write_ids(struct json_writer *writer, const struct trace_context *context)
{
    char parent[TRACE_PARENT_BYTES];
    struct trace_context named = *context;
    trace_write_parent(&named, parent);
    write_hex_member(writer, "traceId", parent + 3, TRACE_ID_BYTES);
    write_hex_member(writer, "spanId", parent + 36, 16);
    if (context->parent != 0) {
        named.span = context->parent;
        trace_write_parent(&named, parent);
        write_hex_member(writer, "parentSpanId", parent + 36, 16);
    }
}

static void write_first_byte(struct json_writer *writer, uint64_t unix_ns)
{
    json_write_key(writer, "events");
    json_write_array(writer);
    json_write_object(writer);
    write_number_text(writer, "timeUnixNano", unix_ns);
    json_write_key(writer, "name");
    json_write_text(writer, "first byte");
    json_write_end(writer);
    json_write_end(writer);
}

static bool write_span(struct buf *out, const struct trace_span *span)
{
    struct json_writer writer;
    json_writer_init(&writer, out);
    json_write_object(&writer);
    write_ids(&writer, span->context);
    json_write_key(&writer, "name");
    json_write_string(&writer, span->name);
    json_write_key(&writer, "kind");
    json_write_int(&writer, KIND_SERVER);
    write_number_text(&writer, "startTimeUnixNano", span->begin_unix_ns);
    write_number_text(&writer, "endTimeUnixNano", span->end_unix_ns);
    json_write_key(&writer, "attributes");
    json_write_array(&writer);
    for (size_t i = 0; i < span->attribute_count; i++) {
        write_attribute(&writer, &span->attributes[i]);
    }
    json_write_end(&writer);
    if (span->first_byte_unix_ns > 0) {
        write_first_byte(&writer, span->first_byte_unix_ns);
    }
    if (span->failed) {
        json_write_key(&writer, "status");
        json_write_object(&writer);
        json_write_key(&writer, "code");
        json_write_int(&writer, STATUS_ERROR);
        json_write_end(&writer);
    }
    json_write_end(&writer);
    return json_writer_ok(&writer);
}

void trace_exporter_add(struct trace_exporter *exporter, const struct trace_span *span)
{
    if (!span->context->sampled) {
        return;
    }
    pthread_mutex_lock(&exporter->mutex);
    struct buf *out = &exporter->pending;
    size_t before = out->size;
    if ((before == 0 || buf_append_text(out, ",")) && write_span(out, span)) {
        exporter->pending_count++;
    } else {
        out->size = before;
        exporter->stats.dropped++;
    }
    pthread_mutex_unlock(&exporter->mutex);
}

struct trace_stats trace_exporter_stats(struct trace_exporter *exporter)
{
    pthread_mutex_lock(&exporter->mutex);
    struct trace_stats stats = exporter->stats;
    pthread_mutex_unlock(&exporter->mutex);
    return stats;
}

/* ---- Sending ---- */

static void count(struct trace_exporter *exporter, bool taken)
{
    pthread_mutex_lock(&exporter->mutex);
    *(taken ? &exporter->stats.sent : &exporter->stats.dropped) += exporter->body_span_count;
    pthread_mutex_unlock(&exporter->mutex);
    exporter->body.size = 0;
    exporter->body_span_count = 0;
}

static void tell(struct trace_exporter *exporter, const char *error)
{
    bool failing = error != NULL;
    if (failing != exporter->failing) {
        exporter->failing = failing;
        exporter->on_change(exporter->user, error);
    }
}

/* False: there is nothing to send. */
static bool fill_body(struct trace_exporter *exporter)
{
    struct buf *body = &exporter->body;
    if (body->size > 0) {
        return true; /* Once more. */
    }
    pthread_mutex_lock(&exporter->mutex);
    struct buf *pending = &exporter->pending;
    bool any = pending->size > 0;
    bool fits = any && buf_append(body, exporter->prefix.data, exporter->prefix.size) &&
                buf_append(body, pending->data, pending->size) && buf_append_text(body, suffix);
    if (fits) {
        exporter->body_span_count = exporter->pending_count;
    } else {
        body->size = 0;
        exporter->stats.dropped += exporter->pending_count;
    }
    pending->size = 0;
    exporter->pending_count = 0;
    pthread_mutex_unlock(&exporter->mutex);
    return fits;
}

static bool on_bytes(void *user, const char *bytes, size_t size)
{
    (void)user; /* What the collector says beyond its status is not read. */
    (void)bytes;
    (void)size;
    return true;
}

static bool is_passing(unsigned status)
{
    return status == 429 || (status >= 502 && status <= 504);
}

static void on_done(void *user, unsigned status, const char *error)
{
    struct trace_exporter *exporter = user;
    char text[64];
    exporter->fetch = NULL;
    bool taken = error == NULL && status >= 200 && status < 300;
    if (!taken && error == NULL) {
        (void)snprintf(text, sizeof text, "it answers with status %u", status);
        error = text;
    }
    if (taken || (status != 0 && !is_passing(status))) {
        count(exporter, taken);
    }
    tell(exporter, taken ? NULL : error);
    if (exporter->flushing) {
        net_loop_stop(exporter->loop);
    }
}

static bool send(struct trace_exporter *exporter)
{
    static const char *const headers[] = {"Content-Type: application/json", "Expect:", NULL};
    if (exporter->fetch != NULL || !fill_body(exporter)) {
        return exporter->fetch != NULL;
    }
    exporter->sent = (struct span){.data = exporter->body.data, .size = exporter->body.size};
    struct fetch_options options = {.url = exporter->url,
                                    .headers = headers,
                                    .body = &exporter->sent,
                                    .timeout_ns = TRACE_TIMEOUT_NS,
                                    .head_bytes_max = ANSWER_BYTES_MAX,
                                    .body_bytes_max = ANSWER_BYTES_MAX,
                                    .on_bytes = on_bytes,
                                    .on_done = on_done,
                                    .user = exporter};
    exporter->fetch = fetch_begin(exporter->fetcher, &options);
    return exporter->fetch != NULL;
}

static void on_timer(void *user)
{
    struct trace_exporter *exporter = user;
    if (exporter->flushing) {
        net_loop_stop(exporter->loop);
        return;
    }
    (void)send(exporter); /* Out of memory: in a second again. */
    net_timer_start(exporter->timer, TRACE_INTERVAL_NS);
}

void trace_exporter_flush(struct trace_exporter *exporter)
{
    exporter->flushing = true;
    uint64_t end_ns = net_now_ns() + TRACE_FLUSH_NS;
    while (!(exporter->failing && exporter->fetch == NULL) && net_now_ns() < end_ns &&
           send(exporter)) {
        net_timer_start(exporter->timer, end_ns - net_now_ns());
        net_loop_run(exporter->loop);
    }
}

/* ---- Life ---- */

static void write_text_attribute(struct json_writer *writer, const char *name, const char *text)
{
    write_attribute(writer, &(struct trace_attribute){.name = name, .text = span_of(text)});
}

/* {"resourceSpans":[{"resource":{"attributes":[...]},"scopeSpans":[{"scope":{...},"spans":[ */
static bool write_prefix(struct buf *out, const struct trace_exporter_options *options)
{
    struct json_writer writer;
    if (!buf_append_text(out, "{\"resourceSpans\":[{\"resource\":")) {
        return false;
    }
    json_writer_init(&writer, out);
    json_write_object(&writer);
    json_write_key(&writer, "attributes");
    json_write_array(&writer);
    write_text_attribute(&writer, "service.name", options->service);
    write_text_attribute(&writer, "service.version", options->version);
    json_write_end(&writer);
    json_write_end(&writer);
    return json_writer_ok(&writer) &&
           buf_append_text(out, ",\"scopeSpans\":[{\"scope\":{\"name\":\"hashtrie-router\"},"
                                "\"spans\":[");
}

struct trace_exporter *trace_exporter_new(struct net_loop *loop, struct mem *mem,
                                          const struct trace_exporter_options *options)
{
    struct trace_exporter *exporter = mem_alloc(mem, sizeof *exporter);
    if (exporter == NULL) {
        return NULL;
    }
    *exporter = (struct trace_exporter){.mem = mem,
                                        .loop = loop,
                                        .on_change = options->on_change,
                                        .user = options->user,
                                        .url_bytes = strlen(options->url) + 1};
    pthread_mutex_init(&exporter->mutex, NULL);
    mem_init(&exporter->spans_mem, SIZE_MAX);
    buf_init(&exporter->prefix, mem, FRAME_BYTES_MAX);
    buf_init(&exporter->body, mem, TRACE_PENDING_BYTES_MAX + FRAME_BYTES_MAX + sizeof suffix);
    buf_init(&exporter->pending, &exporter->spans_mem, TRACE_PENDING_BYTES_MAX);
    exporter->url = mem_alloc(mem, exporter->url_bytes);
    exporter->fetcher = fetcher_new(loop, mem);
    exporter->timer = net_timer_new(loop, on_timer, exporter);
    if (exporter->url == NULL || exporter->fetcher == NULL || exporter->timer == NULL ||
        !write_prefix(&exporter->prefix, options)) {
        trace_exporter_free(exporter);
        return NULL;
    }
    memcpy(exporter->url, options->url, exporter->url_bytes);
    net_timer_start(exporter->timer, TRACE_INTERVAL_NS);
    return exporter;
}

void trace_exporter_free(struct trace_exporter *exporter)
{
    if (exporter == NULL) {
        return;
    }
    if (exporter->fetch != NULL) {
        fetch_cancel(exporter->fetch);
    }
    fetcher_free(exporter->fetcher);
    net_timer_close(exporter->timer);
    mem_free(exporter->mem, exporter->url, exporter->url_bytes);
    buf_fini(&exporter->prefix);
    buf_fini(&exporter->body);
    buf_fini(&exporter->pending);
    mem_fini(&exporter->spans_mem);
    pthread_mutex_destroy(&exporter->mutex);
    mem_free(exporter->mem, exporter, sizeof *exporter);
}
