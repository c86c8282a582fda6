/* TLS as far as the router asks for it where nothing is enciphered: contexts that do nothing. */
#include "net/net.h"

struct net_tls {
    struct mem *mem;
};

struct net_tls *net_tls_new(struct mem *mem, const struct net_tls_options *options,
                            char problem[NET_PROBLEM_BYTES])
{
    (void)options;
    (void)problem;
    struct net_tls *tls = mem_alloc(mem, sizeof *tls);
    if (tls != NULL) {
        tls->mem = mem;
    }
    return tls;
}

bool net_tls_reload(struct net_tls *tls, char problem[NET_PROBLEM_BYTES])
{
    (void)tls;
    (void)problem;
    return true;
}

void net_tls_free(struct net_tls *tls)
{
    if (tls != NULL) {
        mem_free(tls->mem, tls, sizeof *tls);
    }
}

struct net_tls_stats net_tls_get_stats(struct net_tls *tls)
{
    (void)tls;
    return (struct net_tls_stats){0};
}
