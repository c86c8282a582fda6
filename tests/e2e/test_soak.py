"""
Full load while engines are killed, stopped and come back, and clients leave at any moment.

A request that could have been served is served: one that fails before a byte of its answer has come
fails the test. An answer that had begun when its engine was killed may be cut. In the end nothing is
left over: counters are back at zero, descriptors closed, memory flat.

20 seconds; HASHTRIE_SOAK_SECONDS says how many. HASHTRIE_SEED replays who does what, not when.
As a program this file is one of the processes of clients: test_soak.py PORT SEED.
"""
import functools
import json
import os
import random
import signal
import sys
import threading
import time

import pytest

from client import Connection, chat_body, get, sse_events
from harness import SLOW, Engine, Program, wait_until
from prometheus import scrape
from test_routing import conversation

SECONDS = int(os.environ.get("HASHTRIE_SOAK_SECONDS", "20"))
SEED = int(os.environ.get("HASHTRIE_SEED") or str(random.SystemRandom().randrange(1 << 32)), 0)
ENGINES = 4
PROCESSES = 3
CLIENTS = 8  # Of each.
TALKS = 300
STOPPED_SECONDS_MAX = 1.5
IDLE_TIMEOUT_SECONDS = 20 * SLOW  # An engine that is stopped goes on before.
RSS_GROWTH_MAX = 12 << 20
PATH = "/v1/chat/completions"


@functools.lru_cache(maxsize=None)
def opening(number, size):
    return conversation(number, size=size)


class Client(threading.Thread):
    """Asks again and again, on connections kept and new, whole answers and streams."""

    def __init__(self, address, seed, stop):
        super().__init__(daemon=True)
        self.address = address
        self.chance = random.Random(seed)
        self.stop = stop
        self.served = 0
        self.cut = 0
        self.left = 0
        self.failures = []
        self.connection = None

    def run(self):
        try:
            while not self.stop.is_set() and not self.failures:
                self.one()
        except Exception as failure:
            self.failures.append(repr(failure))
        if self.failures:
            self.stop.set()
        self.disconnect()

    def disconnect(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def body(self):
        size = self.chance.choice((200, 3000, 3000, 60000))
        messages = list(opening(self.chance.randrange(TALKS), size))
        for turn in range(self.chance.randrange(4)):
            messages += [{"role": "assistant", "content": "ok"},
                         {"role": "user", "content": f"and {turn}? " * 20}]
        return chat_body(messages, stream=self.chance.random() < 0.4,
                         max_tokens=self.chance.choice((1, 4, 40)))

    def one(self):
        if self.connection is None:
            self.connection = Connection(self.address)
        body = self.body()
        self.connection.send_request("POST", PATH, body)
        if self.chance.random() < 0.08:
            self.leave()
        else:
            self.read(body["stream"])
        if self.connection is not None and self.chance.random() < 0.2:
            self.disconnect()

    def leave(self):
        """Before the answer, or with some of it read."""
        if self.chance.random() < 0.5:
            self.connection.read_head()
        self.left += 1
        if self.chance.random() < 0.5:
            self.connection.reset()
            self.connection = None
        else:
            self.disconnect()

    def read(self, stream):
        try:
            answer = self.connection.read_head()
        except (OSError, EOFError) as failure:
            self.failures.append(f"no answer: {failure!r}")
            return
        try:
            self.connection.read_body(answer)
        except (OSError, EOFError):
            self.cut += 1
            self.disconnect()
            return
        self.served += 1
        if answer.status != 200:
            self.failures.append(repr(answer))
        elif stream:
            events = sse_events(answer.body)
            if events[-1] != "[DONE]":
                self.failures.append(f"a stream without its end: {events[-1]}")
        elif not answer.json()["choices"]:
            self.failures.append(f"no choices: {answer}")


def be_clients(port, seed):
    """Until SIGTERM, or a failure; then one line of JSON."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    clients = [Client(("127.0.0.1", port), seed + number, stop) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    print("begun", flush=True)
    for client in clients:
        client.join()
    totals = {name: sum(getattr(client, name) for client in clients)
              for name in ("served", "cut", "left")}
    failures = [failure for client in clients for failure in client.failures]
    print(json.dumps({**totals, "failures": failures}), flush=True)


class Chaos(threading.Thread):
    """One engine at a time is killed and started again, or stopped for a while: there is always one
    that could answer."""

    def __init__(self, world, engines, seed, stop):
        super().__init__(daemon=True)
        self.world = world
        self.engines = engines
        self.chance = random.Random(seed)
        self.stop = stop
        self.kills = 0
        self.stops = 0
        self.failure = None

    def run(self):
        try:
            while not self.stop.wait(self.chance.uniform(0.1, 0.6) * SLOW):
                number = self.chance.randrange(ENGINES)
                if self.chance.random() < 0.6:
                    self.kill(number)
                else:
                    self.pause(number)
        except BaseException as failure:  # Reported by the test.
            self.failure = failure

    def kill(self, number):
        old = self.engines[number]
        old.kill()
        self.kills += 1
        self.stop.wait(self.chance.uniform(0, 1))
        self.engines[number] = start_engine(number, old.port)

    def pause(self, number):
        self.engines[number].signal(signal.SIGSTOP)
        self.stops += 1
        self.stop.wait(self.chance.uniform(0.1, STOPPED_SECONDS_MAX))
        self.engines[number].signal(signal.SIGCONT)


def start_engine(number, port=0):
    return Engine("--prefill-tps", "100000000", "--decode-ms", "0.1", "--kv-tokens", "200000",
                  name=f"e{number}", port=port)


def descriptors(router):
    return len(os.listdir(f"/proc/{router.pid}/fd"))


def nothing_is_left(router):
    metrics = scrape(router)
    names = ("vllm:num_requests_running", "vllm:num_prefill_requests", "vllm:num_decoding_requests",
             "hashtrie_buffered_bytes")
    assert all(metrics.has(name) for name in names)
    return all(metrics.total(name) == 0 for name in names)


@pytest.mark.load
@pytest.mark.timeout(SECONDS + 120 * SLOW)
def test_soak(world):
    print(f"replay with HASHTRIE_SEED={SEED}")
    engines = [start_engine(number) for number in range(ENGINES)]
    try:
        soak(world, engines)
    finally:
        for engine in engines:
            engine.kill()


def soak(world, engines):
    router = world.router(
        engines, "--threads", "2", "--max-memory", "8MiB", "--store-max-size", "64MiB",
        "--first-byte-timeout", f"{int(1000 * SLOW)}ms",
        "--idle-timeout", f"{IDLE_TIMEOUT_SECONDS:.0f}s", "--engine-stats-interval", "1s",
        "--upstream-idle-timeout", "1s", store=world.store())
    at_first = descriptors(router)
    stop = threading.Event()
    programs = [world.keep(Program([sys.executable, __file__, router.port, SEED + 100 * number]))
                for number in range(PROCESSES)]
    for program in programs:
        program.wait_line("begun")
    chaos = Chaos(world, engines, SEED - 1, stop)
    chaos.start()
    begun = time.monotonic()
    rss = []
    while time.monotonic() < begun + SECONDS and all(program.running() for program in programs):
        stop.wait(SECONDS / 20)
        rss.append(router.rss_bytes())
    for program in programs:
        program.terminate()  # With engines still coming and going.
    stop.set()
    chaos.join()

    results = [json.loads(program.output().split("\n")[-1]) for program in programs]
    failures = [failure for result in results for failure in result["failures"]]
    assert not failures, (len(failures), failures[:3])
    assert chaos.failure is None, chaos.failure
    served, cut, left = (sum(result[name] for result in results)
                         for name in ("served", "cut", "left"))
    print(f"{served} served, {cut} cut, {left} left by their clients, in {SECONDS} s; engines: "
          f"{chaos.kills} killed, {chaos.stops} stopped; RSS {[size >> 20 for size in rss]} MiB")
    assert chaos.kills > 2 and chaos.stops > 0 and served > 20 * SECONDS / SLOW
    assert cut <= chaos.kills * PROCESSES * CLIENTS
    wait_until(lambda: nothing_is_left(router), 20, "counters back at zero")
    wait_until(lambda: descriptors(router) <= at_first + ENGINES, 20, "descriptors are closed")
    assert get(router, "/ready").status == 200
    # From the first quarter on, when memory is full.
    assert max(rss[len(rss) // 2:]) - rss[len(rss) // 4] < RSS_GROWTH_MAX, rss


if __name__ == "__main__":
    be_clients(int(sys.argv[1]), int(sys.argv[2]))
