#include "bench/mock/json_in.h"

#include <string.h>

#define COUNT_MAX (UINT64_C(1) << 53)

enum {
    SURROGATE_FIRST = 0xd800,
    SURROGATE_LOW = 0xdc00,
    SURROGATE_LAST = 0xdfff,
    REPLACEMENT = 0xfffd,
    BEYOND_BMP = 0x10000,
};

struct cursor {
    const char *at;
    const char *end;
};

static void skip_space(struct cursor *cursor)
{
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\n' ||
                                        *cursor->at == '\r' || *cursor->at == '\t')) {
        cursor->at++;
    }
}

static bool take(struct cursor *cursor, char wanted)
{
    skip_space(cursor);
    if (cursor->at >= cursor->end || *cursor->at != wanted) {
        return false;
    }
    cursor->at++;
    return true;
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    int lower = (unsigned char)byte | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool check_escape(struct cursor *cursor)
{
    if (cursor->at >= cursor->end) {
        return false;
    }
    char kind = *cursor->at++;
    if (kind != 'u') {
        return kind != '\0' && strchr("\"\\/bfnrt", kind) != NULL;
    }
    for (int i = 0; i < 4; i++) {
        if (cursor->at >= cursor->end || hex_digit(*cursor->at++) < 0) {
            return false;
        }
    }
    return true;
}

static bool check_string(struct cursor *cursor)
{
    if (!take(cursor, '"')) {
        return false;
    }
    while (cursor->at < cursor->end) {
        char byte = *cursor->at++;
        if (byte == '"') {
            return true;
        }
        if ((unsigned char)byte < ' ' || (byte == '\\' && !check_escape(cursor))) {
            return false;
        }
    }
    return false;
}

static bool check_word(struct cursor *cursor, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(cursor->end - cursor->at) < size || memcmp(cursor->at, word, size) != 0) {
        return false;
    }
    cursor->at += size;
    return true;
}

static bool check_number(struct cursor *cursor)
{
    const char *start = cursor->at;
    while (cursor->at < cursor->end && strchr("+-.0123456789eE", *cursor->at) != NULL &&
           *cursor->at != '\0') {
        cursor->at++;
    }
    return cursor->at > start && cursor->at[-1] >= '0' && cursor->at[-1] <= '9';
}

static bool check_value(struct cursor *cursor, int depth);

/* Members of an object or items of an array, behind the opening bracket. */
/* NOLINTNEXTLINE(misc-no-recursion): bounded by JSON_IN_DEPTH_MAX. */
static bool check_members(struct cursor *cursor, int depth, char close)
{
    if (take(cursor, close)) {
        return true;
    }
    do {
        if (close == '}' && (!check_string(cursor) || !take(cursor, ':'))) {
            return false;
        }
        if (!check_value(cursor, depth)) {
            return false;
        }
    } while (take(cursor, ','));
    return take(cursor, close);
}

/* NOLINTNEXTLINE(misc-no-recursion): bounded by JSON_IN_DEPTH_MAX. */
static bool check_value(struct cursor *cursor, int depth)
{
    skip_space(cursor);
    if (cursor->at >= cursor->end || depth >= JSON_IN_DEPTH_MAX) {
        return false;
    }
    switch (*cursor->at) {
    case '{':
        cursor->at++;
        return check_members(cursor, depth + 1, '}');
    case '[':
        cursor->at++;
        return check_members(cursor, depth + 1, ']');
    case '"':
        return check_string(cursor);
    case 't':
        return check_word(cursor, "true");
    case 'f':
        return check_word(cursor, "false");
    case 'n':
        return check_word(cursor, "null");
    default:
        return check_number(cursor);
    }
}

bool json_in_check(const char *text, size_t size, struct json_in *root)
{
    struct cursor cursor = {text, text + size};
    skip_space(&cursor);
    root->at = cursor.at;
    if (!check_value(&cursor, 0)) {
        return false;
    }
    root->end = cursor.at;
    skip_space(&cursor);
    return cursor.at == cursor.end;
}

char json_in_kind(struct json_in value)
{
    return (char)(value.at < value.end ? *value.at : '\0');
}

static void skip_string(struct cursor *cursor)
{
    for (cursor->at++; *cursor->at != '"'; cursor->at++) {
        if (*cursor->at == '\\') {
            cursor->at++;
        }
    }
    cursor->at++;
}

/* Behind a value of a checked document: brackets are counted, strings stepped over. */
static void skip_value(struct cursor *cursor)
{
    size_t open = 0;
    do {
        skip_space(cursor);
        char byte = *cursor->at;
        if (byte == '"') {
            skip_string(cursor);
            continue;
        }
        if (byte == '{' || byte == '[') {
            open++;
        } else if (byte == '}' || byte == ']') {
            open--;
        } else if (open == 0) {
            while (cursor->at < cursor->end && strchr(",]} \n\r\t", *cursor->at) == NULL) {
                cursor->at++;
            }
            return;
        }
        cursor->at++;
    } while (open > 0);
}

bool json_in_next(struct json_in *rest, struct json_in *key, struct json_in *value)
{
    struct cursor cursor = {rest->at, rest->end};
    if (cursor.at >= cursor.end || strchr("{[,", *cursor.at) == NULL) {
        return false;
    }
    cursor.at++;
    skip_space(&cursor);
    if (*cursor.at == '}' || *cursor.at == ']') {
        return false;
    }
    bool in_object = rest->end[-1] == '}';
    *key = (struct json_in){0};
    if (in_object) {
        key->at = cursor.at;
        skip_string(&cursor);
        key->end = cursor.at;
        (void)take(&cursor, ':'); /* Checked before. */
        skip_space(&cursor);
    }
    value->at = cursor.at;
    skip_value(&cursor);
    value->end = cursor.at;
    skip_space(&cursor);
    rest->at = cursor.at;
    return true;
}

bool json_in_is_string(struct json_in value, const char *text)
{
    size_t size = strlen(text);
    return json_in_kind(value) == '"' && (size_t)(value.end - value.at) == size + 2 &&
           memcmp(value.at + 1, text, size) == 0;
}

struct json_in json_in_find(struct json_in object, const char *name)
{
    struct json_in found = {0};
    if (json_in_kind(object) != '{') {
        return found;
    }
    struct json_in key;
    struct json_in value;
    while (json_in_next(&object, &key, &value)) {
        if (json_in_is_string(key, name)) {
            found = value;
        }
    }
    return found;
}

bool json_in_is_true(struct json_in value)
{
    return json_in_kind(value) == 't';
}

bool json_in_count(struct json_in value, uint64_t *out)
{
    uint64_t count = 0;
    if (value.at >= value.end) {
        return false;
    }
    for (const char *at = value.at; at < value.end; at++) {
        if (*at < '0' || *at > '9' || count > COUNT_MAX) {
            return false;
        }
        count = count * 10 + (uint64_t)(*at - '0');
    }
    *out = count;
    return count <= COUNT_MAX;
}

static uint32_t read_hex4(const char *at)
{
    uint32_t code = 0;
    for (int i = 0; i < 4; i++) {
        code = code << 4 | (uint32_t)hex_digit(at[i]);
    }
    return code;
}

static bool put_utf8(struct buf *out, uint32_t code)
{
    unsigned char bytes[4];
    size_t size = 0;
    if (code < 0x80) {
        bytes[size++] = (unsigned char)code;
    } else if (code < 0x800) {
        bytes[size++] = (unsigned char)(0xc0 | code >> 6);
    } else if (code < BEYOND_BMP) {
        bytes[size++] = (unsigned char)(0xe0 | code >> 12);
        bytes[size++] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
    } else {
        bytes[size++] = (unsigned char)(0xf0 | code >> 18);
        bytes[size++] = (unsigned char)(0x80 | (code >> 12 & 0x3f));
        bytes[size++] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
    }
    if (code >= 0x80) {
        bytes[size++] = (unsigned char)(0x80 | (code & 0x3f));
    }
    return buf_append(out, bytes, size);
}

/* \uXXXX, and the pair of a high and a low surrogate. *at is behind the 'u'. */
static bool put_unicode_escape(const char **at, const char *end, struct buf *out)
{
    uint32_t code = read_hex4(*at);
    *at += 4;
    if (code < SURROGATE_FIRST || code > SURROGATE_LAST) {
        return put_utf8(out, code);
    }
    if (code < SURROGATE_LOW && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
        uint32_t low = read_hex4(*at + 2);
        if (low >= SURROGATE_LOW && low <= SURROGATE_LAST) {
            *at += 6;
            return put_utf8(out,
                            BEYOND_BMP + ((code - SURROGATE_FIRST) << 10) + (low - SURROGATE_LOW));
        }
    }
    return put_utf8(out, REPLACEMENT);
}

bool json_in_text(struct json_in string, struct buf *out)
{
    if (json_in_kind(string) != '"') {
        return true;
    }
    static const char names[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    const char *at = string.at + 1;
    const char *end = string.end - 1;
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        const char *stop = escape != NULL ? escape : end;
        if (!buf_append(out, at, (size_t)(stop - at))) {
            return false;
        }
        if (escape == NULL) {
            break;
        }
        at = escape + 2;
        bool done = escape[1] == 'u'
                        ? put_unicode_escape(&at, end, out)
                        : buf_append(out, &meanings[strchr(names, escape[1]) - names], 1);
        if (!done) {
            return false;
        }
    }
    return true;
}
