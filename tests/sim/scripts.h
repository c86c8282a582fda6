/*
 * Clients and engines of a simulated router, and the books in which they write down what was sent:
 * each request has a number (header X-Sim), each answer of an engine that of its try (X-Sim-Try).
 */
#ifndef HASHTRIE_TESTS_SIM_SCRIPTS_H
#define HASHTRIE_TESTS_SIM_SCRIPTS_H

#include "config/config.h"
#include "sim/message.h"
#include "sim/net_sim.h"

enum {
    SIM_ENGINES_MAX = 4,
    SIM_BUFFERED_AMPLE = 100000000, /* --max-buffered-bytes that nothing is held up by. */
    SIM_CLIENTS_MAX = 16,
    SIM_REQUESTS_MAX = 64,
    SIM_TRIES_MAX = 1024,
    SIM_TRIES_EACH_MAX = 24,
    SIM_PER_CONNECTION_MAX = 5,
};

/* What goes wrong in a run, and how often: percentages. */
struct sim_profile {
    bool calm;            /* Nothing does: every request has to be served. */
    uint32_t bad_engines; /* The first ones answer nothing: all have to be served by the others. */
    bool faults;          /* Allocations of the router fail. */
    bool signal_early;    /* SIGTERM comes while requests run. */
    bool changing;        /* Engines come and go; the last one stays. */
    bool bytewise;
    uint32_t stall_percent;
    uint32_t dark_percent;
    uint32_t refuse_percent;
    uint32_t engine_error_percent;
    uint32_t engine_break_percent;
    uint32_t stale_percent;
    uint32_t leave_percent;
    uint32_t slow_percent;
    uint32_t malformed_percent;
    uint64_t prefill_ns; /* At most. */
    size_t body_max;
    size_t answer_max;
};

enum sim_kind {
    SIM_ASK,       /* For an engine. */
    SIM_LOCAL,     /* The router answers with `status`. */
    SIM_MALFORMED, /* The router answers 4xx or 5xx, or closes. */
};

struct sim_request {
    size_t number;
    enum sim_kind kind;
    unsigned status;  /* SIM_LOCAL. */
    struct buf wire;  /* What the client sends; */
    size_t head_size; /* of this, before the body. */
    struct buf body;  /* What an engine is to get. */
    size_t size_sent; /* Of `wire`. */
    bool to_head;
    bool old; /* HTTP/1.0. */
    bool keep_alive;
    bool expects; /* Waits for 100 before its body. */
    bool stream;
    bool answered;                    /* The head of its final answer has come. */
    bool over;                        /* Its answer has come to its end. */
    bool told_cut;                    /* An event behind its body has said that it ends here. */
    size_t closed_by;                 /* Engine that has met it with a close, + 1. */
    size_t checked;                   /* Of its answer's body. */
    struct sim_try *answer;           /* Whose it is; NULL: the router's own. */
    size_t tries[SIM_TRIES_EACH_MAX]; /* Numbers, in order. */
    size_t try_count;
};

/* An engine's dealing with a request. */
struct sim_try {
    size_t number;
    struct sim_request *request;
    size_t engine;
    struct sim_link *link;
    bool reused;   /* Not the first request on its connection. */
    bool has_body; /* The request's body has come in full. */
    bool early;    /* Answered without waiting for it. */
    bool planned;  /* What follows is known. */
    bool garbage;  /* No HTTP: any outcome but success is fine. */
    unsigned status;
    bool until_end;
    bool sse;
    bool whole;          /* The last byte was sent (or FIN, if that ends it) and nothing cut it. */
    struct buf body;     /* Decoded. */
    struct buf trailer;  /* Lines behind the last chunk; empty: not chunked. */
    uint64_t begin;      /* In what the engine has sent on its link. */
    uint64_t commits_at; /* Once the router has read so much, no other engine may be asked. */
};

struct conn;
struct sim;

struct sim_client {
    struct sim *sim;
    struct sim_link *link;
    struct sim_request *requests[SIM_PER_CONNECTION_MAX];
    size_t request_count;
    size_t sending;   /* Index. */
    size_t answering; /* Index. */
    uint64_t turn_ns; /* Since when: the answers before have come. */
    struct sim_message answer;
    bool pipelines;
    bool over;        /* The script has closed. */
    bool last_answer; /* The router has said that it closes, or has cut an answer. */
    bool got_continue;
    bool shut;            /* Has sent a FIN, and waits. */
    uint64_t leave_after; /* Bytes read; UINT64_MAX: stays. */
    uint64_t bytes_read;
    uint64_t read_delay_ns;
    size_t read_size;
    uint64_t stops_reading_after; /* Bytes; UINT64_MAX: never. */
    size_t stops_sending_after;   /* Bytes of the connection; SIZE_MAX: never. */
    size_t bytes_sent;
    uint64_t send_delay_ns;
    struct sim_event start;
    struct sim_event send;
    struct sim_event read;
    struct sim_event leave;
};

struct sim_engine {
    struct sim *sim;
    size_t number;
    bool down;
    uint32_t requests_max; /* Per connection; 0: any. */
    bool tells_max;
    uint64_t idle_ns; /* Then it closes. */
    struct sim_event restart;
    struct list conns;
    struct list old_conns; /* Over; freed at the end. */
};

struct sim {
    struct sim_profile profile;
    struct sim_weather weather;
    struct list links;
    size_t link_count;
    struct config config;
    struct router *router;
    struct sim_engine engines[SIM_ENGINES_MAX];
    size_t engine_count;
    struct sim_client clients[SIM_CLIENTS_MAX];
    size_t client_count;
    struct sim_request requests[SIM_REQUESTS_MAX];
    size_t request_count;
    struct sim_try tries[SIM_TRIES_MAX];
    size_t try_count;
    uint64_t signalled_ns; /* 0: not yet. */
    size_t served;         /* Whole answers of engines that clients got. */
    size_t cut;
    size_t refused; /* Answers of the router's own in place of an engine's. */
    size_t retried;
    size_t left; /* Clients that went before their end. */
    /* While the router is handed bytes of an answer: see invariants.c. */
    const struct conn *relaying; /* NULL: none that is relayed yet. */
    const struct sim_link *relayed_to;
    uint64_t written_before;
    bool exact; /* They go on as they came. */
    struct sim_event signal;
    struct sim_event change;
    struct sim_event calm_down; /* Looks whether all clients are over. */
    uint64_t calm_since_ns;     /* 0: not yet. */
};

/* The link's weather, after the run's. */
struct sim_weather sim_weather_of(struct sim *sim);

void sim_engines_begin(struct sim *sim);
void sim_engines_end(struct sim *sim);
struct sim_link *sim_engine_accept(void *user, const struct net_address *address,
                                   enum net_status *status);

void sim_clients_begin(struct sim *sim);
void sim_clients_end(struct sim *sim);
const struct sim_client *sim_client_not_over(const struct sim *sim); /* NULL: all are. */

/* requests.c. `first`: of its connection; malformed ones are the last. */
struct sim_request *sim_request_new(struct sim *sim);
void sim_requests_end(struct sim *sim);
/* Printable bytes that tell where they come from. */
void sim_fill(struct buf *out, uint64_t seed, size_t size);

/* books.c: what must hold of what is written down. */
struct sim_try *sim_try_begin(struct sim *sim, struct sim_request *request, size_t engine,
                              struct sim_link *link, bool reused);
/* The head, more of the body, the end of an answer have come to a client. `at_end`: the
 * connection has ended in order. */
void sim_check_answer(struct sim *sim, struct sim_request *request,
                      const struct sim_message *answer, bool at_end);
/* Its client's connection has ended before. */
void sim_check_cut(struct sim *sim, const struct sim_client *client, struct sim_request *request);

/* invariants.c: of the router's own state. */
void sim_check_before_read(void *user, struct net_stream *stream, void *stream_user);
void sim_check_after_read(void *user, struct net_stream *stream, size_t size);
void sim_check_turn(void *user);
void sim_check_quiet(struct sim *sim); /* Nothing is going on any more. */

#endif
