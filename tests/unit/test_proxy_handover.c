#include <stdio.h>
#include <string.h>

#include "proxy/handover.h"
#include "support/test.h"

enum { TEXT_BYTES_MAX = 1 << 16 };

#define ASKED                                                                              \
    "\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{\"do_remote_decode\":true," \
    "\"do_remote_prefill\":false,\"remote_engine_id\":null,\"remote_block_ids\":null,"     \
    "\"remote_host\":null,\"remote_port\":null}}"

struct fixture {
    struct mem mem;
    struct json_parser *parser;
    struct handover handover;
};

static int setup(void **state)
{
    static struct fixture fixture;
    mem_init(&fixture.mem, SIZE_MAX);
    fixture.parser = json_parser_new(&fixture.mem);
    assert_non_null(fixture.parser);
    handover_init(&fixture.handover, &fixture.mem);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    handover_fini(&fixture->handover);
    json_parser_free(fixture->parser);
    mem_fini(&fixture->mem);
    return 0;
}

static bool read_body(struct fixture *fixture, const char *body)
{
    assert_int_equal(json_parse(fixture->parser, body, strlen(body)), JSON_OK);
    return handover_read_body(&fixture->handover, fixture->parser);
}

static const char *joined(const struct span *parts, size_t count)
{
    static char text[TEXT_BYTES_MAX];
    size_t size = 0;
    assert_in_range(count, 1, HANDOVER_PARTS_MAX);
    for (size_t i = 0; i < count; i++) {
        assert_true(parts[i].size < sizeof text - size);
        memcpy(text + size, parts[i].data, parts[i].size);
        size += parts[i].size;
    }
    text[size] = '\0';
    return text;
}

static const char *prefill_body(struct fixture *fixture)
{
    struct span parts[HANDOVER_PARTS_MAX];
    return joined(parts, handover_prefill_parts(&fixture->handover, parts));
}

static const char *decode_body(struct fixture *fixture)
{
    struct span parts[HANDOVER_PARTS_MAX];
    return joined(parts, handover_decode_parts(&fixture->handover, parts));
}

static enum handover_status read_answer(struct fixture *fixture, const char *answer)
{
    return handover_read_answer(&fixture->handover, span_of(answer), "10.0.0.7");
}

static void prefill_gets_one_token_whole_and_keeps_the_cache(void **state)
{
    static const char *const cases[][2] = {
        {"{}", "{" ASKED},
        {"{\"model\":\"m\"}", "{\"model\":\"m\"," ASKED},
        {"{\"model\":\"m\",\"stream\":true}\n", "{\"model\":\"m\"," ASKED},
        {"{\"max_tokens\":100, \"model\":\"m\", \"max_completion_tokens\":7,\"min_tokens\":3,"
         "\"prompt\":\"max_tokens\",\"stream_options\":{\"include_usage\":true}}",
         "{\"model\":\"m\", \"prompt\":\"max_tokens\"," ASKED},
        {"{\"model\":\"m\",\"kv_transfer_params\":{\"do_remote_prefill\":true},"
         "\"max_\\u0074okens\":9,\"max_tokens\":8,\"x\":{\"stream\":true}}",
         "{\"model\":\"m\",\"x\":{\"stream\":true}," ASKED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(read_body(*state, cases[i][0]));
        assert_string_equal(prefill_body(*state), cases[i][1]);
    }
}

static void decode_gets_what_came_and_where_the_cache_is(void **state)
{
    static const char answer[] =
        "{\"id\":\"x\",\"choices\":[{\"kv_transfer_params\":{}}],\"kv_transfer_params\":"
        "{\"do_remote_prefill\":true, \"remote_block_ids\":[1,2],\"remote_host\":\"10.1.1.1\"}"
        " }";
    static const char params[] = "{\"do_remote_prefill\":true, \"remote_block_ids\":[1,2],"
                                 "\"remote_host\":\"10.1.1.1\"}}";
    static const char *const bodies[][2] = {
        {"{}", "{\"kv_transfer_params\":"},
        {"{\"stream\":true,\"max_tokens\":5}",
         "{\"stream\":true,\"max_tokens\":5,\"kv_transfer_params\":"},
        {"{\"kv_transfer_params\":1,\"a\":2,\"kv_transfer_params\":3}",
         "{\"a\":2,\"kv_transfer_params\":"},
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char expected[TEXT_BYTES_MAX];
        (void)snprintf(expected, sizeof expected, "%s%s", bodies[i][1], params);
        assert_true(read_body(*state, bodies[i][0]));
        assert_int_equal(read_answer(*state, answer), HANDOVER_OK);
        assert_string_equal(decode_body(*state), expected);
    }
}

static void a_host_that_nobody_could_reach_is_replaced(void **state)
{
    static const char *const given[] = {"null",        "\"\"",   "\"localhost\"", "\"127.0.0.1\"",
                                        "\"0.0.0.0\"", "\"::\"", "\"::1\"",       "7"};
    assert_true(read_body(*state, "{}"));
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        char answer[TEXT_BYTES_MAX];
        (void)snprintf(answer, sizeof answer,
                       "{\"kv_transfer_params\":{\"remote_host\":%s,\"remote_port\":5600}}",
                       given[i]);
        assert_int_equal(read_answer(*state, answer), HANDOVER_OK);
        assert_string_equal(decode_body(*state), "{\"kv_transfer_params\":{\"remote_port\":5600,"
                                                 "\"remote_host\":\"10.0.0.7\"}}");
    }
    assert_int_equal(read_answer(*state, "{\"kv_transfer_params\":{}}"), HANDOVER_OK);
    assert_string_equal(decode_body(*state),
                        "{\"kv_transfer_params\":{\"remote_host\":\"10.0.0.7\"}}");
}

static void without_params_decode_prefills_by_itself(void **state)
{
    static const char *const answers[] = {"{}", "{\"kv_transfer_params\":null}",
                                          "{\"kv_transfer_params\":[1]}",
                                          "{\"kv_transfer_params\":{},\"kv_transfer_params\":0}"};
    assert_true(read_body(*state, "{\"a\":1,\"kv_transfer_params\":{\"remote_host\":\"evil\"}}"));
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        assert_int_equal(read_answer(*state, answers[i]), HANDOVER_NONE);
        assert_string_equal(decode_body(*state), "{\"a\":1,\"kv_transfer_params\":null}");
    }
}

/* `more` JSON_PIECES_MAX times. */
static const char *repeated(const char *begin, const char *more, const char *end)
{
    static char text[TEXT_BYTES_MAX];
    int size = snprintf(text, sizeof text, "%s", begin);
    for (int i = 0; i < JSON_PIECES_MAX; i++) {
        size += snprintf(text + size, sizeof text - (size_t)size, "%s", more);
    }
    (void)snprintf(text + size, sizeof text - (size_t)size, "%s", end);
    return text;
}

static void what_is_no_answer_is_refused(void **state)
{
    static const char *const answers[] = {"", "{", "[]", "\"x\"", "{\"kv_transfer_params\":{}"};
    assert_true(read_body(*state, "{}"));
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        assert_int_equal(read_answer(*state, answers[i]), HANDOVER_INVALID);
    }
    const char *answer =
        repeated("{\"kv_transfer_params\":{\"a\":1", ",\"remote_host\":null,\"a\":1", "}}");
    assert_int_equal(read_answer(*state, answer), HANDOVER_INVALID);
}

static void names_that_come_too_often_are_refused(void **state)
{
    const char *body = repeated("{\"a\":1", ",\"stream\":true,\"a\":1", "}");
    assert_false(read_body(*state, body));
}

static void no_memory_is_told(void **state)
{
    struct fixture *fixture = *state;
    assert_true(read_body(fixture, "{}"));
    enum handover_status status = HANDOVER_NO_MEMORY;
    for (uint64_t n = 0; status == HANDOVER_NO_MEMORY; n++) {
        fixture->mem.fail_after = n;
        status = read_answer(fixture, "{\"kv_transfer_params\":{}}");
        buf_fini(&fixture->handover.params);
        assert_true(n > 0 || status == HANDOVER_NO_MEMORY);
    }
    assert_int_equal(status, HANDOVER_OK);
    fixture->mem.fail_after = UINT64_MAX;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(prefill_gets_one_token_whole_and_keeps_the_cache),
        CASE(decode_gets_what_came_and_where_the_cache_is),
        CASE(a_host_that_nobody_could_reach_is_replaced),
        CASE(without_params_decode_prefills_by_itself),
        CASE(what_is_no_answer_is_refused),
        CASE(names_that_come_too_often_are_refused),
        CASE(no_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
