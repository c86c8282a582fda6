#include "proxy/reload.h"

#include <signal.h>

#include "proxy/dynamic.h"
#include "proxy/router.h"
#include "proxy/tls.h"

/* On the first loop. */
static void on_hangup(void *user, int number)
{
    struct router *router = user;
    (void)number;
    log_write(&router->workers[0].log, LOG_INFO, "SIGHUP: reading files again");
    (void)service_tell_reloading(&router->service, net_now_ns()); /* It asks for nothing. */
    keys_reload(router);
    tls_reload(router);
    dynamic_reload(router);
    (void)service_tell(&router->service, "READY=1\n"); /* The same. */
}

bool reload_watch(struct router *router)
{
    router->hangup = net_signal_new(router->workers[0].loop, SIGHUP, on_hangup, router);
    return router->hangup != NULL;
}

void reload_unwatch(struct router *router)
{
    net_signal_close(router->hangup);
}
