/* hashtrie-dump: what its commands share. */
#ifndef HASHTRIE_TOOLS_DUMP_H
#define HASHTRIE_TOOLS_DUMP_H

#include <hashtrie/hashtrie.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/mem.h"
#include "json/json.h"

enum dump_exit {
    DUMP_OK = 0,
    DUMP_FAULTS = 1, /* Faults or differences were found, or lookup found nothing. */
    DUMP_USAGE = 2,
    DUMP_CANNOT = 3, /* Something could not be opened, read or written. */
};

enum {
    DUMP_LEVELS_MAX = 64, /* Largest --depth: commands recurse that deep. */
    DUMP_LIMIT_MAX = 1000,
    DUMP_TOP_MAX = 10000,
    DUMP_HASH_DIGITS = 12, /* Shown of a hash; enough to tell nodes apart and to ask for one. */
    DUMP_TEXT_BYTES = 64,
    DUMP_ARGUMENTS_MAX = 2,
    DUMP_RENAMES_MAX = 1000,
    DUMP_INTERVAL_MIN_MS = 100,
    DUMP_INTERVAL_MAX_MS = 3600000,
};

/* Around a screen that is drawn over: without the cursor. */
#define DUMP_SCREEN_BEGIN "\033[?25l\033[2J\033[H"
#define DUMP_SCREEN_END   "\033[?25h"

enum dump_order { DUMP_BY_RECENCY, DUMP_BY_BYTES, DUMP_BY_HOLDERS };

/* As given by options; each command takes some. */
struct dump_options {
    bool json;
    bool quick;
    bool prompt; /* The input is a prompt's text, not a request's body. */
    uint32_t depth;
    uint32_t limit;
    uint32_t top; /* 0: not given. */
    enum dump_order by;
    uint32_t interval_ms;
    uint32_t count;     /* 0: without end. */
    uint64_t max_bytes; /* 0: not given. */
    const char *repair; /* NULL: not given, as the next two. */
    const char *model;
    const char *aliases;
    const char *renames[DUMP_RENAMES_MAX];
    size_t rename_count;
};

struct dump {
    struct mem mem;
    struct hashtrie_reader *reader; /* Of the first argument; NULL for commands that open none. */
    const char *arguments[DUMP_ARGUMENTS_MAX]; /* NULL: not given. */
    struct dump_options options;
    bool colour;
    uint64_t now_s;
    uint64_t progress_ns; /* When progress was shown last; 0: not yet. */
    uint64_t start_ns;
    bool progress_shown;
    struct buf out; /* JSON on its way to standard output. */
    struct json_writer json;
};

enum dump_exit dump_stats(struct dump *dump);
enum dump_exit dump_tree(struct dump *dump);
enum dump_exit dump_endpoints(struct dump *dump);
enum dump_exit dump_lookup(struct dump *dump);
enum dump_exit dump_verify(struct dump *dump);
enum dump_exit dump_diff(struct dump *dump);
enum dump_exit dump_snapshot(struct dump *dump);
enum dump_exit dump_restore(struct dump *dump);
enum dump_exit dump_export(struct dump *dump);
enum dump_exit dump_import(struct dump *dump);
enum dump_exit dump_watch(struct dump *dump);

/* ---- top.c: tree --top ---- */

enum dump_exit dump_top(struct dump *dump);

/* ---- names.c: names of endpoints by id ---- */

struct dump_name;

struct dump_names {
    struct mem *mem;
    struct dump_name *list; /* Owned, by id. */
    size_t count;
    size_t capacity;
};

enum hashtrie_status dump_names_read(struct dump_names *names, struct mem *mem,
                                     struct hashtrie_reader *reader);
void dump_names_free(struct dump_names *names);
/* NULL: no such endpoint; it went, or its engine has restarted. */
const char *dump_names_find(const struct dump_names *names, uint32_t id);
/* "URL", or "#7 (gone)". */
void dump_print_name(const struct dump_names *names, uint32_t id);
/* "URL 5m, URL 2h, 3 more", "all" or "-". */
void dump_print_holders(const struct dump *dump, const struct dump_names *names,
                        const struct hashtrie_reader_node *node);
/* The node as members of the JSON object that is open. */
void dump_json_node(struct dump *dump, const struct dump_names *names,
                    const struct hashtrie_reader_node *node);

/* ---- ages.c: how long ago, in classes ---- */

enum { DUMP_AGE_CLASSES = 6 };

struct dump_ages {
    uint64_t count[DUMP_AGE_CLASSES];
};

const char *dump_age_name(size_t class); /* "1h", ..: below that; the last has no bound: "older". */
void dump_ages_add(struct dump_ages *ages, uint64_t now_s, uint64_t then_s);
void dump_json_ages(struct dump *dump, const char *key, const struct dump_ages *ages);

/* ---- format.c ---- */

/* "1.5 GiB" */
void dump_format_bytes(char text[DUMP_TEXT_BYTES], uint64_t bytes);
/* "1,234,567" */
void dump_format_count(char text[DUMP_TEXT_BYTES], uint64_t count);
/* "5s", "3m", "2h", "4d": how long before now; "-" for no time at all. */
void dump_format_age(char text[DUMP_TEXT_BYTES], uint64_t now_s, uint64_t then_s);
/* "2026-08-05 12:00:00 UTC" */
void dump_format_time(char text[DUMP_TEXT_BYTES], uint64_t unix_s);
/* What is shown of a hash, DUMP_HASH_DIGITS digits. */
uint64_t dump_hash_shown(uint64_t hash);
/* Lines of a name and a value, in columns. */
void dump_print_value(const char *name, const char *value);
void dump_print_count(const char *name, uint64_t count);
void dump_print_bytes(const char *name, uint64_t bytes);
/* Text from the store: control characters become '?'. */
void dump_print_text(const char *text);
/* The same, filled up to `columns`. */
void dump_print_column(const char *text, int columns);

enum dump_style { DUMP_PLAIN, DUMP_BOLD, DUMP_RED, DUMP_GREEN, DUMP_DIM };
/* What switches to a style; "" without colour. */
const char *dump_style(const struct dump *dump, enum dump_style style);

/* On a terminal, once the command takes over a second. `what` in plain words; total 0: unknown. */
void dump_progress(struct dump *dump, const char *what, uint64_t done, uint64_t total);
void dump_progress_end(struct dump *dump);

/* Says on standard error why the store cannot be read. Returns DUMP_CANNOT. */
enum dump_exit dump_cannot(const struct dump *dump, enum hashtrie_status status);
/* The same for anything: "hashtrie-dump: cannot WHAT: why". */
enum dump_exit dump_cannot_do(const char *what, enum hashtrie_status status);
/* On standard error, if a running router may disturb. */
void dump_warn_lockless(const struct hashtrie_reader_info *info);
void dump_warn_damaged(void); /* On standard error: some nodes were left out. */
__attribute__((format(printf, 1, 2))) enum dump_exit dump_usage(const char *format, ...);

/* ---- JSON on standard output ---- */

/* Between items: writes out what has come together. */
void dump_json_flush(struct dump *dump);
void dump_json_number(struct dump *dump, const char *key, uint64_t number);
void dump_json_text(struct dump *dump, const char *key, const char *text);
void dump_json_hash(struct dump *dump, const char *key, uint64_t hash); /* As 16 hex digits. */
/* The rest, and a newline. DUMP_CANNOT: there was no memory. */
enum dump_exit dump_json_end(struct dump *dump);

#endif
