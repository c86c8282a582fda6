/*
 * Endpoints: slots that holders name by 16-bit number. An endpoint's odometer never goes down, not
 * even when its slot is given to another, so a fence (a lower bound for live odometers) forgets all
 * entries of one in O(1).
 */
#include <string.h>

#include "trie/internal.h"

enum {
    ENDPOINT_CAPACITY_FIRST = 8,
    SLOT_GONE = HASHTRIE_ENDPOINTS_MAX, /* No slot has that number. */
    FENCE_FIRST_KIB = 1, /* Of an endpoint that got a slot of its own here and was never reset. */
    FENCE_SPAN_KIB =
        1 << 30, /* 1 TiB: a fence follows at this distance, so that modulo 2^32 none overtakes. */
};

struct endpoint *endpoint_at(struct hashtrie *trie, hashtrie_endpoint endpoint)
{
    if (endpoint >= trie->endpoint_count || trie->endpoints[endpoint].name == NULL) {
        return NULL;
    }
    return &trie->endpoints[endpoint];
}

/* First position in `ids` whose id is not below. */
static size_t id_position(const struct hashtrie *trie, uint32_t id)
{
    size_t low = 0;
    size_t high = trie->id_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trie->ids[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool id_is_at(const struct hashtrie *trie, size_t position, uint32_t id)
{
    return position < trie->id_count && trie->ids[position].id == id;
}

int endpoint_slot_of_id(const struct hashtrie *trie, uint32_t id)
{
    size_t position = id_position(trie, id);
    bool found = id_is_at(trie, position, id) && trie->ids[position].slot != SLOT_GONE;
    return found ? trie->ids[position].slot : -1;
}

/* Leaves out the ids of endpoints that have gone. */
static void ids_compact(struct hashtrie *trie)
{
    size_t kept = 0;
    for (size_t i = 0; i < trie->id_count; i++) {
        if (trie->ids[i].slot != SLOT_GONE) {
            trie->ids[kept++] = trie->ids[i];
        }
    }
    trie->id_count = kept;
}

static void id_insert(struct hashtrie *trie, uint32_t id, size_t slot)
{
    if (trie->id_count == trie->endpoint_capacity) {
        ids_compact(trie);
    }
    size_t position = id_position(trie, id);
    if (!id_is_at(trie, position, id)) { /* Else what is there has gone. */
        CHECK(trie->id_count < trie->endpoint_capacity);
        memmove(&trie->ids[position + 1], &trie->ids[position],
                (trie->id_count - position) * sizeof *trie->ids);
        trie->id_count++;
    }
    trie->ids[position] = (struct endpoint_id){.id = id, .slot = (hashtrie_endpoint)slot};
}

static void id_remove(struct hashtrie *trie, uint32_t id)
{
    size_t position = id_position(trie, id);
    CHECK(id_is_at(trie, position, id) && trie->ids[position].slot != SLOT_GONE);
    trie->ids[position].slot = SLOT_GONE;
}

static char *text_copy(struct hashtrie *trie, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(&trie->mem, size);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

static bool text_fits(const char *text)
{
    return strnlen(text, HASHTRIE_ENDPOINT_TEXT_MAX + 1) <= HASHTRIE_ENDPOINT_TEXT_MAX;
}

static bool slots_grow(struct hashtrie *trie)
{
    size_t old = trie->endpoint_capacity;
    size_t capacity = old == 0 ? ENDPOINT_CAPACITY_FIRST : old * 2;
    struct endpoint *endpoints = mem_alloc(&trie->mem, capacity * sizeof *endpoints);
    struct endpoint_id *ids = mem_alloc(&trie->mem, capacity * sizeof *ids);
    if (endpoints == NULL || ids == NULL) {
        mem_free(&trie->mem, endpoints, capacity * sizeof *endpoints);
        mem_free(&trie->mem, ids, capacity * sizeof *ids);
        return false;
    }
    if (old > 0) {
        memcpy(endpoints, trie->endpoints, trie->endpoint_count * sizeof *endpoints);
        memcpy(ids, trie->ids, trie->id_count * sizeof *ids);
    }
    mem_free(&trie->mem, trie->endpoints, old * sizeof *endpoints);
    mem_free(&trie->mem, trie->ids, old * sizeof *ids);
    trie->endpoints = endpoints;
    trie->ids = ids;
    trie->endpoint_capacity = capacity;
    return true;
}

/* A slot without an owner; SIZE_MAX: none left. `fresh`: one that never had an owner. */
static size_t slot_take(struct hashtrie *trie, bool fresh)
{
    for (size_t i = 0; i < trie->endpoint_count && !fresh; i++) {
        if (trie->endpoints[i].name == NULL) {
            return i;
        }
    }
    if (trie->endpoint_count == HASHTRIE_ENDPOINTS_MAX ||
        (trie->endpoint_count == trie->endpoint_capacity && !slots_grow(trie))) {
        return SIZE_MAX;
    }
    trie->endpoints[trie->endpoint_count] = (struct endpoint){0};
    return trie->endpoint_count++;
}

static bool slot_name(struct hashtrie *trie, size_t slot, const struct trie_endpoint *texts)
{
    char *name = text_copy(trie, texts->name);
    char *model = text_copy(trie, texts->model);
    char *generation = text_copy(trie, texts->generation);
    if (name == NULL || model == NULL || generation == NULL) {
        mem_free_text(&trie->mem, name);
        mem_free_text(&trie->mem, model);
        mem_free_text(&trie->mem, generation);
        return false;
    }
    struct endpoint *endpoint = &trie->endpoints[slot];
    endpoint->name = name;
    endpoint->model = model;
    endpoint->generation = generation;
    endpoint->id = texts->id;
    endpoint->capacity_kib = 0;
    endpoint->recent = NULL;
    endpoint->stored_ahead = 0;
    id_insert(trie, texts->id, slot);
    trie->endpoint_used++;
    return true;
}

static size_t slot_find(const struct hashtrie *trie, const char *name)
{
    for (size_t i = 0; i < trie->endpoint_count; i++) {
        if (trie->endpoints[i].name != NULL && strcmp(trie->endpoints[i].name, name) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* From here on no entry made so far is live. */
static void raise_fence(struct endpoint *endpoint)
{
    endpoint->odometer_bytes += 1024;
    endpoint->fence = endpoint_odometer_kib(endpoint);
}

void endpoint_charge(struct endpoint *endpoint, uint64_t bytes)
{
    endpoint->odometer_bytes += bytes;
    uint32_t now_kib = endpoint_odometer_kib(endpoint);
    if (now_kib - endpoint->fence > FENCE_SPAN_KIB) {
        endpoint->fence = now_kib - FENCE_SPAN_KIB;
    }
}

/* A known endpoint may serve another model now. False: no room. */
static bool set_model(struct hashtrie *trie, struct endpoint *endpoint, const char *model)
{
    if (strcmp(endpoint->model, model) == 0) {
        return true;
    }
    char *copy = text_copy(trie, model);
    if (copy == NULL) {
        return false;
    }
    mem_free_text(&trie->mem, endpoint->model);
    endpoint->model = copy;
    return true;
}

void endpoints_unsee(struct hashtrie *trie)
{
    for (size_t i = 0; i < trie->endpoint_count; i++) {
        trie->endpoints[i].match_seen = 0;
    }
}

enum hashtrie_status hashtrie_endpoint_add(struct hashtrie *trie, const char *name,
                                           const char *model, hashtrie_endpoint *out)
{
    if (!text_fits(name) || !text_fits(model) || name[0] == '\0') {
        return HASHTRIE_EINVAL;
    }
    size_t slot = slot_find(trie, name);
    if (slot != SIZE_MAX) {
        if (!set_model(trie, &trie->endpoints[slot], model)) {
            return HASHTRIE_EFULL;
        }
        *out = (hashtrie_endpoint)slot;
        return HASHTRIE_OK;
    }
    slot = slot_take(trie, false);
    if (slot == SIZE_MAX) {
        return HASHTRIE_EFULL;
    }
    struct trie_endpoint texts = {
        .id = trie->next_endpoint_id, .name = name, .model = model, .generation = ""};
    if (!slot_name(trie, slot, &texts)) {
        return HASHTRIE_EFULL;
    }
    trie->next_endpoint_id++;
    raise_fence(&trie->endpoints[slot]);
    *out = (hashtrie_endpoint)slot;
    return HASHTRIE_OK;
}

const char *hashtrie_endpoint_name(const struct hashtrie *trie, hashtrie_endpoint endpoint)
{
    return endpoint < trie->endpoint_count ? trie->endpoints[endpoint].name : NULL;
}

enum hashtrie_status hashtrie_endpoint_remove(struct hashtrie *trie, hashtrie_endpoint endpoint)
{
    struct endpoint *gone = endpoint_at(trie, endpoint);
    if (gone == NULL) {
        return HASHTRIE_EINVAL;
    }
    id_remove(trie, gone->id);
    trie->endpoint_used--;
    raise_fence(gone);
    recent_free(trie, gone);
    mem_free_text(&trie->mem, gone->name);
    mem_free_text(&trie->mem, gone->model);
    mem_free_text(&trie->mem, gone->generation);
    gone->name = NULL;
    gone->model = NULL;
    gone->generation = NULL;
    return HASHTRIE_OK;
}

enum hashtrie_status trie_endpoint_refine(struct hashtrie *trie, size_t slot,
                                          const char *generation)
{
    struct endpoint *known = endpoint_at(trie, (hashtrie_endpoint)slot);
    REQUIRE(known != NULL);
    if (strcmp(known->generation, generation) == 0) {
        return HASHTRIE_OK;
    }
    char *copy = text_copy(trie, generation);
    if (copy == NULL) {
        return HASHTRIE_EFULL;
    }
    mem_free_text(&trie->mem, known->generation);
    known->generation = copy;
    return HASHTRIE_OK;
}

enum hashtrie_status hashtrie_endpoint_set_generation(struct hashtrie *trie,
                                                      hashtrie_endpoint endpoint,
                                                      const char *generation)
{
    struct endpoint *known = endpoint_at(trie, endpoint);
    if (known == NULL || !text_fits(generation) || generation[0] == '\0') {
        return HASHTRIE_EINVAL;
    }
    bool another = strcmp(known->generation, generation) != 0 && known->generation[0] != '\0';
    enum hashtrie_status status = trie_endpoint_refine(trie, endpoint, generation);
    if (status == HASHTRIE_OK && another) { /* Another start of the engine: a new incarnation. */
        id_remove(trie, known->id);
        known->id = trie->next_endpoint_id++;
        id_insert(trie, known->id, endpoint);
        raise_fence(known);
    }
    return status;
}

enum hashtrie_status hashtrie_endpoint_set_capacity(struct hashtrie *trie,
                                                    hashtrie_endpoint endpoint, uint64_t bytes)
{
    struct endpoint *known = endpoint_at(trie, endpoint);
    if (known == NULL) {
        return HASHTRIE_EINVAL;
    }
    uint64_t kib = bytes == 0 ? 0 : bytes / 1024 + 1;
    uint32_t capacity_kib = kib > INT32_MAX ? INT32_MAX : (uint32_t)kib;
    if (capacity_kib != known->capacity_kib) {
        known->capacity_kib = capacity_kib;
        recent_start(trie, known);
    }
    return HASHTRIE_OK;
}

/* ---- As stored ---- */

bool trie_endpoint_get(const struct hashtrie *trie, size_t slot, struct trie_endpoint *out)
{
    REQUIRE(slot < trie->endpoint_count);
    const struct endpoint *endpoint = &trie->endpoints[slot];
    if (endpoint->name == NULL) {
        return false;
    }
    *out = (struct trie_endpoint){.id = endpoint->id,
                                  .odometer_kib =
                                      endpoint_odometer_kib(endpoint) + endpoint->stored_ahead,
                                  .name = endpoint->name,
                                  .model = endpoint->model,
                                  .generation = endpoint->generation};
    return true;
}

size_t trie_endpoint_slot_count(const struct hashtrie *trie)
{
    return trie->endpoint_count;
}

uint32_t trie_endpoint_next_id(const struct hashtrie *trie)
{
    return trie->next_endpoint_id;
}

/* Later ones get ids past a stored one, whatever the store says is next. */
static void id_is_taken(struct hashtrie *trie, uint32_t id)
{
    if (trie->next_endpoint_id <= id) {
        trie->next_endpoint_id = id + 1;
    }
}

enum hashtrie_status trie_endpoint_restore(struct hashtrie *trie,
                                           const struct trie_endpoint *endpoint)
{
    if (!text_fits(endpoint->name) || !text_fits(endpoint->model) ||
        !text_fits(endpoint->generation) || endpoint->name[0] == '\0' ||
        endpoint->id > TRIE_STORED_ID_MAX) {
        return HASHTRIE_EINVAL;
    }
    if (slot_find(trie, endpoint->name) != SIZE_MAX ||
        endpoint_slot_of_id(trie, endpoint->id) >= 0) {
        return HASHTRIE_EEXIST;
    }
    size_t slot = slot_take(trie, true); /* A used slot's odometer runs on another scale. */
    if (slot == SIZE_MAX) {
        return HASHTRIE_EFULL;
    }
    if (!slot_name(trie, slot, endpoint)) {
        return HASHTRIE_EFULL;
    }
    struct endpoint *restored = &trie->endpoints[slot];
    restored->odometer_bytes = (uint64_t)endpoint->odometer_kib << 10;
    /* All that is stored of it lies above, and there is as much room again for what is still to
     * come. */
    restored->fence = endpoint->odometer_kib - FENCE_SPAN_KIB;
    id_is_taken(trie, endpoint->id);
    return HASHTRIE_OK;
}

bool trie_endpoint_agrees(const struct hashtrie *trie, const struct trie_endpoint *endpoint)
{
    int slot = endpoint_slot_of_id(trie, endpoint->id);
    return slot < 0 || strcmp(trie->endpoints[slot].name, endpoint->name) == 0;
}

void trie_endpoints_renumber(struct hashtrie *trie, uint32_t first_id)
{
    REQUIRE(trie->batch == NULL); /* Its holders have the old ids. */
    trie->id_count = 0;
    trie->next_endpoint_id = first_id;
    for (size_t slot = 0; slot < trie->endpoint_count; slot++) {
        if (trie->endpoints[slot].name != NULL) {
            trie->endpoints[slot].id = trie->next_endpoint_id++;
            id_insert(trie, trie->endpoints[slot].id, slot);
        }
    }
}

enum hashtrie_status trie_endpoint_adopt(struct hashtrie *trie,
                                         const struct trie_endpoint *endpoint)
{
    if (endpoint->id > TRIE_STORED_ID_MAX) {
        return HASHTRIE_EINVAL;
    }
    size_t slot = slot_find(trie, endpoint->name);
    if (slot == SIZE_MAX || endpoint_slot_of_id(trie, endpoint->id) >= 0) {
        return HASHTRIE_EEXIST;
    }
    struct endpoint *known = &trie->endpoints[slot];
    bool told = known->generation[0] != '\0';
    bool same = !told || endpoint->generation[0] == '\0' ||
                strcmp(known->generation, endpoint->generation) == 0;
    if (!same || known->fence != FENCE_FIRST_KIB || !text_fits(endpoint->generation)) {
        return HASHTRIE_EEXIST;
    }
    char *generation = text_copy(trie, told ? known->generation : endpoint->generation);
    if (generation == NULL) {
        return HASHTRIE_EFULL;
    }
    mem_free_text(&trie->mem, known->generation);
    known->generation = generation;
    id_remove(trie, known->id);
    known->id = endpoint->id;
    id_insert(trie, known->id, slot);
    id_is_taken(trie, known->id);
    /* Where it began here is where it ended there: what is stored lies below. */
    known->stored_ahead = endpoint->odometer_kib - FENCE_FIRST_KIB;
    known->fence = (uint32_t)FENCE_FIRST_KIB - FENCE_SPAN_KIB;
    return HASHTRIE_OK;
}

void endpoints_fini(struct hashtrie *trie)
{
    for (size_t i = 0; i < trie->endpoint_count; i++) {
        recent_free(trie, &trie->endpoints[i]);
        mem_free_text(&trie->mem, trie->endpoints[i].name);
        mem_free_text(&trie->mem, trie->endpoints[i].model);
        mem_free_text(&trie->mem, trie->endpoints[i].generation);
    }
    mem_free(&trie->mem, trie->endpoints, trie->endpoint_capacity * sizeof *trie->endpoints);
    mem_free(&trie->mem, trie->ids, trie->endpoint_capacity * sizeof *trie->ids);
}
