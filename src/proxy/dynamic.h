/*
 * The dynamic configuration file: watched, read again when it has changed or at SIGHUP, and applied
 * as a whole or not at all. First loop's thread, save for the figures.
 *
 *     an event in its folder -> quiet for DYNAMIC_QUIET_NS -> read -> another text? -> loaded ->
 *     backends, routing, settings. Every DYNAMIC_POLL_NS the same without an event: some volumes
 *     tell of none.
 *     Fails: it cannot be read, is wrong, or asks for what needs a restart -> the log says why, the
 *     old configuration stays, and the same text is not tried again.
 *
 * Where aliases change, backends and models that go stay for DYNAMIC_OVERLAP_NS: a request that an
 * old alias sent to one of them has been routed by then.
 */
#ifndef HASHTRIE_PROXY_DYNAMIC_H
#define HASHTRIE_PROXY_DYNAMIC_H

#include <stdbool.h>

#define DYNAMIC_QUIET_NS   (200 * UINT64_C(1000000))
#define DYNAMIC_POLL_NS    (10 * UINT64_C(1000000000)) /* As the Python router's. */
#define DYNAMIC_OVERLAP_NS (1 * UINT64_C(1000000000))

struct metrics_writer;
struct router;

/* Backends and settings of the configuration that the router was started with; the file is watched
 * if there is one. After the workers were made. False: the log says why. */
bool dynamic_start(struct router *router);
void dynamic_stop(struct router *router); /* Before the first worker's loop goes. */
/* Reads the file again, whether it has changed or not. */
void dynamic_reload(struct router *router);
/* Any thread. */
void dynamic_scrape(struct router *router, struct metrics_writer *writer);

#endif
