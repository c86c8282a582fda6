/*
 * fill-store DIR SIZE_MIB [ENDPOINT ...]: writes random conversations into a store until its file
 * has that size, for measuring restarts and reads of large stores. Prints one line of figures.
 */
#include <stdio.h>
#include <stdlib.h>

#include "hashtrie/hashtrie.h"

#include "base/clock.h"
#include "base/random.h"

enum { CHUNKS_MAX = 2000, ENDPOINTS_MAX = 16, CHECK_EVERY = 64, CLOSE_MS = 60000 };

static void check(enum hashtrie_status status, const char *what)
{
    if (status != HASHTRIE_OK) {
        (void)fprintf(stderr, "fill-store: %s: %s\n", what, hashtrie_strerror(status));
        exit(1);
    }
}

/* One conversation of a few turns, each of some chunks, sent to one endpoint. */
static size_t converse(struct hashtrie *trie, struct random *random, hashtrie_endpoint endpoint)
{
    uint64_t hashes[CHUNKS_MAX];
    struct hashtrie_key key = {.namespace_hash = 1, .hashes = hashes};
    size_t turns = 1 + random_below(random, 5);
    for (size_t i = 0; i < turns; i++) {
        size_t end = key.count + 1 + random_below(random, CHUNKS_MAX / 5 - 1);
        while (key.count < end) {
            hashes[key.count++] = random_next(random);
        }
        hashtrie_lock(trie);
        enum hashtrie_status status =
            hashtrie_insert(trie, &key, endpoint, clock_unix_ns() / CLOCK_NS_PER_S);
        hashtrie_unlock(trie);
        check(status, "cannot insert");
    }
    return key.count;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        (void)fprintf(stderr, "usage: fill-store DIR SIZE_MIB [ENDPOINT ...]\n");
        return 2;
    }
    uint64_t size = strtoull(argv[2], NULL, 10) << 20;
    struct hashtrie_options options = hashtrie_options_default((size_t)256 << 20);
    struct hashtrie *trie = NULL;
    check(hashtrie_new(&options, &trie), "cannot make a trie");
    struct hashtrie_store_options store_options = hashtrie_store_options_default(argv[1]);
    store_options.max_bytes =
        size * 2 > HASHTRIE_STORE_BYTES_MIN ? size * 2 : HASHTRIE_STORE_BYTES_MIN;
    struct hashtrie_store *store = NULL;
    check(hashtrie_store_open(trie, &store_options, &store), "cannot open the store");
    hashtrie_endpoint endpoints[ENDPOINTS_MAX];
    size_t endpoint_count = 0;
    static char *fallback[] = {"http://127.0.0.1:9001"};
    char **names = argc > 3 ? argv + 3 : fallback;
    size_t name_count = argc > 3 ? (size_t)argc - 3 : 1;
    for (; endpoint_count < name_count && endpoint_count < ENDPOINTS_MAX; endpoint_count++) {
        check(hashtrie_endpoint_add(trie, names[endpoint_count], "m", &endpoints[endpoint_count]),
              "cannot add an endpoint");
    }
    struct random random = {.state = 1};
    struct hashtrie_store_stats stats = {0};
    uint64_t start = clock_monotonic_ns();
    size_t chunks = 0;
    while (stats.bytes < size) {
        for (int i = 0; i < CHECK_EVERY; i++) {
            chunks +=
                converse(trie, &random, endpoints[random_below(&random, (uint32_t)endpoint_count)]);
        }
        check(hashtrie_store_checkpoint(store, CLOSE_MS), "cannot write a checkpoint");
        hashtrie_store_get_stats(store, &stats);
    }
    double seconds = (double)(clock_monotonic_ns() - start) / 1e9;
    (void)printf("%.1f MiB, %llu rows, %zu chunks in %.1f s\n", (double)stats.bytes / (1 << 20),
                 (unsigned long long)stats.node_count, chunks, seconds);
    check(hashtrie_store_close(store, CLOSE_MS), "cannot close the store");
    hashtrie_free(trie);
    return 0;
}
