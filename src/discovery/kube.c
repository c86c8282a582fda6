/* The API server's side: pods, or services and their endpoint slices, as it tells them. */
#include <stdarg.h>
#include <stdio.h>

#include "discovery/kube_private.h"

/* ---- Telling ---- */

void kube_note(struct kube *kube, bool is_warning, const char *format, ...)
{
    char text[NOTE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    kube->options.on_note(kube->options.user, is_warning, text);
}

const char *kube_kind(const struct kube *kube)
{
    return kube->options.services ? "service" : "pod";
}

void kube_touch(struct kube *kube)
{
    if (!kube->timer_runs) {
        kube->timer_runs = true;
        net_timer_start(kube->timer, KUBE_SETTLE_NS);
    }
}

/* ---- What the API server says ---- */

static void copy_text(char *out, struct span text)
{
    if (text.size > 0) {
        memcpy(out, text.data, text.size); /* objects.h has the limits. */
    }
    out[text.size] = '\0';
}

static void note_change(struct candidate *candidate, const struct candidate_state *now,
                        bool is_other)
{
    struct kube *kube = candidate->kube;
    const char *name = candidate->named.name;
    if (is_other && candidate->state.ready && now->ready) {
        kube_note(kube, false, "%s %s at %s: another process than before", kube_kind(kube), name,
                  now->url);
    } else if (candidate->state.ready && !now->ready) {
        kube_note(kube, false, "%s %s at %s is no longer ready", kube_kind(kube), name,
                  candidate->state.url);
    } else if (!candidate->state.ready && now->ready) {
        kube_note(kube, false, "%s %s at %s is ready", kube_kind(kube), name, now->url);
    }
}

void candidate_apply(struct candidate *candidate, const struct candidate_state *now)
{
    struct candidate_state *before = &candidate->state;
    bool is_other =
        strcmp(before->generation, now->generation) != 0 || strcmp(before->url, now->url) != 0;
    note_change(candidate, now, is_other);
    if (!now->ready || is_other) {
        candidate->kube->changed = candidate->kube->changed || candidate_serves(candidate);
        candidate_stop_asking(candidate);
    } else if (before->ready && strcmp(before->version, now->version) != 0) {
        candidate_ask_soon(candidate); /* Whatever has changed may go with other models. */
    }
    candidate->kube->changed = candidate->kube->changed || strcmp(before->label, now->label) != 0 ||
                               before->says_sleeping != now->says_sleeping;
    *before = *now;
    kube_touch(candidate->kube);
}

static struct named *find_or_add(struct followed *followed, struct span name, size_t size)
{
    struct named *thing = table_find(followed->table, name);
    if (thing == NULL) {
        thing = table_add(followed->table, name, size);
    }
    if (thing != NULL) {
        thing->mark = followed->mark;
    } else if (!followed->overflowed) {
        followed->overflowed = true;
        kube_note(followed->kube, true,
                  "%s %.*s is left out: there are more than %zu, or no memory", followed->name,
                  (int)name.size, name.data, followed->table->count_max);
    }
    return thing;
}

static void drop_candidate(struct candidate *candidate)
{
    struct kube *kube = candidate->kube;
    if (candidate->state.url[0] != '\0') {
        kube_note(kube, false, "%s %s at %s has gone", kube_kind(kube), candidate->named.name,
                  candidate->state.url);
    }
    kube->changed = kube->changed || candidate_serves(candidate);
    candidate_stop_asking(candidate);
    buf_fini(&candidate->models);
    table_remove(&kube->candidates, &candidate->named, sizeof *candidate);
    kube_touch(kube);
}

/* The engine of that name that an event is about; NULL: none, or it was removed just now. */
static struct candidate *candidate_of(struct followed *followed, enum watch_change change,
                                      struct span name, struct span uid)
{
    struct kube *kube = followed->kube;
    if (change == WATCH_DELETED) {
        struct candidate *candidate = (struct candidate *)table_find(&kube->candidates, name);
        /* One of another UID has its name already. */
        if (candidate != NULL && span_is(uid, candidate->state.uid)) {
            drop_candidate(candidate);
        }
        return NULL;
    }
    struct candidate *candidate =
        (struct candidate *)find_or_add(followed, name, sizeof *candidate);
    if (candidate != NULL && candidate->kube == NULL) {
        candidate->kube = kube;
        buf_init(&candidate->models, kube->mem, MODELS_BYTES_MAX);
    }
    return candidate;
}

static void on_pod(void *user, enum watch_change change, const struct json_parser *parser,
                   struct json_value object)
{
    struct followed *followed = user;
    struct pod pod;
    if (!object_read_pod(parser, object, &pod)) {
        return;
    }
    struct candidate *candidate = candidate_of(followed, change, pod.name, pod.uid);
    if (candidate == NULL) {
        return;
    }
    struct candidate_state now = {
        .ready = pod.ready, .says_sleeping = pod.says_sleeping, .may_sleep = pod.may_sleep};
    bool is_ipv6 = pod.address.size > 0 && memchr(pod.address.data, ':', pod.address.size) != NULL;
    if (pod.address.size > 0) {
        (void)snprintf(now.url, sizeof now.url, "http://%s%.*s%s:%u", is_ipv6 ? "[" : "",
                       (int)pod.address.size, pod.address.data, is_ipv6 ? "]" : "",
                       (unsigned)followed->kube->options.port);
    }
    copy_text(now.label, pod.model);
    copy_text(now.uid, pod.uid);
    copy_text(now.created, pod.created);
    copy_text(now.version, pod.version);
    (void)snprintf(now.generation, sizeof now.generation, "%s/%llu", now.uid,
                   (unsigned long long)pod.restarts);
    candidate_apply(candidate, &now);
}

static void on_service(void *user, enum watch_change change, const struct json_parser *parser,
                       struct json_value object)
{
    struct followed *followed = user;
    struct kube *kube = followed->kube;
    struct service service;
    if (!object_read_service(parser, object, &service)) {
        return;
    }
    struct candidate *candidate = candidate_of(followed, change, service.name, service.uid);
    if (candidate == NULL) {
        return;
    }
    struct candidate_state now = {
        .ready = candidate->state.ready, .says_sleeping = service.says_sleeping, .may_sleep = true};
    /* A name alone is looked up in the router's own namespace. */
    const char *own = kube->access.namespace;
    bool is_own = own == NULL || strcmp(own, kube->options.namespace) == 0;
    (void)snprintf(now.url, sizeof now.url, "http://%.*s%s%s:%u", (int)service.name.size,
                   service.name.data, is_own ? "" : ".", is_own ? "" : kube->options.namespace,
                   (unsigned)kube->options.port);
    copy_text(now.label, service.model);
    copy_text(now.uid, service.uid);
    copy_text(now.version, service.version);
    candidate_apply(candidate, &now);
}

static void on_slice(void *user, enum watch_change change, const struct json_parser *parser,
                     struct json_value object)
{
    struct followed *followed = user;
    struct kube *kube = followed->kube;
    struct slice slice;
    if (!object_read_slice(parser, object, &slice)) {
        return;
    }
    struct slice_record *record = NULL;
    if (change == WATCH_DELETED) {
        record = (struct slice_record *)table_find(&kube->slices, slice.name);
        if (record != NULL) {
            table_remove(&kube->slices, &record->named, sizeof *record);
        }
    } else {
        record = (struct slice_record *)find_or_add(followed, slice.name, sizeof *record);
        if (record != NULL) {
            copy_text(record->service, slice.service);
            record->ready = slice.ready;
        }
    }
    kube_touch(kube);
}

/* ---- LISTs ---- */

static void on_begin(void *user)
{
    struct followed *followed = user;
    followed->mark++;
    followed->overflowed = false;
}

/* What the LIST has not told is not there. */
static void sweep(struct followed *followed)
{
    struct table *table = followed->table;
    size_t place = table->count;
    while (place > 0) {
        struct named *thing = table->things[--place];
        if (thing->mark == followed->mark) {
            continue;
        }
        if (table == &followed->kube->candidates) {
            drop_candidate((struct candidate *)thing);
        } else {
            table_remove(table, thing, sizeof(struct slice_record));
        }
    }
}

static void on_listed(void *user)
{
    struct followed *followed = user;
    struct kube *kube = followed->kube;
    sweep(followed);
    if (!followed->listed) {
        followed->listed = true;
        kube_note(kube, false, "%s listed for the first time: %zu in namespace %s%s%s",
                  followed->name, followed->table->count, kube->options.namespace,
                  kube->options.selector[0] != '\0' ? " with " : "", kube->options.selector);
    }
    bool all = true;
    for (size_t i = 0; i < kube->followed_count; i++) {
        all = all && kube->followed[i].listed;
    }
    if (all && kube->listed_ns == 0) {
        kube->listed_ns = net_now_ns();
        kube->changed = true; /* None is a set, too. */
    }
    kube_touch(kube);
}

static void on_problem(void *user, const char *problem)
{
    struct followed *followed = user;
    if (problem == NULL) {
        kube_note(followed->kube, false, "%s can be read again", followed->name);
    } else {
        kube_note(followed->kube, true, "%s", problem);
    }
}

/* ---- Life ---- */

static bool follow(struct kube *kube, const char *name, const char *group, struct table *table,
                   const char *selector,
                   void (*on_object)(void *user, enum watch_change change,
                                     const struct json_parser *parser, struct json_value object))
{
    struct followed *followed = &kube->followed[kube->followed_count++];
    *followed = (struct followed){.kube = kube, .name = name, .table = table};
    (void)snprintf(followed->path, sizeof followed->path, "%s/namespaces/%s/%s", group,
                   kube->options.namespace, name);
    struct watch_options options = {.loop = kube->loop,
                                    .mem = kube->mem,
                                    .fetcher = kube->fetcher,
                                    .access = &kube->access,
                                    .path = followed->path,
                                    .selector = selector,
                                    .what = name,
                                    .time_ns = kube->options.watch_ns,
                                    .relist_ns = kube->options.relist_ns,
                                    .pause_ns = KUBE_PAUSE_NS,
                                    .seed = kube->options.seed + kube->followed_count,
                                    .on_begin = on_begin,
                                    .on_object = on_object,
                                    .on_listed = on_listed,
                                    .on_problem = on_problem,
                                    .user = followed};
    followed->watch = watch_new(&options);
    return followed->watch != NULL;
}

static bool follow_all(struct kube *kube)
{
    const char *selector = kube->options.selector;
    if (!kube->options.services) {
        return follow(kube, "pods", "/api/v1", &kube->candidates, selector, on_pod);
    }
    return follow(kube, "services", "/api/v1", &kube->candidates, selector, on_service) &&
           follow(kube, "endpointslices", "/apis/discovery.k8s.io/v1", &kube->slices, "", on_slice);
}

static struct discovery *asker(struct kube *kube, enum discovery_question question,
                               void (*on_result)(void *user, void *engine_user,
                                                 const struct discovery_result *result))
{
    const struct kube_options *options = &kube->options;
    struct discovery_options asking = {.question = question,
                                       .running_max = KUBE_ASKED_MAX,
                                       .interval_ns = options->ask_ns,
                                       .timeout_ns = options->timeout_ns,
                                       .seed = options->seed,
                                       .authorization = options->authorization,
                                       .on_result = on_result,
                                       .user = kube};
    return discovery_new(kube->loop, kube->mem, &asking);
}

struct kube *kube_new(struct net_loop *loop, struct mem *mem, const struct kube_options *options,
                      struct buf *why)
{
    struct kube *kube = mem_alloc_zero(mem, sizeof *kube);
    if (kube == NULL) {
        (void)buf_append_text(why, "out of memory");
        return NULL;
    }
    kube->mem = mem;
    kube->loop = loop;
    kube->options = *options;
    atomic_init(&kube->settled, false);
    table_init(&kube->candidates, mem, KUBE_ENGINES_MAX);
    table_init(&kube->slices, mem, KUBE_SLICES_MAX);
    if (!access_load(&kube->access, mem, options->lookup, options->lookup_user, "", why)) {
        kube_free(kube);
        return NULL;
    }
    kube->parser = json_parser_new(mem);
    kube->timer = net_timer_new(loop, kube_settle, kube);
    kube->fetcher = fetcher_new(loop, mem);
    kube->models = asker(kube, DISCOVERY_MODELS, kube_on_models);
    kube->sleepers = asker(kube, DISCOVERY_SLEEPING, kube_on_sleep);
    if (kube->parser == NULL || kube->timer == NULL || kube->fetcher == NULL ||
        kube->models == NULL || kube->sleepers == NULL || !follow_all(kube)) {
        kube_free(kube);
        (void)buf_append_text(why, "out of memory");
        return NULL;
    }
    kube_note(kube, false, "asking %s as %s says for %s in namespace %s", kube->access.server,
              kube->access.source, kube->options.services ? "services" : "pods",
              options->namespace);
    return kube;
}

void kube_free(struct kube *kube)
{
    if (kube == NULL) {
        return;
    }
    for (size_t i = 0; i < kube->followed_count; i++) {
        watch_free(kube->followed[i].watch);
    }
    while (kube->candidates.count > 0) {
        struct candidate *candidate = kube_candidate_at(kube, kube->candidates.count - 1);
        candidate_stop_asking(candidate);
        buf_fini(&candidate->models);
        table_remove(&kube->candidates, &candidate->named, sizeof *candidate);
    }
    while (kube->slices.count > 0) {
        table_remove(&kube->slices, kube->slices.things[kube->slices.count - 1],
                     sizeof(struct slice_record));
    }
    table_fini(&kube->candidates);
    table_fini(&kube->slices);
    discovery_free(kube->models);
    discovery_free(kube->sleepers);
    fetcher_free(kube->fetcher);
    net_timer_close(kube->timer);
    json_parser_free(kube->parser);
    access_fini(&kube->access);
    mem_free(kube->mem, kube, sizeof *kube);
}

bool kube_is_settled(const struct kube *kube)
{
    return atomic_load(&kube->settled);
}

struct kube_stats kube_get_stats(const struct kube *kube)
{
    struct kube_stats stats = {
        .known = kube->known_count, .ready = kube->ready_count, .serving = kube->serving_count};
    for (size_t i = 0; i < kube->followed_count; i++) {
        const struct watch_stats *watch = watch_stats(kube->followed[i].watch);
        stats.collections[i] = (struct kube_collection){.name = kube->followed[i].name,
                                                        .lists = watch->lists,
                                                        .watches = watch->watches,
                                                        .events = watch->events,
                                                        .expired = watch->expired,
                                                        .failures = watch->failures,
                                                        .heard_ns = watch->heard_ns};
    }
    return stats;
}
