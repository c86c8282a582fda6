"""--dynamic-config-yaml and -json: what changes while the router runs."""
import json
import os
import signal
import socket
import threading

import pytest

from client import Connection, chat, chat_body, engine_of, get
from harness import wait_until
from prometheus import scrape

PROMPT = "a prompt of many words " * 100


def put(path, text):
    """As editors and ConfigMaps do: a whole file in place of another."""
    beside = f"{path}.new"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(beside, path)


def served(*engines, more=""):
    urls = ", ".join(engine.url for engine in engines)
    models = ", ".join(["mock-model"] * len(engines))
    return f"static_backends: [{urls}]\nstatic_models: [{models}]\n{more}"


def yaml_file(world, text):
    path = str(world.folder / "dynamic.yaml")
    put(path, text)
    return path


def change(router, path, text):
    """Put, and wait until it is in use."""
    start = router.line_count()
    put(path, text)
    router.wait_line("Configuration .* is applied", start=start)


def outcomes(router):
    metrics = scrape(router)
    return {outcome: metrics.value("hashtrie_config_reloads_total", outcome=outcome)
            for outcome in ("applied", "refused")}


class Clients:
    """Ask without a pause until they are told to stop."""

    def __init__(self, router, count=4):
        self.statuses = []
        self.engines = set()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(router, number))
                        for number in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, router, number):
        turn = 0
        while not self.stopped.is_set():
            turn += 1
            answer = chat(router, f"{number} asks for the {turn}th time " * 20, max_tokens=2)
            self.statuses.append(answer.status)
            if answer.status == 200:
                self.engines.add(engine_of(answer))

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return self.statuses


@pytest.mark.parametrize("threads", [1, 2])
def test_backends_come_and_go_and_no_request_fails(world, threads):
    first, second, third = world.engines(3)
    path = yaml_file(world, served(first))
    router = world.router([first], "--dynamic-config-yaml", path, "--threads", threads)
    clients = Clients(router)
    for engines in ([first, second], [second], [second, third], [third, first], [first]) * 3:
        clients.engines.clear()
        change(router, path, served(*engines))
        names = {engine.name for engine in engines}
        seen = len(clients.statuses)
        while len(clients.statuses) < seen + 30:
            clients.stopped.wait(0.01)
        assert names & clients.engines
    statuses = clients.stop()
    assert len(statuses) > 400 and set(statuses) == {200}
    assert outcomes(router) == {"applied": 15, "refused": 0}
    health = get(router, "/health").json()
    assert health["dynamic_config"]["static_backends"] == first.url
    wait_until(lambda: second.url not in get(router, "/metrics").text(), 10,
               "metrics of an engine that has gone")


def test_an_engine_that_comes_back_keeps_its_prefixes(world):
    first, second = world.engines(2)
    path = yaml_file(world, served(first, second))
    router = world.router([first], "--dynamic-config-yaml", path)
    home = engine_of(chat(router, PROMPT))
    away = first if home == second.name else second
    change(router, path, served(away))
    assert engine_of(chat(router, "something else " * 50)) == away.name
    change(router, path, served(second, first))
    before = scrape(router).value("hashtrie_routing_decisions_total", policy="prefixaware",
                                  outcome="holder")
    assert engine_of(chat(router, PROMPT)) == home
    assert scrape(router).value("hashtrie_routing_decisions_total", policy="prefixaware",
                                outcome="holder") == before + 1


def test_a_config_map_is_swapped_as_a_whole(world):
    """The file is a link through ..data, and ..data is what is replaced."""
    first, second = world.engines(2)
    volume = world.folder / "volume"
    for version, engine in (("..1", first), ("..2", second)):
        (volume / version).mkdir(parents=True)
        (volume / version / "dynamic.yaml").write_text(served(engine))
    os.symlink("..1", volume / "..data")
    os.symlink("..data/dynamic.yaml", volume / "dynamic.yaml")
    router = world.router([first], "--dynamic-config-yaml", volume / "dynamic.yaml")
    assert engine_of(chat(router, "one")) == first.name
    start = router.line_count()
    os.symlink("..2", volume / "..data_tmp")
    os.replace(volume / "..data_tmp", volume / "..data")
    router.wait_line("Configuration .* is applied", start=start)
    assert engine_of(chat(router, "two")) == second.name


@pytest.mark.parametrize("bad, why", [
    ("static_backends: [http://a\n", "line 2: it is not YAML"),
    ("statik_backends: http://a:1\n", "no such option"),
    ("static_backends: http://a:1,http://b:1\nstatic_models: m\n", "static-models"),
    ("static_backends: http://a:1\nstatic_models: m\nthreads: 3\n", "needs a restart"),
    ("static_backends: http://a:1\nstatic_models: m\nrouting_logic: magic\n", "magic"),
    ("static_models: {m: {}}\n", "no model has a backend"),
])
def test_a_bad_file_changes_nothing_and_says_why(world, bad, why):
    engine = world.engine()
    good = served(engine, more="threads: 2\n")
    path = yaml_file(world, good)
    router = world.router([engine], "--dynamic-config-yaml", path)
    start = router.line_count()
    put(path, bad)
    router.wait_line("Configuration .* is refused, the one before stays", start=start)
    router.wait_line(why, start=start)
    assert chat(router, "still there").status == 200
    assert outcomes(router) == {"applied": 0, "refused": 1}
    assert scrape(router).value("hashtrie_config_last_reload_successful") == 0
    change(router, path, good)
    assert scrape(router).value("hashtrie_config_last_reload_successful") == 1


def test_a_file_that_goes_away_is_told_and_changes_nothing(world):
    engine = world.engine()
    path = yaml_file(world, served(engine))
    router = world.router([engine], "--dynamic-config-yaml", path)
    start = router.line_count()
    os.remove(path)
    router.wait_line("cannot be read: No such file", start=start)
    assert chat(router, "still there").status == 200


def test_sighup_reads_it_again_at_once(world):
    engine = world.engine()
    path = yaml_file(world, served(engine))
    router = world.router([engine], "--dynamic-config-yaml", path)
    start = router.line_count()
    router.signal(signal.SIGHUP)  # Though it has not changed.
    router.wait_line("Configuration .* is applied: 1 backends, 0 aliases, prefixaware",
                     start=start)
    assert outcomes(router) == {"applied": 1, "refused": 0}


def test_aliases_logic_and_session_key_change(world):
    engines = world.engines(2)
    path = str(world.folder / "dynamic.json")

    def text(**more):
        return json.dumps({"static_models": {"mock-model": {
            "static_backends": [engine.url for engine in engines]}}, **more})

    put(path, text(static_aliases={"nick": "mock-model"}))
    router = world.router([engines[0]], "--dynamic-config-json", path)
    assert chat(router, "hello", model="nick").status == 200
    assert chat(router, "hello", model="other").status == 404
    change(router, path, text(static_aliases={"other": "mock-model"}, routing_logic="session",
                              session_key="x-user"))
    assert chat(router, "hello", model="other").status == 200
    assert chat(router, "hello", model="nick").status == 404
    homes = {engine_of(chat(router, "hello", headers=[("X-User", "u")])) for _ in range(6)}
    assert len(homes) == 1
    assert router.decisions(1)[-1][1] == "u"
    change(router, path, text(routing_logic="roundrobin"))
    turns = [engine_of(chat(router, "hello")) for _ in range(4)]
    assert turns[0] != turns[1] and turns[0] == turns[2]
    told = get(router, "/health").json()["dynamic_config"]
    assert told["routing_logic"] == "roundrobin"
    decisions = scrape(router)
    assert decisions.total("hashtrie_routing_decisions_total", policy="session") == 7
    assert decisions.total("hashtrie_routing_decisions_total", policy="roundrobin") == 4


def test_backends_may_have_a_path_a_short_name_and_an_ipv6_address(world):
    """localhost may be ::1 first, where nobody listens: its next address is tried."""
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([f"http://localhost:{upstream.port}/base/v2"],
                          "--engine-stats-interval", "0")
    assert chat(router, "hello").status == 200
    assert upstream.exchanges[0].request_line == "POST /base/v2/v1/chat/completions HTTP/1.1"
    assert upstream.exchanges[0].header("host") == f"localhost:{upstream.port}"

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        six = world.router([f"http://[::1]:{port}"], "--engine-stats-interval", "0")
        with Connection(six.address) as connection:
            connection.send_request("POST", "/v1/chat/completions", chat_body("hello"))
            engine, _ = listener.accept()
            with engine:
                head = engine.recv(65536)
                assert f"Host: [::1]:{port}\r\n".encode() in head
                engine.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                assert connection.read_answer().status == 200
