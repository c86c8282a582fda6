/* The figures of a run: tables on stdout as they come, and with the plots as one JSON document, the
 * input of bench/report/report. */
#ifndef HASHTRIE_BENCH_SIM_DOCUMENT_H
#define HASHTRIE_BENCH_SIM_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>

struct document;

/* `command`: how it was called. Both are copied. */
struct document *document_new(const char *title, int argc, char **argv);
void document_free(struct document *document);
/* Ends the program if the file cannot be written. */
void document_write(struct document *document, const char *path);

void document_note(struct document *document, const char *text);

/* A table, row by row, cell by cell: as many cells as columns. */
void document_table(struct document *document, const char *title, const char *const *columns,
                    size_t column_count);
void document_text(struct document *document, const char *text);
void document_number(struct document *document, double value, int decimals);
void document_table_end(struct document *document);

/* A plot, series by series. `kind` is "line" or "bars"; points of bars have names. */
struct document_axes {
    const char *title;
    const char *x_label;
    const char *y_label;
    const char *kind;
    bool y_log;
    const double *marks; /* Events on the x axis. */
    size_t mark_count;
    const char *mark_text;
};
void document_plot(struct document *document, const struct document_axes *axes);
void document_series(struct document *document, const char *name, const double *x, const double *y,
                     size_t count);
void document_bars(struct document *document, const char *name, const char *const *x,
                   const double *y, size_t count);
void document_plot_end(struct document *document);

#endif
