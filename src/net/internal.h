/* What the files of this room share: the loop and its handles. libuv is seen here and nowhere else.
 */
#ifndef HASHTRIE_NET_INTERNAL_H
#define HASHTRIE_NET_INTERNAL_H

#include <openssl/ssl.h>
#include <uv.h>

#include "base/list.h"
#include "net/net.h"

enum { TLS_RECORD_BYTES = 16 * 1024 };

struct net_loop {
    uv_loop_t uv;
    struct mem *mem; /* Borrowed. */
    uv_prepare_t prepare;
    uv_idle_t idle;             /* Active while there is more to do: keeps the loop from waiting. */
    uv_timer_t handshake_timer; /* When the first of `handshakes` is due. */
    struct list handshakes;     /* struct tls.handshake_link of clients, the oldest first. */
    struct list ready;          /* struct tls.ready_link: something can be read of them. */
    struct list sessions;       /* Of servers: see sessions.c. Youngest last. */
    size_t session_count;
    net_turn *on_turn;
    void *user;
    size_t streams_open;                 /* For tests and the free check. */
    char read_space[NET_READ_BYTES];     /* Every read without a space of its own goes here. */
    char record_space[TLS_RECORD_BYTES]; /* Pieces that become one TLS record. */
};

struct tls;        /* tls.c: what a stream over TLS has besides. */
struct connecting; /* connect.c: lives while a stream is being connected. */

struct net_stream {
    uv_tcp_t tcp;
    struct net_loop *loop;
    const struct net_stream_events *events; /* Borrowed, static. NULL until set. */
    void *user;
    struct connecting *connecting; /* Owned; NULL once the connect is over. */
    struct tls *tls;               /* Owned; NULL: plain. */
    bool tcp_open; /* `tcp` is a live handle: memory waits for its close callback. */
    bool reading;
    bool closed; /* The user has let go. */
};

enum net_status net_status_of(int uv_status); /* The only translation of libuv's numbers. */
struct net_stream *stream_new(struct net_loop *loop);
void stream_release(struct net_stream *stream); /* Frees it once nothing refers to it any more. */
void stream_tune(struct net_stream *stream);    /* Options of a connected socket. */
void stream_close_tcp(struct net_stream *stream);
bool stream_descriptor(const struct net_stream *stream, int *out);
/* For the socket, in front of TLS: as net_stream_write(). */
enum net_status stream_send(struct net_stream *stream, uv_buf_t *parts, size_t part_count,
                            enum net_keep keep);
size_t stream_unsent(const struct net_stream *stream); /* Of these, not yet taken. */
char *stream_without_const(const char *bytes);         /* For a uv_buf_t that is written. */
/* What has come. -1: nothing yet. 0: `status` tells how it ended. */
ssize_t stream_receive(const struct net_stream *stream, char *space, size_t size,
                       enum net_status *status);
/* Where the next bytes are read to. */
void stream_space(struct net_stream *stream, char **space, size_t *size);
/* The socket's side of reading: whether it is told that something can be read. */
enum net_status stream_watch(struct net_stream *stream);
void stream_unwatch(struct net_stream *stream);

struct shutdown;
enum net_status stream_shut(struct net_stream *stream, struct shutdown *shutdown); /* Takes it. */
void shutdown_free(struct net_stream *stream, struct shutdown *shutdown);

/* ---- tls.c: a stream's TLS ---- */

/* Before the handshake, once the socket is connected. `peer` NULL: the other side is the client. */
enum net_status tls_begin(struct net_stream *stream, struct net_tls *context,
                          const struct net_address *peer);
void tls_on_readable(struct net_stream *stream);
void tls_on_sent(struct net_stream *stream, enum net_status status); /* What had waited. */
enum net_status tls_read_start(struct net_stream *stream);
void tls_read_stop(struct net_stream *stream);
enum net_status tls_write(struct net_stream *stream, const struct span *parts, size_t part_count,
                          enum net_keep keep);
size_t tls_queued(const struct net_stream *stream); /* Plain bytes. */
enum net_status tls_shutdown(struct net_stream *stream, struct shutdown *shutdown); /* Takes it. */
bool tls_has_bytes(const struct net_stream *stream); /* That were read, but not by the user. */
bool tls_has_ended(const struct net_stream *stream);
/* Frees it. `notice`: the peer is told, if all that was written has gone out. */
void tls_end(struct net_stream *stream, bool notice);
void tls_loop_init(struct net_loop *loop);
void tls_loop_fini(struct net_loop *loop);  /* Before its handles are waited for. */
void tls_read_ready(struct net_loop *loop); /* Those of `ready`. */

void tls_keep_session(struct net_stream *stream, SSL_SESSION *session); /* Takes it. */
BIO_METHOD *tls_bio_method_new(void);                                   /* NULL: out of memory. */

/* ---- context.c ---- */

/* A new SSL, and which load of the files it is from. NULL: out of memory. */
SSL *tls_context_new_ssl(struct net_tls *context, uint64_t *generation);
const BIO_METHOD *tls_context_bio(const struct net_tls *context);
uint64_t tls_context_handshake_ns(const struct net_tls *context);
void tls_context_count(struct net_tls *context, enum net_status status, bool resumed);

/* ---- sessions.c: sessions of servers, by address ---- */

/* The connection may go on where an earlier one to `peer` ended. */
void session_resume(struct net_loop *loop, SSL *ssl, const struct net_address *peer,
                    uint64_t generation);
/* Takes `session`. */
void session_keep(struct net_loop *loop, SSL_SESSION *session, const struct net_address *peer,
                  uint64_t generation);
void sessions_drop(struct net_loop *loop);

void connecting_cancel(struct net_stream *stream);
/* The TLS handshake of a connect is over. */
void connecting_secured(struct net_stream *stream, enum net_status status);
/* Frees it once neither lookup, timer nor, after a close, the socket refers to it. */
void connecting_release(struct connecting *connecting);

#endif
