/*
 * Just enough JSON reading for the mock engine: a document is checked once as a whole, then walked
 * as slices of its text. The engine shares no parser with the router that it tests.
 */
#ifndef HASHTRIE_BENCH_JSON_IN_H
#define HASHTRIE_BENCH_JSON_IN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { JSON_IN_DEPTH_MAX = 64 };

/* One value: its text in a checked document, white space around it off. */
struct json_in {
    const char *at;
    const char *end;
};

/* False: not one JSON value, or nested deeper than JSON_IN_DEPTH_MAX. */
bool json_in_check(const char *text, size_t size, struct json_in *root);

/* First character tells the kind: '{', '[', '"', 't', 'f', 'n', else a number. 0: no value. */
char json_in_kind(struct json_in value);

/* Walks an object or an array: start with *rest = value; false at the end. `key` stays empty in an
 * array. Anything else has no members. */
bool json_in_next(struct json_in *rest, struct json_in *key, struct json_in *value);

/* The last member of that name; {NULL, NULL} if there is none. Names with escapes do not match. */
struct json_in json_in_find(struct json_in object, const char *name);

bool json_in_is_string(struct json_in value, const char *text);
bool json_in_is_true(struct json_in value);
/* A whole number from 0 to 2^53; false if it is anything else. */
bool json_in_count(struct json_in value, uint64_t *out);
/* Appends the decoded text of a string. False: no room. Lone surrogates become U+FFFD. */
bool json_in_text(struct json_in string, struct buf *out);

#endif
