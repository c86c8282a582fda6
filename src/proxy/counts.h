/*
 * How many there are of each key: connections of an address, waiting requests of a client. Open
 * addressing, so a key costs 16 bytes while it counts, and nothing afterwards. Pure; the caller's
 * lock covers it.
 */
#ifndef HASHTRIE_PROXY_COUNTS_H
#define HASHTRIE_PROXY_COUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

struct counts_slot {
    uint64_t key;
    uint64_t count; /* 0: free. */
};

struct counts {
    struct mem *mem;           /* Borrowed. */
    struct counts_slot *slots; /* Owned; a power of two of them, at most half in use. */
    size_t slot_count;
    size_t key_count;
    uint64_t seed; /* Secret: whoever chooses keys cannot make them collide. */
};

void counts_init(struct counts *counts, struct mem *mem, uint64_t seed);
void counts_fini(struct counts *counts);
/* One more of the key, unless there are `max`, or no memory. */
bool counts_add(struct counts *counts, uint64_t key, uint64_t max);
/* One less; there was one. */
void counts_drop(struct counts *counts, uint64_t key);
uint64_t counts_of(const struct counts *counts, uint64_t key);

#endif
