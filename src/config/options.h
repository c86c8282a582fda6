/* Private to the room: the table of options, and how values are read and written. */
#ifndef HASHTRIE_CONFIG_OPTIONS_H
#define HASHTRIE_CONFIG_OPTIONS_H

#include "config/config.h"

enum option_kind {
    OPTION_SWITCH,   /* No value. Field: bool. */
    OPTION_TEXT,     /* Any text; not empty, see may_be_empty. Field: const char *. */
    OPTION_CHOICE,   /* One of `choices`. Field: const char *, the choice as in the table. */
    OPTION_COUNT,    /* A whole number. Field: of 2, 4 or 8 bytes. */
    OPTION_SIZE,     /* Bytes. Field: uint64_t. */
    OPTION_DURATION, /* Field: uint64_t, nanoseconds. */
    OPTION_SHARE,    /* A decimal fraction; min and max in thousandths. Field: double. */
    OPTION_LIST,     /* A comma list, taken apart by lists.c. No field. */
};

/* Order of the table, and index into config.values. */
enum option_id {
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_CHECK_CONFIG,
    OPTION_DYNAMIC_CONFIG_YAML,
    OPTION_DYNAMIC_CONFIG_JSON,
    OPTION_HOST,
    OPTION_PORT,
    OPTION_ROOT_PATH,
    OPTION_THREADS,
    OPTION_LOG_LEVEL,
    OPTION_LOG_FORMAT,
    OPTION_OTEL_ENDPOINT,
    OPTION_OTEL_SERVICE_NAME,
    OPTION_OTEL_SECURE,
    OPTION_SHUTDOWN_DELAY,
    OPTION_DRAIN_TIMEOUT,
    OPTION_ADMIN_KEY_FILE,
    OPTION_API_KEY_FILE,
    OPTION_ADMIN_HOST,
    OPTION_ADMIN_PORT,
    OPTION_SSL_CERTFILE,
    OPTION_SSL_KEYFILE,
    OPTION_SSL_CA_CERTS,
    OPTION_SSL_CERT_REQS,
    OPTION_SERVICE_DISCOVERY,
    OPTION_K8S_TYPE,
    OPTION_K8S_NAMESPACE,
    OPTION_K8S_LABEL_SELECTOR,
    OPTION_K8S_PORT,
    OPTION_K8S_WATCHER_TIMEOUT,
    OPTION_K8S_RELIST_INTERVAL,
    OPTION_K8S_MODELS_INTERVAL,
    OPTION_K8S_KNOWN_MODELS,
    OPTION_K8S_PROBE_TIMEOUT,
    OPTION_STATIC_BACKENDS,
    OPTION_STATIC_MODELS,
    OPTION_STATIC_ALIASES,
    OPTION_STATIC_MODEL_LABELS,
    OPTION_BACKEND_CA_FILE,
    OPTION_BACKEND_CERT_FILE,
    OPTION_BACKEND_KEY_FILE,
    OPTION_CONNECT_TIMEOUT,
    OPTION_UPSTREAM_IDLE_TIMEOUT,
    OPTION_FIRST_BYTE_TIMEOUT,
    OPTION_IDLE_TIMEOUT,
    OPTION_SEND_TIMEOUT,
    OPTION_CLIENT_STALL_TIMEOUT,
    OPTION_CLIENT_IDLE_TIMEOUT,
    OPTION_HEADER_TIMEOUT,
    OPTION_BODY_TIMEOUT,
    OPTION_MIN_BODY_RATE,
    OPTION_ENGINE_STATS_INTERVAL,
    OPTION_REQUEST_STATS_WINDOW,
    OPTION_LOG_STATS,
    OPTION_LOG_STATS_INTERVAL,
    OPTION_FAILOVER_ATTEMPTS,
    OPTION_FAILOVER_ON_BUSY,
    OPTION_RETRY_BUDGET,
    OPTION_HEALTH_CHECKS,
    OPTION_HEALTH_CHECK_INTERVAL,
    OPTION_HEALTH_CHECK_TIMEOUT,
    OPTION_HEALTH_CHECK_FALL,
    OPTION_HEALTH_CHECK_RISE,
    OPTION_EJECT_AFTER,
    OPTION_EJECT_TIME,
    OPTION_SLOW_START,
    OPTION_PROXY_ALL_PATHS,
    OPTION_ROUTING_LOGIC,
    OPTION_PREFIX_MIN_MATCH,
    OPTION_SESSION_KEY,
    OPTION_LOADAWARE_BETA,
    OPTION_PRIORITY_HEADER,
    OPTION_PRIORITY_FIELD,
    OPTION_PRIORITY_DEFAULT,
    OPTION_PRIORITY_THRESHOLD,
    OPTION_PREFILL_LABELS,
    OPTION_DECODE_LABELS,
    OPTION_CHUNK_SIZE,
    OPTION_KV_CAPACITY_TOKENS,
    OPTION_MAX_ENTRY_AGE,
    OPTION_MAX_MEMORY,
    OPTION_EVICTION_THRESHOLD,
    OPTION_TARGET_UTILIZATION,
    OPTION_CHECK_BATCH_SIZE,
    OPTION_MAX_REQUESTS,
    OPTION_MAX_BACKEND_REQUESTS,
    OPTION_MAX_QUEUED,
    OPTION_MAX_CLIENT_QUEUED,
    OPTION_QUEUE_TIMEOUT,
    OPTION_MAX_CONNECTIONS,
    OPTION_MAX_ADDRESS_CONNECTIONS,
    OPTION_MAX_HEADER_SIZE,
    OPTION_MAX_HEADER_COUNT,
    OPTION_MAX_URL_LENGTH,
    OPTION_MAX_BODY_SIZE,
    OPTION_MAX_BUFFERED_BYTES,
    OPTION_CONNECTION_BUFFER,
    OPTION_STORE_PATH,
    OPTION_STORE_WAIT,
    OPTION_NO_STORE,
    OPTION_STORE_MAX_SIZE,
    OPTION_CHECKPOINT_INTERVAL,
    OPTION_RELOAD_TIMEOUT,
    OPTION_SNAPSHOT_DIR,
    OPTION_SNAPSHOT_INTERVAL,
    OPTION_SNAPSHOT_KEEP,
    OPTION_ID_COUNT
};

enum { OPTION_CHOICES_MAX = 12 };

struct option {
    const char *flag;     /* "--port"; NULL: set by its variable alone. */
    const char *variable; /* NULL: no variable. */
    const char *metavar;  /* See option_metavar(); NULL where the kind tells. */
    const char *fallback; /* Default as text, read like any other value; NULL: none, or computed. */
    const char *fallback_note; /* What --help says of a default that is computed or absent. */
    const char *help;
    const char *choices[OPTION_CHOICES_MAX]; /* Of OPTION_CHOICE; ends with NULL. */
    uint64_t min;
    uint64_t max;
    uint64_t multiple;      /* Of OPTION_COUNT; 0: any. */
    uint64_t variable_unit; /* The variable is a decimal number of these; 0: as the flag. */
    uint64_t bare_unit;     /* A whole number alone, as the Python router takes it, counts these;
                               0: a unit is needed. */
    enum option_kind kind;
    bool may_be_off;   /* "off" and 0 are accepted and mean 0. */
    bool may_be_empty; /* Of OPTION_TEXT: "" is accepted and means NULL. */
    bool dynamic;      /* May change while the router runs: see file.c. */
    size_t field;      /* Of struct config: its place, ... */
    size_t width;      /* ... and size; 0: the value is stored in none. */
};

extern const struct option options[OPTION_ID_COUNT];

/* Values of a switch as text. */
#define SWITCH_ON  "yes"
#define SWITCH_OFF "no"

/* One effective value as text. */
struct config_value {
    char *text;   /* Owned; NULL: not set. */
    size_t bytes; /* Of the allocation. */
    enum config_source source;
};

struct config_list {
    char *text;   /* Owned: a copy, cut into strings. */
    size_t bytes; /* Of the allocation. */
};

enum config_list_id {
    LIST_BACKENDS,
    LIST_MODELS,
    LIST_ALIASES,
    LIST_LABELS,
    LIST_PREFILL_LABELS,
    LIST_DECODE_LABELS,
    LIST_COUNT
};

/* Flag, else variable: how messages name the option. */
const char *option_name(const struct option *option);

/* ---- values.c ---- */

/* All of `text` has to be read. False: no such value, or too large for 64 bits. */
bool value_read_count(const char *text, uint64_t *out);
bool value_read_size(const char *text, uint64_t *out);
bool value_read_duration(const char *text, uint64_t *out);
/* A plain decimal fraction such as 0.9 or 2. */
bool value_read_decimal(const char *text, double *out);

/* The shortest exact form: "512MiB", "20ms", "128". */
bool value_write_size(struct buf *out, uint64_t bytes);
bool value_write_duration(struct buf *out, uint64_t nanoseconds);

/* "a size from 16MiB to 16TiB, such as 512MiB": what the option accepts. */
bool option_write_range(const struct option *option, struct buf *out);
/* What --help shows behind the flag; NULL: it takes no value. */
const char *option_metavar(const struct option *option);
/* The default as --help and messages give it. */
const char *option_default(const struct option *option);

/* Reads `text` by the option's kind, checks the range, stores it into its field. False: refused. */
bool option_store(const struct option *option, const char *text, bool from_variable,
                  struct config *config);

/* ---- The loader's state, over all files of the room ---- */

struct loader {
    const struct config_input *input;
    struct config *config;
    struct buf errors;
    struct buf *messages;
    bool failed; /* An error was recorded, perhaps without room for its text. */
};

__attribute__((format(printf, 2, 3))) void loader_error(struct loader *loader, const char *format,
                                                        ...);
__attribute__((format(printf, 2, 3))) void loader_warn(struct loader *loader, const char *format,
                                                       ...);
__attribute__((format(printf, 2, 3))) void loader_note(struct loader *loader, const char *format,
                                                       ...);
/* Records a copy of `text` as the option's value; an earlier one is replaced. */
void loader_set(struct loader *loader, enum option_id id, const char *text,
                enum config_source source);

/* The option has no value, whatever a flag says. */
void loader_unset(struct loader *loader, enum option_id id, enum config_source source);

/* flags.c: reads argv. */
void flags_read(struct loader *loader);
/* file.c: the file that --dynamic-config-... names, if one does. After the flags. */
void file_read(struct loader *loader);
/* lists.c: backends, models, aliases, labels, and that they fit together. */
void lists_read(struct loader *loader);
void labels_free(struct mem *mem, struct config_labels *labels);

#endif
