/*
 * Reading the pages of an LMDB file without LMDB, which trusts them and can fault on damage. Here
 * every offset, number and order is checked; what is not sane is skipped and counted. Private to
 * the room.
 *
 *     file   page 0 and 1: meta pages; the newer valid one is the root of all
 *            others: branch, leaf or overflow pages, or free
 *     page   number u64, pad u16, flags u16, lower u16, upper u16 (overflow: count u32),
 *            then offsets u16 of nodes
 *     node   size or child u16 u16 u16, key size u16, key, value (or number of its overflow page)
 *
 * Integers are the machine's own. Layout of LMDB 0.9, data version 1.
 */
#ifndef HASHTRIE_STORE_PAGES_H
#define HASHTRIE_STORE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hashtrie/status.h"

#include "base/mem.h"

enum {
    PAGES_HEADER_BYTES = 16,
    PAGES_DEPTH_MAX = 16,      /* Levels of a tree that are followed; LMDB allows 32. */
    PAGES_KEY_BYTES_MAX = 16,  /* Of a tree whose order is checked. */
    PAGES_BYTES_MAX = 1 << 16, /* Of one page. */
};

#define PAGES_NONE UINT64_MAX

struct pages {
    int fd;
    size_t page_bytes;
    uint64_t page_count;
    uint64_t map_bytes; /* From the meta page; 0: unknown. */
    uint64_t free_root; /* PAGES_NONE: empty or unknown. */
    uint64_t main_root;
    uint64_t damaged_count; /* Pages that were unreadable or not sane, each time they were met. */
};

/* One node of a leaf. */
struct pages_node {
    const unsigned char *key;
    size_t key_size;
    const unsigned char *value; /* NULL: it is on an overflow page. */
    uint64_t overflow;
    size_t value_size;
    bool is_tree; /* The value describes a tree. */
    bool is_odd;  /* It has flags that a store's nodes never have. */
};

/* One bit a page. */
struct pages_set {
    unsigned char *bits; /* Owned. */
    size_t size;
};

/* ENOENT: no such file. ECORRUPT: not even one page. A file without valid meta pages is opened. */
enum hashtrie_status pages_open(struct pages *pages, const char *path);
void pages_close(struct pages *pages);

bool pages_set_init(struct pages_set *set, struct mem *mem, const struct pages *pages);
void pages_set_fini(struct pages_set *set, struct mem *mem);
bool pages_set_has(const struct pages_set *set, uint64_t number);
void pages_set_add(struct pages_set *set, uint64_t number); /* One outside the file: nothing. */
void pages_set_add_all(struct pages_set *set, const struct pages_set *other);

/* False: outside the file, or an error of the device. `page` has page_bytes. */
bool pages_read(const struct pages *pages, uint64_t number, unsigned char *page);

/* Nodes that the page can have, if it is a leaf; to be tried each. */
uint32_t pages_node_count(const struct pages *pages, const unsigned char *page);
/* False: not inside the page. */
bool pages_node_at(const struct pages *pages, const unsigned char *page, uint32_t index,
                   struct pages_node *out);
/* The value, from the page or from one overflow page read into `buffer` (page_bytes). NULL: larger,
 * or cannot be read. */
const unsigned char *pages_value(const struct pages *pages, const struct pages_node *node,
                                 unsigned char *buffer);
/* Root of the tree that a node of the main tree describes. */
uint64_t pages_tree_root(const struct pages_node *node);

struct pages_level {
    uint64_t number;
    uint32_t index; /* Of the child that comes next. */
    uint32_t count;
    bool has_low;  /* Keys are at or above `low`, ... */
    bool has_high; /* ... and below `high`. */
    unsigned char low[PAGES_KEY_BYTES_MAX];
    unsigned char high[PAGES_KEY_BYTES_MAX];
};

/* A walk over the leaves of a tree, in order. */
struct pages_walk {
    struct pages *pages;
    struct mem *mem;
    size_t key_size;        /* All keys have it and are ordered; 0: any keys in any order. */
    struct pages_set seen;  /* Owned. */
    unsigned char *buffers; /* Owned: a page for each level. */
    struct pages_level levels[PAGES_DEPTH_MAX];
    size_t depth; /* Levels that are open. */
};

bool pages_walk_init(struct pages_walk *walk, struct mem *mem, struct pages *pages, uint64_t root,
                     size_t key_size);
void pages_walk_fini(struct pages_walk *walk);
/*
 * The next leaf that is sane: keys in order and within what the branches above say, every node
 * inside the page. NULL: no more. Valid until the next call. Its number is walk->seen's latest;
 * *number gets it.
 */
const unsigned char *pages_walk_next(struct pages_walk *walk, uint64_t *number);

#endif
