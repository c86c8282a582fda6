#include "proxy/admit.h"

#include "base/check.h"
#include "base/clock.h"

enum { LANES_FIRST = 8, INTERVAL_WEIGHT = 8 }; /* The newest interval counts an eighth. */

void admit_init(struct admit *admit, const struct admit_limits *limits, uint64_t seed)
{
    *admit = (struct admit){.limits = *limits};
    mem_init(&admit->mem, SIZE_MAX);
    counts_init(&admit->clients, &admit->mem, seed);
    list_init(&admit->lanes_waiting);
}

void admit_fini(struct admit *admit)
{
    REQUIRE(admit->waiting == 0);
    for (size_t i = 0; i < admit->lane_count; i++) {
        mem_free(&admit->mem, admit->lanes[i], sizeof **admit->lanes);
    }
    mem_free(&admit->mem, admit->lanes, admit->lane_count * sizeof(struct admit_lane *));
    counts_fini(&admit->clients);
    mem_fini(&admit->mem);
}

static struct admit_lane *lane_of(const struct admit *admit, size_t model)
{
    return model < admit->lane_count ? admit->lanes[model] : NULL;
}

static bool lanes_grow(struct admit *admit, size_t model)
{
    size_t old = admit->lane_count;
    size_t count = old == 0 ? LANES_FIRST : old;
    while (count <= model) {
        count *= 2;
    }
    struct admit_lane **lanes =
        mem_realloc(&admit->mem, admit->lanes, old * sizeof(struct admit_lane *),
                    count * sizeof(struct admit_lane *));
    if (lanes == NULL) {
        return false;
    }
    for (size_t i = old; i < count; i++) {
        lanes[i] = NULL;
    }
    admit->lanes = lanes;
    admit->lane_count = count;
    return true;
}

/* NULL: no memory. */
static struct admit_lane *lane_make(struct admit *admit, size_t model)
{
    if (model >= admit->lane_count && !lanes_grow(admit, model)) {
        return NULL;
    }
    struct admit_lane *lane = admit->lanes[model];
    if (lane == NULL) {
        lane = mem_alloc_zero(&admit->mem, sizeof *lane);
        if (lane == NULL) {
            return NULL;
        }
        list_init(&lane->link);
        list_init(&lane->tried);
        for (int rank = 0; rank < ADMIT_RANK_COUNT; rank++) {
            list_init(&lane->ranks[rank]);
        }
        admit->lanes[model] = lane;
    }
    return lane;
}

bool admit_is_waited_for(const struct admit *admit, size_t model)
{
    const struct admit_lane *lane = lane_of(admit, model);
    return lane != NULL && lane->count > 0;
}

enum admit_verdict admit_join(struct admit *admit, struct admit_ticket *ticket, uint64_t now_ns)
{
    REQUIRE(!ticket->waiting && ticket->rank < ADMIT_RANK_COUNT);
    if (admit->waiting >= admit->limits.waiting_max) {
        return ADMIT_QUEUE_FULL;
    }
    struct admit_lane *lane = lane_make(admit, ticket->model);
    if (lane == NULL) {
        return ADMIT_QUEUE_FULL;
    }
    if (!counts_add(&admit->clients, ticket->client, admit->limits.waiting_of_client_max)) {
        return ADMIT_CLIENT_FULL;
    }
    list_push_back(ticket->tried_before ? &lane->tried : &lane->ranks[ticket->rank], &ticket->link);
    ticket->waiting = true;
    if (lane->count == 0) {
        list_push_back(&admit->lanes_waiting, &lane->link);
    }
    if (admit->waiting == 0) {
        admit->granted_ns = now_ns;
    }
    lane->count++;
    admit->waiting++;
    return ADMIT_WAITS;
}

void admit_leave(struct admit *admit, struct admit_ticket *ticket)
{
    REQUIRE(ticket->waiting);
    struct admit_lane *lane = lane_of(admit, ticket->model);
    CHECK(lane != NULL && lane->count > 0 && admit->waiting > 0);
    list_remove(&ticket->link);
    ticket->waiting = false;
    counts_drop(&admit->clients, ticket->client);
    admit->waiting--;
    lane->count--;
    if (lane->count == 0) {
        list_remove(&lane->link);
    }
}

/* ---- Granting ---- */

/* Those that could not go to this place are looked at last for the next one. */
static struct admit_ticket *try_again(struct admit_lane *lane, admit_try *try, void *user)
{
    for (int i = 0; i < ADMIT_RETRIES_LOOKED_AT && !list_empty(&lane->tried); i++) {
        struct admit_ticket *ticket = LIST_ITEM(lane->tried.next, struct admit_ticket, link);
        if (try(user, ticket)) {
            return ticket;
        }
        list_remove(&ticket->link);
        list_push_back(&lane->tried, &ticket->link);
    }
    return NULL;
}

/* ADMIT_RANK_COUNT: nobody waits in any. */
static int rank_next(const struct admit_lane *lane)
{
    int next = ADMIT_RANK_COUNT;
    for (int rank = ADMIT_RANK_COUNT - 1; rank >= 0; rank--) {
        if (list_empty(&lane->ranks[rank])) {
            continue;
        }
        if (lane->passed_over[rank] >= ADMIT_PASSED_OVER_MAX) {
            return rank;
        }
        next = rank;
    }
    return next;
}

static void note_passed_over(struct admit_lane *lane, int taken)
{
    lane->passed_over[taken] = 0;
    for (int rank = taken + 1; rank < ADMIT_RANK_COUNT; rank++) {
        lane->passed_over[rank] = list_empty(&lane->ranks[rank]) ? 0 : lane->passed_over[rank] + 1;
    }
}

static struct admit_ticket *try_lane(struct admit_lane *lane, admit_try *try, void *user)
{
    struct admit_ticket *ticket = try_again(lane, try, user);
    if (ticket != NULL) {
        return ticket;
    }
    int rank = rank_next(lane);
    if (rank == ADMIT_RANK_COUNT) {
        return NULL;
    }
    ticket = LIST_ITEM(lane->ranks[rank].next, struct admit_ticket, link);
    if (!try(user, ticket)) {
        return NULL;
    }
    note_passed_over(lane, rank);
    return ticket;
}

static void note_grant(struct admit *admit, uint64_t now_ns)
{
    uint64_t interval_ns = now_ns > admit->granted_ns ? now_ns - admit->granted_ns : 1;
    admit->interval_ns =
        admit->interval_ns == 0
            ? interval_ns
            : (admit->interval_ns * (INTERVAL_WEIGHT - 1) + interval_ns) / INTERVAL_WEIGHT;
    admit->granted_ns = now_ns;
}

struct admit_ticket *admit_grant(struct admit *admit, admit_try *try, void *user, uint64_t now_ns)
{
    list_foreach_safe (link, &admit->lanes_waiting) {
        struct admit_lane *lane = LIST_ITEM(link, struct admit_lane, link);
        struct admit_ticket *ticket = try_lane(lane, try, user);
        if (ticket != NULL) {
            list_remove(&lane->link);
            list_push_back(&admit->lanes_waiting, &lane->link);
            admit_leave(admit, ticket);
            note_grant(admit, now_ns);
            return ticket;
        }
    }
    return NULL;
}

unsigned admit_retry_after_s(const struct admit *admit, uint64_t now_ns)
{
    uint64_t interval_ns = admit->interval_ns;
    if (admit->waiting > 0 && now_ns > admit->granted_ns &&
        now_ns - admit->granted_ns > interval_ns) {
        interval_ns = now_ns - admit->granted_ns; /* It has become slower than that. */
    }
    double seconds = (double)interval_ns * (double)(admit->waiting + 1) / (double)CLOCK_NS_PER_S;
    if (seconds >= ADMIT_RETRY_AFTER_MAX_S) {
        return ADMIT_RETRY_AFTER_MAX_S;
    }
    return seconds <= 1 ? 1 : (unsigned)seconds + 1;
}
