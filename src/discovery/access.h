/*
 * Where Kubernetes' API server is, and as whom the router asks it: the service account of its pod,
 * else a kubeconfig. Private to the room.
 */
#ifndef HASHTRIE_DISCOVERY_ACCESS_H
#define HASHTRIE_DISCOVERY_ACCESS_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/mem.h"
#include "fetch/fetch.h"

enum {
    ACCESS_TOKEN_BYTES_MAX = 64 * 1024,
    ACCESS_FILE_BYTES_MAX = 1024 * 1024, /* Of a kubeconfig. */
};

typedef const char *access_lookup(void *user, const char *name); /* NULL: not set. */

/* Owned: all texts; NULL: none. */
struct access {
    struct mem *mem;    /* Borrowed. */
    const char *source; /* For people: "service account" or the kubeconfig's name. */
    char *server;       /* "https://HOST:PORT", without a slash at its end. */
    char *namespace;    /* The router's own, or the context's. */
    char *kubeconfig;   /* Its name. */
    char *token;        /* Either this ... */
    char *token_file;   /* ... or this, which is read anew for each request. */
    char *ca_file;      /* Either files ... */
    char *cert_file;
    char *key_file;
    char *ca_pem; /* ... or PEM text. */
    char *cert_pem;
    char *key_pem;
};

/*
 * In a pod (KUBERNETES_SERVICE_HOST is set and the service account is mounted) its service account;
 * else the first file of $KUBECONFIG, else ~/.kube/config. `root` stands before the service
 * account's path: "" but in tests. False: `why` says what is missing or cannot be used. fini is due
 * in every case.
 */
bool access_load(struct access *access, struct mem *mem, access_lookup *lookup, void *user,
                 const char *root, struct buf *why);
void access_fini(struct access *access);

/* kubeconfig.c: takes what the text of access->kubeconfig says. False: `why` says why not. */
bool kubeconfig_read(struct access *access, struct span text, struct buf *why);

/* Fills in whom to trust and what to show. */
void access_secure(const struct access *access, struct fetch_options *options);
/* "Authorization: Bearer TOKEN" and a NUL into `header`, which is left empty where there is no
 * token. False: `why` says why the token's file cannot be read. */
bool access_authorize(const struct access *access, struct buf *header, struct buf *why);

#endif
