/*
 * One request, from its head to the last byte of its answer.
 *
 * Happy path: READING -> ROUTING (-> RELOADING -> ROUTING) -> CONNECTING -> WAITING -> RELAYING ->
 *             DONE -> READING of the next one.
 * Waits: all engines at their limit: ROUTING -> QUEUED -> CONNECTING, see queue.h; or DONE with
 * 429. Fails: refused before routing (bad JSON, unknown model, too large) -> DONE with an error
 * answer. Engine refuses, closes before the first body byte, or answers 502 to 504 -> ROUTING
 *        without it, from the second time on by way of BACKING_OFF, until tries or the retry budget
 *        run out: DONE with 502, or with what the engine answered. A reused connection that closed
 *        before a byte came back -> CONNECTING once more, to the same engine, on a fresh one.
 *        Engine ends, or pauses for too long, after body bytes went out -> DONE, the client's
 *        connection is cut.
 *        Client leaves -> DONE, the engine's connection is closed at once.
 *
 * Disaggregated prefill goes from ROUTING to WAITING twice: see disagg.h.
 *
 * Callbacks record what happened and tick; steps decide.
 */
#ifndef HASHTRIE_PROXY_REQUEST_H
#define HASHTRIE_PROXY_REQUEST_H

#include "base/sm.h"
#include "proxy/backends.h"
#include "proxy/meter.h"
#include "proxy/paths.h"
#include "proxy/router.h"
#include "trace/trace.h"

enum request_state {
    REQUEST_READING,
    REQUEST_ROUTING,
    REQUEST_RELOADING,
    REQUEST_QUEUED,
    REQUEST_SNAPSHOTTING, /* For the router's own answer: see snapshot.c. */
    REQUEST_BACKING_OFF,  /* Before a further try. */
    REQUEST_CONNECTING,
    REQUEST_WAITING, /* Sent, or being sent; no byte of the answer's body has come. */
    REQUEST_RELAYING,
    REQUEST_DONE,
    REQUEST_STATE_COUNT
};

/* How the answer's body goes to the client. */
enum request_framing {
    REQUEST_RAW,     /* Bytes as the engine framed them: its length or its chunks. */
    REQUEST_CHUNKED, /* The engine's body ends with its connection: chunks are made here. */
    REQUEST_PLAIN,   /* Body bytes alone; it ends with the connection. */
    REQUEST_NO_BODY,
    REQUEST_COLLECTED, /* Not at all: disagg.c reads it. */
};

enum {
    REQUEST_ID_BYTES = 36,
    REQUEST_LOG_ID_BYTES = 128,
    REQUEST_RELOADS_MAX = 2,
    REQUEST_RESENDS_MAX = 4,
    REQUEST_IDLE_TICKS = 4,             /* Of --idle-timeout: it strikes up to a quarter late. */
    REQUEST_INTERIM_MAX = 1000,         /* 1xx of one try: some engines send them to seem alive. */
    REQUEST_KEPT_BYTES_MAX = 64 * 1024, /* Of a larger answer only the status is kept. */
};

struct conn;
struct disagg;
struct upstream;

struct snapshot_answer {
    enum hashtrie_status status;
    uint64_t bytes;
    double seconds;
    char path[4096];
};

/* A reload or a snapshot under way. Outlives the request if that does not wait for it any more. */
struct reload_wait {
    struct list link; /* In the worker's mailbox, once done. */
    struct worker *worker;
    struct request *request;          /* NULL: nobody waits any more. Loop thread only. */
    struct snapshot_answer *snapshot; /* Owned; NULL: it is a reload. */
};

struct request {
    struct sm sm;
    struct conn *conn; /* Embeds this. */
    struct worker *worker;
    struct net_timer *timer;   /* Owned; kept over requests. Of the current state. */
    struct net_timer *prefill; /* Owned; kept over requests. */

    /* What was asked. Spans of the head stay valid until the answer is done. */
    struct span id; /* In the head, or id_text. */
    struct span method;
    struct span target; /* As it came, query included. */
    struct span pin;    /* In it: the id of the only engine that may get it. Size 0: any may. */
    struct buf body;
    uint64_t body_charged;      /* To router->bodies, what is reserved included. */
    uint64_t body_reserved;     /* Of these, not yet come. */
    struct trace_context trace; /* Only with --otel-endpoint. */
    uint64_t begin_ns;          /* When its head was complete. */
    uint64_t routing_ns;        /* When its body was. */

    /* What it is about. */
    size_t model;     /* In the fleet. */
    uint64_t *hashes; /* Owned: those of `key`. */
    struct hashtrie_key key;
    uint64_t prompt_bytes;
    char *session; /* Owned; NULL: none. See hints.h. */
    size_t session_size;
    int64_t priority;      /* Lower is more urgent. */
    struct disagg *disagg; /* Owned; NULL: one engine does all of it. */

    /* Waiting for a place at an engine: see queue.h. */
    struct admit_ticket ticket; /* Lock held, or in the mailbox. */
    uint64_t queued_since_ns;
    uint64_t waited_ns; /* In all. */
    enum stats_refusal refusal;

    /* Where it goes. */
    struct route_choice choice;
    enum route_policy policy; /* By which it was made. */
    uint64_t prefill_ns;      /* How long that will take; 0: unknown. */
    struct stats_series
        *series;           /* Of the backend chosen and this worker. NULL: no memory for it. */
    uint64_t queued_bytes; /* There, its own included, when it was sent. */
    uint64_t sent_ns;
    uint64_t answer_ns;    /* When the first byte of the answer went to the client; 0: none did. */
    uint64_t answer_bytes; /* Handed to the client, head included. */
    size_t excluded_count;
    struct reload_wait *reload;       /* Owned by nobody: see reload_wait. */
    struct snapshot_answer *snapshot; /* Owned: what came of it. */

    /* The engine's side. */
    struct upstream *upstream; /* Owned while set. */
    struct buf engine_head;    /* What is sent before the body. */
    struct span input;         /* Bytes that have just come; for the duration of a tick. */

    /* The answer. */
    struct buf head;    /* Held back until a byte of the body, or the end, has come. */
    struct span output; /* For the client, in `input` or the worker's scratch; during a tick. */
    struct buf kept;    /* The last one turned away: the client's if no better one comes. Whole, or
                           empty. */
    unsigned kept_status; /* 0: none was. */
    bool kept_is_last;    /* The connection ends with it. */
    struct meter meter;

    uint32_t excluded[ROUTER_TRIES_MAX]; /* Engines that have failed. */
    unsigned version_minor;
    unsigned reload_count;
    unsigned resend_count;
    unsigned interim_count;
    unsigned idle_ticks; /* Of the timer, while relaying, since the engine's last byte. */
    unsigned status;     /* Of the answer. */
    enum net_status failure;
    enum request_framing framing;
    enum path_kind path_kind;
    char id_text[REQUEST_ID_BYTES];
    char log_id[REQUEST_LOG_ID_BYTES + 1]; /* As logged: shortened, no blanks or odd bytes. */

    bool to_head;    /* HEAD: the answer has no body. */
    bool body_begun; /* Something of the body has come. */
    bool body_ended; /* All of it has. */
    bool stream;     /* The answer is to come in pieces. */
    bool has_prompt;
    bool queued;       /* It has a ticket, waiting or granted. */
    bool admitted;     /* It was granted a place, and `choice` says where. */
    bool queue_over;   /* The time for that is. */
    bool holds_choice; /* The backend chosen is held; those in `excluded` are, anyway. */
    bool routed;       /* `choice` and `series` are set. */
    bool has_place;    /* Counts in router->admit.running. Lock held. */
    bool charged;      /* Counts as in flight at choice.endpoint. */
    bool prefilled;    /* Its bytes do not count as queued any more. */
    bool reload_over;  /* Done, or its time is up. */
    bool rested;       /* The time of backing off is over. */
    bool connected;    /* To the engine. */
    bool timed_out;    /* It took too long: a resend would not help. */
    bool blamed;       /* This try has been counted as the engine's failure. */
    bool judged;       /* The status of this try's answer has been looked at. */
    bool failed;       /* This try; `failure` says why. */
    bool engine_ended; /* No more will come; `failure` says how. */
    bool head_ready;   /* `head` is the final answer's and complete. */
    bool is_sse;       /* The answer is a stream of events, not compressed. */
    bool body_arrived; /* A byte of the answer's body has come. */
    bool answering;    /* Bytes have gone to the client. */
    bool complete;     /* The engine's answer has ended as it should. */
    bool reusable;     /* ... and its connection may be used again. */
    bool untaken;      /* It timed out because the engine took nothing of it. */
    bool client_gone;
    bool cut;            /* The answer cannot be completed. */
    bool between_chunks; /* What has come and was right ends with a chunk's end. */
};

bool request_init(struct request *request, struct conn *conn, struct worker *worker);
void request_fini(struct request *request); /* Finished, or never begun. */

/* ---- intake.c: from the connection, while READING ---- */

/* What a client chose, as one short word that cannot forge a line. */
void request_log_word(struct span text, char out[REQUEST_LOG_ID_BYTES + 1]);

void request_on_head(struct request *request, const struct http_head *head);
void request_on_body(struct request *request, struct span bytes);
void request_on_body_end(struct request *request);
/* More of the body is to be read: what that may bring is reserved in router->bodies. */
void request_reserve_body(struct request *request);
/* Its head is complete: where the next bytes of the body are read to, if there is a place. */
void request_body_space(struct request *request, char **space, size_t *size);
/* The client has left, or its connection ends now. Nothing is written any more. */
void request_on_client_gone(struct request *request);
/* The client's queue has drained below its limit. */
void request_on_client_ready(struct request *request);
/* Called now and then, while no longer READING. */
void request_sweep(struct request *request, uint64_t now_ns);
/* The router ends: a request whose head has come gets 503, or the end of its answer with a word. */
void request_cut_short(struct request *request);

/* ---- From the engine's connection ---- */

void request_on_connected(struct request *request, enum net_status status);
void request_on_engine_bytes(struct request *request, const char *bytes, size_t size);
void request_on_engine_end(struct request *request, enum net_status status);
void request_on_engine_written(struct request *request, enum net_status status);

/* ---- Between the files of the machine ---- */

void request_tick(struct request *request);
void request_fail_try(struct request *request, enum net_status status); /* First failure wins. */
void request_free_body(struct request *request);
/* Connects to the engine chosen, or takes an idle connection unless a `fresh` one is asked for. */
void request_begin_connecting(struct request *request, bool fresh);
void request_forget_try(struct request *request); /* What is known of it. */
void request_drop_upstream(struct request *request, bool reusable);
/* retry.c. This try has failed: the same engine on a fresh connection, another one, or the end. */
void request_next_try(struct request *request);
/* The head of the answer is there, and nothing of it has gone on. True: its status sends the
 * request to another engine. */
bool request_is_turned_away(struct request *request);
/* subject.c: what it is about. False: it was answered with an error. */
bool request_read_subject(struct request *request);
enum pick_result { PICK_CHOSEN, PICK_RELOADING, PICK_QUEUED, PICK_REFUSED, PICK_NOBODY };
/* Picks an engine and records the choice; or starts a reload first; or joins the queue. */
enum pick_result request_pick(struct request *request);
/* Any thread, lock held, for one that waits: the same without reload and queue. */
bool request_take_place(struct request *request);
void request_find_series(struct request *request); /* Of its choice, which is held. */
void request_on_chosen(struct request *request);   /* What is due on its own loop then. */
void request_forget_reload(struct request *request);
void reload_wait_send(struct reload_wait *wait);      /* From the store's threads. */
void reload_wait_done(struct reload_wait *wait);      /* On the loop, from its mailbox. */
void request_load_prefilled(struct request *request); /* Each at most once per choice. */
void request_load_ended(struct request *request);
void request_load_moved(struct request *request); /* The same, but it goes on to another engine. */
void request_let_go(struct request *request);     /* Of all the backends it was sent to: the end. */
void request_let_go_choice(struct request *request);
void request_first_byte(struct request *request); /* load.c: teaches the rate of a stream. */
/* report.c: log, span and statistics of a request that is over. */
void request_report_end(struct request *request);
const char *request_why_cut(const struct request *request);
/* relay.c */
bool relay_build_engine_head(struct request *request);
void relay_parse(struct request *request);     /* Consumes `input`: makes `head` and `output`. */
void relay_parse_end(struct request *request); /* The engine has closed its side. */
/* The answer will not be completed: an event that says so, where the stream is at a place for it.
 * `message` is plain: no quotes, no backslashes. */
void relay_error_event(struct request *request, const char *type, unsigned code,
                       const char *message);

/* ---- answer.c: answers made here. Each ends the request; only the first is sent. ---- */

/* 429 in the form of OpenAI's API. `code` and `message` are plain. */
void answer_busy(struct request *request, const char *code, const char *message,
                 unsigned retry_after_s);
/* {"error": TEXT} */
void answer_error(struct request *request, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void answer_text(struct request *request, unsigned status, const char *content_type,
                 struct span body);
void answer_unauthorized(struct request *request);
void answer_not_allowed(struct request *request, const char *allowed);
/* The last answer that was turned away. False: none was. */
bool answer_kept(struct request *request);

/* ---- admin.c ---- */

/* The path is served here: answers it, and returns true. */
bool admin_serve(struct request *request, struct span method, struct span path);
bool admin_has(struct span path); /* It would. */
struct json_writer;
/* What was written to `body`; 500 if not all of it was. */
void admin_send_json(struct request *request, unsigned status, struct buf *body,
                     const struct json_writer *writer);

/* ---- health.c ---- */

void health_serve(struct request *request, struct buf *body);
void health_serve_ready(struct request *request, struct buf *body);

/* ---- snapshot.c ---- */

bool admin_may(const struct request *request);       /* Use /admin/...: loopback, or the key. */
void admin_ask_snapshot(struct request *request);    /* Answers, or waits for the store. */
void admin_answer_snapshot(struct request *request); /* It has come. */
void request_drop_snapshot(struct request *request);

#endif
