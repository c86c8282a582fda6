/* LIST and WATCH against a server that follows a script: what is asked, what is told, what is not.
 */
#include "discovery/watch.h"
#include "scripted_server.h"

#define OK    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
#define CHUNK "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

#define OBJECT(name, version) \
    "{\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"" version "\"}}"
#define LIST_OF(version, items) \
    OK "{\"metadata\":{\"resourceVersion\":\"" version "\"},\"items\":[" items "]}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"

/* A WATCH that stays as it is: the end of some scripts. */
#define IDLE                                                                          \
    {                                                                                 \
        .wanted = "watch=1&allowWatchBookmarks=true", .bytes = OK, .stays_open = true \
    }

static struct fixture {
    struct mem mem;
    struct net_loop *loop;
    struct net_timer *guard;
    struct scripted_server server;
    struct fetcher *fetcher;
    struct access access;
    struct watch *watch;
    struct watch_options options;
    char url[64];
    struct buf told; /* What was told, in short. */
    struct buf problems;
    size_t pieces;
    size_t pieces_wanted; /* The loop stops then. */
} fixture;

static void note(const char *text, struct span name)
{
    assert_true(buf_printf(&fixture.told, "%s%.*s ", text, (int)name.size, name.data));
    if (++fixture.pieces == fixture.pieces_wanted) {
        net_loop_stop(fixture.loop);
    }
}

static void on_begin(void *user)
{
    (void)user;
    note("[", (struct span){"", 0});
}

static void on_object(void *user, enum watch_change change, const struct json_parser *parser,
                      struct json_value object)
{
    static const char *const signs[] = {"=", "+", "~", "-"};
    (void)user;
    struct json_value name = json_find(parser, json_find(parser, object, "metadata"), "name");
    note(signs[change], json_text(parser, name));
}

static void on_listed(void *user)
{
    (void)user;
    note("]", (struct span){"", 0});
}

static void on_problem(void *user, const char *problem)
{
    (void)user;
    assert_true(buf_printf(&fixture.problems, "%s\n", problem == NULL ? "again" : problem));
}

static void on_guard(void *user)
{
    (void)user;
    fail_msg("nothing came for 20 seconds; told so far: %.*s; problems: %.*s",
             (int)fixture.told.size, fixture.told.data, (int)fixture.problems.size,
             fixture.problems.data);
}

static int set_up(void **state)
{
    (void)state;
    fixture = (struct fixture){0};
    struct mem *mem = &fixture.mem;
    mem_init(mem, SIZE_MAX);
    buf_init(&fixture.told, mem, 65536);
    buf_init(&fixture.problems, mem, 65536);
    fixture.loop = net_loop_new(mem);
    fixture.guard = net_timer_new(fixture.loop, on_guard, NULL);
    net_timer_start(fixture.guard, 20 * CLOCK_NS_PER_S);
    scripted_server_init(&fixture.server, fixture.loop, mem);
    fixture.fetcher = fetcher_new(fixture.loop, mem);
    (void)snprintf(fixture.url, sizeof fixture.url, "http://127.0.0.1:%u", fixture.server.port);
    fixture.access = (struct access){.mem = mem, .server = fixture.url};
    fixture.options = (struct watch_options){.loop = fixture.loop,
                                             .mem = mem,
                                             .fetcher = fixture.fetcher,
                                             .access = &fixture.access,
                                             .path = "/api/v1/namespaces/llm/pods",
                                             .selector = "",
                                             .what = "pods",
                                             .relist_ns = 3600 * CLOCK_NS_PER_S,
                                             .pause_ns = 20 * CLOCK_NS_PER_MS,
                                             .seed = 1,
                                             .on_begin = on_begin,
                                             .on_object = on_object,
                                             .on_listed = on_listed,
                                             .on_problem = on_problem};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    watch_free(fixture.watch);
    fetcher_free(fixture.fetcher);
    scripted_server_fini(&fixture.server);
    net_timer_close(fixture.guard);
    net_loop_free(fixture.loop);
    buf_fini(&fixture.told);
    buf_fini(&fixture.problems);
    mem_fini(&fixture.mem);
    return 0;
}

/* Runs until so many pieces are told that `expected` is complete, and compares. */
static void run(const struct reply *replies, size_t count, const char *expected)
{
    fixture.server.replies = replies;
    fixture.server.reply_count = count;
    for (const char *at = expected; *at != '\0'; at++) {
        fixture.pieces_wanted += *at == ' ';
    }
    fixture.watch = watch_new(&fixture.options);
    assert_non_null(fixture.watch);
    net_loop_run(fixture.loop);
    assert_true(buf_append(&fixture.told, "", 1) && buf_append(&fixture.problems, "", 1));
    assert_string_equal(fixture.told.data, expected);
}

#define RUN(replies, expected) run(replies, sizeof(replies) / sizeof *(replies), expected)

static void assert_problem(const char *text)
{
    if (strstr(fixture.problems.data, text) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", fixture.problems.data, text);
    }
}

/* ---- As it should be ---- */

static void a_list_is_followed_by_a_watch_from_its_version(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"GET /api/v1/namespaces/llm/pods?limit=100&labelSelector=a%3Db%2Cc%20in%20%28d%29 HTTP",
         LIST_OF("10", OBJECT("a", "3") "," OBJECT("b", "7")), false},
        {"&resourceVersion=10&labelSelector=a%3Db%2Cc%20in%20%28d%29 HTTP",
         OK EVENT("ADDED", OBJECT("c", "11")) EVENT("MODIFIED", OBJECT("a", "12"))
             EVENT("DELETED", OBJECT("b", "13")),
         true},
    };
    fixture.options.selector = "a=b,c in (d)";
    RUN(replies, "[ =a =b ] +c ~a -b ");
    assert_int_equal(watch_stats(fixture.watch)->events, 3);
    assert_int_equal(watch_stats(fixture.watch)->failures, 0);
}

static void a_list_comes_in_pages(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"?limit=100 HTTP",
         OK "{\"metadata\":{\"resourceVersion\":\"10\",\"continue\":\"a+/=\"},\"items\":[" OBJECT(
             "a", "1") "]}",
         false},
        {"?limit=100&continue=a%2B%2F%3D HTTP", LIST_OF("10", OBJECT("b", "2")), false},
        {"resourceVersion=10 ", OK EVENT("ADDED", OBJECT("c", "11")), true},
    };
    RUN(replies, "[ =a =b ] +c ");
}

static void a_watch_that_ends_goes_on_from_what_it_last_told(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"?limit", LIST_OF("10", ""), false},
        {"resourceVersion=10 ", OK EVENT("ADDED", OBJECT("a", "11")), false},
        {"resourceVersion=11 ", OK EVENT("BOOKMARK", OBJECT("", "40")), false},
        /* Cut within an event, which comes again. */
        {"resourceVersion=40 ", OK EVENT("ADDED", OBJECT("b", "41")) "{\"type\":\"ADDED\",\"obj",
         false},
        {"resourceVersion=41 ", CHUNK "7\r\n{\"type\"\r\n",
         false}, /* Cut before any event: after a pause. */
        {"resourceVersion=41 ", OK EVENT("ADDED", OBJECT("c", "42")), true},
    };
    RUN(replies, "[ ] +a +b +c ");
    assert_int_equal(watch_stats(fixture.watch)->lists, 1);
    assert_int_equal(watch_stats(fixture.watch)->failures, 1);
    assert_problem("pods cannot be watched");
    assert_problem("again\n");
}

static void a_list_is_due_now_and_then_whatever_the_watch_told(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"?limit", LIST_OF("10", OBJECT("a", "1")), false},
        {"resourceVersion=10 ", OK, true}, /* The DELETED of a never comes. */
        {"?limit", LIST_OF("20", ""), false},
        {"resourceVersion=20 ", OK EVENT("ADDED", OBJECT("b", "21")), true},
    };
    fixture.options.relist_ns = 100 * CLOCK_NS_PER_MS;
    RUN(replies, "[ =a ] [ ] +b ");
}

/* ---- Versions ---- */

static void a_version_that_is_too_old_leads_to_a_list(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"?limit", LIST_OF("10", ""), false},
        {"resourceVersion=10 ",
         "HTTP/1.1 410 Gone\r\n\r\n{\"code\":410,\"message\":\"too old resource version\"}", false},
        {"?limit", LIST_OF("20", ""), false},
        {"resourceVersion=20 ",
         OK EVENT("ADDED", OBJECT("a", "21")) EVENT("ERROR", "{\"kind\":\"Status\",\"code\":410}")
             EVENT("ADDED", OBJECT("x", "9")),
         false},
        {"?limit", LIST_OF("30", ""), false},
        /* "Too large resource version" has other numbers. */
        {"resourceVersion=30 ", "HTTP/1.1 504 Gateway Timeout\r\n\r\n{}", false},
        {"?limit=100 HTTP",
         OK "{\"metadata\":{\"resourceVersion\":\"40\",\"continue\":\"c\"},\"items\":[]}", false},
        {"&continue=c ", "HTTP/1.1 410 Gone\r\n\r\n{\"code\":410}", false},
        {"?limit=100 HTTP", LIST_OF("50", ""), false},
        {"resourceVersion=50 ", OK EVENT("ADDED", OBJECT("b", "51")), true},
    };
    RUN(replies, "[ ] [ ] +a [ ] [ [ ] +b ");
    assert_int_equal(watch_stats(fixture.watch)->expired, 3);
    assert_problem(
        "pods cannot be watched: it answers 410: too old resource version; again in 0.0 s");
    assert_problem("its version is too old");
    assert_problem("pods cannot be listed: it answers 410");
}

static void repeated_events_are_skipped_and_a_wrong_order_leads_to_a_list(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"?limit", LIST_OF("10", ""), false},
        {"resourceVersion=10 ",
         OK EVENT("ADDED", OBJECT("a", "12")) EVENT("ADDED", OBJECT("a", "12"))
             EVENT("ADDED", OBJECT("b", "11")),
         true},
        {"?limit", LIST_OF("20", ""), false},
        /* Versions need not be numbers; then any order is right. */
        {"resourceVersion=20 ",
         OK EVENT("ADDED", OBJECT("c", "z")) EVENT("ADDED", OBJECT("d", "y")), true},
    };
    RUN(replies, "[ ] +a [ ] +c +d ");
    assert_problem("out of order");
}

/* ---- Hostile and broken servers ---- */

static void what_is_not_of_the_api_is_told_and_leads_to_a_list(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        const char *problem;
    } cases[] = {
        {OK "<html>\n", "an event is not JSON"},
        {OK "[]\n", "unknown type"},
        {OK "{\"type\":5}\n", "unknown type"},
        {OK "{\"type\":\"ADDED\"}\n", "has no version"},
        {OK EVENT("ADDED", "[]"), "has no version"},
        {OK EVENT("ADDED", "{\"metadata\":{\"resourceVersion\":7}}"), "has no version"},
        {OK EVENT("BOOKMARK", "{}"), "bookmark"},
        {OK EVENT("RENAMED", OBJECT("a", "99")), "unknown type"},
        {OK EVENT("ERROR", "null"), "tells an error"},
        {"HTTP/1.1 403 Forbidden\r\n\r\n{\"message\":\"pods is forbidden\"}",
         "it answers 403: pods is forbidden"},
        {"HTTP/1.1 401 Unauthorized\r\n\r\n", "it answers 401"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct reply replies[] = {
            {"?limit", LIST_OF("10", ""), false},
            {"watch=1", cases[i].bytes, true},
            {"?limit", LIST_OF("10", OBJECT("ok", "1")), false},
            IDLE,
        };
        if (i > 0) {
            tear_down(state);
            set_up(state);
        }
        struct reply *refusal = (struct reply *)(uintptr_t)&replies[1];
        refusal->stays_open = strncmp(cases[i].bytes, OK, sizeof OK - 1) == 0;
        RUN(replies, "[ ] [ =ok ] ");
        assert_problem(cases[i].problem);
    }
}

static void lists_that_are_none_are_asked_for_again(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"?limit", "HTTP/1.1 403 Forbidden\r\n\r\n{\"message\":\"no\"}", false},
        {"?limit", OK "[]", false},
        {"?limit", OK "{\"items\":[]}", false},
        {"?limit", LIST_OF("1", OBJECT("a", "1")), false},
        IDLE,
    };
    RUN(replies, "[ [ [ [ =a ] ");
    assert_problem("pods cannot be listed: it answers 403: no");
    assert_problem("its answer is no list");
}

static void events_and_lists_without_end_take_bounded_memory(void **state)
{
    (void)state;
    static char event[sizeof OK + WATCH_EVENT_BYTES_MAX + 1];
    static char page[sizeof OK + WATCH_PAGE_BYTES_MAX + 1];
    (void)snprintf(event, sizeof event, "%s%*s", OK, WATCH_EVENT_BYTES_MAX + 1, "");
    (void)snprintf(page, sizeof page, "%s%*s", OK, WATCH_PAGE_BYTES_MAX + 1, "");
    const struct reply replies[] = {
        {"?limit", page, true},
        {"?limit", LIST_OF("10", ""), false},
        {"watch=1", event, true},
        {"?limit", LIST_OF("10", OBJECT("a", "1")), false},
        IDLE,
    };
    RUN(replies, "[ [ ] [ =a ] ");
    assert_problem("pods cannot be listed: its answer is too long");
    assert_problem("pods cannot be watched: an event is too long");
    assert_true(fixture.mem.bytes_peak < 3 * (size_t)WATCH_PAGE_BYTES_MAX);
    assert_true(fixture.mem.bytes_used < 1024 * 1024);
}

static void pauses_grow_until_a_watch_has_told_something(void **state)
{
    (void)state;
    static const struct reply replies[] = {
        {"?limit", LIST_OF("10", ""), false},
        {"watch=1", OK, false}, /* Ends at once: 100 to 300 ms; */
        {"watch=1", OK, false}, /* 200 to 600 ms. */
        {"watch=1", OK EVENT("ADDED", OBJECT("a", "11")), false},
        {"watch=1", OK, false}, /* 100 to 300 ms again. */
        {"watch=1", OK EVENT("ADDED", OBJECT("b", "12")), true},
    };
    fixture.options.pause_ns = 200 * CLOCK_NS_PER_MS;
    uint64_t begun_ns = net_now_ns();
    RUN(replies, "[ ] +a +b ");
    uint64_t took_ns = net_now_ns() - begun_ns;
    assert_true(took_ns >= 400 * CLOCK_NS_PER_MS);
    assert_problem("it ends at once");
}

static void each_question_reads_the_token_anew(void **state)
{
    (void)state;
    char *folder = test_directory_make();
    char *path = test_path(folder, "token");
    static const struct reply replies[] = {
        {"?limit", LIST_OF("10", ""), false},
        {"Authorization: Bearer late\r\n", OK EVENT("ADDED", OBJECT("a", "11")), true},
    };
    fixture.access.token_file = path;
    fixture.server.replies = replies;
    fixture.watch = watch_new(&fixture.options); /* There is no file yet: told, and tried again. */
    test_file_write_text(folder, "token", "late\n");
    watch_free(fixture.watch);
    RUN(replies, "[ ] +a ");
    fixture.access.token_file = NULL;
    test_path_free(path);
    test_directory_remove(folder);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(a_list_is_followed_by_a_watch_from_its_version),
        TEST(a_list_comes_in_pages),
        TEST(a_watch_that_ends_goes_on_from_what_it_last_told),
        TEST(a_list_is_due_now_and_then_whatever_the_watch_told),
        TEST(a_version_that_is_too_old_leads_to_a_list),
        TEST(repeated_events_are_skipped_and_a_wrong_order_leads_to_a_list),
        TEST(what_is_not_of_the_api_is_told_and_leads_to_a_list),
        TEST(lists_that_are_none_are_asked_for_again),
        TEST(events_and_lists_without_end_take_bounded_memory),
        TEST(pauses_grow_until_a_watch_has_told_something),
        TEST(each_question_reads_the_token_anew),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
