/* What a budget, a store and a restart do to those who ask: the commands `memory` and `restart`. */
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/sim/commands.h"

enum {
    PATH_BYTES = 4096,
    OPEN_FILES = 16,
    MINUTES_MAX = 120,
};
#define MIB ((double)(1 << 20))

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

static void make_folder(char path[PATH_BYTES])
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(path, PATH_BYTES, "%s/bench-sim.XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(path) == NULL) {
        sim_fail(path, strerror(errno));
    }
}

/* One run, with a store in a folder that is gone afterwards; store_bytes 0: without. */
static void run_once(struct sim_setup setup, uint64_t store_bytes, struct sim_result *result)
{
    char folder[PATH_BYTES];
    if (store_bytes == 0) {
        sim_run(&setup, result);
        return;
    }
    make_folder(folder);
    setup.store_directory = folder;
    setup.store_bytes = store_bytes;
    sim_run(&setup, result);
    (void)nftw(folder, remove_one, OPEN_FILES, FTW_DEPTH | FTW_PHYS); /* In /tmp: not worth more. */
}

/* ---- memory ---- */

struct sweep {
    const struct sim_command *command;
    struct sim_setup setup;
    double unbounded_bytes; /* What the trie takes if it may. */
};

static void tell_run(const struct sweep *sweep, const char *name, double share,
                     uint64_t store_bytes, double *hits)
{
    struct document *document = sweep->command->document;
    struct sim_setup setup = sweep->setup;
    struct sim_result result;
    double budget = sweep->unbounded_bytes * share;
    setup.budget_bytes = share > 0 ? (size_t)fmax(budget, HASHTRIE_BUDGET_MIN) : 0;
    run_once(setup, store_bytes, &result);
    *hits = 100 * result.hit_rate;
    document_text(document, name);
    document_number(document, share > 0 ? (double)setup.budget_bytes / MIB : NAN, 2);
    document_number(document, (double)result.trie_bytes_most / MIB, 2);
    document_number(document, (double)store_bytes / MIB, 0);
    document_number(document, (double)result.router.store_bytes / MIB, 1);
    document_number(document, (double)result.router.reload_found_count, 0);
    document_number(document, *hits, 2);
    document_number(document, result.ttft_mean_s * 1e3, 1);
    document_number(document, result.ttft_p99_s * 1e3, 0);
    sim_result_free(&result);
}

static void sweep_case(const struct sim_command *command, const char *name)
{
    static const char *const columns[] = {"trie",    "budget MiB", "most MiB",
                                          "cap MiB", "file MiB",   "reloads",
                                          "hits %",  "TTFT ms",    "p99 ms"};
    static const struct {
        const char *name;
        double share;
    } shares[] = {{"unbounded", 0}, {"1/2", 0.5},   {"1/5", 0.2},
                  {"1/10", 0.1},    {"1/20", 0.05}, {"1/50", 0.02}};
    static const uint64_t caps[] = {16, 64, 8192}; /* MiB */
    enum { SHARES = sizeof shares / sizeof shares[0] };
    const struct sim_case *which = sim_case_find(name, strlen(name));
    struct sim_workload workload = {0};
    double x[SHARES];
    double hot[SHARES];
    double stored[SHARES];
    char title[PATH_BYTES];
    /* Long enough that a fiftieth is more than the least budget. */
    sim_case_generate(which, &workload, command->seed, 6 * command->seconds_factor, NULL);
    struct sweep sweep = {.command = command,
                          .setup = sim_case_setup(which, &workload,
                                                  sim_policy_find("ours", strlen("ours")),
                                                  command->seed, 1)};
    (void)snprintf(title, sizeof title, "%s: %s", name, which->about);
    document_table(command->document, title, columns, sizeof columns / sizeof columns[0]);
    struct sim_result result;
    run_once(sweep.setup, 0, &result);
    sweep.unbounded_bytes = (double)result.trie_bytes_most;
    sim_result_free(&result);
    for (size_t i = 0; i < SHARES; i++) {
        x[i] = sweep.unbounded_bytes / MIB * (shares[i].share > 0 ? shares[i].share : 1);
        tell_run(&sweep, shares[i].name, shares[i].share, 0, &hot[i]);
        tell_run(&sweep, shares[i].name, shares[i].share, UINT64_C(8) << 30, &stored[i]);
    }
    for (size_t i = 0; i + 1 < sizeof caps / sizeof caps[0]; i++) {
        double hits = 0;
        tell_run(&sweep, "1/50", 0.02, caps[i] << 20, &hits);
    }
    document_table_end(command->document);
    document_plot(command->document, &(struct document_axes){.title = title,
                                                             .x_label = "budget of the trie, MiB",
                                                             .y_label = "hits, % of prompt tokens",
                                                             .kind = "line"});
    document_series(command->document, "hot trie alone", x, hot, SHARES);
    document_series(command->document, "with a store", x, stored, SHARES);
    document_plot_end(command->document);
    sim_workload_free(&workload);
}

void sim_memory(const struct sim_command *command)
{
    sweep_case(command, "pr711");
    sweep_case(command, "returning");
}

/* ---- restart ---- */

struct minutes {
    double hits[MINUTES_MAX]; /* % of the prompt tokens that came in that minute. */
    double ttft_ms[MINUTES_MAX];
    size_t count;
};

static void sum_minutes(const struct sim_workload *workload, const struct sim_result *result,
                        struct minutes *out)
{
    double prompt[MINUTES_MAX] = {0};
    double cached[MINUTES_MAX] = {0};
    double requests[MINUTES_MAX] = {0};
    double ttft[MINUTES_MAX] = {0};
    out->count = 0;
    for (size_t i = 0; i < workload->request_count; i++) {
        size_t minute = workload->requests[i].arrival_ns / (60 * SIM_NS_PER_S);
        if (minute >= MINUTES_MAX) {
            break;
        }
        prompt[minute] += workload->requests[i].prompt_tokens;
        cached[minute] += result->outcomes[i].cached_tokens;
        ttft[minute] += result->outcomes[i].ttft_s;
        requests[minute]++;
        out->count = minute + 1;
    }
    for (size_t i = 0; i < out->count; i++) {
        out->hits[i] = prompt[i] > 0 ? 100 * cached[i] / prompt[i] : NAN;
        out->ttft_ms[i] = requests[i] > 0 ? 1000 * ttft[i] / requests[i] : NAN;
    }
}

enum { VARIANTS = 5, TOLD_MINUTES = 5 };

static const struct {
    const char *name;
    bool restarts;
    bool engines_too;
    bool loses;
} variants[VARIANTS] = {{"no restart", false, false, false},
                        {"with a store", true, false, false},
                        {"empty", true, false, true},
                        {"engines, store", true, true, false},
                        {"engines, empty", true, true, true}};

static void plot_minutes(struct document *document, const struct minutes *minutes,
                         const char *title, const char *unit, bool ttft, double at_minute)
{
    double x[MINUTES_MAX];
    for (size_t i = 0; i < MINUTES_MAX; i++) {
        x[i] = (double)i;
    }
    document_plot(document, &(struct document_axes){.title = title,
                                                    .x_label = "minute",
                                                    .y_label = unit,
                                                    .kind = "line",
                                                    .marks = &at_minute,
                                                    .mark_count = 1,
                                                    .mark_text = "killed"});
    for (size_t i = 0; i < VARIANTS; i++) {
        document_series(document, variants[i].name, x, ttft ? minutes[i].ttft_ms : minutes[i].hits,
                        minutes[i].count);
    }
    document_plot_end(document);
}

static void restart_case(const struct sim_command *command, const char *name)
{
    static const char *const columns[] = {"router", "before", "minute 1", "2",       "3",
                                          "4",      "5",      "TTFT 1",   "TTFT 2-5"};
    static struct minutes minutes[VARIANTS];
    const struct sim_case *which = sim_case_find(name, strlen(name));
    struct sim_workload workload = {0};
    char title[PATH_BYTES];
    double factor = 2 * command->seconds_factor;
    sim_case_generate(which, &workload, command->seed, factor, NULL);
    uint64_t middle_ns = (uint64_t)(which->seconds * factor / 120) * 60 * SIM_NS_PER_S;
    size_t middle = middle_ns / (60 * SIM_NS_PER_S);
    struct sim_setup setup =
        sim_case_setup(which, &workload, sim_policy_find("ours", strlen("ours")), command->seed, 1);
    (void)snprintf(title, sizeof title, "%s: router killed; hits in %%, mean TTFT in ms", name);
    document_table(command->document, title, columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < VARIANTS; i++) {
        struct sim_result result;
        setup.faults[0] = (struct sim_fault){.kind = SIM_ROUTER_RESTARTS, .at_ns = middle_ns};
        setup.faults[1] = (struct sim_fault){.kind = SIM_ALL_ENGINES_RESTART, .at_ns = middle_ns};
        setup.fault_count = variants[i].engines_too ? 2 : variants[i].restarts ? 1 : 0;
        setup.loses_store = variants[i].loses;
        run_once(setup, variants[i].restarts ? UINT64_C(8) << 30 : 0, &result);
        sum_minutes(&workload, &result, &minutes[i]);
        sim_result_free(&result);
        double later = 0;
        document_text(command->document, variants[i].name);
        document_number(command->document, minutes[i].hits[middle - 1], 1);
        for (size_t at = 0; at < TOLD_MINUTES; at++) {
            document_number(command->document, minutes[i].hits[middle + at], 1);
            later += at > 0 ? minutes[i].ttft_ms[middle + at] / (TOLD_MINUTES - 1) : 0;
        }
        document_number(command->document, minutes[i].ttft_ms[middle], 1);
        document_number(command->document, later, 1);
    }
    document_table_end(command->document);
    (void)snprintf(title, sizeof title, "%s: hits around a kill", name);
    plot_minutes(command->document, minutes, title, "% of prompt tokens", false, (double)middle);
    (void)snprintf(title, sizeof title, "%s: TTFT around a kill", name);
    plot_minutes(command->document, minutes, title, "ms", true, (double)middle);
    sim_workload_free(&workload);
}

void sim_restart(const struct sim_command *command)
{
    restart_case(command, "pr711");
    restart_case(command, "returning");
}
