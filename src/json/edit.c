/* Leaving members out of an object, without a copy of the document. */
#include "base/check.h"
#include "json/json.h"

static bool is_named(const struct json_parser *parser, struct json_value key,
                     const char *const *names, size_t name_count)
{
    for (size_t i = 0; i < name_count; i++) {
        if (json_is_text(parser, key, names[i])) {
            return true;
        }
    }
    return false;
}

static bool add_piece(const struct json_parser *parser, size_t from, size_t to,
                      struct json_edit *edit)
{
    if (from == to) {
        return true;
    }
    if (edit->piece_count == JSON_PIECES_MAX) {
        return false;
    }
    edit->pieces[edit->piece_count++] =
        (struct span){.data = parser->bytes + from, .size = to - from};
    return true;
}

bool json_leave_out(const struct json_parser *parser, const char *const *names, size_t name_count,
                    struct json_edit *out)
{
    REQUIRE(json_kind(parser, json_root(parser)) == JSON_OBJECT);
    *out = (struct json_edit){.comma = false};
    size_t from = 0; /* What is kept and not yet in a piece. */
    struct json_cursor cursor = json_first(parser, json_root(parser));
    struct json_value key;
    struct json_value value;
    while (json_next_member(parser, &cursor, &key, &value)) {
        bool left_out = is_named(parser, key, names, name_count);
        if (left_out) {
            if (!add_piece(parser, from, json_word_value(parser->words[key.token]), out)) {
                return false;
            }
            from = json_word_value(parser->words[cursor.token]); /* The next key, or the brace. */
        }
        out->comma = !left_out;
    }
    return add_piece(parser, from, json_word_value(parser->words[cursor.token]), out);
}
