#include "support/config_fixture.h"

#include <string.h>

#include "support/test.h"

enum { MESSAGES_BYTES_MAX = 1 << 20 };

void config_fixture_init(struct config_fixture *fixture)
{
    *fixture = (struct config_fixture){0};
    mem_init(&fixture->mem, SIZE_MAX);
    buf_init(&fixture->messages, &fixture->mem, MESSAGES_BYTES_MAX);
    fixture->empty_root = test_directory_make();
}

static void unload(struct config_fixture *fixture)
{
    if (fixture->config.mem != NULL) {
        config_fini(&fixture->config);
    }
    buf_fini(&fixture->messages);
}

void config_fixture_fini(struct config_fixture *fixture)
{
    unload(fixture);
    test_directory_remove(fixture->empty_root);
    mem_fini(&fixture->mem);
}

static const char *look_up(void *user, const char *name)
{
    const struct config_fixture *fixture = user;
    for (size_t i = 0; fixture->variables != NULL && fixture->variables[i] != NULL; i += 2) {
        if (strcmp(fixture->variables[i], name) == 0) {
            return fixture->variables[i + 1];
        }
    }
    return NULL;
}

static void load(struct config_fixture *fixture, const char *const *first,
                 const char *const *second)
{
    unload(fixture);
    char **argv = fixture->argv;
    static char program[] = "hashtrie-router";
    int argc = 0;
    argv[argc++] = program;
    for (size_t i = 0; first[i] != NULL; i++) {
        memcpy(&argv[argc++], &first[i], sizeof(char *)); /* argv is not const; nobody writes. */
    }
    for (size_t i = 0; second[i] != NULL; i++) {
        assert_true(argc < CONFIG_FIXTURE_ARGUMENTS);
        memcpy(&argv[argc++], &second[i], sizeof(char *));
    }
    struct config_input input = {
        .argc = argc,
        .argv = argv,
        .lookup = look_up,
        .user = fixture,
        .root = fixture->root != NULL ? fixture->root : fixture->empty_root,
        .mem = &fixture->mem,
    };
    fixture->action = config_load(&input, &fixture->config, &fixture->messages);
    (void)buf_append(&fixture->messages, "", 1);
}

void config_fixture_load(struct config_fixture *fixture, const char *const *arguments)
{
    load(fixture, ARGUMENTS(NULL), arguments);
}

void config_fixture_load_served(struct config_fixture *fixture, const char *const *arguments)
{
    load(fixture, ARGUMENTS("--static-backends", "http://127.0.0.1:9000", "--static-models", "m"),
         arguments);
}
