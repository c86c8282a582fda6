/* Comma lists: backends, the models they serve, their labels, aliases. */
#include <string.h>

#include "base/check.h"
#include "config/options.h"

enum { PORT_DIGITS_MAX = 5, PORT_MAX = 65535, HOST_BYTES_MAX = 253 };

/* Copies an option's list and cuts it at its commas, spaces around items off. */
struct items {
    char *next; /* NULL: no more. */
    size_t number;
};

static char *trim(char *text)
{
    while (*text == ' ' || *text == '\t') {
        text++;
    }
    size_t size = strlen(text);
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t')) {
        text[--size] = '\0';
    }
    return text;
}

static char *items_next(struct items *items)
{
    char *item = items->next;
    if (item == NULL) {
        return NULL;
    }
    char *comma = strchr(item, ',');
    if (comma != NULL) {
        *comma = '\0';
    }
    items->next = comma != NULL ? comma + 1 : NULL;
    items->number++;
    return trim(item);
}

/* A copy of the option's text to cut; 0 items where it is not set. */
static size_t items_open(struct loader *loader, enum option_id id, enum config_list_id list,
                         struct items *items)
{
    const char *text = loader->config->values[id].text;
    *items = (struct items){0};
    if (text == NULL) {
        return 0;
    }
    size_t size = strlen(text);
    if (size > CONFIG_LIST_BYTES_MAX) {
        loader_error(loader, "%s is longer than %d bytes", options[id].flag, CONFIG_LIST_BYTES_MAX);
        return 0;
    }
    char *copy = mem_strndup(loader->config->mem, text, size);
    if (copy == NULL) {
        loader_error(loader, "out of memory");
        return 0;
    }
    loader->config->lists[list] = (struct config_list){.text = copy, .bytes = size + 1};
    items->next = copy;
    size_t count = 1;
    for (size_t i = 0; i < size; i++) {
        count += copy[i] == ',' ? 1 : 0;
    }
    return count;
}

/* Only what a URL may hold: visible ASCII without what would end or quote it elsewhere. */
static bool is_url_text(const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte <= ' ' || byte >= 0x7f || strchr("\"<>\\^`{|}", byte) != NULL) {
            return false;
        }
    }
    return true;
}

static bool is_hex_or(const char *text, size_t size, const char *others)
{
    for (size_t i = 0; i < size; i++) {
        char byte = text[i];
        bool hex = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') ||
                   (byte >= 'A' && byte <= 'F');
        if (!hex && strchr(others, byte) == NULL) {
            return false;
        }
    }
    return size > 0;
}

static bool is_host_name(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char byte = text[i];
        bool fine = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                    (byte >= '0' && byte <= '9') || byte == '-' || byte == '_' || byte == '.';
        if (!fine) {
            return false;
        }
    }
    return size > 0 && size <= HOST_BYTES_MAX && text[0] != '-' && text[0] != '.';
}

/* NULL: `text` (behind the host) is empty, a path, or ":port" and perhaps a path. */
static const char *port_problem(const char *text)
{
    if (*text == ':') {
        const char *digits = ++text;
        unsigned port = 0;
        while (*text >= '0' && *text <= '9' && text - digits < PORT_DIGITS_MAX) {
            port = port * 10 + (unsigned)(*text++ - '0');
        }
        if (text == digits || port == 0 || port > PORT_MAX) {
            return "the port is not a number from 1 to 65535";
        }
    }
    return *text == '\0' || *text == '/' ? NULL : "something other than a path follows the host";
}

/* NULL: `url` is one of a backend; else what is wrong with it. */
static const char *url_problem(const char *url)
{
    static const char *const schemes[] = {"http://", "https://"};
    if (*url == '\0') {
        return "it is empty";
    }
    bool secure = strncmp(url, schemes[1], strlen(schemes[1])) == 0;
    const char *scheme = schemes[secure ? 1 : 0];
    if (strncmp(url, scheme, strlen(scheme)) != 0) {
        return "it does not start with http:// or https://";
    }
    if (!is_url_text(url)) {
        return "it holds a character that no URL has";
    }
    const char *host = url + strlen(scheme);
    if (strpbrk(host, "?#") != NULL) {
        return "a backend has no query and no fragment";
    }
    size_t authority = strcspn(host, "/");
    if (memchr(host, '@', authority) != NULL) {
        return "user and password are not supported";
    }
    if (*host == '[') {
        size_t size = strcspn(host, "]/");
        if (host[size] != ']' || !is_hex_or(host + 1, size - 1, ":.")) {
            return "the IPv6 address in brackets is none";
        }
        return port_problem(host + size + 1);
    }
    size_t size = strcspn(host, ":/");
    if (!is_host_name(host, size)) {
        return size == 0 ? "the host is missing" : "the host is not a name or an address";
    }
    return port_problem(host + size);
}

static void cut_trailing_slash(char *url)
{
    size_t size = strlen(url);
    if (size > 0 && url[size - 1] == '/') {
        url[size - 1] = '\0';
    }
}

static bool is_model_name(const char *text)
{
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool has_room(struct loader *loader, enum option_id id, size_t count, size_t count_max)
{
    if (count > count_max) {
        loader_error(loader, "%s has %zu entries, at most %zu are accepted", options[id].flag,
                     count, count_max);
        return false;
    }
    return true;
}

static void read_backends(struct loader *loader)
{
    struct config *config = loader->config;
    struct items items;
    size_t count = items_open(loader, OPTION_STATIC_BACKENDS, LIST_BACKENDS, &items);
    if (count == 0 || !has_room(loader, OPTION_STATIC_BACKENDS, count, CONFIG_BACKENDS_MAX)) {
        return;
    }
    config->backends = mem_alloc_zero(config->mem, count * sizeof *config->backends);
    if (config->backends == NULL) {
        loader_error(loader, "out of memory");
        return;
    }
    config->backend_count = count;
    for (size_t i = 0; i < count; i++) {
        char *url = items_next(&items);
        CHECK(url != NULL);
        const char *problem = url_problem(url);
        if (problem != NULL) {
            loader_error(loader,
                         "--static-backends: \"%.200s\" (number %zu) is no URL of a backend: %s; "
                         "such as http://10.0.0.7:8000",
                         url, i + 1, problem);
        }
        cut_trailing_slash(url);
        config->backends[i] =
            (struct config_backend){.url = url, .model = "", .label = CONFIG_LABEL_DEFAULT};
    }
}

static void read_models(struct loader *loader)
{
    struct config *config = loader->config;
    struct items items;
    size_t count = items_open(loader, OPTION_STATIC_MODELS, LIST_MODELS, &items);
    if (count != config->backend_count) {
        loader_error(loader,
                     "--static-models has %zu entries, --static-backends has %zu: one model per "
                     "backend is needed",
                     count, config->backend_count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const char *model = items_next(&items);
        CHECK(model != NULL);
        if (!is_model_name(model)) {
            loader_error(loader, "--static-models: number %zu is empty or not printable", i + 1);
        }
        config->backends[i].model = model;
    }
}

/* ---- Labels ---- */

static void read_backend_labels(struct loader *loader)
{
    struct config *config = loader->config;
    struct items items;
    size_t count = items_open(loader, OPTION_STATIC_MODEL_LABELS, LIST_LABELS, &items);
    if (count > 0 && count != config->backend_count) {
        loader_error(loader,
                     "--static-model-labels has %zu entries, --static-backends has %zu: one label "
                     "per backend is needed",
                     count, config->backend_count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const char *label = items_next(&items);
        CHECK(label != NULL);
        if (!is_model_name(label)) {
            loader_error(loader, "--static-model-labels: number %zu is empty or not printable",
                         i + 1);
        }
        config->backends[i].label = label;
    }
}

static void read_labels(struct loader *loader, enum option_id id, enum config_list_id list,
                        struct config_labels *out)
{
    struct items items;
    size_t count = items_open(loader, id, list, &items);
    if (count == 0 || !has_room(loader, id, count, CONFIG_LABELS_MAX)) {
        return;
    }
    out->names = mem_alloc_zero(loader->config->mem, count * sizeof *out->names);
    if (out->names == NULL) {
        loader_error(loader, "out of memory");
        return;
    }
    out->count = count;
    for (size_t i = 0; i < count; i++) {
        out->names[i] = items_next(&items);
        CHECK(out->names[i] != NULL);
        if (!is_model_name(out->names[i])) {
            loader_error(loader, "%s: number %zu is empty or not printable", options[id].flag,
                         i + 1);
        }
    }
}

void labels_free(struct mem *mem, struct config_labels *labels)
{
    mem_free(mem, labels->names, labels->count * sizeof *labels->names);
}

bool config_has_label(const struct config_labels *labels, const char *label)
{
    for (size_t i = 0; i < labels->count; i++) {
        if (strcmp(labels->names[i], label) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- Aliases ---- */

static bool is_served(const struct config *config, const char *model)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        if (strcmp(config->backends[i].model, model) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_alias(const struct config *config, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (config->aliases[i].name != NULL && strcmp(config->aliases[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Model names may hold colons, aliases may not: the first one parts them. */
static void read_alias(struct loader *loader, size_t i, char *item)
{
    struct config *config = loader->config;
    char *colon = strchr(item, ':');
    if (colon != NULL) {
        *colon = '\0';
    }
    const char *name = trim(item);
    const char *model = colon != NULL ? trim(colon + 1) : "";
    if (!is_model_name(name) || !is_model_name(model)) {
        loader_error(loader,
                     "--static-aliases: \"%.200s\" (number %zu) is not of the form alias:model",
                     item, i + 1);
        return;
    }
    if (is_alias(config, i, name)) {
        loader_error(loader, "--static-aliases: alias \"%.200s\" is there twice", name);
        return;
    }
    if (is_served(config, name)) {
        loader_error(loader, "--static-aliases: \"%.200s\" is the name of a model of a backend",
                     name);
    } else if (!config->kubernetes && !is_served(config, model)) {
        loader_warn(loader,
                    "--static-aliases: no backend serves \"%.200s\", for which \"%.200s\" "
                    "stands",
                    model, name);
    }
    config->aliases[i] = (struct config_alias){.name = name, .model = model};
}

static void read_aliases(struct loader *loader)
{
    struct config *config = loader->config;
    struct items items;
    size_t count = items_open(loader, OPTION_STATIC_ALIASES, LIST_ALIASES, &items);
    if (count == 0 || !has_room(loader, OPTION_STATIC_ALIASES, count, CONFIG_ALIASES_MAX)) {
        return;
    }
    config->aliases = mem_alloc_zero(config->mem, count * sizeof *config->aliases);
    if (config->aliases == NULL) {
        loader_error(loader, "out of memory");
        return;
    }
    config->alias_count = count;
    for (size_t i = 0; i < count; i++) {
        char *item = items_next(&items);
        CHECK(item != NULL);
        read_alias(loader, i, item);
    }
}

static void warn_of_duplicates(struct loader *loader)
{
    const struct config *config = loader->config;
    for (size_t i = 1; i < config->backend_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (strcmp(config->backends[i].url, config->backends[k].url) == 0 &&
                strcmp(config->backends[i].model, config->backends[k].model) == 0) {
                loader_warn(loader,
                            "--static-backends: \"%.200s\" is there twice for the same "
                            "model",
                            config->backends[i].url);
                break;
            }
        }
    }
}

void lists_read(struct loader *loader)
{
    struct config *config = loader->config;
    read_labels(loader, OPTION_PREFILL_LABELS, LIST_PREFILL_LABELS, &config->prefill_labels);
    read_labels(loader, OPTION_DECODE_LABELS, LIST_DECODE_LABELS, &config->decode_labels);
    const char *discovery = config->service_discovery;
    config->kubernetes = discovery != NULL && strcmp(discovery, "k8s") == 0;
    if (config->kubernetes) {
        if (config->values[OPTION_STATIC_BACKENDS].text != NULL) {
            loader_warn(loader, "--static-backends has no effect: backends come from Kubernetes");
        }
        read_aliases(loader);
        return;
    }
    if (loader->config->values[OPTION_STATIC_BACKENDS].text == NULL) {
        loader_error(loader, "--static-backends is missing: at least one URL is needed, such as "
                             "http://10.0.0.7:8000");
        return;
    }
    read_backends(loader);
    if (loader->config->backends == NULL) {
        return;
    }
    read_models(loader);
    read_backend_labels(loader);
    read_aliases(loader);
    warn_of_duplicates(loader);
}
