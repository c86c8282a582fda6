#include "proxy/models.h"

#include <string.h>

#include "proxy/backends.h"
#include "trie/trie.h"

/* The other half is for those that come. */
enum { RECALLED_MAX = ROUTE_MODELS_MAX / 2 };

static void write_models(const struct router *router, const struct backend *backend, char *out,
                         size_t size)
{
    size_t used = 0;
    int model = 0;
    for (size_t i = 0; (model = route_endpoint_model(router->fleet, backend->number, i)) >= 0;
         i++) {
        const char *name = route_model_name(router->fleet, (size_t)model);
        size_t name_size = strlen(name);
        size_t comma = used > 0 ? 1 : 0;
        if (used + comma + name_size >= size) {
            continue;
        }
        memcpy(out + used, ",", comma);
        memcpy(out + used + comma, name, name_size);
        used += comma + name_size;
    }
    out[used] = '\0';
}

void models_note(struct router *router, const struct backend *backend)
{
    char models[HASHTRIE_ENDPOINT_TEXT_MAX + 1];
    struct trie_endpoint known;
    write_models(router, backend, models, sizeof models);
    if (models[0] != '\0' && trie_endpoint_get(router->trie, backend->holder, &known) &&
        strcmp(known.model, models) != 0) {
        hashtrie_endpoint same = backend->holder;
        enum hashtrie_status status =
            hashtrie_endpoint_add(router->trie, backend->url, models, &same);
        (void)status; /* Without room for the text the old one stays, which does no harm. */
    }
}

void models_know(struct router *router, struct span list)
{
    struct span name;
    while (span_next_item(&list, &name)) {
        if (name.size > 0 && route_model_count(router->fleet) < RECALLED_MAX) {
            (void)route_model_know(router->fleet, name.data, name.size); /* No memory: 404. */
        }
    }
}

bool models_recall(struct router *router)
{
    hashtrie_lock(router->trie);
    size_t slot_count = trie_endpoint_slot_count(router->trie);
    uint32_t next_id = trie_endpoint_next_id(router->trie);
    bool is_new = slot_count != router->recalled_slot_count || next_id != router->recalled_next_id;
    for (size_t slot = 0; is_new && slot < slot_count; slot++) {
        struct trie_endpoint known;
        if (trie_endpoint_get(router->trie, slot, &known)) {
            models_know(router, span_of(known.model));
        }
    }
    router->recalled_slot_count = slot_count;
    router->recalled_next_id = next_id;
    hashtrie_unlock(router->trie);
    return is_new;
}
