#include "store/record.h"

#include <assert.h>
#include <string.h>

/* Inlined, as in chunk/: the library then needs no libxxhash at run time. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/check.h"
#include "store/wire.h"

enum {
    STATE_FIELDS = 8,
    ENDPOINT_FIELDS = 6,
    HOLDER_FIELDS = 3,
    ENDPOINT_FIXED_BYTES = 64, /* Of an endpoint's record, all but the texts. */
};

static_assert(RUN_BYTES_MAX <= 4080, "a run fits an overflow page of 4 KiB less its header");
static_assert(ENDPOINT_TEXT_BYTES_MAX + ENDPOINT_FIXED_BYTES <= ENDPOINT_BYTES_MAX,
              "a name always fits");

/* ---- Integers ---- */

void record_put_u32(unsigned char *to, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        to[i] = (unsigned char)(value >> (24 - 8 * i));
    }
}

void record_put_u64(unsigned char *to, uint64_t value)
{
    record_put_u32(to, (uint32_t)(value >> 32));
    record_put_u32(to + 4, (uint32_t)value);
}

uint32_t record_get_u32(const unsigned char *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

uint64_t record_get_u64(const unsigned char *from)
{
    return (uint64_t)record_get_u32(from) << 32 | record_get_u32(from + 4);
}

static void put_le(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        to[i] = (unsigned char)(value >> (8 * i));
    }
}

static uint64_t get_le(const unsigned char *from, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)from[i] << (8 * i);
    }
    return value;
}

void record_edge_key(unsigned char key[EDGE_KEY_SIZE], uint64_t prefix, uint32_t fp)
{
    record_put_u64(key, prefix);
    record_put_u32(key + 8, fp);
}

void record_age_key(unsigned char key[AGE_KEY_SIZE], uint32_t bucket, uint32_t depth, uint64_t row)
{
    record_put_u32(key, bucket);
    record_put_u32(key + 4, ~depth);
    record_put_u64(key + 8, row);
}

void record_encode_row(unsigned char value[ROW_VALUE_SIZE], uint64_t row)
{
    put_le(value, row, ROW_VALUE_SIZE);
}

bool record_decode_row(const void *bytes, size_t size, uint64_t *row)
{
    if (size != ROW_VALUE_SIZE) {
        return false;
    }
    *row = get_le(bytes, ROW_VALUE_SIZE);
    return true;
}

uint64_t record_hash(const void *bytes, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, size, seed);
}

/* ---- Checksums: in front, over all that follows ---- */

static void seal(unsigned char *bytes, size_t size, uint64_t seed)
{
    put_le(bytes, record_hash(bytes + CHECKSUM_SIZE, size - CHECKSUM_SIZE, seed), CHECKSUM_SIZE);
}

static bool is_sealed(const unsigned char *bytes, size_t size, uint64_t seed)
{
    return size > CHECKSUM_SIZE &&
           get_le(bytes, CHECKSUM_SIZE) ==
               record_hash(bytes + CHECKSUM_SIZE, size - CHECKSUM_SIZE, seed);
}

/* ---- Runs ---- */

size_t record_encode_run(unsigned char *to, uint64_t prefix, const uint32_t *run, uint32_t length)
{
    REQUIRE(length > 0 && length <= TRIE_RUN_LENGTH_MAX);
    to[8] = RECORD_VERSION;
    to[9] = 0;
    put_le(to + 10, length, 2);
    for (uint32_t i = 0; i < length; i++) {
        put_le(to + RUN_HEADER_SIZE + (size_t)4 * i, run[i], 4);
    }
    size_t size = RUN_HEADER_SIZE + (size_t)4 * length;
    seal(to, size, prefix);
    return size;
}

bool record_decode_run(const void *bytes, size_t size, uint64_t prefix, uint32_t *run,
                       uint32_t *length)
{
    const unsigned char *from = bytes;
    if (size < RUN_HEADER_SIZE || size > RUN_BYTES_MAX || !is_sealed(from, size, prefix)) {
        return false;
    }
    uint32_t count = (uint32_t)get_le(from + 10, 2);
    if (from[8] != RECORD_VERSION || from[9] != 0 || count == 0 ||
        size != RUN_HEADER_SIZE + (size_t)4 * count) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        run[i] = (uint32_t)get_le(from + RUN_HEADER_SIZE + (size_t)4 * i, 4);
    }
    *length = count;
    return true;
}

bool record_run_fits(const struct trie_record *state, const uint32_t *run, uint32_t length)
{
    return length == state->length && run[0] == state->fp &&
           run[length - 1] == (uint32_t)state->end;
}

static bool take_header(struct unpacking *in, const void *bytes, size_t size, uint32_t fields)
{
    const unsigned char *from = bytes;
    *in = (struct unpacking){.at = from + CHECKSUM_SIZE, .end = from + size};
    return take_array(in) == fields && take_uint(in, UINT8_MAX) == RECORD_VERSION && !in->failed;
}

/* ---- State ---- */

size_t record_encode_state(unsigned char *to, uint64_t row, const struct trie_record *record)
{
    REQUIRE(record->holder_count <= HASHTRIE_HOLDERS_MAX ||
            record->holder_count == TRIE_HELD_BY_ALL);
    struct packing packing = {.to = to, .size = CHECKSUM_SIZE, .capacity = STATE_BYTES_MAX};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &packing, on_packed);
    /* What the packer returns is that of on_packed: STATE_BYTES_MAX has room for everything. */
    (void)msgpack_pack_array(&packer, STATE_FIELDS);
    (void)msgpack_pack_uint8(&packer, RECORD_VERSION);
    (void)msgpack_pack_uint64(&packer, record->prefix);
    (void)msgpack_pack_uint32(&packer, record->fp);
    (void)msgpack_pack_uint64(&packer, record->end);
    (void)msgpack_pack_uint32(&packer, record->depth);
    (void)msgpack_pack_uint32(&packer, record->length);
    (void)msgpack_pack_uint32(&packer, record->bucket);
    if (record->holder_count == TRIE_HELD_BY_ALL) {
        (void)msgpack_pack_nil(&packer);
    } else {
        (void)msgpack_pack_array(&packer, (size_t)HOLDER_FIELDS * record->holder_count);
        for (uint32_t i = 0; i < record->holder_count; i++) {
            (void)msgpack_pack_uint32(&packer, record->holders[i].id);
            (void)msgpack_pack_uint32(&packer, record->holders[i].last_used_s);
            (void)msgpack_pack_uint32(&packer, record->holders[i].odometer_kib);
        }
    }
    seal(to, packing.size, row);
    return packing.size;
}

static void take_holders(struct unpacking *in, struct trie_record *out,
                         struct trie_stored_holder *holders)
{
    if (take_nil(in)) {
        out->holder_count = TRIE_HELD_BY_ALL;
        return;
    }
    uint32_t fields = take_array(in);
    if (fields % HOLDER_FIELDS != 0 || fields > HOLDER_FIELDS * HASHTRIE_HOLDERS_MAX) {
        in->failed = true;
        return;
    }
    out->holder_count = fields / HOLDER_FIELDS;
    for (uint32_t i = 0; i < out->holder_count && !in->failed; i++) {
        struct trie_stored_holder holder = {.id = (uint32_t)take_uint(in, UINT32_MAX)};
        holder.last_used_s = (uint32_t)take_uint(in, UINT32_MAX);
        holder.odometer_kib = (uint32_t)take_uint(in, UINT32_MAX);
        if (holders != NULL) {
            holders[i] = holder;
        }
    }
    out->holders = holders;
}

bool record_decode_state(const void *bytes, size_t size, uint64_t row, struct trie_record *out,
                         struct trie_stored_holder *holders)
{
    struct unpacking in;
    if (size > STATE_BYTES_MAX || !is_sealed(bytes, size, row) ||
        !take_header(&in, bytes, size, STATE_FIELDS)) {
        return false;
    }
    struct trie_record record = {.prefix = take_uint(&in, UINT64_MAX)};
    record.fp = (uint32_t)take_uint(&in, UINT32_MAX);
    record.end = take_uint(&in, UINT64_MAX);
    record.depth = (uint32_t)take_uint(&in, HASHTRIE_CHUNK_COUNT_MAX);
    record.length = (uint32_t)take_uint(&in, TRIE_RUN_LENGTH_MAX);
    record.bucket = (uint32_t)take_uint(&in, UINT32_MAX);
    take_holders(&in, &record, holders);
    if (in.failed || in.at != in.end || record.length == 0 ||
        record.length > HASHTRIE_CHUNK_COUNT_MAX - record.depth) {
        return false;
    }
    *out = record;
    return true;
}

/* ---- Endpoints ---- */

size_t record_encode_endpoint(unsigned char *to, const struct trie_endpoint *endpoint,
                              uint64_t seen_s)
{
    size_t room = ENDPOINT_BYTES_MAX - ENDPOINT_FIXED_BYTES;
    size_t name_size = strlen(endpoint->name);
    REQUIRE(name_size <= ENDPOINT_TEXT_BYTES_MAX);
    room -= name_size;
    size_t generation_size = strlen(endpoint->generation);
    const char *generation = generation_size <= room ? endpoint->generation : "";
    room -= strlen(generation);
    const char *model = strlen(endpoint->model) <= room ? endpoint->model : "";
    struct packing packing = {.to = to, .size = CHECKSUM_SIZE, .capacity = ENDPOINT_BYTES_MAX};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &packing, on_packed);
    (void)msgpack_pack_array(&packer, ENDPOINT_FIELDS); /* There is room: see above. */
    (void)msgpack_pack_uint8(&packer, RECORD_VERSION);
    pack_text(&packer, endpoint->name);
    pack_text(&packer, model);
    pack_text(&packer, generation);
    (void)msgpack_pack_uint32(&packer, endpoint->odometer_kib);
    (void)msgpack_pack_uint64(&packer, seen_s);
    seal(to, packing.size, endpoint->id);
    return packing.size;
}

bool record_decode_endpoint(const void *bytes, size_t size, uint32_t id,
                            struct record_endpoint *out)
{
    struct unpacking in;
    if (size > ENDPOINT_BYTES_MAX || !is_sealed(bytes, size, id) ||
        !take_header(&in, bytes, size, ENDPOINT_FIELDS)) {
        return false;
    }
    out->id = id;
    take_text(&in, out->name);
    take_text(&in, out->model);
    take_text(&in, out->generation);
    out->odometer_kib = (uint32_t)take_uint(&in, UINT32_MAX);
    out->seen_s = take_uint(&in, UINT64_MAX);
    return !in.failed && in.at == in.end && out->name[0] != '\0';
}

/* ---- Meta ---- */

void record_encode_meta(unsigned char value[META_VALUE_SIZE], enum meta_field field,
                        uint64_t number)
{
    put_le(value, number, 8);
    put_le(value + 8, record_hash(value, 8, (uint64_t)field), 8);
}

bool record_decode_meta(const void *bytes, size_t size, enum meta_field field, uint64_t *number)
{
    const unsigned char *from = bytes;
    if (size != META_VALUE_SIZE || get_le(from + 8, 8) != record_hash(from, 8, (uint64_t)field)) {
        return false;
    }
    *number = get_le(from, 8);
    return true;
}
