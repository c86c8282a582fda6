/* Bodies meant to hurt: none crashes, hangs or needs more than a bounded multiple of its size. */
#include "base/random.h"
#include "test_prompt_support.h"

struct counter {
    size_t bytes;
    size_t pieces;
};

static void count_piece(void *user, const void *bytes, size_t size)
{
    struct counter *counter = user;
    assert_true(bytes != NULL && size > 0);
    counter->bytes += size;
    counter->pieces++;
}

/* Reads whatever it is to the end; returns the bytes of key and namespace. */
static size_t read_all(struct prompt_fixture *fixture, const char *body, size_t size)
{
    char *copy = malloc(size + (size == 0));
    assert_non_null(copy);
    memcpy(copy, body, size);
    struct counter counter = {0};
    struct prompt prompt;
    if (prompt_read(fixture->reader, copy, size, &prompt) == PROMPT_OK) {
        assert_int_equal(prompt_namespace(&prompt, prompt.model, count_piece, &counter), PROMPT_OK);
        assert_int_equal(prompt_key(&prompt, count_piece, &counter), PROMPT_OK);
    }
    prompt_release(fixture->reader);
    free(copy);
    return counter.bytes;
}

static const char sample[] =
    "{\"model\": \"m\\u00e9\", \"cache_salt\":\"s\", \"lora_request\":{\"name\":\"l\"}, "
    "\"messages\": ["
    "{\"role\":\"user\",\"content\":\"\xe4\xbd\xa0 \\\"x\\\" \\ud83d\\ude00 \\ud800\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":{"
    "\"arguments\":\"{}\"}}]},"
    "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":[{\"type\":\"text\",\"text\":\"t\"},"
    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}},{\"type\":\"input_audio\",\"input_"
    "audio\":{\"data\":\"d\"}}]}],"
    " \"tools\":[{\"b\":1,\"a\":[true,null,-1e5]}], \"stream\":true, \"prompt\":[[1,2],[3]], "
    "\"input\":[{\"type\":\"x\"}]}";

static void test_truncations(void **state)
{
    for (size_t size = 0; size < sizeof sample - 1; size++) {
        assert_int_equal(read_all(*state, sample, size), 0);
    }
    assert_true(read_all(*state, sample, sizeof sample - 1) > 100);
}

static void test_noise(void **state)
{
    struct random random = {.state = test_seed()};
    static const char alphabet[] = "{}[]:,\"\\u0d8 \nmtfn1-.e\xe4";
    for (int round = 0; round < 20000; round++) {
        char body[sizeof sample];
        memcpy(body, sample, sizeof sample);
        for (uint32_t changes = 1 + random_below(&random, 3); changes > 0; changes--) {
            body[random_below(&random, sizeof sample - 1)] =
                alphabet[random_below(&random, sizeof alphabet - 1)];
        }
        (void)read_all(*state, body, sizeof sample - 1);
    }
}

/* Every field of interest with every kind of value, in body, message and part. */
static void test_wrong_types(void **state)
{
    static const char *const values[] = {
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1e400",
        "\"\"",
        "\"x\"",
        "[]",
        "{}",
        "[[]]",
        "[{}]",
        "[null]",
        "[\"x\",1]",
        "[1,\"x\"]",
        "[[1],2]",
        "[[1],[\"x\"]]",
        "[[[1]]]",
        "[1.5]",
        "[-1]",
        "{\"url\":1}",
        "{\"role\":1}",
        "[{\"role\":[]}]",
        "[{\"type\":1}]",
        "[{\"type\":\"text\"}]",
        "[{\"type\":\"image_url\",\"image_url\":[]}]",
        "{\"name\":{}}",
        "\"\\ud800\"",
    };
    static const char *const shapes[][2] = {
        {"{\"model\":\"m\",\"", "}"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"", "}]}"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
         "\"",
         "}]}]}"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"",
         "}]}]}"},
        {"{\"model\":\"m\",\"prompt\":\"x\",\"", "}"},
        {"{\"model\":\"m\",\"input\":[{\"role\":\"user\"}],\"", "}"},
    };
    static const char *const names[] = {
        "stream",        "messages",     "prompt",        "input",
        "tools",         "system",       "instructions",  "cache_salt",
        "lora_request",  "lora_path",    "chat_template", "chat_template_kwargs",
        "documents",     "role",         "content",       "name",
        "tool_calls",    "tool_call_id", "reasoning",     "reasoning_content",
        "type",          "text",         "image_url",     "add_special_tokens",
        "function_call", "url",
    };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                char body[512];
                int written = snprintf(body, sizeof body, "%s%s\":%s%s", shapes[s][0], names[n],
                                       values[v], shapes[s][1]);
                assert_true(written > 0 && (size_t)written < sizeof body);
                struct prompt_fixture *fixture = *state;
                struct prompt prompt;
                assert_int_equal(prompt_read(fixture->reader, body, (size_t)written, &prompt),
                                 PROMPT_OK);
                (void)read_all(*state, body, (size_t)written);
            }
        }
    }
}

/* `head`, `count` times `piece` separated by commas, `tail`. */
static struct buf repeat(struct mem *mem, const char *head, const char *piece, size_t count,
                         const char *tail)
{
    struct buf out;
    buf_init(&out, mem, SIZE_MAX / 2);
    assert_true(buf_append_text(&out, head));
    for (size_t i = 0; i < count; i++) {
        assert_true(buf_append_text(&out, i > 0 ? "," : "") && buf_append_text(&out, piece));
    }
    assert_true(buf_append_text(&out, tail));
    return out;
}

/* Large in every way that could be quadratic. A quadratic walk would run into the test's time
 * limit. */
static void test_large(void **state)
{
    static const struct {
        const char *head;
        const char *piece;
        const char *tail;
    } shapes[] = {
        {"{\"model\":\"m\",\"messages\":[", "{\"role\":\"user\",\"content\":\"hello\"}", "]}"},
        {"{\"model\":\"m\",\"messages\":[", "{}", "]}"},
        {"{", "\"model\":\"m\"", "}"},
        {"{", "\"mod\\u0065l\":\"\\u006d\"", ",\"prompt\":\"x\"}"},
        {"{\"model\":\"m\",", "\"messages\":[{}]", "}"},
        {"{\"model\":\"m\",\"messages\":[{", "\"role\":\"user\"", "}]}"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{", "\"type\":\"text\"",
         "}]}]}"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[",
         "{\"type\":\"text\",\"text\":\"\"}", "]}]}"},
        {"{\"model\":\"m\",\"messages\":[{}],\"tools\":{", "\"same\":1", "}}"},
        {"{\"model\":\"m\",\"messages\":[{}],\"tools\":{", "\"s\\u0061me\":{}", "}}"},
        {"{\"model\":\"m\",\"messages\":[{}],\"tools\":[", "{\"b\":[],\"a\":{}}", "]}"},
        {"{\"model\":\"m\",\"prompt\":[", "123456", "]}"},
        {"{\"model\":\"m\",\"prompt\":[", "[1]", "]}"},
        {"{\"model\":\"m\",\"prompt\":[", "\"x\"", "]}"},
        {"{\"model\":\"m\",\"prompt\":[", "\"\\n\"", "          ]}"},
    };
    struct prompt_fixture *fixture = *state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct buf body =
            repeat(&fixture->mem, shapes[i].head, shapes[i].piece, 100000, shapes[i].tail);
        size_t bytes_before = fixture->mem.bytes_used;
        fixture->mem.bytes_peak = bytes_before;
        (void)read_all(fixture, body.data, body.size);
        assert_true(fixture->mem.bytes_peak - bytes_before <= 8 * body.size);
        struct prompt prompt;
        assert_int_equal(prompt_read(fixture->reader, body.data, body.size, &prompt), PROMPT_OK);
        buf_fini(&body);
    }
}

/* Members in falling order, each key distinct and sharing a long prefix with the others. */
static void test_sorting_floods(void **state)
{
    struct prompt_fixture *fixture = *state;
    struct buf body;
    buf_init(&body, &fixture->mem, SIZE_MAX / 2);
    assert_true(buf_append_text(&body, "{\"model\":\"m\",\"messages\":[{}],\"tools\":{"));
    for (unsigned i = 200000; i > 0; i--) {
        assert_true(buf_printf(&body, "\"prefix prefix prefix %08u\":0,", i % 150000));
    }
    assert_true(buf_append_text(&body, "\"a\":1}}"));
    assert_true(read_all(fixture, body.data, body.size) > 150000u * 30);
    buf_fini(&body);
}

/* Objects of `count` members, in rising or falling order of their keys. */
static struct buf key_of_members(struct prompt_fixture *fixture, unsigned count, bool rising)
{
    struct buf body;
    buf_init(&body, &fixture->mem, SIZE_MAX / 2);
    assert_true(buf_append_text(&body, "{\"model\":\"m\",\"messages\":[{}],\"tools\":{"));
    for (unsigned i = 0; i < count; i++) {
        unsigned name = rising ? i : count - 1 - i;
        assert_true(buf_printf(&body, "%s\"k%u\":%u", i > 0 ? "," : "", name, name));
    }
    assert_true(buf_append_text(&body, "}}"));
    struct buf key = prompt_bytes(fixture, PROMPT_WHAT_KEY, body.data, body.size);
    buf_fini(&body);
    return key;
}

/* Up to a limit the order of members does not matter; past it each still counts. */
static void test_sorted_up_to_a_limit(void **state)
{
    enum { SORTED_MAX = 1024 };
    for (unsigned count = SORTED_MAX; count <= SORTED_MAX + 1; count++) {
        struct buf rising = key_of_members(*state, count, true);
        struct buf falling = key_of_members(*state, count, false);
        assert_int_equal(rising.size, falling.size);
        assert_int_equal(common_size(&rising, &falling) == rising.size, count == SORTED_MAX);
        buf_fini(&rising);
        buf_fini(&falling);
    }
}

/* A key ends somewhere, and is a prefix of the key of a longer prompt then, too. */
static void test_structure_is_bounded(void **state)
{
    struct prompt_fixture *fixture = *state;
    struct buf keys[2];
    for (size_t i = 0; i < 2; i++) {
        struct buf body = repeat(&fixture->mem, "{\"model\":\"m\",\"messages\":[", "{}",
                                 400000 + 100000 * i, "]}");
        keys[i] = prompt_bytes(fixture, PROMPT_WHAT_KEY, body.data, body.size);
        buf_fini(&body);
    }
    assert_true(keys[0].size > 2 * 1000000 && keys[0].size < 3 * 1000000);
    assert_int_equal(keys[0].size, keys[1].size);
    assert_memory_equal(keys[0].data, keys[1].data, keys[0].size);
    buf_fini(&keys[0]);
    buf_fini(&keys[1]);
}

static void test_deep(void **state)
{
    struct prompt_fixture *fixture = *state;
    struct buf body;
    buf_init(&body, &fixture->mem, SIZE_MAX / 2);
    assert_true(buf_append_text(&body, "{\"model\":\"m\",\"messages\":[{}],\"tools\":"));
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(buf_append_text(&body, i % 2 == 0 ? "[1," : "{\"b\":2,\"\\u0061\":"));
    }
    assert_true(buf_append_text(&body, "0"));
    for (unsigned i = 1000; i-- > 0;) {
        assert_true(buf_append_text(&body, i % 2 == 0 ? ",3]" : ",\"c\":4}"));
    }
    assert_true(buf_append_text(&body, "}"));
    assert_true(read_all(fixture, body.data, body.size) > 1000);
    buf_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_truncations, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_noise, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_wrong_types, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_large, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_sorting_floods, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_sorted_up_to_a_limit, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_structure_is_bounded, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_deep, prompt_setup, prompt_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
