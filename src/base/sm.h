/*
 * State-machine helper: the current state and the table of legal moves.
 * `moves[state]` is a bit set of the states that may follow; sm_move() CHECKs it.
 */
#ifndef HASHTRIE_BASE_SM_H
#define HASHTRIE_BASE_SM_H

#include <stdint.h>

#include "base/check.h"

struct sm {
    const uint32_t *moves; /* Borrowed, static. */
    unsigned now;
};

#define SM_MAY(state) (UINT32_C(1) << (state))

static inline void sm_init(struct sm *sm, const uint32_t *moves, unsigned first)
{
    *sm = (struct sm){.moves = moves, .now = first};
}

static inline void sm_move(struct sm *sm, unsigned next)
{
    CHECK((sm->moves[sm->now] & SM_MAY(next)) != 0);
    sm->now = next;
}

/* What a step of a state machine returns to its ticker. */
enum step {
    STEP_NEXT,    /* The state may have moved: run again. */
    STEP_SUSPEND, /* Wait for a callback. */
    STEP_DONE,    /* Finished; the machine may be gone. */
};

#endif
