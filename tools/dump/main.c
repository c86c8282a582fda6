/*
 * hashtrie-dump: looks into a store, also while a router runs on it, and takes copies out and in.
 *
 * LMDB has no checksums of its own, so reading a damaged file can crash the reader. The work is
 * done in a child process, and such a crash is told as what it is.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "dump/commands.h"
#include "dump/dump.h"

enum { JSON_BUFFER_BYTES_MAX = 256 << 20 };

/* ---- Options ---- */

static bool parse_number(const struct dump_option *option, const char *text, uint32_t *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < 1 ||
        value > option->max) {
        (void)dump_usage("--%s %s: a number from 1 to %" PRIu64 " is needed", option->name, text,
                         option->max);
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool parse_by(const char *text, enum dump_order *out)
{
    static const struct {
        const char *name;
        enum dump_order order;
    } orders[] = {
        {"recency", DUMP_BY_RECENCY}, {"bytes", DUMP_BY_BYTES}, {"holders", DUMP_BY_HOLDERS}};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        if (strcmp(text, orders[i].name) == 0) {
            *out = orders[i].order;
            return true;
        }
    }
    (void)dump_usage("--by %s: one of recency, bytes, holders is needed", text);
    return false;
}

/* Seconds, with a fraction if need be. */
static bool parse_interval(const char *text, uint32_t *out_ms)
{
    char *end = NULL;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(seconds * 1000 >= DUMP_INTERVAL_MIN_MS) ||
        !(seconds * 1000 <= DUMP_INTERVAL_MAX_MS)) {
        (void)dump_usage("--interval %s: seconds from %.1f to %d are needed", text,
                         DUMP_INTERVAL_MIN_MS / 1000.0, DUMP_INTERVAL_MAX_MS / 1000);
        return false;
    }
    *out_ms = (uint32_t)(seconds * 1000);
    return true;
}

/* "8GiB", as the router takes it; whole numbers. */
static bool parse_size(const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        unsigned shift;
    } units[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof *units && *text >= '0' && *text <= '9'; i++) {
        if (strcmp(end, units[i].name) == 0 && errno == 0 &&
            value <= HASHTRIE_STORE_BYTES_MAX >> units[i].shift &&
            value << units[i].shift >= HASHTRIE_STORE_BYTES_MIN) {
            *out = (uint64_t)value << units[i].shift;
            return true;
        }
    }
    (void)dump_usage("--max-size %s: a size from 16MiB to 16TiB is needed", text);
    return false;
}

static bool add_rename(struct dump_options *options, const char *text)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || equals[1] == '\0') {
        (void)dump_usage("--rename %s: OLD=NEW is needed", text);
        return false;
    }
    if (options->rename_count == DUMP_RENAMES_MAX) {
        (void)dump_usage("more than %d --rename", (int)DUMP_RENAMES_MAX);
        return false;
    }
    options->renames[options->rename_count++] = text;
    return true;
}

static bool take_option(struct dump_options *options, const struct dump_option *option,
                        const char *value)
{
    switch (option->bit) {
    case OPTION_JSON:
        options->json = true;
        return true;
    case OPTION_QUICK:
        options->quick = true;
        return true;
    case OPTION_PROMPT:
        options->prompt = true;
        return true;
    case OPTION_DEPTH:
        return parse_number(option, value, &options->depth);
    case OPTION_LIMIT:
        return parse_number(option, value, &options->limit);
    case OPTION_TOP:
        return parse_number(option, value, &options->top);
    case OPTION_COUNT:
        return parse_number(option, value, &options->count);
    case OPTION_BY:
        return parse_by(value, &options->by);
    case OPTION_INTERVAL:
        return parse_interval(value, &options->interval_ms);
    case OPTION_MAX_SIZE:
        return parse_size(value, &options->max_bytes);
    case OPTION_RENAME:
        return add_rename(options, value);
    case OPTION_REPAIR:
        options->repair = value;
        return true;
    case OPTION_MODEL:
        options->model = value;
        return true;
    case OPTION_ALIASES:
        options->aliases = value;
        return true;
    case OPTION_HELP:
    case OPTION_VERSION:
        break;
    }
    return true;
}

/* Bits of the options given; false: told what is wrong. */
static bool parse_options(int argc, char **argv, struct dump_options *options, unsigned *given)
{
    struct option long_options[DUMP_OPTIONS_MAX + 1] = {0};
    for (size_t i = 0; i < dump_option_count; i++) {
        long_options[i] = (struct option){
            .name = dump_options[i].name,
            .has_arg = dump_options[i].value == NULL ? no_argument : required_argument,
            .val = (int)i + 256,
        };
    }
    for (;;) {
        int got = getopt_long(argc, argv, "h", long_options, NULL);
        if (got == -1) {
            return true;
        }
        if (got == 'h') {
            *given |= OPTION_HELP;
        } else if (got >= 256) {
            const struct dump_option *option = &dump_options[got - 256];
            *given |= option->bit;
            if (!take_option(options, option, optarg)) {
                return false;
            }
        } else {
            return false; /* getopt_long() has said what is wrong. */
        }
    }
}

/* ---- The command ---- */

/* NULL: told what is wrong. */
static const struct dump_command *choose(int argc, char **argv, struct dump *dump, unsigned given)
{
    const struct dump_command *command = dump_find_command(argv[optind]);
    size_t count = (size_t)(argc - optind - 1);
    if (command == NULL) {
        (void)dump_usage("no command %s; see --help", argv[optind]);
        return NULL;
    }
    unsigned wrong = given & ~command->options;
    for (size_t i = 0; i < dump_option_count && wrong != 0; i++) {
        if ((wrong & dump_options[i].bit) != 0) {
            (void)dump_usage("%s does not take --%s; see hashtrie-dump %s --help", command->name,
                             dump_options[i].name, command->name);
            return NULL;
        }
    }
    if (count < command->arguments_min || count > command->arguments_max) {
        (void)dump_usage("usage: hashtrie-dump %s [OPTIONS] %s", command->name, command->arguments);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        dump->arguments[i] = argv[optind + 1 + (int)i];
    }
    return command;
}

static enum dump_exit open_and_run(const struct dump_command *command, struct dump *dump)
{
    enum hashtrie_status status = hashtrie_reader_open(dump->arguments[0], &dump->reader);
    struct hashtrie_reader_info info;
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_get_info(dump->reader, &info);
    }
    if (status != HASHTRIE_OK) {
        return dump_cannot(dump, status);
    }
    dump_warn_lockless(&info);
    return command->run(dump);
}

/* In the child. */
static enum dump_exit run(const struct dump_command *command, struct dump *dump)
{
    enum dump_exit result = command->opens ? open_and_run(command, dump) : command->run(dump);
    hashtrie_reader_close(dump->reader);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        (void)fprintf(stderr, "hashtrie-dump: cannot write to standard output\n");
        result = DUMP_CANNOT;
    }
    buf_fini(&dump->out);
    mem_fini(&dump->mem);
    return result;
}

static bool is_crash(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGABRT;
}

/* What a child that is gone has left of the terminal. */
static void clean_terminal(const struct dump_command *command)
{
    if (command->run == dump_watch && isatty(STDOUT_FILENO) == 1) {
        (void)printf("%s", DUMP_SCREEN_END);
        (void)fflush(stdout); /* There is nobody left to tell. */
    }
}

static int run_in_child(const struct dump_command *command, struct dump *dump)
{
    (void)signal(SIGINT, SIG_IGN); /* Of a signal to both, the child decides what it means. */
    pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGINT, SIG_DFL);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM); /* Ends with its parent. */
        exit((int)run(command, dump));
    }
    int status = 0;
    pid_t waited = -1;
    do {
        waited = child < 0 ? -1 : waitpid(child, &status, 0);
    } while (waited < 0 && child > 0 && errno == EINTR);
    if (waited != child || child < 0) {
        (void)fprintf(stderr, "hashtrie-dump: cannot start a process\n");
        return DUMP_CANNOT;
    }
    if (WIFEXITED(status)) {
        return WEXITSTATUS(status);
    }
    clean_terminal(command);
    if (is_crash(WTERMSIG(status))) {
        (void)fprintf(stderr,
                      "hashtrie-dump: the store in %s is damaged: reading it ended with: %s\n",
                      dump->arguments[0], strsignal(WTERMSIG(status)));
        return command->run == dump_verify ? DUMP_FAULTS : DUMP_CANNOT;
    }
    return 128 + WTERMSIG(status); /* As shells do. */
}

static bool wants_colour(void)
{
    const char *no_colour = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) == 1 && (no_colour == NULL || no_colour[0] == '\0') &&
           terminal != NULL && strcmp(terminal, "dumb") != 0;
}

int main(int argc, char **argv)
{
    struct dump dump = {.options = {.depth = DUMP_DEPTH_DEFAULT,
                                    .limit = DUMP_LIMIT_DEFAULT,
                                    .interval_ms = DUMP_INTERVAL_DEFAULT_MS},
                        .now_s = clock_unix_ns() / CLOCK_NS_PER_S,
                        .start_ns = clock_monotonic_ns(),
                        .colour = wants_colour()};
    mem_init(&dump.mem, SIZE_MAX);
    buf_init(&dump.out, &dump.mem, JSON_BUFFER_BYTES_MAX);
    json_writer_init(&dump.json, &dump.out);
    unsigned given = 0;
    if (!parse_options(argc, argv, &dump.options, &given)) {
        return DUMP_USAGE;
    }
    if ((given & OPTION_VERSION) != 0) {
        (void)printf("hashtrie-dump %s, store format %u\n", hashtrie_version(),
                     hashtrie_format_version());
        return DUMP_OK;
    }
    if ((given & OPTION_HELP) != 0) {
        return (int)dump_help(optind < argc ? argv[optind] : NULL);
    }
    if (optind >= argc) {
        return (int)dump_usage("no command given; see --help");
    }
    const struct dump_command *command = choose(argc, argv, &dump, given);
    return command == NULL ? DUMP_USAGE : run_in_child(command, &dump);
}
