#include "proxy/stats.h"

#include "base/check.h"

const char *stats_error_name(enum stats_error error)
{
    static const char *const names[STATS_ERROR_COUNT] = {
        [STATS_CONNECT_REFUSED] = "ConnectionRefused",
        [STATS_CONNECT_TIMEOUT] = "ConnectTimeout",
        [STATS_CONNECT_FAILED] = "ConnectError",
        [STATS_DISCONNECTED] = "ServerDisconnected",
        [STATS_BAD_ANSWER] = "InvalidResponse",
        [STATS_BAD_STATUS] = "ErrorStatus",
        [STATS_FIRST_BYTE_TIMEOUT] = "FirstByteTimeout",
        [STATS_IDLE_TIMEOUT] = "IdleTimeout",
        [STATS_SEND_TIMEOUT] = "SendTimeout",
    };
    REQUIRE((unsigned)error < STATS_ERROR_COUNT);
    return names[error];
}

const char *stats_refusal_name(enum stats_refusal refusal)
{
    static const char *const names[STATS_REFUSAL_COUNT] = {
        [STATS_QUEUE_FULL] = "queue_full",       [STATS_CLIENT_QUEUE_FULL] = "client_queue_full",
        [STATS_QUEUE_TIMEOUT] = "queue_timeout", [STATS_SLOW_HEAD] = "slow_head",
        [STATS_SLOW_BODY] = "slow_body",         [STATS_HEAD_TOO_LARGE] = "head_too_large",
        [STATS_URL_TOO_LONG] = "url_too_long",   [STATS_BODY_TOO_LARGE] = "body_too_large",
        [STATS_MALFORMED] = "malformed",
    };
    REQUIRE((unsigned)refusal < STATS_REFUSAL_COUNT);
    return names[refusal];
}

enum stats_error stats_error_of(enum net_status status, bool connecting)
{
    if (!connecting) {
        return status == NET_INVALID ? STATS_BAD_ANSWER : STATS_DISCONNECTED;
    }
    if (status == NET_REFUSED) {
        return STATS_CONNECT_REFUSED;
    }
    return status == NET_TIMED_OUT ? STATS_CONNECT_TIMEOUT : STATS_CONNECT_FAILED;
}

bool stats_init(struct stats *stats, struct mem *mem)
{
    *stats = (struct stats){.mem = mem};
    metrics_histogram_init(&stats->route_seconds, &metrics_bounds_route);
    metrics_histogram_init(&stats->queue_seconds, &metrics_bounds_disk);
    stats->incoming = mem_alloc_zero(mem, (ROUTE_MODELS_MAX + 1) * sizeof *stats->incoming);
    return stats->incoming != NULL;
}

void stats_fini(struct stats *stats)
{
    mem_free(stats->mem, stats->incoming, (ROUTE_MODELS_MAX + 1) * sizeof *stats->incoming);
    stats->incoming = NULL;
}

void stats_series_init(struct stats_series *series)
{
    *series = (struct stats_series){0};
    metrics_histogram_init(&series->success, &metrics_bounds_request);
    metrics_histogram_init(&series->error, &metrics_bounds_request);
    metrics_histogram_init(&series->first_token, &metrics_bounds_first_token);
    metrics_histogram_init(&series->between_tokens, &metrics_bounds_between_tokens);
}
