/*
 * What a request is about: its model, and the hashes of its prompt. JSON and hashing, outside of
 * any lock.
 */
#include "base/check.h"
#include "json/json.h"
#include "proxy/conn.h"
#include "proxy/disagg.h"
#include "proxy/hints.h"
#include "proxy/models.h"
#include "proxy/paths.h"
#include "proxy/sleep.h"

enum {
    /* Key bytes come from body bytes; a list of one-digit token ids doubles them, empty messages
     * may do worse. What passes this is not hashed. */
    KEY_BYTES_PER_BODY_BYTE = 4,
    HASHES_SPARE = 64,
    HASHES_KEPT = 128 * 1024,          /* A scratch larger than this is given back. */
    NAMESPACE_BYTES_MAX = 1024 * 1024, /* Model, adapter, salt. */
    ALIAS_GROWTH_MAX = 64 * 1024,      /* A body may grow so much by the real model's name. */
};

static void sink_hasher(void *user, const void *bytes, size_t size)
{
    hashtrie_hasher_update(user, bytes, size);
}

static void sink_buf(void *user, const void *bytes, size_t size)
{
    struct buf *out = user;
    if (!buf_append(out, bytes, size)) {
        out->size_max = 0; /* Remembered: nothing fits any more. */
    }
}

static bool hash_namespace(struct request *request, const struct prompt *prompt, struct span model)
{
    struct buf bytes;
    buf_init(&bytes, &request->worker->mem, NAMESPACE_BYTES_MAX);
    enum prompt_status status = prompt_namespace(prompt, model, sink_buf, &bytes);
    bool complete = status == PROMPT_OK && bytes.size_max > 0;
    if (complete) {
        request->key.namespace_hash = hashtrie_hash_namespace(bytes.data, bytes.size);
    }
    buf_fini(&bytes);
    return complete;
}

/* Room for `count` hashes in the worker's scratch. */
static bool reserve_hashes(struct worker *worker, size_t count)
{
    if (worker->hash_capacity >= count) {
        return true;
    }
    mem_free(&worker->mem, worker->hashes, worker->hash_capacity * sizeof *worker->hashes);
    worker->hash_capacity = 0;
    worker->hashes = mem_alloc(&worker->mem, count * sizeof *worker->hashes);
    if (worker->hashes == NULL) {
        return false;
    }
    worker->hash_capacity = count;
    return true;
}

static void trim_hashes(struct worker *worker)
{
    if (worker->hash_capacity > HASHES_KEPT) {
        mem_free(&worker->mem, worker->hashes, worker->hash_capacity * sizeof *worker->hashes);
        worker->hashes = NULL;
        worker->hash_capacity = 0;
    }
}

static bool hash_key(struct request *request, const struct prompt *prompt)
{
    struct worker *worker = request->worker;
    size_t chunk_size = worker->router->config->chunk_size;
    size_t count_max =
        request->body.size * KEY_BYTES_PER_BODY_BYTE / chunk_size + (size_t)HASHES_SPARE;
    count_max = count_max < HASHTRIE_CHUNK_COUNT_MAX ? count_max : HASHTRIE_CHUNK_COUNT_MAX;
    if (!reserve_hashes(worker, count_max)) {
        return false;
    }
    struct hashtrie_hasher hasher;
    hashtrie_hasher_init(&hasher, request->key.namespace_hash, chunk_size, worker->hashes,
                         count_max);
    if (prompt_key(prompt, sink_hasher, &hasher) != PROMPT_OK) {
        return false;
    }
    request->prompt_bytes = hasher.bytes;
    if (hasher.count == 0) {
        return true;
    }
    uint64_t *hashes = mem_alloc(&worker->mem, hasher.count * sizeof *hashes);
    if (hashes == NULL) {
        return false;
    }
    memcpy(hashes, worker->hashes, hasher.count * sizeof *hashes);
    request->hashes = hashes;
    request->key.hashes = hashes;
    request->key.count = hasher.count;
    return true;
}

/* The body again with `text` in each of the places. */
static bool splice(struct request *request, const struct prompt_place *places, size_t count,
                   struct span text)
{
    struct buf body;
    struct buf *old = &request->body;
    buf_init(&body, &request->worker->mem, old->size_max + (size_t)ALIAS_GROWTH_MAX);
    size_t done = 0;
    bool complete = buf_reserve(&body, old->size);
    for (size_t i = 0; i < count && complete; i++) {
        const struct prompt_place *place = &places[i];
        CHECK(place->offset >= done && place->offset + place->size <= old->size);
        complete = buf_append(&body, old->data + done, place->offset - done) &&
                   buf_append(&body, text.data, text.size);
        done = place->offset + place->size;
    }
    complete = complete && buf_append(&body, old->data + done, old->size - done);
    if (!complete) {
        buf_fini(&body);
        return false;
    }
    buf_fini(old);
    body.size_max = old->size_max > body.size ? old->size_max : body.size;
    *old = body;
    return true;
}

static bool splice_string(struct request *request, const struct prompt *prompt, struct span model)
{
    struct buf text;
    buf_init(&text, &request->worker->mem, ALIAS_GROWTH_MAX);
    bool spliced = json_append_string(&text, model) &&
                   splice(request, prompt->model_places, prompt->model_place_count,
                          (struct span){.data = text.data, .size = text.size});
    buf_fini(&text);
    return spliced;
}

/* The engine gets the priority as the body's last member: of equal names the last counts. */
static bool append_priority(struct request *request)
{
    const struct config *config = request->worker->settings->config;
    if (config->routing != CONFIG_PRIORITY) {
        return true;
    }
    const char *end = memrchr(request->body.data, '}', request->body.size);
    REQUIRE(end != NULL); /* An object has been read. */
    struct prompt_place place = {.offset = (size_t)(end - request->body.data)};
    struct buf text;
    buf_init(&text, &request->worker->mem, ALIAS_GROWTH_MAX);
    bool appended = buf_append_text(&text, ",") &&
                    json_append_string(&text, span_of(config->priority_field)) &&
                    buf_printf(&text, ":%lld", (long long)request->priority) &&
                    splice(request, &place, 1, (struct span){.data = text.data, .size = text.size});
    buf_fini(&text);
    return appended;
}

static void refuse_body(struct request *request, enum prompt_status status)
{
    switch (status) {
    case PROMPT_NOT_OBJECT:
        answer_error(request, 400, "Invalid request: request body must be a JSON object.");
        break;
    case PROMPT_NO_MODEL:
        answer_error(request, 400, "Invalid request: missing 'model' in request body.");
        break;
    case PROMPT_NO_MEMORY:
        answer_error(request, 503, "Out of memory.");
        break;
    case PROMPT_OK:
    case PROMPT_NOT_JSON:
    case PROMPT_TOO_DEEP:
    default:
        answer_error(request, 400, "Invalid request: request body must be valid JSON.");
        break;
    }
}

/* Finds the model in the fleet. False: answered. */
static bool find_model(struct request *request, struct span model)
{
    struct worker *worker = request->worker;
    const struct route_fleet *fleet = worker->router->fleet;
    int found = route_model_find(fleet, model.data, model.size);
    if (found < 0 && models_recall(worker->router)) {
        found = route_model_find(fleet, model.data, model.size);
    }
    if (found < 0 || !route_model_is_served(fleet, (size_t)found)) {
        int any = route_model_find(fleet, "", 0); /* Backends that serve whatever is asked for. */
        found = any >= 0 && (found < 0 || route_model_is_served(fleet, (size_t)any)) ? any : found;
    }
    stats_add(&worker->stats.incoming[found < 0 ? STATS_MODEL_UNKNOWN : (size_t)found], 1);
    if (found < 0) {
        int size = model.size < 256 ? (int)model.size : 256;
        answer_error(request, 404,
                     "Model '%.*s' not found. Available models can be listed at /v1/models.", size,
                     model.data);
        return false;
    }
    request->model = (size_t)found;
    return true;
}

/* With another model's name in it the body has to be read once more. False: answered. */
static bool begin_disagg(struct request *request, const struct prompt *prompt, bool is_alias)
{
    struct prompt again;
    if (is_alias && disagg_is_on(request->worker->router->config)) {
        if (prompt_read(prompt->reader, request->body.data, request->body.size, &again) !=
            PROMPT_OK) {
            answer_error(request, 503, "Out of memory."); /* It could be read before. */
            return false;
        }
        prompt = &again;
    }
    return disagg_begin(request, prompt);
}

static bool take_prompt(struct request *request, const struct prompt *prompt)
{
    bool is_alias = false;
    struct span model =
        settings_canonical_model(request->worker->settings, prompt->model, &is_alias);
    request->stream = prompt->stream;
    request->has_prompt = prompt->has_prompt;
    if (!find_model(request, model)) {
        return false;
    }
    bool hashed = hash_namespace(request, prompt, model) &&
                  (!prompt->has_prompt || hash_key(request, prompt));
    bool spliced = hints_read(request, prompt) &&
                   (!is_alias || splice_string(request, prompt, model)) && append_priority(request);
    if (!spliced) {
        answer_error(request, 503, "Out of memory.");
        return false;
    }
    if (!hashed) {
        request->has_prompt = false; /* Still served, by load. */
    }
    return begin_disagg(request, prompt, is_alias);
}

static bool read_json(struct request *request)
{
    struct worker *worker = request->worker;
    struct prompt prompt;
    enum prompt_status status =
        prompt_read(worker->reader, request->body.data, request->body.size, &prompt);
    bool taken = false;
    if (status == PROMPT_OK && prompt.model.size == 0) {
        status = PROMPT_NO_MODEL;
    }
    if (status == PROMPT_OK) {
        taken = take_prompt(request, &prompt);
    } else if (request->path_kind == PATH_UNKNOWN) {
        answer_text(request, 404, "application/json", span_of("{\"detail\":\"Not Found\"}"));
    } else {
        refuse_body(request, status);
    }
    prompt_release(worker->reader);
    trim_hashes(worker);
    return taken;
}

/* ---- Without JSON: no prompt that could be matched ---- */

static bool read_form(struct request *request, struct span boundary)
{
    struct span body = {.data = request->body.data, .size = request->body.size};
    struct span given = http_multipart_field(body, boundary, "model");
    if (given.size == 0) {
        answer_error(request, 400, "Invalid request: missing 'model' in form data.");
        return false;
    }
    bool is_alias = false;
    struct span model = settings_canonical_model(request->worker->settings, given, &is_alias);
    if (!hints_read(request, NULL)) {
        answer_error(request, 503, "Out of memory.");
        return false;
    }
    struct prompt_place place = {.offset = (size_t)(given.data - body.data), .size = given.size};
    if (!find_model(request, model)) {
        return false;
    }
    if (is_alias && !splice(request, &place, 1, model)) {
        answer_error(request, 503, "Out of memory.");
        return false;
    }
    return true;
}

/* The first model that is served; -1: none is. *alone: it is the only one. */
static int first_model(const struct route_fleet *fleet, bool *alone)
{
    int first = -1;
    size_t count = 0;
    for (size_t i = 0; i < route_model_count(fleet); i++) {
        if (route_model_is_served(fleet, i)) {
            first = first < 0 ? (int)i : first;
            count++;
        }
    }
    *alone = count == 1;
    return first;
}

/* Whatever it is: any engine will do. */
static bool take_first_model(struct request *request)
{
    bool alone = false;
    int first = first_model(request->worker->router->fleet, &alone);
    if (first < 0) {
        answer_error(request, 503, "No engine is known. Please try again later.");
        return false;
    }
    request->model = (size_t)first;
    return true;
}

/* GET: ?model=NAME, which may be left out where there is only one. */
static bool read_query(struct request *request)
{
    const struct route_fleet *fleet = request->worker->router->fleet;
    struct span model = path_parameter(request->target, "model");
    bool alone = false;
    int first = first_model(fleet, &alone);
    if (model.size == 0 && alone) {
        model = span_of(route_model_name(fleet, (size_t)first));
    } else if (model.size == 0) {
        answer_error(request, 400, "Invalid request: missing 'model' in the query.");
        return false;
    }
    bool is_alias = false;
    return find_model(request,
                      settings_canonical_model(request->worker->settings, model, &is_alias));
}

bool request_read_subject(struct request *request)
{
    const struct http_head *head = http_parser_head(request->conn->parser);
    struct span boundary = {0};
    if (request->path_kind == PATH_ANY) {
        return take_first_model(request);
    }
    if (request->path_kind == PATH_SLEEP) {
        return sleep_read(request);
    }
    if (!disagg_is_on(request->worker->router->config)) {
        request->pin = path_parameter(request->target, "id");
    }
    if (span_is(request->method, "GET")) {
        return read_query(request);
    }
    return http_multipart_boundary(http_header(head, "content-type"), &boundary)
               ? read_form(request, boundary)
               : read_json(request);
}
