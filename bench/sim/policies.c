#include "bench/sim/policies.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "bench/sim/workload.h"

enum {
    TOKEN_BYTES = ROUTE_BYTES_PER_TOKEN,
    RING_POINTS = 128,
};

static double queued(const struct sim_view *view, size_t engine)
{
    return (double)route_endpoint_load(view->fleet, engine).queued_bytes;
}

static double in_flight(const struct sim_view *view, size_t engine)
{
    return route_endpoint_load(view->fleet, engine).in_flight;
}

static double uncached(const struct sim_view *view, size_t engine)
{
    uint64_t prompt = view->query->prompt_bytes;
    uint64_t held = view->held_bytes[engine];
    uint64_t rest = prompt > held ? prompt - held : 0;
    return (double)(rest > view->query->chunk_bytes ? rest : view->query->chunk_bytes);
}

/* The engine that is up with the lowest cost; of equal ones any. */
static size_t cheapest(const struct sim_view *view,
                       double (*cost)(const struct sim_view *view, size_t engine))
{
    size_t best = 0;
    double least = DBL_MAX;
    uint32_t ties = 0;
    for (size_t i = 0; i < view->engine_count; i++) {
        if (!route_endpoint_is_up(view->fleet, i)) {
            continue;
        }
        double at = cost(view, i);
        if (ties > 0 && at > least) {
            continue;
        }
        ties = ties > 0 && at == least ? ties + 1 : 1;
        least = at;
        if (ties == 1 || random_below(view->random, ties) == 0) {
            best = i;
        }
    }
    return best;
}

static double cost_none(const struct sim_view *view, size_t engine)
{
    (void)view;
    (void)engine;
    return 0;
}

static size_t pick_random(const struct sim_view *view)
{
    return cheapest(view, cost_none);
}

/* production-stack: any of those with the longest match, whatever their load. */
static double cost_longest(const struct sim_view *view, size_t engine)
{
    return -(double)view->held_bytes[engine];
}

static size_t pick_longest(const struct sim_view *view)
{
    return cheapest(view, cost_longest);
}

/* smg, sglang-router: the least loaded if loads are apart by more than 64 and by more than 1.5
 * times, or if nobody holds more than 0.3 of the prompt; else who holds most. */
static size_t pick_thresholds(const struct sim_view *view)
{
    double least = DBL_MAX;
    double most = 0;
    double longest = 0;
    for (size_t i = 0; i < view->engine_count; i++) {
        if (route_endpoint_is_up(view->fleet, i)) {
            least = fmin(least, in_flight(view, i));
            most = fmax(most, in_flight(view, i));
            longest = fmax(longest, (double)view->held_bytes[i]);
        }
    }
    bool apart = most - least > 64 && most > 1.5 * least;
    bool held = longest > 0.3 * (double)view->query->prompt_bytes;
    return cheapest(view, apart || !held ? in_flight : cost_longest);
}

/* llm-d's scorers, weights as in its guide: queue 2, KV use 2, prefix 3. Queues are relative to the
 * longest and the shortest. */
static size_t pick_scorer(const struct sim_view *view)
{
    double best_score = -1;
    size_t best = 0;
    uint32_t ties = 0;
    double least = DBL_MAX;
    double most = 0;
    for (size_t i = 0; i < view->engine_count; i++) {
        double waiting = (double)sim_engine_state(view->engines[i]).waiting_count;
        least = fmin(least, waiting);
        most = fmax(most, waiting);
    }
    for (size_t i = 0; i < view->engine_count; i++) {
        struct sim_engine_state state = sim_engine_state(view->engines[i]);
        if (!route_endpoint_is_up(view->fleet, i)) {
            continue;
        }
        double queue = most > least ? (most - (double)state.waiting_count) / (most - least) : 1;
        double prefix = (double)view->held_bytes[i] / (double)view->query->prompt_bytes;
        double score = 2 * queue + 2 * (1 - state.kv_usage) + 3 * prefix;
        ties = score == best_score ? ties + 1 : score > best_score ? 1 : 0;
        if (ties > 0 && (score > best_score || random_below(view->random, ties) == 0)) {
            best = i;
        }
        best_score = fmax(best_score, score);
    }
    return best;
}

/* Dynamo: prefill still to be done there, this prompt's included, and what running ones hold. */
static double cost_active(const struct sim_view *view, size_t engine)
{
    return queued(view, engine) + uncached(view, engine) + (double)view->active_bytes[engine];
}

static size_t pick_active(const struct sim_view *view)
{
    return cheapest(view, cost_active);
}

static double cost_product(const struct sim_view *view, size_t engine)
{
    return (queued(view, engine) + uncached(view, engine)) * (in_flight(view, engine) + 1);
}

static size_t pick_product(const struct sim_view *view)
{
    return cheapest(view, cost_product);
}

/* KubeAI: a hash ring over the first 128 bytes; engines with more than 1.25 of the mean load are
 * passed over. The points of the ring are walked by looking for the next one each time: engines are
 * few. */
static size_t pick_bounded(const struct sim_view *view)
{
    double sum = 1;
    double up = 0;
    for (size_t i = 0; i < view->engine_count; i++) {
        if (route_endpoint_is_up(view->fleet, i)) {
            sum += in_flight(view, i);
            up++;
        }
    }
    double limit = ceil(1.25 * sum / up);
    size_t best = 0;
    uint64_t nearest = UINT64_MAX;
    for (size_t i = 0; i < view->engine_count; i++) {
        if (!route_endpoint_is_up(view->fleet, i) || in_flight(view, i) + 1 > limit) {
            continue;
        }
        for (uint64_t point = 0; point < RING_POINTS; point++) {
            uint64_t distance = sim_mix(i * RING_POINTS + point + 1) - view->prefix_hash;
            if (distance < nearest) {
                nearest = distance;
                best = i;
            }
        }
    }
    return best;
}

const struct sim_policy sim_policies[] = {
    {.name = "ours",
     .about = "prefixaware of src/route with what the trie knows",
     .knows = SIM_KNOWS_TRIE,
     .route = ROUTE_PREFIXAWARE},
    {.name = "oracle",
     .about = "the same rule with exact knowledge of every cache",
     .knows = SIM_KNOWS_CACHES,
     .route = ROUTE_PREFIXAWARE},
    {.name = "random", .about = "any engine", .pick = pick_random},
    {.name = "roundrobin", .about = "src/route", .route = ROUTE_ROUNDROBIN},
    {.name = "leastload", .about = "src/route: fewest in flight", .route = ROUTE_LEASTLOAD},
    {.name = "session", .about = "src/route: ring of session ids", .route = ROUTE_SESSION},
    {.name = "bounded",
     .about = "consistent hash of the first 128 bytes, load at most 1.25 of the mean",
     .pick = pick_bounded},
    {.name = "python",
     .about = "production-stack's prefixaware: any of those with the longest match",
     .knows = SIM_KNOWS_AGELESS,
     .pick = pick_longest},
    {.name = "thresholds",
     .about = "longest match above 0.3, else or if loads differ by 64 and 1.5 times least load",
     .knows = SIM_KNOWS_TRIE,
     .pick = pick_thresholds},
    {.name = "scorer",
     .about = "weights queue 2, KV use 2, prefix 3",
     .knows = SIM_KNOWS_TRIE,
     .pick = pick_scorer},
    {.name = "active",
     .about = "least prefill (queued, uncached) + active tokens",
     .knows = SIM_KNOWS_TRIE,
     .pick = pick_active},
    {.name = "product",
     .about = "least (queued + uncached) x (in flight + 1)",
     .knows = SIM_KNOWS_TRIE,
     .pick = pick_product},
};

const size_t sim_policy_count = sizeof sim_policies / sizeof sim_policies[0];

const struct sim_policy *sim_policy_find(const char *name, size_t size)
{
    for (size_t i = 0; i < sim_policy_count; i++) {
        if (strlen(sim_policies[i].name) == size && memcmp(sim_policies[i].name, name, size) == 0) {
            return &sim_policies[i];
        }
    }
    return NULL;
}
