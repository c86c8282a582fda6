/* Pods, services, slices and models as JSON, of the API's form and of none. */
#include <stdio.h>
#include <string.h>

#include "discovery/objects.h"
#include "discovery/table.h"
#include "support/test.h"

static struct mem mem;
static struct json_parser *parser;

static int set_up(void **state)
{
    (void)state;
    mem_init(&mem, SIZE_MAX);
    parser = json_parser_new(&mem);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_parser_free(parser);
    mem_fini(&mem);
    return 0;
}

static struct json_value parse(const char *text)
{
    assert_int_equal(json_parse(parser, text, strlen(text)), JSON_OK);
    return json_root(parser);
}

static struct pod pod_of(const char *text)
{
    struct pod pod;
    assert_true(object_read_pod(parser, parse(text), &pod));
    return pod;
}

#define META(more)       "\"metadata\":{\"name\":\"vllm-0\",\"uid\":\"u-1\"" more "}"
#define STATUS(more)     "\"status\":{\"podIP\":\"10.0.0.7\"" more "}"
#define CONTAINERS(list) ",\"containerStatuses\":[" list "]"
#define READY            "{\"name\":\"vllm\",\"ready\":true,\"restartCount\":3}"

static void a_ready_pod_is_read_as_a_whole(void **state)
{
    (void)state;
    static const char text[] =
        "{\"metadata\":{\"name\":\"vllm-0\",\"uid\":\"u-1\",\"resourceVersion\":\"77\","
        "\"creationTimestamp\":\"2026-08-05T12:00:00Z\","
        "\"labels\":{\"model\":\"llama\",\"sleeping\":\"true\"}},"
        "\"spec\":{\"containers\":[{\"name\":\"vllm\",\"command\":[\"vllm\",\"serve\",\"m\","
        "\"--enable-sleep-mode\"]}]},"
        "\"status\":{\"podIP\":\"10.0.0.7\",\"containerStatuses\":["
        "{\"name\":\"sidecar\",\"ready\":true,\"restartCount\":9}," READY "]}}";
    struct pod pod = pod_of(text);
    assert_true(span_is(pod.name, "vllm-0") && span_is(pod.uid, "u-1"));
    assert_true(span_is(pod.version, "77") && span_is(pod.created, "2026-08-05T12:00:00Z"));
    assert_true(span_is(pod.address, "10.0.0.7") && span_is(pod.model, "llama"));
    assert_int_equal(pod.restarts, 3); /* Of the engine alone. */
    assert_true(pod.ready && pod.says_sleeping && pod.may_sleep);
}

static void readiness_needs_all_containers_an_address_and_no_deletion(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ready;
    } cases[] = {
        {"{" META() "," STATUS(CONTAINERS(READY)) "}", true},
        {"{" META() "," STATUS(CONTAINERS(READY "," READY)) "}", true},
        {"{" META(",\"deletionTimestamp\":null") "," STATUS(CONTAINERS(READY)) "}", true},
        {"{" META() "," STATUS() "}", false},
        {"{" META() "," STATUS(CONTAINERS("")) "}", false},
        {"{" META() "," STATUS(CONTAINERS(READY ",{\"name\":\"x\",\"ready\":false}")) "}", false},
        {"{" META() "," STATUS(CONTAINERS("{\"name\":\"x\"}")) "}", false},
        {"{" META() "," STATUS(CONTAINERS("7")) "}", false},
        {"{" META(",\"deletionTimestamp\":\"2026-08-05T12:00:00Z\"") "," STATUS(
             CONTAINERS(READY)) "}",
         false},
        {"{" META() ",\"status\":{\"containerStatuses\":[" READY "]}}", false},
        {"{" META() ",\"status\":{\"podIP\":\"\",\"containerStatuses\":[" READY "]}}", false},
        {"{" META() ",\"status\":{\"podIP\":\"evil.example/\",\"containerStatuses\":[" READY "]}}",
         false},
        {"{" META() ",\"status\":{\"podIP\":\"10.0.0.7\\r\\n\",\"containerStatuses\":[" READY "]}}",
         false},
        {"{" META() ",\"status\":{\"podIP\":\"fd00::7\",\"containerStatuses\":[" READY "]}}", true},
        {"{" META() ",\"status\":{\"podIP\":\"::::\",\"containerStatuses\":[" READY "]}}", false},
        {"{" META() ",\"status\":{\"podIP\":\"abc\",\"containerStatuses\":[" READY "]}}", false},
        {"{" META() "}", false},
        {"{" META() ",\"status\":[]}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (pod_of(cases[i].text).ready != cases[i].ready) {
            fail_msg("case %zu: %s", i, cases[i].text);
        }
    }
}

static void whether_it_may_sleep_is_in_its_command(void **state)
{
    (void)state;
    static const struct {
        const char *containers;
        bool may_sleep;
    } cases[] = {
        {"{\"name\":\"vllm\",\"command\":[\"vllm\",\"serve\"]}", false},
        {"{\"name\":\"vllm\",\"command\":[\"vllm\"],\"args\":[\"--enable-sleep-mode\"]}", true},
        {"{\"name\":\"e\",\"command\":[\"sh\",\"-c\",\"exec vllm --enable-sleep-mode m\"]}", true},
        {"{\"name\":\"vllm\"}", true}, /* Its image says with what. */
        {"{\"name\":\"other\"}", false},
        {"{\"name\":\"other\"},{\"name\":\"vllm\",\"args\":[\"--enable-sleep-mode\"]}", true},
        {"5", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        (void)snprintf(text, sizeof text, "{" META() ",\"spec\":{\"containers\":[%s]}}",
                       cases[i].containers);
        if (pod_of(text).may_sleep != cases[i].may_sleep) {
            fail_msg("case %zu: %s", i, text);
        }
    }
}

static void restarts_are_those_of_all_where_none_is_named_vllm(void **state)
{
    (void)state;
    assert_int_equal(
        pod_of("{" META() "," STATUS(CONTAINERS("{\"name\":\"a\",\"restartCount\":1},"
                                                "{\"name\":\"b\",\"restartCount\":2}")) "}")
            .restarts,
        3);
}

static void texts_that_are_no_names_count_as_not_said(void **state)
{
    (void)state;
    struct pod pod;
    static const char *const nameless[] = {"{}",
                                           "[]",
                                           "7",
                                           "null",
                                           "{\"metadata\":[]}",
                                           "{\"metadata\":{\"name\":7}}",
                                           "{\"metadata\":{\"name\":\"\"}}",
                                           "{\"metadata\":{\"name\":\"a b\"}}",
                                           "{\"metadata\":{\"name\":\"a\\u0000\"}}",
                                           "{\"metadata\":{\"name\":\"\xc3\xa9\"}}"};
    for (size_t i = 0; i < sizeof nameless / sizeof *nameless; i++) {
        assert_false(object_read_pod(parser, parse(nameless[i]), &pod));
        struct service service;
        struct slice slice;
        assert_false(object_read_service(parser, parse(nameless[i]), &service));
        assert_false(object_read_slice(parser, parse(nameless[i]), &slice));
    }
    char text[512];
    (void)snprintf(text, sizeof text, "{\"metadata\":{\"name\":\"%0*d\"}}",
                   OBJECT_NAME_BYTES_MAX + 1, 0);
    assert_false(object_read_pod(parser, parse(text), &pod));
    (void)snprintf(text, sizeof text, "{" META(",\"labels\":{\"model\":\"%0*d\"}") "}",
                   OBJECT_LABEL_BYTES_MAX + 1, 0);
    assert_int_equal(pod_of(text).model.size, 0);
}

static void a_service_is_as_ready_as_its_slices(void **state)
{
    (void)state;
    struct service service;
    struct slice slice;
    assert_true(object_read_service(
        parser,
        parse("{" META(",\"labels\":{\"model\":\"b\"}") ",\"spec\":{\"selector\":"
                                                        "{\"model\":\"a\"}}}"),
        &service));
    assert_true(span_is(service.model, "a") && span_is(service.name, "vllm-0"));
    assert_true(object_read_service(
        parser, parse("{" META(",\"labels\":{\"model\":\"b\"}") ",\"spec\":{}}"), &service));
    assert_true(span_is(service.model, "b"));
    assert_false(object_read_service(parser, parse("{\"metadata\":{\"name\":\"a/b\"}}"), &service));
    assert_false(object_read_service(parser, parse("{\"metadata\":{\"name\":\"A.b\"}}"), &service));
    static const struct {
        const char *endpoints;
        bool ready;
    } cases[] = {
        {"", false},
        {"{\"conditions\":{\"ready\":true}}", true},
        {"{\"conditions\":{\"ready\":false}}", false},
        {"{\"conditions\":{}}", true}, /* Not said counts as ready. */
        {"{\"conditions\":{\"ready\":false}},{\"conditions\":{\"ready\":true}}", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        (void)snprintf(
            text, sizeof text,
            "{" META(
                ",\"labels\":{\"kubernetes.io/service-name\":\"vllm\"}") ",\"endpoints\":[%s]}",
            cases[i].endpoints);
        assert_true(object_read_slice(parser, parse(text), &slice));
        assert_true(span_is(slice.service, "vllm"));
        assert_int_equal(slice.ready, cases[i].ready);
    }
    assert_true(object_read_slice(parser, parse("{" META() ",\"endpoints\":null}"), &slice));
    assert_false(slice.ready);
}

static size_t read_models(const char *text, struct buf *out)
{
    size_t count = 99;
    out->size = 0;
    (void)parse(text);
    return object_read_models(parser, out, &count) ? count : SIZE_MAX;
}

static void models_are_names_that_could_be_asked_for(void **state)
{
    (void)state;
    struct buf names;
    buf_init(&names, &mem, MODELS_BYTES_MAX);
    assert_int_equal(
        read_models("{\"data\":[{\"id\":\"org/llama\"},{\"id\":\"lora \\u00e9\"}]}", &names), 2);
    assert_memory_equal(names.data, "org/llama\0lora \xc3\xa9", names.size);
    assert_int_equal(read_models("{\"data\":[]}", &names), 0);
    assert_int_equal(read_models("{\"data\":[{},7,{\"id\":7},{\"id\":\"\"},{\"id\":\"a\\n\"},"
                                 "{\"id\":\"a\\u0000b\"},{\"id\":\"fine\"}]}",
                                 &names),
                     1);
    assert_int_equal(read_models("{}", &names), SIZE_MAX);
    assert_int_equal(read_models("{\"data\":{}}", &names), SIZE_MAX);
    assert_int_equal(read_models("[]", &names), SIZE_MAX);
    struct buf many;
    buf_init(&many, &mem, SIZE_MAX);
    assert_true(buf_append_text(&many, "{\"data\":["));
    for (int i = 0; i < MODELS_COUNT_MAX + 1; i++) {
        assert_true(buf_printf(&many, "%s{\"id\":\"%0*d\"}", i > 0 ? "," : "", 40, i));
    }
    assert_true(buf_append(&many, "]}", 3));
    assert_int_equal(read_models(many.data, &names), MODELS_COUNT_MAX);
    buf_fini(&many);
    buf_fini(&names);
}

static void a_table_is_sorted_and_bounded(void **state)
{
    (void)state;
    enum { THINGS = 300 };
    struct table table;
    table_init(&table, &mem, THINGS);
    char name[16];
    for (unsigned i = 0; i < THINGS; i++) {
        (void)snprintf(name, sizeof name, "n%u", i * 7919 % THINGS);
        assert_null(table_find(&table, span_of(name)));
        struct named *thing = table_add(&table, span_of(name), sizeof(struct named));
        assert_non_null(thing);
        assert_ptr_equal(table_find(&table, span_of(name)), thing);
    }
    assert_null(table_add(&table, span_of("more"), sizeof(struct named)));
    for (size_t i = 1; i < table.count; i++) {
        assert_true(strcmp(table.things[i - 1]->name, table.things[i]->name) < 0);
    }
    assert_null(table_find(&table, span_of("n1x")));
    for (unsigned i = 0; i < THINGS; i++) {
        (void)snprintf(name, sizeof name, "n%u", i);
        struct named *thing = table_find(&table, span_of(name));
        assert_non_null(thing);
        table_remove(&table, thing, sizeof *thing);
        assert_null(table_find(&table, span_of(name)));
    }
    table_fini(&table);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(a_ready_pod_is_read_as_a_whole),
        TEST(readiness_needs_all_containers_an_address_and_no_deletion),
        TEST(whether_it_may_sleep_is_in_its_command),
        TEST(restarts_are_those_of_all_where_none_is_named_vllm),
        TEST(texts_that_are_no_names_count_as_not_said),
        TEST(a_service_is_as_ready_as_its_slices),
        TEST(models_are_names_that_could_be_asked_for),
        TEST(a_table_is_sorted_and_bounded),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
