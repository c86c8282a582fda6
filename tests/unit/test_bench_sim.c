/* The simulator of bench/sim: its engine's cache and steps, and that a run can be repeated. */
#include <stdlib.h>
#include <string.h>

#include "bench/sim/blocks.h"
#include "bench/sim/cases.h"
#include "support/test.h"

enum { BLOCK = 32, PROMPT_MAX = 512 };

/* ---- Blocks ---- */

static void take_and_leave(struct sim_blocks *blocks, const uint64_t *hashes, size_t count,
                           size_t expected)
{
    uint32_t taken[16];
    size_t matched = SIZE_MAX;
    assert_true(sim_blocks_take(blocks, hashes, count, count, taken, &matched));
    assert_int_equal(matched, expected);
    for (size_t i = matched; i < count; i++) {
        sim_blocks_name(blocks, taken[i], hashes[i]);
    }
    sim_blocks_release(blocks, taken, count);
}

static void test_least_recently_used_blocks_go_first_and_of_a_prompt_the_last(void **state)
{
    static const uint64_t a[] = {11, 12, 13};
    static const uint64_t b[] = {21, 22, 23};
    static const uint64_t c[] = {31, 32};
    struct sim_blocks *blocks = sim_blocks_new(6);
    (void)state;
    take_and_leave(blocks, a, 3, 0);
    take_and_leave(blocks, b, 3, 0);
    take_and_leave(blocks, a, 3, 3); /* b is the older one now. */
    take_and_leave(blocks, c, 2, 0);
    assert_int_equal(sim_blocks_peek(blocks, a, 3), 3);
    assert_int_equal(sim_blocks_peek(blocks, b, 3), 1);
    assert_int_equal(sim_blocks_peek(blocks, c, 2), 2);
    sim_blocks_clear(blocks);
    assert_int_equal(sim_blocks_peek(blocks, a, 3), 0);
    assert_int_equal(sim_blocks_free_count(blocks), 6);
    sim_blocks_free(blocks);
}

static void test_blocks_of_running_jobs_are_shared_and_stay(void **state)
{
    static const uint64_t a[] = {11, 12};
    static const uint64_t b[] = {21, 22, 23};
    struct sim_blocks *blocks = sim_blocks_new(4);
    uint32_t first[4];
    uint32_t second[4];
    uint32_t third[4];
    size_t matched = 0;
    (void)state;
    assert_true(sim_blocks_take(blocks, a, 2, 2, first, &matched));
    sim_blocks_name(blocks, first[0], a[0]);
    sim_blocks_name(blocks, first[1], a[1]);
    assert_true(sim_blocks_take(blocks, a, 2, 3, second, &matched));
    assert_int_equal(matched, 2);
    assert_int_equal(second[0], first[0]);
    assert_int_equal(sim_blocks_free_count(blocks), 1);
    assert_false(sim_blocks_take(blocks, b, 3, 3, third, &matched));
    sim_blocks_release(blocks, first, 2);
    assert_false(sim_blocks_take(blocks, b, 3, 3, third, &matched)); /* The second has them. */
    sim_blocks_release(blocks, second, 3);
    assert_true(sim_blocks_take(blocks, b, 3, 3, third, &matched));
    assert_int_equal(sim_blocks_peek(blocks, a, 2), 1);
    sim_blocks_release(blocks, third, 3);
    sim_blocks_free(blocks);
}

/* ---- The engine ---- */

struct seen {
    const struct sim_job *jobs[4];
    uint64_t first_ns[4];
    uint64_t done_ns[4];
};

static size_t number_of(const struct seen *seen, const struct sim_job *job)
{
    size_t i = 0;
    while (seen->jobs[i] != job) {
        i++;
    }
    return i;
}

static void on_first(void *user, struct sim_job *job, uint64_t now_ns)
{
    struct seen *seen = user;
    seen->first_ns[number_of(seen, job)] = now_ns;
}

static void on_done(void *user, struct sim_job *job, uint64_t now_ns)
{
    struct seen *seen = user;
    seen->done_ns[number_of(seen, job)] = now_ns;
}

/* 1,000 tokens a second, 10 ms a step of decoding whatever the context, steps of 100 tokens. */
static struct sim_engine *slow_engine(struct seen *seen, uint64_t kv_tokens, size_t batch_max)
{
    struct sim_engine_options options = sim_engine_options_default();
    struct sim_engine_events events = {.on_first = on_first, .on_done = on_done, .user = seen};
    options.engine.kv_tokens = kv_tokens;
    options.engine.batch_max = batch_max;
    options.engine.prefill_tokens_per_s = 1000;
    options.step_tokens = 100;
    options.context_tokens = 1e18;
    return sim_engine_new(&options, &events);
}

static void make_job(struct seen *seen, size_t number, struct sim_job *job, uint64_t *hashes,
                     uint32_t prompt_tokens, uint32_t output_tokens)
{
    *job = (struct sim_job){.hashes = hashes,
                            .hash_count = (prompt_tokens + output_tokens) / BLOCK,
                            .prompt_tokens = prompt_tokens,
                            .output_tokens = output_tokens};
    seen->jobs[number] = job;
}

static void fill(uint64_t *hashes, uint64_t from)
{
    for (size_t i = 0; i < PROMPT_MAX; i++) {
        hashes[i] = sim_mix(from + i);
    }
}

static void run_to_end(struct sim_engine *engine)
{
    while (sim_engine_next_ns(engine) != UINT64_MAX) {
        sim_engine_run(engine, sim_engine_next_ns(engine));
    }
}

static void test_a_prompt_is_computed_in_chunks_beside_decoding(void **state)
{
    struct seen seen = {0};
    struct sim_job jobs[2];
    uint64_t hashes[2][PROMPT_MAX];
    struct sim_engine *engine = slow_engine(&seen, 4096, 8);
    (void)state;
    fill(hashes[0], 1000);
    fill(hashes[1], 2000);
    make_job(&seen, 0, &jobs[0], hashes[0], 250, 31);
    make_job(&seen, 1, &jobs[1], hashes[1], 99 + 50, 1);
    assert_true(sim_engine_submit(engine, &jobs[0], 0));
    sim_engine_run(engine, 249999999);
    assert_int_equal(seen.first_ns[0], 0);
    sim_engine_run(engine, 250000000); /* 100 + 100 + 50 tokens. */
    assert_int_equal(seen.first_ns[0], 250000000);
    /* Comes in the middle of a step: the next ones have 99 and 50 of its tokens and one of the
     * other's, 109 and 60 ms. */
    assert_true(sim_engine_submit(engine, &jobs[1], 255000000));
    run_to_end(engine);
    assert_int_equal(seen.first_ns[1], 260000000 + 109000000 + 60000000);
    assert_int_equal(seen.done_ns[1], seen.first_ns[1]);
    /* 30 more tokens: one before, two beside it, 27 after. */
    assert_int_equal(seen.done_ns[0], seen.first_ns[1] + 270000000);
    sim_engine_free(engine);
}

static void test_what_the_cache_has_is_not_computed_again(void **state)
{
    struct seen seen = {0};
    struct sim_job jobs[2];
    uint64_t hashes[PROMPT_MAX];
    struct sim_engine *engine = slow_engine(&seen, 4096, 8);
    (void)state;
    fill(hashes, 1000);
    make_job(&seen, 0, &jobs[0], hashes, 256, 32);
    make_job(&seen, 1, &jobs[1], hashes, 320, 1);
    assert_true(sim_engine_submit(engine, &jobs[0], 0));
    run_to_end(engine);
    assert_int_equal(sim_engine_holds(engine, hashes, 10), 256 + 32); /* With the answer. */
    uint64_t now_ns = seen.done_ns[0];
    assert_true(sim_engine_submit(engine, &jobs[1], now_ns));
    run_to_end(engine);
    assert_int_equal(jobs[1].cached_tokens, 288);
    assert_int_equal(seen.first_ns[1], now_ns + 32000000);
    sim_engine_free(engine);
}

static void test_jobs_may_leave_early(void **state)
{
    struct seen seen = {0};
    struct sim_job jobs[3];
    uint64_t hashes[3][PROMPT_MAX];
    struct sim_engine *engine = slow_engine(&seen, 4096, 2);
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fill(hashes[i], 1000 * i);
        make_job(&seen, i, &jobs[i], hashes[i], 100, 20);
        assert_true(sim_engine_submit(engine, &jobs[i], 0));
    }
    sim_engine_run(engine, 100000000);
    assert_int_equal(seen.first_ns[0], 100000000);
    sim_engine_cancel(engine, &jobs[0], 150000000); /* It runs; the step under way goes on. */
    run_to_end(engine);
    assert_int_equal(seen.done_ns[0], 0);
    assert_true(seen.done_ns[1] > 0 && seen.done_ns[2] > seen.done_ns[1]);
    make_job(&seen, 0, &jobs[0], hashes[0], 100, 20);
    assert_true(sim_engine_submit(engine, &jobs[0], seen.done_ns[2]));
    assert_int_equal(sim_engine_state(engine).running_count, 1);
    sim_engine_cancel(engine, &jobs[0], seen.done_ns[2]); /* The only one. */
    assert_true(sim_engine_next_ns(engine) == UINT64_MAX);
    assert_true(sim_engine_state(engine).kv_usage == 0);
    sim_engine_free(engine);
}

static void test_what_is_fetched_takes_its_own_rate(void **state)
{
    struct seen seen = {0};
    struct sim_job job;
    uint64_t hashes[PROMPT_MAX];
    struct sim_engine *engine = slow_engine(&seen, 4096, 2); /* Fetches 80,000 tokens a second. */
    (void)state;
    fill(hashes, 1000);
    make_job(&seen, 0, &job, hashes, 100, 1);
    job.fetched = true;
    assert_true(sim_engine_submit(engine, &job, 0));
    run_to_end(engine);
    assert_int_equal(seen.first_ns[0], 10000000); /* A step is decode_ns long at least. */
    sim_engine_free(engine);
}

static void test_a_job_waits_for_a_place_and_for_room(void **state)
{
    struct seen seen = {0};
    struct sim_job jobs[3];
    uint64_t hashes[3][PROMPT_MAX];
    struct sim_engine *engine = slow_engine(&seen, 640, 2);
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fill(hashes[i], 1000 * i);
        make_job(&seen, i, &jobs[i], hashes[i], 300, 20);
    }
    for (size_t i = 0; i < 3; i++) {
        assert_true(sim_engine_submit(engine, &jobs[i], 0));
    }
    assert_int_equal(sim_engine_state(engine).waiting_count, 2);   /* 100 tokens a step. */
    assert_int_equal(sim_engine_holds(engine, hashes[2], 9), 288); /* Once it has come to it. */
    run_to_end(engine);
    assert_true(seen.first_ns[2] > seen.done_ns[0]);
    make_job(&seen, 0, &jobs[0], hashes[0], 640, 1);
    assert_false(sim_engine_submit(engine, &jobs[0], 0)); /* Never. */
    sim_engine_free(engine);
}

static void test_a_restart_loses_jobs_and_cache(void **state)
{
    struct seen seen = {0};
    struct sim_job jobs[2];
    uint64_t hashes[PROMPT_MAX];
    struct sim_engine *engine = slow_engine(&seen, 4096, 1);
    struct list lost;
    (void)state;
    fill(hashes, 1000);
    for (size_t i = 0; i < 2; i++) {
        make_job(&seen, i, &jobs[i], hashes, 256, 32);
        assert_true(sim_engine_submit(engine, &jobs[i], 0));
    }
    sim_engine_run(engine, 300000000);
    list_init(&lost);
    sim_engine_drop(engine, false, &lost);
    assert_ptr_equal(lost.next, &jobs[0].link);
    assert_ptr_equal(lost.prev, &jobs[1].link);
    assert_int_equal(sim_engine_holds(engine, hashes, 8), 0);
    assert_true(sim_engine_next_ns(engine) == UINT64_MAX);
    sim_engine_free(engine);
}

/* ---- Whole runs ---- */

static void run_case(const char *name, const char *policy, uint64_t seed, double length,
                     struct sim_workload *workload, struct sim_result *result)
{
    const struct sim_case *which = sim_case_find(name, strlen(name));
    const struct sim_policy *how = sim_policy_find(policy, strlen(policy));
    assert_non_null(which);
    assert_non_null(how);
    *workload = (struct sim_workload){0};
    sim_case_generate(which, workload, seed, length, NULL);
    struct sim_setup setup = sim_case_setup(which, workload, how, seed, length);
    sim_run(&setup, result);
}

static void test_the_same_seed_gives_the_same_outcome(void **state)
{
    (void)state;
    for (size_t i = 0; i < sim_policy_count; i++) {
        struct sim_workload workload[3];
        struct sim_result result[3];
        static const uint64_t seeds[] = {7, 7, 8};
        for (size_t run = 0; run < 3; run++) {
            run_case("chat", sim_policies[i].name, seeds[run], 0.05, &workload[run], &result[run]);
        }
        assert_int_equal(workload[0].request_count, workload[1].request_count);
        assert_memory_equal(result[0].outcomes, result[1].outcomes,
                            workload[0].request_count * sizeof *result[0].outcomes);
        assert_true(result[0].ttft_mean_s != result[2].ttft_mean_s);
        for (size_t run = 0; run < 3; run++) {
            sim_workload_free(&workload[run]);
            sim_result_free(&result[run]);
        }
    }
}

static void test_every_request_is_served_whatever_restarts(void **state)
{
    static const char *const names[] = {"engine-restart", "router-restart"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sim_workload workload;
        struct sim_result result;
        run_case(names[i], "ours", 1, 0.2, &workload, &result);
        assert_int_equal(result.refused_count, 0);
        for (size_t at = 0; at < workload.request_count; at++) {
            assert_true(result.outcomes[at].ttft_s > 0);
            assert_true(workload.requests[at].output_tokens == 1 ||
                        result.outcomes[at].decode_s > 0);
        }
        sim_workload_free(&workload);
        sim_result_free(&result);
    }
}

static void test_the_oracle_and_the_trie_find_what_is_shared(void **state)
{
    static const char *const policies[] = {"ours", "oracle"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sim_workload workload;
        struct sim_result result;
        run_case("shared-system", policies[i], 1, 0.2, &workload, &result);
        assert_true(result.hit_rate > 0.9);  /* 6,000 tokens of 6,450 at the mean. */
        assert_true(result.imbalance < 1.2); /* And not all at one engine. */
        sim_workload_free(&workload);
        sim_result_free(&result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_recently_used_blocks_go_first_and_of_a_prompt_the_last),
        cmocka_unit_test(test_blocks_of_running_jobs_are_shared_and_stay),
        cmocka_unit_test(test_a_prompt_is_computed_in_chunks_beside_decoding),
        cmocka_unit_test(test_what_the_cache_has_is_not_computed_again),
        cmocka_unit_test(test_jobs_may_leave_early),
        cmocka_unit_test(test_what_is_fetched_takes_its_own_rate),
        cmocka_unit_test(test_a_job_waits_for_a_place_and_for_room),
        cmocka_unit_test(test_a_restart_loses_jobs_and_cache),
        cmocka_unit_test(test_the_same_seed_gives_the_same_outcome),
        cmocka_unit_test(test_every_request_is_served_whatever_restarts),
        cmocka_unit_test(test_the_oracle_and_the_trie_find_what_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
