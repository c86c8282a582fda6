/*
 * The router: accepts requests, picks an engine for each, relays the answer. Everything hangs from
 * one `struct router`; a process may hold several.
 */
#ifndef HASHTRIE_PROXY_PROXY_H
#define HASHTRIE_PROXY_PROXY_H

#include <stdbool.h>

#include "base/log.h"
#include "config/config.h"

struct router;

/*
 * Opens the store, makes the endpoints known, listens. `config` and `log` are borrowed until
 * router_free(). NULL: it cannot start, and the log says why.
 */
struct router *router_new(const struct config *config, struct log *log);
/*
 * Serves on config->thread_count threads, this one included, until SIGTERM or SIGINT; then drains
 * (see life.h) and makes the last checkpoint. A second signal ends the process at once. False: a
 * thread could not be started.
 */
bool router_run(struct router *router);
void router_free(struct router *router); /* NULL is fine. */

#endif
