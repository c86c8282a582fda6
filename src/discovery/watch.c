/*
 *     LISTING --page with `continue`--> LISTING --last page--> WATCHING --end--> WATCHING
 *
 * Fails: no answer, or a cut one -> PAUSING, then what failed once more, a WATCH from the last
 * version it told. A WATCH that is refused (410 and all others), tells an ERROR, or tells what
 * cannot be (not JSON, too long, out of order) -> PAUSING, then LISTING. Every relist_ns a LIST
 * takes the place of the WATCH, whatever it told: an event that never came is made up for.
 */
#include "discovery/watch.h"

#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/random.h"

enum {
    DOUBLINGS_MAX = 10,
    MESSAGE_BYTES_MAX = 300,
    STATUS_OK = 200,
    GONE = 410,
    PAUSE_PARTS = 1000
};

enum watch_state { LISTING, WATCHING, PAUSING };

struct watch {
    struct watch_options options;
    struct watch_stats stats;
    struct random random;
    struct json_parser *parser; /* Owned. */
    struct net_timer *timer;    /* PAUSING: the pause's end; WATCHING: the next LIST. */
    struct fetch *fetch;        /* Owned; NULL while PAUSING. */
    enum watch_state state;
    bool list_next;    /* After the pause. */
    bool in_trouble;   /* A problem was told, and not its end. */
    bool event_taken;  /* By this WATCH. */
    unsigned failures; /* In a row. */
    unsigned pages;    /* Of this LIST. */
    uint64_t begun_ns; /* The WATCH. */
    uint64_t relist_due_ns;
    struct buf bytes;    /* A page, or what has come of an event. */
    struct buf more;     /* `continue` of the next page; empty: the first. */
    const char *verdict; /* What was wrong with an event; NULL: nothing. */
    char version[WATCH_VERSION_BYTES_MAX];
};

static void begin(struct watch *watch);

/* ---- Asking ---- */

static bool append_escaped(struct buf *out, const char *bytes, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    bool fits = true;
    for (size_t i = 0; i < size && fits; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                     (byte >= '0' && byte <= '9') || (byte != 0 && strchr("-._~", byte) != NULL);
        char escaped[] = {'%', digits[byte >> 4], digits[byte & 0xf]};
        fits = plain ? buf_append(out, &bytes[i], 1) : buf_append(out, escaped, sizeof escaped);
    }
    return fits;
}

static bool append_parameter(struct buf *url, const char *name, const char *value, size_t size)
{
    return size == 0 || (buf_append_text(url, name) && append_escaped(url, value, size));
}

/* How long the WATCH that begins now is to be, in whole seconds. */
static uint64_t draw_time_s(struct watch *watch)
{
    uint64_t time_ns = watch->options.time_ns;
    if (time_ns == 0) {
        time_ns =
            WATCH_TIME_NS + WATCH_TIME_NS / PAUSE_PARTS * random_below(&watch->random, PAUSE_PARTS);
    }
    uint64_t time_s = time_ns / CLOCK_NS_PER_S;
    return time_s > 0 ? time_s : 1;
}

static bool write_url(struct watch *watch, struct buf *url, uint64_t time_s)
{
    const struct watch_options *options = &watch->options;
    bool fits =
        buf_append_text(url, options->access->server) && buf_append_text(url, options->path);
    if (watch->state == WATCHING) {
        fits = fits &&
               buf_printf(url, "?watch=1&allowWatchBookmarks=true&timeoutSeconds=%llu",
                          (unsigned long long)time_s) &&
               append_parameter(url, "&resourceVersion=", watch->version, strlen(watch->version));
    } else {
        fits = fits && buf_printf(url, "?limit=%d", WATCH_PAGE_OBJECTS) &&
               append_parameter(url, "&continue=", watch->more.data, watch->more.size);
    }
    return fits &&
           append_parameter(url, "&labelSelector=", options->selector, strlen(options->selector)) &&
           buf_append(url, "", 1);
}

/* ---- Pausing ---- */

static void pause_begin(struct watch *watch, uint64_t pause_ns)
{
    watch->state = PAUSING;
    net_timer_start(watch->timer, pause_ns);
}

/* What failed, or its answer, is told; after a pause it goes on. */
static void fail(struct watch *watch, const char *problem)
{
    watch->stats.failures++;
    unsigned doublings = watch->failures < DOUBLINGS_MAX ? watch->failures : DOUBLINGS_MAX;
    watch->failures++;
    uint64_t pause_ns = watch->options.pause_ns << doublings;
    pause_ns = pause_ns < WATCH_PAUSE_MAX_NS ? pause_ns : WATCH_PAUSE_MAX_NS;
    pause_ns = pause_ns / 2 + pause_ns / PAUSE_PARTS * random_below(&watch->random, PAUSE_PARTS);
    char text[WATCH_PROBLEM_BYTES];
    (void)snprintf(text, sizeof text, "%s cannot be %s: %s; again in %.1f s", watch->options.what,
                   watch->state == LISTING ? "listed" : "watched", problem,
                   (double)pause_ns / (double)CLOCK_NS_PER_S);
    watch->in_trouble = true;
    pause_begin(watch, pause_ns);
    watch->options.on_problem(watch->options.user, text);
}

static void tell_end_of_trouble(struct watch *watch)
{
    if (watch->in_trouble) {
        watch->in_trouble = false;
        watch->options.on_problem(watch->options.user, NULL);
    }
}

/* ---- What it answers ---- */

static bool read_version(struct watch *watch, struct json_value object)
{
    const struct json_parser *parser = watch->parser;
    struct json_value metadata = json_find(parser, object, "metadata");
    struct json_value version = json_find(parser, metadata, "resourceVersion");
    if (json_kind(parser, version) != JSON_STRING) {
        return false;
    }
    struct span text = json_text(parser, version);
    if (text.size == 0 || text.size >= sizeof watch->version ||
        memchr(text.data, '\0', text.size) != NULL) {
        return false;
    }
    memcpy(watch->version, text.data, text.size);
    watch->version[text.size] = '\0';
    return true;
}

/* "it answers 403: pods is forbidden: ...", in `text`, which has room for a problem. */
static const char *take_refusal(struct watch *watch, unsigned status, char *text)
{
    struct span message = {0};
    watch->stats.expired += status == GONE ? 1 : 0;
    if (watch->bytes.size > 0 &&
        json_parse(watch->parser, watch->bytes.data, watch->bytes.size) == JSON_OK) {
        struct json_value said = json_find(watch->parser, json_root(watch->parser), "message");
        if (json_kind(watch->parser, said) == JSON_STRING) {
            message = json_text(watch->parser, said);
        }
    }
    int shown = (int)(message.size < MESSAGE_BYTES_MAX ? message.size : MESSAGE_BYTES_MAX);
    (void)snprintf(text, WATCH_PROBLEM_BYTES, "it answers %u%s%.*s", status, shown > 0 ? ": " : "",
                   shown, shown > 0 ? message.data : "");
    return text;
}

/* A decimal number of at most 19 digits; false: versions may be any text. */
static bool version_number(const char *text, uint64_t *out)
{
    enum { DIGITS_MAX = 19 };
    size_t size = strlen(text);
    *out = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        *out = *out * 10 + (uint64_t)(text[i] - '0');
        if (i >= DIGITS_MAX) {
            return false;
        }
    }
    return size > 0;
}

enum order { IN_ORDER, REPEATED, OUT_OF_ORDER };

/* Versions only ever go up within a WATCH. */
static enum order order_of(const char *before, const char *now)
{
    uint64_t before_number = 0;
    uint64_t now_number = 0;
    if (!version_number(before, &before_number) || !version_number(now, &now_number) ||
        now_number > before_number) {
        return IN_ORDER;
    }
    return now_number == before_number ? REPEATED : OUT_OF_ORDER;
}

/* NULL: taken. Else what is wrong with it. */
static const char *take_change(struct watch *watch, enum watch_change change,
                               struct json_value object)
{
    char before[WATCH_VERSION_BYTES_MAX];
    memcpy(before, watch->version, sizeof before);
    if (!read_version(watch, object)) {
        return "an event has no version";
    }
    switch (order_of(before, watch->version)) {
    case REPEATED:
        return NULL;
    case OUT_OF_ORDER:
        return "its events are out of order";
    case IN_ORDER:
    default:
        break;
    }
    watch->stats.events++;
    watch->options.on_object(watch->options.user, change, watch->parser, object);
    return NULL;
}

static const char *take_error(struct watch *watch, struct json_value status)
{
    int64_t code = 0;
    (void)json_read_int(watch->parser, json_find(watch->parser, status, "code"), &code);
    if (code == GONE) {
        watch->stats.expired++;
        return "its version is too old";
    }
    return "it tells an error";
}

static const char *take_event(struct watch *watch, struct span line)
{
    static const struct {
        const char *type;
        enum watch_change change;
    } types[] = {{"ADDED", WATCH_ADDED}, {"MODIFIED", WATCH_MODIFIED}, {"DELETED", WATCH_DELETED}};
    const struct json_parser *parser = watch->parser;
    if (json_parse(watch->parser, line.data, line.size) != JSON_OK) {
        return "an event is not JSON";
    }
    struct json_value type = json_find(parser, json_root(parser), "type");
    struct json_value object = json_find(parser, json_root(parser), "object");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (json_is_text(parser, type, types[i].type)) {
            return take_change(watch, types[i].change, object);
        }
    }
    if (json_is_text(parser, type, "BOOKMARK")) {
        return read_version(watch, object) ? NULL : "a bookmark has no version";
    }
    return json_is_text(parser, type, "ERROR") ? take_error(watch, object)
                                               : "an event is of an unknown type";
}

/* Cuts lines off what has come. False: there is something wrong with one. */
static bool take_lines(struct watch *watch, const char *bytes, size_t size)
{
    while (size > 0) {
        const char *newline = memchr(bytes, '\n', size);
        size_t part = newline == NULL ? size : (size_t)(newline - bytes);
        if (!buf_append(&watch->bytes, bytes, part)) {
            watch->verdict = "an event is too long";
            return false;
        }
        if (newline == NULL) {
            return true;
        }
        struct span line = {.data = watch->bytes.data, .size = watch->bytes.size};
        if (line.size > 0) {
            watch->verdict = take_event(watch, line);
        }
        watch->bytes.size = 0;
        if (watch->verdict != NULL) {
            return false;
        }
        watch->stats.heard_ns = net_now_ns();
        watch->event_taken = true;
        watch->failures = 0;
        bytes = newline + 1;
        size -= part + 1;
    }
    return true;
}

static void on_status(void *user, unsigned status)
{
    struct watch *watch = user;
    if (watch->state == WATCHING && status == STATUS_OK) {
        watch->stats.heard_ns = net_now_ns();
        tell_end_of_trouble(watch);
    }
}

static bool on_bytes(void *user, const char *bytes, size_t size)
{
    struct watch *watch = user;
    if (watch->state == WATCHING && fetch_status(watch->fetch) == STATUS_OK) {
        return take_lines(watch, bytes, size);
    }
    return buf_append(&watch->bytes, bytes, size);
}

/* ---- LIST ---- */

/* NULL: taken. Else what is wrong with it. */
static const char *take_page(struct watch *watch)
{
    struct json_parser *parser = watch->parser;
    if (json_parse(parser, watch->bytes.data, watch->bytes.size) != JSON_OK) {
        return "its answer is not JSON";
    }
    struct json_value root = json_root(parser);
    struct json_value items = json_find(parser, root, "items");
    enum json_kind kind = json_kind(parser, items);
    if ((kind != JSON_ARRAY && kind != JSON_NULL) || !read_version(watch, root)) {
        return "its answer is no list";
    }
    struct json_cursor cursor = json_first(parser, items);
    struct json_value item;
    while (json_next_element(parser, &cursor, &item)) {
        watch->options.on_object(watch->options.user, WATCH_LISTED, parser, item);
    }
    struct json_value more = json_find(parser, json_find(parser, root, "metadata"), "continue");
    watch->more.size = 0;
    if (json_kind(parser, more) == JSON_STRING) {
        struct span text = json_text(parser, more);
        if (!buf_append(&watch->more, text.data, text.size)) {
            return "its answer has too long a \"continue\"";
        }
    }
    return NULL;
}

static void end_list(struct watch *watch, unsigned status, const char *error)
{
    char text[WATCH_PROBLEM_BYTES];
    watch->list_next = true;
    if (error == NULL && status != STATUS_OK) {
        error = take_refusal(watch, status, text);
    }
    if (error == NULL) {
        error = take_page(watch);
    }
    if (error == NULL && watch->more.size > 0 && ++watch->pages >= WATCH_PAGES_MAX) {
        error = "its list has no end";
    }
    buf_fini(&watch->bytes);
    json_parser_release(watch->parser);
    if (error != NULL) {
        watch->more.size = 0;
        fail(watch, error);
        return;
    }
    uint64_t now_ns = net_now_ns();
    watch->stats.heard_ns = now_ns;
    if (watch->more.size == 0) {
        watch->stats.lists++;
        watch->list_next = false;
        watch->relist_due_ns = now_ns + watch->options.relist_ns;
        tell_end_of_trouble(watch);
        watch->options.on_listed(watch->options.user);
    }
    begin(watch);
}

/* ---- WATCH ---- */

/* Why it ended; NULL: as every WATCH ends. `text` has room for a reason. */
static const char *judge_watch(struct watch *watch, unsigned status, const char *error, char *text)
{
    bool lived = watch->event_taken || net_now_ns() - watch->begun_ns >= WATCH_PROVEN_NS;
    if (watch->verdict != NULL) {
        return watch->verdict;
    }
    if (status != STATUS_OK && status != 0) {
        return take_refusal(watch, status, text);
    }
    if (status == STATUS_OK && lived) { /* However it ended: a cut is nothing special. */
        watch->failures = 0;
        return NULL;
    }
    return error != NULL ? error : "it ends at once";
}

static void end_watch(struct watch *watch, unsigned status, const char *error)
{
    char text[WATCH_PROBLEM_BYTES];
    watch->list_next = watch->verdict != NULL || (status != STATUS_OK && status != 0);
    error = judge_watch(watch, status, error, text);
    buf_fini(&watch->bytes);
    json_parser_release(watch->parser);
    if (error != NULL) {
        fail(watch, error);
        return;
    }
    begin(watch);
}

/* ---- Turning ---- */

static void on_done(void *user, unsigned status, const char *error)
{
    struct watch *watch = user;
    watch->fetch = NULL;
    if (watch->state == LISTING) {
        end_list(watch, status, error);
    } else {
        end_watch(watch, status, error);
    }
}

/* Begins the question of the state. False: `why` says why it cannot. */
static bool ask(struct watch *watch, struct buf *why)
{
    const struct watch_options *options = &watch->options;
    struct buf url;
    struct buf header;
    buf_init(&url, options->mem, WATCH_URL_BYTES_MAX);
    buf_init(&header, options->mem, ACCESS_TOKEN_BYTES_MAX);
    uint64_t time_s = draw_time_s(watch);
    bool is_watch = watch->state == WATCHING;
    bool allowed = access_authorize(options->access, &header, why);
    if (allowed && write_url(watch, &url, time_s)) {
        const char *const headers[] = {"Accept: application/json",
                                       header.size > 0 ? header.data : NULL, NULL};
        struct fetch_options fetch = {
            .url = url.data,
            .headers = headers,
            .timeout_ns = is_watch ? time_s * CLOCK_NS_PER_S + WATCH_GRACE_NS : WATCH_LIST_NS,
            .connect_timeout_ns = WATCH_CONNECT_NS,
            .head_bytes_max = WATCH_HEAD_BYTES_MAX,
            .body_bytes_max = is_watch ? SIZE_MAX : WATCH_PAGE_BYTES_MAX,
            .on_status = on_status,
            .on_bytes = on_bytes,
            .on_done = on_done,
            .user = watch};
        access_secure(options->access, &fetch);
        watch->fetch = fetch_begin(options->fetcher, &fetch);
    }
    if (header.size > 0) {
        explicit_bzero(header.data, header.size);
    }
    buf_fini(&header);
    buf_fini(&url);
    if (allowed && watch->fetch == NULL) {
        (void)buf_append_text(why, "the router is out of memory");
    }
    return watch->fetch != NULL;
}

static void begin(struct watch *watch)
{
    uint64_t now_ns = net_now_ns();
    watch->verdict = NULL;
    watch->event_taken = false;
    watch->state = watch->list_next || now_ns >= watch->relist_due_ns ? LISTING : WATCHING;
    watch->bytes.size_max = watch->state == LISTING ? WATCH_PAGE_BYTES_MAX : WATCH_EVENT_BYTES_MAX;
    if (watch->state == WATCHING) {
        watch->begun_ns = now_ns;
        watch->stats.watches++;
        net_timer_start(watch->timer, watch->relist_due_ns - now_ns);
    } else {
        net_timer_stop(watch->timer);
    }
    if (watch->state == LISTING && watch->more.size == 0) {
        watch->pages = 0;
        watch->options.on_begin(watch->options.user);
    }
    struct buf why;
    buf_init(&why, watch->options.mem, WATCH_PROBLEM_BYTES);
    if (!ask(watch, &why)) {
        bool fits = buf_append(&why, "", 1);
        fail(watch, fits && why.size > 1 ? why.data : "the router is out of memory");
    }
    buf_fini(&why);
}

static void on_timer(void *user)
{
    struct watch *watch = user;
    if (watch->state == WATCHING) { /* The next LIST is due. */
        fetch_cancel(watch->fetch);
        watch->fetch = NULL;
        buf_fini(&watch->bytes);
        watch->list_next = true;
    }
    begin(watch);
}

/* ---- Life ---- */

struct watch *watch_new(const struct watch_options *options)
{
    REQUIRE(options->relist_ns > 0 && options->pause_ns > 0);
    struct watch *watch = mem_alloc_zero(options->mem, sizeof *watch);
    if (watch == NULL) {
        return NULL;
    }
    watch->options = *options;
    watch->random = (struct random){.state = options->seed};
    watch->list_next = true;
    buf_init(&watch->bytes, options->mem, WATCH_PAGE_BYTES_MAX);
    buf_init(&watch->more, options->mem, WATCH_URL_BYTES_MAX / 4);
    watch->parser = json_parser_new(options->mem);
    watch->timer = net_timer_new(options->loop, on_timer, watch);
    if (watch->parser == NULL || watch->timer == NULL) {
        watch_free(watch);
        return NULL;
    }
    pause_begin(watch, 0); /* Nothing calls back before the loop runs. */
    return watch;
}

void watch_free(struct watch *watch)
{
    if (watch == NULL) {
        return;
    }
    if (watch->fetch != NULL) {
        fetch_cancel(watch->fetch);
    }
    net_timer_close(watch->timer);
    json_parser_free(watch->parser);
    buf_fini(&watch->bytes);
    buf_fini(&watch->more);
    mem_free(watch->options.mem, watch, sizeof *watch);
}

const struct watch_stats *watch_stats(const struct watch *watch)
{
    return &watch->stats;
}
