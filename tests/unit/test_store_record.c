/* Records: what goes in comes out, and no bytes whatever crash or deceive a decoder. */
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "store/record.h"
#include "support/test.h"

struct sample {
    struct trie_record record;
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
};

/* Small and large numbers alike, so that every msgpack width occurs. */
static uint64_t some_number(struct random *random, unsigned bits)
{
    return random_next(random) >> (64 - bits + random_below(random, bits));
}

static void make_sample(struct sample *sample, struct random *random)
{
    struct trie_record *record = &sample->record;
    *record = (struct trie_record){.prefix = some_number(random, 64),
                                   .depth = (uint32_t)some_number(random, 18),
                                   .length = 1 + random_below(random, TRIE_RUN_LENGTH_MAX),
                                   .bucket = (uint32_t)some_number(random, 32),
                                   .run = sample->run,
                                   .holders = sample->holders};
    for (uint32_t i = 0; i < record->length; i++) {
        sample->run[i] = (uint32_t)random_next(random);
    }
    record->fp = sample->run[0];
    record->end = random_next(random) << 32 | sample->run[record->length - 1];
    record->holder_count = random_below(random, HASHTRIE_HOLDERS_MAX + 1);
    for (uint32_t i = 0; i < record->holder_count; i++) {
        sample->holders[i] =
            (struct trie_stored_holder){.id = (uint32_t)some_number(random, 32),
                                        .last_used_s = (uint32_t)some_number(random, 32),
                                        .odometer_kib = (uint32_t)some_number(random, 32)};
    }
    if (random_below(random, 10) == 0) {
        record->holder_count = TRIE_HELD_BY_ALL;
    }
}

static void runs_come_back(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    for (int i = 0; i < 300; i++) {
        struct sample sample;
        unsigned char bytes[RUN_BYTES_MAX];
        uint32_t run[TRIE_RUN_LENGTH_MAX];
        uint32_t length = 0;
        make_sample(&sample, &random);
        const struct trie_record *record = &sample.record;
        size_t size = record_encode_run(bytes, record->prefix, record->run, record->length);
        assert_true(size <= RUN_BYTES_MAX);
        assert_true(record_decode_run(bytes, size, record->prefix, run, &length));
        assert_int_equal(length, record->length);
        assert_memory_equal(run, record->run, length * sizeof *run);
        assert_true(record_run_fits(record, run, length));
        assert_false(record_decode_run(bytes, size, record->prefix + 1, run, &length));
    }
}

static void states_come_back(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    for (int i = 0; i < 1000; i++) {
        struct sample sample;
        unsigned char bytes[STATE_BYTES_MAX];
        struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
        struct trie_record out;
        make_sample(&sample, &random);
        const struct trie_record *record = &sample.record;
        uint64_t row = random_next(&random);
        size_t size = record_encode_state(bytes, row, record);
        assert_true(size <= STATE_BYTES_MAX);
        assert_true(record_decode_state(bytes, size, row, &out, holders));
        assert_true(out.prefix == record->prefix && out.end == record->end &&
                    out.fp == record->fp && out.depth == record->depth &&
                    out.length == record->length && out.bucket == record->bucket);
        assert_int_equal(out.holder_count, record->holder_count);
        if (out.holder_count != TRIE_HELD_BY_ALL) {
            assert_memory_equal(holders, record->holders, out.holder_count * sizeof *holders);
        }
        assert_true(record_decode_state(bytes, size, row, &out, NULL));
        assert_false(record_decode_state(bytes, size, row + 1, &out, holders));
    }
}

/* The bytes are msgpack as others read it. */
static void states_are_msgpack(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    struct sample sample;
    unsigned char bytes[STATE_BYTES_MAX];
    make_sample(&sample, &random);
    sample.record.holder_count = 2;
    size_t size = record_encode_state(bytes, 5, &sample.record);
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    assert_int_equal(msgpack_unpack_next(&unpacked, (const char *)bytes + CHECKSUM_SIZE,
                                         size - CHECKSUM_SIZE, NULL),
                     MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(unpacked.data.type, MSGPACK_OBJECT_ARRAY);
    const msgpack_object *fields = unpacked.data.via.array.ptr;
    assert_int_equal(unpacked.data.via.array.size, 8);
    assert_int_equal(fields[0].via.u64, RECORD_VERSION);
    assert_true(fields[1].via.u64 == sample.record.prefix);
    assert_true(fields[3].via.u64 == sample.record.end);
    assert_int_equal(fields[7].via.array.size, 6);
    msgpack_unpacked_destroy(&unpacked);
}

static void endpoints_come_back(void **state)
{
    (void)state;
    struct record_endpoint *out = malloc(sizeof *out);
    assert_non_null(out);
    char longest[ENDPOINT_TEXT_BYTES_MAX + 1];
    memset(longest, 'x', ENDPOINT_TEXT_BYTES_MAX);
    longest[ENDPOINT_TEXT_BYTES_MAX] = '\0';
    struct trie_endpoint endpoint = {.id = 9,
                                     .odometer_kib = UINT32_MAX,
                                     .name = "http://engine:8000",
                                     .model = "meta/llama",
                                     .generation = "1700000000.5"};
    unsigned char bytes[ENDPOINT_BYTES_MAX];
    size_t size = record_encode_endpoint(bytes, &endpoint, 1700000001);
    assert_true(record_decode_endpoint(bytes, size, 9, out));
    assert_string_equal(out->name, endpoint.name);
    assert_string_equal(out->model, endpoint.model);
    assert_string_equal(out->generation, endpoint.generation);
    assert_true(out->odometer_kib == UINT32_MAX && out->seen_s == 1700000001);
    assert_false(record_decode_endpoint(bytes, size, 10, out));
    endpoint.name = longest; /* Three of them do not fit: the model is left out first. */
    endpoint.model = longest;
    size = record_encode_endpoint(bytes, &endpoint, 1);
    assert_true(record_decode_endpoint(bytes, size, 9, out));
    assert_string_equal(out->name, longest);
    assert_string_equal(out->model, "");
    assert_string_equal(out->generation, endpoint.generation);
    free(out);
}

/* Every decoder on one piece of bytes. The copy is exactly as large, so that a sanitizer sees a
 * read behind it. Returns whether any took it. */
static bool any_takes(const unsigned char *bytes, size_t size, uint64_t prefix, uint64_t row)
{
    unsigned char *copy = malloc(size == 0 ? 1 : size);
    struct record_endpoint *endpoint = malloc(sizeof *endpoint);
    assert_non_null(copy);
    assert_non_null(endpoint);
    memcpy(copy, bytes, size);
    uint32_t run[TRIE_RUN_LENGTH_MAX];
    uint32_t length = 0;
    struct trie_record record;
    struct trie_stored_holder holders[HASHTRIE_HOLDERS_MAX];
    uint64_t number = 0;
    bool taken = record_decode_run(copy, size, prefix, run, &length);
    taken = record_decode_state(copy, size, row, &record, holders) || taken;
    taken = record_decode_endpoint(copy, size, (uint32_t)row, endpoint) || taken;
    taken = record_decode_meta(copy, size, META_FORMAT, &number) || taken;
    free(endpoint);
    free(copy);
    return taken;
}

static void flip_and_cut(unsigned char *bytes, size_t size, uint64_t prefix, uint64_t row)
{
    assert_true(any_takes(bytes, size, prefix, row));
    for (size_t cut = 0; cut < size; cut++) {
        assert_false(any_takes(bytes, cut, prefix, row));
    }
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        assert_false(any_takes(bytes, size, prefix, row));
        bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
    }
}

static void every_cut_and_every_flipped_bit_is_seen(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    struct sample sample;
    unsigned char bytes[RUN_BYTES_MAX];
    make_sample(&sample, &random);
    sample.record.length = 40;
    sample.record.holder_count = 5;
    size_t size = record_encode_run(bytes, sample.record.prefix, sample.run, 40);
    flip_and_cut(bytes, size, sample.record.prefix, 3);
    size = record_encode_state(bytes, 3, &sample.record);
    flip_and_cut(bytes, size, 0, 3);
    struct trie_endpoint endpoint = {.id = 3, .name = "http://a", .model = "m", .generation = "g"};
    size = record_encode_endpoint(bytes, &endpoint, 77);
    flip_and_cut(bytes, size, 0, 3);
    record_encode_meta(bytes, META_FORMAT, 1);
    flip_and_cut(bytes, META_VALUE_SIZE, 0, 3);
}

static void put_checksum(unsigned char *bytes, size_t size, uint64_t seed)
{
    uint64_t hash = record_hash(bytes + CHECKSUM_SIZE, size - CHECKSUM_SIZE, seed);
    for (int i = 0; i < CHECKSUM_SIZE; i++) {
        bytes[i] = (unsigned char)(hash >> (8 * i));
    }
}

/* With a checksum that is right, so that the bounds alone stand between the bytes and the decoder.
 */
static void hostile_bytes_never_crash(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    struct sample sample;
    unsigned char bytes[RUN_BYTES_MAX + 64];
    for (int i = 0; i < 60000; i++) {
        size_t size = random_below(&random, 200);
        if (i % 3 == 0) { /* A state with a few bytes changed. */
            make_sample(&sample, &random);
            sample.record.holder_count = random_below(&random, 9);
            size = record_encode_state(bytes, 3, &sample.record);
            for (int j = 0; j < 3; j++) {
                size_t at = CHECKSUM_SIZE + random_below(&random, (uint32_t)size - CHECKSUM_SIZE);
                bytes[at] = (unsigned char)random_next(&random);
            }
        } else {
            for (size_t j = 0; j < size; j++) {
                bytes[j] = (unsigned char)random_next(&random);
            }
            if (size > CHECKSUM_SIZE && i % 3 == 1) {
                bytes[CHECKSUM_SIZE] = (unsigned char)(0x90 + random_below(&random, 16));
            }
        }
        if (size > CHECKSUM_SIZE) {
            put_checksum(bytes, size, 3);
        }
        (void)any_takes(bytes, size, 3, 3);
    }
}

static void bounds_hold_behind_a_right_checksum(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    struct sample sample;
    unsigned char bytes[STATE_BYTES_MAX + 8];
    struct trie_record out;
    make_sample(&sample, &random);
    sample.record.holder_count = 1;
    sample.record.depth = HASHTRIE_CHUNK_COUNT_MAX - 1;
    sample.record.length = 2; /* Ends one too deep. */
    size_t size = record_encode_state(bytes, 3, &sample.record);
    assert_false(record_decode_state(bytes, size, 3, &out, NULL));
    sample.record.length = 1;
    size = record_encode_state(bytes, 3, &sample.record);
    assert_true(record_decode_state(bytes, size, 3, &out, NULL));
    bytes[size] = 0; /* One byte more. */
    put_checksum(bytes, size + 1, 3);
    assert_false(record_decode_state(bytes, size + 1, 3, &out, NULL));
}

static void keys_sort_as_they_should(void **state)
{
    (void)state;
    unsigned char old_shallow[AGE_KEY_SIZE];
    unsigned char old_deep[AGE_KEY_SIZE];
    unsigned char newer[AGE_KEY_SIZE];
    record_age_key(old_shallow, 5, 0, 1);
    record_age_key(old_deep, 5, 300, 99);
    record_age_key(newer, 6, 0xfffff, 0);
    assert_true(memcmp(old_deep, old_shallow, AGE_KEY_SIZE) < 0); /* Deepest first. */
    assert_true(memcmp(old_shallow, newer, AGE_KEY_SIZE) < 0);
    unsigned char edge[EDGE_KEY_SIZE];
    record_edge_key(edge, UINT64_C(0x0102030405060708), UINT32_C(0x090a0b0c));
    for (unsigned i = 0; i < EDGE_KEY_SIZE; i++) {
        assert_int_equal(edge[i], i + 1);
    }
    assert_true(record_get_u64(edge) == UINT64_C(0x0102030405060708));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_come_back),
        cmocka_unit_test(states_come_back),
        cmocka_unit_test(states_are_msgpack),
        cmocka_unit_test(endpoints_come_back),
        cmocka_unit_test(every_cut_and_every_flipped_bit_is_seen),
        cmocka_unit_test(hostile_bytes_never_crash),
        cmocka_unit_test(bounds_hold_behind_a_right_checksum),
        cmocka_unit_test(keys_sort_as_they_should),
    };
    return cmocka_run_group_tests_name("store records", tests, NULL, NULL);
}
