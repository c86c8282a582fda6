/*
 * Requests to the control plane, GET or POST, many at a time, through libcurl on the loop. One
 * connection for each; no proxies, no redirects. An answer may be without end (a watch): its bytes
 * are handed on as they come, and TCP's keep-alive finds out when nobody is there any more.
 */
#ifndef HASHTRIE_FETCH_FETCH_H
#define HASHTRIE_FETCH_FETCH_H

#include "base/span.h"
#include "net/net.h"

struct fetcher; /* One per loop. */
struct fetch;   /* One answer under way. */

struct fetch_options {
    const char *url;
    const char *const *headers; /* "Name: value", ends with NULL; copied. NULL: none. */
    const char *ca_file;        /* Of https: who is trusted, NULL: the system's authorities; */
    const char *cert_file;      /* the certificate shown, NULL: none; */
    const char *key_file;       /* its key, NULL: in cert_file. Copied. */
    struct span ca_pem; /* The same as PEM text instead of files; data NULL: none. Copied. */
    struct span cert_pem;
    struct span key_pem;
    const struct span *body;     /* POST it; borrowed until the end. NULL: GET. */
    uint64_t timeout_ns;         /* For the answer as a whole. */
    uint64_t connect_timeout_ns; /* Of it, until there is a connection; 0: all of it. */
    size_t head_bytes_max;
    size_t body_bytes_max; /* SIZE_MAX: no end. */
    /* The head is there. Optional; may neither begin nor cancel fetches. */
    void (*on_status)(void *user, unsigned status);
    /* Of the body, whatever the status. May neither begin nor cancel fetches. False: no more. */
    bool (*on_bytes)(void *user, const char *bytes, size_t size);
    /* Once, unless cancelled before. `error` NULL: answered as a whole, with `status`; else why
     * not. The fetch is gone. May begin others. */
    void (*on_done)(void *user, unsigned status, const char *error);
    void *user;
};

struct fetcher *fetcher_new(struct net_loop *loop, struct mem *mem); /* NULL: out of memory. */
void fetcher_free(struct fetcher *fetcher); /* All fetches are over. NULL is fine. */

/* NULL: out of memory. */
struct fetch *fetch_begin(struct fetcher *fetcher, const struct fetch_options *options);
void fetch_cancel(struct fetch *fetch); /* Nothing is called back any more. */
/* Of the answer so far; 0: none yet. During on_bytes it is the one that on_done will tell. */
unsigned fetch_status(const struct fetch *fetch);

#endif
