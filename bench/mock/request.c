#include "bench/mock/request.h"

#include <string.h>

#include "hashtrie/chunk.h"

#include "base/check.h"
#include "bench/load/text.h"
#include "bench/mock/json_in.h"

enum { MODEL_BYTES_MAX = 1024, NAMESPACE_BYTES_MAX = 8192 };

static const char no_memory[] = "The prompt is too long for this engine.";

/* ---- The prompt, as a chat template would render it ---- */

static bool put_raw(struct buf *out, struct json_in value)
{
    return value.at == NULL || buf_append(out, value.at, (size_t)(value.end - value.at));
}

static bool put_part(struct buf *out, struct json_in part)
{
    struct json_in text = json_in_find(part, "text");
    if (json_in_kind(text) == '"') {
        return json_in_text(text, out);
    }
    return buf_append_text(out, "<|media|>") && put_raw(out, part); /* By its URL or its data. */
}

static bool put_content(struct buf *out, struct json_in content)
{
    if (json_in_kind(content) == '"') {
        return json_in_text(content, out);
    }
    if (json_in_kind(content) != '[') {
        return true;
    }
    struct json_in key;
    struct json_in part;
    while (json_in_next(&content, &key, &part)) {
        if (!put_part(out, part)) {
            return false;
        }
    }
    return true;
}

static bool put_message(struct buf *out, struct json_in message)
{
    return buf_append_text(out, "<|im_start|>") &&
           json_in_text(json_in_find(message, "role"), out) && buf_append_text(out, "\n") &&
           put_content(out, json_in_find(message, "content")) &&
           put_raw(out, json_in_find(message, "tool_calls")) &&
           buf_append_text(out, "<|im_end|>\n");
}

static bool put_chat(struct buf *out, struct json_in root)
{
    struct json_in tools = json_in_find(root, "tools");
    if (json_in_kind(tools) == '[' &&
        !(buf_append_text(out, "<|tools|>") && put_raw(out, tools) && buf_append_text(out, "\n"))) {
        return false;
    }
    struct json_in messages = json_in_find(root, "messages");
    struct json_in key;
    struct json_in message;
    while (json_in_next(&messages, &key, &message)) {
        if (!put_message(out, message)) {
            return false;
        }
    }
    return buf_append_text(out, "<|im_start|>assistant\n");
}

/* A token id takes as many bytes as a token of text. */
static bool put_token(struct buf *out, uint64_t token)
{
    unsigned char bytes[TEXT_TOKEN_BYTES];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)(token >> 8 * i);
    }
    return buf_append(out, bytes, sizeof bytes);
}

/* A string, a list of strings, of token ids, or of lists of token ids (two levels, no more). */
/* NOLINTNEXTLINE(misc-no-recursion): bounded by `levels`. */
static bool put_prompt(struct buf *out, struct json_in prompt, int levels)
{
    if (json_in_kind(prompt) == '"') {
        return json_in_text(prompt, out);
    }
    uint64_t token = 0;
    if (json_in_count(prompt, &token)) {
        return put_token(out, token);
    }
    struct json_in key;
    struct json_in item;
    while (levels > 0 && json_in_next(&prompt, &key, &item)) {
        if (!put_prompt(out, item, levels - 1)) {
            return false;
        }
    }
    return true;
}

/* ---- The rest of the body ---- */

static const char *read_fields(struct request_body *request, struct json_in root,
                               uint64_t tokens_default)
{
    if (json_in_kind(root) != '{') {
        return "The request body is not a JSON object.";
    }
    struct json_in model = json_in_find(root, "model");
    if (json_in_kind(model) != '"' || !json_in_text(model, &request->model)) {
        return "The field 'model' has to be a string.";
    }
    struct json_in prompt = json_in_find(root, request->is_chat ? "messages" : "prompt");
    char kind = json_in_kind(prompt);
    if (request->is_chat ? kind != '[' : kind != '[' && kind != '"') {
        return request->is_chat ? "The field 'messages' has to be a list."
                                : "The field 'prompt' has to be a string or a list.";
    }
    request->stream = json_in_is_true(json_in_find(root, "stream"));
    request->include_usage =
        json_in_is_true(json_in_find(json_in_find(root, "stream_options"), "include_usage"));
    struct json_in wanted = json_in_find(root, "max_completion_tokens");
    if (wanted.at == NULL || json_in_kind(wanted) == 'n') {
        wanted = json_in_find(root, "max_tokens");
    }
    request->output_tokens = tokens_default;
    if (wanted.at != NULL && json_in_kind(wanted) != 'n') {
        request->limited = true;
        if (!json_in_count(wanted, &request->output_tokens) || request->output_tokens == 0 ||
            request->output_tokens > REQUEST_TOKENS_MAX) {
            return "max_tokens has to be a whole number from 1 to 1000000.";
        }
    }
    return NULL;
}

uint32_t request_body_block(const struct request_body *request, size_t index)
{
    return (uint32_t)request->hashes[index] >> 1; /* As a positive int. */
}

/* NULL: `params` are what the engine with the cache said. The blocks tell that it is this prompt's.
 */
static const char *check_fetch(const struct request_body *request, struct json_in params)
{
    struct json_in engine = json_in_find(params, "remote_engine_id");
    struct json_in host = json_in_find(params, "remote_host");
    struct json_in blocks = json_in_find(params, "remote_block_ids");
    uint64_t port = 0;
    if (json_in_kind(engine) != '"' || json_in_kind(host) != '"' || json_in_kind(blocks) != '[' ||
        !json_in_count(json_in_find(params, "remote_port"), &port)) {
        return "kv_transfer_params do not say where the KV cache is.";
    }
    size_t count = 0;
    struct json_in key;
    struct json_in block;
    while (json_in_next(&blocks, &key, &block)) {
        uint64_t id = 0;
        if (count >= request->prompt_block_count || !json_in_count(block, &id) ||
            id != request_body_block(request, count++)) {
            return "The blocks of kv_transfer_params are those of another prompt.";
        }
    }
    return count == request->prompt_block_count ? NULL
                                                : "Blocks are missing in kv_transfer_params.";
}

/* After the hashes. */
static const char *read_transfer(struct request_body *request, struct json_in root)
{
    struct json_in params = json_in_find(root, "kv_transfer_params");
    if (json_in_is_true(json_in_find(params, "do_remote_prefill"))) {
        request->transfer = REQUEST_COMES;
        return check_fetch(request, params);
    }
    if (json_in_is_true(json_in_find(params, "do_remote_decode"))) {
        request->transfer = REQUEST_GOES_ON;
        return request->output_tokens == 1 && !request->stream
                   ? NULL
                   : "A prompt is prefilled for another engine with one token and no stream.";
    }
    return NULL;
}

static uint64_t hash_namespace(struct request_body *request, struct json_in root)
{
    struct buf parts;
    buf_init(&parts, request->mem, NAMESPACE_BYTES_MAX);
    /* Cut where it is too long: a namespace of 8 KiB is told apart well enough. */
    (void)(buf_append(&parts, request->model.data, request->model.size) &&
           buf_append(&parts, "\n", 1) && put_raw(&parts, json_in_find(root, "lora_request")) &&
           buf_append(&parts, "\n", 1) && put_raw(&parts, json_in_find(root, "cache_salt")));
    uint64_t hash = hashtrie_hash_namespace(parts.data, parts.size);
    buf_fini(&parts);
    return hash;
}

static bool put_answer(struct request_body *request)
{
    size_t size = request->output_tokens * TEXT_TOKEN_BYTES;
    if (!buf_reserve(&request->text, size)) {
        return false;
    }
    text_fill(request->seed, request->output_tokens, request->text.data + request->text.size);
    request->text.size += size;
    return true;
}

static bool hash_text(struct request_body *request, uint64_t namespace_hash, size_t block_tokens)
{
    size_t block_bytes = block_tokens * TEXT_TOKEN_BYTES;
    request->prompt_block_count = request->answer_start / block_bytes;
    request->hash_capacity = request->text.size / block_bytes + 1;
    request->hashes = mem_alloc(request->mem, request->hash_capacity * sizeof *request->hashes);
    if (request->hashes == NULL) {
        request->hash_capacity = 0;
        return false;
    }
    request->hash_count =
        hashtrie_hash_chunks(namespace_hash, request->text.data, request->text.size, block_bytes,
                             request->hashes, request->hash_capacity);
    return true;
}

const char *request_body_read(struct request_body *request, struct mem *mem, const char *bytes,
                              size_t size, bool is_chat, const struct request_defaults *defaults)
{
    *request = (struct request_body){.mem = mem, .is_chat = is_chat};
    buf_init(&request->model, mem, MODEL_BYTES_MAX);
    buf_init(&request->text, mem, REQUEST_PROMPT_BYTES_MAX);
    struct json_in root;
    if (!json_in_check(bytes, size, &root)) {
        return "The request body is not valid JSON.";
    }
    const char *problem = read_fields(request, root, defaults->output_tokens);
    if (problem != NULL) {
        return problem;
    }
    enum { PROMPT_LEVELS = 2 };
    bool done = is_chat ? put_chat(&request->text, root)
                        : put_prompt(&request->text, json_in_find(root, "prompt"), PROMPT_LEVELS);
    if (!done) {
        return no_memory;
    }
    request->answer_start = request->text.size;
    request->prompt_tokens = (request->text.size + TEXT_TOKEN_BYTES - 1) / TEXT_TOKEN_BYTES;
    if (!json_in_count(json_in_find(root, "seed"), &request->seed)) {
        request->seed = hashtrie_hash_namespace(request->text.data, request->text.size);
    }
    if (!put_answer(request) ||
        !hash_text(request, hash_namespace(request, root), defaults->block_tokens)) {
        return no_memory;
    }
    return read_transfer(request, root);
}

void request_body_fini(struct request_body *request)
{
    buf_fini(&request->model);
    buf_fini(&request->text);
    mem_free(request->mem, request->hashes, request->hash_capacity * sizeof *request->hashes);
    request->hashes = NULL;
}

const char *request_body_token(const struct request_body *request, uint64_t index)
{
    REQUIRE(index < request->output_tokens);
    return request->text.data + request->answer_start + index * TEXT_TOKEN_BYTES;
}
