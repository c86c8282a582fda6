"""GET /metrics: every series that the Python router exports, with its type and labels; --log-stats."""
import time

from client import chat, get
from harness import wait_until
from prometheus import scrape

PER_SERVER = """vllm:num_requests_running vllm:num_prefill_requests vllm:num_decoding_requests
    vllm:num_requests_swapped vllm:current_qps vllm:avg_latency vllm:avg_itl
    vllm:avg_decoding_length vllm:healthy_pods_total""".split()
OF_THE_HOST = """router_cpu_usage_percent router_memory_usage_percent
    router_disk_usage_percent""".split()
OF_THE_PROCESS = """process_cpu_seconds_total process_resident_memory_bytes
    process_virtual_memory_bytes process_max_fds process_start_time_seconds""".split()


def test_gauges_per_server(world):
    engine = world.engine()
    router = world.router([engine])
    metrics = scrape(router)
    for name in PER_SERVER:
        assert metrics.types[name] == "gauge"
        value = metrics.value(name, server=engine.url)
        assert value == {"vllm:healthy_pods_total": 1, "vllm:avg_latency": -1, "vllm:avg_itl": -1,
                         "vllm:avg_decoding_length": -1}.get(name, 0), name


def test_of_late(world):
    engine = world.upstream(lambda exchange: (time.sleep(0.1), exchange.answer()))
    router = world.router([engine.url], "--request-stats-window", "4")
    for _ in range(4):
        chat(router, "x")
    metrics = scrape(router)
    assert metrics.value("vllm:current_qps", server=engine.url) == 1.0
    assert 0.1 <= metrics.value("vllm:avg_latency", server=engine.url) < 2
    wait_until(lambda: scrape(router).value("vllm:avg_latency", server=engine.url) == -1, 20)
    assert scrape(router).value("vllm:current_qps", server=engine.url) == 0


def test_answers_that_failed_are_not_averaged(world):
    engine = world.upstream(lambda exchange: exchange.close())
    router = world.router([engine.url])
    assert chat(router, "x").status == 502
    metrics = scrape(router)
    assert metrics.value("vllm:avg_latency", server=engine.url) == -1
    assert metrics.value("vllm:num_prefill_requests", server=engine.url) == 0
    assert metrics.total("vllm:request_errors_total", server=engine.url, model="mock-model",
                         error_type="ServerDisconnected") >= 1


def test_the_host_and_the_process(world):
    router = world.router([world.engine()])
    scrape(router)
    metrics = scrape(router)
    for name in OF_THE_HOST:
        assert metrics.types[name] == "gauge" and 0 <= metrics.value(name) <= 100
    for name in OF_THE_PROCESS:
        assert metrics.value(name) >= 0
    assert metrics.value("process_resident_memory_bytes") < 2 * router.rss_bytes()
    assert get(router, "/metrics").header("content-type").startswith("text/plain; version=0.0.4")


def test_figures_in_the_log(world):
    engine = world.engine()
    router = world.router([engine, "http://127.0.0.1:1"], "--log-stats", "--log-stats-interval",
                          "1", "--routing-logic", "roundrobin")
    chat(router, "x")
    line = router.wait_line(rf"Stats server={engine.url} healthy=1 running=0 prefill=0 qps=0\.0[0-9]+ "
                            r"avg_latency=[0-9.e-]+ ").string
    assert "engine_running=" in line
    router.wait_line(r"Stats server=http://127.0.0.1:1 healthy=1 running=0 prefill=0 qps=[0-9.]+$")
    quiet = world.router([engine])
    chat(quiet, "x")
    assert quiet.find_lines("Stats server") == []
