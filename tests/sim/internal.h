/* What net_sim.c and stream_sim.c share. */
#ifndef HASHTRIE_TESTS_SIM_INTERNAL_H
#define HASHTRIE_TESTS_SIM_INTERNAL_H

#include "sim/net_sim.h"

enum { SIM_KNOCKS_MAX = 64, SIM_READS_PER_TURN = 4 };

struct net_loop {
    struct mem *mem; /* Borrowed. */
    struct list timers;
    struct list streams;
    struct list closed; /* Freed at the end of the turn. */
    struct list wakes;
    net_turn *on_turn;
    void *user;
    size_t timer_count;
    bool stopped;
    char read_space[NET_READ_BYTES];
};

struct net_wake {
    struct list link;
    struct net_loop *loop;
    void (*on_wake)(void *user);
    void *user;
    bool sent;
};

struct net_signal {
    struct list link;
    struct mem *mem;
    int number;
    void (*on_signal)(void *user, int number);
    void *user;
    bool raised;
};

struct net_listener {
    struct net_loop *loop;
    void (*on_accept)(void *user, struct net_stream *stream);
    void *user;
    struct sim_link *knocks[SIM_KNOCKS_MAX];
    size_t knock_count;
};

struct net_stream {
    struct list link_open; /* In loop->streams, or loop->closed. */
    struct net_loop *loop;
    struct sim_link *link; /* NULL: being connected, or failed. */
    const struct net_stream_events *events;
    void *user;
    void (*on_connected)(void *user, enum net_status status);
    struct net_address address;
    struct sim_event connect;
    enum net_status connect_status;
    bool connect_due; /* on_connected comes next. */
    bool reading;
    bool ended;  /* on_end has come. */
    bool failed; /* on_written has told a failure. */
    bool closed;
    bool shutting;      /* Asked for, and not sent yet. */
    struct list writes; /* That wait. */
    size_t queued;
};

const struct sim_hooks *sim_net_hooks(void);
struct net_stream *sim_stream_new(struct net_loop *loop);
bool sim_streams_ready(struct net_loop *loop);
void sim_streams_run(struct net_loop *loop); /* One round over those that are ready. */
void sim_streams_free_closed(struct net_loop *loop);

#endif
