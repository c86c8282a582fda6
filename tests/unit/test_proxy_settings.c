/* Settings: aliases are found; who holds old ones goes on with them. */
#include "proxy/router.h"
#include "support/test.h"

static void aliases_are_found_and_others_left_alone(void **state)
{
    (void)state;
    struct config_alias aliases[] = {{"zeta", "m1"}, {"a", "m2"}, {"ab", "m3"}, {"abc", "m4"}};
    struct config config = {.aliases = aliases, .alias_count = 4};
    struct settings *settings = settings_new(&config);
    assert_non_null(settings);
    bool is_alias = false;
    for (size_t i = 0; i < 4; i++) {
        struct span model = settings_canonical_model(settings, span_of(aliases[i].name), &is_alias);
        assert_true(is_alias);
        assert_true(span_is(model, aliases[i].model));
    }
    static const char *const others[] = {"", "b", "abcd", "zet", "zeta1"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct span model = settings_canonical_model(settings, span_of(others[i]), &is_alias);
        assert_false(is_alias);
        assert_true(span_is(model, others[i]));
    }
    settings_let_go(settings);
}

static void workers_follow_when_they_are_woken(void **state)
{
    (void)state;
    struct config one = {.alias_count = 0};
    struct config_alias alias = {"a", "m"};
    struct config two = {.aliases = &alias, .alias_count = 1};
    struct router router = {.config = &one};
    struct worker worker = {.router = &router};
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    assert_int_equal(hashtrie_new(&options, &router.trie), HASHTRIE_OK);
    atomic_init(&router.settings, settings_new(&one));
    settings_follow(&worker);
    assert_ptr_equal(worker.settings->config, &one);
    settings_publish(&router, settings_new(&two));
    assert_ptr_equal(worker.settings->config, &one); /* Still held, and whole. */
    settings_follow(&worker);
    assert_ptr_equal(worker.settings->config, &two);
    assert_int_equal(worker.settings->hold_count, 2);
    settings_let_go(worker.settings);
    settings_let_go(router.settings);
    hashtrie_free(router.trie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aliases_are_found_and_others_left_alone),
        cmocka_unit_test(workers_follow_when_they_are_woken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
