/*
 * What the parts of repair share: repair.c looks through the damaged file, join.c puts rows
 * together. Private to the room.
 */
#ifndef HASHTRIE_STORE_REPAIR_H
#define HASHTRIE_STORE_REPAIR_H

#include <assert.h>

#include "hashtrie/maintenance.h"

#include "store/build.h"
#include "store/pages.h"

/* Where a record of a row lies. */
struct stray {
    uint64_t row;
    uint32_t page;
    uint32_t index; /* Of the node there. */
};

static_assert(HASHTRIE_STORE_BYTES_MAX / 4096 <= UINT64_C(1) << 32, "a page number takes 32 bits");

struct strays {
    struct stray *list; /* Owned. */
    size_t count;
    size_t capacity;
};

/* Records of one kind in ascending order of rows: those of a tree, and stray ones. */
struct stream {
    struct pages_walk walk;
    const unsigned char *leaf; /* NULL: the tree has ended. */
    uint32_t index;
    uint32_t count;
    uint64_t row; /* Of the tree's record; UINT64_MAX: no more. */
    struct strays strays;
    size_t at;               /* First stray that is not behind. */
    unsigned char *page;     /* Owned: of strays, ... */
    unsigned char *overflow; /* ... and of values that are on pages of their own. */
};

struct repair {
    struct mem mem;
    struct pages pages;
    const struct hashtrie_repair_options *options;
    struct hashtrie_repair_result result;
    uint64_t roots[DB_COUNT];
    struct pages_set live; /* In a tree, or free. */
    unsigned char *page;   /* Owned. */
    unsigned char *value;  /* Owned: a page. */
    uint64_t meta[META_FIELDS];
    bool meta_known[META_FIELDS];
    struct stream states;
    struct stream runs;
    struct record_endpoint endpoint; /* Being decoded. */
    struct build build;
    uint64_t done;
    uint64_t total;
};

void repair_progress(struct repair *repair, uint64_t pages);
/* A node that holds a row's state, whole. `holders` may be NULL. */
bool repair_is_state(const struct pages_node *node, struct trie_record *record,
                     struct trie_stored_holder *holders);

/* ---- join.c ---- */

/* Writes every row of which state and run are found, to repair->build. Sorts the strays. */
enum hashtrie_status repair_join(struct repair *repair);
void repair_join_fini(struct repair *repair);

#endif
