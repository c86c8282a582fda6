/*
 * Clients: one connection each, up to some requests on it.
 *
 *     start -> send piece by piece (waiting for answers, or ahead of them) -> read -> close
 *     at any moment: leave (FIN, reset or half-close), stop reading, stop sending
 */
#include "base/check.h"
#include "sim/scripts.h"

enum { PIECE_BYTES_MAX = 4096 };

#define CONTINUE_WAIT_NS (10 * CLOCK_NS_PER_S)

struct sim_weather sim_weather_of(struct sim *sim)
{
    static const size_t capacities[] = {300, 4096, 65536, 400000};
    struct sim_weather weather = sim->weather;
    weather.bytewise = sim->profile.bytewise && sim_chance(50);
    bool big = sim->profile.calm && sim->profile.body_max > capacities[1];
    weather.capacity = capacities[big ? 2 + sim_below(2) : sim_below(4)];
    weather.dark_after_ns =
        sim_chance(sim->profile.dark_percent) ? sim_between(0, 60 * CLOCK_NS_PER_S) : SIM_NEVER;
    return weather;
}

static bool is_last(const struct sim_client *client)
{
    return client->answering >= client->request_count;
}

static void finish(struct sim_client *client)
{
    client->over = true;
    sim_event_cancel(&client->start);
    sim_event_cancel(&client->send);
    sim_event_cancel(&client->read);
    sim_event_cancel(&client->leave);
}

/* ---- Sending ---- */

static struct sim_request *request_to_send(struct sim_client *client)
{
    if (client->sending >= client->request_count || client->last_answer || client->shut) {
        return NULL;
    }
    bool waits = !client->pipelines && client->sending > client->answering;
    return waits ? NULL : client->requests[client->sending];
}

static void plan_send(struct sim_client *client, uint64_t delay_ns)
{
    if (!client->over && !sim_event_is_planned(&client->send)) {
        sim_event_after(&client->send, delay_ns);
    }
}

static size_t piece_of(struct sim_client *client, const struct sim_request *request)
{
    size_t left = request->wire.size - request->size_sent;
    if (request->size_sent < request->head_size) {
        size_t head_left = request->head_size - request->size_sent;
        left = request->expects && !client->got_continue ? head_left : left;
    }
    size_t may = client->stops_sending_after == SIZE_MAX
                     ? SIZE_MAX
                     : client->stops_sending_after - client->bytes_sent;
    size_t piece = sim_chance(70) ? left : (size_t)sim_between(1, left + 1);
    return piece < may ? piece : may;
}

static void on_send(void *user)
{
    struct sim_client *client = user;
    struct sim_request *request = request_to_send(client);
    if (request == NULL || client->bytes_sent >= client->stops_sending_after) {
        return;
    }
    if (request->expects && !client->got_continue && request->size_sent == request->head_size) {
        bool waited_in_turn = client->sending == client->answering &&
                              net_now_ns() - client->turn_ns >= CONTINUE_WAIT_NS;
        if (client->sim->profile.calm && waited_in_turn && client->sim->signalled_ns == 0) {
            sim_fail("request %zu: is not told to go on", request->number);
        }
        client->got_continue = true; /* It has waited for long enough. */
    }
    size_t piece = piece_of(client, request);
    size_t taken = sim_pipe_send(sim_link_to(client->link, SIM_ROUTER),
                                 request->wire.data + request->size_sent, piece);
    request->size_sent += taken;
    client->bytes_sent += taken;
    if (request->size_sent == request->wire.size) {
        sim_trace("client %zu: request %zu is sent", client->link->number, request->number);
        client->sending++;
        client->got_continue = false;
        plan_send(client, sim_between(0, client->send_delay_ns + 1));
    } else if (taken == piece) {
        bool waits = request->expects && request->size_sent == request->head_size;
        plan_send(client, waits ? CONTINUE_WAIT_NS : sim_between(0, client->send_delay_ns + 1));
    } /* Else: once there is room. */
}

static void on_room(void *user)
{
    struct sim_client *client = user;
    struct sim_request *request = request_to_send(client);
    if (request == NULL) {
        return;
    }
    bool waits = request->expects && !client->got_continue;
    if (!waits || request->size_sent != request->head_size) {
        plan_send(client, 0);
    }
}

/* ---- Ends ---- */

static void leave(struct sim_client *client)
{
    client->sim->left += !is_last(client);
    if (sim_chance(40)) {
        sim_link_close(client->link, SIM_SCRIPT);
    } else if (sim_chance(60)) {
        sim_link_reset(client->link, SIM_SCRIPT);
    } else {
        sim_trace("client %zu: half-closes", client->link->number);
        client->shut = true;
        sim_link_shutdown(client->link, SIM_SCRIPT);
        return; /* And reads on. */
    }
    finish(client);
}

static void on_leave(void *user)
{
    struct sim_client *client = user;
    if (client->link == NULL) { /* It has not even come. */
        finish(client);
        return;
    }
    if (client->last_answer && client->sim->profile.calm && client->sim->signalled_ns == 0) {
        sim_fail("client %zu: was told that its connection ends, and it does not",
                 client->link->number);
    }
    if (client->shut) {
        sim_link_close(client->link, SIM_SCRIPT);
        finish(client);
        return;
    }
    leave(client);
    if (!client->over) {
        sim_event_after(&client->leave, 200 * CLOCK_NS_PER_S);
    }
}

/* The connection has ended from the other side. */
static void end(struct sim_client *client, bool in_order)
{
    if (!is_last(client) && !client->last_answer) {
        struct sim_request *request = client->requests[client->answering];
        if (request->answered && in_order && client->answer.until_end) {
            sim_check_answer(client->sim, request, &client->answer, true);
        } else if (request->size_sent > 0) {
            sim_check_cut(client->sim, client, request);
        }
    }
    sim_link_close(client->link, SIM_SCRIPT);
    finish(client);
}

static void on_reset(void *user)
{
    end(user, false);
}

/* ---- Reading ---- */

static void plan_read(struct sim_client *client)
{
    bool stopped = client->bytes_read >= client->stops_reading_after;
    if (!client->over && !stopped && !sim_event_is_planned(&client->read)) {
        sim_event_after(&client->read, sim_between(0, client->read_delay_ns + 1));
    }
}

static void next_request(struct sim_client *client, const struct sim_request *request)
{
    client->answering++;
    client->turn_ns = net_now_ns();
    client->last_answer = client->answer.close || request->kind == SIM_MALFORMED;
    sim_message_reset(&client->answer,
                      !is_last(client) && client->requests[client->answering]->to_head);
    if (client->last_answer && client->sim->profile.calm) {
        sim_event_after(&client->leave, CLOCK_NS_PER_S); /* It ends before: see on_leave(). */
    } else if (is_last(client)) {
        bool stays = sim_chance(20); /* Until the router has had enough of it. */
        sim_event_after(&client->leave,
                        stays ? 1000 * CLOCK_NS_PER_S : sim_between(0, 5 * CLOCK_NS_PER_S));
    } else {
        plan_send(client, 0);
    }
}

/* One answer, or a part of it. Returns what is used up. */
static size_t take(struct sim_client *client, const char *bytes, size_t size)
{
    struct sim_request *request = is_last(client) ? NULL : client->requests[client->answering];
    if (client->last_answer && client->sim->profile.faults) {
        return size; /* No memory for a head: a HEAD is not known then, and gets a body. */
    }
    if (request == NULL || request->size_sent == 0 || client->last_answer) {
        sim_fail("client %zu: gets bytes it has not asked for: %.*s", client->link->number,
                 (int)(size < 200 ? size : 200), bytes);
    }
    size_t used = sim_message_read(&client->answer, bytes, size);
    if (client->answer.part == SIM_BROKEN) {
        sim_fail("request %zu: its answer is no HTTP", request->number);
    }
    if (!sim_message_has_head(&client->answer)) {
        return used;
    }
    if (client->answer.status / 100 == 1) {
        if (client->answer.status != 100 || !request->expects || request->answered) {
            sim_fail("request %zu: gets %u", request->number, client->answer.status);
        }
        client->got_continue = true;
        sim_message_reset(&client->answer, request->to_head);
        sim_event_cancel(&client->send);
        plan_send(client, 0);
        return used;
    }
    sim_check_answer(client->sim, request, &client->answer, false);
    if (request->over) {
        next_request(client, request);
    }
    return used;
}

static size_t read_piece(struct sim_client *client)
{
    char piece[PIECE_BYTES_MAX];
    struct sim_pipe *pipe = sim_link_to(client->link, SIM_SCRIPT);
    struct span arrived = sim_pipe_peek(pipe);
    size_t size = arrived.size < client->read_size ? arrived.size : client->read_size;
    size = size < sizeof piece ? size : sizeof piece;
    memcpy(piece, arrived.data, size);
    sim_pipe_drop(pipe, size);
    for (size_t used = 0; used < size;) {
        used += take(client, piece + used, size - used);
    }
    client->bytes_read += size;
    return size;
}

static void on_read(void *user)
{
    struct sim_client *client = user;
    struct sim_pipe *pipe = sim_link_to(client->link, SIM_SCRIPT);
    bool fast = client->read_delay_ns == 0;
    while (!client->over && pipe->arrived > 0) {
        (void)read_piece(client);
        if (client->bytes_read >= client->leave_after) {
            client->leave_after = UINT64_MAX;
            on_leave(client);
        }
        if (!fast || client->bytes_read >= client->stops_reading_after) {
            break;
        }
    }
    if (client->over) {
        return;
    }
    if (sim_pipe_at_end(pipe)) {
        end(client, true);
    } else if (pipe->arrived > 0) {
        plan_read(client);
    }
}

static void on_bytes(void *user)
{
    plan_read(user);
}

static const struct sim_script script = {
    .on_bytes = on_bytes, .on_reset = on_reset, .on_room = on_room};

/* ---- Life ---- */

static void on_start(void *user)
{
    struct sim_client *client = user;
    struct sim *sim = client->sim;
    struct sim_weather weather = sim_weather_of(sim);
    client->link = sim_link_new(&sim->links, "client", sim->link_count++, &weather);
    client->link->script = &script;
    client->link->user = client;
    sim_trace("client %zu: comes with %zu requests", client->link->number, client->request_count);
    if (!sim_net_knock(client->link)) {
        if (sim->signalled_ns == 0) {
            sim_fail("nobody listens");
        }
        client->link->open[SIM_ROUTER] = false;
        client->link->open[SIM_SCRIPT] = false;
        finish(client);
        return;
    }
    plan_send(client, 0);
}

static void misbehave(struct sim_client *client)
{
    const struct sim_profile *profile = &client->sim->profile;
    if (sim_chance(profile->leave_percent)) {
        if (sim_chance(50)) {
            client->leave_after = sim_between(1, 20000);
        } else {
            sim_event_after(&client->leave, sim_between(0, 100 * CLOCK_NS_PER_S));
        }
    }
    if (sim_chance(profile->slow_percent)) {
        client->read_delay_ns = sim_between(CLOCK_NS_PER_MS, 4 * CLOCK_NS_PER_S);
        client->read_size = (size_t)sim_between(1 + profile->answer_max / 400, PIECE_BYTES_MAX);
    }
    if (sim_chance(profile->slow_percent / 3)) {
        client->stops_reading_after = sim_between(0, 100000);
    }
    if (sim_chance(profile->slow_percent / 3)) {
        client->stops_sending_after = (size_t)sim_between(0, 3000);
    }
    if (sim_chance(profile->slow_percent)) {
        client->send_delay_ns = 10 * CLOCK_NS_PER_S;
    }
}

static void client_init(struct sim *sim, struct sim_client *client)
{
    *client = (struct sim_client){.sim = sim,
                                  .pipelines = sim_chance(30),
                                  .leave_after = UINT64_MAX,
                                  .stops_reading_after = UINT64_MAX,
                                  .stops_sending_after = SIZE_MAX,
                                  .read_size = PIECE_BYTES_MAX,
                                  .send_delay_ns = CLOCK_NS_PER_MS};
    sim_event_init(&client->start, on_start, client);
    sim_event_init(&client->send, on_send, client);
    sim_event_init(&client->read, on_read, client);
    sim_event_init(&client->leave, on_leave, client);
    sim_message_init(&client->answer, false);
    size_t count = 1 + sim_below(sim_chance(60) ? 1 : SIM_PER_CONNECTION_MAX);
    bool more = true;
    while (more && client->request_count < count && sim->request_count < SIM_REQUESTS_MAX) {
        struct sim_request *request = sim_request_new(sim);
        client->requests[client->request_count++] = request;
        more = request->kind != SIM_MALFORMED && request->keep_alive;
    }
    if (client->request_count == 0) {
        client->over = true;
        return;
    }
    sim_message_reset(&client->answer, client->requests[0]->to_head);
    misbehave(client);
    sim_event_after(&client->start, sim_between(0, 30 * CLOCK_NS_PER_S));
}

void sim_clients_begin(struct sim *sim)
{
    sim->client_count = 1 + sim_below(SIM_CLIENTS_MAX);
    for (size_t i = 0; i < sim->client_count; i++) {
        client_init(sim, &sim->clients[i]);
    }
}

void sim_clients_end(struct sim *sim)
{
    for (size_t i = 0; i < sim->client_count; i++) {
        finish(&sim->clients[i]);
        sim_message_fini(&sim->clients[i].answer);
    }
}

/* The router has closed, and it will never hear of that. */
static bool is_deaf(const struct sim_client *client)
{
    const struct sim_link *link = client->link;
    return link != NULL && !link->open[SIM_ROUTER] &&
           (link->dark || client->bytes_read >= client->stops_reading_after);
}

const struct sim_client *sim_client_not_over(const struct sim *sim)
{
    for (size_t i = 0; i < sim->client_count; i++) {
        if (!sim->clients[i].over && !is_deaf(&sim->clients[i])) {
            return &sim->clients[i];
        }
    }
    return NULL;
}
