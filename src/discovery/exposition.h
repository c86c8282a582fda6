/*
 * Reads the Prometheus text format, version 0.0.4, as it comes in pieces. Private to the room.
 *
 * Bytes are hostile: a line that is not of the format, is longer than EXPOSITION_LINE_BYTES_MAX or
 * has more than EXPOSITION_LABELS_MAX labels is skipped and counted. A last line without its line
 * end counts as cut, and is not used.
 */
#ifndef HASHTRIE_DISCOVERY_EXPOSITION_H
#define HASHTRIE_DISCOVERY_EXPOSITION_H

#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum { EXPOSITION_LINE_BYTES_MAX = 16 * 1024, EXPOSITION_LABELS_MAX = 64 };

struct exposition_label {
    struct span name;
    struct span value; /* Unescaped. */
};

/* Points into the reader: valid during the callback. */
struct exposition_sample {
    struct span name;
    struct exposition_label labels[EXPOSITION_LABELS_MAX];
    size_t label_count;
    double value; /* May be NaN or infinite. */
};

typedef void exposition_on_sample(void *user, const struct exposition_sample *sample);

struct exposition {
    struct buf line;   /* What has come of a line whose end has not. */
    bool line_skipped; /* It was too long: skipped up to its end. */
    uint64_t sample_count;
    uint64_t bad_line_count;
    exposition_on_sample *on_sample;
    void *user;
};

void exposition_init(struct exposition *reader, struct mem *mem, exposition_on_sample *on_sample,
                     void *user);
void exposition_fini(struct exposition *reader);
void exposition_feed(struct exposition *reader, const char *bytes, size_t size);

/* {NULL, 0}: the sample has no such label. */
struct span exposition_label(const struct exposition_sample *sample, const char *name);

#endif
