/*
 * What a disk may hold after power loss, from a trace of what was done to it (disk_trace.h).
 *
 * Files: what a sync has covered is there; of later writes any may be lost, whole or by page or by
 * sector. Names: what a sync of the folder has covered is there; of later changes the first so many
 * are (file systems journal them in order). The call in flight may have been done in part.
 */
#ifndef HASHTRIE_TESTS_SUPPORT_CRASH_MODEL_H
#define HASHTRIE_TESTS_SUPPORT_CRASH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random.h"
#include "support/disk_trace.h"

enum crash_kind {
    CRASH_ALL_LOST, /* All that was not synced. */
    CRASH_PREFIX,   /* The first so many writes are there. */
    CRASH_PAGES,    /* Each page of 4,096 bytes is as after any of its writes. */
    CRASH_SECTORS,  /* The same with 512 bytes. */
    CRASH_KINDS
};

struct crash_model;

/* Reads the whole trace. NULL: it cannot be read; a message is on standard error. */
struct crash_model *crash_model_new(const char *trace_path);
void crash_model_free(struct crash_model *model);

size_t crash_model_records(const struct crash_model *model);
/* The record with that number, and its first path ("" if it has none). */
const struct disk_record *crash_model_record(const struct crash_model *model, size_t number);

/* Takes the next record as done. */
void crash_model_step(struct crash_model *model);
/* Of the last DISK_MARK taken. */
uint64_t crash_model_mark_first(const struct crash_model *model);
uint64_t crash_model_mark_second(const struct crash_model *model);

/* Writes what may be left into an empty folder, if power goes while the next record's call is under
 * way. False: it could not be written. */
bool crash_model_image(const struct crash_model *model, enum crash_kind kind, struct random *random,
                       const char *folder);

/* Whether the folder has just the names and bytes that the records so far make (lock.mdb aside): if
 * not, the trace is not complete. Prints the first difference. */
bool crash_model_is(const struct crash_model *model, const char *folder);

#endif
