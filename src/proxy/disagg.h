/*
 * Disaggregated prefill: one engine computes the KV cache of a request's prompt, another fetches it
 * from there and makes the answer. Both steps go through the states of request.h:
 *
 *     ROUTING -> CONNECTING -> WAITING      prefill: its answer is read here, for what it says of
 *        ^__________________________|       where the cache is
 *     ROUTING -> CONNECTING -> WAITING -> RELAYING      decode: the client's answer
 *
 * Which engine: prefill by prefix and load, as `prefixaware` does. Decode by load first; yet its
 * engine, too, keeps the cache of what it has answered, and fetches only the rest. Fetching delays
 * the request's first token alone and computes nothing: it counts a quarter of prefilling. What is
 * in flight at decode engines counts as decoding from the start.
 *
 * Fails: the prefill engine does not answer -> another one. It answers other than 200 -> the client
 *        gets that. The decode engine could not be connected to -> another one, with the same
 *        parameters. It fails later, before the answer -> prefilled again: it may have fetched the
 *        cache, upon which the prefill engine frees the blocks for others, and nothing would tell
 *        the next decode engine that what it fetches is not its own. Mostly the prefill engine
 *        still has the prompt cached.
 *        What --max-instance-failover-reroute-attempts and the retry budget say holds for each
 *        step.
 *
 * A request has one place of --max-requests for both steps. Of paths, those whose answers are
 * generated from a prompt are served so; others go to engines that do not only prefill.
 */
#ifndef HASHTRIE_PROXY_DISAGG_H
#define HASHTRIE_PROXY_DISAGG_H

#include "proxy/handover.h"
#include "proxy/request.h"

enum disagg_step { DISAGG_PREFILL, DISAGG_DECODE, DISAGG_STEP_COUNT };

/* Of one request. */
struct disagg {
    enum disagg_step step;
    struct handover handover;
    struct buf answer;              /* The prefill engine's, while it comes. */
    struct route_choice prefill;    /* Of the last one that answered; ... */
    uint64_t prefill_ns;            /* ... how long it took; 0: none did. */
    bool holds_prefill;             /* Its backend is held; those in other_excluded are, anyway. */
    bool sent;                      /* A decode engine may have had the parameters. */
    bool chosen[DISAGG_STEP_COUNT]; /* An engine was, and the log has said which. */
    size_t other_excluded_count;    /* Of the step that it is not in. */
    uint32_t other_excluded[ROUTER_TRIES_MAX];
};

bool disagg_is_on(const struct config *config);
/* What engines of that model label are for: enum route_role. */
unsigned disagg_roles_of_label(const struct config *config, const char *label);

/* The body has been read, the model found. Makes request->disagg where it is served so. False: it
 * was answered with an error. */
bool disagg_begin(struct request *request, const struct prompt *prompt);
void disagg_free(struct request *request);

static inline bool disagg_prefills(const struct request *request)
{
    return request->disagg != NULL && request->disagg->step == DISAGG_PREFILL;
}

static inline bool disagg_decodes(const struct request *request)
{
    return request->disagg != NULL && request->disagg->step == DISAGG_DECODE;
}

/* Which engines are candidates for the step; 0: any. */
unsigned disagg_roles(const struct request *request);
/* Lock held. There is an engine for the step to come, too. */
bool disagg_can_go_on(const struct request *request);
/* Of the step's choices, this is the first. */
bool disagg_is_first_choice(struct request *request);
/* Tries that failed, in both steps. */
size_t disagg_failed_tries(const struct request *request);
/* The body for the engine of this step; returns how many pieces. */
size_t disagg_body(const struct request *request, struct span parts[HANDOVER_PARTS_MAX]);

/* Some of it, at least, has gone. */
static inline void disagg_sent(struct request *request)
{
    if (disagg_decodes(request)) {
        request->disagg->sent = true;
    }
}

/* An answer with that status is read here. */
bool disagg_collects(const struct request *request, unsigned status);
void disagg_collect(struct request *request, struct span body);
/* WAITING, and the answer's head has come. */
enum step disagg_step_collecting(struct request *request);
/* A try to decode has failed, and there will be another: where it has to be prefilled again, makes
 * that the next step. */
void disagg_decode_failed(struct request *request);
/* The same where the decode engine is not to blame, and is let go of. */
void disagg_prefill_again(struct request *request);
/* No engine is there for a step: 503. */
void disagg_answer_nobody(struct request *request);

#endif
