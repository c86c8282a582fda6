#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/e2e/replay.h"
#include "bench/load/tool.h"

#define NS_PER_S  1e9
#define GAP_STEPS 16.0 /* Buckets for each doubling. */

static const char *const end_names[] = {
    [OUTCOME_NOT_SENT] = "not-sent", [OUTCOME_OPEN] = "open", [OUTCOME_COMPLETE] = "complete",
    [OUTCOME_REFUSED] = "refused",   [OUTCOME_CUT] = "cut",   [OUTCOME_STATUS] = "status",
    [OUTCOME_LATE] = "late",
};

size_t replay_gap_bucket(uint64_t gap_ns)
{
    double bucket = gap_ns < 2 ? 0 : log2((double)gap_ns) * GAP_STEPS;
    return bucket < REPLAY_GAP_BUCKETS - 1 ? (size_t)bucket : REPLAY_GAP_BUCKETS - 1;
}

double replay_gap_s(size_t bucket)
{
    return exp2(((double)bucket + 0.5) / GAP_STEPS) / NS_PER_S;
}

/* ---- One line for each request ---- */

bool result_write_csv(const struct replay *replay, const char *path)
{
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        return false;
    }
    (void)fputs("prompt_tokens,generation_tokens,ttft,generation_time,user_id,question_id,"
                "launch_time,finish_time,due_time,cached_tokens,longest_gap,status,end,engine\n",
                file);
    for (size_t i = 0; i < replay->next_index; i++) {
        const struct outcome *outcome = &replay->outcomes[i];
        const struct sim_request *request = &replay->workload->requests[i];
        bool has_token = outcome->token_count > 0;
        double ttft = has_token ? (double)(outcome->first_ns - outcome->due_ns) / NS_PER_S : 0;
        double generation =
            has_token ? (double)(outcome->last_ns - outcome->first_ns) / NS_PER_S : 0;
        (void)fprintf(file, "%u,%u,%.6f,%.6f,%lld,%zu,%.6f,%.6f,%.6f,%u,%.6f,%d,%s,%s\n",
                      request->prompt_tokens, outcome->token_count, ttft, generation,
                      request->session == SIM_NO_SESSION ? -1 : (long long)request->session, i,
                      (double)outcome->launch_ns / NS_PER_S, (double)outcome->last_ns / NS_PER_S,
                      (double)outcome->due_ns / NS_PER_S, outcome->cached_tokens,
                      (double)outcome->gap_max_ns / NS_PER_S, outcome->status,
                      end_names[outcome->end], outcome->engine);
    }
    return fclose(file) == 0;
}

/* ---- The sum of it ---- */

struct samples {
    double *values;
    size_t count;
};

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double percentile(const struct samples *samples, double share)
{
    return samples->count == 0 ? 0
                               : samples->values[(size_t)(share * (double)(samples->count - 1))];
}

static void print_samples(const char *name, struct samples *samples)
{
    double sum = 0;
    for (size_t i = 0; i < samples->count; i++) {
        sum += samples->values[i];
    }
    qsort(samples->values, samples->count, sizeof *samples->values, compare);
    (void)printf(",\"%s\":{\"mean\":%.6f,\"p50\":%.6f,\"p90\":%.6f,\"p99\":%.6f,\"max\":%.6f}",
                 name, samples->count == 0 ? 0 : sum / (double)samples->count,
                 percentile(samples, 0.5), percentile(samples, 0.9), percentile(samples, 0.99),
                 percentile(samples, 1));
}

static void print_gaps(const struct replay *replay)
{
    static const double shares[] = {0.5, 0.9, 0.99};
    static const char *const names[] = {"p50", "p90", "p99"};
    uint64_t total = 0;
    for (size_t i = 0; i < REPLAY_GAP_BUCKETS; i++) {
        total += replay->gaps[i];
    }
    (void)printf(",\"gap\":{\"count\":%llu", (unsigned long long)total);
    for (size_t k = 0; k < sizeof shares / sizeof shares[0]; k++) {
        uint64_t below = 0;
        size_t bucket = 0;
        while (bucket < REPLAY_GAP_BUCKETS - 1 &&
               (double)(below += replay->gaps[bucket]) < shares[k] * (double)total) {
            bucket++;
        }
        (void)printf(",\"%s\":%.6f", names[k], total == 0 ? 0 : replay_gap_s(bucket));
    }
    (void)printf("}");
}

enum { TTFT, ITL, E2E, LATE, SAMPLE_KINDS };

static void add_outcome(const struct outcome *outcome, struct samples *samples)
{
    samples[LATE].values[samples[LATE].count++] =
        (double)(outcome->launch_ns - outcome->due_ns) / NS_PER_S;
    if (outcome->end != OUTCOME_COMPLETE || outcome->token_count == 0) {
        return;
    }
    samples[TTFT].values[samples[TTFT].count++] =
        (double)(outcome->first_ns - outcome->due_ns) / NS_PER_S;
    samples[E2E].values[samples[E2E].count++] =
        (double)(outcome->last_ns - outcome->due_ns) / NS_PER_S;
    if (outcome->token_count > 1) {
        samples[ITL].values[samples[ITL].count++] = (double)(outcome->last_ns - outcome->first_ns) /
                                                    NS_PER_S / (double)(outcome->token_count - 1);
    }
}

void result_print(const struct replay *replay, double seconds)
{
    static const char *const names[SAMPLE_KINDS] = {"ttft", "itl", "e2e", "launched_late"};
    struct samples samples[SAMPLE_KINDS];
    for (size_t k = 0; k < SAMPLE_KINDS; k++) {
        samples[k] =
            (struct samples){.values = tool_must(calloc(replay->next_index + 1, sizeof(double)))};
    }
    uint64_t ends[OUTCOME_LATE + 1] = {0};
    uint64_t prompt_tokens = 0;
    uint64_t cached_tokens = 0;
    uint64_t tokens = 0;
    for (size_t i = 0; i < replay->next_index; i++) {
        const struct outcome *outcome = &replay->outcomes[i];
        ends[outcome->end]++;
        tokens += outcome->token_count;
        if (outcome->end == OUTCOME_COMPLETE) {
            prompt_tokens += replay->workload->requests[i].prompt_tokens;
            cached_tokens += outcome->cached_tokens;
        }
        add_outcome(outcome, samples);
    }
    (void)printf("{\"seconds\":%.3f,\"requests\":%zu", seconds, replay->next_index);
    for (size_t i = OUTCOME_OPEN; i <= OUTCOME_LATE; i++) {
        (void)printf(",\"%s\":%llu", end_names[i], (unsigned long long)ends[i]);
    }
    (void)printf(
        ",\"success_rate\":%.6f,\"prompt_tokens\":%llu,\"cached_tokens\":%llu,"
        "\"hit_rate\":%.6f,\"output_tokens\":%llu,\"output_tokens_per_s\":%.1f",
        replay->next_index == 0 ? 0 : (double)ends[OUTCOME_COMPLETE] / (double)replay->next_index,
        (unsigned long long)prompt_tokens, (unsigned long long)cached_tokens,
        prompt_tokens == 0 ? 0 : (double)cached_tokens / (double)prompt_tokens,
        (unsigned long long)tokens, (double)tokens / seconds);
    for (size_t k = 0; k < SAMPLE_KINDS; k++) {
        print_samples(names[k], &samples[k]);
        free(samples[k].values);
    }
    print_gaps(replay);
    (void)printf("}\n");
}
