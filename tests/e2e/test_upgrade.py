"""Sockets passed by a service manager, what it is told, and upgrades that refuse no connection."""
import os
import signal
import socket
import threading

import pytest

from client import Connection, chat, chat_body, engine_of, get, request_bytes
from harness import SLOW, Program, binary, wait_until
from prometheus import scrape
from test_lifecycle import SERVED, start_conversations, wait_checkpoint
from test_routing import conversation
from test_shutdown import Held
from test_store_faults import health, wait_state


def listening():
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


# ---- Sockets ----

@pytest.mark.smoke
def test_passed_sockets_are_served_by_all_threads(world):
    with listening() as first, listening() as second:
        router = world.router([world.engine()], "--threads", "2", port=1, sockets=[first, second],
                              environment={"LISTEN_FDNAMES": "web:more"})
        assert router.find_lines(r"descriptor 3 \(web\)") and router.find_lines(r"4 \(more\)")
        assert router.port == second.getsockname()[1]
        for taken in (first, second):
            for _ in range(5):
                with Connection(taken.getsockname()) as connection:
                    assert chat(None, "x", connection=connection).status == 200
        # Only the sockets' owner keeps them: the router has none but its threads' own.
        assert router.terminate() == 0


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["datagram", "unix", "not listening", "too few", "bad number"])
def test_what_is_no_listening_tcp_socket_is_refused(kind, tmp_path):
    environment = {}
    if kind == "datagram":
        passed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif kind == "unix":
        passed = socket.socket(socket.AF_UNIX)
        passed.bind(str(tmp_path / "socket"))
        passed.listen()
    elif kind == "not listening":
        passed = socket.socket()
    else:
        passed = listening()
        environment["LISTEN_FDS"] = "2" if kind == "too few" else "two"
    with passed:
        program = Program([binary("hashtrie-router"), *SERVED, "--no-store"], environment,
                          sockets=[passed])
        assert program.wait() == 1
    expected = "LISTEN_FDS is not a number" if kind == "bad number" else "no listening TCP socket"
    assert program.find_lines(expected), program.output()
    assert program.complaint() is None


def test_sockets_for_another_process_are_left_alone(world):
    with listening() as other:
        router = world.router([world.engine()],
                              environment={"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
        assert router.port != other.getsockname()[1]
        assert get(router, "/ready").status == 200


@pytest.mark.smoke
def test_two_routers_share_a_passed_admin_socket(world):
    """Both have --admin-port, which only one of them could have."""
    engine = world.engine()
    with listening() as web, listening() as admin:
        address = admin.getsockname()
        options = {"sockets": [admin, web], "environment": {"LISTEN_FDNAMES": "admin:web"}}
        first = world.router([engine], "--admin-port", address[1], **options)
        assert first.port == web.getsockname()[1]
        second = world.router([engine], "--admin-port", address[1], **options)
        for router in (first, second):
            assert get(router, "/metrics").status == 404  # Not where clients are.
            with Connection(address) as connection:
                assert connection.ask("GET", "/metrics").status == 200
            with Connection(address) as connection:
                assert connection.ask("POST", "/v1/chat/completions").status == 404
            assert router.terminate() == 0


def test_an_admin_socket_alone_leaves_the_port_to_the_router(world):
    with listening() as admin:
        router = world.router([world.engine()], sockets=[admin],
                              environment={"LISTEN_FDNAMES": "admin"})
        assert router.port != admin.getsockname()[1]
        assert get(router, "/ready").status == 200
        assert get(router, "/metrics").status == 404
        with Connection(admin.getsockname()) as connection:
            assert connection.ask("GET", "/metrics").status == 200


# ---- Upgrades ----

class Load:
    """Clients that open a connection for each request, or keep it until they are told not to, and
    what they saw."""

    def __init__(self, address, threads=6, keeps=False):
        self.address = address
        self.keeps = keeps
        self.served = 0
        self.failures = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,))
                         for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        messages = conversation(70000 + number, size=200)
        while not self._stop.is_set():
            try:
                with Connection(self.address) as connection:
                    while self._ask(connection, messages):
                        pass
            except (OSError, EOFError) as caught:
                self._note(repr(caught))

    def _ask(self, connection, messages):
        """True: once more on this connection."""
        answer = chat(None, messages, max_tokens=1, connection=connection)
        self._note(None if answer.status == 200 else repr(answer))
        return self.keeps and answer.header("connection") != "close" and not self._stop.is_set()

    def _note(self, failure):
        with self._lock:
            if failure:
                self.failures.append(failure)
            else:
                self.served += 1

    def reach(self, count):
        wait_until(lambda: self.served >= count or self.failures, 60, f"{count} requests")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.load
def test_two_upgrades_under_load_refuse_and_lose_nothing(world):
    """
    Once side by side: the second is started, then the first stopped. Once one after the other:
    what comes between waits in the socket's queue. No delay gives clients time to notice.
    """
    engines = world.engines(3, "--prefill-tps", "1000000", "--decode-ms", "0", "--kv-tokens",
                            "1000000")
    held = Held(world)
    arguments = ["--threads", "2", "--reload-timeout", "5s", "--checkpoint-interval", "100ms"]
    options = {"store": world.store(), "models": ["mock-model"] * 3 + ["held"]}
    with listening() as passed:
        def start():
            return world.router(engines + [held.upstream], *arguments, sockets=[passed], **options)

        first = start()
        talks = start_conversations(first, 8)
        load = Load(first.address)
        load.reach(1000)
        with Connection(first.address) as stream:
            stream.send_request("POST", "/v1/chat/completions",
                                chat_body("x", model="held", stream=True))
            assert held.begun.acquire(timeout=10)
            second = start()
            assert health(second)["state"] in ("off", "ok")  # Whoever answers.
            first.signal(signal.SIGTERM)
            first.wait_line("draining")
            load.reach(load.served + 1000)  # By the second alone, while the first drains.
            held.release.set()
            assert stream.read_answer().status == 200
        assert first.wait() == 0
        wait_state(second, "ok")
        assert second.find_lines(rf"has the folder open \(process: {first.pid}\)")
        load.reach(load.served + 500)
        assert second.terminate() == 0
        waited_from = load.served
        third = start()
        load.reach(waited_from + 1000)
        load.stop()
        assert not load.failures, (len(load.failures), load.failures[:5])
        assert load.served >= 3500
        homes = [engine_of(chat(third, messages)) for messages, _ in talks]
        assert homes == [home for _, home in talks]
        assert scrape(third).total("vllm:num_requests_running") == 0


@pytest.mark.load
def test_clients_that_keep_their_connections_lose_nothing_in_the_shutdown_delay(world):
    """Each is told to open another one; none meets a connection that was closed under its hands."""
    engine = world.engine("--prefill-tps", "1000000", "--decode-ms", "0")
    with listening() as passed:
        routers = [world.router([engine], "--threads", "2", "--shutdown-delay", "1s",
                                sockets=[passed])]
        load = Load(routers[0].address, keeps=True)
        load.reach(300)
        for _ in range(2):
            routers.append(world.router([engine], "--threads", "2", "--shutdown-delay", "1s",
                                        sockets=[passed]))
            assert routers[-2].terminate() == 0
            load.reach(load.served + 300)
        load.stop()
    assert not load.failures, (len(load.failures), load.failures[:5])


@pytest.mark.smoke
def test_what_both_have_learned_is_there_after_the_hand_over_and_after_kill_9(world):
    engines = world.engines(3)
    store = world.store()
    arguments = ["--reload-timeout", "5s", "--checkpoint-interval", "50ms"]
    old = world.router(engines, *arguments, store=store)
    known = start_conversations(old, 8)
    new = world.router(engines[::-1], *arguments, "--store-wait", "1h", store=store)
    ready = get(new, "/ready")
    assert (ready.status, ready.json()["status"]) == (503, "waiting for the store")
    assert ready.json()["store"]["held_by_process"] == old.pid
    assert health(new)["held_by_process"] == old.pid
    assert new.find_lines(rf"another router has the folder open \(process: {old.pid}\)")
    meanwhile = start_conversations(new, 8, first=100)  # Not ready, but it serves who comes.
    known += start_conversations(old, 8, first=200)
    both = conversation(300)
    homes = {engine_of(chat(old, both)), engine_of(chat(new, both))}
    assert old.terminate() == 0
    wait_state(new, "ok")
    assert get(new, "/ready").status == 200
    assert "held_by_process" not in health(new)
    expected = [home for _, home in known + meanwhile]
    assert [engine_of(chat(new, messages)) for messages, _ in known + meanwhile] == expected
    assert engine_of(chat(new, both)) in homes
    wait_checkpoint(new)
    new.kill()
    third = world.router(engines, *arguments, store=store)
    assert [engine_of(chat(third, messages)) for messages, _ in known + meanwhile] == expected
    assert engine_of(chat(third, both)) in homes


@pytest.mark.smoke
def test_the_store_is_handed_over_while_long_answers_still_run(world):
    """But not before all that was asked has been routed: a request comes in slowly."""
    engines = world.engines(3)
    held = Held(world)
    store = world.store()
    models = ["mock-model"] * 3 + ["held"]
    arguments = ["--reload-timeout", "5s", "--checkpoint-interval", "1h", "--threads", "2"]
    old = world.router(engines + [held.upstream], *arguments, models=models, store=store)
    known = start_conversations(old, 8)
    new = world.router(engines + [held.upstream], *arguments, models=models, store=store)
    slow = conversation(400)
    data = request_bytes("POST", "/v1/chat/completions", chat_body(slow))
    with Connection(old.address) as stream, Connection(old.address) as uploading:
        stream.send_request("POST", "/v1/chat/completions", chat_body("x", model="held",
                                                                      stream=True))
        assert held.begun.acquire(timeout=10)
        stream.read_head()
        uploading.send(data[:-100])
        wait_until(lambda: scrape(old).total("hashtrie_buffered_bytes") > 0)
        old.signal(signal.SIGTERM)
        old.wait_line("draining")
        with pytest.raises(AssertionError):
            old.wait_line("is handed over", 3 / SLOW)
        assert health(new)["state"] == "off"
        uploading.send(data[-100:])
        home = engine_of(uploading.read_answer())
        old.wait_line("is handed over")
        wait_state(new, "ok")
        assert [engine_of(chat(new, messages)) for messages, _ in known] == \
            [home for _, home in known]
        assert engine_of(chat(new, slow)) == home
        assert old.running()
        held.release.set()
        while stream.receive():
            pass
    assert old.wait() == 0
    new.terminate()
    third = world.router(engines, *arguments, store=store)
    assert [engine_of(chat(third, messages)) for messages, _ in known] == \
        [home for _, home in known]
    assert engine_of(chat(third, slow)) == home


def test_the_wait_for_the_store_is_bounded(world):
    engine = world.engine()
    store = world.store()
    holder = world.router([engine], store=store)
    router = world.router([engine], "--store-wait", "300ms", store=store)
    wait_until(lambda: get(router, "/ready").status == 200, what="/ready without the store")
    assert health(router)["state"] == "off"
    assert get(holder, "/ready").status == 200


# ---- What a service manager is told ----

class Manager:
    """Stands for systemd: what it is told, in order."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(20)

    def hear(self):
        return self.socket.recv(4096).decode().rstrip("\n").split("\n")

    def hear_until(self, line):
        heard = []
        while line not in heard:
            heard += self.hear()
        return heard


@pytest.mark.smoke
def test_a_service_manager_is_told(world):
    manager = Manager(world.folder / "notify")
    engine = world.engine()
    holder = world.router([engine], store=world.store())
    router = world.router([engine], "--store-wait", "1h", store=world.store(),
                          environment={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "3000000"})
    assert manager.hear() == ["READY=1", "STATUS=waiting for the store"]
    manager.hear_until("WATCHDOG=1")
    holder.terminate()
    manager.hear_until("STATUS=ready")
    manager.hear_until("WATCHDOG=1")
    router.signal(signal.SIGTERM)
    manager.hear_until("STOPPING=1")
    assert router.wait() == 0


def test_a_service_manager_that_is_not_there_is_no_reason_to_fail(world):
    router = world.router([world.engine()],
                          environment={"NOTIFY_SOCKET": str(world.folder / "absent")})
    router.wait_line("service manager could not be told")
    assert get(router, "/ready").status == 200
