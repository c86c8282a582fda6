/*
 * Engines seen from outside: what each of them says at GET /metrics, whether it is well at GET
 * /health, which models it serves, whether it sleeps; asked at once when it is added, then every
 * interval, and when somebody is in a hurry. Below, which engines there are: kube.h.
 *
 * All on one loop and its thread. At most `running_max` engines are asked at a time; an answer is
 * read as it comes, takes at most DISCOVERY_BODY_BYTES_MAX and `timeout_ns`, and may be anything:
 * what does not look like metrics changes nothing. Memory: some 150 bytes an engine, at most 50 KiB
 * of each answer under way; of those that are told as they are, DISCOVERY_TEXT_BYTES_MAX.
 */
#ifndef HASHTRIE_DISCOVERY_DISCOVERY_H
#define HASHTRIE_DISCOVERY_DISCOVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/span.h"
#include "net/net.h"

enum {
    DISCOVERY_RUNNING_MAX = 32,
    DISCOVERY_BODY_BYTES_MAX = 8 * 1024 * 1024,
    DISCOVERY_TEXT_BYTES_MAX = 1024 * 1024,
    DISCOVERY_HEAD_BYTES_MAX = 64 * 1024,
    DISCOVERY_URL_BYTES_MAX = 8 * 1024,
};

#define DISCOVERY_GAP_NS                                                                          \
    UINT64_C(1000000000) /* From one begin to the next where one is in a hurry; first pause after \
                            a failure. */

/* NaN: not said. Where a process runs several engines, all of them together. */
struct discovery_figures {
    double start_time_s; /* Unix time at which the process was started. */
    double kv_capacity_tokens;
    double kv_usage; /* Share of it in use, 0 to 1. */
    double running;  /* Requests. */
    double waiting;
    double prefix_queries; /* Since its start: tokens (old versions: blocks) looked up in its
                              prefix cache, ... */
    double prefix_hits;    /* ... and found. */
    double prefix_hit_rate;
    double prompt_tokens; /* Since its start. */
};
struct discovery_figures discovery_figures_unknown(void);

enum discovery_question {
    DISCOVERY_METRICS,
    DISCOVERY_HEALTH,
    DISCOVERY_MODELS,   /* GET /v1/models: its text is told. */
    DISCOVERY_SLEEPING, /* GET /is_sleeping: the same. */
};

enum discovery_outcome {
    DISCOVERY_TOLD,       /* `figures`, or `text`, are what it says. Of its health: 2xx. */
    DISCOVERY_NO_METRICS, /* It answers, but does not serve them (404, 405, 501). */
    DISCOVERY_FAILED,     /* It does not answer, or with something else. */
};

struct discovery_result {
    enum discovery_outcome outcome;
    const char *reason; /* One line for people, unless DISCOVERY_TOLD. Valid for the call. */
    struct discovery_figures figures;
    struct span text; /* The answer, where that is told. Valid for the call. */
};

struct discovery;
struct discovery_engine;

struct discovery_options {
    enum discovery_question question;
    size_t running_max;   /* 0: DISCOVERY_RUNNING_MAX. */
    uint64_t interval_ns; /* From an answer to the next question, 10 % more or less; > 0. A failure
                             is followed by shorter pauses that grow up to it. */
    uint64_t timeout_ns;  /* For one answer as a whole. */
    uint64_t seed;        /* Of the pauses. */
    const char *authorization; /* Borrowed: a header that is sent along. NULL: none. */
    const char *ca_file;       /* Borrowed, of https://: as in fetch.h. */
    const char *cert_file;
    const char *key_file;
    /* From net_loop_run() alone; may hurry, add and remove, must not free the discovery. */
    void (*on_result)(void *user, void *engine_user, const struct discovery_result *result);
    void *user;
};

/* NULL: out of memory. The loop is borrowed, its memory charged. */
struct discovery *discovery_new(struct net_loop *loop, struct mem *mem,
                                const struct discovery_options *options);
/* Ends what is under way; nothing is called back any more. NULL is fine. */
void discovery_free(struct discovery *discovery);

/* `url` is the engine's base URL, http[s]://HOST[:PORT][/PATH], copied. NULL: out of memory, or the
 * URL is too long. */
struct discovery_engine *discovery_add(struct discovery *discovery, const char *url,
                                       void *engine_user);
/* Nothing of it is called back any more. NULL is fine. */
void discovery_remove(struct discovery_engine *engine);
/* It may have restarted: ask as soon as DISCOVERY_GAP_NS since the last begin allows. */
void discovery_hurry(struct discovery_engine *engine);

#include "discovery/kube.h"

#endif
