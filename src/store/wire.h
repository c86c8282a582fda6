/*
 * msgpack over the caller's memory, as records and exported streams have it. Packing is
 * msgpack-c's. Unpacking is done here: msgpack-c's allocates as much as the bytes claim, and this
 * runs once per row read. Private to the room.
 */
#ifndef HASHTRIE_STORE_WIRE_H
#define HASHTRIE_STORE_WIRE_H

#include <msgpack/pack.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "store/record.h"

/* ---- msgpack out ---- */

struct packing {
    unsigned char *to;
    size_t size;
    size_t capacity;
};

static inline int on_packed(void *data, const char *bytes, size_t size)
{
    struct packing *packing = data;
    if (size > packing->capacity - packing->size) {
        return -1;
    }
    memcpy(packing->to + packing->size, bytes, size);
    packing->size += size;
    return 0;
}

static inline void pack_text(msgpack_packer *packer, const char *text)
{
    size_t size = strlen(text);
    (void)msgpack_pack_str(packer, size); /* Sizes are checked by the callers, once for all. */
    (void)msgpack_pack_str_body(packer, text, size);
}

/* ---- msgpack in ---- */

struct unpacking {
    const unsigned char *at;
    const unsigned char *end;
    bool failed;
};

static inline uint64_t take_be(struct unpacking *in, int bytes)
{
    if (in->end - in->at < bytes) {
        in->failed = true;
        return 0;
    }
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value = value << 8 | *in->at++;
    }
    return value;
}

static inline uint64_t take_uint(struct unpacking *in, uint64_t max)
{
    uint64_t tag = take_be(in, 1);
    uint64_t value = tag;
    if (tag >= 0xcc && tag <= 0xcf) { /* uint 8, 16, 32, 64. */
        value = take_be(in, 1 << (tag - 0xcc));
    } else if (tag > 0x7f) {
        in->failed = true;
    }
    in->failed = in->failed || value > max;
    return in->failed ? 0 : value;
}

static inline uint32_t take_array(struct unpacking *in)
{
    uint64_t tag = take_be(in, 1);
    if (tag == 0xdc) {
        return (uint32_t)take_be(in, 2);
    }
    if (tag < 0x90 || tag > 0x9f) {
        in->failed = true;
        return 0;
    }
    return (uint32_t)(tag & 0x0f);
}

static inline bool take_nil(struct unpacking *in)
{
    if (in->at < in->end && *in->at == 0xc0) {
        in->at++;
        return true;
    }
    return false;
}

/* A text without NUL, as a string. `to` has ENDPOINT_TEXT_BYTES_MAX + 1 bytes. */
static inline void take_text(struct unpacking *in, char *to)
{
    uint64_t tag = take_be(in, 1);
    uint64_t size = 0;
    if (tag >= 0xa0 && tag <= 0xbf) {
        size = tag & 0x1f;
    } else if (tag == 0xd9 || tag == 0xda) {
        size = take_be(in, tag == 0xd9 ? 1 : 2);
    } else {
        in->failed = true;
    }
    to[0] = '\0';
    if (in->failed || size > ENDPOINT_TEXT_BYTES_MAX || size > (uint64_t)(in->end - in->at) ||
        memchr(in->at, '\0', size) != NULL) {
        in->failed = true;
        return;
    }
    memcpy(to, in->at, size);
    to[size] = '\0';
    in->at += size;
}

/* Bytes of a bin, in place; NULL: none. */
static inline const unsigned char *take_bin(struct unpacking *in, size_t *size)
{
    uint64_t tag = take_be(in, 1);
    if (tag < 0xc4 || tag > 0xc6) {
        in->failed = true;
        return NULL;
    }
    *size = (size_t)take_be(in, 1 << (tag - 0xc4));
    if (in->failed || *size > (size_t)(in->end - in->at)) {
        in->failed = true;
        return NULL;
    }
    in->at += *size;
    return in->at - *size;
}

#endif
