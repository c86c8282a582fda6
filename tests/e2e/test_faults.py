"""Disks that fail, fill up, stall or go away: the router serves on, tells, and recovers."""
import errno
import os
import random
import shutil
import subprocess
import threading
import time

import pytest

from client import Connection, ask, chat, encode, chat_body, engine_of, get
from disk import STALL_READS, STALL_WRITES, Disk
from harness import SLOW, wait_until
from prometheus import scrape
from test_lifecycle import run, start_conversations, wait_checkpoint
from test_torture import noise

STALL_SECONDS = float(os.environ.get("HASHTRIE_STALL_SECONDS", "5"))
FAST = ("--prefill-tps", "100000000", "--decode-ms", "0", "--kv-tokens", "10000000")


def health(router):
    answer = get(router, "/health")
    assert answer.status == 200
    return answer.json()["store"]


def wait_state(router, *states):
    return wait_until(lambda: health(router)["state"] in states and health(router), 30,
                      f"the store's state in {states}, not {health(router)}")


def expect_homes(router, talks):
    homes = [engine_of(chat(router, messages)) for messages, _ in talks]
    assert homes == [home for _, home in talks]


def expect_sound(store):
    status, output = run("hashtrie-dump", "verify", str(store))
    assert status == 0, output


def bad_files(store):
    return [name for name in os.listdir(store) if ".bad-" in name]


def p99(seconds):
    return sorted(seconds)[len(seconds) * 99 // 100]


# ---- Loops do not wait for the disk ----

class Load(threading.Thread):
    """One client, one request after the other: new prompts, and now and then one of long ago."""

    def __init__(self, router, number, size=40000):
        super().__init__(daemon=True)
        self.router = router
        self.chance = random.Random(number)
        self.size = size
        self.texts = []
        self.seconds = []
        self.stopping = False
        self.failure = None

    def text(self):
        if len(self.seconds) % 10 == 9:
            return self.texts[len(self.seconds) // 10]
        self.texts.append(noise(self.chance, self.size))
        return self.texts[-1]

    def run(self):
        try:
            with Connection(self.router.address) as connection:
                while not self.stopping:
                    body = encode(chat_body(self.text(), max_tokens=1))
                    start = time.monotonic()
                    answer = connection.ask("POST", "/v1/chat/completions", body)
                    self.seconds.append(time.monotonic() - start)
                    assert answer.status == 200
        except Exception as failure:
            self.failure = failure

    def stop(self):
        self.stopping = True
        self.join()
        assert self.failure is None, self.failure
        return self.seconds


def run_load(router, number, seconds, done=lambda: True):
    """Times of requests over `seconds`, longer if it is not done then."""
    load = Load(router, number)
    load.start()
    end = time.monotonic() + seconds
    wait_until(lambda: (done() and time.monotonic() >= end) or load.failure, seconds + 60, "load")
    return load.stop()


def test_no_loop_ever_reads_or_writes_the_store(world):
    """Commits, evictions, reloads, a snapshot and figures, and each thread's calls counted."""
    disk = Disk(world, world.folder)
    router = world.router(world.engines(2, *FAST), "--threads", "2", "--max-memory", "1MiB",
                          "--checkpoint-interval", "20ms", "--reload-timeout", "1s",
                          "--snapshot-dir", world.store("snapshots"), store=world.store(),
                          environment=disk.environment)
    loads = [Load(router, number) for number in range(3)]
    for load in loads:
        load.start()
    wait_until(lambda: health(router)["up"] and
               scrape(router).total("hashtrie_reloaded_nodes_total") > 100, 60, "reloads")
    assert ask(router, "POST", "/admin/snapshot").status == 200
    for load in loads:
        load.stop()
    threads = disk.threads()
    loops = [thread for thread in threads if thread["is_loop"]]
    assert len(loops) == 2, threads
    assert all(loop["io_as_loop"] == 0 and loop["map_as_loop"] == 0 for loop in loops), threads
    others = [thread for thread in threads if not thread["is_loop"]]
    assert any(thread["io"] > 100 for thread in others), threads  # The writer.
    assert sum(thread["map"] > 100 for thread in others) >= 2, threads  # And a reader.


@pytest.mark.load
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", [STALL_WRITES, STALL_WRITES | STALL_READS],
                         ids=["writes", "all"])
def test_a_stalled_disk_costs_requests_nothing(world, kind):
    disk = Disk(world, world.folder)
    router = world.router(world.engines(2, *FAST), "--max-memory", "1MiB", "--checkpoint-interval",
                          "50ms", store=world.store(), environment=disk.environment)
    budget = scrape(router).total("hashtrie_memory_budget_bytes")

    dropped = 0

    def within_budget():
        metrics = scrape(router)
        assert metrics.total("hashtrie_memory_bytes") <= budget
        return metrics

    def drops():
        return within_budget().total("hashtrie_dropped_nodes_total") > dropped

    run_load(router, 0, 1)
    normal = run_load(router, 1, STALL_SECONDS, within_budget)
    wait_checkpoint(router)
    dropped = scrape(router).total("hashtrie_dropped_nodes_total")
    told = len(router.find_lines("disk is slow"))
    disk.stall = kind
    stalled = run_load(router, 2, STALL_SECONDS, drops)
    assert health(router)["state"] == "slow"
    assert len(router.find_lines("disk is slow")) == told + 1
    after = scrape(router)
    assert disk.stalled > 0
    disk.stall = 0
    ratio = p99(stalled) / p99(normal)
    print(f"p99 of {len(normal)} requests {p99(normal) * 1000:.2f} ms, with the disk stalled, of "
          f"{len(stalled)}, {p99(stalled) * 1000:.2f} ms: {ratio:.2f} times; "
          f"{after.total('hashtrie_dropped_nodes_total') - dropped:.0f} nodes dropped")
    # A reload may wait for its deadline until the store is known to be slow. Machines are noisy.
    assert p99(stalled) < max(3 * p99(normal), 0.1 * SLOW)
    assert after.total("hashtrie_dropped_nodes_total") > dropped
    wait_state(router, "ok")
    wait_checkpoint(router)
    router.terminate()
    expect_sound(router.store)


# ---- Errors while it runs ----

@pytest.mark.parametrize("field,code", [
    ("write_errno", errno.EIO), ("sync_errno", errno.EIO), ("write_errno", errno.ENOSPC),
    ("write_errno", errno.EROFS),
], ids=["write-EIO", "sync-EIO", "write-ENOSPC", "write-EROFS"])
def test_errors_while_it_runs(world, field, code):
    disk = Disk(world, world.folder)
    engines = world.engines(2)
    router = world.router(engines, "--checkpoint-interval", "50ms", store=world.store(),
                          environment=disk.environment)
    talks = start_conversations(router, 4)
    wait_checkpoint(router)
    setattr(disk, field, code)
    talks += start_conversations(router, 4, first=100)
    wait_state(router, "failed", "full", "off")
    metrics = scrape(router)
    assert metrics.value("hashtrie_store_up") == 0
    failed = disk.failed
    wait_until(lambda: disk.failed > failed, 30, "it is tried again")
    expect_homes(router, talks)
    assert get(router, "/ready").status == 200
    assert len(router.find_lines(r"(?i)\berror\b.*checkpoint")) == 1, router.output()[-3000:]
    assert disk.failed > 0
    setattr(disk, field, 0)
    wait_state(router, "ok")
    wait_checkpoint(router)
    assert len(router.find_lines("succeed again")) == 1, router.output()[-3000:]
    assert scrape(router).value("hashtrie_store_up") == 1
    router.kill()
    expect_sound(router.store)
    assert not bad_files(router.store)
    again = world.router(engines, "--reload-timeout", "5s", store=router.store)
    expect_homes(again, talks)


def remembering_store(world, engines):
    """A store with conversations in it, closed; and these."""
    router = world.router(engines, store=world.store())
    talks = start_conversations(router, 6)
    router.terminate()
    return router.store, talks


# ---- Errors at the start ----

@pytest.mark.parametrize("field,code", [
    ("read_errno", errno.EIO), ("write_errno", errno.EIO), ("write_errno", errno.ENOSPC),
    ("sync_errno", errno.EIO), ("open_errno", errno.EIO),
], ids=["read-EIO", "write-EIO", "write-ENOSPC", "sync-EIO", "open-EIO"])
@pytest.mark.parametrize("known", [True, False], ids=["known-store", "new-store"])
def test_errors_at_the_start(world, field, code, known):
    """It serves from memory, tells so, and takes the store when it can be had."""
    disk = Disk(world, world.folder)
    engines = world.engines(2)
    store, talks = remembering_store(world, engines) if known else (world.store(), [])
    setattr(disk, field, code)
    router = world.router(engines, "--checkpoint-interval", "50ms", "--reload-timeout", "5s",
                          store=store, environment=disk.environment)
    new_talks = start_conversations(router, 4, first=100)
    assert get(router, "/ready").status == 200
    expect_homes(router, new_talks)
    assert wait_state(router, "failed", "full", "off")["up"] is False
    assert scrape(router).value("hashtrie_store_up") == 0
    setattr(disk, field, 0)
    wait_state(router, "ok")
    wait_checkpoint(router)
    expect_homes(router, talks + new_talks)
    router.terminate()
    expect_sound(store)
    assert not bad_files(store)
    again = world.router(engines, "--reload-timeout", "5s", store=store)
    expect_homes(again, talks + new_talks)


def test_a_disk_that_hangs_at_the_start(world):
    """Nobody waits for it for long, and what it knows is there once it moves."""
    disk = Disk(world, world.folder)
    engines = world.engines(2)
    store, talks = remembering_store(world, engines)
    disk.stall = STALL_WRITES | STALL_READS
    router = world.router(engines, "--checkpoint-interval", "50ms", "--reload-timeout", "5s",
                          store=store, environment=disk.environment)
    new_talks = start_conversations(router, 4, first=100)
    expect_homes(router, new_talks)
    assert health(router)["state"] == "opening" and disk.stalled > 0
    disk.stall = 0
    wait_state(router, "ok")
    wait_checkpoint(router)
    expect_homes(router, talks + new_talks)
    router.terminate()
    expect_sound(store)


# ---- Real file systems ----

@pytest.fixture
def small_disk(world):
    """A tmpfs of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs takes root")
    folder = world.folder / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder],
                          capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield folder
    for thing in reversed(world.things):  # Else it is busy.
        if getattr(thing, "store", None) and thing.running():
            thing.terminate()
    subprocess.run(["umount", folder], check=True)


def fill(folder):
    """Takes all the space there is; the name of the file that has it."""
    path = folder / "ballast"
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096) == 4096:
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return path


def test_a_full_disk(world, small_disk):
    store = small_disk / "store"
    engines = world.engines(2, *FAST)
    router = world.router(engines, "--checkpoint-interval", "50ms", "--reload-timeout", "5s",
                          store=str(store))
    talks = start_conversations(router, 4)
    wait_checkpoint(router)
    ballast = fill(small_disk)

    def more():
        start_conversations(router, 2, first=int(time.monotonic() * 1000) * 10, size=100000)
        return health(router)["state"] != "ok"

    wait_until(more, 30, "the disk to be full")
    expect_homes(router, talks)
    ballast.unlink()
    wait_state(router, "ok")
    talks += start_conversations(router, 4, first=100)
    wait_checkpoint(router)
    router.kill()
    expect_sound(store)
    assert not bad_files(store)
    again = world.router(engines, "--reload-timeout", "5s", store=str(store))
    expect_homes(again, talks)


def test_a_full_disk_at_the_first_start(world, small_disk):
    ballast = fill(small_disk)
    engines = world.engines(2)
    router = world.router(engines, "--checkpoint-interval", "50ms", store=str(small_disk / "store"))
    talks = start_conversations(router, 4)
    assert health(router)["up"] is False
    ballast.unlink()
    wait_state(router, "ok")
    wait_checkpoint(router)
    router.kill()
    again = world.router(engines, "--reload-timeout", "5s", store=router.store)
    expect_homes(again, talks)


def test_a_read_only_volume(world, small_disk):
    """Served from memory; the store is taken, with all that it knows, once it can be written."""
    engines = world.engines(2)
    kept, talks = remembering_store(world, engines)
    store = small_disk / "store"
    shutil.copytree(kept, store)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    router = world.router(engines, "--checkpoint-interval", "50ms", "--reload-timeout", "5s",
                          store=str(store))
    new_talks = start_conversations(router, 4, first=100)
    expect_homes(router, new_talks)
    assert health(router)["up"] is False
    assert router.find_lines(r"(?i)(warning|error).*store"), router.output()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    wait_state(router, "ok")
    wait_checkpoint(router)
    expect_homes(router, talks + new_talks)
    router.terminate()
    expect_sound(store)


# ---- What others do to the folder ----

@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_folder_that_vanishes(world, how):
    """Writes into a file without a name would succeed, and be lost."""
    engines = world.engines(2)
    router = world.router(engines, "--checkpoint-interval", "50ms", store=world.store())
    talks = start_conversations(router, 4)
    wait_checkpoint(router)
    if how == "removed":
        shutil.rmtree(router.store)
    else:
        os.rename(router.store, router.store + "-elsewhere")
    talks += start_conversations(router, 4, first=100)
    wait_until(lambda: os.path.exists(os.path.join(router.store, "data.mdb")), 30,
               "the store is made anew")
    assert router.find_lines(r"(?i)(warning|error).*store"), router.output()[-3000:]
    wait_state(router, "ok", "fresh")
    wait_checkpoint(router)
    expect_homes(router, talks)
    router.kill()
    expect_sound(router.store)
    again = world.router(engines, "--reload-timeout", "5s", store=router.store)
    expect_homes(again, talks)


def test_a_store_that_another_router_has(world):
    """The second says so and serves from memory; once the first is killed it has what both knew."""
    engines = world.engines(2)
    first = world.router(engines, "--checkpoint-interval", "50ms", store=world.store())
    talks = start_conversations(first, 4)
    second = world.router(engines, "--checkpoint-interval", "50ms", "--reload-timeout", "5s",
                          store=first.store)
    assert len(second.find_lines("another router has the folder open")) == 1, second.output()
    assert health(second)["state"] == "off"
    new_talks = start_conversations(second, 4, first=100)
    talks += start_conversations(first, 4, first=200)
    wait_checkpoint(first)
    expect_sound(first.store)
    first.kill()
    wait_state(second, "ok")
    wait_checkpoint(second)
    expect_homes(second, talks + new_talks)
    second.kill()
    expect_sound(first.store)
    again = world.router(engines, "--reload-timeout", "5s", store=first.store)
    expect_homes(again, talks + new_talks)
