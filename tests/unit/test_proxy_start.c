/* Backends, models and aliases out of a configuration. */
#include <unistd.h>

#include "proxy/router.h"
#include "support/test.h"

struct fixture {
    struct config config;
    struct log log;
    struct router router;
};

static void setup(struct fixture *fixture, struct config_backend *backends, size_t backend_count)
{
    *fixture = (struct fixture){.config = {.backends = backends,
                                           .backend_count = backend_count,
                                           .chunk_size = 128,
                                           .kv_capacity_tokens = 1000}};
    log_init(&fixture->log, STDERR_FILENO, LOG_ERROR, LOG_TEXT);
    struct router *router = &fixture->router;
    router->config = &fixture->config;
    router->log = &fixture->log;
    mem_init(&router->mem, SIZE_MAX);
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    assert_int_equal(hashtrie_new(&options, &router->trie), HASHTRIE_OK);
    router->fleet = route_fleet_new(&router->mem, 1);
    assert_non_null(router->fleet);
}

static void teardown(struct fixture *fixture)
{
    struct router *router = &fixture->router;
    size_t count = fixture->config.backend_count;
    mem_free(&router->mem, router->backends, count * sizeof *router->backends);
    mem_free(&router->mem, router->recent, count * sizeof *router->recent);
    mem_free(&router->mem, router->pairs, count * sizeof *router->pairs);
    mem_free(&router->mem, router->backend_of_holder,
             router->backend_of_holder_size * sizeof *router->backend_of_holder);
    mem_free(&router->mem, router->aliases,
             router->alias_count * sizeof(const struct config_alias *));
    route_fleet_free(router->fleet);
    hashtrie_free(router->trie);
    mem_fini(&router->mem);
    log_fini(&fixture->log);
}

static void backends_get_address_host_and_path(void **state)
{
    (void)state;
    struct config_backend backends[] = {{.url = "http://engine:8000/base", .model = "m"},
                                        {.url = "http://[::1]:81", .model = "m"}};
    struct fixture fixture;
    setup(&fixture, backends, 2);
    assert_true(router_add_backends(&fixture.router));
    const struct backend *first = &fixture.router.backends[0];
    const struct backend *second = &fixture.router.backends[1];
    assert_string_equal(first->address.host, "engine");
    assert_int_equal(first->address.port, 8000);
    assert_true(span_is(first->host, "engine:8000"));
    assert_true(span_is(first->path, "/base"));
    assert_string_equal(second->address.host, "::1");
    assert_true(span_is(second->host, "[::1]:81"));
    assert_int_equal(second->path.size, 0);
    assert_int_equal(fixture.router.backend_of_holder[first->holder], 0);
    assert_int_equal(fixture.router.backend_of_holder[second->holder], 1);
    teardown(&fixture);
}

static void an_engine_named_twice_serves_two_models(void **state)
{
    (void)state;
    struct config_backend backends[] = {{.url = "http://a:1", .model = "one"},
                                        {.url = "http://b:1", .model = "one"},
                                        {.url = "http://a:1", .model = "two"}};
    struct fixture fixture;
    setup(&fixture, backends, 3);
    struct router *router = &fixture.router;
    assert_true(router_add_backends(router));
    assert_int_equal(router->backend_count, 2);
    assert_int_equal(router->pair_count, 3);
    size_t one = (size_t)route_model_find(router->fleet, "one", 3);
    size_t two = (size_t)route_model_find(router->fleet, "two", 3);
    assert_int_equal(router->pairs[router_pair(router, 0, one)].model, one);
    assert_int_equal(router->pairs[router_pair(router, 0, two)].model, two);
    assert_int_equal(router->pairs[router_pair(router, 1, one)].endpoint, 1);
    teardown(&fixture);
}

static void aliases_are_found_and_others_left_alone(void **state)
{
    (void)state;
    struct config_alias aliases[] = {{"zeta", "m1"}, {"a", "m2"}, {"ab", "m3"}, {"abc", "m4"}};
    struct fixture fixture;
    setup(&fixture, NULL, 0);
    fixture.config.aliases = aliases;
    fixture.config.alias_count = 4;
    assert_true(router_add_aliases(&fixture.router));
    bool is_alias = false;
    for (size_t i = 0; i < 4; i++) {
        struct span model =
            router_canonical_model(&fixture.router, span_of(aliases[i].name), &is_alias);
        assert_true(is_alias);
        assert_true(span_is(model, aliases[i].model));
    }
    static const char *const others[] = {"", "b", "abcd", "zet", "zeta1"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct span model = router_canonical_model(&fixture.router, span_of(others[i]), &is_alias);
        assert_false(is_alias);
        assert_true(span_is(model, others[i]));
    }
    teardown(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backends_get_address_host_and_path),
        cmocka_unit_test(an_engine_named_twice_serves_two_models),
        cmocka_unit_test(aliases_are_found_and_others_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
