/* What bench-sim can be told to do. */
#ifndef HASHTRIE_BENCH_SIM_COMMANDS_H
#define HASHTRIE_BENCH_SIM_COMMANDS_H

#include <stdint.h>

#include "bench/sim/cases.h"
#include "bench/sim/document.h"

enum { SIM_SEEDS_MAX = 99 };

struct sim_command {
    uint64_t seed;          /* The first one. */
    size_t seed_count;      /* As many as that follow. */
    const char *cases;      /* Names with commas between them; NULL: all. */
    const char *policies;   /* The same. */
    const char *traces_dir; /* NULL: none. */
    double seconds_factor;  /* Of every case's length. */
    struct document *document;
};

/* Every policy on every case. */
void sim_compare(const struct sim_command *command);
/* Figures of the Mooncake trace that are known: does the simulator find them? */
void sim_yardsticks(const struct sim_command *command);

/* Hits and latency against bytes of trie and store. */
void sim_memory(const struct sim_command *command);
/* The minutes after the router was killed, with its store and without. */
void sim_restart(const struct sim_command *command);

/* Is `name` in the list? NULL: all are. */
bool sim_is_named(const char *list, const char *name);
double sim_median(double *values, size_t count); /* Sorts them. count > 0. */

#endif
