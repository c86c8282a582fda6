#include "proxy/service.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define NS_PER_US UINT64_C(1000)

static bool read_number(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(*text - '0');
        if (value > (max - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

const char *service_environment(void *user, const char *name)
{
    (void)user;
    return getenv(name);
}

/* ---- Sockets ---- */

static unsigned count_names(const char *names)
{
    unsigned count = 1;
    for (; *names != '\0'; names++) {
        count += *names == ':';
    }
    return count;
}

const char *service_read_sockets(service_lookup *lookup, void *user, uint64_t pid,
                                 struct service_sockets *out)
{
    const char *pid_text = lookup(user, "LISTEN_PID");
    const char *count_text = lookup(user, "LISTEN_FDS");
    const char *names = lookup(user, "LISTEN_FDNAMES");
    uint64_t for_pid = 0;
    uint64_t count = 0;
    *out = (struct service_sockets){0};
    if (pid_text == NULL || count_text == NULL) {
        return NULL;
    }
    if (!read_number(pid_text, INT32_MAX, &for_pid)) {
        return "LISTEN_PID is not a process id";
    }
    if (for_pid != pid) {
        return NULL;
    }
    if (!read_number(count_text, SERVICE_SOCKETS_MAX, &count) || count == 0) {
        return "LISTEN_FDS is not a number from 1 to 16";
    }
    if (names != NULL && count_names(names) != count) {
        return "LISTEN_FDNAMES has not as many names as LISTEN_FDS says";
    }
    *out = (struct service_sockets){.count = (unsigned)count, .names = names};
    return NULL;
}

struct span service_socket_name(const struct service_sockets *sockets, unsigned number)
{
    const char *name = sockets->names;
    if (name == NULL) {
        return span_of("");
    }
    for (unsigned i = 0; i < number; i++) {
        name += strcspn(name, ":") + 1; /* There are as many names as sockets. */
    }
    return (struct span){.data = name, .size = strcspn(name, ":")};
}

/* ---- Notices ---- */

static const char *read_address(const char *path, struct service *out)
{
    size_t size = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || size < 2 || size >= sizeof out->address.sun_path) {
        return "NOTIFY_SOCKET is no path of a socket";
    }
    out->address.sun_family = AF_UNIX;
    memcpy(out->address.sun_path, path, size);
    if (path[0] == '@') {
        out->address.sun_path[0] = '\0'; /* Linux's abstract names. */
    }
    out->address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    return NULL;
}

const char *service_read(service_lookup *lookup, void *user, uint64_t pid, struct service *out)
{
    const char *path = lookup(user, "NOTIFY_SOCKET");
    const char *pid_text = lookup(user, "WATCHDOG_PID");
    const char *interval_text = lookup(user, "WATCHDOG_USEC");
    uint64_t for_pid = pid;
    uint64_t interval_us = 0;
    *out = (struct service){0};
    if (path == NULL) {
        return NULL;
    }
    const char *problem = read_address(path, out);
    if (problem != NULL || interval_text == NULL) {
        return problem;
    }
    if ((pid_text != NULL && !read_number(pid_text, INT32_MAX, &for_pid)) ||
        !read_number(interval_text, UINT64_MAX / NS_PER_US, &interval_us)) {
        return "WATCHDOG_PID or WATCHDOG_USEC is not a number";
    }
    out->watchdog_ns = for_pid == pid ? interval_us * NS_PER_US : 0;
    return NULL;
}

bool service_tell(const struct service *service, const char *text)
{
    if (service->address_size == 0) {
        return true;
    }
    int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) {
        return false;
    }
    union {
        struct sockaddr_un local;
        struct sockaddr any;
    } address = {.local = service->address};
    size_t size = strlen(text);
    ssize_t sent = sendto(descriptor, text, size, MSG_DONTWAIT | MSG_NOSIGNAL, &address.any,
                          service->address_size);
    (void)close(descriptor); /* Nothing waits in it. */
    return sent == (ssize_t)size;
}

bool service_tell_reloading(const struct service *service, uint64_t now_ns)
{
    char text[64];
    (void)snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu\n",
                   (unsigned long long)(now_ns / NS_PER_US)); /* It fits. */
    return service_tell(service, text);
}
