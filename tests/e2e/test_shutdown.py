"""The way out: SIGTERM, its delay, draining, the drain timeout, a second signal."""
import json
import signal
import socket
import threading
import time

import pytest

from client import Connection, chat, chat_body, engine_of, get, request_bytes
from harness import SLOW, wait_until
from prometheus import scrape
from test_lifecycle import start_conversations


def refuses(router):
    try:
        socket.create_connection(router.address, timeout=1).close()
    except OSError:
        return True
    return False


class Held:
    """An engine that begins each answer's stream with one event, and ends it when told to."""

    def __init__(self, world, first=b"data: 1\n\n"):
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()
        self.first = first
        self.upstream = world.upstream(self.answer)

    def answer(self, exchange):
        exchange.start_stream()
        if self.first:
            exchange.chunk(self.first)
        self.begun.release()
        self.release.wait(60)
        exchange.chunk(b"data: 2\n\n")
        exchange.end_stream()

    def ask(self, connection):
        """The answer's parts; the first has come."""
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        assert connection.read_head().status == 200
        parts = connection.chunks()
        assert next(parts) == self.first
        return parts


# ---- In order ----

@pytest.mark.smoke
def test_sigterm_lets_requests_finish_and_ends_with_0(world):
    engine = Held(world)
    router = world.router([engine.upstream], store=world.store())
    with Connection(router.address) as connection, Connection(router.address) as idle:
        assert idle.ask("GET", "/health").status == 200
        parts = engine.ask(connection)
        router.signal(signal.SIGTERM)
        assert idle.receive() == b""  # Idle connections are closed at once.
        wait_until(lambda: refuses(router), what="no new connections")
        assert router.running()
        engine.release.set()
        assert list(parts) == [b"data: 2\n\n"]
        assert connection.receive() == b""
    assert router.wait() == 0


@pytest.mark.smoke
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_shutdown_delay_serves_new_connections_but_is_not_ready(world, number):
    engine = world.engine()
    router = world.router([engine], "--shutdown-delay", "1h", "--threads", "2")
    with Connection(router.address) as kept:
        assert kept.ask("GET", "/ready").status == 200
        assert scrape(router).value("hashtrie_ready") == 1
        router.signal(number)
        router.wait_line("not ready any more")
        ready = get(router, "/ready")
        assert (ready.status, ready.json()["status"]) == (503, "draining")
        health = get(router, "/health")
        assert (health.status, health.json()["status"]) == (200, "draining")
        assert scrape(router).value("hashtrie_ready") == 0
        # The open connection is served once more, and told that this was the last answer.
        answer = chat(router, "x", connection=kept)
        assert answer.status == 200 and answer.header("connection") == "close"
        assert kept.receive() == b""
        for _ in range(20):
            answer = chat(router, "x")
            assert answer.status == 200 and answer.header("connection") == "close"
    router.kill()


def test_an_answer_that_began_before_the_delay_keeps_its_word(world):
    """Its head did not say that the connection closes: so it does not, until it has been said."""
    engine = Held(world)
    router = world.router([engine.upstream], "--shutdown-delay", "1h")
    with Connection(router.address) as connection:
        parts = engine.ask(connection)
        router.signal(signal.SIGTERM)
        router.wait_line("not ready any more")
        engine.release.set()
        assert list(parts) == [b"data: 2\n\n"]
        answer = connection.ask("GET", "/health")
        assert answer.status == 200 and answer.header("connection") == "close"
        assert connection.receive() == b""
    router.kill()


@pytest.mark.smoke
def test_after_the_delay_it_drains(world):
    engine = Held(world)
    router = world.router([engine.upstream], "--shutdown-delay", "700ms")
    with Connection(router.address) as connection, Connection(router.address) as idle:
        parts = engine.ask(connection)
        assert idle.ask("GET", "/health").status == 200
        begun = time.monotonic()
        router.signal(signal.SIGTERM)
        assert idle.receive() == b""
        assert time.monotonic() - begun >= 0.69
        wait_until(lambda: refuses(router), what="no new connections")
        engine.release.set()
        assert list(parts) == [b"data: 2\n\n"]
    assert router.wait() == 0


def test_a_new_connection_whose_request_is_on_its_way_is_served(world):
    """Accepted just before the signal: its client has done nothing wrong."""
    engine = Held(world)
    router = world.router([engine.upstream])
    with Connection(router.address) as busy, Connection(router.address) as new, \
            Connection(router.address) as pinned:
        parts = engine.ask(busy)
        assert pinned.ask("GET", "/health").status == 200  # Both others have been accepted.
        router.signal(signal.SIGTERM)
        assert pinned.receive() == b""
        answer = new.ask("GET", "/ready")
        assert answer.status == 503 and answer.header("connection") == "close"
        engine.release.set()
        assert list(parts) == [b"data: 2\n\n"]
    assert router.wait() == 0


def test_sigterm_does_not_wait_for_half_a_head(world):
    router = world.router([world.engine()])
    with Connection(router.address) as half, Connection(router.address) as empty_line, \
            Connection(router.address):
        half.send(b"POST /v1/chat/completions HTT")
        assert get(router, "/health").status == 200
        chat(router, "x", connection=empty_line)
        empty_line.send(b"\r\n")
        begun = time.time()
        assert router.terminate() == 0
        assert time.time() - begun < 15 * SLOW  # The drain timeout is 30 s.


# ---- Out of time ----

@pytest.mark.smoke
def test_what_is_cut_at_the_drain_timeout_is_told(world):
    """A stream gets an event that says so, a request without an answer 503."""
    streaming = Held(world)
    silent = Held(world, first=b"")
    router = world.router([streaming.upstream, silent.upstream], "--drain-timeout", "300ms",
                          models=["streams", "silent"], store=world.store())
    with Connection(router.address) as stream, Connection(router.address) as waiting, \
            Connection(router.address) as uploading:
        uploading.send(request_bytes("POST", "/v1/chat/completions", chat_body("x"))[:-5])
        stream.send_request("POST", "/v1/chat/completions", chat_body("x", model="streams"))
        stream.read_head()
        parts = stream.chunks()
        assert next(parts) == b"data: 1\n\n"
        waiting.send_request("POST", "/v1/chat/completions", chat_body("x", model="silent"))
        assert silent.begun.acquire(timeout=10)
        begun = time.monotonic()
        router.signal(signal.SIGTERM)
        event = next(parts)
        assert event.startswith(b"event: error\ndata: ") and event.endswith(b"\n\n")
        error = json.loads(event.split(b"data: ")[1])["error"]
        assert error["code"] == 503 and "stopped" in error["message"]
        with pytest.raises(EOFError):  # And no last chunk: it is not complete.
            next(parts)
        for connection in (waiting, uploading):
            answer = connection.read_answer()
            assert answer.status == 503 and answer.header("connection") == "close"
            assert "stopped" in answer.json()["error"]
            assert connection.receive() == b""
    assert router.wait() == 0
    assert time.monotonic() - begun < 5 * SLOW
    told = router.find_lines(r"(\d+) requests still ran after the drain timeout")
    assert sum(int(match.group(1)) for match in told) == 3  # One line a thread.
    streaming.release.set()
    silent.release.set()


def test_a_client_that_reads_nothing_is_cut_too(world):
    stop = threading.Event()

    def flood(exchange):
        exchange.start_stream()
        while not stop.is_set():
            exchange.chunk(b"x" * 65536)

    router = world.router([world.upstream(flood)], "--drain-timeout", "100ms")
    with Connection(router.address, receive_buffer=4096) as deaf:
        deaf.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        wait_until(lambda: scrape(router).total("vllm:num_requests_running") == 1)
        router.signal(signal.SIGTERM)
        assert router.wait(15) == 0
        with pytest.raises((EOFError, ConnectionError)):
            deaf.read_head()
            for _ in deaf.chunks():
                pass
    stop.set()


def test_an_answer_that_ends_with_its_connection_is_cut_with_a_reset(world):
    """Without chunks or a length, an orderly end would make half an answer look whole."""
    hold = threading.Event()

    def handler(exchange):
        exchange.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf")
        hold.wait(60)

    router = world.router([world.upstream(handler)], "--drain-timeout", "100ms")
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"), version="HTTP/1.0")
        assert connection.read_head().status == 200
        assert connection.read_exactly(4) == b"half"
        router.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            connection.receive()
    assert router.wait() == 0
    hold.set()


# ---- At once ----

@pytest.mark.smoke
@pytest.mark.parametrize("delay", ["0s", "1h"])
def test_a_second_signal_ends_at_once_and_the_store_is_sound(world, delay):
    engine = Held(world)
    engines = world.engines(2)
    store = world.store()
    arguments = ["--checkpoint-interval", "50ms", "--shutdown-delay", delay]
    models = ["mock-model", "mock-model", "held"]
    router = world.router(engines + [engine.upstream], *arguments, models=models, store=store)
    talks = start_conversations(router, 6)
    start = time.time()
    wait_until(lambda: scrape(router).total("hashtrie_last_checkpoint_timestamp_seconds") > start)
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", model="held"))
        assert engine.begun.acquire(timeout=10)
        router.signal(signal.SIGTERM)
        router.wait_line("SIGTERM: ")
        router.signal(signal.SIGTERM)
        assert router.wait() == -signal.SIGTERM
        assert router.find_lines("Second signal, SIGTERM: ending at once; 1 requests are cut off")
    engine.release.set()
    again = world.router(engines, "--reload-timeout", "5s", store=store)
    assert [engine_of(chat(again, messages)) for messages, _ in talks] == [home for _, home in talks]
