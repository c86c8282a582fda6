/* Which requests are for engines, by path and method. */
#ifndef HASHTRIE_PROXY_PATHS_H
#define HASHTRIE_PROXY_PATHS_H

#include "base/span.h"

enum path_kind {
    PATH_LOCAL,   /* Answered here, if by anybody. */
    PATH_ENGINE,  /* One of the engines' interface. */
    PATH_SLEEP,   /* About one engine, which ?id= names: see sleep.h. */
    PATH_UNKNOWN, /* POST below /v1/: an engine's, if a model is named in its body. */
    PATH_ANY,     /* --proxy-all-paths. */
};

struct span path_of(struct span target); /* Without the query. */
/* Value of the first `name` in the query, as it stands there; data NULL: none. */
struct span path_parameter(struct span target, const char *name);
bool path_is_below(struct span path, const char *folder); /* Or the folder itself. */
/* The target without --root-path, if it begins with that; `root` NULL: none. */
struct span path_below(struct span target, const char *root);
/* *allowed: what to answer 405 with where the path is an engine's but the method is not; else NULL.
 */
enum path_kind path_kind_of(struct span method, struct span path, bool all, const char **allowed);

#endif
