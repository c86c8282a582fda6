/*
 * Who may go on to an engine, and who waits for a turn.
 *
 *     lane (one a model) -> those tried before  \
 *                        -> urgent               > first in, first out each
 *                        -> ordinary            /
 *                        -> background
 *
 * A freed place goes to the lanes in turn. In a lane those whose engine failed go first: they have
 * waited longest. Then the most urgent rank goes first, save that a rank which was passed over
 * ADMIT_PASSED_OVER_MAX times has its turn. One client has only a share of the queue.
 *
 * Every step is O(1), but for the lanes that are looked at before one has a place to go to. Pure:
 * time is passed in. The trie's lock covers it, as it does the fleet.
 */
#ifndef HASHTRIE_PROXY_ADMIT_H
#define HASHTRIE_PROXY_ADMIT_H

#include "base/list.h"
#include "proxy/counts.h"

enum admit_rank { ADMIT_URGENT, ADMIT_ORDINARY, ADMIT_BACKGROUND, ADMIT_RANK_COUNT };

enum {
    ADMIT_PASSED_OVER_MAX = 8,
    ADMIT_RETRIES_LOOKED_AT = 8, /* Of those tried before, for each place: some may not go there. */
    ADMIT_RETRY_AFTER_MAX_S = 60,
};

enum admit_verdict { ADMIT_WAITS, ADMIT_QUEUE_FULL, ADMIT_CLIENT_FULL };

struct admit_limits {
    uint64_t running_max; /* Requests at engines. */
    uint64_t waiting_max;
    uint64_t waiting_of_client_max;
};

/* One that may wait; embedded in what waits. */
struct admit_ticket {
    struct list link; /* In its lane; the owner's once it was granted. */
    size_t model;
    enum admit_rank rank;
    bool tried_before;
    uint64_t client;
    bool waiting;
};

struct admit_lane {
    struct list link; /* In admit->lanes_waiting, while somebody waits. */
    struct list tried;
    struct list ranks[ADMIT_RANK_COUNT];
    unsigned passed_over[ADMIT_RANK_COUNT];
    size_t count;
};

struct admit {
    struct admit_limits limits;
    struct mem mem;
    struct admit_lane **lanes; /* Owned, each too; by model, made when first waited for. */
    size_t lane_count;
    struct list lanes_waiting;
    struct counts clients; /* Waiting tickets by client. */
    uint64_t running;
    uint64_t waiting;
    uint64_t granted_ns;  /* When a ticket was last granted, or the queue began. */
    uint64_t interval_ns; /* Between grants, smoothed; 0: none has been. */
};

void admit_init(struct admit *admit, const struct admit_limits *limits, uint64_t seed);
void admit_fini(struct admit *admit); /* Nobody waits. */

/* May one more run, as far as the limit of all goes? */
static inline bool admit_has_room(const struct admit *admit)
{
    return admit->running < admit->limits.running_max;
}

/* Do others wait that a newcomer for `model` must not overtake? */
bool admit_is_waited_for(const struct admit *admit, size_t model);
/* `ticket` has its model, rank, client and tried_before. No memory is a full queue. */
enum admit_verdict admit_join(struct admit *admit, struct admit_ticket *ticket, uint64_t now_ns);
/* It waits no longer: its client has left, or its time is up. */
void admit_leave(struct admit *admit, struct admit_ticket *ticket);

/* Takes a place if there is one for this ticket. Must fail alike for all of a model that were not
 * tried before. */
typedef bool admit_try(void *user, struct admit_ticket *ticket);
/* A place may be free: the next whose `try` takes it leaves the queue and is returned; NULL: nobody
 * could. */
struct admit_ticket *admit_grant(struct admit *admit, admit_try *try, void *user, uint64_t now_ns);

/* When one that is refused may come back: the time that those who wait need at the rate of late,
 * 1 to ADMIT_RETRY_AFTER_MAX_S. */
unsigned admit_retry_after_s(const struct admit *admit, uint64_t now_ns);

#endif
