/* hashtrie-dump as it is called, on a store in a temporary folder. */
#ifndef HASHTRIE_TESTS_UNIT_DUMP_SUPPORT_H
#define HASHTRIE_TESTS_UNIT_DUMP_SUPPORT_H

#include <sys/wait.h>

#include "unit/store_support.h"

/* A crash is to be seen as one: sanitizers would turn it into an exit status of theirs. */
#define SANITIZERS_KEEP_OUT                                                        \
    "TSAN_OPTIONS=\"$TSAN_OPTIONS:handle_segv=0:handle_sigbus=0:handle_abort=0\" " \
    "ASAN_OPTIONS=\"$ASAN_OPTIONS:handle_segv=0:handle_sigbus=0:handle_abort=0\""

enum { OUTPUT_BYTES_MAX = 256 * 1024 };

struct dump_fixture {
    struct test_store test;
    char output[OUTPUT_BYTES_MAX]; /* Of the last call, standard error included. */
};

static inline void dump_fill(struct test_store *test)
{
    test_store_open(test);
    hashtrie_endpoint a = test_store_endpoint(test, "http://engine-a:8000");
    hashtrie_endpoint b = test_store_endpoint(test, "http://engine-b:8000");
    struct test_key shared = test_store_key(UINT64_C(0xabcdef0123456789), 0, 10);
    for (uint32_t i = 0; i < 30; i++) {
        struct test_key key = shared;
        test_key_push(&key, 100 + i);
        test_store_insert(test, &key, i % 2 == 0 ? a : b);
        test->now_s += 10;
    }
    test_store_close(test);
}

static inline int dump_setup(void **state)
{
    static struct dump_fixture fixture;
    test_store_init(&fixture.test);
    dump_fill(&fixture.test);
    *state = &fixture;
    return 0;
}

static inline int dump_teardown(void **state)
{
    struct dump_fixture *fixture = *state;
    test_store_fini(&fixture->test);
    return 0;
}

/* Runs it with these words; returns the exit status. The store's folder stands for "DIR". */
static inline int dump(struct dump_fixture *fixture, const char *words)
{
    const char *programs = getenv("HASHTRIE_BIN");
    assert_non_null(programs);
    char command[4096];
    int size = snprintf(command, sizeof command,
                        "cd '%s' && DIR='%s' && " SANITIZERS_KEEP_OUT
                        " '%s/hashtrie-dump' %s 2>&1 </dev/null",
                        fixture->test.directory, fixture->test.directory, programs, words);
    assert_true(size > 0 && (size_t)size < sizeof command);
    FILE *pipe = popen(command, "re");
    assert_non_null(pipe);
    size_t got = fread(fixture->output, 1, sizeof fixture->output - 1, pipe);
    fixture->output[got] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static inline void expect(struct dump_fixture *fixture, const char *part)
{
    if (strstr(fixture->output, part) == NULL) {
        fail_msg("no '%s' in:\n%s", part, fixture->output);
    }
}

#endif
