"""Engines that break HTTP's rules, or stretch them: what the client sees, and that nobody else is
harmed. Every test ends with a request that works, since a router that is confused shows it there."""
import json
import socket
import threading
import time

import pytest

from client import Connection, ask, chat, chat_body, engine_of
from harness import SLOW, wait_until
from prometheus import scrape
from test_failures import idle

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def read_to_end(connection):
    """All bytes, and whether they ended with a reset."""
    received = b""
    try:
        while True:
            data = connection.receive()
            if not data:
                return received, False
            received += data
    except ConnectionError:
        return received, True


def raw(router, version="HTTP/1.1", method="POST"):
    """What comes back, byte for byte, for a request whose connection ends with it."""
    with Connection(router.address) as connection:
        connection.send_request(method, "/v1/chat/completions", chat_body("x", stream=True),
                                [("Connection", "close")], version)
        return read_to_end(connection)


def sending(*pieces, end="close"):
    """An engine that sends these bytes; afterwards the connection stays, or ends."""
    def handler(exchange):
        for piece in pieces:
            exchange.send(piece)
        if end == "close":
            exchange.close()
        elif end == "wait":
            assert exchange.socket.recv(1) == b""  # Until the router leaves.
            exchange.close()
    return handler


# ---- Before the answer ----

@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n",
                                     b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
def test_interim_answers_are_skipped_up_to_a_bound(world, interim):
    def handler(exchange):
        count = int(exchange.header("x-count"))
        exchange.send(interim * count)
        exchange.send(FINE)

    router = world.router([world.upstream(handler)], "--threads", "1")
    for count in (1, 1000):
        answer = chat(router, "x", headers=[("X-Count", str(count))])
        assert (answer.status, answer.body) == (200, b"fine")
    answer = chat(router, "x", headers=[("X-Count", "1001")])
    assert answer.status == 502
    assert chat(router, "x", headers=[("X-Count", "0")]).status == 200
    assert idle(router)


def test_an_endless_flood_of_interim_answers_is_given_up(world):
    def flood(exchange):
        while True:  # Ends when the router closes.
            exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    bad = world.upstream(flood)
    router = world.router([bad, world.engine(name="good")])
    for number in range(12):
        assert engine_of(chat(router, f"{number} " * 50)) == "good"
    assert bad.exchanges and all(exchange.wait_gone() for exchange in bad.exchanges)
    assert idle(router)


@pytest.mark.parametrize("head", [
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nfine",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n folded\r\n\r\nfine",
    b"HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nfine",
    b"HTTP/1.1 200 OK\nContent-Length: 4\n\nfine",
    b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 101 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nfine",
    b"HTTP/1.1 099 Odd\r\nContent-Length: 4\r\n\r\nfine",
], ids=["101", "both-framings", "two-lengths", "gzip-coding", "chunked-twice", "folded",
        "blank-before-colon", "bare-lf", "too-many-headers", "first-chunk-size", "http2", "099"])
def test_an_answer_that_is_not_to_be_trusted_is_replaced(world, head):
    bad = world.upstream(sending(head, end="wait"))
    router = world.router([bad, world.engine(name="good")], "--threads", "1")
    for number in range(12):
        assert engine_of(chat(router, f"{number} " * 50)) == "good"
    assert bad.exchanges and all(exchange.wait_gone() for exchange in bad.exchanges)
    assert scrape(router).total("vllm:request_errors_total", server=bad.url,
                                error_type="InvalidResponse") == len(bad.exchanges)
    alone = world.router([bad], "--eject-after-failures", "off")
    assert chat(alone, "x").status == 502
    assert idle(router) and idle(alone)


def test_an_answer_byte_by_byte(world):
    """Head, chunk sizes and data cut at every byte; the client gets the same bytes."""
    whole = (SSE + b"Transfer-Encoding: chunked\r\nX-Tail: 1\r\n\r\n"
             b"a;ext=1\r\ndata: {}\n\n\r\n0e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def handler(exchange):
        for at in range(len(whole)):
            exchange.send(whole[at:at + 1])

    router = world.router([world.upstream(handler)], "--threads", "1")
    for _ in range(3):
        received, reset = raw(router)
        assert not reset
        assert received.split(b"\r\n\r\n", 1)[1] == whole.split(b"\r\n\r\n", 1)[1]
    assert idle(router)


def test_a_head_without_an_end_holds_nobody_for_ever(world):
    """Slow loris from behind: a byte now and then is no answer."""
    def handler(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
        while not exchange.gone.wait(0.05):
            exchange.send(b"y")

    bad = world.upstream(handler)
    router = world.router([bad, world.engine(name="good")], "--first-byte-timeout", "300ms",
                          "--eject-after-failures", "2", "--eject-time", "1h")
    for number in range(12):
        assert engine_of(chat(router, f"{number} " * 50)) == "good"
    assert len(bad.exchanges) == 2 and idle(router)


def test_bytes_that_nobody_asked_for_are_no_answer(world):
    """An engine answers twice: the second answer must not become the next client's."""
    def handler(exchange):
        exchange.send(FINE + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")

    def later(exchange):
        exchange.send(FINE)
        threading.Timer(0.02, lambda: exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")).start()

    for how in (handler, later):
        upstream = world.upstream(how)
        router = world.router([upstream], "--threads", "1")
        for _ in range(10):
            assert chat(router, "x").body == b"fine"
            if how == later:
                assert upstream.exchanges[-1].wait_gone()  # Idle and unasked: closed at once.
        assert upstream.connections == 10
        assert idle(router)


class Lazy:
    """An engine that reads a request's head and then what its handler wants of the body."""

    def __init__(self, handler):
        self.handler = handler
        self.connections = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(30 * SLOW)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        head = b""
        try:
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            if head.startswith(b"GET /metrics"):
                connection.close()
                return
            self.connections.append(connection)
            self.handler(connection, head)
        except OSError:
            pass


def was_left(connection):
    """The other side has closed; what it had sent until then is read."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return True  # A timeout is another OSError.


def size_of(head):
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def test_an_answer_before_the_request_was_read(world):
    """A final answer while most of the body still waits to be sent: it is relayed at once, the
    connection is not used again."""
    def refuse(connection, head):
        connection.sendall(b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\ntoo large")

    with Lazy(refuse) as engine:
        router = world.router([engine.url], "--threads", "1")
        with Connection(router.address) as connection:
            for number in range(2):
                answer = chat(router, "z" * (24 << 20), connection=connection)
                assert (answer.status, answer.body) == (400, b"too large")
                assert len(engine.connections) == number + 1
        assert all(was_left(connection) for connection in engine.connections)
        assert idle(router)


@pytest.mark.smoke
def test_an_engine_that_takes_nothing_of_a_request_is_replaced(world):
    with Lazy(lambda connection, head: None) as stuck:
        router = world.router([stuck.url, world.engine(name="good")], "--send-timeout", "500ms",
                              "--eject-after-failures", "1", "--eject-time", "1h",
                              "--routing-logic", "roundrobin")
        for _ in range(2):
            assert engine_of(chat(router, "z" * (24 << 20))) == "good"
        assert len(stuck.connections) == 1 and was_left(stuck.connections[0])
        assert scrape(router).total("vllm:request_errors_total", server=stuck.url,
                                    error_type="SendTimeout") == 1
        router.wait_line(r"warning Request \S+: \S+ failed: it took nothing more of the request")
        assert idle(router)
        alone = world.router([stuck.url], "--send-timeout", "500ms")
        assert chat(alone, "z" * (24 << 20)).status == 504


def test_an_engine_that_takes_a_request_slowly_is_waited_for(world):
    """For several times the limit, though never for so long without a byte."""
    took = []

    def slow(connection, head):
        left = size_of(head)
        start = time.monotonic()
        while left > 0:
            left -= len(connection.recv(min(left, 1 << 20)))
            if time.monotonic() - start < 4:
                time.sleep(0.2)
        took.append(time.monotonic() - start)
        connection.sendall(FINE)

    with Lazy(slow) as engine:
        router = world.router([engine.url], "--send-timeout", "1500ms")
        assert chat(router, "z" * (40 << 20)).body == b"fine"
        assert took[0] > 4 and idle(router)


def test_an_engine_that_half_closes_still_answers(world):
    def end(exchange):
        exchange.socket.shutdown(socket.SHUT_WR)
        while exchange.socket.recv(65536):  # Until the router closes, too.
            pass
        exchange.close()

    def handler(exchange):
        exchange.send(FINE)
        end(exchange)

    router = world.router([world.upstream(handler)], "--threads", "1")
    for _ in range(5):
        assert chat(router, "x").body == b"fine"
    router = world.router([world.upstream(end), world.engine(name="good")])
    for number in range(10):
        assert engine_of(chat(router, f"{number} " * 50)) == "good"
    assert idle(router)


# ---- In its body ----

def test_a_body_longer_than_its_length_ends_where_it_was_to_end(world):
    upstream = world.upstream(sending(FINE + b"HTTP/1.1 200 OK\r\n", end="stay"))
    router = world.router([upstream], "--threads", "1")
    with Connection(router.address) as connection:
        for _ in range(5):
            answer = chat(router, "x", connection=connection)
            assert answer.body == b"fine" and connection.pending == b""
    assert upstream.connections == 5  # Not used again: what came behind it is nobody's.
    assert idle(router)


@pytest.mark.parametrize("garbage", [b"zz\r\n", b"5\rdata\n", b"-1\r\n", b"ffffffffffffffffff\r\n",
                                     b"5\r\nabcdefg\r\n", b"\r\n", b"0x5\r\nabcde\r\n"])
def test_garbage_in_the_middle_of_a_stream_ends_it(world, garbage):
    """What was right before it went on; nothing of it does, and the body never looks whole."""
    event = b"a\r\ndata: {}\n\n\r\n"
    seen = threading.Event()

    def handler(exchange):
        exchange.send(SSE + b"Transfer-Encoding: chunked\r\n\r\n" + event)
        assert seen.wait(20)
        exchange.send(garbage + event)
        assert exchange.socket.recv(1) == b""
        exchange.close()

    upstream = world.upstream(handler)
    router = world.router([upstream], "--threads", "1")
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        assert connection.read_head().status == 200
        assert connection.read_exactly(len(event)) == event
        seen.set()
        rest, _ = read_to_end(connection)
    assert b"0\r\n\r\n" not in rest and event not in rest
    if not garbage.startswith(b"5\r\nabc"):  # There the chunk's data has gone on, before its end.
        assert b"event: error" in rest
        assert json.loads(rest.split(b"data: ")[1].split(b"\n")[0])["error"]["code"] == 502
    assert upstream.exchanges[0].wait_gone()
    wait_until(lambda: idle(router))


def test_trailers_go_on_unless_they_are_forbidden(world):
    body = SSE + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n"
    good = world.upstream(sending(body + b"X-Sum: 7\r\n\r\n", end="stay"))
    received, _ = raw(world.router([good]))
    assert received.endswith(b"4\r\nfine\r\n0\r\nX-Sum: 7\r\n\r\n")
    received, _ = raw(world.router([good]), version="HTTP/1.0")
    assert received.endswith(b"\r\n\r\nfine") and b"x-sum" not in received.lower()
    for trailer in (b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n",
                    b"Set-Cookie: a=b\r\n\r\n", b"X: " + b"y" * 200000 + b"\r\n\r\n"):
        bad = world.upstream(sending(body, trailer))
        router = world.router([bad])
        received, _ = raw(router)
        assert trailer not in received and not received.endswith(b"\r\n\r\n0\r\n\r\n")
        assert not received.endswith(b"0\r\n\r\n")
        wait_until(lambda: idle(router))


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_bodies_where_none_may_be(world, status):
    """Such an answer ends with its head, whatever it says; what follows is nobody's."""
    upstream = world.upstream(sending(
        b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\noops", end="stay"))
    router = world.router([upstream], "--threads", "1")
    with Connection(router.address) as connection:
        for _ in range(5):
            answer = chat(router, "x", connection=connection)
            assert answer.status == int(status[:3]) and answer.body == b""
        assert connection.ask("GET", "/version").status == 200
    assert connection.pending == b""
    assert upstream.connections == 5
    assert idle(router)


def test_answers_to_head_have_no_body(world):
    """The engine's Content-Length is told; a body that it sends nevertheless goes nowhere."""
    def handler(exchange):
        exchange.send(FINE if exchange.header("x-body") else FINE[:-4])

    upstream = world.upstream(handler)
    router = world.router([upstream], "--threads", "1", "--proxy-all-paths", models=["mock-model"])
    with Connection(router.address) as connection:
        for headers in ([], [], [("X-Body", "1")], [], []):
            answer = connection.ask("HEAD", "/anything", headers=headers)
            assert (answer.status, answer.header("content-length")) == (200, "4")
            assert connection.pending == b""
        assert connection.ask("GET", "/version").status == 200
    assert upstream.connections <= 3
    assert idle(router)


# ---- Cut answers, and who can tell ----

@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\na\r\ndata: {}\n\n\r\n",
                                     b"Connection: close\r\n\r\ndata: {}\n\n"],
                         ids=["chunked", "until-close"])
def test_a_stream_cut_for_an_old_client_says_so_and_is_reset(world, framing):
    """Where a body ends with its connection, an end would look like the answer's."""
    seen = threading.Event()

    def handler(exchange):
        exchange.send(SSE + framing)
        assert seen.wait(20)
        exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        exchange.close()

    router = world.router([world.upstream(handler)])
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True),
                                version="HTTP/1.0")
        answer = connection.read_head()
        assert answer.status == 200 and answer.header("transfer-encoding") is None
        assert connection.read_exactly(10) == b"data: {}\n\n"
        seen.set()
        rest, reset = read_to_end(connection)
    assert reset and rest.startswith(b"event: error\ndata: {") and rest.endswith(b"}\n\n")
    wait_until(lambda: idle(router))


def test_an_engine_that_only_closes_ends_a_close_delimited_body(world):
    upstream = world.upstream(sending(SSE + b"\r\n", b"data: {}\n\n"))
    router = world.router([upstream])
    received, reset = raw(router)
    assert not reset and received.endswith(b"a\r\ndata: {}\n\n\r\n0\r\n\r\n")
    received, reset = raw(router, version="HTTP/1.0")
    assert not reset and received.endswith(b"\r\n\r\ndata: {}\n\n")
    assert ask(router, "GET", "/version").status == 200
