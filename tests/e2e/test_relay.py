"""Answers are relayed byte for byte, as they come, with back-pressure."""
import json
import re
import threading

import pytest

from client import Connection, ask, chat, chat_body, encode, get, sse_events
from harness import SLOW, wait_until_still

UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


@pytest.mark.smoke
def test_json_answers_come_through_unchanged(world):
    engine = world.engine()
    router = world.router([engine])
    direct = chat(engine, "hello " * 300, max_tokens=8)
    relayed = chat(router, "hello " * 300, max_tokens=8)
    assert relayed.status == 200
    assert relayed.header("x-engine-id") == "engine"
    assert relayed.header("content-type") == direct.header("content-type")
    assert relayed.header("content-length") == str(len(relayed.body))
    text = relayed.json()["choices"][0]["message"]["content"]
    assert text == direct.json()["choices"][0]["message"]["content"]
    plain = ask(router, "POST", "/v1/completions", {"model": "mock-model", "prompt": "once"})
    assert plain.json()["object"] == "text_completion"


@pytest.mark.smoke
def test_streams_come_through_as_they_are_made(world):
    made = threading.Event()
    seen = threading.Event()
    events = [f"data: {{\"n\": {number}}}\n\n".encode() for number in range(5)]

    def handler(exchange):
        exchange.start_stream()
        exchange.chunk(events[0])
        assert seen.wait(20 * SLOW), "the first event was held back"
        made.set()
        for event in events[1:]:
            exchange.chunk(event)
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.end_stream()

    router = world.router([world.upstream(handler)])
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        answer = connection.read_head()
        assert answer.status == 200
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        parts = connection.chunks()
        first = next(parts)
        assert first == events[0] and not made.is_set()
        seen.set()
        rest = b"".join(parts)
        assert first + rest == b"".join(events) + b"data: [DONE]\n\n"
        assert connection.ask("GET", "/health").status == 200  # The connection is still good.


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_every_framing_of_a_large_body_arrives_whole(world, framing):
    body = bytes(range(256)) * 4000

    def handler(exchange):
        if framing == "length":
            exchange.answer(body, [("Content-Type", "application/octet-stream")])
        elif framing == "chunked":
            exchange.start_stream()
            for at in range(0, len(body), 7777):
                exchange.chunk(body[at:at + 7777])
            exchange.end_stream()
        else:
            exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
            exchange.close()

    router = world.router([world.upstream(handler)])
    with Connection(router.address) as connection:
        for _ in range(3):
            answer = chat(router, "x", connection=connection)
            assert answer.status == 200 and answer.body == body


def test_an_old_client_gets_an_unchunked_answer(world):
    def handler(exchange):
        exchange.start_stream()
        exchange.chunk(b"one")
        exchange.chunk(b"two")
        exchange.end_stream()

    router = world.router([world.upstream(handler)])
    with Connection(router.address) as connection:
        answer = connection.ask("POST", "/v1/chat/completions", chat_body("x"),
                                version="HTTP/1.0")
        assert answer.header("transfer-encoding") is None
        assert answer.body == b"onetwo"
        assert connection.receive() == b""


@pytest.mark.smoke
def test_the_body_is_forwarded_unchanged(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream])
    bodies = [
        b'{ "model" :"mock-model",\n "messages":[{"content":"a\\u0041\\ud800\xe6\x97\xa5",'
        b'"role":"user"}], "x": 1e400, "y": 18446744073709551616, "stream": false }',
        encode(chat_body("z" * 3_000_000)),
    ]
    for body in bodies:
        assert ask(router, "POST", "/v1/chat/completions", body).status == 200
        assert upstream.exchanges[-1].body == body
    with Connection(router.address) as connection:  # A chunked request body.
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(bodies[0]), 10):
            piece = bodies[0][at:at + 10]
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")
        assert connection.read_answer().status == 200
    assert upstream.exchanges[-1].body == bodies[0]
    assert upstream.exchanges[-1].header("content-length") == str(len(bodies[0]))


@pytest.mark.smoke
def test_headers_both_ways(world):
    def handler(exchange):
        exchange.answer(b"{}", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Server", "uvicorn"),
                                ("Content-Encoding", "gzip"), ("Connection", "X-Hop"),
                                ("X-Hop", "gone"), ("Keep-Alive", "timeout=5"),
                                ("X-Request-Id", "of-the-engine")])

    upstream = world.upstream(handler)
    router = world.router([upstream])
    answer = chat(router, "x", headers=[
        ("X-Request-Id", "my-id-7"), ("Authorization", "Bearer secret"), ("X-Twice", "1"),
        ("X-Twice", "2"), ("Connection", "X-Private"), ("X-Private", "gone"), ("TE", "trailers"),
        ("Keep-Alive", "timeout=9"), ("Proxy-Connection", "keep-alive")])
    sent = upstream.exchanges[0]
    names = [name.lower() for name, _ in sent.headers]
    assert sent.request_line == "POST /v1/chat/completions HTTP/1.1"
    assert sent.header("host") == f"127.0.0.1:{upstream.port}"
    assert sent.header("authorization") == "Bearer secret"
    assert [value for name, value in sent.headers if name.lower() == "x-twice"] == ["1", "2"]
    assert [value for name, value in sent.headers if name.lower() == "x-request-id"] == ["my-id-7"]
    for name in ("x-private", "te", "keep-alive", "proxy-connection", "accept-encoding"):
        assert name not in names, name
    assert names.count("content-length") == 1 and names.count("host") == 1
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    assert answer.header("content-encoding") == "gzip"
    assert answer.header("x-hop") is None and answer.header("keep-alive") is None
    assert answer.all("x-request-id") == ["my-id-7"]
    fresh = chat(router, "x")
    assert UUID.match(fresh.header("x-request-id")), fresh.header("x-request-id")
    assert upstream.exchanges[1].header("x-request-id") == fresh.header("x-request-id")


def test_statuses_of_the_engine_pass_through(world):
    answers = {"400": "Bad Request", "429": "Too Many Requests", "500": "Internal Server Error",
               "503": "Service Unavailable"}

    def handler(exchange):
        status = exchange.header("x-want")
        exchange.answer(b'{"error":{"message":"no"}}', status=f"{status} {answers[status]}")

    upstream = world.upstream(handler)
    router = world.router([upstream])
    for status in answers:
        answer = chat(router, "x", headers=[("X-Want", status)])
        assert answer.status == int(status) and answer.json()["error"]["message"] == "no"
    assert len(upstream.exchanges) == len(answers)  # None was tried again.


def test_interim_answers_are_skipped(world):
    def handler(exchange):
        exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        exchange.answer(b"{}")

    router = world.router([world.upstream(handler)])
    assert chat(router, "x").body == b"{}"


def test_expect_100_continue_is_answered_before_the_body(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream])
    body = encode(chat_body("x"))
    with Connection(router.address) as connection:
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                        b"Content-Length: %d\r\n\r\n" % len(body))
        assert connection.read_head().status == 100
        connection.send(body)
        assert connection.read_answer().status == 200
    assert upstream.exchanges[0].body == body


def test_pipelined_requests_are_answered_in_order(world):
    def handler(exchange):
        exchange.answer(exchange.header("x-number").encode())

    router = world.router([world.upstream(handler)])
    with Connection(router.address) as connection:
        for number in range(20):
            connection.send_request("POST", "/v1/chat/completions", chat_body("x"),
                                    [("X-Number", str(number))])
        for number in range(20):
            assert connection.read_answer().body == str(number).encode()


def test_a_slow_client_slows_the_engine_not_the_routers_memory(world):
    total = 256 << 20
    piece = b"x" * (1 << 20)
    sent = [0]

    def handler(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent[0] < total:
            exchange.send(piece)
            sent[0] += len(piece)

    router = world.router([world.upstream(handler)])
    before = router.rss_bytes()
    with Connection(router.address, receive_buffer=65536) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"))
        answer = connection.read_head()
        wait_until_still(lambda: sent[0], 30, "the engine is held back")
        assert sent[0] < 64 << 20, "the answer is piling up somewhere"
        grown = router.rss_bytes() - before
        assert grown < (24 << 20) * max(1, SLOW), f"{grown >> 20} MiB in the router"
        received = len(connection.pending)
        connection.pending = b""
        while received < total:
            received += len(connection.receive(1 << 20))
        assert received == total
        assert int(answer.header("content-length")) == total


def test_many_slow_bodies_stay_within_the_bound(world):
    """--max-buffered-bytes: past it sockets are not read; all get their answers in the end."""
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], "--max-buffered-bytes", "4MiB", "--max-body-size", "2MiB")
    before = router.rss_bytes()
    body = encode(chat_body("y" * 1_000_000))
    connections = [Connection(router.address) for _ in range(24)]
    try:
        threads = []
        for connection in connections:
            thread = threading.Thread(target=connection.send_request,
                                      args=("POST", "/v1/chat/completions", body))
            thread.start()
            threads.append(thread)
        for connection in connections:
            assert connection.read_answer().status == 200
        for thread in threads:
            thread.join()
        if SLOW == 1:
            assert router.rss_bytes() - before < 32 << 20
    finally:
        for connection in connections:
            connection.close()
    assert len(upstream.exchanges) == 24


def test_usage_and_done_reach_the_client(world):
    router = world.router([world.engine()])
    answer = chat(router, "count", stream=True, max_tokens=6,
                  stream_options={"include_usage": True})
    events = sse_events(answer.body)
    assert len(events) == 8 and events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 6


def test_local_answers_keep_the_connection(world):
    router = world.router([world.engine()])
    with Connection(router.address) as connection:
        for _ in range(5):
            assert connection.ask("GET", "/health").status == 200
            assert chat(router, "x", connection=connection).status == 200
            assert connection.ask("GET", "/metrics").status == 200
    assert get(router, "/health", [("Connection", "close")]).status == 200
