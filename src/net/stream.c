/*
 * Streams: reading, writing, closing. libuv tells when a socket can be read; recv() and send() are
 * called here, as they cost less than its read() and write(). Writes go to the socket at once where
 * it takes them; the rest waits in one request of its own, with a copy of the bytes or a reference
 * to them.
 */
#include <endian.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/check.h"
#include "net/internal.h"

#define KEEPALIVE_S 60 /* A peer whose machine vanished is noticed after that and some probes. */
#define READS_MAX   16 /* In one turn, of one stream: then others have theirs. */

/* A write that waits. */
struct waiting_write {
    uv_write_t request;
    struct net_stream *stream;
    size_t size; /* Of this allocation. */
    char copy[]; /* NET_COPY: the bytes. */
};

struct net_stream *stream_new(struct net_loop *loop)
{
    struct net_stream *stream = mem_alloc(loop->mem, sizeof *stream);
    if (stream == NULL) {
        return NULL;
    }
    stream->loop = loop;
    stream->events = NULL;
    stream->user = NULL;
    stream->connecting = NULL;
    stream->tls = NULL;
    stream->reading = false;
    stream->closed = false;
    if (uv_tcp_init(&loop->uv, &stream->tcp) != 0) {
        mem_free(loop->mem, stream, sizeof *stream);
        return NULL;
    }
    stream->tcp.data = stream;
    stream->tcp_open = true;
    loop->streams_open++;
    return stream;
}

void stream_release(struct net_stream *stream)
{
    if (stream->tcp_open || stream->connecting != NULL || !stream->closed) {
        return;
    }
    stream->loop->streams_open--;
    mem_free(stream->loop->mem, stream, sizeof *stream);
}

void stream_tune(struct net_stream *stream)
{
    (void)uv_tcp_nodelay(&stream->tcp, 1); /* Both: the connection works without. */
    (void)uv_tcp_keepalive(&stream->tcp, 1, KEEPALIVE_S);
}

static void on_tcp_closed(uv_handle_t *handle)
{
    struct net_stream *stream = handle->data;
    stream->tcp_open = false;
    if (stream->connecting != NULL) {
        connecting_release(stream->connecting);
    } else {
        stream_release(stream);
    }
}

void stream_close_tcp(struct net_stream *stream)
{
    if (stream->tcp_open && !uv_is_closing((uv_handle_t *)&stream->tcp)) {
        uv_close((uv_handle_t *)&stream->tcp, on_tcp_closed);
    }
}

void net_stream_set_events(struct net_stream *stream, const struct net_stream_events *events,
                           void *user)
{
    REQUIRE(!stream->closed);
    stream->events = events;
    stream->user = user;
}

bool stream_descriptor(const struct net_stream *stream, int *out)
{
    uv_os_fd_t descriptor = -1;
    if (stream->closed || uv_fileno((const uv_handle_t *)&stream->tcp, &descriptor) != 0) {
        return false;
    }
    *out = descriptor;
    return true;
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS;
}

static enum net_status status_of_errno(void)
{
    return net_status_of(uv_translate_sys_error(errno));
}

/* ---- Reading ---- */

void stream_space(struct net_stream *stream, char **space, size_t *size)
{
    *space = stream->loop->read_space;
    *size = NET_READ_BYTES;
    if (stream->events->on_space != NULL) {
        stream->events->on_space(stream->user, space, size);
        CHECK(*size > 0);
    }
}

ssize_t stream_receive(const struct net_stream *stream, char *space, size_t size,
                       enum net_status *status)
{
    int descriptor = -1;
    if (!stream_descriptor(stream, &descriptor)) {
        *status = NET_RESET;
        return 0;
    }
    ssize_t got = recv(descriptor, space, size, MSG_DONTWAIT);
    if (got < 0 && would_block()) {
        return -1;
    }
    *status = got > 0 ? NET_OK : got == 0 ? NET_EOF : status_of_errno();
    return got > 0 ? got : 0;
}

/* True: all the space was filled, so there may be more. */
static bool read_once(struct net_stream *stream)
{
    char *space = NULL;
    size_t size = 0;
    enum net_status status = NET_OK;
    stream_space(stream, &space, &size);
    ssize_t got = stream_receive(stream, space, size, &status);
    if (got > 0) {
        stream->events->on_read(stream->user, space, (size_t)got);
        return (size_t)got == size && stream->reading;
    }
    if (got == 0) {
        stream->reading = false;
        stream_unwatch(stream);
        stream->events->on_end(stream->user, status);
    }
    return false;
}

/* Without space libuv reads nothing, and says UV_ENOBUFS. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)handle;
    (void)suggested;
    *out = uv_buf_init(NULL, 0);
}

static void on_readable(uv_stream_t *handle, ssize_t size, const uv_buf_t *bytes)
{
    (void)size;
    (void)bytes;
    struct net_stream *stream = handle->data;
    if (stream->tls != NULL) {
        tls_on_readable(stream);
        return;
    }
    unsigned reads = 1;
    while (read_once(stream) && reads < READS_MAX) {
        reads++;
    }
}

enum net_status stream_watch(struct net_stream *stream)
{
    return net_status_of(uv_read_start((uv_stream_t *)&stream->tcp, on_alloc, on_readable));
}

void stream_unwatch(struct net_stream *stream)
{
    (void)uv_read_stop((uv_stream_t *)&stream->tcp); /* Never fails. */
}

enum net_status net_stream_read_start(struct net_stream *stream)
{
    REQUIRE(!stream->closed && stream->events != NULL);
    if (stream->reading) {
        return NET_OK;
    }
    enum net_status status = stream->tls != NULL ? tls_read_start(stream) : stream_watch(stream);
    stream->reading = status == NET_OK;
    return status;
}

void net_stream_read_stop(struct net_stream *stream)
{
    REQUIRE(!stream->closed);
    if (stream->reading) {
        stream->reading = false;
        if (stream->tls != NULL) {
            tls_read_stop(stream);
        } else {
            stream_unwatch(stream);
        }
    }
}

/* ---- Writing ---- */

static void on_waiting_written(uv_write_t *request, int status)
{
    struct waiting_write *write = request->data;
    struct net_stream *stream = write->stream;
    mem_free(stream->loop->mem, write, write->size);
    if (stream->closed) {
        return;
    }
    if (stream->tls != NULL) {
        tls_on_sent(stream, net_status_of(status));
    } else if (stream->events != NULL) {
        stream->events->on_written(stream->user, net_status_of(status));
    }
}

/* Takes `size` bytes off the front of the pieces; returns how many whole pieces are gone. */
static size_t skip_parts(uv_buf_t *parts, size_t part_count, size_t size)
{
    size_t gone = 0;
    while (gone < part_count && size >= parts[gone].len) {
        size -= parts[gone].len;
        gone++;
    }
    if (gone < part_count) {
        parts[gone].base += size;
        parts[gone].len -= size;
    }
    return gone;
}

static enum net_status write_later(struct net_stream *stream, uv_buf_t *parts, size_t part_count,
                                   enum net_keep keep)
{
    size_t copy_size = 0;
    for (size_t i = 0; i < part_count && keep == NET_COPY; i++) {
        copy_size += parts[i].len;
    }
    size_t size = sizeof(struct waiting_write) + copy_size;
    struct waiting_write *write = mem_alloc(stream->loop->mem, size);
    if (write == NULL) {
        return NET_NO_MEMORY;
    }
    write->stream = stream;
    write->size = size;
    write->request.data = write;
    uv_buf_t whole = uv_buf_init(write->copy, 0);
    if (keep == NET_COPY) {
        for (size_t i = 0; i < part_count; i++) {
            memcpy(write->copy + whole.len, parts[i].base, parts[i].len);
            whole.len += parts[i].len;
        }
        parts = &whole;
        part_count = 1;
    }
    int status = uv_write(&write->request, (uv_stream_t *)&stream->tcp, parts, (unsigned)part_count,
                          on_waiting_written);
    if (status != 0) {
        mem_free(stream->loop->mem, write, size);
    }
    return net_status_of(status);
}

/* libuv's type lacks the const; it does not write through it. */
char *stream_without_const(const char *bytes)
{
    union {
        const char *in;
        char *out;
    } pointer = {.in = bytes};
    return pointer.out;
}

/* Returns how much the socket took, or -1: errno tells why. */
static ssize_t send_now(const struct net_stream *stream, uv_buf_t *parts, size_t part_count)
{
    int descriptor = -1;
    if (!stream_descriptor(stream, &descriptor)) {
        errno = EBADF;
        return -1;
    }
    if (part_count == 1) {
        return send(descriptor, parts->base, parts->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    struct iovec pieces[NET_WRITE_PARTS_MAX];
    for (size_t i = 0; i < part_count; i++) {
        pieces[i] = (struct iovec){.iov_base = parts[i].base, .iov_len = parts[i].len};
    }
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = part_count};
    return sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

enum net_status stream_send(struct net_stream *stream, uv_buf_t *parts, size_t part_count,
                            enum net_keep keep)
{
    ssize_t taken = stream_unsent(stream) == 0 ? send_now(stream, parts, part_count) : 0;
    if (taken < 0 && !would_block()) {
        return status_of_errno();
    }
    size_t gone = skip_parts(parts, part_count, taken > 0 ? (size_t)taken : 0);
    return gone == part_count ? NET_OK : write_later(stream, parts + gone, part_count - gone, keep);
}

size_t stream_unsent(const struct net_stream *stream)
{
    return uv_stream_get_write_queue_size((const uv_stream_t *)&stream->tcp);
}

enum net_status net_stream_write(struct net_stream *stream, const struct span *parts,
                                 size_t part_count, enum net_keep keep)
{
    REQUIRE(!stream->closed && part_count <= NET_WRITE_PARTS_MAX);
    if (stream->tls != NULL) {
        return tls_write(stream, parts, part_count, keep);
    }
    uv_buf_t left[NET_WRITE_PARTS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].size > 0) {
            left[count++] =
                (uv_buf_t){.base = stream_without_const(parts[i].data), .len = parts[i].size};
        }
    }
    return count == 0 ? NET_OK : stream_send(stream, left, count, keep);
}

size_t net_stream_queued(const struct net_stream *stream)
{
    return stream_unsent(stream) + (stream->tls != NULL ? tls_queued(stream) : 0);
}

/* ---- Ending ---- */

struct shutdown {
    uv_shutdown_t request;
    struct net_stream *stream;
};

static void on_shut(uv_shutdown_t *request, int status)
{
    (void)status; /* Reading tells what the peer makes of it. */
    struct shutdown *shutdown = request->data;
    shutdown_free(shutdown->stream, shutdown);
}

void shutdown_free(struct net_stream *stream, struct shutdown *shutdown)
{
    mem_free(stream->loop->mem, shutdown, sizeof *shutdown);
}

enum net_status stream_shut(struct net_stream *stream, struct shutdown *shutdown)
{
    int status = uv_shutdown(&shutdown->request, (uv_stream_t *)&stream->tcp, on_shut);
    if (status != 0) {
        shutdown_free(stream, shutdown);
    }
    return net_status_of(status);
}

enum net_status net_stream_shutdown(struct net_stream *stream)
{
    REQUIRE(!stream->closed);
    struct shutdown *shutdown = mem_alloc(stream->loop->mem, sizeof *shutdown);
    if (shutdown == NULL) {
        return NET_NO_MEMORY;
    }
    shutdown->stream = stream;
    shutdown->request.data = shutdown;
    return stream->tls != NULL ? tls_shutdown(stream, shutdown) : stream_shut(stream, shutdown);
}

void net_stream_close(struct net_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    REQUIRE(!stream->closed);
    stream->reading = false;
    if (stream->tls != NULL) {
        tls_end(stream, true);
    }
    stream->closed = true;
    connecting_cancel(stream);
    stream_close_tcp(stream);
    stream_release(stream);
}

/* uv_tcp_close_reset() does the same, but refuses while a FIN waits for what is queued. */
void net_stream_reset(struct net_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    if (stream->tls != NULL) {
        tls_end(stream, false);
    }
    int descriptor = -1;
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (stream->connecting == NULL && stream_descriptor(stream, &descriptor)) {
        (void)setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    net_stream_close(stream);
}

bool net_stream_is_stale(const struct net_stream *stream)
{
    int descriptor = -1;
    if (!stream_descriptor(stream, &descriptor) ||
        (stream->tls != NULL && (tls_has_bytes(stream) || tls_has_ended(stream)))) {
        return true;
    }
    char byte = 0;
    ssize_t size = recv(descriptor, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT);
    return size >= 0 || !would_block();
}

size_t net_stream_unread(const struct net_stream *stream)
{
    int descriptor = -1;
    int unsent = 0;
    if (!stream_descriptor(stream, &descriptor) || ioctl(descriptor, SIOCOUTQ, &unsent) != 0) {
        unsent = 0;
    }
    return net_stream_queued(stream) + (size_t)(unsent > 0 ? unsent : 0);
}

bool net_stream_peer_is_gone(const struct net_stream *stream)
{
    int descriptor = -1;
    if (!stream_descriptor(stream, &descriptor) || (stream->tls != NULL && tls_has_ended(stream))) {
        return true;
    }
    struct tcp_info info;
    memset(&info, 0, sizeof info);
    socklen_t size = sizeof info;
    if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
        return false; /* Unknown: the next write tells. */
    }
    return info.tcpi_state != TCP_ESTABLISHED && info.tcpi_state != TCP_FIN_WAIT1 &&
           info.tcpi_state != TCP_FIN_WAIT2;
}

union peer {
    struct sockaddr any;
    struct sockaddr_in ip4;
    struct sockaddr_in6 ip6;
};

static bool peer_of(const struct net_stream *stream, union peer *peer)
{
    int descriptor = -1;
    socklen_t size = sizeof *peer;
    *peer = (union peer){0};
    return stream_descriptor(stream, &descriptor) &&
           getpeername(descriptor, &peer->any, &size) == 0;
}

uint64_t net_stream_peer_key(const struct net_stream *stream)
{
    union peer peer;
    if (!peer_of(stream, &peer)) {
        return 0;
    }
    if (peer.any.sa_family == AF_INET) {
        return ntohl(peer.ip4.sin_addr.s_addr);
    }
    uint64_t halves[2];
    memcpy(halves, peer.ip6.sin6_addr.s6_addr, sizeof halves);
    bool mapped = IN6_IS_ADDR_V4MAPPED(&peer.ip6.sin6_addr);
    return mapped ? be64toh(halves[1]) & UINT32_MAX : be64toh(halves[0]);
}

bool net_stream_is_loopback(const struct net_stream *stream)
{
    union peer peer;
    if (!peer_of(stream, &peer)) {
        return false;
    }
    const unsigned char *ip6 = peer.ip6.sin6_addr.s6_addr;
    if (peer.any.sa_family == AF_INET) {
        return ntohl(peer.ip4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    return peer.any.sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(&peer.ip6.sin6_addr) ||
            (IN6_IS_ADDR_V4MAPPED(&peer.ip6.sin6_addr) && ip6[12] == IN_LOOPBACKNET));
}
