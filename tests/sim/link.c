#include "sim/link.h"

#include <string.h>

#include "base/check.h"

enum { COARSE_FROM_BYTES = 2048, PIECES_OF_A_BULK = 6, STALLS_MAX = 4 };

static void tell_script(struct sim_link *link, void (*callback)(void *user))
{
    if (link->open[SIM_SCRIPT] && callback != NULL) {
        callback(link->user);
    }
}

/* ---- Arrivals ---- */

static size_t in_flight(const struct sim_pipe *pipe)
{
    return pipe->bytes.size - pipe->begin - pipe->arrived;
}

static void plan_arrival(struct sim_pipe *pipe)
{
    struct sim_link *link = pipe->link;
    bool more = in_flight(pipe) > 0 || (pipe->fin && !pipe->fin_arrived);
    if (!more || link->dark || pipe->reset_arrived || sim_event_is_planned(&pipe->arrival)) {
        return;
    }
    uint64_t delay_ns = sim_between(0, link->weather.delay_ns + 1);
    if (link->stall_count < STALLS_MAX && sim_chance(link->weather.stall_percent)) {
        link->stall_count++;
        delay_ns = sim_between(CLOCK_NS_PER_MS, link->weather.stall_ns);
        link->troubled = link->troubled || delay_ns > CLOCK_NS_PER_S;
    }
    sim_event_after(&pipe->arrival, delay_ns);
}

static size_t piece_size(const struct sim_pipe *pipe)
{
    size_t left = in_flight(pipe);
    if (left > COARSE_FROM_BYTES) {
        return left / PIECES_OF_A_BULK + sim_below((uint32_t)(left / PIECES_OF_A_BULK));
    }
    if (pipe->link->weather.bytewise) {
        size_t most = left < 8 ? left : 8;
        return sim_chance(60) ? 1 : 1 + sim_below((uint32_t)most);
    }
    return sim_chance(70) ? left : 1 + sim_below((uint32_t)left);
}

/* Nobody is there to read: the sender is told. */
static void refuse_bytes(struct sim_pipe *pipe)
{
    pipe->begin = pipe->bytes.size;
    pipe->arrived = 0;
    sim_link_reset(pipe->link, pipe->reader);
}

static void on_arrival(void *user)
{
    struct sim_pipe *pipe = user;
    struct sim_link *link = pipe->link;
    if (link->dark || pipe->reset_arrived) {
        return;
    }
    if (in_flight(pipe) > 0) {
        pipe->arrived += piece_size(pipe);
    }
    if (pipe->fin && in_flight(pipe) == 0) {
        pipe->fin_arrived = sim_chance(70) || pipe->arrived == 0;
    }
    plan_arrival(pipe);
    if (!link->open[pipe->reader]) {
        if (pipe->arrived > 0) {
            refuse_bytes(pipe);
        }
    } else if (pipe->reader == SIM_SCRIPT) {
        tell_script(link, link->script->on_bytes);
    }
}

static void on_reset_arrival(void *user)
{
    struct sim_pipe *pipe = user;
    struct sim_link *link = pipe->link;
    if (link->dark) {
        return;
    }
    pipe->reset_arrived = true;
    pipe->bytes.size = pipe->begin + pipe->arrived;
    sim_event_cancel(&pipe->arrival);
    if (pipe->reader == SIM_SCRIPT) {
        tell_script(link, link->script->on_reset);
    }
}

/* ---- Life ---- */

/* Then keep-alive probes or retransmissions have been in vain for long enough. */
#define DARK_UNTIL_NOTICED_NS (900 * CLOCK_NS_PER_S)

static void on_darkness(void *user)
{
    struct sim_link *link = user;
    if (link->dark) {
        link->pipes[SIM_ROUTER].reset_arrived = true;
        return;
    }
    sim_event_after(&link->darkness, DARK_UNTIL_NOTICED_NS);
    sim_trace("%s %zu: the network loses it", link->kind, link->number);
    link->dark = true;
    link->troubled = true;
}

struct sim_link *sim_link_new(struct list *links, const char *kind, size_t number,
                              const struct sim_weather *weather)
{
    struct sim_link *link = sim_alloc(sizeof *link);
    link->kind = kind;
    link->garbage_from = UINT64_MAX;
    link->number = number;
    link->weather = *weather;
    link->open[SIM_ROUTER] = true;
    link->open[SIM_SCRIPT] = true;
    sim_event_init(&link->darkness, on_darkness, link);
    if (weather->dark_after_ns != SIM_NEVER) {
        sim_event_after(&link->darkness, weather->dark_after_ns);
    }
    for (size_t i = 0; i < 2; i++) {
        struct sim_pipe *pipe = &link->pipes[i];
        pipe->link = link;
        pipe->reader = (enum sim_side)i;
        pipe->capacity = weather->capacity;
        sim_buf_init(&pipe->bytes);
        sim_event_init(&pipe->arrival, on_arrival, pipe);
        sim_event_init(&pipe->reset_event, on_reset_arrival, pipe);
    }
    list_push_back(links, &link->all);
    return link;
}

void sim_link_free(struct sim_link *link)
{
    list_remove(&link->all);
    sim_event_cancel(&link->darkness);
    for (size_t i = 0; i < 2; i++) {
        sim_event_cancel(&link->pipes[i].arrival);
        sim_event_cancel(&link->pipes[i].reset_event);
        buf_fini(&link->pipes[i].bytes);
    }
    sim_free(link, sizeof *link);
}

/* ---- Bytes ---- */

size_t sim_pipe_unread(const struct sim_pipe *pipe)
{
    return pipe->bytes.size - pipe->begin;
}

size_t sim_pipe_room(const struct sim_pipe *pipe)
{
    size_t unread = sim_pipe_unread(pipe);
    return unread < pipe->capacity ? pipe->capacity - unread : 0;
}

size_t sim_pipe_send(struct sim_pipe *pipe, const char *bytes, size_t size)
{
    REQUIRE(!pipe->fin);
    size_t room = sim_pipe_room(pipe);
    size_t taken = size < room ? size : room;
    sim_append(&pipe->bytes, bytes, taken);
    pipe->sent += taken;
    plan_arrival(pipe);
    return taken;
}

struct span sim_pipe_peek(const struct sim_pipe *pipe)
{
    return (struct span){.data = pipe->bytes.data + pipe->begin, .size = pipe->arrived};
}

void sim_pipe_drop(struct sim_pipe *pipe, size_t size)
{
    REQUIRE(size <= pipe->arrived);
    pipe->begin += size;
    pipe->arrived -= size;
    pipe->read += size;
    if (pipe->begin > pipe->bytes.size / 2) {
        size_t left = pipe->bytes.size - pipe->begin;
        memmove(pipe->bytes.data, pipe->bytes.data + pipe->begin, left);
        pipe->bytes.size = left;
        pipe->begin = 0;
    }
    if (pipe->reader == SIM_ROUTER && size > 0) {
        tell_script(pipe->link, pipe->link->script->on_room);
    }
}

bool sim_pipe_at_end(const struct sim_pipe *pipe)
{
    return pipe->fin_arrived && pipe->arrived == 0;
}

/* ---- Ends ---- */

static struct sim_pipe *pipe_from(struct sim_link *link, enum sim_side side)
{
    return &link->pipes[side == SIM_ROUTER ? SIM_SCRIPT : SIM_ROUTER];
}

void sim_link_shutdown(struct sim_link *link, enum sim_side side)
{
    struct sim_pipe *out = pipe_from(link, side);
    if (!out->fin) {
        out->fin = true;
        plan_arrival(out);
    }
}

void sim_link_reset(struct sim_link *link, enum sim_side side)
{
    struct sim_pipe *out = pipe_from(link, side);
    link->open[side] = false;
    if (!out->reset) {
        out->reset = true;
        sim_trace("%s %zu: reset by the %s", link->kind, link->number,
                  side == SIM_ROUTER ? "router" : "script");
        sim_event_after(&out->reset_event, sim_between(0, link->weather.delay_ns + 1));
    }
}

void sim_link_close(struct sim_link *link, enum sim_side side)
{
    struct sim_pipe *in = &link->pipes[side];
    if (!link->open[side]) {
        return;
    }
    if (in->arrived > 0) { /* As Linux does it: what was not read is not thought to have come. */
        sim_link_reset(link, side);
        return;
    }
    sim_trace("%s %zu: closed by the %s", link->kind, link->number,
              side == SIM_ROUTER ? "router" : "script");
    link->open[side] = false;
    sim_link_shutdown(link, side);
}
