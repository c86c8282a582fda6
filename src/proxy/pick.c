/*
 * What a request is about, and which engine gets it.
 *
 * JSON and hashing happen outside the lock; match, choice, insert and load are one critical section
 * under the trie's lock, so that siblings on two loops see each other. Nothing in it waits. A
 * reload starts outside of it, and the match is made again when it is over.
 */
#include <assert.h>
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "json/json.h"
#include "proxy/conn.h"
#include "proxy/request.h"

enum {
    /* Key bytes come from body bytes; a list of one-digit token ids doubles them, empty messages
     * may do worse. What passes this is not hashed. */
    KEY_BYTES_PER_BODY_BYTE = 4,
    HASHES_SPARE = 64,
    HASHES_KEPT = 128 * 1024,          /* A scratch larger than this is given back. */
    NAMESPACE_BYTES_MAX = 1024 * 1024, /* Model, adapter, salt. */
    ALIAS_GROWTH_MAX = 64 * 1024,      /* A body may grow so much by the real model's name. */
};

/* ---- What it is about ---- */

static void sink_hasher(void *user, const void *bytes, size_t size)
{
    hashtrie_hasher_update(user, bytes, size);
}

static void sink_buf(void *user, const void *bytes, size_t size)
{
    struct buf *out = user;
    if (!buf_append(out, bytes, size)) {
        out->size_max = 0; /* Remembered: nothing fits any more. */
    }
}

static bool hash_namespace(struct request *request, const struct prompt *prompt, struct span model)
{
    struct buf bytes;
    buf_init(&bytes, &request->worker->mem, NAMESPACE_BYTES_MAX);
    enum prompt_status status = prompt_namespace(prompt, model, sink_buf, &bytes);
    bool complete = status == PROMPT_OK && bytes.size_max > 0;
    if (complete) {
        request->key.namespace_hash = hashtrie_hash_namespace(bytes.data, bytes.size);
    }
    buf_fini(&bytes);
    return complete;
}

/* Room for `count` hashes in the worker's scratch. */
static bool reserve_hashes(struct worker *worker, size_t count)
{
    if (worker->hash_capacity >= count) {
        return true;
    }
    mem_free(&worker->mem, worker->hashes, worker->hash_capacity * sizeof *worker->hashes);
    worker->hash_capacity = 0;
    worker->hashes = mem_alloc(&worker->mem, count * sizeof *worker->hashes);
    if (worker->hashes == NULL) {
        return false;
    }
    worker->hash_capacity = count;
    return true;
}

static void trim_hashes(struct worker *worker)
{
    if (worker->hash_capacity > HASHES_KEPT) {
        mem_free(&worker->mem, worker->hashes, worker->hash_capacity * sizeof *worker->hashes);
        worker->hashes = NULL;
        worker->hash_capacity = 0;
    }
}

static bool hash_key(struct request *request, const struct prompt *prompt)
{
    struct worker *worker = request->worker;
    size_t chunk_size = worker->router->config->chunk_size;
    size_t count_max =
        request->body.size * KEY_BYTES_PER_BODY_BYTE / chunk_size + (size_t)HASHES_SPARE;
    count_max = count_max < HASHTRIE_CHUNK_COUNT_MAX ? count_max : HASHTRIE_CHUNK_COUNT_MAX;
    if (!reserve_hashes(worker, count_max)) {
        return false;
    }
    struct hashtrie_hasher hasher;
    hashtrie_hasher_init(&hasher, request->key.namespace_hash, chunk_size, worker->hashes,
                         count_max);
    if (prompt_key(prompt, sink_hasher, &hasher) != PROMPT_OK) {
        return false;
    }
    request->prompt_bytes = hasher.bytes;
    if (hasher.count == 0) {
        return true;
    }
    uint64_t *hashes = mem_alloc(&worker->mem, hasher.count * sizeof *hashes);
    if (hashes == NULL) {
        return false;
    }
    memcpy(hashes, worker->hashes, hasher.count * sizeof *hashes);
    request->hashes = hashes;
    request->key.hashes = hashes;
    request->key.count = hasher.count;
    return true;
}

/* The body again with another model name in every place of the old one. */
static bool splice_model(struct request *request, const struct prompt *prompt, struct span model)
{
    struct buf body;
    struct buf *old = &request->body;
    buf_init(&body, &request->worker->mem, old->size_max + (size_t)ALIAS_GROWTH_MAX);
    size_t done = 0;
    bool complete = buf_reserve(&body, old->size);
    for (size_t i = 0; i < prompt->model_place_count && complete; i++) {
        const struct prompt_place *place = &prompt->model_places[i];
        CHECK(place->offset >= done && place->offset + place->size <= old->size);
        complete = buf_append(&body, old->data + done, place->offset - done) &&
                   json_append_string(&body, model);
        done = place->offset + place->size;
    }
    complete = complete && buf_append(&body, old->data + done, old->size - done);
    if (!complete) {
        buf_fini(&body);
        return false;
    }
    buf_fini(old);
    body.size_max = old->size_max > body.size ? old->size_max : body.size;
    *old = body;
    return true;
}

static void refuse_body(struct request *request, enum prompt_status status)
{
    switch (status) {
    case PROMPT_NOT_OBJECT:
        answer_error(request, 400, "Invalid request: request body must be a JSON object.");
        break;
    case PROMPT_NO_MODEL:
        answer_error(request, 400, "Invalid request: missing 'model' in request body.");
        break;
    case PROMPT_NO_MEMORY:
        answer_error(request, 503, "Out of memory.");
        break;
    case PROMPT_OK:
    case PROMPT_NOT_JSON:
    case PROMPT_TOO_DEEP:
    default:
        answer_error(request, 400, "Invalid request: request body must be valid JSON.");
        break;
    }
}

/* Finds the model in the fleet. False: answered. */
static bool find_model(struct request *request, struct span model)
{
    struct worker *worker = request->worker;
    const struct route_fleet *fleet = worker->router->fleet;
    int found = route_model_find(fleet, model.data, model.size);
    if (found < 0) {
        found = route_model_find(fleet, "", 0); /* Backends that serve whatever is asked for. */
    }
    struct stats *stats = &worker->stats;
    stats_add(&stats->incoming[found < 0 ? stats->incoming_count - 1 : (size_t)found], 1);
    if (found < 0) {
        int size = model.size < 256 ? (int)model.size : 256;
        answer_error(request, 404,
                     "Model '%.*s' not found. Available models can be listed at /v1/models.", size,
                     model.data);
        return false;
    }
    request->model = (size_t)found;
    return true;
}

static bool take_prompt(struct request *request, const struct prompt *prompt)
{
    bool is_alias = false;
    struct span model = router_canonical_model(request->worker->router, prompt->model, &is_alias);
    request->stream = prompt->stream;
    request->has_prompt = prompt->has_prompt;
    if (!find_model(request, model)) {
        return false;
    }
    bool hashed = hash_namespace(request, prompt, model) &&
                  (!prompt->has_prompt || hash_key(request, prompt));
    bool spliced = !is_alias || splice_model(request, prompt, model);
    if (!spliced) {
        answer_error(request, 503, "Out of memory.");
        return false;
    }
    if (!hashed) {
        request->has_prompt = false; /* Still served, by load. */
    }
    return true;
}

bool request_read_prompt(struct request *request)
{
    struct worker *worker = request->worker;
    struct prompt prompt;
    enum prompt_status status =
        prompt_read(worker->reader, request->body.data, request->body.size, &prompt);
    bool taken = false;
    if (status == PROMPT_OK && prompt.model.size == 0) {
        status = PROMPT_NO_MODEL;
    }
    if (status == PROMPT_OK) {
        taken = take_prompt(request, &prompt);
    } else {
        refuse_body(request, status);
    }
    prompt_release(worker->reader);
    trim_hashes(worker);
    return taken;
}

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

static bool uses_trie(const struct request *request)
{
    return request->worker->router->config->routing == CONFIG_PREFIXAWARE && request->has_prompt &&
           request->key.count > 0;
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
        holders[count++] = (struct route_holder){.endpoint = router->backend_of_holder[number],
                                                 .bytes = (uint64_t)match->holders[i].chunk_count *
                                                          router->config->chunk_size};
    }
    return count;
}

/* Lock held. */
static bool pick_locked(struct request *request, const struct hashtrie_match *match)
{
    struct router *router = request->worker->router;
    struct route_holder holders[HASHTRIE_HOLDERS_MAX];
    static_assert((int)HASHTRIE_HOLDERS_MAX <= (int)ROUTE_HOLDERS_MAX, "a match fits a query");
    struct route_query query = {
        .policy =
            router->config->routing == CONFIG_ROUNDROBIN ? ROUTE_ROUNDROBIN : ROUTE_PREFIXAWARE,
        .model = request->model,
        .has_prompt = request->has_prompt,
        .prompt_bytes = request->prompt_bytes,
        .all_held_bytes = (uint64_t)match->all_chunk_count * router->config->chunk_size,
        .holders = holders,
        .holder_count = collect_holders(router, match, holders),
        .excluded = request->excluded,
        .excluded_count = request->excluded_count,
        .chunk_bytes = router->config->chunk_size,
        .now_ns = net_now_ns(),
    };
    return route_pick(router->fleet, &query, &request->choice);
}

/* Lock held. Returns how long it will take to prefill; 0: unknown. */
static uint64_t record_locked(struct request *request, uint64_t now_s)
{
    struct router *router = request->worker->router;
    size_t endpoint = request->choice.endpoint;
    route_request_sent(router->fleet, endpoint, request->choice.uncached_bytes);
    request->queued_bytes = route_endpoint_load(router->fleet, endpoint).queued_bytes;
    arrivals_add(&router->arrivals[endpoint], now_s);
    if (request->excluded_count == 0) {
        budget_add_request(&router->retry_budget, net_now_ns() / CLOCK_NS_PER_S);
    }
    if (uses_trie(request)) {
        /* Full, or no memory: counted by the trie, and the request goes its way all the same. */
        enum hashtrie_status status =
            hashtrie_insert(router->trie, &request->key, router->backends[endpoint].holder, now_s);
        (void)status;
    }
    return route_prefill_ns(router->fleet, endpoint);
}

static void count_choice(struct request *request)
{
    struct stats *stats = &request->worker->stats;
    stats_add(&stats->outcomes[request->choice.outcome], 1);
    stats_add(&stats->prompt_bytes, request->prompt_bytes);
    stats_add(&stats->matched_bytes, request->choice.held_bytes);
}

static void log_choice(struct request *request, uint64_t unix_ns)
{
    double seconds = (double)(net_now_ns() - request->begin_ns) / (double)CLOCK_NS_PER_S;
    log_write(&request->worker->log, LOG_INFO,
              "Routing request %s with session id None to %s at %llu.%06llu, process time = %.4f",
              request->log_id, request->worker->router->backends[request->choice.endpoint].url,
              (unsigned long long)(unix_ns / CLOCK_NS_PER_S),
              (unsigned long long)(unix_ns % CLOCK_NS_PER_S / CLOCK_NS_PER_US), seconds);
}

static void after_choice(struct request *request, uint64_t unix_ns, uint64_t prefill_ns)
{
    struct worker *worker = request->worker;
    request->charged = true;
    request->prefilled = false;
    request->pair = router_pair(worker->router, request->choice.endpoint, request->model);
    request->routed = true;
    if (!request->stream && prefill_ns > 0) {
        net_timer_start(request->prefill, prefill_ns);
    }
    if (request->excluded_count == 0) {
        count_choice(request);
        log_choice(request, unix_ns);
        double seconds = (double)(net_now_ns() - request->routing_ns) / (double)CLOCK_NS_PER_S;
        metrics_histogram_observe(&worker->stats.route_seconds, seconds);
    } else {
        log_write(&worker->log, LOG_INFO, "Request %s: trying %s instead", request->log_id,
                  worker->router->backends[request->choice.endpoint].url);
    }
}

enum pick_result request_pick(struct request *request)
{
    struct router *router = request->worker->router;
    struct hashtrie_match match = {0};
    uint64_t unix_ns = net_unix_ns();
    uint64_t now_s = unix_ns / CLOCK_NS_PER_S;
    bool may_reload = router->store != NULL && request->reload_count < REQUEST_RELOADS_MAX;
    uint64_t prefill_ns = 0;

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
    bool chosen = pick_locked(request, &match);
    if (chosen) {
        prefill_ns = record_locked(request, now_s);
    }
    hashtrie_unlock(router->trie);
    if (!chosen) {
        return PICK_NOBODY;
    }
    after_choice(request, unix_ns, prefill_ns);
    return PICK_CHOSEN;
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

void request_load_ended(struct request *request)
{
    struct router *router = request->worker->router;
    if (!request->charged) {
        return;
    }
    request->charged = false;
    net_timer_stop(request->prefill);
    hashtrie_lock(router->trie);
    if (!request->prefilled) {
        route_request_prefilled(router->fleet, request->choice.endpoint,
                                request->choice.uncached_bytes);
    }
    route_request_ended(router->fleet, request->choice.endpoint);
    hashtrie_unlock(router->trie);
    request->prefilled = true;
}

void request_first_byte(struct request *request)
{
    struct router *router = request->worker->router;
    size_t endpoint = request->choice.endpoint;
    bool waited_for = request->charged && !request->prefilled;
    uint64_t elapsed_ns = net_now_ns() - request->sent_ns;
    hashtrie_lock(router->trie);
    bool is_back = !request->blamed && route_endpoint_answered(router->fleet, endpoint);
    if (waited_for) {
        request->prefilled = true;
        route_request_prefilled(router->fleet, endpoint, request->choice.uncached_bytes);
    }
    if (waited_for && request->stream && request->status == 200) {
        route_learn_prefill(router->fleet, endpoint, request->queued_bytes, elapsed_ns);
    }
    hashtrie_unlock(router->trie);
    if (waited_for) {
        net_timer_stop(request->prefill);
    }
    if (is_back) {
        log_write(&request->worker->log, LOG_INFO, "Engine %s answers again",
                  router->backends[endpoint].url);
    }
}
