/*
 * POST /sleep?id=ID, POST /wake_up?id=ID, GET /is_sleeping?id=ID: of one engine, asked by way of
 * the router, so that it knows. One that sleeps gets no requests and keeps its prefixes.
 */
#ifndef HASHTRIE_PROXY_SLEEP_H
#define HASHTRIE_PROXY_SLEEP_H

#include <stdbool.h>

struct request;

/* Which engine it is about. False: answered, for none is named or known. */
bool sleep_read(struct request *request);
/* The engine's head has come. True: it sleeps now, or is awake, and the client was told. */
bool sleep_is_done(struct request *request);

#endif
