/* Where the router listens: at --host and --port, or at the sockets that were passed to it. */
#include <unistd.h>

#include "proxy/conn.h"
#include "proxy/router.h"

/* In the log when it begins and ends, but not more than once a minute. */
static void on_starved(void *user, bool starved)
{
    struct worker *worker = user;
    struct doors *doors = &worker->router->doors;
    if (starved) {
        stats_add(&worker->stats.accept_pauses, 1);
        worker->told_starved = doors_tell(&doors->starved_told_ns, net_now_ns());
    }
    if (worker->told_starved && starved) {
        log_write(&worker->log, LOG_ERROR,
                  "No descriptors or memory for new connections: they wait. The limit of open "
                  "files is too low for --max-connections, or other processes have them all");
    } else if (worker->told_starved) {
        log_write(&worker->log, LOG_INFO, "New connections are accepted again");
    }
}

static bool add_listener(struct worker *worker, enum net_status status,
                         struct net_listener *listener)
{
    if (status == NET_OK) {
        net_listener_set_tls(listener, worker->router->client_tls);
        net_listener_on_starved(listener, on_starved);
        worker->listeners[worker->listener_count++] = listener;
    }
    return status == NET_OK;
}

void worker_unlisten(struct worker *worker)
{
    for (size_t i = 0; i < worker->listener_count && !worker->router->listens_at_passed; i++) {
        net_listener_take_all(worker->listeners[i]);
    }
    while (worker->listener_count > 0) {
        net_listener_close(worker->listeners[--worker->listener_count]);
    }
}

/* ---- Passed sockets ---- */

static bool listen_at_passed(struct router *router, const struct service_sockets *sockets,
                             unsigned number)
{
    int descriptor = SERVICE_SOCKET_FIRST + (int)number;
    struct span name = service_socket_name(sockets, number);
    enum net_status status = net_listening_address(descriptor, &router->listening);
    if (status != NET_OK) {
        log_write(router->log, LOG_ERROR,
                  "The socket passed as descriptor %d (%.*s) is no listening TCP socket",
                  descriptor, (int)name.size, name.data);
        return false;
    }
    for (size_t i = 0; i < router->worker_count; i++) {
        struct worker *worker = &router->workers[i];
        struct net_listener *listener = NULL;
        status = net_listen_passed(worker->loop, descriptor, ROUTER_BACKLOG, conn_accept, worker,
                                   &listener);
        if (!add_listener(worker, status, listener)) {
            log_write(router->log, LOG_ERROR,
                      "Cannot listen on the socket passed as descriptor %d: %s", descriptor,
                      net_status_text(status));
            return false;
        }
    }
    log_write(router->log, LOG_INFO,
              "Accepting from the socket passed as descriptor %d (%.*s), %s:%u; --host and --port "
              "do not count",
              descriptor, (int)name.size, name.data, router->listening.host,
              (unsigned)router->listening.port);
    return true;
}

/* The loops have duplicates: whoever holds the sockets beyond the end of this process, it is not
 * this process. */
static bool listen_at_all_passed(struct router *router, const struct service_sockets *sockets)
{
    bool listening = true;
    for (unsigned i = 0; i < sockets->count && listening; i++) {
        listening = listen_at_passed(router, sockets, i);
    }
    for (unsigned i = 0; i < sockets->count && listening; i++) {
        (void)close(SERVICE_SOCKET_FIRST + (int)i); /* Nothing was written to it. */
    }
    return listening;
}

/* ---- Sockets of our own ---- */

static enum net_status listen_here(struct worker *worker, uint16_t *port)
{
    const struct config *config = worker->router->config;
    struct net_listen_options options = {
        .host = config->host,
        .port = *port,
        .backlog = ROUTER_BACKLOG,
        .shared = worker->number > 0,
    };
    struct net_listener *listener = NULL;
    enum net_status status =
        net_listen(worker->loop, &options, conn_accept, worker, &listener, port);
    (void)add_listener(worker, status, listener); /* The status tells. */
    return status;
}

static bool listen_at_port(struct router *router)
{
    const struct config *config = router->config;
    uint16_t *port = &router->listening.port;
    const char *host = config->host[0] == '\0' ? "*" : config->host;
    *port = config->port;
    for (size_t i = 0; i < router->worker_count; i++) {
        enum net_status status = listen_here(&router->workers[i], port);
        if (status != NET_OK) {
            log_write(router->log, LOG_ERROR, "Cannot listen on %s:%u: %s", host, (unsigned)*port,
                      net_status_text(status));
            return false;
        }
    }
    size_t size = strnlen(host, sizeof router->listening.host - 1);
    memcpy(router->listening.host, host, size);
    return true;
}

/* ---- The admin port ---- */

/* On the first loop, without TLS. */
static bool listen_for_admin(struct router *router)
{
    const struct config *config = router->config;
    struct worker *first = &router->workers[0];
    struct net_listen_options options = {
        .host = config->admin_host, .port = config->admin_port, .backlog = ROUTER_BACKLOG};
    struct net_listener *listener = NULL;
    uint16_t port = 0;
    if (config->admin_port == 0) {
        return true;
    }
    enum net_status status =
        net_listen(first->loop, &options, conn_accept_admin, first, &listener, &port);
    if (status != NET_OK) {
        log_write(router->log, LOG_ERROR, "Cannot listen on %s:%u (--admin-port): %s",
                  config->admin_host, (unsigned)config->admin_port, net_status_text(status));
        return false;
    }
    first->listeners[first->listener_count++] = listener;
    log_write(router->log, LOG_INFO, "/admin/* and /metrics are served at %s:%u alone",
              config->admin_host, (unsigned)port);
    return true;
}

bool router_listen(struct router *router)
{
    struct service_sockets sockets;
    const char *problem =
        service_read_sockets(service_environment, NULL, (uint64_t)getpid(), &sockets);
    if (problem != NULL) {
        log_write(router->log, LOG_ERROR, "Sockets were passed, but %s", problem);
        return false;
    }
    router->listens_at_passed = sockets.count > 0;
    return (sockets.count > 0 ? listen_at_all_passed(router, &sockets) : listen_at_port(router)) &&
           listen_for_admin(router);
}
