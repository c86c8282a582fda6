#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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

bool mem_fault_due(struct mem *mem)
{
    if (mem->fail_after == UINT64_MAX) {
        return false;
    }
    if (mem->fail_after > 0) {
        mem->fail_after--;
        return false;
    }
    if (mem->fail_count == 0) {
        return false;
    }
    if (mem->fail_count != UINT64_MAX) {
        mem->fail_count--;
    }
    return true;
}

bool mem_book(struct mem *mem, size_t bytes)
{
    if (bytes > mem->bytes_limit || mem->bytes_used > mem->bytes_limit - bytes) {
        return false;
    }
    mem->bytes_used += bytes;
    if (mem->bytes_used > mem->bytes_peak) {
        mem->bytes_peak = mem->bytes_used;
    }
    return true;
}

void mem_unbook(struct mem *mem, size_t bytes)
{
    CHECK(mem->bytes_used >= bytes);
    mem->bytes_used -= bytes;
}

/* False if the limit or an injected fault forbids it. */
static bool reserve(struct mem *mem, size_t bytes)
{
    return !mem_fault_due(mem) && mem_book(mem, bytes);
}

void *mem_alloc(struct mem *mem, size_t size)
{
    REQUIRE(size > 0 && size <= SIZE_MAX / 2);
    if (!reserve(mem, mem_charge(size))) {
        return NULL;
    }
    void *pointer = malloc(size);
    if (pointer == NULL) {
        mem_unbook(mem, mem_charge(size));
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
        mem_unbook(mem, mem_charge(size));
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
            mem_unbook(mem, new_charge - old_charge);
        }
        return NULL;
    }
    if (new_charge < old_charge) {
        mem_unbook(mem, old_charge - new_charge);
    }
    return pointer;
}

void mem_free(struct mem *mem, void *pointer, size_t size)
{
    if (pointer == NULL) {
        return;
    }
    mem_unbook(mem, mem_charge(size));
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

void mem_free_text(struct mem *mem, char *text)
{
    if (text != NULL) {
        mem_free(mem, text, strlen(text) + 1);
    }
}

void *mem_map(size_t size)
{
    void *pointer = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return pointer == MAP_FAILED ? NULL : pointer;
}

void mem_unmap(void *pointer, size_t size)
{
    if (pointer != NULL) {
        CHECK(munmap(pointer, size) == 0);
    }
}
