#include "trie/run.h"

#include <string.h>

#include "base/check.h"

static struct run_source source_behind(struct run_source source, uint32_t count)
{
    if (source.fps != NULL) {
        return (struct run_source){.fps = source.fps + count};
    }
    return (struct run_source){.hashes = source.hashes + count};
}

static void copy(uint32_t *restrict to, struct run_source source, uint32_t count)
{
    if (source.fps != NULL) {
        memcpy(to, source.fps, count * sizeof *to);
        return;
    }
    const uint64_t *restrict hashes = source.hashes;
    for (uint32_t i = 0; i < count; i++) {
        to[i] = (uint32_t)hashes[i];
    }
}

static uint32_t common(const uint32_t *words, struct run_source source, uint32_t count)
{
    uint32_t i = 0;
    if (source.fps != NULL) {
        while (i < count && words[i] == source.fps[i]) {
            i++;
        }
        return i;
    }
    while (i < count && words[i] == (uint32_t)source.hashes[i]) {
        i++;
    }
    return i;
}

/* The fingerprints in the node itself, and those in its block. */
static uint32_t inline_count(const struct node *node)
{
    return node->length - run_block_words(node->length);
}

static struct block_piece first_piece(const struct cells *cells, const struct node *node)
{
    return block_first(cells, node->run[1], run_block_words(node->length));
}

void run_read(const struct cells *cells, const struct node *node, uint32_t *to)
{
    uint32_t done = inline_count(node);
    memcpy(to, node->run, done * sizeof *to);
    struct block_piece piece = first_piece(cells, node);
    for (; piece.count > 0; block_next(cells, &piece)) {
        memcpy(to + done, piece.words, piece.count * sizeof *to);
        done += piece.count;
    }
}

uint32_t run_common(const struct cells *cells, const struct node *node, struct run_source source,
                    uint32_t length)
{
    uint32_t count = inline_count(node) < length ? inline_count(node) : length;
    uint32_t done = common(node->run, source, count);
    if (done < count) {
        return done;
    }
    struct block_piece piece = first_piece(cells, node);
    for (; piece.count > 0 && done < length; block_next(cells, &piece)) {
        count = piece.count < length - done ? piece.count : length - done;
        uint32_t equal = common(piece.words, source_behind(source, done), count);
        done += equal;
        if (equal < count) {
            break;
        }
    }
    return done;
}

void run_write(const struct cells *cells, struct node *node, uint32_t block,
               struct run_source source, uint32_t length)
{
    REQUIRE(length > 0 && length <= TRIE_RUN_LENGTH_MAX);
    node_set_length(node, length);
    uint32_t done = inline_count(node);
    copy(node->run, source, done);
    if (done == length) {
        return;
    }
    node->run[1] = block;
    struct block_piece piece = first_piece(cells, node);
    for (; piece.count > 0; block_next(cells, &piece)) {
        copy(piece.words, source_behind(source, done), piece.count);
        done += piece.count;
    }
}

void run_give(struct cells *cells, const struct node *node)
{
    block_give(cells, node->run[1], run_block_words(node->length));
}
