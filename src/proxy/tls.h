/* TLS as configured: of the router's own port (--ssl-...), and to engines (--backend-...). */
#ifndef HASHTRIE_PROXY_TLS_H
#define HASHTRIE_PROXY_TLS_H

#include <stdbool.h>
#include <stdint.h>

struct metrics_writer;
struct router;

bool tls_start(struct router *router); /* False: told in the log. */
/* Made when it is first asked for. NULL: told in the log. Main thread. */
struct net_tls *tls_to_engines(struct router *router);
void tls_reload(struct router *router); /* What is bad is told; what was loaded stays. */
void tls_stop(struct router *router);   /* After the loops. */
/* Once a second: tells of handshakes that failed, at most once a minute. First loop's thread. */
void tls_sweep(struct router *router, uint64_t now_ns);
void tls_scrape(struct router *router, struct metrics_writer *writer); /* Any thread. */

#endif
