/*
 * What is sent, and when: requests in the order of their arrival, the same for every policy.
 *
 * A prompt is a sequence of pieces. A piece stands for the same tokens wherever it occurs, so two
 * prompts share the text of their common leading pieces. Hashes of blocks (engines) and of chunks
 * (router) are chained over the pieces; nobody needs the text.
 */
#ifndef HASHTRIE_BENCH_SIM_WORKLOAD_H
#define HASHTRIE_BENCH_SIM_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_NS_PER_S     UINT64_C(1000000000)
#define SIM_NO_SESSION   UINT32_MAX
#define SIM_REQUESTS_MAX 4000000U

struct sim_piece {
    uint64_t id;
    uint32_t tokens;
};

struct sim_request {
    uint64_t arrival_ns;
    size_t piece_first; /* In workload.pieces. */
    uint32_t piece_count;
    uint32_t prompt_tokens; /* Sum over its pieces. */
    uint32_t output_tokens; /* At least 1. */
    uint32_t session;       /* SIM_NO_SESSION: it has none. */
    uint64_t answer;        /* The id of its answer as a piece. */
    uint32_t token_bytes;   /* Bytes of prompt key that a token takes: 4, or 2 for CJK. */
};

struct sim_workload {
    struct sim_request *requests; /* Owned. */
    size_t request_count;
    size_t request_capacity;
    struct sim_piece *pieces; /* Owned. */
    size_t piece_count;
    size_t piece_capacity;
};

/* Ends the program with "PROGRAM: WHAT: WHY" on stderr. */
_Noreturn void sim_fail(const char *what, const char *why);
void *sim_alloc(size_t count, size_t size); /* Zeroed, never NULL. */
/* Room for one more item; doubles. */
void *sim_grow(void *items, size_t count, size_t *capacity, size_t size);

void sim_workload_free(struct sim_workload *workload);
/* Begins a request, without pieces yet, 4 bytes a token, no session. The next sim_add_piece() are
 * its prompt's. */
struct sim_request *sim_add_request(struct sim_workload *workload, uint64_t arrival_ns,
                                    uint32_t output_tokens);
/* To the request that was begun last. */
void sim_add_piece(struct sim_workload *workload, uint64_t id, uint32_t tokens);
/* Puts the requests in the order of their arrival; equal ones stay in order. To be called once. */
void sim_sort(struct sim_workload *workload);

/*
 * Chain hashes of the prompt's whole units of `unit_tokens`, and with `answered` of prompt and
 * answer together, at most hash_count_max; returns how many.
 */
size_t sim_hash_units(const struct sim_workload *workload, const struct sim_request *request,
                      uint32_t unit_tokens, bool answered, uint64_t *hashes, size_t hash_count_max);

uint64_t sim_mix(uint64_t value); /* A bijection that spreads bits (splitmix64's last step). */

#endif
