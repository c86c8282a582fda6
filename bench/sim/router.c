#include "bench/sim/router.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum {
    NAME_BYTES = 64,
    CLOSE_MS = 600000,
    CHECKPOINT_MS = 600000,
};

static const char model_name[] = "m";

struct sim_router {
    struct sim_router_options options;
    struct mem mem;
    struct hashtrie *trie; /* NULL: the policy asks no trie. */
    struct hashtrie_store *store;
    struct route_fleet *fleet;
    struct random random;
    uint64_t active_bytes[SIM_ENGINES_MAX];
    uint64_t held_bytes[SIM_ENGINES_MAX];
    hashtrie_endpoint number_of[SIM_ENGINES_MAX]; /* In the trie. */
    uint16_t engine_of[SIM_ENGINES_MAX * 2];      /* And back. */
    struct route_holder holders[SIM_ENGINES_MAX];
    uint64_t chunk_hashes[SIM_CHUNKS_MAX];
    pthread_mutex_t mutex;
    pthread_cond_t reloaded;
    bool reload_over;
};

static void check(enum hashtrie_status status, const char *what)
{
    if (status != HASHTRIE_OK) {
        sim_fail(what, hashtrie_strerror(status));
    }
}

/* ---- Making one ---- */

static void open_store(struct sim_router *router)
{
    struct hashtrie_store_options options =
        hashtrie_store_options_default(router->options.store_directory);
    options.max_bytes = router->options.store_bytes;
    options.checkpoint_interval_ms = HASHTRIE_STORE_INTERVAL_MAX_MS; /* When we say so. */
    check(hashtrie_store_open(router->trie, &options, &router->store), "store");
}

static void make_trie(struct sim_router *router)
{
    struct hashtrie_options options = hashtrie_options_default(router->options.budget_bytes);
    options.seed = router->options.seed;
    check(hashtrie_new(&options, &router->trie), "trie");
    if (router->options.store_directory != NULL) {
        open_store(router);
    }
}

static void add_engine(struct sim_router *router, size_t engine, const char *name)
{
    if (route_endpoint_add(router->fleet) != (int)engine ||
        !route_endpoint_serves(router->fleet, engine, model_name)) {
        sim_fail("fleet", "it cannot take so many engines");
    }
    if (router->trie == NULL) {
        return;
    }
    hashtrie_lock(router->trie);
    check(hashtrie_endpoint_add(router->trie, name, model_name, &router->number_of[engine]),
          "endpoint");
    CHECK(router->number_of[engine] < SIM_ENGINES_MAX * 2);
    router->engine_of[router->number_of[engine]] = (uint16_t)engine;
    if (router->options.policy->knows == SIM_KNOWS_TRIE) {
        check(hashtrie_endpoint_set_capacity(router->trie, router->number_of[engine],
                                             router->options.capacity_bytes),
              "capacity");
    }
    hashtrie_unlock(router->trie);
}

static void add_engines(struct sim_router *router)
{
    static const char form[] = "http://engine-%zu:8000";
    char(*names)[NAME_BYTES] = sim_alloc(router->options.engine_count, sizeof *names);
    const char **ring = sim_alloc(router->options.engine_count, sizeof *ring);
    for (size_t i = 0; i < router->options.engine_count; i++) {
        (void)snprintf(names[i], sizeof names[i], form, i);
        ring[i] = names[i];
        add_engine(router, i, names[i]);
    }
    if (router->options.policy->route == ROUTE_SESSION &&
        !route_fleet_set_ring(router->fleet, ring, router->options.engine_count)) {
        sim_fail("ring", "out of memory");
    }
    free(ring);
    free(names);
}

struct sim_router *sim_router_new(const struct sim_router_options *options)
{
    REQUIRE(options->engine_count > 0 && options->engine_count <= SIM_ENGINES_MAX);
    struct sim_router *router = sim_alloc(1, sizeof *router);
    router->options = *options;
    router->random.state = options->seed;
    mem_init(&router->mem, SIZE_MAX);
    (void)pthread_mutex_init(&router->mutex, NULL); /* Neither can fail with defaults. */
    (void)pthread_cond_init(&router->reloaded, NULL);
    memset(router->engine_of, 0xff, sizeof router->engine_of);
    router->fleet = route_fleet_new(&router->mem, options->seed);
    if (router->fleet == NULL) {
        sim_fail("fleet", "out of memory");
    }
    if (options->policy->knows == SIM_KNOWS_TRIE || options->policy->knows == SIM_KNOWS_AGELESS) {
        make_trie(router);
    }
    add_engines(router);
    return router;
}

void sim_router_free(struct sim_router *router)
{
    if (router == NULL) {
        return;
    }
    if (router->store != NULL) {
        check(hashtrie_store_close(router->store, CLOSE_MS), "store");
    }
    hashtrie_free(router->trie);
    route_fleet_free(router->fleet);
    mem_fini(&router->mem);
    (void)pthread_cond_destroy(&router->reloaded);
    (void)pthread_mutex_destroy(&router->mutex);
    free(router);
}

/* ---- A request ---- */

static void on_reloaded(void *user, enum hashtrie_status status)
{
    struct sim_router *router = user;
    (void)status; /* The match is made again, whatever it was. */
    pthread_mutex_lock(&router->mutex);
    router->reload_over = true;
    pthread_cond_signal(&router->reloaded);
    pthread_mutex_unlock(&router->mutex);
}

static void reload(struct sim_router *router, const struct hashtrie_key *key, size_t depth)
{
    router->reload_over = false;
    if (hashtrie_store_reload(router->store, key, depth, on_reloaded, router) != HASHTRIE_OK) {
        return;
    }
    pthread_mutex_lock(&router->mutex);
    while (!router->reload_over) {
        pthread_cond_wait(&router->reloaded, &router->mutex);
    }
    pthread_mutex_unlock(&router->mutex);
}

/* Lock held; given up for a reload. */
static void match(struct sim_router *router, const struct hashtrie_key *key, uint64_t now_s,
                  struct hashtrie_match *out)
{
    hashtrie_match(router->trie, key, now_s, out);
    if (router->store != NULL && out->chunk_count < key->count &&
        hashtrie_store_may_have(router->store, key, out->chunk_count)) {
        size_t depth = out->chunk_count;
        hashtrie_unlock(router->trie);
        reload(router, key, depth);
        hashtrie_lock(router->trie);
        hashtrie_match(router->trie, key, now_s, out);
    }
}

static size_t holders_of(struct sim_router *router, const struct hashtrie_match *found)
{
    size_t count = 0;
    for (size_t i = 0; i < found->holder_count; i++) {
        hashtrie_endpoint number = found->holders[i].endpoint;
        if (number < SIM_ENGINES_MAX * 2 && router->engine_of[number] != UINT16_MAX) {
            router->holders[count++] = (struct route_holder){
                .endpoint = router->engine_of[number],
                .bytes = (uint64_t)found->holders[i].chunk_count * SIM_CHUNK_BYTES};
        }
    }
    return count;
}

static size_t look_into_caches(struct sim_router *router, const struct sim_prompt *prompt)
{
    size_t count = 0;
    for (size_t i = 0; i < router->options.engine_count; i++) {
        uint64_t tokens =
            sim_engine_holds(prompt->engines[i], prompt->block_hashes, prompt->block_count);
        if (tokens > 0) {
            router->holders[count++] = (struct route_holder){
                .endpoint = (uint32_t)i, .bytes = tokens * prompt->request->token_bytes};
        }
    }
    return count;
}

static bool pick_as_peers_do(struct sim_router *router, const struct route_query *query,
                             const struct sim_prompt *prompt, struct route_choice *choice)
{
    bool any_up = false;
    for (size_t i = 0; i < router->options.engine_count; i++) {
        router->held_bytes[i] = query->all_held_bytes;
        any_up = any_up || route_endpoint_is_up(router->fleet, i);
    }
    for (size_t i = 0; i < query->holder_count; i++) {
        router->held_bytes[query->holders[i].endpoint] = query->holders[i].bytes;
    }
    uint64_t prefix_hash = 0;
    (void)sim_hash_units(prompt->workload, prompt->request,
                         SIM_CHUNK_BYTES / prompt->request->token_bytes, false, &prefix_hash, 1);
    struct sim_view view = {.query = query,
                            .fleet = router->fleet,
                            .engine_count = router->options.engine_count,
                            .held_bytes = router->held_bytes,
                            .active_bytes = router->active_bytes,
                            .engines = prompt->engines,
                            .prefix_hash = prefix_hash,
                            .random = &router->random};
    if (!any_up) {
        return false;
    }
    size_t engine = router->options.policy->pick(&view);
    uint64_t held = router->held_bytes[engine];
    uint64_t rest = query->prompt_bytes > held ? query->prompt_bytes - held : 0;
    *choice = (struct route_choice){.endpoint = engine,
                                    .held_bytes = held,
                                    .uncached_bytes =
                                        rest > query->chunk_bytes ? rest : query->chunk_bytes};
    return true;
}

static bool pick(struct sim_router *router, const struct sim_prompt *prompt,
                 const struct hashtrie_match *found, uint64_t now_ns, struct route_choice *choice)
{
    const struct sim_request *request = prompt->request;
    char session[NAME_BYTES];
    int session_size = snprintf(session, sizeof session, "user-%u", request->session);
    bool looks = router->options.policy->knows == SIM_KNOWS_CACHES;
    struct route_query query = {
        .policy = router->options.policy->route,
        .has_prompt = true,
        .prompt_bytes = (uint64_t)request->prompt_tokens * request->token_bytes,
        .all_held_bytes = (uint64_t)found->all_chunk_count * SIM_CHUNK_BYTES,
        .holders = router->holders,
        .holder_count = looks ? look_into_caches(router, prompt) : holders_of(router, found),
        .chunk_bytes = SIM_CHUNK_BYTES,
        .session = {.data = request->session == SIM_NO_SESSION ? NULL : session,
                    .size = (size_t)session_size},
        .now_ns = now_ns,
    };
    return router->options.policy->pick != NULL ? pick_as_peers_do(router, &query, prompt, choice)
                                                : route_pick(router->fleet, &query, choice);
}

bool sim_router_send(struct sim_router *router, const struct sim_prompt *prompt, uint64_t now_ns,
                     struct sim_route *out)
{
    const struct sim_request *request = prompt->request;
    uint64_t now_s = SIM_UNIX_S + now_ns / SIM_NS_PER_S;
    struct hashtrie_match found = {0};
    struct hashtrie_key key = {.namespace_hash = 1, .hashes = router->chunk_hashes};
    struct route_choice choice;
    if (router->trie != NULL) {
        key.count =
            sim_hash_units(prompt->workload, request, SIM_CHUNK_BYTES / request->token_bytes, false,
                           router->chunk_hashes, SIM_CHUNKS_MAX);
        hashtrie_lock(router->trie);
        match(router, &key, now_s, &found);
    }
    bool chosen = pick(router, prompt, &found, now_ns, &choice);
    if (router->trie != NULL) {
        if (chosen) { /* Full: counted by the trie; the request goes its way all the same. */
            enum hashtrie_status status =
                hashtrie_insert(router->trie, &key, router->number_of[choice.endpoint], now_s);
            (void)status;
        }
        hashtrie_unlock(router->trie);
    }
    if (!chosen) {
        return false;
    }
    route_request_sent(router->fleet, choice.endpoint, choice.uncached_bytes,
                       (uint64_t)request->prompt_tokens * request->token_bytes);
    router->active_bytes[choice.endpoint] +=
        (uint64_t)request->prompt_tokens * request->token_bytes;
    *out = (struct sim_route){.engine = choice.endpoint,
                              .uncached_bytes = choice.uncached_bytes,
                              .held_bytes = choice.held_bytes,
                              .queued_bytes =
                                  route_endpoint_load(router->fleet, choice.endpoint).queued_bytes,
                              .sent_ns = now_ns};
    return true;
}

void sim_router_on_first(struct sim_router *router, const struct sim_route *route, uint64_t now_ns)
{
    route_request_prefilled(router->fleet, route->engine, route->uncached_bytes);
    route_learn_prefill(router->fleet, route->engine, route->queued_bytes, now_ns - route->sent_ns);
}

void sim_router_on_end(struct sim_router *router, const struct sim_request *request,
                       const struct sim_route *route, bool had_first)
{
    if (!had_first) {
        route_request_prefilled(router->fleet, route->engine, route->uncached_bytes);
    }
    route_request_ended(router->fleet, route->engine,
                        (uint64_t)request->prompt_tokens * request->token_bytes);
    router->active_bytes[route->engine] -= (uint64_t)request->prompt_tokens * request->token_bytes;
}

/* ---- The rest ---- */

void sim_router_set_up(struct sim_router *router, size_t engine, bool up)
{
    route_endpoint_set_up(router->fleet, engine, up);
}

void sim_router_on_restart(struct sim_router *router, size_t engine, unsigned generation)
{
    if (router->trie == NULL) {
        return;
    }
    char text[NAME_BYTES];
    (void)snprintf(text, sizeof text, "start %u", generation);
    hashtrie_lock(router->trie);
    check(hashtrie_endpoint_set_generation(router->trie, router->number_of[engine], text),
          "generation");
    hashtrie_unlock(router->trie);
}

void sim_router_checkpoint(struct sim_router *router)
{
    if (router->store != NULL) {
        check(hashtrie_store_checkpoint(router->store, CHECKPOINT_MS), "checkpoint");
    }
}

struct sim_router_state sim_router_state(struct sim_router *router)
{
    struct sim_router_state state = {0};
    if (router->trie != NULL) {
        hashtrie_lock(router->trie);
        hashtrie_get_stats(router->trie, &state.trie);
        hashtrie_unlock(router->trie);
    }
    if (router->store != NULL) {
        struct hashtrie_store_stats stats;
        hashtrie_store_get_stats(router->store, &stats);
        state.store_bytes = stats.bytes;
        state.reload_found_count = stats.reload_found_count;
    }
    return state;
}
