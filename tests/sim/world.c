#include "sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/check.h"

struct sim_world *sim_world;

/* ---- Events ---- */

void sim_event_init(struct sim_event *event, void (*run)(void *user), void *user)
{
    *event = (struct sim_event){.run = run, .user = user};
    list_init(&event->link);
}

/* Most are planned near the end. */
void sim_event_plan(struct list *queue, struct sim_event *event, uint64_t at_ns)
{
    list_remove(&event->link);
    event->at_ns = at_ns;
    struct list *place = queue;
    while (place->prev != queue && LIST_ITEM(place->prev, struct sim_event, link)->at_ns > at_ns) {
        place = place->prev;
    }
    list_insert_before(place, &event->link);
}

void sim_event_after(struct sim_event *event, uint64_t delay_ns)
{
    sim_event_plan(&sim_world->events, event, sim_world->now_ns + delay_ns);
}

void sim_event_cancel(struct sim_event *event)
{
    list_remove(&event->link);
}

bool sim_event_is_planned(const struct sim_event *event)
{
    return !list_empty(&event->link);
}

uint64_t sim_queue_next_ns(const struct list *queue)
{
    return list_empty(queue) ? SIM_NEVER : LIST_ITEM(queue->next, struct sim_event, link)->at_ns;
}

void sim_world_run_one(void)
{
    if (sim_queue_next_ns(&sim_world->events) <= sim_world->now_ns) {
        struct sim_event *event = LIST_ITEM(sim_world->events.next, struct sim_event, link);
        list_remove(&event->link);
        event->run(event->user);
    }
}

void sim_world_run_due(void)
{
    while (sim_queue_next_ns(&sim_world->events) <= sim_world->now_ns) {
        sim_world_run_one();
    }
}

/* ---- Clocks and randomness that the router finds in place of the machine's ---- */

int clock_gettime(clockid_t id, struct timespec *out)
{
    static const uint64_t unix_begin_s = 1800000000;
    uint64_t now_ns = sim_world == NULL ? SIM_BEGIN_NS : sim_world->now_ns;
    now_ns += id == CLOCK_REALTIME ? unix_begin_s * CLOCK_NS_PER_S : 0;
    out->tv_sec = (time_t)(now_ns / CLOCK_NS_PER_S);
    out->tv_nsec = (long)(now_ns % CLOCK_NS_PER_S);
    return 0;
}

uint64_t random_system_seed(void)
{
    return random_next(&sim_world->system);
}

uint32_t sim_below(uint32_t bound)
{
    return random_below(&sim_world->random, bound);
}

bool sim_chance(uint32_t percent)
{
    return sim_below(100) < percent;
}

uint64_t sim_between(uint64_t low, uint64_t high)
{
    uint64_t range = (high - low) >> sim_below(12);
    return low + (range == 0 ? 0 : random_next(&sim_world->random) % range);
}

/* ---- Memory of the world ---- */

void *sim_alloc(size_t size)
{
    void *pointer = mem_alloc_zero(&sim_world->mem, size);
    CHECK(pointer != NULL);
    return pointer;
}

void sim_free(void *pointer, size_t size)
{
    mem_free(&sim_world->mem, pointer, size);
}

void sim_buf_init(struct buf *buf)
{
    buf_init(buf, &sim_world->mem, SIZE_MAX / 4);
}

void sim_append(struct buf *buf, const void *bytes, size_t size)
{
    CHECK(buf_append(buf, bytes, size));
}

void sim_print(struct buf *buf, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (size_t)size < sizeof text);
    sim_append(buf, text, (size_t)size);
}

/* ---- Trace ---- */

__attribute__((format(printf, 1, 0))) static void print_line(const char *format, va_list arguments)
{
    uint64_t ns = sim_world->now_ns - SIM_BEGIN_NS;
    (void)fprintf(stderr, "%5llu.%06llu  ", (unsigned long long)(ns / CLOCK_NS_PER_S),
                  (unsigned long long)(ns % CLOCK_NS_PER_S / CLOCK_NS_PER_US));
    (void)vfprintf(stderr, format, arguments);
    (void)fprintf(stderr, "\n");
}

void sim_trace(const char *format, ...)
{
    if (sim_world->tracing) {
        va_list arguments;
        va_start(arguments, format);
        print_line(format, arguments);
        va_end(arguments);
    }
}

void sim_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "seed %llu: ", (unsigned long long)sim_world->seed);
    print_line(format, arguments);
    va_end(arguments);
    abort();
}
