/* Traces of requests: with --otel-endpoint each leaves a span, and engines see it as the parent. */
#ifndef HASHTRIE_PROXY_TRACES_H
#define HASHTRIE_PROXY_TRACES_H

#include "proxy/request.h"
#include "proxy/router.h"

bool traces_start(struct router *router); /* False: told in the log. */
void traces_flush(struct router *router); /* The first worker's loop has ended. */
void traces_stop(struct router *router);  /* Before that loop goes. */

/* Without --otel-endpoint the three do nothing. */
void traces_begin(struct request *request, const struct http_head *head);
/* The header for the engine instead of the client's. False: no room. */
bool traces_write_parent(const struct request *request, struct buf *out);
void traces_end(const struct request *request);

#endif
