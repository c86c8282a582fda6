/* The usage at an answer's end. */
#include <stdlib.h>

#include "base/random.h"
#include "proxy/usage.h"
#include "support/test.h"

static void what_engines_say(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        struct usage usage;
    } cases[] = {
        /* vLLM. */
        {"{\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"total_tokens\":50,\"completion_"
         "tokens\":"
         "10,\"prompt_tokens_details\":{\"cached_tokens\":32}},\"prompt_logprobs\":null}",
         {40, 10, 32, true}},
        {"{\"usage\":{\"prompt_tokens\":40,\"total_tokens\":50,\"completion_tokens\":10,"
         "\"prompt_tokens_details\":null},\"kv_transfer_params\":{\"a\":{\"b\":1}}}",
         {40, 10, 0, false}},
        /* llama.cpp, with blanks as Python's json.dumps writes them. */
        {"{\"usage\": {\"completion_tokens\": 1, \"prompt_tokens\": 2}, \"timings\": {\"x\": 3}}",
         {2, 1, 0, false}},
        /* Responses. */
        {"{\"response\":{\"usage\":{\"input_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":"
         "0}"
         ",\"output_tokens\":3,\"total_tokens\":10},\"metadata\":{}}}",
         {7, 3, 0, true}},
        /* Anthropic. */
        {"{\"usage\":{\"input_tokens\":5,\"cache_creation_input_tokens\":1,"
         "\"cache_read_input_tokens\":64,\"output_tokens\":9}}",
         {69, 9, 64, true}},
        /* The last one counts, and nothing behind it. */
        {"{\"usage\":{\"prompt_tokens\":1}}{\"usage\":{\"prompt_tokens\":2},\"prompt_tokens\":3}",
         {2, 0, 0, false}},
        {"{\"usage\":{\"prompt_tokens\":123456789012}}", {123456789012, 0, 0, false}},
        {"{\"usage\":{\"prompt_tokens\":1234567890123}}", {0, 0, 0, false}},
        {"{\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":\"4\"}}", {0, 0, 0, false}},
        {"{\"usage\":{", {0, 0, 0, false}},
        {"\"usage\":{\"prompt_tokens", {0, 0, 0, false}},
        {"\"usage\":{\"prompt_tokens\":12", {12, 0, 0, false}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct usage usage = {0};
        assert_true(usage_read(span_of(cases[i].text), &usage));
        assert_int_equal(usage.prompt_tokens, cases[i].usage.prompt_tokens);
        assert_int_equal(usage.completion_tokens, cases[i].usage.completion_tokens);
        assert_int_equal(usage.cached_tokens, cases[i].usage.cached_tokens);
        assert_int_equal(usage.has_cached, cases[i].usage.has_cached);
    }
}

static void nothing_is_found_where_none_is(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "{}",
        "{\"usage\":null}",
        "{\"usage\":[{\"prompt_tokens\":1}]}",
        "{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":1}\"}", /* In a text. */
        "usage\":{\"prompt_tokens\":1}",
        "\"usage\":{\"prompt_tokens\":1},{{{{{{{{",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct usage usage = {0};
        assert_false(usage_read(span_of(cases[i]), &usage));
        assert_int_equal(usage.prompt_tokens, 0);
    }
}

static void a_stream_tells_it_in_parts(void **state)
{
    (void)state;
    struct usage usage = {0};
    assert_true(usage_read(span_of("{\"message\":{\"usage\":{\"input_tokens\":25}}}"), &usage));
    assert_true(usage_read(span_of("{\"usage\":{\"output_tokens\":15}}"), &usage));
    assert_int_equal(usage.prompt_tokens, 25);
    assert_int_equal(usage.completion_tokens, 15);
}

/* Under the address sanitizer: nothing outside of the text is read. */
static void any_bytes_are_fine(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "\"usage\":",    "{", "}", "\"", ":", " ", "prompt_tokens", "cached_tokens", "12", ",",
        "9999999999999", "\\"};
    struct random random = {.state = test_seed()};
    for (size_t i = 0; i < 20000 * test_scale(); i++) {
        char text[512];
        size_t size = 0;
        uint32_t count = random_below(&random, 30);
        for (uint32_t k = 0; k < count; k++) {
            const char *piece = pieces[random_below(&random, sizeof pieces / sizeof *pieces)];
            memcpy(text + size, piece, strlen(piece));
            size += strlen(piece);
        }
        char *exact = malloc(size == 0 ? 1 : size); /* NOLINT: the sanitizer watches its end. */
        memcpy(exact, text, size);
        struct usage usage = {0};
        (void)usage_read((struct span){.data = exact, .size = size}, &usage);
        assert_true(usage.prompt_tokens < UINT64_C(100000000000000));
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_engines_say),
        cmocka_unit_test(nothing_is_found_where_none_is),
        cmocka_unit_test(a_stream_tells_it_in_parts),
        cmocka_unit_test(any_bytes_are_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
