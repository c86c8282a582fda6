"""Many streams, slow ones, and clients that leave: what holds for each moment of a request."""
import os
import socket
import threading

import pytest

from client import Connection, chat, chat_body, encode, in_parallel
from harness import SLOW, wait_until, wait_until_still
from prometheus import scrape
from test_failures import idle
from test_hostile_engines import Lazy, size_of


def open_stream(router, version="HTTP/1.1", max_tokens=4, **options):
    connection = Connection(router.address, **options)
    body = {**chat_body("x", stream=True), "max_tokens": max_tokens}
    connection.send_request("POST", "/v1/chat/completions", body, version=version)
    return connection


@pytest.mark.smoke
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_nothing_of_a_stream_is_held_back(world, version):
    """The engine sends the next byte when the client has confirmed the one before: whatever the
    router kept back, be it half a line, would stop both."""
    text = b"data: {\"n\": 1}\n\n: a comment\n\ndata: [DONE]\n\n"
    confirmed = threading.Semaphore(0)

    def handler(exchange):
        exchange.start_stream()
        for at in range(len(text)):
            exchange.chunk(text[at:at + 1])
            assert confirmed.acquire(timeout=20 * SLOW), f"byte {at} was held back"
        exchange.end_stream()

    router = world.router([world.upstream(handler)])
    with open_stream(router, version) as connection:
        assert connection.read_head().status == 200
        parts = connection.chunks() if version == "HTTP/1.1" else (
            connection.read_exactly(1) for _ in text)
        received = b""
        for part in parts:
            received += part
            confirmed.release()
        assert received == text


def test_memory_of_idle_streams(world):
    """HASHTRIE_STREAMS=10000: as many; they have to fit in 300 MB."""
    count = int(os.environ.get("HASHTRIE_STREAMS", "1000"))
    engines = world.engines(1 + count // 4000, "--prefill-tps", "1e9", "--decode-ms", "500",
                            "--kv-tokens", "100000000",
                            "--max-batch", count)  # One runs at most 4,096 at a time.
    router = world.router(engines, "--threads", "2")
    streams = []
    try:
        with open_stream(router, max_tokens=1000) as first:
            next(first.chunks()) if first.read_head().status == 200 else None
        before = router.rss_bytes()
        for at in range(0, count, 500):  # No more at a time than a listener's queue takes.
            part = [open_stream(router, max_tokens=1000) for _ in range(at, min(at + 500, count))]
            streams += part
            for stream in part:
                assert stream.read_head().status == 200
                assert next(stream.chunks()).startswith(b"data: ")
        each = (router.rss_bytes() - before) / count
        print(f"{count} streams: {router.rss_bytes() / 1e6:.1f} MB, {each / 1024:.1f} KiB each")
        if SLOW == 1:
            assert each < 28_000 and before + 10_000 * each < 300e6
    finally:
        for stream in streams:
            stream.close()
    wait_until(lambda: idle(router), 30)


# ---- Back-pressure ----

def bytes_taken(world, *arguments):
    """How much an engine gets rid of while the client reads nothing."""
    sent = [0]

    def handler(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while True:  # Ends when the router closes.
            exchange.send(b"x" * 65536)
            sent[0] += 65536

    router = world.router([world.upstream(handler)], *arguments)
    with open_stream(router, receive_buffer=65536) as connection:
        assert connection.read_head().status == 200
        wait_until_still(lambda: sent[0], 30, "the engine is held back")
    wait_until(lambda: idle(router))
    return sent[0]


def test_what_waits_for_a_client_is_bounded_by_a_flag(world):
    little = bytes_taken(world, "--connection-buffer-size", "16KiB")
    much = bytes_taken(world, "--connection-buffer-size", "64MiB")
    assert much - little > 48 << 20  # The rest is the kernel's, about the same in both.
    assert little < 24 << 20


def test_engines_that_read_slowly_hold_back_uploads(world):
    """Bodies wait in the router while their engine takes them, so they count; past
    --max-buffered-bytes other clients are not read. In the end all are served."""
    go_on = threading.Event()

    def handler(connection, head):
        assert go_on.wait(60)
        left = size_of(head)
        while left > 0:
            left -= len(connection.recv(min(left, 1 << 20)))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
        connection.close()

    body = encode(chat_body("y" * (12 << 20)))
    uploaded = [0] * 8

    def upload(router, number):
        with Connection(router.address) as connection:
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), 65536):
                connection.send(body[at:at + 65536])
                uploaded[number] = min(at + 65536, len(body))
            return connection.read_answer().body

    with Lazy(handler) as engine:
        router = world.router([engine.url], "--max-buffered-bytes", "32MiB", "--max-body-size",
                              "16MiB", "--send-timeout", "off", "--threads", "1")
        before = router.rss_bytes()
        answers = []
        thread = threading.Thread(target=lambda: answers.extend(
            in_parallel(8, lambda number: upload(router, number))))
        thread.start()
        wait_until(lambda: sum(uploaded) > 0, 30, "uploads begin")
        wait_until_still(lambda: sum(uploaded), 30, "uploads are held back")
        assert sum(uploaded) < 7 * len(body)
        assert router.rss_bytes() - before < 64 << 20 or SLOW > 1
        go_on.set()
        thread.join()
        assert answers == [b"fine"] * 8 and idle(router)


# ---- Clients that leave ----

def leave(connection, how):
    getattr(connection, how)()
    connection.close()


def cancelled(router):
    return scrape(router).total("hashtrie_cancelled_requests_total")


@pytest.mark.smoke
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("moment", ["sending", "waiting", "head", "relaying", "slow"])
def test_a_client_that_leaves_at_any_moment_frees_its_engine_at_once(world, moment, how):
    """Told by the engine, whose connection ends, and by the counters."""
    begun = threading.Event()
    large = moment == "sending"

    def handler(connection, head):
        if not large:
            left = size_of(head)
            while left > 0:
                left -= len(connection.recv(left))
        if moment in ("head", "relaying", "slow"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        if moment == "relaying":
            connection.sendall(b"x")
        begun.set()
        if moment == "slow":
            try:
                while True:
                    connection.sendall(b"x" * 65536)
            except ConnectionError:
                gone.set()
            return
        try:
            while connection.recv(1 << 20):
                pass
        except ConnectionError:
            pass
        gone.set()

    gone = threading.Event()
    with Lazy(handler) as engine:
        router = world.router([engine.url])
        connection = Connection(router.address, receive_buffer=65536)
        connection.send_request("POST", "/v1/chat/completions",
                                chat_body("x" * (24 << 20 if large else 10)))
        assert begun.wait(20)
        if moment in ("relaying", "slow"):
            assert connection.read_head().status == 200
            assert connection.read_exactly(1) == b"x"
        assert scrape(router).total("vllm:num_requests_running") == 1
        leave(connection, how)
        assert gone.wait(10 * SLOW)
        wait_until(lambda: idle(router))
        assert cancelled(router) == 1
        assert scrape(router).total("vllm:request_errors_total") == 0  # It is not its fault.
        assert scrape(router).total("hashtrie_engine_ejections_total") == 0


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_a_client_that_leaves_after_its_answer_has_cancelled_nothing(world, how):
    upstream = world.upstream(lambda exchange: exchange.answer(b"fine"))
    router = world.router([upstream], "--threads", "1")
    for _ in range(20):
        connection = Connection(router.address)
        assert chat(router, "x", connection=connection).body == b"fine"
        leave(connection, how)
    assert cancelled(router) == 0 and idle(router)
    assert upstream.connections == 1  # The engine's connection was kept.


def test_pipelined_requests_of_a_client_that_leaves_are_dropped(world):
    def handler(exchange):
        assert exchange.socket.recv(1) == b""
        exchange.close()

    upstream = world.upstream(handler)
    router = world.router([upstream])
    connection = Connection(router.address)
    for _ in range(5):
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"))
    wait_until(lambda: len(upstream.exchanges) == 1)
    leave(connection, "close")
    wait_until(lambda: idle(router))
    assert upstream.exchanges[0].wait_gone()
    assert len(upstream.exchanges) == 1 and cancelled(router) == 1


# ---- Engines that close what they kept ----

@pytest.mark.load
@pytest.mark.parametrize("says", [True, False], ids=["announced", "unannounced"])
def test_an_engine_that_closes_after_each_100_requests(world, says):
    """As llama-server does: right after the hundredth answer. No POST may be lost to it."""
    def handler(exchange):
        exchange.answer(b"fine", [("Keep-Alive", "timeout=5, max=100")] if says else [])
        if exchange.number == 99:
            exchange.socket.shutdown(socket.SHUT_RDWR)
            exchange.close()

    upstream = world.upstream(handler)
    router = world.router([upstream], "--threads", "2")

    def ask_many(number):
        with Connection(router.address) as connection:
            return [chat(router, f"{number}", connection=connection).body for _ in range(500)]

    bodies = [body for part in in_parallel(8, ask_many) for body in part]
    assert bodies == [b"fine"] * 4000
    metrics = scrape(router)
    assert metrics.total("vllm:request_errors_total") == 0
    assert metrics.total("hashtrie_retries_total") == 0
    if says:
        assert metrics.total("hashtrie_resends_total") == 0
    assert max(exchange.number for exchange in upstream.exchanges) == 99
    assert idle(router)
