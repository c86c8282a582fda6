#include "proxy/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "proxy/router.h"

/* ---- Comparing ---- */

bool keys_same(struct span a, struct span b)
{
    if (a.size != b.size) {
        return false;
    }
    unsigned char difference = 0;
    for (size_t i = 0; i < a.size; i++) {
        difference |= (unsigned char)(a.data[i] ^ b.data[i]);
    }
    return difference == 0;
}

struct span keys_bearer(const struct http_head *head)
{
    static const char scheme[] = "bearer ";
    struct span value = http_header(head, "authorization");
    size_t skip = sizeof scheme - 1;
    if (value.size <= skip || !span_is_nocase((struct span){value.data, skip}, scheme)) {
        return (struct span){0};
    }
    while (skip < value.size && value.data[skip] == ' ') {
        skip++;
    }
    return (struct span){.data = value.data + skip, .size = value.size - skip};
}

/* All are compared: how long it takes does not tell which one it is. */
static bool is_known(const struct keys *keys, struct span given)
{
    bool known = false;
    size_t at = 0;
    while (at < keys->size) {
        const char *end = memchr(keys->text + at, '\n', keys->size - at);
        CHECK(end != NULL);
        size_t size = (size_t)(end - keys->text) - at;
        known = keys_same((struct span){keys->text + at, size}, given) || known;
        at += size + 1;
    }
    return known;
}

bool keys_allow(struct router *router, const struct http_head *head)
{
    struct keys *keys = &router->keys;
    if (!keys->required) {
        return true;
    }
    struct span given = keys_bearer(head);
    if (given.data == NULL) {
        given = http_header(head, "x-api-key"); /* What clients of /v1/messages send. */
    }
    if (given.size == 0) {
        return false;
    }
    (void)pthread_rwlock_rdlock(&keys->lock); /* Fails only where a thread locks it twice. */
    bool known = is_known(keys, given);
    (void)pthread_rwlock_unlock(&keys->lock);
    return known;
}

bool keys_hide(const struct router *router, struct span name)
{
    return router->keys.required &&
           (span_is_nocase(name, "authorization") || span_is_nocase(name, "x-api-key"));
}

struct span keys_for_engines(const struct router *router, bool asked_for_us)
{
    return router->keys.required || asked_for_us ? router->keys.engine_value : (struct span){0};
}

/* ---- Reading ---- */

static bool is_key(struct span key)
{
    for (size_t i = 0; i < key.size; i++) {
        if (key.data[i] <= ' ' || key.data[i] >= 0x7f) {
            return false;
        }
    }
    return key.size > 0 && key.size <= KEY_BYTES_MAX;
}

static struct span trim(struct span line)
{
    while (line.size > 0 && strchr(" \t\r", line.data[line.size - 1]) != NULL) {
        line.size--;
    }
    while (line.size > 0 && (line.data[0] == ' ' || line.data[0] == '\t')) {
        line.data++;
        line.size--;
    }
    return line;
}

/* Leaves nothing but the keys. 0: done; else the number of a line that is none. */
static size_t compact(char *text, size_t *size)
{
    size_t kept = 0;
    size_t number = 0;
    size_t at = 0;
    while (at < *size) {
        const char *end = memchr(text + at, '\n', *size - at);
        size_t length = end != NULL ? (size_t)(end - text) - at : *size - at;
        struct span line = trim((struct span){text + at, length});
        at += length + 1;
        number++;
        if (line.size == 0 || line.data[0] == '#') {
            continue;
        }
        if (!is_key(line)) {
            return number;
        }
        memmove(text + kept, line.data, line.size); /* There is room: a '\n' or the spare byte. */
        kept += line.size;
        text[kept++] = '\n';
    }
    *size = kept;
    return 0;
}

/* -1: errno tells. */
static ssize_t read_file(const char *path, char *text, size_t room)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return -1;
    }
    size_t size = 0;
    ssize_t got = 0;
    do {
        got = read(file, text + size, room - size);
        size += got > 0 ? (size_t)got : 0;
    } while (got > 0 && size < room);
    int problem = errno;
    (void)close(file); /* Only read. */
    errno = problem;
    return got < 0 ? -1 : (ssize_t)size;
}

/* Into `text`, which has room for one byte more than a file may have. False: told in the log. */
static bool read_keys(const char *path, struct log *log, char *text, size_t *size)
{
    ssize_t got = read_file(path, text, KEYS_FILE_BYTES_MAX);
    if (got < 0) {
        log_write(log, LOG_ERROR, "--api-key-file %s cannot be read: %s", path, strerror(errno));
        return false;
    }
    if (got == KEYS_FILE_BYTES_MAX) {
        log_write(log, LOG_ERROR, "--api-key-file %s is longer than %d bytes", path,
                  KEYS_FILE_BYTES_MAX - 1);
        return false;
    }
    *size = (size_t)got;
    size_t bad = compact(text, size);
    if (bad > 0) {
        log_write(log, LOG_ERROR,
                  "--api-key-file %s, line %zu: a key is 1 to %d visible ASCII characters", path,
                  bad, KEY_BYTES_MAX);
    } else if (*size == 0) {
        log_write(log, LOG_ERROR, "--api-key-file %s holds no key: nobody could get in", path);
    }
    return bad == 0 && *size > 0;
}

static void wipe(struct router *router, char *text, size_t size)
{
    if (text != NULL) {
        explicit_bzero(text, size);
        mem_free(&router->mem, text, size);
    }
}

static bool load(struct router *router, struct log *log)
{
    struct keys *keys = &router->keys;
    size_t size = 0;
    char *text = mem_alloc(&router->mem, KEYS_FILE_BYTES_MAX + 1);
    bool read = text != NULL && read_keys(router->config->api_key_file, log, text, &size);
    char *copy = read ? mem_alloc(&router->mem, size) : NULL;
    if (copy != NULL) {
        memcpy(copy, text, size);
        (void)pthread_rwlock_wrlock(&keys->lock); /* As above. */
        char *before = keys->text;
        size_t before_size = keys->size;
        keys->text = copy;
        keys->size = size;
        (void)pthread_rwlock_unlock(&keys->lock);
        wipe(router, before, before_size);
    } else if (text == NULL || read) {
        log_write(log, LOG_ERROR, "Out of memory");
    }
    wipe(router, text, KEYS_FILE_BYTES_MAX + 1);
    return copy != NULL;
}

void keys_reload(struct router *router)
{
    struct log *log = &router->workers[0].log;
    if (!router->keys.required) {
        return;
    }
    if (load(router, log)) {
        log_write(log, LOG_INFO, "API keys were read again");
    } else {
        log_write(log, LOG_WARNING, "The API keys stay as they were");
    }
}

static bool read_engine_key(struct router *router)
{
    static const char start[] = "Authorization: Bearer ";
    const char *key = service_environment(NULL, "VLLM_API_KEY");
    if (key == NULL || key[0] == '\0') {
        return true;
    }
    if (!is_key(span_of(key))) {
        log_write(router->log, LOG_ERROR,
                  "VLLM_API_KEY is no key: 1 to %d visible ASCII characters are needed",
                  KEY_BYTES_MAX);
        return false;
    }
    char header[KEYS_HEADER_BYTES_MAX];
    int size = snprintf(header, sizeof header, "%s%s", start, key);
    CHECK(size > 0 && (size_t)size < sizeof header);
    router->keys.engine_header = mem_strndup(&router->mem, header, (size_t)size);
    explicit_bzero(header, sizeof header);
    if (router->keys.engine_header == NULL) {
        log_write(router->log, LOG_ERROR, "Out of memory");
        return false;
    }
    router->keys.engine_value = span_of(router->keys.engine_header + sizeof "Authorization: " - 1);
    return true;
}

bool keys_start(struct router *router)
{
    (void)pthread_rwlock_init(&router->keys.lock, NULL); /* Never fails. */
    router->keys.required = router->config->api_key_file != NULL;
    return read_engine_key(router) && (!router->keys.required || load(router, router->log));
}

void keys_stop(struct router *router)
{
    struct keys *keys = &router->keys;
    wipe(router, keys->text, keys->size);
    if (keys->engine_header != NULL) {
        wipe(router, keys->engine_header, strlen(keys->engine_header) + 1);
    }
    (void)pthread_rwlock_destroy(&keys->lock); /* Nobody holds it. */
}
