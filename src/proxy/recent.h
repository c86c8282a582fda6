/*
 * What requests at an engine were like of late: sums over a window of time that slides in
 * RECENT_SLOTS steps, so that each request costs the same few steps at any rate. Pure; the trie's
 * lock covers those of the router.
 */
#ifndef HASHTRIE_PROXY_RECENT_H
#define HASHTRIE_PROXY_RECENT_H

#include <stdint.h>

enum { RECENT_SLOTS = 60 };

struct recent_sums {
    uint32_t arrivals;
    uint32_t ended;      /* Answered as a whole, ... */
    uint64_t latency_us; /* ... and what that took them, from their head to the answer's end. */
    uint32_t streams;    /* Of these, streams of events, ... */
    uint32_t gaps;       /* ... pauses between these events, ... */
    uint64_t stream_us;  /* ... and their time from the first to the last one. */
};

/* All zero: nothing yet. */
struct recent {
    struct recent_sums slots[RECENT_SLOTS];
    struct recent_sums total;
    uint64_t last_slot;
};

/* Moves on to now, and adds. Clocks are monotonic; one that steps back counts as not moving. */
void recent_add(struct recent *recent, uint64_t window_ns, uint64_t now_ns,
                const struct recent_sums *sums);
/* Over the window that ends now. */
struct recent_sums recent_get(struct recent *recent, uint64_t window_ns, uint64_t now_ns);

#endif
