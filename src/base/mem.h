/*
 * Sized memory accounting: every byte a room takes is charged to a `struct mem`, frees name their
 * size, and the total is exact at every moment. A limit makes an allocation beyond it fail, so a
 * budget holds by construction.
 *
 * Thread rule: one `struct mem` belongs to whoever serialises its calls (a loop thread, or the
 * holder of a lock). The only place in the project that calls malloc and free.
 */
#ifndef HASHTRIE_BASE_MEM_H
#define HASHTRIE_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mem {
    size_t bytes_used;   /* What mem_charge() says of all live allocations. */
    size_t bytes_limit;  /* Allocations that would pass it return NULL. SIZE_MAX: no limit. */
    size_t bytes_peak;   /* The most bytes_used ever was. */
    uint64_t fail_after; /* Fault injection: that many allocations succeed, later ones fail.
                            UINT64_MAX: off. */
    uint64_t fail_count; /* How many fail from there on; UINT64_MAX: all. */
};

void mem_init(struct mem *mem, size_t bytes_limit);
void mem_fini(struct mem *mem); /* CHECKs that nothing is left. */

/* What an allocation of `size` really takes: allocator header and rounding included (glibc's rule).
 */
size_t mem_charge(size_t size);

void *mem_alloc(struct mem *mem,
                size_t size); /* NULL: over the limit or out of memory. size > 0. */
void *mem_alloc_zero(struct mem *mem, size_t size);
void *mem_realloc(struct mem *mem, void *old, size_t old_size,
                  size_t new_size); /* NULL keeps `old`. */
void mem_free(struct mem *mem, void *pointer,
              size_t size); /* NULL pointer: nothing, whatever the size. */

/* ---- Memory of another kind, kept in the same account ---- */

/* Address space of whole pages that take memory, zeroed, when first touched; NULL: none to be had.
 * Charged by mem_book() as it is touched. */
void *mem_map(size_t size);
void mem_unmap(void *pointer, size_t size); /* NULL pointer: nothing. */
/* Books `bytes` that come from elsewhere; false: over the limit. */
bool mem_book(struct mem *mem, size_t bytes);
void mem_unbook(struct mem *mem, size_t bytes);
/* Fault injection: counts down as an allocation does; true: it has to fail. */
bool mem_fault_due(struct mem *mem);

char *mem_strndup(struct mem *mem, const char *text, size_t size); /* Takes size + 1 bytes. */
/* One that mem_strndup() made of a text without NUL; NULL is fine. */
void mem_free_text(struct mem *mem, char *text);

#endif
