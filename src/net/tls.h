/* What a stream over TLS has besides: shared by tls.c and tls_socket.c. */
#ifndef HASHTRIE_NET_TLS_H
#define HASHTRIE_NET_TLS_H

#include "net/internal.h"

struct tls {
    struct net_stream *stream;
    struct net_tls *context; /* Borrowed. */
    SSL *ssl;
    struct list handshake_link; /* In loop->handshakes. */
    struct list ready_link;     /* In loop->ready. */
    struct list waiting;        /* struct plain_write.link */
    size_t waiting_bytes;
    struct shutdown *shutdown;     /* Owned: to be done once `waiting` is empty. */
    uint64_t generation;           /* Of the context's files. */
    uint64_t deadline_ns;          /* Of a client's handshake. */
    enum net_status socket_status; /* What the socket failed with; NET_EOF: ended. */
    enum net_status end_status;
    bool got_bytes;
    bool watched;             /* libuv tells when the socket is readable. */
    bool up;                  /* The handshake is done. */
    bool ended;               /* Nothing more is read: end_status, told or to be told. */
    bool broken;              /* Nothing can be written any more. */
    struct net_address *peer; /* Owned; NULL: it is the client. */
};

/* Of the call of OpenSSL that has just failed for good. */
enum net_status tls_failure_status(const struct tls *tls);
bool tls_failed_by_http(void); /* The same: what came was HTTP. */

#endif
