/* Members of an object by name: one pass, the last of equal keys counts. */
#include "prompt/internal.h"

static bool key_is(const struct json_parser *json, struct json_value key, struct span name)
{
    if (json_is_escaped(json, key)) {
        return json_is_text(json, key, name.data);
    }
    return span_equal(json_text(json, key), name);
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
        for (size_t i = 0; i < count; i++) {
            if (key_is(json, key, names[i])) {
                out[i] = value;
                break;
            }
        }
    }
}
