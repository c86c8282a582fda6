/*
 * An engine's KV cache: blocks of tokens, named by chained hashes, shared by the jobs that run and
 * kept after them until their room is needed, least recently used first; of one prompt's blocks the
 * last goes first, as in vLLM.
 */
#ifndef HASHTRIE_BENCH_SIM_BLOCKS_H
#define HASHTRIE_BENCH_SIM_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_blocks;

struct sim_blocks *sim_blocks_new(size_t block_count);
void sim_blocks_free(struct sim_blocks *blocks);  /* NULL is fine. */
void sim_blocks_clear(struct sim_blocks *blocks); /* The engine has restarted; nobody has any. */

/* How many of the leading blocks are there. Changes nothing. O(log count): since the last goes
 * first, what is there of a prompt has no holes. */
size_t sim_blocks_peek(const struct sim_blocks *blocks, const uint64_t *hashes, size_t count);

/*
 * Blocks for a job: those of the leading `match_max` hashes that are there, and new ones up to
 * `total`. False: not enough are free, nothing has changed. *matched: how many were there.
 */
bool sim_blocks_take(struct sim_blocks *blocks, const uint64_t *hashes, size_t match_max,
                     size_t total, uint32_t *out, size_t *matched);
/* The block now holds what `hash` says. Where another has the same, it stays without a name. */
void sim_blocks_name(struct sim_blocks *blocks, uint32_t block, uint64_t hash);
/* Gives a job's blocks back, the first being the most recently used afterwards. */
void sim_blocks_release(struct sim_blocks *blocks, const uint32_t *taken, size_t count);

size_t sim_blocks_count(const struct sim_blocks *blocks);
size_t sim_blocks_free_count(const struct sim_blocks *blocks); /* That no job has. */

#endif
