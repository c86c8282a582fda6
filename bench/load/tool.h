/* What the programs of the folder share: they end with a message where they cannot go on. */
#ifndef HASHTRIE_BENCH_TOOL_H
#define HASHTRIE_BENCH_TOOL_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

_Noreturn static inline void tool_die(const char *what, int error)
{
    (void)fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, uv_strerror(error));
    exit(1);
}

static inline void *tool_must(void *pointer)
{
    if (pointer == NULL) {
        tool_die("memory", UV_ENOMEM);
    }
    return pointer;
}

/* The number at argv[at]; `usage` ends the program where there is none. */
static inline double tool_number(int argc, char **argv, int at, void (*usage)(void))
{
    char *end = NULL;
    double value = at < argc ? strtod(argv[at], &end) : 0;
    if (end == NULL || *end != '\0' || end == argv[at] || value < 0) {
        usage();
    }
    return value;
}

#endif
