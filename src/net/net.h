/*
 * Loops, sockets, timers, signals: the only room that knows libuv, and no libuv shows through.
 *
 * A loop belongs to one thread. Everything made on it is used on that thread only, except
 * net_wake_send(). Nothing calls back synchronously: callbacks come from net_loop_run() alone, each
 * with the `user` pointer that was given. After a ..._close() nothing calls back any more, and the
 * pointer must not be used again; its memory is freed when the loop has let go of it.
 *
 * All memory is charged to the `struct mem` of the loop, but for what OpenSSL takes for itself.
 *
 * tests/sim implements this header a second time, on virtual time: a new function goes there, too.
 */
#ifndef HASHTRIE_NET_NET_H
#define HASHTRIE_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/span.h"

enum {
    NET_READ_BYTES = 128 * 1024, /* The loop's own read buffer: one read brings at most this. */
    NET_WRITE_PARTS_MAX = 16,    /* Pieces of one write. */
    NET_HOST_BYTES_MAX = 255,    /* DNS allows 253. */
    NET_TRIES_MAX = 8,           /* Addresses of one name that a connect tries. */
    NET_SESSIONS_MAX = 256,      /* TLS sessions that a loop keeps, to come back to servers fast. */
    NET_PROBLEM_BYTES = 512,     /* A line that says what is wrong with a file. */
};

#define NET_HANDSHAKE_NS UINT64_C(10000000000) /* A client has to be done with it by then. */

/* How something ended. The one place that knows libuv's numbers is errors.c. */
#define NET_STATUS_MAP(X)                                         \
    X(OK, "success")                                              \
    X(EOF, "the peer closed the connection")                      \
    X(REFUSED, "connection refused")                              \
    X(RESET, "connection reset")                                  \
    X(TIMED_OUT, "timed out")                                     \
    X(UNREACHABLE, "no route to the host")                        \
    X(NO_NAME, "the host name was not found")                     \
    X(IN_USE, "the address is in use")                            \
    X(NO_ADDRESS, "no such address on this machine")              \
    X(DENIED, "permission denied")                                \
    X(NO_FILES, "too many open files")                            \
    X(NO_MEMORY, "out of memory")                                 \
    X(CANCELLED, "cancelled")                                     \
    X(INVALID, "invalid argument")                                \
    X(FAILED, "input/output error")                               \
    X(CUT, "closed without TLS's closing notice")                 \
    X(NOT_TLS, "what it says is not TLS")                         \
    X(TLS_FAILED, "the TLS connection failed")                    \
    X(REJECTED, "the peer refused the TLS connection")            \
    X(NO_CERTIFICATE, "the peer showed no certificate")           \
    X(UNTRUSTED, "its certificate is from no trusted authority")  \
    X(EXPIRED, "its certificate has expired or is not valid yet") \
    X(OTHER_NAME, "its certificate is for another name")          \
    X(BAD_CERTIFICATE, "its certificate is not accepted")

enum net_status {
#define NET_STATUS_ENUM(name, text) NET_##name,
    NET_STATUS_MAP(NET_STATUS_ENUM)
#undef NET_STATUS_ENUM
};

const char *net_status_text(enum net_status status); /* Never NULL. */
const char *net_status_name(enum net_status status); /* "RESET": for labels and logs. */

/* ---- Loops ---- */

struct net_loop;

/* Called once a turn, before the loop waits. True: do not wait, there is more to do. */
typedef bool net_turn(void *user);

struct net_loop *net_loop_new(struct mem *mem); /* NULL: no memory or no descriptors. */
/* Everything on it must have been closed; lets go of it all, then frees the loop. NULL is fine. */
void net_loop_free(struct net_loop *loop);
void net_loop_on_turn(struct net_loop *loop, net_turn *on_turn, void *user);
void net_loop_run(struct net_loop *loop);  /* Until net_loop_stop(). */
void net_loop_stop(struct net_loop *loop); /* From a callback: the last turn is this one. */

uint64_t net_now_ns(void);  /* Monotonic. */
uint64_t net_unix_ns(void); /* Wall clock. */

/* ---- Waking a loop from other threads ---- */

struct net_wake;

struct net_wake *net_wake_new(struct net_loop *loop, void (*on_wake)(void *user), void *user);
/* Any thread, until net_wake_close(). Several sends may come as one call. */
void net_wake_send(struct net_wake *wake);
void net_wake_close(struct net_wake *wake); /* NULL is fine, as in every close below. */

/* ---- Timers ---- */

struct net_timer;

struct net_timer *net_timer_new(struct net_loop *loop, void (*on_timer)(void *user), void *user);
/* Once, after at least so long (rounded up to 1 ms); replaces an earlier start. */
void net_timer_start(struct net_timer *timer, uint64_t delay_ns);
void net_timer_stop(struct net_timer *timer);
void net_timer_close(struct net_timer *timer);

/* ---- Signals ---- */

struct net_signal;

struct net_signal *net_signal_new(struct net_loop *loop, int number,
                                  void (*on_signal)(void *user, int number), void *user);
void net_signal_close(struct net_signal *signal);

/* ---- Folders ---- */

struct net_watch;

/* `on_change`: something in the folder was made, written, renamed or removed. NULL: no memory. */
struct net_watch *net_watch_new(struct net_loop *loop, void (*on_change)(void *user), void *user);
/* Watches that folder from now on, or again. False: the kernel cannot. Changes that it does not see
 * (network file systems) are not told. */
bool net_watch_start(struct net_watch *watch, const char *folder);
void net_watch_close(struct net_watch *watch);

/* ---- Descriptors of others ---- */

/* Watches a descriptor that another library reads, writes and closes. */
struct net_poll;

enum { NET_READABLE = 1, NET_WRITABLE = 2, NET_BROKEN = 4 }; /* Bits. */

typedef void net_poll_ready(void *user, unsigned events);

/* `fd` must stay open until net_poll_close(), and be watched once only. */
struct net_poll *net_poll_new(struct net_loop *loop, int fd, net_poll_ready *on_ready, void *user);
/* What to tell of from now on, again and again while it is so; 0: nothing. False: failed. */
bool net_poll_set(struct net_poll *poll, unsigned events);
void net_poll_close(struct net_poll *poll); /* `fd` may be closed right afterwards. */

/* ---- TLS ---- */

/*
 * What one side of TLS connections is set up with: certificates, keys, whom it trusts. TLS 1.2 and
 * 1.3, ALPN http/1.1, sessions resumed by tickets, no renegotiation. May be used on any thread;
 * streams keep what they began with when it is loaded anew.
 *
 * A stream over TLS keeps all that is promised below. Its end is NET_EOF only where the peer has
 * said so within TLS: a connection that was closed without is NET_CUT. What is queued counts as it
 * waits: plain bytes, or the last of them enciphered.
 */
struct net_tls;

enum net_tls_clients { NET_TLS_ANYBODY, NET_TLS_ASK, NET_TLS_CERTIFIED };

/* Names of PEM files; borrowed until net_tls_free(). */
struct net_tls_options {
    bool server;
    const char *cert_file; /* With its chain; a server needs one. NULL: none. */
    const char *key_file;  /* NULL: in cert_file. */
    const char *ca_file;   /* Who is trusted. NULL: a client trusts the system's authorities. */
    enum net_tls_clients clients; /* A server's: whether their certificates are asked for. */
    uint64_t handshake_ns; /* What a client has for it; alike for all of a loop. 0: as above. */
};

/* NULL: `problem` says what is wrong with which file, in one line. */
struct net_tls *net_tls_new(struct mem *mem, const struct net_tls_options *options,
                            char problem[NET_PROBLEM_BYTES]);
/* Reads the files again. False: `problem` says why, and all stays as it is. One thread at a time.
 */
bool net_tls_reload(struct net_tls *tls, char problem[NET_PROBLEM_BYTES]);
void net_tls_free(struct net_tls *tls); /* All that used it is closed, and its loop freed. */

/* Since the start. */
struct net_tls_stats {
    uint64_t handshakes;          /* That came to their end, ... */
    uint64_t resumed;             /* ... by a session of before. */
    uint64_t failures;            /* Handshakes that did not, ... */
    enum net_status last_failure; /* ... and why the last of them did not. */
};
struct net_tls_stats net_tls_get_stats(struct net_tls *tls);

/* ---- Addresses ---- */

/* Literal addresses are used as they are; names are looked up at each connect. */
struct net_address {
    char host[NET_HOST_BYTES_MAX + 1]; /* Name or literal address, IPv6 without brackets. */
    uint16_t port;
    struct net_tls *tls; /* Borrowed. Connect with TLS, to who proves to be `host`. NULL: plain. */
};

/* For plain connections. False: the host is empty or too long, or the port is 0. */
bool net_address_set(struct net_address *address, const char *host, size_t host_size,
                     unsigned port);

/* ---- Streams ---- */

struct net_stream;

/* All on the stream's loop, with the stream's user pointer. */
struct net_stream_events {
    /*
     * Optional. Where the next bytes shall go, and how many at most: given are the loop's own
     * buffer and its size. May take less of it, or name memory that stays until on_read comes.
     */
    void (*on_space)(void *user, char **space, size_t *size);
    /* size > 0. `bytes` in the loop's own buffer are gone when it returns. */
    void (*on_read)(void *user, const char *bytes, size_t size);
    /* The peer will send no more (NET_EOF), or reading failed. Comes once. */
    void (*on_end)(void *user, enum net_status status);
    /* A write that had to wait is done, or failed. net_stream_queued() tells what still waits. */
    void (*on_written)(void *user, enum net_status status);
};

/*
 * A connection that is being made: on_connected comes exactly once, unless it is closed before.
 * After a failure the stream can only be closed. NULL: out of memory or descriptors.
 */
struct net_stream *net_connect(struct net_loop *loop, const struct net_address *address,
                               void (*on_connected)(void *user, enum net_status status),
                               void *user);

/* `events` is borrowed, static. Before reading or writing; again to hand the stream on. */
void net_stream_set_events(struct net_stream *stream, const struct net_stream_events *events,
                           void *user);
enum net_status net_stream_read_start(struct net_stream *stream); /* Started twice: fine. */
void net_stream_read_stop(struct net_stream *stream);             /* Stopped twice: fine. */

/*
 * Writes the pieces in order, after all earlier ones. What the socket takes at once is gone; the
 * rest is copied (NET_COPY) or must stay where it is until it is written (NET_BORROW), and
 * on_written will tell. NET_OK with net_stream_queued() == 0: all is gone, nothing will be told. At
 * most NET_WRITE_PARTS_MAX pieces. After a failure only closing makes sense.
 */
enum net_keep { NET_COPY, NET_BORROW };
enum net_status net_stream_write(struct net_stream *stream, const struct span *parts,
                                 size_t part_count, enum net_keep keep);
size_t net_stream_queued(const struct net_stream *stream); /* Bytes not yet taken by the socket. */
/* The same and what the socket has taken but the peer has not: falls as the peer reads. One system
 * call. */
size_t net_stream_unread(const struct net_stream *stream);
/* Sends FIN after what is queued. The other direction stays open. */
enum net_status net_stream_shutdown(struct net_stream *stream);
/* At once; what is queued is dropped, and borrowed pieces are free when it returns. */
void net_stream_close(struct net_stream *stream);
/* The same, but the peer sees a reset: an answer that was cut must not look whole. */
void net_stream_reset(struct net_stream *stream);
/* An idle connection whose peer has closed it, or has sent what nobody asked for. One system call.
 */
bool net_stream_is_stale(const struct net_stream *stream);
/* The peer has closed its side; also seen where reading is stopped. One system call. */
bool net_stream_peer_is_gone(const struct net_stream *stream);
/* Stands for the peer's address: IPv4 as a whole, of IPv6 the /64 network. */
uint64_t net_stream_peer_key(const struct net_stream *stream);
bool net_stream_is_loopback(const struct net_stream *stream); /* The peer is on this machine. */

/* ---- Listeners ---- */

struct net_listener;

struct net_listen_options {
    const char *host; /* Literal address or name; "" or "*": all addresses. */
    uint16_t port;    /* 0: the kernel picks one. */
    int backlog;
    bool shared; /* Another listener of this process has the port already. */
};

/*
 * One socket of its own per listener: the kernel spreads connections over the listeners of a port
 * (SO_REUSEPORT). A port that another program listens on is refused with NET_IN_USE. Accepted
 * streams have TCP_NODELAY and belong to the callee. *port_out is the port taken.
 */
enum net_status net_listen(struct net_loop *loop, const struct net_listen_options *options,
                           void (*on_accept)(void *user, struct net_stream *stream), void *user,
                           struct net_listener **out, uint16_t *port_out);
/* A descriptor that was passed to this process: NET_OK if it is a listening TCP socket, else
 * NET_INVALID. *address: where it listens. */
enum net_status net_listening_address(int descriptor, struct net_address *address);
/*
 * Listens on a duplicate of that descriptor, which stays the caller's. All its listeners, those in
 * other processes too, take from one queue of connections, which outlives each of them.
 */
enum net_status net_listen_passed(struct net_loop *loop, int descriptor, int backlog,
                                  void (*on_accept)(void *user, struct net_stream *stream),
                                  void *user, struct net_listener **out);
/*
 * Accepts what waits in its queue now, and calls back for it before it returns: the one call that
 * does. Before closing: the kernel resets what is left in the queue then. Not for a passed socket,
 * whose queue stays.
 */
void net_listener_take_all(struct net_listener *listener);
/* What is accepted from now on speaks TLS, or is closed; on_accept comes before the handshake. A
 * client that sends HTTP instead is told so. */
void net_listener_set_tls(struct net_listener *listener, struct net_tls *tls);
/* Tells when descriptors or memory for new connections have run out, which then wait in the queue,
 * and when there are some again. With the `user` of on_accept. */
void net_listener_on_starved(struct net_listener *listener,
                             void (*on_starved)(void *user, bool starved));
void net_listener_close(struct net_listener *listener);

#endif
