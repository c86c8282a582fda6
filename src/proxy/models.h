/*
 * Models that were known once. Where nobody serves one now, a request for it is told to come back
 * (503), not that there is no such model (404): engines may have been scaled to none.
 *
 * The trie, and so the store, keeps each engine's models beside its name, separated by commas: a
 * router that restarts knows them again.
 */
#ifndef HASHTRIE_PROXY_MODELS_H
#define HASHTRIE_PROXY_MODELS_H

#include <stdbool.h>

#include "base/span.h"

struct backend;
struct router;

/* Lock held. What the backend serves now is noted beside its name. */
void models_note(struct router *router, const struct backend *backend);
/* Any thread, without the lock. True: endpoints came from the store since the last call, and their
 * models are known to the fleet now. */
bool models_recall(struct router *router);
/* Of a list separated by commas; what there is no room for is left out. Lock held. */
void models_know(struct router *router, struct span list);

#endif
