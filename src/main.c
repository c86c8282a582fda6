/* hashtrie-router: wiring. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hashtrie/status.h"

#include "base/log.h"
#include "config/config.h"
#include "proxy/proxy.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, TEXT_BYTES_MAX = 1024 * 1024 };

static const char *lookup(void *user, const char *name)
{
    (void)user;
    return getenv(name);
}

static void print(FILE *file, const struct buf *text)
{
    if (text->size > 0) {
        (void)fwrite(text->data, 1, text->size, file); /* Nobody reads what cannot be written. */
    }
}

static enum log_level level_of(enum config_log_level level)
{
    switch (level) {
    case CONFIG_LOG_CRITICAL:
    case CONFIG_LOG_ERROR:
        return LOG_ERROR;
    case CONFIG_LOG_WARNING:
        return LOG_WARNING;
    case CONFIG_LOG_DEBUG:
    case CONFIG_LOG_TRACE:
        return LOG_DEBUG;
    case CONFIG_LOG_INFO:
    default:
        return LOG_INFO;
    }
}

static void log_messages(struct log *log, const struct buf *messages)
{
    const char *text = messages->data;
    size_t size = messages->size;
    const char *line = NULL;
    size_t line_size = 0;
    static const char warning[] = "warning: ";
    while (config_message_next(&text, &size, &line, &line_size)) {
        size_t skip = sizeof warning - 1;
        if (line_size >= skip && memcmp(line, warning, skip) == 0) {
            log_write(log, LOG_WARNING, "%.*s", (int)(line_size - skip), line + skip);
        } else {
            log_write(log, LOG_INFO, "%.*s", (int)line_size, line);
        }
    }
}

static int serve(const struct config *config, const struct buf *messages)
{
    struct log log;
    int status = EXIT_FAILED;
    log_init(&log, STDERR_FILENO, level_of(config->log_level),
             config->log_json ? LOG_JSON : LOG_TEXT);
    log_messages(&log, messages);
    (void)signal(SIGPIPE, SIG_IGN); /* A closed peer is a status of the write. */
    struct router *router = router_new(config, &log);
    if (router != NULL) {
        status = router_run(router) ? EXIT_OK : EXIT_FAILED;
        router_free(router);
    }
    log_fini(&log);
    return status;
}

static int act(enum config_action action, const struct config *config, const struct buf *messages,
               struct buf *text)
{
    switch (action) {
    case CONFIG_RUN:
        return serve(config, messages);
    case CONFIG_CHECK:
        print(stderr, messages);
        (void)config_describe(config, text); /* What fits is printed. */
        print(stdout, text);
        return EXIT_OK;
    case CONFIG_HELP:
        (void)config_help(text); /* What fits is printed. */
        print(stdout, text);
        return EXIT_OK;
    case CONFIG_VERSION:
        (void)printf("hashtrie-router %s\n", hashtrie_version());
        return EXIT_OK;
    case CONFIG_REFUSED:
    default:
        print(stderr, messages);
        return EXIT_USAGE;
    }
}

int main(int argc, char **argv)
{
    struct mem mem;
    struct buf messages;
    struct buf text;
    struct config config;
    mem_init(&mem, SIZE_MAX);
    buf_init(&messages, &mem, TEXT_BYTES_MAX);
    buf_init(&text, &mem, TEXT_BYTES_MAX);
    struct config_input input = {
        .argc = argc, .argv = argv, .lookup = lookup, .root = "", .mem = &mem};
    enum config_action action = config_load(&input, &config, &messages);
    int status = act(action, &config, &messages, &text);
    config_fini(&config);
    buf_fini(&text);
    buf_fini(&messages);
    mem_fini(&mem);
    return status;
}
