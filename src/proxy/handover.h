/*
 * What the two engines of a disaggregated request are sent: made from the client's body and from
 * the prefill engine's answer, by leaving members out and putting others behind. The bodies are
 * never copied. Pure.
 *
 *     prefill   the client's body; but one token, whole, and its KV cache kept for another engine
 *     decode    the client's body, and the kv_transfer_params of that answer: where the cache is
 */
#ifndef HASHTRIE_PROXY_HANDOVER_H
#define HASHTRIE_PROXY_HANDOVER_H

#include "base/buf.h"
#include "json/json.h"

enum {
    /* Of the prefill engine's answer: the blocks of a prompt of a million tokens take half. */
    HANDOVER_ANSWER_BYTES_MAX = 1024 * 1024,
    HANDOVER_PARTS_MAX = JSON_PIECES_MAX + 1,
};

enum handover_status {
    HANDOVER_OK,
    HANDOVER_NONE,    /* The answer has no kv_transfer_params: decode has to prefill by itself. */
    HANDOVER_INVALID, /* It is no JSON object. */
    HANDOVER_NO_MEMORY,
};

struct handover {
    struct json_edit prefill; /* Borrow the client's body. */
    struct json_edit decode;
    struct buf params; /* What is put behind `decode`. */
};

void handover_init(struct handover *handover, struct mem *mem);
void handover_fini(struct handover *handover);

/* `body` has been parsed, its root is an object; it must stay where it is. False: the members that
 * have to go are in it too often. */
bool handover_read_body(struct handover *handover, const struct json_parser *body);
/* `host`: of the prefill engine as this router knows it, where its answer names none that other
 * machines could reach. After OK and NONE there is something to send to decode. */
enum handover_status handover_read_answer(struct handover *handover, struct span answer,
                                          const char *host);

/* The pieces of a body, in order; returns how many. */
size_t handover_prefill_parts(const struct handover *handover,
                              struct span parts[HANDOVER_PARTS_MAX]);
size_t handover_decode_parts(const struct handover *handover,
                             struct span parts[HANDOVER_PARTS_MAX]);

#endif
