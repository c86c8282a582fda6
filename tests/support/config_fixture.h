/* Loads a configuration from plain lists, with a faked machine. */
#ifndef HASHTRIE_TESTS_SUPPORT_CONFIG_FIXTURE_H
#define HASHTRIE_TESTS_SUPPORT_CONFIG_FIXTURE_H

#include "config/config.h"

enum { CONFIG_FIXTURE_ARGUMENTS = 64 };

struct config_fixture {
    struct mem mem;
    struct buf messages; /* NUL-terminated after a load. */
    struct config config;
    enum config_action action;
    const char *root;             /* Set before a load; NULL: an empty machine. */
    const char *const *variables; /* name, value, ..., NULL; may be NULL. */
    char *empty_root;
    char *argv[CONFIG_FIXTURE_ARGUMENTS]; /* Of the last load: a reload reads them again. */
};

void config_fixture_init(struct config_fixture *fixture);
void config_fixture_fini(struct config_fixture *fixture); /* Checks that all memory came back. */
/* `arguments` end with NULL; the program's name is put before them. */
void config_fixture_load(struct config_fixture *fixture, const char *const *arguments);
/* The same with a valid pair of backend and model before `arguments`. */
void config_fixture_load_served(struct config_fixture *fixture, const char *const *arguments);

#define ARGUMENTS(...)    \
    (const char *const[]) \
    {                     \
        __VA_ARGS__, NULL \
    }

#endif
