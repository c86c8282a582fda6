#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum {
    MALLOC_HEADER_BYTES = 8,
    MALLOC_ALIGNMENT = 16,
    MALLOC_BYTES_MIN = 32,
    MAPPED_FROM_BYTES =
        128 * 1024, /* glibc's default M_MMAP_THRESHOLD: whole pages from here on. */
    PAGE_BYTES = 4096,
};

void mem_init(struct mem *mem, size_t bytes_limit)
{
    *mem = (struct mem){
        .bytes_limit = bytes_limit, .fail_after = UINT64_MAX, .fail_count = UINT64_MAX};
}

void mem_fini(struct mem *mem)
{
    CHECK(mem->bytes_used == 0);
}

static size_t round_up(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

size_t mem_charge(size_t size)
{
    if (size >= MAPPED_FROM_BYTES) {
        return round_up(size + MALLOC_HEADER_BYTES + MALLOC_HEADER_BYTES, PAGE_BYTES);
    }
    size_t bytes = round_up(size + MALLOC_HEADER_BYTES, MALLOC_ALIGNMENT);
    return bytes < MALLOC_BYTES_MIN ? MALLOC_BYTES_MIN : bytes;
}

/* Fault injection by countdown: true if this allocation has to fail. */
static int fault_due(struct mem *mem)
{
    if (mem->fail_after == UINT64_MAX) {
        return 0;
    }
    if (mem->fail_after > 0) {
        mem->fail_after--;
        return 0;
    }
    if (mem->fail_count == 0) {
        return 0;
    }
    if (mem->fail_count != UINT64_MAX) {
        mem->fail_count--;
    }
    return 1;
}

/* Books `bytes`; 0 if the limit or an injected fault forbids it. */
static int reserve(struct mem *mem, size_t bytes)
{
    if (bytes > mem->bytes_limit || mem->bytes_used > mem->bytes_limit - bytes || fault_due(mem)) {
        return 0;
    }
    mem->bytes_used += bytes;
    if (mem->bytes_used > mem->bytes_peak) {
        mem->bytes_peak = mem->bytes_used;
    }
    return 1;
}

static void unreserve(struct mem *mem, size_t bytes)
{
    CHECK(mem->bytes_used >= bytes);
    mem->bytes_used -= bytes;
}

void *mem_alloc(struct mem *mem, size_t size)
{
    REQUIRE(size > 0 && size <= SIZE_MAX / 2);
    if (!reserve(mem, mem_charge(size))) {
        return NULL;
    }
    void *pointer = malloc(size);
    if (pointer == NULL) {
        unreserve(mem, mem_charge(size));
    }
    return pointer;
}

void *mem_alloc_zero(struct mem *mem, size_t size)
{
    REQUIRE(size > 0 && size <= SIZE_MAX / 2);
    if (!reserve(mem, mem_charge(size))) {
        return NULL;
    }
    void *pointer = calloc(1, size);
    if (pointer == NULL) {
        unreserve(mem, mem_charge(size));
    }
    return pointer;
}

void *mem_realloc(struct mem *mem, void *old, size_t old_size, size_t new_size)
{
    REQUIRE(new_size > 0 && new_size <= SIZE_MAX / 2);
    if (old == NULL) {
        return mem_alloc(mem, new_size);
    }
    size_t old_charge = mem_charge(old_size);
    size_t new_charge = mem_charge(new_size);
    if (new_charge > old_charge && !reserve(mem, new_charge - old_charge)) {
        return NULL;
    }
    void *pointer = realloc(old, new_size);
    if (pointer == NULL) {
        if (new_charge > old_charge) {
            unreserve(mem, new_charge - old_charge);
        }
        return NULL;
    }
    if (new_charge < old_charge) {
        unreserve(mem, old_charge - new_charge);
    }
    return pointer;
}

void mem_free(struct mem *mem, void *pointer, size_t size)
{
    if (pointer == NULL) {
        return;
    }
    unreserve(mem, mem_charge(size));
    free(pointer);
}

char *mem_strndup(struct mem *mem, const char *text, size_t size)
{
    char *copy = mem_alloc(mem, size + 1);
    if (copy != NULL) {
        memcpy(copy, text, size);
        copy[size] = '\0';
    }
    return copy;
}

void *mem_alloc_aligned(struct mem *mem, size_t size, size_t alignment)
{
    REQUIRE(size > 0 && size <= SIZE_MAX / 2);
    REQUIRE(alignment >= sizeof(void *) && alignment <= PAGE_BYTES);
    size_t charge = mem_charge(size + alignment);
    if (!reserve(mem, charge)) {
        return NULL;
    }
    void *pointer = NULL;
    if (posix_memalign(&pointer, alignment, size) != 0) {
        unreserve(mem, charge);
        return NULL;
    }
    return pointer;
}

void mem_free_aligned(struct mem *mem, void *pointer, size_t size, size_t alignment)
{
    if (pointer == NULL) {
        return;
    }
    unreserve(mem, mem_charge(size + alignment));
    free(pointer);
}
