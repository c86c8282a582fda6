#include "proxy/ids.h"

#include <inttypes.h>
#include <stdio.h>

#include "hashtrie/chunk.h"

void backend_write_id(const struct backend *backend, char out[BACKEND_TEXT_MAX + 1])
{
    size_t size = BACKEND_TEXT_MAX + 1;
    if (backend->id != NULL) {
        (void)snprintf(out, size, "%s", backend->id); /* It fits. */
        return;
    }
    uint64_t hash = hashtrie_hash_namespace(backend->url, strlen(backend->url));
    (void)snprintf(out, size, "%016" PRIx64, hash); /* The same. */
}

struct backend *backend_by_id(const struct router *router, struct span id)
{
    for (size_t i = 0; i < router->slot_count; i++) {
        struct backend *backend = router->backends[i];
        if (backend == NULL || atomic_load(&backend->gone)) {
            continue;
        }
        char own[BACKEND_TEXT_MAX + 1];
        backend_write_id(backend, own);
        if (span_is(id, own)) {
            return backend;
        }
    }
    return NULL;
}
