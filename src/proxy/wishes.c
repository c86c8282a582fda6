/*
 * Changing the set of backends.
 *
 *     wishes -> checked, those of one URL chained -> prepared: new slots, asleep; models that are
 *     new -> committed under one hold of the lock: asleep or awake, models that went, those gone
 *
 * All that can fail is in the first two steps. Where it does, what was prepared is taken back.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proxy/backends.h"
#include "proxy/disagg.h"
#include "proxy/models.h"
#include "proxy/queue.h"

enum { NAMED_IN_LOG_MAX = 16 }; /* Where more come and go at once, they are counted. */

static char *copy_text(struct mem *mem, const char *text)
{
    return text == NULL ? NULL : mem_strndup(mem, text, strlen(text));
}

/* ---- Checking ---- */

/* A wish and what becomes of it. */
struct wanted {
    const struct backend_wish *wish;
    size_t number;        /* Of the wish. */
    struct wanted *first; /* The first wish of the same URL; itself. */
    struct wanted *next;  /* The next one. */
    /* Of the first: */
    struct backend *backend; /* NULL: not prepared. */
    bool is_new;             /* It was made for this wish, ... */
    bool is_back;            /* ... or had gone. */
    size_t models_before;    /* So many it served. */
    char *label;             /* Owned: what becomes the backend's, then what it had. */
    char *id;
};

struct known {
    struct backend *backend;
    bool kept; /* It is wished. */
    bool left; /* It goes with this change. */
};

struct change {
    struct router *router;
    struct buf *why;
    struct wanted *wanted;  /* As wished. */
    struct wanted **sorted; /* By URL, then as wished. */
    size_t count;
    struct known *known; /* By URL. */
    size_t known_count;
};

static bool text_fits(const char *text)
{
    return text == NULL || strlen(text) <= BACKEND_TEXT_MAX;
}

static bool check_wish(struct change *change, const struct backend_wish *wish)
{
    struct backend parsed = {0};
    if (!backend_read_url(change->router, wish->url, &parsed, change->why)) {
        return false;
    }
    for (size_t i = 0; i < wish->model_count; i++) {
        if (strlen(wish->models[i]) > BACKEND_TEXT_MAX) {
            return backends_refuse(change->why,
                                   "backend %s: the name of a model is longer than %d bytes",
                                   wish->url, BACKEND_TEXT_MAX);
        }
    }
    if (!text_fits(wish->label) || !text_fits(wish->id) || !text_fits(wish->generation)) {
        return backends_refuse(change->why,
                               "backend %s: its label, id or generation is longer than %d bytes",
                               wish->url, BACKEND_TEXT_MAX);
    }
    return true;
}

static bool check(struct change *change, const struct backend_wish *wishes)
{
    for (size_t i = 0; i < change->count; i++) {
        change->wanted[i] = (struct wanted){.wish = &wishes[i], .number = i};
        if (!check_wish(change, &wishes[i])) {
            return false;
        }
    }
    return true;
}

static int compare_wanted(const void *a, const void *b)
{
    const struct wanted *left = *(struct wanted *const *)a;
    const struct wanted *right = *(struct wanted *const *)b;
    int order = strcmp(left->wish->url, right->wish->url);
    return order != 0 ? order : (left->number > right->number) - (left->number < right->number);
}

/* Those of one URL become one chain. Returns how many URLs there are. */
static size_t chain(struct change *change)
{
    size_t url_count = 0;
    for (size_t i = 0; i < change->count; i++) {
        change->sorted[i] = &change->wanted[i];
    }
    if (change->count > 0) {
        qsort(change->sorted, change->count, sizeof(struct wanted *), compare_wanted);
    }
    for (size_t i = 0; i < change->count; i++) {
        struct wanted *wanted = change->sorted[i];
        struct wanted *before = i == 0 ? NULL : change->sorted[i - 1];
        bool same = before != NULL && strcmp(before->wish->url, wanted->wish->url) == 0;
        wanted->first = same ? before->first : wanted;
        if (same) {
            before->next = wanted;
        }
        url_count += same ? 0 : 1;
    }
    return url_count;
}

static int compare_known(const void *a, const void *b)
{
    const struct known *left = a;
    const struct known *right = b;
    return strcmp(left->backend->url, right->backend->url);
}

/* Nobody but this thread changes the table: it is read without the lock. */
static void list_known(struct change *change)
{
    struct router *router = change->router;
    for (size_t i = 0; i < router->slot_count; i++) {
        if (router->backends[i] != NULL) {
            change->known[change->known_count++] = (struct known){.backend = router->backends[i]};
        }
    }
    if (change->known_count > 0) {
        qsort(change->known, change->known_count, sizeof *change->known, compare_known);
    }
}

static struct known *find_known(const struct change *change, const char *url)
{
    size_t low = 0;
    size_t high = change->known_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(url, change->known[middle].backend->url);
        if (order == 0) {
            return &change->known[middle];
        }
        low = order > 0 ? middle + 1 : low;
        high = order < 0 ? middle : high;
    }
    return NULL;
}

/* ---- Preparing ---- */

/* Lock held. It serves all that is wished, and for now what it served before. */
static bool add_models(struct change *change, const struct wanted *first)
{
    for (const struct wanted *wanted = first; wanted != NULL; wanted = wanted->next) {
        for (size_t i = 0; i < wanted->wish->model_count; i++) {
            if (!backend_serve(change->router, first->backend, wanted->wish->models[i],
                               change->why)) {
                return false;
            }
        }
    }
    return true;
}

/* Lock held. */
static bool prepare_locked(struct change *change, struct wanted *first)
{
    struct router *router = change->router;
    const struct backend_wish *wish = first->wish;
    struct known *known = find_known(change, wish->url);
    first->backend = known != NULL ? known->backend : backend_add(router, wish, change->why);
    if (first->backend == NULL) {
        return false;
    }
    first->is_new = known == NULL;
    if (known != NULL) {
        known->kept = true;
        first->is_back = atomic_load(&first->backend->gone);
    }
    if (first->is_back) {
        route_endpoint_set_asleep(router->fleet, first->backend->number, true);
    }
    while (route_endpoint_model(router->fleet, first->backend->number, first->models_before) >= 0) {
        first->models_before++;
    }
    first->label = copy_text(&router->fleet_mem, wish->label);
    first->id = copy_text(&router->fleet_mem, wish->id);
    if ((first->label == NULL && wish->label != NULL) || (first->id == NULL && wish->id != NULL)) {
        return backends_refuse(change->why, "out of memory");
    }
    return add_models(change, first);
}

static bool prepare(struct change *change)
{
    struct router *router = change->router;
    for (size_t i = 0; i < change->count; i++) {
        struct wanted *wanted = &change->wanted[i];
        if (wanted->first != wanted) {
            continue;
        }
        hashtrie_lock(router->trie);
        bool prepared = prepare_locked(change, wanted);
        hashtrie_unlock(router->trie);
        if (!prepared) {
            return false;
        }
        if ((wanted->is_new || wanted->is_back) && !engines_ask(router, wanted->backend)) {
            return backends_refuse(
                change->why,
                "backend %s cannot be asked how it is: out of memory, or the URL is too "
                "long",
                wanted->wish->url);
        }
    }
    return true;
}

/* ---- Committing ---- */

static bool is_wished(const struct wanted *first, const char *model)
{
    for (const struct wanted *wanted = first; wanted != NULL; wanted = wanted->next) {
        for (size_t i = 0; i < wanted->wish->model_count; i++) {
            if (strcmp(wanted->wish->models[i], model) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* Lock held. Those from position `i` on that are not wished. */
static void drop_models(struct router *router, size_t number, size_t i, const struct wanted *first)
{
    int model = 0;
    while ((model = route_endpoint_model(router->fleet, number, i)) >= 0) {
        if (is_wished(first, route_model_name(router->fleet, (size_t)model))) {
            i++;
        } else {
            route_endpoint_serves_not(router->fleet, number, (size_t)model);
        }
    }
}

/* Lock held. It gets no new requests. */
static void leave(struct router *router, struct backend *backend)
{
    drop_models(router, backend->number, 0, NULL);
    if (!atomic_load(&backend->gone)) {
        atomic_store(&backend->gone, true);
        router->gone_count++;
    }
}

/* What was prepared goes again. */
static void take_back(struct change *change)
{
    struct router *router = change->router;
    for (size_t i = 0; i < change->count; i++) {
        const struct wanted *wanted = &change->wanted[i];
        if (wanted->backend == NULL) {
            continue;
        }
        bool leaves = wanted->is_new || wanted->is_back;
        hashtrie_lock(router->trie);
        drop_models(router, wanted->backend->number, wanted->models_before, NULL);
        if (leaves) {
            leave(router, wanted->backend);
        }
        hashtrie_unlock(router->trie);
        if (leaves) {
            engines_unask(router, wanted->backend);
        }
    }
}

/* For `session`: sessions keep their places by the backends' names. Lock held. */
static bool make_ring(struct change *change)
{
    struct router *router = change->router;
    size_t slot_count = router->slot_count;
    size_t size = slot_count * sizeof(const char *);
    bool may_become = config_dynamic_file(router->config) != NULL;
    if ((router->routing != CONFIG_SESSION && !may_become) || size == 0) {
        return true;
    }
    const char **names = mem_alloc_zero(&router->fleet_mem, size);
    if (names == NULL) {
        return backends_refuse(change->why, "out of memory");
    }
    for (size_t i = 0; i < change->count; i++) {
        const struct backend *backend = change->wanted[i].backend;
        if (backend != NULL) {
            names[backend->number] = backend->url;
        }
    }
    bool made = route_fleet_set_ring(router->fleet, names, slot_count);
    mem_free(&router->fleet_mem, names, size);
    return made || backends_refuse(change->why, "out of memory");
}

static void swap_text(char **a, char **b)
{
    char *text = *a;
    *a = *b;
    *b = text;
}

/* Lock held. */
static void commit_wanted(struct router *router, struct wanted *wanted)
{
    struct backend *backend = wanted->backend;
    if (wanted->is_back) {
        atomic_store(&backend->gone, false);
        router->gone_count--;
        route_endpoint_set_up(router->fleet, backend->number, true);
    }
    drop_models(router, backend->number, 0, wanted);
    models_note(router, backend);
    swap_text(&backend->label, &wanted->label);
    route_endpoint_set_roles(router->fleet, backend->number,
                             disagg_roles_of_label(router->config, backend->label));
    swap_text(&backend->id, &wanted->id);
    if (wanted->wish->generation != NULL) {
        engines_note_generation(router, backend, wanted->wish->generation);
    }
    bool comes = wanted->is_new || wanted->is_back;
    bool was_asleep = route_endpoint_is_asleep(router->fleet, backend->number);
    if (comes || router->config->kubernetes) { /* Else only POST /sleep and /wake_up tell. */
        route_endpoint_set_asleep(router->fleet, backend->number, wanted->wish->sleeping);
    }
    bool wakes = was_asleep && !route_endpoint_is_asleep(router->fleet, backend->number);
    if (wakes && router->backend_count > 0) { /* At the start all are alike. */
        route_endpoint_warm_up(router->fleet, backend->number, net_now_ns());
    }
}

static bool commit(struct change *change)
{
    struct router *router = change->router;
    size_t count = 0;
    hashtrie_lock(router->trie);
    if (!make_ring(change)) {
        hashtrie_unlock(router->trie);
        return false;
    }
    for (size_t i = 0; i < change->count; i++) {
        if (change->wanted[i].backend != NULL) {
            commit_wanted(router, &change->wanted[i]);
            count++;
        }
    }
    for (size_t i = 0; i < change->known_count; i++) {
        struct known *known = &change->known[i];
        known->left = !known->kept && !atomic_load(&known->backend->gone);
        if (known->left) {
            leave(router, known->backend);
        }
    }
    router->backend_count = count;
    queue_grant_all(router);
    hashtrie_unlock(router->trie);
    for (size_t i = 0; i < change->known_count; i++) {
        if (change->known[i].left) {
            engines_unask(router, change->known[i].backend);
        }
    }
    return true;
}

/* ---- The whole ---- */

static void tell(const struct change *change)
{
    struct log *log = &change->router->workers[0].log;
    size_t come = 0;
    size_t left = 0;
    for (size_t i = 0; i < change->count; i++) {
        come += change->wanted[i].is_new || change->wanted[i].is_back ? 1 : 0;
    }
    for (size_t i = 0; i < change->known_count; i++) {
        left += change->known[i].left ? 1 : 0;
    }
    if (come + left > NAMED_IN_LOG_MAX) {
        log_write(log, LOG_INFO, "Backends: %zu have come, %zu have gone", come, left);
        return;
    }
    for (size_t i = 0; i < change->count; i++) {
        if (change->wanted[i].is_new || change->wanted[i].is_back) {
            log_write(log, LOG_INFO, "Backend %s has come", change->wanted[i].wish->url);
        }
    }
    for (size_t i = 0; i < change->known_count; i++) {
        if (change->known[i].left) {
            log_write(log, LOG_INFO, "Backend %s has gone: it gets no new requests",
                      change->known[i].backend->url);
        }
    }
}

static void change_fini(struct change *change, size_t known_max)
{
    struct router *router = change->router;
    hashtrie_lock(router->trie);
    for (size_t i = 0; change->wanted != NULL && i < change->count; i++) {
        mem_free_text(&router->fleet_mem, change->wanted[i].label);
        mem_free_text(&router->fleet_mem, change->wanted[i].id);
    }
    hashtrie_unlock(router->trie);
    mem_free(&router->mem, change->wanted, (change->count + 1) * sizeof *change->wanted);
    mem_free(&router->mem, change->sorted, (change->count + 1) * sizeof(struct wanted *));
    mem_free(&router->mem, change->known, (known_max + 1) * sizeof *change->known);
}

static bool make(struct change *change)
{
    size_t url_count = chain(change);
    if (url_count > BACKENDS_MAX) {
        return backends_refuse(change->why, "%zu backends are too many: at most %d can be known",
                               url_count, BACKENDS_MAX);
    }
    list_known(change);
    if (prepare(change) && commit(change)) {
        tell(change);
        return true;
    }
    take_back(change);
    return false;
}

bool router_set_backends(struct router *router, const struct backend_wish *wishes, size_t count,
                         struct buf *why)
{
    backends_sweep(router);
    size_t known_max = router->slot_count;
    struct change change = {.router = router, .why = why, .count = count};
    change.wanted = mem_alloc_zero(&router->mem, (count + 1) * sizeof *change.wanted);
    change.sorted = mem_alloc(&router->mem, (count + 1) * sizeof(struct wanted *));
    change.known = mem_alloc_zero(&router->mem, (known_max + 1) * sizeof *change.known);
    bool done = false;
    if (change.wanted == NULL || change.sorted == NULL || change.known == NULL) {
        (void)backends_refuse(why, "out of memory");
    } else if (check(&change, wishes)) {
        done = make(&change);
    }
    change_fini(&change, known_max);
    return done;
}
