/* What engines say of themselves: their models, and whether they sleep. */
#include <stdio.h>

#include "discovery/kube_private.h"

/* ---- What engines say ---- */

static void write_models(const struct candidate *candidate, char *out, size_t size)
{
    size_t used = 0;
    const char *name = candidate->models.data;
    out[0] = '\0';
    for (size_t i = 0; i < candidate->model_count; i++) {
        size_t name_size = strlen(name);
        if (used + name_size + sizeof ", ..." > size) {
            (void)snprintf(out + used, size - used, ", ...");
            return;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", name);
        name += name_size + 1;
    }
}

/* Takes the place of what it said before. */
static void take_models(struct candidate *candidate, struct buf *models, size_t count)
{
    struct kube *kube = candidate->kube;
    bool same =
        candidate->models_known && models->size == candidate->models.size &&
        (models->size == 0 || memcmp(models->data, candidate->models.data, models->size) == 0);
    candidate->models_known = true;
    if (same) {
        return;
    }
    buf_fini(&candidate->models);
    candidate->models = *models;
    candidate->model_count = count;
    buf_init(models, kube->mem, 0); /* It was handed over. */
    kube->changed = true;
    char shown[MODELS_SHOWN_BYTES];
    write_models(candidate, shown, sizeof shown);
    kube_note(kube, false, "%s %s at %s serves %s", kube_kind(kube), candidate->named.name,
              candidate->state.url, count > 0 ? shown : "no model");
}

/* Tells it once in a row. */
static void fail_models(struct candidate *candidate, const char *reason)
{
    if (!candidate->failing) {
        candidate->failing = true;
        kube_note(candidate->kube, true, "%s %s at %s: its models cannot be read: %s%s",
                  kube_kind(candidate->kube), candidate->named.name, candidate->state.url, reason,
                  candidate->models_known ? "; it keeps those it had" : "");
    }
}

void kube_on_models(void *user, void *engine_user, const struct discovery_result *result)
{
    struct kube *kube = user;
    struct candidate *candidate = engine_user;
    struct buf models;
    size_t count = 0;
    buf_init(&models, kube->mem, MODELS_BYTES_MAX);
    if (result->outcome != DISCOVERY_TOLD) {
        fail_models(candidate, result->reason);
    } else if (json_parse(kube->parser, result->text.data, result->text.size) != JSON_OK ||
               !object_read_models(kube->parser, &models, &count)) {
        fail_models(candidate, "its answer is no list of models");
    } else {
        candidate->failing = false;
        take_models(candidate, &models, count);
    }
    json_parser_release(kube->parser);
    buf_fini(&models);
    kube_touch(kube);
}

/* told: it has said whether it sleeps; else its label counts. */
static void take_sleep(struct candidate *candidate, bool told, bool sleeping)
{
    bool before = candidate_is_asleep(candidate);
    bool was_known = candidate->sleep_known;
    candidate->sleep_known = true;
    if (told) {
        candidate->sleep_told = true;
        candidate->sleeping = sleeping;
    }
    bool now = candidate_is_asleep(candidate);
    if (now == before && was_known) {
        return;
    }
    candidate->kube->changed = true;
    if (now || now != before) {
        kube_note(candidate->kube, false, "%s %s at %s %s", kube_kind(candidate->kube),
                  candidate->named.name, candidate->state.url, now ? "sleeps" : "is awake");
    }
}

void kube_on_sleep(void *user, void *engine_user, const struct discovery_result *result)
{
    struct kube *kube = user;
    struct candidate *candidate = engine_user;
    const struct json_parser *parser = kube->parser;
    bool told = false;
    bool sleeping = false;
    if (result->outcome == DISCOVERY_TOLD &&
        json_parse(kube->parser, result->text.data, result->text.size) == JSON_OK) {
        struct json_value value = json_find(parser, json_root(parser), "is_sleeping");
        enum json_kind kind = json_kind(parser, value);
        told = kind == JSON_TRUE || kind == JSON_FALSE;
        sleeping = kind == JSON_TRUE;
    }
    json_parser_release(kube->parser);
    take_sleep(candidate, told, sleeping);
    kube_touch(kube);
}

/* ---- Asking engines ---- */

void candidate_stop_asking(struct candidate *candidate)
{
    discovery_remove(candidate->models_asked);
    discovery_remove(candidate->sleep_asked);
    candidate->models_asked = NULL;
    candidate->sleep_asked = NULL;
    candidate->models_known = false;
    candidate->failing = false;
    candidate->sleep_known = false;
    candidate->sleep_told = false;
}

/* False: no memory, or the URL is too long; it is tried again. */
bool candidate_keep_asking(struct candidate *candidate)
{
    struct kube *kube = candidate->kube;
    if (candidate->models_asked == NULL) {
        candidate->models_asked = discovery_add(kube->models, candidate->state.url, candidate);
    }
    if (candidate->sleep_asked == NULL && candidate->state.may_sleep) {
        candidate->sleep_asked = discovery_add(kube->sleepers, candidate->state.url, candidate);
    }
    return candidate->models_asked != NULL &&
           (candidate->sleep_asked != NULL || !candidate->state.may_sleep);
}

void candidate_ask_soon(struct candidate *candidate)
{
    if (candidate->models_asked != NULL) {
        discovery_hurry(candidate->models_asked);
    }
    if (candidate->sleep_asked != NULL) {
        discovery_hurry(candidate->sleep_asked);
    }
}
