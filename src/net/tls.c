/*
 * TLS over a stream's socket. OpenSSL reads the socket itself when libuv says that it is readable,
 * so what is not asked for stays in the kernel: at most one record waits here, in OpenSSL's buffer.
 * What it writes goes the way of every write (stream_send()). Plain bytes wait in `waiting` until
 * the socket has taken all that was enciphered before.
 *
 *     begin -> [handshake] -> up -> reading and writing -> ended (what it said last: end_status)
 *                  |-> broken, ended: handshake failed, or (a client's) was not done in time
 *
 * What comes of bytes that OpenSSL holds when reading begins again is told from the loop's next
 * turn, by way of loop->ready.
 */
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/clock.h"

enum {
    DRAIN_READS_MAX = 16, /* Of what a client that speaks HTTP has sent. */
    DRAIN_BYTES = 4096,
};

/* Bytes of one write that are not enciphered yet. */
struct plain_write {
    struct list link;
    size_t size; /* Of this allocation. */
    size_t part_count;
    struct span parts[NET_WRITE_PARTS_MAX];
    char copy[]; /* NET_COPY: the bytes. */
};

/* ---- The end of reading ---- */

static void unwatch(struct net_stream *stream)
{
    if (stream->tls->watched) {
        stream->tls->watched = false;
        stream_unwatch(stream);
    }
}

static enum net_status watch(struct net_stream *stream)
{
    struct tls *tls = stream->tls;
    if (tls->watched) {
        return NET_OK;
    }
    enum net_status status = stream_watch(stream);
    tls->watched = status == NET_OK;
    return status;
}

static void make_ready(struct tls *tls)
{
    if (list_empty(&tls->ready_link)) {
        list_push_back(&tls->stream->loop->ready, &tls->ready_link);
    }
}

static void tell_end(struct net_stream *stream)
{
    if (stream->reading) {
        stream->reading = false;
        stream->events->on_end(stream->user, stream->tls->end_status);
    }
}

/* Told now, or once the user reads again. */
static void end(struct net_stream *stream, enum net_status status)
{
    struct tls *tls = stream->tls;
    tls->ended = true;
    tls->end_status = status;
    tls->broken = tls->broken || status != NET_EOF;
    unwatch(stream);
    tell_end(stream);
}

/* ---- Writing ---- */

static enum net_status break_off(struct tls *tls)
{
    tls->broken = true;
    enum net_status status = tls_failure_status(tls);
    return status == NET_CUT ? NET_RESET : status;
}

/* One record out of the front of the parts; *count becomes how many are left of them. */
static enum net_status write_record(struct net_stream *stream, struct span *parts, size_t *count)
{
    struct tls *tls = stream->tls;
    struct span record = parts[0];
    if (record.size<TLS_RECORD_BYTES && * count> 1) {
        char *space = stream->loop->record_space;
        record = (struct span){.data = space};
        for (size_t i = 0; i < *count && record.size < TLS_RECORD_BYTES; i++) {
            size_t room = TLS_RECORD_BYTES - record.size;
            size_t size = parts[i].size < room ? parts[i].size : room;
            memcpy(space + record.size, parts[i].data, size);
            record.size += size;
        }
    }
    size_t size = record.size < TLS_RECORD_BYTES ? record.size : TLS_RECORD_BYTES;
    size_t written = 0;
    ERR_clear_error();
    if (SSL_write_ex(tls->ssl, record.data, size, &written) != 1) {
        return break_off(tls);
    }
    CHECK(written == size); /* The socket's side takes all. */
    size_t gone = 0;
    while (gone < *count && written >= parts[gone].size) {
        written -= parts[gone++].size;
    }
    *count -= gone;
    memmove(parts, parts + gone, *count * sizeof *parts);
    if (*count > 0) {
        parts[0].data += written;
        parts[0].size -= written;
    }
    return NET_OK;
}

static size_t size_of(const struct span *parts, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    return size;
}

static enum net_status wait_with(struct tls *tls, const struct span *parts, size_t count,
                                 enum net_keep keep)
{
    size_t bytes = size_of(parts, count);
    size_t size = sizeof(struct plain_write) + (keep == NET_COPY ? bytes : 0);
    struct plain_write *write = mem_alloc(tls->stream->loop->mem, size);
    if (write == NULL) {
        return NET_NO_MEMORY;
    }
    write->size = size;
    write->part_count = count;
    memcpy(write->parts, parts, count * sizeof *parts);
    if (keep == NET_COPY) {
        size_t at = 0;
        for (size_t i = 0; i < count; i++) {
            memcpy(write->copy + at, parts[i].data, parts[i].size);
            at += parts[i].size;
        }
        write->part_count = 1;
        write->parts[0] = (struct span){.data = write->copy, .size = bytes};
    }
    list_push_back(&tls->waiting, &write->link);
    tls->waiting_bytes += bytes;
    return NET_OK;
}

enum net_status tls_write(struct net_stream *stream, const struct span *parts, size_t part_count,
                          enum net_keep keep)
{
    struct tls *tls = stream->tls;
    struct span left[NET_WRITE_PARTS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].size > 0) {
            left[count++] = parts[i];
        }
    }
    if (tls->broken) {
        return NET_RESET;
    }
    enum net_status status = NET_OK;
    bool at_once = tls->up && list_empty(&tls->waiting);
    while (at_once && count > 0 && status == NET_OK && stream_unsent(stream) == 0) {
        status = write_record(stream, left, &count);
    }
    if (status == NET_OK && count > 0) {
        status = wait_with(tls, left, count, keep);
    }
    return status;
}

size_t tls_queued(const struct net_stream *stream)
{
    return stream->tls->waiting_bytes;
}

static void drop_write(struct tls *tls, struct plain_write *write)
{
    list_remove(&write->link);
    mem_free(tls->stream->loop->mem, write, write->size);
}

/* Half of a close: the notice within TLS, then the socket's. */
static enum net_status shut(struct net_stream *stream, struct shutdown *shutdown)
{
    struct tls *tls = stream->tls;
    if (tls->up && !tls->broken) {
        ERR_clear_error();
        (void)SSL_shutdown(tls->ssl); /* 0: the peer's notice has not come yet. */
    }
    return stream_shut(stream, shutdown);
}

enum net_status tls_shutdown(struct net_stream *stream, struct shutdown *shutdown)
{
    struct tls *tls = stream->tls;
    if (!list_empty(&tls->waiting) && !tls->broken) {
        tls->shutdown = shutdown;
        return NET_OK;
    }
    return shut(stream, shutdown);
}

/* Enciphers what waits for as long as the socket takes it. True: something that waited is done. */
static bool pump(struct net_stream *stream, enum net_status *status)
{
    struct tls *tls = stream->tls;
    bool done = false;
    *status = NET_OK;
    while (!list_empty(&tls->waiting) && stream_unsent(stream) == 0) {
        struct plain_write *write = LIST_ITEM(tls->waiting.next, struct plain_write, link);
        size_t before = size_of(write->parts, write->part_count);
        *status = write_record(stream, write->parts, &write->part_count);
        if (*status != NET_OK) {
            return true;
        }
        tls->waiting_bytes -= before - size_of(write->parts, write->part_count);
        if (write->part_count == 0) {
            drop_write(tls, write);
            done = true;
        }
    }
    if (list_empty(&tls->waiting) && tls->shutdown != NULL) {
        struct shutdown *shutdown = tls->shutdown;
        tls->shutdown = NULL;
        (void)shut(stream, shutdown); /* Reading tells what the peer makes of it. */
    }
    return done;
}

void tls_on_sent(struct net_stream *stream, enum net_status status)
{
    struct tls *tls = stream->tls;
    bool tell = status != NET_OK;
    if (status != NET_OK) {
        tls->broken = true;
    } else if (tls->up) {
        bool done = !tls->broken && pump(stream, &status);
        tell = done || stream_unsent(stream) == 0;
    }
    if (tell && stream->events != NULL) {
        stream->events->on_written(stream->user, status);
    }
}

/* ---- Reading ---- */

/* More of what came, at `space`. False: no more now, or none at all: `ended`. */
static bool decipher(struct tls *tls, char *space, size_t size, size_t *got, bool *ended,
                     enum net_status *status)
{
    ERR_clear_error();
    if (SSL_read_ex(tls->ssl, space, size, got) == 1) {
        return true;
    }
    *got = 0;
    int error = SSL_get_error(tls->ssl, 0);
    *ended = error != SSL_ERROR_WANT_READ;
    *status = error == SSL_ERROR_ZERO_RETURN ? NET_EOF : tls_failure_status(tls);
    return false;
}

/* As much as the space takes, in one call of on_read. */
static void read_on(struct net_stream *stream)
{
    struct tls *tls = stream->tls;
    char *space = NULL;
    size_t size = 0;
    size_t filled = 0;
    size_t got = 0;
    bool ended = false;
    enum net_status status = NET_OK;
    stream_space(stream, &space, &size);
    while (filled < size && decipher(tls, space + filled, size - filled, &got, &ended, &status)) {
        filled += got;
    }
    bool more = filled == size; /* Perhaps in OpenSSL's buffer, of which libuv does not know. */
    if (filled > 0) {
        stream->events->on_read(stream->user, space, filled);
        if (stream->closed) {
            return;
        }
    }
    if (ended) {
        end(stream, status);
    } else if (more && stream->reading) {
        make_ready(tls);
    }
}

enum net_status tls_read_start(struct net_stream *stream)
{
    struct tls *tls = stream->tls;
    if (tls->ended || (tls->up && SSL_has_pending(tls->ssl) == 1)) {
        make_ready(tls);
    }
    return tls->ended ? NET_OK : watch(stream);
}

void tls_read_stop(struct net_stream *stream)
{
    list_remove(&stream->tls->ready_link);
    if (stream->tls->up) {
        unwatch(stream);
    }
}

bool tls_has_bytes(const struct net_stream *stream)
{
    return SSL_has_pending(stream->tls->ssl) == 1;
}

bool tls_has_ended(const struct net_stream *stream)
{
    return stream->tls->ended;
}

void tls_read_ready(struct net_loop *loop)
{
    struct list ready;
    list_init(&ready);
    while (!list_empty(&loop->ready)) {
        struct list *link = loop->ready.next;
        list_remove(link);
        list_push_back(&ready, link);
    }
    while (!list_empty(&ready)) {
        struct tls *tls = LIST_ITEM(ready.next, struct tls, ready_link);
        list_remove(&tls->ready_link);
        if (tls->ended) {
            tell_end(tls->stream);
        } else {
            read_on(tls->stream);
        }
    }
}

/* ---- Handshake ---- */

/* A client that took this for a plain port. What it has sent is read: a reset would overtake the
 * answer. */
static void answer_plainly(struct net_stream *stream)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: 49\r\nConnection: close\r\n\r\n"
                                 "This port speaks TLS: ask with https:// instead.\n";
    char dropped[DRAIN_BYTES];
    int descriptor = -1;
    uv_buf_t part = uv_buf_init(stream_without_const(answer), sizeof answer - 1);
    if (!stream_descriptor(stream, &descriptor) ||
        stream_send(stream, &part, 1, NET_COPY) != NET_OK) {
        return;
    }
    for (size_t i = 0; i < DRAIN_READS_MAX; i++) {
        if (recv(descriptor, dropped, sizeof dropped, MSG_DONTWAIT) <= 0) {
            break;
        }
    }
}

static void handshake_over(struct net_stream *stream, enum net_status status)
{
    struct tls *tls = stream->tls;
    list_remove(&tls->handshake_link);
    if (tls->got_bytes || status == NET_OK || tls->peer != NULL) { /* Else: just looking. */
        tls_context_count(tls->context, status, SSL_session_reused(tls->ssl) == 1);
    }
    bool connects = tls->peer != NULL;
    if (status != NET_OK) {
        end(stream, status); /* May close the stream. */
    } else if (connects) {
        unwatch(stream);
    }
    if (connects) { /* Its end is not told: nobody reads it yet. */
        connecting_secured(stream, status);
    }
}

/* True: it is done, and the user wants to read. */
static bool shake_hands(struct net_stream *stream)
{
    struct tls *tls = stream->tls;
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    if (result == 1) {
        enum net_status status = NET_OK;
        tls->up = true;
        handshake_over(stream, NET_OK);
        if (!stream->closed && pump(stream, &status) && stream->events != NULL) {
            stream->events->on_written(stream->user, status);
        }
        if (!stream->closed && !stream->reading) {
            unwatch(stream);
        }
        return !stream->closed && stream->reading;
    }
    if (SSL_get_error(tls->ssl, result) != SSL_ERROR_WANT_READ) {
        enum net_status status = tls_failure_status(tls);
        if (tls_failed_by_http()) {
            answer_plainly(stream);
        }
        handshake_over(stream, status);
    }
    return false;
}

void tls_on_readable(struct net_stream *stream)
{
    if (stream->tls->up || shake_hands(stream)) {
        read_on(stream);
    }
}

static void on_handshake_due(uv_timer_t *timer)
{
    struct net_loop *loop = timer->data;
    while (!list_empty(&loop->handshakes)) {
        struct tls *tls = LIST_ITEM(loop->handshakes.next, struct tls, handshake_link);
        uint64_t now_ns = net_now_ns();
        if (tls->deadline_ns > now_ns) {
            uint64_t left_ms = (tls->deadline_ns - now_ns) / CLOCK_NS_PER_MS + 1;
            (void)uv_timer_start(timer, on_handshake_due, left_ms, 0); /* Is not closing. */
            return;
        }
        handshake_over(tls->stream, NET_TIMED_OUT);
    }
}

static void set_deadline(struct tls *tls)
{
    struct net_loop *loop = tls->stream->loop;
    uint64_t limit_ns = tls_context_handshake_ns(tls->context);
    tls->deadline_ns = net_now_ns() + limit_ns;
    if (list_empty(&loop->handshakes)) {
        uv_update_time(&loop->uv);
        (void)uv_timer_start(&loop->handshake_timer, on_handshake_due,
                             limit_ns / CLOCK_NS_PER_MS + 1, 0); /* Is not closing. */
    }
    list_push_back(&loop->handshakes, &tls->handshake_link);
}

/* ---- Life ---- */

void tls_keep_session(struct net_stream *stream, SSL_SESSION *session)
{
    struct tls *tls = stream->tls;
    session_keep(stream->loop, session, tls->peer, tls->generation);
}

/* Whom the certificate has to name, and, where that is a name, what is asked for. */
static bool expect(struct tls *tls)
{
    const char *host = tls->peer->host;
    unsigned char literal[16];
    X509_VERIFY_PARAM *parameters = SSL_get0_param(tls->ssl);
    if (uv_inet_pton(AF_INET, host, literal) == 0 || uv_inet_pton(AF_INET6, host, literal) == 0) {
        return X509_VERIFY_PARAM_set1_ip_asc(parameters, host) == 1;
    }
    SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(tls->ssl, host) == 1 &&
           SSL_ctrl(tls->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                    stream_without_const(host)) == 1;
}

static bool attach(struct tls *tls, const struct net_address *peer)
{
    struct net_stream *stream = tls->stream;
    BIO *bio = BIO_new(tls_context_bio(tls->context));
    if (bio == NULL) {
        return false;
    }
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio); /* Takes it. */
    SSL_set_app_data(tls->ssl, stream);
    if (peer == NULL) {
        SSL_set_accept_state(tls->ssl);
        set_deadline(tls);
        return true;
    }
    tls->peer = mem_alloc(stream->loop->mem, sizeof *peer);
    if (tls->peer == NULL) {
        return false;
    }
    *tls->peer = *peer;
    SSL_set_connect_state(tls->ssl);
    session_resume(stream->loop, tls->ssl, peer, tls->generation);
    return expect(tls);
}

enum net_status tls_begin(struct net_stream *stream, struct net_tls *context,
                          const struct net_address *peer)
{
    struct tls *tls = mem_alloc_zero(stream->loop->mem, sizeof *tls);
    if (tls == NULL) {
        return NET_NO_MEMORY;
    }
    tls->stream = stream;
    tls->context = context;
    list_init(&tls->handshake_link);
    list_init(&tls->ready_link);
    list_init(&tls->waiting);
    stream->tls = tls;
    tls->ssl = tls_context_new_ssl(context, &tls->generation);
    if (tls->ssl == NULL || !attach(tls, peer)) {
        tls_end(stream, false);
        return NET_NO_MEMORY;
    }
    if (peer != NULL) {
        (void)shake_hands(stream);
        if (stream->closed || stream->tls->ended) {
            return NET_OK; /* It has failed, and that was told. */
        }
    }
    return watch(stream);
}

void tls_end(struct net_stream *stream, bool notice)
{
    struct tls *tls = stream->tls;
    if (tls->ssl != NULL) {
        ERR_clear_error();
        if (notice && tls->up && !tls->broken && list_empty(&tls->waiting) &&
            stream_unsent(stream) == 0) {
            (void)SSL_shutdown(tls->ssl); /* The peer need not answer. */
        }
        SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* Its session may be
                                                                                  resumed. */
        SSL_free(tls->ssl);
    }
    list_remove(&tls->handshake_link);
    list_remove(&tls->ready_link);
    while (!list_empty(&tls->waiting)) {
        drop_write(tls, LIST_ITEM(tls->waiting.next, struct plain_write, link));
    }
    if (tls->shutdown != NULL) {
        shutdown_free(stream, tls->shutdown);
    }
    struct mem *mem = stream->loop->mem;
    mem_free(mem, tls->peer, sizeof *tls->peer);
    mem_free(mem, tls, sizeof *tls);
    stream->tls = NULL;
}

void tls_loop_init(struct net_loop *loop)
{
    list_init(&loop->handshakes);
    list_init(&loop->ready);
    list_init(&loop->sessions);
    loop->session_count = 0;
    (void)uv_timer_init(&loop->uv, &loop->handshake_timer); /* Never fails. */
    loop->handshake_timer.data = loop;
    uv_unref((uv_handle_t *)&loop->handshake_timer);
}

void tls_loop_fini(struct net_loop *loop)
{
    sessions_drop(loop);
    uv_close((uv_handle_t *)&loop->handshake_timer, NULL);
}
