"""Limits of what clients send, how slowly, and over how many connections."""
import os
import resource
import socket
import time

import pytest

from client import Connection, chat_body, request_bytes
from harness import SLOW, Router
from prometheus import scrape

CHAT = "/v1/chat/completions"
FAST = ("--header-timeout", "1s", "--body-timeout", "1s")


def refused(router, reason):
    return scrape(router).value("hashtrie_refused_requests_total", reason=reason)


def ends(connection):
    """No byte more comes: closed or reset."""
    try:
        return connection.socket.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("option, value, path, headers, body, status, reason", [
    ("--max-header-size", "2KiB", CHAT, [("X-A", "a" * 2100)], b"", 431, "head_too_large"),
    ("--max-header-count", "8", CHAT, [(f"X-{n}", "a") for n in range(9)], b"", 431,
     "head_too_large"),
    ("--max-url-length", "100", CHAT + "?" + "a" * 100, [], b"", 414, "url_too_long"),
    ("--max-body-size", "2KiB", CHAT, [], chat_body("a" * 2100), 413, "body_too_large"),
])
def test_what_is_too_large_is_refused(world, option, value, path, headers, body, status, reason):
    upstream = world.upstream(lambda exchange: exchange.answer())
    strict, plain = world.router([upstream], option, value), world.router([upstream])
    data = request_bytes("POST", path, body or chat_body("a"), headers)
    with Connection(strict.address) as connection:
        connection.send(data)
        assert connection.read_answer().status == status
        assert ends(connection)
    assert refused(strict, reason) == 1
    with Connection(plain.address) as connection:
        connection.send(data)
        assert connection.read_answer().status == 200
    assert len(upstream.exchanges) == 1


def test_a_chunked_body_is_counted_as_it_comes(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], "--max-body-size", "2KiB")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with Connection(router.address) as connection:
        connection.send(head + (b"400\r\n" + b"a" * 1024 + b"\r\n") * 2 + b"1\r\na\r\n")
        assert connection.read_answer().status == 413
        assert ends(connection)
    assert refused(router, "body_too_large") == 1 and not upstream.exchanges


def drip(connection, pieces, seconds):
    """Sends a piece every `seconds` until an answer comes; whether one did."""
    connection.socket.settimeout(seconds)
    for piece in pieces:
        try:
            connection.send(piece)
            connection.pending += connection.socket.recv(65536)
            break
        except socket.timeout:
            continue
    connection.socket.settimeout(10 * SLOW)
    return bool(connection.pending)


def test_a_head_that_comes_byte_by_byte_is_answered_with_408(world):
    router = world.router([world.engine()], *FAST)
    with Connection(router.address) as connection:
        begin = time.monotonic()
        assert drip(connection, [b"GET /health HTTP/1.1\r\n"] + [b"A"] * 300, 0.1)
        assert connection.read_answer().status == 408
        assert time.monotonic() - begin > 1
        assert ends(connection)
    assert refused(router, "slow_head") == 1


def test_the_second_head_of_a_connection_has_its_own_time(world):
    router = world.router([world.engine()], *FAST)
    with Connection(router.address) as connection:
        for _ in range(3):
            connection.send(request_bytes("GET", "/health"))
            assert connection.read_answer().status == 200
            time.sleep(0.7)
        connection.send(b"GET /health")
        assert connection.read_answer().status == 408
    assert refused(router, "slow_head") == 1


def test_the_time_between_requests_is_not_the_time_of_a_head(world):
    router = world.router([world.engine()], "--header-timeout", f"{3 * SLOW}s")
    data = request_bytes("GET", "/health")
    with Connection(router.address) as connection:
        connection.send(data)
        assert connection.read_answer().status == 200
        time.sleep(3.2 * SLOW)
        connection.send(data[:10])
        time.sleep(1.3)  # It is looked at once a second.
        connection.send(data[10:])
        assert connection.read_answer().status == 200


@pytest.mark.parametrize("header_timeout", ["1s", "off"])
def test_a_connection_that_never_asks_is_closed(world, header_timeout):
    router = world.router([world.engine()], "--header-timeout", header_timeout,
                          "--client-idle-timeout", "1s")
    with Connection(router.address) as silent, Connection(router.address) as idle:
        idle.send(request_bytes("GET", "/health"))
        assert idle.read_answer().status == 200
        assert ends(silent) and ends(idle)
    assert refused(router, "slow_head") == 0


@pytest.mark.parametrize("options, pieces, seconds", [
    (FAST, [], 1),  # It pauses.
    ((*FAST, "--min-body-rate", "1KiB"), [b"a"] * 300, 0.1),  # It trickles.
])
def test_a_body_that_comes_too_slowly_is_answered_with_408(world, options, pieces, seconds):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], *options)
    head = request_bytes("POST", CHAT, b"", [("X-A", "a")]).replace(b"Content-Length: 0",
                                                                    b"Content-Length: 1000")
    assert b"Content-Length: 1000" in head
    with Connection(router.address) as connection:
        drip(connection, [head + b"{", *pieces], seconds)
        assert connection.read_answer().status == 408
        assert ends(connection)
    assert refused(router, "slow_body") == 1 and not upstream.exchanges


def test_a_body_that_trickles_fast_enough_is_served(world):
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream], *FAST, "--min-body-rate", "2B")
    data = request_bytes("POST", CHAT, chat_body("a"))
    with Connection(router.address) as connection:
        connection.send(data[:-30])
        for at in range(-30, 0):
            time.sleep(0.1)
            connection.send(data[at:at + 1 or None])
        assert connection.read_answer().status == 200


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("option, limit", [("--max-connections", "all"),
                                           ("--max-connections-per-address", "address")])
def test_connections_over_the_limit_are_closed(world, threads, option, limit):
    router = world.router([world.engine()], option, 3, "--threads", threads)
    inside = []
    for _ in range(3):
        inside.append(Connection(router.address))
        inside[-1].send(request_bytes("GET", "/version"))
        assert inside[-1].read_answer().status == 200
    for _ in range(5):
        with Connection(router.address) as over:
            assert ends(over)
    router.wait_line(f"Connections are closed at once: .* {option} allows \\(3\\)")
    inside.pop().close()
    deadline = time.monotonic() + 10 * SLOW
    while True:  # The place is free once the router has seen the end.
        with Connection(router.address) as connection:
            try:
                connection.send(request_bytes("GET", "/metrics"))
                text = connection.read_answer().text()
                break
            except (EOFError, ConnectionError):
                assert time.monotonic() < deadline
    for connection in inside:
        connection.close()
    assert f'hashtrie_refused_connections_total{{limit="{limit}"}} 5' in text or \
        int(text.split(f'hashtrie_refused_connections_total{{limit="{limit}"}} ')[1].split()[0]) > 5
    assert len(router.find_lines("Connections are closed at once")) == 1


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("threads", [1, 2])
def test_without_descriptors_connections_wait_and_nothing_spins(world, threads):
    engine = world.engine()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    router = Router([engine], "--threads", threads, "--max-connections", 1000)
    world.keep(router)
    used = len(list_descriptors(router.pid))
    resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (used + 6, before[1]))
    connections = [Connection(router.address) for _ in range(12)]
    router.wait_line("No descriptors or memory for new connections: they wait")
    begin = cpu_seconds(router.pid)
    time.sleep(1)
    assert cpu_seconds(router.pid) - begin < 0.3
    for connection in connections[:6]:
        connection.close()
    for connection in connections[6:]:
        connection.send(request_bytes("GET", "/version"))
        assert connection.read_answer().status == 200
        connection.close()
    router.wait_line("New connections are accepted again")
    resource.prlimit(router.pid, resource.RLIMIT_NOFILE, before)
    assert scrape(router).value("hashtrie_accept_pauses_total") >= 1
    assert len(router.find_lines("No descriptors")) == 1


def list_descriptors(pid):
    return os.listdir(f"/proc/{pid}/fd")


def test_a_limit_of_open_files_that_is_too_low_is_told(world):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    router = world.router([world.engine()], "--max-connections", 10_000_000)
    assert hard < 20_000_000
    router.wait_line("--max-connections 10000000 needs a limit of open files of 2[0-9]{7}; it is "
                     f"{hard}")
