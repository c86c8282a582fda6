/* What the tests of the prompt room share: a reader, and keys and namespaces as bytes. */
#ifndef HASHTRIE_TESTS_UNIT_TEST_PROMPT_SUPPORT_H
#define HASHTRIE_TESTS_UNIT_TEST_PROMPT_SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "prompt/prompt.h"
#include "support/test.h"

struct prompt_fixture {
    struct mem mem;
    struct prompt_reader *reader;
};

static inline int prompt_setup(void **state)
{
    static struct prompt_fixture fixture;
    mem_init(&fixture.mem, SIZE_MAX);
    fixture.reader = prompt_reader_new(&fixture.mem);
    assert_non_null(fixture.reader);
    *state = &fixture;
    return 0;
}

static inline int prompt_teardown(void **state)
{
    struct prompt_fixture *fixture = *state;
    prompt_reader_free(fixture->reader);
    mem_fini(&fixture->mem);
    return 0;
}

static inline void append_to_buf(void *user, const void *bytes, size_t size)
{
    assert_true(buf_append(user, bytes, size));
}

enum prompt_what { PROMPT_WHAT_KEY, PROMPT_WHAT_NAMESPACE };

/*
 * The key or namespace of a body, in a buffer that the caller ends with buf_fini(). The body is
 * copied without a byte to spare, so that a sanitizer sees every read past its end.
 */
static inline struct buf prompt_bytes(struct prompt_fixture *fixture, enum prompt_what what,
                                      const char *body, size_t size)
{
    char *copy = malloc(size + (size == 0));
    assert_non_null(copy);
    memcpy(copy, body, size);
    struct buf out;
    buf_init(&out, &fixture->mem, SIZE_MAX / 2);
    struct prompt prompt;
    enum prompt_status status = prompt_read(fixture->reader, copy, size, &prompt);
    if (status != PROMPT_OK) {
        fail_msg("status %d for %.200s", (int)status, body);
    }
    if (what == PROMPT_WHAT_KEY) {
        status = prompt_key(&prompt, append_to_buf, &out);
        assert_true(prompt.has_prompt || out.size == 0);
    } else {
        status = prompt_namespace(&prompt, prompt.model, append_to_buf, &out);
    }
    assert_int_equal(status, PROMPT_OK);
    prompt_release(fixture->reader);
    free(copy);
    return out;
}

static inline size_t common_size(const struct buf *a, const struct buf *b)
{
    size_t i = 0;
    while (i < a->size && i < b->size && a->data[i] == b->data[i]) {
        i++;
    }
    return i;
}

#endif
