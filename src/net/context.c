/* What TLS is set up with: files to an SSL_CTX, which is replaced as a whole when they are read
 * again. Streams under way keep theirs. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "net/internal.h"

struct net_tls {
    struct mem *mem; /* Borrowed. */
    struct net_tls_options options;
    BIO_METHOD *bio;
    pthread_mutex_t mutex; /* Of what follows. */
    SSL_CTX *context;
    uint64_t generation;
    struct net_tls_stats stats;
};

/* Those of TLS 1.2 that authenticate what they encipher, with keys that are forgotten. */
static const char ciphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

static const unsigned char protocols[] = "\x08http/1.1";
enum { PROTOCOLS_BYTES = sizeof protocols - 1 };

/* ---- Reading files ---- */

static bool fail(char *problem, const char *file, const char *what)
{
    unsigned long error = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(error);
    (void)snprintf(problem, NET_PROBLEM_BYTES, "%s: %s%s%s", file, what, reason != NULL ? ": " : "",
                   reason != NULL ? reason : "");
    ERR_clear_error();
    return false;
}

static bool can_be_read(const char *file, char *problem)
{
    if (access(file, R_OK) == 0) {
        return true;
    }
    (void)snprintf(problem, NET_PROBLEM_BYTES, "%s cannot be read: %s", file, strerror(errno));
    return false;
}

/* A key with a passphrase is refused; OpenSSL would ask for it at the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's. */
static int on_passphrase(char *text, int size, int writing, void *user)
{
    (void)text;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}

static bool load_certificate(SSL_CTX *context, const struct net_tls_options *options, char *problem)
{
    const char *file = options->cert_file;
    const char *key = options->key_file != NULL ? options->key_file : file;
    if (file == NULL) {
        return true;
    }
    if (!can_be_read(file, problem) || !can_be_read(key, problem)) {
        return false;
    }
    if (SSL_CTX_use_certificate_chain_file(context, file) != 1) {
        return fail(problem, file, "no certificate in PEM format");
    }
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        return fail(problem, key, "no private key in PEM format that fits the certificate");
    }
    return true;
}

static bool load_trusted(SSL_CTX *context, const struct net_tls_options *options, char *problem)
{
    const char *file = options->ca_file;
    if (file == NULL) {
        return options->server || SSL_CTX_set_default_verify_paths(context) == 1 ||
               fail(problem, "the system's certificate authorities", "they cannot be read");
    }
    if (!can_be_read(file, problem)) {
        return false;
    }
    if (SSL_CTX_load_verify_file(context, file) != 1) {
        return fail(problem, file, "no certificates in PEM format");
    }
    if (options->server) {
        SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(file)); /* Takes it. */
    }
    return true;
}

/* ---- Settings ---- */

static int on_protocols(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                        const unsigned char *offered, unsigned offered_size, void *user)
{
    (void)ssl;
    (void)user;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_size, protocols, PROTOCOLS_BYTES, offered,
                              offered_size) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    tls_keep_session(SSL_get_app_data(ssl), session);
    return 1; /* It has been taken. */
}

static void set_server(SSL_CTX *context, enum net_tls_clients clients)
{
    static const unsigned char name[] = "hashtrie";
    int verify = clients == NET_TLS_ANYBODY ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
    verify |= clients == NET_TLS_CERTIFIED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
    SSL_CTX_set_verify(context, verify, NULL);
    SSL_CTX_set_alpn_select_cb(context, on_protocols, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);          /* Tickets need none. */
    (void)SSL_CTX_set_session_id_context(context, name, sizeof name - 1); /* Is short enough. */
    (void)SSL_CTX_set_num_tickets(context, 1);                            /* Never fails. */
    (void)SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
}

static bool set_client(SSL_CTX *context)
{
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(context,
                                         SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    return SSL_CTX_set_alpn_protos(context, protocols, PROTOCOLS_BYTES) == 0;
}

static SSL_CTX *load(const struct net_tls_options *options, char *problem)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(options->server ? TLS_server_method() : TLS_client_method());
    if (context == NULL) {
        (void)fail(problem, "TLS", "out of memory");
        return NULL;
    }
    SSL_CTX_set_default_passwd_cb(context, on_passphrase);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    (void)SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1); /* A record's head and body in one system call. */
    if (options->server) {
        set_server(context, options->clients);
    }
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, ciphers) != 1 ||
        (!options->server && !set_client(context))) {
        (void)fail(problem, "TLS", "this OpenSSL lacks what is needed");
        goto fail_context;
    }
    if (load_certificate(context, options, problem) && load_trusted(context, options, problem)) {
        return context;
    }

fail_context:
    SSL_CTX_free(context);
    return NULL;
}

/* ---- Life ---- */

struct net_tls *net_tls_new(struct mem *mem, const struct net_tls_options *options,
                            char problem[NET_PROBLEM_BYTES])
{
    REQUIRE(!options->server || options->cert_file != NULL);
    REQUIRE(options->clients == NET_TLS_ANYBODY || (options->server && options->ca_file != NULL));
    struct net_tls *tls = mem_alloc_zero(mem, sizeof *tls);
    if (tls == NULL) {
        (void)fail(problem, "TLS", "out of memory");
        return NULL;
    }
    tls->mem = mem;
    tls->options = *options;
    if (options->handshake_ns == 0) {
        tls->options.handshake_ns = NET_HANDSHAKE_NS;
    }
    tls->bio = tls_bio_method_new();
    tls->context = load(options, problem);
    if (tls->bio == NULL || tls->context == NULL) {
        BIO_meth_free(tls->bio);
        SSL_CTX_free(tls->context);
        mem_free(mem, tls, sizeof *tls);
        return NULL;
    }
    pthread_mutex_init(&tls->mutex, NULL);
    return tls;
}

bool net_tls_reload(struct net_tls *tls, char problem[NET_PROBLEM_BYTES])
{
    SSL_CTX *context = load(&tls->options, problem);
    if (context == NULL) {
        return false;
    }
    pthread_mutex_lock(&tls->mutex);
    SSL_CTX *before = tls->context;
    tls->context = context;
    tls->generation++;
    pthread_mutex_unlock(&tls->mutex);
    SSL_CTX_free(before); /* Streams refer to it as long as they need it. */
    return true;
}

void net_tls_free(struct net_tls *tls)
{
    if (tls == NULL) {
        return;
    }
    pthread_mutex_destroy(&tls->mutex);
    SSL_CTX_free(tls->context);
    BIO_meth_free(tls->bio);
    mem_free(tls->mem, tls, sizeof *tls);
}

/* ---- For streams ---- */

SSL *tls_context_new_ssl(struct net_tls *context, uint64_t *generation)
{
    pthread_mutex_lock(&context->mutex);
    SSL *ssl = SSL_new(context->context);
    *generation = context->generation;
    pthread_mutex_unlock(&context->mutex);
    return ssl;
}

const BIO_METHOD *tls_context_bio(const struct net_tls *context)
{
    return context->bio;
}

uint64_t tls_context_handshake_ns(const struct net_tls *context)
{
    return context->options.handshake_ns;
}

void tls_context_count(struct net_tls *context, enum net_status status, bool resumed)
{
    pthread_mutex_lock(&context->mutex);
    if (status == NET_OK) {
        context->stats.handshakes++;
        context->stats.resumed += resumed ? 1 : 0;
    } else {
        context->stats.failures++;
        context->stats.last_failure = status;
    }
    pthread_mutex_unlock(&context->mutex);
}

struct net_tls_stats net_tls_get_stats(struct net_tls *tls)
{
    pthread_mutex_lock(&tls->mutex);
    struct net_tls_stats stats = tls->stats;
    pthread_mutex_unlock(&tls->mutex);
    return stats;
}
