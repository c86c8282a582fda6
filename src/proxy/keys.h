/*
 * Keys. --api-key-file: those of clients, one a line; who shows none is answered 401. VLLM_API_KEY:
 * the router's own, for engines.
 *
 * A client's key is between it and the router: where keys are checked here, it does not go on, and
 * engines get the router's own. Where none are checked, what a client sends goes on as it is, so
 * that the engines check it: the router's key would open them to everybody.
 */
#ifndef HASHTRIE_PROXY_KEYS_H
#define HASHTRIE_PROXY_KEYS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"
#include "http/http.h"

struct router;

enum {
    KEY_BYTES_MAX = 4096,
    KEYS_FILE_BYTES_MAX = 256 * 1024,
    KEYS_HEADER_BYTES_MAX = KEY_BYTES_MAX + 32,
};

struct keys {
    pthread_rwlock_t lock; /* Of `text`, which a reload replaces. */
    char *text;            /* Owned; keys, each ended by '\n'. */
    size_t size;
    bool required;            /* Clients have to show one. */
    char *engine_header;      /* Owned: "Authorization: Bearer KEY"; NULL: there is none. */
    struct span engine_value; /* In it; data NULL: none. */
};

bool keys_start(struct router *router);  /* False: told in the log. */
void keys_reload(struct router *router); /* What is bad is told; the old ones stay. */
void keys_stop(struct router *router);   /* Wipes them. */
bool keys_allow(struct router *router, const struct http_head *head); /* Any thread. */
/* A header of a client that is not for engines. */
bool keys_hide(const struct router *router, struct span name);
/* Value of the Authorization that goes to engines instead; data NULL: none. `asked_for_us`: as in
 * what the router itself asks, whatever clients show. */
struct span keys_for_engines(const struct router *router, bool asked_for_us);

/* The token of "Authorization: Bearer TOKEN"; data NULL: none. */
struct span keys_bearer(const struct http_head *head);
/* Takes the same time wherever they differ, if they are of one length. */
bool keys_same(struct span a, struct span b);

#endif
