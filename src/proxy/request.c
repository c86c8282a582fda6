#include "proxy/request.h"

#include <assert.h>
#include <stdio.h>

#include "base/check.h"
#include "proxy/conn.h"
#include "proxy/disagg.h"
#include "proxy/hints.h"
#include "proxy/queue.h"
#include "proxy/sleep.h"
#include "proxy/upstream.h"

static const uint32_t moves[REQUEST_STATE_COUNT] = {
    [REQUEST_READING] =
        SM_MAY(REQUEST_ROUTING) | SM_MAY(REQUEST_SNAPSHOTTING) | SM_MAY(REQUEST_DONE),
    [REQUEST_ROUTING] = SM_MAY(REQUEST_RELOADING) | SM_MAY(REQUEST_QUEUED) |
                        SM_MAY(REQUEST_CONNECTING) | SM_MAY(REQUEST_DONE),
    [REQUEST_QUEUED] = SM_MAY(REQUEST_CONNECTING) | SM_MAY(REQUEST_DONE),
    [REQUEST_RELOADING] = SM_MAY(REQUEST_ROUTING) | SM_MAY(REQUEST_DONE),
    [REQUEST_SNAPSHOTTING] = SM_MAY(REQUEST_DONE),
    [REQUEST_BACKING_OFF] = SM_MAY(REQUEST_ROUTING) | SM_MAY(REQUEST_DONE),
    [REQUEST_CONNECTING] = SM_MAY(REQUEST_WAITING) | SM_MAY(REQUEST_CONNECTING) |
                           SM_MAY(REQUEST_BACKING_OFF) | SM_MAY(REQUEST_ROUTING) |
                           SM_MAY(REQUEST_DONE),
    [REQUEST_WAITING] = SM_MAY(REQUEST_RELAYING) | SM_MAY(REQUEST_CONNECTING) |
                        SM_MAY(REQUEST_BACKING_OFF) | SM_MAY(REQUEST_ROUTING) |
                        SM_MAY(REQUEST_DONE),
    [REQUEST_RELAYING] = SM_MAY(REQUEST_DONE),
    [REQUEST_DONE] = SM_MAY(REQUEST_READING),
};

enum {
    HEAD_BYTES_MAX = 2 * HTTP_HEAD_BYTES_MAX, /* What came, re-written with our own headers. */
    BODY_SPARE_BYTES = 64,                    /* Rounding, so that a body grows in few steps. */
};

/* ---- Life ---- */

static void on_timer(void *user);
static void on_prefill_timer(void *user);

/* What each request starts with; buffers and timers stay. */
static void request_reset(struct request *request)
{
    request->id = (struct span){0};
    request->method = (struct span){0};
    request->target = (struct span){0};
    request->pin = (struct span){0};
    request->version_minor = 1;
    request->to_head = false;
    request->path_kind = PATH_LOCAL;
    request->model = 0;
    request->session = NULL;
    request->disagg = NULL;
    request->priority = (int64_t)request->worker->router->config->priority_default;
    request->body_begun = false;
    request->body_ended = false;
    request->routed = false;
    request->stream = false;
    request->has_prompt = false;
    request->key = (struct hashtrie_key){0};
    request->prompt_bytes = 0;
    request->queued = false;
    request->admitted = false;
    request->waited_ns = 0;
    request->has_place = false;
    request->charged = false;
    request->prefilled = false;
    request->excluded_count = 0;
    request->reload = NULL;
    request->reload_count = 0;
    request->reload_over = false;
    request->upstream = NULL;
    request->resend_count = 0;
    request->connected = false;
    request->failed = false;
    request->failure = NET_OK;
    request->engine_ended = false;
    request->timed_out = false;
    request->blamed = false;
    request->judged = false;
    request->head_ready = false;
    request->body_arrived = false;
    request->status = 0;
    request->kept_status = 0;
    request->answer_ns = 0;
    request->answer_bytes = 0;
    request->answering = false;
    request->complete = false;
    request->reusable = false;
    request->client_gone = false;
    request->cut = false;
}

bool request_init(struct request *request, struct conn *conn, struct worker *worker)
{
    *request = (struct request){.conn = conn, .worker = worker};
    sm_init(&request->sm, moves, REQUEST_READING);
    uint64_t body_max = worker->router->config->body_bytes_max + BODY_SPARE_BYTES;
    buf_init(&request->body, &worker->mem, (size_t)body_max);
    buf_init(&request->head, &worker->mem, HEAD_BYTES_MAX);
    buf_init(&request->engine_head, &worker->mem, HEAD_BYTES_MAX);
    buf_init(&request->kept, &worker->mem, REQUEST_KEPT_BYTES_MAX);
    meter_init(&request->meter, &worker->mem);
    request->timer = net_timer_new(worker->loop, on_timer, request);
    request->prefill = net_timer_new(worker->loop, on_prefill_timer, request);
    if (request->timer == NULL || request->prefill == NULL) {
        request_fini(request);
        return false;
    }
    request_reset(request);
    return true;
}

void request_fini(struct request *request)
{
    REQUIRE(request->upstream == NULL && request->reload == NULL && !request->charged);
    request_free_body(request);
    buf_fini(&request->head);
    buf_fini(&request->engine_head);
    buf_fini(&request->kept);
    meter_fini(&request->meter);
    net_timer_close(request->timer);
    net_timer_close(request->prefill);
    request->timer = NULL;
    request->prefill = NULL;
}

/* ---- Callbacks: record and tick ---- */

void request_on_client_gone(struct request *request)
{
    request->client_gone = true;
    request_tick(request);
}

void request_on_client_ready(struct request *request)
{
    if (request->sm.now == REQUEST_RELAYING && request->upstream != NULL) {
        upstream_resume(request->upstream);
    }
}

static void start_idle_timer(struct request *request)
{
    uint64_t limit_ns = request->worker->router->config->idle_timeout_ns;
    if (limit_ns > 0) {
        net_timer_start(request->timer, limit_ns / REQUEST_IDLE_TICKS);
    }
}

/* Starting the timer anew at each byte would cost more than relaying it: ticks are counted. */
static void on_idle_tick(struct request *request)
{
    /* It is not the engine's silence while the router does not read. */
    request->idle_ticks = request->upstream->paused ? 0 : request->idle_ticks + 1;
    if (request->idle_ticks > REQUEST_IDLE_TICKS) {
        request->timed_out = true;
        request_fail_try(request, NET_TIMED_OUT);
    } else {
        start_idle_timer(request);
    }
}

static void on_timer(void *user)
{
    struct request *request = user;
    switch ((enum request_state)request->sm.now) {
    case REQUEST_RELOADING:
        stats_add(&request->worker->stats.reload_timeouts, 1);
        request->reload_over = true;
        request->reload_count = REQUEST_RELOADS_MAX; /* No second wait. */
        request_forget_reload(request);
        break;
    case REQUEST_QUEUED:
        request->queue_over = true;
        break;
    case REQUEST_BACKING_OFF:
        request->rested = true;
        break;
    case REQUEST_CONNECTING:
    case REQUEST_WAITING:
        request->timed_out = true;
        request_fail_try(request, NET_TIMED_OUT);
        break;
    case REQUEST_RELAYING:
        on_idle_tick(request);
        break;
    case REQUEST_READING:
    case REQUEST_ROUTING:
    case REQUEST_SNAPSHOTTING:
    case REQUEST_DONE:
    case REQUEST_STATE_COUNT:
    default:
        break;
    }
    request_tick(request);
}

static void on_prefill_timer(void *user)
{
    struct request *request = user;
    if (request->charged) {
        request_load_prefilled(request);
    }
}

void request_fail_try(struct request *request, enum net_status status)
{
    if (!request->failed) {
        request->failed = true;
        request->failure = status;
    }
}

void request_on_connected(struct request *request, enum net_status status)
{
    REQUIRE(request->sm.now == REQUEST_CONNECTING);
    if (status == NET_OK) {
        request->connected = true;
    } else {
        request_fail_try(request, status);
    }
    request_tick(request);
}

void request_on_engine_bytes(struct request *request, const char *bytes, size_t size)
{
    request->idle_ticks = 0;
    request->input = (struct span){.data = bytes, .size = size};
    request_tick(request);
    request->input = (struct span){0};
}

void request_on_engine_end(struct request *request, enum net_status status)
{
    request->engine_ended = true;
    request->failure = request->failed ? request->failure : status;
    request_tick(request);
}

void request_on_engine_written(struct request *request, enum net_status status)
{
    (void)status; /* A failure: what the engine said before it closed is read, then its end. */
    if (request->sm.now == REQUEST_RELAYING && request->upstream != NULL &&
        net_stream_queued(request->upstream->stream) == 0) {
        request_free_body(request);
    }
}

void request_cut_short(struct request *request)
{
    if (request->sm.now == REQUEST_RELAYING) {
        request->cut = true;
        relay_error_event(request, "server_error", 503,
                          "The router is being stopped, and its time to finish is over.");
        sm_move(&request->sm, REQUEST_DONE);
    } else {
        answer_error(request, 503, "The router is being stopped. Please try again.");
    }
    request_tick(request);
}

/* ---- Steps ---- */

void request_drop_upstream(struct request *request, bool reusable)
{
    struct upstream *upstream = request->upstream;
    request->upstream = NULL;
    if (upstream != NULL) {
        upstream_release(upstream, reusable);
    }
}

void request_forget_try(struct request *request)
{
    request->connected = false;
    request->failed = false;
    request->failure = NET_OK;
    request->engine_ended = false;
    request->timed_out = false;
    request->untaken = false;
    request->blamed = false;
    request->judged = false;
    request->head_ready = false;
    request->head.size = 0;
    request->output = (struct span){0};
    request->status = 0;
    request->interim_count = 0;
    request->between_chunks = false;
    request->body_arrived = false;
    request->complete = false;
    request->reusable = false;
}

/* What comes of it shows in step_connecting(). */
void request_begin_connecting(struct request *request, bool fresh)
{
    request_forget_try(request);
    sm_move(&request->sm, REQUEST_CONNECTING);
    request->upstream = upstream_acquire(request, request->choice.endpoint, fresh);
    if (request->upstream == NULL) {
        request_fail_try(request, NET_NO_MEMORY);
    } else if (request->upstream->connected) {
        request->connected = true;
    } else {
        net_timer_start(request->timer, request->worker->router->config->connect_timeout_ns);
    }
}

static enum step step_routing(struct request *request)
{
    if (request->client_gone) {
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    switch (request_pick(request)) {
    case PICK_CHOSEN:
        request_begin_connecting(request, false);
        break;
    case PICK_RELOADING:
        sm_move(&request->sm, REQUEST_RELOADING);
        net_timer_start(request->timer, request->worker->router->config->reload_timeout_ns);
        break;
    case PICK_QUEUED:
        sm_move(&request->sm, REQUEST_QUEUED);
        net_timer_start(request->timer, queue_time_left_ns(request));
        break;
    case PICK_REFUSED:
        queue_refuse(request);
        break;
    case PICK_NOBODY:
        if (request->excluded_count > 0) {
            if (!answer_kept(request)) {
                answer_error(request, 502, "No engine is left that could be tried.");
            }
        } else if (request->disagg != NULL) {
            disagg_answer_nobody(request);
        } else {
            answer_error(request, 503,
                         "Model '%s' is temporarily unavailable. Please try again later.",
                         route_model_name(request->worker->router->fleet, request->model));
        }
        break;
    }
    return STEP_NEXT;
}

static enum step step_reloading(struct request *request)
{
    if (request->client_gone) {
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    if (!request->reload_over) {
        return STEP_SUSPEND;
    }
    net_timer_stop(request->timer);
    sm_move(&request->sm, REQUEST_ROUTING);
    return STEP_NEXT;
}

static enum step step_backing_off(struct request *request)
{
    if (request->client_gone) {
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    if (!request->rested) {
        return STEP_SUSPEND;
    }
    sm_move(&request->sm, REQUEST_ROUTING);
    return STEP_NEXT;
}

static enum step step_snapshotting(struct request *request)
{
    if (request->client_gone) {
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    if (!request->reload_over) {
        return STEP_SUSPEND;
    }
    admin_answer_snapshot(request);
    return STEP_NEXT;
}

static void send_request(struct request *request)
{
    struct net_stream *stream = request->upstream->stream;
    if (!relay_build_engine_head(request)) {
        request_fail_try(request, NET_NO_MEMORY);
        return;
    }
    request->sent_ns = net_now_ns();
    struct span parts[HANDOVER_PARTS_MAX + 1] = {
        {.data = request->engine_head.data, .size = request->engine_head.size}};
    size_t part_count = 1 + disagg_body(request, parts + 1);
    static_assert((int)HANDOVER_PARTS_MAX + 1 <= (int)NET_WRITE_PARTS_MAX, "one write is enough");
    enum net_status status = net_stream_write(stream, parts, part_count, NET_BORROW);
    if (status != NET_OK) {
        request_fail_try(request, status);
        return;
    }
    disagg_sent(request);
    sm_move(&request->sm, REQUEST_WAITING);
    uint64_t limit_ns = request->worker->router->config->first_byte_timeout_ns;
    if (limit_ns > 0) {
        net_timer_start(request->timer, limit_ns);
    }
}

static enum step step_connecting(struct request *request)
{
    if (request->client_gone) {
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    if (request->connected && !request->failed) {
        net_timer_stop(request->timer);
        send_request(request);
    }
    if (request->failed) {
        request_next_try(request);
        return STEP_NEXT;
    }
    return STEP_SUSPEND;
}

static enum step step_waiting(struct request *request)
{
    if (request->client_gone) {
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    if (request->input.size > 0) {
        relay_parse(request);
    }
    if (request->engine_ended && !request->failed && !request->complete) {
        relay_parse_end(request);
    }
    if (request->head_ready && request_is_turned_away(request)) {
        return STEP_NEXT;
    }
    if (request->head_ready && sleep_is_done(request)) {
        return STEP_NEXT;
    }
    if (request->head_ready && request->framing == REQUEST_COLLECTED) {
        return disagg_step_collecting(request);
    }
    if (request->head_ready && (request->body_arrived || request->complete)) {
        request_first_byte(request);
        net_timer_stop(request->timer);
        request->conn->last = request->conn->last || request->framing == REQUEST_PLAIN;
        request->idle_ticks = 0;
        if (!request->complete) {
            start_idle_timer(request);
        }
        sm_move(&request->sm, REQUEST_RELAYING);
        return STEP_NEXT;
    }
    if (request->failed) {
        request_next_try(request);
        return STEP_NEXT;
    }
    return STEP_SUSPEND;
}

/* Hands what has come to the client. The load drops first: see DESIGN.md, section 5. */
static void relay_output(struct request *request)
{
    struct span parts[2] = {
        {.data = request->head.data, .size = request->head.size},
        request->output,
    };
    if (request->complete) {
        request_load_ended(request);
    }
    if (parts[0].size + parts[1].size == 0) {
        return;
    }
    request->answer_bytes += parts[0].size + parts[1].size;
    if (!conn_write(request->conn, parts, 2)) {
        request->client_gone = true;
    }
    if (!request->answering) {
        request->answering = true;
        request->answer_ns = request->conn->active_ns;
    }
    if (request->is_sse) {
        meter_passed(&request->meter, request->begin_ns, request->conn->active_ns);
    }
    request->head.size = 0;
    request->output = (struct span){0};
}

static void tell_cut(struct request *request)
{
    char message[128];
    int size =
        snprintf(message, sizeof message, "The engine failed in the middle of its answer: %s.",
                 request_why_cut(request));
    CHECK(size > 0 && (size_t)size < sizeof message);
    relay_error_event(request, "engine_error", 502, message);
}

static enum step step_relaying(struct request *request)
{
    if (!request->client_gone && request->input.size > 0) {
        relay_parse(request);
    }
    if (!request->client_gone && request->engine_ended && !request->failed && !request->complete) {
        relay_parse_end(request);
    }
    if (!request->client_gone) {
        relay_output(request);
    }
    if (request->client_gone || request->complete || request->failed) {
        request->cut = !request->complete;
        if (request->cut && !request->client_gone) {
            tell_cut(request);
        }
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    if (net_stream_queued(request->upstream->stream) == 0 && request->body.data != NULL) {
        request_free_body(request);
    }
    if (conn_is_full(request->conn)) {
        upstream_pause(request->upstream);
    }
    return STEP_SUSPEND;
}

/* The one place that knows all that a request holds. */
static enum step step_done(struct request *request)
{
    struct conn *conn = request->conn;
    net_timer_stop(request->timer);
    net_timer_stop(request->prefill);
    request_forget_reload(request);
    queue_forget(request);
    request_drop_snapshot(request);
    request_drop_upstream(request, request->complete && request->reusable);
    request_load_ended(request);
    request_report_end(request);
    disagg_free(request);
    request_let_go(request);
    request_free_body(request);
    mem_free(&request->worker->mem, request->hashes, request->key.count * sizeof *request->hashes);
    request->hashes = NULL;
    hints_free(request);
    buf_fini(&request->kept);
    meter_fini(&request->meter);
    request->engine_head.size = 0;
    request->head.size = 0;
    bool gone = request->client_gone;
    bool cut = request->cut;
    bool plain = request->framing == REQUEST_PLAIN;
    request_reset(request);
    sm_move(&request->sm, REQUEST_READING);
    if ((cut || gone) && plain) {
        conn_cut(conn); /* Gone: it may have half-closed, or there was no memory for its bytes. */
    } else if (gone) {
        conn_close(conn);
    } else if (cut) {
        conn_close_softly(conn);
    } else {
        conn_request_done(conn);
    }
    return STEP_DONE;
}

void request_tick(struct request *request)
{
    enum step step = STEP_NEXT;
    while (step == STEP_NEXT) {
        switch ((enum request_state)request->sm.now) {
        case REQUEST_READING:
            step = STEP_SUSPEND;
            break;
        case REQUEST_ROUTING:
            step = step_routing(request);
            break;
        case REQUEST_RELOADING:
            step = step_reloading(request);
            break;
        case REQUEST_QUEUED:
            step = queue_step(request);
            break;
        case REQUEST_SNAPSHOTTING:
            step = step_snapshotting(request);
            break;
        case REQUEST_BACKING_OFF:
            step = step_backing_off(request);
            break;
        case REQUEST_CONNECTING:
            step = step_connecting(request);
            break;
        case REQUEST_WAITING:
            step = step_waiting(request);
            break;
        case REQUEST_RELAYING:
            step = step_relaying(request);
            break;
        case REQUEST_DONE:
            step = step_done(request);
            break;
        case REQUEST_STATE_COUNT:
        default:
            CHECK(request->sm.now < REQUEST_STATE_COUNT);
            step = STEP_DONE;
        }
    }
}
