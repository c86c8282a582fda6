/* Streams of the router on links in memory; as libuv does it on sockets, see src/net/stream.c. */
#include <string.h>

#include "base/check.h"
#include "sim/internal.h"

enum { READY_MAX = 256, POISON = 0xdd };

/* A write that waits. */
struct waiting {
    struct list link;
    size_t size; /* Of this allocation. */
    size_t count;
    struct span parts[NET_WRITE_PARTS_MAX];
    char copy[];
};

static struct sim_pipe *to_router(const struct net_stream *stream)
{
    return sim_link_to(stream->link, SIM_ROUTER);
}

static struct sim_pipe *to_script(const struct net_stream *stream)
{
    return sim_link_to(stream->link, SIM_SCRIPT);
}

struct sim_link *sim_stream_link(const struct net_stream *stream)
{
    return stream->link;
}

bool sim_stream_is_over(const struct net_stream *stream)
{
    return stream->ended || stream->failed;
}

/* ---- Life ---- */

static void on_syn(void *user);

struct net_stream *sim_stream_new(struct net_loop *loop)
{
    struct net_stream *stream = mem_alloc_zero(loop->mem, sizeof *stream);
    if (stream != NULL) {
        stream->loop = loop;
        list_init(&stream->writes);
        sim_event_init(&stream->connect, on_syn, stream);
        list_push_back(&loop->streams, &stream->link_open);
    }
    return stream;
}

static void free_writes(struct net_stream *stream)
{
    while (!list_empty(&stream->writes)) {
        struct waiting *write = LIST_ITEM(stream->writes.next, struct waiting, link);
        list_remove(&write->link);
        mem_free(stream->loop->mem, write, write->size);
    }
    stream->queued = 0;
}

static void let_go(struct net_stream *stream)
{
    stream->closed = true;
    stream->reading = false;
    sim_event_cancel(&stream->connect);
    free_writes(stream);
    if (stream->link != NULL) {
        stream->link->stream = NULL;
    }
    list_remove(&stream->link_open);
    list_push_back(&stream->loop->closed, &stream->link_open);
}

void net_stream_close(struct net_stream *stream)
{
    if (stream != NULL) {
        REQUIRE(!stream->closed);
        if (stream->link != NULL) {
            sim_link_close(stream->link, SIM_ROUTER);
        }
        let_go(stream);
    }
}

void net_stream_reset(struct net_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    REQUIRE(!stream->closed);
    if (stream->link == NULL) {
        net_stream_close(stream);
        return;
    }
    sim_link_reset(stream->link, SIM_ROUTER);
    let_go(stream);
}

void sim_streams_free_closed(struct net_loop *loop)
{
    while (!list_empty(&loop->closed)) {
        struct net_stream *stream = LIST_ITEM(loop->closed.next, struct net_stream, link_open);
        list_remove(&stream->link_open);
        mem_free(loop->mem, stream, sizeof *stream);
    }
}

void net_stream_set_events(struct net_stream *stream, const struct net_stream_events *events,
                           void *user)
{
    REQUIRE(!stream->closed);
    stream->events = events;
    stream->user = user;
}

/* ---- Connecting ---- */

bool net_address_set(struct net_address *address, const char *host, size_t host_size, unsigned port)
{
    if (host_size == 0 || host_size > NET_HOST_BYTES_MAX || port == 0 || port > UINT16_MAX) {
        return false;
    }
    memcpy(address->host, host, host_size);
    address->host[host_size] = '\0';
    address->port = (uint16_t)port;
    return true;
}

static void on_syn(void *user)
{
    struct net_stream *stream = user;
    const struct sim_hooks *hooks = sim_net_hooks();
    stream->connect_status = NET_OK;
    stream->link = hooks->accept(hooks->user, &stream->address, &stream->connect_status);
    if (stream->link != NULL) {
        stream->link->stream = stream;
    }
    stream->connect_due = stream->link != NULL || stream->connect_status != NET_OK;
}

struct net_stream *net_connect(struct net_loop *loop, const struct net_address *address,
                               void (*on_connected)(void *user, enum net_status status), void *user)
{
    struct net_stream *stream = sim_stream_new(loop);
    if (stream != NULL) {
        stream->address = *address;
        stream->on_connected = on_connected;
        stream->user = user;
        sim_event_after(&stream->connect, sim_between(0, 100 * CLOCK_NS_PER_MS));
    }
    return stream;
}

/* ---- Reading ---- */

enum net_status net_stream_read_start(struct net_stream *stream)
{
    REQUIRE(!stream->closed && stream->events != NULL && stream->link != NULL);
    stream->reading = !stream->ended;
    return stream->ended ? NET_EOF : NET_OK;
}

void net_stream_read_stop(struct net_stream *stream)
{
    REQUIRE(!stream->closed);
    stream->reading = false;
}

static bool is_readable(const struct net_stream *stream)
{
    const struct sim_pipe *in = to_router(stream);
    return stream->reading && (in->arrived > 0 || in->fin_arrived || in->reset_arrived);
}

static void tell_end(struct net_stream *stream, enum net_status status)
{
    stream->reading = false;
    stream->ended = true;
    sim_trace("%s %zu: the router sees its end (%s)", stream->link->kind, stream->link->number,
              net_status_name(status));
    stream->events->on_end(stream->user, status);
}

static void read_once(struct net_stream *stream)
{
    struct sim_pipe *in = to_router(stream);
    if (in->arrived == 0) {
        tell_end(stream, in->reset_arrived ? NET_RESET : NET_EOF);
        return;
    }
    struct net_loop *loop = stream->loop;
    char *space = loop->read_space;
    size_t room = NET_READ_BYTES;
    if (stream->events->on_space != NULL) {
        stream->events->on_space(stream->user, &space, &room);
    }
    bool own = space == loop->read_space;
    CHECK(room > 0);
    struct span bytes = sim_pipe_peek(in);
    size_t size = bytes.size < room ? bytes.size : room;
    memcpy(space, bytes.data, size);
    sim_pipe_drop(in, size);
    const struct sim_hooks *hooks = sim_net_hooks();
    hooks->before_read(hooks->user, stream, stream->user);
    stream->events->on_read(stream->user, space, size);
    hooks->after_read(hooks->user, stream, size);
    if (own) {
        memset(loop->read_space, POISON, size); /* Nobody may look there any more. */
    }
}

/* ---- Writing ---- */

static bool is_broken(const struct net_stream *stream)
{
    return to_router(stream)->reset_arrived;
}

static void take_bytes(struct net_stream *stream, struct span *part)
{
    size_t taken = sim_pipe_send(to_script(stream), part->data, part->size);
    part->data += taken;
    part->size -= taken;
}

static enum net_status keep_rest(struct net_stream *stream, const struct span *parts, size_t count,
                                 enum net_keep keep)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += parts[i].size;
    }
    size_t size = sizeof(struct waiting) + (keep == NET_COPY ? bytes : 0);
    struct waiting *write = mem_alloc(stream->loop->mem, size);
    if (write == NULL) {
        return NET_NO_MEMORY;
    }
    *write = (struct waiting){.size = size, .count = count};
    memcpy(write->parts, parts, count * sizeof *parts);
    size_t copied = 0;
    for (size_t i = 0; i < count && keep == NET_COPY; i++) {
        memcpy(write->copy + copied, parts[i].data, parts[i].size);
        write->parts[i].data = write->copy + copied;
        copied += parts[i].size;
    }
    list_push_back(&stream->writes, &write->link);
    stream->queued += bytes;
    return NET_OK;
}

enum net_status net_stream_write(struct net_stream *stream, const struct span *parts,
                                 size_t part_count, enum net_keep keep)
{
    REQUIRE(!stream->closed && part_count <= NET_WRITE_PARTS_MAX && stream->link != NULL);
    if (sim_chance(5)) {
        sim_world_run_one(); /* The world does not wait for the router's callbacks. */
    }
    if (stream->shutting || to_script(stream)->fin) {
        sim_fail("%s %zu: written to after its shutdown", stream->link->kind, stream->link->number);
    }
    if (is_broken(stream)) {
        return NET_RESET;
    }
    struct span left[NET_WRITE_PARTS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < part_count; i++) {
        struct span part = parts[i];
        if (part.size > 0 && count == 0 && list_empty(&stream->writes)) {
            take_bytes(stream, &part);
        }
        if (part.size > 0) {
            left[count++] = part;
        }
    }
    return count == 0 ? NET_OK : keep_rest(stream, left, count, keep);
}

size_t net_stream_queued(const struct net_stream *stream)
{
    return stream->queued;
}

static bool is_writable(const struct net_stream *stream)
{
    if (stream->shutting && list_empty(&stream->writes)) {
        return true;
    }
    return !list_empty(&stream->writes) &&
           (is_broken(stream) || sim_pipe_room(to_script(stream)) > 0);
}

/* Its bytes go as far as there is room. True: all of them. */
static bool write_waiting(struct net_stream *stream, struct waiting *write)
{
    for (size_t i = 0; i < write->count; i++) {
        size_t before = write->parts[i].size;
        take_bytes(stream, &write->parts[i]);
        stream->queued -= before - write->parts[i].size;
        if (write->parts[i].size > 0) {
            return false;
        }
    }
    return true;
}

static void write_on(struct net_stream *stream)
{
    unsigned done = 0;
    enum net_status status = is_broken(stream) ? NET_RESET : NET_OK;
    while (!list_empty(&stream->writes)) {
        struct waiting *write = LIST_ITEM(stream->writes.next, struct waiting, link);
        if (status == NET_OK && !write_waiting(stream, write)) {
            break;
        }
        for (size_t i = 0; i < write->count; i++) {
            stream->queued -= write->parts[i].size;
        }
        list_remove(&write->link);
        mem_free(stream->loop->mem, write, write->size);
        done++;
    }
    stream->failed = done > 0 && status != NET_OK;
    for (; done > 0 && !stream->closed; done--) {
        stream->events->on_written(stream->user, status);
    }
    if (!stream->closed && stream->shutting && list_empty(&stream->writes)) {
        stream->shutting = false;
        sim_link_shutdown(stream->link, SIM_ROUTER);
    }
}

enum net_status net_stream_shutdown(struct net_stream *stream)
{
    REQUIRE(!stream->closed);
    if (mem_fault_due(stream->loop->mem)) {
        return NET_NO_MEMORY;
    }
    if (stream->shutting || to_script(stream)->fin || is_broken(stream)) {
        return NET_FAILED;
    }
    stream->shutting = true;
    return NET_OK;
}

size_t net_stream_unread(const struct net_stream *stream)
{
    return stream->queued + (stream->link == NULL ? 0 : sim_pipe_unread(to_script(stream)));
}

/* ---- What the socket knows ---- */

bool net_stream_is_stale(const struct net_stream *stream)
{
    if (stream->closed || stream->link == NULL) {
        return true;
    }
    const struct sim_pipe *in = to_router(stream);
    return in->arrived > 0 || in->fin_arrived || in->reset_arrived;
}

bool net_stream_peer_is_gone(const struct net_stream *stream)
{
    if (stream->closed || stream->link == NULL) {
        return true;
    }
    return to_router(stream)->fin_arrived || to_router(stream)->reset_arrived;
}

uint64_t net_stream_peer_key(const struct net_stream *stream)
{
    return sim_stream_link(stream)->number % 4;
}

bool net_stream_is_loopback(const struct net_stream *stream)
{
    (void)stream;
    return true;
}

/* ---- Turns ---- */

static bool is_ready(const struct net_stream *stream)
{
    if (stream->connect_due) {
        return true;
    }
    return stream->link != NULL && stream->events != NULL &&
           (is_readable(stream) || is_writable(stream));
}

bool sim_streams_ready(struct net_loop *loop)
{
    list_foreach (link, &loop->streams) {
        if (is_ready(LIST_ITEM(link, struct net_stream, link_open))) {
            return true;
        }
    }
    return false;
}

static void run_stream(struct net_stream *stream)
{
    if (stream->connect_due) {
        stream->connect_due = false;
        stream->on_connected(stream->user, stream->connect_status);
        return;
    }
    unsigned reads = 1 + sim_below(SIM_READS_PER_TURN);
    for (unsigned i = 0; i < reads && !stream->closed && is_readable(stream); i++) {
        read_once(stream);
    }
    if (!stream->closed && is_writable(stream)) {
        write_on(stream);
    }
}

void sim_streams_run(struct net_loop *loop)
{
    struct net_stream *ready[READY_MAX];
    size_t count = 0;
    list_foreach (link, &loop->streams) {
        struct net_stream *stream = LIST_ITEM(link, struct net_stream, link_open);
        if (count < READY_MAX && is_ready(stream)) {
            ready[count++] = stream;
        }
    }
    while (count > 0) { /* In any order. */
        size_t chosen = sim_below((uint32_t)count);
        struct net_stream *stream = ready[chosen];
        ready[chosen] = ready[--count];
        if (!stream->closed && is_ready(stream)) {
            run_stream(stream);
        }
    }
}
