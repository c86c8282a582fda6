"""What happens to the store: locks, folders that vanish, disks that refuse, damage."""
import shutil

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
