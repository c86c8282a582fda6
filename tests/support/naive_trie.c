#include "support/naive_trie.h"

#include "base/check.h"
#include "base/random.h"

enum {
    TABLE_SLOTS_FIRST = 1024,
    HOLDERS_FIRST = 4,
    KIB = 1024,
    SECONDS_PER_MINUTE = 60,
};

#define ODOMETER_SPAN_KIB \
    (UINT64_C(1) << 30) /* The most that may be sent since, capacity or not. */

struct holder {
    hashtrie_endpoint slot;
    uint32_t epoch;
    uint64_t odometer_kib;
    uint64_t minute;
    uint64_t since; /* Serial of the insert that made it a holder. */
};

struct prefix {
    uint64_t hash;
    bool all;
    uint64_t all_since;
    struct holder *holders; /* Owned. */
    uint32_t holder_count;
    uint32_t capacity;
};

struct slot {
    uint32_t epoch; /* Goes up whenever all it held is gone. */
    uint64_t odometer_bytes;
    uint64_t capacity_kib; /* 0: unknown. */
    uint64_t evicted_kib;  /* As the trie has worked it out: below, all is gone. */
};

struct naive {
    struct mem *mem;
    size_t chunk_size;
    uint32_t max_age_minutes;
    uint64_t minute;
    uint64_t serial;
    struct slot slots[NAIVE_SLOTS_MAX];
    struct prefix *table; /* Open addressing; a hash of 0 is an empty place. */
    size_t table_size;
    size_t prefix_count;
};

struct naive *naive_new(struct mem *mem, size_t chunk_size, uint32_t max_age_minutes)
{
    struct naive *naive = mem_alloc_zero(mem, sizeof *naive);
    CHECK(naive != NULL);
    naive->mem = mem;
    naive->chunk_size = chunk_size;
    naive->max_age_minutes = max_age_minutes;
    naive->table_size = TABLE_SLOTS_FIRST;
    naive->table = mem_alloc_zero(mem, naive->table_size * sizeof *naive->table);
    CHECK(naive->table != NULL);
    return naive;
}

void naive_free(struct naive *naive)
{
    for (size_t i = 0; i < naive->table_size; i++) {
        struct prefix *prefix = &naive->table[i];
        mem_free(naive->mem, prefix->holders, prefix->capacity * sizeof *prefix->holders);
    }
    mem_free(naive->mem, naive->table, naive->table_size * sizeof *naive->table);
    mem_free(naive->mem, naive, sizeof *naive);
}

/* Where it is or belongs. */
static struct prefix *place_of(const struct naive *naive, uint64_t hash)
{
    CHECK(hash != 0);
    struct random mixer = {.state = hash};
    size_t place = random_next(&mixer) & (naive->table_size - 1);
    while (naive->table[place].hash != 0 && naive->table[place].hash != hash) {
        place = (place + 1) & (naive->table_size - 1);
    }
    return &naive->table[place];
}

static void grow(struct naive *naive)
{
    struct prefix *old = naive->table;
    size_t old_size = naive->table_size;
    naive->table_size *= 2;
    naive->table = mem_alloc_zero(naive->mem, naive->table_size * sizeof *naive->table);
    CHECK(naive->table != NULL);
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].hash != 0) {
            *place_of(naive, old[i].hash) = old[i];
        }
    }
    mem_free(naive->mem, old, old_size * sizeof *old);
}

static struct prefix *find_or_add(struct naive *naive, uint64_t hash)
{
    if (naive->prefix_count * 2 >= naive->table_size) {
        grow(naive);
    }
    struct prefix *prefix = place_of(naive, hash);
    naive->prefix_count += prefix->hash == 0;
    prefix->hash = hash;
    return prefix;
}

/* ---- Endpoints ---- */

static uint64_t odometer_kib(const struct slot *slot)
{
    return slot->odometer_bytes / KIB;
}

void naive_endpoint_forget(struct naive *naive, hashtrie_endpoint slot)
{
    naive->slots[slot].epoch++;
    naive->slots[slot].odometer_bytes += KIB; /* As the trie does: so that KiB stay in step. */
}

void naive_endpoint_set_capacity(struct naive *naive, hashtrie_endpoint slot, uint64_t bytes)
{
    naive->slots[slot].capacity_kib = bytes == 0 ? 0 : bytes / KIB + 1;
    naive->slots[slot].evicted_kib = 0;
}

void naive_endpoint_set_reach(struct naive *naive, hashtrie_endpoint slot, uint64_t kib)
{
    CHECK(kib <= naive->slots[slot].capacity_kib);
    uint64_t now_kib = odometer_kib(&naive->slots[slot]);
    naive->slots[slot].evicted_kib = now_kib > kib ? now_kib - kib : 0;
}

void naive_endpoint_set_odometer(struct naive *naive, hashtrie_endpoint slot, uint64_t kib)
{
    naive->slots[slot].odometer_bytes = kib * KIB;
}

void naive_endpoint_charge(struct naive *naive, hashtrie_endpoint slot, uint64_t bytes)
{
    naive->slots[slot].odometer_bytes += bytes;
}

static bool is_live(const struct naive *naive, const struct holder *holder)
{
    const struct slot *slot = &naive->slots[holder->slot];
    uint64_t moved_kib = odometer_kib(slot) - holder->odometer_kib;
    return holder->epoch == slot->epoch && moved_kib <= ODOMETER_SPAN_KIB &&
           (slot->capacity_kib == 0 ||
            (moved_kib <= slot->capacity_kib && holder->odometer_kib >= slot->evicted_kib)) &&
           (naive->max_age_minutes == 0 ||
            naive->minute - holder->minute <= naive->max_age_minutes);
}

/* ---- Prompts ---- */

static void set_time(struct naive *naive, uint64_t now_s)
{
    uint64_t minute = now_s / SECONDS_PER_MINUTE;
    naive->minute = minute > naive->minute ? minute : naive->minute;
}

static size_t drop_dead(const struct naive *naive, struct prefix *prefix)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < prefix->holder_count; i++) {
        if (is_live(naive, &prefix->holders[i])) {
            prefix->holders[count++] = prefix->holders[i];
        }
    }
    prefix->holder_count = count;
    return count;
}

static void touch(struct naive *naive, struct prefix *prefix, hashtrie_endpoint slot)
{
    struct holder now = {.slot = slot,
                         .epoch = naive->slots[slot].epoch,
                         .odometer_kib = odometer_kib(&naive->slots[slot]),
                         .minute = naive->minute,
                         .since = naive->serial};
    if (prefix->all) {
        return;
    }
    for (uint32_t i = 0; i < prefix->holder_count; i++) {
        if (prefix->holders[i].slot == slot) {
            now.since = is_live(naive, &prefix->holders[i]) ? prefix->holders[i].since : now.since;
            prefix->holders[i] = now;
            return;
        }
    }
    if (drop_dead(naive, prefix) == HASHTRIE_HOLDERS_MAX) {
        prefix->all = true;
        prefix->all_since = naive->serial;
        return;
    }
    if (prefix->holder_count == prefix->capacity) {
        uint32_t capacity = prefix->capacity == 0 ? HOLDERS_FIRST : prefix->capacity * 2;
        prefix->holders =
            mem_realloc(naive->mem, prefix->holders, prefix->capacity * sizeof *prefix->holders,
                        capacity * sizeof *prefix->holders);
        CHECK(prefix->holders != NULL);
        prefix->capacity = capacity;
    }
    prefix->holders[prefix->holder_count++] = now;
}

void naive_insert(struct naive *naive, const struct hashtrie_key *key, hashtrie_endpoint slot,
                  uint64_t now_s)
{
    struct naive_found found;
    naive_find(naive, key, now_s, UINT64_MAX, &found);
    uint32_t held = found.length[slot] > found.all ? found.length[slot] : found.all;
    naive_endpoint_charge(naive, slot, (uint64_t)(key->count - held) * naive->chunk_size);
    naive->serial++;
    for (size_t i = 0; i < key->count; i++) {
        touch(naive, find_or_add(naive, key->hashes[i]), slot);
    }
}

void naive_find(struct naive *naive, const struct hashtrie_key *key, uint64_t now_s,
                uint64_t serial, struct naive_found *out)
{
    set_time(naive, now_s);
    *out = (struct naive_found){0};
    while (out->known < key->count && place_of(naive, key->hashes[out->known])->hash != 0) {
        out->known++;
    }
    for (uint32_t i = out->known; i-- > 0 && out->all == 0;) {
        const struct prefix *prefix = place_of(naive, key->hashes[i]);
        if (prefix->all && prefix->all_since <= serial) {
            out->all = i + 1;
        }
        for (uint32_t j = 0; j < prefix->holder_count && !prefix->all; j++) {
            const struct holder *holder = &prefix->holders[j];
            if (out->length[holder->slot] == 0 && holder->since <= serial &&
                is_live(naive, holder)) {
                out->length[holder->slot] = i + 1;
            }
        }
    }
}

uint64_t naive_serial(const struct naive *naive)
{
    return naive->serial;
}

void naive_drop_after(struct naive *naive, uint64_t serial)
{
    for (size_t i = 0; i < naive->table_size; i++) {
        struct prefix *prefix = &naive->table[i];
        uint32_t count = 0;
        for (uint32_t j = 0; j < prefix->holder_count; j++) {
            if (prefix->holders[j].since <= serial) {
                prefix->holders[count++] = prefix->holders[j];
            }
        }
        prefix->holder_count = count;
        prefix->all = prefix->all && prefix->all_since <= serial;
    }
}
