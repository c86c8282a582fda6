/* A piece of somebody else's bytes: not NUL-terminated, not owned. */
#ifndef HASHTRIE_BASE_SPAN_H
#define HASHTRIE_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
    const char *data; /* May be NULL where size is 0. */
    size_t size;
};

/* Of a literal, where an initializer has to be constant. */
#define SPAN(text)               \
    {                            \
        (text), sizeof(text) - 1 \
    }

static inline struct span span_of(const char *text)
{
    return (struct span){.data = text, .size = strlen(text)};
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* As strcmp(). */
static inline int span_compare(struct span span, const char *text)
{
    size_t size = strlen(text);
    size_t common = span.size < size ? span.size : size;
    int order = common == 0 ? 0 : memcmp(span.data, text, common);
    return order != 0 ? order : (span.size > size) - (span.size < size);
}

static inline bool span_is(struct span span, const char *text)
{
    return span_equal(span, span_of(text));
}

static inline char span_lower(char byte)
{
    return (char)(byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte);
}

/* ASCII letters without regard to case. */
static inline bool span_equal_nocase(struct span a, struct span b)
{
    if (a.size != b.size) {
        return false;
    }
    for (size_t i = 0; i < a.size; i++) {
        if (span_lower(a.data[i]) != span_lower(b.data[i])) {
            return false;
        }
    }
    return true;
}

static inline bool span_is_nocase(struct span span, const char *text)
{
    return span_equal_nocase(span, span_of(text));
}

/* Without blanks and tabs at both ends. */
static inline struct span span_trim(struct span span)
{
    while (span.size > 0 && (span.data[0] == ' ' || span.data[0] == '\t')) {
        span.data++;
        span.size--;
    }
    while (span.size > 0 && (span.data[span.size - 1] == ' ' || span.data[span.size - 1] == '\t')) {
        span.size--;
    }
    return span;
}

/* Cuts the next item off a list separated by commas, trimmed. False: no more. */
static inline bool span_next_item(struct span *list, struct span *item)
{
    if (list->size == 0) {
        return false;
    }
    const char *comma = memchr(list->data, ',', list->size);
    size_t size = comma == NULL ? list->size : (size_t)(comma - list->data);
    *item = span_trim((struct span){.data = list->data, .size = size});
    size_t step = comma == NULL ? size : size + 1;
    list->data += step;
    list->size -= step;
    return true;
}

#endif
