"""When another engine is tried, how often, how soon, and what the client gets if none will do."""
import json
import random
import re
import socket
import threading
import time

import pytest

from client import Connection, chat, chat_body, engine_of, in_parallel
from harness import wait_until
from prometheus import scrape
from test_failures import idle, refused_url


def answering(status, body=b'{"error":{"message":"not now"}}'):
    return lambda exchange: exchange.answer(body, status=f"{status} Whatever")


def errors_of(router, upstream, kind):
    return scrape(router).total("vllm:request_errors_total", server=upstream.url, error_type=kind)


@pytest.mark.smoke
@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_engine_that_answers_an_error_is_replaced(world, status):
    bad = world.upstream(answering(status))
    router = world.router([bad, world.engine(name="good")], "--eject-after-failures", "4",
                          "--eject-time", "1h", "--threads", "1")
    for number in range(40):
        answer = chat(router, f"{number} " * 50)
        assert answer.status == 200 and engine_of(answer) == "good"
    assert len(bad.exchanges) == 4  # Then it was ejected.
    assert bad.connections == 1  # Its answer was whole: the connection could be kept.
    assert errors_of(router, bad, "ErrorStatus") == 4
    assert scrape(router).total("hashtrie_retries_total") == 4
    router.wait_line(rf"warning Request \S+: {re.escape(bad.url)} failed: it answered {status}")
    assert idle(router)


def test_an_error_with_an_endless_body_is_not_waited_for(world):
    def handler(exchange):
        exchange.send(b"HTTP/1.1 503 No\r\nContent-Length: 1000000\r\n\r\nbegun")
        assert exchange.socket.recv(1) == b""  # The router closes.

    bad = world.upstream(handler)
    router = world.router([bad, world.engine(name="good")])
    for number in range(10):
        assert engine_of(chat(router, f"{number} " * 50)) == "good"
    assert bad.exchanges and idle(router)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_when_all_answer_errors_the_last_answer_is_the_clients(world, stream):
    bodies = [b'{"from":"%d"}' % number for number in range(4)]
    bad = [world.upstream(answering(503 + number % 2, body)) for number, body in enumerate(bodies)]
    router = world.router(bad, "--max-instance-failover-reroute-attempts", "2")
    with Connection(router.address) as connection:
        for number in range(5):
            before = [len(upstream.exchanges) for upstream in bad]
            answer = chat(router, f"{number} " * 50, connection=connection, stream=stream)
            assert answer.status in (503, 504) and answer.body in bodies
            after = [len(upstream.exchanges) for upstream in bad]
            assert sum(after) - sum(before) == 3  # Three different ones.
            assert max(b - a for a, b in zip(before, after)) == 1
    assert idle(router)


@pytest.mark.smoke
@pytest.mark.parametrize("last", ["refused", "drop"])
def test_an_engines_answer_says_more_than_that_others_cannot_be_reached(world, last):
    """The client gets the 503 that one engine gave, whole, also if the tries behind it bring
    nothing."""
    full = world.upstream(lambda exchange: exchange.answer(
        b'{"error":{"message":"full"}}', [("Retry-After", "7")], "503 No"))
    holder, url = refused_url()
    with holder:
        other = url if last == "refused" else world.upstream(lambda exchange: exchange.close())
        router = world.router([full, other], "--eject-after-failures", "off", "--threads", "1")
        with Connection(router.address) as connection:
            for number in range(20):
                before = len(full.exchanges)
                answer = chat(router, f"{number} " * 50, connection=connection)
                assert answer.status == 503 and len(full.exchanges) == before + 1
                assert answer.body == b'{"error":{"message":"full"}}'
                assert answer.header("retry-after") == "7"
        assert scrape(router).total("hashtrie_retries_total") == 20
        assert idle(router)


def test_an_answer_too_large_to_be_kept_leaves_its_status(world):
    full = world.upstream(answering(503, b"x" * 100000))
    holder, url = refused_url()
    with holder:
        router = world.router([full, url], "--eject-after-failures", "off")
        answers = [chat(router, f"{number} " * 50) for number in range(20)]
    assert {answer.status for answer in answers} == {503}
    texts = {answer.text() for answer in answers if len(answer.body) < 100000}
    assert texts == {'{"error":"The engine answered 503, and no other could take its place."}'}
    assert idle(router)


def test_an_error_cut_off_in_its_head_is_an_error_of_the_router(world):
    def cut(exchange):
        exchange.send(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\n")
        exchange.close()

    bad = world.upstream(cut)
    router = world.router([bad], "--eject-after-failures", "off")
    for _ in range(3):
        assert chat(router, "x").status == 502
    assert errors_of(router, bad, "ErrorStatus") + errors_of(router, bad, "ServerDisconnected") == 3
    assert idle(router)


def test_a_busy_engine_is_replaced_if_asked_for_and_not_blamed(world):
    busy = world.upstream(answering(429, b"busy"))
    good = world.engine(name="good")
    router = world.router([busy, good])
    statuses = {chat(router, f"{number} " * 50).status for number in range(40)}
    assert statuses == {200, 429}
    assert scrape(router).total("hashtrie_retries_total") == 0

    asked = len(busy.exchanges)
    router = world.router([busy, good], "--failover-on-busy", "--eject-after-failures", "1")
    for number in range(40):
        assert engine_of(chat(router, f"{number} " * 50)) == "good"
    assert len(busy.exchanges) > asked + 1
    metrics = scrape(router)
    assert metrics.total("hashtrie_engine_ejections_total") == 0
    assert metrics.total("vllm:request_errors_total") == 0
    router = world.router([busy], "--failover-on-busy")
    answer = chat(router, "x")
    assert (answer.status, answer.body) == (429, b"busy")


@pytest.mark.smoke
@pytest.mark.parametrize("eject", ["off", "3"])
@pytest.mark.parametrize("how", ["status", "drop"])
def test_retries_are_a_share_of_the_requests(world, how, eject):
    """An outage of all engines must not become three times the load."""
    handler = answering(503) if how == "status" else lambda exchange: exchange.close()
    bad = [world.upstream(handler) for _ in range(3)]
    router = world.router(bad, "--retry-budget", "0.1", "--eject-after-failures", eject,
                          "--threads", "2")

    def ask_many(number):
        with Connection(router.address) as connection:
            return [chat(router, f"{number} {turn}", connection=connection).status
                    for turn in range(50)]

    start = time.monotonic()
    statuses = {status for part in in_parallel(8, ask_many) for status in part}
    took = time.monotonic() - start
    assert statuses == ({503} if how == "status" else {502})
    metrics = scrape(router)
    retries = metrics.total("hashtrie_retries_total")
    windows = 1 + took // 10  # 100 and a tenth of 400 requests in each.
    moved = 0 if eject == "off" else 20  # Until all have been ejected, they may cost nothing.
    assert 100 <= retries <= windows * 140 + moved
    tried = sum(len(upstream.exchanges) for upstream in bad)
    assert tried == 400 + retries or how == "drop"
    assert metrics.total("hashtrie_retries_denied_total") > 0
    router.wait_line(r"warning Request \S+: not tried elsewhere: the retry budget is used up")
    assert idle(router)


@pytest.mark.smoke
def test_what_a_dead_engine_had_moves_to_the_others_whatever_the_budget(world):
    """One of four dies with 200 requests: the floor of the budget is 100, and there is no share."""
    release = threading.Event()

    def handler(exchange):
        assert release.wait(60)
        exchange.answer(b"fine")

    engines = [world.upstream(handler) for _ in range(4)]
    router = world.router(engines, "--retry-budget", "0", "--threads", "2")
    clients = [Connection(router.address) for _ in range(800)]
    try:
        for number, client in enumerate(clients):
            client.send_request("POST", "/v1/chat/completions", chat_body(f"{number} " * 20))
        wait_until(lambda: sum(len(engine.exchanges) for engine in engines) == 800, 30)
        dead = max(engines, key=lambda engine: len(engine.exchanges))
        held = len(dead.exchanges)
        assert held >= 200
        dead.close()
        wait_until(lambda: sum(len(engine.exchanges) for engine in engines) >= 800 + held, 30)
        release.set()
        assert {client.read_answer().body for client in clients} == {b"fine"}
    finally:
        release.set()
        for client in clients:
            client.close()
    metrics = scrape(router)
    assert metrics.total("hashtrie_retries_denied_total") == 0
    assert metrics.total("hashtrie_retries_total") >= held
    wait_until(lambda: idle(router))


def test_the_second_retry_waits_a_little_the_first_does_not(world):
    times = []

    def handler(exchange):
        times.append(time.monotonic())
        exchange.answer(status="503 No")

    router = world.router([world.upstream(handler) for _ in range(4)],
                          "--max-instance-failover-reroute-attempts", "3")
    assert chat(router, "x").status == 503
    first, second, third, fourth = times
    assert third - second >= 0.010 and fourth - third >= 0.020
    assert fourth - first < 10


def test_a_client_that_leaves_while_the_router_backs_off(world):
    asked = threading.Semaphore(0)

    def handler(exchange):
        asked.release()
        exchange.answer(status="503 No")

    bad = [world.upstream(handler) for _ in range(8)]
    router = world.router(bad, "--max-instance-failover-reroute-attempts", "7")
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"))
        for _ in range(6):
            assert asked.acquire(timeout=20)
    wait_until(lambda: scrape(router).total("hashtrie_cancelled_requests_total") == 1)
    assert idle(router)
    assert sum(len(upstream.exchanges) for upstream in bad) < 8


# ---- Engines that take too long ----

def silent(exchange):
    """Says nothing, until the other side leaves."""
    assert exchange.socket.recv(1) == b""


def head_only(exchange):
    exchange.start_stream()
    silent(exchange)


@pytest.mark.smoke
@pytest.mark.parametrize("handler", [silent, head_only])
def test_an_engine_without_a_first_byte_in_time_is_replaced(world, handler):
    bad = world.upstream(handler)
    router = world.router([bad, world.engine(name="good")], "--first-byte-timeout", "200ms",
                          "--eject-after-failures", "2", "--eject-time", "1h")
    for number in range(30):
        assert engine_of(chat(router, f"{number} " * 50)) == "good"
    assert len(bad.exchanges) == 2
    assert errors_of(router, bad, "FirstByteTimeout") == 2
    router.wait_line(rf"warning Request \S+: {re.escape(bad.url)} failed: "
                     r"no byte of its answer in time")
    assert idle(router)
    assert all(exchange.wait_gone() for exchange in bad.exchanges)


def test_a_late_first_byte_on_a_reused_connection_is_not_waited_for_twice(world):
    def handler(exchange):
        silent(exchange) if exchange.number == 1 else exchange.answer()

    bad = world.upstream(handler)
    router = world.router([bad], "--first-byte-timeout", "300ms", "--threads", "1")
    assert chat(router, "x").status == 200
    start = time.monotonic()
    assert chat(router, "x").status == 504
    assert 0.3 <= time.monotonic() - start < 20
    assert len(bad.exchanges) == 2
    assert chat(router, "x").status == 200


def test_a_slow_prefill_is_allowed_for_by_default(world):
    def handler(exchange):
        time.sleep(1.5)
        exchange.answer(b"late")

    router = world.router([world.upstream(handler)], "--idle-timeout", "200ms")
    assert chat(router, "x").body == b"late"


def read_until_cut(router):
    """The chunks of a stream that is cut."""
    parts = []
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        assert connection.read_head().status == 200
        with pytest.raises(EOFError):
            for part in connection.chunks():
                parts.append(part)
    return parts


@pytest.mark.smoke
def test_an_engine_that_pauses_in_its_answer_is_cut_off(world):
    def handler(exchange):
        exchange.start_stream()
        for _ in range(8):  # Longer than the limit in all.
            exchange.chunk(b"data: {}\n\n")
            time.sleep(0.1)
        silent(exchange)

    stalling = world.upstream(handler)
    router = world.router([stalling], "--idle-timeout", "500ms")
    parts = read_until_cut(router)
    assert parts[:8] == [b"data: {}\n\n"] * 8 and len(parts) == 9
    kind, data, *rest = parts[8].split(b"\n")
    assert kind == b"event: error" and rest == [b"", b""]
    error = json.loads(data[len(b"data: "):])["error"]
    assert error["message"].endswith("nothing more of it in time.") and error["code"] == 502
    assert errors_of(router, stalling, "IdleTimeout") == 1
    router.wait_line(rf"warning Request \S+: {re.escape(stalling.url)} failed in the middle of its "
                     r"answer: nothing more of it in time")
    assert stalling.exchanges[0].wait_gone()
    assert idle(router)


@pytest.mark.parametrize("last, told", [
    (b"data: {}\n\n", True), (b"data: {}\r\n\r\n", True), (b"data: {}\n", False),
    (b"data: {", False)])
@pytest.mark.parametrize("cut", ["chunk", "size", "data", "end"])
def test_the_error_event_comes_only_between_two_events(world, last, told, cut):
    """And only between two chunks: else it would be in the middle of another."""
    def handler(exchange):
        exchange.start_stream()
        exchange.chunk(b"data: {}\n\n")
        exchange.send({"chunk": b"%x\r\n%s\r\n", "size": b"%x\r\n%s\r\n5", "data": b"%x\r\n%s\r\n5\r\n",
                       "end": b"%x\r\n%s"}[cut] % (len(last), last))
        time.sleep(0.05)
        exchange.close()

    router = world.router([world.upstream(handler)])
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        connection.read_head()
        received = b""
        while True:
            data = connection.receive()
            if not data:
                break
            received += data
    assert (b"event: error" in received) == (told and cut == "chunk")
    assert not received.endswith(b"0\r\n\r\n")


def test_no_error_event_in_what_is_no_event_stream(world):
    def handler(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n")
        exchange.close()

    assert read_until_cut(world.router([world.upstream(handler)])) == [b"\n\n"]


def test_a_slow_client_is_no_silence_of_the_engine(world):
    total = 64 << 20

    def handler(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(64):
            exchange.send(b"x" * (1 << 20))

    router = world.router([world.upstream(handler)], "--idle-timeout", "200ms")
    with Connection(router.address, receive_buffer=65536) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"))
        connection.read_head()
        time.sleep(1.5)  # The time is what is tested: several limits.
        received = len(connection.pending)
        connection.pending = b""
        while received < total:
            data = connection.receive(1 << 20)
            assert data, "cut off"
            received += len(data)
        assert received == total


# ---- Kept connections ----

def test_an_engine_says_how_many_requests_a_connection_may_carry(world):
    upstream = world.upstream(lambda exchange: exchange.answer(
        headers=[("Keep-Alive", "timeout=5, max=7")]))
    router = world.router([upstream], "--threads", "1")
    assert {chat(router, "x").status for _ in range(30)} == {200}
    assert max(exchange.number for exchange in upstream.exchanges) == 6
    assert upstream.connections == 5
    assert scrape(router).total("hashtrie_resends_total") == 0


def test_an_engine_says_how_long_a_connection_may_be_idle(world):
    upstream = world.upstream(lambda exchange: exchange.answer(
        headers=[("keep-alive", f"max=1000,Timeout={exchange.header('x-timeout')}")]))
    router = world.router([upstream], "--threads", "1", "--upstream-idle-timeout", "1h")
    for _ in range(3):
        assert chat(router, "x", headers=[("X-Timeout", "1")]).status == 200
    assert upstream.connections == 1
    assert upstream.exchanges[-1].wait_gone(20)  # The router closes it.
    for _ in range(3):
        assert chat(router, "x", headers=[("X-Timeout", "0")]).status == 200
    assert upstream.connections == 4
    for timeout in ("x", "-1", "99999999999", ""):  # Not said.
        assert chat(router, "x", headers=[("X-Timeout", timeout)]).status == 200
    assert upstream.connections == 5


def close_now(exchange):
    exchange.close()


def reset_now(exchange):
    exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    exchange.socket.close()


def close_soon(exchange):
    """As near to the next request as can be."""
    exchange.answer(b"fine")
    time.sleep(random.random() / 1000)
    exchange.socket.shutdown(socket.SHUT_RDWR)
    exchange.close()


@pytest.mark.load
@pytest.mark.parametrize("end", [close_now, reset_now, close_soon])
def test_no_request_is_lost_to_a_connection_that_the_engine_closes(world, end):
    """An engine that closes after some requests, or idle ones, at the worst moment."""
    def handler(exchange):
        if exchange.number == 3 + exchange.socket.fileno() % 5:
            end(exchange)
        else:
            exchange.answer(b"fine")

    upstream = world.upstream(handler)
    router = world.router([upstream], "--threads", "2")

    def ask_many(number):
        with Connection(router.address) as connection:
            return [chat(router, f"{number} " * 2000, connection=connection).body
                    for _ in range(500)]

    bodies = {body for part in in_parallel(8, ask_many) for body in part}
    assert bodies == {b"fine"}
    metrics = scrape(router)
    assert metrics.total("hashtrie_resends_total") > 0 or end == close_soon
    assert metrics.total("hashtrie_retries_total") == 0
    assert metrics.total("vllm:request_errors_total") == 0
    assert idle(router)


# ---- Clients that stop reading ----

def endless(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
    while True:
        exchange.send(b"x" * 65536)  # Ends when the router closes.


@pytest.mark.smoke
def test_a_client_that_stops_reading_frees_its_engine(world):
    upstream = world.upstream(endless)
    router = world.router([upstream], "--client-stall-timeout", "1s")
    with Connection(router.address, receive_buffer=65536) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"))
        connection.read_head()
        router.wait_line(r"warning A client has read nothing of its answer for \d+\.\d s: cut off")
        assert upstream.exchanges[0].wait_gone()
        wait_until(lambda: idle(router))
        assert scrape(router).total("hashtrie_stalled_clients_total") == 1
        with pytest.raises(ConnectionError):  # A reset: it does not look whole.
            while connection.receive():
                pass


def test_a_client_that_reads_slowly_is_not_cut_off(world):
    upstream = world.upstream(endless)
    router = world.router([upstream], "--client-stall-timeout", "2s")
    with Connection(router.address, receive_buffer=65536) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"))
        connection.read_head()
        for _ in range(20):
            connection.receive(20000)
            time.sleep(0.25)  # Over five seconds, twice the limit, though no second without a byte.
        assert scrape(router).total("hashtrie_stalled_clients_total") == 0
        assert not upstream.exchanges[0].gone.is_set()


@pytest.mark.parametrize("chunked", [True, False])
def test_a_kept_answer_ends_the_connection_if_nothing_else_tells_its_end(world, chunked):
    """A client of HTTP/1.0 that wants to keep its connection, and has sent two requests on it. The
    first one's best answer is that of the first engine; what the next engine began, whose end the
    connection's end would have told, breaks off."""
    def first(exchange):
        exchange.send(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n"
                      if chunked else b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy")

    def second(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        reset_now(exchange)  # Before the first byte.

    router = world.router([world.upstream(first), world.upstream(second)], "--routing-logic",
                          "roundrobin", "--max-instance-failover-reroute-attempts", "1")
    body = json.dumps(chat_body("x")).encode()
    request = (b"POST /v1/chat/completions HTTP/1.0\r\nConnection: keep-alive\r\n"
               b"Content-Length: %d\r\n\r\n" % len(body)) + body
    with socket.create_connection(router.address, timeout=30) as client:
        client.sendall(request + request)
        received = b""
        while received.count(b"HTTP/1.1 ") < 2 and (part := client.recv(65536)):
            received += part
    answers = received.split(b"HTTP/1.1 ")[1:]
    assert answers[0].startswith(b"503") and answers[0].endswith(b"\r\n\r\nbusy")
    assert len(answers) == (1 if chunked else 2)
    assert (b"Connection: close" if chunked else b"Connection: keep-alive") in answers[0]
