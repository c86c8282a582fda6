#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/e2e/replay.h"
#include "bench/load/text.h"
#include "bench/load/tool.h"

enum { HEAD_ROOM = 512, TAIL_ROOM = 512, MESSAGE_ROOM = 64 };

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

uint64_t *replay_answers(const struct sim_workload *workload)
{
    uint64_t *answers = tool_must(calloc(workload->request_count + 1, sizeof *answers));
    for (size_t i = 0; i < workload->request_count; i++) {
        answers[i] = workload->requests[i].answer;
    }
    qsort(answers, workload->request_count, sizeof *answers, compare_ids);
    return answers;
}

static bool is_answer(const struct replay *replay, uint64_t id)
{
    return bsearch(&id, replay->answers, replay->workload->request_count, sizeof id, compare_ids) !=
           NULL;
}

static char *put_piece(char *at, const struct sim_piece *piece)
{
    text_fill(piece->id, piece->tokens, at);
    return at + (size_t)piece->tokens * TEXT_TOKEN_BYTES;
}

/* What an engine has answered is the assistant's message, what is between two answers a user's. */
static char *put_messages(const struct replay *replay, const struct sim_request *request, char *at)
{
    const struct sim_piece *pieces = &replay->workload->pieces[request->piece_first];
    bool in_user = false;
    at = stpcpy(at, "\"messages\":[");
    for (uint32_t i = 0; i < request->piece_count; i++) {
        bool answer = is_answer(replay, pieces[i].id);
        if (answer || !in_user) {
            at = stpcpy(at, i == 0 ? "" : "\"},");
            at = stpcpy(at, answer ? "{\"role\":\"assistant\",\"content\":\""
                                   : "{\"role\":\"user\",\"content\":\"");
        }
        in_user = !answer;
        at = put_piece(at, &pieces[i]);
    }
    return stpcpy(at, "\"}]");
}

static char *put_prompt(const struct replay *replay, const struct sim_request *request, char *at)
{
    const struct sim_piece *pieces = &replay->workload->pieces[request->piece_first];
    at = stpcpy(at, "\"prompt\":\"");
    for (uint32_t i = 0; i < request->piece_count; i++) {
        at = put_piece(at, &pieces[i]);
    }
    return stpcpy(at, "\"");
}

static int write_head(const struct replay *replay, const struct sim_request *request, size_t size,
                      char *out)
{
    char session[64] = "";
    if (request->session != SIM_NO_SESSION) {
        (void)snprintf(session, sizeof session, "x-user-id: %u\r\n", request->session);
    }
    return snprintf(out, HEAD_ROOM,
                    "POST /v1/%s HTTP/1.1\r\nHost: bench\r\n%sContent-Type: application/json\r\n"
                    "Content-Length: %zu\r\n\r\n",
                    replay->options.chat ? "chat/completions" : "completions", session, size);
}

char *replay_request(const struct replay *replay, const struct sim_request *request, size_t *size)
{
    size_t room = HEAD_ROOM + TAIL_ROOM + (size_t)request->prompt_tokens * TEXT_TOKEN_BYTES +
                  (size_t)request->piece_count * MESSAGE_ROOM;
    char *bytes = tool_must(malloc(room));
    char *body = bytes + HEAD_ROOM;
    char *at = stpcpy(body, "{");
    at = replay->options.chat ? put_messages(replay, request, at) : put_prompt(replay, request, at);
    at += snprintf(at, TAIL_ROOM,
                   ",\"model\":\"%s\",\"max_tokens\":%u,\"seed\":%llu,\"temperature\":0,"
                   "\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
                   replay->options.model, request->output_tokens,
                   (unsigned long long)(request->answer & TEXT_ID_MAX));
    size_t body_size = (size_t)(at - body);
    int head = write_head(replay, request, body_size, bytes);
    memmove(bytes + head, body, body_size);
    *size = (size_t)head + body_size;
    return bytes;
}
