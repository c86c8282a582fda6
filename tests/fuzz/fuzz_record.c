/*
 * Records of the store from any bytes. Byte 0 picks the decoder; what follows is the value, tried
 * as it is and with its checksum put right, so that what lies behind the checksum is reached. What
 * is accepted comes back the same when it is written and read again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "fuzz/fuzz.h"
#include "store/record.h"

enum { SEED = 7 }; /* Prefix, row or id that the checksum is bound to. */

static void try_run(const uint8_t *bytes, size_t size)
{
    static uint32_t run[TRIE_RUN_LENGTH_MAX];
    static uint32_t again[TRIE_RUN_LENGTH_MAX];
    static unsigned char written[RUN_BYTES_MAX];
    uint32_t length = 0;
    if (record_decode_run(bytes, size, SEED, run, &length)) {
        uint32_t length_again = 0;
        REQUIRE(length > 0 && length <= TRIE_RUN_LENGTH_MAX);
        size_t written_size = record_encode_run(written, SEED, run, length);
        REQUIRE(record_decode_run(written, written_size, SEED, again, &length_again));
        REQUIRE(length == length_again && memcmp(run, again, length * sizeof *run) == 0);
    }
}

static void try_state(const uint8_t *bytes, size_t size)
{
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    struct trie_stored_holder holders_again[HASHTRIE_HOLDERS_MAX];
    unsigned char written[STATE_BYTES_MAX];
    struct trie_record state;
    struct trie_record again;
    bool fine = record_decode_state(bytes, size, SEED, &state, holders);
    REQUIRE(record_decode_state(bytes, size, SEED, &again, NULL) == fine);
    if (!fine) {
        return;
    }
    REQUIRE(state.length > 0 && state.length <= TRIE_RUN_LENGTH_MAX);
    REQUIRE(state.holder_count <= HASHTRIE_HOLDERS_MAX || state.holder_count == TRIE_HELD_BY_ALL);
    size_t written_size = record_encode_state(written, SEED, &state);
    REQUIRE(record_decode_state(written, written_size, SEED, &again, holders_again));
    REQUIRE(state.prefix == again.prefix && state.fp == again.fp && state.end == again.end);
    REQUIRE(state.depth == again.depth && state.length == again.length);
    REQUIRE(state.bucket == again.bucket && state.holder_count == again.holder_count);
    if (state.holder_count != TRIE_HELD_BY_ALL) {
        REQUIRE(memcmp(holders, holders_again, state.holder_count * sizeof *holders) == 0);
    }
}

static void try_endpoint(const uint8_t *bytes, size_t size)
{
    static struct record_endpoint out;
    static struct record_endpoint again;
    static unsigned char written[ENDPOINT_BYTES_MAX];
    if (!record_decode_endpoint(bytes, size, SEED, &out)) {
        return;
    }
    struct trie_endpoint endpoint = {.id = out.id,
                                     .odometer_kib = out.odometer_kib,
                                     .name = out.name,
                                     .model = out.model,
                                     .generation = out.generation};
    size_t written_size = record_encode_endpoint(written, &endpoint, out.seen_s);
    REQUIRE(record_decode_endpoint(written, written_size, SEED, &again));
    REQUIRE(strcmp(out.name, again.name) == 0);
    REQUIRE(out.odometer_kib == again.odometer_kib && out.seen_s == again.seen_s);
}

static void try_row_and_meta(const uint8_t *bytes, size_t size)
{
    uint64_t number = 0;
    uint64_t again = 0;
    unsigned char written[META_VALUE_SIZE];
    if (record_decode_row(bytes, size, &number)) {
        record_encode_row(written, number);
        REQUIRE(record_decode_row(written, ROW_VALUE_SIZE, &again) && number == again);
    }
    if (record_decode_meta(bytes, size, META_CHUNK_COUNT, &number)) {
        record_encode_meta(written, META_CHUNK_COUNT, number);
        REQUIRE(record_decode_meta(written, sizeof written, META_CHUNK_COUNT, &again));
        REQUIRE(number == again);
    }
}

static void try_all(uint32_t kind, const uint8_t *bytes, size_t size)
{
    switch (kind % 4) {
    case 0:
        try_run(bytes, size);
        break;
    case 1:
        try_state(bytes, size);
        break;
    case 2:
        try_endpoint(bytes, size);
        break;
    default:
        try_row_and_meta(bytes, size);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {.data = data, .size = size};
    uint32_t kind = fuzz_take(&input);
    try_all(kind, input.data, input.size);
    if (input.size > CHECKSUM_SIZE) {
        uint8_t *sealed = malloc(input.size);
        REQUIRE(sealed != NULL);
        memcpy(sealed, input.data, input.size);
        uint64_t sum = record_hash(sealed + CHECKSUM_SIZE, input.size - CHECKSUM_SIZE, SEED);
        for (int i = 0; i < CHECKSUM_SIZE; i++) {
            sealed[i] = (uint8_t)(sum >> 8 * i);
        }
        try_all(kind, sealed, input.size);
        free(sealed);
    }
    return 0;
}
