/* What the files of Kubernetes' discovery share: kube.c (the API server's side), answers.c (the
 * engines'), settle.c (the set). Private to the room. */
#ifndef HASHTRIE_DISCOVERY_KUBE_PRIVATE_H
#define HASHTRIE_DISCOVERY_KUBE_PRIVATE_H

#include <stdatomic.h>

#include "discovery/discovery.h"
#include "discovery/table.h"
#include "discovery/watch.h"

enum {
    URL_BYTES_MAX = 640,
    PATH_BYTES_MAX = 400,
    NOTE_BYTES_MAX = 1024,
    GENERATION_BYTES_MAX = OBJECT_UID_BYTES_MAX + 24,
    MODELS_SHOWN_BYTES = 300,
};

/* One collection that is followed. */
struct followed {
    struct kube *kube;
    struct watch *watch; /* Owned. */
    const char *name;
    struct table *table;
    uint64_t mark; /* Of the LIST under way, or of the last one. */
    char path[PATH_BYTES_MAX];
    bool listed;
    bool overflowed; /* It was told that there are too many. */
};

struct kube {
    struct mem *mem;       /* Borrowed. */
    struct net_loop *loop; /* Borrowed. */
    struct kube_options options;
    struct access access;
    struct fetcher *fetcher; /* Owned, as all below. */
    struct json_parser *parser;
    struct net_timer *timer;    /* Until changes have settled. */
    struct discovery *models;   /* Asks which models engines serve, ... */
    struct discovery *sleepers; /* ... and whether they sleep. */
    struct followed followed[KUBE_COLLECTIONS];
    size_t followed_count;
    struct table candidates; /* struct candidate */
    struct table slices;     /* struct slice_record */
    bool timer_runs;
    bool changed;       /* Since the set was told. */
    uint64_t listed_ns; /* All are listed since then; 0: not yet. */
    atomic_bool settled;
    _Atomic uint64_t known_count;
    _Atomic uint64_t ready_count;
    _Atomic uint64_t serving_count;
};

/* What the API server says of one. */
struct candidate_state {
    char url[URL_BYTES_MAX]; /* "": no address. */
    char label[OBJECT_LABEL_BYTES_MAX + 1];
    char generation[GENERATION_BYTES_MAX];
    char uid[OBJECT_UID_BYTES_MAX + 1];
    char created[OBJECT_TIME_BYTES_MAX + 1];
    char version[OBJECT_UID_BYTES_MAX + 1];
    bool ready;
    bool says_sleeping;
    bool may_sleep;
};

/* A pod or a service: one that is an engine, or may become one. */
struct candidate {
    struct named named; /* First. */
    struct kube *kube;
    struct candidate_state state;
    struct discovery_engine *models_asked; /* Owned; NULL: not ready. */
    struct discovery_engine *sleep_asked;  /* The same; NULL also: it cannot sleep. */
    bool models_known;                     /* Since it became ready. */
    bool failing;                          /* It was told that its models cannot be read. */
    bool sleep_known;  /* An answer has come, be it an error, since it became ready, ... */
    bool sleep_told;   /* ... or one that says ... */
    bool sleeping;     /* ... this. */
    struct buf models; /* Names, each ended by a NUL. */
    size_t model_count;
    bool has_endpoint; /* Of a service: one that is ready. */
};

struct slice_record {
    struct named named; /* First. */
    char service[OBJECT_NAME_BYTES_MAX + 1];
    bool ready;
};

static inline struct candidate *kube_candidate_at(const struct kube *kube, size_t place)
{
    return (struct candidate *)kube->candidates.things[place];
}

static inline bool candidate_is_asleep(const struct candidate *candidate)
{
    return candidate->sleep_told ? candidate->sleeping : candidate->state.says_sleeping;
}

/* About its models, since it became ready, be it with an error. */
static inline bool candidate_has_answered(const struct candidate *candidate)
{
    return candidate->models_known || candidate->failing;
}

/* It is in the set. */
static inline bool candidate_serves(const struct candidate *candidate)
{
    return candidate->state.ready && candidate->models_known && candidate->model_count > 0 &&
           (candidate->sleep_asked == NULL || candidate->sleep_known);
}

/* ---- kube.c ---- */

__attribute__((format(printf, 3, 4))) void kube_note(struct kube *kube, bool is_warning,
                                                     const char *format, ...);
const char *kube_kind(const struct kube *kube); /* "pod" or "service". */
void kube_touch(struct kube *kube);             /* kube_settle() comes soon. */
/* What the API server says of it now. */
void candidate_apply(struct candidate *candidate, const struct candidate_state *now);

/* ---- answers.c ---- */

void kube_on_models(void *user, void *engine_user, const struct discovery_result *result);
void kube_on_sleep(void *user, void *engine_user, const struct discovery_result *result);
void candidate_stop_asking(struct candidate *candidate); /* And forgets what it has said. */
/* False: no memory, or the URL is too long; to be tried again. */
bool candidate_keep_asking(struct candidate *candidate);
void candidate_ask_soon(struct candidate *candidate);

/* ---- settle.c ---- */

void kube_settle(void *user); /* The timer's: changes have settled. */

#endif
