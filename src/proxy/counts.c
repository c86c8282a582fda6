#include "proxy/counts.h"

#include "base/check.h"
#include "base/random.h"

enum { SLOTS_FIRST = 64 };

void counts_init(struct counts *counts, struct mem *mem, uint64_t seed)
{
    *counts = (struct counts){.mem = mem, .seed = seed};
}

void counts_fini(struct counts *counts)
{
    mem_free(counts->mem, counts->slots, counts->slot_count * sizeof *counts->slots);
    *counts = (struct counts){.mem = counts->mem, .seed = counts->seed};
}

static size_t home_of(const struct counts *counts, uint64_t key)
{
    struct random mixed = {.state = key ^ counts->seed};
    return (size_t)random_next(&mixed) & (counts->slot_count - 1);
}

/* The key's slot, or the free one where it would be. */
static struct counts_slot *find(const struct counts *counts, uint64_t key)
{
    size_t at = home_of(counts, key);
    while (counts->slots[at].count > 0 && counts->slots[at].key != key) {
        at = (at + 1) & (counts->slot_count - 1);
    }
    return &counts->slots[at];
}

static bool grow(struct counts *counts)
{
    struct counts old = *counts;
    counts->slot_count = old.slot_count == 0 ? SLOTS_FIRST : old.slot_count * 2;
    counts->slots = mem_alloc_zero(counts->mem, counts->slot_count * sizeof *counts->slots);
    if (counts->slots == NULL) {
        *counts = old;
        return false;
    }
    for (size_t i = 0; i < old.slot_count; i++) {
        if (old.slots[i].count > 0) {
            *find(counts, old.slots[i].key) = old.slots[i];
        }
    }
    mem_free(counts->mem, old.slots, old.slot_count * sizeof *old.slots);
    return true;
}

bool counts_add(struct counts *counts, uint64_t key, uint64_t max)
{
    if ((counts->key_count + 1) * 2 > counts->slot_count && !grow(counts)) {
        return false;
    }
    struct counts_slot *slot = find(counts, key);
    if (slot->count >= max) {
        return false;
    }
    counts->key_count += slot->count == 0 ? 1 : 0;
    *slot = (struct counts_slot){.key = key, .count = slot->count + 1};
    return true;
}

/* Those behind the free slot that would not be found any more move up. */
static void close_gap(struct counts *counts, size_t gap)
{
    size_t mask = counts->slot_count - 1;
    for (size_t at = (gap + 1) & mask; counts->slots[at].count > 0; at = (at + 1) & mask) {
        size_t home = home_of(counts, counts->slots[at].key);
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            counts->slots[gap] = counts->slots[at];
            counts->slots[at].count = 0;
            gap = at;
        }
    }
}

void counts_drop(struct counts *counts, uint64_t key)
{
    REQUIRE(counts->slot_count > 0);
    struct counts_slot *slot = find(counts, key);
    REQUIRE(slot->count > 0);
    slot->count--;
    if (slot->count == 0) {
        counts->key_count--;
        close_gap(counts, (size_t)(slot - counts->slots));
    }
}

uint64_t counts_of(const struct counts *counts, uint64_t key)
{
    return counts->slot_count == 0 ? 0 : find(counts, key)->count;
}
