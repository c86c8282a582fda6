/*
 * libcurl's multi-socket interface on a loop of net/: libcurl says which descriptors and which
 * point in time it waits for, is told when they are there, and is asked afterwards which transfers
 * are over. Its callbacks only note; transfers end in take_done(), never within a callback of
 * libcurl's.
 */
#include "fetch/fetch.h"

#include <curl/curl.h>

#include "base/check.h"
#include "base/clock.h"

enum {
    CURL_BUFFER_BYTES = 16 * 1024,
    KEEP_ALIVE_IDLE_S = 30, /* Then it is asked every KEEP_ALIVE_PAUSE_S, 9 times (Linux). */
    KEEP_ALIVE_PAUSE_S = 5,
    STATUS_FINAL = 200, /* Below: interim. */
};

struct fetcher {
    struct mem *mem;       /* Borrowed. */
    struct net_loop *loop; /* Borrowed. */
    struct net_timer *timer;
    CURLM *multi;
    size_t fetch_count;
};

struct fetch {
    struct fetcher *fetcher;
    CURL *easy;
    struct curl_slist *headers; /* Owned. */
    struct fetch_options options;
    size_t head_bytes;
    size_t body_bytes;
    bool refused; /* on_bytes wanted no more. */
    char error[CURL_ERROR_SIZE];
};

/* A descriptor that libcurl waits for. */
struct watch {
    struct fetcher *fetcher;
    struct net_poll *poll;
    curl_socket_t socket;
};

static void take_done(struct fetcher *fetcher);

static void act(struct fetcher *fetcher, curl_socket_t socket, int events)
{
    int running = 0;
    (void)curl_multi_socket_action(fetcher->multi, socket, events, &running); /* Fails only for a
                                                                                  bad handle. */
    take_done(fetcher);
}

/* ---- What libcurl waits for ---- */

static void on_timer(void *user)
{
    act(user, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct fetcher *fetcher = user;
    (void)multi;
    if (timeout_ms < 0) {
        net_timer_stop(fetcher->timer);
    } else {
        net_timer_start(fetcher->timer, (uint64_t)timeout_ms * CLOCK_NS_PER_MS);
    }
    return 0;
}

static void on_ready(void *user, unsigned events)
{
    struct watch *watch = user;
    int curl_events = ((events & NET_READABLE) != 0 ? CURL_CSELECT_IN : 0) |
                      ((events & NET_WRITABLE) != 0 ? CURL_CSELECT_OUT : 0) |
                      ((events & NET_BROKEN) != 0 ? CURL_CSELECT_ERR : 0);
    act(watch->fetcher, watch->socket, curl_events); /* May end the watch. */
}

static struct watch *watch_new(struct fetcher *fetcher, curl_socket_t socket)
{
    struct watch *watch = mem_alloc(fetcher->mem, sizeof *watch);
    if (watch == NULL) {
        return NULL;
    }
    *watch = (struct watch){.fetcher = fetcher, .socket = socket};
    watch->poll = net_poll_new(fetcher->loop, socket, on_ready, watch);
    if (watch->poll == NULL) {
        mem_free(fetcher->mem, watch, sizeof *watch);
        return NULL;
    }
    (void)curl_multi_assign(fetcher->multi, socket, watch); /* It has just named the socket. */
    return watch;
}

/* A socket that cannot be watched is left alone: its transfer times out. */
static int on_curl_socket(CURL *easy, curl_socket_t socket, int what, void *user, void *socket_user)
{
    struct fetcher *fetcher = user;
    struct watch *watch = socket_user;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watch != NULL) {
            net_poll_close(watch->poll);
            mem_free(fetcher->mem, watch, sizeof *watch);
        }
        return 0;
    }
    watch = watch != NULL ? watch : watch_new(fetcher, socket);
    if (watch != NULL) {
        unsigned events = ((what & CURL_POLL_IN) != 0 ? NET_READABLE : 0) |
                          ((what & CURL_POLL_OUT) != 0 ? NET_WRITABLE : 0);
        (void)net_poll_set(watch->poll, events); /* As above. */
    }
    return 0;
}

/* ---- Fetcher ---- */

struct fetcher *fetcher_new(struct net_loop *loop, struct mem *mem)
{
    struct fetcher *fetcher = mem_alloc(mem, sizeof *fetcher);
    if (fetcher == NULL || curl_global_init(CURL_GLOBAL_SSL) != CURLE_OK) {
        mem_free(mem, fetcher, sizeof *fetcher);
        return NULL;
    }
    *fetcher = (struct fetcher){.mem = mem, .loop = loop};
    fetcher->timer = net_timer_new(loop, on_timer, fetcher);
    fetcher->multi = curl_multi_init();
    if (fetcher->timer == NULL || fetcher->multi == NULL) {
        fetcher_free(fetcher);
        return NULL;
    }
    (void)curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    (void)curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
    (void)curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    (void)curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
    return fetcher;
}

void fetcher_free(struct fetcher *fetcher)
{
    if (fetcher == NULL) {
        return;
    }
    REQUIRE(fetcher->fetch_count == 0);
    (void)curl_multi_cleanup(fetcher->multi); /* Fails only for a bad handle; NULL is fine. */
    net_timer_close(fetcher->timer);
    mem_free(fetcher->mem, fetcher, sizeof *fetcher);
    curl_global_cleanup();
}

/* ---- Fetches ---- */

unsigned fetch_status(const struct fetch *fetch)
{
    long status = 0;
    (void)curl_easy_getinfo(fetch->easy, CURLINFO_RESPONSE_CODE, &status); /* 0 where none came. */
    return (unsigned)status;
}

/* Returning less than it got ends the transfer with an error. */
static size_t on_curl_body(char *bytes, size_t unit, size_t count, void *user)
{
    struct fetch *fetch = user;
    size_t size = unit * count;
    if (size > fetch->options.body_bytes_max - fetch->body_bytes) {
        return 0;
    }
    fetch->body_bytes += size;
    fetch->refused = !fetch->options.on_bytes(fetch->options.user, bytes, size);
    return fetch->refused ? 0 : size;
}

/* A line at a time; an empty one ends the head, of an interim answer, too. */
static size_t on_curl_head(const char *bytes, size_t unit, size_t count, void *user)
{
    struct fetch *fetch = user;
    size_t size = unit * count;
    if (size > fetch->options.head_bytes_max - fetch->head_bytes) {
        return 0;
    }
    fetch->head_bytes += size;
    unsigned status = fetch_status(fetch);
    bool is_end = size > 0 && (bytes[0] == '\r' || bytes[0] == '\n') && status >= STATUS_FINAL;
    if (is_end && fetch->options.on_status != NULL) {
        fetch->options.on_status(fetch->options.user, status);
    }
    return size;
}

static bool add_headers(struct fetch *fetch)
{
    const char *const *header = fetch->options.headers;
    for (; header != NULL && *header != NULL; header++) {
        struct curl_slist *longer = curl_slist_append(fetch->headers, *header);
        if (longer == NULL) {
            return false;
        }
        fetch->headers = longer;
    }
    return true;
}

static CURLcode set_pem(CURL *easy, CURLoption option, struct span pem)
{
    if (pem.data == NULL) {
        return CURLE_OK;
    }
    struct curl_blob blob = {.flags = CURL_BLOB_COPY, .len = pem.size};
    /* libcurl's structure has no const, and only copies. */
    memcpy(&blob.data, &pem.data, sizeof blob.data);
    return curl_easy_setopt(easy, option, &blob);
}

static CURLcode set_tls(CURL *easy, const struct fetch_options *options)
{
    const char *key_file = options->key_file != NULL ? options->key_file : options->cert_file;
    CURLcode failed = set_pem(easy, CURLOPT_CAINFO_BLOB, options->ca_pem);
    failed |= set_pem(easy, CURLOPT_SSLCERT_BLOB, options->cert_pem);
    failed |= set_pem(easy, CURLOPT_SSLKEY_BLOB, options->key_pem);
    if (options->ca_file != NULL) {
        failed |= curl_easy_setopt(easy, CURLOPT_CAINFO, options->ca_file);
        failed |= curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
#if LIBCURL_VERSION_NUM >= 0x075700
        failed |= curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L); /* It may be replaced. */
#endif
    }
    if (options->cert_file != NULL) {
        failed |= curl_easy_setopt(easy, CURLOPT_SSLCERT, options->cert_file);
    }
    if (key_file != NULL && options->key_pem.data == NULL) {
        failed |= curl_easy_setopt(easy, CURLOPT_SSLKEY, key_file);
    }
    return failed;
}

static bool set_options(struct fetch *fetch)
{
    CURL *easy = fetch->easy;
    long timeout_ms = (long)(fetch->options.timeout_ns / CLOCK_NS_PER_MS) + 1;
    long connect_ms = (long)(fetch->options.connect_timeout_ns / CLOCK_NS_PER_MS);
    CURLcode failed = curl_easy_setopt(easy, CURLOPT_URL, fetch->options.url);
    failed |= curl_easy_setopt(easy, CURLOPT_PRIVATE, fetch);
    failed |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, fetch->error);
    failed |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, fetch->headers);
    if (fetch->options.body != NULL) {
        failed |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                                   (curl_off_t)fetch->options.body->size);
        failed |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, fetch->options.body->data);
    }
    failed |= set_tls(easy, &fetch->options);
    failed |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "hashtrie-router");
    failed |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    failed |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    failed |= curl_easy_setopt(easy, CURLOPT_PROXY, "");
    failed |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    failed |= curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L); /* An idle one would be closed by
                                                                    the engine before the next. */
    failed |= curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    failed |= curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)CURL_BUFFER_BYTES);
    failed |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    failed |=
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms > 0 ? connect_ms : timeout_ms);
    failed |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    failed |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, (long)KEEP_ALIVE_IDLE_S);
    failed |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, (long)KEEP_ALIVE_PAUSE_S);
#if LIBCURL_VERSION_NUM >= 0x075700
    failed |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* A name look-up that hangs is left
                                                                  behind, not waited for. */
#endif
    failed |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_curl_body);
    failed |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, fetch);
    failed |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_curl_head);
    failed |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, fetch);
    return failed == CURLE_OK;
}

static void fetch_free(struct fetch *fetch)
{
    struct fetcher *fetcher = fetch->fetcher;
    curl_easy_cleanup(fetch->easy);
    curl_slist_free_all(fetch->headers);
    mem_free(fetcher->mem, fetch, sizeof *fetch);
}

struct fetch *fetch_begin(struct fetcher *fetcher, const struct fetch_options *options)
{
    struct fetch *fetch = mem_alloc_zero(fetcher->mem, sizeof *fetch);
    if (fetch == NULL) {
        return NULL;
    }
    fetch->fetcher = fetcher;
    fetch->options = *options;
    fetch->easy = curl_easy_init();
    if (fetch->easy == NULL || !add_headers(fetch) || !set_options(fetch) ||
        curl_multi_add_handle(fetcher->multi, fetch->easy) != CURLM_OK) {
        fetch_free(fetch);
        return NULL;
    }
    fetcher->fetch_count++;
    return fetch;
}

void fetch_cancel(struct fetch *fetch)
{
    (void)curl_multi_remove_handle(fetch->fetcher->multi, fetch->easy); /* It was added. */
    fetch->fetcher->fetch_count--;
    fetch_free(fetch);
}

static const char *error_of(const struct fetch *fetch, CURLcode code)
{
    if (code == CURLE_OK) {
        return NULL;
    }
    if (code == CURLE_WRITE_ERROR) {
        return fetch->refused ? "its answer was not taken" : "its answer is too long";
    }
    return fetch->error[0] != '\0' ? fetch->error : curl_easy_strerror(code);
}

static void finish(struct fetch *fetch, CURLcode code)
{
    unsigned status = fetch_status(fetch);
    struct fetch_options options = fetch->options;
    char error[CURL_ERROR_SIZE];
    const char *why = error_of(fetch, code);
    if (why != NULL) {
        size_t size = strlen(why);
        size = size < sizeof error - 1 ? size : sizeof error - 1;
        memcpy(error, why, size);
        error[size] = '\0';
    }
    fetch_cancel(fetch);
    options.on_done(options.user, status, why == NULL ? NULL : error);
}

static void take_done(struct fetcher *fetcher)
{
    int left = 0;
    CURLMsg *message = curl_multi_info_read(fetcher->multi, &left);
    while (message != NULL) {
        CHECK(message->msg == CURLMSG_DONE); /* There is no other. */
        struct fetch *fetch = NULL;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&fetch);
        finish(fetch, message->data.result);
        message = curl_multi_info_read(fetcher->multi, &left);
    }
}
