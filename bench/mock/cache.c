#include "bench/mock/cache.h"

#include "base/check.h"

#define NONE UINT32_MAX /* No block. */

struct block {
    uint64_t hash;
    uint32_t chain; /* Next in the same bucket. */
    uint32_t newer;
    uint32_t older;
};

struct cache {
    struct mem *mem;
    struct block *blocks;
    uint32_t *buckets;
    size_t bucket_count; /* A power of two. */
    size_t block_count;
    size_t used;
    uint32_t newest;
    uint32_t oldest;
};

struct cache *cache_new(struct mem *mem, size_t block_count)
{
    REQUIRE(block_count < NONE);
    struct cache *cache = mem_alloc(mem, sizeof *cache);
    if (cache == NULL) {
        return NULL;
    }
    *cache = (struct cache){
        .mem = mem, .block_count = block_count, .bucket_count = 1, .newest = NONE, .oldest = NONE};
    while (cache->bucket_count < block_count) {
        cache->bucket_count *= 2;
    }
    cache->buckets = mem_alloc(mem, cache->bucket_count * sizeof *cache->buckets);
    cache->blocks = mem_alloc(mem, (block_count + 1) * sizeof *cache->blocks);
    if (cache->buckets == NULL || cache->blocks == NULL) {
        cache_free(cache);
        return NULL;
    }
    for (size_t i = 0; i < cache->bucket_count; i++) {
        cache->buckets[i] = NONE;
    }
    return cache;
}

void cache_free(struct cache *cache)
{
    if (cache == NULL) {
        return;
    }
    mem_free(cache->mem, cache->buckets, cache->bucket_count * sizeof *cache->buckets);
    mem_free(cache->mem, cache->blocks, (cache->block_count + 1) * sizeof *cache->blocks);
    mem_free(cache->mem, cache, sizeof *cache);
}

static uint32_t *bucket_of(struct cache *cache, uint64_t hash)
{
    return &cache->buckets[hash & (cache->bucket_count - 1)];
}

static uint32_t find(struct cache *cache, uint64_t hash)
{
    uint32_t at = *bucket_of(cache, hash);
    while (at != NONE && cache->blocks[at].hash != hash) {
        at = cache->blocks[at].chain;
    }
    return at;
}

static void unlink_block(struct cache *cache, uint32_t at)
{
    struct block *block = &cache->blocks[at];
    if (block->newer != NONE) {
        cache->blocks[block->newer].older = block->older;
    } else {
        cache->newest = block->older;
    }
    if (block->older != NONE) {
        cache->blocks[block->older].newer = block->newer;
    } else {
        cache->oldest = block->newer;
    }
}

static void link_newest(struct cache *cache, uint32_t at)
{
    struct block *block = &cache->blocks[at];
    block->newer = NONE;
    block->older = cache->newest;
    if (cache->newest != NONE) {
        cache->blocks[cache->newest].newer = at;
    } else {
        cache->oldest = at;
    }
    cache->newest = at;
}

static uint32_t evict_oldest(struct cache *cache)
{
    uint32_t victim = cache->oldest;
    CHECK(victim != NONE);
    unlink_block(cache, victim);
    uint32_t *link = bucket_of(cache, cache->blocks[victim].hash);
    while (*link != victim) {
        link = &cache->blocks[*link].chain;
    }
    *link = cache->blocks[victim].chain;
    return victim;
}

size_t cache_match(struct cache *cache, const uint64_t *hashes, size_t count)
{
    size_t matched = 0;
    while (matched < count && find(cache, hashes[matched]) != NONE) {
        matched++;
    }
    for (size_t i = matched; i > 0; i--) {
        uint32_t at = find(cache, hashes[i - 1]);
        unlink_block(cache, at);
        link_newest(cache, at);
    }
    return matched;
}

void cache_insert(struct cache *cache, const uint64_t *hashes, size_t count)
{
    size_t kept = count < cache->block_count ? count : cache->block_count;
    for (size_t i = kept; i > 0; i--) {
        uint32_t at = find(cache, hashes[i - 1]);
        if (at != NONE) {
            unlink_block(cache, at);
            link_newest(cache, at);
            continue;
        }
        at = cache->used < cache->block_count ? (uint32_t)cache->used++ : evict_oldest(cache);
        uint32_t *bucket = bucket_of(cache, hashes[i - 1]);
        cache->blocks[at] = (struct block){.hash = hashes[i - 1], .chain = *bucket};
        *bucket = at;
        link_newest(cache, at);
    }
}

size_t cache_block_count(const struct cache *cache)
{
    return cache->block_count;
}

size_t cache_blocks_used(const struct cache *cache)
{
    return cache->used;
}
