/* Repair: from a sound store a copy, from a damaged one all that is left, and never a crash. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hashtrie/maintenance.h"

#include "base/mem.h"
#include "store/pages.h"
#include "unit/store_support.h"

enum {
    NODES_MAX = 65536,
    PROMPTS = 1500,
    LEAF = 2,
    BRANCH = 1,
    OVERFLOW_PAGE = 4,
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EVERY_NTH_PAGE = 23, FLIP_ROUNDS = 20 };
#else
enum { EVERY_NTH_PAGE = 5, FLIP_ROUNDS = 100 };
#endif

struct contents {
    size_t count;
    struct hashtrie_reader_node nodes[NODES_MAX];
};

struct fixture {
    struct test_store test;
    struct contents before;
    struct contents after;
    unsigned char *bytes; /* Of data.mdb as it was. */
    size_t size;
    size_t page_bytes;
    char *path;
    char *out; /* Where repairs go. */
    struct random random;
    struct mem mem;
};

/* ---- Contents ---- */

static bool keep_node(void *user, const struct hashtrie_reader_node *node)
{
    struct contents *contents = user;
    assert_true(contents->count < NODES_MAX);
    contents->nodes[contents->count++] = *node;
    return true;
}

static void read_contents(const char *directory, struct contents *contents)
{
    struct hashtrie_reader *reader = NULL;
    contents->count = 0;
    assert_int_equal(hashtrie_reader_open(directory, &reader), HASHTRIE_OK);
    assert_int_equal(hashtrie_reader_nodes(reader, 0, UINT64_MAX, keep_node, contents),
                     HASHTRIE_OK);
    hashtrie_reader_close(reader);
}

static bool same_key(const struct hashtrie_reader_node *a, const struct hashtrie_reader_node *b)
{
    return a->prefix == b->prefix && a->fingerprint == b->fingerprint;
}

static const struct hashtrie_reader_node *find(const struct contents *contents,
                                               const struct hashtrie_reader_node *key)
{
    size_t low = 0;
    for (size_t high = contents->count; low < high;) {
        size_t middle = low + (high - low) / 2;
        const struct hashtrie_reader_node *node = &contents->nodes[middle];
        if (node->prefix < key->prefix ||
            (node->prefix == key->prefix && node->fingerprint < key->fingerprint)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct hashtrie_reader_node *node = &contents->nodes[low];
    return low < contents->count && same_key(node, key) ? node : NULL;
}

static void expect_same_node(const struct hashtrie_reader_node *a,
                             const struct hashtrie_reader_node *b)
{
    assert_int_equal(a->end, b->end);
    assert_int_equal(a->depth, b->depth);
    assert_int_equal(a->chunk_count, b->chunk_count);
    assert_int_equal(a->used_unix_s, b->used_unix_s);
    assert_int_equal(a->held_by_all, b->held_by_all);
    assert_int_equal(a->holder_count, b->holder_count);
    assert_memory_equal(a->holders, b->holders, a->holder_count * sizeof *a->holders);
}

static void expect_same(const struct contents *before, const struct contents *after)
{
    assert_int_equal(before->count, after->count);
    for (size_t i = 0; i < before->count; i++) {
        assert_true(same_key(&before->nodes[i], &after->nodes[i]));
        expect_same_node(&before->nodes[i], &after->nodes[i]);
    }
}

static size_t count_lost(const struct fixture *fixture)
{
    size_t lost = 0;
    for (size_t i = 0; i < fixture->before.count; i++) {
        lost += find(&fixture->after, &fixture->before.nodes[i]) == NULL;
    }
    return lost;
}

/* ---- The store ---- */

/* Prompts with shared parts, short and long, over and over: splits, and rows that move. */
static void fill(struct fixture *fixture)
{
    struct test_store *test = &fixture->test;
    static struct test_key keys[8];
    test_store_open(test);
    hashtrie_endpoint endpoints[3] = {test_store_endpoint(test, "http://a"),
                                      test_store_endpoint(test, "http://b"),
                                      test_store_endpoint(test, "http://c")};
    for (uint32_t i = 0; i < PROMPTS; i++) {
        struct test_key *key = &keys[random_below(&fixture->random, 8)];
        const struct test_key base = keys[random_below(&fixture->random, 8)];
        test_key_random(key, i == 0 ? NULL : &base, &fixture->random);
        for (uint32_t more = random_below(&fixture->random, 30); more > 0; more--) {
            if (key->count < TEST_KEY_CHUNKS_MAX) {
                test_key_push(key, random_next(&fixture->random));
            }
        }
        test_store_insert(test, key, endpoints[i % 3]);
        test->now_s += 3;
        if (i % 100 == 0) {
            test_store_checkpoint(test);
        }
    }
    test_store_close(test);
}

static void load_file(struct fixture *fixture)
{
    struct stat status;
    int fd = open(fixture->path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &status), 0);
    fixture->size = (size_t)status.st_size;
    fixture->bytes = mem_alloc(&fixture->mem, fixture->size);
    assert_non_null(fixture->bytes);
    assert_int_equal(read(fd, fixture->bytes, fixture->size), fixture->size);
    assert_int_equal(close(fd), 0);
}

static void write_file(const struct fixture *fixture, size_t size)
{
    test_file_write(fixture->test.directory, "data.mdb", fixture->bytes, size);
}

static int setup(void **state)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct fixture *fixture = mem_alloc_zero(&mem, sizeof *fixture);
    assert_non_null(fixture);
    fixture->mem = mem;
    test_store_prefer_memory();
    test_store_init(&fixture->test);
    fixture->random.state = test_seed();
    fill(fixture);
    fixture->path = test_path(fixture->test.directory, "data.mdb");
    fixture->out = test_path(fixture->test.directory, "out");
    load_file(fixture);
    read_contents(fixture->test.directory, &fixture->before);
    uint32_t page_bytes = 0;
    memcpy(&page_bytes, fixture->bytes + 40, sizeof page_bytes);
    fixture->page_bytes = page_bytes;
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    test_path_free(fixture->path);
    test_path_free(fixture->out);
    test_store_fini(&fixture->test);
    mem_free(&fixture->mem, fixture->bytes, fixture->size);
    struct mem mem = fixture->mem;
    mem_free(&mem, fixture, sizeof *fixture);
    mem_fini(&mem);
    return 0;
}

static void remove_out(const struct fixture *fixture)
{
    static const char *const names[] = {"out/data.mdb", "out/lock.mdb"};
    for (size_t i = 0; i < 2; i++) {
        char *path = test_path(fixture->test.directory, names[i]);
        (void)unlink(path);
        test_path_free(path);
    }
    (void)rmdir(fixture->out);
}

/* Repairs what lies there now; the copy must verify. */
static struct hashtrie_repair_result repair(struct fixture *fixture)
{
    struct hashtrie_repair_result result;
    struct hashtrie_repair_options options = {.chunk_size = 128};
    remove_out(fixture);
    assert_int_equal(
        hashtrie_store_repair(fixture->test.directory, fixture->out, &options, &result),
        HASHTRIE_OK);
    struct test_store copy = {.directory = fixture->out};
    struct hashtrie_verify_result verified = test_store_verify(&copy);
    assert_int_equal(verified.damage_count, 0);
    assert_int_equal(verified.node_count, result.node_count);
    read_contents(fixture->out, &fixture->after);
    assert_int_equal(fixture->after.count, result.node_count);
    return result;
}

/* ---- Tests ---- */

static void a_sound_store_is_copied(void **state)
{
    struct fixture *fixture = *state;
    struct hashtrie_repair_result result = repair(fixture);
    expect_same(&fixture->before, &fixture->after);
    assert_int_equal(result.damaged_page_count, 0);
    assert_int_equal(result.lost_count, 0);
    assert_int_equal(result.stray_count, 0);
    assert_int_equal(result.endpoint_count, 3);
}

static void the_copy_goes_on_as_a_store(void **state)
{
    struct fixture *fixture = *state;
    (void)repair(fixture);
    struct test_store copy = fixture->test;
    copy.directory = fixture->out;
    copy.options.directory = fixture->out;
    test_store_open(&copy);
    assert_false(test_store_was_told(&copy, "aside"));
    hashtrie_endpoint a = test_store_endpoint(&copy, "http://a");
    struct test_key key = test_store_key(3, 0, 40);
    test_store_insert(&copy, &key, a);
    test_store_close(&copy);
    test_store_expect_clean(&copy);
    test_store_open(&copy);
    assert_int_equal(test_store_recall(&copy, &key).chunk_count, 40);
    test_store_close(&copy);
}

static unsigned page_flags(const struct fixture *fixture, size_t page)
{
    uint16_t flags = 0;
    memcpy(&flags, fixture->bytes + page * fixture->page_bytes + 10, sizeof flags);
    return flags;
}

/* Keys of the page's first node; a leaf's. */
static size_t first_key_size(const struct fixture *fixture, size_t page)
{
    uint16_t offset = 0;
    uint16_t size = 0;
    const unsigned char *bytes = fixture->bytes + page * fixture->page_bytes;
    memcpy(&offset, bytes + 16, sizeof offset);
    memcpy(&size, bytes + offset + 6, sizeof size);
    return size;
}

/* Nothing may be told of a node that was never true of it. */
static void expect_no_lies(const struct fixture *fixture)
{
    for (size_t i = 0; i < fixture->after.count; i++) {
        const struct hashtrie_reader_node *node = &fixture->after.nodes[i];
        const struct hashtrie_reader_node *was = find(&fixture->before, node);
        assert_true(node->holder_count <= 3);
        if (was != NULL && was->chunk_count == node->chunk_count) {
            assert_int_equal(was->end, node->end);
            assert_int_equal(was->depth, node->depth);
            assert_true(was->used_unix_s >= node->used_unix_s);
        }
    }
}

static void spoil_page(unsigned char *page, size_t page_bytes, struct random *random, int how)
{
    for (size_t i = 0; i < page_bytes; i++) {
        switch (how) {
        case 0:
            page[i] = 0;
            break;
        case 1:
            page[i] = (unsigned char)random_next(random);
            break;
        default:
            page[i] ^=
                (unsigned char)(random_below(random, 64) == 0 ? 1U << (random_next(random) % 8)
                                                              : 0);
            break;
        }
    }
}

/* One page after the other is zeroed, filled with noise, or sprinkled with wrong bits. */
static void a_lost_page_loses_what_was_on_it(void **state)
{
    struct fixture *fixture = *state;
    size_t rows_per_page_max = fixture->page_bytes / 40;
    unsigned char saved[PAGES_BYTES_MAX];
    size_t seen[8] = {0};
    for (size_t page = 2; page < fixture->size / fixture->page_bytes; page++) {
        unsigned flags = page_flags(fixture, page) & 7U;
        if (seen[flags]++ % EVERY_NTH_PAGE != 0) {
            continue;
        }
        unsigned char *bytes = fixture->bytes + page * fixture->page_bytes;
        size_t key_size = flags == LEAF ? first_key_size(fixture, page) : 0;
        memcpy(saved, bytes, fixture->page_bytes);
        spoil_page(bytes, fixture->page_bytes, &fixture->random, (int)(page % 3));
        write_file(fixture, fixture->size);
        (void)repair(fixture);
        memcpy(bytes, saved, fixture->page_bytes);
        expect_no_lies(fixture);
        size_t lost = count_lost(fixture);
        if (flags == BRANCH || key_size == 12 || key_size == 16) {
            assert_int_equal(lost, 0); /* Edges and ages are made anew. */
        }
        assert_true(lost <= rows_per_page_max);
    }
    assert_true(seen[BRANCH] > 1 && seen[LEAF] > 10 && seen[OVERFLOW_PAGE] > 1);
}

static void random_flips_are_survived(void **state)
{
    struct fixture *fixture = *state;
    unsigned char *original = mem_alloc(&fixture->mem, fixture->size);
    assert_non_null(original);
    memcpy(original, fixture->bytes, fixture->size);
    for (int round = 0; round < FLIP_ROUNDS; round++) {
        uint32_t flips = 1U << random_below(&fixture->random, 12);
        for (uint32_t i = 0; i < flips; i++) {
            size_t at = random_below(&fixture->random, (uint32_t)fixture->size);
            fixture->bytes[at] ^= (unsigned char)(1U << random_below(&fixture->random, 8));
        }
        write_file(fixture, fixture->size);
        (void)repair(fixture);
        expect_no_lies(fixture);
        assert_true(count_lost(fixture) <= (size_t)flips * fixture->page_bytes / 40);
        memcpy(fixture->bytes, original, fixture->size);
    }
    mem_free(&fixture->mem, original, fixture->size);
}

static void without_meta_pages_all_is_found(void **state)
{
    struct fixture *fixture = *state;
    memset(fixture->bytes, 0, fixture->page_bytes);
    write_file(fixture, fixture->size);
    (void)repair(fixture);
    assert_int_equal(count_lost(fixture), 0);
    memset(fixture->bytes, 0, 2 * fixture->page_bytes);
    write_file(fixture, fixture->size);
    struct hashtrie_repair_result result = repair(fixture);
    assert_int_equal(count_lost(fixture), 0);
    assert_true(result.stray_count >= fixture->before.count);
    assert_int_equal(result.endpoint_count, 3);
}

static void a_file_cut_short_keeps_its_rest(void **state)
{
    struct fixture *fixture = *state;
    for (size_t pages = 1; pages < fixture->size / fixture->page_bytes; pages += 40) {
        write_file(fixture, pages * fixture->page_bytes - 100);
        struct hashtrie_repair_result result;
        struct hashtrie_repair_options options = {.chunk_size = 128};
        remove_out(fixture);
        enum hashtrie_status status =
            hashtrie_store_repair(fixture->test.directory, fixture->out, &options, &result);
        assert_int_equal(status, pages == 1 ? HASHTRIE_ECORRUPT : HASHTRIE_OK);
        if (status == HASHTRIE_OK) {
            (void)repair(fixture);
            expect_no_lies(fixture);
        }
    }
}

static void refusals(void **state)
{
    struct fixture *fixture = *state;
    const char *directory = fixture->test.directory;
    struct hashtrie_repair_result result;
    char *missing = test_path(directory, "missing");
    assert_int_equal(hashtrie_store_repair(missing, fixture->out, NULL, &result), HASHTRIE_ENOENT);
    assert_int_equal(hashtrie_store_repair(directory, directory, NULL, &result), HASHTRIE_EEXIST);
    test_store_open(&fixture->test);
    assert_int_equal(hashtrie_store_repair(directory, directory, NULL, &result), HASHTRIE_EBUSY);
    test_store_close(&fixture->test);
    memset(fixture->bytes, 0, fixture->size);
    write_file(fixture, fixture->size);
    assert_int_equal(hashtrie_store_repair(directory, fixture->out, NULL, &result),
                     HASHTRIE_ECORRUPT);
    assert_int_equal(access(fixture->out, F_OK), -1);
    test_path_free(missing);
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    uint64_t *last = user;
    assert_true(done >= *last && done <= total);
    *last = done;
}

static void progress_is_told(void **state)
{
    struct fixture *fixture = *state;
    uint64_t last = 0;
    struct hashtrie_repair_options options = {.on_progress = on_progress, .user = &last};
    struct hashtrie_repair_result result;
    assert_int_equal(
        hashtrie_store_repair(fixture->test.directory, fixture->out, &options, &result),
        HASHTRIE_OK);
    assert_true(last > 0);
}

static void die_at(void *user, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    unsigned *left = user;
    if (--*left == 0) {
        (void)raise(SIGKILL);
    }
}

/* What a killed repair leaves is no store, and is no hindrance to the next. */
static void a_killed_repair_leaves_no_store(void **state)
{
    struct fixture *fixture = *state;
    char *data = test_path(fixture->out, "data.mdb");
    unsigned killed = 0;
    for (unsigned calls = 1; killed + 1 == calls; calls++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            unsigned left = calls;
            struct hashtrie_repair_options options = {.on_progress = die_at, .user = &left};
            struct hashtrie_repair_result result;
            _exit((int)hashtrie_store_repair(fixture->test.directory, fixture->out, &options,
                                             &result));
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status)) {
            assert_int_equal(access(data, F_OK), -1);
            killed++;
        } else {
            assert_int_equal(status, 0);
        }
    }
    assert_true(killed > 0);
    test_path_free(data);
    (void)repair(fixture);
    expect_same(&fixture->before, &fixture->after);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_sound_store_is_copied),
        CASE(the_copy_goes_on_as_a_store),
        CASE(a_lost_page_loses_what_was_on_it),
        CASE(random_flips_are_survived),
        CASE(without_meta_pages_all_is_found),
        CASE(a_file_cut_short_keeps_its_rest),
        CASE(refusals),
        CASE(progress_is_told),
        CASE(a_killed_repair_leaves_no_store),
    };
    return cmocka_run_group_tests_name("repair", tests, NULL, NULL);
}
