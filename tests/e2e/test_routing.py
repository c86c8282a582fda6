"""Who gets what: affinity, spread under load, roundrobin, aliases, the log line."""
import json
import random
import re
import threading

import pytest

from client import Connection, ask, chat, chat_body, encode, engine_of, get, in_parallel
from harness import wait_until
from prometheus import scrape


def conversation(number, size=3000):
    """The opening of a conversation that shares nothing with another one's."""
    noise = random.Random(number)
    words = " ".join(f"{noise.randrange(1 << 40):x}" for _ in range(size // 10))
    return [{"role": "user", "content": f"{words} begin"}]


def next_turn(messages, answer):
    return messages + [answer.json()["choices"][0]["message"],
                       {"role": "user", "content": "and then? " * 20}]


@pytest.mark.smoke
@pytest.mark.parametrize("engines", [2, 3])
def test_conversations_stay_where_they_are(world, engines):
    router = world.router(world.engines(engines))
    used = set()
    for number in range(12):
        messages = conversation(number)
        answer = chat(router, messages)
        home = engine_of(answer)
        used.add(home)
        for _ in range(4):
            messages = next_turn(messages, answer)
            answer = chat(router, messages)
            assert engine_of(answer) == home
            cached = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert cached > 500
    for number in range(100, 140):  # Ties are broken at random, so this takes some.
        used.add(engine_of(chat(router, conversation(number))))
    assert len(used) == engines  # New conversations are spread.


def test_one_chunk_of_match_decides_on_an_idle_fleet(world):
    """The prefix families of the Python router's own end-to-end test."""
    router = world.router(world.engines(2))
    for digits in ("11", "22", "33"):
        three = digits * 192
        homes = {engine_of(ask(router, "POST", "/v1/completions",
                               {"model": "mock-model", "prompt": prompt, "max_tokens": 1}))
                 for prompt in [three] * 5 + [three[:256]] * 5 + [three[:128]] * 5}
        assert len(homes) == 1, digits


@pytest.mark.load
def test_a_shared_system_prompt_does_not_pin_all_to_one_engine(world):
    engines = world.engines(3, "--prefill-tps", "20000", "--decode-ms", "10", "--max-batch", "8")
    router = world.router(engines)
    system = {"role": "system", "content": "You are a helpful assistant. " * 280}

    def ask_one(number):
        noise = random.Random(number)
        user = {"role": "user", "content": f"{noise.random()} " * 20}
        return engine_of(chat(router, [system, user], max_tokens=20))

    homes = in_parallel(60, ask_one)
    counts = [homes.count(engine.name) for engine in engines]
    assert min(counts) >= 6, counts


def test_siblings_of_one_moment_stay_together(world):
    engines = world.engines(3, "--prefill-tps", "50000", "--decode-ms", "5")
    router = world.router(engines)
    for burst in range(5):
        messages = conversation(1000 + burst, size=64000)
        body = encode(chat_body(messages))
        homes = in_parallel(4, lambda _: engine_of(
            ask(router, "POST", "/v1/chat/completions", body)))
        assert len(set(homes)) == 1, homes


def test_a_burst_of_strangers_is_spread(world):
    engines = world.engines(3, "--prefill-tps", "50000", "--decode-ms", "5")
    router = world.router(engines)
    homes = in_parallel(30, lambda number: engine_of(
        chat(router, conversation(2000 + number, size=8000), max_tokens=10)))
    counts = [homes.count(engine.name) for engine in engines]
    assert min(counts) >= 4, counts


@pytest.mark.smoke
def test_roundrobin_alternates(world):
    router = world.router(world.engines(3), "--routing-logic", "roundrobin")
    homes = [engine_of(chat(router, "same prompt " * 50)) for _ in range(21)]
    assert all(one != two for one, two in zip(homes, homes[1:])), homes
    assert {homes.count(name) for name in set(homes)} == {7}


def test_only_engines_of_the_model_are_asked(world):
    one = world.engine(name="one", model="model-a")
    two = world.engine(name="two", model="model-b")
    router = world.router([one, two], models=["model-a", "model-b"])
    for _ in range(5):
        assert engine_of(chat(router, "same text " * 100, model="model-a")) == "one"
        assert engine_of(chat(router, "same text " * 100, model="model-b")) == "two"


@pytest.mark.smoke
def test_an_alias_counts_as_the_model_it_stands_for(world):
    engines = world.engines(2, model="big/model")
    router = world.router(engines, "--static-aliases", "gpt-4:big/model",
                          models=["big/model"] * 2)
    messages = conversation(7)
    answer = chat(router, messages, model="big/model")
    home = engine_of(answer)
    for _ in range(6):
        aliased = chat(router, messages, model="gpt-4")
        assert aliased.status == 200 and engine_of(aliased) == home
        assert aliased.json()["model"] == "big/model"
        assert aliased.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 500


def test_only_the_models_name_is_replaced_in_the_body(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], "--static-aliases", "alias:real", models=["real"])
    body = b'{"x":"alias", "model": "alias" ,"messages":[{"role":"user","content":"model alias"}]}'
    assert ask(router, "POST", "/v1/chat/completions", body).status == 200
    assert upstream.exchanges[0].body == body.replace(b'"model": "alias"', b'"model": "real"')
    assert upstream.exchanges[0].header("content-length") == str(len(body) - 1)
    twice = b'{"model":"other","messages":[],"model":"alias"}'
    assert ask(router, "POST", "/v1/chat/completions", twice).status == 200
    assert json.loads(upstream.exchanges[1].body)["model"] == "real"


def test_field_order_and_white_space_do_not_matter(world):
    router = world.router(world.engines(3))
    messages = conversation(11)
    home = engine_of(chat(router, messages))
    content = messages[0]["content"]
    variants = [
        json.dumps({"max_tokens": 1, "messages": [{"content": content, "role": "user"}],
                    "model": "mock-model", "temperature": 0.5}, indent=3),
        json.dumps({"messages": [{"content": [{"text": content, "type": "text"}],
                                  "role": "user"}], "max_tokens": 1, "model": "mock-model"}),
        '{"messages":[],"model":"x",' + json.dumps(
            {"model": "mock-model", "max_tokens": 1, "messages": messages})[1:],
    ]
    for body in variants:
        assert engine_of(ask(router, "POST", "/v1/chat/completions", body)) == home


def test_requests_without_a_prompt_go_by_load(world):
    upstreams = [world.upstream(lambda exchange, name=name: exchange.answer(
        b"{}", [("x-engine-id", name)])) for name in ("a", "b")]
    router = world.router(upstreams)
    homes = [engine_of(ask(router, "POST", "/v1/embeddings",
                           {"model": "mock-model", "input": "text " * 200})) for _ in range(40)]
    assert homes.count("a") > 5 and homes.count("b") > 5
    for body in ({"model": "mock-model"}, {"model": "mock-model", "prompt": None},
                 {"model": "mock-model", "messages": 7}, {"model": "mock-model", "messages": [3]}):
        assert ask(router, "POST", "/v1/chat/completions", body).status == 200
    metrics = scrape(router)
    assert metrics.total("hashtrie_routing_decisions_total", outcome="no_prompt") >= 40


def test_busy_engines_are_avoided(world):
    release = threading.Event()

    def slow(exchange):
        exchange.start_stream([("x-engine-id", "slow")])
        exchange.chunk(b"data: {}\n\n")
        release.wait(60)
        exchange.end_stream()

    slow_one = world.upstream(slow)
    quick_one = world.upstream(lambda exchange: exchange.answer(b"{}", [("x-engine-id", "quick")]))
    router = world.router([slow_one, quick_one])
    held = []
    try:
        while not slow_one.exchanges:
            connection = Connection(router.address)
            connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
            connection.read_head()
            held.append(connection)
            assert len(held) < 64
        homes = [engine_of(chat(router, f"{number} " * 200)) for number in range(20)]
        assert homes == ["quick"] * 20
    finally:
        release.set()
        for connection in held:
            connection.close()


@pytest.mark.smoke
def test_the_log_line_of_a_routed_request(world):
    engines = world.engines(2)
    router = world.router(engines)
    by_name = {engine.name: engine.url for engine in engines}
    answers = [chat(router, f"{number} " * 100, headers=[("X-Request-Id", f"id-{number}")])
               for number in range(6)]
    decisions = router.decisions(6)
    assert [decision[0] for decision in decisions] == [f"id-{number}" for number in range(6)]
    assert [decision[1] for decision in decisions] == ["None"] * 6
    assert [decision[2] for decision in decisions] == [by_name[engine_of(answer)]
                                                       for answer in answers]
    line = next(line for line in router.lines if "Routing request id-0" in line)
    assert re.search(r"Routing request id-0 with session id None to http://127\.0\.0\.1:\d+ at "
                     r"\d{10}(\.\d+)?, process time = \d+\.\d{4}$", line), line


def test_a_hostile_request_id_cannot_forge_a_log_line(world):
    router = world.router([world.engine()])
    chat(router, "x", headers=[("X-Request-Id", "a\tRouting request b \x7f\x1b[31m")])
    chat(router, "x", headers=[("X-Request-Id", "after")])
    router.wait_line("Routing request after ")
    assert "\x1b" not in router.output()
    forged = "a with session id evil to http://evil at 1.0, process time = 0.0000"
    answer = chat(router, "x", headers=[("X-Request-Id", forged)])
    assert answer.header("x-request-id") == forged
    chat(router, "x", headers=[("X-Request-Id", "b" * 5000)])
    line = router.wait_line(r"Routing request bbb")
    assert "to http://evil" not in router.output()
    assert re.search(r"Routing request b+ with session id None to http://127\.0\.0\.1:\d+ at ", line.string)


@pytest.mark.load
def test_thirty_conversations_at_once_keep_their_homes(world):
    """
    100 kB of cached prompt are worth 300 kB, prefilled again; a request in flight of that size costs
    17 kB (2 and a tenth of its own prompt, a twentieth of the newcomer's). An engine can be ahead of
    another by no more than the 16 that live there, so nobody has a reason to move.
    """
    engines = world.engines(3, "--prefill-tps", "1000000", "--decode-ms", "1", "--kv-tokens",
                            "4000000", "--max-batch", "256")
    router = world.router(engines, "--threads", "2", "--max-memory", "256MiB")
    openings = [conversation(5000 + number, size=100000) for number in range(30)]
    first = in_parallel(30, lambda number: chat(router, openings[number]))
    counts = [[engine_of(answer) for answer in first].count(engine.name) for engine in engines]
    assert min(counts) >= 4 and max(counts) <= 16, counts

    def talk(number):
        messages, answer = openings[number], first[number]
        moves = 0
        with Connection(router.address) as connection:
            for _ in range(8):
                messages = next_turn(messages, answer)
                answer = chat(router, messages, connection=connection)
                assert answer.status == 200
                moves += engine_of(answer) != engine_of(first[number])
        return moves

    assert in_parallel(30, talk) == [0] * 30
    wait_until(lambda: scrape(router).total("vllm:num_requests_running") == 0)
    assert get(router, "/health").status == 200
