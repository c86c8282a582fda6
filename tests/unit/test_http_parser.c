#include <stdio.h>

#include "http/http.h"
#include "support/test.h"

enum { BODY_MAX = 4096 };

struct result {
    enum http_event last;
    unsigned error_status;
    bool had_head;
    size_t used;
    size_t body_size;
    char body[BODY_MAX];
};

/* Feeds `text` in pieces of `step` bytes until the message ends, breaks, or all is used. */
static struct result feed(struct http_parser *parser, const char *text, size_t size, size_t step)
{
    struct result result = {.last = HTTP_NEED_MORE};
    size_t given = 0;
    while (result.last != HTTP_GOT_END && result.last != HTTP_BROKEN) {
        size_t left = given - result.used;
        if (result.last ==
            HTTP_NEED_MORE) { /* After any other event it may go on without more bytes. */
            if (given == size) {
                break;
            }
            given += step < size - given ? step : size - given;
            left = given - result.used;
        }
        size_t consumed = 0;
        struct span body;
        result.last = http_parse(parser, text + result.used, left, &consumed, &body);
        result.used += consumed;
        result.had_head = result.had_head || result.last == HTTP_GOT_HEAD;
        if (result.last == HTTP_GOT_BODY) {
            assert_true(result.body_size + body.size <= BODY_MAX);
            memcpy(result.body + result.body_size, body.data, body.size);
            result.body_size += body.size;
        }
    }
    if (result.last == HTTP_BROKEN) {
        result.error_status = http_parser_error(parser).status;
        assert_non_null(http_parser_error(parser).text);
    }
    return result;
}

static struct http_parser *parser_new(struct mem *mem, enum http_kind kind)
{
    mem_init(mem, SIZE_MAX);
    struct http_parser *parser = http_parser_new(mem, kind, http_limits_default());
    assert_non_null(parser);
    return parser;
}

static void parser_end(struct mem *mem, struct http_parser *parser)
{
    http_parser_free(parser);
    mem_fini(mem);
}

struct good {
    enum http_kind kind;
    const char *text;
    const char *body;
    const char *rest; /* What follows the message and must not be used up. */
};

static const struct good good[] = {
    {HTTP_REQUESTS, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "GET /2"},
    {HTTP_REQUESTS, "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", "", ""},
    {HTTP_REQUESTS, "POST /v1?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello",
     "POST"},
    {HTTP_REQUESTS, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", "x"},
    {HTTP_REQUESTS,
     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
     "chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
     "abcde", "GET"},
    {HTTP_REQUESTS,
     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: "
     "x\r\n\r\n",
     "a", "G"},
    {HTTP_REQUESTS, "GET / HTTP/1.0\r\n\r\n", "", ""},
    {HTTP_REQUESTS,
     "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "", "more"},
    {HTTP_REQUESTS, "GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Tab: \t v \t\r\n\r\n", "", ""},
    {HTTP_RESPONSES, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", "HTTP"},
    {HTTP_RESPONSES, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
     "ok", "HTTP"},
    {HTTP_RESPONSES, "HTTP/1.1 204 No Content\r\n\r\n", "", "HTTP"},
    {HTTP_RESPONSES, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", "HTTP"},
    {HTTP_RESPONSES, "HTTP/1.1 100 Continue\r\n\r\n", "", "HTTP/1.1 200"},
};

static void good_messages_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[1024];
        int size = snprintf(text, sizeof text, "%s%s", good[i].text, good[i].rest);
        assert_true(size > 0 && (size_t)size < sizeof text);
        for (size_t step = 1; step <= (size_t)size; step++) {
            struct mem mem;
            struct http_parser *parser = parser_new(&mem, good[i].kind);
            struct result result = feed(parser, text, (size_t)size, step);
            if (result.last != HTTP_GOT_END) {
                fail_msg("message %zu in steps of %zu: event %d", i, step, (int)result.last);
            }
            assert_true(result.had_head);
            assert_int_equal(result.used, strlen(good[i].text));
            assert_int_equal(result.body_size, strlen(good[i].body));
            assert_memory_equal(result.body, good[i].body, result.body_size);
            parser_end(&mem, parser);
        }
    }
}

struct bad {
    enum http_kind kind;
    const char *text;
    unsigned status;
};

#define REQUEST(lines) "POST / HTTP/1.1\r\n" lines "\r\n"

static const struct bad bad[] = {
    {HTTP_REQUESTS, "GET / HTTP/1.1\r\n\r\n", 400},
    {HTTP_REQUESTS, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {HTTP_REQUESTS, "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
    {HTTP_REQUESTS, "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
    {HTTP_REQUESTS, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {HTTP_REQUESTS, "FETCH / HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nContent-Length: 1, 1\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nContent-Length: +1\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nContent-Length: -1\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nContent-Length:\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nContent-Length: 99999999999999999999999\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400},
    {HTTP_REQUESTS,
     REQUEST("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nTransfer-Encoding: identity\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nTransfer-Encoding: xchunked\r\n"), 400},
    {HTTP_REQUESTS, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nX-A : b\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nX-A: b\r\n folded\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\n: b\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nnocolon\r\n"), 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nX(A): b\r\n"), 400},
    {HTTP_REQUESTS, "GET / HTTP/1.1\nHost: a\n\n", 400},
    {HTTP_REQUESTS, "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
    {HTTP_REQUESTS, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400},
    {HTTP_REQUESTS,
     REQUEST("Host: a\r\nX: a\x01"
             "b\r\n"),
     400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nTransfer-Encoding: chunked\r\n") "zz\r\n", 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nTransfer-Encoding: chunked\r\n") "-1\r\n", 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nTransfer-Encoding: chunked\r\n") "3\r\nabcd\r\n", 400},
    {HTTP_REQUESTS, REQUEST("Host: a\r\nTransfer-Encoding: chunked\r\n") "11111111111111111\r\n",
     400},
    {HTTP_REQUESTS, "\x16\x03\x01\x02", 501},
    {HTTP_RESPONSES, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", 400},
    {HTTP_RESPONSES, "HTTP/3.1 200 OK\r\n\r\n", 505},
    {HTTP_RESPONSES, "HTTP/1.1 20 OK\r\n\r\n", 400},
    {HTTP_RESPONSES, "SSH-2.0-OpenSSH\r\n", 400},
};

static void bad_messages_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t size = strlen(bad[i].text);
        for (size_t step = 1; step <= size; step += size > 1 ? size - 1 : 1) {
            struct mem mem;
            struct http_parser *parser = parser_new(&mem, bad[i].kind);
            struct result result = feed(parser, bad[i].text, size, step);
            if (result.last != HTTP_BROKEN) {
                fail_msg("message %zu passed: %s", i, bad[i].text);
            }
            if (bad[i].kind == HTTP_REQUESTS && bad[i].status != result.error_status) {
                assert_int_equal(result.error_status,
                                 400); /* llhttp may see another fault first. */
            }
            parser_end(&mem, parser);
        }
    }
}

static void a_null_byte_is_refused(void **state)
{
    (void)state;
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
    struct mem mem;
    struct http_parser *parser = parser_new(&mem, HTTP_REQUESTS);
    assert_int_equal(feed(parser, text, sizeof text - 1, 7).last, HTTP_BROKEN);
    parser_end(&mem, parser);
}

static void limits_hold(void **state)
{
    (void)state;
    static const char start[] = "GET / HTTP/1.1\r\nHost: a\r\n";
    struct mem mem;
    struct http_parser *parser = parser_new(&mem, HTTP_REQUESTS);
    char big[70000];
    memset(big, 'a', sizeof big);
    (void)feed(parser, start, sizeof start - 1, 100);
    assert_int_equal(feed(parser, "X: ", 3, 3).last, HTTP_NEED_MORE);
    assert_int_equal(feed(parser, big, sizeof big, 1000).error_status, 431);
    http_parser_reset(parser, false);
    (void)feed(parser, start, sizeof start - 1, 100);
    struct result result = {0};
    for (int i = 0; i < 101 && result.last != HTTP_BROKEN; i++) {
        result = feed(parser, "X: y\r\n", 6, 6);
    }
    assert_int_equal(result.error_status, 431);
    http_parser_reset(parser, false);
    (void)feed(parser, "GET /", 5, 5);
    assert_int_equal(feed(parser, big, 9000, 100).error_status, 414);
    parser_end(&mem, parser);
}

static void heads_are_read(void **state)
{
    (void)state;
    static const char text[] =
        "POST /a?b HTTP/1.1\r\nHost: h\r\nX-One:  1 \r\nConnection: X-Hop, close\r\n"
        "x-hop: 1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
    struct mem mem;
    struct http_parser *parser = parser_new(&mem, HTTP_REQUESTS);
    assert_int_equal(feed(parser, text, sizeof text - 1, 3).last, HTTP_GOT_END);
    const struct http_head *head = http_parser_head(parser);
    assert_true(span_is(head->method, "POST"));
    assert_true(span_is(head->target, "/a?b"));
    assert_true(span_is(http_header(head, "x-one"), "1"));
    assert_null(http_header(head, "x-two").data);
    assert_false(head->keep_alive);
    assert_true(head->expect_continue);
    assert_int_equal(head->content_length, 3);
    assert_true(http_is_hop_by_hop(head, span_of("X-HOP")));
    assert_true(http_is_hop_by_hop(head, span_of("Transfer-Encoding")));
    assert_false(http_is_hop_by_hop(head, span_of("X-One")));
    parser_end(&mem, parser);
}

static void the_end_of_a_connection(void **state)
{
    (void)state;
    struct mem mem;
    struct http_parser *parser = parser_new(&mem, HTTP_RESPONSES);
    assert_int_equal(http_parse_eof(parser), HTTP_NEED_MORE);
    static const char open_end[] = "HTTP/1.0 200 OK\r\n\r\nbody";
    assert_int_equal(feed(parser, open_end, sizeof open_end - 1, 5).body_size, 4);
    assert_true(http_parser_head(parser)->until_eof);
    assert_int_equal(http_parse_eof(parser), HTTP_GOT_END);
    http_parser_reset(parser, false);
    static const char cut[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbody";
    (void)feed(parser, cut, sizeof cut - 1, 100);
    assert_int_equal(http_parse_eof(parser), HTTP_BROKEN);
    http_parser_reset(parser, true);
    struct result result = feed(parser, cut, sizeof cut - 5, 100);
    assert_int_equal(result.last, HTTP_GOT_END); /* To a HEAD request: no body. */
    parser_end(&mem, parser);
}

static void urls(void **state)
{
    (void)state;
    struct http_url url;
    const char *error = NULL;
    assert_true(http_url_parse(span_of("http://vllm:8000"), &url, &error));
    assert_true(span_is(url.host, "vllm"));
    assert_int_equal(url.port, 8000);
    assert_int_equal(url.path.size, 0);
    assert_true(http_url_parse(span_of("http://10.0.0.7/v2/x/"), &url, &error));
    assert_int_equal(url.port, 80);
    assert_true(span_is(url.path, "/v2/x"));
    assert_true(http_url_parse(span_of("http://[::1]:81"), &url, &error));
    assert_true(url.ipv6 && !url.secure && span_is(url.host, "::1"));
    assert_true(http_url_parse(span_of("https://a.b/x"), &url, &error));
    assert_int_equal(url.port, 443);
    assert_true(url.secure && span_is(url.host, "a.b") && span_is(url.path, "/x"));
    static const char *const wrong[] = {"",
                                        "vllm:8000",
                                        "https:/a",
                                        "http://",
                                        "http://:80",
                                        "http://a:0",
                                        "http://a:70000",
                                        "http://a:x",
                                        "http://[::1",
                                        "http://a b",
                                        "http://a/?q",
                                        "http://a/ b",
                                        "http://[]:1",
                                        "http://a:",
                                        "http://a@b",
                                        "http://[::1]x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        error = NULL;
        assert_false(http_url_parse(span_of(wrong[i]), &url, &error));
        assert_non_null(error);
    }
}

static void hop_by_hop(void **state)
{
    (void)state;
    static const char text[] =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, content-length,X-One\r\n"
        "Connection: ,x-two , host, Content-Type\r\n\r\n";
    struct mem mem;
    struct http_parser *parser = parser_new(&mem, HTTP_REQUESTS);
    assert_int_equal(feed(parser, text, sizeof text - 1, 5).last, HTTP_GOT_END);
    const struct http_head *head = http_parser_head(parser);
    static const char *const dropped[] = {
        "Connection", "Keep-Alive",        "Proxy-Connection",    "Proxy-Authenticate",
        "TE",         "Transfer-Encoding", "Proxy-Authorization", "Proxy-Authentication-Info",
        "Trailer",    "Upgrade",           "HTTP2-Settings",      "x-one",
        "X-TWO"};
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++) {
        assert_true(http_is_hop_by_hop(head, span_of(dropped[i])));
    }
    static const char *const passed[] = {"Content-Length", "Host", "Content-Type",
                                         "X-Onel",         "X-Tw", "Authorization"};
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
        assert_false(http_is_hop_by_hop(head, span_of(passed[i])));
    }
    parser_end(&mem, parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_messages_at_every_cut),
        cmocka_unit_test(bad_messages_are_refused),
        cmocka_unit_test(a_null_byte_is_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(heads_are_read),
        cmocka_unit_test(the_end_of_a_connection),
        cmocka_unit_test(hop_by_hop),
        cmocka_unit_test(urls),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
