/* SIGHUP: what comes from files is read again. Each part keeps what it has where its file is bad.
 */
#ifndef HASHTRIE_PROXY_RELOAD_H
#define HASHTRIE_PROXY_RELOAD_H

#include <stdbool.h>

struct router;

bool reload_watch(struct router *router); /* False: no memory or descriptors. */
void reload_unwatch(struct router *router);

#endif
