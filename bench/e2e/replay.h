/*
 * load-replay: sends the requests of a workload to one server when they are due, whether or not
 * earlier ones have been answered (open loop), reads the streams, and tells what each request got.
 *
 * One thread. Private to bench/e2e.
 */
#ifndef HASHTRIE_BENCH_REPLAY_H
#define HASHTRIE_BENCH_REPLAY_H

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/list.h"
#include "bench/sim/workload.h"

enum {
    REPLAY_READ_BYTES = 256 * 1024,
    REPLAY_LINE_BYTES = 2048, /* Of an event; what is longer is not looked at behind that. */
    REPLAY_ENGINE_BYTES = 32, /* Of the header x-engine-id. */
    REPLAY_GAP_BUCKETS = 512,
};

enum outcome_end {
    OUTCOME_NOT_SENT, /* The run was over before. */
    OUTCOME_OPEN,
    OUTCOME_COMPLETE, /* Status 200, and the stream was whole. */
    OUTCOME_REFUSED,  /* No connection, or it broke before the answer's first byte. */
    OUTCOME_CUT,      /* It broke in the middle. */
    OUTCOME_STATUS,   /* Another status than 200. */
    OUTCOME_LATE,     /* --timeout */
};

/* What a request got. Times are from the start of the run. */
struct outcome {
    uint64_t due_ns;
    uint64_t launch_ns; /* It was written; later than due_ns if this program was short of time. */
    uint64_t first_ns;  /* Its first token was read. */
    uint64_t last_ns;   /* Its last token; of a failure: when it was known. */
    uint32_t token_count;
    uint32_t cached_tokens; /* As the engine says. */
    uint64_t gap_max_ns;    /* Between two tokens. */
    int status;             /* 0: there was no answer. */
    enum outcome_end end;
    char engine[REPLAY_ENGINE_BYTES];
};

struct replay_options {
    int port; /* Of 127.0.0.1. */
    const char *model;
    double speed; /* Arrivals come that many times as fast. */
    double timeout_s;
    bool chat; /* As messages, else as one prompt. */
};

struct replay {
    struct replay_options options;
    const struct sim_workload *workload;
    struct outcome *outcomes; /* One for each request. */
    const uint64_t *answers;  /* Ids of all answers, ascending: what a chat's assistant said. */
    size_t next_index;        /* The first request that has not been sent. */
    size_t open_count;        /* Sent and without an end. */
    uint64_t gaps[REPLAY_GAP_BUCKETS]; /* Between tokens: see replay_gap_s(). */
    uint64_t begin_ns;
    uv_loop_t loop;
    uv_poll_t due;
    int due_fd;
    uv_timer_t sweep;
    uv_signal_t signals[2];
    struct list idle; /* Connections, the last used at the end. */
    struct list busy;
    struct sockaddr_in address;
    llhttp_settings_t settings;
    bool stopping; /* Nothing more is sent. */
    char read_buffer[REPLAY_READ_BYTES];
};

/* ---- conversations.c ---- */

/*
 * Recorded conversations as a workload: a JSON list of {"conversations": [{"from", "value"}]}, or
 * lines of {"messages": [{"role", "content"}]}. Sessions begin at random, rounds follow in random
 * intervals; rate: requests a second in all, 0: as that comes; seconds: nothing arrives later, 0:
 * all do. Ends the program if the file cannot be read.
 */
void conversations_read(const char *path, uint64_t seed, double rate, double seconds,
                        struct sim_workload *out);

/* ---- body.c ---- */

/* For replay.answers, from malloc(). */
uint64_t *replay_answers(const struct sim_workload *workload);
/* Head and body of a request, from malloc(). */
char *replay_request(const struct replay *replay, const struct sim_request *request, size_t *size);

/* ---- client.c ---- */

void client_init(struct replay *replay);
void client_send(struct replay *replay, size_t index);
void client_sweep(struct replay *replay);     /* Ends what is past --timeout. */
void client_close_all(struct replay *replay); /* What is open stays so. */

/* ---- main.c ---- */

uint64_t replay_now_ns(const struct replay *replay);
void replay_ended(struct replay *replay, size_t index, enum outcome_end end);

/* ---- result.c ---- */

/* Buckets grow by a 16th of a power of two, so a gap is known to 2 %. */
size_t replay_gap_bucket(uint64_t gap_ns);
double replay_gap_s(size_t bucket);
bool result_write_csv(const struct replay *replay, const char *path);
void result_print(const struct replay *replay, double seconds);

#endif
