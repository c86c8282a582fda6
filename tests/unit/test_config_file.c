/* Files of options, in YAML and in JSON: what they set, what is refused, what may change. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/tree.h"
#include "support/config_fixture.h"
#include "support/test.h"

#define YAML_NAME "options.yaml"
#define JSON_NAME "options.json"

struct fixture {
    struct config_fixture config;
    char *folder;
    char *yaml;
    char *json;
};

static int setup(void **state)
{
    static struct fixture fixture;
    config_fixture_init(&fixture.config);
    fixture.folder = test_directory_make();
    fixture.yaml = test_path(fixture.folder, YAML_NAME);
    fixture.json = test_path(fixture.folder, JSON_NAME);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    config_fixture_fini(&fixture->config);
    test_path_free(fixture->yaml);
    test_path_free(fixture->json);
    test_directory_remove(fixture->folder);
    return 0;
}

static void write_yaml(struct fixture *fixture, const char *text)
{
    test_file_write_text(fixture->folder, YAML_NAME, text);
}

static void load(struct fixture *fixture, const char *text)
{
    bool json = *text == '{' || *text == '[';
    test_file_write_text(fixture->folder, json ? JSON_NAME : YAML_NAME, text);
    config_fixture_load(&fixture->config,
                        ARGUMENTS(json ? "--dynamic-config-json" : "--dynamic-config-yaml",
                                  json ? fixture->json : fixture->yaml));
}

static const struct config *loaded(struct fixture *fixture, const char *text)
{
    load(fixture, text);
    if (fixture->config.action != CONFIG_RUN) {
        fail_msg("%s", fixture->config.messages.data);
    }
    return &fixture->config.config;
}

static void refused(struct fixture *fixture, const char *text, const char *why)
{
    load(fixture, text);
    assert_int_equal(fixture->config.action, CONFIG_REFUSED);
    if (strstr(fixture->config.messages.data, why) == NULL) {
        fail_msg("%s: not \"%s\" but: %s", text, why, fixture->config.messages.data);
    }
}

static void comma_texts_are_as_the_flags_take_them(void **state)
{
    static const char *const texts[] = {
        "{\"service_discovery\": \"static\", \"routing_logic\": \"session\","
        " \"session_key\": \"x-user\", \"static_backends\": \"http://a:1,http://b:2/\","
        " \"static_models\": \"m,n\", \"static_aliases\": \"gpt:m\", \"port\": 8005,"
        " \"static_backend_health_checks\": true, \"callbacks\": null}",
        "service_discovery: static\nrouting_logic: session\nsession_key: x-user\n"
        "static_backends: http://a:1,http://b:2/\nstatic_models: m,n\n"
        "static_aliases: gpt:m\nport: 8005\nstatic_backend_health_checks: yes\ncallbacks:\n",
        "# Lists are joined.\n---\nrouting_logic: \"session\"\nsession_key: 'x-user'\n"
        "static_backends: [http://a:1, \"http://b:2/\"]\nstatic_models:\n  - m\n  - n\n"
        "static_aliases: [ 'gpt:m' ]\nport: '8005'\nstatic_backend_health_checks: True\n",
        "{\"routing_logic\": \"session\", \"session_key\": \"\\u0078-user\","
        " \"static_backends\": [\"http:\\/\\/a:1\", \"http://b:2/\"],"
        " \"static_models\": [\"m\", \"n\"], \"static_aliases\": {\"gpt\": \"m\"},"
        " \"port\": \"8005\", \"static_backend_health_checks\": \"on\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const struct config *config = loaded(*state, texts[i]);
        assert_int_equal(config->routing, CONFIG_SESSION);
        assert_string_equal(config->session_key, "x-user");
        assert_int_equal(config->backend_count, 2);
        assert_string_equal(config->backends[1].url, "http://b:2");
        assert_string_equal(config->backends[1].model, "n");
        assert_int_equal(config->alias_count, 1);
        assert_string_equal(config->aliases[0].name, "gpt");
        assert_int_equal(config->port, 8005);
        assert_true(config->health_checks);
    }
}

static void models_may_be_nested(void **state)
{
    static const char *const texts[] = {
        "routing_logic: roundrobin\n"
        "static_models:\n"
        "  facebook/opt-125m:\n"
        "    static_backends: [http://localhost:9001, http://localhost:9003]\n"
        "    static_model_type: completion\n"
        "  meta-llama/Llama-3.1-8B-Instruct:\n"
        "    static_backends:\n      - http://localhost:9002\n"
        "    static_model_type: chat\n"
        "    static_model_label: big\n"
        "static_aliases:\n  \"my-alias\": \"facebook/opt-125m\"\n",
        "{\"routing_logic\": \"roundrobin\", \"static_models\": {"
        "\"facebook/opt-125m\": {\"static_backends\": \"http://localhost:9001,"
        "http://localhost:9003\", \"static_model_type\": \"completion\"},"
        "\"meta-llama/Llama-3.1-8B-Instruct\": {\"static_backends\":"
        " [\"http://localhost:9002\"], \"static_model_label\": \"big\"}},"
        "\"static_aliases\": {\"my-alias\": \"facebook/opt-125m\"}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const struct config *config = loaded(*state, texts[i]);
        assert_int_equal(config->backend_count, 3);
        assert_string_equal(config->backends[0].url, "http://localhost:9001");
        assert_string_equal(config->backends[1].url, "http://localhost:9003");
        assert_string_equal(config->backends[1].model, "facebook/opt-125m");
        assert_string_equal(config->backends[1].label, "default");
        assert_string_equal(config->backends[2].model, "meta-llama/Llama-3.1-8B-Instruct");
        assert_string_equal(config->backends[2].label, "big");
        assert_string_equal(config->aliases[0].model, "facebook/opt-125m");
    }
}

#define SERVED "static_backends: http://a\nstatic_models: m\n"

static void what_may_change_the_file_decides_the_rest_a_flag(void **state)
{
    struct fixture *fixture = *state;
    write_yaml(fixture, SERVED "port: 7000\nrouting_logic: leastload\nhost: ::1\n");
    config_fixture_load_served(
        &fixture->config, ARGUMENTS("--dynamic-config-yaml", fixture->yaml, "--port", "9000",
                                    "--routing-logic", "roundrobin", "--static-aliases", "x:m"));
    const struct config *config = &fixture->config.config;
    assert_int_equal(fixture->config.action, CONFIG_RUN);
    assert_string_equal(config->backends[0].url, "http://a");
    assert_int_equal(config->routing, CONFIG_LEASTLOAD);
    assert_int_equal(config->port, 9000);
    assert_string_equal(config->host, "::1");
    assert_int_equal(config->alias_count, 1); /* The file says nothing of them. */
    write_yaml(fixture, SERVED "static_aliases: {}\n");
    config_fixture_load_served(&fixture->config, ARGUMENTS("--dynamic-config-yaml", fixture->yaml,
                                                           "--static-aliases", "x:m"));
    assert_int_equal(fixture->config.action, CONFIG_RUN);
    assert_int_equal(fixture->config.config.alias_count, 0);
}

static void bad_files_are_refused_with_a_reason(void **state)
{
    static const struct {
        const char *text;
        const char *why;
    } cases[] = {
        {"static_backends: [http://a\n", "line 2: it is not YAML"},
        {"a: b: c\n", "not YAML"},
        {"\tx: 1\n", "not YAML"},
        {"x: &a 1\ny: *a\n", "line 2: aliases (*...) are not read"},
        {"x: !!python/object:os.system 1\n", "tags (!...) are not read"},
        {"x: !a [1]\n", "tags"},
        {"? [a, b]\n: c\n", "a key has to be a text"},
        {SERVED "---\nport: 1\n", "a second document"},
        {SERVED "static_models: n\n", "\"static_models\" is there twice"},
        {"[1, 2]", "a file of options is a map"},
        {"just text\n", "a file of options is a map"},
        {"{\"port\": 1,}", "it is not JSON"},
        {"{\"port\": 1, \"port\": 2}", "\"port\" is there twice"},
        {"{\"a\\u0000b\": 1}", "NUL"},
        {"[[[[[[[[[[[1]]]]]]]]]]]", "nested more than 8 deep"},
        {"a: [[[[[[[[[[[1]]]]]]]]]]]\n", "nested too deep"},
        {"statik_backends: http://a\n", "statik_backends: there is no such option"},
        {"help: true\n", "help: there is no such option"},
        {"dynamic_config_json: x\n", "there is no such option"},
        {"callbacks: a.b\n", "--callbacks is not supported"},
        {"enable_batch_api: true\n" SERVED, "--enable-batch-api is not supported"},
        {"enable_batch_api: maybe\n" SERVED, "enable_batch_api: it is true or false"},
        {"static_backend_health_checks: 7\n", "it is true or false"},
        {"port: [1, 2]\n" SERVED, "\"1,2\" is not accepted"},
        {"port: {a: 1}\n", "port: it is no map"},
        {"port: []\n", "port: it is empty"},
        {"static_backends: [[http://a]]\n", "an item of the list is no text"},
        {"static_backends: ['http://a,http://b']\n", "has a comma in it"},
        {"static_backends: http://a\nstatic_models: {m: {static_backends: [http://a]}}\n",
         "static_models has them already"},
        {"static_models: {m: {}}\n", "no model has a backend"},
        {"static_models: {m: {static_backend: http://a}}\n", "static_models: m: a model has"},
        {"static_models: {m: http://a}\n", "static_models: m: a model has"},
        {"static_models: {m: {static_backends: {a: b}}}\n", "static_models: m: a model has"},
        {SERVED "static_aliases: {a: [m]}\n", "static_aliases: each member has to be"},
        {SERVED "static_aliases: {'a:b': m}\n", "static_aliases: each member has to be"},
        {SERVED "static_aliases: {m: m}\n", "is the name of a model"},
        {SERVED "routing_logic: kvaware\n", "kvaware"},
        {SERVED "routing_logic: session\n", "--session-key NAME"},
        {"static_backends: ftp://a\nstatic_models: m\n", "no URL of a backend"},
        {"", "--static-backends is missing"},
        {"# nothing\n", "--static-backends is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        refused(*state, cases[i].text, cases[i].why);
    }
}

static void large_files_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct buf text;
    buf_init(&text, &fixture->config.mem, 2 * TREE_BYTES_MAX);
    for (int i = 0; i <= TREE_MEMBERS_MAX; i++) {
        assert_true(buf_printf(&text, "k%d: 1\n", i));
    }
    assert_true(buf_append(&text, "", 1));
    refused(fixture, text.data, "a map has more than 4096 members");
    text.size = 0;
    assert_true(buf_append_text(&text, "static_backends: ["));
    for (int i = 0; i <= TREE_VALUES_MAX; i++) {
        assert_true(buf_append_text(&text, "a, "));
    }
    assert_true(buf_append(&text, "a]", 3));
    refused(fixture, text.data, "more than 65536 values");
    text.size = 0;
    while (text.size <= TREE_BYTES_MAX) {
        assert_true(buf_append_text(&text, "# a comment\n"));
    }
    assert_true(buf_append(&text, "", 1));
    refused(fixture, text.data, "it is too large");
    buf_fini(&text);
}

static void a_file_that_is_none_is_refused(void **state)
{
    struct fixture *fixture = *state;
    config_fixture_load(&fixture->config, ARGUMENTS("--dynamic-config-yaml", fixture->yaml));
    assert_int_equal(fixture->config.action, CONFIG_REFUSED);
    assert_non_null(strstr(fixture->config.messages.data, "cannot be read: No such file"));
    config_fixture_load(&fixture->config, ARGUMENTS("--dynamic-config-yaml", fixture->folder));
    assert_non_null(strstr(fixture->config.messages.data, "it is no regular file"));
    assert_int_equal(mkfifo(fixture->yaml, 0600), 0);
    config_fixture_load(&fixture->config, ARGUMENTS("--dynamic-config-yaml", fixture->yaml));
    assert_non_null(strstr(fixture->config.messages.data, "it is no regular file"));
    assert_int_equal(unlink(fixture->yaml), 0);
    config_fixture_load(&fixture->config, ARGUMENTS("--dynamic-config-yaml", fixture->yaml,
                                                    "--dynamic-config-json", fixture->json));
    assert_non_null(strstr(fixture->config.messages.data, "one of them"));
}

static void a_reload_may_change_what_is_dynamic_alone(void **state)
{
    struct fixture *fixture = *state;
    const struct config *start = loaded(fixture, SERVED "port: 7000\n");
    struct mem mem;
    struct config now;
    struct buf messages;
    mem_init(&mem, SIZE_MAX);
    buf_init(&messages, &mem, 65536);
    write_yaml(fixture, "static_backends: http://b\nstatic_models: n\nport: 7000\n"
                        "routing_logic: roundrobin\nstatic_aliases: {a: n}\n");
    assert_true(config_reload(start, &mem, &now, &messages));
    assert_string_equal(now.backends[0].url, "http://b");
    assert_int_equal(now.alias_count, 1);
    assert_int_equal(now.routing, CONFIG_ROUNDROBIN);
    config_fini(&now);
    static const char *const bad[][2] = {
        {SERVED "port: 7001\n", "--port cannot change while the router runs, from 7000 to 7001"},
        {SERVED, "--port cannot change while the router runs, from 7000 to 8001"},
        {SERVED "port: 7000\nthreads: 31\n", "--threads cannot change"},
        {"static_backends: http://a\n", "--static-models"},
        {"x", "is a map"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        messages.size = 0;
        write_yaml(fixture, bad[i][0]);
        assert_false(config_reload(start, &mem, &now, &messages));
        assert_non_null(memmem(messages.data, messages.size, bad[i][1], strlen(bad[i][1])));
        config_fini(&now);
    }
    buf_fini(&messages);
    mem_fini(&mem);
}

static void values_are_told_by_the_names_of_the_keys(void **state)
{
    const struct config *config = loaded(*state, SERVED "routing_logic: roundrobin\n");
    const char *key = NULL;
    const char *value = NULL;
    const char *before = "";
    size_t count = 0;
    for (; config_dynamic_value(config, count, &key, &value); count++) {
        assert_true(strcmp(before, key) < 0);
        before = key;
        if (strcmp(key, "static_backends") == 0) {
            assert_string_equal(value, "http://a");
        } else if (strcmp(key, "callbacks") == 0 || strcmp(key, "static_aliases") == 0) {
            assert_null(value);
        } else if (strcmp(key, "routing_logic") == 0) {
            assert_string_equal(value, "roundrobin");
        }
    }
    assert_int_equal(count, 17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comma_texts_are_as_the_flags_take_them, setup, teardown),
        cmocka_unit_test_setup_teardown(models_may_be_nested, setup, teardown),
        cmocka_unit_test_setup_teardown(what_may_change_the_file_decides_the_rest_a_flag, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(bad_files_are_refused_with_a_reason, setup, teardown),
        cmocka_unit_test_setup_teardown(large_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_none_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reload_may_change_what_is_dynamic_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(values_are_told_by_the_names_of_the_keys, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
