/*
 * What the router wants to know of Kubernetes' objects. Private to the room. Pure.
 *
 * Texts are spans into the document, of visible ASCII without quotes and backslashes, at most as
 * long as Kubernetes allows; anything else counts as not said ({NULL, 0}).
 */
#ifndef HASHTRIE_DISCOVERY_OBJECTS_H
#define HASHTRIE_DISCOVERY_OBJECTS_H

#include "json/json.h"

enum {
    OBJECT_NAME_BYTES_MAX = 253,
    OBJECT_LABEL_BYTES_MAX = 63,
    OBJECT_UID_BYTES_MAX = 63,
    OBJECT_TIME_BYTES_MAX = 31,
    OBJECT_ADDRESS_BYTES_MAX = 45,
};

struct pod {
    struct span name;
    struct span uid;
    struct span version;
    struct span created; /* "2026-08-05T12:00:00Z" */
    struct span address; /* IPv4 or IPv6. */
    struct span model;   /* Its label `model`. */
    uint64_t restarts;   /* Of the container named vllm; without such a one, of all together. */
    bool ready;          /* Its containers are, it has an address, and it is not going away. */
    bool says_sleeping;  /* Its label `sleeping` is "true". */
    bool may_sleep;      /* It was started with --enable-sleep-mode, or does not say with what. */
};

struct service {
    struct span name;
    struct span uid;
    struct span version;
    struct span model; /* Its selector's `model`, else its label. */
    bool says_sleeping;
};

/* Some of a service's endpoints. */
struct slice {
    struct span name;
    struct span service;
    bool ready; /* One of them is. */
};

/* False: it has no name; a service: none that may be a host's. */
bool object_read_pod(const struct json_parser *parser, struct json_value object, struct pod *out);
bool object_read_service(const struct json_parser *parser, struct json_value object,
                         struct service *out);
bool object_read_slice(const struct json_parser *parser, struct json_value object,
                       struct slice *out);

enum { MODELS_BYTES_MAX = 16 * 1024, MODELS_COUNT_MAX = 256, MODEL_BYTES_MAX = 512 };

/*
 * The answer to GET /v1/models: names, each ended by a NUL, appended to `out`; *count: how many.
 * What is beyond the limits is left out. False: it is no such answer.
 */
bool object_read_models(const struct json_parser *parser, struct buf *out, size_t *count);

#endif
