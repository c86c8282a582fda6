/* Status, model, its places, flags; memory. */
#include "test_prompt_support.h"

static enum prompt_status read_text(struct prompt_fixture *fixture, const char *body,
                                    struct prompt *prompt)
{
    return prompt_read(fixture->reader, body, strlen(body), prompt);
}

static void test_status(void **state)
{
    static const struct {
        enum prompt_status status;
        const char *body;
    } cases[] = {
        {PROMPT_NOT_JSON, ""},
        {PROMPT_NOT_JSON, "{\"model\":\"m\""},
        {PROMPT_NOT_JSON, "{\"model\":\"\xff\"}"},
        {PROMPT_NOT_JSON, "{\"model\":\"m\"} x"},
        {PROMPT_NOT_OBJECT, "[]"},
        {PROMPT_NOT_OBJECT, "\"model\""},
        {PROMPT_NOT_OBJECT, "null"},
        {PROMPT_NO_MODEL, "{}"},
        {PROMPT_NO_MODEL, "{\"model\":null}"},
        {PROMPT_NO_MODEL, "{\"model\":1}"},
        {PROMPT_NO_MODEL, "{\"model\":\"m\",\"model\":{}}"},
        {PROMPT_NO_MODEL, "{\"x\":{\"model\":\"m\"}}"},
        {PROMPT_OK, "{\"model\":\"\"}"},
        {PROMPT_OK, "{\"model\":\"m\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct prompt prompt;
        assert_int_equal(read_text(*state, cases[i].body, &prompt), cases[i].status);
    }
}

static void test_depth(void **state)
{
    struct prompt_fixture *fixture = *state;
    enum { DEPTH = 100000 };
    static char body[DEPTH + 64];
    size_t size = (size_t)snprintf(body, sizeof body, "{\"model\":\"m\",\"tools\":");
    memset(body + size, '[', DEPTH);
    struct prompt prompt;
    assert_int_equal(prompt_read(fixture->reader, body, size + DEPTH, &prompt), PROMPT_TOO_DEEP);
}

static void test_flags(void **state)
{
    static const struct {
        const char *body;
        bool stream;
        bool has_prompt;
    } cases[] = {
        {"{\"model\":\"m\",\"stream\":true,\"prompt\":\"x\"}", true, true},
        {"{\"model\":\"m\",\"stream\":true,\"stream\":false,\"prompt\":[1]}", false, true},
        {"{\"model\":\"m\",\"stream\":null,\"messages\":[{}]}", false, true},
        {"{\"model\":\"m\",\"stream\":{\"stream\":true}}", false, false},
        {"{\"model\":\"m\",\"prompt\":null,\"messages\":null}", false, false},
        {"{\"model\":\"m\",\"prompt\":\"\",\"messages\":[]}", false, false},
        {"{\"model\":\"m\",\"prompt\":7}", false, true},
        {"{\"model\":\"m\",\"input\":\"embed me\"}", false, false},
        {"{\"model\":\"m\",\"input\":[\"embed\",\"us\"]}", false, false},
        {"{\"model\":\"m\",\"input\":[1,2,3]}", false, false},
        {"{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"x\"}]}", false, true},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\"]}", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct prompt prompt;
        assert_int_equal(read_text(*state, cases[i].body, &prompt), PROMPT_OK);
        assert_int_equal(prompt.stream, cases[i].stream);
        assert_int_equal(prompt.has_prompt, cases[i].has_prompt);
    }
}

static void assert_place(const char *body, struct prompt_place place, const char *text)
{
    assert_int_equal(place.size, strlen(text));
    assert_memory_equal(body + place.offset, text, place.size);
}

static void test_model_places(void **state)
{
    static const char body[] =
        "{\"model\" : {\"model\": [1]} , \"x\":{\"model\":\"n\"},\"mod\\u0065l\":\"a\\nb\"  }";
    struct prompt prompt;
    assert_int_equal(read_text(*state, body, &prompt), PROMPT_OK);
    assert_true(span_is(prompt.model, "a\nb"));
    assert_int_equal(prompt.model_place_count, 2);
    assert_place(body, prompt.model_places[0], "{\"model\": [1]}");
    assert_place(body, prompt.model_places[1], "\"a\\nb\"");
    assert_int_equal(read_text(*state, "{\"model\":\"m\"}", &prompt), PROMPT_OK);
    assert_int_equal(prompt.model_place_count, 1);
    assert_true(span_is(prompt.model, "m"));
}

static void count_bytes(void *user, const void *bytes, size_t size)
{
    (void)bytes;
    *(size_t *)user += size;
}

/* Fails the n-th allocation, for every n until all succeed. */
static void test_out_of_memory(void **state)
{
    (void)state;
    static const char body[] =
        "{\"model\":\"\\u006d\",\"messages\":[{\"role\":\"user\"}],\"tools\":"
        "[{\"b\":{\"\\u0061\":1,\"c\":2},\"a\":1}]}";
    for (uint64_t n = 0;; n++) {
        struct mem mem;
        mem_init(&mem, SIZE_MAX);
        mem.fail_after = n;
        mem.fail_count = UINT64_MAX;
        size_t size = 0;
        enum prompt_status status = PROMPT_NO_MEMORY;
        struct prompt prompt;
        struct prompt_reader *reader = prompt_reader_new(&mem);
        if (reader != NULL) {
            status = prompt_read(reader, body, sizeof body - 1, &prompt);
        }
        if (status == PROMPT_OK) {
            status = prompt_key(&prompt, count_bytes, &size);
        }
        prompt_reader_free(reader);
        mem_fini(&mem);
        if (status == PROMPT_OK) {
            assert_true(n > 2 && size > 0);
            return;
        }
        assert_int_equal(status, PROMPT_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_status, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_depth, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_flags, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_model_places, prompt_setup, prompt_teardown),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
