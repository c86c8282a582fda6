/*
 * The engines that Kubernetes knows: pods (pod-ip), or services with endpoints (service-name). Part
 * of the room's door: include discovery.h.
 *
 *     pods: listed, then watched      --+
 *     services, endpoint slices: alike  +-> ready -> models, sleep asked for -> told, as one set
 *
 * A pod is an engine once all its containers are ready, it is not being deleted, has an address,
 * and has said which models it serves; it is asked again when its pod changes, and now and then. It
 * is none any more as soon as one of these ends, but for its answers: one that does not answer
 * keeps the models it had. While the API server is away, all stay as they are.
 *
 * Everything on one loop and its thread, save for what is marked. Nothing of what the API server or
 * a pod says takes more than the limits below, in objects.h and in watch.h.
 */
#ifndef HASHTRIE_DISCOVERY_KUBE_H
#define HASHTRIE_DISCOVERY_KUBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "net/net.h"

enum {
    KUBE_ENGINES_MAX = 4096, /* Pods or services, ready or not; more are left out. */
    KUBE_SLICES_MAX = 16384,
    KUBE_ASKED_MAX = 256, /* Engines asked at a time: those that hang do not hold up others. */
    KUBE_COLLECTIONS = 2, /* At most: services and their endpoint slices. */
};

#define KUBE_SETTLE_NS UINT64_C(20000000) /* Changes within this time are told as one. */
#define KUBE_PATIENCE_NS \
    UINT64_C(2000000000)                   /* For first answers of engines, after the first LIST. */
#define KUBE_RETRY_NS UINT64_C(5000000000) /* After a set that was not taken. */
#define KUBE_PAUSE_NS UINT64_C(500000000)  /* After the API server failed; then doubled. */

/* Borrowed for the call. */
struct kube_engine {
    const char *url; /* http://ADDRESS:PORT */
    const char *const *models;
    size_t model_count;     /* > 0 */
    const char *label;      /* Of its models; NULL: none. */
    const char *id;         /* Name of the pod or service. */
    const char *generation; /* Another one: another process. NULL: unknown. */
    bool sleeping;
};

typedef const char *kube_lookup(void *user, const char *name);

/* All borrowed until kube_free(). */
struct kube_options {
    bool services;         /* service-name instead of pod-ip. */
    const char *namespace; /* Of the engines. */
    const char *selector;  /* Of labels; "": all. */
    uint16_t port;
    uint64_t watch_ns;         /* Of one WATCH; 0: five to ten minutes, by chance. */
    uint64_t relist_ns;        /* From one LIST to the next. */
    uint64_t ask_ns;           /* From one question to an engine to the next. */
    uint64_t timeout_ns;       /* For an engine's answer. */
    const char *authorization; /* A header for engines; NULL: none. */
    uint64_t seed;
    kube_lookup *lookup; /* Environment variables. */
    void *lookup_user;
    /* What is there now, when it has changed. False: it cannot be taken; it is told again after
     * KUBE_RETRY_NS. */
    bool (*on_engines)(void *user, const struct kube_engine *engines, size_t count);
    /* One line for people. */
    void (*on_note)(void *user, bool is_warning, const char *text);
    void *user;
};

/* Of one collection; all since the start. */
struct kube_collection {
    const char *name; /* "pods", "services", "endpointslices"; NULL: not watched. */
    uint64_t lists;
    uint64_t watches;
    uint64_t events;
    uint64_t expired;
    uint64_t failures;
    uint64_t heard_ns; /* Monotonic: when the server last told something of it; 0: never. */
};

struct kube_stats {
    struct kube_collection collections[KUBE_COLLECTIONS];
    uint64_t known;   /* Pods or services. */
    uint64_t ready;   /* As the API server has it. */
    uint64_t serving; /* They have told their models, too. */
};

struct kube;

/* NULL: `why` says why: no way to an API server, or no memory. Begins at once. */
struct kube *kube_new(struct net_loop *loop, struct mem *mem, const struct kube_options *options,
                      struct buf *why);
void kube_free(struct kube *kube); /* Nothing is called back any more. NULL is fine. */

/* Any thread: the first LIST has come, and its engines were asked. Once true, it stays so. */
bool kube_is_settled(const struct kube *kube);
struct kube_stats kube_get_stats(const struct kube *kube); /* Any thread. */

#endif
