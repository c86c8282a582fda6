/*
 * Requests that wait for a place at an engine: the glue between admit.h, the pick and the loops.
 *
 *     ROUTING: no place -> QUEUED, with a ticket in router->admit
 *     a request ends at an engine -> whoever ended it picks for the next in line, under the lock:
 *         the place is charged to it, and its ticket goes to its own loop's mailbox
 *     its loop -> CONNECTING
 *     Its time is up, its client leaves, the router ends -> the ticket leaves the queue at once;
 *     a place that was granted meanwhile goes to the next.
 *
 * While the ticket waits, what the pick reads of the request does not change, and what the pick
 * writes (choice, queued_bytes, prefill_ns) is not looked at by its owner. The trie's lock covers
 * both.
 */
#ifndef HASHTRIE_PROXY_QUEUE_H
#define HASHTRIE_PROXY_QUEUE_H

#include "proxy/request.h"

/* Lock held. False: it is refused, and request->refusal says why. */
bool queue_join(struct request *request);
/* Lock held: a place at that endpoint has become free. */
void queue_grant(struct router *router, size_t endpoint);
/* Lock held: an engine has come, or is up again. */
void queue_grant_all(struct router *router);
/* Its loop, which is woken: tickets that were granted a place. */
void queue_take_granted(struct worker *worker);
enum step queue_step(struct request *request); /* Of REQUEST_QUEUED. */
/* The request ends, whether it waits or not. */
void queue_forget(struct request *request);
/* How long it may still wait. */
uint64_t queue_time_left_ns(const struct request *request);
/* 429, with the time to come back. */
void queue_refuse(struct request *request);

#endif
