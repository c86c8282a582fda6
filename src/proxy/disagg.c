#include "proxy/disagg.h"

#include "base/check.h"
#include "base/clock.h"
#include "proxy/backends.h"
#include "proxy/conn.h"
#include "proxy/upstream.h"

bool disagg_is_on(const struct config *config)
{
    return config->routing == CONFIG_DISAGGREGATED;
}

unsigned disagg_roles_of_label(const struct config *config, const char *label)
{
    unsigned roles = 0;
    if (label == NULL) {
        return ROUTE_PLAIN;
    }
    roles |= config_has_label(&config->prefill_labels, label) ? ROUTE_PREFILL : 0;
    roles |= config_has_label(&config->decode_labels, label) ? ROUTE_DECODE : 0;
    return roles == 0 ? ROUTE_PLAIN : roles;
}

/* ---- Begin and end ---- */

static bool is_generation(const struct request *request)
{
    struct span path = path_of(request->target);
    return span_is(path, "/v1/chat/completions") || span_is(path, "/v1/completions");
}

/* The model has engines that are there, and none is one of a pair. */
static bool is_served_plainly(const struct request *request)
{
    struct router *router = request->worker->router;
    hashtrie_lock(router->trie);
    bool plain =
        !route_has_other(router->fleet, request->model, ROUTE_PREFILL | ROUTE_DECODE, NULL, 0) &&
        route_has_other(router->fleet, request->model, ROUTE_PLAIN, NULL, 0);
    hashtrie_unlock(router->trie);
    return plain;
}

bool disagg_begin(struct request *request, const struct prompt *prompt)
{
    struct worker *worker = request->worker;
    if (!disagg_is_on(worker->router->config) || !is_generation(request) ||
        is_served_plainly(request)) {
        return true;
    }
    struct disagg *disagg = mem_alloc_zero(&worker->mem, sizeof *disagg);
    if (disagg == NULL) {
        answer_error(request, 503, "Out of memory.");
        return false;
    }
    handover_init(&disagg->handover, &worker->mem);
    buf_init(&disagg->answer, &worker->mem, HANDOVER_ANSWER_BYTES_MAX);
    request->disagg = disagg;
    if (!handover_read_body(&disagg->handover, prompt_json(prompt))) {
        answer_error(request, 400, "Invalid request: the same members are in it too often.");
        return false;
    }
    return true;
}

static void let_go_prefill(struct request *request)
{
    struct disagg *disagg = request->disagg;
    if (disagg->holds_prefill) {
        backend_let_go(request->worker->router->backends[disagg->prefill.endpoint]);
        disagg->holds_prefill = false;
    }
}

void disagg_free(struct request *request)
{
    struct disagg *disagg = request->disagg;
    if (disagg != NULL) {
        let_go_prefill(request);
        for (size_t i = 0; i < disagg->other_excluded_count; i++) {
            backend_let_go(request->worker->router->backends[disagg->other_excluded[i]]);
        }
        handover_fini(&disagg->handover);
        buf_fini(&disagg->answer);
        mem_free(&request->worker->mem, disagg, sizeof *disagg);
        request->disagg = NULL;
    }
}

/* ---- Choosing and sending ---- */

unsigned disagg_roles(const struct request *request)
{
    if (!disagg_is_on(request->worker->router->config)) {
        return 0;
    }
    if (request->disagg == NULL) {
        return ROUTE_DECODE | ROUTE_PLAIN;
    }
    return request->disagg->step == DISAGG_PREFILL ? ROUTE_PREFILL : ROUTE_DECODE;
}

bool disagg_can_go_on(const struct request *request)
{
    const struct disagg *disagg = request->disagg;
    return !disagg_prefills(request) ||
           route_has_other(request->worker->router->fleet, request->model, ROUTE_DECODE,
                           disagg->other_excluded, disagg->other_excluded_count);
}

bool disagg_is_first_choice(struct request *request)
{
    struct disagg *disagg = request->disagg;
    bool first = !disagg->chosen[disagg->step];
    disagg->chosen[disagg->step] = true;
    return first;
}

size_t disagg_failed_tries(const struct request *request)
{
    return request->excluded_count +
           (request->disagg != NULL ? request->disagg->other_excluded_count : 0);
}

size_t disagg_body(const struct request *request, struct span parts[HANDOVER_PARTS_MAX])
{
    if (request->disagg == NULL) {
        parts[0] = (struct span){.data = request->body.data, .size = request->body.size};
        return 1;
    }
    return disagg_prefills(request) ? handover_prefill_parts(&request->disagg->handover, parts)
                                    : handover_decode_parts(&request->disagg->handover, parts);
}

/* ---- The prefill engine's answer ---- */

bool disagg_collects(const struct request *request, unsigned status)
{
    return disagg_prefills(request) && status == 200;
}

void disagg_collect(struct request *request, struct span body)
{
    struct buf *answer = &request->disagg->answer;
    if (answer->size == 0) {
        uint64_t limit_ns = request->worker->router->config->idle_timeout_ns;
        net_timer_stop(request->timer);
        if (limit_ns > 0) {
            net_timer_start(request->timer, limit_ns); /* For all the rest: it is short. */
        }
    }
    if (body.size > answer->size_max - answer->size) {
        log_write(&request->worker->log, LOG_WARNING,
                  "Request %s: the answer to its prefill is larger than %d bytes", request->log_id,
                  HANDOVER_ANSWER_BYTES_MAX);
        request_fail_try(request, NET_INVALID);
    } else if (!buf_append(answer, body.data, body.size)) {
        request_fail_try(request, NET_NO_MEMORY);
    }
}

/* Engines of the other step that have failed are not tried there again. */
static void change_step(struct request *request, enum disagg_step step)
{
    struct disagg *disagg = request->disagg;
    uint32_t excluded[ROUTER_TRIES_MAX];
    size_t count = request->excluded_count;
    REQUIRE(disagg->step != step);
    memcpy(excluded, request->excluded, sizeof excluded);
    memcpy(request->excluded, disagg->other_excluded, sizeof excluded);
    memcpy(disagg->other_excluded, excluded, sizeof excluded);
    request->excluded_count = disagg->other_excluded_count;
    disagg->other_excluded_count = count;
    disagg->step = step;
}

/* The cache is there: on to decode. */
static void hand_over(struct request *request, bool has_params)
{
    struct worker *worker = request->worker;
    struct disagg *disagg = request->disagg;
    let_go_prefill(request);
    disagg->prefill = request->choice;
    disagg->holds_prefill = true; /* In place of request->holds_choice. */
    request->holds_choice = false;
    disagg->prefill_ns = net_now_ns() - request->sent_ns;
    disagg->sent = false;
    if (!has_params) {
        stats_add(&worker->stats.prefills_unused, 1);
        log_write(&worker->log, LOG_WARNING,
                  "Request %s: %s has prefilled and says nothing of where the KV cache is",
                  request->log_id, worker->router->backends[request->choice.endpoint]->url);
    }
    if (request->series != NULL) {
        metrics_histogram_observe(&request->series->success,
                                  (double)disagg->prefill_ns / (double)CLOCK_NS_PER_S);
    }
    request_first_byte(request);
    request_load_moved(request);
    request_drop_upstream(request, request->reusable);
    request_forget_try(request);
    change_step(request, DISAGG_DECODE);
    sm_move(&request->sm, REQUEST_ROUTING);
}

static void read_answer(struct request *request)
{
    struct disagg *disagg = request->disagg;
    const struct backend *backend = request->worker->router->backends[request->choice.endpoint];
    struct span answer = {.data = disagg->answer.data, .size = disagg->answer.size};
    enum handover_status status =
        handover_read_answer(&disagg->handover, answer, backend->address.host);
    buf_fini(&disagg->answer);
    switch (status) {
    case HANDOVER_OK:
    case HANDOVER_NONE:
        hand_over(request, status == HANDOVER_OK);
        break;
    case HANDOVER_INVALID:
        request_fail_try(request, NET_INVALID);
        break;
    case HANDOVER_NO_MEMORY:
    default:
        request_fail_try(request, NET_NO_MEMORY);
        break;
    }
}

enum step disagg_step_collecting(struct request *request)
{
    if (request->complete && !request->failed) {
        net_timer_stop(request->timer);
        read_answer(request);
        if (!request->failed) {
            return STEP_NEXT;
        }
    }
    if (request->failed) {
        buf_fini(&request->disagg->answer);
        request_next_try(request);
        return STEP_NEXT;
    }
    return STEP_SUSPEND;
}

/* ---- Failures ---- */

void disagg_decode_failed(struct request *request)
{
    if (disagg_decodes(request) && request->disagg->sent) {
        change_step(request, DISAGG_PREFILL);
    }
}

void disagg_prefill_again(struct request *request)
{
    const struct disagg *disagg = request->disagg;
    REQUIRE(disagg->holds_prefill);
    request_let_go_choice(request);
    request->choice = disagg->prefill; /* Should it end before the next choice. */
    request_find_series(request);
    change_step(request, DISAGG_PREFILL);
}

void disagg_answer_nobody(struct request *request)
{
    struct router *router = request->worker->router;
    hashtrie_lock(router->trie);
    bool has_prefill = route_has_other(router->fleet, request->model, ROUTE_PREFILL, NULL, 0);
    hashtrie_unlock(router->trie);
    answer_text(request, 503, "application/json",
                span_of(has_prefill ? "{\"detail\":\"DECODE_SERVICE_UNAVAILABLE: "
                                      "No decode endpoints discovered\"}"
                                    : "{\"detail\":\"PREFILL_SERVICE_UNAVAILABLE: "
                                      "No prefill endpoints discovered\"}"));
}
