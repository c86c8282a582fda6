"""
The router under load, killed with SIGKILL at random moments, dozens of times on one store.

After each kill `hashtrie-dump verify` finds no fault, and what was answered before the last
completed checkpoint is found again (tests/fault/ledger_check.c asks a copy of the store the way a
router does). HASHTRIE_TORTURE_KILLS says how many kills in all; HASHTRIE_SEED replays the moments.
"""
import json
import os
import random
import re
import shutil
import subprocess
import threading
import time

import pytest

from client import Connection, ask, engine_of
from harness import BIN, SLOW, Program, binary
from prometheus import scrape

KILLS = int(os.environ.get("HASHTRIE_TORTURE_KILLS", "64"))
SEED = int(os.environ.get("HASHTRIE_SEED") or str(random.SystemRandom().randrange(1 << 32)), 0)
CLIENTS = 6
LEDGER_ROUNDS = 60  # What is older may be deleted by the cap.
LEDGER_OLD_MAX = 1500  # Of earlier rounds; those to go are drawn by lot.
TURNS_MAX = 12
SYSTEM_PROMPTS = ["You are a helpful assistant. " * repeat for repeat in (3, 40, 300)]
NOISE = random.Random(1).randbytes(1 << 20).hex()


def noise(chance, size):
    start = chance.randrange(len(NOISE) - size)
    return NOISE[start:start + size]


# Requests that could not ask the store may have put other nodes in the place of stored ones.
WITHOUT_STORE = re.compile(r"disk is slow|memory alone")


class Talk:
    """A conversation that grows; its turns are prefixes of each other."""

    def __init__(self, chance, number, size):
        self.chance = chance
        self.size = size
        self.messages = [{"role": "system", "content": chance.choice(SYSTEM_PROMPTS)}]
        self.add(f"Talk {number}.")

    def add(self, text=""):
        size = self.chance.randrange(self.size // 4, self.size)
        self.messages.append({"role": "user", "content": text + noise(self.chance, size)})

    def body(self):
        return json.dumps({"model": "mock-model", "messages": self.messages, "max_tokens": 1})

    def answered(self):
        self.messages.append({"role": "assistant", "content": "ok"})
        self.add()


class Client(threading.Thread):
    """Holds conversations until the router is gone; notes what was answered, when, by whom."""

    def __init__(self, address, seed, size):
        super().__init__(daemon=True)
        self.address = address
        self.chance = random.Random(seed)
        self.seed = seed
        self.size = size
        self.notes = []  # (unix time, engine, body)
        self.failure = None

    def run(self):
        try:
            with Connection(self.address) as connection:
                self.talk(connection)
        except (OSError, EOFError):
            pass  # Killed.
        except Exception as failure:
            self.failure = failure

    def talk(self, connection):
        talks = []
        while True:
            if len(talks) < 4 or (len(talks) < 20 and self.chance.random() < 0.2):
                talks.append(Talk(self.chance, f"{self.seed}.{len(self.notes)}", self.size))
            talk = self.chance.choice(talks)
            body = talk.body()
            answer = connection.ask("POST", "/v1/chat/completions", body)
            assert answer.status == 200, answer
            self.notes.append((time.time(), engine_of(answer), body))
            talk.answered()
            if len(talk.messages) > 2 * TURNS_MAX:
                talks.remove(talk)


class Watch(threading.Thread):
    """The router's figures as long as it lives; asks for snapshots if it makes them."""

    def __init__(self, router, snapshots):
        super().__init__(daemon=True)
        self.router = router
        self.snapshots = snapshots
        self.checkpoint = 0.0
        self.metrics = None

    def run(self):
        try:
            while True:
                metrics = scrape(self.router)
                self.checkpoint = metrics.total("hashtrie_last_checkpoint_timestamp_seconds")
                self.metrics = metrics
                if self.snapshots:
                    ask(self.router, "POST", "/admin/snapshot")
                time.sleep(0.02)
        except (OSError, EOFError):
            pass  # Killed.


class Torture:
    def __init__(self, world, engines, options, size, environment=None, snapshots=None):
        self.world = world
        self.snapshots = snapshots  # Their folder.
        self.engines = {engine.name: engine.url for engine in engines}
        self.backends = engines
        self.options = options
        self.environment = environment
        self.size = size
        self.store = world.store()
        self.chance = random.Random(SEED)
        self.ledger = []  # (round, engine, body): must be found.
        self.figures = {}
        self.slow_rounds = 0
        self.covered = self.copied = self.deleted = self.reloaded = self.spilled = 0
        self.round = 0
        print(f"replay with HASHTRIE_SEED={SEED}")

    def command(self):
        urls = list(self.engines.values())
        return [binary("hashtrie-router"), "--host", "127.0.0.1", "--port", "0", "--store-path",
                self.store, "--static-backends", ",".join(urls), "--static-models",
                ",".join(["mock-model"] * len(urls)), "--checkpoint-interval", "50ms",
                *self.options]

    def kill_at_start(self):
        """While it opens the store, or a moment later."""
        program = Program(self.command(), self.environment)
        time.sleep(self.chance.random() * 0.03)
        program.kill()
        assert program.complaint() is None, program.complaint()

    def kill_under_load(self):
        """Returns what was answered, and the time stamp of the last checkpoint that was told."""
        router = self.world.router(self.backends, *self.options, "--checkpoint-interval", "50ms",
                                   store=self.store, environment=self.environment)
        clients = [Client(router.address, self.chance.randrange(1 << 60), self.size)
                   for _ in range(CLIENTS)]
        watch = Watch(router, self.snapshots is not None)
        for thread in [*clients, watch]:
            thread.start()
        time.sleep(0.1 + self.chance.random() * 0.8)
        if self.chance.random() < 0.15:
            router.process.terminate()  # Killed in the middle of its last checkpoint.
            time.sleep(self.chance.random() * 0.05)
        router.kill()
        for thread in [*clients, watch]:
            thread.join()
        assert [client.failure for client in clients] == [None] * CLIENTS
        self.world.things.remove(router)
        assert router.complaint() is None, router.complaint()
        assert "could not be used" not in router.output(), router.output()[-3000:]
        if watch.metrics is not None:
            self.take_figures(watch.metrics)
        if WITHOUT_STORE.search(router.output()):
            self.slow_rounds += 1
            self.ledger = []
            return [], 0
        return [note for client in clients for note in client.notes], watch.checkpoint

    def take_figures(self, metrics):
        self.figures = {name: value for (name, _), value in metrics.samples.items()
                        if name.startswith("hashtrie_") and not name.endswith("_bucket")}
        self.deleted += metrics.total("hashtrie_store_deleted_nodes_total")
        self.copied += metrics.total("hashtrie_snapshots_total")
        self.reloaded += metrics.total("hashtrie_reloaded_nodes_total")
        self.spilled += metrics.total("hashtrie_spilled_nodes_total")
        assert metrics.total("hashtrie_dropped_nodes_total") == 0

    def run(self, *command):
        return subprocess.run(command, capture_output=True, text=True, timeout=120 * SLOW,
                              check=False)

    def verify(self):
        """The store; and what has a snapshot's name is whole."""
        copies = os.listdir(self.snapshots) if self.snapshots else []
        for store in [self.store, *(os.path.join(self.snapshots, name) for name in copies
                                    if not name.endswith(".part"))]:
            result = self.run(binary("hashtrie-dump"), "verify", store)
            assert result.returncode == 0, f"{store}: {result.stdout}{result.stderr}"

    def last_checkpoint(self):
        result = self.run(binary("hashtrie-dump"), "stats", "--json", self.store)
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout)["last_checkpoint_ms"] / 1000

    def check_ledger(self):
        """Asks a copy: the next router shall find the store as it was left."""
        copy = self.world.folder / "copy"
        ledger = self.world.folder / "ledger"
        copy.mkdir()
        shutil.copy(os.path.join(self.store, "data.mdb"), copy)
        ledger.write_text("".join(f"{self.engines[engine]} mock-model {body}\n"
                                  for _, engine, body in self.ledger), encoding="ascii")
        result = self.run(os.path.join(BIN, "..", "tests", "ledger_check"), str(copy), str(ledger))
        assert result.returncode == 0, (f"kill {self.round}:\n{result.stdout}{result.stderr}"
                                        f"figures before it: {self.figures}")
        assert "store:" not in result.stdout, result.stdout
        shutil.rmtree(copy)

    def one_round(self, with_ledger):
        self.round += 1
        if self.round > 1 and self.chance.random() < 0.25:
            self.kill_at_start()
            notes, checkpoint = [], 0
        else:
            notes, checkpoint = self.kill_under_load()
        self.verify()
        if not with_ledger:
            return
        checkpoint = max(checkpoint - 0.002, self.last_checkpoint())  # The metric is rounded.
        self.ledger = [entry for entry in self.ledger if entry[0] > self.round - LEDGER_ROUNDS]
        self.chance.shuffle(self.ledger)
        del self.ledger[LEDGER_OLD_MAX:]
        self.ledger += [(self.round, engine, body) for at, engine, body in notes
                        if at < checkpoint]
        self.covered += len(self.ledger)
        self.check_ledger()

    def file_bytes(self):
        return os.path.getsize(os.path.join(self.store, "data.mdb"))


FAST = ("--prefill-tps", "100000000", "--decode-ms", "0", "--kv-tokens", "10000000")


@pytest.mark.load
@pytest.mark.timeout(0)
def test_killed_routers_lose_nothing_that_a_checkpoint_covers(world):
    """Little memory before eviction begins, so that nodes come and go; and never too little, since
    what is dropped unsaved would rightly be missing. No reload may miss its deadline either."""
    torture = Torture(world, world.engines(3, *FAST),
                      ["--max-memory", "4MiB", "--store-max-size", "64MiB", "--reload-timeout",
                       "10s"], 3000,
                      {"HASHTRIE_EVICTION_THRESHOLD": "0.02",
                       "HASHTRIE_TARGET_UTILIZATION": "0.01"})
    for _ in range(KILLS * 3 // 4):
        torture.one_round(with_ledger=True)
    print(f"{torture.round} kills, {torture.covered} requests asked for, "
          f"{torture.spilled:.0f} nodes spilled, {torture.reloaded:.0f} reloaded; not asked after "
          f"{torture.slow_rounds}, as the disk was slow")
    assert torture.slow_rounds < torture.round / 2
    assert torture.covered > 0 and torture.spilled > 0 and torture.reloaded > 0


@pytest.mark.load
@pytest.mark.timeout(0)
def test_killed_routers_leave_a_sound_store_at_its_cap(world):
    """A store so full that each commit deletes, and snapshots one after the other."""
    snapshots = world.store("snapshots")
    torture = Torture(world, world.engines(2, *FAST),
                      ["--max-memory", "16MiB", "--store-max-size", "16MiB", "--snapshot-dir",
                       snapshots, "--snapshot-keep", "2"], 20000, snapshots=snapshots)
    os.mkdir(snapshots)
    filled = torture.run(binary("fill-store"), torture.store, "15", *torture.engines.values())
    assert filled.returncode == 0, filled.stderr
    for _ in range(KILLS - KILLS * 3 // 4):
        torture.one_round(with_ledger=False)
        assert torture.file_bytes() <= 16 << 20
    print(f"{torture.round} kills, {torture.deleted:.0f} nodes deleted by the cap, "
          f"{torture.copied:.0f} snapshots")
    assert torture.deleted > 0 and torture.copied > 0
