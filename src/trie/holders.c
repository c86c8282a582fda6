/*
 * Holders of a node, in no order: one lies in the node, more in a block. An entry is dead when its
 * endpoint has gone or restarted (odometer below the fence), when the engine must have evicted the
 * prefix (odometer), or when it is too old. Dead entries are pruned when room is needed and left
 * out when stored.
 */
#include <string.h>

#include "trie/internal.h"

enum {
    MINUTE_BUCKETS = 60 / TRIE_BUCKET_SECONDS,
    SECONDS_PER_MINUTE = 60,
    FORGET_MINUTES = 1 << 14, /* 11 days: with the largest age, below what 16 bits tell apart. */
    HOLDER_WORDS = sizeof(struct holder) / 4,
};

uint32_t clock_minute(const struct hashtrie *trie)
{
    return trie->bucket / MINUTE_BUCKETS;
}

/* The latest minute not after the node's own last use that has these low 16 bits. */
static uint32_t last_used_minute(const struct node *node, const struct holder *holder)
{
    uint32_t newest = node->bucket / MINUTE_BUCKETS;
    uint16_t back = (uint16_t)(newest - holder->age_minute);
    return back > newest ? 0 : newest - back;
}

static bool is_too_old(const struct hashtrie *trie, const struct node *node,
                       const struct holder *holder)
{
    return trie->max_age_minutes != 0 &&
           clock_minute(trie) - last_used_minute(node, holder) > trie->max_age_minutes;
}

bool holder_is_live(const struct hashtrie *trie, const struct node *node,
                    const struct holder *holder)
{
    const struct endpoint *endpoint = &trie->endpoints[holder->endpoint];
    uint32_t now_kib = endpoint_odometer_kib(endpoint);
    uint32_t moved_kib = now_kib - holder->odometer_kib;
    if (endpoint->name == NULL || moved_kib > now_kib - endpoint->fence) {
        return false;
    }
    if (endpoint->capacity_kib != 0 &&
        (moved_kib > endpoint->capacity_kib || moved_kib > now_kib - endpoint->evicted_kib)) {
        return false;
    }
    return !is_too_old(trie, node, holder);
}

/* Words of the block for `count` entries; one lies in the node. */
static uint32_t block_words(uint32_t count)
{
    return count > 1 && count != TRIE_HELD_BY_ALL ? count * HOLDER_WORDS : 0;
}

/* One more than `count` entries lie where `count` do. */
static bool one_more_fits(uint32_t count)
{
    return count == 0 ||
           (count > 1 && block_bytes(block_words(count)) == block_bytes(block_words(count + 1)));
}

size_t holders_bytes(const struct node *node)
{
    return block_bytes(block_words(node->holder_count));
}

static void find_holders(struct holder_piece *piece)
{
    piece->at = (void *)piece->words.words;
    piece->count = piece->words.count / HOLDER_WORDS;
}

struct holder_piece holders_first(const struct hashtrie *trie, struct node *node)
{
    uint32_t count = node->holder_count;
    if (count == TRIE_HELD_BY_ALL) {
        return (struct holder_piece){.count = 0};
    }
    if (count <= 1) {
        return (struct holder_piece){.at = &node->holders.one, .count = count};
    }
    struct holder_piece piece = {
        .words = block_first(&trie->cells, node->holders.block, block_words(count))};
    find_holders(&piece);
    return piece;
}

void holders_next(const struct hashtrie *trie, struct holder_piece *piece)
{
    block_next(&trie->cells, &piece->words);
    find_holders(piece);
}

struct holder *holders_find(const struct hashtrie *trie, struct node *node,
                            hashtrie_endpoint endpoint)
{
    struct holder_piece piece = holders_first(trie, node);
    for (; piece.count > 0; holders_next(trie, &piece)) {
        for (uint32_t i = 0; i < piece.count; i++) {
            if (piece.at[i].endpoint == endpoint) {
                // cppcheck-suppress returnDanglingLifetime ; it lies in a cell or the caller's node
                return &piece.at[i];
            }
        }
    }
    return NULL;
}

/* Copies the live ones to `to`, which has room for HASHTRIE_HOLDERS_MAX. */
static uint32_t copy_live(const struct hashtrie *trie, struct node *node, struct holder *to)
{
    uint32_t count = 0;
    struct holder_piece piece = holders_first(trie, node);
    for (; piece.count > 0; holders_next(trie, &piece)) {
        for (uint32_t i = 0; i < piece.count; i++) {
            if (holder_is_live(trie, node, &piece.at[i])) {
                to[count++] = piece.at[i];
            }
        }
    }
    return count;
}

void holders_free(struct hashtrie *trie, struct node *node)
{
    block_give(&trie->cells, node->holders.block, block_words(node->holder_count));
    node->holder_count = 0;
}

void holders_set_all(struct hashtrie *trie, struct node *node)
{
    holders_free(trie, node);
    node->holder_count = TRIE_HELD_BY_ALL;
}

/* Puts `count` entries into the node and its block, which has room. */
static void write_entries(const struct hashtrie *trie, struct node *node,
                          const struct holder *entries, uint32_t count)
{
    node_set_holder_count(node, count);
    struct holder_piece piece = holders_first(trie, node);
    for (; piece.count > 0; holders_next(trie, &piece)) {
        memcpy(piece.at, entries, piece.count * sizeof *entries);
        entries += piece.count;
    }
}

/* Takes `count` entries as the node's own. False: no room, nothing changed. */
static bool replace(struct hashtrie *trie, struct node *node, const struct holder *entries,
                    uint32_t count)
{
    uint32_t block = NODE_NONE;
    if (!block_take(trie, block_words(count), &block)) {
        return false;
    }
    holders_free(trie, node);
    if (count > 1) {
        node->holders.block = block;
    }
    write_entries(trie, node, entries, count);
    return true;
}

bool holders_copy(struct hashtrie *trie, struct node *to, struct node *from)
{
    REQUIRE(to->holder_count == 0);
    if (from->holder_count == TRIE_HELD_BY_ALL) {
        to->holder_count = TRIE_HELD_BY_ALL;
        return true;
    }
    struct holder live[HASHTRIE_HOLDERS_MAX];
    return replace(trie, to, live, copy_live(trie, from, live));
}

/* Adds an entry for an endpoint that has none: dead ones make room; past the maximum all count as
 * holders. */
static bool add(struct hashtrie *trie, struct node *node, struct holder holder)
{
    uint32_t count = node->holder_count;
    if (count == HASHTRIE_HOLDERS_MAX || !one_more_fits(count)) {
        struct holder live[HASHTRIE_HOLDERS_MAX + 1];
        count = copy_live(trie, node, live);
        live[count++] = holder;
        if (count > HASHTRIE_HOLDERS_MAX) {
            holders_set_all(trie, node);
            return true;
        }
        return replace(trie, node, live, count);
    }
    node_set_holder_count(node, count + 1);
    struct holder_piece piece = holders_first(trie, node);
    while (piece.words.left > 0) {
        holders_next(trie, &piece);
    }
    CHECK(piece.at != NULL);
    piece.at[piece.count - 1] = holder;
    return true;
}

/* The odometer moved by enough to be worth a write of the node's state. */
static bool odometer_moved(const struct hashtrie *trie, const struct holder *old, uint32_t now_kib)
{
    uint32_t capacity_kib = trie->endpoints[old->endpoint].capacity_kib;
    return capacity_kib != 0 && now_kib - old->odometer_kib > capacity_kib / ODOMETER_STATE_PARTS;
}

/*
 * Minutes have 16 bits: an entry that nobody uses, on a node that others do, would look fresh again
 * after 45 days. Well before that it is put below its endpoint's fence.
 */
static void forget_old(struct hashtrie *trie, struct node *node)
{
    uint32_t then = node->bucket / MINUTE_BUCKETS / FORGET_MINUTES;
    if (trie->max_age_minutes == 0 || then == clock_minute(trie) / FORGET_MINUTES) {
        return;
    }
    struct holder_piece piece = holders_first(trie, node);
    for (; piece.count > 0; holders_next(trie, &piece)) {
        for (uint32_t i = 0; i < piece.count; i++) {
            if (is_too_old(trie, node, &piece.at[i])) {
                piece.at[i].odometer_kib = trie->endpoints[piece.at[i].endpoint].fence - 1;
            }
        }
    }
}

int holders_touch(struct hashtrie *trie, struct node *node, hashtrie_endpoint endpoint)
{
    forget_old(trie, node);
    bool changed = node->bucket != trie->bucket;
    node->bucket = trie->bucket;
    if (node->holder_count == TRIE_HELD_BY_ALL) {
        return changed ? NODE_STATE : 0;
    }
    struct holder now = {.endpoint = endpoint,
                         .age_minute = (uint16_t)clock_minute(trie),
                         .odometer_kib = endpoint_odometer_kib(&trie->endpoints[endpoint])};
    struct holder *known = holders_find(trie, node, endpoint);
    bool was_live = known != NULL && holder_is_live(trie, node, known);
    recent_use(&trie->endpoints[endpoint], node->length, was_live,
               was_live ? now.odometer_kib - known->odometer_kib : 0);
    if (known == NULL) {
        return add(trie, node, now) ? NODE_STATE : -1;
    }
    changed = changed || !was_live || odometer_moved(trie, known, now.odometer_kib);
    *known = now;
    return changed ? NODE_STATE : 0;
}

bool holders_join(struct hashtrie *trie, struct node *node, struct holder holder)
{
    if (node->holder_count == TRIE_HELD_BY_ALL) {
        return true;
    }
    struct holder *known = holders_find(trie, node, holder.endpoint);
    if (known == NULL) {
        return add(trie, node, holder);
    }
    if ((int32_t)(holder.odometer_kib - known->odometer_kib) > 0) {
        known->odometer_kib = holder.odometer_kib;
    }
    if ((int16_t)(uint16_t)(holder.age_minute - known->age_minute) > 0) {
        known->age_minute = holder.age_minute;
    }
    return true;
}

size_t holders_store(const struct hashtrie *trie, struct node *node, struct trie_stored_holder *to)
{
    struct holder live[HASHTRIE_HOLDERS_MAX];
    uint32_t count = copy_live(trie, node, live);
    for (uint32_t i = 0; i < count; i++) {
        const struct endpoint *endpoint = &trie->endpoints[live[i].endpoint];
        to[i] = (struct trie_stored_holder){
            .id = endpoint->id,
            .last_used_s = last_used_minute(node, &live[i]) * SECONDS_PER_MINUTE,
            .odometer_kib = live[i].odometer_kib + endpoint->stored_ahead};
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
        if (!too_old && holder_is_live(trie, node, &holder) && !holders_join(trie, node, holder)) {
            *failed = true;
        }
    }
    return before != node->holder_count;
}
