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

static void add_listener(struct worker *worker, struct net_listener *listener)
{
    net_listener_set_tls(listener, worker->router->client_tls);
    net_listener_on_starved(listener, on_starved);
    worker->listeners[worker->listener_count++] = listener;
}

/* On the first loop, without TLS. */
static void add_admin_listener(struct router *router, struct net_listener *listener,
                               const char *host, uint16_t port)
{
    struct worker *first = &router->workers[0];
    first->listeners[first->listener_count++] = listener;
    router->has_admin_port = true;
    log_write(router->log, LOG_INFO, "/admin/* and /metrics are served at %s:%u alone", host,
              (unsigned)port);
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

/* Stands for --admin-port. systemd: FileDescriptorName=admin. */
static bool is_for_admin(struct span name)
{
    return span_is(name, "admin");
}

static enum net_status accept_on_all(struct router *router, int descriptor)
{
    for (size_t i = 0; i < router->worker_count; i++) {
        struct worker *worker = &router->workers[i];
        struct net_listener *listener = NULL;
        enum net_status status = net_listen_passed(worker->loop, descriptor, ROUTER_BACKLOG,
                                                   conn_accept, worker, &listener);
        if (status != NET_OK) {
            return status;
        }
        add_listener(worker, listener);
    }
    router->listens_at_passed = true;
    return NET_OK;
}

static enum net_status accept_admin(struct router *router, int descriptor,
                                    const struct net_address *address)
{
    struct worker *first = &router->workers[0];
    struct net_listener *listener = NULL;
    enum net_status status = net_listen_passed(first->loop, descriptor, ROUTER_BACKLOG,
                                               conn_accept_admin, first, &listener);
    if (status == NET_OK) {
        add_admin_listener(router, listener, address->host, address->port);
    }
    return status;
}

static bool listen_at_passed(struct router *router, int descriptor, struct span name)
{
    struct net_address address;
    enum net_status status = net_listening_address(descriptor, &address);
    if (status != NET_OK) {
        log_write(router->log, LOG_ERROR,
                  "The socket passed as descriptor %d (%.*s) is no listening TCP socket",
                  descriptor, (int)name.size, name.data);
        return false;
    }
    bool admin = is_for_admin(name);
    status = admin ? accept_admin(router, descriptor, &address) : accept_on_all(router, descriptor);
    if (status != NET_OK) {
        log_write(router->log, LOG_ERROR, "Cannot listen on the socket passed as descriptor %d: %s",
                  descriptor, net_status_text(status));
        return false;
    }
    if (!admin) {
        router->listening = address;
    }
    log_write(router->log, LOG_INFO,
              "Accepting from the socket passed as descriptor %d (%.*s), %s:%u; %s not count",
              descriptor, (int)name.size, name.data, address.host, (unsigned)address.port,
              admin ? "--admin-port does" : "--host and --port do");
    return true;
}

/* The loops have duplicates: whoever holds the sockets beyond the end of this process, it is not
 * this process. */
static bool listen_at_all_passed(struct router *router, const struct service_sockets *sockets)
{
    bool listening = true;
    for (unsigned i = 0; i < sockets->count && listening; i++) {
        listening = listen_at_passed(router, SERVICE_SOCKET_FIRST + (int)i,
                                     service_socket_name(sockets, i));
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
    if (status == NET_OK) {
        add_listener(worker, listener);
    }
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

static bool listen_for_admin(struct router *router)
{
    const struct config *config = router->config;
    struct worker *first = &router->workers[0];
    struct net_listen_options options = {
        .host = config->admin_host, .port = config->admin_port, .backlog = ROUTER_BACKLOG};
    struct net_listener *listener = NULL;
    uint16_t port = 0;
    enum net_status status =
        net_listen(first->loop, &options, conn_accept_admin, first, &listener, &port);
    if (status != NET_OK) {
        log_write(router->log, LOG_ERROR, "Cannot listen on %s:%u (--admin-port): %s",
                  config->admin_host, (unsigned)config->admin_port, net_status_text(status));
        return false;
    }
    add_admin_listener(router, listener, config->admin_host, port);
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
    return listen_at_all_passed(router, &sockets) &&
           (router->listens_at_passed || listen_at_port(router)) &&
           (router->has_admin_port || router->config->admin_port == 0 || listen_for_admin(router));
}
