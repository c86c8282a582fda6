/*
 * What the fuzz targets share. Each fuzz_*.c is one target: libFuzzer's when built with
 * HASHTRIE_FUZZ, else a program that replays files (replay.c). A breach ends the process, by
 * REQUIRE(), a sanitizer or a signal.
 */
#ifndef HASHTRIE_TESTS_FUZZ_FUZZ_H
#define HASHTRIE_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input, taken from its front. Behind its end come zeros. */
struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

static inline uint32_t fuzz_take(struct fuzz_input *input)
{
    if (input->size == 0) {
        return 0;
    }
    input->size--;
    return *input->data++;
}

/* Big-endian, `bytes` of them. */
static inline uint64_t fuzz_take_number(struct fuzz_input *input, int bytes)
{
    uint64_t number = 0;
    for (int i = 0; i < bytes; i++) {
        number = number << 8 | fuzz_take(input);
    }
    return number;
}

#endif
