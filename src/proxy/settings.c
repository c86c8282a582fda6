#include "proxy/settings.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proxy/router.h"

/* ---- Life ---- */

static struct settings *make(void)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct settings *settings = mem_alloc_zero(&mem, sizeof *settings);
    if (settings != NULL) {
        settings->mem = mem;
        atomic_init(&settings->hold_count, 1);
    }
    return settings;
}

void settings_let_go(struct settings *settings)
{
    if (settings == NULL ||
        atomic_fetch_sub_explicit(&settings->hold_count, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (settings->aliases != NULL) {
        mem_free(&settings->mem, settings->aliases,
                 settings->config->alias_count * sizeof(const struct config_alias *));
    }
    if (settings->own.mem != NULL) {
        config_fini(&settings->own);
    }
    struct mem last = settings->mem;
    mem_free(&last, settings, sizeof *settings);
    mem_fini(&last);
}

static int compare_aliases(const void *a, const void *b)
{
    const struct config_alias *const *left = a;
    const struct config_alias *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static bool sort_aliases(struct settings *settings, const struct config *config)
{
    settings->config = config;
    size_t count = config->alias_count;
    if (count == 0) {
        return true;
    }
    settings->aliases = mem_alloc(&settings->mem, count * sizeof(const struct config_alias *));
    if (settings->aliases == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        settings->aliases[i] = &config->aliases[i];
    }
    qsort(settings->aliases, count, sizeof(const struct config_alias *), compare_aliases);
    return true;
}

struct settings *settings_new(const struct config *config)
{
    struct settings *settings = make();
    if (settings != NULL && !sort_aliases(settings, config)) {
        settings_let_go(settings);
        return NULL;
    }
    return settings;
}

struct settings *settings_load(const struct config *start, struct buf *messages, uint64_t *hash)
{
    struct settings *settings = make();
    bool loaded =
        settings != NULL && config_reload(start, &settings->mem, &settings->own, messages);
    if (settings != NULL) {
        *hash = settings->own.file_hash;
    }
    if (loaded && sort_aliases(settings, &settings->own)) {
        return settings;
    }
    if (settings == NULL || loaded) {
        (void)buf_append_text(messages, "out of memory\n"); /* No room: NULL tells. */
    }
    settings_let_go(settings);
    return NULL;
}

/* ---- The newest ---- */

void settings_publish(struct router *router, struct settings *settings)
{
    hashtrie_lock(router->trie);
    struct settings *before = atomic_load(&router->settings);
    atomic_store(&router->settings, settings);
    hashtrie_unlock(router->trie);
    settings_let_go(before);
    router_wake_all(router);
}

void settings_follow(struct worker *worker)
{
    struct router *router = worker->router;
    if (worker->settings == atomic_load(&router->settings)) {
        return;
    }
    hashtrie_lock(router->trie); /* Whoever publishes lets go of the one before after it. */
    struct settings *newest = atomic_load(&router->settings);
    atomic_fetch_add(&newest->hold_count, 1);
    hashtrie_unlock(router->trie);
    settings_let_go(worker->settings);
    worker->settings = newest;
}

/* ---- Aliases ---- */

struct span settings_canonical_model(const struct settings *settings, struct span name,
                                     bool *is_alias)
{
    size_t low = 0;
    size_t high = settings->config->alias_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = span_compare(name, settings->aliases[middle]->name);
        if (order == 0) {
            *is_alias = true;
            return span_of(settings->aliases[middle]->model);
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
