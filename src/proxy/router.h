/*
 * What the files of this room share: the router, its workers (one per loop), its backends.
 *
 * Threads: `struct router` is written at start alone, save for atomics and what the trie's lock
 * covers (trie, fleet). A worker, its connections and requests belong to its loop's
 * thread; other threads may send its wake, read its stats and push to its mailbox.
 */
#ifndef HASHTRIE_PROXY_ROUTER_H
#define HASHTRIE_PROXY_ROUTER_H

#include <pthread.h>
#include <stdatomic.h>

#include "hashtrie/store.h"
#include "hashtrie/trie.h"

#include "base/list.h"
#include "base/log.h"
#include "base/random.h"
#include "config/config.h"
#include "http/http.h"
#include "net/net.h"
#include "prompt/prompt.h"
#include "proxy/admit.h"
#include "proxy/body.h"
#include "proxy/budget.h"
#include "proxy/doors.h"
#include "proxy/host.h"
#include "proxy/keys.h"
#include "proxy/life.h"
#include "proxy/recent.h"
#include "proxy/service.h"
#include "proxy/settings.h"
#include "proxy/stats.h"
#include "route/route.h"

enum {
    ROUTER_BACKLOG = 4096,       /* The kernel cuts it to net.core.somaxconn. */
    ROUTER_TRIES_MAX = 101,      /* --max-instance-failover-reroute-attempts goes to 100. */
    ROUTER_POOL_IDLE_MAX = 1024, /* Idle connections kept per endpoint and loop. */
    ROUTER_BACKOFF_DOUBLINGS_MAX = 4,
};

/* So long after it was made a connection to an engine is no longer kept: a name is resolved for new
 * ones, and one that never rests would go to an address of before for ever. */
#define ROUTER_POOL_AGE_NS (60 * UINT64_C(1000000000))
#define ROUTER_BACKOFF_NS  (20 * UINT64_C(1000000))    /* Before the second retry; then doubled. */
#define ROUTER_SWEEP_NS    (1000 * UINT64_C(1000000))  /* Timeouts below are checked so often. */
#define ROUTER_FINISH_NS   (30 * UINT64_C(1000000000)) /* A body that others have to wait for. */
#define ROUTER_LINGER_NS \
    (2 * UINT64_C(1000000000)) /* After the last answer, for the client to read it. */

struct backend;
struct discovery;
struct dynamic;
struct kube;
struct trace_exporter;
struct worker;

struct router {
    const struct config *config;  /* Borrowed. */
    struct log *log;              /* Borrowed: of the main thread, while starting and ending. */
    pthread_mutex_t log_mutex;    /* Around writes: lines of two threads do not mix in a pipe. */
    struct mem mem;               /* What is allocated at the start and freed at the end. */
    struct hashtrie *trie;        /* Owned. */
    struct hashtrie_store *store; /* Owned; NULL without one. */
    struct route_fleet *fleet;    /* Owned; the trie's lock covers it. */
    struct mem fleet_mem;         /* Of the fleet and the backends. The trie's lock covers it. */
    enum config_routing routing;  /* The trie's lock covers it; read by the first loop without. */
    _Atomic(struct settings *) settings; /* Held; see settings.h. */
    struct dynamic *dynamic;             /* Owned; first loop's thread. NULL: there is no file. */
    struct budget retry_budget;          /* The trie's lock covers it. */
    struct admit admit;                  /* The same. */
    struct doors doors;
    struct backend *backends[ROUTE_ENDPOINTS_MAX]; /* Owned; see backends.h. NULL: free. */
    atomic_size_t slot_count;                      /* Of `backends`: those beyond are free. */
    atomic_size_t backend_count;                   /* Known, and not gone. */
    size_t gone_count;                             /* First loop's thread. */
    hashtrie_endpoint forget_next;                 /* Of the trie, when it is full of them. */
    struct discovery *discovery;   /* Owned; first loop's thread. NULL: engines are not asked. */
    struct discovery *checks;      /* The same for their health. */
    struct kube *kube;             /* Owned; first loop's thread, see kubernetes.h. NULL: none. */
    struct trace_exporter *traces; /* Owned. NULL: requests leave no spans. */
    struct list suspected;         /* engine.suspected; the trie's lock covers it. */
    size_t telling_count;          /* Engines whose metrics are read; the trie's lock covers it. */
    size_t recalled_slot_count;    /* See models.h; the trie's lock covers both. */
    uint32_t recalled_next_id;
    uint16_t *backend_of_holder; /* Owned; by the trie's endpoint number. UINT16_MAX: none. */
    size_t backend_of_holder_size;
    struct worker *workers; /* Owned. */
    size_t worker_count;
    struct bodies bodies;
    struct keys keys;
    struct net_tls *client_tls;         /* Owned; NULL: clients speak plain HTTP. */
    struct net_tls *_Atomic engine_tls; /* Owned; NULL: none is reached by https. Set once, by the
                                           first loop, when the first such backend comes. */
    uint64_t tls_failures_told;         /* First loop's thread. */
    uint64_t tls_quiet_until_ns;
    struct net_signal *hangup;
    char *admin_key;              /* Owned; NULL: there is none. */
    struct net_address listening; /* The last, if sockets were passed. */
    bool listens_at_passed;       /* Sockets whose queues outlive this process. */
    bool has_admin_port;          /* A listener of their own for the admin paths and the metrics. */
    struct service service;
    const char *status_told;    /* To the service manager. */
    atomic_uint others_running; /* Workers besides the first, whose loop outlives theirs. */
    atomic_int phase;           /* enum router_phase. */
    uint64_t store_until_ns;    /* /ready waits no longer for the store. */
    bool store_handed_over;     /* First loop's thread. */
    atomic_bool store_settled;  /* It has been up, or waited for long enough. */
    struct net_signal *signals[2];
    struct net_timer *life_timer; /* Of the phase. */
    uint64_t start_unix_s;
    struct host host;
    uint64_t figures_due_ns; /* For --log-stats. First loop's thread. */
};

struct worker {
    struct router *router;
    size_t number;
    struct mem mem;
    struct log log;
    struct net_loop *loop;
    struct net_listener *listeners[SERVICE_SOCKETS_MAX + 1];
    size_t listener_count;
    int turns_to_evict; /* Until the trie is asked whether to go on. */
    bool told_starved;  /* That they have no descriptors; the end of it is told, too. */
    atomic_uint_fast64_t
        swept_ns; /* When its loop was last seen alive; UINT64_MAX: it has ended. */
    struct net_wake *wake;
    struct net_timer *sweep;
    struct prompt_reader *reader;
    uint64_t
        *hashes; /* Scratch for one prompt; grows to the largest met, bounded by HASHES_KEPT. */
    size_t hash_capacity;
    struct buf scratch;    /* Re-framed bytes and local answers, for one callback. */
    struct list conns;     /* struct conn.link */
    struct list dead;      /* Closed; freed at the end of the turn. */
    struct list paused;    /* Connections not read because too many bodies are in memory. */
    struct list upstreams; /* All struct upstream.all of this loop. */
    struct list dead_upstreams;
    struct list *pools; /* Owned, per slot of a backend: idle upstreams, youngest last. */
    size_t *pool_sizes;
    pthread_mutex_t mailbox_mutex;
    struct list mailbox;       /* struct reload_wait.link: reloads that are done. */
    struct list granted;       /* struct request.ticket: see queue.h. In the same mailbox. */
    struct settings *settings; /* Held. */
    struct stats stats;
    uint64_t random_id[2]; /* State of the request ids. */
    struct random random;  /* For delays. */
    pthread_t thread;
    bool thread_started;
    atomic_size_t unsettled; /* Connections whose request may still teach the trie something. */
    bool drained;            /* Has seen ROUTER_DRAINING, ... */
    bool ended;              /* ... ROUTER_ENDING. */
};

enum route_policy router_policy(const struct router *router); /* pick.c. Lock held. */
bool admin_read_key(struct router *router); /* snapshot.c. False: told in the log. */

/* listen.c */
bool router_listen(struct router *router); /* False: told in the log. */
void worker_unlisten(struct worker *worker);

/* worker.c */
bool worker_init(struct worker *worker, struct router *router, size_t number);
void worker_run(struct worker *worker); /* Until it has drained. */
void worker_fini(struct worker *worker);
/* A connection has gone: the worker ends with its last one if it drains. */
void worker_conn_gone(struct worker *worker);
void router_wake_all(struct router *router);

#endif
