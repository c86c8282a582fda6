#include "bench/sim/document.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "bench/sim/workload.h"
#include "json/json.h"

enum {
    FIRST_WIDTH = 18,
    WIDTH = 11,
    COLUMNS_MAX = 16,
    LINE_BYTES = 512,
    CELL_BYTES = 32,
};

struct document {
    struct mem mem;
    char *title;
    struct buf command;
    struct buf parts[3]; /* Each an array of its own. */
    struct json_writer notes;
    struct json_writer tables;
    struct json_writer plots;
    size_t column_count; /* Of the table under way. */
    size_t column;
};

struct document *document_new(const char *title, int argc, char **argv)
{
    struct document *document = sim_alloc(1, sizeof *document);
    mem_init(&document->mem, SIZE_MAX);
    document->title = mem_strndup(&document->mem, title, strlen(title));
    buf_init(&document->command, &document->mem, SIZE_MAX);
    for (int i = 0; i < argc; i++) {
        (void)buf_printf(&document->command, "%s%s", i > 0 ? " " : "", argv[i]);
    }
    struct json_writer *writers[] = {&document->notes, &document->tables, &document->plots};
    for (size_t i = 0; i < sizeof writers / sizeof writers[0]; i++) {
        buf_init(&document->parts[i], &document->mem, SIZE_MAX);
        json_writer_init(writers[i], &document->parts[i]);
        json_write_array(writers[i]);
    }
    return document;
}

void document_free(struct document *document)
{
    mem_free(&document->mem, document->title, strlen(document->title) + 1);
    buf_fini(&document->command);
    for (size_t i = 0; i < sizeof document->parts / sizeof document->parts[0]; i++) {
        buf_fini(&document->parts[i]);
    }
    mem_fini(&document->mem);
    free(document);
}

/* "model name : X" of the first processor. */
static void describe_machine(char *out, size_t size)
{
    char line[LINE_BYTES];
    FILE *file = fopen("/proc/cpuinfo", "re");
    (void)snprintf(out, size, "unknown processor");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            (void)snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file); /* Read only. */
    }
}

static void add_array(struct buf *out, const char *name, const struct buf *array)
{
    (void)buf_printf(out, ",\n\"%s\": ", name);
    (void)buf_append(out, array->data, array->size);
}

void document_write(struct document *document, const char *path)
{
    char machine[LINE_BYTES];
    struct buf out;
    struct json_writer head;
    json_write_end(&document->notes);
    json_write_end(&document->tables);
    json_write_end(&document->plots);
    describe_machine(machine, sizeof machine);
    buf_init(&out, &document->mem, SIZE_MAX);
    json_writer_init(&head, &out);
    json_write_object(&head);
    json_write_key(&head, "title");
    json_write_text(&head, document->title);
    json_write_key(&head, "command");
    json_write_string(
        &head, (struct span){.data = document->command.data, .size = document->command.size});
    json_write_key(&head, "machine");
    json_write_text(&head, machine);
    add_array(&out, "notes", &document->parts[0]);
    add_array(&out, "tables", &document->parts[1]);
    add_array(&out, "plots", &document->parts[2]);
    bool ok = buf_append_text(&out, "}\n") && json_writer_ok(&document->notes) &&
              json_writer_ok(&document->tables) && json_writer_ok(&document->plots);
    FILE *file = ok ? fopen(path, "we") : NULL;
    ok = file != NULL && fwrite(out.data, 1, out.size, file) == out.size;
    ok = file != NULL && fclose(file) == 0 && ok;
    if (!ok) {
        sim_fail(path, strerror(errno));
    }
    buf_fini(&out);
}

void document_note(struct document *document, const char *text)
{
    json_write_text(&document->notes, text);
    (void)printf("%s\n", text);
}

/* ---- Tables ---- */

static void print_cell(struct document *document, const char *text)
{
    int width = document->column == 0 ? -FIRST_WIDTH : WIDTH;
    (void)printf("%*s", width, text);
    if (++document->column == document->column_count) {
        document->column = 0;
        (void)printf("\n");
    }
}

void document_table(struct document *document, const char *title, const char *const *columns,
                    size_t column_count)
{
    REQUIRE(column_count > 0 && column_count <= COLUMNS_MAX && document->column == 0);
    struct json_writer *json = &document->tables;
    json_write_object(json);
    json_write_key(json, "title");
    json_write_text(json, title);
    json_write_key(json, "columns");
    json_write_array(json);
    (void)printf("\n%s\n", title);
    document->column_count = column_count;
    for (size_t i = 0; i < column_count; i++) {
        json_write_text(json, columns[i]);
        print_cell(document, columns[i]);
    }
    json_write_end(json);
    json_write_key(json, "rows");
    json_write_array(json);
}

static void begin_cell(struct document *document)
{
    if (document->column == 0) {
        json_write_array(&document->tables);
    }
}

static void end_cell(struct document *document, const char *text)
{
    print_cell(document, text);
    if (document->column == 0) {
        json_write_end(&document->tables);
    }
}

void document_text(struct document *document, const char *text)
{
    begin_cell(document);
    json_write_text(&document->tables, text);
    end_cell(document, text);
}

void document_number(struct document *document, double value, int decimals)
{
    char text[CELL_BYTES];
    (void)snprintf(text, sizeof text, "%.*f", decimals, value);
    begin_cell(document);
    json_write_double(&document->tables, value);
    end_cell(document, isfinite(value) ? text : "-");
}

void document_table_end(struct document *document)
{
    REQUIRE(document->column == 0);
    json_write_end(&document->tables);
    json_write_end(&document->tables);
}

/* ---- Plots ---- */

void document_plot(struct document *document, const struct document_axes *axes)
{
    struct json_writer *json = &document->plots;
    json_write_object(json);
    json_write_key(json, "title");
    json_write_text(json, axes->title);
    json_write_key(json, "x_label");
    json_write_text(json, axes->x_label);
    json_write_key(json, "y_label");
    json_write_text(json, axes->y_label);
    json_write_key(json, "kind");
    json_write_text(json, axes->kind);
    json_write_key(json, "y_log");
    json_write_bool(json, axes->y_log);
    json_write_key(json, "marks");
    json_write_array(json);
    for (size_t i = 0; i < axes->mark_count; i++) {
        json_write_object(json);
        json_write_key(json, "x");
        json_write_double(json, axes->marks[i]);
        json_write_key(json, "text");
        json_write_text(json, axes->mark_text);
        json_write_end(json);
    }
    json_write_end(json);
    json_write_key(json, "series");
    json_write_array(json);
}

static void write_numbers(struct json_writer *json, const char *key, const double *numbers,
                          size_t count)
{
    json_write_key(json, key);
    json_write_array(json);
    for (size_t i = 0; i < count; i++) {
        json_write_double(json, numbers[i]);
    }
    json_write_end(json);
}

void document_series(struct document *document, const char *name, const double *x, const double *y,
                     size_t count)
{
    struct json_writer *json = &document->plots;
    json_write_object(json);
    json_write_key(json, "name");
    json_write_text(json, name);
    write_numbers(json, "x", x, count);
    write_numbers(json, "y", y, count);
    json_write_end(json);
}

void document_bars(struct document *document, const char *name, const char *const *x,
                   const double *y, size_t count)
{
    struct json_writer *json = &document->plots;
    json_write_object(json);
    json_write_key(json, "name");
    json_write_text(json, name);
    json_write_key(json, "x");
    json_write_array(json);
    for (size_t i = 0; i < count; i++) {
        json_write_text(json, x[i]);
    }
    json_write_end(json);
    write_numbers(json, "y", y, count);
    json_write_end(json);
}

void document_plot_end(struct document *document)
{
    json_write_end(&document->plots);
    json_write_end(&document->plots);
}
