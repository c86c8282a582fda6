/* A client's connection: reads requests one after another, hands each to its state machine. */
#ifndef HASHTRIE_PROXY_CONN_H
#define HASHTRIE_PROXY_CONN_H

#include "proxy/request.h"
#include "proxy/router.h"

enum {
    CONN_PIPELINE_BYTES_MAX = 64 * 1024, /* Kept of later requests while one is worked on. */
    CONN_QUEUE_LOW = 4, /* That part of --connection-buffer-size waits: the engine is read again. */
    CONN_BODY_FIRST_BYTES =
        1024 * 1024,                  /* A Content-Length is believed so far; then bytes count. */
    CONN_BODY_READ_BYTES = 64 * 1024, /* One read of a body; what a limit may be passed by. */
};

struct conn {
    struct list link; /* In worker->conns, or worker->dead. */
    struct list pause_link;
    struct worker *worker;
    struct net_stream *stream; /* NULL: closed. */
    struct http_parser *parser;
    struct buf pending; /* Bytes of later requests. */
    struct request request;
    uint64_t address;    /* The client's: see net_stream_peer_key(). */
    uint64_t active_ns;  /* When bytes last moved: while they are worked on, it is now. */
    uint64_t head_ns;    /* When the head that comes in has begun; 0: none has. */
    uint64_t resumed_ns; /* When it was last read again after a pause. */
    size_t unread;       /* Of answers, by the client, at the last sweep. */
    bool parsing;        /* conn_parse() runs: whoever ends a request leaves the rest to it. */
    bool paused;         /* Not read, because too many bodies are in memory. */
    bool used;           /* A request has come on it. */
    bool admin;          /* Of --admin-port. */
    bool last;           /* No request is taken after this one, and its answer says so. */
    bool lingering;      /* All is written or queued; waits for the client to read it. */
    bool stuck;          /* Its client reads nothing: it ends with a reset. */
    bool peer_ended;     /* The client's side has ended while its answer was still queued. */
};

/* `user` is the worker. */
void conn_accept(void *user, struct net_stream *stream);
void conn_accept_admin(void *user, struct net_stream *stream);
/* At once; the request, if any, must have been finished. */
void conn_close(struct conn *conn);
void conn_cut(struct conn *conn); /* As a reset. */
/* Cancels what is going on, then closes. */
void conn_abort(struct conn *conn);
/* The same; an answer that is not out does not look whole. */
void conn_abort_cut(struct conn *conn);
/* Once the bytes are out. */
void conn_close_softly(struct conn *conn);
/* Nothing new is accepted: closes it if it was only kept for a next request, none of which is here.
 */
void conn_drain(struct conn *conn);
/* A request is under way or may come that has not got the first byte of its answer yet. */
bool conn_is_unsettled(const struct conn *conn);
/* The router ends: a request under way is told so, with an answer or an event if it can be. Closes
 * once that is out. True: there was one. */
bool conn_end(struct conn *conn);
void conn_free(struct conn *conn); /* Closed before. */
/* Timeouts; called now and then. */
void conn_sweep(struct conn *conn, uint64_t now_ns);
void conn_resume(struct conn *conn); /* Was paused. */

/* ---- For the request ---- */

/* False: the client is gone. Copies what the socket does not take at once. */
bool conn_write(struct conn *conn, const struct span *parts, size_t part_count);
bool conn_is_full(const struct conn *conn); /* More than --connection-buffer-size waits. */
/* The answer is complete: the next request may come, or the connection ends. */
void conn_request_done(struct conn *conn);
/* May the connection be used after the answer that is being made? If not, it is closed then. */
bool conn_keeps_alive(struct conn *conn);

#endif
