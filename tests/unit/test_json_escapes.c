/*
 * The check of escapes, and the rewriting to the usual form, against plain versions that go
 * character by character, over random strings and with every way of scanning that this CPU has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "json/internal.h"
#include "support/test.h"

enum { TEXT_MAX = 300, ROUNDS = 60000 };

struct text {
    char bytes[TEXT_MAX * 6];
    size_t size;
};

static void add(struct text *text, const char *bytes, size_t size)
{
    assert_true(text->size + size <= sizeof text->bytes);
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

static void add_usual(struct text *out, unsigned code)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    char bytes[8];
    const char *found = code != 0 && code < 0x80 ? strchr(special, (int)code) : NULL;
    if (found != NULL) {
        add(out, "\\", 1);
        add(out, letters + (found - special), 1);
    } else if (code < 0x80) {
        int size = snprintf(bytes, sizeof bytes, code < ' ' ? "\\u%04x" : "%c", code);
        add(out, bytes, (size_t)size);
    } else if (code < 0x800) {
        bytes[0] = (char)(0xc0 | code >> 6);
        bytes[1] = (char)(0x80 | (code & 0x3f));
        add(out, bytes, 2);
    } else if (code < 0x10000) {
        bytes[0] = (char)(0xe0 | code >> 12);
        bytes[1] = (char)(0x80 | (code >> 6 & 0x3f));
        bytes[2] = (char)(0x80 | (code & 0x3f));
        add(out, bytes, 3);
    } else {
        bytes[0] = (char)(0xf0 | code >> 18);
        bytes[1] = (char)(0x80 | (code >> 12 & 0x3f));
        bytes[2] = (char)(0x80 | (code >> 6 & 0x3f));
        bytes[3] = (char)(0x80 | (code & 0x3f));
        add(out, bytes, 4);
    }
}

/* The code unit of \uXXXX at `at`, or -1. */
static int unit_at(const struct text *text, size_t at)
{
    unsigned unit = 0;
    if (at + 6 > text->size || text->bytes[at] != '\\' || text->bytes[at + 1] != 'u') {
        return -1;
    }
    for (size_t i = at + 2; i < at + 6; i++) {
        const char *digits = "0123456789abcdefABCDEF";
        const char *digit = text->bytes[i] != '\0' ? strchr(digits, text->bytes[i]) : NULL;
        if (digit == NULL) {
            return -1;
        }
        unsigned value = (unsigned)(digit - digits);
        unit = unit << 4 | (value < 16 ? value : value - 6);
    }
    return (int)unit;
}

/* The usual form, character by character. False: an escape is wrong. */
static bool to_usual(const struct text *text, struct text *out)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    out->size = 0;
    for (size_t at = 0; at < text->size;) {
        if (text->bytes[at] != '\\') {
            add(out, text->bytes + at++, 1);
            continue;
        }
        int unit = unit_at(text, at);
        int next = unit_at(text, at + 6);
        if (unit >= 0xd800 && unit < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
            add_usual(out, 0x10000 + ((unsigned)(unit - 0xd800) << 10) + (unsigned)(next - 0xdc00));
            at += 12;
            continue;
        }
        if (unit >= 0) {
            add_usual(out, unit >= 0xd800 && unit < 0xe000 ? 0xfffd : (unsigned)unit);
            at += 6;
            continue;
        }
        const char *found = at + 1 < text->size ? strchr(letters, text->bytes[at + 1]) : NULL;
        if (found == NULL || *found == '\0') {
            return false;
        }
        add_usual(out, (unsigned char)meanings[found - letters]);
        at += 2;
    }
    return true;
}

/* Pieces whose joints make runs of backslashes, escapes across blocks, and a few mistakes. */
static void fill(struct random *random, struct text *text)
{
    static const char *const pieces[] = {
        "a",
        "word and word ",
        "\\n",
        "\\\"",
        "\\\\",
        "\\\\\\\\\\\\",
        "\\t",
        "\\/",
        "\\u0041",
        "\\u001b",
        "\\u000A",
        "u",
        "/",
        "nrt",
        "\\ud83d",
        "\\ude00",
        "\\ud83d\\ude00",
        "\xc3\xa9",
        "0000",
        "\xe4\xbd\xa0 text",
    };
    static const char *const mistakes[] = {"\\", "\\x", "\\u12", "\\u12g4", "\\uD8", "\\'"};
    size_t kinds = 1 + random_below(random, sizeof pieces / sizeof *pieces);
    size_t size = random_below(random, TEXT_MAX);
    text->size = 0;
    while (text->size < size) {
        const char *piece = pieces[random_below(random, (uint32_t)kinds)];
        if (random_below(random, 2000) == 0) {
            piece = mistakes[random_below(random, sizeof mistakes / sizeof *mistakes)];
        }
        add(text, piece, strlen(piece));
    }
}

static void check_rewriting(const char *bytes, size_t size, const struct text *wanted, size_t piece)
{
    struct span text = {.data = bytes, .size = size};
    struct text out = {.size = 0};
    char *room = malloc(piece); /* Exact: a sanitizer sees what goes beyond. */
    assert_non_null(room);
    for (size_t more; (more = json_to_usual(&text, room, piece)) > 0;) {
        assert_true(more <= piece);
        add(&out, room, more);
    }
    free(room);
    assert_int_equal(text.size, 0);
    assert_int_equal(out.size, wanted->size);
    assert_memory_equal(out.bytes, wanted->bytes, out.size);
}

static void test_against_plain_version(void **state)
{
    (void)state;
    struct random random = {.state = test_seed()};
    static struct text text;
    static struct text wanted;
    size_t valid = 0;
    for (int round = 0; round < ROUNDS; round++) {
        fill(&random, &text);
        char *exact = malloc(text.size + (text.size == 0));
        assert_non_null(exact);
        memcpy(exact, text.bytes, text.size);
        enum json_form form = JSON_FORM_INVALID;
        if (to_usual(&text, &wanted)) {
            bool same =
                wanted.size == text.size && memcmp(wanted.bytes, text.bytes, text.size) == 0;
            form = same ? JSON_FORM_USUAL : JSON_FORM_UNUSUAL;
            valid++;
        }
        json_scan_blocks *scan_blocks = NULL;
        for (unsigned rank = 0; (scan_blocks = json_scan_choice(rank)) != NULL; rank++) {
            assert_int_equal(json_check_escapes(scan_blocks, exact, text.size, text.size), form);
            assert_int_equal(
                json_check_escapes(scan_blocks, text.bytes, text.size, sizeof text.bytes), form);
        }
        if (form != JSON_FORM_INVALID) {
            size_t piece = JSON_USUAL_MIN + random_below(&random, 100);
            check_rewriting(exact, text.size, &wanted, piece);
        }
        free(exact);
    }
    assert_true(valid > ROUNDS / 2 && valid < ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_plain_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
