/*
 * Files that were damaged while nobody had them open. Whatever is in them, a program that works
 * with the store in the ordinary way comes up: at once, or after the crash that its own handler
 * has marked, at the latest after the second one. Its checkpoints succeed, but where the list of
 * free pages says that there are none: that is found hopeless after a minute, and until then it
 * works from memory.
 *
 * HASHTRIE_FLIPS=10000 for the long form.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "unit/store_support.h"

enum {
#ifdef HASHTRIE_DCHECK
    FLIPS = 24, /* Sanitizers are slow. */
#else
    FLIPS = 300,
#endif
    KEYS = 400,
    PAGE = 4096,
    STARTS_MAX = 3,
    START_S_MAX = 60,
    FULL = 4, /* Exit status. */
    FULL_PERCENT_MAX = 2,
};

static struct hashtrie_crash_mark crash_mark = HASHTRIE_CRASH_MARK_INIT;

static void on_crash(int number)
{
    hashtrie_crash_mark_write(&crash_mark);
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static struct test_key key_of(uint32_t number)
{
    return test_store_key(1 + number % 3, (uint64_t)number << 32,
                          number % 4 == 0 ? 1 + number % 900 : 1 + number % 30);
}

/* ---- A sound store, to be damaged over and over ---- */

struct image {
    unsigned char *bytes;
    size_t size;
    char *mark;
};

static char *read_all(const char *directory, const char *name, size_t *size)
{
    char *path = test_path(directory, name);
    struct stat file;
    FILE *stream = fopen(path, "rbe");
    assert_non_null(stream);
    assert_int_equal(fstat(fileno(stream), &file), 0);
    char *bytes = test_malloc((size_t)file.st_size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)file.st_size, stream), file.st_size);
    bytes[file.st_size] = '\0';
    assert_int_equal(fclose(stream), 0);
    test_path_free(path);
    *size = (size_t)file.st_size;
    return bytes;
}

static void fill(struct test_store *test)
{
    static struct test_key key;
    test_store_open(test);
    hashtrie_endpoint endpoint[3];
    endpoint[0] = test_store_endpoint(test, "http://a");
    endpoint[1] = test_store_endpoint(test, "http://b");
    endpoint[2] = test_store_endpoint(test, "http://c");
    for (uint32_t i = 0; i < KEYS; i++) {
        key = key_of(i);
        test_store_insert(test, &key, endpoint[i % 3]);
        test->now_s += 10;
        if (i % 50 == 49) {
            test_store_checkpoint(test); /* Pages are freed, and lists of them. */
        }
    }
    test_store_close(test);
}

static struct image make_image(struct test_store *test)
{
    size_t mark_size = 0;
    struct image image = {0};
    fill(test);
    image.bytes = (unsigned char *)read_all(test->directory, "data.mdb", &image.size);
    image.mark = read_all(test->directory, "mark", &mark_size);
    assert_int_equal(strncmp(image.mark, "clean ", 6), 0);
    return image;
}

static void remove_all(const char *directory)
{
    DIR *listing = opendir(directory);
    assert_non_null(listing);
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (entry->d_name[0] != '.') {
            char *path = test_path(directory, entry->d_name);
            (void)unlink(path);
            test_path_free(path);
        }
    }
    (void)closedir(listing);
}

/* ---- Ordinary work ---- */

static int use(struct test_store *test)
{
    static struct test_key key;
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://a");
    for (uint32_t i = 0; i < KEYS; i += 3) {
        key = key_of(i);
        (void)test_store_recall(test, &key);
    }
    for (uint32_t i = 0; i < KEYS; i++) {
        key = test_store_key(9, (uint64_t)i << 32, 1 + i % 200);
        test_store_insert(test, &key, a);
        test->now_s += 10;
        if (i % 100 == 99) {
            (void)test_store_try_checkpoint(test);
        }
    }
    enum hashtrie_status status = HASHTRIE_EIO;
    for (int i = 0; i < 5 && status != HASHTRIE_OK; i++) {
        status = test_store_try_checkpoint(test);
    }
    (void)hashtrie_store_close(test->store, 5000);
    hashtrie_free(test->trie);
    if (status == HASHTRIE_EFULL) {
        return FULL;
    }
    if (status != HASHTRIE_OK) {
        for (size_t i = 0; i < test->event_count; i++) {
            print_message("event: %s\n", test->events[i]);
        }
        print_message("no checkpoint: %s\n", hashtrie_strerror(status));
    }
    return status == HASHTRIE_OK ? 0 : 3;
}

static void become_program(void)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
    struct rlimit none = {0, 0};
    struct rlimit cpu = {START_S_MAX, START_S_MAX};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)setrlimit(RLIMIT_CPU, &cpu);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void)dup2(null, STDERR_FILENO); /* LMDB says what it found. */
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        (void)signal(numbers[i], on_crash);
    }
}

/* Status of waitpid(). */
static int start(struct test_store *test)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct test_store inner = *test;
        inner.options.user = &inner;
        inner.options.crash_mark = &crash_mark;
        become_program();
        _exit(use(&inner));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* How many starts it took; 0: it came up, and found no pages to write to. Fails the test if it
 * never came up. */
static int come_up(struct test_store *test, const char *what)
{
    for (int i = 1; i <= STARTS_MAX; i++) {
        int status = start(test);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return i;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == FULL) {
            return 0;
        }
        bool crashed = WIFSIGNALED(status) && WTERMSIG(status) != SIGXCPU;
#ifdef HASHTRIE_DCHECK
        crashed = crashed || WIFEXITED(status); /* A sanitizer ends the process in its own way. */
#endif
        if (!crashed) {
            fail_msg("%s: start %d ended with %#x", what, i, (unsigned)status);
        }
    }
    fail_msg("%s: %d starts, no router", what, STARTS_MAX);
    return 0;
}

/* ---- Tests ---- */

/* Half of them in the first pages, where the trees' roots and their branches are likely. */
static size_t random_place(struct random *random, size_t size)
{
    uint32_t pages = (uint32_t)(size / PAGE);
    uint32_t page = random_below(random, pages);
    bool head = random_below(random, 2) == 0; /* Headers, offsets, flags. */
    return (size_t)page * PAGE + random_below(random, head ? 64 : PAGE);
}

static void put_image(const struct test_store *test, const struct image *image, const char *mark)
{
    remove_all(test->directory);
    test_file_write(test->directory, "data.mdb", (const char *)image->bytes, image->size);
    if (mark != NULL) {
        test_file_write_text(test->directory, "mark", mark);
    }
}

/* As if the disk had rotted without a trace: the file's time is the one in the mark. */
static void look_untouched(const struct test_store *test)
{
    struct stat file;
    char mark[128];
    char *path = test_path(test->directory, "data.mdb");
    assert_int_equal(stat(path, &file), 0);
    (void)snprintf(mark, sizeof mark, "clean %llu %llu\n", (unsigned long long)file.st_size,
                   (unsigned long long)file.st_mtim.tv_sec * 1000000000 +
                       (unsigned long long)file.st_mtim.tv_nsec);
    test_file_write_text(test->directory, "mark", mark);
    test_path_free(path);
}

static size_t flip_count(void)
{
    const char *text = getenv("HASHTRIE_FLIPS");
    return text == NULL ? FLIPS : (size_t)strtoul(text, NULL, 10);
}

static void flipped_bits_never_keep_it_down(void **state)
{
    (void)state;
    static struct test_store test;
    test_store_init(&test);
    struct image image = make_image(&test);
    uint64_t seed = test_seed();
    size_t starts[STARTS_MAX + 1] = {0};
    for (size_t i = 0; i < flip_count(); i++) {
        struct random random = {.state = seed + i};
        char what[96];
        size_t at = random_place(&random, image.size);
        unsigned char saved = image.bytes[at];
        image.bytes[at] ^= (unsigned char)(1U << random_below(&random, 8));
        put_image(&test, &image, NULL);
        if (random_below(&random, 3) == 0) {
            look_untouched(&test);
        }
        (void)snprintf(what, sizeof what, "flip %zu at %#zx (page %zu)", i, at, at / PAGE);
        starts[come_up(&test, what)]++;
        image.bytes[at] = saved;
    }
    print_message("%zu flips: %zu came up at once, %zu at the second, %zu at the third start; %zu "
                  "with a full map\n",
                  flip_count(), starts[1], starts[2], starts[3], starts[0]);
    assert_true(starts[0] <= 1 + flip_count() * FULL_PERCENT_MAX / 100);
    test_free(image.bytes);
    test_free(image.mark);
    test_store_fini(&test);
}

/* Of a meta page each byte matters at opening: versions, addresses, sizes. */
static void no_flip_in_a_meta_page_keeps_it_down(void **state)
{
    (void)state;
    enum { FIRST = 16, LAST = 56, STEP = 7 };
    static struct test_store test;
    test_store_init(&test);
    struct image image = make_image(&test);
    for (size_t at = FIRST; at < LAST; at++) {
        for (unsigned bit = at % 2 == 0 ? 2 : STEP; bit <= STEP; bit += 5) {
            char what[64];
            (void)snprintf(what, sizeof what, "bit %u at %#zx", bit, at);
            image.bytes[at] ^= (unsigned char)(1U << bit);
            put_image(&test, &image, NULL);
            (void)come_up(&test, what);
            image.bytes[at] ^= (unsigned char)(1U << bit);
        }
    }
    test_free(image.bytes);
    test_free(image.mark);
    test_store_fini(&test);
}

static void a_cut_or_wiped_file_never_keeps_it_down(void **state)
{
    (void)state;
    static struct test_store test;
    test_store_init(&test);
    struct image image = make_image(&test);
    struct image part = image;
    for (size_t size = 1; size < image.size; size = size * 3 + PAGE / 2) {
        part.size = size;
        put_image(&test, &part, NULL);
        (void)come_up(&test, "cut");
        put_image(&test, &part, NULL);
        look_untouched(&test);
        (void)come_up(&test, "cut, unnoticed");
    }
    unsigned char *page = test_malloc(PAGE);
    for (size_t at = 0; at + PAGE <= image.size; at += (image.size / PAGE / 20 + 1) * PAGE) {
        memcpy(page, image.bytes + at, PAGE);
        memset(image.bytes + at, at % (2 * PAGE) == 0 ? 0 : 0xff, PAGE);
        put_image(&test, &image, NULL);
        (void)come_up(&test, "wiped");
        memcpy(image.bytes + at, page, PAGE);
    }
    test_free(page);
    test_free(image.bytes);
    test_free(image.mark);
    test_store_fini(&test);
}

/* A mark that is a pipe keeps nobody waiting; one that is a link leads to nobody's file. */
static void a_mark_that_is_no_file_is_left_alone(void **state)
{
    (void)state;
    static struct test_store test;
    test_store_init(&test);
    char *mark = test_path(test.directory, "mark");
    assert_int_equal(mkfifo(mark, 0600), 0);
    test_store_open(&test);
    test_store_close(&test);
    assert_int_equal(unlink(mark), 0);
    test_file_write_text(test.directory, "theirs", "theirs");
    assert_int_equal(symlink("theirs", mark), 0);
    test_store_open(&test);
    test_store_close(&test);
    size_t size = 0;
    char *theirs = read_all(test.directory, "theirs", &size);
    assert_string_equal(theirs, "theirs");
    test_free(theirs);
    test_path_free(mark);
    test_store_fini(&test);
}

/* An unclean end, nothing wrong with the file: nothing is replaced. */
static void a_sound_file_passes_the_probe(void **state)
{
    (void)state;
    static struct test_store test;
    static const char *const marks[] = {"", "open 1 0\n", "clean 1 1\n", NULL};
    test_store_init(&test);
    struct image image = make_image(&test);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        put_image(&test, &image, marks[i]);
        test_store_open(&test);
        struct hashtrie_store_stats stats;
        hashtrie_store_get_stats(test.store, &stats);
        assert_int_equal(stats.recovered_count[HASHTRIE_RECOVERED_REPAIRED], 0);
        assert_int_equal(stats.recovered_count[HASHTRIE_RECOVERED_EMPTY], 0);
        assert_true(stats.node_count >= KEYS);
        assert_int_equal(test_store_trouble_count(&test), 0);
        print_message("opened in %.1f ms\n", stats.restore_seconds * 1000);
        test_store_close(&test);
    }
    test_free(image.bytes);
    test_free(image.mark);
    test_store_fini(&test);
}

static void write_crashes(const struct test_store *test, unsigned earlier)
{
    struct stat file;
    char mark[128];
    char *path = test_path(test->directory, "data.mdb");
    assert_int_equal(stat(path, &file), 0);
    (void)snprintf(mark, sizeof mark, "open %llu %u\ncrashed\n", (unsigned long long)file.st_ino,
                   earlier);
    test_file_write_text(test->directory, "mark", mark);
    test_path_free(path);
}

/* A crash makes it verified; a second one in a row makes it replaced, sound or not. */
static void crashes_are_counted(void **state)
{
    (void)state;
    static struct test_store test;
    struct hashtrie_store_stats stats;
    test_store_init(&test);
    fill(&test);
    write_crashes(&test, 0);
    test_store_open(&test);
    assert_true(test_store_was_told(&test, "verified first"));
    hashtrie_store_get_stats(test.store, &stats);
    uint64_t nodes = stats.node_count;
    assert_true(nodes >= KEYS);
    test_store_close(&test);
    test_store_open(&test); /* That run ended in order: forgiven. */
    assert_int_equal(test_store_trouble_count(&test), 0);
    test_store_close(&test);
    write_crashes(&test, 1);
    test_store_open(&test);
    assert_true(test_store_was_told(&test, "data.mdb.bad-"));
    hashtrie_store_get_stats(test.store, &stats);
    assert_int_equal(stats.recovered_count[HASHTRIE_RECOVERED_REPAIRED], 1);
    assert_int_equal(stats.node_count, nodes);
    test_store_close(&test);
    test_store_expect_clean(&test);
    test_store_fini(&test);
}

/* What a start does with a store whose tree of rows has lost a page. */
static void damage(struct test_store *test)
{
    size_t size = 0;
    char *bytes = read_all(test->directory, "data.mdb", &size);
    for (size_t at = 2 * PAGE; at + PAGE <= size; at += PAGE) {
        bytes[at + 10] = (char)(bytes[at + 10] ^ 0x03); /* Leaves become branches. */
    }
    test_file_write(test->directory, "data.mdb", bytes, size);
    test_free(bytes);
}

static void the_newest_good_snapshot_takes_its_place(void **state)
{
    (void)state;
    static struct test_store test;
    struct hashtrie_store_stats stats;
    struct hashtrie_copy_result copied;
    test_store_init(&test);
    char *snapshots = test_path(test.directory, "snapshots");
    char *good = test_path(snapshots, "snapshot-20240101T000000Z");
    char *bad = test_path(snapshots, "snapshot-20250101T000000Z");
    char *inner = test_path(test.directory, "store");
    char *outer = test.directory;
    test.options.directory = inner;
    test.options.snapshot_directory = snapshots;
    test.directory = inner;
    fill(&test);
    assert_int_equal(hashtrie_store_copy(inner, good, NULL, &copied), HASHTRIE_OK);
    assert_int_equal(hashtrie_store_copy(inner, bad, NULL, &copied), HASHTRIE_OK);
    test.directory = bad;
    damage(&test);
    test.directory = inner;
    damage(&test);
    test_store_open(&test);
    assert_true(test_store_was_told(&test, "snapshot-20250101T000000Z is of no use"));
    assert_true(test_store_was_told(&test, "snapshot-20240101T000000Z takes its place"));
    hashtrie_store_get_stats(test.store, &stats);
    assert_int_equal(stats.recovered_count[HASHTRIE_RECOVERED_SNAPSHOT], 1);
    assert_true(stats.node_count >= KEYS);
    struct test_key key = key_of(5);
    struct hashtrie_match match = test_store_recall(&test, &key);
    assert_int_equal(test_store_held(&match, test_store_endpoint(&test, "http://c")), key.count);
    test_store_close(&test);
    test_store_expect_clean(&test);
    test.directory = outer;
    test_path_free(snapshots);
    test_path_free(good);
    test_path_free(bad);
    test_path_free(inner);
    test_store_fini(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_passes_the_probe),
        cmocka_unit_test(a_mark_that_is_no_file_is_left_alone),
        cmocka_unit_test(crashes_are_counted),
        cmocka_unit_test(the_newest_good_snapshot_takes_its_place),
        cmocka_unit_test(a_cut_or_wiped_file_never_keeps_it_down),
        cmocka_unit_test(no_flip_in_a_meta_page_keeps_it_down),
        cmocka_unit_test(flipped_bits_never_keep_it_down),
    };
    test_store_prefer_memory();
    return cmocka_run_group_tests_name("store damage", tests, NULL, NULL);
}
