/* From the configuration to backends, models and aliases. Main thread, before the workers run. */
#include <stdlib.h>

#include "base/check.h"
#include "proxy/router.h"
#include "proxy/tls.h"

#define NO_BACKEND UINT16_MAX

/* ---- Aliases ---- */

static int compare_aliases(const void *a, const void *b)
{
    const struct config_alias *const *left = a;
    const struct config_alias *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

bool router_add_aliases(struct router *router)
{
    size_t count = router->config->alias_count;
    if (count == 0) {
        return true;
    }
    router->aliases = mem_alloc(&router->mem, count * sizeof(const struct config_alias *));
    if (router->aliases == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        router->aliases[i] = &router->config->aliases[i];
    }
    router->alias_count = count;
    qsort(router->aliases, count, sizeof(const struct config_alias *), compare_aliases);
    return true;
}

static int compare_span(struct span span, const char *text)
{
    size_t size = strlen(text);
    size_t common = span.size < size ? span.size : size;
    int order = common == 0 ? 0 : memcmp(span.data, text, common);
    return order != 0 ? order : (span.size > size) - (span.size < size);
}

struct span router_canonical_model(const struct router *router, struct span name, bool *is_alias)
{
    size_t low = 0;
    size_t high = router->alias_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_span(name, router->aliases[middle]->name);
        if (order == 0) {
            *is_alias = true;
            return span_of(router->aliases[middle]->model);
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *is_alias = false;
    return name;
}

/* ---- Backends ---- */

static struct span host_of(const char *url)
{
    const char *begin = strstr(url, "://");
    begin = begin == NULL ? url : begin + 3;
    return (struct span){.data = begin, .size = strcspn(begin, "/")};
}

static bool parse_backend(struct router *router, struct backend *backend, const char *url)
{
    struct http_url parsed;
    const char *error = NULL;
    if (!http_url_parse(span_of(url), &parsed, &error)) {
        log_write(router->log, LOG_ERROR, "Backend %s: %s", url, error);
        return false;
    }
    *backend = (struct backend){
        .url = url, .host = host_of(url), .path = parsed.path, .first_pair = SIZE_MAX};
    if (!net_address_set(&backend->address, parsed.host.data, parsed.host.size, parsed.port)) {
        log_write(router->log, LOG_ERROR, "Backend %s: not a usable host and port", url);
        return false;
    }
    backend->address.tls = parsed.secure ? tls_to_engines(router) : NULL;
    if (parsed.secure && backend->address.tls == NULL) {
        return false;
    }
    return true;
}

/* The table from the trie's numbers to ours covers `number`. */
static bool cover_number(struct router *router, hashtrie_endpoint number)
{
    size_t old = router->backend_of_holder_size;
    if (number < old) {
        return true;
    }
    size_t size = ((size_t)number + 1) * 2;
    uint16_t *table = mem_realloc(&router->mem, router->backend_of_holder, old * sizeof *table,
                                  size * sizeof *table);
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

/* Finds the backend of that URL, or makes it. -1: failed, and the log says why. */
static int add_endpoint(struct router *router, const struct config_backend *configured)
{
    hashtrie_endpoint number = 0;
    enum hashtrie_status status =
        hashtrie_endpoint_add(router->trie, configured->url, configured->model, &number);
    if (status != HASHTRIE_OK || !cover_number(router, number)) {
        log_write(router->log, LOG_ERROR, "Backend %s cannot be added: %s", configured->url,
                  hashtrie_strerror(status == HASHTRIE_OK ? HASHTRIE_ENOMEM : status));
        return -1;
    }
    if (router->backend_of_holder[number] != NO_BACKEND) {
        return router->backend_of_holder[number]; /* Named twice: it serves two models. */
    }
    struct backend *backend = &router->backends[router->backend_count];
    if (!parse_backend(router, backend, configured->url)) {
        return -1;
    }
    int endpoint = route_endpoint_add(router->fleet);
    if (endpoint < 0) {
        log_write(router->log, LOG_ERROR, "Backend %s cannot be added: too many, or out of memory",
                  configured->url);
        return -1;
    }
    CHECK((size_t)endpoint == router->backend_count);
    backend->holder = number;
    hashtrie_endpoint_set_capacity(router->trie, number,
                                   router->config->kv_capacity_tokens * ROUTE_BYTES_PER_TOKEN);
    router->backend_of_holder[number] = (uint16_t)endpoint;
    router->backend_count++;
    return endpoint;
}

static bool add_pair(struct router *router, size_t endpoint, const char *model)
{
    if (!route_endpoint_serves(router->fleet, endpoint, model)) {
        return false;
    }
    int number = route_model_find(router->fleet, model, strlen(model));
    CHECK(number >= 0);
    struct backend *backend = &router->backends[endpoint];
    router->pairs[router->pair_count] = (struct stats_pair){
        .endpoint = endpoint, .model = (size_t)number, .next = backend->first_pair};
    backend->first_pair = router->pair_count++;
    return true;
}

/* For `session`: sessions keep their places by the backends' names. */
static bool make_ring(struct router *router)
{
    if (router->config->routing != CONFIG_SESSION) {
        return true;
    }
    size_t size = router->backend_count * sizeof(const char *);
    const char **names = mem_alloc(&router->mem, size);
    if (names == NULL) {
        return false;
    }
    for (size_t i = 0; i < router->backend_count; i++) {
        names[i] = router->backends[i].url;
    }
    bool made = route_fleet_set_ring(router->fleet, names, router->backend_count);
    mem_free(&router->mem, names, size);
    return made;
}

bool router_add_backends(struct router *router)
{
    size_t count = router->config->backend_count;
    if (count == 0) {
        return true;
    }
    router->backends = mem_alloc_zero(&router->mem, count * sizeof *router->backends);
    router->recent = mem_alloc_zero(&router->mem, count * sizeof *router->recent);
    router->pairs = mem_alloc_zero(&router->mem, count * sizeof *router->pairs);
    if (router->backends == NULL || router->recent == NULL || router->pairs == NULL) {
        log_write(router->log, LOG_ERROR, "Out of memory");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const struct config_backend *configured = &router->config->backends[i];
        hashtrie_lock(router->trie);
        int endpoint = add_endpoint(router, configured);
        bool added = endpoint >= 0 && add_pair(router, (size_t)endpoint, configured->model);
        hashtrie_unlock(router->trie);
        if (!added) {
            return false;
        }
    }
    if (!make_ring(router)) {
        log_write(router->log, LOG_ERROR, "Out of memory");
        return false;
    }
    return true;
}

size_t router_pair(const struct router *router, size_t endpoint, size_t model)
{
    size_t pair = router->backends[endpoint].first_pair;
    while (pair != SIZE_MAX && router->pairs[pair].model != model) {
        pair = router->pairs[pair].next;
    }
    CHECK(pair != SIZE_MAX); /* Only an endpoint that serves the model is picked. */
    return pair;
}
