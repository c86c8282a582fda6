#include "bench/sim/workload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { CAPACITY_FIRST = 1024 };

_Noreturn void sim_fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
    exit(1);
}

void *sim_alloc(size_t count, size_t size)
{
    void *memory = calloc(count == 0 ? 1 : count, size);
    if (memory == NULL) {
        sim_fail("memory", "there is not enough");
    }
    return memory;
}

void *sim_grow(void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity) {
        return items;
    }
    *capacity = *capacity == 0 ? CAPACITY_FIRST : *capacity * 2;
    void *grown = realloc(items, *capacity * size);
    if (grown == NULL) {
        sim_fail("memory", "there is not enough");
    }
    return grown;
}

void sim_workload_free(struct sim_workload *workload)
{
    free(workload->requests);
    free(workload->pieces);
    *workload = (struct sim_workload){0};
}

struct sim_request *sim_add_request(struct sim_workload *workload, uint64_t arrival_ns,
                                    uint32_t output_tokens)
{
    if (workload->request_count == SIM_REQUESTS_MAX) {
        sim_fail("workload", "more than 4 million requests");
    }
    workload->requests = sim_grow(workload->requests, workload->request_count,
                                  &workload->request_capacity, sizeof *workload->requests);
    struct sim_request *request = &workload->requests[workload->request_count++];
    *request = (struct sim_request){.arrival_ns = arrival_ns,
                                    .piece_first = workload->piece_count,
                                    .output_tokens = output_tokens > 0 ? output_tokens : 1,
                                    .session = SIM_NO_SESSION,
                                    .token_bytes = 4,
                                    .answer = sim_mix(workload->request_count) ^ UINT64_MAX};
    return request;
}

void sim_add_piece(struct sim_workload *workload, uint64_t id, uint32_t tokens)
{
    REQUIRE(workload->request_count > 0);
    struct sim_request *request = &workload->requests[workload->request_count - 1];
    workload->pieces = sim_grow(workload->pieces, workload->piece_count, &workload->piece_capacity,
                                sizeof *workload->pieces);
    workload->pieces[workload->piece_count++] = (struct sim_piece){.id = id, .tokens = tokens};
    request->piece_count++;
    request->prompt_tokens += tokens;
}

static int compare(const void *a, const void *b)
{
    const struct sim_request *left = a;
    const struct sim_request *right = b;
    if (left->arrival_ns != right->arrival_ns) {
        return left->arrival_ns < right->arrival_ns ? -1 : 1;
    }
    return left->piece_first < right->piece_first ? -1 : left->piece_first > right->piece_first;
}

void sim_sort(struct sim_workload *workload)
{
    if (workload->request_count > 0) {
        qsort(workload->requests, workload->request_count, sizeof *workload->requests, compare);
    }
}

uint64_t sim_mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* Where the chain stands. */
struct chain {
    uint64_t hash;
    uint32_t filled; /* Tokens of the unit that is not yet whole. */
    size_t count;
};

/* A unit's hash takes in, of each piece in it, where in the piece the unit ends. */
static void chain_piece(struct chain *chain, const struct sim_piece *piece, uint32_t unit_tokens,
                        uint64_t *hashes, size_t hash_count_max)
{
    uint32_t done = 0;
    while (done < piece->tokens && chain->count < hash_count_max) {
        uint32_t rest = piece->tokens - done;
        uint32_t room = unit_tokens - chain->filled;
        uint32_t taken = rest < room ? rest : room;
        done += taken;
        chain->filled += taken;
        chain->hash = sim_mix(chain->hash + piece->id + UINT64_C(0x9e3779b97f4a7c15) * done);
        if (chain->filled == unit_tokens) {
            hashes[chain->count++] = chain->hash;
            chain->filled = 0;
        }
    }
}

size_t sim_hash_units(const struct sim_workload *workload, const struct sim_request *request,
                      uint32_t unit_tokens, bool answered, uint64_t *hashes, size_t hash_count_max)
{
    REQUIRE(unit_tokens > 0);
    struct chain chain = {.hash = 1};
    for (uint32_t i = 0; i < request->piece_count; i++) {
        chain_piece(&chain, &workload->pieces[request->piece_first + i], unit_tokens, hashes,
                    hash_count_max);
    }
    if (answered) {
        struct sim_piece answer = {.id = request->answer, .tokens = request->output_tokens};
        chain_piece(&chain, &answer, unit_tokens, hashes, hash_count_max);
    }
    return chain.count;
}
