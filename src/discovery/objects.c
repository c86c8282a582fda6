#include "discovery/objects.h"

#include <arpa/inet.h>
#include <string.h>

/* ---- Texts ---- */

/* A JSON string as objects.h has them. */
static struct span text_of(const struct json_parser *parser, struct json_value value,
                           size_t bytes_max)
{
    if (json_kind(parser, value) != JSON_STRING) {
        return (struct span){0};
    }
    struct span text = json_text(parser, value);
    bool fine = text.size > 0 && text.size <= bytes_max;
    for (size_t i = 0; i < text.size && fine; i++) {
        fine = text.data[i] > ' ' && text.data[i] < '\x7f' && text.data[i] != '\\';
    }
    return fine ? text : (struct span){0};
}

static struct span member(const struct json_parser *parser, struct json_value object,
                          const char *name, size_t bytes_max)
{
    return text_of(parser, json_find(parser, object, name), bytes_max);
}

static struct span label(const struct json_parser *parser, struct json_value metadata,
                         const char *name)
{
    return member(parser, json_find(parser, metadata, "labels"), name, OBJECT_LABEL_BYTES_MAX);
}

static bool is_true(const struct json_parser *parser, struct json_value value)
{
    return json_kind(parser, value) == JSON_TRUE;
}

/* ---- Pods ---- */

static struct span read_address(const struct json_parser *parser, struct json_value status)
{
    struct span address = member(parser, status, "podIP", OBJECT_ADDRESS_BYTES_MAX);
    char text[OBJECT_ADDRESS_BYTES_MAX + 1] = "";
    unsigned char parsed[sizeof(struct in6_addr)];
    if (address.size > 0) {
        memcpy(text, address.data, address.size);
    }
    bool fine = inet_pton(AF_INET, text, parsed) == 1 || inet_pton(AF_INET6, text, parsed) == 1;
    return fine ? address : (struct span){0};
}

/* The one that the engine runs in. */
static bool is_main(const struct json_parser *parser, struct json_value container)
{
    return json_is_text(parser, json_find(parser, container, "name"), "vllm");
}

/* All containers are ready, and there is one. *restarts: see pod.restarts. */
static bool read_containers(const struct json_parser *parser, struct json_value status,
                            uint64_t *restarts)
{
    struct json_cursor cursor = json_first(parser, json_find(parser, status, "containerStatuses"));
    struct json_value container;
    size_t count = 0;
    size_t ready_count = 0;
    bool has_main = false;
    *restarts = 0;
    while (json_next_element(parser, &cursor, &container)) {
        int64_t restart_count = 0;
        (void)json_read_int(parser, json_find(parser, container, "restartCount"), &restart_count);
        count++;
        ready_count += is_true(parser, json_find(parser, container, "ready")) ? 1 : 0;
        if (is_main(parser, container)) {
            has_main = true;
            *restarts = (uint64_t)restart_count;
        } else if (!has_main) {
            *restarts += (uint64_t)restart_count;
        }
    }
    return count > 0 && ready_count == count;
}

/* One of the words, or the script that a shell is given in them, has the flag. */
static bool words_have(const struct json_parser *parser, struct json_value words, const char *flag,
                       size_t *count)
{
    struct json_cursor cursor = json_first(parser, words);
    struct json_value word;
    bool found = false;
    while (json_next_element(parser, &cursor, &word)) {
        ++*count;
        if (json_kind(parser, word) == JSON_STRING) {
            struct span text = json_text(parser, word);
            found = found || memmem(text.data, text.size, flag, strlen(flag)) != NULL;
        }
    }
    return found;
}

static bool may_sleep(const struct json_parser *parser, struct json_value object)
{
    struct json_value spec = json_find(parser, object, "spec");
    struct json_cursor cursor = json_first(parser, json_find(parser, spec, "containers"));
    struct json_value container;
    while (json_next_element(parser, &cursor, &container)) {
        static const char flag[] = "--enable-sleep-mode";
        size_t count = 0;
        bool has_flag = words_have(parser, json_find(parser, container, "command"), flag, &count) ||
                        words_have(parser, json_find(parser, container, "args"), flag, &count);
        if (has_flag || (count == 0 && is_main(parser, container))) {
            return true;
        }
    }
    return false;
}

bool object_read_pod(const struct json_parser *parser, struct json_value object, struct pod *out)
{
    struct json_value metadata = json_find(parser, object, "metadata");
    struct json_value status = json_find(parser, object, "status");
    enum json_kind deletion = json_kind(parser, json_find(parser, metadata, "deletionTimestamp"));
    bool is_going = deletion != JSON_ABSENT && deletion != JSON_NULL;
    *out = (struct pod){
        .name = member(parser, metadata, "name", OBJECT_NAME_BYTES_MAX),
        .uid = member(parser, metadata, "uid", OBJECT_UID_BYTES_MAX),
        .version = member(parser, metadata, "resourceVersion", OBJECT_UID_BYTES_MAX),
        .created = member(parser, metadata, "creationTimestamp", OBJECT_TIME_BYTES_MAX),
        .address = read_address(parser, status),
        .model = label(parser, metadata, "model"),
        .says_sleeping = span_is(label(parser, metadata, "sleeping"), "true"),
        .may_sleep = may_sleep(parser, object)};
    bool are_ready = read_containers(parser, status, &out->restarts);
    out->ready = are_ready && !is_going && out->address.size > 0;
    return out->name.size > 0;
}

/* ---- Services ---- */

/* What a service may be called: it becomes the host of a URL. */
static bool is_host_name(struct span name)
{
    for (size_t i = 0; i < name.size; i++) {
        char byte = name.data[i];
        bool fine = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-';
        if (!fine) {
            return false;
        }
    }
    return name.size > 0 && name.size <= OBJECT_LABEL_BYTES_MAX;
}

bool object_read_service(const struct json_parser *parser, struct json_value object,
                         struct service *out)
{
    struct json_value metadata = json_find(parser, object, "metadata");
    struct json_value selector = json_find(parser, json_find(parser, object, "spec"), "selector");
    *out = (struct service){.name = member(parser, metadata, "name", OBJECT_NAME_BYTES_MAX),
                            .uid = member(parser, metadata, "uid", OBJECT_UID_BYTES_MAX),
                            .version =
                                member(parser, metadata, "resourceVersion", OBJECT_UID_BYTES_MAX),
                            .model = member(parser, selector, "model", OBJECT_LABEL_BYTES_MAX),
                            .says_sleeping = span_is(label(parser, metadata, "sleeping"), "true")};
    if (out->model.size == 0) {
        out->model = label(parser, metadata, "model");
    }
    return is_host_name(out->name);
}

bool object_read_slice(const struct json_parser *parser, struct json_value object,
                       struct slice *out)
{
    struct json_value metadata = json_find(parser, object, "metadata");
    *out = (struct slice){.name = member(parser, metadata, "name", OBJECT_NAME_BYTES_MAX),
                          .service = label(parser, metadata, "kubernetes.io/service-name")};
    struct json_cursor cursor = json_first(parser, json_find(parser, object, "endpoints"));
    struct json_value endpoint;
    while (json_next_element(parser, &cursor, &endpoint)) {
        struct json_value conditions = json_find(parser, endpoint, "conditions");
        /* Not said counts as ready: so the API has it. */
        out->ready =
            out->ready || json_kind(parser, json_find(parser, conditions, "ready")) != JSON_FALSE;
    }
    return out->name.size > 0;
}

/* ---- Models ---- */

/* False: not a name that could be asked for, or no room. */
static bool append_model(const struct json_parser *parser, struct json_value id, struct buf *out)
{
    if (json_kind(parser, id) != JSON_STRING) {
        return false;
    }
    struct span text = json_text(parser, id);
    char name[MODEL_BYTES_MAX + 1];
    size_t size = json_decode(&text, name, MODEL_BYTES_MAX);
    if (size == 0 || text.size > 0) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)name[i] < ' ') {
            return false;
        }
    }
    name[size] = '\0';
    return buf_append(out, name, size + 1);
}

bool object_read_models(const struct json_parser *parser, struct buf *out, size_t *count)
{
    struct json_value data = json_find(parser, json_root(parser), "data");
    *count = 0;
    if (json_kind(parser, data) != JSON_ARRAY) {
        return false;
    }
    struct json_cursor cursor = json_first(parser, data);
    struct json_value model;
    while (*count < MODELS_COUNT_MAX && json_next_element(parser, &cursor, &model)) {
        *count += append_model(parser, json_find(parser, model, "id"), out) ? 1 : 0;
    }
    return true;
}
