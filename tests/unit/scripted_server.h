/* An HTTP server on the loop of the test: its n-th connection gets the n-th reply of a script. */
#ifndef HASHTRIE_TESTS_UNIT_SCRIPTED_SERVER_H
#define HASHTRIE_TESTS_UNIT_SCRIPTED_SERVER_H

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "net/net.h"
#include "support/test.h"

enum { SCRIPT_HEAD_BYTES_MAX = 8192 };

struct reply {
    const char *wanted; /* Has to stand in the request's head. */
    const char *bytes;  /* Head and body; NULL: nothing, for ever. */
    bool stays_open;
};

struct scripted_server {
    struct mem *mem;
    struct net_loop *loop;
    struct net_listener *listener;
    uint16_t port;
    struct list peers;
    const struct reply *replies;
    size_t reply_count;
    size_t next; /* Also: how many were asked for. */
};

struct scripted_peer {
    struct list link;
    struct scripted_server *server;
    struct net_stream *stream;
    struct net_timer *timer; /* Closed outside of the callbacks of its stream. */
    char head[SCRIPT_HEAD_BYTES_MAX];
    size_t head_size;
    bool answered;
};

static void scripted_peer_free(struct scripted_peer *peer)
{
    list_remove(&peer->link);
    net_stream_close(peer->stream);
    net_timer_close(peer->timer);
    mem_free(peer->server->mem, peer, sizeof *peer);
}

static void on_scripted_timer(void *user)
{
    scripted_peer_free(user);
}

static void scripted_answer(struct scripted_peer *peer)
{
    struct scripted_server *server = peer->server;
    if (server->next >= server->reply_count) {
        fail_msg("more was asked than is in the script: %.200s", peer->head);
    }
    const struct reply *reply = &server->replies[server->next++];
    if (strstr(peer->head, reply->wanted) == NULL) {
        fail_msg("question %zu has no \"%s\": %.400s", server->next, reply->wanted, peer->head);
    }
    if (reply->bytes != NULL) {
        struct span part = span_of(reply->bytes);
        assert_int_equal(net_stream_write(peer->stream, &part, 1, NET_BORROW), NET_OK);
        if (!reply->stays_open) {
            assert_int_equal(net_stream_shutdown(peer->stream), NET_OK);
        }
    }
}

static void on_scripted_read(void *user, const char *bytes, size_t size)
{
    struct scripted_peer *peer = user;
    assert_true(size < sizeof peer->head - peer->head_size);
    memcpy(peer->head + peer->head_size, bytes, size);
    peer->head_size += size;
    peer->head[peer->head_size] = '\0';
    if (!peer->answered && strstr(peer->head, "\r\n\r\n") != NULL) {
        peer->answered = true;
        scripted_answer(peer);
    }
}

static void on_scripted_end(void *user, enum net_status status)
{
    struct scripted_peer *peer = user;
    (void)status;
    net_timer_start(peer->timer, 0);
}

static void on_scripted_written(void *user, enum net_status status)
{
    (void)user; /* Its end is told besides. */
    (void)status;
}

static void on_scripted_accept(void *user, struct net_stream *stream)
{
    static const struct net_stream_events events = {
        .on_read = on_scripted_read, .on_end = on_scripted_end, .on_written = on_scripted_written};
    struct scripted_server *server = user;
    struct scripted_peer *peer = mem_alloc_zero(server->mem, sizeof *peer);
    assert_non_null(peer);
    peer->server = server;
    peer->stream = stream;
    peer->timer = net_timer_new(server->loop, on_scripted_timer, peer);
    list_push_back(&server->peers, &peer->link);
    net_stream_set_events(stream, &events, peer);
    assert_int_equal(net_stream_read_start(stream), NET_OK);
}

static void scripted_server_init(struct scripted_server *server, struct net_loop *loop,
                                 struct mem *mem)
{
    *server = (struct scripted_server){.mem = mem, .loop = loop};
    list_init(&server->peers);
    struct net_listen_options listen = {.host = "127.0.0.1", .backlog = 256};
    assert_int_equal(
        net_listen(loop, &listen, on_scripted_accept, server, &server->listener, &server->port),
        NET_OK);
}

static void scripted_server_fini(struct scripted_server *server)
{
    while (!list_empty(&server->peers)) {
        scripted_peer_free(LIST_ITEM(server->peers.next, struct scripted_peer, link));
    }
    net_listener_close(server->listener);
}

#endif
