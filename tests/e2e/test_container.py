"""The router as PID 1 of its own namespace, as in a container: no default actions of signals, nobody
else to take in its children, the same volume after each restart."""
import os
import shutil
import signal
import subprocess

import pytest

from certificates import Authority
from client import Connection, chat, chat_body, engine_of, get
from harness import FAST, Router, free_port, wait_until
from kube import Cluster, KubeRouter
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


class Inner:
    """Signals go to the router, not to the program that started it and waits for it."""

    def look_inside(self):
        self.inner, = children(self.pid)
        with open(f"/proc/{self.inner}/status", encoding="ascii") as file:
            assert "NSpid:\t%d\t1\n" % self.inner in file.read()

    def signal(self, number):
        os.kill(self.inner, number)

    def kill(self):
        if self.running():
            os.kill(self.inner, signal.SIGKILL)
        return self.wait()


class Contained(Inner, Router):
    def __init__(self, backends, *arguments, **options):
        super().__init__(backends, *arguments, under=UNSHARE, **options)
        self.look_inside()


# What the kubelet mounts into a pod, and the router finds there by itself.
MOUNT_ACCOUNT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$ACCOUNT"/* /run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""


class ContainedInPod(Inner, KubeRouter):
    def __init__(self, cluster, account, port, *arguments, **options):
        environment = {"ACCOUNT": str(account), "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                       "KUBERNETES_SERVICE_PORT": str(cluster.server.port)}
        super().__init__("/nowhere", port, *arguments, environment=environment,
                         under=(*UNSHARE, "sh", "-c", MOUNT_ACCOUNT, "sh"), **options)
        self.look_inside()


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


def test_restarts_in_a_pod_bring_pods_and_state_back(world, tmp_path):
    authority = Authority(tmp_path)
    cluster = Cluster(world, tls=authority.server_context("api"), token="first")
    port = free_port("127.0.0.2")
    for number in range(3):
        engine = world.engine(*FAST, "--host", f"127.0.0.{number + 2}", name=f"e{number}", port=port)
        cluster.pod(engine.name, f"127.0.0.{number + 2}")
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("first")
    (account / "namespace").write_text("llm")
    shutil.copy(authority.path, account / "ca.crt")
    arguments = ["--checkpoint-interval", "50ms", "--reload-timeout", "5s"]
    store = world.store()

    def start():
        router = world.keep(ContainedInPod(cluster, account, port, *arguments, store=store))
        wait_until(lambda: get(router, "/ready").status == 200, what="/ready")
        assert router.find_lines("as the pod's service account says")
        return router

    router = start()
    talks = start_conversations(router, 8)
    expected = [home for _, home in talks]
    router.signal(signal.SIGTERM)
    assert router.wait() == 0
    cluster.token = "second"  # Rotated meanwhile.
    (account / "token").write_text("second")
    router = start()
    assert homes(router, talks) == expected
    wait_checkpoint(router)
    router.kill()
    router = start()
    assert homes(router, talks) == expected
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
