/*
 * Connections to engines, kept alive between requests: one pool per loop and engine.
 *
 * An idle connection is dropped after --upstream-idle-timeout (engines close theirs after 5 s, and
 * a request that meets such a close has to be sent again) or a bit before the time that the engine
 * told in Keep-Alive, after as many requests as it told there, when the engine closes it, or when
 * it says something unasked.
 */
#ifndef HASHTRIE_PROXY_UPSTREAM_H
#define HASHTRIE_PROXY_UPSTREAM_H

#include "proxy/request.h"
#include "proxy/router.h"

struct upstream {
    struct list all;  /* In worker->upstreams, or worker->dead_upstreams. */
    struct list idle; /* In its pool while nobody uses it. */
    struct worker *worker;
    struct net_stream *stream; /* NULL: closed. */
    struct http_parser *parser;
    size_t endpoint;
    struct backend *backend; /* Held. */
    struct request *request; /* NULL: idle. */
    uint64_t made_ns;
    uint64_t idle_since_ns;
    uint64_t idle_limit_ns; /* It is not kept for longer. */
    size_t untaken;    /* Of the request, by the engine, when last looked at; SIZE_MAX: not yet. */
    uint64_t taken_ns; /* When that changed. */
    uint32_t served;   /* Requests on it, this one included. */
    uint32_t served_max;
    bool reused; /* Has carried a request before this one. */
    bool connected;
    bool got_bytes; /* Of the current answer. */
    bool ended;     /* The engine has closed its side. */
    bool paused;    /* Not read, because the client is slow. */
};

/*
 * An idle connection, or a new one that request_on_connected() will tell about; `fresh` asks for a
 * new one. NULL: no memory or descriptors.
 */
struct upstream *upstream_acquire(struct request *request, size_t endpoint, bool fresh);
/* What the engine says in its answer of how long the connection may be kept. */
void upstream_note_keep_alive(struct upstream *upstream, const struct http_head *head);
/* The request is done with it. */
void upstream_release(struct upstream *upstream, bool reusable);
void upstream_close(struct upstream *upstream);
void upstream_free(struct upstream *upstream); /* Closed before. */
void upstream_sweep(struct worker *worker, uint64_t now_ns);
/* It has taken nothing of what waits for it for --send-timeout. Called now and then. */
bool upstream_is_stuck(struct upstream *upstream, uint64_t now_ns);
void upstream_pause(struct upstream *upstream);
void upstream_resume(struct upstream *upstream);

#endif
