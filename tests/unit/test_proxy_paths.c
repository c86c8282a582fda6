/* Which paths are for engines; what stands in a query. */
#include "proxy/paths.h"
#include "support/test.h"

static enum path_kind kind(const char *method, const char *path)
{
    const char *allowed = NULL;
    return path_kind_of(span_of(method), span_of(path), false, &allowed);
}

static const char *allowed(const char *method, const char *path)
{
    const char *text = NULL;
    (void)path_kind_of(span_of(method), span_of(path), false, &text);
    return text == NULL ? "" : text;
}

static void kinds(void **state)
{
    (void)state;
    assert_int_equal(kind("POST", "/v1/chat/completions"), PATH_ENGINE);
    assert_int_equal(kind("POST", "/score"), PATH_ENGINE);
    assert_int_equal(kind("GET", "/v1/audio/voices"), PATH_ENGINE);
    assert_int_equal(kind("GET", "/v1/chat/completions"), PATH_LOCAL);
    assert_int_equal(kind("POST", "/v1/audio/voices"), PATH_LOCAL);
    assert_int_equal(kind("POST", "/v1/new/thing"), PATH_UNKNOWN);
    assert_int_equal(kind("GET", "/v1/new/thing"), PATH_LOCAL);
    assert_int_equal(kind("POST", "/v2/new"), PATH_LOCAL);
    assert_int_equal(kind("POST", "/v1/models"), PATH_LOCAL);
    assert_int_equal(kind("POST", "/v1/models/m"), PATH_LOCAL);
    assert_int_equal(kind("POST", "/v1/modelsx"), PATH_UNKNOWN);
    assert_int_equal(kind("POST", "/v1/files"), PATH_LOCAL);
    assert_int_equal(kind("POST", "/health"), PATH_LOCAL);
    assert_string_equal(allowed("GET", "/v1/completions"), "POST");
    assert_string_equal(allowed("POST", "/v1/audio/voices"), "GET");
    assert_string_equal(allowed("POST", "/v1/completions"), "");
    assert_string_equal(allowed("GET", "/nowhere"), "");
}

static void all_paths(void **state)
{
    (void)state;
    const char *text = NULL;
    assert_int_equal(path_kind_of(span_of("GET"), span_of("/"), true, &text), PATH_ANY);
    assert_int_equal(path_kind_of(span_of("DELETE"), span_of("/score"), true, &text), PATH_ENGINE);
    assert_null(text);
}

static void a_root_path_is_cut_off(void **state)
{
    (void)state;
    assert_true(span_is(path_below(span_of("/a/b?c"), NULL), "/a/b?c"));
    assert_true(span_is(path_below(span_of("/a/b?c"), "/a"), "/b?c"));
    assert_true(span_is(path_below(span_of("/ab?c"), "/a"), "/ab?c"));
    assert_true(span_is(path_below(span_of("/x?/a/b"), "/a"), "/x?/a/b"));
    assert_true(span_is(path_below(span_of("/a"), "/a"), "/"));
    assert_true(span_is(path_below(span_of("/a/b/v1/x"), "/a/b"), "/v1/x"));
}

static void queries(void **state)
{
    (void)state;
    assert_true(span_is(path_of(span_of("/a?b?c")), "/a"));
    assert_true(span_is(path_of(span_of("/a")), "/a"));
    assert_true(span_is(path_parameter(span_of("/a?id=1&id=2"), "id"), "1"));
    assert_true(span_is(path_parameter(span_of("/a?x=id=3&id=4&"), "id"), "4"));
    assert_true(span_is(path_parameter(span_of("/a?id="), "id"), ""));
    assert_null(path_parameter(span_of("/a?id"), "id").data);
    assert_null(path_parameter(span_of("/a?xid=1&ids=2"), "id").data);
    assert_null(path_parameter(span_of("/a"), "id").data);
    assert_null(path_parameter(span_of("/a?"), "id").data);
    assert_null(path_parameter(span_of("/id=5"), "id").data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds),
        cmocka_unit_test(all_paths),
        cmocka_unit_test(a_root_path_is_cut_off),
        cmocka_unit_test(queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
