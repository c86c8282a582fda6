/* What must hold between what clients sent, what engines got and said, and what clients got. */
#include "base/check.h"
#include "sim/scripts.h"

/* A status for which another engine may be asked although an answer has come. */
static bool is_turned_away(unsigned status)
{
    return status == 429 || (status >= 502 && status <= 504);
}

/* The router has had so much of this try's answer that it is the answer. */
static bool is_committed(const struct sim_try *try)
{
    return try->planned && !try->garbage && !is_turned_away(try->status) &&
           sim_link_to(try->link, SIM_ROUTER)->read >= try->commits_at;
}

/* ---- Tries ---- */

static void check_earlier(const struct sim *sim, const struct sim_request *request, size_t engine)
{
    size_t elsewhere = 1; /* Engines that have been asked, this one included. */
    size_t resends = 0;
    for (size_t i = 0; i < request->try_count; i++) {
        const struct sim_try *earlier = &sim->tries[request->tries[i]];
        const struct sim_pipe *pipe = sim_link_to(earlier->link, SIM_ROUTER);
        if (is_committed(earlier) && !sim->profile.faults) {
            sim_fail("request %zu: sent to another engine after try %zu was its answer",
                     request->number, earlier->number);
        }
        bool last_of_engine = i + 1 == request->try_count ||
                              sim->tries[request->tries[i + 1]].engine != earlier->engine;
        elsewhere += last_of_engine && (i + 1 < request->try_count || earlier->engine != engine);
        if (earlier->engine != engine) {
            continue;
        }
        resends++;
        if (!earlier->reused) {
            sim_fail("request %zu: sent to engine %zu again, whose connection was fresh",
                     request->number, engine);
        }
        if (pipe->read > earlier->begin) {
            sim_fail("request %zu: sent to engine %zu again, which had said something",
                     request->number, engine);
        }
    }
    if (elsewhere > sim->config.failover_attempts_max + 1 || resends > 4) {
        sim_fail("request %zu: tried at %zu engines, %zu times more at one", request->number,
                 elsewhere, resends);
    }
}

struct sim_try *sim_try_begin(struct sim *sim, struct sim_request *request, size_t engine,
                              struct sim_link *link, bool reused)
{
    if (request->kind != SIM_ASK) {
        sim_fail("request %zu is not for engines", request->number);
    }
    if (request->answered) {
        sim_fail("request %zu: sent to an engine after its answer had begun", request->number);
    }
    check_earlier(sim, request, engine);
    CHECK(sim->try_count < SIM_TRIES_MAX && request->try_count < SIM_TRIES_EACH_MAX);
    struct sim_try *try = &sim->tries[sim->try_count];
    *try = (struct sim_try){.number = sim->try_count++,
                            .request = request,
                            .engine = engine,
                            .link = link,
                            .reused = reused,
                            .begin = sim_link_to(link, SIM_ROUTER)->sent,
                            .commits_at = UINT64_MAX};
    sim_buf_init(&try->body);
    sim_buf_init(&try->trailer);
    sim->retried += request->try_count > 0;
    request->tries[request->try_count++] = try->number;
    sim_trace("engine %zu: gets request %zu as try %zu on link %zu%s", engine, request->number,
              try->number, link->number, reused ? ", kept from before" : "");
    return try;
}

/* ---- Answers ---- */

/* In calm weather a body alone that others wait for. */
static bool may_be_slow(const struct sim *sim)
{
    return !sim->profile.calm || sim->config.buffered_bytes_max < SIM_BUFFERED_AMPLE;
}

static bool has_limits(const struct sim *sim)
{
    return sim->config.requests_max > 0 || sim->config.backend_requests_max > 0;
}

static void check_own(struct sim *sim, const struct sim_request *request, unsigned status)
{
    bool excused = sim->profile.faults && status >= 500;
    bool fits = false;
    switch (request->kind) {
    case SIM_LOCAL:
        fits = status == request->status || (status == 408 && may_be_slow(sim)) ||
               (sim->signalled_ns != 0 && status == 503);
        break;
    case SIM_MALFORMED:
        fits = status >= 400;
        break;
    case SIM_ASK:
    default:
        sim->refused++;
        fits = (status == 408 && may_be_slow(sim)) || (status == 429 && has_limits(sim)) ||
               (is_turned_away(status) && (!sim->profile.calm || sim->signalled_ns != 0));
    }
    if (!fits && !excused) {
        sim_fail("request %zu: the router's own answer is %u", request->number, status);
    }
    for (size_t i = 0; i < request->try_count; i++) {
        if (is_committed(&sim->tries[request->tries[i]]) && !sim->profile.faults) {
            sim_fail("request %zu: %u by the router, though try %zu was its answer",
                     request->number, status, request->tries[i]);
        }
    }
}

/* It gets the answer of its last try, or, if that brought none, one that was turned away. */
static void check_later(const struct sim *sim, const struct sim_request *request,
                        const struct sim_try *try)
{
    size_t at = request->try_count - 1;
    while (request->tries[at] != try->number) {
        const struct sim_try *later = &sim->tries[request->tries[at--]];
        if (!is_turned_away(try->status) || (is_committed(later) && !sim->profile.faults)) {
            sim_fail("request %zu: gets the answer of try %zu, not that of try %zu",
                     request->number, try->number, later->number);
        }
    }
}

static void check_head(struct sim *sim, struct sim_request *request,
                       const struct sim_message *answer)
{
    uint64_t number = sim_message_number(answer, "x-sim-try", UINT64_MAX);
    request->answered = true;
    sim_trace("request %zu: answered %u%s", request->number, answer->status,
              number == UINT64_MAX ? " by the router" : "");
    if (number == UINT64_MAX) {
        check_own(sim, request, answer->status);
        return;
    }
    if (number >= sim->try_count || sim->tries[number].request != request) {
        sim_fail("request %zu: gets the answer of another request, try %llu", request->number,
                 (unsigned long long)number);
    }
    struct sim_try *try = &sim->tries[number];
    check_later(sim, request, try);
    if (answer->status != try->status || (!try->has_body && !try->early)) {
        sim_fail("request %zu: answered %u by try %zu, which was %s and said %u", request->number,
                 answer->status, try->number, try->has_body ? "sent in full" : "not sent in full",
                 try->status);
    }
    request->answer = try;
}

/* Behind what the engine said: the event of an answer that is cut. */
static void check_event(struct sim_request *request, const struct sim_message *answer, size_t from)
{
    static const char event[] = "event: error\ndata: {\"type\":\"error\",";
    const struct sim_try *try = request->answer;
    size_t size = answer->body.size - from;
    size = size < sizeof event - 1 ? size : sizeof event - 1;
    bool between = from >= 2 && memcmp(answer->body.data + from - 2, "\n\n", 2) == 0;
    if (!try->sse || !between || memcmp(answer->body.data + from, event, size) != 0) {
        sim_fail("request %zu: byte %zu of its answer's body is not what try %zu said",
                 request->number, from, try->number);
    }
    request->told_cut = true;
}

static void check_body(struct sim_request *request, const struct sim_message *answer)
{
    const struct buf *said = &request->answer->body;
    while (request->checked < answer->body.size && !request->told_cut) {
        size_t at = request->checked;
        if (at >= said->size || answer->body.data[at] != said->data[at]) {
            check_event(request, answer, at);
        } else {
            request->checked++;
        }
    }
}

static void check_whole(struct sim *sim, struct sim_request *request,
                        const struct sim_message *answer)
{
    const struct sim_try *try = request->answer;
    request->over = true;
    if (try == NULL) {
        return;
    }
    if (!try->whole || request->told_cut) {
        sim_fail("request %zu: its answer looks whole, but try %zu was cut", request->number,
                 try->number);
    }
    if (request->checked != try->body.size) {
        sim_fail("request %zu: its answer looks whole after %zu of %zu bytes of try %zu",
                 request->number, request->checked, try->body.size, try->number);
    }
    bool same = answer->trailer.size == try->trailer.size &&
                (try->trailer.size == 0 ||
                 memcmp(answer->trailer.data, try->trailer.data, try->trailer.size) == 0);
    if (try->trailer.size > 0 && answer->trailer.size > 0 && !same) {
        sim_fail("request %zu: its trailer is not what try %zu said", request->number, try->number);
    }
    sim->served++;
}

void sim_check_answer(struct sim *sim, struct sim_request *request,
                      const struct sim_message *answer, bool at_end)
{
    if (!request->answered) {
        check_head(sim, request, answer);
    }
    if (request->answer != NULL) {
        check_body(request, answer);
    }
    if (answer->part == SIM_WHOLE || (at_end && answer->until_end)) {
        check_whole(sim, request, answer);
    }
}

/* ---- Answers that are cut, or do not come ---- */

static bool network_is_to_blame(const struct sim *sim, const struct sim_client *client)
{
    return client->link->troubled || sim->signalled_ns != 0 || sim->profile.faults ||
           client->stops_reading_after != UINT64_MAX || client->stops_sending_after != SIZE_MAX ||
           client->send_delay_ns > CLOCK_NS_PER_S || client->shut;
}

void sim_check_cut(struct sim *sim, const struct sim_client *client, struct sim_request *request)
{
    const struct sim_try *try = request->answer;
    sim->cut += request->answered;
    sim_trace("request %zu: %s", request->number, request->answered ? "cut" : "not answered");
    if (sim->profile.calm && sim->signalled_ns == 0) {
        sim_fail("request %zu: %s", request->number, request->answered ? "cut" : "not answered");
    }
    if (network_is_to_blame(sim, client) || request->kind == SIM_MALFORMED ||
        request->size_sent < request->wire.size) {
        return;
    }
    bool was_reset = sim_link_to(client->link, SIM_SCRIPT)->reset;
    const struct sim_try *last =
        request->try_count == 0 ? NULL : &sim->tries[request->tries[request->try_count - 1]];
    bool was_cut = last != NULL && (!last->whole || sim_link_to(last->link, SIM_ROUTER)->reset);
    if (was_reset && (was_cut || client->pipelines)) {
        return; /* The reset, for it or for a later one, has overtaken what was on its way. */
    }
    if (!request->answered) {
        sim_fail("request %zu: its connection ended without an answer", request->number);
    }
    if (try == NULL) {
        sim_fail("request %zu: the router's own answer was cut", request->number);
    }
    if (try->whole && !try->link->troubled && !sim_link_to(try->link, SIM_ROUTER)->reset) {
        sim_fail("request %zu: cut, though try %zu was whole", request->number, try->number);
    }
}
