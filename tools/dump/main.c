/*
 * hashtrie-dump: looks into a store, also while a router runs on it. Changes nothing.
 *
 * LMDB has no checksums of its own, so reading a damaged file can crash the reader. The work is
 * done in a child process, and such a crash is told as what it is.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "dump/dump.h"

enum { DEPTH_DEFAULT = 3, LIMIT_DEFAULT = 10 };

enum option_bit { OPTION_JSON = 1, OPTION_DEPTH = 2, OPTION_LIMIT = 4 };

struct command {
    const char *name;
    enum dump_exit (*run)(struct dump *dump);
    unsigned options;     /* Bits of enum option_bit. */
    const char *argument; /* Its name, or NULL: takes none. */
    const char *help;
};

static const struct command commands[] = {
    {"stats", dump_stats, OPTION_JSON, NULL, "how much is in it, and since when"},
    {"tree", dump_tree, OPTION_DEPTH | OPTION_LIMIT, "HASH",
     "namespaces and nodes, last used first; with HASH (first digits do) what is below it"},
    {"endpoints", dump_endpoints, OPTION_JSON, NULL, "the engines it knows"},
    {"verify", dump_verify, 0, NULL, "checks every record and every link"},
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static const struct option long_options[] = {
    {"json", no_argument, NULL, 'j'},
    {"depth", required_argument, NULL, 'd'},
    {"limit", required_argument, NULL, 'l'},
    {"top", required_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

static void print_help(void)
{
    (void)printf("usage: hashtrie-dump COMMAND [OPTIONS] DIR [ARGUMENT]\n\n"
                 "Looks into the store in DIR, also while a router runs on it. Changes nothing.\n\n"
                 "commands:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const char *argument = commands[i].argument == NULL ? "" : commands[i].argument;
        (void)printf("  %-10s %-6s %s\n", commands[i].name, argument, commands[i].help);
    }
    (void)printf(
        "\noptions:\n"
        "  --json       stats, endpoints: as JSON\n"
        "  --depth N    tree: levels of nodes shown, 1 to %d (default %d)\n"
        "  --limit N    tree: nodes shown of each level, 1 to %d (default %d); also --top\n"
        "  --help       this text\n"
        "  --version    version and format of the store\n\n"
        "exit status: 0 fine, 1 verify has found faults, 2 wrong usage, 3 cannot be "
        "read\n",
        (int)DUMP_LEVELS_MAX, (int)DEPTH_DEFAULT, (int)DUMP_LIMIT_MAX, (int)LIMIT_DEFAULT);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static bool parse_number(const char *name, const char *text, uint32_t max, uint32_t *out)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value < 1 || value > max) {
        (void)fprintf(stderr, "hashtrie-dump: --%s %s: a number from 1 to %" PRIu32 " is needed\n",
                      name, text, max);
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

/* What the options ask for besides running a command. */
enum asked { ASKED_RUN, ASKED_DONE, ASKED_USAGE };

static enum asked parse_options(int argc, char **argv, struct dump *dump, unsigned *given)
{
    for (;;) {
        switch (getopt_long(argc, argv, "h", long_options, NULL)) {
        case -1:
            return ASKED_RUN;
        case 'j':
            dump->json = true;
            *given |= OPTION_JSON;
            break;
        case 'd':
            *given |= OPTION_DEPTH;
            if (!parse_number("depth", optarg, DUMP_LEVELS_MAX, &dump->depth)) {
                return ASKED_USAGE;
            }
            break;
        case 'l':
            *given |= OPTION_LIMIT;
            if (!parse_number("limit", optarg, DUMP_LIMIT_MAX, &dump->limit)) {
                return ASKED_USAGE;
            }
            break;
        case 'h':
            print_help();
            return ASKED_DONE;
        case 'v':
            (void)printf("hashtrie-dump %s, store format %u\n", hashtrie_version(),
                         hashtrie_format_version());
            return ASKED_DONE;
        default:
            return ASKED_USAGE; /* getopt_long() has said what is wrong. */
        }
    }
}

/* NULL: told what is wrong. */
static const struct command *choose(int argc, char **argv, struct dump *dump, unsigned given)
{
    if (optind >= argc) {
        (void)fprintf(stderr, "hashtrie-dump: no command given; see --help\n");
        return NULL;
    }
    const struct command *command = find_command(argv[optind]);
    int arguments = argc - optind - 1;
    if (command == NULL) {
        (void)fprintf(stderr, "hashtrie-dump: no command %s; see --help\n", argv[optind]);
    } else if ((given & ~command->options) != 0) {
        (void)fprintf(stderr, "hashtrie-dump: %s does not take that option; see --help\n",
                      command->name);
    } else if (arguments < 1) {
        (void)fprintf(stderr, "hashtrie-dump: %s needs the folder of a store\n", command->name);
    } else if (arguments > (command->argument == NULL ? 1 : 2)) {
        (void)fprintf(stderr, "hashtrie-dump: too many arguments for %s; see --help\n",
                      command->name);
    } else {
        dump->directory = argv[optind + 1];
        dump->argument = arguments == 2 ? argv[optind + 2] : NULL;
        return command;
    }
    return NULL;
}

/* In the child. */
static enum dump_exit run(const struct command *command, struct dump *dump)
{
    enum hashtrie_status status = hashtrie_reader_open(dump->directory, &dump->reader);
    if (status != HASHTRIE_OK) {
        return dump_cannot(dump, status);
    }
    struct hashtrie_reader_info info;
    if (hashtrie_reader_get_info(dump->reader, &info) == HASHTRIE_OK && info.lockless) {
        (void)fprintf(stderr, "hashtrie-dump: lock.mdb cannot be written: if a router runs on this "
                              "store, what is shown may be mixed up\n");
    }
    enum dump_exit result = command->run(dump);
    hashtrie_reader_close(dump->reader);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        (void)fprintf(stderr, "hashtrie-dump: cannot write to standard output\n");
        result = DUMP_CANNOT_OPEN;
    }
    mem_fini(&dump->mem);
    return result;
}

static bool is_crash(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGABRT;
}

static int run_in_child(const struct command *command, struct dump *dump)
{
    pid_t child = fork();
    if (child == 0) {
        exit((int)run(command, dump));
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        (void)fprintf(stderr, "hashtrie-dump: cannot start a process\n");
        return DUMP_CANNOT_OPEN;
    }
    if (WIFEXITED(status)) {
        return WEXITSTATUS(status);
    }
    if (is_crash(WTERMSIG(status))) {
        (void)fprintf(stderr,
                      "hashtrie-dump: the store in %s is damaged: reading it ended with: %s\n",
                      dump->directory, strsignal(WTERMSIG(status)));
        return command->run == dump_verify ? DUMP_FAULTS : DUMP_CANNOT_OPEN;
    }
    return 128 + WTERMSIG(status); /* As shells do. */
}

int main(int argc, char **argv)
{
    struct dump dump = {.depth = DEPTH_DEFAULT,
                        .limit = LIMIT_DEFAULT,
                        .now_s = clock_unix_ns() / CLOCK_NS_PER_S,
                        .start_ns = clock_monotonic_ns()};
    mem_init(&dump.mem, SIZE_MAX);
    unsigned given = 0;
    switch (parse_options(argc, argv, &dump, &given)) {
    case ASKED_DONE:
        return DUMP_OK;
    case ASKED_USAGE:
        return DUMP_USAGE;
    case ASKED_RUN:
        break;
    }
    const struct command *command = choose(argc, argv, &dump, given);
    return command == NULL ? DUMP_USAGE : run_in_child(command, &dump);
}
