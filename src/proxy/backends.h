/*
 * The set of backends, which may change while requests run.
 *
 *     free -- wished --> known -- no longer wished --> gone -- let go by all --> free
 *                          ^------- wished again -------'
 *
 * A backend's number is its number in the fleet. One that has gone gets no new requests, finishes
 * those it has, and keeps its number, its metrics and its memory until the last of them, and the
 * last connection to it, has let go. What the trie and the store know of it stays: an engine that
 * flaps is found again by its URL.
 *
 * Threads: the set changes on the first loop's thread alone, under the trie's lock. Whoever holds a
 * backend (a request that has been sent there, until it is done; a connection; a scrape) may read,
 * without the lock, what is marked as fixed. A hold is taken under the lock while the backend is
 * known, or by who holds it already.
 */
#ifndef HASHTRIE_PROXY_BACKENDS_H
#define HASHTRIE_PROXY_BACKENDS_H

#include "proxy/engines.h"
#include "proxy/router.h"

enum { BACKENDS_MAX = CONFIG_BACKENDS_MAX }; /* Wished at one time. */

/* One engine as it should be. All borrowed for the call. */
struct backend_wish {
    const char *url; /* http[s]://HOST[:PORT][/PATH], without a slash at its end. */
    const char *const *models;
    size_t model_count; /* 0: known, and asked for its metrics, but it gets no requests. */
    const char *label;  /* Of its models: the pod label `model`, or as configured. NULL: none. */
    const char *id;     /* What ?id= names. NULL: none. */
    const char *generation; /* Pod UID or the like; another one at the same URL is another process,
                               which holds nothing. NULL: unknown. */
    bool sleeping;          /* Gets no requests. */
};

/*
 * Makes the set what is wished. Backends that were there before keep everything: connections,
 * load, learned rates, prefixes, counters. A URL that is wished twice serves the models of both;
 * the rest is as the first says. All or nothing: false leaves the old set, and `why` has one
 * sentence. First loop's thread, or before it runs; the workers have been made.
 */
bool router_set_backends(struct router *router, const struct backend_wish *wishes, size_t count,
                         struct buf *why);

/* Of a backend and one of its models: what `server` and `model` labels come from. */
struct stats_pair {
    size_t model;
    struct stats_pair *next;                 /* Of the backend; NULL: the last. */
    _Atomic(struct stats_series *) series[]; /* Owned; per worker, made at its first request. */
};

enum { BACKEND_TEXT_MAX = 512 }; /* Bytes of a model's name, a label, an id, a generation. */

enum { BACKENDS_WHY_MAX = 1024 }; /* What `why` takes at most. */

struct backend {
    size_t number;              /* Fixed. */
    char *url;                  /* Fixed. Owned. */
    struct net_address address; /* Fixed. */
    struct span host;           /* Fixed. Value of the Host header; points into url. */
    struct span path;           /* Fixed. Put before each target; points into url. */
    hashtrie_endpoint holder;   /* Fixed. */
    char *label;                /* Owned, under the lock; NULL: none. */
    char *id;                   /* The same. */
    atomic_bool gone;
    atomic_uint hold_count;
    _Atomic(struct stats_pair *) pairs; /* Owned. Read by who holds it; new ones come first. */
    struct recent recent;               /* Under the lock. */
    struct engine engine;               /* See engines.h. */
};

static inline void backend_hold(struct backend *backend)
{
    atomic_fetch_add_explicit(&backend->hold_count, 1, memory_order_relaxed);
}

/* From now on it may be freed at any moment. */
static inline void backend_let_go(struct backend *backend)
{
    atomic_fetch_sub_explicit(&backend->hold_count, 1, memory_order_release);
}

/* Held. The pair of a model that it has served since it came. */
struct stats_pair *backend_pair(const struct backend *backend, size_t model);
/* Held, the worker's own thread: its series of the pair. NULL: no memory. */
struct stats_series *backend_series(struct worker *worker, struct stats_pair *pair);

/* ---- Between backends.c and wishes.c: first loop's thread ---- */

/* Writes the reason; returns false. */
bool backends_refuse(struct buf *why, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Fills in what a backend takes from its URL, which is borrowed. False: `why` says what is wrong.
 */
bool backend_read_url(struct router *router, const char *url, struct backend *backend,
                      struct buf *why);
/* Lock held. Serves nothing yet, and sleeps. NULL: `why` says why not. */
struct backend *backend_add(struct router *router, const struct backend_wish *wish,
                            struct buf *why);
/* Lock held. It serves that model as well. */
bool backend_serve(struct router *router, struct backend *backend, const char *model,
                   struct buf *why);

/* First loop: frees those that have gone and are held no longer. */
void backends_sweep(struct router *router);
void backends_free(struct router *router); /* At the end: nobody holds any. */

#endif
