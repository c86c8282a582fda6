#include "discovery/exposition.h"

#include <math.h>
#include <stdlib.h>

enum { NUMBER_BYTES_MAX = 63 };

/* What is left of a line. */
struct cursor {
    char *at;
    char *end;
};

static bool is_name_start(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_' ||
           byte == ':';
}

static bool is_name_part(char byte)
{
    return is_name_start(byte) || (byte >= '0' && byte <= '9');
}

static void skip_blanks(struct cursor *cursor)
{
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\t')) {
        cursor->at++;
    }
}

static bool take_byte(struct cursor *cursor, char byte)
{
    skip_blanks(cursor);
    if (cursor->at == cursor->end || *cursor->at != byte) {
        return false;
    }
    cursor->at++;
    return true;
}

static bool take_name(struct cursor *cursor, struct span *out)
{
    skip_blanks(cursor);
    char *begin = cursor->at;
    if (begin == cursor->end || !is_name_start(*begin)) {
        return false;
    }
    while (cursor->at < cursor->end && is_name_part(*cursor->at)) {
        cursor->at++;
    }
    *out = (struct span){.data = begin, .size = (size_t)(cursor->at - begin)};
    return true;
}

/* A quoted value, unescaped where it stands. */
static bool take_value(struct cursor *cursor, struct span *out)
{
    if (!take_byte(cursor, '"')) {
        return false;
    }
    char *to = cursor->at;
    *out = (struct span){.data = to};
    while (cursor->at < cursor->end && *cursor->at != '"') {
        char byte = *cursor->at++;
        if (byte == '\\') {
            if (cursor->at == cursor->end) {
                return false;
            }
            byte = *cursor->at++;
            if (byte != '\\' && byte != '"' && byte != 'n') {
                return false;
            }
            if (byte == 'n') {
                byte = '\n';
            }
        }
        *to++ = byte;
    }
    out->size = (size_t)(to - out->data);
    return take_byte(cursor, '"');
}

/* `{name="value",...}`, a comma at the end allowed. */
static bool take_labels(struct cursor *cursor, struct exposition_sample *sample)
{
    if (!take_byte(cursor, '{')) {
        return true;
    }
    bool more = true;
    while (!take_byte(cursor, '}')) {
        if (!more || sample->label_count == EXPOSITION_LABELS_MAX) {
            return false;
        }
        struct exposition_label *label = &sample->labels[sample->label_count++];
        if (!take_name(cursor, &label->name) || !take_byte(cursor, '=') ||
            !take_value(cursor, &label->value)) {
            return false;
        }
        more = take_byte(cursor, ',');
    }
    return true;
}

static bool is_decimal(struct span text)
{
    for (size_t i = 0; i < text.size; i++) {
        char byte = text.data[i];
        bool fine = (byte >= '0' && byte <= '9') || byte == '.' || byte == '-' || byte == '+' ||
                    byte == 'e' || byte == 'E';
        if (!fine) {
            return false;
        }
    }
    return text.size > 0;
}

static bool read_number(struct span text, double *out)
{
    if (span_is(text, "NaN")) {
        *out = NAN;
        return true;
    }
    if (span_is(text, "+Inf") || span_is(text, "Inf") || span_is(text, "-Inf")) {
        *out = text.data[0] == '-' ? -INFINITY : INFINITY;
        return true;
    }
    char copy[NUMBER_BYTES_MAX + 1];
    if (text.size >= sizeof copy || !is_decimal(text)) {
        return false;
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    char *end = NULL;
    *out = strtod(copy, &end);
    return *end == '\0';
}

static struct span take_word(struct cursor *cursor)
{
    skip_blanks(cursor);
    char *begin = cursor->at;
    while (cursor->at < cursor->end && *cursor->at != ' ' && *cursor->at != '\t') {
        cursor->at++;
    }
    return (struct span){.data = begin, .size = (size_t)(cursor->at - begin)};
}

/* `name{labels} value [timestamp]` */
static bool read_sample(struct cursor *cursor, struct exposition_sample *sample)
{
    sample->label_count = 0;
    if (!take_name(cursor, &sample->name) || !take_labels(cursor, sample) ||
        !read_number(take_word(cursor), &sample->value)) {
        return false;
    }
    struct span time = take_word(cursor);
    double ignored = 0;
    return (time.size == 0 || read_number(time, &ignored)) && take_word(cursor).size == 0;
}

static void read_line(struct exposition *reader, struct cursor line)
{
    if (line.at < line.end && line.end[-1] == '\r') {
        line.end--;
    }
    skip_blanks(&line);
    if (line.at == line.end || *line.at == '#') {
        return;
    }
    struct exposition_sample sample;
    if (!read_sample(&line, &sample)) {
        reader->bad_line_count++;
        return;
    }
    reader->sample_count++;
    reader->on_sample(reader->user, &sample);
}

void exposition_init(struct exposition *reader, struct mem *mem, exposition_on_sample *on_sample,
                     void *user)
{
    *reader = (struct exposition){.on_sample = on_sample, .user = user};
    buf_init(&reader->line, mem, EXPOSITION_LINE_BYTES_MAX);
}

void exposition_fini(struct exposition *reader)
{
    buf_fini(&reader->line);
}

void exposition_feed(struct exposition *reader, const char *bytes, size_t size)
{
    while (size > 0) {
        const char *newline = memchr(bytes, '\n', size);
        size_t part = newline == NULL ? size : (size_t)(newline - bytes);
        if (!reader->line_skipped && !buf_append(&reader->line, bytes, part)) {
            reader->line_skipped = true;
            reader->bad_line_count++;
        }
        if (newline != NULL) {
            if (!reader->line_skipped && reader->line.size > 0) {
                char *data = reader->line.data;
                read_line(reader, (struct cursor){.at = data, .end = data + reader->line.size});
            }
            reader->line.size = 0;
            reader->line_skipped = false;
            part++;
        }
        bytes += part;
        size -= part;
    }
}

struct span exposition_label(const struct exposition_sample *sample, const char *name)
{
    for (size_t i = 0; i < sample->label_count; i++) {
        if (span_is(sample->labels[i].name, name)) {
            return sample->labels[i].value;
        }
    }
    return (struct span){0};
}
