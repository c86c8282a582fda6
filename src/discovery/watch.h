/*
 * A collection of Kubernetes' API, followed: LIST, then WATCH from there. Private to the room.
 *
 * The server may be broken or hostile: a page, an event, the pages of a LIST and the pauses between
 * questions are bounded by the limits below; what is not as the API promises ends in another LIST.
 */
#ifndef HASHTRIE_DISCOVERY_WATCH_H
#define HASHTRIE_DISCOVERY_WATCH_H

#include <stdatomic.h>

#include "discovery/access.h"
#include "json/json.h"

enum {
    WATCH_PAGE_OBJECTS = 100,                /* Asked for at a time. */
    WATCH_PAGES_MAX = 1000,                  /* Of one LIST. */
    WATCH_PAGE_BYTES_MAX = 32 * 1024 * 1024, /* etcd's objects have 1.5 MiB at most. */
    WATCH_EVENT_BYTES_MAX = 4 * 1024 * 1024,
    WATCH_HEAD_BYTES_MAX = 64 * 1024,
    WATCH_URL_BYTES_MAX = 64 * 1024, /* A page's `continue` has some 200 bytes. */
    WATCH_VERSION_BYTES_MAX = 128,
    WATCH_PROBLEM_BYTES = 512,
};

#define WATCH_CONNECT_NS   UINT64_C(10000000000)
#define WATCH_LIST_NS      UINT64_C(60000000000)  /* For one page. */
#define WATCH_TIME_NS      UINT64_C(300000000000) /* Of one WATCH: this to twice this, by chance. */
#define WATCH_GRACE_NS     UINT64_C(30000000000)  /* After which the server should have ended it. */
#define WATCH_PROVEN_NS    UINT64_C(1000000000)   /* One that lived so long has worked. */
#define WATCH_PAUSE_MAX_NS UINT64_C(30000000000)  /* After failures; see seed. */

enum watch_change { WATCH_LISTED, WATCH_ADDED, WATCH_MODIFIED, WATCH_DELETED };

/* Since the start; written on the loop's thread, read on any. */
struct watch_stats {
    _Atomic uint64_t lists;   /* LISTs that came to their end. */
    _Atomic uint64_t watches; /* WATCHes that were begun. */
    _Atomic uint64_t events;  /* Changes told; bookmarks are none. */
    _Atomic uint64_t expired; /* 410: the version was too old. */
    _Atomic uint64_t failures;
    _Atomic uint64_t heard_ns; /* Monotonic: when the server last told something; 0: never. */
};

struct watch_options {
    struct net_loop *loop; /* Borrowed, all of these. */
    struct mem *mem;
    struct fetcher *fetcher;
    const struct access *access;
    const char *path;     /* "/api/v1/namespaces/llm/pods" */
    const char *selector; /* Of labels; "": all. */
    const char *what;     /* For people: "pods". */
    uint64_t time_ns;     /* Of one WATCH; 0: WATCH_TIME_NS. */
    uint64_t relist_ns;   /* From one LIST to the next. */
    uint64_t pause_ns;    /* After a failure; then doubled, up to WATCH_PAUSE_MAX_NS. */
    uint64_t seed;        /* Of the pauses, which differ by half up and down. */
    /*
     * All from the loop; none may begin or cancel fetches, or free the watch. A LIST begins, tells
     * what there is, object by object, and is over: what it has not told is not there. One that
     * fails is begun again.
     */
    void (*on_begin)(void *user);
    void (*on_object)(void *user, enum watch_change change, const struct json_parser *parser,
                      struct json_value object);
    void (*on_listed)(void *user);
    /* One line for people; NULL: it works again. */
    void (*on_problem)(void *user, const char *problem);
    void *user;
};

struct watch;

/* NULL: out of memory. Begins at once. */
struct watch *watch_new(const struct watch_options *options);
void watch_free(struct watch *watch); /* NULL is fine. */
const struct watch_stats *watch_stats(const struct watch *watch);

#endif
