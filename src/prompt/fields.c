/* Members of an object by name: one pass, the last of equal keys counts. */
#include "prompt/internal.h"

bool prompt_is_name(const struct json_parser *json, struct json_value value, struct span name)
{
    if (json_kind(json, value) != JSON_STRING) {
        return false;
    }
    return json_is_usual(json, value) ? span_equal(json_text(json, value), name)
                                      : json_is_text(json, value, name.data);
}

/* Sizes of names as bits, so that most other keys need no comparison at all. */
static inline uint64_t size_bit(size_t size)
{
    return size < 64 ? UINT64_C(1) << size : 0;
}

/* Which of the names a key is; `count` if none. */
static inline size_t find_name(const struct json_parser *json, struct json_value key,
                               const struct span *names, size_t count, uint64_t sizes)
{
    bool usual = json_is_usual(json, key);
    struct span text = json_text(json, key);
    if (usual && (size_bit(text.size) & sizes) == 0) {
        return count;
    }
    for (size_t i = 0; i < count; i++) {
        if (usual ? span_equal(text, names[i]) : json_is_text(json, key, names[i].data)) {
            return i;
        }
    }
    return count;
}

void prompt_find_fields(const struct json_parser *json, struct json_value object,
                        const struct span *names, size_t count, struct json_value *out)
{
    uint64_t sizes = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = json_absent();
        sizes |= size_bit(names[i].size);
    }
    struct json_cursor cursor = json_first(json, object);
    struct json_value key;
    struct json_value value;
    while (json_next_member(json, &cursor, &key, &value)) {
        size_t found = find_name(json, key, names, count, sizes);
        if (found < count) {
            out[found] = value;
        }
    }
}
