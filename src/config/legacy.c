/*
 * Flags of the Python router whose feature is not here. What only tunes such a feature is accepted
 * and told to be without effect; what switches it on is refused: ignored, it would change what
 * clients or operators get.
 */
#include "config/legacy.h"

#include <string.h>

#define KVAWARE  "it tunes kvaware routing, which is not here"
#define SEMANTIC "it tunes the semantic cache, which is not here"
#define BATCH    "it tunes the batch API, which is not here"
#define SENTRY   "nothing is sent to Sentry"

const struct legacy_flag legacy_flags[] = {
    {"--lmcache-controller-port", "N", KVAWARE, false},
    {"--lmcache-controller-reply-port", "N", KVAWARE, false},
    {"--lmcache-controller-heartbeat-port", "N", KVAWARE, false},
    {"--lmcache-health-check-interval", "N", KVAWARE, false},
    {"--lmcache-worker-timeout", "N", KVAWARE, false},
    {"--kv-aware-threshold", "N", KVAWARE, false},
    {"--semantic-cache-model", "NAME", SEMANTIC, false},
    {"--semantic-cache-dir", "DIR", SEMANTIC, false},
    {"--semantic-cache-threshold", "SHARE", SEMANTIC, false},
    {"--file-storage-class", "NAME", BATCH, false},
    {"--file-storage-path", "DIR", BATCH, false},
    {"--batch-processor", "NAME", BATCH, false},
    {"--sentry-traces-sample-rate", "SHARE", SENTRY, false},
    {"--sentry-profile-session-sample-rate", "SHARE", SENTRY, false},
    {"--request-rewriter", "NAME", "requests go on as they came; noop is all there is", false},
    {"--feature-gates", "GATES", "no feature here has a gate", false},
    {"--static-model-types", "TYPES",
     "--static-backend-health-checks asks GET /health, whatever a backend serves", false},
    {"--callbacks", "MODULE.INSTANCE",
     "no Python runs in this router; a proxy before it can change requests", true},
    {"--enable-batch-api", NULL,
     "/v1/files and /v1/batches are not served; engines have no such "
     "API to send them to",
     true},
    {"--sentry-dsn", "DSN",
     "no errors are sent to Sentry; see --otel-endpoint, --log-format json and /metrics", true},
    {"--external-providers-config", "FILE",
     "requests go to the backends alone; a provider of the OpenAI API may be one of them", true},
};
const size_t legacy_flag_count = sizeof legacy_flags / sizeof *legacy_flags;

static const struct {
    enum option_id id;
    const char *choice;
    const char *why;
} choices[] = {
    {OPTION_ROUTING_LOGIC, "kvaware",
     "it asks LMCache's controller, which is not here; prefixaware, the default, keeps account of "
     "what each backend holds by itself"},
    {OPTION_SERVICE_DISCOVERY, "external-only",
     "requests go to the backends alone; a provider of the OpenAI API may be one of them"},
};

const char *legacy_choice(enum option_id id, const char *text)
{
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (choices[i].id == id && strcmp(choices[i].choice, text) == 0) {
            return choices[i].why;
        }
    }
    return NULL;
}

/* Of "A=true,B=false": one of the two features that the Python router has is asked for. */
static const char *gate_opened(const char *gates)
{
    static const char *const features[] = {"SemanticCache=true", "PIIDetection=true"};
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        if (strcasestr(gates, features[i]) != NULL) {
            return features[i];
        }
    }
    return NULL;
}

void legacy_take(struct loader *loader, const struct legacy_flag *flag, const char *value)
{
    bool is_gates = strcmp(flag->flag, "--feature-gates") == 0;
    const char *gate = is_gates ? gate_opened(value) : NULL;
    bool rewriter = strcmp(flag->flag, "--request-rewriter") == 0;
    if (gate != NULL) {
        loader_error(loader, "%s %s is not supported: that feature is not here", flag->flag, gate);
    } else if (flag->refused) {
        loader_error(loader, "%s is not supported: %s", flag->flag, flag->why);
    } else if (rewriter && strcmp(value, "noop") != 0) {
        loader_error(loader, "%s %.100s is not supported: %s", flag->flag, value, flag->why);
    } else if (!rewriter && *value != '\0') {
        loader_note(loader, "%s %.100s has no effect: %s", flag->flag, value, flag->why);
    }
}
