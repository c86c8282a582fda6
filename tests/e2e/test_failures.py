"""What goes wrong on either side, and who must not notice."""
import os
import resource
import socket
import threading

import pytest

from client import Connection, ask, chat, chat_body, engine_of, get, in_parallel
from harness import SLOW, wait_until
from prometheus import scrape
from upstream import Upstream


def refused_url():
    """A port on which nobody listens, held by a bound socket that never does."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder, f"http://127.0.0.1:{holder.getsockname()[1]}"


def idle(router):
    metrics = scrape(router)
    return (metrics.total("vllm:num_requests_running") == 0
            and metrics.total("vllm:num_prefill_requests") == 0
            and metrics.total("vllm:num_decoding_requests") == 0)


@pytest.mark.smoke
def test_a_refused_backend_is_replaced_by_another(world):
    holder, url = refused_url()
    with holder:
        router = world.router([url, world.engine(name="good")])
        for number in range(20):
            answer = chat(router, f"{number} " * 50)
            assert answer.status == 200 and engine_of(answer) == "good"
        assert idle(router)
        assert scrape(router).total("vllm:request_errors_total", server=url) > 0


def test_all_refused_is_an_error_in_json(world):
    holder, url = refused_url()
    with holder:
        router = world.router([url])
        answer = chat(router, "x")
        assert answer.status in (502, 503), answer
        assert isinstance(answer.json()["error"], str)
        assert answer.header("x-request-id")
        assert idle(router)


def test_the_number_of_attempts_is_bounded(world):
    def drop(exchange):
        exchange.close()

    dropping = [world.upstream(drop) for _ in range(4)]
    router = world.router(dropping, "--max-instance-failover-reroute-attempts", "1")
    assert chat(router, "x").status == 502
    assert sum(upstream.connections for upstream in dropping) == 2
    router = world.router(dropping, "--max-instance-failover-reroute-attempts", "0")
    assert chat(router, "x").status == 502
    assert sum(upstream.connections for upstream in dropping) == 3


@pytest.mark.smoke
def test_a_connection_closed_while_idle_is_not_the_clients_trouble(world):
    """Closed right after the next request was written: sent again, on a fresh connection."""
    def handler(exchange):
        if exchange.number == 1:
            exchange.close()  # As a server does whose keep-alive time ran out just then.
            return
        exchange.answer(b"fine")

    upstream = world.upstream(handler)
    router = world.router([upstream])
    with Connection(router.address) as connection:
        for _ in range(10):
            answer = chat(router, "x", connection=connection)
            assert answer.status == 200 and answer.body == b"fine"
    assert upstream.connections >= 5
    bodies = {exchange.body for exchange in upstream.exchanges}
    assert len(bodies) == 1


def test_idle_connections_are_reused_and_given_up_in_time(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], "--threads", "1", "--upstream-idle-timeout", "1s")
    for _ in range(5):
        assert chat(router, "x").status == 200
    assert upstream.connections == 1
    assert upstream.exchanges[-1].wait_gone(10)  # The router closes it first.
    assert chat(router, "x").status == 200
    assert upstream.connections == 2


def test_an_answer_cut_before_its_body_moves_on(world):
    def head_only(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        exchange.close()

    bad = world.upstream(head_only)
    router = world.router([bad, world.engine(name="good")])
    answers = [chat(router, f"{number} " * 100) for number in range(30)]
    assert [engine_of(answer) for answer in answers] == ["good"] * 30
    assert bad.connections > 0
    assert idle(router)


def test_an_answer_cut_in_its_body_is_cut_for_the_client(world):
    def cut(exchange):
        exchange.start_stream()
        exchange.chunk(b"data: {}\n\n")
        exchange.close()

    upstream = world.upstream(cut)
    router = world.router([upstream, world.upstream(cut)])
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        assert connection.read_head().status == 200
        parts = connection.chunks()
        assert next(parts) == b"data: {}\n\n"
        with pytest.raises((EOFError, ConnectionError)):
            list(parts)
    wait_until(lambda: idle(router))


@pytest.mark.parametrize("garbage", [
    b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", b"\0" * 100,
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200000,
], ids=["status", "ssh", "length", "lengths", "zeros", "endless"])
def test_an_engine_that_talks_nonsense_is_replaced(world, garbage):
    def handler(exchange):
        exchange.send(garbage)
        exchange.close()

    bad = world.upstream(handler)
    router = world.router([bad, world.engine(name="good")])
    for number in range(30):  # Ties are broken at random: sooner or later the bad one is asked.
        assert engine_of(chat(router, f"{number} " * 100)) == "good"
    assert bad.connections > 0 and idle(router)


@pytest.mark.smoke
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_a_client_that_leaves_cancels_the_engines_work(world, stream, how):
    engine = world.engine("--decode-ms", "50", "--prefill-tps", "1000000")
    router = world.router([engine])
    connection = Connection(router.address)
    connection.send_request("POST", "/v1/chat/completions",
                            chat_body("x", stream=stream, max_tokens=2000))
    wait_until(lambda: scrape(engine).total("vllm:num_requests_running") == 1)
    if stream:
        connection.read_head()
        next(connection.chunks())
    getattr(connection, how)()
    wait_until(lambda: scrape(engine).total("mock:aborted_requests_total") == 1)
    assert scrape(engine).total("vllm:num_requests_running") == 0
    wait_until(lambda: idle(router))
    connection.close()
    assert chat(router, "x").status == 200


def test_a_client_that_leaves_before_the_engine_takes_the_connection(world):
    """The engine has accepted nothing yet: the attempt itself is given up."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    try:
        for _ in range(4):  # Fill the queue so that further connects hang.
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        router = world.router([url], "--connect-timeout", "60s")
        connection = Connection(router.address)
        connection.send_request("POST", "/v1/chat/completions", chat_body("x"))
        wait_until(lambda: scrape(router).total("vllm:num_requests_running") == 1)
        connection.close()
        wait_until(lambda: idle(router))
    finally:
        for filler in fillers:
            filler.close()
        listener.close()


def test_a_client_that_leaves_in_its_own_body_is_no_request(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream])
    for _ in range(10):
        connection = Connection(router.address)
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                        b"\r\n{\"model\"")
        connection.close()
    assert chat(router, "x").status == 200
    assert len(upstream.exchanges) == 1 and idle(router)


@pytest.mark.smoke
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_load_counters_are_down_when_the_answer_is_there(world, stream):
    """A client's next request must see a true picture, so no waiting is allowed here."""
    engine = world.engine("--prefill-tps", "1000000", "--decode-ms", "0")
    router = world.router([engine], "--threads", "2")
    with Connection(router.address) as one, Connection(router.address) as other:
        for number in range(100):
            answer = chat(router, f"{number}", connection=one, stream=stream)
            assert answer.status == 200
            text = other.ask("GET", "/metrics").text()
            running = [line for line in text.split("\n")
                       if line.startswith("vllm:num_requests_running{")]
            assert len(running) == 1 and running[0].endswith(" 0"), running


def test_load_counters_while_requests_run(world):
    release = threading.Event()

    def handler(exchange):
        exchange.start_stream()
        if exchange.header("x-begin"):
            exchange.chunk(b"data: {}\n\n")
        release.wait(60)
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.end_stream()

    upstream = world.upstream(handler)
    router = world.router([upstream])
    threads = [threading.Thread(target=chat, args=(router, "x"), kwargs={
        "stream": True, "headers": [("X-Begin", "1")] if number < 2 else []})
        for number in range(5)]
    for thread in threads:
        thread.start()

    def loaded():
        metrics = scrape(router)
        return (metrics.value("vllm:num_requests_running", server=upstream.url) == 5
                and metrics.value("vllm:num_decoding_requests", server=upstream.url) == 2
                and metrics.value("vllm:num_prefill_requests", server=upstream.url) == 3)

    wait_until(loaded, what="five running, two of them past their first byte")
    release.set()
    for thread in threads:
        thread.join()
    assert idle(router)


def test_no_connection_within_the_limit_moves_on(world):
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    try:
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        router = world.router([url, world.engine(name="good")], "--connect-timeout", "100ms")
        for number in range(6):
            assert engine_of(chat(router, f"{number} " * 100)) == "good"
    finally:
        for filler in fillers:
            filler.close()
        listener.close()


def test_an_engine_that_comes_back_is_used_again(world):
    engine = world.engine(name="back")
    router = world.router([engine])
    assert chat(router, "x").status == 200
    port = engine.port
    engine.kill()
    assert chat(router, "x").status in (502, 503)
    world.engine("--decode-ms", "1", name="back", port=port)
    wait_until(lambda: chat(router, "x").status == 200)


@pytest.mark.load
def test_nothing_is_lost_while_engines_come_and_go(world):
    good = world.engine(name="good")
    router_urls = [good]
    flaky = []

    def handler(exchange):
        if exchange.number % 3 == 2:
            exchange.close()
            return
        exchange.answer(b"{}", [("x-engine-id", "flaky")])

    for _ in range(2):
        flaky.append(world.upstream(handler))
    router = world.router(router_urls + flaky, "--threads", "2")

    def ask_many(number):
        with Connection(router.address) as connection:
            return [chat(router, f"{number} {turn} " * 60, connection=connection).status
                    for turn in range(20)]

    statuses = [status for part in in_parallel(16, ask_many) for status in part]
    assert statuses == [200] * 320
    wait_until(lambda: idle(router))


def test_garbage_from_clients_leaves_others_alone(world):
    router = world.router([world.engine()])
    pieces = [b"\0\1\2", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n",
              b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
              b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
              b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
              b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
              b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
              b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
              b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
              b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
    for piece in pieces:
        with Connection(router.address) as connection:
            try:
                connection.send(piece)
                connection.half_close()
                received = b""
                while True:
                    data = connection.receive()
                    if not data:
                        break
                    received += data
            except ConnectionError:
                continue
            if received:
                status = int(received.split(b" ")[1])
                assert 400 <= status < 506, (piece[:60], received[:200])
    assert chat(router, "x").status == 200
    assert get(router, "/health").status == 200


def test_upstream_helper_is_honest():
    """The fake engine itself: it must not be what makes other tests pass."""
    upstream = Upstream(lambda exchange: exchange.answer(b"abc"))
    try:
        answer = ask(upstream, "POST", "/x", b"12345")
        assert answer.body == b"abc" and upstream.exchanges[0].body == b"12345"
    finally:
        upstream.close()
    assert SLOW >= 1


def test_an_engine_cannot_have_its_framing_dropped(world):
    def answer(exchange):
        exchange.answer(b"ok", headers=[("Connection", "content-length")])

    router = world.router([world.upstream(answer)])
    with Connection(router.address) as connection:
        for _ in range(2):
            reply = chat(router, "x", connection=connection)
            assert reply.status == 200 and reply.body == b"ok"
            assert reply.header("content-length") == "2"


def test_no_descriptors_left_is_not_the_engines_fault(world):
    engine = world.engine()
    router = world.router([engine], "--threads", "1")
    assert chat(router, "x").status == 200
    used = len(os.listdir(f"/proc/{router.pid}/fd"))
    resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (used + 4, used + 4))
    clients = []
    try:
        for _ in range(12):
            clients.append(Connection(router.address))
        statuses = set()
        for client in clients[:3]:
            try:
                statuses.add(chat(router, "x", connection=client).status)
            except OSError:
                pass # Not accepted.
        assert statuses <= {200, 503}
    finally:
        for client in clients:
            client.close()
    assert scrape(router).total("vllm:request_errors_total") == 0
    assert chat(router, "x").status == 200
