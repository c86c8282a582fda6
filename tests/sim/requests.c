/* What clients ask for. */
#include "base/check.h"
#include "sim/scripts.h"

void sim_fill(struct buf *out, uint64_t seed, size_t size)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    struct random random = {.state = seed};
    CHECK(buf_reserve(out, size));
    uint64_t bits = 0;
    for (size_t i = 0; i < size; i++) {
        bits = i % 8 == 0 ? random_next(&random) : bits >> 8;
        out->data[out->size++] = letters[bits & 63];
    }
}

static void make_json(struct sim *sim, struct sim_request *request)
{
    struct buf *body = &request->body;
    sim_print(body,
              "{\"model\":\"m\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"",
              request->stream ? "true" : "false");
    uint32_t beginning = sim_below(6); /* Prompts begin alike. */
    sim_fill(body, beginning, beginning < 3 ? 300 : 0);
    sim_fill(body, request->number + 1000, (size_t)sim_between(1, sim->profile.body_max));
    sim_print(body, "\"}],\"sim\":%zu}", request->number);
}

static void append_chunked(struct buf *wire, const struct buf *body)
{
    size_t done = 0;
    while (done < body->size) {
        size_t size = (size_t)sim_between(1, body->size - done + 1);
        size = size < 64 && body->size > 2048 ? body->size - done : size;
        sim_print(wire, "%zx%s\r\n", size, sim_chance(10) ? ";a=b" : "");
        sim_append(wire, body->data + done, size);
        sim_print(wire, "\r\n");
        done += size;
    }
    sim_print(wire, "0\r\n%s\r\n", sim_chance(20) ? "X-Trailer: 1\r\n" : "");
}

static void end_head(struct sim_request *request)
{
    const char *connection = request->keep_alive == !request->old ? ""
                             : request->keep_alive                ? "Connection: keep-alive\r\n"
                                                                  : "Connection: close\r\n";
    sim_print(&request->wire, "Host: router\r\nX-Sim: %zu\r\n%s", request->number, connection);
}

static void make_post(struct sim *sim, struct sim_request *request)
{
    struct buf *wire = &request->wire;
    bool chunked = !request->old && sim_chance(30);
    request->stream = sim_chance(50);
    request->expects = !request->old && sim_chance(10);
    make_json(sim, request);
    sim_print(wire, "POST /v1/%s HTTP/1.%d\r\n", sim_chance(80) ? "chat/completions" : "messages",
              request->old ? 0 : 1);
    end_head(request);
    sim_print(wire, "%s%s", sim_chance(50) ? "Content-Type: application/json\r\n" : "",
              request->expects ? "Expect: 100-continue\r\n" : "");
    if (chunked) {
        sim_print(wire, "Transfer-Encoding: chunked\r\n\r\n");
        request->head_size = wire->size;
        append_chunked(wire, &request->body);
    } else {
        sim_print(wire, "Content-Length: %zu\r\n\r\n", request->body.size);
        request->head_size = wire->size;
        sim_append(wire, request->body.data, request->body.size);
    }
}

static void make_bodyless(struct sim *sim, struct sim_request *request)
{
    struct buf *wire = &request->wire;
    bool any = sim->config.proxy_all_paths;
    request->to_head = any && sim_chance(60);
    sim_print(wire, "%s %s HTTP/1.%d\r\n", request->to_head ? "HEAD" : "GET",
              any ? "/some/page" : "/v1/audio/voices?model=m", request->old ? 0 : 1);
    end_head(request);
    sim_print(wire, "\r\n");
    request->head_size = wire->size;
}

static void make_local(struct sim_request *request)
{
    static const struct {
        const char *line;
        const char *body;
        unsigned status;
    } asked[] = {
        {"GET /health", "", 200},
        {"HEAD /health", "", 200},
        {"GET /version", "", 200},
        {"GET /metrics", "", 200},
        {"POST /health", "", 405},
        {"POST /v1/chat/completions", "{\"model\":\"m\"", 400},
        {"POST /v1/chat/completions", "{\"model\":\"other\"}", 404},
    };
    size_t chosen = sim_below((uint32_t)(sizeof asked / sizeof *asked));
    struct buf *wire = &request->wire;
    request->kind = SIM_LOCAL;
    request->status = asked[chosen].status;
    request->to_head = asked[chosen].line[0] == 'H';
    sim_print(wire, "%s HTTP/1.%d\r\n", asked[chosen].line, request->old ? 0 : 1);
    end_head(request);
    size_t size = strlen(asked[chosen].body);
    if (size > 0) {
        sim_print(wire, "Content-Length: %zu\r\n", size);
    }
    sim_print(wire, "\r\n");
    request->head_size = wire->size;
    sim_print(wire, "%s", asked[chosen].body);
}

static void make_malformed(struct sim_request *request)
{
    static const char *const texts[] = {
        "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n",
        "GET /health\r\n\r\n",
        "\x16\x03\x01\x02\x01 no HTTP at all \r\n\r\n",
        "GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
    };
    request->kind = SIM_MALFORMED;
    sim_print(&request->wire, "%s", texts[sim_below((uint32_t)(sizeof texts / sizeof *texts))]);
    request->head_size = request->wire.size;
}

struct sim_request *sim_request_new(struct sim *sim)
{
    struct sim_request *request = &sim->requests[sim->request_count];
    CHECK(sim->request_count < SIM_REQUESTS_MAX);
    *request = (struct sim_request){.number = sim->request_count++, .kind = SIM_ASK};
    sim_buf_init(&request->wire);
    sim_buf_init(&request->body);
    request->old = sim_chance(12);
    request->keep_alive = sim_chance(request->old ? 40 : 90);
    if (sim_chance(sim->profile.malformed_percent)) {
        make_malformed(request);
    } else if (sim_chance(10)) {
        make_local(request);
    } else if (sim_chance(15)) {
        make_bodyless(sim, request);
    } else {
        make_post(sim, request);
    }
    return request;
}

void sim_requests_end(struct sim *sim)
{
    for (size_t i = 0; i < sim->request_count; i++) {
        buf_fini(&sim->requests[i].wire);
        buf_fini(&sim->requests[i].body);
    }
    for (size_t i = 0; i < sim->try_count; i++) {
        buf_fini(&sim->tries[i].body);
        buf_fini(&sim->tries[i].trailer);
    }
}
