/* Where a message ends, at every cut of the input: chunk lines, trailers, answers without a body,
 * and messages one behind the other. */
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "http/http.h"
#include "support/test.h"

struct outcome {
    enum http_event last;
    size_t used;
    size_t body_size;
    char body[64];
};

/* Gives the bytes in steps, each from memory of its own, so that no read goes past it unseen. */
static struct outcome feed(struct http_parser *parser, const char *text, size_t size, size_t step)
{
    struct outcome outcome = {.last = HTTP_NEED_MORE};
    size_t given = 0;
    while (outcome.last != HTTP_GOT_END && outcome.last != HTTP_BROKEN) {
        if (outcome.last == HTTP_NEED_MORE) {
            assert_int_equal(outcome.used, given); /* All that came was used up. */
            if (given == size) {
                break;
            }
            given += step < size - given ? step : size - given;
        }
        size_t left = given - outcome.used;
        char *piece = malloc(left + 1);
        assert_non_null(piece);
        memcpy(piece, text + outcome.used, left);
        size_t consumed = 0;
        struct span body;
        outcome.last = http_parse(parser, piece, left, &consumed, &body);
        assert_true(consumed <= left);
        if (outcome.last == HTTP_GOT_BODY) {
            assert_true(body.data >= piece && body.data + body.size <= piece + consumed);
            assert_true(outcome.body_size + body.size <= sizeof outcome.body);
            memcpy(outcome.body + outcome.body_size, body.data, body.size);
            outcome.body_size += body.size;
        }
        outcome.used += consumed;
        free(piece);
    }
    return outcome;
}

struct message {
    enum http_kind kind;
    bool fine;
    const char *head;
    const char *rest;
    size_t rest_used;
};

#define CHUNKED_REQUEST "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHUNKS(fine, rest, used)                         \
    {                                                    \
        HTTP_REQUESTS, fine, CHUNKED_REQUEST, rest, used \
    }
#define ANSWER(fine, lines, rest, used)                            \
    {                                                              \
        HTTP_RESPONSES, fine, "HTTP/1.1 " lines "\r\n", rest, used \
    }

static const struct message messages[] = {
    CHUNKS(true, "1\r\na\r\n0\r\n\r\nGET", 11),
    CHUNKS(true, "0\r\n\r\nGET", 5),
    CHUNKS(true, "A;x=\"y\"\r\n0123456789\r\n00\r\n\r\nGET", 27),
    CHUNKS(true, "0\r\nX: y\r\nZ:\r\n\r\nGET", 15),
    CHUNKS(false, "1\na\r\n0\r\n\r\n", 0),
    CHUNKS(false, "1\ra\r\n0\r\n\r\n", 0),
    CHUNKS(false, "1\r\na\n0\r\n\r\n", 0),
    CHUNKS(false, "1\r\na0\r\n\r\n", 0),
    CHUNKS(false, "1\r\nab\r\n0\r\n\r\n", 0),
    CHUNKS(false, "0\n\n", 0),
    CHUNKS(false, "0\r\n\rG", 0),
    CHUNKS(false, "1 \r\na\r\n0\r\n\r\n", 0),
    CHUNKS(false, " 1\r\na\r\n0\r\n\r\n", 0),
    CHUNKS(false, "0x1\r\na\r\n0\r\n\r\n", 0),
    CHUNKS(false, "\r\na\r\n0\r\n\r\n", 0),
    CHUNKS(false, "1;a\x01\r\na\r\n0\r\n\r\n", 0),
    CHUNKS(false, "0\r\nX: y\n\r\n", 0),
    CHUNKS(false, "0\r\nX: y\rZ: x\r\n\r\n", 0),
    CHUNKS(false, "0\r\nX: y\r\n z\r\n\r\n", 0),
    CHUNKS(false, "0\r\n\tX: y\r\n\r\n", 0),
    CHUNKS(false, "0\r\nX : y\r\n\r\n", 0),
    CHUNKS(false, "0\r\n: y\r\n\r\n", 0),
    CHUNKS(false, "0\r\nX: \x01\r\n\r\n", 0),
    CHUNKS(false, "0\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
    CHUNKS(false, "0\r\nGET / HTTP/1.1\r\n\r\n", 0),
    ANSWER(true, "200 OK\r\nTransfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\nHTTP", 11),
    ANSWER(true, "200 OK\r\nTransfer-Encoding: chunked \r\n", "1\r\na\r\n0\r\n\r\nHTTP", 11),
    ANSWER(false, "200 OK\r\nTransfer-Encoding: chunked\t\r\n", "1\r\na\r\n0\r\n\r\n", 0),
    ANSWER(false, "200 OK\r\nTransfer-Encoding: \r\n", "1\r\na\r\n0\r\n\r\n", 0),
    ANSWER(false, "200 OK\r\nTransfer-Encoding: chunked, identity\r\n", "a", 0),
    ANSWER(false, "200 OK\r\nContent-Length: 1 1\r\n", "a", 0),
    ANSWER(true, "204 None\r\nTransfer-Encoding: chunked\r\n", "HTTP", 0),
    ANSWER(true, "304 None\r\nTransfer-Encoding: chunked\r\n", "HTTP", 0),
    ANSWER(true, "204 None\r\nContent-Length: 4\r\n", "HTTP", 0),
    ANSWER(true, "103 Hints\r\nContent-Length: 4\r\n", "HTTP", 0),
    ANSWER(true, "101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n", "HTTP", 0),
    ANSWER(true, "200\r\nContent-Length: 1\r\nConnection: close\r\n", "aHTTP", 1),
};

static void test_ends_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        char text[512];
        size_t head_size = strlen(messages[i].head);
        size_t size = head_size + strlen(messages[i].rest);
        assert_true(size < sizeof text);
        memcpy(text, messages[i].head, head_size);
        memcpy(text + head_size, messages[i].rest, size - head_size);
        for (size_t step = 1; step <= size; step++) {
            struct mem mem;
            mem_init(&mem, SIZE_MAX);
            struct http_parser *parser =
                http_parser_new(&mem, messages[i].kind, http_limits_default());
            assert_non_null(parser);
            struct outcome outcome = feed(parser, text, size, step);
            enum http_event wanted = messages[i].fine ? HTTP_GOT_END : HTTP_BROKEN;
            if (outcome.last != wanted) {
                fail_msg("message %zu, steps of %zu: event %d", i, step, (int)outcome.last);
            }
            if (messages[i].fine) {
                assert_int_equal(outcome.used, head_size + messages[i].rest_used);
            }
            http_parser_free(parser);
            mem_fini(&mem);
        }
    }
}

static void test_trailers_are_bounded(void **state)
{
    (void)state;
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct http_parser *parser = http_parser_new(&mem, HTTP_REQUESTS, http_limits_default());
    assert_non_null(parser);
    static const char start[] = CHUNKED_REQUEST "0\r\n";
    static const char trailer[] = "X: y\r\n";
    struct outcome outcome = feed(parser, start, sizeof start - 1, sizeof start);
    size_t sent = 0;
    while (outcome.last == HTTP_NEED_MORE && sent < (size_t)2 * HTTP_HEAD_BYTES_MAX) {
        outcome = feed(parser, trailer, sizeof trailer - 1, sizeof trailer);
        sent += sizeof trailer - 1;
    }
    assert_int_equal(outcome.last, HTTP_BROKEN);
    assert_int_equal(http_parser_error(parser).status, 431);
    assert_true(sent > HTTP_HEAD_BYTES_MAX);
    http_parser_free(parser);
    mem_fini(&mem);
}

/* Pipelined messages, each cut off from the next at the right byte. */
static void test_one_behind_the_other(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        CHUNKED_REQUEST "2\r\nde\r\n0\r\nX: y\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        CHUNKED_REQUEST "1\r\nf\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    };
    static const char *const bodies[] = {"abc", "de", "", "f", ""};
    enum { COUNT = sizeof parts / sizeof *parts };
    char text[1024] = "";
    size_t size = 0;
    for (size_t i = 0; i < COUNT; i++) {
        memcpy(text + size, parts[i], strlen(parts[i]));
        size += strlen(parts[i]);
    }
    for (size_t step = 1; step <= size; step++) {
        struct mem mem;
        mem_init(&mem, SIZE_MAX);
        struct http_parser *parser = http_parser_new(&mem, HTTP_REQUESTS, http_limits_default());
        assert_non_null(parser);
        size_t at = 0;
        for (size_t i = 0; i < COUNT; i++) {
            struct outcome outcome = feed(parser, text + at, size - at, step);
            assert_int_equal(outcome.last, HTTP_GOT_END);
            assert_int_equal(outcome.used, strlen(parts[i]));
            assert_int_equal(outcome.body_size, strlen(bodies[i]));
            assert_memory_equal(outcome.body, bodies[i], outcome.body_size);
            assert_int_equal(http_parser_head(parser)->keep_alive, i + 1 < COUNT);
            at += outcome.used;
            http_parser_reset(parser, false);
            assert_true(http_parser_idle(parser));
        }
        assert_int_equal(at, size);
        http_parser_free(parser);
        mem_fini(&mem);
    }
}

static struct outcome feed_fresh(enum http_kind kind, const char *text, size_t size, size_t step)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct http_parser *parser = http_parser_new(&mem, kind, http_limits_default());
    assert_non_null(parser);
    struct outcome outcome = feed(parser, text, size, step);
    http_parser_free(parser);
    mem_fini(&mem);
    return outcome;
}

/* Damaged messages: whatever they come to, they come to the same however the bytes are cut. */
static void test_noise(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    static const char alphabet[] = "\r\n\r\n :;,\t0159aXG/\x01\x80";
    for (int round = 0; round < 30000; round++) {
        const struct message *message =
            &messages[random_below(&random, sizeof messages / sizeof *messages)];
        char text[512];
        size_t head_size = strlen(message->head);
        size_t size = head_size + strlen(message->rest);
        memcpy(text, message->head, head_size);
        memcpy(text + head_size, message->rest, size - head_size);
        for (uint32_t changes = random_below(&random, 4); changes > 0; changes--) {
            text[random_below(&random, (uint32_t)size)] =
                alphabet[random_below(&random, sizeof alphabet)];
        }
        struct outcome whole = feed_fresh(message->kind, text, size, size);
        size_t step = 1 + random_below(&random, 9);
        struct outcome cut = feed_fresh(message->kind, text, size, step);
        assert_int_equal(cut.last, whole.last);
        if (whole.last != HTTP_BROKEN) {
            assert_int_equal(cut.used, whole.used);
            assert_int_equal(cut.body_size, whole.body_size);
            assert_memory_equal(cut.body, whole.body, whole.body_size);
        }
    }
}

/* Only right behind a chunk, not in the next one's line. */
static void test_between_chunks(void **state)
{
    (void)state;
    static const char text[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "4\r\na\n\r\n\r\n1;x=y\r\n\n\r\n2\r\nab\r\n";
    size_t head_size = (size_t)(strstr(text, "\r\n\r\n") + 4 - text);
    for (size_t size = head_size; size < sizeof text; size++) {
        struct mem mem;
        mem_init(&mem, SIZE_MAX);
        struct http_parser *parser = http_parser_new(&mem, HTTP_RESPONSES, http_limits_default());
        assert_non_null(parser);
        assert_int_equal(feed(parser, text, size, 1 + size % 4).last, HTTP_NEED_MORE);
        size_t at = size - head_size;
        assert_int_equal(http_parser_between_chunks(parser), at == 9 || at == 19 || at == 26);
        http_parser_free(parser);
        mem_fini(&mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends_at_every_cut),
        cmocka_unit_test(test_trailers_are_bounded),
        cmocka_unit_test(test_one_behind_the_other),
        cmocka_unit_test(test_between_chunks),
        cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
