"""GET /metrics: every series that the Python router exports, with its type and labels; --log-stats.

One thread: a request is counted before the same thread answers the next one."""
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
    router = world.router([engine.url], "--request-stats-window", "4", "--threads", "1")
    for _ in range(4):
        chat(router, "x")
    metrics = scrape(router)
    assert metrics.value("vllm:current_qps", server=engine.url) == 1.0
    assert 0.1 <= metrics.value("vllm:avg_latency", server=engine.url) < 2
    wait_until(lambda: scrape(router).value("vllm:avg_latency", server=engine.url) == -1, 20)
    assert scrape(router).value("vllm:current_qps", server=engine.url) == 0


def test_answers_that_failed_are_not_averaged(world):
    engine = world.upstream(lambda exchange: exchange.close())
    router = world.router([engine.url], "--threads", "1")
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
    router.wait_line(rf"Stats server={engine.url} healthy=1 running=0 prefill=0 qps=0\.0[0-9]+ "
                     r"avg_latency=[0-9.e-]+ engine_running=[01] engine_waiting=0 kv_usage=")
    router.wait_line(r"Stats server=http://127.0.0.1:1 healthy=1 running=0 prefill=0 qps=[0-9.]+$")
    quiet = world.router([engine])
    chat(quiet, "x")
    assert quiet.find_lines("Stats server") == []


def token(text):
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text


USAGE = (b'"usage":{"prompt_tokens":%d,"total_tokens":120,"completion_tokens":20,'
         b'"prompt_tokens_details":{"cached_tokens":%d}}')
DONE = b"data: [DONE]\n\n"


def test_streams_tell_when_tokens_come(world):
    def answer(exchange):
        exchange.start_stream()
        time.sleep(0.06)
        for text in (b"a", b"b", b"c"):
            exchange.chunk(token(text))
            time.sleep(0.12)
        exchange.chunk(b'data: {"choices":[],' + USAGE % (100, 64) + b"}\n\n")
        exchange.chunk(DONE)
        exchange.end_stream()

    engine = world.upstream(answer)
    router = world.router([engine.url], "--threads", "1")
    assert chat(router, "x", stream=True).status == 200
    metrics = scrape(router)
    labels = {"server": engine.url, "model": "mock-model"}
    first = "hashtrie_time_to_first_token_seconds"
    gaps = "hashtrie_inter_token_latency_seconds"
    assert metrics.value(first + "_count", **labels) == 1
    assert 0.06 <= metrics.value(first + "_sum", **labels) < 2
    assert metrics.value(gaps + "_count", **labels) == 2  # Neither usage nor [DONE] is a token.
    assert 0.24 <= metrics.value(gaps + "_sum", **labels) < 2
    assert metrics.value(gaps + "_bucket", le="0.1", **labels) == 0
    assert 0.1 <= metrics.value("vllm:avg_itl", server=engine.url) < 1
    assert 0.24 <= metrics.value("vllm:avg_decoding_length", server=engine.url) < 2
    assert metrics.value("vllm:input_tokens_total", **labels) == 100
    assert metrics.value("vllm:output_tokens_total", **labels) == 20


def test_answers_tell_their_tokens(world):
    """As a whole, in pieces that cut the usage, and without any."""
    bodies = [b'{"choices":[],' + USAGE % (100, 0) + b',"kv_transfer_params":null}',
              b'{"choices":["' + b"x" * 300000 + b'"],' + USAGE % (1000, 640) + b"}", b"{}"]

    def answer(exchange):
        body = bodies[answer.count]
        answer.count += 1
        cut = body.find(b"completion") + 3
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body[:cut])
        if answer.count == 2:
            time.sleep(0.1)
        exchange.send(body[cut:])

    answer.count = 0
    engine = world.upstream(answer)
    router = world.router([engine.url], "--threads", "1")
    prompt = "p" * 4096
    for number in range(3):
        assert chat(router, prompt).status == 200
    metrics = scrape(router)
    labels = {"server": engine.url, "model": "mock-model"}
    assert metrics.value("vllm:input_tokens_total", **labels) == 1100
    assert metrics.value("vllm:output_tokens_total", **labels) == 40
    assert metrics.value("hashtrie_usage_prompt_tokens_total", **labels) == 1100
    assert metrics.value("hashtrie_usage_cached_tokens_total", **labels) == 640
    # Nothing of the first prompt was held, all but the last chunk of the second one.
    assert 900 < metrics.value("hashtrie_usage_predicted_tokens_total", **labels) <= 1000
    assert metrics.total("hashtrie_time_to_first_token_seconds_count") == 0  # No streams.


def test_decisions_by_engine(world):
    engines = world.engines(2)
    router = world.router(engines, "--threads", "1")
    for _ in range(3):
        chat(router, "q" * 1000)
    metrics = scrape(router)
    family = "vllm:routing_decisions_total"
    assert metrics.types[family] == "counter"
    assert metrics.total(family, algorithm="prefixaware", outcome="no_holder") == 1
    assert metrics.total(family, algorithm="prefixaware", outcome="holder") == 2
    homes = {dict(labels)["server"] for name, labels in metrics.samples if name == family}
    assert len(homes) == 1 and homes <= {engine.url for engine in engines}
