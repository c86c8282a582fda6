/*
 * Which keys may be in the store: a Bloom filter, 16 bits and 6 probes a row. Never a false
 * negative; about one false positive in a thousand. Private to the room.
 *
 * Adding is lock-free against looking; who replaces or frees one keeps both out.
 */
#ifndef HASHTRIE_STORE_FILTER_H
#define HASHTRIE_STORE_FILTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

enum {
    FILTER_BITS_PER_ROW = 16,
    FILTER_PROBES = 6,
    FILTER_ROWS_MIN = 32768,
};

struct filter {
    _Atomic uint64_t *words; /* Owned; NULL: not built. */
    size_t word_count;
    uint64_t capacity; /* Rows it was made for. */
};

/* For at least `rows` rows, with half as many more to come, as far as `bytes_max` allows. False: no
 * memory. */
bool filter_init(struct filter *filter, struct mem *mem, uint64_t rows, size_t bytes_max);
void filter_fini(struct filter *filter, struct mem *mem);
void filter_add(struct filter *filter, uint64_t prefix, uint32_t fp); /* Nothing if not built. */
bool filter_may_have(const struct filter *filter, uint64_t prefix, uint32_t fp);

static inline size_t filter_bytes(const struct filter *filter)
{
    return filter->word_count * sizeof(uint64_t);
}

#endif
