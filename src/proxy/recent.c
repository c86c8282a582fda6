#include "proxy/recent.h"

static void subtract(struct recent_sums *from, const struct recent_sums *sums)
{
    from->arrivals -= sums->arrivals;
    from->ended -= sums->ended;
    from->latency_us -= sums->latency_us;
    from->streams -= sums->streams;
    from->gaps -= sums->gaps;
    from->stream_us -= sums->stream_us;
}

static void add(struct recent_sums *to, const struct recent_sums *sums)
{
    to->arrivals += sums->arrivals;
    to->ended += sums->ended;
    to->latency_us += sums->latency_us;
    to->streams += sums->streams;
    to->gaps += sums->gaps;
    to->stream_us += sums->stream_us;
}

static void advance(struct recent *recent, uint64_t window_ns, uint64_t now_ns)
{
    uint64_t slot = now_ns / (window_ns / RECENT_SLOTS);
    if (slot <= recent->last_slot) {
        return;
    }
    uint64_t steps = slot - recent->last_slot;
    steps = steps < RECENT_SLOTS ? steps : RECENT_SLOTS;
    for (uint64_t i = 0; i < steps; i++) {
        struct recent_sums *old = &recent->slots[(slot - i) % RECENT_SLOTS];
        subtract(&recent->total, old);
        *old = (struct recent_sums){0};
    }
    recent->last_slot = slot;
}

void recent_add(struct recent *recent, uint64_t window_ns, uint64_t now_ns,
                const struct recent_sums *sums)
{
    advance(recent, window_ns, now_ns);
    add(&recent->slots[recent->last_slot % RECENT_SLOTS], sums);
    add(&recent->total, sums);
}

struct recent_sums recent_get(struct recent *recent, uint64_t window_ns, uint64_t now_ns)
{
    advance(recent, window_ns, now_ns);
    return recent->total;
}
