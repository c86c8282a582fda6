/*
 * The simulated prefix cache of an engine: blocks of 16 tokens named by chained hashes, least
 * recently used out first. Of one prompt's blocks the last is dropped first, as vLLM does.
 */
#ifndef HASHTRIE_BENCH_CACHE_H
#define HASHTRIE_BENCH_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

enum { CACHE_BLOCK_TOKENS = 16, CACHE_TOKEN_BYTES = 4 };
enum { CACHE_BLOCK_BYTES = CACHE_BLOCK_TOKENS * CACHE_TOKEN_BYTES };

struct cache;

/* NULL: out of memory. No blocks: a cache that keeps nothing. */
struct cache *cache_new(struct mem *mem, size_t block_count);
void cache_free(struct cache *cache); /* NULL is fine. */

/* How many leading blocks are there; they become the most recently used. */
size_t cache_match(struct cache *cache, const uint64_t *hashes, size_t count);
/* Puts the blocks in, the first being the most recently used afterwards. */
void cache_insert(struct cache *cache, const uint64_t *hashes, size_t count);
size_t cache_block_count(const struct cache *cache);
size_t cache_blocks_used(const struct cache *cache);

#endif
