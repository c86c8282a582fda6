/*
 * `lookup`: which engines hold how much of a request's prompt. The key is made as the router makes
 * it: from the request's body, or from a prompt's text as a completion request would carry it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "dump/dump.h"
#include "prompt/prompt.h"

enum {
    INPUT_BYTES_MAX = 1 << 30,
    READ_BYTES = 1 << 20,
    NAMESPACE_BYTES_MAX = 64 << 20,
    ENGINES_MAX = 4096, /* Told of; there are at most 64 a node. */
    NODES_MAX = HASHTRIE_CHUNK_COUNT_MAX,
};

/* An engine, and how much of the prompt it holds. */
struct held {
    uint32_t id;
    uint32_t chunk_count;
    uint64_t used_unix_s; /* Of the deepest node. */
};

struct lookup {
    struct dump *dump;
    struct dump_names names;
    struct hashtrie_reader_info info;
    struct buf body;
    uint64_t namespace_hash;
    uint64_t *hashes; /* Owned: hash_capacity. */
    size_t hash_capacity;
    size_t hash_count;
    uint64_t prompt_bytes;
    size_t known;     /* Chunks that the store has. */
    size_t all_known; /* Chunks that count as held by all. */
    uint64_t node_count;
    struct held held[ENGINES_MAX];
    size_t held_count;
    uint32_t run[HASHTRIE_READER_RUN_MAX];
};

/* ---- Input ---- */

static bool read_all(struct lookup *lookup, int fd)
{
    for (;;) {
        if (!buf_reserve(&lookup->body, READ_BYTES)) {
            errno = EFBIG;
            return false;
        }
        ssize_t got = read(fd, lookup->body.data + lookup->body.size, READ_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0;
        }
        lookup->body.size += (size_t)got;
    }
}

static bool read_input(struct lookup *lookup)
{
    const char *path = lookup->dump->arguments[1];
    bool standard = path == NULL || strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && read_all(lookup, fd);
    if (!good) {
        (void)fprintf(stderr, "hashtrie-dump: cannot read %s: %s\n",
                      standard ? "standard input" : path, strerror(errno));
    }
    if (!standard && fd >= 0) {
        (void)close(fd); /* Only read. */
    }
    return good;
}

/* The prompt's text becomes the body of a completion request. */
static bool wrap_prompt(struct lookup *lookup)
{
    struct buf body;
    struct json_writer writer;
    buf_init(&body, &lookup->dump->mem, INPUT_BYTES_MAX);
    json_writer_init(&writer, &body);
    json_write_object(&writer);
    json_write_key(&writer, "model");
    json_write_text(&writer, lookup->dump->options.model);
    json_write_key(&writer, "prompt");
    json_write_string(&writer, (struct span){lookup->body.data, lookup->body.size});
    json_write_end(&writer);
    buf_fini(&lookup->body);
    lookup->body = body;
    return json_writer_ok(&writer);
}

/* ---- The key ---- */

/* What an alias stands for, from ALIAS:MODEL,..; else the name itself. */
static struct span resolve(const char *aliases, struct span name)
{
    struct span found = name;
    for (const char *at = aliases; at != NULL && *at != '\0';) {
        size_t size = strcspn(at, ",");
        const char *colon = memchr(at, ':', size);
        if (colon != NULL && span_equal((struct span){at, (size_t)(colon - at)}, name)) {
            found = (struct span){colon + 1, size - (size_t)(colon + 1 - at)};
        }
        at += size + (at[size] == ',');
    }
    return found;
}

static void sink_buf(void *user, const void *bytes, size_t size)
{
    struct buf *out = user;
    if (!buf_append(out, bytes, size)) {
        out->size_max = 0; /* Remembered: nothing fits any more. */
    }
}

static void sink_hasher(void *user, const void *bytes, size_t size)
{
    hashtrie_hasher_update(user, bytes, size);
}

static bool hash_namespace(struct lookup *lookup, const struct prompt *prompt)
{
    const struct dump_options *options = &lookup->dump->options;
    struct span model = options->model == NULL ? prompt->model : span_of(options->model);
    struct buf bytes;
    buf_init(&bytes, &lookup->dump->mem, NAMESPACE_BYTES_MAX);
    bool good =
        prompt_namespace(prompt, resolve(options->aliases, model), sink_buf, &bytes) == PROMPT_OK &&
        bytes.size_max > 0;
    if (good) {
        lookup->namespace_hash = hashtrie_hash_namespace(bytes.data, bytes.size);
    }
    buf_fini(&bytes);
    return good;
}

static void count_bytes(void *user, const void *bytes, size_t size)
{
    uint64_t *sum = user;
    (void)bytes;
    *sum += size;
}

/* Twice over the prompt: how long the key is, then its hashes. */
static bool hash_key(struct lookup *lookup, const struct prompt *prompt)
{
    uint64_t bytes = 0;
    size_t chunk_size = (size_t)lookup->info.chunk_size;
    if (prompt_key(prompt, count_bytes, &bytes) != PROMPT_OK) {
        return false;
    }
    uint64_t count = bytes / chunk_size;
    lookup->hash_capacity =
        (size_t)(count < HASHTRIE_CHUNK_COUNT_MAX ? count : HASHTRIE_CHUNK_COUNT_MAX);
    lookup->hashes =
        mem_alloc(&lookup->dump->mem, (lookup->hash_capacity + 1) * sizeof *lookup->hashes);
    if (lookup->hashes == NULL) {
        return false;
    }
    struct hashtrie_hasher hasher;
    hashtrie_hasher_init(&hasher, lookup->namespace_hash, chunk_size, lookup->hashes,
                         lookup->hash_capacity);
    bool good = prompt_key(prompt, sink_hasher, &hasher) == PROMPT_OK;
    lookup->hash_count = hasher.count;
    lookup->prompt_bytes = hasher.bytes;
    return good;
}

static const char *problem_of(enum prompt_status status)
{
    switch (status) {
    case PROMPT_NOT_JSON:
        return "the input is not JSON; for a prompt's text give --prompt";
    case PROMPT_NOT_OBJECT:
        return "the input is no JSON object, as a request's body is; for text give --prompt";
    case PROMPT_NO_MODEL:
        return "the request names no model";
    case PROMPT_TOO_DEEP:
        return "the request is nested too deeply";
    case PROMPT_OK:
    case PROMPT_NO_MEMORY:
        break;
    }
    return "out of memory";
}

static bool make_key(struct lookup *lookup)
{
    struct prompt_reader *reader = prompt_reader_new(&lookup->dump->mem);
    struct prompt prompt = {0};
    enum prompt_status status = PROMPT_NO_MEMORY;
    bool has_prompt = true;
    if (reader != NULL) {
        status = prompt_read(reader, lookup->body.data, lookup->body.size, &prompt);
    }
    if (status == PROMPT_OK) {
        has_prompt = prompt.has_prompt;
        if (!hash_namespace(lookup, &prompt) || (has_prompt && !hash_key(lookup, &prompt))) {
            status = PROMPT_NO_MEMORY;
        }
    }
    if (reader != NULL) {
        prompt_release(reader);
    }
    prompt_reader_free(reader);
    if (status != PROMPT_OK || !has_prompt) {
        (void)fprintf(stderr, "hashtrie-dump: %s\n",
                      status != PROMPT_OK ? problem_of(status) : "the request has no prompt");
        return false;
    }
    return true;
}

/* ---- The walk ---- */

static void note_held(struct lookup *lookup, const struct hashtrie_reader_holder *holder,
                      uint32_t chunk_count)
{
    size_t i = 0;
    while (i < lookup->held_count && lookup->held[i].id != holder->endpoint_id) {
        i++;
    }
    if (i == ENGINES_MAX) {
        return;
    }
    lookup->held_count += i == lookup->held_count;
    lookup->held[i] = (struct held){.id = holder->endpoint_id,
                                    .chunk_count = chunk_count,
                                    .used_unix_s = holder->last_used_unix_s};
}

/* Chunks of the node's run that are the prompt's, too. */
static uint32_t common_length(const struct lookup *lookup, const struct hashtrie_reader_node *node,
                              uint32_t length)
{
    size_t left = lookup->hash_count - node->depth;
    if (length <= left && lookup->hashes[node->depth + length - 1] == node->end) {
        return length;
    }
    uint32_t i = 0;
    while (i < length && i < left && lookup->run[i] == (uint32_t)lookup->hashes[node->depth + i]) {
        i++;
    }
    return i == length ? 0 : i; /* The whole run by fingerprints but not by hash: another prompt. */
}

static void print_node(const struct lookup *lookup, const struct hashtrie_reader_node *node,
                       uint32_t matched)
{
    const struct dump *dump = lookup->dump;
    char age[DUMP_TEXT_BYTES];
    dump_format_age(age, dump->now_s, node->used_unix_s);
    (void)printf("%0*" PRIx64 "  %8" PRIu32 "  %6" PRIu32 "  %6" PRIu32 "  %6s  ",
                 (int)DUMP_HASH_DIGITS, dump_hash_shown(node->end), node->depth, matched,
                 node->chunk_count, age);
    dump_print_holders(dump, &lookup->names, node);
    (void)putchar('\n'); /* Errors are seen by the last fflush(). */
}

static void tell_node(struct lookup *lookup, const struct hashtrie_reader_node *node,
                      uint32_t matched)
{
    struct dump *dump = lookup->dump;
    lookup->node_count++;
    if (!dump->options.json) {
        print_node(lookup, node, matched);
        return;
    }
    json_write_object(&dump->json);
    dump_json_number(dump, "matched", matched);
    dump_json_node(dump, &lookup->names, node);
    json_write_end(&dump->json);
    dump_json_flush(dump);
}

/* One node on the way; false: here it ends. */
static bool step(struct lookup *lookup, enum hashtrie_status *status)
{
    struct hashtrie_reader *reader = lookup->dump->reader;
    size_t depth = lookup->known;
    uint64_t prefix = depth == 0 ? lookup->namespace_hash : lookup->hashes[depth - 1];
    uint32_t fp = (uint32_t)lookup->hashes[depth];
    struct hashtrie_reader_node node;
    uint32_t length = 0;
    *status = hashtrie_reader_find(reader, prefix, fp, &node);
    if (*status == HASHTRIE_OK) {
        *status = hashtrie_reader_run(reader, prefix, fp, lookup->run, &length);
    }
    if (*status != HASHTRIE_OK || node.depth != depth || length != node.chunk_count) {
        return false; /* The last two: it was split meanwhile, or is damaged. */
    }
    uint32_t matched = common_length(lookup, &node, length);
    if (matched == 0) {
        return false;
    }
    lookup->known += matched;
    tell_node(lookup, &node, matched);
    for (uint32_t i = 0; i < node.holder_count; i++) {
        note_held(lookup, &node.holders[i], (uint32_t)lookup->known);
    }
    lookup->all_known = node.held_by_all ? lookup->known : lookup->all_known;
    return matched == length;
}

static enum hashtrie_status walk(struct lookup *lookup)
{
    enum hashtrie_status status = HASHTRIE_OK;
    bool more = lookup->hash_count > 0;
    while (more) {
        more = step(lookup, &status) && lookup->known < lookup->hash_count;
    }
    return status == HASHTRIE_ENOENT ? HASHTRIE_OK : status;
}

/* Most first. */
static void sort_held(struct lookup *lookup)
{
    for (size_t i = 1; i < lookup->held_count; i++) {
        struct held held = lookup->held[i];
        size_t at = i;
        while (at > 0 && lookup->held[at - 1].chunk_count < held.chunk_count) {
            lookup->held[at] = lookup->held[at - 1];
            at--;
        }
        lookup->held[at] = held;
    }
}

/* ---- What came of it ---- */

static double share(const struct lookup *lookup, uint64_t chunks)
{
    return lookup->hash_count == 0 ? 0 : 100.0 * (double)chunks / (double)lookup->hash_count;
}

static void print_result(const struct lookup *lookup)
{
    const struct dump *dump = lookup->dump;
    char bytes[DUMP_TEXT_BYTES];
    dump_format_bytes(bytes, lookup->prompt_bytes);
    (void)printf("%s%s: %zu whole chunks of %" PRIu64 " bytes, of which %zu (%.0f %%) are known\n",
                 lookup->node_count > 0 ? "\n" : "", bytes, lookup->hash_count,
                 lookup->info.chunk_size, lookup->known, share(lookup, lookup->known));
    if (lookup->held_count > 0) {
        (void)printf("\n%s%8s  %10s  %6s  %6s  %s%s\n", dump_style(dump, DUMP_BOLD), "CHUNKS",
                     "TEXT", "SHARE", "USED", "ENGINE", dump_style(dump, DUMP_PLAIN));
    }
    for (size_t i = 0; i < lookup->held_count; i++) {
        const struct held *held = &lookup->held[i];
        char age[DUMP_TEXT_BYTES];
        dump_format_bytes(bytes, held->chunk_count * lookup->info.chunk_size);
        dump_format_age(age, dump->now_s, held->used_unix_s);
        (void)printf("%8" PRIu32 "  %10s  %4.0f %%  %6s  ", held->chunk_count, bytes,
                     share(lookup, held->chunk_count), age);
        dump_print_name(&lookup->names, held->id);
        (void)putchar('\n');
    }
    if (lookup->all_known > 0) {
        (void)printf("the first %zu chunks count as held by all engines\n", lookup->all_known);
    }
}

static enum dump_exit json_result(struct lookup *lookup)
{
    struct dump *dump = lookup->dump;
    json_write_end(&dump->json); /* Of the nodes. */
    dump_json_hash(dump, "namespace", lookup->namespace_hash);
    dump_json_number(dump, "prompt_bytes", lookup->prompt_bytes);
    dump_json_number(dump, "chunk_size", lookup->info.chunk_size);
    dump_json_number(dump, "chunks", lookup->hash_count);
    dump_json_number(dump, "known_chunks", lookup->known);
    dump_json_number(dump, "held_by_all_chunks", lookup->all_known);
    json_write_key(&dump->json, "engines");
    json_write_array(&dump->json);
    for (size_t i = 0; i < lookup->held_count; i++) {
        const struct held *held = &lookup->held[i];
        json_write_object(&dump->json);
        dump_json_number(dump, "id", held->id);
        dump_json_text(dump, "url", dump_names_find(&lookup->names, held->id));
        dump_json_number(dump, "chunks", held->chunk_count);
        dump_json_number(dump, "used", held->used_unix_s);
        json_write_end(&dump->json);
    }
    json_write_end(&dump->json);
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

static enum dump_exit show(struct lookup *lookup)
{
    struct dump *dump = lookup->dump;
    if (dump->options.json) {
        json_write_object(&dump->json);
        json_write_key(&dump->json, "nodes");
        json_write_array(&dump->json);
    } else {
        (void)printf("%s%-*s  %8s  %6s  %6s  %6s  %s%s\n", dump_style(dump, DUMP_BOLD),
                     (int)DUMP_HASH_DIGITS, "NODE", "DEPTH", "MATCH", "CHUNKS", "USED", "HELD BY",
                     dump_style(dump, DUMP_PLAIN));
    }
    enum hashtrie_status status = walk(lookup);
    if (status != HASHTRIE_OK && status != HASHTRIE_ECORRUPT) {
        return dump_cannot(dump, status);
    }
    if (status == HASHTRIE_ECORRUPT) {
        dump_warn_damaged();
    }
    sort_held(lookup);
    enum dump_exit result = DUMP_OK;
    if (dump->options.json) {
        result = json_result(lookup);
    } else {
        print_result(lookup);
    }
    return result == DUMP_OK && lookup->known == 0 ? DUMP_FAULTS : result;
}

static enum dump_exit run(struct lookup *lookup)
{
    struct dump *dump = lookup->dump;
    enum hashtrie_status status = hashtrie_reader_get_info(dump->reader, &lookup->info);
    if (status == HASHTRIE_OK && (lookup->info.chunk_size < HASHTRIE_CHUNK_SIZE_MIN ||
                                  lookup->info.chunk_size > HASHTRIE_CHUNK_SIZE_MAX)) {
        status = HASHTRIE_ECORRUPT;
    }
    if (status == HASHTRIE_OK) {
        status = dump_names_read(&lookup->names, &dump->mem, dump->reader);
    }
    if (status != HASHTRIE_OK) {
        return dump_cannot(dump, status);
    }
    if (!read_input(lookup)) {
        return DUMP_CANNOT;
    }
    if (dump->options.prompt && !wrap_prompt(lookup)) {
        return dump_cannot_do("take the prompt", HASHTRIE_ENOMEM);
    }
    return make_key(lookup) ? show(lookup) : DUMP_CANNOT;
}

enum dump_exit dump_lookup(struct dump *dump)
{
    if (dump->options.prompt && dump->options.model == NULL) {
        return dump_usage("lookup --prompt needs --model: prompts are kept apart by model");
    }
    struct lookup *lookup = mem_alloc_zero(&dump->mem, sizeof *lookup);
    if (lookup == NULL) {
        return dump_cannot(dump, HASHTRIE_ENOMEM);
    }
    lookup->dump = dump;
    lookup->names.mem = &dump->mem;
    buf_init(&lookup->body, &dump->mem, INPUT_BYTES_MAX);
    enum dump_exit result = run(lookup);
    buf_fini(&lookup->body);
    if (lookup->hashes != NULL) {
        mem_free(&dump->mem, lookup->hashes, (lookup->hash_capacity + 1) * sizeof *lookup->hashes);
    }
    dump_names_free(&lookup->names);
    mem_free(&dump->mem, lookup, sizeof *lookup);
    return result;
}
