#include "support/memory_store.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

enum { RECORDS_MAX = 20000, BATCH_BYTES = 1 << 20, ENDPOINTS_MAX = 256, TEXT_BYTES = 32 };

struct stored_endpoint {
    uint32_t id;
    uint32_t odometer_kib;
    char name[TEXT_BYTES]; /* Longer texts are cut off. */
    char generation[TEXT_BYTES];
};

struct stored {
    struct trie_record record;
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
};

struct memory_store {
    struct hashtrie *trie;
    struct mem *mem;
    struct trie_batch batch;
    struct stored *records[RECORDS_MAX];
    size_t count;
    struct stored_endpoint endpoints[ENDPOINTS_MAX];
    size_t endpoint_count;
    uint32_t next_endpoint_id;
};

static void on_wake(void *user)
{
    (void)user;
}

struct memory_store *memory_store_new(struct hashtrie *trie, struct mem *mem)
{
    struct memory_store *store = mem_alloc_zero(mem, sizeof *store);
    CHECK(store != NULL);
    store->trie = trie;
    store->mem = mem;
    store->next_endpoint_id = 1;
    CHECK(trie_batch_init(&store->batch, mem, BATCH_BYTES) == HASHTRIE_OK);
    trie_attach(trie, on_wake, store, 0, 1);
    return store;
}

void memory_store_free(struct memory_store *store)
{
    trie_attach(store->trie, NULL, NULL, 0, 1);
    trie_batch_fini(&store->batch);
    for (size_t i = 0; i < store->count; i++) {
        mem_free(store->mem, store->records[i], sizeof *store->records[i]);
    }
    mem_free(store->mem, store, sizeof *store);
}

void memory_store_detach(struct memory_store *store)
{
    while (trie_batch_release(store->trie, &store->batch)) {
    }
    trie_attach(store->trie, NULL, NULL, 0, 1);
}

void memory_store_attach(struct memory_store *store, struct hashtrie *trie)
{
    store->trie = trie;
    trie_attach(trie, on_wake, store, 0, store->next_endpoint_id);
    for (size_t i = 0; i < store->endpoint_count; i++) {
        const struct stored_endpoint *stored = &store->endpoints[i];
        struct trie_endpoint endpoint = {.id = stored->id,
                                         .odometer_kib = stored->odometer_kib,
                                         .name = stored->name,
                                         .model = "",
                                         .generation = stored->generation};
        CHECK(trie_endpoint_restore(trie, &endpoint) == HASHTRIE_OK);
    }
}

/* Every transaction writes the endpoints as they are when it commits. */
static void write_endpoints(struct memory_store *store)
{
    store->endpoint_count = 0;
    store->next_endpoint_id = trie_endpoint_next_id(store->trie);
    for (size_t slot = 0; slot < trie_endpoint_slot_count(store->trie); slot++) {
        struct trie_endpoint endpoint;
        if (trie_endpoint_get(store->trie, slot, &endpoint)) {
            CHECK(store->endpoint_count < ENDPOINTS_MAX);
            struct stored_endpoint *stored = &store->endpoints[store->endpoint_count++];
            *stored =
                (struct stored_endpoint){.id = endpoint.id, .odometer_kib = endpoint.odometer_kib};
            (void)snprintf(stored->name, TEXT_BYTES, "%s", endpoint.name);
            (void)snprintf(stored->generation, TEXT_BYTES, "%s", endpoint.generation);
        }
    }
}

static struct stored *find(const struct memory_store *store, uint64_t prefix, uint32_t fp)
{
    for (size_t i = 0; i < store->count; i++) {
        if (store->records[i]->record.prefix == prefix && store->records[i]->record.fp == fp) {
            return store->records[i];
        }
    }
    return NULL;
}

static void copy(struct stored *to, const struct trie_record *from)
{
    to->record = *from;
    memcpy(to->run, from->run, from->length * sizeof *from->run);
    to->record.run = to->run;
    to->record.holders = to->holders;
    if (from->holder_count != TRIE_HELD_BY_ALL) {
        memcpy(to->holders, from->holders, from->holder_count * sizeof *from->holders);
    }
}

void memory_store_take(struct memory_store *store, size_t count_max)
{
    (void)trie_batch_take(store->trie, &store->batch, count_max);
}

static void write_entry(struct memory_store *store, struct trie_entry *entry)
{
    const struct trie_record *record = &entry->record;
    struct stored *known = find(store, record->prefix, record->fp);
    if (entry->first_write && known != NULL) {
        entry->outcome = TRIE_CONFLICT;
        entry->found = &known->record;
        return;
    }
    if (!entry->structure && (known == NULL || known->record.end != record->end)) {
        entry->outcome = TRIE_GONE;
        return;
    }
    if (known == NULL) {
        CHECK(store->count < RECORDS_MAX);
        known = mem_alloc_zero(store->mem, sizeof *known);
        CHECK(known != NULL);
        store->records[store->count++] = known;
    }
    copy(known, record);
    entry->outcome = TRIE_WRITTEN;
}

void memory_store_write(struct memory_store *store, bool fail)
{
    for (size_t i = 0; i < store->batch.count; i++) {
        if (fail) {
            store->batch.entries[i].outcome = TRIE_FAILED;
        } else {
            write_entry(store, &store->batch.entries[i]);
        }
    }
    if (!fail) {
        write_endpoints(store);
    }
}

bool memory_store_release(struct memory_store *store)
{
    return trie_batch_release(store->trie, &store->batch);
}

void memory_store_commit(struct memory_store *store, bool fail)
{
    memory_store_write(store, fail);
    while (memory_store_release(store)) {
    }
}

void memory_store_forget(struct memory_store *store, size_t number)
{
    if (store->count > 0) {
        struct stored **gone = &store->records[number % store->count];
        mem_free(store->mem, *gone, sizeof **gone);
        *gone = store->records[--store->count];
    }
}

static uint64_t hash_before(const struct hashtrie_key *key, size_t depth)
{
    return depth == 0 ? key->namespace_hash : key->hashes[depth - 1];
}

/* The record that goes on with the key at `depth`, checked as a reader checks it. */
static const struct trie_record *next_record(const struct memory_store *store,
                                             const struct hashtrie_key *key, size_t depth)
{
    struct stored *known = find(store, hash_before(key, depth), (uint32_t)key->hashes[depth]);
    if (known == NULL || known->record.depth != depth) {
        return NULL;
    }
    size_t end = depth + known->record.length;
    bool whole = end <= key->count;
    return whole && key->hashes[end - 1] != known->record.end &&
                   known->run[known->record.length - 1] == (uint32_t)key->hashes[end - 1]
               ? NULL
               : &known->record;
}

void memory_store_reload(struct memory_store *store, const struct hashtrie_key *key)
{
    size_t depth = trie_known_length(store->trie, key);
    while (depth < key->count) {
        const struct trie_record *record = next_record(store, key, depth);
        if (record == NULL || trie_graft(store->trie, key, record) != HASHTRIE_OK) {
            break;
        }
        size_t known = trie_known_length(store->trie, key);
        if (known == depth) {
            break;
        }
        depth = known;
    }
}

static bool holds(const struct trie_record *record, uint32_t id)
{
    bool found = record->holder_count == TRIE_HELD_BY_ALL;
    for (uint32_t i = 0; i < record->holder_count && !found; i++) {
        found = record->holders[i].id == id;
    }
    return found;
}

uint32_t memory_store_length(const struct memory_store *store, const struct hashtrie_key *key,
                             uint32_t id)
{
    uint32_t depth = 0;
    while (depth < key->count) {
        const struct trie_record *record = next_record(store, key, depth);
        if (record == NULL || !holds(record, id)) {
            break;
        }
        uint32_t same = 0;
        while (same < record->length && depth + same < key->count &&
               record->run[same] == (uint32_t)key->hashes[depth + same]) {
            same++;
        }
        depth += same;
        if (same < record->length) {
            break;
        }
    }
    return depth;
}
