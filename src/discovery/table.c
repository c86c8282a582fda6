#include "discovery/table.h"

#include "base/check.h"

enum { CAPACITY_FIRST = 16 };

void table_init(struct table *table, struct mem *mem, size_t count_max)
{
    *table = (struct table){.mem = mem, .count_max = count_max};
}

void table_fini(struct table *table)
{
    REQUIRE(table->count == 0);
    mem_free(table->mem, table->things, table->capacity * sizeof(struct named *));
    table_init(table, table->mem, table->count_max);
}

/* Of the first name that is not less. */
static size_t position_of(const struct table *table, struct span name)
{
    size_t low = 0;
    size_t high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (span_compare(name, table->things[middle]->name) > 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct named *table_find(const struct table *table, struct span name)
{
    size_t position = position_of(table, name);
    bool found = position < table->count && span_compare(name, table->things[position]->name) == 0;
    return found ? table->things[position] : NULL;
}

static bool grow(struct table *table)
{
    size_t capacity = table->capacity == 0 ? CAPACITY_FIRST : table->capacity * 2;
    struct named **things =
        mem_realloc(table->mem, table->things, table->capacity * sizeof(struct named *),
                    capacity * sizeof(struct named *));
    if (things == NULL) {
        return false;
    }
    table->things = things;
    table->capacity = capacity;
    return true;
}

struct named *table_add(struct table *table, struct span name, size_t size)
{
    REQUIRE(name.size > 0 && name.size <= OBJECT_NAME_BYTES_MAX);
    if (table->count == table->count_max || (table->count == table->capacity && !grow(table))) {
        return NULL;
    }
    struct named *thing = mem_alloc_zero(table->mem, size);
    if (thing == NULL) {
        return NULL;
    }
    memcpy(thing->name, name.data, name.size);
    size_t position = position_of(table, name);
    memmove(&table->things[position + 1], &table->things[position],
            (table->count - position) * sizeof(struct named *));
    table->things[position] = thing;
    table->count++;
    return thing;
}

void table_remove(struct table *table, struct named *thing, size_t size)
{
    size_t position = position_of(table, span_of(thing->name));
    CHECK(position < table->count && table->things[position] == thing);
    table->count--;
    memmove(&table->things[position], &table->things[position + 1],
            (table->count - position) * sizeof(struct named *));
    mem_free(table->mem, thing, size);
}
