/*
 * What engines say of themselves at their /metrics, and what follows from it: one that has
 * restarted holds nothing any more, and entries age by the size of its KV cache. discovery/ asks,
 * on the first worker's loop.
 */
#ifndef HASHTRIE_PROXY_ENGINES_H
#define HASHTRIE_PROXY_ENGINES_H

#include "base/list.h"
#include "discovery/discovery.h"

struct backend;
struct router;
struct worker;

enum engine_answer {
    ENGINE_UNASKED,
    ENGINE_TELLS,
    ENGINE_NO_METRICS, /* It answers, but has none: its restarts are not known. */
    ENGINE_SILENT,     /* Its metrics could not be read the last time. */
};

/* One backend's. The trie's lock covers all but `asked` and `checked`. */
struct engine {
    struct discovery_engine *asked;   /* First loop's thread. Owned by router->discovery. */
    struct discovery_engine *checked; /* As well. Owned by router->checks. */
    struct list suspected;            /* In router->suspected: to be asked in a hurry. */
    enum engine_answer answer;        /* The last time. */
    struct discovery_figures figures; /* As last told. */
    double told_unix_s;               /* When; 0: never. */
    uint64_t failure_count;           /* Times that its metrics could not be read. */
    uint64_t restart_count;
    uint64_t ejection_count;
    uint32_t sick_count; /* Health checks that failed in a row. */
    uint32_t well_count; /* Health checks that succeeded in a row. */
};

void engine_init(struct engine *engine);

/* After the workers are made, on the main thread. False: the log says why. */
bool engines_start(struct router *router);
void engines_stop(struct router *router); /* Before the first worker's loop goes. */

/* First loop's thread, without the lock. A backend has come: it is asked at once and from then on.
 * False: no memory, or its URL is too long. */
bool engines_ask(struct router *router, struct backend *backend);
void engines_unask(struct router *router, struct backend *backend); /* Never asked: fine. */
/* Lock held: nobody will suspect it any more. */
void engines_forget(struct backend *backend);
/* Lock held. Which process it is, as told by who wishes for it: another one holds nothing. */
void engines_note_generation(struct router *router, struct backend *backend,
                             const char *generation);

/* From any worker's thread, without the trie's lock: a connection to the engine broke in a way that
 * may mean a restart: it is asked soon. */
void engines_suspect(struct worker *worker, size_t endpoint);
/* The same, and a request failed there: too often, and it is ejected. */
void engines_failed(struct worker *worker, size_t endpoint);
void engines_take_suspected(struct router *router); /* First worker, when woken. */

#endif
