/* embed DIR ENGINE < PROMPT: who holds how much of it? If nobody: ENGINE. DIR remembers. */
#include <hashtrie/hashtrie.h>
#include <semaphore.h>
#include <stdio.h>
#include <time.h>

static void on_reload(void *done, enum hashtrie_status status)
{
    (void)status; /* Whatever it is: the next match tells. */
    sem_post(done);
}

static enum hashtrie_status route(struct hashtrie *trie, struct hashtrie_store *store,
                                  const struct hashtrie_key *key, hashtrie_endpoint engine)
{
    sem_t done;
    struct hashtrie_match match;
    hashtrie_match(trie, key, (uint64_t)time(NULL), &match);
    if (hashtrie_store_may_have(store, key, match.chunk_count) && sem_init(&done, 0, 0) == 0) {
        hashtrie_unlock(trie);
        if (hashtrie_store_reload(store, key, match.chunk_count, on_reload, &done) == HASHTRIE_OK) {
            sem_wait(&done);
        }
        hashtrie_lock(trie);
        hashtrie_match(trie, key, (uint64_t)time(NULL), &match);
    }
    for (size_t i = match.holder_count; i-- > 0; engine = match.holders[i].endpoint) {
        const char *name = hashtrie_endpoint_name(trie, match.holders[i].endpoint);
        printf("%s holds %zu chunks, ", name, (size_t)match.holders[i].chunk_count);
    }
    printf("%zu chunks sent to %s\n", key->count, hashtrie_endpoint_name(trie, engine));
    return hashtrie_insert(trie, key, engine, (uint64_t)time(NULL));
}

int main(int argc, char **argv)
{
    static uint64_t hashes[8192];
    static char prompt[8192 * HASHTRIE_CHUNK_SIZE_DEFAULT];
    struct hashtrie_options options = hashtrie_options_default((size_t)64 << 20);
    struct hashtrie_store_options disk = hashtrie_store_options_default(argc == 3 ? argv[1] : "");
    struct hashtrie *trie = NULL;
    struct hashtrie_store *store = NULL;
    hashtrie_endpoint engine = 0;
    struct hashtrie_key key = {hashtrie_hash_namespace("model", 5), hashes, 0};
    size_t size = fread(prompt, 1, sizeof prompt, stdin);
    key.count = hashtrie_hash_chunks(key.namespace_hash, prompt, size, 128, hashes, 8192);
    enum hashtrie_status status = hashtrie_new(&options, &trie);
    status = status ? status : hashtrie_store_open(trie, &disk, &store);
    if (status == HASHTRIE_OK) {
        hashtrie_lock(trie); /* The store's threads use the trie as well. */
        status = hashtrie_endpoint_add(trie, argv[2], "model", &engine);
        status = status ? status : route(trie, store, &key, engine);
        hashtrie_unlock(trie);
    }
    enum hashtrie_status closed = hashtrie_store_close(store, 5000); /* Writes what is new. */
    hashtrie_free(trie);
    puts(hashtrie_strerror(status ? status : closed));
    return status || closed;
}
