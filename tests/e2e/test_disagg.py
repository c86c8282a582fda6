"""Disaggregated prefill: one engine computes the prompt, another one fetches that and answers."""
import json
import threading
import time
from collections import Counter

import pytest

from client import (Connection, ask, chat, chat_body, engine_of, in_parallel,
                    sse_events)
from harness import wait_until
from prometheus import scrape
from test_failures import idle, refused_url
from test_traces import Collector, attributes

CHAT = "/v1/chat/completions"
PARAMS = {"do_remote_prefill": True, "remote_engine_id": "p", "remote_block_ids": [1, 2],
          "remote_host": "10.9.8.7", "remote_port": 5600}
ASKED = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None,
         "remote_block_ids": None, "remote_host": None, "remote_port": None}
FAST = ("--prefill-tps", "1000000", "--fetch-tps", "4000000", "--decode-ms", "1")


def prefilled(params=None, **members):
    return json.dumps({"choices": [], "kv_transfer_params": params or PARAMS, **members}).encode()


def pair(world, prefill, decode, *arguments, others=(), **options):
    """A router before engines (or URLs) that prefill, and others that decode."""
    labels = ["prefill"] * len(prefill) + ["decode"] * len(decode) + ["default"] * len(others)
    return world.router([*prefill, *decode, *others], "--routing-logic",
                        "disaggregated_prefill_orchestrated", "--static-model-labels",
                        ",".join(labels), "--prefill-model-labels", "prefill",
                        "--decode-model-labels", "decode", *arguments, **options)


def mock_pair(world, prefill_count, decode_count, *arguments, **options):
    prefill = [world.engine("--role", "prefill", *FAST, name=f"p{number}")
               for number in range(prefill_count)]
    decode = [world.engine("--role", "decode", *FAST, name=f"d{number}")
              for number in range(decode_count)]
    return prefill, decode, pair(world, prefill, decode, *arguments, **options)


def fake_pair(world, prefill=None, decode=None, *arguments, **options):
    """The same with one fake engine each."""
    prefill = world.upstream(prefill or (lambda exchange: exchange.answer(prefilled())))
    decode = world.upstream(decode or (lambda exchange: exchange.answer(b'{"from":"decode"}')))
    return prefill, decode, pair(world, [prefill], [decode], *arguments, **options)


def generated(engines):
    return [int(scrape(engine).total("vllm:generation_tokens_total")) for engine in engines]


# ---- Answers ----


@pytest.mark.smoke
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_the_answer_is_the_one_that_a_lone_engine_gives(world, stream):
    alone = world.engine()
    prefill, decode, router = mock_pair(world, 1, 1)
    fields = {"stream": stream, "max_tokens": 9}
    if stream:
        fields["stream_options"] = {"include_usage": True}
    for text in ("short", "long " * 2000):
        expected = chat(alone, text, **fields)
        answer = chat(router, text, **fields)
        assert answer.status == 200 and engine_of(answer) == "d0"
        if stream:
            pick = lambda a: [json.loads(event)["choices"] for event in sse_events(a.body)[:-1]]
            assert pick(answer) == pick(expected) and len(pick(answer)) == 10
        else:
            assert answer.json()["choices"] == expected.json()["choices"]
    assert generated(prefill) == [2] and generated(decode) == [18]
    assert idle(router)


def test_two_lines_of_the_log_name_two_engines(world):
    prefill, decode, router = mock_pair(world, 1, 1)
    for number in range(3):
        chat(router, f"prompt {number}", headers=[("X-Request-Id", f"r{number}")])
    lines = router.decisions(6)
    assert [(request, url) for request, _, url in lines] == [
        (f"r{number}", engine.url) for number in range(3) for engine in (prefill[0], decode[0])]
    line = router.wait_line("Request ended id=r2 .*").group(0)
    assert f"endpoint={decode[0].url}" in line and f"prefill_endpoint={prefill[0].url}" in line
    assert "end=complete" in line and "prefill_seconds=" in line
    assert len(router.find_lines("Routing request")) == 6


def test_the_first_name_is_an_alias_of_the_second(world):
    prefill = world.engine("--role", "prefill", *FAST)
    decode = world.engine("--role", "decode", *FAST, name="d")
    router = world.router([prefill, decode], "--routing-logic", "disaggregated_prefill",
                          "--static-model-labels", "prefill,decode", "--prefill-model-labels",
                          "prefill", "--decode-model-labels", "decode", "--session-key", "x-user-id",
                          "--static-model-types", "chat,chat")
    router.wait_line("disaggregated_prefill is taken as disaggregated_prefill_orchestrated")
    assert engine_of(chat(router, "x", headers=[("x-user-id", "u")])) == "d"
    assert [session for _, session, _ in router.decisions(2)] == ["u", "u"]


def test_tokens_go_on_one_by_one(world):
    def decode(exchange):
        exchange.start_stream()
        for number in range(3):
            exchange.chunk(b"data: {\"n\":%d}\n\n" % number)
            assert go_on.acquire(timeout=20)
        exchange.end_stream()

    go_on = threading.Semaphore(0)
    _, _, router = fake_pair(world, None, decode)
    with Connection(router.address) as connection:
        connection.send_request("POST", CHAT, chat_body("x", stream=True))
        assert connection.read_head().header("content-type").startswith("text/event-stream")
        chunks = connection.chunks()
        for number in range(3):  # Each comes while the engine waits with the next.
            assert next(chunks) == b"data: {\"n\":%d}\n\n" % number
            go_on.release()
        assert list(chunks) == []


# ---- What engines get ----


@pytest.mark.smoke
def test_what_the_engines_are_sent(world):
    prefill, decode, router = fake_pair(world)
    body = {"model": "mock-model", "max_tokens": 100, "min_tokens": 5, "temperature": 0.5,
            "messages": [{"role": "user", "content": "h\u00e9 \"max_tokens\":3"}], "stream": True,
            "max_completion_tokens": 50, "stream_options": {"include_usage": True}, "seed": 1e-7}
    headers = [("Authorization", "Bearer k"), ("X-Request-Id", "r1"), ("X-Tenant", "t"),
               ("Accept-Encoding", "gzip")]
    answer = ask(router, "POST", CHAT + "?a=b", body, headers)
    assert answer.json() == {"from": "decode"} and answer.header("x-request-id") == "r1"
    (first,), (second,) = prefill.exchanges, decode.exchanges
    kept = {name: value for name, value in body.items()
            if name not in ("max_completion_tokens", "min_tokens", "stream_options")}
    assert json.loads(first.body) == {**kept, "max_tokens": 1, "stream": False,
                                      "kv_transfer_params": ASKED}
    sent = json.dumps(body).encode()
    assert second.body.startswith(sent[:-1])  # As it came, byte for byte.
    assert json.loads(second.body) == {**body, "kv_transfer_params": PARAMS}
    for exchange in (first, second):
        assert exchange.request_line == f"POST {CHAT}?a=b HTTP/1.1"
        assert exchange.header("authorization") == "Bearer k" and exchange.header("x-tenant") == "t"
        assert exchange.header("x-request-id") == "r1"
    assert first.header("accept-encoding") is None and second.header("accept-encoding") == "gzip"


@pytest.mark.parametrize("given, expected", [
    ({"remote_host": "10.9.8.7"}, "10.9.8.7"), ({"remote_host": None}, "127.0.0.1"),
    ({"remote_host": "localhost"}, "127.0.0.1"), ({"remote_host": "0.0.0.0"}, "127.0.0.1"),
    ({"remote_port": 1}, "127.0.0.1")])
def test_the_host_is_the_prefill_engines_where_it_gives_none(world, given, expected):
    _, decode, router = fake_pair(world, lambda exchange: exchange.answer(prefilled(given)))
    assert chat(router, "x").status == 200
    sent = json.loads(decode.exchanges[0].body)["kv_transfer_params"]
    assert sent == {**given, "remote_host": expected}


@pytest.mark.parametrize("body, prefill_body, decode_body", [
    ('{"model":"mock-model","prompt":"x","stream":true,"stream":false,"kv_transfer_params":'
     '{"remote_host":"evil"}}', {"prompt": "x"}, {"prompt": "x", "stream": False}),
    ('{"str\\u0065am":true,"prompt":"a","model":"mock-model","max_tokens":7,"prompt":"b"}',
     {"prompt": "b"}, {"stream": True, "max_tokens": 7, "prompt": "b"}),
    (' {"model" : "mock-model" , "kv_transfer_params":null, "n":[1,{"stream":true}] } \n',
     {"n": [1, {"stream": True}]}, {"n": [1, {"stream": True}]}),
])
def test_hostile_bodies(world, body, prefill_body, decode_body):
    prefill, decode, router = fake_pair(world)
    assert ask(router, "POST", "/v1/completions", body).status == 200
    own = {"model": "mock-model"}
    assert json.loads(prefill.exchanges[0].body) == {
        **own, **prefill_body, "max_tokens": 1, "stream": False, "kv_transfer_params": ASKED}
    assert json.loads(decode.exchanges[0].body) == {
        **own, **decode_body, "kv_transfer_params": PARAMS}
    for exchange in (prefill.exchanges[0], decode.exchanges[0]):
        pairs = json.loads(exchange.body, object_pairs_hook=list)
        assert [name for name, _ in pairs].count("kv_transfer_params") == 1


def test_a_body_with_a_member_in_too_many_places_is_refused(world):
    prefill, _, router = fake_pair(world)
    body = '{"model":"mock-model","prompt":"x"' + ',"stream":true,"a":1' * 100 + "}"
    answer = ask(router, "POST", "/v1/completions", body)
    assert answer.status == 400 and "too often" in answer.json()["error"]
    assert not prefill.exchanges


def test_a_large_body_goes_to_both(world):
    _, decode, router = mock_pair(world, 1, 1, "--max-body-size", "32MiB")
    answer = chat(router, "word " * 2_000_000, max_tokens=1)
    assert answer.status == 400  # More than the mock engine's cache holds.
    answer = chat(router, [{"role": "user", "content": "word " * 50_000}], max_tokens=1,
                  pad="x" * 8_000_000)
    assert answer.status == 200 and engine_of(answer) == decode[0].name


def test_an_alias_is_replaced_in_both_bodies(world):
    prefill, decode, router = fake_pair(world, None, None, "--static-aliases", "a:mock-model")
    body = '{"max_tokens":3,"model":"a","prompt":"x","stream":true,"model":"a"}'
    assert ask(router, "POST", "/v1/completions", body).status == 200
    for exchange in (prefill.exchanges[0], decode.exchanges[0]):
        assert json.loads(exchange.body)["model"] == "mock-model"
        assert exchange.body.count(b'"mock-model"') == 2 and b'"a"' not in exchange.body
    assert json.loads(prefill.exchanges[0].body)["max_tokens"] == 1


@pytest.mark.parametrize("params", [None, "none"])
def test_without_kv_transfer_params_decode_prefills_by_itself(world, params):
    body = b"{}" if params is None else b'{"kv_transfer_params":null}'
    _, decode, router = fake_pair(world, lambda exchange: exchange.answer(body))
    assert chat(router, "x", kv_transfer_params={"remote_host": "evil"}).status == 200
    assert json.loads(decode.exchanges[0].body)["kv_transfer_params"] is None
    assert scrape(router).total("hashtrie_prefills_unused_total") == 1
    router.wait_line("says nothing of where the KV cache is")


# ---- Which engines ----


def test_conversations_stay_at_their_prefill_engine_and_load_spreads(world):
    prefill, decode, router = mock_pair(world, 3, 3)
    homes = {}
    for turn in range(1, 5):
        for user in range(12):
            chat(router, f"user {user} says " + "again " * 200 * turn,
                 headers=[("X-Request-Id", f"{user}.{turn}")])
    for request, _, url in router.decisions(2 * 48):
        homes.setdefault((request.split(".")[0], url in [e.url for e in decode]), set()).add(url)
    assert all(len(urls) == 1 for urls in homes.values())  # Of decode engines, too, when idle.
    used = Counter(url for urls in homes.values() for url in urls)
    assert set(used) == {engine.url for engine in prefill + decode}
    for engine in prefill:  # Later turns were found in their caches.
        metrics = scrape(engine)
        assert metrics.total("vllm:prefix_cache_hits_total") > 0
    metrics = scrape(router)
    assert metrics.value("hashtrie_routing_decisions_total", policy="prefill",
                         outcome="holder") == 36
    assert metrics.value("hashtrie_routing_decisions_total", policy="decode",
                         outcome="no_holder") == 12


def test_decode_engines_share_what_one_prefix_brings(world):
    """All prompts begin alike, and the first decode engine holds that: the others help."""
    release = threading.Event()

    def decode(exchange):
        release.wait(20)
        exchange.answer(b"{}")

    prefill = world.upstream(lambda exchange: exchange.answer(prefilled()))
    decoders = [world.upstream(decode) for _ in range(3)]
    router = pair(world, [prefill], decoders)

    def counts():
        return [len(upstream.exchanges) for upstream in decoders]

    threads = [threading.Thread(target=chat, args=(router, "alike " * 4000 + str(number)))
               for number in range(12)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        wait_until(lambda: sum(counts()) == number)
    assert min(counts()) >= 2
    release.set()
    for thread in threads:
        thread.join()
    assert idle(router)


def test_labels_match_as_a_whole(world):
    engines = [world.engine(*FAST, name=name) for name in ("p", "x", "y", "d")]
    router = world.router(engines, "--routing-logic", "disaggregated_prefill",
                          "--static-model-labels", "prefill,pre,prefill-2,decode",
                          "--prefill-model-labels", "prefill", "--decode-model-labels",
                          "decode,decoder")
    for number in range(12):
        assert engine_of(chat(router, f"{number} " * 50)) == "d"
    assert generated(engines) == [12, 0, 0, 48]


def test_one_engine_may_do_both(world):
    engines = [world.engine(*FAST, name=f"e{number}") for number in range(2)]
    router = world.router(engines, "--routing-logic", "disaggregated_prefill",
                          "--static-model-labels", "both,both", "--prefill-model-labels", "both",
                          "--decode-model-labels", "both", "--max-requests-per-backend", "1")
    answers = in_parallel(10, lambda number: chat(router, f"{number} " * 50))
    assert {answer.status for answer in answers} == {200} and idle(router)


def test_other_paths_and_models_go_to_one_engine(world):
    plain = world.upstream(lambda exchange: exchange.answer(b'{"from":"plain"}'))
    prefill = world.upstream(lambda exchange: exchange.answer(prefilled()))
    decode = world.upstream(lambda exchange: exchange.answer(b'{"from":"decode"}'))
    router = pair(world, [prefill], [decode], others=[plain], models=["m", "m", "other"])
    assert chat(router, "x", model="other").json() == {"from": "plain"}
    assert json.loads(plain.exchanges[0].body) == chat_body("x", model="other")
    for path in ("/v1/embeddings", "/tokenize", "/v1/responses", "/v1/messages"):
        assert ask(router, "POST", path, {"model": "m", "input": "x"}).json() == {"from": "decode"}
    assert not prefill.exchanges


@pytest.mark.parametrize("has", ["prefill", "decode"])
def test_without_engines_of_a_kind_the_answer_is_the_python_routers(world, has):
    engine = world.upstream(lambda exchange: exchange.answer(prefilled()))
    router = pair(world, [engine] if has == "prefill" else [],
                  [engine] if has == "decode" else [])
    router.wait_line("no backend has a label of")
    answer = chat(router, "x")
    missing = "DECODE" if has == "prefill" else "PREFILL"
    assert answer.status == 503 and answer.json() == {
        "detail": f"{missing}_SERVICE_UNAVAILABLE: No {missing.lower()} endpoints discovered"}
    assert not engine.exchanges  # Nothing is prefilled for nobody.


# ---- Failures ----


def bad_prefill(kind):
    def handler(exchange):
        if kind == "closes":
            exchange.close()
        elif kind == "503":
            exchange.answer(b'{"error":"no"}', status="503 No")
        elif kind == "no json":
            exchange.answer(b'{"kv_transfer_params":{}')
        elif kind == "half":
            exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"kv')
            exchange.close()
        elif kind == "head":
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            exchange.close()
        elif kind == "large":
            exchange.answer(b'{"x":"' + b"x" * (1 << 20) + b'"}')
    return handler


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["refuses", "closes", "503", "no json", "half", "large"])
def test_a_failed_prefill_goes_to_another_prefill_engine(world, kind):
    good = world.upstream(lambda exchange: exchange.answer(prefilled()))
    decode = world.upstream(lambda exchange: exchange.answer(b'{"from":"decode"}'))
    holder, url = refused_url()
    with holder:
        bad = url if kind == "refuses" else world.upstream(bad_prefill(kind))
        router = pair(world, [bad, good], [decode], "--eject-after-failures", "off")
        for number in range(12):
            answer = chat(router, f"{number} " * 100)
            assert answer.status == 200 and answer.json() == {"from": "decode"}
    assert len(good.exchanges) == len(decode.exchanges) == 12
    assert scrape(router).total("vllm:request_errors_total", server=getattr(bad, "url", bad)) > 0
    assert idle(router)
    routed = Counter(request for request, _, _ in router.decisions(24))
    assert len(routed) == 12 and set(routed.values()) == {2}  # Retries are logged otherwise.


@pytest.mark.parametrize("kind, status", [("closes", 502), ("503", 503), ("no json", 502)])
def test_if_no_prefill_engine_will_do_nothing_is_decoded(world, kind, status):
    prefill, decode, router = fake_pair(world, bad_prefill(kind))
    answer = chat(router, "x")
    assert answer.status == status and not decode.exchanges and idle(router)
    if kind == "503":
        assert answer.json() == {"error": "no"}


def test_an_error_of_the_prefill_engine_is_the_clients(world):
    body = b'{"error":{"message":"too long","type":"BadRequestError","code":400}}'
    prefill, decode, router = fake_pair(
        world, lambda exchange: exchange.answer(body, status="400 Bad Request"))
    with Connection(router.address) as connection:
        for _ in range(2):
            answer = chat(router, "x", connection=connection, stream=True)
            assert answer.status == 400 and answer.body == body
    assert len(prefill.exchanges) == 2 and not decode.exchanges and idle(router)


@pytest.mark.smoke
def test_a_decode_engine_that_never_had_the_request_is_replaced(world):
    """It cannot have fetched anything: the same parameters are good for another one."""
    prefill = world.upstream(lambda exchange: exchange.answer(prefilled()))
    good = world.upstream(lambda exchange: exchange.answer(b'{"from":"good"}'))
    holder, url = refused_url()
    with holder:
        router = pair(world, [prefill], [url, good], "--eject-after-failures", "off")
        for number in range(12):
            assert chat(router, f"{number} " * 100).json() == {"from": "good"}
        assert len(prefill.exchanges) == 12
        assert scrape(router).total("hashtrie_retries_total") > 0
        assert idle(router)


@pytest.mark.parametrize("kind", ["closes", "head", "503"])
def test_a_decode_engine_that_had_it_is_replaced_after_another_prefill(world, kind):
    numbers = iter(range(1000))

    def handler(exchange):
        exchange.answer(prefilled({"remote_host": "h", "remote_block_ids": [next(numbers)]}))

    prefill = world.upstream(handler)
    bad = world.upstream(bad_prefill(kind))
    good = world.upstream(lambda exchange: exchange.answer(b'{"from":"good"}'))
    router = pair(world, [prefill], [bad, good], "--eject-after-failures", "off")
    answers = [chat(router, f"{number} " * 100) for number in range(12)]
    assert {answer.status for answer in answers} == {200}
    tried = len(bad.exchanges)
    assert tried > 0 and len(good.exchanges) == 12
    assert len(prefill.exchanges) == 12 + tried
    blocks = [json.loads(exchange.body)["kv_transfer_params"]["remote_block_ids"]
              for exchange in bad.exchanges + good.exchanges]
    assert len(blocks) == len({block[0] for block in blocks})  # Each set was used once.
    assert idle(router)
    assert len(router.find_lines("Routing request")) == 24


def test_a_kept_connection_that_decode_has_closed_costs_a_prefill_and_no_error(world):
    def decode(exchange):
        if exchange.number == 1:
            exchange.close()  # The second request on it has been read: was anything fetched?
        else:
            exchange.answer(b"{}")

    prefill, decoder, router = fake_pair(world, None, decode, "--threads", "1")
    for number in range(6):
        assert chat(router, f"{number}").status == 200
    assert scrape(router).total("vllm:request_errors_total") == 0
    resends = int(scrape(router).total("hashtrie_resends_total"))
    assert resends > 0 and len(prefill.exchanges) == 6 + resends and idle(router)


def test_if_no_decode_engine_will_do_the_client_is_told(world):
    _, decode, router = fake_pair(world, None, lambda exchange: exchange.close())
    answer = chat(router, "x")
    assert answer.status == 502 and len(decode.exchanges) == 1 and idle(router)


def test_a_stream_that_decode_cuts_is_cut(world):
    def decode(exchange):
        exchange.start_stream()
        exchange.chunk(b"data: 1\n\n")
        exchange.close()

    prefill, decoder, router = fake_pair(world, None, decode)
    with Connection(router.address) as connection:
        connection.send_request("POST", CHAT, chat_body("x", stream=True))
        connection.read_head()
        chunks = connection.chunks()
        assert next(chunks) == b"data: 1\n\n"
        assert next(chunks).startswith(b"event: error\n")
        with pytest.raises(EOFError):
            next(chunks)
    assert len(prefill.exchanges) == len(decoder.exchanges) == 1 and idle(router)


def test_tries_are_counted_for_each_step(world):
    prefill = [world.upstream(bad_prefill("closes")) for _ in range(4)]
    decode = world.upstream(lambda exchange: exchange.answer(b"{}"))
    router = pair(world, prefill, [decode], "--max-instance-failover-reroute-attempts", "1",
                  "--eject-after-failures", "off")
    assert chat(router, "x").status == 502
    assert sum(len(upstream.exchanges) for upstream in prefill) == 2 and not decode.exchanges


# ---- Time ----


@pytest.mark.parametrize("step", ["prefill", "decode"])
def test_an_engine_that_says_nothing_is_given_up(world, step):
    gone = []

    def silent(exchange):
        gone.append(exchange)
        assert exchange.socket.recv(1) == b""

    _, _, router = fake_pair(world, silent if step == "prefill" else None,
                             silent if step == "decode" else None, "--first-byte-timeout", "300ms")
    assert chat(router, "x").status == 504
    assert gone and idle(router)
    assert scrape(router).total("vllm:request_errors_total", error_type="FirstByteTimeout") == 1


def test_a_prefill_answer_that_stops_in_the_middle_is_given_up(world):
    def stops(exchange):
        exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"kv')
        assert exchange.socket.recv(1) == b""

    good = world.upstream(lambda exchange: exchange.answer(prefilled()))
    bad = world.upstream(stops)
    decode = world.upstream(lambda exchange: exchange.answer(b"{}"))
    router = pair(world, [bad, good], [decode], "--idle-timeout", "300ms")
    for number in range(6):
        assert chat(router, f"{number} " * 100).status == 200
    assert bad.exchanges and idle(router)


@pytest.mark.smoke
@pytest.mark.parametrize("step", ["prefill", "decode", "stream"])
def test_a_client_that_leaves_ends_the_engines_work(world, step):
    reached = threading.Event()

    def hold(exchange):
        if step == "stream":
            exchange.start_stream()
            exchange.chunk(b"data: 1\n\n")
        reached.set()
        assert exchange.socket.recv(1) == b""

    prefill, decode, router = fake_pair(world, hold if step == "prefill" else None,
                                        None if step == "prefill" else hold)
    connection = Connection(router.address)
    connection.send_request("POST", CHAT, chat_body("x", stream=step == "stream"))
    assert reached.wait(20)
    if step == "stream":
        connection.read_head()
    connection.close()
    (at,) = prefill.exchanges if step == "prefill" else decode.exchanges
    assert at.wait_gone()
    assert len(decode.exchanges) == (0 if step == "prefill" else 1)
    wait_until(lambda: idle(router))
    assert scrape(router).total("hashtrie_running_requests") == 0
    assert scrape(router).total("hashtrie_cancelled_requests_total") == 1


def test_a_client_that_leaves_while_it_waits_for_decode(world):
    release = threading.Event()

    def hold(exchange):
        release.wait(20)
        exchange.answer(b"{}")

    prefill, decode, router = fake_pair(world, None, hold, "--max-requests-per-backend", "1")
    first = threading.Thread(target=chat, args=(router, "first"))
    first.start()
    wait_until(lambda: decode.exchanges)
    connection = Connection(router.address)
    connection.send_request("POST", CHAT, chat_body("second"))
    wait_until(lambda: scrape(router).total("hashtrie_queued_requests") == 1)
    assert len(prefill.exchanges) == 2  # It has been prefilled, and waits for its place at decode.
    connection.close()
    wait_until(lambda: scrape(router).total("hashtrie_queued_requests") == 0)
    release.set()
    first.join()
    wait_until(lambda: idle(router))
    assert scrape(router).total("hashtrie_running_requests") == 0 and len(decode.exchanges) == 1


# ---- Limits ----


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", [("--max-requests", "2"), ("--max-requests-per-backend", "1"),
                                   ("--max-requests", "3", "--max-requests-per-backend", "2")])
def test_a_request_counts_once_and_none_is_lost(world, threads, limit):
    at_once = [0, 0]
    lock = threading.Lock()

    def handler(body):
        def handle(exchange):
            with lock:
                at_once[0] += 1
                at_once[1] = max(at_once)
            time.sleep(0.01)  # Work.
            with lock:
                at_once[0] -= 1
            exchange.answer(body)
        return handle

    prefill = [world.upstream(handler(prefilled())) for _ in range(2)]
    decode = [world.upstream(handler(b"{}")) for _ in range(2)]
    router = pair(world, prefill, decode, "--threads", threads, *limit)
    answers = in_parallel(24, lambda number: chat(router, f"{number} " * 60))
    assert {answer.status for answer in answers} == {200}
    metrics = scrape(router)
    assert metrics.total("hashtrie_running_requests") == 0
    assert metrics.total("hashtrie_queued_requests") == 0 and idle(router)
    assert at_once[1] <= {"2": 2, "1": 4, "3": 3}[limit[1]]
    assert metrics.total("vllm:num_incoming_requests_total") == 24


def test_one_place_is_enough_for_both_steps(world):
    prefill, decode, router = fake_pair(world, None, None, "--max-requests", "1",
                                        "--max-queued-requests", "0", "--threads", "1")
    for number in range(5):
        assert chat(router, f"{number}").status == 200
    assert len(prefill.exchanges) == len(decode.exchanges) == 5


# ---- What is told ----


def test_metrics_and_spans(world):
    collector = Collector(world)
    prefill, decode, router = mock_pair(world, 1, 1, "--otel-endpoint", collector.url)
    for _ in range(2):
        chat(router, "hello " * 100)
    wait_until(lambda: scrape(router).total("vllm:request_latency_seconds_count") == 4)
    metrics = scrape(router)
    for engine in (prefill[0], decode[0]):
        assert metrics.value("vllm:request_latency_seconds_count", server=engine.url,
                             model="mock-model", status="success") == 2
    assert metrics.value("vllm:num_incoming_requests_total", model="mock-model") == 2
    assert 0 < metrics.total("hashtrie_matched_bytes_total") < metrics.total(
        "hashtrie_prompt_bytes_total")
    told = attributes(collector.wait(2)[1])
    assert told["hashtrie.endpoint"] == decode[0].url
    assert told["hashtrie.prefill_endpoint"] == prefill[0].url
    assert told["hashtrie.prefill_decision"] == "holder"


def test_prefill_and_decode_load_are_told_apart(world):
    reached = {"prefill": threading.Event(), "decode": threading.Event()}
    go_on = {"prefill": threading.Event(), "decode": threading.Event()}

    def hold(step, body):
        def handle(exchange):
            reached[step].set()
            go_on[step].wait(20)
            exchange.answer(body)
        return handle

    prefill, decode, router = fake_pair(world, hold("prefill", prefilled()), hold("decode", b"{}"))
    asking = threading.Thread(target=chat, args=(router, "hello " * 1000))
    asking.start()
    for step, engine, other in (("prefill", prefill, decode), ("decode", decode, prefill)):
        assert reached[step].wait(20)
        metrics = scrape(router)
        busy = "vllm:num_prefill_requests" if step == "prefill" else "vllm:num_decoding_requests"
        assert metrics.value(busy, server=engine.url) == 1
        assert metrics.value("vllm:num_requests_running", server=engine.url) == 1
        assert metrics.value("vllm:num_requests_running", server=other.url) == 0
        assert metrics.total("hashtrie_running_requests") == 1
        go_on[step].set()
    asking.join()
    assert idle(router)


# ---- All at once ----


@pytest.mark.parametrize("threads", [1, 2])
def test_many_clients_two_threads_and_engines_that_die(world, threads):
    prefill, decode, router = mock_pair(world, 2, 3, "--threads", threads)
    alone = world.engine()
    expected = [chat(alone, f"{number} " * 200).json()["choices"] for number in range(16)]
    killed = threading.Event()

    def talk(number):
        with Connection(router.address) as connection:
            for turn in range(12):
                if number == 0 and turn == 4:
                    decode[2].kill()
                    prefill[1].kill()
                    killed.set()
                try:
                    answer = chat(router, f"{number} " * 200, connection=connection)
                except EOFError:
                    assert killed.is_set()  # Its answer had begun.
                    return False
                assert answer.status == 200 and answer.json()["choices"] == expected[number]
            return True

    done = in_parallel(16, talk)
    assert sum(done) >= 14 and idle(router)
    world.things = [thing for thing in world.things if thing not in (decode[2], prefill[1])]
    assert scrape(router).total("hashtrie_running_requests") == 0
