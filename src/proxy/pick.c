/*
 * Which engine gets a request.
 *
 * Match, choice, insert and load are one critical section
 * under the trie's lock, so that siblings on two loops see each other. Nothing in it waits. A
 * reload starts outside of it, and the match is made again when it is over.
 */
#include <assert.h>
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "json/json.h"
#include "proxy/backends.h"
#include "proxy/conn.h"
#include "proxy/disagg.h"
#include "proxy/ids.h"
#include "proxy/queue.h"

/* ---- Reloads ---- */

void reload_wait_send(struct reload_wait *wait)
{
    struct worker *worker = wait->worker;
    pthread_mutex_lock(&worker->mailbox_mutex);
    list_push_back(&worker->mailbox, &wait->link);
    /* Under the mutex: the worker closes its wake only after it has taken every wait. */
    net_wake_send(worker->wake);
    pthread_mutex_unlock(&worker->mailbox_mutex);
}

static void on_reloaded(void *user, enum hashtrie_status status)
{
    (void)status; /* Whatever it was: the match is made again with what is there now. */
    reload_wait_send(user);
}

void reload_wait_done(struct reload_wait *wait)
{
    struct request *request = wait->request;
    struct worker *worker = wait->worker;
    struct snapshot_answer *snapshot = wait->snapshot;
    mem_free(&worker->mem, wait, sizeof *wait);
    if (request == NULL) {
        mem_free(&worker->mem, snapshot, sizeof *snapshot);
    } else {
        request->reload = NULL;
        request->snapshot = snapshot;
        request->reload_over = true;
        request_tick(request);
    }
}

void request_forget_reload(struct request *request)
{
    if (request->reload != NULL) {
        request->reload->request = NULL;
        request->reload = NULL;
    }
}

static bool start_reload(struct request *request, size_t depth)
{
    struct worker *worker = request->worker;
    struct reload_wait *wait = mem_alloc(&worker->mem, sizeof *wait);
    if (wait == NULL) {
        return false;
    }
    *wait = (struct reload_wait){.worker = worker, .request = request};
    list_init(&wait->link);
    if (hashtrie_store_reload(worker->router->store, &request->key, depth, on_reloaded, wait) !=
        HASHTRIE_OK) {
        mem_free(&worker->mem, wait, sizeof *wait);
        return false;
    }
    request->reload = wait;
    request->reload_over = false;
    return true;
}

/* ---- The choice ---- */

/* Lock held. */
enum route_policy router_policy(const struct router *router)
{
    static_assert((int)CONFIG_PRIORITY == (int)ROUTE_PRIORITY &&
                      (int)CONFIG_PRIORITY + 1 == (int)ROUTE_POLICY_COUNT,
                  "both name the same policies in the same order");
    return disagg_is_on(router->config) ? ROUTE_PREFIXAWARE : (enum route_policy)router->routing;
}

/* Lock held. */
static bool uses_trie(const struct request *request)
{
    enum route_policy policy = router_policy(request->worker->router);
    return (policy == ROUTE_PREFIXAWARE || policy == ROUTE_LOADAWARE) && request->has_prompt &&
           request->key.count > 0;
}

/* --prefix-min-match-length: less counts as nothing. */
static uint64_t bytes_held(const struct router *router, size_t chunk_count)
{
    uint64_t bytes = (uint64_t)chunk_count * router->config->chunk_size;
    return bytes < router->config->prefix_min_match ? 0 : bytes;
}

/* Holders of the trie as the fleet knows them. */
static size_t collect_holders(const struct router *router, const struct hashtrie_match *match,
                              struct route_holder *holders)
{
    size_t count = 0;
    for (size_t i = 0; i < match->holder_count; i++) {
        hashtrie_endpoint number = match->holders[i].endpoint;
        if (number >= router->backend_of_holder_size ||
            router->backend_of_holder[number] == UINT16_MAX) {
            continue; /* Known from the store, but not configured now. */
        }
        holders[count++] =
            (struct route_holder){.endpoint = router->backend_of_holder[number],
                                  .bytes = bytes_held(router, match->holders[i].chunk_count)};
    }
    return count;
}

/* Lock held. The engine that the request names is there, and has not been tried. */
static bool pin_may_come(const struct request *request)
{
    const struct router *router = request->worker->router;
    const struct backend *backend = backend_by_id(router, request->pin);
    bool there = backend != NULL && request->excluded_count == 0;
    if (request->path_kind == PATH_SLEEP) {
        return there;
    }
    return there && route_serves(router->fleet, backend->number, request->model) &&
           route_endpoint_is_up(router->fleet, backend->number) &&
           !route_endpoint_is_asleep(router->fleet, backend->number);
}

/* Lock held. */
static bool pick_locked(struct request *request, const struct hashtrie_match *match)
{
    struct router *router = request->worker->router;
    struct route_holder holders[HASHTRIE_HOLDERS_MAX];
    const struct backend *pinned = NULL;
    if (request->pin.size > 0) {
        pinned = backend_by_id(router, request->pin);
        if (pinned == NULL) {
            return false;
        }
    }
    static_assert((int)HASHTRIE_HOLDERS_MAX <= (int)ROUTE_HOLDERS_MAX, "a match fits a query");
    struct route_query query = {
        .policy = router_policy(router),
        .model = request->model,
        .roles = disagg_roles(request),
        .received = disagg_decodes(request),
        .has_prompt = request->has_prompt,
        .prompt_bytes = request->prompt_bytes,
        .all_held_bytes = bytes_held(router, match->all_chunk_count),
        .holders = holders,
        .holder_count = collect_holders(router, match, holders),
        .excluded = request->excluded,
        .excluded_count = request->excluded_count,
        .chunk_bytes = router->config->chunk_size,
        .session = {.data = request->session, .size = request->session_size},
        .urgent = request->priority < (int64_t)router->config->priority_threshold,
        .pinned = pinned == NULL ? 0 : pinned->number + 1,
        .anyhow = request->path_kind == PATH_SLEEP,
        .beta = router->config->loadaware_beta,
        .now_ns = net_now_ns(),
    };
    request->policy = query.policy;
    return route_pick(router->fleet, &query, &request->choice);
}

/* Lock held. */
static void record_locked(struct request *request, uint64_t now_s)
{
    struct router *router = request->worker->router;
    size_t endpoint = request->choice.endpoint;
    router->admit.running += request->has_place ? 0 : 1;
    request->has_place = true;
    route_request_sent(router->fleet, endpoint, request->choice.uncached_bytes,
                       request->prompt_bytes);
    if (disagg_decodes(request)) {
        route_request_prefilled(router->fleet, endpoint, request->choice.uncached_bytes);
    }
    request->queued_bytes = route_endpoint_load(router->fleet, endpoint).queued_bytes;
    CHECK(!request->holds_choice);
    backend_hold(router->backends[endpoint]);
    request->holds_choice = true;
    uint64_t now_ns = net_now_ns();
    recent_add(&router->backends[endpoint]->recent, router->config->request_stats_window_ns, now_ns,
               &(struct recent_sums){.arrivals = 1});
    if (request->excluded_count == 0) {
        budget_add_request(&router->retry_budget, now_ns / CLOCK_NS_PER_S);
    }
    if (uses_trie(request)) {
        /* Full, or no memory: counted by the trie, and the request goes its way all the same. */
        enum hashtrie_status status =
            hashtrie_insert(router->trie, &request->key, router->backends[endpoint]->holder, now_s);
        (void)status;
    }
    request->prefill_ns = route_prefill_ns(router->fleet, endpoint);
}

bool request_take_place(struct request *request)
{
    struct router *router = request->worker->router;
    struct hashtrie_match match = {0};
    uint64_t now_s = net_unix_ns() / CLOCK_NS_PER_S;
    if (uses_trie(request)) {
        hashtrie_match(router->trie, &request->key, now_s, &match);
    }
    if (!pick_locked(request, &match)) {
        return false;
    }
    record_locked(request, now_s);
    return true;
}

/* Lock held. Those that wait for the model come first, save for one that was tried before, or that
 * has its place already. */
static enum pick_result choose_locked(struct request *request, const struct hashtrie_match *match,
                                      uint64_t now_s)
{
    struct router *router = request->worker->router;
    bool tried = request->excluded_count > 0 || request->has_place;
    if (!disagg_can_go_on(request) || (request->pin.size > 0 && !pin_may_come(request))) {
        return PICK_NOBODY;
    }
    if ((request->has_place || admit_has_room(&router->admit)) &&
        (tried || !admit_is_waited_for(&router->admit, request->model)) &&
        pick_locked(request, match)) {
        record_locked(request, now_s);
        return PICK_CHOSEN;
    }
    if (!route_has_other(router->fleet, request->model, disagg_roles(request), request->excluded,
                         request->excluded_count)) {
        return PICK_NOBODY;
    }
    return queue_join(request) ? PICK_QUEUED : PICK_REFUSED;
}

/* The first byte of its answer comes once its prompt is computed, not with the last one. */
static bool answers_when_prefilled(const struct request *request)
{
    return request->stream || disagg_prefills(request);
}

static bool is_first_choice(struct request *request)
{
    return request->disagg != NULL ? disagg_is_first_choice(request) : request->excluded_count == 0;
}

static void count_choice(struct request *request)
{
    struct stats *stats = &request->worker->stats;
    if (disagg_decodes(request)) {
        stats_add(&stats->decode_outcomes[request->choice.outcome], 1);
        return;
    }
    stats_add(&stats->outcomes[request->policy][request->choice.outcome], 1);
    stats_add(&stats->prompt_bytes, request->prompt_bytes);
    stats_add(&stats->matched_bytes, request->choice.held_bytes);
    if (request->series != NULL) {
        stats_add(&request->series->outcomes[request->choice.outcome], 1);
    }
    uint64_t routing_ns = net_now_ns() - request->routing_ns - request->waited_ns;
    metrics_histogram_observe(&stats->route_seconds, (double)routing_ns / (double)CLOCK_NS_PER_S);
}

static void log_choice(struct request *request)
{
    if (request->worker->log.level < LOG_INFO) {
        return;
    }
    uint64_t unix_ns = net_unix_ns();
    double seconds = (double)(net_now_ns() - request->begin_ns) / (double)CLOCK_NS_PER_S;
    char session[REQUEST_LOG_ID_BYTES + 1] = "None";
    if (request->session != NULL) {
        request_log_word((struct span){.data = request->session, .size = request->session_size},
                         session);
    }
    log_write(&request->worker->log, LOG_INFO,
              "Routing request %s with session id %s to %s at %llu.%06llu, process time = %.4f",
              request->log_id, session,
              request->worker->router->backends[request->choice.endpoint]->url,
              (unsigned long long)(unix_ns / CLOCK_NS_PER_S),
              (unsigned long long)(unix_ns % CLOCK_NS_PER_S / CLOCK_NS_PER_US), seconds);
}

void request_find_series(struct request *request)
{
    struct worker *worker = request->worker;
    const struct backend *backend = worker->router->backends[request->choice.endpoint];
    request->series = backend_series(worker, backend_pair(backend, request->model));
}

void request_on_chosen(struct request *request)
{
    struct worker *worker = request->worker;
    request->charged = true;
    request->prefilled = disagg_decodes(request);
    request_find_series(request);
    request->routed = true;
    if (!answers_when_prefilled(request) && !request->prefilled && request->prefill_ns > 0) {
        net_timer_start(request->prefill, request->prefill_ns);
    }
    if (is_first_choice(request)) {
        count_choice(request);
        log_choice(request);
    } else {
        log_write(&worker->log, LOG_INFO, "Request %s: trying %s instead", request->log_id,
                  worker->router->backends[request->choice.endpoint]->url);
    }
}

enum pick_result request_pick(struct request *request)
{
    struct router *router = request->worker->router;
    struct hashtrie_match match = {0};
    uint64_t now_s = net_unix_ns() / CLOCK_NS_PER_S;
    bool may_reload = router->store != NULL && request->reload_count < REQUEST_RELOADS_MAX;

    hashtrie_lock(router->trie);
    if (uses_trie(request)) {
        hashtrie_match(router->trie, &request->key, now_s, &match);
        if (may_reload && match.chunk_count < request->key.count &&
            hashtrie_store_may_have(router->store, &request->key, match.chunk_count)) {
            hashtrie_unlock(router->trie);
            request->reload_count++;
            if (start_reload(request, match.chunk_count)) {
                return PICK_RELOADING;
            }
            request->reload_count = REQUEST_RELOADS_MAX; /* The store is busy: not now. */
            hashtrie_lock(router->trie);
            hashtrie_match(router->trie, &request->key, now_s, &match);
        }
    }
    enum pick_result result = choose_locked(request, &match, now_s);
    hashtrie_unlock(router->trie);
    if (result == PICK_CHOSEN) {
        request_on_chosen(request);
    }
    return result;
}

/* ---- Load ---- */

void request_load_prefilled(struct request *request)
{
    struct router *router = request->worker->router;
    if (!request->charged || request->prefilled) {
        return;
    }
    request->prefilled = true;
    hashtrie_lock(router->trie);
    route_request_prefilled(router->fleet, request->choice.endpoint,
                            request->choice.uncached_bytes);
    hashtrie_unlock(router->trie);
}

/* Lock held. */
static void take_load_off(const struct request *request)
{
    struct router *router = request->worker->router;
    size_t endpoint = request->choice.endpoint;
    uint64_t now_ns = net_now_ns();
    if (request->complete && request->sm.now == REQUEST_RELAYING) {
        const struct meter *meter = &request->meter;
        struct recent_sums sums = {.ended = 1,
                                   .latency_us = (now_ns - request->begin_ns) / CLOCK_NS_PER_US,
                                   .streams = meter->first_ns > 0 ? 1 : 0,
                                   .gaps = meter->gap_count,
                                   .stream_us =
                                       (meter->last_ns - meter->first_ns) / CLOCK_NS_PER_US};
        recent_add(&router->backends[endpoint]->recent, router->config->request_stats_window_ns,
                   now_ns, &sums);
    }
    if (!request->prefilled) {
        route_request_prefilled(router->fleet, endpoint, request->choice.uncached_bytes);
    }
    route_request_ended(router->fleet, endpoint, request->prompt_bytes);
}

/* `keeps_place`: of --max-requests, for it goes on to another engine. */
static void end_load(struct request *request, bool keeps_place)
{
    struct router *router = request->worker->router;
    if (request->queued || (!request->charged && (keeps_place || !request->has_place))) {
        return; /* Queued: queue_forget() comes first. */
    }
    net_timer_stop(request->prefill);
    hashtrie_lock(router->trie);
    if (request->charged) {
        take_load_off(request);
    }
    if (!keeps_place) {
        CHECK(request->has_place && router->admit.running > 0);
        router->admit.running--;
        request->has_place = false;
    }
    queue_grant(router, request->choice.endpoint);
    hashtrie_unlock(router->trie);
    request->charged = false;
    request->prefilled = true;
}

void request_load_ended(struct request *request)
{
    end_load(request, false);
}

void request_load_moved(struct request *request)
{
    end_load(request, true);
}

void request_let_go_choice(struct request *request)
{
    if (request->holds_choice) {
        backend_let_go(request->worker->router->backends[request->choice.endpoint]);
        request->holds_choice = false;
    }
}

void request_let_go(struct request *request)
{
    struct backend *const *backends = request->worker->router->backends;
    request_let_go_choice(request);
    for (size_t i = 0; i < request->excluded_count; i++) {
        backend_let_go(backends[request->excluded[i]]);
    }
    request->excluded_count = 0;
}

void request_first_byte(struct request *request)
{
    struct router *router = request->worker->router;
    size_t endpoint = request->choice.endpoint;
    bool waited_for = request->charged && !request->prefilled;
    uint64_t elapsed_ns = net_now_ns() - request->sent_ns;
    hashtrie_lock(router->trie);
    bool is_back = !request->blamed && route_endpoint_answered(router->fleet, endpoint);
    if (is_back) {
        route_endpoint_warm_up(router->fleet, endpoint, net_now_ns());
        queue_grant_all(router);
    }
    if (waited_for) {
        request->prefilled = true;
        route_request_prefilled(router->fleet, endpoint, request->choice.uncached_bytes);
    }
    if (waited_for && answers_when_prefilled(request) && request->status == 200) {
        route_learn_prefill(router->fleet, endpoint, request->queued_bytes, elapsed_ns);
    }
    hashtrie_unlock(router->trie);
    if (waited_for) {
        net_timer_stop(request->prefill);
    }
    if (is_back) {
        log_write(&request->worker->log, LOG_INFO, "Engine %s answers again",
                  router->backends[endpoint]->url);
    }
}
