/*
 * The part of a kubeconfig that says where a server is and how to prove who one is: server,
 * authority, token, certificate. What would need a program to be run, or trust without proof, is
 * refused with a sentence.
 */
#include <string.h>
#include <yaml.h>

#include "discovery/access.h"

struct reading {
    struct access *access;
    yaml_document_t document;
    struct buf *why;
};

/* ---- Values ---- */

static bool is_text(const yaml_node_t *node)
{
    return node != NULL && node->type == YAML_SCALAR_NODE &&
           memchr(node->data.scalar.value, '\0', node->data.scalar.length) == NULL;
}

static const char *text_of(const yaml_node_t *node)
{
    bool usable = is_text(node) && node->data.scalar.length > 0;
    return usable ? (const char *)node->data.scalar.value : NULL;
}

/* NULL: no such member, or no mapping. */
static yaml_node_t *member(struct reading *reading, yaml_node_t *mapping, const char *name)
{
    if (mapping == NULL || mapping->type != YAML_MAPPING_NODE) {
        return NULL;
    }
    yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
    for (; pair < mapping->data.mapping.pairs.top; pair++) {
        const char *key = text_of(yaml_document_get_node(&reading->document, pair->key));
        if (key != NULL && strcmp(key, name) == 0) {
            return yaml_document_get_node(&reading->document, pair->value);
        }
    }
    return NULL;
}

static const char *member_text(struct reading *reading, yaml_node_t *mapping, const char *name)
{
    return text_of(member(reading, mapping, name));
}

/* In `lists`: [{name: NAME, KIND: {...}}, ...] the mapping of that name; NULL: none. */
static yaml_node_t *named(struct reading *reading, const char *list_name, const char *kind,
                          const char *name)
{
    yaml_node_t *root = yaml_document_get_root_node(&reading->document);
    yaml_node_t *list = member(reading, root, list_name);
    if (list == NULL || list->type != YAML_SEQUENCE_NODE || name == NULL) {
        return NULL;
    }
    yaml_node_item_t *item = list->data.sequence.items.start;
    for (; item < list->data.sequence.items.top; item++) {
        yaml_node_t *entry = yaml_document_get_node(&reading->document, *item);
        const char *entry_name = member_text(reading, entry, "name");
        if (entry_name != NULL && strcmp(entry_name, name) == 0) {
            return member(reading, entry, kind);
        }
    }
    return NULL;
}

/* ---- Taking them ---- */

/* Copies a text member, if there is one, to *out. False: no memory. */
static bool take(struct reading *reading, yaml_node_t *mapping, const char *name, char **out)
{
    const char *text = member_text(reading, mapping, name);
    if (text == NULL) {
        return true;
    }
    *out = mem_strndup(reading->access->mem, text, strlen(text));
    return *out != NULL;
}

/* The same for a file's name, which counts from the kubeconfig's folder. */
static bool take_path(struct reading *reading, yaml_node_t *mapping, const char *name, char **out)
{
    const char *path = member_text(reading, mapping, name);
    const char *own = reading->access->kubeconfig;
    const char *slash = strrchr(own, '/');
    if (path == NULL || path[0] == '/' || slash == NULL) {
        return take(reading, mapping, name, out);
    }
    struct buf joined;
    buf_init(&joined, reading->access->mem, ACCESS_FILE_BYTES_MAX);
    bool fits =
        buf_append(&joined, own, (size_t)(slash - own) + 1) && buf_append_text(&joined, path);
    *out = fits ? mem_strndup(reading->access->mem, joined.data, joined.size) : NULL;
    buf_fini(&joined);
    return *out != NULL;
}

static int base64_value(char byte)
{
    if (byte >= 'A' && byte <= 'Z') {
        return byte - 'A';
    }
    if (byte >= 'a' && byte <= 'z') {
        return byte - 'a' + 26;
    }
    if (byte >= '0' && byte <= '9') {
        return byte - '0' + 52;
    }
    return byte == '+' ? 62 : byte == '/' ? 63 : -1;
}

/* Blanks and the padding are skipped. False: another byte, or no room. */
static bool decode_base64(const char *text, struct buf *out)
{
    uint32_t bits = 0;
    unsigned count = 0;
    for (; *text != '\0'; text++) {
        int value = base64_value(*text);
        if (value < 0 && strchr("= \t\r\n", *text) == NULL) {
            return false;
        }
        if (value < 0) {
            continue;
        }
        bits = bits << 6 | (uint32_t)value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            char byte = (char)(bits >> count & 0xff);
            if (!buf_append(out, &byte, 1)) {
                return false;
            }
        }
    }
    return true;
}

/* PEM text in base64. False: `why` says so. */
static bool take_pem(struct reading *reading, yaml_node_t *mapping, const char *name, char **out)
{
    const char *text = member_text(reading, mapping, name);
    if (text == NULL) {
        return true;
    }
    struct buf pem;
    buf_init(&pem, reading->access->mem, ACCESS_FILE_BYTES_MAX);
    bool fine =
        decode_base64(text, &pem) && pem.size > 0 && memchr(pem.data, '\0', pem.size) == NULL;
    *out = fine ? mem_strndup(reading->access->mem, pem.data, pem.size) : NULL;
    if (pem.size > 0) {
        explicit_bzero(pem.data, pem.size);
    }
    buf_fini(&pem);
    if (*out == NULL) {
        (void)buf_printf(reading->why, "%s is not PEM in base64", name);
    }
    return *out != NULL;
}

/* ---- What is refused ---- */

struct refusal {
    const char *name;
    const char *reason;
};

static bool refuse(struct reading *reading, yaml_node_t *mapping, const struct refusal *refusals)
{
    for (; refusals->name != NULL; refusals++) {
        yaml_node_t *node = member(reading, mapping, refusals->name);
        const char *text = text_of(node);
        bool is_off =
            node == NULL || (is_text(node) && (text == NULL || strcmp(text, "false") == 0));
        if (!is_off) {
            (void)buf_printf(reading->why, "%s: %s", refusals->name, refusals->reason);
            return true;
        }
    }
    return false;
}

/* Without the slashes at its end. False: `why` says that it is none, or no memory. */
static bool take_server(struct reading *reading, yaml_node_t *cluster)
{
    const char *server = member_text(reading, cluster, "server");
    if (server == NULL ||
        (strncmp(server, "https://", 8) != 0 && strncmp(server, "http://", 7) != 0)) {
        (void)buf_append_text(reading->why, "its cluster's server is no http(s):// URL");
        return false;
    }
    size_t size = strlen(server);
    while (server[size - 1] == '/') {
        size--;
    }
    reading->access->server = mem_strndup(reading->access->mem, server, size);
    return reading->access->server != NULL;
}

static bool read_cluster(struct reading *reading, yaml_node_t *cluster)
{
    static const struct refusal refusals[] = {
        {"insecure-skip-tls-verify", "the API server has to prove who it is: give its authority as "
                                     "certificate-authority instead"},
        {"tls-server-name", "not supported: name the server as its certificate does"},
        {"proxy-url", "proxies are not supported"},
        {NULL, NULL},
    };
    struct access *access = reading->access;
    if (cluster == NULL) {
        (void)buf_append_text(reading->why, "its current context names no cluster that it has");
        return false;
    }
    return !refuse(reading, cluster, refusals) &&
           take_path(reading, cluster, "certificate-authority", &access->ca_file) &&
           take_pem(reading, cluster, "certificate-authority-data", &access->ca_pem) &&
           take_server(reading, cluster);
}

static bool read_user(struct reading *reading, yaml_node_t *user)
{
    static const struct refusal refusals[] = {
        {"exec", "a router runs no programs to get at credentials: use a token, a tokenFile or a "
                 "client certificate"},
        {"auth-provider", "not supported: use a token, a tokenFile or a client certificate"},
        {"username", "passwords are not supported: use a token or a client certificate"},
        {"as", "impersonation is not supported"},
        {NULL, NULL},
    };
    struct access *access = reading->access;
    return !refuse(reading, user, refusals) && take(reading, user, "token", &access->token) &&
           take_path(reading, user, "tokenFile", &access->token_file) &&
           take_path(reading, user, "client-certificate", &access->cert_file) &&
           take_path(reading, user, "client-key", &access->key_file) &&
           take_pem(reading, user, "client-certificate-data", &access->cert_pem) &&
           take_pem(reading, user, "client-key-data", &access->key_pem);
}

static bool read_document(struct reading *reading)
{
    yaml_node_t *root = yaml_document_get_root_node(&reading->document);
    const char *current = member_text(reading, root, "current-context");
    yaml_node_t *context = named(reading, "contexts", "context", current);
    if (context == NULL) {
        (void)buf_append_text(reading->why, "it has no current-context");
        return false;
    }
    const char *cluster = member_text(reading, context, "cluster");
    const char *user = member_text(reading, context, "user");
    return take(reading, context, "namespace", &reading->access->namespace) &&
           read_cluster(reading, named(reading, "clusters", "cluster", cluster)) &&
           read_user(reading, named(reading, "users", "user", user));
}

bool kubeconfig_read(struct access *access, struct span text, struct buf *why)
{
    struct reading reading = {.access = access, .why = why};
    (void)buf_printf(why, "kubeconfig %s: ", access->kubeconfig);
    size_t said = why->size;
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0) {
        (void)buf_append_text(why, "out of memory");
        return false;
    }
    const char *input = text.size > 0 ? text.data : ""; /* libyaml asserts that there is one. */
    yaml_parser_set_input_string(&parser, (const unsigned char *)input, text.size);
    bool taken = false;
    if (yaml_parser_load(&parser, &reading.document) == 0) {
        (void)buf_printf(why, "line %zu: not YAML: %s", parser.problem_mark.line + 1,
                         parser.problem != NULL ? parser.problem : "out of memory");
    } else {
        taken = read_document(&reading);
        yaml_document_delete(&reading.document);
    }
    yaml_parser_delete(&parser);
    if (taken) {
        why->size = 0; /* Nothing was wrong. */
    } else if (why->size == said) {
        (void)buf_append_text(why, "out of memory");
    }
    return taken;
}
