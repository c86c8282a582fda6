/*
 * Records of an exported stream from any bytes, as they are and with their seal put right. What is
 * accepted comes back the same when it is written and read again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "fuzz/fuzz.h"
#include "store/stream.h"

enum { SEAL_BYTES = 9 };

static size_t write_again(const struct stream_record *record, unsigned char *to)
{
    uint64_t chain = 0;
    switch (record->kind) {
    case STREAM_HEADER:
        return stream_encode_header(to, &record->header, &chain);
    case STREAM_ENDPOINT:
        return stream_encode_endpoint(to, &record->endpoint, &chain);
    case STREAM_NODE:
        return stream_encode_node(to, &record->node, &chain);
    case STREAM_END:
        break;
    }
    return stream_encode_end(to, &record->end, &chain);
}

static void try_record(const uint8_t *bytes, size_t size)
{
    static struct stream_record record;
    static struct stream_record again;
    static unsigned char written[STREAM_RECORD_BYTES_MAX];
    static unsigned char twice[STREAM_RECORD_BYTES_MAX];
    uint64_t chain = 0;
    size_t taken = stream_decode(bytes, size, &chain, &record);
    if (taken == 0) {
        return;
    }
    REQUIRE(taken <= size);
    size_t written_size = write_again(&record, written);
    chain = 0;
    REQUIRE(stream_decode(written, written_size, &chain, &again) == written_size);
    REQUIRE(again.kind == record.kind);
    REQUIRE(write_again(&again, twice) == written_size);
    REQUIRE(memcmp(written, twice, written_size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_record(data, size);
    uint8_t *sealed = malloc(size + SEAL_BYTES);
    REQUIRE(sealed != NULL);
    if (size > 0) {
        memcpy(sealed, data, size);
        sealed[size] = 0xcf;
        record_put_u64(sealed + size + 1, record_hash(data, size, 0));
        try_record(sealed, size + SEAL_BYTES);
    }
    free(sealed);
    return 0;
}
