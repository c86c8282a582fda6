/* The socket as OpenSSL sees it, and what its failures mean. */
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "net/tls.h"

enum {
    UNSENT_BYTES_MAX =
        256 * 1024, /* Of what OpenSSL says on its own to a peer that reads nothing. */
};

static int on_bio_read(BIO *bio, char *bytes, int size)
{
    struct net_stream *stream = BIO_get_data(bio);
    struct tls *tls = stream->tls;
    BIO_clear_retry_flags(bio);
    enum net_status status = NET_OK;
    ssize_t got = stream_receive(stream, bytes, (size_t)size, &status);
    if (got > 0) {
        tls->got_bytes = true;
    } else if (got < 0) {
        BIO_set_retry_read(bio);
    } else {
        tls->socket_status = status;
    }
    return (int)got;
}

static int on_bio_write(BIO *bio, const char *bytes, int size)
{
    struct net_stream *stream = BIO_get_data(bio);
    struct tls *tls = stream->tls;
    BIO_clear_retry_flags(bio);
    uv_buf_t part = uv_buf_init(stream_without_const(bytes), (unsigned)size);
    enum net_status status = stream_unsent(stream) > UNSENT_BYTES_MAX
                                 ? NET_NO_MEMORY
                                 : stream_send(stream, &part, 1, NET_COPY);
    if (status != NET_OK) {
        tls->socket_status = status;
        return -1;
    }
    return size;
}

static long on_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD *tls_bio_method_new(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    if (method == NULL) {
        return NULL;
    }
    (void)BIO_meth_set_read(method, on_bio_read); /* These three never fail. */
    (void)BIO_meth_set_write(method, on_bio_write);
    (void)BIO_meth_set_ctrl(method, on_bio_control);
    return method;
}

/* ---- What went wrong ---- */

static enum net_status verification_status(long result)
{
    switch (result) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return NET_UNTRUSTED;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return NET_EXPIRED;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return NET_OTHER_NAME;
    default:
        return NET_BAD_CERTIFICATE;
    }
}

static bool is_http(int reason)
{
    return reason == SSL_R_HTTP_REQUEST || reason == SSL_R_HTTPS_PROXY_REQUEST;
}

enum net_status tls_failure_status(const struct tls *tls)
{
    if (tls->socket_status != NET_OK) {
        return tls->socket_status == NET_EOF ? NET_CUT : tls->socket_status;
    }
    int reason = ERR_GET_REASON(ERR_peek_error());
    if (is_http(reason) || reason == SSL_R_WRONG_VERSION_NUMBER) {
        return NET_NOT_TLS;
    }
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        return verification_status(SSL_get_verify_result(tls->ssl));
    }
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        return NET_NO_CERTIFICATE;
    }
    return reason > SSL_AD_REASON_OFFSET ? NET_REJECTED : NET_TLS_FAILED; /* An alert came. */
}

bool tls_failed_by_http(void)
{
    return is_http(ERR_GET_REASON(ERR_peek_error()));
}
