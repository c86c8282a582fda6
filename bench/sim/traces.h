/* Recorded workloads, read from a folder that somebody has: see its README for the formats. */
#ifndef HASHTRIE_BENCH_SIM_TRACES_H
#define HASHTRIE_BENCH_SIM_TRACES_H

#include "base/span.h"
#include "bench/sim/generate.h"

enum { SIM_TRACE_BLOCK_TOKENS = 512 }; /* An id of a Mooncake trace. */

/* One real hour. rate: how many times as fast as it was; seconds: of the time as it was. */
sim_generator sim_mooncake;
/* Multi-agent sessions with their text. rate: requests a second on the average; all of them. */
sim_generator sim_magagent;
/* tau-airline: conversations of tool-using agents, which begin at random; rate: of conversations.
 */
sim_generator sim_airline;

/* Text of the request that was begun last, as pieces of 64 bytes named by what is in them (equal
 * text, equal id), the rest as a shorter one; 4 bytes a token. */
void sim_add_text(struct sim_workload *workload, struct span text);

#endif
