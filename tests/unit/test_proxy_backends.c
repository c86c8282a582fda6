/* The set of backends as it changes. */
#include <stdio.h>
#include <unistd.h>

#include "proxy/backends.h"
#include "support/test.h"
#include "trie/trie.h"

enum { WHY_MAX = 1024, ONE = 0, TWO = 1, BOTH = 2 };

static const char *const one[] = {"one"};
static const char *const two[] = {"two"};
static const char *const both[] = {"one", "two"};

struct fixture {
    struct config config;
    struct log log;
    struct worker worker;
    struct router router;
    struct buf why;
};

static void setup(struct fixture *fixture)
{
    *fixture = (struct fixture){.config = {.chunk_size = 128, .kv_capacity_tokens = 1000}};
    log_init(&fixture->log, STDERR_FILENO, LOG_ERROR, LOG_TEXT);
    struct router *router = &fixture->router;
    router->config = &fixture->config;
    router->log = &fixture->log;
    router->workers = &fixture->worker;
    router->worker_count = 1;
    fixture->worker.router = router;
    log_init(&fixture->worker.log, STDERR_FILENO, LOG_ERROR, LOG_TEXT);
    mem_init(&router->mem, SIZE_MAX);
    mem_init(&router->fleet_mem, SIZE_MAX);
    list_init(&router->suspected);
    buf_init(&fixture->why, &router->mem, WHY_MAX);
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    assert_int_equal(hashtrie_new(&options, &router->trie), HASHTRIE_OK);
    router->fleet = route_fleet_new(&router->fleet_mem, 1);
    assert_non_null(router->fleet);
}

static void teardown(struct fixture *fixture)
{
    struct router *router = &fixture->router;
    backends_free(router);
    route_fleet_free(router->fleet);
    hashtrie_free(router->trie);
    buf_fini(&fixture->why);
    mem_fini(&router->fleet_mem);
    mem_fini(&router->mem);
    log_fini(&fixture->log);
    log_fini(&fixture->worker.log);
}

static int setup_case(void **state)
{
    static struct fixture fixture;
    setup(&fixture);
    *state = &fixture;
    return 0;
}

static int teardown_case(void **state)
{
    teardown(*state);
    return 0;
}

static struct backend_wish wish(const char *url, int models)
{
    static const struct {
        const char *const *names;
        size_t count;
    } sets[] = {[ONE] = {one, 1}, [TWO] = {two, 1}, [BOTH] = {both, 2}};
    return (struct backend_wish){
        .url = url, .models = sets[models].names, .model_count = sets[models].count};
}

#define SET(fixture, ...)                                    \
    set(fixture, (const struct backend_wish[]){__VA_ARGS__}, \
        sizeof((const struct backend_wish[]){__VA_ARGS__}) / sizeof(struct backend_wish))

static void set(struct fixture *fixture, const struct backend_wish *wishes, size_t count)
{
    if (!router_set_backends(&fixture->router, wishes, count, &fixture->why)) {
        fail_msg("%.*s", (int)fixture->why.size, fixture->why.data);
    }
}

static bool refused(struct fixture *fixture, struct backend_wish wished, const char *why)
{
    bool done = router_set_backends(&fixture->router, &wished, 1, &fixture->why);
    bool told = memmem(fixture->why.data, fixture->why.size, why, strlen(why)) != NULL;
    if (!told) {
        (void)printf("%.*s\n", (int)fixture->why.size, fixture->why.data);
    }
    return !done && told;
}

/* Where requests for the model may go, as bits by number. */
static unsigned candidates(struct fixture *fixture, const char *model)
{
    struct route_fleet *fleet = fixture->router.fleet;
    int number = route_model_find(fleet, model, strlen(model));
    unsigned found = 0;
    for (size_t i = 0; number >= 0 && i < fixture->router.slot_count; i++) {
        found |= route_serves(fleet, i, (size_t)number) && !route_endpoint_is_asleep(fleet, i)
                     ? 1U << i
                     : 0;
    }
    return found;
}

static struct backend *named(struct fixture *fixture, const char *url)
{
    for (size_t i = 0; i < fixture->router.slot_count; i++) {
        struct backend *backend = fixture->router.backends[i];
        if (backend != NULL && strcmp(backend->url, url) == 0) {
            return backend;
        }
    }
    return NULL;
}

static void they_get_address_host_and_path(void **state)
{
    struct fixture *fixture = *state;
    struct backend_wish labelled = wish("http://engine:8000/base", ONE);
    labelled.label = "l";
    SET(fixture, labelled, wish("http://[::1]:81", ONE));
    const struct backend *first = fixture->router.backends[0];
    const struct backend *second = fixture->router.backends[1];
    assert_string_equal(first->address.host, "engine");
    assert_int_equal(first->address.port, 8000);
    assert_true(span_is(first->host, "engine:8000"));
    assert_true(span_is(first->path, "/base"));
    assert_string_equal(first->label, "l");
    assert_string_equal(second->address.host, "::1");
    assert_true(span_is(second->host, "[::1]:81"));
    assert_int_equal(second->path.size, 0);
    assert_int_equal(fixture->router.backend_of_holder[first->holder], 0);
    assert_int_equal(fixture->router.backend_of_holder[second->holder], 1);
}

static void one_named_twice_serves_two_models(void **state)
{
    struct fixture *fixture = *state;
    struct router *router = &fixture->router;
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", ONE), wish("http://a:1", TWO));
    assert_int_equal(router->backend_count, 2);
    assert_int_equal(candidates(fixture, "one"), 3);
    assert_int_equal(candidates(fixture, "two"), 1);
    size_t number = (size_t)route_model_find(router->fleet, "two", 3);
    assert_int_equal(backend_pair(router->backends[0], number)->model, number);
}

static void what_goes_gets_nothing_new_and_is_freed_when_let_go(void **state)
{
    struct fixture *fixture = *state;
    struct router *router = &fixture->router;
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", ONE));
    struct backend *a = router->backends[0];
    backend_hold(a);
    SET(fixture, wish("http://b:1", ONE));
    assert_int_equal(candidates(fixture, "one"), 2);
    assert_int_equal(router->backend_count, 1);
    assert_true(a->gone);
    backends_sweep(router);
    assert_ptr_equal(router->backends[0], a); /* Somebody is still there. */
    SET(fixture, wish("http://b:1", ONE), wish("http://c:1", ONE));
    assert_string_equal(router->backends[2]->url, "http://c:1");
    backend_let_go(a);
    backends_sweep(router);
    assert_null(router->backends[0]);
    SET(fixture, wish("http://d:1", ONE), wish("http://b:1", ONE), wish("http://c:1", ONE));
    assert_string_equal(router->backends[0]->url, "http://d:1"); /* Its number is used again. */
    assert_int_equal(candidates(fixture, "one"), 7);
}

static void one_that_comes_back_in_time_is_the_same(void **state)
{
    struct fixture *fixture = *state;
    struct router *router = &fixture->router;
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", ONE));
    struct backend *a = router->backends[0];
    route_request_sent(router->fleet, 0, 128, 0);
    backend_hold(a);
    SET(fixture, wish("http://b:1", ONE));
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", ONE));
    assert_ptr_equal(router->backends[0], a);
    assert_false(a->gone);
    assert_int_equal(router->gone_count, 0);
    assert_int_equal(route_endpoint_load(router->fleet, 0).in_flight, 1);
    assert_int_equal(candidates(fixture, "one"), 3);
}

/* The chunks that the engine of that URL holds of a prompt of one chunk. */
static size_t held(struct fixture *fixture, const char *url, bool insert)
{
    static const uint64_t hashes[] = {0x1234567890abcdef};
    struct hashtrie_key key = {.namespace_hash = 7, .hashes = hashes, .count = 1};
    struct hashtrie *trie = fixture->router.trie;
    hashtrie_endpoint holder = named(fixture, url)->holder;
    if (insert) {
        assert_int_equal(hashtrie_insert(trie, &key, holder, 1), HASHTRIE_OK);
    }
    struct hashtrie_match match;
    hashtrie_match(trie, &key, 1, &match);
    for (size_t i = 0; i < match.holder_count; i++) {
        if (match.holders[i].endpoint == holder) {
            return match.holders[i].chunk_count;
        }
    }
    return 0;
}

static void one_that_flaps_keeps_its_prefixes(void **state)
{
    struct fixture *fixture = *state;
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", ONE));
    assert_int_equal(held(fixture, "http://a:1", true), 1);
    SET(fixture, wish("http://b:1", ONE));
    backends_sweep(&fixture->router);
    assert_null(named(fixture, "http://a:1"));
    SET(fixture, wish("http://b:1", ONE), wish("http://a:1", ONE));
    assert_int_equal(held(fixture, "http://a:1", false), 1);
    assert_int_equal(held(fixture, "http://b:1", false), 0);
}

static void tell_start(struct fixture *fixture, const char *text)
{
    struct backend *backend = named(fixture, "http://a:1");
    assert_int_equal(trie_endpoint_refine(fixture->router.trie, backend->holder, text),
                     HASHTRIE_OK);
}

static void another_generation_holds_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct backend_wish a = wish("http://a:1", ONE);
    SET(fixture, a);
    assert_int_equal(held(fixture, "http://a:1", true), 1);
    a.generation = "uid-1";
    SET(fixture, a); /* Told for the first time: the same, for all that is known. */
    SET(fixture, a);
    assert_int_equal(held(fixture, "http://a:1", false), 1);
    tell_start(fixture, "uid-1 start 5.000"); /* As its metrics do. */
    SET(fixture, a);
    assert_int_equal(held(fixture, "http://a:1", false), 1);
    a.generation = "uid-2";
    SET(fixture, a);
    assert_int_equal(held(fixture, "http://a:1", false), 0);
    assert_int_equal(held(fixture, "http://a:1", true), 1);
    a.generation = NULL;
    SET(fixture, a);
    assert_int_equal(held(fixture, "http://a:1", false), 1);
}

static void a_start_known_before_the_generation_stays(void **state)
{
    struct fixture *fixture = *state;
    struct backend_wish a = wish("http://a:1", ONE);
    SET(fixture, a);
    assert_int_equal(held(fixture, "http://a:1", true), 1);
    tell_start(fixture, "start 5.000");
    a.generation = "uid-1";
    SET(fixture, a);
    struct trie_endpoint stored;
    assert_true(trie_endpoint_get(fixture->router.trie, 0, &stored));
    assert_string_equal(stored.generation, "uid-1 start 5.000");
    assert_int_equal(held(fixture, "http://a:1", false), 1);
}

static void models_come_and_go(void **state)
{
    struct fixture *fixture = *state;
    const struct route_fleet *fleet = fixture->router.fleet;
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", BOTH));
    assert_int_equal(candidates(fixture, "two"), 2);
    SET(fixture, wish("http://a:1", BOTH), wish("http://b:1", ONE));
    assert_int_equal(candidates(fixture, "one"), 3);
    assert_int_equal(candidates(fixture, "two"), 1);
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", ONE));
    assert_int_equal(candidates(fixture, "two"), 0);
    int number = route_model_find(fleet, "two", 3);
    assert_true(number >= 0); /* Still known: a request for it is answered with 503, not 404. */
    assert_false(route_model_is_served(fleet, (size_t)number));
    assert_true(route_model_is_served(fleet, 0));
    struct backend_wish asleep = wish("http://a:1", ONE);
    asleep.sleeping = true;
    SET(fixture, asleep, wish("http://b:1", ONE));
    assert_int_equal(candidates(fixture, "one"), 3); /* Static lists do not know. */
    fixture->config.kubernetes = true;
    SET(fixture, asleep, wish("http://b:1", ONE));
    assert_int_equal(candidates(fixture, "one"), 2);
    SET(fixture, wish("http://a:1", ONE), wish("http://b:1", ONE));
    assert_int_equal(candidates(fixture, "one"), 3);
    SET(fixture, (struct backend_wish){.url = "http://a:1"}, wish("http://b:1", ONE));
    assert_int_equal(candidates(fixture, "one"), 2);
    assert_int_equal(fixture->router.backend_count, 2);
    assert_true(router_set_backends(&fixture->router, NULL, 0, &fixture->why));
    assert_int_equal(fixture->router.backend_count, 0);
    assert_int_equal(candidates(fixture, "one"), 0);
}

static void labels_and_ids_are_replaced(void **state)
{
    struct fixture *fixture = *state;
    struct backend_wish a = wish("http://a:1", ONE);
    a.label = "prefill";
    a.id = "pod-1";
    SET(fixture, a);
    assert_string_equal(fixture->router.backends[0]->label, "prefill");
    assert_string_equal(fixture->router.backends[0]->id, "pod-1");
    a.label = NULL;
    a.id = "pod-2";
    SET(fixture, a);
    assert_null(fixture->router.backends[0]->label);
    assert_string_equal(fixture->router.backends[0]->id, "pod-2");
}

static void a_bad_wish_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    SET(fixture, wish("http://a:1", ONE));
    char longer[HASHTRIE_ENDPOINT_TEXT_MAX + 2];
    memset(longer, 'a', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    memcpy(longer, "http://", strlen("http://"));
    assert_true(refused(fixture, wish("ftp://b:1", TWO), "ftp://b:1"));
    assert_true(refused(fixture, wish("http://b:99999", TWO), "http://b:99999"));
    assert_true(refused(fixture, wish("", TWO), "backend"));
    assert_true(refused(fixture, wish(longer, TWO), "longer than 2048 bytes"));
    const char *name = longer;
    struct backend_wish unnamable = {.url = "http://b:1", .models = &name, .model_count = 1};
    assert_true(refused(fixture, unnamable, "name of a model"));
    struct backend_wish unlabelled = wish("http://b:1", ONE);
    unlabelled.label = longer;
    assert_true(refused(fixture, unlabelled, "label"));
    assert_int_equal(candidates(fixture, "one"), 1);
    assert_int_equal(route_model_find(fixture->router.fleet, "two", 3), -1);
    assert_int_equal(fixture->router.backend_count, 1);
}

/* The n-th allocation of the fleet's memory fails, for every n: the old set stays. */
static void without_memory_nothing_changes(void **state)
{
    (void)state;
    bool done = false;
    unsigned tries = 0;
    for (; !done && tries < 100; tries++) {
        struct fixture fixture;
        setup(&fixture);
        fixture.router.routing = CONFIG_SESSION;
        SET(&fixture, wish("http://a:1", ONE), wish("http://b:1", ONE));
        fixture.router.fleet_mem.fail_after = tries;
        fixture.router.fleet_mem.fail_count = 1;
        struct backend_wish wishes[] = {wish("http://b:1", BOTH), wish("http://c:1", TWO)};
        wishes[0].label = "label";
        done = router_set_backends(&fixture.router, wishes, 2, &fixture.why);
        fixture.router.fleet_mem.fail_after = UINT64_MAX;
        assert_int_equal(fixture.router.backend_count, 2);
        assert_int_equal(candidates(&fixture, "one"), done ? 2 : 3);
        assert_int_equal(candidates(&fixture, "two"), done ? 6 : 0);
        if (!done) {
            assert_null(named(&fixture, "http://b:1")->label);
            assert_true(fixture.why.size > 0);
        }
        teardown(&fixture);
    }
    assert_true(done && tries > 8);
}

static void thousands_fit_and_all_may_be_replaced(void **state)
{
    enum { COUNT = BACKENDS_MAX * 2, URL_BYTES = 32 };
    struct fixture *fixture = *state;
    static char urls[COUNT][URL_BYTES];
    static struct backend_wish wishes[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(urls[i], URL_BYTES, "http://10.0.%zu.%zu:8000", i / 256, i % 256);
        wishes[i] = wish(urls[i], ONE);
    }
    struct hashtrie_options options = hashtrie_options_default(64 << 20);
    hashtrie_free(fixture->router.trie);
    assert_int_equal(hashtrie_new(&options, &fixture->router.trie), HASHTRIE_OK);
    set(fixture, wishes, BACKENDS_MAX);
    assert_false(router_set_backends(&fixture->router, wishes, BACKENDS_MAX + 1, &fixture->why));
    assert_int_equal(fixture->router.backend_count, BACKENDS_MAX);
    backend_hold(fixture->router.backends[0]);
    set(fixture, wishes + BACKENDS_MAX, BACKENDS_MAX); /* All of them are others. */
    assert_int_equal(fixture->router.backend_count, BACKENDS_MAX);
    set(fixture, wishes, BACKENDS_MAX);
    backend_let_go(fixture->router.backends[0]);
    assert_int_equal(fixture->router.backend_count, BACKENDS_MAX);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup_case, teardown_case)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(they_get_address_host_and_path),
        CASE(one_named_twice_serves_two_models),
        CASE(what_goes_gets_nothing_new_and_is_freed_when_let_go),
        CASE(one_that_comes_back_in_time_is_the_same),
        CASE(one_that_flaps_keeps_its_prefixes),
        CASE(another_generation_holds_nothing),
        CASE(a_start_known_before_the_generation_stays),
        CASE(models_come_and_go),
        CASE(labels_and_ids_are_replaced),
        CASE(a_bad_wish_changes_nothing),
        cmocka_unit_test(without_memory_nothing_changes),
        CASE(thousands_fit_and_all_may_be_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
