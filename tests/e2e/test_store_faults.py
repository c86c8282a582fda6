"""What happens to the store: locks, folders that vanish, disks that refuse, damage."""
import os
import shutil
import signal
import subprocess

import pytest

from client import chat, engine_of, get
from harness import wait_until
from prometheus import scrape
from test_lifecycle import start_conversations, wait_checkpoint
from test_routing import conversation


def health(router):
    return get(router, "/health").json()["store"]


def wait_state(router, state):
    wait_until(lambda: health(router)["state"] == state, 30, f"the store to be {state}")


@pytest.mark.smoke
def test_a_second_router_serves_from_memory_and_takes_the_store_over(world):
    """A rolling update: the new one is there before the old one has ended."""
    engines = world.engines(3)
    store = world.store()
    old = world.router(engines, "--checkpoint-interval", "1h", store=store)
    talks = start_conversations(old, 10)
    # In another order: its own numbers for engines are not those in the store.
    new = world.router(engines[::-1], "--reload-timeout", "5s", store=store)
    assert health(new)["state"] == "off" and health(new)["problem"]
    assert scrape(new).value("hashtrie_store_state", state="off") == 1
    assert len(new.find_lines("another router has the folder open")) == 1
    early = conversation(900)
    home = engine_of(chat(new, early))
    assert old.terminate() == 0
    wait_state(new, "ok")
    assert [engine_of(chat(new, messages)) for messages, _ in talks] == [home for _, home in talks]
    assert engine_of(chat(new, early)) == home
    assert new.terminate() == 0
    third = world.router(engines, "--reload-timeout", "5s", store=store)
    assert engine_of(chat(third, early)) == home


def test_a_folder_that_vanishes_is_made_anew(world):
    engines = world.engines(3)
    store = world.store()
    router = world.router(engines, "--checkpoint-interval", "100ms", store=store)
    talks = start_conversations(router, 10)
    wait_checkpoint(router)
    shutil.rmtree(store)
    router.wait_line("gone or were replaced")
    wait_state(router, "ok")
    wait_checkpoint(router)
    router.kill()
    again = world.router(engines, "--reload-timeout", "5s", store=store)
    assert [engine_of(chat(again, messages)) for messages, _ in talks] == [home for _, home in talks]


# ---- Crashes and damage ----

def test_a_crash_is_marked_and_a_second_one_replaces_the_file(world):
    engines = world.engines(2)
    store = world.store()
    router = world.router(engines, "--checkpoint-interval", "100ms", store=store)
    talks = start_conversations(router, 6)
    wait_checkpoint(router)
    router.signal(signal.SIGSEGV)
    assert router.wait(20) == -signal.SIGSEGV
    router = world.router(engines, "--reload-timeout", "5s", store=store)
    wait_state(router, "ok")
    assert len(router.find_lines("the last run ended in a crash: the store is verified")) == 1
    assert [engine_of(chat(router, messages)) for messages, _ in talks] == [home for _, home in talks]
    router.signal(signal.SIGABRT)
    assert router.wait(20) == -signal.SIGABRT
    router = world.router(engines, "--reload-timeout", "5s", store=store)
    wait_state(router, "ok")
    assert router.find_lines("the last two runs with it ended in a crash")
    assert [name for name in os.listdir(store) if name.startswith("data.mdb.bad-")]
    assert scrape(router).value("hashtrie_store_recovered_total", how="repaired") == 1
    assert [engine_of(chat(router, messages)) for messages, _ in talks] == [home for _, home in talks]


def test_a_kill_9_is_no_sign_of_damage(world):
    engine = world.engine()
    store = world.store()
    for _ in range(4):
        router = world.router([engine], "--checkpoint-interval", "50ms", store=store)
        assert not router.find_lines("verified|could not be used")
        chat(router, conversation(1))
        wait_checkpoint(router)
        router.kill()
    assert not [name for name in os.listdir(store) if name.startswith("data.mdb.bad-")]


def test_a_damaged_store_is_replaced_by_what_can_be_read_of_it(world):
    engines = world.engines(2)
    store = world.store()
    router = world.router(engines, store=store)
    talks = start_conversations(router, 10)
    assert router.terminate() == 0
    path = os.path.join(store, "data.mdb")
    data = bytearray(open(path, "rb").read())
    page = next(at for at in range(8192, len(data), 4096) if data[at + 10] == 2)  # A leaf.
    data[page:page + 4096] = bytes(4096)
    open(path, "wb").write(data)
    router = world.router(engines, "--reload-timeout", "5s", store=store)
    wait_state(router, "ok")
    for messages, _ in talks:
        assert chat(router, messages).status == 200
    recovered = scrape(router)
    assert recovered.total("hashtrie_store_recovered_total") <= 1


# ---- Disks ----

@pytest.fixture
def small_disk(world):
    """A tmpfs of 24 MiB, for as long as the test lasts."""
    path = world.folder / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no right to mount")
    yield path
    complaints = world.close()
    world.things.clear()
    subprocess.run(["umount", "-l", str(path)], check=True)
    assert not complaints, "\n".join(complaints)


def fill_disk(path):
    with open(path / "filler", "wb") as file:
        try:
            while True:
                file.write(bytes(65536))
                file.flush()
        except OSError:
            pass


def test_a_full_disk_at_the_first_start_and_later(world, small_disk):
    engines = world.engines(2)
    fill_disk(small_disk)
    router = world.router(engines, "--checkpoint-interval", "100ms", store=str(small_disk / "store"))
    talks = start_conversations(router, 6)
    assert health(router)["state"] in ("off", "full", "failed"), health(router)
    assert scrape(router).value("hashtrie_store_up") == 0
    assert [engine_of(chat(router, messages)) for messages, _ in talks] == [home for _, home in talks]
    os.unlink(small_disk / "filler")
    wait_state(router, "ok")
    wait_checkpoint(router)
    fill_disk(small_disk)
    more = start_conversations(router, 6, first=100)
    for messages, home in more:
        assert engine_of(chat(router, messages)) == home
    os.unlink(small_disk / "filler")
    wait_state(router, "ok")
    wait_checkpoint(router)
    router.kill()
    again = world.router(engines, "--reload-timeout", "5s", store=str(small_disk / "store"))
    for messages, home in talks + more:
        assert engine_of(chat(again, messages)) == home


def test_a_read_only_disk_is_waited_for(world, small_disk):
    engines = world.engines(2)

    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    remount("ro")
    router = world.router(engines, "--checkpoint-interval", "100ms", store=str(small_disk / "store"))
    assert health(router)["state"] == "off"
    assert len(router.find_lines("read-only")) == 1
    talks = start_conversations(router, 6)
    remount("rw")
    wait_state(router, "ok")
    wait_checkpoint(router)
    router.kill()
    remount("ro")
    again = world.router(engines, "--reload-timeout", "5s", store=str(small_disk / "store"))
    assert health(again)["state"] == "off"
    assert engine_of(chat(again, conversation(500))) in ("e0", "e1")
    remount("rw")
    wait_state(again, "ok")
    assert [engine_of(chat(again, messages)) for messages, _ in talks] == [home for _, home in talks]
