#include "discovery/access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ACCOUNT_FOLDER "/var/run/secrets/kubernetes.io/serviceaccount"

enum { PATH_BYTES_MAX = 4096 };

/* ---- Files ---- */

/* Appends the file. False: errno says why; EFBIG: `out` has no room. */
static bool read_file(const char *path, struct buf *out)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return false;
    }
    bool read = buf_append_file(out, file);
    int problem = errno;
    close(file);
    errno = problem;
    return read;
}

/* What a file of one line says, without the line's end; at most `bytes_max`. NULL: none. */
static char *read_line(struct access *access, const char *path, size_t bytes_max)
{
    struct buf text;
    buf_init(&text, access->mem, bytes_max);
    char *line = NULL;
    if (read_file(path, &text)) {
        size_t size = text.size;
        while (size > 0 && (text.data[size - 1] == '\n' || text.data[size - 1] == '\r')) {
            size--;
        }
        if (size > 0 && memchr(text.data, '\0', size) == NULL) {
            line = mem_strndup(access->mem, text.data, size);
        }
    }
    buf_fini(&text);
    return line;
}

static char *copy(struct access *access, const char *text)
{
    return mem_strndup(access->mem, text, strlen(text));
}

/* A text of `format`; NULL: no memory, or too long. */
__attribute__((format(printf, 2, 3))) static char *print(struct access *access, const char *format,
                                                         ...)
{
    char text[PATH_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return size < 0 || (size_t)size >= sizeof text ? NULL : copy(access, text);
}

/* ---- The pod's service account ---- */

static bool in_pod(struct access *access, const char *host, const char *port, const char *root,
                   struct buf *why)
{
    bool bare = strchr(host, ':') != NULL; /* An IPv6 address. */
    access->source = "the pod's service account";
    access->server = print(access, "https://%s%s%s:%s", bare ? "[" : "", host, bare ? "]" : "",
                           port != NULL && port[0] != '\0' ? port : "443");
    access->token_file = print(access, "%s" ACCOUNT_FOLDER "/token", root);
    access->ca_file = print(access, "%s" ACCOUNT_FOLDER "/ca.crt", root);
    char *namespace_file = print(access, "%s" ACCOUNT_FOLDER "/namespace", root);
    if (namespace_file != NULL) {
        access->namespace = read_line(access, namespace_file, PATH_BYTES_MAX); /* NULL is fine. */
    }
    bool has_all = access->server != NULL && access->token_file != NULL &&
                   access->ca_file != NULL && namespace_file != NULL;
    mem_free_text(access->mem, namespace_file);
    if (!has_all) {
        (void)buf_append_text(why, "out of memory");
        return false;
    }
    if (faccessat(AT_FDCWD, access->ca_file, R_OK, 0) != 0) {
        (void)buf_printf(why, "%s cannot be read: %s", access->ca_file, strerror(errno));
        return false;
    }
    return true;
}

/* ---- Loading ---- */

static char *kubeconfig_name(struct access *access, access_lookup *lookup, void *user)
{
    const char *list = lookup(user, "KUBECONFIG");
    if (list != NULL && list[0] != '\0') {
        return mem_strndup(access->mem, list, strcspn(list, ":"));
    }
    const char *home = lookup(user, "HOME");
    return home == NULL || home[0] == '\0' ? NULL : print(access, "%s/.kube/config", home);
}

static bool from_kubeconfig(struct access *access, struct buf *why)
{
    struct buf text;
    buf_init(&text, access->mem, ACCESS_FILE_BYTES_MAX);
    bool read = read_file(access->kubeconfig, &text);
    if (!read) {
        (void)buf_printf(why,
                         "there is no service account of a pod, and the kubeconfig %s cannot be "
                         "read: %s",
                         access->kubeconfig, strerror(errno));
    }
    bool taken = read && kubeconfig_read(access, (struct span){text.data, text.size}, why);
    if (text.size > 0) {
        explicit_bzero(text.data, text.size);
    }
    buf_fini(&text);
    return taken;
}

bool access_load(struct access *access, struct mem *mem, access_lookup *lookup, void *user,
                 const char *root, struct buf *why)
{
    *access = (struct access){.mem = mem};
    const char *host = lookup(user, "KUBERNETES_SERVICE_HOST");
    char *token_file = print(access, "%s" ACCOUNT_FOLDER "/token", root);
    bool has_account = host != NULL && host[0] != '\0' && token_file != NULL &&
                       faccessat(AT_FDCWD, token_file, F_OK, 0) == 0;
    mem_free_text(mem, token_file);
    if (has_account) {
        return in_pod(access, host, lookup(user, "KUBERNETES_SERVICE_PORT"), root, why);
    }
    access->kubeconfig = kubeconfig_name(access, lookup, user);
    if (access->kubeconfig == NULL) {
        (void)buf_append_text(why, "there is no service account of a pod, and neither KUBECONFIG "
                                   "nor HOME is set");
        return false;
    }
    access->source = access->kubeconfig;
    return from_kubeconfig(access, why);
}

static void drop(struct access *access, char *text)
{
    if (text != NULL) {
        size_t size = strlen(text);
        explicit_bzero(text, size); /* Some are secrets. */
        mem_free(access->mem, text, size + 1);
    }
}

void access_fini(struct access *access)
{
    char *texts[] = {access->server,     access->namespace, access->kubeconfig, access->token,
                     access->token_file, access->ca_file,   access->cert_file,  access->key_file,
                     access->ca_pem,     access->cert_pem,  access->key_pem};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        drop(access, texts[i]);
    }
    *access = (struct access){.mem = access->mem};
}

/* ---- Using it ---- */

static struct span span_or_none(const char *text)
{
    struct span none = {0};
    return text == NULL ? none : span_of(text);
}

void access_secure(const struct access *access, struct fetch_options *options)
{
    options->ca_file = access->ca_file;
    options->cert_file = access->cert_file;
    options->key_file = access->key_file;
    options->ca_pem = span_or_none(access->ca_pem);
    options->cert_pem = span_or_none(access->cert_pem);
    options->key_pem = span_or_none(access->key_pem);
}

/* Ends at the first byte that no header may have: a line's end, usually. */
static size_t token_size(const char *token, size_t size)
{
    size_t count = 0;
    while (count < size && token[count] > ' ' && token[count] < '\x7f') {
        count++;
    }
    return count;
}

bool access_authorize(const struct access *access, struct buf *header, struct buf *why)
{
    static const char scheme[] = "Authorization: Bearer ";
    header->size = 0;
    if (access->token == NULL && access->token_file == NULL) {
        return true;
    }
    bool fits = buf_append_text(header, scheme);
    if (access->token != NULL) {
        fits = fits && buf_append_text(header, access->token);
    } else if (!fits || !read_file(access->token_file, header)) {
        (void)buf_printf(why, "the token %s cannot be read: %s", access->token_file,
                         strerror(errno));
        return false;
    }
    size_t prefix = sizeof scheme - 1;
    if (!fits || token_size(header->data + prefix, header->size - prefix) == 0) {
        (void)buf_append_text(why, "the token is empty");
        return false;
    }
    header->size = prefix + token_size(header->data + prefix, header->size - prefix);
    return buf_append(header, "", 1);
}
