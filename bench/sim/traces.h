/* Recorded workloads, read from a folder that somebody has: see its README for the formats. */
#ifndef HASHTRIE_BENCH_SIM_TRACES_H
#define HASHTRIE_BENCH_SIM_TRACES_H

#include "bench/sim/generate.h"

enum { SIM_TRACE_BLOCK_TOKENS = 512 }; /* An id of a Mooncake trace. */

/* One real hour. rate: how many times as fast as it was; seconds: of the time as it was. */
sim_generator sim_mooncake;
/* Multi-agent sessions with their text. rate: requests a second on the average; all of them. */
sim_generator sim_magagent;
/* tau-airline: conversations of tool-using agents, which begin at random; rate: of conversations.
 */
sim_generator sim_airline;

#endif
