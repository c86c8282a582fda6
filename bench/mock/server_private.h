/* Private to the mock engine: the server's state, shared by its files. */
#ifndef HASHTRIE_BENCH_SERVER_PRIVATE_H
#define HASHTRIE_BENCH_SERVER_PRIVATE_H

#include <llhttp.h>
#include <uv.h>

#include "bench/mock/request.h"
#include "bench/mock/server.h"

enum {
    BODY_BYTES_MAX = 512 * 1024 * 1024,
    PENDING_BYTES_MAX = 16 * 1024 * 1024, /* Pipelined bytes kept while a request runs. */
    ANSWER_BYTES_MAX = 64 * 1024 * 1024,
    READ_BYTES = 256 * 1024,
    TARGET_BYTES_MAX = 8192,
    NAME_BYTES_MAX = 256,
    VALUE_BYTES_MAX = 8192,
    ID_BYTES_MAX = 64,
};

struct server {
    const struct server_options *options;
    struct mem mem;
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_timer_t timer; /* The engine's next event. */
    uv_signal_t signals[2];
    struct engine *engine;
    struct list connections;
    uint64_t request_count;
    double start_time_s;
    unsigned port;
    bool closing;
    char read_buffer[READ_BYTES];
};

/* One request, from its head until its answer is out. */
struct exchange {
    struct engine_job job;
    struct request_body body;
    bool active;   /* The engine has it. */
    bool has_body; /* `body` has to be finished. */
    bool keep_alive;
    char id[ID_BYTES_MAX]; /* "chatcmpl-..." */
    uint64_t created_s;
};

struct connection {
    struct list link;
    struct server *server;
    uv_tcp_t stream;
    uv_timer_t idle;
    int handles_open; /* Freed when it is 0. */
    bool closing;
    bool close_after_writes;
    bool answering; /* A request is whole and its answer is not. */
    bool parsing;   /* connection_parse() is on the stack. */
    llhttp_t parser;
    llhttp_settings_t settings;
    struct buf target;
    struct buf header_name;
    struct buf header_value;
    struct buf request_id; /* X-Request-Id, echoed. */
    struct buf content;
    struct buf pending; /* Bytes behind the request that is being answered. */
    bool expects_continue;
    bool too_large;
    size_t writes_open;
    struct exchange exchange;
};

/* ---- connection.c ---- */
void connection_accept(struct server *server);
void connection_close(struct connection *connection);
/* Sends a copy of `bytes`. */
void connection_write(struct connection *connection, const char *bytes, size_t size);
/* Reads what is pending, unless an answer is due first. */
void connection_parse(struct connection *connection);
/* The answer is complete: the next request may come, or the connection is closed. */
void connection_answered(struct connection *connection);

/* ---- answer.c ---- */
/* A request has arrived as a whole. */
void answer_request(struct connection *connection);
/* The engine made a token for it. */
void answer_token(struct connection *connection);
/* The client went away, or the answer is out. */
void answer_end(struct connection *connection);
/* A plain answer of known size. */
void answer_plain(struct connection *connection, int status, const char *content_type,
                  const struct buf *body);
void answer_error(struct connection *connection, int status, const char *message);

/* ---- local.c: /health, /v1/models, /version, /metrics ---- */
/* False: no such path. */
bool local_answer(struct connection *connection, const struct buf *path, bool is_get);
/* Appends `text` as a JSON string. */
bool local_put_json(struct buf *out, const char *text, size_t size);

/* Sets the timer to the engine's next event. */
void server_schedule(struct server *server);

#endif
