/* Things by name, sorted: what a LIST tells, and what it tells no more. Private to the room. */
#ifndef HASHTRIE_DISCOVERY_TABLE_H
#define HASHTRIE_DISCOVERY_TABLE_H

#include "base/mem.h"
#include "base/span.h"
#include "discovery/objects.h"

/* First member of what is in a table. */
struct named {
    char name[OBJECT_NAME_BYTES_MAX + 1];
    uint64_t mark; /* Of the last LIST that told it, or of the time it came. */
};

struct table {
    struct mem *mem;       /* Borrowed. */
    struct named **things; /* Owned; what they point to is the user's. */
    size_t count;
    size_t capacity;
    size_t count_max;
};

void table_init(struct table *table, struct mem *mem, size_t count_max);
void table_fini(struct table *table);
struct named *table_find(const struct table *table, struct span name); /* NULL: none. */
/* `size` bytes, zeroed but for the name, which must not be there yet. NULL: no memory, or full. */
struct named *table_add(struct table *table, struct span name, size_t size);
/* Frees it, too. */
void table_remove(struct table *table, struct named *thing, size_t size);

#endif
