/* Engines by their ids: what GET /engines lists, and what ?id= in a request's query names. */
#ifndef HASHTRIE_PROXY_IDS_H
#define HASHTRIE_PROXY_IDS_H

#include "proxy/backends.h"

/* The given one, else one made from its URL, which lasts over restarts. Lock held. */
void backend_write_id(const struct backend *backend, char out[BACKEND_TEXT_MAX + 1]);
/* NULL: none of those known. Lock held. */
struct backend *backend_by_id(const struct router *router, struct span id);

#endif
