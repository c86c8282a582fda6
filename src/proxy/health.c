/*
 * /health and /ready.
 *
 * Healthy: the process serves, whatever store and engines do; restarting it would not help them.
 * Ready: it should get new connections. An engine that fails does not take the router out: it would
 * take all routers out at once, and clients would be refused without a word. Likewise with
 * Kubernetes once it has told which engines there are, be it none: clients are told to come back.
 */
#include "json/json.h"
#include "proxy/kubernetes.h"
#include "proxy/request.h"

enum readiness { READY, NOT_DRAINING, NOT_KUBERNETES, NOT_NO_ENGINES, NOT_STORE };

static const char *const readiness_texts[] = {
    [READY] = "ready",
    [NOT_DRAINING] = "draining",
    [NOT_KUBERNETES] = "waiting for Kubernetes",
    [NOT_NO_ENGINES] = "no engines",
    [NOT_STORE] = "waiting for the store",
};

/* It is open, or there is nothing to wait for: a disk that fails is no reason to wait. Once true,
 * it stays so. */
static bool store_is_settled(struct router *router)
{
    if (router->store == NULL ||
        atomic_load_explicit(&router->store_settled, memory_order_relaxed)) {
        return true;
    }
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(router->store, &stats);
    bool comes = stats.state == HASHTRIE_STORE_OPENING ||
                 (stats.state == HASHTRIE_STORE_OFF && stats.problem == HASHTRIE_EBUSY);
    bool settled = !comes || net_now_ns() >= router->store_until_ns;
    if (settled) {
        atomic_store_explicit(&router->store_settled, true, memory_order_relaxed);
    }
    return settled;
}

static enum readiness readiness(struct router *router)
{
    if (router_phase(router) != ROUTER_SERVING) {
        return NOT_DRAINING;
    }
    if (!kubernetes_is_settled(router)) {
        return NOT_KUBERNETES;
    }
    if (atomic_load(&router->backend_count) == 0 && !router->config->kubernetes) {
        return NOT_NO_ENGINES;
    }
    return store_is_settled(router) ? READY : NOT_STORE;
}

bool router_is_ready(struct router *router)
{
    return readiness(router) == READY;
}

const char *router_readiness(struct router *router)
{
    return readiness_texts[readiness(router)];
}

static void write_store(struct json_writer *writer, struct router *router)
{
    json_write_key(writer, "store");
    json_write_object(writer);
    json_write_key(writer, "state");
    if (router->store == NULL) {
        json_write_text(writer, "none");
        json_write_end(writer);
        return;
    }
    struct hashtrie_store_stats stats;
    hashtrie_store_get_stats(router->store, &stats);
    json_write_text(writer, hashtrie_store_state_name(stats.state));
    if (stats.problem != HASHTRIE_OK) {
        json_write_key(writer, "problem");
        json_write_text(writer, hashtrie_strerror(stats.problem));
    }
    if (stats.holder_pid != 0) {
        json_write_key(writer, "held_by_process");
        json_write_uint(writer, stats.holder_pid);
    }
    json_write_key(writer, "up");
    json_write_bool(writer, stats.up);
    json_write_key(writer, "bytes");
    json_write_uint(writer, stats.bytes);
    json_write_key(writer, "max_bytes");
    json_write_uint(writer, stats.max_bytes);
    json_write_key(writer, "nodes");
    json_write_uint(writer, stats.node_count);
    json_write_key(writer, "last_checkpoint");
    json_write_double(writer, stats.last_checkpoint_unix_s);
    json_write_end(writer);
}

static void write_engines(struct json_writer *writer, struct router *router)
{
    hashtrie_lock(router->trie);
    size_t telling_count = router->telling_count;
    hashtrie_unlock(router->trie);
    json_write_key(writer, "engines");
    json_write_object(writer);
    json_write_key(writer, "known");
    json_write_uint(writer, atomic_load(&router->backend_count));
    json_write_key(writer, "metrics_read");
    json_write_uint(writer, telling_count);
    json_write_end(writer);
}

static void write_requests(struct json_writer *writer, struct router *router)
{
    hashtrie_lock(router->trie);
    uint64_t running = router->admit.running;
    uint64_t waiting = router->admit.waiting;
    hashtrie_unlock(router->trie);
    json_write_key(writer, "requests");
    json_write_object(writer);
    json_write_key(writer, "running");
    json_write_uint(writer, running);
    json_write_key(writer, "queued");
    json_write_uint(writer, waiting);
    json_write_end(writer);
}

/* As the Python router tells it: what the file says by now, by the names of its keys. */
static void write_dynamic_config(struct json_writer *writer, const struct config *config)
{
    const char *key = NULL;
    const char *value = NULL;
    json_write_key(writer, "dynamic_config");
    json_write_object(writer);
    for (size_t i = 0; config_dynamic_value(config, i, &key, &value); i++) {
        json_write_key(writer, key);
        json_write_text(writer, value);
    }
    json_write_end(writer);
}

void health_serve(struct request *request, struct buf *body)
{
    struct router *router = request->worker->router;
    bool draining = router_phase(router) != ROUTER_SERVING;
    struct json_writer writer;
    json_writer_init(&writer, body);
    json_write_object(&writer);
    json_write_key(&writer, "status");
    json_write_text(&writer, draining ? "draining" : "healthy");
    write_store(&writer, router);
    write_engines(&writer, router);
    write_requests(&writer, router);
    const struct config *config = request->worker->settings->config;
    if (config_dynamic_file(config) != NULL) {
        write_dynamic_config(&writer, config);
    }
    json_write_end(&writer);
    admin_send_json(request, 200, body, &writer);
}

void health_serve_ready(struct request *request, struct buf *body)
{
    struct router *router = request->worker->router;
    enum readiness now = readiness(router);
    struct json_writer writer;
    json_writer_init(&writer, body);
    json_write_object(&writer);
    json_write_key(&writer, "status");
    json_write_text(&writer, readiness_texts[now]);
    if (now == NOT_STORE) {
        write_store(&writer, router);
    }
    json_write_end(&writer);
    admin_send_json(request, now == READY ? 200 : 503, body, &writer);
}
