/* Picking an endpoint. */
#include "route/fleet.h"

static const char *const outcome_names[ROUTE_OUTCOME_COUNT] = {
    [ROUTE_HOLDER] = "holder",        [ROUTE_SHORTER] = "shorter",     [ROUTE_SPREAD] = "spread",
    [ROUTE_NO_HOLDER] = "no_holder",  [ROUTE_NO_PROMPT] = "no_prompt", [ROUTE_ROTATED] = "rotated",
    [ROUTE_SESSION_KEPT] = "session", [ROUTE_BY_LOAD] = "load",        [ROUTE_PINNED] = "pinned",
};

const char *route_outcome_name(enum route_outcome outcome)
{
    REQUIRE(outcome < ROUTE_OUTCOME_COUNT);
    return outcome_names[outcome];
}

const char *route_policy_name(enum route_policy policy)
{
    static const char *const names[ROUTE_POLICY_COUNT] = {
        [ROUTE_PREFIXAWARE] = "prefixaware", [ROUTE_ROUNDROBIN] = "roundrobin",
        [ROUTE_SESSION] = "session",         [ROUTE_LEASTLOAD] = "leastload",
        [ROUTE_LOADAWARE] = "loadaware",     [ROUTE_PRIORITY] = "priority",
    };
    REQUIRE(policy < ROUTE_POLICY_COUNT);
    return names[policy];
}

static bool is_excluded(const struct route_query *query, size_t endpoint)
{
    for (size_t i = 0; i < query->excluded_count; i++) {
        if (query->excluded[i] == endpoint) {
            return true;
        }
    }
    return false;
}

/* It has a role that is asked for, and is not excluded. */
static bool is_wanted(const struct route_fleet *fleet, const struct route_query *query,
                      size_t endpoint)
{
    bool has_role = query->roles == 0 || (fleet->endpoints[endpoint].roles & query->roles) != 0;
    return has_role && !is_excluded(query, endpoint);
}

/* The cheapest endpoint so far. Of equal ones that which was sent least, so that caches of an idle
 * fleet fill alike; else they are drawn with equal chances. */
struct best {
    size_t endpoint;
    uint64_t cost;
    uint64_t sent; /* Uncached bytes, ever. */
    uint32_t ties; /* How many were equal in both. */
};

static void consider(struct route_fleet *fleet, struct best *best, size_t endpoint, uint64_t cost)
{
    uint64_t sent = fleet->endpoints[endpoint].sent_bytes;
    if (best->ties > 0 && (cost > best->cost || (cost == best->cost && sent > best->sent))) {
        return;
    }
    if (best->ties == 0 || cost < best->cost || sent < best->sent) {
        *best = (struct best){.endpoint = endpoint, .cost = cost, .sent = sent, .ties = 1};
        return;
    }
    best->ties++;
    if (random_below(&fleet->random, best->ties) == 0) {
        best->endpoint = endpoint;
    }
}

static uint64_t uncached_bytes(const struct route_query *query, uint64_t held)
{
    uint64_t rest = query->prompt_bytes > held ? query->prompt_bytes - held : 0;
    return rest > query->chunk_bytes ? rest : query->chunk_bytes;
}

static uint64_t uncached_cost(const struct route_query *query, uint64_t held)
{
    uint64_t factor = query->received ? ROUTE_RECEIVED_FACTOR : ROUTE_UNCACHED_FACTOR;
    return factor * uncached_bytes(query, held);
}

/* FLEET_DOWN: not a candidate. `desperate`: those ejected are. Without this prompt's share. */
static uint64_t load_of(const struct route_fleet *fleet, size_t endpoint, bool desperate)
{
    uint64_t load = fleet->load_cost[endpoint];
    if (desperate && load == FLEET_DOWN && fleet_is_present(&fleet->endpoints[endpoint]) &&
        fleet_has_room(fleet, endpoint)) {
        load = fleet_load(fleet, endpoint);
    }
    return load;
}

/* Each running request's steps become longer by this prompt's context. */
static uint64_t burden_on(const struct route_fleet *fleet, const struct route_query *query,
                          size_t endpoint)
{
    return query->prompt_bytes / ROUTE_PROMPT_PARTS * fleet->endpoints[endpoint].load.in_flight;
}

/* The least loaded: what an endpoint that holds nothing costs differs by its load alone. */
static struct best least_loaded(struct route_fleet *fleet, const struct route_query *query,
                                bool desperate)
{
    struct best best = {0};
    const struct route_model *model = &fleet->models[query->model];
    for (size_t i = 0; i < model->endpoints.count; i++) {
        size_t endpoint = model->endpoints.numbers[i];
        uint64_t load = load_of(fleet, endpoint, desperate);
        if (load != FLEET_DOWN && (best.ties == 0 || load <= best.cost) &&
            is_wanted(fleet, query, endpoint)) {
            consider(fleet, &best, endpoint, load + burden_on(fleet, query, endpoint));
        }
    }
    return best;
}

bool fleet_is_candidate(const struct route_fleet *fleet, const struct route_query *query,
                        size_t endpoint, bool desperate)
{
    return fleet_serves(fleet, endpoint, query->model) &&
           load_of(fleet, endpoint, desperate) != FLEET_DOWN && is_wanted(fleet, query, endpoint);
}

/* What the endpoint chosen holds, and the most that any candidate holds. */
struct held {
    uint64_t chosen;
    uint64_t longest;
};

static struct held look_at_holders(struct route_fleet *fleet, const struct route_query *query,
                                   bool desperate, struct best *best)
{
    struct held held = {.chosen = query->all_held_bytes, .longest = query->all_held_bytes};
    for (size_t i = 0; i < query->holder_count; i++) {
        const struct route_holder *holder = &query->holders[i];
        if (holder->bytes <= query->all_held_bytes ||
            !fleet_is_candidate(fleet, query, holder->endpoint, desperate)) {
            continue;
        }
        held.longest = holder->bytes > held.longest ? holder->bytes : held.longest;
        consider(fleet, best, holder->endpoint,
                 load_of(fleet, holder->endpoint, desperate) +
                     burden_on(fleet, query, holder->endpoint) +
                     uncached_cost(query, holder->bytes));
    }
    for (size_t i = 0; i < query->holder_count; i++) {
        if (query->holders[i].endpoint == best->endpoint && query->holders[i].bytes > held.chosen) {
            held.chosen = query->holders[i].bytes;
        }
    }
    return held;
}

static enum route_outcome outcome_of(const struct route_query *query, const struct held *held)
{
    if (!query->has_prompt) {
        return ROUTE_NO_PROMPT;
    }
    if (held->longest == 0) {
        return ROUTE_NO_HOLDER;
    }
    if (held->chosen == held->longest) {
        return ROUTE_HOLDER;
    }
    return held->chosen > 0 ? ROUTE_SHORTER : ROUTE_SPREAD;
}

static bool pick_prefixaware(struct route_fleet *fleet, const struct route_query *query,
                             bool desperate, struct route_choice *out)
{
    struct best best = least_loaded(fleet, query, desperate);
    if (best.ties == 0) {
        return false;
    }
    best.cost += uncached_cost(query, query->all_held_bytes);
    struct held held = look_at_holders(fleet, query, desperate, &best);
    *out = (struct route_choice){.endpoint = best.endpoint,
                                 .held_bytes = held.chosen,
                                 .uncached_bytes = uncached_bytes(query, held.chosen),
                                 .outcome = outcome_of(query, &held)};
    return true;
}

uint64_t query_held_by(const struct route_query *query, size_t endpoint)
{
    for (size_t i = 0; i < query->holder_count; i++) {
        if (query->holders[i].endpoint == endpoint) {
            return query->holders[i].bytes;
        }
    }
    return query->all_held_bytes;
}

void query_choose(const struct route_query *query, size_t endpoint, enum route_outcome outcome,
                  struct route_choice *out)
{
    uint64_t held = query_held_by(query, endpoint);
    *out = (struct route_choice){.endpoint = endpoint,
                                 .held_bytes = held,
                                 .uncached_bytes = uncached_bytes(query, held),
                                 .outcome = outcome};
}

/* The next one up of those that serve the model, in order of their addition. */
bool pick_roundrobin(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                     struct route_choice *out)
{
    struct route_model *model = &fleet->models[query->model];
    for (size_t i = 0; i < model->endpoints.count; i++) {
        size_t endpoint = model->endpoints.numbers[model->rotation % model->endpoints.count];
        model->rotation++;
        if (fleet_is_candidate(fleet, query, endpoint, desperate)) {
            query_choose(query, endpoint, ROUTE_ROTATED, out);
            return true;
        }
    }
    return false;
}

static bool pick(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                 struct route_choice *out)
{
    typedef bool picker(struct route_fleet * fleet, const struct route_query *query, bool desperate,
                        struct route_choice *out);
    static picker *const pickers[ROUTE_POLICY_COUNT] = {
        [ROUTE_PREFIXAWARE] = pick_prefixaware, [ROUTE_ROUNDROBIN] = pick_roundrobin,
        [ROUTE_SESSION] = pick_session,         [ROUTE_LEASTLOAD] = pick_leastload,
        [ROUTE_LOADAWARE] = pick_loadaware,     [ROUTE_PRIORITY] = pick_priority,
    };
    REQUIRE(query->policy < ROUTE_POLICY_COUNT);
    return pickers[query->policy](fleet, query, desperate, out);
}

/* One that is fine is at its limit: it is waited for, rather than one that is ejected tried. */
static bool is_one_busy(const struct route_fleet *fleet, const struct route_query *query)
{
    const struct route_numbers *candidates = &fleet->models[query->model].endpoints;
    for (size_t i = 0; i < candidates->count; i++) {
        size_t endpoint = candidates->numbers[i];
        if (fleet_is_open(fleet, endpoint) && !fleet_has_room(fleet, endpoint) &&
            is_wanted(fleet, query, endpoint)) {
            return true;
        }
    }
    return false;
}

bool route_pick(struct route_fleet *fleet, const struct route_query *query,
                struct route_choice *out)
{
    REQUIRE(query->model < fleet->model_count);
    if (query->now_ns >= fleet->next_change_ns) {
        fleet_catch_up(fleet, query->now_ns);
    }
    if (query->pinned > 0) { /* Ejected or not: there is no other. */
        bool taken = query->anyhow || fleet_is_candidate(fleet, query, query->pinned - 1, true);
        if (taken) {
            query_choose(query, query->pinned - 1, ROUTE_PINNED, out);
        }
        return taken;
    }
    return pick(fleet, query, false, out) ||
           (!is_one_busy(fleet, query) && pick(fleet, query, true, out));
}

static bool has_other(const struct route_fleet *fleet, const struct route_query *query, bool sound)
{
    REQUIRE(query->model < fleet->model_count);
    const struct route_numbers *candidates = &fleet->models[query->model].endpoints;
    for (size_t i = 0; i < candidates->count; i++) {
        size_t endpoint = candidates->numbers[i];
        const struct route_endpoint *at = &fleet->endpoints[endpoint];
        if (fleet_is_present(at) && (!sound || at->state == FLEET_FINE) &&
            is_wanted(fleet, query, endpoint)) {
            return true;
        }
    }
    return false;
}

bool route_has_other(const struct route_fleet *fleet, size_t model, unsigned roles,
                     const uint32_t *excluded, size_t excluded_count)
{
    struct route_query query = {
        .model = model, .roles = roles, .excluded = excluded, .excluded_count = excluded_count};
    return has_other(fleet, &query, false);
}

bool route_has_sound_other(const struct route_fleet *fleet, size_t model, unsigned roles,
                           const uint32_t *excluded, size_t excluded_count)
{
    struct route_query query = {
        .model = model, .roles = roles, .excluded = excluded, .excluded_count = excluded_count};
    return has_other(fleet, &query, true);
}
