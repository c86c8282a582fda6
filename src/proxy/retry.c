/*
 * When a try at an engine has failed and nothing has gone to the client: who is to blame, and
 * whether another engine is tried.
 *
 * A further try needs one left of --max-instance-failover-reroute-attempts, an engine not yet
 * tried, and a grant of the retry budget. The budget is there so that engines which cannot keep up
 * do not get each request several times. It is not asked where that cannot be, while an engine is
 * left that does not fail: no connection was made, so that no engine had the request; or an ejected
 * engine broke the connection: what it had moves once, and it gets nothing new. The first goes out
 * at once, later ones after a delay that doubles and is drawn from its upper half, so that those
 * who failed together do not come back together.
 */
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "proxy/conn.h"
#include "proxy/disagg.h"
#include "proxy/engines.h"
#include "proxy/upstream.h"

/* The router's own want, for which no engine is to blame. */
static bool is_ours(enum net_status status)
{
    return status == NET_NO_FILES || status == NET_NO_MEMORY;
}

/* Once per try. */
static void blame(struct request *request, enum stats_error error, const char *why)
{
    struct worker *worker = request->worker;
    if (request->blamed) {
        return;
    }
    request->blamed = true;
    if (request->series != NULL) {
        stats_add(&request->series->errors[error], 1);
    }
    engines_failed(worker, request->choice.endpoint);
    log_write(&worker->log, LOG_WARNING, "Request %s: %s failed: %s", request->log_id,
              worker->router->backends[request->choice.endpoint]->url, why);
}

static void exclude(struct request *request)
{
    uint32_t endpoint = (uint32_t)request->choice.endpoint;
    size_t count = request->excluded_count;
    if (count > 0 && request->excluded[count - 1] == endpoint) {
        return; /* It failed after its status had been looked at. */
    }
    CHECK(count < ROUTER_TRIES_MAX);
    request->excluded[request->excluded_count++] = endpoint;
    request->holds_choice = false; /* It is held as one of them. */
}

/* Lock held. See above. */
static bool costs_nothing(const struct request *request, bool connecting)
{
    const struct route_fleet *fleet = request->worker->router->fleet;
    bool broken = request->failed && !request->timed_out && request->failure != NET_INVALID;
    bool gone = broken && route_endpoint_is_ejected(fleet, request->choice.endpoint);
    return (connecting || gone) &&
           route_has_sound_other(fleet, request->model, disagg_roles(request), request->excluded,
                                 request->excluded_count);
}

/* The engine of this try has been excluded. Takes a grant of the budget if need be. */
static bool may_try_another(struct request *request, bool connecting)
{
    struct worker *worker = request->worker;
    struct router *router = worker->router;
    if (request->excluded_count > router->config->failover_attempts_max) {
        return false;
    }
    hashtrie_lock(router->trie);
    bool other = route_has_other(router->fleet, request->model, disagg_roles(request),
                                 request->excluded, request->excluded_count);
    bool is_free = other && costs_nothing(request, connecting);
    bool granted =
        is_free || (other && budget_take_retry(&router->retry_budget, router->config->retry_budget,
                                               net_now_ns() / CLOCK_NS_PER_S));
    hashtrie_unlock(router->trie);
    if (other && !granted) {
        stats_add(&worker->stats.retries_denied, 1);
        log_write(&worker->log, LOG_WARNING,
                  "Request %s: not tried elsewhere: the retry budget is used up", request->log_id);
    }
    return granted;
}

static void try_another(struct request *request)
{
    struct worker *worker = request->worker;
    size_t failures = request->excluded_count;
    stats_add(&worker->stats.retries, 1);
    disagg_decode_failed(request);
    if (failures < 2) {
        sm_move(&request->sm, REQUEST_ROUTING);
        return;
    }
    size_t doublings = failures - 2;
    doublings = doublings < ROUTER_BACKOFF_DOUBLINGS_MAX ? doublings : ROUTER_BACKOFF_DOUBLINGS_MAX;
    uint64_t half_ns = (ROUTER_BACKOFF_NS << doublings) / 2;
    request->rested = false;
    net_timer_start(request->timer, half_ns + random_below(&worker->random, (uint32_t)half_ns));
    sm_move(&request->sm, REQUEST_BACKING_OFF);
}

/* The engine had closed a connection that was kept from an earlier request. */
static bool is_stale(const struct request *request)
{
    const struct upstream *upstream = request->upstream;
    return upstream != NULL && upstream->reused && !upstream->got_bytes && !request->timed_out &&
           request->resend_count < REQUEST_RESENDS_MAX;
}

/* What was turned away may be the best that there will be. One that is not whole is not waited
 * for. */
static void keep_answer(struct request *request)
{
    struct buf *kept = &request->kept;
    request->kept_status = request->status;
    request->kept_is_last = request->framing == REQUEST_PLAIN;
    kept->size = 0;
    if (request->complete && (!buf_append(kept, request->head.data, request->head.size) ||
                              (request->output.size > 0 &&
                               !buf_append(kept, request->output.data, request->output.size)))) {
        kept->size = 0;
    }
}

void request_sweep(struct request *request, uint64_t now_ns)
{
    if (request->sm.now == REQUEST_WAITING && upstream_is_stuck(request->upstream, now_ns)) {
        request->timed_out = true;
        request->untaken = true;
        request_fail_try(request, NET_TIMED_OUT);
        request_tick(request);
    }
}

static enum stats_error error_of(const struct request *request, bool connecting)
{
    if (request->untaken) {
        return STATS_SEND_TIMEOUT;
    }
    return request->timed_out && !connecting ? STATS_FIRST_BYTE_TIMEOUT
                                             : stats_error_of(request->failure, connecting);
}

static const char *why_failed(const struct request *request, bool connecting)
{
    if (request->untaken) {
        return "it took nothing more of the request in time";
    }
    return request->timed_out && !connecting ? "no byte of its answer in time"
                                             : net_status_text(request->failure);
}

static void send_again(struct request *request)
{
    if (disagg_decodes(request)) {
        request_load_moved(request);
        disagg_prefill_again(request);
        sm_move(&request->sm, REQUEST_ROUTING);
    } else {
        request_begin_connecting(request, true);
    }
}

void request_next_try(struct request *request)
{
    struct worker *worker = request->worker;
    bool connecting = request->sm.now == REQUEST_CONNECTING && !request->connected;
    bool stale = is_stale(request);
    net_timer_stop(request->timer);
    request_drop_upstream(request, false);
    if (stale) {
        request->resend_count++;
        stats_add(&worker->stats.resends, 1);
        log_write(&worker->log, LOG_DEBUG, "Request %s: sent again to %s: kept connection closed",
                  request->log_id, worker->router->backends[request->choice.endpoint]->url);
        engines_suspect(worker, request->choice.endpoint);
        send_again(request);
        return;
    }
    bool late = request->timed_out && !connecting;
    const char *why = why_failed(request, connecting);
    if (is_ours(request->failure)) {
        log_write(&worker->log, LOG_WARNING, "Request %s: no connection can be made: %s",
                  request->log_id, why);
        if (!answer_kept(request)) {
            answer_error(request, 503, "The router is overloaded (%s). Please try again later.",
                         why);
        }
        return;
    }
    request_load_ended(request);
    blame(request, error_of(request, connecting), why);
    exclude(request);
    if (may_try_another(request, connecting)) {
        try_another(request);
    } else if (answer_kept(request)) {
        return;
    } else if (late) {
        answer_error(request, 504, "The engine did not answer in time.");
    } else {
        answer_error(request, 502, "The engine could not be reached (%s).", why);
    }
}

bool request_is_turned_away(struct request *request)
{
    unsigned status = request->status;
    bool broken = status >= 502 && status <= 504;
    bool busy = status == 429 && request->worker->router->config->failover_on_busy;
    if (request->judged || !(broken || busy)) {
        return false;
    }
    request->judged = true;
    char why[32];
    (void)snprintf(why, sizeof why, "it answered %u", status); /* Three digits: it fits. */
    if (broken) {
        blame(request, STATS_BAD_STATUS, why);
    } else {
        request_first_byte(request); /* It answers: it is not at fault. */
        log_write(&request->worker->log, LOG_INFO, "Request %s: %s is busy: %s", request->log_id,
                  request->worker->router->backends[request->choice.endpoint]->url, why);
    }
    exclude(request);
    if (!may_try_another(request, false)) {
        return false; /* The client gets this answer as it is. */
    }
    keep_answer(request);
    net_timer_stop(request->timer);
    request_load_ended(request);
    request_drop_upstream(request, request->complete && request->reusable);
    try_another(request);
    return true;
}
