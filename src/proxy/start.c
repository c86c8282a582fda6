/* From the configuration to backends and aliases. Main thread, before the workers run. */
#include <stdlib.h>

#include "base/check.h"
#include "proxy/backends.h"

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

bool router_add_backends(struct router *router)
{
    const struct config *config = router->config;
    size_t count = config->backend_count;
    struct buf why;
    buf_init(&why, &router->mem, BACKENDS_WHY_MAX);
    struct backend_wish *wishes = mem_alloc_zero(&router->mem, (count + 1) * sizeof *wishes);
    for (size_t i = 0; wishes != NULL && i < count; i++) {
        wishes[i].url = config->backends[i].url;
        wishes[i].models = &config->backends[i].model;
        wishes[i].model_count = 1;
        wishes[i].label = config->backends[i].label;
    }
    bool set = wishes != NULL && router_set_backends(router, wishes, count, &why);
    if (!set) {
        log_write(router->log, LOG_ERROR, "Backends: %.*s", why.size > 0 ? (int)why.size : 13,
                  why.size > 0 ? why.data : "out of memory");
    }
    mem_free(&router->mem, wishes, (count + 1) * sizeof *wishes);
    buf_fini(&why);
    return set;
}
