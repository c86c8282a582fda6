/*
 * ledger_check DIR LEDGER
 *
 * Whether the store in DIR, which no router has open, knows all that a ledger says. A line of the
 * ledger is "URL MODEL BODY": the request with that body went to that engine. Each must be found as
 * a router finds it (reloads included), held by that engine to its end. Prints what is missing;
 * exits 0 if nothing is.
 */
#include <stdio.h>

#include "base/buf.h"
#include "prompt/prompt.h"
#include "unit/store_support.h"

enum { LINE_BYTES_MAX = 4 << 20, TOLD_MAX = 10 };

struct check {
    struct test_store test;
    struct mem mem;
    struct prompt_reader *reader;
    struct test_key key;
    struct buf namespace_bytes;
};

static void to_buf(void *user, const void *bytes, size_t size)
{
    assert_true(buf_append(user, bytes, size));
}

static void to_hasher(void *user, const void *bytes, size_t size)
{
    hashtrie_hasher_update(user, bytes, size);
}

static void on_event(void *user, enum hashtrie_event_level level, const char *text)
{
    (void)user;
    if (level != HASHTRIE_EVENT_INFO) {
        (void)printf("store: %s\n", text);
    }
}

/* As the router does it. */
static void make_key(struct check *check, const char *body, size_t size)
{
    struct prompt prompt;
    struct hashtrie_hasher hasher;
    struct test_key *key = &check->key;
    assert_int_equal(prompt_read(check->reader, body, size, &prompt), PROMPT_OK);
    check->namespace_bytes.size = 0;
    assert_int_equal(prompt_namespace(&prompt, prompt.model, to_buf, &check->namespace_bytes),
                     PROMPT_OK);
    key->namespace_hash =
        hashtrie_hash_namespace(check->namespace_bytes.data, check->namespace_bytes.size);
    hashtrie_hasher_init(&hasher, key->namespace_hash, HASHTRIE_CHUNK_SIZE_DEFAULT, key->hashes,
                         TEST_KEY_CHUNKS_MAX);
    assert_int_equal(prompt_key(&prompt, to_hasher, &hasher), PROMPT_OK);
    key->count = (uint32_t)hasher.count;
    prompt_release(check->reader);
}

/* True: it is there. */
static bool check_line(struct check *check, char *line, size_t number, bool tell)
{
    char *rest = NULL;
    const char *url = strtok_r(line, " ", &rest);
    const char *model = strtok_r(NULL, " ", &rest);
    assert_true(url != NULL && model != NULL && *rest == '{');
    hashtrie_endpoint endpoint = 0;
    hashtrie_lock(check->test.trie);
    enum hashtrie_status status = hashtrie_endpoint_add(check->test.trie, url, model, &endpoint);
    hashtrie_unlock(check->test.trie);
    assert_int_equal(status, HASHTRIE_OK);
    make_key(check, rest, strcspn(rest, "\n"));
    struct hashtrie_match match = test_store_recall(&check->test, &check->key);
    uint32_t held = test_store_held(&match, endpoint);
    if (held < check->key.count && tell) {
        (void)printf("line %zu: %s holds %u of %u chunks, %zu are known\n", number, url, held,
                     check->key.count, match.chunk_count);
    }
    return held >= check->key.count;
}

static size_t check_all(struct check *check, FILE *ledger)
{
    static char line[LINE_BYTES_MAX];
    size_t missing = 0;
    size_t number = 0;
    while (fgets(line, sizeof line, ledger) != NULL) {
        missing += !check_line(check, line, ++number, missing < TOLD_MAX);
    }
    (void)printf("%zu of %zu are missing\n", missing, number);
    return missing;
}

int main(int argc, char **argv)
{
    static struct check check;
    FILE *ledger = argc == 3 ? fopen(argv[2], "re") : NULL;
    if (ledger == NULL) {
        (void)fprintf(stderr, "usage: ledger_check DIR LEDGER\n");
        return 2;
    }
    test_store_init(&check.test);
    check.test.options.directory = argv[1];
    check.test.options.on_event = on_event;
    check.test.options.max_bytes = UINT64_C(1) << 30; /* Deletes nothing. */
    check.test.budget = (size_t)256 << 20;
    mem_init(&check.mem, SIZE_MAX);
    buf_init(&check.namespace_bytes, &check.mem, LINE_BYTES_MAX);
    check.reader = prompt_reader_new(&check.mem);
    test_store_open(&check.test);
    size_t missing = check_all(&check, ledger);
    test_store_close(&check.test);
    test_store_fini(&check.test);
    prompt_reader_free(check.reader);
    buf_fini(&check.namespace_bytes);
    (void)fclose(ledger);
    return missing == 0 ? 0 : 1;
}
