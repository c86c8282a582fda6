#include "proxy/meter.h"

#include "base/clock.h"

void meter_init(struct meter *meter, struct mem *mem)
{
    *meter = (struct meter){0};
    buf_init(&meter->tail, mem, METER_TAIL_BYTES);
}

void meter_fini(struct meter *meter)
{
    buf_fini(&meter->tail);
}

void meter_begin(struct meter *meter, struct stats_series *series)
{
    meter->series = series;
    meter->first_ns = 0;
    meter->last_ns = 0;
    meter->event_count = 0;
    meter->gap_count = 0;
    meter->usage = (struct usage){0};
    meter->has_usage = false;
    memset(meter->end, 0, sizeof meter->end);
    meter->rest = (struct span){0};
    meter->tail.size = 0;
}

/* An event of a token ends with "}]}" and an empty line, one that tells usage with another bracket
 * or a text. True: it has no token of its own. */
static bool look_for_usage(struct meter *meter, struct span event)
{
    static const char no_choices[] = "\"choices\":[]";
    if (!usage_read(event, &meter->usage)) {
        return false;
    }
    meter->has_usage = true;
    return memmem(event.data, event.size, no_choices, sizeof no_choices - 1) != NULL;
}

static void keep_end(struct meter *meter, struct span body)
{
    if (body.size >= METER_END_BYTES) {
        memcpy(meter->end, body.data + body.size - METER_END_BYTES, METER_END_BYTES);
        return;
    }
    memmove(meter->end, meter->end + body.size, METER_END_BYTES - body.size);
    memcpy(meter->end + METER_END_BYTES - body.size, body.data, body.size);
}

void meter_event(struct meter *meter, struct span body)
{
    keep_end(meter, body);
    const char *end = meter->end;
    if (!meter_between_events(meter) || (end[0] == 'E' && end[1] == ']')) {
        return; /* [DONE] */
    }
    bool may_tell = end[1] == '\n' || (end[1] == '}' && (end[0] == '}' || end[0] == '"'));
    if (!may_tell || !look_for_usage(meter, body)) {
        meter->event_count++;
    }
}

void meter_passed(struct meter *meter, uint64_t begin_ns, uint64_t now_ns)
{
    uint32_t count = meter->event_count;
    if (count == 0 || meter->series == NULL) {
        return;
    }
    meter->event_count = 0;
    if (meter->first_ns == 0) {
        meter->first_ns = now_ns;
        metrics_histogram_observe(&meter->series->first_token,
                                  (double)(now_ns - begin_ns) / (double)CLOCK_NS_PER_S);
        count--;
    }
    if (count > 0) { /* Events that came together share the time they took. */
        uint64_t gap_ns =
            meter->gap_count == 0 ? now_ns - meter->first_ns : now_ns - meter->last_ns;
        metrics_histogram_observe_many(&meter->series->between_tokens,
                                       (double)gap_ns / (double)CLOCK_NS_PER_S / count, count);
        meter->gap_count += count;
    }
    meter->last_ns = now_ns;
}

void meter_turn(struct meter *meter, bool complete)
{
    struct span rest = meter->rest;
    meter->rest = (struct span){0};
    if (rest.size > METER_TAIL_BYTES) {
        rest.data += rest.size - METER_TAIL_BYTES;
        rest.size = METER_TAIL_BYTES;
    }
    if (complete && meter->tail.size == 0) { /* Most answers come at once. */
        meter->has_usage = usage_read(rest, &meter->usage);
        return;
    }
    struct buf *tail = &meter->tail;
    if (rest.size > 0) {
        size_t kept =
            tail->size + rest.size > METER_TAIL_BYTES ? METER_TAIL_BYTES - rest.size : tail->size;
        if (kept > 0) {
            memmove(tail->data, tail->data + tail->size - kept, kept);
        }
        tail->size = kept;
        if (!buf_append(tail, rest.data, rest.size)) {
            tail->size = 0; /* No memory: its usage is not known. */
        }
    }
    if (complete && tail->size > 0) {
        meter->has_usage =
            usage_read((struct span){.data = tail->data, .size = tail->size}, &meter->usage);
    }
}

void meter_rest(struct meter *meter, struct span body)
{
    if (meter->rest.size > 0) {
        meter_turn(meter, false);
    }
    meter->rest = body;
}

void meter_count(struct meter *meter, double held_share)
{
    struct stats_series *series = meter->series;
    const struct usage *usage = &meter->usage;
    if (!meter->has_usage || series == NULL) {
        return;
    }
    stats_add(&series->prompt_tokens, usage->prompt_tokens);
    stats_add(&series->completion_tokens, usage->completion_tokens);
    if (usage->has_cached) {
        double held = held_share * (double)usage->prompt_tokens;
        stats_add(&series->told_tokens, usage->prompt_tokens);
        stats_add(&series->told_cached_tokens, usage->cached_tokens);
        stats_add(&series->predicted_cached_tokens, (uint64_t)held);
    }
}
