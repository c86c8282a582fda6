/* Replays tests/http: every case whole, byte by byte, and split at random places, each time with
 * the same outcome, which is the one the file asks for. The format: tests/http/README.md. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "http/http.h"
#include "support/test.h"

enum {
    LINE_MAX_BYTES = 4096,
    INPUT_MAX = 256 * 1024,
    CASES_MIN = 300,
    SPLITS = 8,
};

struct piece {
    char *bytes;
    size_t size;
};

struct corpus {
    const char *file;
    unsigned line;
    enum http_kind kind;
    bool to_head;
    bool router_alone; /* The parser takes it; a router does not. */
    char name[LINE_MAX_BYTES];
    struct piece before;
    struct piece own;
    struct piece after;
    struct piece wanted; /* The verdict lines. */
    struct random random;
    size_t case_count;
    size_t wrong_count;
};

static void add(struct piece *piece, const char *bytes, size_t size)
{
    assert_true(piece->size + size < INPUT_MAX);
    memcpy(piece->bytes + piece->size, bytes, size);
    piece->size += size;
    piece->bytes[piece->size] = 0;
}

static const char *unescape(struct piece *out, const char *text, char end);

/* "\(COUNT TEXT)": the text that many times. */
static const char *repeat(struct piece *out, const char *text)
{
    char *rest = NULL;
    unsigned long count = strtoul(text, &rest, 10);
    assert_true(*rest == ' ' && count > 0);
    const char *end = NULL;
    for (; count > 0; count--) {
        end = unescape(out, rest + 1, ')');
    }
    return end + 1;
}

/* Up to the byte `end`, where it returns. */
static const char *unescape(struct piece *out, const char *text, char end)
{
    static const char names[] = "rnt0\\";
    static const char bytes[] = "\r\n\t\0\\";
    while (*text != end) {
        assert_int_not_equal(*text, 0);
        if (*text != '\\') {
            add(out, text++, 1);
            continue;
        }
        text++;
        if (*text == '(') {
            text = repeat(out, text + 1);
        } else if (*text == 'x') {
            char digits[3] = {text[1], text[1] == 0 ? 0 : text[2], 0};
            char byte = (char)strtoul(digits, NULL, 16);
            add(out, &byte, 1);
            text += 3;
        } else {
            const char *found = *text == 0 ? NULL : strchr(names, *text);
            assert_non_null(found);
            add(out, bytes + (found - names), 1);
            text++;
        }
    }
    return text;
}

static void note_head(struct piece *out, const struct http_head *head)
{
    char text[LINE_MAX_BYTES];
    const char *framing = !head->has_body && !head->chunked ? "none"
                          : head->chunked                   ? "chunked"
                          : head->until_eof                 ? "eof"
                                                            : "length";
    const char *after = head->keep_alive ? "keep" : "close";
    int size = head->status != 0
                   ? snprintf(text, sizeof text, "= %u %s %s", head->status, framing, after)
                   : snprintf(text, sizeof text, "= %.*s %.*s %s %s", (int)head->method.size,
                              head->method.data, (int)head->target.size, head->target.data, framing,
                              after);
    assert_true(size > 0 && (size_t)size < sizeof text);
    add(out, text, (size_t)size);
}

/* The bytes in pieces: all (0), one by one (1), or random ones. */
static size_t next_piece(struct corpus *corpus, size_t step, size_t left)
{
    size_t size = step == 0 ? left : step == 1 ? 1 : 1 + random_below(&corpus->random, 40);
    return size < left ? size : left;
}

/* What a case comes to, as verdict lines. */
static void read_messages(struct corpus *corpus, const struct piece *input, size_t step,
                          struct piece *out)
{
    struct mem mem;
    mem_init(&mem, SIZE_MAX);
    struct http_parser *parser = http_parser_new(&mem, corpus->kind, http_limits_default());
    assert_non_null(parser);
    http_parser_reset(parser, corpus->to_head);
    size_t used = 0;
    size_t given = 0;
    bool in_body = false;
    size_t begun = 0; /* Where the outcome of the message being read begins. */
    enum http_event event = HTTP_NEED_MORE;
    while (event != HTTP_BROKEN && !(event == HTTP_NEED_MORE && given == input->size)) {
        given += event == HTTP_NEED_MORE ? next_piece(corpus, step, input->size - given) : 0;
        size_t consumed = 0;
        struct span body;
        event = http_parse(parser, input->bytes + used, given - used, &consumed, &body);
        used += consumed;
        if (event == HTTP_GOT_HEAD) {
            in_body = false;
            note_head(out, http_parser_head(parser));
        } else if (event == HTTP_GOT_BODY) {
            add(out, " ", in_body ? 0 : 1);
            add(out, body.data, body.size);
            in_body = true;
        } else if (event == HTTP_GOT_END) {
            add(out, "\n", 1);
            begun = out->size;
            http_parser_reset(parser, corpus->to_head);
        }
    }
    bool cut = event != HTTP_BROKEN && http_parse_eof(parser) == HTTP_BROKEN;
    if (cut || event == HTTP_BROKEN) {
        out->size = begun; /* How much was shown before the refusal depends on the cuts. */
        out->bytes[begun] = 0;
    }
    if (cut) {
        add(out, "~\n", 2);
    } else if (event != HTTP_BROKEN && !http_parser_in_head(parser)) {
        add(out, "\n", 1); /* The connection's end was the body's. */
    } else if (event == HTTP_BROKEN) {
        char text[32];
        int size = snprintf(text, sizeof text, "! %u\n", http_parser_error(parser).status);
        add(out, text, (size_t)size);
    }
    http_parser_free(parser);
    mem_fini(&mem);
}

static void check_case(struct corpus *corpus)
{
    if (corpus->name[0] == 0 || corpus->router_alone) {
        corpus->name[0] = 0;
        return;
    }
    corpus->case_count++;
    struct piece input = {.bytes = malloc(INPUT_MAX)};
    struct piece found = {.bytes = malloc(INPUT_MAX)};
    assert_true(input.bytes != NULL && found.bytes != NULL);
    add(&input, corpus->before.bytes, corpus->before.size);
    add(&input, corpus->own.bytes, corpus->own.size);
    add(&input, corpus->after.bytes, corpus->after.size);
    for (size_t step = 0; step < 2 + SPLITS; step++) {
        found.size = 0;
        found.bytes[0] = 0;
        read_messages(corpus, &input, step, &found);
        if (found.size != corpus->wanted.size ||
            memcmp(found.bytes, corpus->wanted.bytes, found.size) != 0) {
            print_error("%s:%u: %s (cut %zu): wanted\n%sfound\n%s", corpus->file, corpus->line,
                        corpus->name, step, corpus->wanted.bytes, found.bytes);
            corpus->wrong_count++;
            break;
        }
    }
    free(input.bytes);
    free(found.bytes);
    corpus->name[0] = 0;
}

static void clear(struct piece *piece)
{
    piece->size = 0;
    piece->bytes[0] = 0;
}

static bool begins(const char *line, const char *word)
{
    return strncmp(line, word, strlen(word)) == 0;
}

static void read_line(struct corpus *corpus, const char *line, unsigned number)
{
    if (line[0] == '-' || begins(line, "kind ") || begins(line, "before")) {
        check_case(corpus);
    }
    if (line[0] == '-') {
        (void)snprintf(corpus->name, sizeof corpus->name, "%s", line);
        corpus->line = number;
        clear(&corpus->own);
        clear(&corpus->wanted);
    } else if (line[0] == '>') {
        (void)unescape(&corpus->own, line[1] == 0 ? line + 1 : line + 2, 0);
    } else if (line[0] == '=' || line[0] == '!' || line[0] == '~') {
        (void)unescape(&corpus->wanted, line, 0);
        add(&corpus->wanted, "\n", 1);
    } else if (begins(line, "kind ")) {
        corpus->kind = begins(line, "kind request") ? HTTP_REQUESTS : HTTP_RESPONSES;
        corpus->router_alone = strcmp(line, "kind request to a router") == 0;
        corpus->to_head = strcmp(line, "kind response to HEAD") == 0;
        clear(&corpus->before);
        clear(&corpus->after);
    } else if (begins(line, "before ")) {
        clear(&corpus->before);
        clear(&corpus->after);
        (void)unescape(&corpus->before, line + 7, 0);
    } else if (begins(line, "after ")) {
        clear(&corpus->after);
        (void)unescape(&corpus->after, line + 6, 0);
    } else if (line[0] != 0 && line[0] != '#') {
        fail_msg("%s:%u: not a line of a case: %s", corpus->file, number, line);
    }
}

static void read_file(struct corpus *corpus, const char *name)
{
    char path[LINE_MAX_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", TEST_HTTP_CORPUS, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    corpus->file = name;
    char line[LINE_MAX_BYTES];
    for (unsigned number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        line[strcspn(line, "\n")] = 0;
        read_line(corpus, line, number);
    }
    check_case(corpus);
    (void)fclose(file);
}

static void test_corpus(void **state)
{
    (void)state;
    struct corpus corpus = {.random = {.state = test_seed()}};
    struct piece *const pieces[] = {&corpus.before, &corpus.own, &corpus.after, &corpus.wanted};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        pieces[i]->bytes = malloc(INPUT_MAX);
        assert_non_null(pieces[i]->bytes);
        clear(pieces[i]);
    }
    DIR *folder = opendir(TEST_HTTP_CORPUS);
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strstr(entry->d_name, ".cases") != NULL) {
            read_file(&corpus, entry->d_name);
        }
    }
    (void)closedir(folder);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        free(pieces[i]->bytes);
    }
    print_message("%zu cases\n", corpus.case_count);
    assert_int_equal(corpus.wrong_count, 0);
    assert_true(corpus.case_count >= CASES_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_corpus)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
