/* What the files of this room share: the loop and its handles. libuv is seen here and nowhere else.
 */
#ifndef HASHTRIE_NET_INTERNAL_H
#define HASHTRIE_NET_INTERNAL_H

#include <uv.h>

#include "net/net.h"

struct net_loop {
    uv_loop_t uv;
    struct mem *mem; /* Borrowed. */
    uv_prepare_t prepare;
    uv_idle_t idle; /* Active while there is more to do: keeps the loop from waiting. */
    net_turn *on_turn;
    void *user;
    size_t streams_open;             /* For tests and the free check. */
    char read_space[NET_READ_BYTES]; /* Every read without a space of its own goes here. */
};

struct connecting; /* connect.c: lives while a stream is being connected. */

struct net_stream {
    uv_tcp_t tcp;
    struct net_loop *loop;
    const struct net_stream_events *events; /* Borrowed, static. NULL until set. */
    void *user;
    struct connecting *connecting; /* Owned; NULL once the connect is over. */
    bool tcp_open; /* `tcp` is a live handle: memory waits for its close callback. */
    bool reading;
    bool closed; /* The user has let go. */
};

enum net_status net_status_of(int uv_status); /* The only translation of libuv's numbers. */
struct net_stream *stream_new(struct net_loop *loop);
void stream_release(struct net_stream *stream); /* Frees it once nothing refers to it any more. */
void stream_tune(struct net_stream *stream);    /* Options of a connected socket. */
void stream_close_tcp(struct net_stream *stream);
void connecting_cancel(struct net_stream *stream);
/* Frees it once neither lookup, timer nor, after a close, the socket refers to it. */
void connecting_release(struct connecting *connecting);

#endif
