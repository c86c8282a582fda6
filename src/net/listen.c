/*
 * Listeners. Each has a socket of its own with SO_REUSEPORT, so that every loop accepts for itself.
 * SO_REUSEPORT alone would also share the port with another router of the same user: the first
 * listener of a port therefore asks for it without the option before.
 *
 * Sockets that were passed to the process are listened on by every loop: each wakes for each
 * connection, and the first to come has it, which is a loop with nothing else to do.
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

#define ACCEPT_AGAIN_MS \
    100 /* After memory ran out: libuv holds one connection until it is taken. */

enum { TAKE_ALL_MAX = 1 << 16 }; /* A queue that fills as fast is not waited out. */

struct net_listener {
    uv_tcp_t tcp;
    uv_timer_t again;
    unsigned handles_open;
    struct net_loop *loop;
    struct net_tls *tls; /* Borrowed. NULL: plain. */
    void (*on_accept)(void *user, struct net_stream *stream);
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

static void on_again(uv_timer_t *timer);

static void on_connection(uv_stream_t *handle, int status)
{
    struct net_listener *listener = handle->data;
    if (status != 0) {
        return; /* Gone before it was accepted, or no descriptors: libuv goes on. */
    }
    struct net_stream *stream = stream_new(listener->loop);
    if (stream == NULL) {
        (void)uv_timer_start(&listener->again, on_again, ACCEPT_AGAIN_MS, 0); /* Is not closing. */
        return;
    }
    if (uv_accept(handle, (uv_stream_t *)&stream->tcp) != 0) {
        net_stream_close(stream);
        return;
    }
    hand_over(listener, stream);
}

static void on_again(uv_timer_t *timer)
{
    struct net_listener *listener = timer->data;
    on_connection((uv_stream_t *)&listener->tcp, 0);
}

/* Takes the descriptor over, in success and failure. */
static enum net_status listener_start(struct net_listener *listener, int descriptor, int backlog)
{
    int status = uv_tcp_open(&listener->tcp, descriptor);
    if (status != 0) {
        (void)close(descriptor); /* Nothing was written to it. */
        return net_status_of(status);
    }
    return net_status_of(uv_listen((uv_stream_t *)&listener->tcp, backlog, on_connection));
}

/* Takes the descriptor over, in success and failure. */
static enum net_status listener_new(struct net_loop *loop, int descriptor, int backlog,
                                    void (*on_accept)(void *user, struct net_stream *stream),
                                    void *user, struct net_listener **out)
{
    struct net_listener *listener = mem_alloc(loop->mem, sizeof *listener);
    if (listener == NULL) {
        (void)close(descriptor); /* Nothing was written to it. */
        return NET_NO_MEMORY;
    }
    listener->loop = loop;
    listener->tls = NULL;
    listener->on_accept = on_accept;
    listener->user = user;
    (void)uv_tcp_init(&loop->uv, &listener->tcp); /* Takes no descriptor and no memory. */
    (void)uv_timer_init(&loop->uv, &listener->again);
    listener->tcp.data = listener;
    listener->again.data = listener;
    listener->handles_open = 2;
    enum net_status status = listener_start(listener, descriptor, backlog);
    if (status != NET_OK) {
        net_listener_close(listener);
        return status;
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

/* False: the queue is empty, or there is no memory or no descriptor for more. */
static bool take_one(struct net_listener *listener, int queue)
{
    struct net_stream *stream = stream_new(listener->loop);
    if (stream == NULL) {
        return false;
    }
    int descriptor = accept4(queue, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor < 0 || uv_tcp_open(&stream->tcp, descriptor) != 0) {
        if (descriptor >= 0) {
            (void)close(descriptor); /* Nothing was written to it. */
        }
        net_stream_close(stream);
        return false;
    }
    hand_over(listener, stream);
    return true;
}

void net_listener_take_all(struct net_listener *listener)
{
    uv_os_fd_t queue = -1;
    if (uv_fileno((uv_handle_t *)&listener->tcp, &queue) != 0) {
        return;
    }
    for (int i = 0; i < TAKE_ALL_MAX && take_one(listener, queue); i++) {
    }
}

void net_listener_close(struct net_listener *listener)
{
    if (listener != NULL) {
        uv_close((uv_handle_t *)&listener->tcp, on_listener_closed);
        uv_close((uv_handle_t *)&listener->again, on_listener_closed);
    }
}
