/* Chat bodies as coding agents send them, and what the `agent` workload compares itself to. */
#ifndef HASHTRIE_BENCH_TRIE_AGENT_H
#define HASHTRIE_BENCH_TRIE_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { AGENT_PADDING = 64 }; /* Readable bytes behind each body, as simdjson's DOM wants them. */

/* ---- agent_dom.cc: simdjson alone ---- */

struct agent_dom;

struct agent_dom *agent_dom_new(size_t size_max); /* NULL: no memory. */
void agent_dom_free(struct agent_dom *dom);
bool agent_dom_parse(struct agent_dom *dom, const char *body, size_t size);
/* Its first stage alone: where the tokens are. */
bool agent_dom_index(struct agent_dom *dom, const char *body, size_t size);

#ifdef __cplusplus
}
#else

#include "base/buf.h"
#include "base/random.h"

struct agent_body {
    size_t offset; /* In the bodies' bytes; AGENT_PADDING bytes follow it. */
    size_t size;
};

struct agent_bodies {
    struct buf bytes;
    struct agent_body *list;
    size_t count;
};

/* How a client writes JSON. */
enum agent_style {
    AGENT_COMPACT, /* JSON.stringify and today's Python clients: UTF-8 as it is, no blanks. */
    AGENT_ASCII,   /* json.dumps(): \uXXXX for all that is not ASCII, blanks behind `,` and `:`. */
};

/* ---- agent_bodies.c ---- */

void agent_bodies_init(struct agent_bodies *bodies, struct mem *mem);
void agent_bodies_fini(struct agent_bodies *bodies);
/* What stands in `bytes` from `offset` on is one more body. */
void agent_bodies_add(struct agent_bodies *bodies, size_t offset);
/* Conversations whose first bodies have 100 KB to 3.5 MB, 400 KB in the median, each followed by
 * bodies with more turns. */
void agent_bodies_generate(struct agent_bodies *bodies, uint64_t seed, enum agent_style style);

/* ---- agent_traces.c ---- */

/* DIR/conversations.jsonl: everything before an assistant's message is one body. Ends the program
 * if that cannot be read. */
void agent_bodies_load(struct agent_bodies *bodies, const char *dir);

#endif
#endif
