/* Endpoints, models and load. */
#include "route/fleet.h"

#include <string.h>

enum {
    CAPACITY_FIRST = 8,
    IN_FLIGHT_BYTES = ROUTE_IN_FLIGHT_TOKENS * ROUTE_BYTES_PER_TOKEN,
};

/* Weight of the newest sample of the prefill rate. */
static const double rate_weight = 0.2;

struct route_fleet *route_fleet_new(struct mem *mem, uint64_t seed)
{
    struct route_fleet *fleet = mem_alloc(mem, sizeof *fleet);
    if (fleet == NULL) {
        return NULL;
    }
    *fleet = (struct route_fleet){.mem = mem,
                                  .random = {.state = seed},
                                  .in_flight_max = UINT32_MAX,
                                  .next_change_ns = UINT64_MAX};
    atomic_init(&fleet->model_count, 0);
    fleet->models = mem_alloc_zero(mem, ROUTE_MODELS_MAX * sizeof *fleet->models);
    if (fleet->models == NULL) {
        mem_free(mem, fleet, sizeof *fleet);
        return NULL;
    }
    return fleet;
}

static void numbers_free(struct mem *mem, struct route_numbers *list)
{
    mem_free(mem, list->numbers, list->capacity * sizeof *list->numbers);
}

void route_fleet_free(struct route_fleet *fleet)
{
    if (fleet == NULL) {
        return;
    }
    struct mem *mem = fleet->mem;
    ring_free(mem, &fleet->ring);
    for (size_t i = 0; i < fleet->endpoint_count; i++) {
        numbers_free(mem, &fleet->endpoints[i].models);
    }
    for (size_t i = 0; i < fleet->model_count; i++) {
        struct route_model *model = &fleet->models[i];
        numbers_free(mem, &model->endpoints);
        mem_free_text(mem, model->name);
    }
    mem_free(mem, fleet->endpoints, fleet->endpoint_capacity * sizeof *fleet->endpoints);
    mem_free(mem, fleet->load_cost, fleet->endpoint_capacity * sizeof *fleet->load_cost);
    mem_free(mem, fleet->models, ROUTE_MODELS_MAX * sizeof *fleet->models);
    mem_free(mem, fleet, sizeof *fleet);
}

static size_t next_capacity(size_t capacity)
{
    return capacity == 0 ? CAPACITY_FIRST : capacity * 2;
}

static bool endpoints_grow(struct route_fleet *fleet)
{
    size_t old = fleet->endpoint_capacity;
    size_t capacity = next_capacity(old);
    struct route_endpoint *endpoints = mem_alloc(fleet->mem, capacity * sizeof *endpoints);
    uint64_t *load_cost = mem_alloc(fleet->mem, capacity * sizeof *load_cost);
    if (endpoints == NULL || load_cost == NULL) {
        mem_free(fleet->mem, endpoints, capacity * sizeof *endpoints);
        mem_free(fleet->mem, load_cost, capacity * sizeof *load_cost);
        return false;
    }
    if (old > 0) {
        memcpy(endpoints, fleet->endpoints, old * sizeof *endpoints);
        memcpy(load_cost, fleet->load_cost, old * sizeof *load_cost);
    }
    mem_free(fleet->mem, fleet->endpoints, old * sizeof *endpoints);
    mem_free(fleet->mem, fleet->load_cost, old * sizeof *load_cost);
    fleet->endpoints = endpoints;
    fleet->load_cost = load_cost;
    fleet->endpoint_capacity = capacity;
    return true;
}

uint64_t fleet_load(const struct route_fleet *fleet, size_t endpoint)
{
    const struct route_load *load = &fleet->endpoints[endpoint].load;
    return load->queued_bytes + load->active_bytes / ROUTE_ACTIVE_PARTS +
           (uint64_t)load->in_flight * IN_FLIGHT_BYTES;
}

static void update_load_cost(struct route_fleet *fleet, size_t endpoint)
{
    bool open = fleet_is_open(fleet, endpoint) && fleet_has_room(fleet, endpoint);
    uint32_t warmth = fleet->endpoints[endpoint].warmth;
    fleet->load_cost[endpoint] =
        open ? fleet_load(fleet, endpoint) * ROUTE_WARM_STEPS / warmth : FLEET_DOWN;
}

/* SIZE_MAX: none, and no room for another. */
static size_t free_number(struct route_fleet *fleet)
{
    for (size_t i = 0; i < fleet->endpoint_count && fleet->free_count > 0; i++) {
        if (!fleet->endpoints[i].used) {
            fleet->free_count--;
            return i;
        }
    }
    if (fleet->endpoint_count == ROUTE_ENDPOINTS_MAX ||
        (fleet->endpoint_count == fleet->endpoint_capacity && !endpoints_grow(fleet))) {
        return SIZE_MAX;
    }
    return fleet->endpoint_count++;
}

/* Where a new one begins: nobody is preferred for having come late. */
static uint64_t mean_sent(const struct route_fleet *fleet)
{
    size_t count = fleet->endpoint_count - fleet->free_count;
    return count == 0 ? 0 : fleet->sent_bytes / count;
}

int route_endpoint_add(struct route_fleet *fleet)
{
    uint64_t sent_bytes = mean_sent(fleet);
    size_t number = free_number(fleet);
    if (number == SIZE_MAX) {
        return -1;
    }
    fleet->sent_bytes += sent_bytes;
    fleet->endpoints[number] = (struct route_endpoint){.used = true,
                                                       .up = true,
                                                       .roles = ROUTE_ROLES_ALL,
                                                       .warmth = ROUTE_WARM_STEPS,
                                                       .sent_bytes = sent_bytes};
    update_load_cost(fleet, number);
    return (int)number;
}

void route_endpoint_free(struct route_fleet *fleet, size_t endpoint)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    struct route_endpoint *at = &fleet->endpoints[endpoint];
    REQUIRE(at->used && at->load.in_flight == 0);
    while (at->models.count > 0) {
        route_endpoint_serves_not(fleet, endpoint, at->models.numbers[0]);
    }
    numbers_free(fleet->mem, &at->models);
    fleet->sent_bytes -= at->sent_bytes;
    *at = (struct route_endpoint){0};
    fleet->load_cost[endpoint] = FLEET_DOWN;
    fleet->free_count++;
}

static int model_add(struct route_fleet *fleet, const char *name, size_t name_size)
{
    size_t number = fleet->model_count;
    char *copy = number == ROUTE_MODELS_MAX ? NULL : mem_strndup(fleet->mem, name, name_size);
    if (copy == NULL) {
        return -1;
    }
    fleet->models[number].name = copy;
    atomic_store_explicit(&fleet->model_count, number + 1, memory_order_release);
    return (int)number;
}

bool route_model_know(struct route_fleet *fleet, const char *name, size_t name_size)
{
    return route_model_find(fleet, name, name_size) >= 0 || model_add(fleet, name, name_size) >= 0;
}

static bool push(struct mem *mem, struct route_numbers *list, uint32_t number)
{
    if (list->count == list->capacity) {
        size_t capacity = next_capacity(list->capacity);
        uint32_t *numbers = mem_realloc(mem, list->numbers, list->capacity * sizeof *numbers,
                                        capacity * sizeof *numbers);
        if (numbers == NULL) {
            return false;
        }
        list->numbers = numbers;
        list->capacity = capacity;
    }
    list->numbers[list->count++] = number;
    return true;
}

/* Keeps the order of the others. */
static void pull(struct route_numbers *list, size_t number)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (list->numbers[i] != number) {
            list->numbers[kept++] = list->numbers[i];
        }
    }
    list->count = kept;
}

bool fleet_serves(const struct route_fleet *fleet, size_t endpoint, size_t model)
{
    if (endpoint >= fleet->endpoint_count) {
        return false;
    }
    const struct route_numbers *models = &fleet->endpoints[endpoint].models;
    for (size_t i = 0; i < models->count; i++) {
        if (models->numbers[i] == model) {
            return true;
        }
    }
    return false;
}

bool route_endpoint_serves(struct route_fleet *fleet, size_t endpoint, const char *model)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    int number = route_model_find(fleet, model, strlen(model));
    number = number < 0 ? model_add(fleet, model, strlen(model)) : number;
    if (number < 0) {
        return false;
    }
    if (fleet_serves(fleet, endpoint, (size_t)number)) {
        return true;
    }
    struct route_numbers *served = &fleet->endpoints[endpoint].models;
    if (!push(fleet->mem, served, (uint32_t)number)) {
        return false;
    }
    if (!push(fleet->mem, &fleet->models[number].endpoints, (uint32_t)endpoint)) {
        served->count--;
        return false;
    }
    atomic_store_explicit(&fleet->models[number].served, true, memory_order_relaxed);
    return true;
}

void route_endpoint_serves_not(struct route_fleet *fleet, size_t endpoint, size_t model)
{
    REQUIRE(endpoint < fleet->endpoint_count && model < fleet->model_count);
    struct route_model *at = &fleet->models[model];
    pull(&fleet->endpoints[endpoint].models, model);
    pull(&at->endpoints, endpoint);
    atomic_store_explicit(&at->served, at->endpoints.count > 0, memory_order_relaxed);
}

int route_endpoint_model(const struct route_fleet *fleet, size_t endpoint, size_t i)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    const struct route_numbers *models = &fleet->endpoints[endpoint].models;
    return i < models->count ? (int)models->numbers[i] : -1;
}

void route_endpoint_set_up(struct route_fleet *fleet, size_t endpoint, bool up)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    fleet->endpoints[endpoint].up = up;
    update_load_cost(fleet, endpoint);
}

void route_endpoint_set_roles(struct route_fleet *fleet, size_t endpoint, unsigned roles)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    fleet->endpoints[endpoint].roles = roles;
}

bool route_endpoint_is_up(const struct route_fleet *fleet, size_t endpoint)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    return fleet->endpoints[endpoint].up;
}

void route_endpoint_set_asleep(struct route_fleet *fleet, size_t endpoint, bool asleep)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    fleet->endpoints[endpoint].asleep = asleep;
    update_load_cost(fleet, endpoint);
}

bool route_endpoint_is_asleep(const struct route_fleet *fleet, size_t endpoint)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    return fleet->endpoints[endpoint].asleep;
}

void route_fleet_set_limit(struct route_fleet *fleet, uint32_t in_flight_max)
{
    fleet->in_flight_max = in_flight_max == 0 ? UINT32_MAX : in_flight_max;
    for (size_t i = 0; i < fleet->endpoint_count; i++) {
        update_load_cost(fleet, i);
    }
}

bool route_serves(const struct route_fleet *fleet, size_t endpoint, size_t model)
{
    return fleet_serves(fleet, endpoint, model);
}

static void note_change(struct route_fleet *fleet, uint64_t at_ns)
{
    fleet->next_change_ns = at_ns < fleet->next_change_ns ? at_ns : fleet->next_change_ns;
}

/* ---- Ejection ---- */

void route_fleet_set_ejection(struct route_fleet *fleet, uint32_t failures, uint64_t pause_ns)
{
    REQUIRE(failures == 0 || pause_ns > 0);
    fleet->eject_failures = failures;
    fleet->eject_pause_ns = pause_ns;
}

uint64_t route_endpoint_failed(struct route_fleet *fleet, size_t endpoint, uint64_t now_ns)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    struct route_endpoint *at = &fleet->endpoints[endpoint];
    at->failure_count += at->failure_count < UINT32_MAX ? 1 : 0;
    if (fleet->eject_failures == 0 || at->failure_count < fleet->eject_failures ||
        at->state == FLEET_EJECTED) {
        return 0;
    }
    uint64_t pause_ns = fleet->eject_pause_ns << at->ejection_count;
    at->ejection_count += at->ejection_count < ROUTE_EJECTION_DOUBLINGS ? 1 : 0;
    at->state = FLEET_EJECTED;
    at->retry_ns = now_ns + pause_ns;
    note_change(fleet, at->retry_ns);
    update_load_cost(fleet, endpoint);
    return pause_ns;
}

bool route_endpoint_answered(struct route_fleet *fleet, size_t endpoint)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    struct route_endpoint *at = &fleet->endpoints[endpoint];
    at->failure_count = 0;
    if (at->state == FLEET_FINE) {
        return false;
    }
    at->state = FLEET_FINE;
    at->ejection_count = 0;
    update_load_cost(fleet, endpoint);
    return true;
}

bool route_endpoint_is_ejected(const struct route_fleet *fleet, size_t endpoint)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    return fleet->endpoints[endpoint].state != FLEET_FINE;
}

/* ---- Slow start ---- */

void route_fleet_set_slow_start(struct route_fleet *fleet, uint64_t slow_start_ns)
{
    fleet->slow_start_ns = slow_start_ns;
}

void route_endpoint_warm_up(struct route_fleet *fleet, size_t endpoint, uint64_t now_ns)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    struct route_endpoint *at = &fleet->endpoints[endpoint];
    if (fleet->slow_start_ns == 0) {
        return;
    }
    at->warmth = 1;
    at->warmer_ns = now_ns + fleet->slow_start_ns / ROUTE_WARM_STEPS;
    note_change(fleet, at->warmer_ns);
    update_load_cost(fleet, endpoint);
}

static void grow_warmer(struct route_fleet *fleet, size_t endpoint, uint64_t now_ns)
{
    struct route_endpoint *at = &fleet->endpoints[endpoint];
    uint64_t step_ns = fleet->slow_start_ns / ROUTE_WARM_STEPS;
    if (at->warmer_ns <= now_ns) {
        uint64_t steps = 1 + (now_ns - at->warmer_ns) / (step_ns + 1);
        uint64_t warmth = at->warmth + steps;
        at->warmth = warmth < ROUTE_WARM_STEPS ? (uint32_t)warmth : ROUTE_WARM_STEPS;
        at->warmer_ns += steps * step_ns;
        update_load_cost(fleet, endpoint);
    }
    if (at->warmth < ROUTE_WARM_STEPS) {
        note_change(fleet, at->warmer_ns);
    }
}

void fleet_catch_up(struct route_fleet *fleet, uint64_t now_ns)
{
    fleet->next_change_ns = UINT64_MAX;
    for (size_t i = 0; i < fleet->endpoint_count; i++) {
        struct route_endpoint *at = &fleet->endpoints[i];
        if (at->state == FLEET_EJECTED && at->retry_ns <= now_ns) {
            at->state = FLEET_HALF_OPEN;
            update_load_cost(fleet, i);
        } else if (at->state == FLEET_EJECTED) {
            note_change(fleet, at->retry_ns);
        }
        if (at->used && at->warmth < ROUTE_WARM_STEPS) {
            grow_warmer(fleet, i, now_ns);
        }
    }
}

/* ---- Models: without the lock ---- */

size_t route_model_count(const struct route_fleet *fleet)
{
    return atomic_load_explicit(&fleet->model_count, memory_order_acquire);
}

const char *route_model_name(const struct route_fleet *fleet, size_t model)
{
    REQUIRE(model < route_model_count(fleet));
    return fleet->models[model].name;
}

int route_model_find(const struct route_fleet *fleet, const char *name, size_t name_size)
{
    size_t count = route_model_count(fleet);
    for (size_t i = 0; i < count; i++) {
        const char *known = fleet->models[i].name;
        if (strlen(known) == name_size && memcmp(known, name, name_size) == 0) {
            return (int)i;
        }
    }
    return -1;
}

bool route_model_is_served(const struct route_fleet *fleet, size_t model)
{
    REQUIRE(model < route_model_count(fleet));
    return atomic_load_explicit(&fleet->models[model].served, memory_order_relaxed);
}

/* ---- Load ---- */

void route_request_sent(struct route_fleet *fleet, size_t endpoint, uint64_t uncached_bytes,
                        uint64_t prompt_bytes)
{
    struct route_endpoint *at = &fleet->endpoints[endpoint];
    struct route_load *load = &at->load;
    at->state = at->state == FLEET_HALF_OPEN ? FLEET_PROBED : at->state;
    at->sent_bytes += uncached_bytes;
    fleet->sent_bytes += uncached_bytes;
    load->queued_bytes += uncached_bytes;
    load->active_bytes += prompt_bytes;
    load->in_flight++;
    load->in_prefill++;
    update_load_cost(fleet, endpoint);
}

void route_request_prefilled(struct route_fleet *fleet, size_t endpoint, uint64_t uncached_bytes)
{
    struct route_load *load = &fleet->endpoints[endpoint].load;
    CHECK(load->queued_bytes >= uncached_bytes && load->in_prefill > 0);
    load->queued_bytes -= uncached_bytes;
    load->in_prefill--;
    update_load_cost(fleet, endpoint);
}

void route_request_ended(struct route_fleet *fleet, size_t endpoint, uint64_t prompt_bytes)
{
    struct route_endpoint *at = &fleet->endpoints[endpoint];
    CHECK(at->load.in_flight > at->load.in_prefill); /* Prefilled comes before ended. */
    CHECK(at->load.active_bytes >= prompt_bytes);
    at->load.active_bytes -= prompt_bytes;
    at->load.in_flight--;
    at->state = at->state == FLEET_PROBED ? FLEET_HALF_OPEN : at->state; /* Without a verdict. */
    update_load_cost(fleet, endpoint);
}

void route_learn_prefill(struct route_fleet *fleet, size_t endpoint, uint64_t queued_bytes,
                         uint64_t elapsed_ns)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    if (queued_bytes == 0) {
        return;
    }
    double *rate = &fleet->endpoints[endpoint].ns_per_byte;
    double sample = (double)elapsed_ns / (double)queued_bytes;
    *rate = *rate == 0 ? sample : *rate + rate_weight * (sample - *rate);
}

uint64_t route_prefill_ns(const struct route_fleet *fleet, size_t endpoint)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    const struct route_endpoint *at = &fleet->endpoints[endpoint];
    return (uint64_t)(at->ns_per_byte * (double)at->load.queued_bytes);
}

struct route_load route_endpoint_load(const struct route_fleet *fleet, size_t endpoint)
{
    REQUIRE(endpoint < fleet->endpoint_count);
    return fleet->endpoints[endpoint].load;
}
