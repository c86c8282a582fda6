/*
 * Holders of a node: a small unsorted array, inline for one. An entry is dead when its endpoint has
 * gone or restarted (odometer below the fence), when the engine must have evicted the prefix
 * (odometer), or when it is too old. Dead entries are pruned when room is needed and left out when
 * stored.
 */
#include <string.h>

#include "trie/internal.h"

enum {
    MINUTE_BUCKETS = 60 / TRIE_BUCKET_SECONDS,
    SECONDS_PER_MINUTE = 60,
    CAPACITY_FIRST = 2,
};

uint32_t clock_minute(const struct hashtrie *trie)
{
    return trie->bucket / MINUTE_BUCKETS;
}

bool holder_is_live(const struct hashtrie *trie, const struct holder *holder)
{
    const struct endpoint *endpoint = &trie->endpoints[holder->endpoint];
    if (endpoint->name == NULL || (int32_t)(holder->odometer_kib - endpoint->fence) < 0) {
        return false;
    }
    uint32_t moved_kib = endpoint_odometer_kib(endpoint) - holder->odometer_kib;
    if (endpoint->capacity_kib != 0 && moved_kib > endpoint->capacity_kib) {
        return false;
    }
    uint16_t age = (uint16_t)(clock_minute(trie) - holder->age_minute);
    return trie->max_age_minutes == 0 || age <= trie->max_age_minutes;
}

/* Entries that an array for `count` of them takes. */
static uint32_t capacity_for(uint32_t count)
{
    uint32_t capacity = CAPACITY_FIRST;
    while (capacity < count) {
        capacity *= 2;
    }
    return capacity;
}

static bool has_array(const struct node *node)
{
    return node->holder_count > 1 && node->holder_count != TRIE_HELD_BY_ALL;
}

size_t holders_bytes(const struct node *node)
{
    return has_array(node) ? mem_charge(capacity_for(node->holder_count) * sizeof(struct holder))
                           : 0;
}

static struct holder *entries(struct node *node)
{
    return node->holder_count <= 1 ? &node->holders.one : node->holders.many;
}

const struct holder *holders_find(const struct node *node, hashtrie_endpoint endpoint)
{
    if (node->holder_count == TRIE_HELD_BY_ALL) {
        return NULL;
    }
    const struct holder *holders = node_holders(node);
    for (uint32_t i = 0; i < node->holder_count; i++) {
        if (holders[i].endpoint == endpoint) {
            return &holders[i];
        }
    }
    return NULL;
}

void holders_free(struct hashtrie *trie, struct node *node)
{
    if (has_array(node)) {
        mem_free(&trie->mem, node->holders.many,
                 capacity_for(node->holder_count) * sizeof(struct holder));
    }
    node->holder_count = 0;
}

void holders_set_all(struct hashtrie *trie, struct node *node)
{
    holders_free(trie, node);
    node->holder_count = TRIE_HELD_BY_ALL;
}

/* Takes `count` entries as the node's own. False: no memory, nothing changed. `from` must not be
 * the node's array. */
static bool replace(struct hashtrie *trie, struct node *node, const struct holder *from,
                    uint32_t count)
{
    struct holder *array = NULL;
    if (count > 1) {
        size_t size = capacity_for(count) * sizeof *array;
        array = evict_alloc(trie, size);
        if (array == NULL) {
            return false;
        }
        memcpy(array, from, count * sizeof *array);
    }
    holders_free(trie, node);
    if (count > 1) {
        node->holders.many = array;
    } else if (count == 1) {
        node->holders.one = from[0];
    }
    node_set_holder_count(node, count);
    return true;
}

bool holders_copy(struct hashtrie *trie, struct node *to, const struct node *from)
{
    REQUIRE(to->holder_count == 0);
    if (from->holder_count == TRIE_HELD_BY_ALL) {
        to->holder_count = TRIE_HELD_BY_ALL;
        return true;
    }
    return replace(trie, to, node_holders(from), from->holder_count);
}

/* Adds an entry for an endpoint that has none: dead ones make room; past the maximum all count as
 * holders. */
static bool add(struct hashtrie *trie, struct node *node, struct holder holder)
{
    if (node->holder_count == 0) {
        node->holders.one = holder;
        node->holder_count = 1;
        return true;
    }
    if (has_array(node) && node->holder_count < capacity_for(node->holder_count)) {
        node->holders.many[node->holder_count] = holder;
        node_set_holder_count(node, node->holder_count + 1);
        return true;
    }
    struct holder live[HASHTRIE_HOLDERS_MAX + 1];
    uint32_t count = 0;
    const struct holder *old = node_holders(node);
    for (uint32_t i = 0; i < node->holder_count; i++) {
        if (holder_is_live(trie, &old[i])) {
            live[count++] = old[i];
        }
    }
    live[count++] = holder;
    if (count > HASHTRIE_HOLDERS_MAX) {
        holders_set_all(trie, node);
        return true;
    }
    return replace(trie, node, live, count);
}

/* The odometer moved by enough to be worth a write of the node's state. */
static bool odometer_moved(const struct hashtrie *trie, const struct holder *old, uint32_t now_kib)
{
    uint32_t capacity_kib = trie->endpoints[old->endpoint].capacity_kib;
    return capacity_kib != 0 && now_kib - old->odometer_kib > capacity_kib / ODOMETER_STATE_PARTS;
}

int holders_touch(struct hashtrie *trie, struct node *node, hashtrie_endpoint endpoint)
{
    bool changed = node->bucket != trie->bucket;
    node->bucket = trie->bucket;
    if (node->holder_count == TRIE_HELD_BY_ALL) {
        return changed ? NODE_STATE : 0;
    }
    struct holder now = {.endpoint = endpoint,
                         .age_minute = (uint16_t)clock_minute(trie),
                         .odometer_kib = endpoint_odometer_kib(&trie->endpoints[endpoint])};
    struct holder *holders = entries(node);
    for (uint32_t i = 0; i < node->holder_count; i++) {
        if (holders[i].endpoint == endpoint) {
            changed = changed || !holder_is_live(trie, &holders[i]) ||
                      odometer_moved(trie, &holders[i], now.odometer_kib);
            holders[i] = now;
            return changed ? NODE_STATE : 0;
        }
    }
    return add(trie, node, now) ? NODE_STATE : -1;
}

bool holders_join(struct hashtrie *trie, struct node *node, struct holder holder)
{
    if (node->holder_count == TRIE_HELD_BY_ALL) {
        return true;
    }
    struct holder *holders = entries(node);
    for (uint32_t i = 0; i < node->holder_count; i++) {
        if (holders[i].endpoint == holder.endpoint) {
            if ((int32_t)(holder.odometer_kib - holders[i].odometer_kib) > 0) {
                holders[i].odometer_kib = holder.odometer_kib;
            }
            if ((int16_t)(uint16_t)(holder.age_minute - holders[i].age_minute) > 0) {
                holders[i].age_minute = holder.age_minute;
            }
            return true;
        }
    }
    return add(trie, node, holder);
}

/* Unix seconds of an entry's last use: the latest time not after the node's own that has these low
 * 16 bits. */
static uint32_t last_used_s(const struct node *node, const struct holder *holder)
{
    uint32_t newest = node->bucket / MINUTE_BUCKETS;
    uint16_t back = (uint16_t)(newest - holder->age_minute);
    return (back > newest ? 0 : newest - back) * SECONDS_PER_MINUTE;
}

size_t holders_store(const struct hashtrie *trie, const struct node *node,
                     struct trie_stored_holder *to)
{
    size_t count = 0;
    const struct holder *holders = node_holders(node);
    for (uint32_t i = 0; i < node->holder_count; i++) {
        const struct endpoint *endpoint = &trie->endpoints[holders[i].endpoint];
        if (holder_is_live(trie, &holders[i])) {
            to[count++] = (struct trie_stored_holder){.id = endpoint->id,
                                                      .last_used_s = last_used_s(node, &holders[i]),
                                                      .odometer_kib = holders[i].odometer_kib +
                                                                      endpoint->stored_ahead};
        }
    }
    return count;
}

bool holders_load(struct hashtrie *trie, struct node *node, const struct trie_record *record,
                  bool *failed)
{
    uint32_t before = node->holder_count;
    if (record->holder_count == TRIE_HELD_BY_ALL) {
        holders_set_all(trie, node);
        return before != TRIE_HELD_BY_ALL;
    }
    for (uint32_t i = 0; i < record->holder_count; i++) {
        const struct trie_stored_holder *stored = &record->holders[i];
        int slot = endpoint_slot_of_id(trie, stored->id);
        if (slot < 0) {
            continue;
        }
        uint32_t newest_kib = endpoint_odometer_kib(&trie->endpoints[slot]);
        uint32_t odometer_kib = stored->odometer_kib - trie->endpoints[slot].stored_ahead;
        bool ahead = (int32_t)(odometer_kib - newest_kib) > 0;
        struct holder holder = {.endpoint = (hashtrie_endpoint)slot,
                                .age_minute = (uint16_t)(stored->last_used_s / SECONDS_PER_MINUTE),
                                .odometer_kib = ahead ? newest_kib : odometer_kib};
        uint32_t age_minutes = clock_minute(trie) - stored->last_used_s / SECONDS_PER_MINUTE;
        bool too_old = trie->max_age_minutes != 0 && age_minutes > trie->max_age_minutes &&
                       age_minutes <= INT32_MAX; /* Else its clock was ahead of ours. */
        if (!too_old && holder_is_live(trie, &holder) && !holders_join(trie, node, holder)) {
            *failed = true;
        }
    }
    return before != node->holder_count;
}
