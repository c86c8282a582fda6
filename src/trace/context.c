/* `traceparent`: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, small letters. */
#include "trace/trace.h"

enum { SPAN_AT = 36, FLAGS_AT = 53, HEX_PER_WORD = 16, SAMPLED = 1 };

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool read_hex(const char *text, size_t size, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < size; i++) {
        int value = hex_value(text[i]);
        if (value < 0) {
            return false;
        }
        *out = *out << 4 | (uint64_t)value;
    }
    return true;
}

static void write_hex(char *out, uint64_t value, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = size; i > 0; i--, value >>= 4) {
        out[i - 1] = digits[value & 0xf];
    }
}

/* Later versions may have more behind it, but for that begin as this one does. */
static bool read_parent(struct span text, struct trace_context *out)
{
    uint64_t version = 0;
    uint64_t flags = 0;
    if (text.size < TRACE_PARENT_BYTES || !read_hex(text.data, 2, &version) || version == 0xff ||
        (text.size > TRACE_PARENT_BYTES &&
         (version == 0 || text.data[TRACE_PARENT_BYTES] != '-'))) {
        return false;
    }
    bool well_formed = text.data[2] == '-' && text.data[SPAN_AT - 1] == '-' &&
                       text.data[FLAGS_AT - 1] == '-' &&
                       read_hex(text.data + 3, HEX_PER_WORD, &out->trace[0]) &&
                       read_hex(text.data + 3 + HEX_PER_WORD, HEX_PER_WORD, &out->trace[1]) &&
                       read_hex(text.data + SPAN_AT, HEX_PER_WORD, &out->parent) &&
                       read_hex(text.data + FLAGS_AT, 2, &flags);
    out->sampled = (flags & SAMPLED) != 0;
    return well_formed && (out->trace[0] | out->trace[1]) != 0 && out->parent != 0;
}

void trace_begin(struct trace_context *context, struct span parent, struct random *random)
{
    *context = (struct trace_context){0};
    if (!read_parent(parent, context)) {
        *context = (struct trace_context){.trace = {random_next(random), random_next(random) | 1},
                                          .sampled = true};
    }
    context->span = random_next(random) | 1; /* Never 0, which means none. */
}

void trace_write_id(const struct trace_context *context, char out[TRACE_ID_BYTES])
{
    write_hex(out, context->trace[0], HEX_PER_WORD);
    write_hex(out + HEX_PER_WORD, context->trace[1], HEX_PER_WORD);
}

void trace_write_parent(const struct trace_context *context, char out[TRACE_PARENT_BYTES])
{
    memset(out, '-', TRACE_PARENT_BYTES);
    write_hex(out, 0, 2);
    trace_write_id(context, out + 3);
    write_hex(out + SPAN_AT, context->span, HEX_PER_WORD);
    write_hex(out + FLAGS_AT, context->sampled ? SAMPLED : 0, 2);
}
