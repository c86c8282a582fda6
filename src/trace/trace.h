/*
 * Distributed traces: reading and writing `traceparent` (W3C Trace Context, version 00), and
 * sending spans to a collector (OTLP over HTTP, JSON encoding).
 */
#ifndef HASHTRIE_TRACE_TRACE_H
#define HASHTRIE_TRACE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/span.h"
#include "net/net.h"

enum {
    TRACE_PARENT_BYTES = 55,
    TRACE_ID_BYTES = 32,
    TRACE_PENDING_BYTES_MAX = 4 * 1024 * 1024, /* Spans that wait; later ones are dropped. */
    TRACE_ATTRIBUTES_MAX = 16,
};

#define TRACE_INTERVAL_NS (1000 * UINT64_C(1000000)) /* Spans wait so long for others. */
#define TRACE_TIMEOUT_NS  (10 * UINT64_C(1000000000))
#define TRACE_FLUSH_NS    (2 * UINT64_C(1000000000)) /* At the end. */

/* ---- Context: what goes along with a request ---- */

struct trace_context {
    uint64_t trace[2]; /* Not both 0. */
    uint64_t span;     /* The one of this process. */
    uint64_t parent;   /* 0: it began here. */
    bool sampled;
};

/* Goes on with the trace that `parent` (value of the header, empty: none) names, else begins one,
 * sampled. */
void trace_begin(struct trace_context *context, struct span parent, struct random *random);
/* The header for the next hop. */
void trace_write_parent(const struct trace_context *context, char out[TRACE_PARENT_BYTES]);
/* The trace's id alone, for logs. */
void trace_write_id(const struct trace_context *context, char out[TRACE_ID_BYTES]);

/* ---- Export ---- */

struct trace_attribute {
    const char *name;
    struct span text;
    uint64_t count; /* Where text.data is NULL. */
};

/* One request that was served; borrowed for the call. */
struct trace_span {
    const struct trace_context *context;
    struct span name;
    uint64_t begin_unix_ns;
    uint64_t first_byte_unix_ns; /* 0: none. */
    uint64_t end_unix_ns;
    bool failed;
    const struct trace_attribute *attributes;
    size_t attribute_count; /* At most TRACE_ATTRIBUTES_MAX. */
};

struct trace_exporter;

struct trace_exporter_options {
    const char *url;     /* Where to POST, such as http://collector:4318/v1/traces; copied. */
    const char *service; /* service.name; copied. */
    const char *version; /* service.version; copied. */
    /* On the loop, when sending begins to fail (`error` says why) and when it works again (NULL).
     */
    void (*on_change)(void *user, const char *error);
    void *user;
};

struct trace_stats {
    uint64_t sent;
    uint64_t dropped; /* No room, or the collector did not take them. */
};

/* On `loop`, whose thread makes, flushes and frees it. NULL: out of memory. */
struct trace_exporter *trace_exporter_new(struct net_loop *loop, struct mem *mem,
                                          const struct trace_exporter_options *options);
/* What waits is dropped. NULL is fine. */
void trace_exporter_free(struct trace_exporter *exporter);
/* Any thread. Not sampled: nothing. */
void trace_exporter_add(struct trace_exporter *exporter, const struct trace_span *span);
/* Runs the loop, which has been stopped, until all that waits is sent, at most TRACE_FLUSH_NS. */
void trace_exporter_flush(struct trace_exporter *exporter);
struct trace_stats trace_exporter_stats(struct trace_exporter *exporter); /* Any thread. */

#endif
