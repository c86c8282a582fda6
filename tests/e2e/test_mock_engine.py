"""The mock engine itself: what the router's tests take for granted."""
import json
import subprocess
import threading

import pytest

from client import (Connection, ask, chat, chat_body, encode, get, in_parallel, request_bytes,
                    sse_events)
from harness import binary, wait_until
from prometheus import scrape

VLLM_METRICS = ["vllm:num_requests_running", "vllm:num_requests_waiting",
                "vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries_total",
                "vllm:prefix_cache_hits_total", "vllm:cache_config_info",
                "process_start_time_seconds", "mock:aborted_requests_total"]


@pytest.mark.smoke
def test_chat_and_completions_as_json(world):
    engine = world.engine(name="e7", model="m")
    answer = chat(engine, "hello " * 100, model="m", max_tokens=3,
                  headers=[("X-Request-Id", "abc")])
    assert answer.status == 200 and answer.header("x-engine-id") == "e7"
    assert answer.header("x-request-id") == "abc"
    body = answer.json()
    assert body["object"] == "chat.completion" and body["model"] == "m"
    assert len(body["choices"][0]["message"]["content"]) == 12
    assert body["choices"][0]["finish_reason"] == "length"
    usage = body["usage"]
    assert usage["completion_tokens"] == 3 and usage["prompt_tokens"] > 150
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    text = ask(engine, "POST", "/v1/completions", {"model": "m", "prompt": "once"}).json()
    assert text["object"] == "text_completion" and text["choices"][0]["finish_reason"] == "stop"
    assert len(text["choices"][0]["text"]) == 64


@pytest.mark.smoke
def test_a_stream_is_the_same_text_with_usage_at_the_end(world):
    engine = world.engine()
    whole = chat(engine, "tell me", max_tokens=5).json()
    answer = chat(engine, "tell me", max_tokens=5, stream=True,
                  stream_options={"include_usage": True})
    assert answer.header("content-type").startswith("text/event-stream")
    events = sse_events(answer.body)
    assert events[-1] == "[DONE]"
    parts = [json.loads(event) for event in events[:-1]]
    assert parts[-1]["choices"] == [] and parts[-1]["usage"]["completion_tokens"] == 5
    text = "".join(part["choices"][0]["delta"]["content"] for part in parts[:-1])
    assert text == whole["choices"][0]["message"]["content"]
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert parts[-2]["choices"][0]["finish_reason"] == "length"
    no_usage = chat(engine, "tell me", max_tokens=5, stream=True)
    assert len(sse_events(no_usage.body)) == 6


def test_the_head_of_a_stream_comes_before_prefill(world):
    engine = world.engine("--prefill-tps", "1000", "--decode-ms", "1")
    with Connection(engine.address) as connection:
        body = chat_body("x" * 4000, stream=True, max_tokens=2)
        connection.send_request("POST", "/v1/chat/completions", body)
        head = connection.read_head()
        assert head.status == 200
        assert scrape(engine).total("vllm:generation_tokens_total") == 0
        assert len(list(connection.chunks())) == 3


def test_the_next_turn_is_cached(world):
    engine = world.engine()
    messages = [{"role": "user", "content": "long ago " * 200}]
    first = chat(engine, messages, max_tokens=40).json()
    messages += [first["choices"][0]["message"], {"role": "user", "content": "go on"}]
    usage = chat(engine, messages).json()["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["prompt_tokens"] + 40 - 32
    metrics = scrape(engine)
    assert metrics.total("vllm:prefix_cache_hits_total") == cached
    assert metrics.total("vllm:prefix_cache_queries_total") > cached


def test_the_cache_is_bounded_and_the_oldest_goes(world):
    engine = world.engine("--kv-tokens", "4096", "--prefill-tps", "1000000", "--decode-ms", "0")
    prompts = [f"{number} " * 4000 for number in range(3)]

    def cached(number):
        usage = chat(engine, prompts[number]).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert cached(0) == 0
    assert cached(0) > 1000
    assert cached(1) == 0 and cached(2) == 0
    assert cached(0) < 200  # What is left is the start of it: the end goes first.
    too_long = chat(engine, "x" * 40000)
    assert too_long.status == 400 and "context length" in too_long.json()["error"]["message"]


def test_the_batch_is_bounded_and_the_rest_waits(world):
    engine = world.engine("--max-batch", "2", "--decode-ms", "20", "--prefill-tps", "1000000")
    threads = [threading.Thread(target=chat, args=(engine, f"q{number}"),
                                kwargs={"max_tokens": 20}) for number in range(5)]
    for thread in threads:
        thread.start()

    def full():
        metrics = scrape(engine)
        running = metrics.total("vllm:num_requests_running")
        assert running <= 2
        return running == 2 and metrics.total("vllm:num_requests_waiting") == 3

    wait_until(full, what="two running, three waiting")
    for thread in threads:
        thread.join()
    metrics = scrape(engine)
    assert metrics.total("vllm:num_requests_running") == 0
    assert metrics.total("vllm:request_success_total") == 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_aborts_its_request(world, stream):
    engine = world.engine("--decode-ms", "1000", "--prefill-tps", "1000000")
    connection = Connection(engine.address)
    connection.send_request("POST", "/v1/chat/completions",
                            chat_body("x", stream=stream, max_tokens=1000))
    wait_until(lambda: scrape(engine).total("vllm:num_requests_running") == 1)
    connection.close()
    wait_until(lambda: scrape(engine).total("mock:aborted_requests_total") == 1)
    assert scrape(engine).total("vllm:num_requests_running") == 0


@pytest.mark.smoke
def test_local_answers(world):
    engine = world.engine("--model", "second", model="first")
    assert get(engine, "/health").status == 200
    assert [model["id"] for model in get(engine, "/v1/models").json()["data"]] == ["first",
                                                                                  "second"]
    assert "version" in get(engine, "/version").json()
    metrics = scrape(engine)
    for name in VLLM_METRICS:
        assert metrics.has(name), name
    assert metrics.value("vllm:num_requests_running", engine="0", model_name="first") == 0
    assert get(engine, "/nowhere").status == 404
    assert get(engine, "/v1/chat/completions").status == 405


@pytest.mark.smoke
@pytest.mark.parametrize("body,status,part", [
    (b"{", 400, "not valid JSON"),
    (b"[1]", 400, "not a JSON object"),
    (b"{}", 400, "'model'"),
    ({"model": "mock-model"}, 400, "'messages'"),
    ({"model": "nobody", "messages": []}, 404, "does not exist"),
    ({"model": "mock-model", "messages": [], "max_tokens": 0}, 400, "max_tokens"),
    ({"model": "mock-model", "messages": [], "max_tokens": "9"}, 400, "max_tokens"),
    (b"[" * 100000, 400, "not valid JSON"),
], ids=["cut", "list", "empty", "no-messages", "model", "zero", "text", "deep"])
def test_bad_bodies_are_refused_as_openai_does(world, body, status, part):
    answer = ask(world.engine(), "POST", "/v1/chat/completions", body)
    assert answer.status == status
    error = answer.json()["error"]
    assert part in error["message"] and error["code"] == status and error["type"]


def test_all_kinds_of_prompts(world):
    engine = world.engine()
    for prompt in ["text", ["a", "b"], [1, 2, 3], [[1, 2], [3]], "日本語 \ud83d\ude00"]:
        body = json.dumps({"model": "mock-model", "prompt": prompt}).encode()
        assert ask(engine, "POST", "/v1/completions", body).status == 200
    tokens = ask(engine, "POST", "/v1/completions",
                 {"model": "mock-model", "prompt": list(range(500))}).json()["usage"]
    assert tokens["prompt_tokens"] == 500
    parts = [{"type": "text", "text": "look"},
             {"type": "image_url", "image_url": {"url": "http://x/y.png"}}]
    assert chat(engine, [{"role": "user", "content": parts}]).status == 200


@pytest.mark.smoke
def test_pipelined_requests_are_answered_in_order(world):
    engine = world.engine()
    with Connection(engine.address) as connection:
        data = b"".join(request_bytes("GET", "/health") + request_bytes(
            "POST", "/v1/chat/completions", encode(chat_body(f"n{number}")),
            [("X-Request-Id", str(number))]) for number in range(50))
        connection.send(data)
        for number in range(50):
            assert connection.read_answer().status == 200
            assert connection.read_answer().header("x-request-id") == str(number)


def test_idle_connections_are_closed(world):
    engine = world.engine("--keep-alive-ms", "50")
    with Connection(engine.address) as connection:
        assert connection.ask("GET", "/health").status == 200
        assert connection.receive() == b""


def test_many_at_once(world):
    engine = world.engine("--max-batch", "500", "--decode-ms", "1", "--prefill-tps", "1000000")
    answers = in_parallel(100, lambda number: chat(engine, f"n {number}", stream=number % 2 == 0))
    assert all(answer.status == 200 for answer in answers)


def test_bad_options_are_refused():
    for arguments in (["--port", "x"], ["--nothing"], ["stray"], ["--decode-ms", "-1"]):
        run = subprocess.run([binary("mock-engine"), *arguments], capture_output=True, text=True)
        assert run.returncode == 2 and "mock-engine" in run.stderr


def test_roles_of_disaggregated_prefill(world):
    prefill = world.engine("--role", "prefill", name="p")
    decode = world.engine("--role", "decode", name="d")
    asked = {"kv_transfer_params": {"do_remote_decode": True}, "max_tokens": 1}
    assert chat(prefill, "x").status == 400  # For nobody.
    assert chat(prefill, "x", **{**asked, "max_tokens": 2}).status == 400
    params = chat(prefill, "hello " * 100, **asked).json()["kv_transfer_params"]
    assert params["do_remote_prefill"] is True and params["remote_engine_id"] == "p"
    assert params["remote_port"] == prefill.port and len(params["remote_block_ids"]) > 2
    assert chat(decode, "hello " * 100).status == 400
    assert chat(decode, "another " * 100, kv_transfer_params=params).status == 400
    short = {**params, "remote_block_ids": params["remote_block_ids"][:-1]}
    assert chat(decode, "hello " * 100, kv_transfer_params=short).status == 400
    for member in ("remote_engine_id", "remote_host", "remote_port", "remote_block_ids"):
        without = {**params, member: None}
        assert chat(decode, "hello " * 100, kv_transfer_params=without).status == 400
    answer = chat(decode, "hello " * 100, kv_transfer_params=params)
    assert answer.json()["choices"] == chat(world.engine(), "hello " * 100).json()["choices"]
