#include "proxy/paths.h"

static const struct {
    const char *path;
    const char *method;
    enum path_kind kind;
} engine_paths[] = {
    {"/v1/chat/completions", "POST", PATH_ENGINE},
    {"/v1/completions", "POST", PATH_ENGINE},
    {"/v1/embeddings", "POST", PATH_ENGINE},
    {"/v1/responses", "POST", PATH_ENGINE},
    {"/v1/messages", "POST", PATH_ENGINE},
    {"/v1/messages/count_tokens", "POST", PATH_ENGINE},
    {"/tokenize", "POST", PATH_ENGINE},
    {"/detokenize", "POST", PATH_ENGINE},
    {"/v1/rerank", "POST", PATH_ENGINE},
    {"/rerank", "POST", PATH_ENGINE},
    {"/v1/score", "POST", PATH_ENGINE},
    {"/score", "POST", PATH_ENGINE},
    {"/v1/audio/speech", "POST", PATH_ENGINE},
    {"/v1/audio/transcriptions", "POST", PATH_ENGINE},
    {"/v1/audio/translations", "POST", PATH_ENGINE},
    {"/v1/audio/voices", "GET", PATH_ENGINE},
    {"/v1/images/generations", "POST", PATH_ENGINE},
    {"/v1/images/edits", "POST", PATH_ENGINE},
    {"/sleep", "POST", PATH_SLEEP},
    {"/wake_up", "POST", PATH_SLEEP},
    {"/is_sleeping", "GET", PATH_SLEEP},
};

/* Below /v1/, yet the router's own, or refused: see admin.c. */
static const char *const own_paths[] = {"/v1/models", "/v1/files", "/v1/batches"};

struct span path_of(struct span target)
{
    const char *query = memchr(target.data, '?', target.size);
    return (struct span){.data = target.data,
                         .size = query == NULL ? target.size : (size_t)(query - target.data)};
}

struct span path_parameter(struct span target, const char *name)
{
    size_t skipped = path_of(target).size;
    size_t name_size = strlen(name);
    while (skipped < target.size) {
        const char *item = target.data + skipped + 1; /* Behind '?' or '&'. */
        size_t left = target.size - skipped - 1;
        const char *end = memchr(item, '&', left);
        size_t size = end == NULL ? left : (size_t)(end - item);
        if (size > name_size && memcmp(item, name, name_size) == 0 && item[name_size] == '=') {
            return (struct span){.data = item + name_size + 1, .size = size - name_size - 1};
        }
        skipped += 1 + size;
    }
    return (struct span){0};
}

bool path_is_below(struct span path, const char *folder)
{
    size_t size = strlen(folder);
    return path.size >= size && memcmp(path.data, folder, size) == 0 &&
           (path.size == size || path.data[size] == '/');
}

struct span path_below(struct span target, const char *root)
{
    if (root == NULL || !path_is_below(path_of(target), root)) {
        return target;
    }
    size_t size = strlen(root);
    target.data += size;
    target.size -= size;
    return target.size > 0 && target.data[0] == '/' ? target : span_of("/");
}

static bool is_own(struct span path)
{
    for (size_t i = 0; i < sizeof own_paths / sizeof *own_paths; i++) {
        if (path_is_below(path, own_paths[i])) {
            return true;
        }
    }
    return !path_is_below(path, "/v1");
}

enum path_kind path_kind_of(struct span method, struct span path, bool all, const char **allowed)
{
    *allowed = NULL;
    for (size_t i = 0; i < sizeof engine_paths / sizeof *engine_paths; i++) {
        if (span_is(path, engine_paths[i].path)) {
            if (all || span_is(method, engine_paths[i].method)) {
                return engine_paths[i].kind;
            }
            *allowed = engine_paths[i].method;
            return PATH_LOCAL;
        }
    }
    if (all) {
        return PATH_ANY;
    }
    return span_is(method, "POST") && !is_own(path) ? PATH_UNKNOWN : PATH_LOCAL;
}
