/* Readiness of descriptors that somebody else owns. */
#include "net/internal.h"

struct net_poll {
    uv_poll_t poll;
    struct net_loop *loop;
    net_poll_ready *on_ready;
    void *user;
};

static void on_poll_closed(uv_handle_t *handle)
{
    struct net_poll *poll = handle->data;
    mem_free(poll->loop->mem, poll, sizeof *poll);
}

static void poll_ready(uv_poll_t *handle, int status, int uv_events)
{
    struct net_poll *poll = handle->data;
    unsigned events = status < 0 ? NET_BROKEN : 0;
    events |= (uv_events & (UV_READABLE | UV_DISCONNECT)) != 0 ? NET_READABLE : 0;
    events |= (uv_events & UV_WRITABLE) != 0 ? NET_WRITABLE : 0;
    poll->on_ready(poll->user, events);
}

struct net_poll *net_poll_new(struct net_loop *loop, int fd, net_poll_ready *on_ready, void *user)
{
    struct net_poll *poll = mem_alloc(loop->mem, sizeof *poll);
    if (poll == NULL) {
        return NULL;
    }
    poll->loop = loop;
    poll->on_ready = on_ready;
    poll->user = user;
    if (uv_poll_init(&loop->uv, &poll->poll, fd) != 0) {
        mem_free(loop->mem, poll, sizeof *poll);
        return NULL;
    }
    poll->poll.data = poll;
    return poll;
}

bool net_poll_set(struct net_poll *poll, unsigned events)
{
    int wanted = ((events & NET_READABLE) != 0 ? UV_READABLE : 0) |
                 ((events & NET_WRITABLE) != 0 ? UV_WRITABLE : 0);
    if (wanted == 0) {
        (void)uv_poll_stop(&poll->poll); /* Never fails. */
        return true;
    }
    return uv_poll_start(&poll->poll, wanted, poll_ready) == 0;
}

void net_poll_close(struct net_poll *poll)
{
    if (poll != NULL) {
        uv_close((uv_handle_t *)&poll->poll, on_poll_closed); /* Stops watching at once. */
    }
}
