/* Changes in a folder, as the kernel tells of them. */
#include "net/internal.h"

struct net_watch {
    uv_fs_event_t event;
    struct net_loop *loop;
    void (*on_change)(void *user);
    void *user;
};

static void on_watch_closed(uv_handle_t *handle)
{
    struct net_watch *watch = handle->data;
    mem_free(watch->loop->mem, watch, sizeof *watch);
}

static void folder_changed(uv_fs_event_t *event, const char *name, int events, int status)
{
    struct net_watch *watch = event->data;
    (void)name;
    (void)events;
    (void)status; /* Whatever it is: the owner looks. */
    watch->on_change(watch->user);
}

struct net_watch *net_watch_new(struct net_loop *loop, void (*on_change)(void *user), void *user)
{
    struct net_watch *watch = mem_alloc(loop->mem, sizeof *watch);
    if (watch == NULL) {
        return NULL;
    }
    watch->loop = loop;
    watch->on_change = on_change;
    watch->user = user;
    if (uv_fs_event_init(&loop->uv, &watch->event) != 0) {
        mem_free(loop->mem, watch, sizeof *watch);
        return NULL;
    }
    watch->event.data = watch;
    return watch;
}

bool net_watch_start(struct net_watch *watch, const char *folder)
{
    (void)uv_fs_event_stop(&watch->event); /* Never fails. */
    return uv_fs_event_start(&watch->event, folder_changed, folder, 0) == 0;
}

void net_watch_close(struct net_watch *watch)
{
    if (watch != NULL) {
        uv_close((uv_handle_t *)&watch->event, on_watch_closed);
    }
}
