/*
 * A TCP connection in memory between the router and a script (a client or an engine).
 *
 *     sender -> [pipe: in flight ... | arrived] -> reader
 *
 * Bytes are taken while a pipe has room, arrive in order after a delay, in pieces down to one byte,
 * and make room when they are read. Behind them comes a FIN; a reset overtakes what has not
 * arrived. A side that is closed answers what still comes with a reset, as does closing with bytes
 * unread. A link that has gone dark delivers nothing any more.
 */
#ifndef HASHTRIE_TESTS_SIM_LINK_H
#define HASHTRIE_TESTS_SIM_LINK_H

#include "sim/world.h"

enum sim_side { SIM_ROUTER, SIM_SCRIPT };

/* What a script is told, from events of the world. */
struct sim_script {
    void (*on_bytes)(void *user); /* Some have arrived, or the FIN has. */
    void (*on_reset)(void *user); /* Comes once. */
    void (*on_room)(void *user);  /* More can be sent. */
};

/* One direction; `reader` is the side that gets the bytes. */
struct sim_pipe {
    struct sim_link *link;
    enum sim_side reader;
    struct buf bytes; /* From `begin` on: sent and not read. */
    size_t begin;
    size_t arrived;  /* Of these, from the front. */
    size_t capacity; /* What it holds at most. */
    uint64_t sent;   /* Ever. */
    uint64_t read;   /* Ever. */
    bool fin;
    bool fin_arrived;
    bool reset; /* One is on its way. */
    bool reset_arrived;
    struct sim_event arrival;
    struct sim_event reset_event;
};

/* How the network treats a link. */
struct sim_weather {
    bool bytewise;     /* Pieces are small, single bytes mostly. */
    uint64_t delay_ns; /* At most, usually far less. */
    uint32_t stall_percent;
    uint64_t stall_ns;
    size_t capacity;
    uint64_t dark_after_ns; /* SIM_NEVER: stays up. */
};

struct sim_link {
    struct list all;
    size_t number;
    const char *kind;         /* "client", "engine": for the trace. */
    struct sim_pipe pipes[2]; /* By reader. */
    struct sim_weather weather;
    bool open[2]; /* By side: has not let go of it. */
    unsigned stall_count;
    bool dark;
    struct sim_event darkness;
    uint64_t garbage_from;     /* Nobody asked for what the script sends from here on. */
    bool troubled;             /* The network has kept bytes for long, or has gone dark. */
    struct net_stream *stream; /* The router's side. */
    const struct sim_script *script;
    void *user; /* Of the script. */
};

struct sim_link *sim_link_new(struct list *links, const char *kind, size_t number,
                              const struct sim_weather *weather);
void sim_link_free(struct sim_link *link);

static inline struct sim_pipe *sim_link_to(struct sim_link *link, enum sim_side reader)
{
    return &link->pipes[reader];
}

size_t sim_pipe_room(const struct sim_pipe *pipe);
size_t sim_pipe_unread(const struct sim_pipe *pipe); /* Sent and not read. */
/* Takes what there is room for; returns how much. */
size_t sim_pipe_send(struct sim_pipe *pipe, const char *bytes, size_t size);
/* The bytes that have arrived; valid until the next call. */
struct span sim_pipe_peek(const struct sim_pipe *pipe);
void sim_pipe_drop(struct sim_pipe *pipe, size_t size); /* They have been read. */
bool sim_pipe_at_end(const struct sim_pipe *pipe);      /* All is read, and the FIN is here. */

void sim_link_shutdown(struct sim_link *link, enum sim_side side); /* FIN; goes on reading. */
void sim_link_close(struct sim_link *link, enum sim_side side);
void sim_link_reset(struct sim_link *link, enum sim_side side);

#endif
