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

/* Which of the names a key is; `count` if none. */
static size_t find_name(const struct json_parser *json, struct json_value key,
                        const struct span *names, size_t count)
{
    bool usual = json_is_usual(json, key);
    struct span text = json_text(json, key);
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
    for (size_t i = 0; i < count; i++) {
        out[i] = json_absent();
    }
    struct json_cursor cursor = json_first(json, object);
    struct json_value key;
    struct json_value value;
    while (json_next_member(json, &cursor, &key, &value)) {
        size_t found = find_name(json, key, names, count);
        if (found < count) {
            out[found] = value;
        }
    }
}
