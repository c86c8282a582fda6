/*
 * The world around a simulated router: virtual time, events, randomness from one seed, a trace.
 *
 * One world at a time (net.h's clocks have no context to find it by), one thread. An event belongs
 * to whoever embeds it; it runs while the router waits, never within one of its callbacks.
 */
#ifndef HASHTRIE_TESTS_SIM_WORLD_H
#define HASHTRIE_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/span.h"

#define SIM_NEVER    UINT64_MAX
#define SIM_BEGIN_NS (UINT64_C(1000) * CLOCK_NS_PER_S)

struct sim_event {
    struct list link; /* In its queue, by time; of the same time in the order of their planning. */
    uint64_t at_ns;
    void (*run)(void *user);
    void *user;
};

struct sim_world {
    struct random random; /* Of network and scripts. */
    struct random system; /* What the router takes for the kernel's generator. */
    uint64_t now_ns;
    struct list events;
    struct mem mem; /* Of all but the router. */
    bool tracing;
    uint64_t seed;
};

extern struct sim_world *sim_world; /* The one that is running. */

void sim_event_init(struct sim_event *event, void (*run)(void *user), void *user);
/* Replaces an earlier plan. */
void sim_event_plan(struct list *queue, struct sim_event *event, uint64_t at_ns);
void sim_event_after(struct sim_event *event, uint64_t delay_ns); /* In the world's queue. */
void sim_event_cancel(struct sim_event *event);
bool sim_event_is_planned(const struct sim_event *event);
uint64_t sim_queue_next_ns(const struct list *queue); /* SIM_NEVER: it is empty. */
void sim_world_run_due(void);                         /* All events up to now. */
void sim_world_run_one(void); /* The next event up to now, if there is one. */

uint32_t sim_below(uint32_t bound);                /* 0 .. bound - 1. */
bool sim_chance(uint32_t percent);                 /* True that often. */
uint64_t sim_between(uint64_t low, uint64_t high); /* Mostly near `low`: delays, sizes. */

void *sim_alloc(size_t size); /* Zeroed. */
void sim_free(void *pointer, size_t size);
void sim_append(struct buf *buf, const void *bytes, size_t size);
void sim_buf_init(struct buf *buf);
__attribute__((format(printf, 2, 3))) void sim_print(struct buf *buf, const char *format, ...);

__attribute__((format(printf, 1, 2))) void sim_trace(const char *format, ...);
/* An invariant does not hold: says so and ends the process. */
_Noreturn __attribute__((format(printf, 1, 2))) void sim_fail(const char *format, ...);

#endif
