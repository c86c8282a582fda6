/*
 * The end of a router. The phases only ever go on, on the first loop's thread; other threads read
 * them, and are woken when one begins.
 *
 *     SERVING --signal--> LEAVING --shutdown delay--> DRAINING --drain timeout--> ENDING
 *                                                                  --2 s--> CUTTING
 *     A second signal, at any time: the process dies of it.
 */
#ifndef HASHTRIE_PROXY_LIFE_H
#define HASHTRIE_PROXY_LIFE_H

#include <stdbool.h>
#include <stdint.h>

enum router_phase {
    ROUTER_SERVING,
    ROUTER_LEAVING,  /* Not ready, but new connections are served; each answer is a connection's
                        last. */
    ROUTER_DRAINING, /* Nothing new is accepted; requests finish. */
    ROUTER_ENDING,   /* What is under way is told that it ends here. */
    ROUTER_CUTTING,  /* What is left is cut off. */
};

struct router;

enum router_phase router_phase(const struct router *router); /* Any thread. */
bool router_is_ready(struct router *router);                 /* Any thread. health.c */
const char *router_readiness(struct router *router);         /* "ready", or why it is not. */

/* SIGTERM and SIGINT end the process at once: while it starts, and once its loops have ended. PID 1
 * of a container would be spared by the default action. */
void life_die_of_signals(void);
/* From now on they begin the end. False: no memory or descriptors. */
bool life_watch_signals(struct router *router);
void life_unwatch_signals(struct router *router);
/* Tells the service manager, if there is one, that it serves. */
void life_tell_started(struct router *router);
/* Once a second: how it is; and the store is handed over once all that is left are answers under
 * way. */
void life_sweep(struct router *router, uint64_t now_ns); /* First loop's thread. */
/* To the phase of that end, without a signal. */
void life_enter(struct router *router, enum router_phase phase);

#endif
