/*
 * What an answer tells of itself while it passes: when the events of a stream come, and the usage
 * at its end. Costs an event some 50 instructions; keeps no more of the answer than
 * METER_TAIL_BYTES.
 */
#ifndef HASHTRIE_PROXY_METER_H
#define HASHTRIE_PROXY_METER_H

#include "base/buf.h"
#include "proxy/stats.h"
#include "proxy/usage.h"

enum { METER_TAIL_BYTES = USAGE_BYTES_MAX, METER_END_BYTES = 4 };

struct meter {
    struct stats_series *series; /* Borrowed; NULL: nothing is counted. */
    uint64_t first_ns;           /* Of a stream: when its first event went on; 0: none did. */
    uint64_t last_ns;
    uint32_t event_count; /* Ended in this turn, ... */
    uint32_t gap_count;   /* ... and pauses between events so far. */
    struct usage usage;
    bool has_usage;
    char end[METER_END_BYTES]; /* Last bytes of a stream's body. */
    struct span rest;          /* Of any other answer: what came of its body in this turn, ... */
    struct buf tail;           /* ... and what it ended with before. */
};

void meter_init(struct meter *meter, struct mem *mem);
void meter_fini(struct meter *meter); /* Also between two answers: memory is given back. */
void meter_begin(struct meter *meter, struct stats_series *series);

/* Bytes of a stream of events: as the engine cut them, which is at the end of events. */
void meter_event(struct meter *meter, struct span body);
/* Bytes of any other answer, valid until the turn's end. */
void meter_rest(struct meter *meter, struct span body);
/* What came of it in this turn has gone on. `begin_ns`: of the request. */
void meter_passed(struct meter *meter, uint64_t begin_ns, uint64_t now_ns);
/* The end of a turn, for answers that are no stream; `complete`: and of the answer. */
void meter_turn(struct meter *meter, bool complete);
/* The answer has ended as it should: counts its tokens. `held_share`: of its prompt, what the
 * chosen engine was thought to hold. */
void meter_count(struct meter *meter, double held_share);

/* Behind an empty line, which ends an event. */
static inline bool meter_between_events(const struct meter *meter)
{
    const char *end = meter->end;
    return end[3] == '\n' && (end[2] == '\n' || (end[2] == '\r' && end[1] == '\n'));
}

#endif
