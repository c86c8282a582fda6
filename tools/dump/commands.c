#include "dump/commands.h"

#include <string.h>

const struct dump_option dump_options[] = {
    {OPTION_JSON, "json", NULL, 0, "as JSON"},
    {OPTION_QUICK, "quick", NULL, 0, "leave out what needs a look at every node"},
    {OPTION_DEPTH, "depth", "N", DUMP_LEVELS_MAX, "levels of nodes shown, 1 to 64 (default 3)"},
    {OPTION_LIMIT, "limit", "N", DUMP_LIMIT_MAX,
     "nodes shown of each level, or differences shown, 1 to 1000 (default 10)"},
    {OPTION_TOP, "top", "N", DUMP_TOP_MAX,
     "instead of the tree, the first N nodes of the whole store, 1 to 10000"},
    {OPTION_BY, "by", "ORDER", 0, "order of --top: recency (default), bytes or holders"},
    {OPTION_PROMPT, "prompt", NULL, 0, "the input is a prompt's text, not a request's body"},
    {OPTION_MODEL, "model", "NAME", 0, "model to look under, instead of the request's"},
    {OPTION_ALIASES, "aliases", "ALIAS:MODEL,...", 0, "as the router's --static-aliases"},
    {OPTION_REPAIR, "repair", "OUT", 0,
     "write what can be read as a new, sound store into the folder OUT"},
    {OPTION_RENAME, "rename", "OLD=NEW", 0, "the engine at URL OLD is NEW here; may be repeated"},
    {OPTION_MAX_SIZE, "max-size", "SIZE", 0,
     "cap of the store's file (default: as it is, or 8GiB)"},
    {OPTION_INTERVAL, "interval", "SECONDS", 0, "time between looks, 0.1 to 3600 (default 2)"},
    {OPTION_COUNT, "count", "N", UINT32_MAX, "end after N looks"},
    {OPTION_HELP, "help", NULL, 0, "this text, or with a command all about it"},
    {OPTION_VERSION, "version", NULL, 0, "version and format of the store"},
};
const size_t dump_option_count = sizeof dump_options / sizeof *dump_options;

static const struct dump_command commands[] = {
    {"stats", dump_stats, OPTION_JSON | OPTION_QUICK, true, 1, 1, "DIR",
     "how much is in a store, how deep, how old, how full",
     "Depth, page fill, holders and ages need a look at every node; --quick leaves them out.\n"
     "Reloads are look-ups of what memory had lost, by all routers that had the store."},
    {"tree", dump_tree, OPTION_JSON | OPTION_DEPTH | OPTION_LIMIT | OPTION_TOP | OPTION_BY, true, 1,
     2, "DIR [HASH]", "namespaces and nodes, last used first",
     "With HASH, what is below it; its first digits do. A node is named by the hash of its last\n"
     "chunk; depth counts the chunks before it."},
    {"endpoints", dump_endpoints, OPTION_JSON | OPTION_QUICK, true, 1, 1, "DIR",
     "the engines it knows, how much each holds, and how old that is",
     "One line for each incarnation of an engine. SENT is its odometer: bytes of prompt sent\n"
     "to it that it did not hold. The columns of times give the share of its nodes that were\n"
     "last used within that time, and not within the one before."},
    {"lookup", dump_lookup, OPTION_JSON | OPTION_PROMPT | OPTION_MODEL | OPTION_ALIASES, true, 1, 2,
     "DIR [FILE]", "which engines hold how much of a request's prompt, node by node",
     "FILE, or standard input, holds the JSON body of a request as a client sends it; with\n"
     "--prompt a prompt's text, as a completion request would carry it. Exit status 1: the\n"
     "store knows nothing of it."},
    {"verify", dump_verify, OPTION_JSON | OPTION_REPAIR, false, 1, 1, "DIR",
     "checks every record and every link; can write a repaired copy",
     "--repair OUT reads the file page by page, without trusting any of it, and writes what is\n"
     "whole into the folder OUT, which must not hold a store; no router may have DIR open. The\n"
     "damaged file is not touched. Exit status 1: something was damaged."},
    {"diff", dump_diff, OPTION_JSON | OPTION_LIMIT, false, 2, 2, "DIR OTHER",
     "what is in one store and not in the other",
     "Nodes that only one has (- the first, + the second), whose runs differ, or whose holders\n"
     "differ by URL. Exit status 1: they differ."},
    {"snapshot", dump_snapshot, OPTION_JSON, false, 2, 2, "DIR OUT",
     "makes a consistent, compact copy, also while a router writes",
     "OUT is a new folder; it can be read as a store, and restored."},
    {"restore", dump_restore, OPTION_JSON, false, 2, 2, "SNAPSHOT DIR",
     "puts a snapshot in a store's place, after verifying it",
     "No router may have DIR open. The store that was there is kept as data.mdb.bad-TIME."},
    {"export", dump_export, OPTION_JSON, true, 1, 2, "DIR [FILE]",
     "writes the contents as a msgpack stream",
     "To standard output if no FILE is named; a FILE that is there is not overwritten. With\n"
     "--json an object a line, on standard output, for reading alone. src/store/FORMAT.md\n"
     "documents the stream."},
    {"import", dump_import, OPTION_JSON | OPTION_RENAME | OPTION_MAX_SIZE, false, 1, 2,
     "DIR [FILE]", "merges an exported stream into a store, making it if missing",
     "From standard input if no FILE is named. No router may have DIR open. A store of another\n"
     "chunk size is refused."},
    {"watch", dump_watch, OPTION_JSON | OPTION_INTERVAL | OPTION_COUNT, false, 1, 1, "DIR",
     "the figures, again and again, until Ctrl-C",
     "On a terminal one screen; else, or with --json, a line each time."},
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

const struct dump_command *dump_find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void print_options(unsigned bits)
{
    for (size_t i = 0; i < dump_option_count; i++) {
        if ((bits & dump_options[i].bit) != 0) {
            char left[DUMP_TEXT_BYTES];
            const char *value = dump_options[i].value;
            (void)snprintf(left, sizeof left, "--%s %s", dump_options[i].name,
                           value == NULL ? "" : value);
            (void)printf("  %-26s %s\n", left, dump_options[i].help);
        }
    }
}

static void print_all(void)
{
    (void)printf("usage: hashtrie-dump COMMAND [OPTIONS] DIR [ARGUMENT]\n\n"
                 "Looks into the store in DIR, also while a router runs on it.\n\n"
                 "commands:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        (void)printf("  %-10s %-13s %s\n", commands[i].name, commands[i].arguments,
                     commands[i].help);
    }
    (void)printf("\noptions:\n");
    print_options(OPTION_HELP | OPTION_VERSION);
    (void)printf("  of a command: see `hashtrie-dump COMMAND --help`\n\n"
                 "exit status: 0 fine, 1 faults or differences were found, or lookup found "
                 "nothing,\n2 wrong usage, 3 something could not be opened, read or written\n");
}

enum dump_exit dump_help(const char *name)
{
    if (name == NULL) {
        print_all();
        return DUMP_OK;
    }
    const struct dump_command *command = dump_find_command(name);
    if (command == NULL) {
        return dump_usage("no command %s; see --help", name);
    }
    (void)printf("usage: hashtrie-dump %s [OPTIONS] %s\n\n%s\n\n%s\n\noptions:\n", command->name,
                 command->arguments, command->help, command->details);
    print_options(command->options | OPTION_HELP);
    return DUMP_OK;
}
