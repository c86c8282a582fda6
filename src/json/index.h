/*
 * Where the tokens of a JSON text begin: simdjson's first stage behind C linkage. It also checks
 * UTF-8, and that strings are closed and free of raw control bytes; nothing else.
 */
#ifndef HASHTRIE_JSON_INDEX_H
#define HASHTRIE_JSON_INDEX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct json_index; /* What simdjson needs between calls; small. */

/* Offsets that json_index_build() may write for a document of `size` bytes, some of them scratch.
 */
#define JSON_INDEX_OFFSETS(size) ((size) + 128)

enum json_index_status { JSON_INDEX_OK, JSON_INDEX_INVALID, JSON_INDEX_NO_MEMORY };

/*
 * Offsets of all tokens of `bytes`, ascending, into `offsets`, which has room for
 * JSON_INDEX_OFFSETS(size) of them; one more entry behind the last is `size`. No more of `offsets`
 * is touched than there are tokens, and a little. *index is NULL or from an earlier call, and is
 * made or enlarged where needed. size > 0.
 */
enum json_index_status json_index_build(struct json_index **index, const char *bytes, size_t size,
                                        uint32_t *offsets, uint32_t *count);
void json_index_free(struct json_index *index); /* NULL is fine. */

#ifdef __cplusplus
}
#endif

#endif
