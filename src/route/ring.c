/*
 * Sessions on a hash ring. As uhashring 2.3 does it: node N has 160 points, md5("N-0") to
 * md5("N-159") as big numbers; a key belongs to the first point above its md5, the first of all
 * beyond the last. Points of endpoints that are no candidates are passed over, which gives the
 * place on the ring of the candidates alone.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "route/fleet.h"

enum { POINTS_PER_ENDPOINT = 160, MD5_BYTES = 16, POINT_TEXT_MAX = 4096 };

static uint64_t upper_md5(const void *bytes, size_t size)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    CHECK(EVP_Digest(bytes, size, digest, NULL, EVP_md5(), NULL) == 1);
    uint64_t upper = 0;
    for (int i = 0; i < 8; i++) {
        upper = upper << 8 | digest[i];
    }
    return upper;
}

static int compare(const void *a, const void *b)
{
    const struct ring_point *left = a;
    const struct ring_point *right = b;
    if (left->at != right->at) {
        return left->at < right->at ? -1 : 1;
    }
    return left->endpoint < right->endpoint ? -1 : left->endpoint > right->endpoint;
}

void ring_free(struct mem *mem, struct ring *ring)
{
    mem_free(mem, ring->points, ring->count * sizeof *ring->points);
    *ring = (struct ring){0};
}

bool route_fleet_set_ring(struct route_fleet *fleet, const char *const *names, size_t count)
{
    struct ring ring = {0};
    size_t named = 0;
    for (size_t i = 0; i < count; i++) {
        named += names[i] != NULL ? 1 : 0;
    }
    size_t room = named * POINTS_PER_ENDPOINT;
    if (room > 0) {
        ring.points = mem_alloc(fleet->mem, room * sizeof *ring.points);
        if (ring.points == NULL) {
            return false;
        }
    }
    for (size_t i = 0; i < count; i++) {
        for (int point = 0; names[i] != NULL && point < POINTS_PER_ENDPOINT; point++) {
            char text[POINT_TEXT_MAX];
            int size = snprintf(text, sizeof text, "%s-%d", names[i], point);
            size_t length = (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
            ring.points[ring.count++] =
                (struct ring_point){.at = upper_md5(text, length), .endpoint = (uint32_t)i};
        }
    }
    if (ring.count > 0) {
        qsort(ring.points, ring.count, sizeof *ring.points, compare);
    }
    ring_free(fleet->mem, &fleet->ring);
    fleet->ring = ring;
    return true;
}

/* The first point above `at`; the count if there is none. */
static size_t above(const struct ring *ring, uint64_t at)
{
    size_t low = 0;
    size_t high = ring->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ring->points[middle].at > at) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

bool pick_session(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                  struct route_choice *out)
{
    const struct ring *ring = &fleet->ring;
    if (query->session.data == NULL || ring->count == 0) {
        return pick_leastload(fleet, query, desperate, out);
    }
    size_t first = above(ring, upper_md5(query->session.data, query->session.size));
    for (size_t i = 0; i < ring->count; i++) {
        size_t endpoint = ring->points[(first + i) % ring->count].endpoint;
        if (fleet_is_candidate(fleet, query, endpoint, desperate)) {
            query_choose(query, endpoint, ROUTE_SESSION_KEPT, out);
            return true;
        }
    }
    return false;
}
