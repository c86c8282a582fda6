/*
 * What requests read of the configuration and what may change while they run: aliases, the session
 * key, the routing logic's name. A set of settings never changes; another takes its place. Each
 * worker holds the one it works with, and takes the next when it is woken; the last to let go frees
 * it.
 */
#ifndef HASHTRIE_PROXY_SETTINGS_H
#define HASHTRIE_PROXY_SETTINGS_H

#include <stdatomic.h>

#include "base/span.h"
#include "config/config.h"

struct router;
struct worker;

struct settings {
    atomic_uint hold_count;
    struct mem mem;              /* Of itself and what it owns. */
    const struct config *config; /* `own`, or the one that the router was started with. */
    struct config own;
    const struct config_alias **aliases; /* Owned; sorted by name. */
};

/* Of the configuration that the router was started with. NULL: no memory. Held once, as the next.
 */
struct settings *settings_new(const struct config *config);
/* Loaded again: see config_reload(). NULL: `messages` say why. *hash: of the file as it was read.
 */
struct settings *settings_load(const struct config *start, struct buf *messages, uint64_t *hash);
void settings_let_go(struct settings *settings); /* NULL is fine. */

/* First loop's thread: these are the settings from now on. Takes the caller's hold. */
void settings_publish(struct router *router, struct settings *settings);
/* A worker's own thread: it works with the newest from now on. */
void settings_follow(struct worker *worker);

/* What the model's name stands for: an alias's model, else the name itself. */
struct span settings_canonical_model(const struct settings *settings, struct span name,
                                     bool *is_alias);

#endif
