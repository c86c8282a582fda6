/* From real engines' metrics, shortened, to the figures that the router uses. */
#include <math.h>

#include "discovery/figures.h"
#include "support/test.h"

static void on_sample(void *user, const struct exposition_sample *sample)
{
    figures_add(user, sample);
}

static struct discovery_figures figures_of(const char *text)
{
    struct mem mem;
    struct figures figures = {0};
    struct exposition reader;
    mem_init(&mem, SIZE_MAX);
    exposition_init(&reader, &mem, on_sample, &figures);
    exposition_feed(&reader, text, strlen(text));
    assert_int_equal(reader.bad_line_count, 0);
    exposition_fini(&reader);
    mem_fini(&mem);
    return figures_result(&figures);
}

#define EXPECT(figure, expected) assert_true(fabs((figure) - (expected)) < 1e-9)

static void vllm_with_two_engines_in_one_process(void **state)
{
    (void)state;
    struct discovery_figures figures = figures_of(
        "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n"
        "# TYPE process_start_time_seconds gauge\n"
        "process_start_time_seconds 1.76303123874e+09\n"
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        "# TYPE vllm:num_requests_running gauge\n"
        "vllm:num_requests_running{engine=\"0\",model_name=\"Qwen/Qwen3-32B\"} 5.0\n"
        "vllm:num_requests_running{engine=\"1\",model_name=\"Qwen/Qwen3-32B\"} 7.0\n"
        "# TYPE vllm:num_requests_waiting gauge\n"
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"Qwen/Qwen3-32B\"} 2.0\n"
        "vllm:num_requests_waiting{engine=\"1\",model_name=\"Qwen/Qwen3-32B\"} 0.0\n"
        "# TYPE vllm:kv_cache_usage_perc gauge\n"
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"Qwen/Qwen3-32B\"} 0.5\n"
        "vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"Qwen/Qwen3-32B\"} 0.1\n"
        "# TYPE vllm:prefix_cache_queries_total counter\n"
        "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"Qwen/Qwen3-32B\"} 600.0\n"
        "vllm:prefix_cache_queries_total{engine=\"1\",model_name=\"Qwen/Qwen3-32B\"} 400.0\n"
        "# TYPE vllm:prefix_cache_queries_created gauge\n"
        "vllm:prefix_cache_queries_created{engine=\"0\",model_name=\"Qwen/Qwen3-32B\"} 1.7e+09\n"
        "# TYPE vllm:prefix_cache_hits_total counter\n"
        "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"Qwen/Qwen3-32B\"} 150.0\n"
        "vllm:prefix_cache_hits_total{engine=\"1\",model_name=\"Qwen/Qwen3-32B\"} 100.0\n"
        "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n"
        "# TYPE vllm:cache_config_info gauge\n"
        "vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\",calculate_kv_scales="
        "\"False\","
        "cpu_offload_gb=\"0\",enable_prefix_caching=\"True\",engine=\"0\","
        "gpu_memory_utilization=\"0.9\",num_cpu_blocks=\"None\",num_gpu_blocks=\"27734\","
        "num_gpu_blocks_override=\"None\",sliding_window=\"None\",swap_space=\"4\"} 1.0\n"
        "vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\",engine=\"1\","
        "num_gpu_blocks=\"27730\",num_gpu_blocks_override=\"None\"} 1.0\n");
    EXPECT(figures.start_time_s, 1763031238.74);
    EXPECT(figures.running, 12);
    EXPECT(figures.waiting, 2);
    EXPECT(figures.kv_usage, 0.3);
    EXPECT(figures.kv_capacity_tokens, (27734 + 27730) * 16);
    EXPECT(figures.prefix_queries, 1000);
    EXPECT(figures.prefix_hits, 250);
    EXPECT(figures.prefix_hit_rate, 0.25);
}

static void vllm_of_old(void **state)
{
    (void)state;
    struct discovery_figures figures =
        figures_of("process_start_time_seconds 1.74262400557e+09\n"
                   "vllm:num_requests_running{model_name=\"m\"} 1.0\n"
                   "vllm:num_requests_waiting{model_name=\"m\"} 0.0\n"
                   "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.25\n"
                   "vllm:gpu_prefix_cache_queries_total{model_name=\"m\"} 10.0\n"
                   "vllm:gpu_prefix_cache_hits_total{model_name=\"m\"} 5.0\n"
                   "vllm:gpu_prefix_cache_hit_rate{model_name=\"m\"} 0.125\n"
                   "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1.0\n");
    EXPECT(figures.start_time_s, 1742624005.57);
    EXPECT(figures.kv_usage, 0.25);
    EXPECT(figures.prefix_queries, 10);
    EXPECT(figures.prefix_hits, 5);
    EXPECT(figures.prefix_hit_rate, 0.125);
    assert_true(isnan(figures.kv_capacity_tokens));
}

/* Some versions told the same under both names: it must not count twice. */
static void old_and_new_names_together(void **state)
{
    (void)state;
    struct discovery_figures figures = figures_of("vllm:gpu_cache_usage_perc{engine=\"0\"} 0.5\n"
                                                  "vllm:gpu_prefix_cache_hits_total 10\n"
                                                  "vllm:gpu_prefix_cache_queries_total 20\n"
                                                  "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n"
                                                  "vllm:prefix_cache_hits_total 30\n"
                                                  "vllm:prefix_cache_queries_total 40\n");
    EXPECT(figures.kv_usage, 0.25);
    EXPECT(figures.prefix_hits, 30);
    EXPECT(figures.prefix_queries, 40);
    assert_true(isnan(figures.start_time_s) && isnan(figures.running) && isnan(figures.waiting));
}

static void sglang(void **state)
{
    (void)state;
    struct discovery_figures figures = figures_of(
        "# HELP sglang:token_usage The token usage\n"
        "# TYPE sglang:token_usage gauge\n"
        "sglang:token_usage{model_name=\"meta-llama/Llama-3.1-8B-Instruct\"} 0.28\n"
        "sglang:prompt_tokens_total{model_name=\"m\"} 8.128902e+06\n"
        "sglang:cache_hit_rate{model_name=\"meta-llama/Llama-3.1-8B-Instruct\"} 0.0075\n"
        "sglang:num_running_reqs{model_name=\"m\",tp_rank=\"0\"} 8.0\n"
        "sglang:num_queue_reqs{model_name=\"m\",tp_rank=\"0\"} 3.0\n"
        "sglang:max_total_num_tokens{model_name=\"m\",tp_rank=\"0\"} 471258.0\n"
        "sglang:time_to_first_token_seconds_bucket{le=\"+Inf\",model_name=\"m\"} 11008.0\n");
    EXPECT(figures.kv_usage, 0.28);
    EXPECT(figures.prefix_hit_rate, 0.0075);
    EXPECT(figures.running, 8);
    EXPECT(figures.waiting, 3);
    EXPECT(figures.kv_capacity_tokens, 471258);
    EXPECT(figures.prompt_tokens, 8128902);
    assert_true(isnan(figures.start_time_s));
}

static void llama_server(void **state)
{
    (void)state;
    struct discovery_figures figures =
        figures_of("# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.\n"
                   "# TYPE llamacpp:prompt_tokens_total counter\n"
                   "llamacpp:prompt_tokens_total 143\n"
                   "llamacpp:prompt_seconds_total 8.168\n"
                   "llamacpp:kv_cache_usage_ratio 0.5\n"
                   "llamacpp:requests_processing 1\n"
                   "llamacpp:requests_deferred 4\n");
    EXPECT(figures.running, 1);
    EXPECT(figures.waiting, 4);
    EXPECT(figures.prompt_tokens, 143);
    EXPECT(figures.kv_usage, 0.5);
    assert_true(isnan(figures.start_time_s) && isnan(figures.kv_capacity_tokens));
}

static void absurd_figures_are_not_believed(void **state)
{
    (void)state;
    struct discovery_figures figures = figures_of(
        "process_start_time_seconds 1e300\n"
        "vllm:num_requests_running -1\n"
        "vllm:num_requests_waiting NaN\n"
        "vllm:kv_cache_usage_perc 50\n"
        "vllm:prefix_cache_hits_total +Inf\n"
        "vllm:cache_config_info{num_gpu_blocks=\"999999999999\",block_size=\"999999999999\"} 1\n"
        "vllm:cache_config_info{num_gpu_blocks=\"9999999999990\",block_size=\"16\"} 1\n"
        "vllm:cache_config_info{num_gpu_blocks=\"-5\",block_size=\"16\"} 1\n"
        "vllm:cache_config_info{num_gpu_blocks=\"\",block_size=\"16\"} 1\n"
        "vllm:cache_config_info 1\n");
    assert_true(isnan(figures.start_time_s) && isnan(figures.running) && isnan(figures.waiting) &&
                isnan(figures.kv_usage) && isnan(figures.prefix_hits) &&
                isnan(figures.kv_capacity_tokens) && isnan(figures.prefix_hit_rate));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vllm_with_two_engines_in_one_process),
        cmocka_unit_test(vllm_of_old),
        cmocka_unit_test(old_and_new_names_together),
        cmocka_unit_test(sglang),
        cmocka_unit_test(llama_server),
        cmocka_unit_test(absurd_figures_are_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
