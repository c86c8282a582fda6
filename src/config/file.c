/*
 * --dynamic-config-yaml and --dynamic-config-json: options in a file, under the names of their
 * flags with '_' for '-'. Values are as the flags take them, or nested:
 *
 *     static_models: {MODEL: {static_backends: [URL, ...], static_model_label: LABEL}, ...}
 *     static_aliases: {ALIAS: MODEL, ...}
 *
 * What may change at run time (the options marked `dynamic`) the file decides; any other option is
 * the file's where no flag gives it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "config/legacy.h"
#include "config/tree.h"

enum { NAME_BYTES_MAX = 64, FILE_BYTES_MAX = TREE_BYTES_MAX - 1 };

/* ---- Reading ---- */

/* All of a file appended to *out. False: *problem says why. */
static bool read_all(const char *path, struct buf *out, const char **problem)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* A pipe would never end. */
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
        *problem = fd < 0 ? strerror(errno) : "it is no regular file";
        if (fd >= 0) {
            (void)close(fd); /* Nothing was written. */
        }
        return false;
    }
    bool read = buf_append_file(out, fd);
    *problem = read ? NULL : errno == EFBIG ? "it is too large" : strerror(errno);
    (void)close(fd); /* As above. */
    return read;
}

/* FNV-1a: it tells a text from the one before it. */
static uint64_t hash_text(const struct buf *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; text->data != NULL && i < text->size; i++) {
        hash = (hash ^ (unsigned char)text->data[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

bool config_file_hash(const char *path, struct mem *mem, uint64_t *hash, const char **problem)
{
    struct buf text;
    buf_init(&text, mem, FILE_BYTES_MAX);
    bool read = read_all(path, &text, problem);
    if (read) {
        *hash = hash_text(&text);
    }
    buf_fini(&text);
    return read;
}

/* ---- From the tree to the texts of options ---- */

struct file_reader {
    struct loader *loader;
    const char *path;
    struct tree tree;
};

static void fail(struct file_reader *reader, const char *key, const char *what)
{
    loader_error(reader->loader, "%s: %.100s: %s", reader->path, key, what);
}

/* `text` is one item of a comma list. */
static bool append_item(struct file_reader *reader, const char *key, struct buf *out,
                        const char *text)
{
    if (strchr(text, ',') != NULL) {
        fail(reader, key, "an item of a list has a comma in it");
        return false;
    }
    if ((out->size > 0 && !buf_append_text(out, ",")) || !buf_append_text(out, text)) {
        fail(reader, key, "it is too long, or memory is out");
        return false;
    }
    return true;
}

/* A list of texts as a comma list. */
static bool join_list(struct file_reader *reader, const char *key, uint32_t list, struct buf *out)
{
    const struct tree *tree = &reader->tree;
    for (uint32_t at = tree->values[list].first; at != 0; at = tree->values[at].next) {
        if (tree->values[at].kind != TREE_TEXT) {
            fail(reader, key, "an item of the list is no text");
            return false;
        }
        if (!append_item(reader, key, out, tree_text(tree, at))) {
            return false;
        }
    }
    return true;
}

/* A map of texts as "key:text,key:text". */
static bool join_pairs(struct file_reader *reader, const char *key, uint32_t map, struct buf *out)
{
    const struct tree *tree = &reader->tree;
    struct buf pair;
    buf_init(&pair, tree->mem, TREE_BYTES_MAX);
    bool joined = true;
    for (uint32_t at = tree->values[map].first; at != 0 && joined; at = tree->values[at].next) {
        pair.size = 0;
        if (tree->values[at].kind != TREE_TEXT || strchr(tree_key(tree, at), ':') != NULL) {
            fail(reader, key, "each member has to be \"alias\": \"model\", the alias without ':'");
            joined = false;
        } else {
            joined = buf_printf(&pair, "%s:%s", tree_key(tree, at), tree_text(tree, at)) &&
                     buf_append(&pair, "", 1) && append_item(reader, key, out, pair.data);
        }
    }
    buf_fini(&pair);
    return joined;
}

/* Of YAML 1.1 and of JSON. */
static bool read_truth(const char *text, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

/* ---- Options ---- */

/* Whether the file has a say in it. */
static bool decides(const struct loader *loader, enum option_id id)
{
    return options[id].dynamic || loader->config->values[id].source != CONFIG_FROM_FLAG;
}

static void set_option(struct file_reader *reader, enum option_id id, const char *key,
                       const char *text)
{
    struct loader *loader = reader->loader;
    if (options[id].kind == OPTION_SWITCH) {
        bool on = false;
        if (!read_truth(text, &on)) {
            fail(reader, key, "it is true or false");
            return;
        }
        text = on ? SWITCH_ON : SWITCH_OFF;
    }
    if (decides(loader, id)) {
        loader_set(loader, id, text, CONFIG_FROM_FILE);
    }
}

static bool is_name(const char *flag, const char *key)
{
    if (flag == NULL || strlen(flag) != strlen(key) + 2) {
        return false;
    }
    for (size_t i = 0; key[i] != '\0'; i++) {
        if (flag[i + 2] != (key[i] == '_' ? '-' : key[i])) {
            return false;
        }
    }
    return true;
}

static bool belongs_in_file(enum option_id id)
{
    return id != OPTION_HELP && id != OPTION_VERSION && id != OPTION_CHECK_CONFIG &&
           id != OPTION_DYNAMIC_CONFIG_YAML && id != OPTION_DYNAMIC_CONFIG_JSON;
}

static void set_legacy(struct file_reader *reader, const struct legacy_flag *flag, const char *key,
                       const char *text)
{
    bool on = true;
    if (flag->metavar == NULL && !read_truth(text, &on)) {
        fail(reader, key, "it is true or false");
    } else if (flag->metavar != NULL || on) {
        legacy_take(reader->loader, flag, flag->metavar == NULL ? "" : text);
    }
}

/* OPTION_ID_COUNT: none has that name. */
static enum option_id find_option(const char *key)
{
    size_t i = 0;
    while (i < OPTION_ID_COUNT &&
           !(is_name(options[i].flag, key) && belongs_in_file((enum option_id)i))) {
        i++;
    }
    return (enum option_id)i;
}

/* An empty list or map. */
static void set_none(struct file_reader *reader, const char *key)
{
    enum option_id id = find_option(key);
    if (id == OPTION_ID_COUNT || options[id].kind != OPTION_LIST) {
        fail(reader, key, "it is empty");
    } else if (decides(reader->loader, id)) {
        loader_unset(reader->loader, id, CONFIG_FROM_FILE);
    }
}

static void set_key(struct file_reader *reader, const char *key, const char *text)
{
    enum option_id id = find_option(key);
    if (id != OPTION_ID_COUNT) {
        set_option(reader, id, key, text);
        return;
    }
    for (size_t i = 0; i < legacy_flag_count; i++) {
        if (is_name(legacy_flags[i].flag, key)) {
            set_legacy(reader, &legacy_flags[i], key, text);
            return;
        }
    }
    fail(reader, key, "there is no such option for a file; see --help");
}

/* ---- The nested form of static_models ---- */

struct columns {
    struct buf backends;
    struct buf models;
    struct buf labels;
    struct buf types;
    bool has_labels;
    bool has_types;
};

/* The text of a member; NULL: there is none. */
static const char *member_text(const struct tree *tree, uint32_t map, const char *key)
{
    for (uint32_t at = tree->values[map].first; at != 0; at = tree->values[at].next) {
        if (strcmp(tree_key(tree, at), key) == 0 && tree->values[at].kind == TREE_TEXT) {
            return tree_text(tree, at);
        }
    }
    return NULL;
}

static bool check_model(struct file_reader *reader, uint32_t model)
{
    static const char *const keys[] = {"static_backends", "static_model_label",
                                       "static_model_type"};
    const struct tree *tree = &reader->tree;
    bool known = tree->values[model].kind == TREE_MAP;
    for (uint32_t at = tree->values[model].first; at != 0 && known; at = tree->values[at].next) {
        bool found = false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys && !found; i++) {
            found = strcmp(tree_key(tree, at), keys[i]) == 0;
        }
        known = found && tree->values[at].kind != TREE_MAP;
    }
    if (!known) {
        loader_error(reader->loader,
                     "%s: static_models: %.200s: a model has static_backends and, if need be, "
                     "static_model_label and static_model_type",
                     reader->path, tree_key(tree, model));
    }
    return known;
}

/* One row for each of the model's backends. `urls` is cut. */
static bool add_rows(struct file_reader *reader, uint32_t model, char *urls,
                     struct columns *columns)
{
    static const char key[] = "static_models";
    const char *label = member_text(&reader->tree, model, "static_model_label");
    const char *type = member_text(&reader->tree, model, "static_model_type");
    columns->has_labels = columns->has_labels || label != NULL;
    columns->has_types = columns->has_types || type != NULL;
    char *state = NULL;
    for (char *url = strtok_r(urls, ",", &state); url != NULL; url = strtok_r(NULL, ",", &state)) {
        if (!append_item(reader, key, &columns->backends, url) ||
            !append_item(reader, key, &columns->models, tree_key(&reader->tree, model)) ||
            !append_item(reader, key, &columns->labels,
                         label != NULL ? label : CONFIG_LABEL_DEFAULT) ||
            !append_item(reader, key, &columns->types, type != NULL ? type : "chat")) {
            return false;
        }
    }
    return true;
}

static bool add_model(struct file_reader *reader, uint32_t model, struct columns *columns)
{
    const struct tree *tree = &reader->tree;
    if (!check_model(reader, model)) {
        return false;
    }
    struct buf urls;
    buf_init(&urls, tree->mem, TREE_BYTES_MAX);
    bool added = true;
    for (uint32_t at = tree->values[model].first; at != 0 && added; at = tree->values[at].next) {
        if (strcmp(tree_key(tree, at), "static_backends") != 0) {
            continue;
        }
        added =
            tree->values[at].kind == TREE_LIST
                ? join_list(reader, "static_backends", at, &urls)
                : tree->values[at].kind != TREE_TEXT || buf_append_text(&urls, tree_text(tree, at));
    }
    added = added && buf_append(&urls, "", 1) && add_rows(reader, model, urls.data, columns);
    buf_fini(&urls);
    return added;
}

static void set_column(struct file_reader *reader, const char *key, struct buf *column)
{
    if (buf_append(column, "", 1)) {
        set_key(reader, key, column->data);
    } else {
        fail(reader, key, "it is too long, or memory is out");
    }
}

static void take_models(struct file_reader *reader, uint32_t map)
{
    const struct tree *tree = &reader->tree;
    struct columns columns = {.has_labels = false};
    enum { COLUMN_COUNT = 4 };
    struct buf *const all[COLUMN_COUNT] = {&columns.backends, &columns.models, &columns.labels,
                                           &columns.types};
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        buf_init(all[i], tree->mem, TREE_BYTES_MAX);
    }
    bool added = true;
    for (uint32_t at = tree->values[map].first; at != 0 && added; at = tree->values[at].next) {
        added = add_model(reader, at, &columns);
    }
    if (added && columns.backends.size == 0) {
        fail(reader, "static_models", "no model has a backend");
    } else if (added) {
        set_column(reader, "static_backends", &columns.backends);
        set_column(reader, "static_models", &columns.models);
        if (columns.has_labels) {
            set_column(reader, "static_model_labels", &columns.labels);
        }
        if (columns.has_types) {
            set_column(reader, "static_model_types", &columns.types);
        }
    }
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        buf_fini(all[i]);
    }
}

/* ---- The whole ---- */

static void take_member(struct file_reader *reader, uint32_t member)
{
    const struct tree *tree = &reader->tree;
    const char *key = tree_key(tree, member);
    struct buf joined;
    buf_init(&joined, tree->mem, TREE_BYTES_MAX);
    switch (tree->values[member].kind) {
    case TREE_TEXT:
        set_key(reader, key, tree_text(tree, member));
        break;
    case TREE_LIST:
        if (tree->values[member].first == 0) {
            set_none(reader, key);
        } else if (join_list(reader, key, member, &joined)) {
            set_column(reader, key, &joined);
        }
        break;
    case TREE_MAP:
        if (strcmp(key, "static_models") == 0) {
            take_models(reader, member);
        } else if (tree->values[member].first == 0) {
            set_none(reader, key);
        } else if (strcmp(key, "static_aliases") != 0) {
            fail(reader, key, "it is no map");
        } else if (join_pairs(reader, key, member, &joined)) {
            set_column(reader, key, &joined);
        }
        break;
    case TREE_NULL:
    default:
        break; /* As if it were not there. */
    }
    buf_fini(&joined);
}

static bool is_nested(const struct tree *tree, const char *key)
{
    for (uint32_t at = tree->values[0].first; at != 0; at = tree->values[at].next) {
        if (strcmp(tree_key(tree, at), key) == 0) {
            return tree->values[at].kind == TREE_MAP;
        }
    }
    return false;
}

static void take_all(struct file_reader *reader)
{
    const struct tree *tree = &reader->tree;
    if (tree->values[0].kind != TREE_MAP && tree->values[0].kind != TREE_NULL) {
        loader_error(reader->loader,
                     "%s: a file of options is a map, such as routing_logic: "
                     "roundrobin",
                     reader->path);
        return;
    }
    bool nested = is_nested(tree, "static_models");
    for (uint32_t at = tree->values[0].first; at != 0; at = tree->values[at].next) {
        if (nested && strcmp(tree_key(tree, at), "static_backends") == 0) {
            fail(reader, "static_backends", "static_models has them already");
        } else {
            take_member(reader, at);
        }
    }
}

const char *config_dynamic_file(const struct config *config)
{
    return config->dynamic_config_yaml != NULL ? config->dynamic_config_yaml
                                               : config->dynamic_config_json;
}

bool config_dynamic_value(const struct config *config, size_t i, const char **key,
                          const char **value)
{
    static const char *const keys[] = {
        "callbacks",
        "decode_model_labels",
        "k8s_label_selector",
        "k8s_namespace",
        "k8s_port",
        "prefill_model_labels",
        "routing_logic",
        "service_discovery",
        "session_key",
        "static_aliases",
        "static_backend_health_check_interval",
        "static_backend_health_check_timeout_seconds",
        "static_backend_health_checks",
        "static_backends",
        "static_model_labels",
        "static_model_types",
        "static_models",
    };
    if (i >= sizeof keys / sizeof *keys) {
        return false;
    }
    enum option_id id = find_option(keys[i]);
    *key = keys[i];
    *value = id == OPTION_ID_COUNT ? NULL : config->values[id].text;
    return true;
}

void file_read(struct loader *loader)
{
    const struct config_value *yaml = &loader->config->values[OPTION_DYNAMIC_CONFIG_YAML];
    const struct config_value *json = &loader->config->values[OPTION_DYNAMIC_CONFIG_JSON];
    if (yaml->text == NULL && json->text == NULL) {
        return;
    }
    if (yaml->text != NULL && json->text != NULL) {
        loader_error(loader,
                     "--dynamic-config-yaml and --dynamic-config-json: one of them, please");
        return;
    }
    struct file_reader reader = {.loader = loader,
                                 .path = yaml->text != NULL ? yaml->text : json->text};
    struct buf text;
    const char *problem = NULL;
    buf_init(&text, loader->config->mem, FILE_BYTES_MAX);
    tree_init(&reader.tree, loader->config->mem);
    if (!read_all(reader.path, &text, &problem)) {
        loader_error(loader, "%s cannot be read: %s", reader.path, problem);
    } else {
        struct span span = {.data = text.data == NULL ? "" : text.data, .size = text.size};
        loader->config->file_hash = hash_text(&text);
        bool read = yaml->text != NULL ? tree_read_yaml(&reader.tree, span)
                                       : tree_read_json(&reader.tree, span);
        if (read) {
            take_all(&reader);
        } else {
            loader_error(loader, "%s: %s", reader.path, reader.tree.problem);
        }
    }
    tree_fini(&reader.tree);
    buf_fini(&text);
}
