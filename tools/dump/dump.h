/* hashtrie-dump: what its commands share. */
#ifndef HASHTRIE_TOOLS_DUMP_H
#define HASHTRIE_TOOLS_DUMP_H

#include <hashtrie/hashtrie.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/mem.h"

enum dump_exit {
    DUMP_OK = 0,
    DUMP_FAULTS = 1, /* verify: the store has faults. */
    DUMP_USAGE = 2,
    DUMP_CANNOT_OPEN = 3, /* Or cannot be read, or written to standard output. */
};

enum {
    DUMP_LEVELS_MAX = 64, /* Largest --depth: commands recurse that deep. */
    DUMP_LIMIT_MAX = 1000,
    DUMP_HASH_DIGITS = 12, /* Shown of a hash; enough to tell nodes apart and to ask for one. */
    DUMP_TEXT_BYTES = 64,
};

struct dump {
    struct mem mem;
    struct hashtrie_reader *reader;
    const char *directory;
    const char *argument; /* NULL: none. */
    bool json;
    uint32_t depth;
    uint32_t limit;
    uint64_t now_s;
    uint64_t progress_ns; /* When progress was shown last; 0: not yet. */
    uint64_t start_ns;
    bool progress_shown;
};

enum dump_exit dump_stats(struct dump *dump);
enum dump_exit dump_tree(struct dump *dump);
enum dump_exit dump_endpoints(struct dump *dump);
enum dump_exit dump_verify(struct dump *dump);

/* ---- format.c ---- */

/* "1.5 GiB" */
void dump_format_bytes(char text[DUMP_TEXT_BYTES], uint64_t bytes);
/* "1,234,567" */
void dump_format_count(char text[DUMP_TEXT_BYTES], uint64_t count);
/* "5s", "3m", "2h", "4d": how long before now; "-" for no time at all. */
void dump_format_age(char text[DUMP_TEXT_BYTES], uint64_t now_s, uint64_t then_s);
/* "2026-08-05 12:00:00 UTC" */
void dump_format_time(char text[DUMP_TEXT_BYTES], uint64_t unix_s);
/* Text from the store: control characters become '?'. */
void dump_print_text(const char *text);
/* On a terminal, once the command takes over a second. `what` in plain words. */
void dump_progress(struct dump *dump, const char *what, uint64_t done, uint64_t total);
void dump_progress_end(struct dump *dump);
/* Says on standard error why the store cannot be read. Returns DUMP_CANNOT_OPEN. */
enum dump_exit dump_cannot(const struct dump *dump, enum hashtrie_status status);
/* Writes the buffer and a newline. */
enum dump_exit dump_write_json(struct buf *buf, bool complete);

#endif
