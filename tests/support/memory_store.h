/* A store in memory that plays the writer's and the reader's part towards the trie, one step at a
 * time. */
#ifndef HASHTRIE_TESTS_SUPPORT_MEMORY_STORE_H
#define HASHTRIE_TESTS_SUPPORT_MEMORY_STORE_H

#include "base/mem.h"
#include "trie/trie.h"

struct memory_store;

struct memory_store *memory_store_new(struct hashtrie *trie, struct mem *mem);
void memory_store_free(struct memory_store *store); /* Detaches; nothing may be in flight. */

/* As the router is killed: what is in flight is not committed. */
void memory_store_detach(struct memory_store *store);
/* To a new trie, which gets the endpoints as they were at the last commit. */
void memory_store_attach(struct memory_store *store, struct hashtrie *trie);

void memory_store_take(struct memory_store *store, size_t count_max);
void memory_store_commit(struct memory_store *store, bool fail); /* The next two in one. */
void memory_store_write(struct memory_store *store, bool fail);
bool memory_store_release(struct memory_store *store); /* A slice; true: more is left. */
/* As the cap deletes: the `number`-th record, modulo their count. Not between write and release. */
void memory_store_forget(struct memory_store *store, size_t number);
/* Grafts along the key until the store knows no more. */
void memory_store_reload(struct memory_store *store, const struct hashtrie_key *key);
/* Chunks of the key that the store alone knows endpoint `id` to hold. */
uint32_t memory_store_length(const struct memory_store *store, const struct hashtrie_key *key,
                             uint32_t id);

#endif
