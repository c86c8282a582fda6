/*
 * What a request body asks of the mock engine: the prompt as a chat template would render it, the
 * tokens wanted, and the answer, which is made up of the prompt or of the field "seed" alone: equal
 * prompts get equal answers, whichever engine gives them.
 */
#ifndef HASHTRIE_BENCH_REQUEST_H
#define HASHTRIE_BENCH_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define REQUEST_PROMPT_BYTES_MAX ((size_t)256 << 20)
enum { REQUEST_TOKENS_MAX = 1000000 };

/* What kv_transfer_params say: whether the KV cache of the prompt goes to another engine, or comes
 * from one. */
enum request_transfer { REQUEST_STAYS, REQUEST_GOES_ON, REQUEST_COMES };

struct request_body {
    struct mem *mem;
    struct buf model;    /* As asked for. */
    struct buf text;     /* Prompt, then the answer from answer_start on. */
    size_t answer_start; /* Bytes of prompt. */
    uint64_t *hashes;    /* Of the blocks of `text`; owned. */
    size_t hash_count;
    size_t prompt_block_count; /* Of these, of the prompt alone. */
    size_t hash_capacity;
    uint64_t prompt_tokens;
    uint64_t seed; /* The answer is the text of this piece: bench/load/text.h. */
    uint64_t output_tokens;
    enum request_transfer transfer;
    bool is_chat;
    bool stream;
    bool include_usage;
    bool limited; /* The request named its number of tokens: it ends by "length". */
};

struct request_defaults {
    uint64_t output_tokens; /* Where the request names no number. */
    uint32_t block_tokens;  /* Of the blocks that are hashed. */
};

/* Call request_body_fini() in every case. NULL: fine; else the message of a 400 answer. */
const char *request_body_read(struct request_body *request, struct mem *mem, const char *bytes,
                              size_t size, bool is_chat, const struct request_defaults *defaults);
/* The name of one block of the prompt's KV cache: made of the prompt up to its end. */
uint32_t request_body_block(const struct request_body *request, size_t index);
void request_body_fini(struct request_body *request);

/* The bytes of one answer token. */
const char *request_body_token(const struct request_body *request, uint64_t index);

#endif
