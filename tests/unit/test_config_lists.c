#include <string.h>

#include "support/config_fixture.h"
#include "support/test.h"

static struct config_fixture fixture;

static int set_up(void **state)
{
    (void)state;
    config_fixture_init(&fixture);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    config_fixture_fini(&fixture);
    return 0;
}

static void lists_are_cut_at_commas(void **state)
{
    (void)state;
    config_fixture_load(&fixture, ARGUMENTS("--static-backends",
                                            "http://a:1, http://b/ ,http://[::1]:8000/base",
                                            "--static-models", "m,m,org/llama:8b",
                                            "--static-aliases", "gpt-4:m, big : org/llama:8b"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    const struct config *config = &fixture.config;
    assert_int_equal(config->backend_count, 3);
    assert_string_equal(config->backends[0].url, "http://a:1");
    assert_string_equal(config->backends[1].url, "http://b");
    assert_string_equal(config->backends[2].url, "http://[::1]:8000/base");
    assert_string_equal(config->backends[2].model, "org/llama:8b");
    assert_int_equal(config->alias_count, 2);
    assert_string_equal(config->aliases[0].name, "gpt-4");
    assert_string_equal(config->aliases[0].model, "m");
    assert_string_equal(config->aliases[1].name, "big");
    assert_string_equal(config->aliases[1].model, "org/llama:8b");
}

static void bad_urls_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "it is empty"},
        {"a:8000", "does not start with http://"},
        {"ftp://a", "does not start with http://"},
        {"https:/a", "does not start with http:// or https://"},
        {"https://", "the host is missing"},
        {"http://", "the host is missing"},
        {"http://:80", "the host is missing"},
        {"http://a b", "no URL has"},
        {"http://a\r\nX: y", "no URL has"},
        {"http://a:0", "the port"},
        {"http://a:65536", "the port"},
        {"http://a:", "the port"},
        {"http://a:80x", "other than a path"},
        {"http://a?x=1", "no query"},
        {"http://a/#x", "no query and no fragment"},
        {"http://u:p@a", "user and password"},
        {"http://[::1", "IPv6"},
        {"http://[]:80", "IPv6"},
        {"http://[zz]:80", "IPv6"},
        {"http://[fe80::1%25eth0]", "IPv6"},
        {"http://[::1]x", "other than a path"},
        {"http://-a", "not a name"},
        {"http://a%41", "not a name"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load(&fixture,
                            ARGUMENTS("--static-backends", cases[i][0], "--static-models", "m"));
        assert_int_equal(fixture.action, CONFIG_REFUSED);
        if (strstr(fixture.messages.data, cases[i][1]) == NULL) {
            fail_msg("\"%s\": \"%s\" is missing in: %s", cases[i][0], cases[i][1],
                     fixture.messages.data);
        }
    }
}

static void good_urls_are_taken(void **state)
{
    (void)state;
    static const char *const cases[] = {"http://vllm",         "http://vllm:8000",
                                        "http://10.0.0.7:80",  "http://[fe80::1:2]:1",
                                        "http://a.b-c_d.e1:1", "http://a:65535/v/w"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load(&fixture,
                            ARGUMENTS("--static-backends", cases[i], "--static-models", "m"));
        assert_int_equal(fixture.action, CONFIG_RUN);
        assert_string_equal(fixture.config.backends[0].url, cases[i]);
    }
}

static void lists_have_to_fit_together(void **state)
{
    (void)state;
    static const char *const cases[][7] = {
        {"one model per backend", "--static-backends", "http://a,http://b", "--static-models", "m",
         NULL},
        {"one model per backend", "--static-backends", "http://a", NULL},
        {"number 2 is empty", "--static-backends", "http://a,http://b", "--static-models", "m,",
         NULL},
        {"--static-backends is missing", "--static-models", "m", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load(&fixture, cases[i] + 1);
        assert_int_equal(fixture.action, CONFIG_REFUSED);
        if (strstr(fixture.messages.data, cases[i][0]) == NULL) {
            fail_msg("\"%s\" is missing in: %s", cases[i][0], fixture.messages.data);
        }
    }
}

static void aliases_are_checked(void **state)
{
    (void)state;
    static const char *const refused[] = {"a", "a:", ":m", "a:m,a:m", "m:m", "a:m,,b:m"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        config_fixture_load_served(&fixture, ARGUMENTS("--static-aliases", refused[i]));
        assert_int_equal(fixture.action, CONFIG_REFUSED);
        assert_non_null(strstr(fixture.messages.data, "--static-aliases"));
    }
    config_fixture_load_served(&fixture, ARGUMENTS("--static-aliases", "a:gone"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_non_null(strstr(fixture.messages.data, "warning: --static-aliases: no backend serves"));
}

static void a_backend_may_serve_two_models_but_twice_the_same_is_warned_about(void **state)
{
    (void)state;
    config_fixture_load(
        &fixture, ARGUMENTS("--static-backends", "http://a,http://a", "--static-models", "m,n"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_null(strstr(fixture.messages.data, "twice"));
    config_fixture_load(
        &fixture, ARGUMENTS("--static-backends", "http://a,http://a/", "--static-models", "m,m"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_non_null(strstr(fixture.messages.data, "is there twice"));
}

static void a_list_may_be_long_but_not_endless(void **state)
{
    (void)state;
    struct buf urls;
    struct buf models;
    buf_init(&urls, &fixture.mem, 1 << 20);
    buf_init(&models, &fixture.mem, 1 << 20);
    for (int i = 0; i <= CONFIG_BACKENDS_MAX; i++) {
        assert_true(buf_printf(&urls, "%shttp://e%d", i == 0 ? "" : ",", i));
        assert_true(buf_printf(&models, "%sm", i == 0 ? "" : ","));
    }
    assert_true(buf_append(&urls, "", 1) && buf_append(&models, "", 1));
    config_fixture_load(&fixture,
                        ARGUMENTS("--static-backends", urls.data, "--static-models", models.data));
    assert_int_equal(fixture.action, CONFIG_REFUSED);
    assert_non_null(strstr(fixture.messages.data, "at most 4096"));
    *strrchr(urls.data, ',') = '\0';
    *strrchr(models.data, ',') = '\0';
    config_fixture_load(&fixture,
                        ARGUMENTS("--static-backends", urls.data, "--static-models", models.data));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_int_equal(fixture.config.backend_count, CONFIG_BACKENDS_MAX);
    buf_fini(&urls);
    buf_fini(&models);
}

static void labels_belong_to_backends_and_match_as_a_whole(void **state)
{
    (void)state;
    config_fixture_load(&fixture, ARGUMENTS("--static-backends", "http://a,http://b,http://c",
                                            "--static-models", "m,m,m", "--static-model-labels",
                                            "prefill, x,decode-2", "--prefill-model-labels",
                                            "prefill,y", "--decode-model-labels", "decode"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    const struct config *config = &fixture.config;
    assert_string_equal(config->backends[1].label, "x");
    assert_int_equal(config->prefill_labels.count, 2);
    assert_true(config_has_label(&config->prefill_labels, config->backends[0].label));
    assert_false(config_has_label(&config->prefill_labels, config->backends[1].label));
    assert_false(config_has_label(&config->decode_labels, config->backends[2].label));
    assert_false(config_has_label(&config->prefill_labels, ""));

    config_fixture_load_served(&fixture, ARGUMENTS("--port", "7"));
    assert_string_equal(config->backends[0].label, "default");
    assert_false(config_has_label(&config->prefill_labels, "default"));
}

static void bad_labels_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"--static-model-labels", "a,b", "has 2 entries"},
        {"--static-model-labels", " ", "--static-model-labels: number 1 is empty"},
        {"--prefill-model-labels", "a,,b", "--prefill-model-labels: number 2 is empty"},
        {"--decode-model-labels", "a\tb", "--decode-model-labels: number 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load_served(&fixture, ARGUMENTS(cases[i][0], cases[i][1]));
        assert_int_equal(fixture.action, CONFIG_REFUSED);
        assert_non_null(strstr(fixture.messages.data, cases[i][2]));
    }
}

static void disaggregated_prefill_needs_both_kinds_of_labels(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture,
                               ARGUMENTS("--routing-logic", "disaggregated_prefill_orchestrated",
                                         "--prefill-model-labels", "p"));
    assert_int_equal(fixture.action, CONFIG_REFUSED);
    assert_non_null(strstr(fixture.messages.data, "--decode-model-labels LABEL,..."));

    config_fixture_load(&fixture,
                        ARGUMENTS("--static-backends", "http://a,http://b", "--static-models",
                                  "m,m", "--static-model-labels", "p,d", "--routing-logic",
                                  "disaggregated_prefill", "--prefill-model-labels", "p",
                                  "--decode-model-labels", "d"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_int_equal(fixture.config.routing, CONFIG_DISAGGREGATED);
    assert_non_null(strstr(fixture.messages.data, "--routing-logic disaggregated_prefill is taken "
                                                  "as disaggregated_prefill_orchestrated\n"));

    config_fixture_load_served(
        &fixture, ARGUMENTS("--routing-logic", "disaggregated_prefill_orchestrated",
                            "--prefill-model-labels", "p", "--decode-model-labels", "default"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_non_null(strstr(fixture.messages.data, "no backend has a label of"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lists_are_cut_at_commas, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_urls_are_refused_with_a_reason, set_up, tear_down),
        cmocka_unit_test_setup_teardown(good_urls_are_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lists_have_to_fit_together, set_up, tear_down),
        cmocka_unit_test_setup_teardown(aliases_are_checked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_backend_may_serve_two_models_but_twice_the_same_is_warned_about, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_list_may_be_long_but_not_endless, set_up, tear_down),
        cmocka_unit_test_setup_teardown(labels_belong_to_backends_and_match_as_a_whole, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(bad_labels_are_refused_with_a_reason, set_up, tear_down),
        cmocka_unit_test_setup_teardown(disaggregated_prefill_needs_both_kinds_of_labels, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
