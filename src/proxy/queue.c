#include "proxy/queue.h"

#include "base/check.h"
#include "base/clock.h"
#include "proxy/conn.h"
#include "proxy/disagg.h"

/* An API key, else the address. Nobody is named twice by both. */
static uint64_t client_of(const struct request *request)
{
    static const char *const names[] = {"authorization", "x-api-key", "api-key"};
    const struct http_head *head = http_parser_head(request->conn->parser);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct span key = http_header(head, names[i]);
        if (key.size > 0) {
            return hashtrie_hash_namespace(key.data, key.size);
        }
    }
    return net_stream_peer_key(request->conn->stream);
}

static enum admit_rank rank_of(const struct request *request)
{
    const struct config *config = request->worker->router->config;
    if (request->priority < (int64_t)config->priority_threshold) {
        return ADMIT_URGENT;
    }
    return request->priority > (int64_t)config->priority_default ? ADMIT_BACKGROUND
                                                                 : ADMIT_ORDINARY;
}

/* ---- Granting: any thread, lock held ---- */

struct place {
    struct router *router;
    size_t endpoint; /* SIZE_MAX: any. */
    size_t model;    /* SIZE_MAX: any. */
};

static bool try_ticket(void *user, struct admit_ticket *ticket)
{
    const struct place *place = user;
    struct router *router = place->router;
    bool one_place = place->endpoint != SIZE_MAX && router->config->requests_max == 0;
    if ((place->model != SIZE_MAX && ticket->model != place->model) ||
        (one_place && !route_serves(router->fleet, place->endpoint, ticket->model))) {
        return false;
    }
    return request_take_place(LIST_ITEM(ticket, struct request, ticket));
}

/* Under the mutex: whoever owns the ticket may take it back out of the mailbox. */
static void send_ticket(struct admit_ticket *ticket)
{
    struct worker *worker = LIST_ITEM(ticket, struct request, ticket)->worker;
    pthread_mutex_lock(&worker->mailbox_mutex);
    list_push_back(&worker->granted, &ticket->link);
    net_wake_send(worker->wake);
    pthread_mutex_unlock(&worker->mailbox_mutex);
}

/* Returns where the place is that was granted; SIZE_MAX: nobody took one. */
static size_t grant(struct place place)
{
    struct admit *admit = &place.router->admit;
    if (admit->waiting == 0 || !admit_has_room(admit)) {
        return SIZE_MAX;
    }
    struct admit_ticket *ticket = admit_grant(admit, try_ticket, &place, net_now_ns());
    if (ticket == NULL) {
        return SIZE_MAX;
    }
    size_t endpoint = LIST_ITEM(ticket, struct request, ticket)->choice.endpoint;
    send_ticket(ticket);
    return endpoint;
}

void queue_grant(struct router *router, size_t endpoint)
{
    size_t granted = SIZE_MAX;
    do {
        granted = grant((struct place){router, endpoint, SIZE_MAX});
        /* Elsewhere: an engine's pause has ended, and the place here is still free. */
    } while (granted != SIZE_MAX && granted != endpoint);
}

void queue_grant_all(struct router *router)
{
    while (grant((struct place){router, SIZE_MAX, SIZE_MAX}) != SIZE_MAX) {
    }
}

/* ---- The request's own loop ---- */

bool queue_join(struct request *request)
{
    struct router *router = request->worker->router;
    bool waited_for = admit_is_waited_for(&router->admit, request->model);
    request->ticket =
        (struct admit_ticket){.model = request->model,
                              .rank = rank_of(request),
                              .tried_before = request->excluded_count > 0 || request->has_place,
                              .client = client_of(request)};
    request->queued_since_ns = net_now_ns();
    if (queue_time_left_ns(request) == 0) {
        request->refusal = STATS_QUEUE_TIMEOUT;
        return false;
    }
    enum admit_verdict verdict =
        admit_join(&router->admit, &request->ticket, request->queued_since_ns);
    if (verdict != ADMIT_WAITS) {
        request->refusal =
            verdict == ADMIT_CLIENT_FULL ? STATS_CLIENT_QUEUE_FULL : STATS_QUEUE_FULL;
        return false;
    }
    request->queued = true;
    request->admitted = false;
    request->queue_over = false;
    if (waited_for) {
        /* An engine's pause may have ended, of which nobody is told. */
        while (grant((struct place){router, SIZE_MAX, request->model}) != SIZE_MAX) {
        }
    }
    return true;
}

uint64_t queue_time_left_ns(const struct request *request)
{
    uint64_t limit_ns = request->worker->router->config->queue_timeout_ns;
    return request->waited_ns < limit_ns ? limit_ns - request->waited_ns : 0;
}

static void end_wait(struct request *request)
{
    struct worker *worker = request->worker;
    uint64_t waited_ns = net_now_ns() - request->queued_since_ns;
    request->queued = false;
    request->waited_ns += waited_ns;
    metrics_histogram_observe(&worker->stats.queue_seconds,
                              (double)waited_ns / (double)CLOCK_NS_PER_S);
}

void queue_take_granted(struct worker *worker)
{
    for (;;) {
        pthread_mutex_lock(&worker->mailbox_mutex);
        struct list *link = worker->granted.next;
        bool none = list_empty(&worker->granted);
        if (!none) {
            list_remove(link);
        }
        pthread_mutex_unlock(&worker->mailbox_mutex);
        if (none) {
            return;
        }
        struct request *request = LIST_ITEM(link, struct request, ticket.link);
        REQUIRE(request->sm.now == REQUEST_QUEUED && request->queued);
        end_wait(request);
        request->admitted = true;
        request_on_chosen(request);
        request_tick(request);
    }
}

/* It does not wait any longer. False: it has a place, and the mail is on its way. */
static bool leave(struct request *request)
{
    struct router *router = request->worker->router;
    hashtrie_lock(router->trie);
    bool waits = request->ticket.waiting;
    if (waits) {
        admit_leave(&router->admit, &request->ticket);
    }
    hashtrie_unlock(router->trie);
    if (waits) {
        end_wait(request);
    }
    return waits;
}

void queue_forget(struct request *request)
{
    if (!request->queued || leave(request)) {
        return;
    }
    struct worker *worker = request->worker;
    pthread_mutex_lock(&worker->mailbox_mutex);
    list_remove(&request->ticket.link);
    pthread_mutex_unlock(&worker->mailbox_mutex);
    end_wait(request);
    request->charged = true; /* request_load_ended() gives its place to the next. */
    request->prefilled = disagg_decodes(request);
}

void queue_refuse(struct request *request)
{
    static const struct {
        const char *code;
        const char *message;
    } texts[STATS_REFUSAL_COUNT] = {
        [STATS_QUEUE_FULL] = {"queue_full", "All engines are busy and the queue is full."},
        [STATS_CLIENT_QUEUE_FULL] = {"client_queue_full",
                                     "All engines are busy and this client has as many requests "
                                     "in the queue as one client may have."},
        [STATS_QUEUE_TIMEOUT] = {"queue_timeout",
                                 "All engines were busy for as long as a request may wait."},
    };
    struct worker *worker = request->worker;
    REQUIRE(texts[request->refusal].code != NULL);
    hashtrie_lock(worker->router->trie);
    unsigned retry_after_s = admit_retry_after_s(&worker->router->admit, net_now_ns());
    hashtrie_unlock(worker->router->trie);
    stats_add(&worker->stats.refusals[request->refusal], 1);
    log_write(&worker->log, LOG_DEBUG, "Request %s: refused: %s", request->log_id,
              texts[request->refusal].message);
    answer_busy(request, texts[request->refusal].code, texts[request->refusal].message,
                retry_after_s);
}

enum step queue_step(struct request *request)
{
    if (request->client_gone) {
        sm_move(&request->sm, REQUEST_DONE);
        return STEP_NEXT;
    }
    if (request->admitted) {
        net_timer_stop(request->timer);
        request_begin_connecting(request, false);
        return STEP_NEXT;
    }
    if (request->queue_over && leave(request)) {
        request->refusal = STATS_QUEUE_TIMEOUT;
        queue_refuse(request);
        return STEP_NEXT;
    }
    return STEP_SUSPEND;
}
