/*
 * net/net.h once more, on virtual time and links in memory: what the router is linked with here in
 * place of src/net. A function that is new in net.h needs its twin in net_sim.c.
 */
#ifndef HASHTRIE_TESTS_SIM_NET_SIM_H
#define HASHTRIE_TESTS_SIM_NET_SIM_H

#include "net/net.h"
#include "sim/link.h"

/* What the simulation wants to know of the router's doings. */
struct sim_hooks {
    /* A SYN has come to that address. NULL: *status says how it fails; NET_OK: never answered. */
    struct sim_link *(*accept)(void *user, const struct net_address *address,
                               enum net_status *status);
    /* Around one callback that hands bytes to the router. */
    void (*before_read)(void *user, struct net_stream *stream, void *stream_user);
    void (*after_read)(void *user, struct net_stream *stream, size_t size);
    void (*after_turn)(void *user);
    void *user;
};

void sim_net_init(const struct sim_hooks *hooks); /* Borrowed, until the next call. */

/* The link's other end knocks at the router. False: nobody listens. */
bool sim_net_knock(struct sim_link *link);
void sim_net_signal(int number);

struct sim_link *sim_stream_link(const struct net_stream *stream); /* NULL: not connected. */
bool sim_stream_is_over(const struct net_stream *stream); /* The router has been told so. */
bool sim_timer_is_running(const struct net_timer *timer);
size_t sim_loop_streams(const struct net_loop *loop);
size_t sim_loop_timers_running(const struct net_loop *loop);

#endif
