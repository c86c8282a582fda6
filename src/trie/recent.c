/*
 * How far back an engine's cache reaches, in bytes sent to it since (its odometer).
 *
 * Bytes of prompt that the engine has, by when they were last used: in buckets along the odometer,
 * each 1/RECENT_PARTS of the capacity wide. A use takes an entry's bytes out of the bucket of its
 * last use and puts them into the newest. The cache drops what was used least recently, so it
 * reaches back to where the newest buckets' bytes fill it: less far than the capacity if much of it
 * is used again and again.
 */
#include <string.h>

#include "trie/internal.h"

struct recent {
    uint64_t newest;                 /* Number of the newest bucket: odometer / width. */
    uint32_t chunks[RECENT_BUCKETS]; /* Of bucket number n at n modulo RECENT_BUCKETS. */
};

static uint64_t width_kib(const struct endpoint *endpoint)
{
    return endpoint->capacity_kib / RECENT_PARTS + 1;
}

static uint64_t odometer_kib(const struct endpoint *endpoint)
{
    return endpoint->odometer_bytes >> 10;
}

/* Before anything is known: as if all that was ever sent had been sent once. */
void recent_start(struct hashtrie *trie, struct endpoint *endpoint)
{
    endpoint->evicted_kib = endpoint_odometer_kib(endpoint) - endpoint->capacity_kib;
    if (endpoint->capacity_kib == 0) {
        recent_free(trie, endpoint);
        return;
    }
    if (endpoint->recent == NULL) {
        endpoint->recent = mem_alloc(&trie->mem, sizeof *endpoint->recent);
    }
    if (endpoint->recent == NULL) {
        return; /* The capacity alone has to do. */
    }
    uint64_t width = width_kib(endpoint);
    endpoint->recent->newest = odometer_kib(endpoint) / width;
    for (size_t i = 0; i < RECENT_BUCKETS; i++) {
        endpoint->recent->chunks[i] = (uint32_t)(width * 1024 / trie->chunk_size);
    }
    endpoint->recent->chunks[endpoint->recent->newest % RECENT_BUCKETS] = 0;
}

void recent_free(struct hashtrie *trie, struct endpoint *endpoint)
{
    mem_free(&trie->mem, endpoint->recent, sizeof *endpoint->recent);
    endpoint->recent = NULL;
}

size_t recent_bytes(const struct endpoint *endpoint)
{
    return endpoint->recent == NULL ? 0 : mem_charge(sizeof *endpoint->recent);
}

/* The odometer has moved. */
static void catch_up(struct endpoint *endpoint, uint64_t width)
{
    struct recent *recent = endpoint->recent;
    uint64_t newest = odometer_kib(endpoint) / width;
    uint64_t behind = newest - recent->newest;
    for (uint64_t i = 1; i <= behind && i <= RECENT_BUCKETS; i++) {
        recent->chunks[(newest - i + 1) % RECENT_BUCKETS] = 0;
    }
    recent->newest = newest;
}

void recent_use(struct endpoint *endpoint, uint32_t chunks, bool was_live, uint32_t moved_kib)
{
    if (endpoint->recent == NULL) {
        return;
    }
    struct recent *recent = endpoint->recent;
    uint64_t width = width_kib(endpoint);
    catch_up(endpoint, width);
    if (was_live) {
        uint64_t then = (odometer_kib(endpoint) - moved_kib) / width;
        if (recent->newest - then < RECENT_BUCKETS) {
            uint32_t *bucket = &recent->chunks[then % RECENT_BUCKETS];
            *bucket -= *bucket < chunks ? *bucket : chunks;
        }
    }
    recent->chunks[recent->newest % RECENT_BUCKETS] += chunks;
}

/* What was dropped does not come back, whatever the buckets' edges say now. */
static void note_reach(struct endpoint *endpoint, uint64_t reach_kib)
{
    uint32_t now_kib = endpoint_odometer_kib(endpoint);
    uint32_t reach =
        reach_kib < endpoint->capacity_kib ? (uint32_t)reach_kib : endpoint->capacity_kib;
    if (reach < now_kib - endpoint->evicted_kib) {
        endpoint->evicted_kib = now_kib - reach;
    }
}

void recent_measure(struct hashtrie *trie, struct endpoint *endpoint)
{
    if (endpoint->recent == NULL) {
        note_reach(endpoint, endpoint->capacity_kib);
        return;
    }
    const struct recent *recent = endpoint->recent;
    uint64_t width = width_kib(endpoint);
    catch_up(endpoint, width);
    uint64_t room = (uint64_t)endpoint->capacity_kib * 1024 / trie->chunk_size;
    uint64_t reach = 0;
    uint64_t length = odometer_kib(endpoint) - recent->newest * width + 1;
    for (uint64_t i = 0; i < RECENT_BUCKETS; i++) {
        uint64_t chunks = recent->chunks[(recent->newest - i) % RECENT_BUCKETS];
        if (chunks > room) {
            reach += length * room / chunks;
            break;
        }
        room -= chunks;
        reach += length;
        length = width;
    }
    note_reach(endpoint, reach);
}
