#include <string.h>

#include "hashtrie/trie.h"

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

static void expect_refused(const char *const *parts)
{
    if (fixture.action != CONFIG_REFUSED) {
        fail_msg("accepted, though \"%s\" was expected", parts[0]);
    }
    for (size_t i = 0; parts[i] != NULL; i++) {
        if (strstr(fixture.messages.data, parts[i]) == NULL) {
            fail_msg("\"%s\" is missing in: %s", parts[i], fixture.messages.data);
        }
    }
}

static void defaults_are_those_of_the_issue(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    const struct config *config = &fixture.config;
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_string_equal(config->host, "0.0.0.0");
    assert_int_equal(config->port, 8001);
    assert_int_equal(config->routing, CONFIG_PREFIXAWARE);
    assert_int_equal(config->log_level, CONFIG_LOG_INFO);
    assert_int_equal(config->failover_attempts_max, 2);
    assert_int_equal(config->drain_timeout_ns, 30000000000);
    assert_int_equal(config->connect_timeout_ns, 5000000000);
    assert_int_equal(config->upstream_idle_timeout_ns, 4000000000);
    assert_int_equal(config->reload_timeout_ns, 20000000);
    assert_int_equal(config->body_bytes_max, 64 << 20);
    assert_true(config->store_enabled);
    assert_string_equal(config->store_path, "./hashtrie-store");
    assert_int_equal(config->store_bytes_max, UINT64_C(8) << 30);
    assert_int_equal(config->checkpoint_interval_ns, 1000000000);
    assert_null(config->snapshot_directory);
    assert_int_equal(config->snapshot_interval_ns, 0);
    assert_int_equal(config->snapshot_keep, 3);
    assert_null(config->admin_key_file);
    assert_int_equal(config->chunk_size, 128);
    assert_true(config->eviction_threshold == 0.9);
    assert_true(config->target_utilization == 0.5);
    assert_int_equal(config->kv_capacity_tokens, 0);
    assert_int_equal(config->max_entry_age_ns, 0);
    assert_true(config->thread_count >= 1);
    assert_int_equal(config->backend_count, 1);
    assert_string_equal(config->backends[0].url, "http://127.0.0.1:9000");
    assert_string_equal(config->backends[0].model, "m");
}

static void a_flag_wins_over_its_variable_and_that_over_the_default(void **state)
{
    (void)state;
    fixture.variables = ARGUMENTS("PREFIXAWARE_MAX_MEMORY_SIZE_GB", "1.5", "STATE_DIRECTORY",
                                  "/var/lib/a:/var/lib/b");
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_int_equal(fixture.config.memory_bytes, UINT64_C(3) << 29);
    assert_string_equal(fixture.config.store_path, "/var/lib/a");
    config_fixture_load_served(&fixture, ARGUMENTS("--max-memory", "3MiB", "--store-path=/x"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_int_equal(fixture.config.memory_bytes, 3 << 20);
    assert_string_equal(fixture.config.store_path, "/x");
    fixture.variables = ARGUMENTS("STATE_DIRECTORY", "");
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    assert_string_equal(fixture.config.store_path, "./hashtrie-store");
}

/* As the Python router and its charts give it. */
static void the_stats_interval_may_be_a_number_of_seconds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t milliseconds;
    } cases[] = {{"15", 15000}, {"500ms", 500}, {"1h", 3600000}, {"off", 0}, {"0", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load_served(&fixture, ARGUMENTS("--engine-stats-interval", cases[i].text));
        assert_int_equal(fixture.action, CONFIG_RUN);
        assert_int_equal(fixture.config.engine_stats_interval_ns, cases[i].milliseconds * 1000000);
    }
}

static void figures_are_logged_when_asked_for(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS("--log-stats-interval", "5"));
    assert_int_equal(fixture.config.log_stats_interval_ns, 0);
    assert_int_equal(fixture.config.request_stats_window_ns, UINT64_C(60000000000));
    config_fixture_load_served(&fixture, ARGUMENTS("--log-stats", "--request-stats-window", "15"));
    assert_int_equal(fixture.config.log_stats_interval_ns, UINT64_C(10000000000));
    assert_int_equal(fixture.config.request_stats_window_ns, UINT64_C(15000000000));
}

static void a_bad_value_is_refused_with_its_name_range_and_default(void **state)
{
    (void)state;
    static const struct {
        const char *flag;
        const char *value;
        const char *range;
        const char *fallback;
    } cases[] = {
        {"--port", "65536", "a whole number from 0 to 65535", "8001"},
        {"--port", "-1", "a whole number", "8001"},
        {"--port", "80a", "a whole number", "8001"},
        {"--port", "", "a whole number", "8001"},
        {"--max-memory", "1023KiB", "a size from 1MiB to 128GiB", "a quarter of the memory limit"},
        {"--max-memory", "lots", "a size", "a quarter"},
        {"--max-memory", "99999999999999999999", "a size", "a quarter"},
        {"--max-memory", "18446744073709551615TiB", "a size", "a quarter"},
        {"--store-max-size", "15MiB", "a size from 16MiB to 16TiB", "8GiB"},
        {"--checkpoint-interval", "1", "a duration from 10ms to 1h", "1s"},
        {"--checkpoint-interval", "9ms", "a duration from 10ms", "1s"},
        {"--reload-timeout", "20", "a duration from 1ms to 10s", "20ms"},
        {"--routing-logic", "best", "one of prefixaware, roundrobin", "prefixaware"},
        {"--log-level", "loud", "one of critical, error, warning, info, debug, trace", "info"},
        {"--service-discovery", "consul", "one of static, k8s", "static"},
        {"--threads", "0", "a whole number from 1 to 256", "what CPU affinity"},
        {"--kv-capacity-tokens", "many", "or off", "off"},
        {"--request-stats-window", "0", "a duration from 1s to 1h", "1m"},
        {"--log-stats-interval", "0.5", "a duration from 1s to 1h", "10s"},
        {"--engine-stats-interval", "3601", "a duration from 100ms to 1h, or off", "30s"},
        {"--engine-stats-interval", "18446744073709551615", "a duration from 100ms", "30s"},
        {"--max-entry-age", "22d", "a duration from 1m to 21d, or off", "off"},
        {"--host", "", "a text that is not empty", "0.0.0.0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load_served(&fixture, ARGUMENTS(cases[i].flag, cases[i].value));
        expect_refused(ARGUMENTS(cases[i].flag, cases[i].value, cases[i].range, cases[i].fallback));
    }
}

static void features_of_the_python_router_that_are_not_here_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"--routing-logic", "kvaware", "kvaware is not supported: it asks LMCache's controller"},
        {"--service-discovery", "external-only", "external-only is not supported: requests go"},
        {"--callbacks", "a.b", "--callbacks is not supported: no Python"},
        {"--sentry-dsn", "https://x", "--sentry-dsn is not supported: no errors are sent"},
        {"--external-providers-config", "f", "--external-providers-config is not supported: "},
        {"--request-rewriter", "mine", "--request-rewriter mine is not supported: requests go on"},
        {"--feature-gates", "A=true,SemanticCache=True", "SemanticCache=true is not supported"},
        {"--feature-gates", "PIIDetection=true", "PIIDetection=true is not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load_served(&fixture, ARGUMENTS(cases[i][0], cases[i][1]));
        expect_refused(ARGUMENTS(cases[i][2]));
        assert_int_equal(fixture.messages.data[fixture.messages.size - 2], '\n');
        assert_ptr_equal(strchr(fixture.messages.data, '\n') + 1,
                         fixture.messages.data + fixture.messages.size - 1); /* One sentence. */
    }
    config_fixture_load_served(&fixture, ARGUMENTS("--enable-batch-api"));
    expect_refused(ARGUMENTS("--enable-batch-api is not supported: /v1/files"));
}

static void flags_that_only_tune_these_features_are_accepted(void **state)
{
    (void)state;
    config_fixture_load_served(
        &fixture, ARGUMENTS("--lmcache-controller-port=9000", "--lmcache-controller-reply-port",
                            "9001", "--lmcache-controller-heartbeat-port", "9002",
                            "--lmcache-health-check-interval", "5", "--lmcache-worker-timeout",
                            "30", "--kv-aware-threshold", "2000", "--semantic-cache-model", "x",
                            "--semantic-cache-dir", "x", "--semantic-cache-threshold", "0.95",
                            "--file-storage-class", "local_file", "--file-storage-path", "/tmp",
                            "--batch-processor", "local", "--sentry-traces-sample-rate", "0.1",
                            "--sentry-profile-session-sample-rate", "1.0", "--request-rewriter",
                            "noop", "--feature-gates", "", "--static-model-types", "chat"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_non_null(strstr(fixture.messages.data,
                           "--kv-aware-threshold 2000 has no effect: it tunes kvaware routing"));
    assert_non_null(strstr(fixture.messages.data, "--static-model-types chat has no effect"));
    assert_null(strstr(fixture.messages.data, "noop"));
    assert_null(strstr(fixture.messages.data, "--feature-gates"));
    config_fixture_load_served(&fixture, ARGUMENTS("--lmcache-c", "1"));
    expect_refused(ARGUMENTS("--lmcache-c is ambiguous: it could be --lmcache-controller-port"));
    config_fixture_load_served(&fixture, ARGUMENTS("--callbacks"));
    expect_refused(ARGUMENTS("--callbacks needs a value: --callbacks MODULE.INSTANCE"));
    config_fixture_load_served(&fixture, ARGUMENTS("--enable-batch-api=yes"));
    expect_refused(ARGUMENTS("--enable-batch-api takes no value"));
}

static void the_root_path_is_a_path(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"/llm", "/llm"}, {"/a/b//", "/a/b"}, {"/", NULL}, {"", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_fixture_load_served(&fixture, ARGUMENTS("--root-path", cases[i][0]));
        assert_int_equal(fixture.action, CONFIG_RUN);
        if (cases[i][1] == NULL) {
            assert_null(fixture.config.root_path);
        } else {
            assert_string_equal(fixture.config.root_path, cases[i][1]);
        }
    }
    config_fixture_load_served(&fixture, ARGUMENTS("--root-path", "llm"));
    expect_refused(ARGUMENTS("\"llm\" is no path: it begins with /"));
    config_fixture_load_served(&fixture, ARGUMENTS("--root-path", "/a?b"));
    expect_refused(ARGUMENTS("\"/a?b\" is no path"));
}

static void secure_traces_are_not_sent_in_the_clear(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture,
                               ARGUMENTS("--otel-secure", "--otel-endpoint", "collector:4318"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_true(fixture.config.otel_secure);
    config_fixture_load_served(&fixture,
                               ARGUMENTS("--otel-secure", "--otel-endpoint", "http://c:4318"));
    expect_refused(ARGUMENTS("--otel-endpoint http://c:4318 is not encrypted"));
}

static void a_bad_variable_is_refused_under_its_own_name(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"HASHTRIE_CHUNK_SIZE", "100", "a whole number from 64 to 4096, a multiple of 8"},
        {"HASHTRIE_CHUNK_SIZE", "63", "64 to 4096"},
        {"HASHTRIE_EVICTION_THRESHOLD", "1.1", "a number from 0.01 to 1"},
        {"HASHTRIE_TARGET_UTILIZATION", "0.95", "HASHTRIE_EVICTION_THRESHOLD"},
        {"HASHTRIE_TARGET_UTILIZATION", "half", "a number from 0.01 to 1"},
        {"MEMORY_CHECK_REQUEST_BATCH_SIZE", "0", "a whole number from 1"},
        {"PREFIXAWARE_MAX_MEMORY_SIZE_GB", "2GB", "a number of GiB from"},
        {"PREFIXAWARE_MAX_MEMORY_SIZE_GB", "2000", "to 128"},
        {"PREFIXAWARE_MAX_MEMORY_SIZE_GB", "0", "a number of GiB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture.variables = ARGUMENTS(cases[i][0], cases[i][1]);
        config_fixture_load_served(&fixture, ARGUMENTS(NULL));
        expect_refused(ARGUMENTS(cases[i][0], cases[i][1], cases[i][2], "default"));
    }
}

static void every_mistake_is_named_at_once(void **state)
{
    (void)state;
    config_fixture_load(&fixture, ARGUMENTS("--port", "x", "--threads=0", "--nonsense"));
    expect_refused(ARGUMENTS("--port", "--threads", "unknown option --nonsense",
                             "--static-backends is missing"));
}

static void the_batch_size_has_no_effect_and_says_so(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    assert_null(strstr(fixture.messages.data, "MEMORY_CHECK"));
    fixture.variables = ARGUMENTS("MEMORY_CHECK_REQUEST_BATCH_SIZE", "7");
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_non_null(
        strstr(fixture.messages.data, "MEMORY_CHECK_REQUEST_BATCH_SIZE=7 has no effect"));
}

static void actions_are_told_apart(void **state)
{
    (void)state;
    config_fixture_load(&fixture, ARGUMENTS("--help", "--nonsense"));
    assert_int_equal(fixture.action, CONFIG_HELP);
    config_fixture_load(&fixture, ARGUMENTS("-h"));
    assert_int_equal(fixture.action, CONFIG_HELP);
    config_fixture_load(&fixture, ARGUMENTS("--version"));
    assert_int_equal(fixture.action, CONFIG_VERSION);
    config_fixture_load_served(&fixture, ARGUMENTS("--check-config", "--no-store"));
    assert_int_equal(fixture.action, CONFIG_CHECK);
    assert_false(fixture.config.store_enabled);
    config_fixture_load_served(&fixture, ARGUMENTS("--check-config", "--port=x"));
    assert_int_equal(fixture.action, CONFIG_REFUSED);
}

static void machine_defaults_follow_the_memory_limit(void **state)
{
    (void)state;
    char *root = test_directory_make();
    test_file_write_text(root, "proc/meminfo", "MemTotal:       4194304 kB\n");
    fixture.root = root;
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    assert_int_equal(fixture.config.memory_limit_bytes, UINT64_C(4) << 30);
    assert_int_equal(fixture.config.memory_bytes, UINT64_C(1) << 30);
    assert_int_equal(fixture.config.buffered_bytes_max, UINT64_C(1) << 30);
    assert_null(strstr(fixture.messages.data, "warning"));
    config_fixture_load_served(&fixture, ARGUMENTS("--max-memory", "4GiB"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_non_null(strstr(fixture.messages.data, "warning: --max-memory (4096 MiB)"));
    test_file_write_text(root, "proc/meminfo", "MemTotal:       67108864 kB\n");
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    assert_int_equal(fixture.config.memory_bytes, UINT64_C(2) << 30);
    fixture.root = NULL;
    test_directory_remove(root);
}

static void the_table_agrees_with_the_library(void **state)
{
    (void)state;
    fixture.variables = ARGUMENTS("HASHTRIE_CHUNK_SIZE", "64");
    config_fixture_load_served(&fixture, ARGUMENTS("--max-memory", "1MiB", "--max-entry-age=21d"));
    assert_int_equal(fixture.action, CONFIG_RUN);
    assert_int_equal(fixture.config.chunk_size, HASHTRIE_CHUNK_SIZE_MIN);
    assert_int_equal(fixture.config.memory_bytes, HASHTRIE_BUDGET_MIN);
    assert_int_equal(fixture.config.max_entry_age_ns / 1000000000, HASHTRIE_ENTRY_AGE_MAX_S);
    fixture.variables = ARGUMENTS("HASHTRIE_CHUNK_SIZE", "4096");
    config_fixture_load_served(&fixture, ARGUMENTS(NULL));
    assert_int_equal(fixture.config.chunk_size, HASHTRIE_CHUNK_SIZE_MAX);
}

static void messages_are_single_clean_lines(void **state)
{
    (void)state;
    config_fixture_load_served(&fixture, ARGUMENTS("--port", "1\n2\x1b[31m"));
    expect_refused(ARGUMENTS("\"1?2?[31m\""));
    const char *text = fixture.messages.data;
    size_t size = fixture.messages.size - 1;
    const char *line = NULL;
    size_t line_size = 0;
    assert_true(config_message_next(&text, &size, &line, &line_size));
    assert_int_equal(line[line_size - 1], ')');
    assert_false(config_message_next(&text, &size, &line, &line_size));
}

static void running_out_of_memory_is_an_ordinary_result(void **state)
{
    (void)state;
    enum { ALLOCATIONS_MAX = 500 };
    fixture.action = CONFIG_REFUSED;
    uint64_t allowed = 0;
    for (; allowed < ALLOCATIONS_MAX; allowed++) {
        fixture.mem.fail_after = allowed;
        config_fixture_load_served(&fixture, ARGUMENTS("--static-aliases", "a:m"));
        fixture.mem.fail_after = UINT64_MAX;
        if (fixture.action == CONFIG_RUN && fixture.config.alias_count == 1) {
            break;
        }
        assert_int_equal(fixture.action, CONFIG_REFUSED);
    }
    assert_true(allowed > 20 && allowed < ALLOCATIONS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_those_of_the_issue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_flag_wins_over_its_variable_and_that_over_the_default,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_stats_interval_may_be_a_number_of_seconds, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(figures_are_logged_when_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_value_is_refused_with_its_name_range_and_default,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(features_of_the_python_router_that_are_not_here_are_refused,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(flags_that_only_tune_these_features_are_accepted, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_root_path_is_a_path, set_up, tear_down),
        cmocka_unit_test_setup_teardown(secure_traces_are_not_sent_in_the_clear, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_variable_is_refused_under_its_own_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(every_mistake_is_named_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_batch_size_has_no_effect_and_says_so, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(actions_are_told_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(machine_defaults_follow_the_memory_limit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_table_agrees_with_the_library, set_up, tear_down),
        cmocka_unit_test_setup_teardown(messages_are_single_clean_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(running_out_of_memory_is_an_ordinary_result, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
