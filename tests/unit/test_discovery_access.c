#include <stdio.h>
#include <string.h>

#include "discovery/access.h"
#include "support/test.h"

enum { VARIABLES_MAX = 4 };

static struct fixture {
    struct mem mem;
    char *root;
    struct access access;
    struct buf why;
    const char *variables[VARIABLES_MAX][2];
    size_t variable_count;
} fixture;

static const char *look_up(void *user, const char *name)
{
    (void)user;
    for (size_t i = 0; i < fixture.variable_count; i++) {
        if (strcmp(fixture.variables[i][0], name) == 0) {
            return fixture.variables[i][1];
        }
    }
    return NULL;
}

static int set_up(void **state)
{
    (void)state;
    fixture = (struct fixture){.root = test_directory_make()};
    mem_init(&fixture.mem, SIZE_MAX);
    buf_init(&fixture.why, &fixture.mem, 4096);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    access_fini(&fixture.access);
    buf_fini(&fixture.why);
    mem_fini(&fixture.mem);
    test_directory_remove(fixture.root);
    return 0;
}

static void set(const char *name, const char *value)
{
    fixture.variables[fixture.variable_count][0] = name;
    fixture.variables[fixture.variable_count++][1] = value;
}

static bool load(void)
{
    access_fini(&fixture.access);
    fixture.why.size = 0;
    return access_load(&fixture.access, &fixture.mem, look_up, NULL, fixture.root, &fixture.why);
}

static void assert_refused(const char *reason)
{
    assert_false(load());
    assert_true(buf_append(&fixture.why, "", 1));
    if (strstr(fixture.why.data, reason) == NULL) {
        fail_msg("\"%s\" does not say: %s", fixture.why.data, reason);
    }
}

static void write_account(void)
{
    static const char folder[] = "var/run/secrets/kubernetes.io/serviceaccount/";
    static const char *const files[][2] = {
        {"token", "first\n"}, {"ca.crt", "PEM"}, {"namespace", "llm\n"}};
    for (size_t i = 0; i < 3; i++) {
        char name[128];
        (void)snprintf(name, sizeof name, "%s%s", folder, files[i][0]);
        test_file_write_text(fixture.root, name, files[i][1]);
    }
}

static void assert_header(const char *expected)
{
    struct buf header;
    buf_init(&header, &fixture.mem, ACCESS_TOKEN_BYTES_MAX);
    assert_true(access_authorize(&fixture.access, &header, &fixture.why));
    assert_string_equal(header.size == 0 ? "" : header.data, expected);
    buf_fini(&header);
}

static void a_pod_uses_its_service_account(void **state)
{
    (void)state;
    write_account();
    set("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    set("KUBERNETES_SERVICE_PORT", "6443");
    set("KUBECONFIG", "/nowhere");
    assert_true(load());
    assert_string_equal(fixture.access.server, "https://10.96.0.1:6443");
    assert_string_equal(fixture.access.namespace, "llm");
    assert_header("Authorization: Bearer first");
    /* A token that was rotated is the next request's. */
    test_file_write_text(fixture.root, "var/run/secrets/kubernetes.io/serviceaccount/token",
                         "second");
    assert_header("Authorization: Bearer second");
    struct fetch_options options = {0};
    access_secure(&fixture.access, &options);
    assert_non_null(strstr(options.ca_file, "/serviceaccount/ca.crt"));
    assert_null(options.cert_file);
    fixture.variables[0][1] = "fd00::1";
    fixture.variables[1][1] = "";
    assert_true(load());
    assert_string_equal(fixture.access.server, "https://[fd00::1]:443");
}

static void a_token_that_is_missing_or_empty_is_told(void **state)
{
    (void)state;
    static const char name[] = "var/run/secrets/kubernetes.io/serviceaccount/token";
    write_account();
    set("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    assert_true(load());
    struct buf header;
    buf_init(&header, &fixture.mem, ACCESS_TOKEN_BYTES_MAX);
    test_file_write_text(fixture.root, name, "\r\nX: y");
    assert_false(access_authorize(&fixture.access, &header, &fixture.why));
    static const char forged[] = "abc\r\nX-Forged: yes";
    test_file_write_text(fixture.root, name, forged);
    assert_true(access_authorize(&fixture.access, &header, &fixture.why));
    assert_string_equal(header.data, "Authorization: Bearer abc");
    char *path = test_path(fixture.root, name);
    assert_int_equal(remove(path), 0);
    test_path_free(path);
    fixture.why.size = 0;
    assert_false(access_authorize(&fixture.access, &header, &fixture.why));
    assert_true(buf_append(&fixture.why, "", 1));
    assert_non_null(strstr(fixture.why.data, "No such file"));
    buf_fini(&header);
}

#define CONFIG(cluster, user)                                                              \
    "apiVersion: v1\nkind: Config\ncurrent-context: b\ncontexts:\n"                        \
    "- {name: a, context: {cluster: none, user: none}}\n"                                  \
    "- name: b\n  context:\n    cluster: here\n    user: me\n    namespace: engines\n"     \
    "clusters:\n- name: here\n  cluster:\n    server: https://api.example:6443/\n" cluster \
    "users:\n- name: other\n  user: {exec: {command: rm}}\n- name: me\n  user:\n" user

static char *path_of_config;

static void write_config(const char *text)
{
    test_file_write_text(fixture.root, "kube/config", text);
    if (fixture.variable_count == 0) {
        path_of_config = test_path(fixture.root, "kube/config");
        set("KUBECONFIG", path_of_config);
    }
}

static void a_kubeconfig_s_current_context_counts(void **state)
{
    (void)state;
    write_config(CONFIG("    certificate-authority: pki/ca.crt\n", "    token: abc\n"));
    assert_true(load());
    assert_string_equal(fixture.access.server, "https://api.example:6443");
    assert_string_equal(fixture.access.namespace, "engines");
    assert_non_null(strstr(fixture.access.ca_file, "/kube/pki/ca.crt")); /* Beside the config. */
    assert_header("Authorization: Bearer abc");
    write_config(CONFIG("    certificate-authority-data: UEVNIDE=\n",
                        "    client-certificate-data: UEVNIDI=\n    client-key-data: UEVNIDM=\n"));
    assert_true(load());
    struct fetch_options options = {0};
    access_secure(&fixture.access, &options);
    assert_true(span_is(options.ca_pem, "PEM 1") && span_is(options.cert_pem, "PEM 2") &&
                span_is(options.key_pem, "PEM 3"));
    assert_header("");
    write_config("{\"current-context\": \"x\", \"contexts\": [{\"name\": \"x\", \"context\": "
                 "{\"cluster\": \"c\"}}], \"clusters\": [{\"name\": \"c\", \"cluster\": "
                 "{\"server\": \"http://127.0.0.1:8001\"}}]}");
    assert_true(load()); /* JSON is YAML, and a proxy on this machine needs no user. */
    test_path_free(path_of_config);
}

static void what_cannot_be_used_is_refused_with_a_reason(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {CONFIG("", "    exec: {command: aws}\n"), "a router runs no programs"},
        {CONFIG("", "    auth-provider: {name: gcp}\n"), "auth-provider: not supported"},
        {CONFIG("", "    username: admin\n"), "passwords are not supported"},
        {CONFIG("    insecure-skip-tls-verify: true\n", "    token: a\n"),
         "has to prove who it is"},
        {CONFIG("    tls-server-name: x\n", "    token: a\n"), "tls-server-name"},
        {CONFIG("    proxy-url: http://x\n", "    token: a\n"), "proxies are not supported"},
        {CONFIG("    certificate-authority-data: '*'\n", "    token: a\n"), "not PEM in base64"},
        {CONFIG("", "  - ["), "not YAML"},
        {"", "no current-context"},
        {"- 1\n", "no current-context"},
        {"current-context: x\ncontexts: [{name: x, context: {cluster: y}}]\n", "names no cluster"},
        {"current-context: x\ncontexts: [{name: x, context: {cluster: y}}]\n"
         "clusters: [{name: y, cluster: {server: 'ftp://a'}}]\n",
         "no http(s):// URL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_config(cases[i][0]);
        assert_refused(cases[i][1]);
    }
    write_config(CONFIG("    insecure-skip-tls-verify: false\n", "    token: a\n"));
    assert_true(load());
    test_path_free(path_of_config);
}

static void without_either_it_says_what_is_missing(void **state)
{
    (void)state;
    assert_refused("neither KUBECONFIG nor HOME");
    set("HOME", fixture.root);
    assert_refused("/.kube/config cannot be read: No such file");
    set("KUBERNETES_SERVICE_HOST", "10.96.0.1"); /* Without the account's files. */
    assert_refused("/.kube/config cannot be read");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_pod_uses_its_service_account, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_token_that_is_missing_or_empty_is_told, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_kubeconfig_s_current_context_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_used_is_refused_with_a_reason, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(without_either_it_says_what_is_missing, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
