/* The tables of commands and options: what main.c parses, --help shows and tests compare the
 * manual page and the shell completion with. */
#ifndef HASHTRIE_TOOLS_COMMANDS_H
#define HASHTRIE_TOOLS_COMMANDS_H

#include "dump/dump.h"

enum {
    DUMP_OPTIONS_MAX = 32,
    DUMP_DEPTH_DEFAULT = 3,
    DUMP_LIMIT_DEFAULT = 10,
    DUMP_INTERVAL_DEFAULT_MS = 2000,
};

enum dump_option_bit {
    OPTION_JSON = 1 << 0,
    OPTION_QUICK = 1 << 1,
    OPTION_DEPTH = 1 << 2,
    OPTION_LIMIT = 1 << 3,
    OPTION_TOP = 1 << 4,
    OPTION_BY = 1 << 5,
    OPTION_PROMPT = 1 << 6,
    OPTION_MODEL = 1 << 7,
    OPTION_ALIASES = 1 << 8,
    OPTION_REPAIR = 1 << 9,
    OPTION_RENAME = 1 << 10,
    OPTION_MAX_SIZE = 1 << 11,
    OPTION_INTERVAL = 1 << 12,
    OPTION_COUNT = 1 << 13,
    OPTION_HELP = 1 << 14,
    OPTION_VERSION = 1 << 15,
};

struct dump_option {
    enum dump_option_bit bit;
    const char *name;
    const char *value; /* What stands behind it; NULL: nothing. */
    uint64_t max;      /* Of a number. */
    const char *help;
};

struct dump_command {
    const char *name;
    enum dump_exit (*run)(struct dump *dump);
    unsigned options; /* Bits of enum dump_option_bit. */
    bool opens;       /* The first argument is a store to be opened before it is run. */
    size_t arguments_min;
    size_t arguments_max;
    const char *arguments;
    const char *help;    /* A line. */
    const char *details; /* What --help adds. */
};

extern const struct dump_option dump_options[];
extern const size_t dump_option_count;

const struct dump_command *dump_find_command(const char *name); /* NULL: there is none. */
/* All commands, or of one command all about it. */
enum dump_exit dump_help(const char *name);

#endif
