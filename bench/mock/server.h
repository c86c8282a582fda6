/*
 * The mock engine's HTTP side: connections on one libuv loop, requests into the engine model,
 * tokens out as JSON or server-sent events.
 *
 * A client that goes away aborts its request. Idle connections are closed after `keep_alive_ms`, as
 * vLLM's server does after 5 s.
 */
#ifndef HASHTRIE_BENCH_SERVER_H
#define HASHTRIE_BENCH_SERVER_H

#include <stdint.h>

#include "bench/mock/engine.h"
#include "bench/mock/request.h"

enum { SERVER_MODELS_MAX = 64 };

/* Of disaggregated prefill: what it lets pass. */
enum server_role {
    SERVER_ANY,
    SERVER_PREFILLS, /* Requests whose KV cache goes on to another engine. */
    SERVER_DECODES,  /* Requests whose KV cache comes from one. */
};

struct server_options {
    struct engine_options engine;
    const char *host;
    int port;
    const char *models[SERVER_MODELS_MAX];
    size_t model_count;
    const char *engine_id;
    enum server_role role;
    struct request_defaults defaults;
    uint64_t keep_alive_ms;
    double start_time_s; /* As its metrics tell it; 0: the real one. */
};

/* Runs until SIGTERM or SIGINT. Returns the exit status. */
int server_run(const struct server_options *options);

#endif
