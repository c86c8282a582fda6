#include "proxy/tls.h"

#include "base/clock.h"
#include "metrics/metrics.h"
#include "proxy/router.h"

#define TELL_AGAIN_NS (60 * CLOCK_NS_PER_S)

static struct net_tls *make(struct router *router, const char *whose,
                            const struct net_tls_options *options)
{
    char problem[NET_PROBLEM_BYTES] = "";
    struct net_tls *tls = net_tls_new(&router->mem, options, problem);
    if (tls == NULL) {
        log_write(router->log, LOG_ERROR, "TLS %s: %s", whose, problem);
        log_flush(router->log); /* It may be long until somebody else does. */
    }
    return tls;
}

/* The system's authorities take 20 ms and a megabyte: they are read for those who need them. */
struct net_tls *tls_to_engines(struct router *router)
{
    const struct config *config = router->config;
    struct net_tls_options options = {.ca_file = config->backend_ca_file,
                                      .cert_file = config->backend_cert_file,
                                      .key_file = config->backend_key_file};
    if (router->engine_tls == NULL) {
        router->engine_tls = make(router, "to engines", &options);
    }
    return router->engine_tls;
}

bool tls_start(struct router *router)
{
    static const enum net_tls_clients clients[] = {NET_TLS_ANYBODY, NET_TLS_ASK, NET_TLS_CERTIFIED};
    const struct config *config = router->config;
    bool is_set = config->backend_ca_file != NULL || config->backend_cert_file != NULL;
    if (is_set && tls_to_engines(router) == NULL) {
        return false;
    }
    if (config->ssl_certfile == NULL) {
        return true;
    }
    struct net_tls_options options = {.server = true,
                                      .cert_file = config->ssl_certfile,
                                      .key_file = config->ssl_keyfile,
                                      .ca_file = config->ssl_ca_certs,
                                      .clients = clients[config->ssl_cert_reqs]};
    router->client_tls = make(router, "of clients", &options);
    return router->client_tls != NULL;
}

static void reload(struct log *log, const char *whose, struct net_tls *tls)
{
    char problem[NET_PROBLEM_BYTES] = "";
    if (net_tls_reload(tls, problem)) {
        log_write(log, LOG_INFO, "TLS %s: its files were read again", whose);
    } else {
        log_write(log, LOG_ERROR, "TLS %s: %s; what was loaded before stays in use", whose,
                  problem);
    }
}

void tls_reload(struct router *router)
{
    struct log *log = &router->workers[0].log;
    if (router->client_tls != NULL) {
        reload(log, "of clients", router->client_tls);
    }
    if (router->engine_tls != NULL) {
        reload(log, "to engines", router->engine_tls);
    }
}

void tls_stop(struct router *router)
{
    net_tls_free(router->client_tls);
    net_tls_free(router->engine_tls);
}

void tls_sweep(struct router *router, uint64_t now_ns)
{
    if (router->client_tls == NULL) {
        return;
    }
    struct net_tls_stats stats = net_tls_get_stats(router->client_tls);
    uint64_t news = stats.failures - router->tls_failures_told;
    if (news == 0 || now_ns < router->tls_quiet_until_ns) {
        return;
    }
    router->tls_failures_told = stats.failures;
    router->tls_quiet_until_ns = now_ns + TELL_AGAIN_NS;
    log_write(&router->workers[0].log, LOG_WARNING,
              "%llu TLS handshakes with clients failed; the last one: %s", (unsigned long long)news,
              net_status_text(stats.last_failure));
}

static void write_side(struct metrics_writer *writer, const char *side, struct net_tls *tls)
{
    struct net_tls_stats stats = net_tls_get_stats(tls);
    metrics_sample_u64(writer, stats.failures,
                       METRICS_LABELS({"result", "failed", 0}, {"side", side, 0}));
    metrics_sample_u64(writer, stats.handshakes - stats.resumed,
                       METRICS_LABELS({"result", "ok", 0}, {"side", side, 0}));
    metrics_sample_u64(writer, stats.resumed,
                       METRICS_LABELS({"result", "resumed", 0}, {"side", side, 0}));
}

void tls_scrape(struct router *router, struct metrics_writer *writer)
{
    metrics_family(writer, "hashtrie_tls_handshakes_total", METRICS_COUNTER,
                   "TLS handshakes with clients and engines.");
    if (router->client_tls != NULL) {
        write_side(writer, "client", router->client_tls);
    }
    if (router->engine_tls != NULL) {
        write_side(writer, "engine", router->engine_tls);
    }
}
