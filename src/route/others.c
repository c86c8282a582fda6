/* Policies that look at requests in flight alone, or weigh them against the share held. */
#include "route/fleet.h"

static uint32_t in_flight(const struct route_fleet *fleet, size_t endpoint)
{
    return fleet->endpoints[endpoint].load.in_flight;
}

bool pick_leastload(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                    struct route_choice *out)
{
    const struct route_numbers *those = &fleet->models[query->model].endpoints;
    size_t best = 0;
    uint32_t ties = 0;
    for (size_t i = 0; i < those->count; i++) {
        size_t endpoint = those->numbers[i];
        if ((ties > 0 && in_flight(fleet, endpoint) > in_flight(fleet, best)) ||
            !fleet_is_candidate(fleet, query, endpoint, desperate)) {
            continue;
        }
        ties = ties > 0 && in_flight(fleet, endpoint) == in_flight(fleet, best) ? ties + 1 : 1;
        if (ties == 1 || random_below(&fleet->random, ties) == 0) {
            best = endpoint;
        }
    }
    if (ties > 0) {
        query_choose(query, best, ROUTE_BY_LOAD, out);
    }
    return ties > 0;
}

bool pick_priority(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                   struct route_choice *out)
{
    return query->urgent ? pick_leastload(fleet, query, desperate, out)
                         : pick_roundrobin(fleet, query, desperate, out);
}

static double mean_in_flight(const struct route_fleet *fleet, const struct route_query *query,
                             bool desperate)
{
    const struct route_numbers *those = &fleet->models[query->model].endpoints;
    uint64_t sum = 0;
    uint64_t count = 0;
    for (size_t i = 0; i < those->count; i++) {
        if (fleet_is_candidate(fleet, query, those->numbers[i], desperate)) {
            sum += in_flight(fleet, those->numbers[i]);
            count++;
        }
    }
    return count == 0 ? 0 : (double)sum / (double)count;
}

/* The Python router's formula; of equal scores the endpoint added first. */
bool pick_loadaware(struct route_fleet *fleet, const struct route_query *query, bool desperate,
                    struct route_choice *out)
{
    const struct route_numbers *those = &fleet->models[query->model].endpoints;
    double mean = mean_in_flight(fleet, query, desperate);
    double best_score = 0;
    size_t best = SIZE_MAX;
    bool held = false;
    for (size_t i = 0; i < those->count; i++) {
        size_t endpoint = those->numbers[i];
        if (!fleet_is_candidate(fleet, query, endpoint, desperate)) {
            continue;
        }
        uint64_t bytes = query_held_by(query, endpoint);
        held = held || bytes > 0;
        double share = query->prompt_bytes == 0 ? 0 : (double)bytes / (double)query->prompt_bytes;
        double score = (share < 1 ? share : 1) - query->beta *
                                                     ((double)in_flight(fleet, endpoint) - mean) /
                                                     (mean > 1 ? mean : 1);
        if (best == SIZE_MAX || score > best_score) {
            best = endpoint;
            best_score = score;
        }
    }
    if (!held) {
        return pick_leastload(fleet, query, desperate, out);
    }
    query_choose(query, best, query_held_by(query, best) > 0 ? ROUTE_HOLDER : ROUTE_SPREAD, out);
    return true;
}
