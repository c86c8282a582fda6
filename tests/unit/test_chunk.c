#include <string.h>

#include "hashtrie/chunk.h"

#include "base/random.h"
#include "support/test.h"

enum { BYTES = 5000, HASHES = 100 };

static void fill(unsigned char *bytes, size_t size, struct random *random)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)random_next(random);
    }
}

static void only_whole_chunks_count(void **state)
{
    (void)state;
    unsigned char bytes[BYTES] = {0};
    uint64_t hashes[HASHES];
    assert_int_equal(hashtrie_hash_chunks(1, bytes, 0, 128, hashes, HASHES), 0);
    assert_int_equal(hashtrie_hash_chunks(1, bytes, 127, 128, hashes, HASHES), 0);
    assert_int_equal(hashtrie_hash_chunks(1, bytes, 128, 128, hashes, HASHES), 1);
    assert_int_equal(hashtrie_hash_chunks(1, bytes, 1000, 128, hashes, HASHES), 7);
    assert_int_equal(hashtrie_hash_chunks(1, bytes, 1000, 128, hashes, 3), 3);
}

/* The file format depends on these: they must never change within a format version. */
static void hashes_are_what_they_always_were(void **state)
{
    (void)state;
    unsigned char bytes[256];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)i;
    }
    uint64_t hashes[2];
    uint64_t name = hashtrie_hash_namespace("model", 5);
    assert_int_equal(hashtrie_hash_chunks(name, bytes, sizeof bytes, 128, hashes, 2), 2);
    assert_int_equal(name, UINT64_C(0xcc1a2202eea428b0));
    assert_int_equal(hashes[0], UINT64_C(0x4957be8db503abda));
    assert_int_equal(hashes[1], UINT64_C(0xf288c1cb5e595266));
}

static void a_chain_depends_on_all_before(void **state)
{
    (void)state;
    struct random random = {.state = 1};
    unsigned char bytes[BYTES];
    fill(bytes, sizeof bytes, &random);
    uint64_t before[HASHES];
    uint64_t after[HASHES];
    size_t count = hashtrie_hash_chunks(7, bytes, BYTES, 64, before, HASHES);
    bytes[64 * 10] ^= 1;
    assert_int_equal(hashtrie_hash_chunks(7, bytes, BYTES, 64, after, HASHES), count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(before[i] == after[i], i < 10);
    }
}

static void pieces_make_no_difference(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    unsigned char bytes[BYTES];
    fill(bytes, sizeof bytes, &random);
    const size_t sizes[] = {64, 128, 136, 4096};
    for (int round = 0; round < 2000; round++) {
        size_t chunk_size = sizes[random_below(&random, 4)];
        size_t size = random_below(&random, BYTES + 1);
        size_t room = random_below(&random, HASHES);
        uint64_t whole[HASHES];
        uint64_t pieces[HASHES];
        size_t count = hashtrie_hash_chunks(3, bytes, size, chunk_size, whole, room);
        struct hashtrie_hasher hasher;
        hashtrie_hasher_init(&hasher, 3, chunk_size, pieces, room);
        for (size_t at = 0; at < size;) {
            size_t part = 1 + random_below(&random, 300);
            part = part < size - at ? part : size - at;
            hashtrie_hasher_update(&hasher, bytes + at, part);
            at += part;
        }
        assert_int_equal(hasher.count, count);
        assert_int_equal(hasher.bytes, size);
        assert_memory_equal(whole, pieces, count * sizeof *whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_whole_chunks_count),
        cmocka_unit_test(hashes_are_what_they_always_were),
        cmocka_unit_test(a_chain_depends_on_all_before),
        cmocka_unit_test(pieces_make_no_difference),
    };
    return cmocka_run_group_tests_name("chunk", tests, NULL, NULL);
}
