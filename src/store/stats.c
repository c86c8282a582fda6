/* What a store looks like from outside: state, figures, and what its filter says. */
#include "base/check.h"
#include "base/clock.h"
#include "store/internal.h"

const char *hashtrie_store_state_name(enum hashtrie_store_state state)
{
    switch (state) {
    case HASHTRIE_STORE_OK:
        return "ok";
    case HASHTRIE_STORE_SLOW:
        return "slow";
    case HASHTRIE_STORE_FULL:
        return "full";
    case HASHTRIE_STORE_FAILED:
        return "failed";
    case HASHTRIE_STORE_FRESH:
        return "fresh";
    case HASHTRIE_STORE_OFF:
        return "off";
    case HASHTRIE_STORE_OPENING:
        return "opening";
    }
    return "unknown";
}

static void get_reload_stats(const struct counters *counters, struct hashtrie_store_stats *out)
{
    out->reload_count = counter_get(&counters->reloads);
    out->reload_refused_count = counter_get(&counters->reloads_refused);
    out->reload_found_count = counter_get(&counters->reloads_found);
    out->reload_missed_count = counter_get(&counters->reloads_missed);
    out->reload_repeated_count = counter_get(&counters->reloads_repeated);
    out->corrupt_record_count = counter_get(&counters->corrupt);
    for (int i = 0; i < HASHTRIE_RECOVERIES; i++) {
        out->recovered_count[i] = counter_get(&counters->recovered[i]);
    }
}

static void get_checkpoint_stats(const struct counters *counters, struct hashtrie_store_stats *out)
{
    out->checkpoint_count = counter_get(&counters->checkpoints);
    out->checkpoint_failure_count = counter_get(&counters->failures);
    out->repeated_batch_count = counter_get(&counters->repeated);
    out->last_checkpoint_unix_s = (double)counter_get(&counters->last_checkpoint_ms) / 1000.0;
    uint64_t sum = 0;
    for (int i = 0; i < HASHTRIE_STORE_CHECKPOINT_BOUNDS; i++) {
        sum += counter_get(&counters->timed[i]);
        out->checkpoint_le_count[i] = sum;
    }
    out->checkpoint_timed_count =
        sum + counter_get(&counters->timed[HASHTRIE_STORE_CHECKPOINT_BOUNDS]);
    out->checkpoint_seconds_sum =
        (double)counter_get(&counters->timed_ns_sum) / (double)CLOCK_NS_PER_S;
    out->written_node_count = counter_get(&counters->written);
    out->touched_node_count = counter_get(&counters->touched);
    out->deleted_node_count = counter_get(&counters->deleted);
}

static void get_snapshot_stats(struct hashtrie_store *store, struct hashtrie_store_stats *out)
{
    struct snapshots *snapshots = &store->snapshots;
    CHECK(pthread_mutex_lock(&snapshots->lock) == 0);
    out->snapshot_running = snapshots->running;
    CHECK(pthread_mutex_unlock(&snapshots->lock) == 0);
    uint64_t total = counter_get(&snapshots->total_bytes);
    out->snapshot_ratio = out->snapshot_running && total > 0
                              ? (double)counter_get(&snapshots->done_bytes) / (double)total
                              : 0;
    out->snapshot_count = counter_get(&snapshots->count);
    out->snapshot_failure_count = counter_get(&snapshots->failures);
    out->last_snapshot_unix_s = (double)counter_get(&snapshots->last_unix_s);
    out->last_snapshot_bytes = counter_get(&snapshots->last_bytes);
    out->last_snapshot_seconds =
        (double)counter_get(&snapshots->last_took_ns) / (double)CLOCK_NS_PER_S;
    uint64_t since_ns = counter_get(&store->pin.since_ns);
    out->pinned_pid = since_ns == 0 ? 0 : counter_get(&store->pin.pid);
    out->pinned_seconds =
        since_ns == 0 ? 0 : (double)(clock_monotonic_ns() - since_ns) / (double)CLOCK_NS_PER_S;
}

void hashtrie_store_get_stats(struct hashtrie_store *store, struct hashtrie_store_stats *out)
{
    const struct counters *counters = &store->counters;
    *out = (struct hashtrie_store_stats){
        .state = store_state(store),
        .bytes = counter_get(&counters->bytes),
        .problem =
            (enum hashtrie_status)atomic_load_explicit(&store->problem, memory_order_relaxed),
        .max_bytes = counter_get(&counters->cap_bytes),
        .node_count = counter_get(&counters->nodes),
        .chunk_count = counter_get(&counters->chunks),
        .endpoint_count = counter_get(&counters->endpoints),
        .restore_seconds = (double)counter_get(&counters->restore_ns) / (double)CLOCK_NS_PER_S,
        .filter_ready = atomic_load_explicit(&store->filter_ready, memory_order_relaxed),
        .filter_bytes = counter_get(&store->filter_bytes),
    };
    if (out->state == HASHTRIE_STORE_OFF && out->problem == HASHTRIE_EBUSY) {
        out->holder_pid = counter_get(&counters->holder_pid);
    }
    out->up = out->state == HASHTRIE_STORE_OK || out->state == HASHTRIE_STORE_SLOW ||
              out->state == HASHTRIE_STORE_FRESH;
    uint64_t total = counter_get(&counters->warm_total);
    out->warmup_ratio = total == 0 ? 0 : (double)counter_get(&counters->warm_done) / (double)total;
    get_checkpoint_stats(counters, out);
    get_reload_stats(counters, out);
    get_snapshot_stats(store, out);
}

/* ---- The filter, as callers see it ---- */

bool hashtrie_store_may_have(const struct hashtrie_store *store, const struct hashtrie_key *key,
                             size_t depth)
{
    if (depth >= key->count) {
        return false;
    }
    if (!atomic_load_explicit(&store->filter_ready, memory_order_relaxed)) {
        return true;
    }
    uint64_t prefix = depth == 0 ? key->namespace_hash : key->hashes[depth - 1];
    return filter_may_have(&store->filter, prefix, (uint32_t)key->hashes[depth]);
}
