/* Writing JSON into a buffer. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "json/json.h"

/* The length of the UTF-8 character that `text` begins with, 0 if it begins with none (RFC 3629).
 */
static size_t utf8_length(const unsigned char *text, size_t size)
{
    unsigned char first = text[0];
    size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length == 1) {
        return 1;
    }
    if (first < 0xc2 || first > 0xf4 || length > size) {
        return 0;
    }
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

static bool append_escape(struct buf *out, unsigned char byte)
{
    switch (byte) {
    case '"':
        return buf_append(out, "\\\"", 2);
    case '\\':
        return buf_append(out, "\\\\", 2);
    case '\n':
        return buf_append(out, "\\n", 2);
    case '\r':
        return buf_append(out, "\\r", 2);
    case '\t':
        return buf_append(out, "\\t", 2);
    default:
        return buf_printf(out, "\\u%04x", byte);
    }
}

/* Bytes from the front that are copied as they are. */
static size_t plain_run(const unsigned char *text, size_t size)
{
    size_t run = 0;
    while (run < size && text[run] != '"' && text[run] != '\\' && text[run] >= ' ') {
        size_t length = utf8_length(text + run, size - run);
        if (length == 0) {
            break;
        }
        run += length;
    }
    return run;
}

bool json_append_string(struct buf *out, struct span text)
{
    size_t size_before = out->size;
    const unsigned char *at = (const unsigned char *)text.data;
    size_t left = text.size;
    bool ok = buf_append(out, "\"", 1);
    while (ok && left > 0) {
        size_t run = plain_run(at, left);
        ok = buf_append(out, at, run);
        at += run;
        left -= run;
        if (ok && left > 0) {
            bool special = *at < 0x80;
            ok = special ? append_escape(out, *at) : buf_append_text(out, "\xef\xbf\xbd");
            at++;
            left--;
        }
    }
    if (!ok || !buf_append(out, "\"", 1)) {
        out->size = size_before;
        return false;
    }
    return true;
}

void json_writer_init(struct json_writer *writer, struct buf *out)
{
    *writer = (struct json_writer){.out = out};
}

bool json_writer_ok(const struct json_writer *writer)
{
    CHECK(writer->failed || (writer->depth == 0 && !writer->after_key));
    return !writer->failed;
}

static void put(struct json_writer *writer, const char *bytes, size_t size)
{
    writer->failed = writer->failed || !buf_append(writer->out, bytes, size);
}

static bool in_array(const struct json_writer *writer)
{
    return writer->depth == 0 || (writer->arrays >> (writer->depth - 1) & 1) != 0;
}

/* Before a value: the comma where one is due; in an object a key must have come. */
static void begin_value(struct json_writer *writer)
{
    REQUIRE(writer->after_key || in_array(writer));
    REQUIRE(writer->depth > 0 || !writer->comma); /* One document per writer. */
    if (writer->comma && !writer->after_key) {
        put(writer, ",", 1);
    }
    writer->comma = true;
    writer->after_key = false;
}

static void open_container(struct json_writer *writer, bool array)
{
    REQUIRE(writer->depth < JSON_WRITE_DEPTH_MAX);
    begin_value(writer);
    put(writer, array ? "[" : "{", 1);
    uint64_t bit = UINT64_C(1) << writer->depth;
    writer->arrays = array ? writer->arrays | bit : writer->arrays & ~bit;
    writer->depth++;
    writer->comma = false;
}

void json_write_object(struct json_writer *writer)
{
    open_container(writer, false);
}

void json_write_array(struct json_writer *writer)
{
    open_container(writer, true);
}

void json_write_end(struct json_writer *writer)
{
    REQUIRE(writer->depth > 0);
    REQUIRE(!writer->after_key);
    put(writer, in_array(writer) ? "]" : "}", 1);
    writer->depth--;
    writer->comma = true;
}

void json_write_key_span(struct json_writer *writer, struct span key)
{
    REQUIRE(!in_array(writer));
    REQUIRE(!writer->after_key);
    if (writer->comma) {
        put(writer, ",", 1);
    }
    writer->failed = writer->failed || !json_append_string(writer->out, key);
    put(writer, ":", 1);
    writer->after_key = true;
}

void json_write_key(struct json_writer *writer, const char *key)
{
    json_write_key_span(writer, span_of(key));
}

void json_write_string(struct json_writer *writer, struct span text)
{
    begin_value(writer);
    writer->failed = writer->failed || !json_append_string(writer->out, text);
}

void json_write_text(struct json_writer *writer, const char *text)
{
    if (text == NULL) {
        json_write_null(writer);
    } else {
        json_write_string(writer, span_of(text));
    }
}

void json_write_int(struct json_writer *writer, int64_t number)
{
    begin_value(writer);
    writer->failed = writer->failed || !buf_printf(writer->out, "%" PRId64, number);
}

void json_write_uint(struct json_writer *writer, uint64_t number)
{
    begin_value(writer);
    writer->failed = writer->failed || !buf_append_number(writer->out, number);
}

void json_write_double(struct json_writer *writer, double number)
{
    if (!isfinite(number)) {
        json_write_null(writer);
        return;
    }
    begin_value(writer);
    char text[32];
    int size = snprintf(text, sizeof text, "%.15g", number);
    if (strtod(text, NULL) != number) { /* The shorter form does not come back the same. */
        size = snprintf(text, sizeof text, "%.17g", number);
    }
    CHECK(size > 0 && (size_t)size < sizeof text);
    put(writer, text, (size_t)size);
}

void json_write_bool(struct json_writer *writer, bool value)
{
    begin_value(writer);
    put(writer, value ? "true" : "false", value ? 4 : 5);
}

void json_write_null(struct json_writer *writer)
{
    begin_value(writer);
    put(writer, "null", 4);
}
