/* TLS sessions of servers, kept per loop: a new connection to the same address saves a handshake's
 * costly part. One of an earlier load of the files is not used: trust may have changed. */
#include <openssl/ssl.h>
#include <string.h>

#include "net/internal.h"

struct kept_session {
    struct list link;
    SSL_SESSION *session; /* Owned. */
    uint64_t generation;
    struct net_address peer;
};

static void drop(struct net_loop *loop, struct kept_session *kept)
{
    list_remove(&kept->link);
    loop->session_count--;
    SSL_SESSION_free(kept->session);
    mem_free(loop->mem, kept, sizeof *kept);
}

static struct kept_session *find(struct net_loop *loop, const struct net_address *peer)
{
    list_foreach (link, &loop->sessions) {
        struct kept_session *kept = LIST_ITEM(link, struct kept_session, link);
        if (kept->peer.port == peer->port && kept->peer.tls == peer->tls &&
            strcmp(kept->peer.host, peer->host) == 0) {
            return kept;
        }
    }
    return NULL;
}

void session_resume(struct net_loop *loop, SSL *ssl, const struct net_address *peer,
                    uint64_t generation)
{
    struct kept_session *kept = find(loop, peer);
    if (kept == NULL) {
        return;
    }
    if (kept->generation != generation || !SSL_SESSION_is_resumable(kept->session)) {
        drop(loop, kept);
        return;
    }
    (void)SSL_set_session(ssl, kept->session); /* Else a whole handshake. */
}

void session_keep(struct net_loop *loop, SSL_SESSION *session, const struct net_address *peer,
                  uint64_t generation)
{
    struct kept_session *kept = find(loop, peer);
    if (kept != NULL) {
        drop(loop, kept);
    } else if (loop->session_count >= NET_SESSIONS_MAX) {
        drop(loop, LIST_ITEM(loop->sessions.next, struct kept_session, link));
    }
    kept = mem_alloc(loop->mem, sizeof *kept);
    if (kept == NULL) {
        SSL_SESSION_free(session);
        return;
    }
    *kept = (struct kept_session){.session = session, .generation = generation, .peer = *peer};
    list_push_back(&loop->sessions, &kept->link);
    loop->session_count++;
}

void sessions_drop(struct net_loop *loop)
{
    while (!list_empty(&loop->sessions)) {
        drop(loop, LIST_ITEM(loop->sessions.next, struct kept_session, link));
    }
}
