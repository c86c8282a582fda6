/* bench-sim: options and start. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/sim/commands.h"

static const char usage[] =
    "usage: bench-sim COMMAND [options]\n"
    "\n"
    "Runs the router's trie, store and routing rules before simulated engines, on virtual time.\n"
    "The same options give the same figures.\n"
    "\n"
    "  compare      every policy on every case; medians over the seeds\n"
    "  quick        the same on a few short cases: seconds\n"
    "  yardsticks   known figures of the Mooncake trace, measured here (needs --traces)\n"
    "  memory       hit rate and TTFT against the trie's budget and the store's cap: minutes\n"
    "  restart      hit rate and TTFT after the router is killed, with a store and without\n"
    "  list         the cases and policies\n"
    "\n"
    "  --cases A,B      only these\n"
    "  --policies A,B   only these\n"
    "  --seeds N        so many workloads of each case (5; quick: 1)\n"
    "  --seed N         the first of them (1)\n"
    "  --length X       cases X times as long (1; quick: 0.25)\n"
    "  --traces DIR     recorded workloads; without it the cases that need one are left out\n"
    "  --json FILE      the figures as a document for bench/report/report\n"
    "  --help\n";

static double read_number(const char *option, const char *text, double least, double most)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        (void)fprintf(stderr, "bench-sim: --%s: \"%s\" is not a number from %.15g to %.15g\n",
                      option, text, least, most);
        exit(2);
    }
    return value;
}

static void check_names(const char *option, const char *list)
{
    for (const char *at = list; *at != '\0';) {
        size_t size = strcspn(at, ",");
        bool known = strcmp(option, "cases") == 0 ? sim_case_find(at, size) != NULL
                                                  : sim_policy_find(at, size) != NULL;
        if (!known) {
            (void)fprintf(stderr, "bench-sim: --%s: there is no \"%.*s\" (see bench-sim list)\n",
                          option, (int)size, at);
            exit(2);
        }
        at += size + (at[size] == ',' ? 1 : 0);
    }
}

static void list_all(void)
{
    (void)printf("policies:\n");
    for (size_t i = 0; i < sim_policy_count; i++) {
        (void)printf("  %-16s %s\n", sim_policies[i].name, sim_policies[i].about);
    }
    (void)printf("cases:\n");
    for (size_t i = 0; i < sim_case_count; i++) {
        (void)printf("  %-16s %s%s\n", sim_cases[i].name, sim_cases[i].about,
                     sim_cases[i].needs_traces ? " (--traces)" : "");
    }
}

static const struct option options[] = {{"cases", required_argument, NULL, 'c'},
                                        {"policies", required_argument, NULL, 'p'},
                                        {"seeds", required_argument, NULL, 'n'},
                                        {"seed", required_argument, NULL, 's'},
                                        {"length", required_argument, NULL, 'l'},
                                        {"traces", required_argument, NULL, 't'},
                                        {"json", required_argument, NULL, 'j'},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

static void read_options(int argc, char **argv, struct sim_command *command, const char **json)
{
    for (int which; (which = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        switch (which) {
        case 'c':
            check_names("cases", optarg);
            command->cases = optarg;
            break;
        case 'p':
            check_names("policies", optarg);
            command->policies = optarg;
            break;
        case 'n':
            command->seed_count = (size_t)read_number("seeds", optarg, 1, SIM_SEEDS_MAX);
            break;
        case 's':
            command->seed = (uint64_t)read_number("seed", optarg, 0, 1e15);
            break;
        case 'l':
            command->seconds_factor = read_number("length", optarg, 0.01, 100);
            break;
        case 't':
            command->traces_dir = optarg;
            break;
        case 'j':
            *json = optarg;
            break;
        case 'h':
            (void)fputs(usage, stdout);
            exit(0);
        default:
            (void)fputs(usage, stderr);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        const char *title;
        void (*run)(const struct sim_command *command);
    } commands[] = {{"compare", "Routing policies, simulated", sim_compare},
                    {"quick", "Routing policies, simulated: short cases", sim_compare},
                    {"memory", "The value of memory, simulated", sim_memory},
                    {"restart", "The value of restart, simulated", sim_restart},
                    {"yardsticks", "Known figures, simulated", sim_yardsticks}};
    struct sim_command command = {.seed = 1, .seed_count = 5, .seconds_factor = 1};
    const char *json = NULL;
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "quick") == 0) {
        command.seed_count = 1;
        command.seconds_factor = 0.25;
        command.cases = "chat,shared-system,siblings,agents,groups,unique,engine-restart";
    }
    bool is_command = argc > 1 && name[0] != '-';
    read_options(is_command ? argc - 1 : argc, is_command ? argv + 1 : argv, &command, &json);
    if (strcmp(name, "list") == 0) {
        list_all();
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) == 0 && argc - 1 == optind) {
            command.document = document_new(commands[i].title, argc, argv);
            commands[i].run(&command);
            if (json != NULL) {
                document_write(command.document, json);
            }
            document_free(command.document);
            return 0;
        }
    }
    (void)fputs(usage, stderr);
    return 2;
}
