"""load-replay: what it sends, and what it says of the answers."""
import csv
import itertools
import json
import subprocess

import pytest

from client import ask
from harness import binary
from prometheus import scrape


def replay(port, tmp_path, *options, case=("--case", "chat", "--seconds", "20", "--speed", "400")):
    path = tmp_path / "requests.csv"
    run = subprocess.run([binary("load-replay"), "--port", str(port), *case, "--csv", str(path),
                          *options], capture_output=True, text=True, timeout=120, check=True)
    with open(path, encoding="ascii", newline="") as file:
        return json.loads(run.stdout), list(csv.DictReader(file))


@pytest.mark.parametrize("chat", [(), ("--chat",)])
def test_engine_and_load_generator_agree(world, tmp_path, chat):
    engine = world.engine("--prefill-tps", "1e9", "--decode-ms", "0", "--kv-tokens",
                          "1000000", name="e5")
    said, rows = replay(engine.port, tmp_path, *chat)
    metrics = scrape(engine)
    assert said["requests"] == said["complete"] == len(rows) > 50
    assert said["success_rate"] == 1
    assert {row["engine"] for row in rows} == {"e5"} and {row["status"] for row in rows} == {"200"}
    assert said["output_tokens"] == metrics.total("vllm:generation_tokens_total")
    assert said["cached_tokens"] == metrics.total("vllm:prefix_cache_hits_total")
    assert said["output_tokens"] == sum(int(row["generation_tokens"]) for row in rows)
    template = 200 if chat else 0  # Tokens that the chat template adds to a prompt, at most.
    seen = metrics.total("vllm:prompt_tokens_total")
    assert said["prompt_tokens"] <= seen <= said["prompt_tokens"] + template * len(rows)
    # Answers are known beforehand, so that the next round of a conversation finds them cached.
    again = [row for row in rows if int(row["cached_tokens"]) > 0.9 * int(row["prompt_tokens"])]
    assert len(again) > 20
    for row in rows:
        assert float(row["due_time"]) <= float(row["launch_time"]) < float(row["finish_time"])
        assert float(row["ttft"]) > 0


def test_the_same_seed_is_the_same_load(world, tmp_path):
    engine = world.engine("--prefill-tps", "1e9", "--decode-ms", "0")

    def load(seed):
        rows = replay(engine.port, tmp_path, "--seed", str(seed), "--seconds", "4", "--speed",
                      "4000")[1]
        assert len(rows) > 50
        return [(row["due_time"], row["prompt_tokens"], row["generation_tokens"]) for row in rows]
    assert load(1) == load(1) != load(2)


KINDS = itertools.count()


def broken(exchange):
    """Of four requests one gets an error, one half an answer, one no answer, one nothing in time."""
    kind = next(KINDS) % 4
    if kind == 0:
        exchange.answer(b"{}", status="503 Service Unavailable")
    elif kind == 1:
        exchange.start_stream()
        exchange.chunk(b'data: {"choices":[{"text":" abc"}]}\n\n')
        exchange.close()
    elif kind == 2:
        exchange.close()
    else:
        exchange.socket.recv(1)  # Until the load generator gives up.


def test_failures_are_told_apart(world, tmp_path):
    upstream = world.upstream(broken)
    said, rows = replay(upstream.port, tmp_path, "--timeout", "1")
    ends = [row["end"] for row in rows]
    assert said["complete"] == 0 and said["success_rate"] == 0
    for end in ("status", "cut", "refused", "late"):
        assert said[end] == ends.count(end) > 0
    assert {row["status"] for row in rows if row["end"] == "status"} == {"503"}
    assert {row["generation_tokens"] for row in rows if row["end"] == "cut"} == {"1"}


def test_nobody_listens(tmp_path, world):
    engine = world.engine()
    engine.terminate()
    said, rows = replay(engine.port, tmp_path)
    assert said["refused"] == len(rows) == said["requests"] > 0


SHAREGPT = [{"id": "a", "conversations": [
    {"from": "human", "value": "x" * 4000}, {"from": "gpt", "value": "y" * 400},
    {"from": "human", "value": "z" * 40}, {"from": "gpt", "value": "w" * 80}]}] * 2
LINES = [{"messages": [{"role": "user", "content": "\u4f60" * 500},
                       {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                       {"role": "tool", "content": "42"},
                       {"role": "assistant", "content": "forty-two"}]}]


@pytest.mark.parametrize("text,requests", [
    (json.dumps(SHAREGPT), 4), ("\n".join(json.dumps(line) for line in LINES), 2)])
def test_conversations_from_a_file(world, tmp_path, text, requests):
    engine = world.engine("--prefill-tps", "1e9", "--decode-ms", "0", "--kv-tokens", "100000")
    path = tmp_path / "conversations"
    path.write_text(text)
    said, rows = replay(engine.port, tmp_path, "--speed", "1000",
                        case=("--conversations", str(path)))
    assert said["complete"] == requests
    last = max(rows, key=lambda row: float(row["due_time"]))
    assert int(last["cached_tokens"]) > 0.8 * int(last["prompt_tokens"])
    if requests == 4:
        assert sorted(int(row["prompt_tokens"]) for row in rows)[-1] == 1002 + 101 + 12


def test_answers_are_the_text_that_the_seed_names(world):
    engine = world.engine()

    def text(body):
        whole = {"model": "mock-model", "max_tokens": 8, **body}
        return ask(engine, "POST", "/v1/completions", whole).json()["choices"][0]["text"]
    assert text({"prompt": "a", "seed": 7}) == text({"prompt": "b", "seed": 7})
    assert text({"prompt": "a", "seed": 7}) != text({"prompt": "a", "seed": 8})
    assert text({"prompt": "a"}) != text({"prompt": "b"})


@pytest.mark.parametrize("options,words", [
    (("--case", "nonsense"), "there is no such case"),
    (("--case", "mooncake"), "it needs --traces DIR"),
    (("--conversations", "/nonexistent"), "No such file"),
    ((), "usage: load-replay"),
])
def test_what_is_wrong_is_said(options, words):
    run = subprocess.run([binary("load-replay"), "--port", "1", *options], capture_output=True,
                         text=True, check=False)
    assert run.returncode != 0 and words in run.stderr
    assert not run.stderr.startswith("bench-sim: ")  # Whose workloads it sends.
