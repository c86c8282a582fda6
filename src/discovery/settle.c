/* From what is known to the set that is told: once for all that changed in a short time. */
#include <stdlib.h>

#include "discovery/kube_private.h"

/* ---- The set ---- */

/* Services are as ready as one of their endpoints is. */
static void judge_services(struct kube *kube)
{
    for (size_t i = 0; i < kube->candidates.count; i++) {
        kube_candidate_at(kube, i)->has_endpoint = false;
    }
    for (size_t i = 0; i < kube->slices.count; i++) {
        const struct slice_record *record = (const struct slice_record *)kube->slices.things[i];
        struct candidate *candidate =
            (struct candidate *)table_find(&kube->candidates, span_of(record->service));
        if (candidate != NULL && record->ready) {
            candidate->has_endpoint = true;
        }
    }
    for (size_t i = 0; i < kube->candidates.count; i++) {
        struct candidate *candidate = kube_candidate_at(kube, i);
        if (candidate->has_endpoint != candidate->state.ready) {
            struct candidate_state now = candidate->state;
            now.ready = candidate->has_endpoint;
            candidate_apply(candidate, &now);
        }
    }
}

/* By address; of one address, which only one can have, the youngest pod first. */
static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *left = *(const struct candidate *const *)a;
    const struct candidate *right = *(const struct candidate *const *)b;
    int order = strcmp(left->state.url, right->state.url);
    if (order == 0) {
        order = strcmp(right->state.created, left->state.created);
    }
    return order != 0 ? order : strcmp(left->named.name, right->named.name);
}

/* Those that serve, sorted, each address once. Returns how many, and of how many models. */
static size_t collect(struct kube *kube, const struct candidate **out, size_t *model_count)
{
    size_t count = 0;
    for (size_t i = 0; i < kube->candidates.count; i++) {
        if (candidate_serves(kube_candidate_at(kube, i))) {
            out[count++] = kube_candidate_at(kube, i);
        }
    }
    qsort(out, count, sizeof(const struct candidate *), compare_candidates);
    size_t kept = 0;
    *model_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || strcmp(out[kept - 1]->state.url, out[i]->state.url) != 0) {
            out[kept++] = out[i];
            *model_count += out[i]->model_count;
        }
    }
    return kept;
}

/* Fills in one candidate, and its models' names at `names`. */
static struct kube_engine describe(const struct candidate *candidate, const char **names)
{
    const char *name = candidate->models.data;
    for (size_t i = 0; i < candidate->model_count; i++) {
        names[i] = name;
        name += strlen(name) + 1;
    }
    const struct candidate_state *state = &candidate->state;
    return (struct kube_engine){.url = state->url,
                                .models = names,
                                .model_count = candidate->model_count,
                                .label = state->label[0] != '\0' ? state->label : NULL,
                                .id = candidate->named.name,
                                .generation =
                                    state->generation[0] != '\0' ? state->generation : NULL,
                                .sleeping = candidate_is_asleep(candidate)};
}

/* False: no memory, or it was not taken. */
static bool tell(struct kube *kube)
{
    size_t most = kube->candidates.count > 0 ? kube->candidates.count : 1;
    const struct candidate **chosen = mem_alloc(kube->mem, most * sizeof(const struct candidate *));
    struct kube_engine *told = mem_alloc(kube->mem, most * sizeof *told);
    size_t model_count = 0;
    size_t count = chosen != NULL ? collect(kube, chosen, &model_count) : 0;
    size_t names_size = (model_count > 0 ? model_count : 1) * sizeof(const char *);
    const char **names = mem_alloc(kube->mem, names_size);
    bool taken = chosen != NULL && told != NULL && names != NULL;
    if (taken) {
        const char **next = names;
        for (size_t i = 0; i < count; i++) {
            told[i] = describe(chosen[i], next);
            next += chosen[i]->model_count;
        }
        taken = kube->options.on_engines(kube->options.user, told, count);
    }
    mem_free(kube->mem, names, names_size);
    mem_free(kube->mem, told, most * sizeof *told);
    mem_free(kube->mem, chosen, most * sizeof(const struct candidate *));
    return taken;
}

static bool is_patient(const struct kube *kube)
{
    if (net_now_ns() - kube->listed_ns >= KUBE_PATIENCE_NS) {
        return false;
    }
    for (size_t i = 0; i < kube->candidates.count; i++) {
        const struct candidate *candidate = kube_candidate_at(kube, i);
        if (candidate->state.ready &&
            (!candidate_has_answered(candidate) ||
             (candidate->sleep_asked != NULL && !candidate->sleep_known))) {
            return true;
        }
    }
    return false;
}

static void count(struct kube *kube)
{
    uint64_t ready = 0;
    uint64_t serving = 0;
    for (size_t i = 0; i < kube->candidates.count; i++) {
        ready += kube_candidate_at(kube, i)->state.ready ? 1 : 0;
        serving += candidate_serves(kube_candidate_at(kube, i)) ? 1 : 0;
    }
    kube->known_count = kube->candidates.count;
    kube->ready_count = ready;
    kube->serving_count = serving;
}

/* Changes have settled: ready engines are asked, and the set is told if it is another one. */
void kube_settle(void *user)
{
    struct kube *kube = user;
    kube->timer_runs = false;
    if (kube->listed_ns == 0) {
        return;
    }
    if (kube->options.services) {
        judge_services(kube);
    }
    uint64_t again_ns = 0;
    for (size_t i = 0; i < kube->candidates.count; i++) {
        struct candidate *candidate = kube_candidate_at(kube, i);
        if (candidate->state.ready && !candidate_keep_asking(candidate)) {
            again_ns = KUBE_RETRY_NS;
        }
    }
    if (kube->changed) {
        kube->changed = !tell(kube);
        again_ns = kube->changed ? KUBE_RETRY_NS : again_ns;
    }
    count(kube);
    if (!kube_is_settled(kube)) {
        if (!is_patient(kube)) {
            atomic_store(&kube->settled, true);
        } else if (again_ns == 0) {
            again_ns = KUBE_PATIENCE_NS;
        }
    }
    if (again_ns > 0 && !kube->timer_runs) {
        net_timer_start(kube->timer, again_ns); /* What comes before that shortens it. */
    }
}
