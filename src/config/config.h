/*
 * What the router was told: flags, environment, defaults.
 *
 * One table (options.c) holds every option: name, variable, default, range, help text. A flag wins
 * over its variable, a variable over the default; an empty variable counts as not set. Flags are
 * read as Python's argparse does: `--flag value`, `--flag=value`, any unambiguous prefix.
 *
 * config_load() reads nothing but its arguments, the file that they name (--dynamic-config-...: see
 * file.c) and, for defaults that depend on the machine (memory limit, CPUs), files under `root`.
 */
#ifndef HASHTRIE_CONFIG_CONFIG_H
#define HASHTRIE_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/mem.h"

enum {
    CONFIG_TEXT_BYTES_MAX = 4096,       /* A single value: path, host. */
    CONFIG_LIST_BYTES_MAX = 256 * 1024, /* A comma list: thousands of backends fit. */
    CONFIG_BACKENDS_MAX = 4096,
    CONFIG_ALIASES_MAX = 4096,
    CONFIG_LABELS_MAX = 64,
};

#define CONFIG_LABEL_DEFAULT "default"

/* In the order of the option's choices; up to PRIORITY that of enum route_policy. */
enum config_routing {
    CONFIG_PREFIXAWARE,
    CONFIG_ROUNDROBIN,
    CONFIG_SESSION,
    CONFIG_LEASTLOAD,
    CONFIG_LOADAWARE,
    CONFIG_PRIORITY,
    CONFIG_DISAGGREGATED_ALIAS, /* Read as the next; the loader leaves only that. */
    CONFIG_DISAGGREGATED,
};

/* In the order of severity, as the Python router names them. */
enum config_log_level {
    CONFIG_LOG_CRITICAL,
    CONFIG_LOG_ERROR,
    CONFIG_LOG_WARNING,
    CONFIG_LOG_INFO,
    CONFIG_LOG_DEBUG,
    CONFIG_LOG_TRACE,
};

/* What the caller does next. */
enum config_action {
    CONFIG_RUN,     /* Serve. */
    CONFIG_CHECK,   /* --check-config: everything was fine; say so and exit 0. */
    CONFIG_HELP,    /* --help: print config_help() and exit 0. */
    CONFIG_VERSION, /* --version: print it and exit 0. */
    CONFIG_REFUSED, /* `messages` says what is wrong; exit 2. */
};

/* Where a value came from, for messages and the log. */
enum config_source {
    CONFIG_FROM_DEFAULT,
    CONFIG_FROM_ENVIRONMENT,
    CONFIG_FROM_FILE,
    CONFIG_FROM_FLAG
};

struct config_backend {
    const char *url;   /* As configured, less a trailing '/': log lines and metrics name it so. */
    const char *model; /* "" where --static-models was not given. */
    const char *label; /* Its model label; CONFIG_LABEL_DEFAULT where none was given. */
};

struct config_labels {
    const char **names; /* Owned. */
    size_t count;
};

struct config_alias {
    const char *name;
    const char *model;
};

/* How variables are looked up; NULL: not set. main() passes getenv(). */
typedef const char *config_lookup(void *user, const char *name);

struct config_input {
    int argc;
    char *const *argv; /* argv[0] is skipped. */
    config_lookup *lookup;
    void *user;
    const char *root; /* "" for the real machine: put before /proc and /sys. */
    struct mem *mem;
};

struct config_value;
struct config_list;

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): one of its kind, in order of sense. */
struct config {
    struct mem *mem; /* Borrowed. Everything below that is owned is charged to it. */

    struct config_input input;       /* What it was loaded from. */
    const char *dynamic_config_yaml; /* NULL: none. */
    const char *dynamic_config_json; /* Not both. */
    uint64_t file_hash; /* Of that file's text; also after a config_reload() that failed. */

    const char *host;
    uint16_t port;             /* 0: the kernel picks one. */
    const char *routing_logic; /* Its name in the table, ... */
    enum config_routing routing;
    const char *log_level_name;
    enum config_log_level log_level;
    const char *log_format_name;
    bool log_json;
    const char *otel_endpoint; /* NULL: none. */
    const char *otel_service_name;
    bool otel_secure;      /* An endpoint without scheme is https://. */
    const char *root_path; /* Cut off paths that begin with it; no '/' at its end. NULL: none. */

    const char *service_discovery;
    bool kubernetes; /* Backends come from there. */
    const char *k8s_type;
    bool k8s_services; /* Services instead of pods. */
    const char *k8s_namespace;
    const char *k8s_selector; /* NULL: all. */
    uint16_t k8s_port;
    uint64_t k8s_watch_ns; /* 0: by chance. */
    uint64_t k8s_relist_ns;
    uint64_t k8s_models_ns;
    const char *k8s_known_models; /* Separated by commas; NULL: none. */
    uint64_t k8s_probe_timeout_ns;
    struct config_backend *backends; /* Those of --static-backends. */
    size_t backend_count;
    struct config_alias *aliases;
    size_t alias_count;
    struct config_labels prefill_labels; /* Engines so labelled prefill, ... */
    struct config_labels decode_labels;  /* ... those so labelled decode. */

    uint32_t failover_attempts_max; /* Further attempts after the first. */
    double retry_budget;            /* Share of the requests. */
    bool failover_on_busy;          /* 429 as well. */
    uint32_t eject_after_failures;  /* 0: off. */
    uint32_t thread_count;
    uint64_t shutdown_delay_ns;
    uint64_t drain_timeout_ns;
    uint64_t connect_timeout_ns;
    uint64_t upstream_idle_timeout_ns;
    uint64_t first_byte_timeout_ns;    /* 0: off. */
    uint64_t idle_timeout_ns;          /* Between bytes of an answer; 0: off. */
    uint64_t send_timeout_ns;          /* An engine that takes nothing of a request; 0: off. */
    uint64_t engine_stats_interval_ns; /* 0: off. */
    uint64_t request_stats_window_ns;
    uint64_t log_stats_interval_ns; /* 0: off. */
    uint64_t eject_time_ns;
    uint64_t slow_start_ns; /* 0: off. */
    bool health_checks;
    uint32_t health_check_fall; /* Failures in a row after which an engine is unhealthy, ... */
    uint32_t health_check_rise; /* ... and successes after which it is healthy again. */
    uint64_t health_check_interval_ns;
    uint64_t health_check_timeout_ns;
    uint64_t client_stall_timeout_ns; /* A client that reads nothing of what waits for it. */
    uint64_t client_idle_timeout_ns;
    uint64_t header_timeout_ns; /* 0: off. */
    uint64_t body_timeout_ns;   /* 0: off. */
    uint64_t body_rate_min;     /* Bytes a second; 0: off. */
    uint64_t reload_timeout_ns;
    uint64_t requests_max;         /* At backends; 0: off. */
    uint32_t backend_requests_max; /* At each of them; 0: off. */
    uint64_t queued_max;
    uint64_t client_queued_max;
    uint64_t queue_timeout_ns;
    uint64_t connections_max;         /* 0: what the limit of open files allows. */
    uint64_t address_connections_max; /* 0: off. */
    uint64_t header_bytes_max;
    uint32_t header_count_max;
    uint64_t target_bytes_max;
    uint64_t body_bytes_max;
    uint64_t buffered_bytes_max; /* All request bodies together. */
    uint64_t connection_buffer_bytes;

    bool proxy_all_paths;
    const char *session_key;   /* NULL: none. */
    uint64_t prefix_min_match; /* Bytes; less counts as nothing. */
    double loadaware_beta;
    const char *priority_header;
    const char *priority_field;
    uint64_t priority_default;
    uint64_t priority_threshold; /* Lower numbers are urgent. */

    bool store_enabled;
    const char *store_path;
    uint64_t store_wait_ns;
    uint64_t store_bytes_max;
    uint64_t checkpoint_interval_ns;
    const char *snapshot_directory; /* NULL: none. */
    uint64_t snapshot_interval_ns;  /* 0: off. */
    uint32_t snapshot_keep;
    const char *admin_key_file; /* NULL: none. */
    const char *admin_host;
    uint16_t admin_port;           /* 0: none of its own. */
    const char *api_key_file;      /* NULL: clients need no key. */
    const char *ssl_certfile;      /* NULL: plain HTTP. */
    const char *ssl_keyfile;       /* NULL: in ssl_certfile. */
    const char *ssl_ca_certs;      /* NULL: none. */
    uint32_t ssl_cert_reqs;        /* 0: not asked for; 1: may be shown; 2: required. */
    const char *backend_ca_file;   /* NULL: the system's. */
    const char *backend_cert_file; /* NULL: none. */
    const char *backend_key_file;  /* NULL: in backend_cert_file. */

    uint64_t memory_bytes;       /* Budget of the hot trie. */
    uint64_t memory_limit_bytes; /* What applies to the process; 0: unknown. */
    uint32_t chunk_size;
    double eviction_threshold;
    double target_utilization;
    uint64_t kv_capacity_tokens; /* 0: off. */
    uint64_t max_entry_age_ns;   /* 0: off. */

    struct config_value *values; /* Owned: one per option, in the table's order. */
    struct config_list *lists;   /* Owned: what backends and aliases point into. */
};

/*
 * Fills *out. `messages` gets lines for a human, each ended by '\n': with CONFIG_REFUSED what is
 * wrong (all that was found), otherwise warnings and notes for the log, in that order (see
 * config_message_next()). config_fini() is due in every case.
 */
enum config_action config_load(const struct config_input *input, struct config *out,
                               struct buf *messages);
void config_fini(struct config *config);

/*
 * Loads `start` again: its flags and variables, its file as it is now. Only what may change at run
 * time may differ. False: *messages says why, and *out is empty. config_fini() is due in every
 * case. On success *messages has the same notes as from config_load().
 */
bool config_reload(const struct config *start, struct mem *mem, struct config *out,
                   struct buf *messages);
/* The file that is watched; NULL: none. */
const char *config_dynamic_file(const struct config *config);
/* The hash of a file's text as it is now. False: *problem says why there is none. */
bool config_file_hash(const char *path, struct mem *mem, uint64_t *hash, const char **problem);
/* The i-th key that the Python router reads from such a file, by name, with its value now (NULL:
 * none). False: there are no more. */
bool config_dynamic_value(const struct config *config, size_t i, const char **key,
                          const char **value);

/* Cuts the next line off *text (size *size); false at the end. Warnings start with "warning: ". */
bool config_message_next(const char **text, size_t *size, const char **line, size_t *line_size);

/* `label` is one of them, letter for letter. */
bool config_has_label(const struct config_labels *labels, const char *label);

/* The text of --help, made from the table, at most 80 columns wide. False: no room. */
bool config_help(struct buf *out);

/* Effective values, one `name = value  (source)` line per option. False: no room. */
bool config_describe(const struct config *config, struct buf *out);

#endif
