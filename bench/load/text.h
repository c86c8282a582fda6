/*
 * The text of a piece of a prompt: tokens of four bytes, a space and three letters, made from the
 * piece's id and their place in it alone. So a piece is the same text wherever it occurs.
 */
#ifndef HASHTRIE_BENCH_TEXT_H
#define HASHTRIE_BENCH_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/random.h"

enum { TEXT_TOKEN_BYTES = 4, TEXT_LETTERS = 26 };

/* Ids travel as JSON numbers, in the field "seed" of a request: its answer is the text of that
 * piece. */
#define TEXT_ID_MAX ((UINT64_C(1) << 53) - 1)

/* Tokens 0 .. token_count - 1 of piece `id`, of which the lower 53 bits count; out has
 * token_count * TEXT_TOKEN_BYTES bytes. */
static inline void text_fill(uint64_t id, size_t token_count, char *out)
{
    struct random random = {(id & TEXT_ID_MAX) * UINT64_C(0xd1342543de82ef95)};
    for (size_t i = 0; i < token_count; i++) {
        uint64_t draw = random_next(&random);
        *out++ = ' ';
        for (int k = 0; k < TEXT_TOKEN_BYTES - 1; k++) {
            *out++ = (char)('a' + (char)((draw & 0xffff) * TEXT_LETTERS >> 16));
            draw >>= 16;
        }
    }
}

#endif
