#include "store/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "store/env.h"

enum {
    FLAG_BRANCH = 0x01,
    FLAG_LEAF = 0x02,
    FLAG_META = 0x08,
    NODE_BIG = 0x01,
    NODE_TREE = 0x02,
    NODE_HEADER_BYTES = 8,
    PAGE_BYTES_MIN = 4096,
    META_PAGES = 2,
    DATA_VERSION = 1,
};

#define META_MAGIC UINT32_C(0xbeefc0de)

/* LMDB's own layouts, for their offsets. */
struct tree_record {
    uint32_t pad; /* Of the free tree: the page size. */
    uint16_t flags;
    uint16_t depth;
    uint64_t branch_pages;
    uint64_t leaf_pages;
    uint64_t overflow_pages;
    uint64_t entries;
    uint64_t root;
};

struct meta_record {
    uint32_t magic;
    uint32_t version;
    uint64_t address;
    uint64_t map_bytes;
    struct tree_record trees[2]; /* Free, main. */
    uint64_t last_page;
    uint64_t txn;
};

static uint16_t get_u16(const unsigned char *from)
{
    uint16_t value = 0;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint64_t get_u64(const unsigned char *from)
{
    uint64_t value = 0;
    memcpy(&value, from, sizeof value);
    return value;
}

/* ---- The file ---- */

static bool read_at(int fd, uint64_t offset, unsigned char *to, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, to + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        done += (size_t)got;
    }
    return true;
}

/* The meta page at `offset`, if it is one. */
static bool read_meta(int fd, uint64_t offset, struct meta_record *meta)
{
    unsigned char bytes[PAGES_HEADER_BYTES + sizeof *meta];
    if (!read_at(fd, offset, bytes, sizeof bytes)) {
        return false;
    }
    memcpy(meta, bytes + PAGES_HEADER_BYTES, sizeof *meta);
    size_t page_bytes = meta->trees[0].pad;
    return (get_u16(bytes + 10) & FLAG_META) != 0 && meta->magic == META_MAGIC &&
           meta->version == DATA_VERSION && page_bytes >= PAGE_BYTES_MIN &&
           page_bytes <= PAGES_BYTES_MAX && (page_bytes & (page_bytes - 1)) == 0;
}

/* The newer of the two that can be read; the second lies one page on, however large that is. */
static void choose_meta(struct pages *pages)
{
    struct meta_record best = {.txn = 0};
    bool found = read_meta(pages->fd, 0, &best);
    unsigned good = found;
    size_t first = found ? best.trees[0].pad : PAGE_BYTES_MIN;
    size_t last = found ? best.trees[0].pad : PAGES_BYTES_MAX;
    for (size_t bytes = first; bytes <= last; bytes *= 2) {
        struct meta_record other;
        if (!read_meta(pages->fd, bytes, &other) || other.trees[0].pad != bytes) {
            continue;
        }
        best = found && best.txn > other.txn ? best : other;
        found = true;
        good++;
        break;
    }
    pages->page_bytes = found ? best.trees[0].pad : PAGE_BYTES_MIN;
    pages->map_bytes = found ? best.map_bytes : 0;
    pages->free_root = found ? best.trees[0].root : PAGES_NONE;
    pages->main_root = found ? best.trees[1].root : PAGES_NONE;
    pages->damaged_count = META_PAGES - good;
}

enum hashtrie_status pages_open(struct pages *pages, const char *path)
{
    *pages = (struct pages){.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    struct stat file;
    if (pages->fd < 0) {
        return env_status(errno);
    }
    if (fstat(pages->fd, &file) != 0) {
        enum hashtrie_status status = env_status(errno);
        pages_close(pages);
        return status;
    }
    choose_meta(pages);
    /* A page cut short at the end is none. */
    pages->page_count = (uint64_t)file.st_size / pages->page_bytes;
    if (pages->page_count == 0) {
        pages_close(pages);
        return HASHTRIE_ECORRUPT;
    }
    return HASHTRIE_OK;
}

void pages_close(struct pages *pages)
{
    (void)close(pages->fd); /* Only read. */
    pages->fd = -1;
}

bool pages_read(const struct pages *pages, uint64_t number, unsigned char *page)
{
    return number < pages->page_count &&
           read_at(pages->fd, number * pages->page_bytes, page, pages->page_bytes);
}

/* ---- Sets ---- */

bool pages_set_init(struct pages_set *set, struct mem *mem, const struct pages *pages)
{
    set->size = (size_t)(pages->page_count / 8 + 1);
    set->bits = mem_alloc_zero(mem, set->size);
    return set->bits != NULL;
}

void pages_set_fini(struct pages_set *set, struct mem *mem)
{
    mem_free(mem, set->bits, set->size);
    *set = (struct pages_set){0};
}

bool pages_set_has(const struct pages_set *set, uint64_t number)
{
    return number / 8 < set->size && (set->bits[number / 8] >> (number % 8) & 1) != 0;
}

void pages_set_add(struct pages_set *set, uint64_t number)
{
    if (number / 8 < set->size) {
        set->bits[number / 8] |= (unsigned char)(1U << (number % 8));
    }
}

void pages_set_add_all(struct pages_set *set, const struct pages_set *other)
{
    REQUIRE(set->size == other->size);
    for (size_t i = 0; i < set->size; i++) {
        set->bits[i] |= other->bits[i];
    }
}

/* ---- Nodes ---- */

uint32_t pages_node_count(const struct pages *pages, const unsigned char *page)
{
    size_t lower = get_u16(page + 12);
    size_t most = pages->page_bytes - PAGES_HEADER_BYTES;
    size_t bytes = lower >= PAGES_HEADER_BYTES && lower - PAGES_HEADER_BYTES <= most
                       ? lower - PAGES_HEADER_BYTES
                       : most;
    return (uint32_t)(bytes / 2);
}

/* Where the node begins; its header and key are inside the page. NULL: they are not. */
static const unsigned char *node_find(const struct pages *pages, const unsigned char *page,
                                      uint32_t index, size_t *key_size, size_t *room)
{
    size_t offset = get_u16(page + PAGES_HEADER_BYTES + (size_t)2 * index);
    if (offset < PAGES_HEADER_BYTES || offset > pages->page_bytes - NODE_HEADER_BYTES) {
        return NULL;
    }
    const unsigned char *node = page + offset;
    *key_size = get_u16(node + 6);
    *room = pages->page_bytes - offset - NODE_HEADER_BYTES;
    if (*key_size > *room) {
        return NULL;
    }
    *room -= *key_size;
    return node;
}

bool pages_node_at(const struct pages *pages, const unsigned char *page, uint32_t index,
                   struct pages_node *out)
{
    size_t key_size = 0;
    size_t room = 0;
    const unsigned char *node = node_find(pages, page, index, &key_size, &room);
    if (node == NULL) {
        return false;
    }
    unsigned flags = get_u16(node + 4);
    *out = (struct pages_node){
        .key = node + NODE_HEADER_BYTES,
        .key_size = key_size,
        .value_size = (size_t)get_u16(node) | (size_t)get_u16(node + 2) << 16,
        .is_tree = (flags & NODE_TREE) != 0,
        .is_odd = (flags & ~(unsigned)(NODE_BIG | NODE_TREE)) != 0,
        .overflow = PAGES_NONE,
    };
    if ((flags & NODE_BIG) != 0) {
        if (room < sizeof out->overflow) {
            return false;
        }
        out->overflow = get_u64(out->key + key_size);
        return out->overflow < pages->page_count;
    }
    out->value = out->key + key_size;
    return out->value_size <= room;
}

const unsigned char *pages_value(const struct pages *pages, const struct pages_node *node,
                                 unsigned char *buffer)
{
    if (node->value != NULL) {
        return node->value;
    }
    if (node->value_size > pages->page_bytes - PAGES_HEADER_BYTES ||
        !pages_read(pages, node->overflow, buffer)) {
        return NULL;
    }
    return buffer + PAGES_HEADER_BYTES;
}

uint64_t pages_tree_root(const struct pages_node *node)
{
    struct tree_record tree;
    if (!node->is_tree || node->value == NULL || node->value_size != sizeof tree) {
        return PAGES_NONE;
    }
    memcpy(&tree, node->value, sizeof tree);
    return tree.root;
}

/* ---- Walking a tree ---- */

static bool read_child(const struct pages *pages, const unsigned char *page, uint32_t index,
                       struct pages_node *out)
{
    size_t room = 0;
    *out = (struct pages_node){0};
    const unsigned char *node = node_find(pages, page, index, &out->key_size, &room);
    if (node == NULL) {
        return false;
    }
    out->key = node + NODE_HEADER_BYTES;
    out->overflow = (uint64_t)get_u16(node) | (uint64_t)get_u16(node + 2) << 16 |
                    (uint64_t)get_u16(node + 4) << 32;
    return true;
}

/* Whether a key may follow the one before, within the level's bounds. */
static bool in_order(const struct pages_walk *walk, const struct pages_level *level,
                     const struct pages_node *node, const unsigned char *before)
{
    size_t size = walk->key_size;
    if (size == 0) {
        return true;
    }
    return node->key_size == size && (before == NULL || memcmp(before, node->key, size) < 0) &&
           (!level->has_low || memcmp(level->low, node->key, size) <= 0) &&
           (!level->has_high || memcmp(node->key, level->high, size) < 0);
}

static bool is_sane(const struct pages_walk *walk, const struct pages_level *level,
                    const unsigned char *page)
{
    const struct pages *pages = walk->pages;
    unsigned flags = get_u16(page + 10);
    bool leaf = (flags & FLAG_LEAF) != 0;
    size_t lower = get_u16(page + 12);
    size_t upper = get_u16(page + 14);
    if (get_u64(page) != level->number || leaf == ((flags & FLAG_BRANCH) != 0) ||
        lower < PAGES_HEADER_BYTES || lower > upper || upper > pages->page_bytes ||
        level->count == 0) {
        return false;
    }
    const unsigned char *before = NULL;
    for (uint32_t i = 0; i < level->count; i++) {
        struct pages_node node;
        bool inside =
            leaf ? pages_node_at(pages, page, i, &node) : read_child(pages, page, i, &node);
        /* A branch's first key stands for "all below the second". */
        if (!inside || ((leaf || i > 0) && !in_order(walk, level, &node, before))) {
            return false;
        }
        before = leaf || i > 0 ? node.key : NULL;
    }
    return true;
}

static unsigned char *level_page(const struct pages_walk *walk, size_t level)
{
    return walk->buffers + level * walk->pages->page_bytes;
}

/* Opens a page as the next level; false: it is not sane. */
static bool push(struct pages_walk *walk, const struct pages_level *bounds)
{
    if (walk->depth == PAGES_DEPTH_MAX || pages_set_has(&walk->seen, bounds->number)) {
        return false;
    }
    unsigned char *page = level_page(walk, walk->depth);
    struct pages_level *level = &walk->levels[walk->depth];
    *level = *bounds;
    if (!pages_read(walk->pages, level->number, page)) {
        return false;
    }
    level->index = 0;
    level->count = pages_node_count(walk->pages, page);
    if (!is_sane(walk, level, page)) {
        return false;
    }
    pages_set_add(&walk->seen, level->number);
    walk->depth++;
    return true;
}

bool pages_walk_init(struct pages_walk *walk, struct mem *mem, struct pages *pages, uint64_t root,
                     size_t key_size)
{
    REQUIRE(key_size <= PAGES_KEY_BYTES_MAX);
    *walk = (struct pages_walk){.pages = pages, .mem = mem, .key_size = key_size};
    walk->buffers = mem_alloc(mem, PAGES_DEPTH_MAX * pages->page_bytes);
    if (walk->buffers == NULL || !pages_set_init(&walk->seen, mem, pages)) {
        pages_walk_fini(walk);
        return false;
    }
    const struct pages_level bounds = {.number = root};
    if (root != PAGES_NONE && !push(walk, &bounds)) {
        pages->damaged_count++;
    }
    return true;
}

void pages_walk_fini(struct pages_walk *walk)
{
    mem_free(walk->mem, walk->buffers, PAGES_DEPTH_MAX * walk->pages->page_bytes);
    pages_set_fini(&walk->seen, walk->mem);
    walk->buffers = NULL;
}

/* Where the next child's keys lie. */
static struct pages_level child_bounds(const struct pages_walk *walk,
                                       const struct pages_level *level, const unsigned char *page)
{
    struct pages_level bounds = *level;
    struct pages_node node;
    CHECK(read_child(walk->pages, page, level->index, &node)); /* The page is sane. */
    bounds.number = node.overflow;
    if (walk->key_size > 0 && level->index > 0) {
        bounds.has_low = true;
        memcpy(bounds.low, node.key, walk->key_size);
    }
    if (walk->key_size > 0 && level->index + 1 < level->count) {
        CHECK(read_child(walk->pages, page, level->index + 1, &node));
        bounds.has_high = true;
        memcpy(bounds.high, node.key, walk->key_size);
    }
    return bounds;
}

const unsigned char *pages_walk_next(struct pages_walk *walk, uint64_t *number)
{
    while (walk->depth > 0) {
        struct pages_level *level = &walk->levels[walk->depth - 1];
        const unsigned char *page = level_page(walk, walk->depth - 1);
        if ((get_u16(page + 10) & FLAG_LEAF) != 0) {
            bool told = level->index > 0;
            level->index = 1;
            if (!told) {
                *number = level->number;
                return page;
            }
            walk->depth--;
        } else if (level->index == level->count) {
            walk->depth--;
        } else {
            struct pages_level bounds = child_bounds(walk, level, page);
            level->index++;
            walk->pages->damaged_count += !push(walk, &bounds);
        }
    }
    return NULL;
}
