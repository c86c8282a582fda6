#include "proxy/usage.h"

enum {
    OBJECTS_MAX = 8, /* So many braces from the end it may begin: others stand behind it. */
    DIGITS_MAX = 12,
};

/* Where the object behind the last "usage": begins; NULL: nowhere near the end. */
static const char *find_object(struct span text)
{
    static const char name[] = "\"usage\":";
    const size_t name_size = sizeof name - 1;
    const char *brace = text.data + text.size;
    for (int i = 0; i < OBJECTS_MAX && brace > text.data; i++) {
        brace = memrchr(text.data, '{', (size_t)(brace - text.data));
        if (brace == NULL) {
            return NULL;
        }
        const char *end = brace;
        while (end > text.data && end[-1] == ' ') {
            end--;
        }
        if ((size_t)(end - text.data) >= name_size &&
            memcmp(end - name_size, name, name_size) == 0) {
            return brace;
        }
    }
    return NULL;
}

/* Digits up to what is none; more of them than any count of tokens has are no number. */
static const char *read_number(const char *at, const char *end, uint64_t *out)
{
    const char *begin = at;
    const char *limit = end - at > DIGITS_MAX ? at + DIGITS_MAX : end;
    uint64_t value = 0;
    while (at < limit && (unsigned char)(*at - '0') <= 9) {
        value = value * 10 + (uint64_t)(*at++ - '0');
    }
    bool goes_on = at < end && (unsigned char)(*at - '0') <= 9;
    *out = value;
    return at > begin && !goes_on ? at : NULL;
}

/* The name of a member, whose quote is at text.data: compared a word at a time. */
#define IS(text, name) \
    ((text).size > sizeof(name) + 1 && memcmp((text).data + 1, name "\"", sizeof(name)) == 0)

enum member { PROMPT, COMPLETION, CACHED, CACHED_APART, OTHER };

static enum member find_member(struct span text, size_t *size)
{
    if (IS(text, "prompt_tokens")) {
        *size = sizeof "prompt_tokens";
        return PROMPT;
    }
    if (IS(text, "completion_tokens")) {
        *size = sizeof "completion_tokens";
        return COMPLETION;
    }
    if (IS(text, "cached_tokens")) {
        *size = sizeof "cached_tokens";
        return CACHED;
    }
    if (IS(text, "input_tokens")) {
        *size = sizeof "input_tokens";
        return PROMPT;
    }
    if (IS(text, "output_tokens")) {
        *size = sizeof "output_tokens";
        return COMPLETION;
    }
    if (IS(text, "cache_read_input_tokens")) { /* Anthropic's: not counted with the others. */
        *size = sizeof "cache_read_input_tokens";
        return CACHED_APART;
    }
    return OTHER;
}

static void take(struct usage *usage, enum member member, uint64_t value)
{
    if (member == COMPLETION) {
        usage->completion_tokens = value;
        return;
    }
    if (member == PROMPT) {
        usage->prompt_tokens = value;
        return;
    }
    usage->prompt_tokens += member == CACHED_APART ? value : 0;
    usage->cached_tokens = value;
    usage->has_cached = true;
}

/* A member's name, at its first quote, and its value if that is a number. Returns what follows. */
static const char *read_member(const char *at, const char *end, struct usage *usage)
{
    size_t size = 0;
    enum member member = find_member((struct span){.data = at, .size = (size_t)(end - at)}, &size);
    if (member == OTHER) {
        const char *quote = memchr(at + 1, '"', (size_t)(end - at - 1));
        return quote == NULL ? end : quote + 1;
    }
    at += size + 1;
    while (at < end && (*at == ' ' || *at == ':')) {
        at++;
    }
    uint64_t value = 0;
    const char *next = read_number(at, end, &value);
    if (next == NULL) {
        return at;
    }
    take(usage, member, value);
    return next;
}

bool usage_read(struct span text, struct usage *usage)
{
    if (text.size > USAGE_BYTES_MAX) {
        text.data += text.size - USAGE_BYTES_MAX;
        text.size = USAGE_BYTES_MAX;
    }
    const char *at = text.size == 0 ? NULL : find_object(text);
    if (at == NULL) {
        return false;
    }
    const char *end = text.data + text.size;
    int depth = 0;
    while (at < end) {
        char byte = *at;
        if (byte == '"') {
            at = read_member(at, end, usage);
            continue;
        }
        at++;
        if (byte == '{') {
            depth++;
        } else if (byte == '}' && --depth == 0) {
            break;
        }
    }
    return true;
}
