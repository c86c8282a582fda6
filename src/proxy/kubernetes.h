/* Backends from Kubernetes: discovery/kube.h tells them, on the first loop. */
#ifndef HASHTRIE_PROXY_KUBERNETES_H
#define HASHTRIE_PROXY_KUBERNETES_H

#include <stdbool.h>

struct metrics_writer;
struct router;

/* After the workers are made and engines_start(). Nothing, unless --service-discovery k8s. False:
 * told in the log. */
bool kubernetes_start(struct router *router);
void kubernetes_stop(struct router *router); /* Before the first worker's loop goes. */
/* Any thread: there is nothing to wait for, or the first LIST has come. */
bool kubernetes_is_settled(const struct router *router);
void kubernetes_write_metrics(const struct router *router, struct metrics_writer *writer);

#endif
