#include "bench/sim/blocks.h"

#include <stdlib.h>

#include "base/check.h"
#include "bench/sim/workload.h"

#define NONE UINT32_MAX /* No block. */

struct block {
    uint64_t hash;
    uint32_t chain; /* Next in the same bucket. */
    uint32_t newer; /* In the list of free ones. */
    uint32_t older;
    uint32_t refs; /* Jobs that have it; 0: it is in the list. */
    bool named;
};

struct sim_blocks {
    struct block *blocks;
    uint32_t *buckets;
    size_t bucket_mask;
    size_t count;
    size_t free_count;
    uint32_t newest;
    uint32_t oldest;
};

void sim_blocks_clear(struct sim_blocks *blocks)
{
    for (size_t i = 0; i <= blocks->bucket_mask; i++) {
        blocks->buckets[i] = NONE;
    }
    for (size_t i = 0; i < blocks->count; i++) {
        blocks->blocks[i] = (struct block){.newer = i > 0 ? (uint32_t)i - 1 : NONE,
                                           .older = i + 1 < blocks->count ? (uint32_t)i + 1 : NONE};
    }
    blocks->newest = 0;
    blocks->oldest = (uint32_t)blocks->count - 1;
    blocks->free_count = blocks->count;
}

struct sim_blocks *sim_blocks_new(size_t block_count)
{
    REQUIRE(block_count > 0 && block_count < NONE);
    struct sim_blocks *blocks = sim_alloc(1, sizeof *blocks);
    size_t bucket_count = 1;
    while (bucket_count < block_count) {
        bucket_count *= 2;
    }
    *blocks = (struct sim_blocks){.blocks = sim_alloc(block_count, sizeof *blocks->blocks),
                                  .buckets = sim_alloc(bucket_count, sizeof *blocks->buckets),
                                  .bucket_mask = bucket_count - 1,
                                  .count = block_count};
    sim_blocks_clear(blocks);
    return blocks;
}

void sim_blocks_free(struct sim_blocks *blocks)
{
    if (blocks != NULL) {
        free(blocks->blocks);
        free(blocks->buckets);
        free(blocks);
    }
}

static uint32_t find(const struct sim_blocks *blocks, uint64_t hash)
{
    uint32_t at = blocks->buckets[hash & blocks->bucket_mask];
    while (at != NONE && blocks->blocks[at].hash != hash) {
        at = blocks->blocks[at].chain;
    }
    return at;
}

size_t sim_blocks_peek(const struct sim_blocks *blocks, const uint64_t *hashes, size_t count)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (find(blocks, hashes[middle - 1]) != NONE) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* ---- The list of those that no job has ---- */

static void list_out(struct sim_blocks *blocks, uint32_t at)
{
    const struct block *block = &blocks->blocks[at];
    if (block->newer != NONE) {
        blocks->blocks[block->newer].older = block->older;
    } else {
        blocks->newest = block->older;
    }
    if (block->older != NONE) {
        blocks->blocks[block->older].newer = block->newer;
    } else {
        blocks->oldest = block->newer;
    }
    blocks->free_count--;
}

static void list_in(struct sim_blocks *blocks, uint32_t at)
{
    struct block *block = &blocks->blocks[at];
    block->newer = NONE;
    block->older = blocks->newest;
    if (blocks->newest != NONE) {
        blocks->blocks[blocks->newest].newer = at;
    } else {
        blocks->oldest = at;
    }
    blocks->newest = at;
    blocks->free_count++;
}

/* One without a name goes to the old end: it is the first to be used again. */
static void list_in_last(struct sim_blocks *blocks, uint32_t at)
{
    struct block *block = &blocks->blocks[at];
    block->older = NONE;
    block->newer = blocks->oldest;
    if (blocks->oldest != NONE) {
        blocks->blocks[blocks->oldest].older = at;
    } else {
        blocks->newest = at;
    }
    blocks->oldest = at;
    blocks->free_count++;
}

static void forget_name(struct sim_blocks *blocks, uint32_t at)
{
    struct block *block = &blocks->blocks[at];
    if (!block->named) {
        return;
    }
    uint32_t *link = &blocks->buckets[block->hash & blocks->bucket_mask];
    while (*link != at) {
        link = &blocks->blocks[*link].chain;
    }
    *link = block->chain;
    block->named = false;
}

static void give_back(struct sim_blocks *blocks, uint32_t at)
{
    struct block *block = &blocks->blocks[at];
    CHECK(block->refs > 0);
    if (--block->refs > 0) {
        return;
    }
    if (block->named) {
        list_in(blocks, at);
    } else {
        list_in_last(blocks, at);
    }
}

bool sim_blocks_take(struct sim_blocks *blocks, const uint64_t *hashes, size_t match_max,
                     size_t total, uint32_t *out, size_t *matched)
{
    REQUIRE(match_max <= total);
    size_t count = 0;
    size_t idle = 0; /* Of those there, that no job has. */
    while (count < match_max) {
        uint32_t at = find(blocks, hashes[count]);
        if (at == NONE) {
            break;
        }
        idle += blocks->blocks[at].refs == 0 ? 1 : 0;
        out[count++] = at;
    }
    if (total - count > blocks->free_count - idle) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (blocks->blocks[out[i]].refs++ == 0) {
            list_out(blocks, out[i]);
        }
    }
    for (size_t i = count; i < total; i++) {
        uint32_t at = blocks->oldest;
        CHECK(at != NONE);
        list_out(blocks, at);
        forget_name(blocks, at);
        blocks->blocks[at].refs = 1;
        out[i] = at;
    }
    *matched = count;
    return true;
}

void sim_blocks_name(struct sim_blocks *blocks, uint32_t block, uint64_t hash)
{
    struct block *named = &blocks->blocks[block];
    REQUIRE(named->refs > 0);
    if (named->named || find(blocks, hash) != NONE) {
        return;
    }
    uint32_t *bucket = &blocks->buckets[hash & blocks->bucket_mask];
    named->hash = hash;
    named->chain = *bucket;
    named->named = true;
    *bucket = block;
}

void sim_blocks_release(struct sim_blocks *blocks, const uint32_t *taken, size_t count)
{
    for (size_t i = count; i > 0; i--) {
        give_back(blocks, taken[i - 1]);
    }
}

size_t sim_blocks_count(const struct sim_blocks *blocks)
{
    return blocks->count;
}

size_t sim_blocks_free_count(const struct sim_blocks *blocks)
{
    return blocks->free_count;
}
