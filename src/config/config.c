/*
 * Loading: flags, then variables, then defaults become one text per option; then each text is read
 * into its field by the table; then what depends on the machine or on other options is filled in.
 */
#include "config/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "config/legacy.h"
#include "config/machine.h"
#include "config/options.h"

enum { ERRORS_BYTES_MAX = 64 * 1024, LINE_BYTES_MAX = 1024, SHARE_OF_LIMIT = 4 };

#define MIB                UINT64_C(1048576)
#define BUDGET_DEFAULT_MAX (2048 * MIB) /* Plenty: 480 million chunks. */
#define MEMORY_ASSUMED     (1024 * MIB) /* Where no limit can be read. */
#define PROCESS_BYTES      (32 * MIB)   /* Code, stacks, connection buffers of a quiet router. */

/* ---- Messages ---- */

/* A message is one line for a terminal and a log: control characters, which may come from a value,
 * become '?'. */
__attribute__((format(printf, 3, 0))) static bool append_line(struct buf *out, const char *prefix,
                                                              const char *format, va_list arguments)
{
    char line[LINE_BYTES_MAX];
    int length = vsnprintf(line, sizeof line, format, arguments);
    CHECK(length >= 0);
    for (char *at = line; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            *at = '?';
        }
    }
    return buf_reserve(out, strlen(prefix) + strlen(line) + 1) && buf_append_text(out, prefix) &&
           buf_append_text(out, line) && buf_append(out, "\n", 1);
}

void loader_error(struct loader *loader, const char *format, ...)
{
    loader->failed = true;
    va_list arguments;
    va_start(arguments, format);
    (void)append_line(&loader->errors, "", format, arguments); /* Full: earlier ones are there. */
    va_end(arguments);
}

void loader_warn(struct loader *loader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)append_line(loader->messages, "warning: ", format, arguments); /* As above. */
    va_end(arguments);
}

void loader_note(struct loader *loader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)append_line(loader->messages, "", format, arguments); /* As above. */
    va_end(arguments);
}

bool config_message_next(const char **text, size_t *size, const char **line, size_t *line_size)
{
    if (*size == 0) {
        return false;
    }
    const char *end = memchr(*text, '\n', *size);
    *line = *text;
    *line_size = end != NULL ? (size_t)(end - *text) : *size;
    size_t taken = end != NULL ? *line_size + 1 : *size;
    *text += taken;
    *size -= taken;
    return true;
}

/* ---- Values ---- */

void loader_set(struct loader *loader, enum option_id id, const char *text,
                enum config_source source)
{
    struct config_value *value = &loader->config->values[id];
    struct mem *mem = loader->config->mem;
    size_t size = strlen(text);
    char *copy = mem_strndup(mem, text, size);
    if (copy == NULL) {
        loader_error(loader, "out of memory");
        return;
    }
    mem_free(mem, value->text, value->bytes);
    *value = (struct config_value){.text = copy, .bytes = size + 1, .source = source};
}

void loader_unset(struct loader *loader, enum option_id id, enum config_source source)
{
    struct config_value *value = &loader->config->values[id];
    mem_free(loader->config->mem, value->text, value->bytes);
    *value = (struct config_value){.source = source};
}

/* systemd may give several folders, parted by colons: the first one is taken. */
static void set_state_directory(struct loader *loader, const char *text)
{
    char first[CONFIG_TEXT_BYTES_MAX];
    size_t size = strcspn(text, ":");
    if (size >= sizeof first) {
        loader_error(loader, "STATE_DIRECTORY is longer than %d bytes", CONFIG_TEXT_BYTES_MAX);
        return;
    }
    memcpy(first, text, size);
    first[size] = '\0';
    loader_set(loader, OPTION_STORE_PATH, first, CONFIG_FROM_ENVIRONMENT);
}

static void read_variables_and_defaults(struct loader *loader)
{
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        enum option_id id = (enum option_id)i;
        if (loader->config->values[i].text != NULL) {
            continue; /* A flag. */
        }
        const char *text = NULL;
        if (options[i].variable != NULL && loader->input->lookup != NULL) {
            text = loader->input->lookup(loader->input->user, options[i].variable);
        }
        if (text != NULL && *text != '\0') {
            if (id == OPTION_STORE_PATH) {
                set_state_directory(loader, text);
            } else {
                loader_set(loader, id, text, CONFIG_FROM_ENVIRONMENT);
            }
        } else if (options[i].fallback != NULL) {
            loader_set(loader, id, options[i].fallback, CONFIG_FROM_DEFAULT);
        }
    }
}

/* "--port: "99999" is not accepted: a whole number from 0 to 65535 is needed (default: 8001)" */
static void refuse_value(struct loader *loader, const struct option *option,
                         const struct config_value *value)
{
    const char *why = legacy_choice((enum option_id)(option - options), value->text);
    if (why != NULL) {
        loader_error(loader, "%s %s is not supported: %s", option_name(option), value->text, why);
        return;
    }
    bool from_variable = value->source == CONFIG_FROM_ENVIRONMENT;
    struct buf range;
    buf_init(&range, loader->config->mem, LINE_BYTES_MAX);
    bool done = false;
    if (from_variable && option->variable_unit != 0) {
        done = buf_printf(&range, "a number of GiB from %g to %g",
                          (double)option->min / (double)option->variable_unit,
                          (double)option->max / (double)option->variable_unit);
    } else {
        done = option_write_range(option, &range);
    }
    loader_error(loader, "%s: \"%.200s\" is not accepted: %.*s is needed (default: %s)",
                 from_variable ? option->variable : option_name(option), value->text,
                 done ? (int)range.size : 0, done ? range.data : "", option_default(option));
    buf_fini(&range);
}

static void store_values(struct loader *loader)
{
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        const struct config_value *value = &loader->config->values[i];
        if (value->text == NULL) {
            continue;
        }
        bool from_variable = value->source == CONFIG_FROM_ENVIRONMENT;
        if (!option_store(&options[i], value->text, from_variable, loader->config)) {
            refuse_value(loader, &options[i], value);
        }
    }
}

/* ---- What depends on the machine or on other options ---- */

static void set_computed_size(struct loader *loader, enum option_id id, uint64_t bytes)
{
    uint64_t value = bytes < options[id].min ? options[id].min : bytes;
    value = value > options[id].max ? options[id].max : value;
    value -= value % MIB; /* Whole MiB read better in the log. */
    struct buf text;
    buf_init(&text, loader->config->mem, LINE_BYTES_MAX);
    if (value_write_size(&text, value) && buf_append(&text, "", 1)) {
        loader_set(loader, id, text.data, CONFIG_FROM_DEFAULT);
    } else {
        loader_error(loader, "out of memory");
    }
    buf_fini(&text);
}

static void compute_defaults(struct loader *loader)
{
    struct config *config = loader->config;
    config->memory_limit_bytes = machine_memory_limit(loader->input->root);
    uint64_t limit = config->memory_limit_bytes != 0 ? config->memory_limit_bytes : MEMORY_ASSUMED;
    if (config->values[OPTION_MAX_MEMORY].text == NULL) {
        uint64_t share = limit / SHARE_OF_LIMIT;
        set_computed_size(loader, OPTION_MAX_MEMORY,
                          share < BUDGET_DEFAULT_MAX ? share : BUDGET_DEFAULT_MAX);
    }
    if (config->values[OPTION_MAX_BUFFERED_BYTES].text == NULL) {
        set_computed_size(loader, OPTION_MAX_BUFFERED_BYTES, limit / SHARE_OF_LIMIT);
    }
    if (config->values[OPTION_THREADS].text == NULL) {
        uint32_t cpus = machine_cpu_limit(loader->input->root, machine_cpu_affinity());
        cpus = cpus > options[OPTION_THREADS].max ? (uint32_t)options[OPTION_THREADS].max : cpus;
        char text[16];
        (void)snprintf(text, sizeof text, "%" PRIu32, cpus);
        loader_set(loader, OPTION_THREADS, text, CONFIG_FROM_DEFAULT);
    }
}

static void compare_with_memory_limit(struct loader *loader)
{
    const struct config *config = loader->config;
    uint64_t limit = config->memory_limit_bytes;
    if (limit == 0) {
        loader_warn(loader, "the memory limit of this process could not be read; defaults assume "
                            "1GiB");
        return;
    }
    uint64_t needed = config->memory_bytes + config->buffered_bytes_max + PROCESS_BYTES;
    if (needed > limit) {
        loader_warn(loader,
                    "--max-memory (%" PRIu64 " MiB) and --max-buffered-bytes (%" PRIu64
                    " MiB) with %" PRIu64 " MiB for the process itself do not fit under the "
                    "memory limit of %" PRIu64 " MiB: the process may be killed",
                    config->memory_bytes / MIB, config->buffered_bytes_max / MIB,
                    PROCESS_BYTES / MIB, limit / MIB);
    }
}

static void check_tls(struct loader *loader)
{
    const struct config *config = loader->config;
    if (config->ssl_certfile == NULL &&
        (config->ssl_keyfile != NULL || config->ssl_ca_certs != NULL ||
         config->ssl_cert_reqs > 0)) {
        loader_error(loader, "--ssl-keyfile, --ssl-ca-certs, --ssl-cert-reqs: a certificate is "
                             "needed, too: --ssl-certfile FILE");
    }
    if (config->ssl_cert_reqs > 0 && config->ssl_ca_certs == NULL) {
        loader_error(loader, "--ssl-cert-reqs: who signs certificates of clients has to be said, "
                             "too: --ssl-ca-certs FILE");
    }
    if (config->backend_key_file != NULL && config->backend_cert_file == NULL) {
        loader_error(loader, "--backend-key-file: a certificate is needed, too: "
                             "--backend-cert-file FILE");
    }
}

/* "/llm/" -> "/llm", "/" -> none. */
static void check_root_path(struct loader *loader)
{
    struct config *config = loader->config;
    char *path = config->values[OPTION_ROOT_PATH].text;
    if (config->root_path == NULL) {
        return;
    }
    size_t size = strlen(path);
    if (path[0] != '/' || strcspn(path, "?# ") != size) {
        loader_error(loader,
                     "--root-path: \"%.200s\" is no path: it begins with / and has no query, "
                     "such as /llm",
                     path);
        return;
    }
    while (size > 0 && path[size - 1] == '/') {
        path[--size] = '\0';
    }
    config->root_path = size > 0 ? path : NULL;
}

static void check_traces(struct loader *loader)
{
    static const char plain[] = "http://";
    const struct config *config = loader->config;
    const char *endpoint = config->otel_endpoint;
    if (config->otel_secure && endpoint != NULL &&
        strncmp(endpoint, plain, sizeof plain - 1) == 0) {
        loader_error(loader,
                     "--otel-secure: --otel-endpoint %.200s is not encrypted; give it as https://",
                     endpoint);
    }
}

static bool has_labelled(const struct config *config, const struct config_labels *labels)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        if (config_has_label(labels, config->backends[i].label)) {
            return true;
        }
    }
    return false;
}

static void check_disaggregated(struct loader *loader)
{
    struct config *config = loader->config;
    if (config->routing == CONFIG_DISAGGREGATED_ALIAS) {
        config->routing = CONFIG_DISAGGREGATED;
        loader_note(loader, "--routing-logic disaggregated_prefill is taken as "
                            "disaggregated_prefill_orchestrated");
    }
    if (config->routing != CONFIG_DISAGGREGATED) {
        return;
    }
    if (config->prefill_labels.count == 0 || config->decode_labels.count == 0) {
        loader_error(loader,
                     "--routing-logic %s: the labels of both kinds of backends are needed, too: "
                     "--prefill-model-labels LABEL,... --decode-model-labels LABEL,...",
                     config->routing_logic);
    } else if (config->backend_count > 0 && (!has_labelled(config, &config->prefill_labels) ||
                                             !has_labelled(config, &config->decode_labels))) {
        loader_warn(loader, "--static-model-labels: no backend has a label of "
                            "--prefill-model-labels, or none one of --decode-model-labels");
    }
}

/* Names that stand in the API's paths. */
static void check_kubernetes(struct loader *loader)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    enum { NAMESPACE_BYTES_MAX = 63 };
    const char *name = loader->config->k8s_namespace;
    size_t size = strlen(name);
    if (size > NAMESPACE_BYTES_MAX || strspn(name, letters) != size) {
        loader_error(loader,
                     "--k8s-namespace: \"%.200s\" is no name of a namespace: it has small letters, "
                     "digits and -, at most %d",
                     name, NAMESPACE_BYTES_MAX);
    }
}

static void check_together(struct loader *loader)
{
    struct config *config = loader->config;
    if (config->target_utilization > config->eviction_threshold) {
        loader_error(loader,
                     "HASHTRIE_TARGET_UTILIZATION: \"%s\" is not accepted: a number from 0.01 up "
                     "to HASHTRIE_EVICTION_THRESHOLD (%s) is needed (default: %s)",
                     config->values[OPTION_TARGET_UTILIZATION].text,
                     config->values[OPTION_EVICTION_THRESHOLD].text,
                     option_default(&options[OPTION_TARGET_UTILIZATION]));
    }
    const struct config_value *batch = &config->values[OPTION_CHECK_BATCH_SIZE];
    if (batch->source == CONFIG_FROM_ENVIRONMENT) {
        loader_note(loader,
                    "MEMORY_CHECK_REQUEST_BATCH_SIZE=%s has no effect: memory is counted exactly "
                    "at every request",
                    batch->text);
    }
    if (config->snapshot_interval_ns > 0 && config->snapshot_directory == NULL) {
        loader_error(loader, "--snapshot-interval: a folder for the snapshots is needed, too: "
                             "--snapshot-dir DIR");
    }
    if (config->routing == CONFIG_SESSION && config->session_key == NULL) {
        loader_error(loader, "--routing-logic session: what names a session is needed, too: "
                             "--session-key NAME");
    }
    if (config->values[OPTION_PRIORITY_THRESHOLD].text == NULL) {
        config->priority_threshold = config->priority_default;
    }
    check_kubernetes(loader);
    check_root_path(loader);
    check_traces(loader);
    check_disaggregated(loader);
    check_tls(loader);
    if (config->values[OPTION_MAX_CLIENT_QUEUED].text == NULL) {
        config->client_queued_max = (config->queued_max + 1) / 2;
    }
    compare_with_memory_limit(loader);
}

/* Which of its choices an option has; those that are switched on are in the order of an enum. */
static int choice_of(enum option_id id, const char *text)
{
    int number = 0;
    while (strcmp(text, options[id].choices[number]) != 0) {
        number++;
    }
    return number;
}

static void translate_choices(struct config *config)
{
    config->log_level = (enum config_log_level)choice_of(OPTION_LOG_LEVEL, config->log_level_name);
    config->log_json = choice_of(OPTION_LOG_FORMAT, config->log_format_name) == 1;
    config->routing = (enum config_routing)choice_of(OPTION_ROUTING_LOGIC, config->routing_logic);
    config->k8s_services = choice_of(OPTION_K8S_TYPE, config->k8s_type) == 1;
}

/* ---- The whole ---- */

static bool allocate(struct config *config)
{
    config->values = mem_alloc_zero(config->mem, OPTION_ID_COUNT * sizeof *config->values);
    config->lists = mem_alloc_zero(config->mem, LIST_COUNT * sizeof *config->lists);
    return config->values != NULL && config->lists != NULL;
}

/* Of a switch. */
static bool is_on(const struct loader *loader, enum option_id id)
{
    const char *text = loader->config->values[id].text;
    return text != NULL && strcmp(text, SWITCH_ON) == 0;
}

static void load_values(struct loader *loader)
{
    file_read(loader);
    read_variables_and_defaults(loader);
    compute_defaults(loader);
    store_values(loader);
    lists_read(loader);
    if (!loader->failed) {
        loader->config->store_enabled = !is_on(loader, OPTION_NO_STORE);
        if (!is_on(loader, OPTION_LOG_STATS)) {
            loader->config->log_stats_interval_ns = 0;
        }
        translate_choices(loader->config);
        check_together(loader);
    }
}

enum config_action config_load(const struct config_input *input, struct config *out,
                               struct buf *messages)
{
    REQUIRE(input->argc >= 0 && input->mem != NULL && input->root != NULL);
    *out = (struct config){.mem = input->mem, .input = *input};
    struct loader loader = {.input = input, .config = out, .messages = messages};
    buf_init(&loader.errors, input->mem, ERRORS_BYTES_MAX);
    if (!allocate(out)) {
        (void)buf_append_text(messages, "out of memory\n"); /* No room: the status tells. */
        return CONFIG_REFUSED;
    }
    flags_read(&loader);
    enum config_action action = CONFIG_RUN;
    if (is_on(&loader, OPTION_HELP)) {
        action = CONFIG_HELP;
    } else if (is_on(&loader, OPTION_VERSION)) {
        action = CONFIG_VERSION;
    } else {
        load_values(&loader);
        if (loader.failed) {
            action = CONFIG_REFUSED;
            messages->size = 0; /* Errors alone: warnings would bury them. */
            (void)buf_append(messages, loader.errors.data, loader.errors.size); /* As above. */
        } else if (is_on(&loader, OPTION_CHECK_CONFIG)) {
            action = CONFIG_CHECK;
        }
    }
    buf_fini(&loader.errors);
    return action;
}

static bool is_same(const struct config_value *a, const struct config_value *b)
{
    if (a->text == NULL || b->text == NULL) {
        return a->text == b->text;
    }
    return strcmp(a->text, b->text) == 0;
}

/* With the first reason warnings go. */
static void begin_refusal(struct buf *messages, bool *refused)
{
    messages->size = *refused ? messages->size : 0;
    *refused = true;
}

/* What only a restart can change has stayed. What the machine tells may have moved; it stays, too.
 */
static bool refuse_changes(const struct config *start, const struct config *now,
                           struct buf *messages)
{
    bool refused = false;
    for (size_t i = 0; i < OPTION_ID_COUNT; i++) {
        const struct config_value *before = &start->values[i];
        const struct config_value *after = &now->values[i];
        bool from_file = before->source == CONFIG_FROM_FILE || after->source == CONFIG_FROM_FILE;
        if (options[i].dynamic || !from_file || is_same(before, after)) {
            continue;
        }
        begin_refusal(messages, &refused);
        /* No room: earlier ones are there. */
        (void)buf_printf(messages,
                         "%s cannot change while the router runs, from %.100s to %.100s: it needs "
                         "a restart\n",
                         option_name(&options[i]), before->text != NULL ? before->text : "none",
                         after->text != NULL ? after->text : "none");
    }
    if ((start->routing == CONFIG_DISAGGREGATED) != (now->routing == CONFIG_DISAGGREGATED)) {
        begin_refusal(messages, &refused);
        (void)buf_append_text(messages, "--routing-logic cannot become or cease to be "
                                        "disaggregated_prefill_orchestrated while the router runs: "
                                        "it needs a restart\n"); /* As above. */
    }
    return refused;
}

bool config_reload(const struct config *start, struct mem *mem, struct config *out,
                   struct buf *messages)
{
    struct config_input input = start->input;
    input.mem = mem;
    enum config_action action = config_load(&input, out, messages);
    bool loaded = action == CONFIG_RUN && !refuse_changes(start, out, messages);
    if (!loaded) {
        uint64_t hash = out->file_hash;
        config_fini(out);
        out->file_hash = hash;
    }
    return loaded;
}

void config_fini(struct config *config)
{
    struct mem *mem = config->mem;
    for (size_t i = 0; config->values != NULL && i < OPTION_ID_COUNT; i++) {
        mem_free(mem, config->values[i].text, config->values[i].bytes);
    }
    for (size_t i = 0; config->lists != NULL && i < LIST_COUNT; i++) {
        mem_free(mem, config->lists[i].text, config->lists[i].bytes);
    }
    mem_free(mem, config->values, OPTION_ID_COUNT * sizeof *config->values);
    mem_free(mem, config->lists, LIST_COUNT * sizeof *config->lists);
    mem_free(mem, config->backends, config->backend_count * sizeof *config->backends);
    mem_free(mem, config->aliases, config->alias_count * sizeof *config->aliases);
    labels_free(mem, &config->prefill_labels);
    labels_free(mem, &config->decode_labels);
    *config = (struct config){.mem = mem};
}
