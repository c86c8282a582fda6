/*
 * What a service manager passes in and wants to be told: systemd's protocols, or of whatever speaks
 * them. No library is needed.
 *
 *     LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES   listening sockets, from descriptor 3 on
 *     NOTIFY_SOCKET                            READY=1, STOPPING=1, STATUS=.. go there
 *     WATCHDOG_PID, WATCHDOG_USEC              WATCHDOG=1 is awaited so often
 */
#ifndef HASHTRIE_PROXY_SERVICE_H
#define HASHTRIE_PROXY_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/span.h"

enum { SERVICE_SOCKETS_MAX = 16, SERVICE_SOCKET_FIRST = 3 };

typedef const char *service_lookup(void *user, const char *name); /* NULL: not set. */
service_lookup service_environment;                               /* The process's. */

/* ---- Sockets ---- */

struct service_sockets {
    unsigned count;    /* 0: none were passed to this process. */
    const char *names; /* As passed, "a:b:c"; NULL: none. */
};

/* NULL, or what is wrong. `pid`: of this process; sockets passed to another are none of ours. */
const char *service_read_sockets(service_lookup *lookup, void *user, uint64_t pid,
                                 struct service_sockets *out);
struct span service_socket_name(const struct service_sockets *sockets, unsigned number);

/* ---- Notices ---- */

struct service {
    struct sockaddr_un address;
    socklen_t address_size; /* 0: nobody wants to be told. */
    uint64_t watchdog_ns;   /* 0: nobody waits. */
};

/* NULL, or what is wrong; *out is set in any case. */
const char *service_read(service_lookup *lookup, void *user, uint64_t pid, struct service *out);
/* `text`: lines "NAME=value\n". Does not wait. False: it could not be told. */
bool service_tell(const struct service *service, const char *text);
/* RELOADING=1, as systemd's Type=notify-reload wants it; READY=1 follows when it is over. `now_ns`:
 * of the monotonic clock. */
bool service_tell_reloading(const struct service *service, uint64_t now_ns);

#endif
