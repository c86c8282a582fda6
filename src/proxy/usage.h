/*
 * The `usage` that an answer ends with: how many tokens the engine says it took. Read from the last
 * bytes as they pass, without parsing the answer: inside of JSON's strings the quotes of "usage":
 * are escaped, so it is found in no text. What is not there, or looks otherwise, is not known.
 * Pure.
 */
#ifndef HASHTRIE_PROXY_USAGE_H
#define HASHTRIE_PROXY_USAGE_H

#include <stdint.h>

#include "base/span.h"

enum { USAGE_BYTES_MAX = 2048 /* It begins at most so far from the end. */ };

/* OpenAI's names; Responses and Anthropic's Messages call them input, output and cache_read. */
struct usage {
    uint64_t prompt_tokens; /* 0: not said, as the next one. */
    uint64_t completion_tokens;
    uint64_t cached_tokens; /* Of the prompt, found in the engine's prefix cache. */
    bool has_cached;
};

/* Finds the last `usage` object and takes over what it says; the rest of *usage stays, since
 * streams tell it in parts. False: none is there. */
bool usage_read(struct span text, struct usage *usage);

#endif
