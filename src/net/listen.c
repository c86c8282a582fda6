/*
 * Listeners. Each has a socket of its own with SO_REUSEPORT, so that every loop accepts for itself.
 * SO_REUSEPORT alone would also share the port with another router of the same user: the first
 * listener of a port therefore asks for it without the option before.
 *
 * Sockets that were passed to the process are listened on by every loop: each wakes for each
 * connection, and the first to come has it, which is a loop with nothing else to do.
 *
 * Accepting is not left to libuv: without descriptors it closes what waits, or goes round for ever.
 * Here what waits stays in the kernel's queue, and is asked for again ACCEPT_AGAIN_MS later.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "net/internal.h"

#define ACCEPT_AGAIN_MS 100 /* After descriptors or memory ran out. */

enum {
    TAKE_MAX = 256,         /* In one go; then others of the loop have their turn. */
    TAKE_ALL_MAX = 1 << 16, /* A queue that fills as fast is not waited out. */
};

struct net_listener {
    uv_poll_t poll;
    uv_timer_t again;
    unsigned handles_open;
    int queue;    /* Owned: the listening socket. */
    int held;     /* Owned: accepted when there was no memory for it; -1: none. */
    bool starved; /* No descriptors or no memory; it has been told. */
    bool closed;
    struct net_loop *loop;
    struct net_tls *tls; /* Borrowed. NULL: plain. */
    void (*on_accept)(void *user, struct net_stream *stream);
    void (*on_starved)(void *user, bool starved); /* NULL: nobody asked. */
    void *user;
};

/* A bound socket, or -1 with errno set. */
static int socket_bind(const struct addrinfo *address, bool reuse_port)
{
    int one = 1;
    int descriptor = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0) {
        return -1;
    }
    if (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        (!reuse_port || setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0) &&
        bind(descriptor, address->ai_addr, address->ai_addrlen) == 0) {
        return descriptor;
    }
    int problem = errno;
    (void)close(descriptor); /* Nothing was written to it. */
    errno = problem;
    return -1;
}

/* *out: a bound socket. */
static enum net_status socket_open(const struct addrinfo *address,
                                   const struct net_listen_options *options, int *out)
{
    if (!options->shared && options->port != 0) {
        int probe = socket_bind(address, false);
        if (probe < 0) {
            return net_status_of(uv_translate_sys_error(errno));
        }
        (void)close(probe); /* It has done its work. */
    }
    *out = socket_bind(address, true);
    return *out >= 0 ? NET_OK : net_status_of(uv_translate_sys_error(errno));
}

static enum net_status resolve_and_open(const struct net_listen_options *options, int *out)
{
    char service[8];
    int size = snprintf(service, sizeof service, "%u", (unsigned)options->port);
    CHECK(size > 0 && (size_t)size < sizeof service);
    bool any = options->host[0] == '\0' || strcmp(options->host, "*") == 0;
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    if (getaddrinfo(any ? NULL : options->host, service, &hints, &found) != 0) {
        return NET_NO_NAME;
    }
    enum net_status status = NET_NO_NAME;
    for (const struct addrinfo *address = found; address != NULL; address = address->ai_next) {
        status = socket_open(address, options, out);
        if (status == NET_OK) {
            break;
        }
    }
    freeaddrinfo(found);
    return status;
}

static bool socket_option_is(int descriptor, int option, int expected)
{
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(descriptor, SOL_SOCKET, option, &value, &size) == 0 && value == expected;
}

static enum net_status socket_address(int descriptor, struct net_address *out)
{
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
        struct sockaddr_storage storage;
    } address;
    memset(&address, 0, sizeof address);
    socklen_t size = sizeof address;
    if (getsockname(descriptor, &address.any, &size) != 0 ||
        (address.any.sa_family != AF_INET && address.any.sa_family != AF_INET6) ||
        getnameinfo(&address.any, size, out->host, sizeof out->host, NULL, 0, NI_NUMERICHOST) !=
            0) {
        return NET_INVALID;
    }
    out->tls = NULL;
    out->port =
        ntohs(address.any.sa_family == AF_INET6 ? address.ip6.sin6_port : address.ip4.sin_port);
    return NET_OK;
}

enum net_status net_listening_address(int descriptor, struct net_address *address)
{
    if (!socket_option_is(descriptor, SO_TYPE, SOCK_STREAM) ||
        !socket_option_is(descriptor, SO_ACCEPTCONN, 1)) {
        return NET_INVALID;
    }
    return socket_address(descriptor, address);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct net_listener *listener = handle->data;
    listener->handles_open--;
    if (listener->handles_open == 0) {
        mem_free(listener->loop->mem, listener, sizeof *listener);
    }
}

static void hand_over(struct net_listener *listener, struct net_stream *stream)
{
    stream_tune(stream);
    if (listener->tls != NULL && tls_begin(stream, listener->tls, NULL) != NET_OK) {
        net_stream_close(stream);
        return;
    }
    listener->on_accept(listener->user, stream);
}

void net_listener_set_tls(struct net_listener *listener, struct net_tls *tls)
{
    listener->tls = tls;
}

void net_listener_on_starved(struct net_listener *listener,
                             void (*on_starved)(void *user, bool starved))
{
    listener->on_starved = on_starved;
}

enum taken { TAKEN, NOBODY, NO_ROOM };

/* Of an accept() that failed. Many are of the connection, which has gone. */
static enum taken taken_of(int problem)
{
    switch (problem) {
    case EAGAIN:
        return NOBODY;
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM: /* A firewall's verdict. */
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENOPROTOOPT:
    case ENONET:
        return TAKEN;
    default:
        return NO_ROOM; /* EMFILE and its like; or something unheard of, which must not spin. */
    }
}

static enum taken take_one(struct net_listener *listener)
{
    int descriptor = listener->held;
    listener->held = -1;
    if (descriptor < 0) {
        descriptor = accept4(listener->queue, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    if (descriptor < 0) {
        return taken_of(errno);
    }
    struct net_stream *stream = stream_new(listener->loop);
    if (stream == NULL) {
        listener->held = descriptor;
        return NO_ROOM;
    }
    if (uv_tcp_open(&stream->tcp, descriptor) != 0) {
        (void)close(descriptor); /* Nothing was written to it. */
        net_stream_close(stream);
        return TAKEN;
    }
    hand_over(listener, stream);
    return TAKEN;
}

static void tell_starved(struct net_listener *listener, bool starved)
{
    if (listener->starved != starved && listener->on_starved != NULL) {
        listener->on_starved(listener->user, starved);
    }
    listener->starved = starved;
}

static void on_again(uv_timer_t *timer);

static void take(struct net_listener *listener, int max)
{
    enum taken taken = TAKEN;
    for (int i = 0; i < max && taken == TAKEN && !listener->closed; i++) {
        taken = take_one(listener);
        if (taken != NO_ROOM && !listener->closed) {
            tell_starved(listener, false);
        }
    }
    if (taken == NO_ROOM && !listener->closed) {
        tell_starved(listener, true);
        (void)uv_poll_stop(&listener->poll);                                  /* Never fails. */
        (void)uv_timer_start(&listener->again, on_again, ACCEPT_AGAIN_MS, 0); /* Is not closing. */
    }
}

static void on_connections(uv_poll_t *poll, int status, int events)
{
    (void)status; /* Whatever it is, the next accept() tells. */
    (void)events;
    take(poll->data, TAKE_MAX);
}

static void on_again(uv_timer_t *timer)
{
    struct net_listener *listener = timer->data;
    (void)uv_poll_start(&listener->poll, UV_READABLE, on_connections); /* Worked before. */
    take(listener, TAKE_MAX);
}

/* Takes the descriptor over, in success and failure. */
static struct net_listener *listener_make(struct net_loop *loop, int descriptor)
{
    struct net_listener *listener = mem_alloc(loop->mem, sizeof *listener);
    if (listener == NULL || uv_poll_init(&loop->uv, &listener->poll, descriptor) != 0) {
        mem_free(loop->mem, listener, sizeof *listener);
        (void)close(descriptor); /* Nothing was written to it. */
        return NULL;
    }
    (void)uv_timer_init(&loop->uv, &listener->again);
    listener->poll.data = listener;
    listener->again.data = listener;
    listener->handles_open = 2;
    listener->queue = descriptor;
    listener->held = -1;
    listener->starved = false;
    listener->closed = false;
    listener->loop = loop;
    listener->tls = NULL;
    listener->on_starved = NULL;
    return listener;
}

/* Takes the descriptor over, in success and failure. */
static enum net_status listener_new(struct net_loop *loop, int descriptor, int backlog,
                                    void (*on_accept)(void *user, struct net_stream *stream),
                                    void *user, struct net_listener **out)
{
    struct net_listener *listener = listener_make(loop, descriptor);
    if (listener == NULL) {
        return NET_NO_MEMORY;
    }
    listener->on_accept = on_accept;
    listener->user = user;
    int status = listen(descriptor, backlog) == 0
                     ? uv_poll_start(&listener->poll, UV_READABLE, on_connections)
                     : uv_translate_sys_error(errno);
    if (status != 0) {
        net_listener_close(listener);
        return net_status_of(status);
    }
    *out = listener;
    return NET_OK;
}

enum net_status net_listen(struct net_loop *loop, const struct net_listen_options *options,
                           void (*on_accept)(void *user, struct net_stream *stream), void *user,
                           struct net_listener **out, uint16_t *port_out)
{
    int descriptor = -1;
    enum net_status status = resolve_and_open(options, &descriptor);
    if (status != NET_OK) {
        return status;
    }
    struct net_address address;
    status = socket_address(descriptor, &address);
    if (status != NET_OK) {
        (void)close(descriptor); /* Nothing was written to it. */
        return status;
    }
    status = listener_new(loop, descriptor, options->backlog, on_accept, user, out);
    if (status == NET_OK) {
        *port_out = address.port;
    }
    return status;
}

enum net_status net_listen_passed(struct net_loop *loop, int descriptor, int backlog,
                                  void (*on_accept)(void *user, struct net_stream *stream),
                                  void *user, struct net_listener **out)
{
    int duplicate = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0) {
        return net_status_of(uv_translate_sys_error(errno));
    }
    return listener_new(loop, duplicate, backlog, on_accept, user, out);
}

void net_listener_take_all(struct net_listener *listener)
{
    take(listener, TAKE_ALL_MAX);
}

void net_listener_close(struct net_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    listener->closed = true;
    uv_close((uv_handle_t *)&listener->poll, on_listener_closed); /* Stops watching at once. */
    uv_close((uv_handle_t *)&listener->again, on_listener_closed);
    (void)close(listener->queue); /* Nothing was written to either. */
    if (listener->held >= 0) {
        (void)close(listener->held);
    }
}
