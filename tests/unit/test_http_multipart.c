/* A field of a form, whatever the form looks like. */
#include "http/http.h"
#include "support/test.h"

static struct span boundary_of(const char *content_type)
{
    struct span boundary = {0};
    return http_multipart_boundary(span_of(content_type), &boundary) ? boundary
                                                                     : span_of("(no form)");
}

static void finds_the_boundary(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        const char *boundary; /* NULL: a form without one. */
    } cases[] = {
        {"multipart/form-data; boundary=abc", "abc"},
        {"Multipart/Form-Data;boundary=abc", "abc"},
        {"multipart/form-data; charset=utf-8; Boundary=\"a;b c\"", "a;b c"},
        {"multipart/form-data; x=\"boundary=no\"; boundary=yes", "yes"},
        {"multipart/form-data", NULL},
        {"multipart/form-data; boundary", NULL},
        {"multipart/form-data; boundary=\"", "\""},
        {"multipart/mixed; boundary=abc", "(no form)"},
        {"application/json", "(no form)"},
        {"", "(no form)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span found = boundary_of(cases[i].type);
        if (cases[i].boundary == NULL) {
            assert_null(found.data);
        } else {
            assert_true(span_is(found, cases[i].boundary));
        }
    }
}

static struct span model_of(const char *body)
{
    return http_multipart_field(span_of(body), span_of("abc"), "model");
}

#define PART(name, value) \
    "--abc\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"

static void finds_the_field(void **state)
{
    (void)state;
    assert_true(span_is(model_of(PART("model", "m") "--abc--\r\n"), "m"));
    assert_true(span_is(model_of("preamble\r\n" PART("file", "\r\n\r\nname=\"model\"\r\n")
                                     PART("model", "m") PART("model", "n") "--abc--"),
                        "m"));
    assert_true(span_is(model_of("--abc\r\nX: y\r\ncontent-disposition: form-data; filename=\"f\"; "
                                 "name=model\r\nContent-Type: text/plain\r\n\r\na b\r\n--abc--"),
                        "a b"));
    assert_true(span_is(model_of(PART("model", "") "--abc--"), ""));
}

static void a_body_that_is_no_such_form_has_no_field(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "--abc",
        "--abc\r\n",
        "--abc--\r\n",
        "{\"model\":\"m\"}",
        PART("file", "model"),
        PART("Model", "m") "--abc--",
        "--abc\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm", /* Without an end. */
        "--abd\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--abd--",
        "--abc\r\nContent-Disposition: form-data; filename=\"model\"\r\n\r\nm\r\n--abc--",
        "--abc\r\nContent-Disposition form-data; name=\"model\"\r\n\r\nm\r\n--abc--",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        assert_null(model_of(bodies[i]).data);
    }
    struct span body = span_of(PART("model", "m") "--abc--");
    char longer[128];
    memset(longer, 'a', sizeof longer);
    assert_null(http_multipart_field(body, (struct span){0}, "model").data);
    assert_null(
        http_multipart_field(body, (struct span){.data = longer, .size = sizeof longer}, "model")
            .data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_boundary),
        cmocka_unit_test(finds_the_field),
        cmocka_unit_test(a_body_that_is_no_such_form_has_no_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
