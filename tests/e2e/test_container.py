"""The router as PID 1 of its own namespace, as in a container: no default actions of signals, nobody
else to take in its children, the same volume after each restart."""
import os
import signal
import subprocess

import pytest

from client import Connection, chat, chat_body, engine_of, get
from harness import Router, wait_until
from test_lifecycle import start_conversations, wait_checkpoint
from test_shutdown import Held

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def refusal():
    try:
        run = subprocess.run([*UNSHARE, "true"], stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        return str(error)
    return run.stderr.strip() if run.returncode != 0 else None


REFUSAL = refusal()
pytestmark = pytest.mark.skipif(REFUSAL is not None, reason=f"no PID namespaces here: {REFUSAL}")


def children(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
            found += [int(word) for word in file.read().split()]
    return found


class Contained(Router):
    """Signals go to the router, not to the program that started it and waits for it."""

    def __init__(self, backends, *arguments, **options):
        super().__init__(backends, *arguments, under=UNSHARE, **options)
        self.inner, = children(self.pid)
        with open(f"/proc/{self.inner}/status", encoding="ascii") as file:
            assert "NSpid:\t%d\t1\n" % self.inner in file.read()

    def signal(self, number):
        os.kill(self.inner, number)

    def kill(self):
        if self.running():
            os.kill(self.inner, signal.SIGKILL)
        return self.wait()


def homes(router, talks):
    return [engine_of(chat(router, messages)) for messages, _ in talks]


@pytest.mark.smoke
def test_restarts_in_the_container_bring_the_state_back(world):
    engines = world.engines(3)
    arguments = ["--checkpoint-interval", "50ms", "--reload-timeout", "5s"]
    store = world.store()
    router = world.keep(Contained(engines, *arguments, store=store))
    talks = start_conversations(router, 8)
    expected = [home for _, home in talks]
    router.signal(signal.SIGTERM)
    assert router.wait() == 0  # In order, at the first SIGTERM.
    router = world.keep(Contained(engines, *arguments, store=store))
    assert homes(router, talks) == expected
    wait_checkpoint(router)
    router.kill()
    # The store is looked through by a child now; no zombie of it stays.
    router = world.keep(Contained(engines, *arguments, store=store))
    assert homes(router, talks) == expected
    assert get(router, "/ready").status == 200
    wait_until(lambda: not children(router.inner), what="no children")
    assert router.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_pid_1_too(world, number):
    engine = Held(world)
    router = world.keep(Contained([engine.upstream]))
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions", chat_body("x", stream=True))
        assert engine.begun.acquire(timeout=10)
        router.signal(number)
        router.wait_line("draining")
        router.signal(number)
        assert router.wait() == 128 + number
        assert router.find_lines("ending at once; 1 requests are cut off")
    engine.release.set()
