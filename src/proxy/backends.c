/* Backends one by one: made, shared, freed. The set as a whole: wishes.c. */
#include "proxy/backends.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proxy/tls.h"

enum {
    NO_BACKEND = UINT16_MAX,
};

/* ---- Slots ---- */

static size_t pair_size(const struct router *router)
{
    return sizeof(struct stats_pair) + router->worker_count * sizeof(struct stats_series *);
}

static void free_pairs(struct router *router, struct backend *backend)
{
    struct stats_pair *pair = atomic_load(&backend->pairs);
    while (pair != NULL) {
        struct stats_pair *next = pair->next;
        for (size_t i = 0; i < router->worker_count; i++) {
            mem_free(&router->fleet_mem, atomic_load(&pair->series[i]),
                     sizeof(struct stats_series));
        }
        mem_free(&router->fleet_mem, pair, pair_size(router));
        pair = next;
    }
}

/* Lock held. */
static void free_backend(struct router *router, struct backend *backend)
{
    struct mem *mem = &router->fleet_mem;
    free_pairs(router, backend);
    mem_free_text(mem, backend->url);
    mem_free_text(mem, backend->label);
    mem_free_text(mem, backend->id);
    mem_free(mem, backend, sizeof *backend);
}

/* Lock held. */
static void free_slot(struct router *router, size_t slot)
{
    struct backend *backend = router->backends[slot];
    REQUIRE(atomic_load_explicit(&backend->hold_count, memory_order_acquire) == 0);
    engines_forget(backend);
    router->backend_of_holder[backend->holder] = NO_BACKEND;
    route_endpoint_free(router->fleet, slot);
    router->backends[slot] = NULL;
    free_backend(router, backend);
}

void backends_sweep(struct router *router)
{
    if (router->gone_count == 0) {
        return;
    }
    hashtrie_lock(router->trie);
    for (size_t i = 0; i < router->slot_count; i++) {
        const struct backend *backend = router->backends[i];
        if (backend != NULL && atomic_load(&backend->gone) &&
            atomic_load_explicit(&backend->hold_count, memory_order_acquire) == 0) {
            free_slot(router, i);
            router->gone_count--;
        }
    }
    hashtrie_unlock(router->trie);
}

void backends_free(struct router *router)
{
    for (size_t i = 0; i < router->slot_count; i++) {
        if (router->backends[i] != NULL) {
            free_backend(router, router->backends[i]);
        }
    }
    mem_free(&router->fleet_mem, router->backend_of_holder,
             router->backend_of_holder_size * sizeof *router->backend_of_holder);
}

/* ---- Pairs ---- */

static struct stats_pair *find_pair(const struct backend *backend, size_t model)
{
    struct stats_pair *pair = atomic_load_explicit(&backend->pairs, memory_order_acquire);
    while (pair != NULL && pair->model != model) {
        pair = pair->next;
    }
    return pair;
}

struct stats_pair *backend_pair(const struct backend *backend, size_t model)
{
    struct stats_pair *pair = find_pair(backend, model);
    CHECK(pair != NULL); /* Only an endpoint that serves the model is picked. */
    return pair;
}

/* Lock held. */
static bool add_pair(struct router *router, struct backend *backend, size_t model)
{
    if (find_pair(backend, model) != NULL) {
        return true;
    }
    struct stats_pair *pair = mem_alloc_zero(&router->fleet_mem, pair_size(router));
    if (pair == NULL) {
        return false;
    }
    pair->model = model;
    pair->next = atomic_load(&backend->pairs);
    atomic_store_explicit(&backend->pairs, pair, memory_order_release);
    return true;
}

struct stats_series *backend_series(struct worker *worker, struct stats_pair *pair)
{
    struct router *router = worker->router;
    struct stats_series *series =
        atomic_load_explicit(&pair->series[worker->number], memory_order_relaxed);
    if (series != NULL) {
        return series;
    }
    hashtrie_lock(router->trie);
    series = mem_alloc(&router->fleet_mem, sizeof *series);
    hashtrie_unlock(router->trie);
    if (series != NULL) {
        stats_series_init(series);
        atomic_store_explicit(&pair->series[worker->number], series, memory_order_release);
    }
    return series;
}

/* ---- Adding ---- */

bool backends_refuse(struct buf *why, const char *format, ...)
{
    va_list arguments;
    char text[BACKENDS_WHY_MAX];
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    why->size = 0;
    (void)buf_append_text(why, text); /* No room: it is false all the same. */
    return false;
}

bool backend_read_url(struct router *router, const char *url, struct backend *backend,
                      struct buf *why)
{
    struct http_url parsed;
    const char *error = NULL;
    if (strlen(url) > HASHTRIE_ENDPOINT_TEXT_MAX) {
        return backends_refuse(why, "backend %.100s...: the URL is longer than %u bytes", url,
                               HASHTRIE_ENDPOINT_TEXT_MAX);
    }
    if (!http_url_parse(span_of(url), &parsed, &error)) {
        return backends_refuse(why, "backend %s: %s", url, error);
    }
    if (!net_address_set(&backend->address, parsed.host.data, parsed.host.size, parsed.port)) {
        return backends_refuse(why, "backend %s: not a usable host and port", url);
    }
    const char *host = strstr(url, "://") + strlen("://"); /* It was parsed. */
    backend->host = (struct span){.data = host, .size = strcspn(host, "/")};
    backend->path = parsed.path;
    backend->address.tls = parsed.secure ? tls_to_engines(router) : NULL;
    if (parsed.secure && backend->address.tls == NULL) {
        return backends_refuse(why, "backend %s: TLS cannot be set up, see the log", url);
    }
    return true;
}

/* The table from the trie's numbers to ours covers `number`. Lock held. */
static bool cover_number(struct router *router, hashtrie_endpoint number)
{
    size_t old = router->backend_of_holder_size;
    if (number < old) {
        return true;
    }
    size_t size = ((size_t)number + 1) * 2;
    uint16_t *table = mem_realloc(&router->fleet_mem, router->backend_of_holder,
                                  old * sizeof *table, size * sizeof *table);
    if (table == NULL) {
        return false;
    }
    for (size_t i = old; i < size; i++) {
        table[i] = NO_BACKEND;
    }
    router->backend_of_holder = table;
    router->backend_of_holder_size = size;
    return true;
}

/* Lock held. The engine that nobody wishes for and whose turn it is makes room in the trie. */
static bool forget_one(struct router *router)
{
    for (size_t i = 0; i < HASHTRIE_ENDPOINTS_MAX; i++) {
        hashtrie_endpoint number = router->forget_next;
        router->forget_next = (hashtrie_endpoint)((number + 1U) % HASHTRIE_ENDPOINTS_MAX);
        bool used = number < router->backend_of_holder_size &&
                    router->backend_of_holder[number] != NO_BACKEND;
        if (!used && hashtrie_endpoint_remove(router->trie, number) == HASHTRIE_OK) {
            return true;
        }
    }
    return false;
}

/* Lock held. */
static enum hashtrie_status add_holder(struct router *router, const struct backend_wish *wish,
                                       hashtrie_endpoint *out)
{
    const char *model = wish->model_count > 0 ? wish->models[0] : "";
    enum hashtrie_status status = HASHTRIE_OK;
    do {
        status = hashtrie_endpoint_add(router->trie, wish->url, model, out);
    } while (status == HASHTRIE_EFULL && forget_one(router));
    if (status == HASHTRIE_OK && !cover_number(router, *out)) {
        return HASHTRIE_ENOMEM;
    }
    return status;
}

/* Lock held. Not in the table yet. */
static struct backend *make_backend(struct router *router, const struct backend_wish *wish,
                                    struct buf *why)
{
    struct backend *backend = mem_alloc_zero(&router->fleet_mem, sizeof *backend);
    if (backend == NULL) {
        (void)backends_refuse(why, "out of memory");
        return NULL;
    }
    atomic_init(&backend->gone, false);
    atomic_init(&backend->hold_count, 0);
    atomic_init(&backend->pairs, NULL);
    engine_init(&backend->engine);
    backend->url = mem_strndup(&router->fleet_mem, wish->url, strlen(wish->url));
    bool made = backend->url == NULL ? backends_refuse(why, "out of memory")
                                     : backend_read_url(router, backend->url, backend, why);
    enum hashtrie_status status = made ? add_holder(router, wish, &backend->holder) : HASHTRIE_OK;
    if (status != HASHTRIE_OK) {
        made = backends_refuse(why, "backend %s cannot be added: %s", wish->url,
                               hashtrie_strerror(status));
    }
    if (!made) {
        free_backend(router, backend);
        return NULL;
    }
    return backend;
}

struct backend *backend_add(struct router *router, const struct backend_wish *wish, struct buf *why)
{
    struct backend *backend = make_backend(router, wish, why);
    if (backend == NULL) {
        return NULL;
    }
    int slot = route_endpoint_add(router->fleet);
    if (slot < 0) {
        free_backend(router, backend);
        (void)backends_refuse(
            why,
            "backend %s cannot be added: out of memory, or there are %d, those included "
            "that have gone and still have requests",
            wish->url, ROUTE_ENDPOINTS_MAX);
        return NULL;
    }
    backend->number = (size_t)slot;
    hashtrie_endpoint_set_capacity(router->trie, backend->holder,
                                   router->config->kv_capacity_tokens * ROUTE_BYTES_PER_TOKEN);
    router->backend_of_holder[backend->holder] = (uint16_t)slot;
    router->backends[slot] = backend;
    route_endpoint_set_asleep(router->fleet, backend->number, true);
    if (backend->number >= router->slot_count) {
        router->slot_count = backend->number + 1;
    }
    return backend;
}

bool backend_serve(struct router *router, struct backend *backend, const char *model,
                   struct buf *why)
{
    if (!route_endpoint_serves(router->fleet, backend->number, model)) {
        return backends_refuse(why,
                               "model %s of backend %s cannot be added: out of memory, or %d have "
                               "been known since the start",
                               model, backend->url, ROUTE_MODELS_MAX);
    }
    int number = route_model_find(router->fleet, model, strlen(model));
    CHECK(number >= 0);
    return add_pair(router, backend, (size_t)number) || backends_refuse(why, "out of memory");
}
