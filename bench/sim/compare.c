/* Policies beside each other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "bench/sim/commands.h"

enum { POLICIES_MAX = 24, CASES_MAX = 64, TITLE_BYTES = 256 };

enum figure {
    TTFT_MEAN,
    TTFT_P50,
    TTFT_P90,
    TTFT_P99,
    ITL,
    THROUGHPUT,
    HIT_RATE,
    OVER,
    UNDER,
    IMBALANCE,
    FIGURE_COUNT
};

struct comparison {
    const struct sim_command *command;
    const struct sim_policy *policies[POLICIES_MAX];
    size_t policy_count;
    const struct sim_case *cases[CASES_MAX];
    size_t case_count;
    double (*medians)[POLICIES_MAX][FIGURE_COUNT]; /* Per case. */
};

bool sim_is_named(const char *list, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = list; at != NULL && *at != '\0';) {
        size_t length = strcspn(at, ",");
        if (length == size && memcmp(at, name, size) == 0) {
            return true;
        }
        at += length + (at[length] == ',' ? 1 : 0);
    }
    return list == NULL;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return left < right ? -1 : left > right;
}

double sim_median(double *values, size_t count)
{
    REQUIRE(count > 0);
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* ---- Running ---- */

static void run_policy(const struct comparison *comparison, const struct sim_case *which,
                       const struct sim_workload *workload, size_t policy, uint64_t seed,
                       double *figures)
{
    struct sim_setup setup = sim_case_setup(which, workload, comparison->policies[policy], seed,
                                            comparison->command->seconds_factor);
    struct sim_result result;
    sim_run(&setup, &result);
    if (result.refused_count > 0) {
        sim_fail(which->name, "a request does not fit into an engine's cache");
    }
    figures[TTFT_MEAN] = result.ttft_mean_s;
    figures[TTFT_P50] = result.ttft_p50_s;
    figures[TTFT_P90] = result.ttft_p90_s;
    figures[TTFT_P99] = result.ttft_p99_s;
    figures[ITL] = result.itl_mean_s;
    figures[THROUGHPUT] = result.output_tokens_per_s;
    figures[HIT_RATE] = result.hit_rate;
    figures[OVER] = result.over_rate;
    figures[UNDER] = result.under_rate;
    figures[IMBALANCE] = result.imbalance;
    sim_result_free(&result);
}

/* Every policy gets the identical workload of each seed. */
static void run_case(struct comparison *comparison, size_t number)
{
    const struct sim_command *command = comparison->command;
    const struct sim_case *which = comparison->cases[number];
    double(*figures)[SIM_SEEDS_MAX][FIGURE_COUNT] =
        sim_alloc(comparison->policy_count, sizeof *figures);
    for (size_t i = 0; i < command->seed_count; i++) {
        struct sim_workload workload = {0};
        uint64_t seed = command->seed + i;
        sim_case_generate(which, &workload, seed, command->seconds_factor, command->traces_dir);
        for (size_t policy = 0; policy < comparison->policy_count; policy++) {
            run_policy(comparison, which, &workload, policy, seed, figures[policy][i]);
        }
        sim_workload_free(&workload);
    }
    for (size_t policy = 0; policy < comparison->policy_count; policy++) {
        for (size_t figure = 0; figure < FIGURE_COUNT; figure++) {
            double values[SIM_SEEDS_MAX];
            for (size_t i = 0; i < command->seed_count; i++) {
                values[i] = figures[policy][i][figure];
            }
            comparison->medians[number][policy][figure] = sim_median(values, command->seed_count);
        }
    }
    free(figures);
}

/* ---- Telling ---- */

static bool is_oracle(const struct sim_policy *policy)
{
    return policy->knows == SIM_KNOWS_CACHES;
}

/* The best figure of those that a router can have. */
static double best_of(const struct comparison *comparison, size_t number, enum figure figure)
{
    double best = HUGE_VAL;
    for (size_t policy = 0; policy < comparison->policy_count; policy++) {
        if (!is_oracle(comparison->policies[policy])) {
            best = fmin(best, comparison->medians[number][policy][figure]);
        }
    }
    return best;
}

static const double *oracle_of(const struct comparison *comparison, size_t number)
{
    for (size_t policy = 0; policy < comparison->policy_count; policy++) {
        if (is_oracle(comparison->policies[policy])) {
            return comparison->medians[number][policy];
        }
    }
    return NULL;
}

static void tell_case(const struct comparison *comparison, size_t number)
{
    static const char *const columns[] = {"policy",    "TTFT mean", "p50 ms",   "p90 ms", "p99 ms",
                                          "ITL ms",    "tokens/s",  "hits %",   "over %", "under %",
                                          "imbalance", "to best",   "to oracle"};
    struct document *document = comparison->command->document;
    const struct sim_case *which = comparison->cases[number];
    const double *oracle = oracle_of(comparison, number);
    double best = best_of(comparison, number, TTFT_MEAN);
    char title[TITLE_BYTES];
    (void)snprintf(title, sizeof title, "%s: %s", which->name, which->about);
    document_table(document, title, columns, sizeof columns / sizeof columns[0]);
    for (size_t policy = 0; policy < comparison->policy_count; policy++) {
        const double *figures = comparison->medians[number][policy];
        document_text(document, comparison->policies[policy]->name);
        document_number(document, figures[TTFT_MEAN] * 1e3, 1);
        document_number(document, figures[TTFT_P50] * 1e3, 1);
        document_number(document, figures[TTFT_P90] * 1e3, 1);
        document_number(document, figures[TTFT_P99] * 1e3, 1);
        document_number(document, figures[ITL] * 1e3, 2);
        document_number(document, figures[THROUGHPUT], 0);
        document_number(document, figures[HIT_RATE] * 100, 1);
        document_number(document, figures[OVER] * 100, 1);
        document_number(document, figures[UNDER] * 100, 1);
        document_number(document, figures[IMBALANCE], 2);
        document_number(document, figures[TTFT_MEAN] / best, 2);
        document_number(document, oracle == NULL ? NAN : figures[TTFT_MEAN] / oracle[TTFT_MEAN], 2);
    }
    document_table_end(document);
}

struct ratios {
    double mean; /* Geometric. */
    double worst;
    const char *worst_case;
};

static struct ratios ratios_of(const struct comparison *comparison, size_t policy,
                               enum figure figure, bool to_oracle)
{
    struct ratios ratios = {.worst_case = ""};
    double logs = 0;
    for (size_t i = 0; i < comparison->case_count; i++) {
        double base = to_oracle ? oracle_of(comparison, i)[figure] : best_of(comparison, i, figure);
        double ratio = comparison->medians[i][policy][figure] / base;
        logs += log(ratio);
        if (ratio > ratios.worst) {
            ratios.worst = ratio;
            ratios.worst_case = comparison->cases[i]->name;
        }
    }
    ratios.mean = exp(logs / (double)comparison->case_count);
    return ratios;
}

/* How many points of hit rate below the oracle's, at most. */
static double worst_hits(const struct comparison *comparison, size_t policy)
{
    double worst = 0;
    for (size_t i = 0; i < comparison->case_count; i++) {
        double lost = oracle_of(comparison, i)[HIT_RATE] - comparison->medians[i][policy][HIT_RATE];
        worst = fmax(worst, lost);
    }
    return worst * 100;
}

static void tell_all(const struct comparison *comparison)
{
    static const char *const columns[] = {"policy", "TTFT",      "worst", "in", "ITL",      "worst",
                                          "in",     "to oracle", "worst", "in", "hits lost"};
    struct document *document = comparison->command->document;
    bool oracle = oracle_of(comparison, 0) != NULL;
    document_table(document,
                   "All cases: mean TTFT and ITL to the best of each case (geometric mean, worst), "
                   "mean TTFT to the oracle's, points of hit rate below the oracle's at most",
                   columns, oracle ? 11 : 7);
    for (size_t policy = 0; policy < comparison->policy_count; policy++) {
        struct ratios ttft = ratios_of(comparison, policy, TTFT_MEAN, false);
        struct ratios itl = ratios_of(comparison, policy, ITL, false);
        document_text(document, comparison->policies[policy]->name);
        document_number(document, ttft.mean, 3);
        document_number(document, ttft.worst, 2);
        document_text(document, ttft.worst_case);
        document_number(document, itl.mean, 3);
        document_number(document, itl.worst, 2);
        document_text(document, itl.worst_case);
        if (oracle) {
            struct ratios regret = ratios_of(comparison, policy, TTFT_MEAN, true);
            document_number(document, regret.mean, 3);
            document_number(document, regret.worst, 2);
            document_text(document, regret.worst_case);
            document_number(document, worst_hits(comparison, policy), 1);
        }
    }
    document_table_end(document);
}

static void plot(const struct comparison *comparison, const struct document_axes *axes,
                 enum figure figure, double (*base)(const struct comparison *, size_t))
{
    static const char shown[] = "ours,oracle,leastload,thresholds,scorer,active,product";
    const char *names[CASES_MAX];
    double values[CASES_MAX];
    document_plot(comparison->command->document, axes);
    for (size_t policy = 0; policy < comparison->policy_count; policy++) {
        if (!sim_is_named(shown, comparison->policies[policy]->name)) {
            continue;
        }
        for (size_t i = 0; i < comparison->case_count; i++) {
            names[i] = comparison->cases[i]->name;
            values[i] = comparison->medians[i][policy][figure] / base(comparison, i);
        }
        document_bars(comparison->command->document, comparison->policies[policy]->name, names,
                      values, comparison->case_count);
    }
    document_plot_end(comparison->command->document);
}

static double best_ttft(const struct comparison *comparison, size_t number)
{
    return best_of(comparison, number, TTFT_MEAN);
}

static double percent(const struct comparison *comparison, size_t number)
{
    (void)comparison;
    (void)number;
    return 0.01;
}

void sim_compare(const struct sim_command *command)
{
    struct comparison comparison = {.command = command};
    for (size_t i = 0; i < sim_policy_count; i++) {
        if (sim_is_named(command->policies, sim_policies[i].name)) {
            comparison.policies[comparison.policy_count++] = &sim_policies[i];
        }
    }
    for (size_t i = 0; i < sim_case_count; i++) {
        bool can = !sim_cases[i].needs_traces || command->traces_dir != NULL;
        if (can && sim_is_named(command->cases, sim_cases[i].name)) {
            comparison.cases[comparison.case_count++] = &sim_cases[i];
        }
    }
    CHECK(sim_policy_count <= POLICIES_MAX && sim_case_count <= CASES_MAX);
    if (comparison.case_count == 0 || comparison.policy_count == 0) {
        sim_fail("compare", "no such case or policy (try `bench-sim list`; traces need --traces)");
    }
    comparison.medians = sim_alloc(comparison.case_count, sizeof *comparison.medians);
    for (size_t i = 0; i < comparison.case_count; i++) {
        run_case(&comparison, i);
        tell_case(&comparison, i);
    }
    tell_all(&comparison);
    plot(&comparison,
         &(struct document_axes){.title = "Mean TTFT to that of the best policy",
                                 .x_label = "case",
                                 .y_label = "ratio",
                                 .kind = "bars",
                                 .y_log = true},
         TTFT_MEAN, best_ttft);
    plot(&comparison,
         &(struct document_axes){.title = "Prompt tokens found in caches",
                                 .x_label = "case",
                                 .y_label = "%",
                                 .kind = "bars"},
         HIT_RATE, percent);
    free(comparison.medians);
}
