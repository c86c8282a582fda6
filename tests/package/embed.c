/* A program outside the tree that embeds the library: what an installed copy has to be good for. */
#include <hashtrie/hashtrie.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    struct hashtrie_options options = hashtrie_options_default((size_t)1 << 20);
    struct hashtrie *trie = NULL;
    hashtrie_endpoint endpoint = 0;
    char prompt[1000];
    uint64_t hashes[8];
    struct hashtrie_match match;
    memset(prompt, 'x', sizeof prompt);
    if (hashtrie_new(&options, &trie) != HASHTRIE_OK ||
        hashtrie_endpoint_add(trie, "http://engine:8000", "model", &endpoint) != HASHTRIE_OK) {
        return 1;
    }
    struct hashtrie_key key = {.namespace_hash = hashtrie_hash_namespace("model", 5),
                               .hashes = hashes};
    key.count = hashtrie_hash_chunks(key.namespace_hash, prompt, sizeof prompt,
                                     HASHTRIE_CHUNK_SIZE_DEFAULT, hashes, 8);
    if (hashtrie_insert(trie, &key, endpoint, 0) != HASHTRIE_OK) {
        return 1;
    }
    hashtrie_match(trie, &key, 0, &match);
    (void)printf("%s %zu\n", hashtrie_version(), match.chunk_count);
    hashtrie_free(trie);
    return match.chunk_count == 7 ? 0 : 1;
}
