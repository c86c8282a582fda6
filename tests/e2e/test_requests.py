"""Requests that are refused, and the router's own answers."""
import json

import pytest

from client import Connection, ask, chat, chat_body, get
from harness import wait_until
from prometheus import scrape

NOT_JSON = "Invalid request: request body must be valid JSON."
NOT_OBJECT = "Invalid request: request body must be a JSON object."
NO_MODEL = "Invalid request: missing 'model' in request body."

# COMPAT.md section 5.1 as far as it applies, and the names of the issue.
METRICS = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_prefill_requests": "gauge",
    "vllm:num_decoding_requests": "gauge",
    "vllm:current_qps": "gauge",
    "vllm:healthy_pods_total": "gauge",
    "vllm:num_incoming_requests_total": "counter",
    "vllm:request_errors_total": "counter",
    "vllm:request_latency_seconds": "histogram",
    "hashtrie_memory_bytes": "gauge",
    "hashtrie_memory_budget_bytes": "gauge",
    "hashtrie_nodes": "gauge",
    "hashtrie_chunks": "gauge",
    "hashtrie_evicted_nodes_total": "counter",
    "hashtrie_spilled_nodes_total": "counter",
    "hashtrie_reloaded_nodes_total": "counter",
    "hashtrie_dropped_nodes_total": "counter",
    "hashtrie_store_bytes": "gauge",
    "hashtrie_store_max_bytes": "gauge",
    "hashtrie_checkpoint_seconds": "histogram",
    "hashtrie_restore_seconds": "gauge",
    "hashtrie_route_seconds": "histogram",
    "hashtrie_prompt_bytes_total": "counter",
    "hashtrie_matched_bytes_total": "counter",
    "hashtrie_routing_decisions_total": "counter",
    "hashtrie_store_up": "gauge",
    "hashtrie_store_state": "gauge",
    "hashtrie_store_recovered_total": "counter",
    "hashtrie_checkpoint_failures_total": "counter",
    "hashtrie_last_checkpoint_timestamp_seconds": "gauge",
    "hashtrie_reload_timeouts_total": "counter",
    "hashtrie_warmup_ratio": "gauge",
}


@pytest.mark.smoke
@pytest.mark.parametrize("body,message", [
    (b"", NOT_JSON),
    (b"{", NOT_JSON),
    (b"hello", NOT_JSON),
    (b'{"model":"mock-model",}', NOT_JSON),
    (b'{"model":"mock-model"} x', NOT_JSON),
    (b'{"model":"\xff\xfe"}', NOT_JSON),
    (b"[" * 100000 + b"]" * 100000, NOT_JSON),
    (b"[1, 2]", NOT_OBJECT),
    (b'"text"', NOT_OBJECT),
    (b"null", NOT_OBJECT),
    (b"7", NOT_OBJECT),
    (b"{}", NO_MODEL),
    (b'{"messages":[]}', NO_MODEL),
    (b'{"model":null}', NO_MODEL),
    (b'{"model":""}', NO_MODEL),
], ids=range(15))
def test_bad_bodies(world, body, message):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream])
    with Connection(router.address) as connection:
        answer = connection.ask("POST", "/v1/chat/completions", body, [("X-Request-Id", "r1")])
        assert answer.status == 400
        assert answer.json() == {"error": message}
        assert answer.header("content-type").startswith("application/json")
        assert answer.header("x-request-id") == "r1"
        assert connection.ask("POST", "/v1/chat/completions", chat_body("x")).status == 200
    assert len(upstream.exchanges) == 1


@pytest.mark.smoke
def test_unknown_models_are_404_and_known_ones_without_engine_503(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], "--static-aliases", "known:absent")
    answer = chat(router, "x", model="zzz")
    assert answer.status == 404
    assert answer.json() == {"error": "Model 'zzz' not found. Available models can be listed at "
                                      "/v1/models."}
    assert chat(router, "x", model="MOCK-MODEL").status == 404
    hostile = chat(router, "x", model='a"b\n<script>\u2028')
    assert hostile.status == 404 and 'a"b\n' in hostile.json()["error"]
    assert not upstream.exchanges
    absent = chat(router, "x", model="known")
    assert absent.status in (404, 503) and "error" in absent.json()


def test_bodies_past_the_limit_are_413(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], "--max-body-size", "100KiB")
    assert chat(router, "x" * 90000).status == 200
    with Connection(router.address) as connection:  # Told by its length: no need to send it.
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                        b"Content-Length: 104857600000\r\n\r\n")
        assert connection.read_answer().status == 413
    with Connection(router.address) as connection:
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(30):
                connection.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        except ConnectionError:
            pass  # It may have answered and closed already.
        try:
            assert connection.read_answer().status == 413
        except ConnectionError:
            pass
    assert len(upstream.exchanges) == 1


@pytest.mark.smoke
def test_paths_and_methods(world):
    router = world.router([world.engine()])
    missing = get(router, "/nowhere")
    assert missing.status == 404 and missing.json() == {"detail": "Not Found"}
    for method, path, allowed in (("GET", "/v1/chat/completions", "POST"),
                                  ("POST", "/v1/models", "GET"), ("DELETE", "/health", "GET")):
        answer = ask(router, method, path)
        assert answer.status == 405, (method, path)
        assert answer.json() == {"detail": "Method Not Allowed"}
        assert allowed in answer.header("allow")
    query = ask(router, "POST", "/v1/chat/completions?x=1", chat_body("hello"))
    assert query.status != 404
    assert get(router, "/health?deep=1").status == 200


@pytest.mark.smoke
def test_models(world):
    engines = [world.engine(name="a", model="org/one"), world.engine(name="b", model="org/one"),
               world.engine(name="c", model='odd"name')]
    router = world.router(engines, "--static-aliases", "short:org/one",
                          models=["org/one", "org/one", 'odd"name'])
    listing = get(router, "/v1/models").json()
    assert listing["object"] == "list"
    assert [model["id"] for model in listing["data"]] == ["org/one", 'odd"name']
    for model in listing["data"]:
        assert model["object"] == "model" and model["owned_by"] == "vllm"
        assert isinstance(model["created"], int)
        assert model["root"] is None and model["parent"] is None


@pytest.mark.smoke
def test_health_ready_version(world):
    router = world.router([world.engine()], store=world.store())
    health = get(router, "/health")
    assert health.status == 200 and health.json()["status"] == "healthy"
    assert "store" in health.json()
    assert get(router, "/ready").status == 200
    version = get(router, "/version").json()["version"]
    assert version.count(".") == 2
    assert ask(router, "HEAD", "/health").body == b""


@pytest.mark.smoke
def test_metrics_are_complete_and_parse(world):
    engine = world.engine()
    router = world.router([engine], store=world.store())
    for number in range(5):
        assert chat(router, f"{number} " * 1000).status == 200
    assert chat(router, "0 " * 1000).status == 200
    wait_until(lambda: scrape(router).total("hashtrie_last_checkpoint_timestamp_seconds") > 0, 20,
               "a checkpoint")
    answer = get(router, "/metrics")
    assert answer.header("content-type").startswith("text/plain; version=0.0.4")
    metrics = scrape(router)
    for name, kind in METRICS.items():
        assert metrics.has(name), name
        if metrics.types[name] != kind:
            # Gauges that the Python router calls so although they only rise may be counters.
            assert {metrics.types[name], kind} == {"gauge", "counter"}, (name, metrics.types[name])
    for tier in ("hot", "cold"):
        assert metrics.value("hashtrie_nodes", tier=tier) >= 0
        assert metrics.value("hashtrie_chunks", tier=tier) >= 0
    assert metrics.value("hashtrie_nodes", tier="hot") > 0
    assert metrics.total("hashtrie_prompt_bytes_total") >= 6 * 2000
    assert metrics.total("hashtrie_matched_bytes_total") >= 1900
    assert metrics.total("hashtrie_routing_decisions_total") == 6
    assert metrics.total("hashtrie_routing_decisions_total", policy="prefixaware") == 6
    assert metrics.total("hashtrie_route_seconds_count") == 6
    assert metrics.total("vllm:request_latency_seconds_count", status="success") == 6
    assert metrics.value("vllm:num_incoming_requests_total", model="mock-model") == 6
    assert metrics.value("vllm:num_requests_running", server=engine.url) == 0
    assert metrics.value("vllm:healthy_pods_total", server=engine.url) == 1
    assert 0 < metrics.total("hashtrie_memory_bytes") <= metrics.total(
        "hashtrie_memory_budget_bytes")
    assert metrics.total("hashtrie_store_up") == 1
    wait_until(lambda: scrape(router).value("hashtrie_nodes", tier="cold") > 0)
    later = scrape(router)
    assert later.total("hashtrie_last_checkpoint_timestamp_seconds") > 1.7e9
    assert later.total("hashtrie_store_bytes") > 0
    assert later.total("hashtrie_checkpoint_seconds_count") >= 1


def test_unknown_models_cannot_flood_the_metrics(world):
    router = world.router([world.engine()])
    with Connection(router.address) as connection:
        for number in range(300):
            assert chat(router, "x", connection=connection, model=f"m{number}").status == 404
    size = len(get(router, "/metrics").body)
    assert size < 100000
    assert scrape(router).total("vllm:num_incoming_requests_total") == 300


@pytest.mark.parametrize("path,body", [
    ("/v1/completions", {"prompt": "text"}),
    ("/v1/completions", {"prompt": ["a", "b"]}),
    ("/v1/completions", {"prompt": [1, 2, 3]}),
    ("/v1/completions", {"prompt": [[1, 2], [3]]}),
    ("/v1/completions", {"prompt": {"odd": 1}}),
    ("/v1/completions", {"prompt": 7}),
    ("/v1/completions", {}),
    ("/v1/chat/completions", {"messages": None}),
    ("/v1/chat/completions", {"messages": "text"}),
    ("/v1/chat/completions", {"messages": [None, 1, "x", [], {}]}),
    ("/v1/chat/completions", {"messages": [{"role": 1, "content": {"a": None}}]}),
    ("/v1/chat/completions", {"messages": [{"content": [{"type": "text", "text": None}, 5]}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": "none"}),
    ("/v1/chat/completions", {"messages": [], "stream": "yes", "cache_salt": {"a": [1]}}),
], ids=range(14))
def test_no_body_makes_the_router_fail(world, path, body):
    upstream = world.upstream(lambda exchange: exchange.answer(b"ok"))
    router = world.router([upstream])
    raw = json.dumps({"model": "mock-model", **body}).encode()
    answer = ask(router, "POST", path, raw)
    assert answer.status == 200 and answer.body == b"ok"
    assert upstream.exchanges[0].body == raw


def test_lone_surrogates_and_huge_numbers_are_routed(world):
    upstream = world.upstream(lambda exchange: exchange.answer(b"ok"))
    router = world.router([upstream])
    for content in (b'"\\ud800"', b'"\\udc00x\\ud800"', b'"\\ud83d\\ude00"', b"1e999", b'"\\u0000"'):
        body = (b'{"model":"mock-model","messages":[{"role":"user","content":' + content + b"}]}")
        assert ask(router, "POST", "/v1/chat/completions", body).status == 200
        assert upstream.exchanges[-1].body == body
