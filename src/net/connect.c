/*
 * Outgoing connections.
 *
 *     literal address ------------------------------> CONNECT -> on_connected(OK)
 *     name -> LOOKUP (libuv's thread pool) -> address 1 -> failed: close the socket, address 2 ...
 *     nothing left -> on_connected(the last failure)
 *
 * A lookup cannot be stopped once it runs, so the stream's memory waits for it after a close.
 * A failure that is known at once is still told from the loop, by a timer of 0 ms.
 */
#include <string.h>

#include "base/check.h"
#include "net/internal.h"

struct connecting {
    struct net_stream *stream;
    struct net_address address;
    void (*on_connected)(void *user, enum net_status status);
    uv_connect_t request;
    uv_getaddrinfo_t lookup;
    uv_timer_t later; /* Tells a failure that was known at once. */
    struct addrinfo *found;
    const struct addrinfo *next; /* In `found`: the address to try next. */
    unsigned try_count;
    enum net_status failure; /* Of the last try. */
    bool looking_up;
    bool timer_open;
};

bool net_address_set(struct net_address *address, const char *host, size_t host_size, unsigned port)
{
    if (host_size == 0 || host_size > NET_HOST_BYTES_MAX || port == 0 || port > UINT16_MAX) {
        return false;
    }
    memcpy(address->host, host, host_size);
    address->host[host_size] = '\0';
    address->port = (uint16_t)port;
    address->tls = NULL;
    return true;
}

void connecting_release(struct connecting *connecting)
{
    struct net_stream *stream = connecting->stream;
    if (connecting->looking_up || connecting->timer_open || (stream->closed && stream->tcp_open)) {
        return;
    }
    if (connecting->found != NULL) {
        uv_freeaddrinfo(connecting->found);
    }
    stream->connecting = NULL;
    mem_free(stream->loop->mem, connecting, sizeof *connecting);
    stream_release(stream);
}

static void on_later_closed(uv_handle_t *handle)
{
    struct connecting *connecting = handle->data;
    connecting->timer_open = false;
    connecting_release(connecting);
}

/* The connect is over: no more tries. */
static void finish(struct connecting *connecting, enum net_status status)
{
    struct net_stream *stream = connecting->stream;
    void (*on_connected)(void *, enum net_status) = connecting->on_connected;
    connecting->on_connected = NULL;
    if (connecting->timer_open) {
        uv_close((uv_handle_t *)&connecting->later, on_later_closed);
    }
    if (stream->closed) {
        connecting_release(connecting);
        return;
    }
    void *user = stream->user;
    connecting_release(connecting); /* The stream stays: it is not closed. */
    on_connected(user, status);
}

static void on_later(uv_timer_t *timer)
{
    struct connecting *connecting = timer->data;
    if (connecting->on_connected != NULL && !connecting->stream->closed) {
        finish(connecting, connecting->failure);
    }
}

static void fail_later(struct connecting *connecting)
{
    (void)uv_timer_start(&connecting->later, on_later, 0, 0); /* Fails only while closing. */
}

/* Which other address is tried after a handshake that failed would make no difference. */
static void begin_tls(struct connecting *connecting)
{
    struct net_address *address = &connecting->address;
    if (address->tls == NULL) {
        finish(connecting, NET_OK);
        return;
    }
    enum net_status status = tls_begin(connecting->stream, address->tls, address);
    if (status != NET_OK) {
        finish(connecting, status);
    }
}

void connecting_secured(struct net_stream *stream, enum net_status status)
{
    finish(stream->connecting, status);
}

static void try_next(struct connecting *connecting);

static void on_failed_closed(uv_handle_t *handle)
{
    struct net_stream *stream = handle->data;
    struct connecting *connecting = stream->connecting;
    stream->tcp_open = false;
    if (stream->closed) {
        connecting_release(connecting);
        return;
    }
    int status = uv_tcp_init(&stream->loop->uv, &stream->tcp);
    CHECK(status == 0); /* Takes no descriptor and no memory. */
    stream->tcp.data = stream;
    stream->tcp_open = true;
    try_next(connecting);
}

static void on_connect(uv_connect_t *request, int status)
{
    struct net_stream *stream = request->handle->data;
    struct connecting *connecting = stream->connecting;
    if (stream->closed) {
        return; /* Cancelled by the close; the socket's close callback frees. */
    }
    if (status == 0) {
        stream_tune(stream);
        begin_tls(connecting);
        return;
    }
    connecting->failure = net_status_of(status);
    if (connecting->next == NULL || connecting->try_count >= NET_TRIES_MAX) {
        finish(connecting, connecting->failure);
        return;
    }
    uv_close((uv_handle_t *)&stream->tcp, on_failed_closed);
}

static bool try_address(struct connecting *connecting, const struct sockaddr *address)
{
    connecting->try_count++;
    int status =
        uv_tcp_connect(&connecting->request, &connecting->stream->tcp, address, on_connect);
    connecting->failure = net_status_of(status);
    return status == 0;
}

static void try_next(struct connecting *connecting)
{
    while (connecting->next != NULL && connecting->try_count < NET_TRIES_MAX) {
        const struct addrinfo *address = connecting->next;
        connecting->next = address->ai_next;
        if (try_address(connecting, address->ai_addr)) {
            return;
        }
    }
    fail_later(connecting);
}

static void on_lookup(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
    struct connecting *connecting = lookup->data;
    connecting->looking_up = false;
    connecting->found = found;
    if (connecting->stream->closed) {
        connecting_release(connecting);
        return;
    }
    if (status != 0) {
        connecting->failure = net_status_of(status);
        finish(connecting, connecting->failure);
        return;
    }
    connecting->failure = NET_NO_NAME;
    connecting->next = found;
    try_next(connecting);
}

static bool look_up(struct connecting *connecting, const struct net_address *address)
{
    char service[8];
    int size = snprintf(service, sizeof service, "%u", (unsigned)address->port);
    CHECK(size > 0 && (size_t)size < sizeof service);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int status = uv_getaddrinfo(&connecting->stream->loop->uv, &connecting->lookup, on_lookup,
                                address->host, service, &hints);
    connecting->failure = net_status_of(status);
    connecting->looking_up = status == 0;
    return status == 0;
}

static bool begin(struct connecting *connecting, const struct net_address *address)
{
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
    } literal;
    if (uv_ip4_addr(address->host, address->port, &literal.ip4) == 0 ||
        uv_ip6_addr(address->host, address->port, &literal.ip6) == 0) {
        return try_address(connecting, &literal.any);
    }
    return look_up(connecting, address);
}

struct net_stream *net_connect(struct net_loop *loop, const struct net_address *address,
                               void (*on_connected)(void *user, enum net_status status), void *user)
{
    struct connecting *connecting = mem_alloc_zero(loop->mem, sizeof *connecting);
    if (connecting == NULL) {
        return NULL;
    }
    struct net_stream *stream = stream_new(loop);
    if (stream == NULL) {
        mem_free(loop->mem, connecting, sizeof *connecting);
        return NULL;
    }
    stream->user = user;
    stream->connecting = connecting;
    connecting->stream = stream;
    connecting->address = *address;
    connecting->on_connected = on_connected;
    connecting->lookup.data = connecting;
    (void)uv_timer_init(&loop->uv, &connecting->later); /* Never fails. */
    connecting->later.data = connecting;
    connecting->timer_open = true;
    if (!begin(connecting, address)) {
        fail_later(connecting);
    }
    return stream;
}

void connecting_cancel(struct net_stream *stream)
{
    struct connecting *connecting = stream->connecting;
    if (connecting == NULL) {
        return;
    }
    if (connecting->looking_up) {
        (void)uv_cancel((uv_req_t *)&connecting->lookup); /* Runs already: its callback comes. */
    }
    if (connecting->timer_open && !uv_is_closing((uv_handle_t *)&connecting->later)) {
        uv_close((uv_handle_t *)&connecting->later, on_later_closed);
    }
}
