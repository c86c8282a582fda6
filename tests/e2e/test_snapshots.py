"""Snapshots of a serving router's store, and who may ask for one."""
import json
import os
import socket
import subprocess

import pytest

from client import Connection, chat, get
from harness import binary
from prometheus import scrape
from test_lifecycle import wait_checkpoint


def ask(router, headers=(), body=b"", address=None):
    with Connection(address or router.address) as connection:
        return connection.ask("POST", "/admin/snapshot", body, list(headers))


def node_count(store):
    output = subprocess.run([binary("hashtrie-dump"), "stats", "--json", store], check=True,
                            capture_output=True, text=True).stdout
    return json.loads(output)["nodes"]


@pytest.mark.smoke
def test_a_snapshot_holds_what_was_acknowledged_and_can_be_served_from(world):
    engines = world.engines(2)
    folder = world.store("snapshots")
    router = world.router(engines, "--snapshot-dir", folder, "--snapshot-keep", "1",
                          store=world.store())
    prompts = [f"{number} " + "prompt " * 300 for number in range(8)]
    for prompt in prompts:
        assert chat(router, prompt).status == 200
    wait_checkpoint(router)
    for _ in range(2):
        answer = ask(router)
        assert answer.status == 200, answer
    made = answer.json()
    assert os.listdir(folder) == [os.path.basename(made["path"])]
    assert made["bytes"] == os.path.getsize(os.path.join(made["path"], "data.mdb"))
    assert made["seconds"] >= 0
    metrics = scrape(router)
    assert metrics.total("hashtrie_snapshots_total") == 2
    assert metrics.total("hashtrie_last_snapshot_bytes") == made["bytes"]
    assert metrics.total("hashtrie_last_snapshot_timestamp_seconds") > 0
    assert metrics.total("hashtrie_store_pinned_seconds") == 0
    chosen = [decision[2] for decision in router.decisions(len(prompts))]
    router.terminate()
    assert node_count(made["path"]) == node_count(world.store())
    again = world.router(engines, store=made["path"])
    for prompt in prompts:
        assert chat(again, prompt).status == 200
    assert [decision[2] for decision in again.decisions(len(prompts))] == chosen


def test_refusals(world):
    engine = world.engine()
    router = world.router([engine], store=world.store())
    answer = ask(router)
    assert answer.status == 503 and "--snapshot-dir" in answer.json()["error"]
    assert get(router, "/admin/snapshot").status == 405
    assert get(router, "/admin/other").status == 404
    assert ask(router, body=b"{}").status == 400
    without = world.router([engine])
    assert ask(without).status == 503
    folder = world.store("snapshots")  # The store is the first router's: not open here.
    second = world.router([engine], "--snapshot-dir", folder, store=world.store())
    answer = ask(second)
    assert answer.status == 503 and "not open" in answer.json()["error"]


def own_address():
    """An address of this machine that is not loopback; None: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # Sends nothing.
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def test_others_than_loopback_need_the_key(world):
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    key_file = world.folder / "key"
    key_file.write_text("s3cret\nsecond line\n")
    engine = world.engine()
    router = world.router([engine], "--snapshot-dir", world.store("snapshots"),
                          "--admin-key-file", key_file, store=world.store(), host="0.0.0.0")
    outside = (address, router.port)
    assert ask(router).status == 200
    for headers in ([], [("Authorization", "Bearer wrong")], [("Authorization", "s3cret")],
                    [("Authorization", "Bearer s3cre")], [("Authorization", "Bearer s3crets")],
                    [("Authorization", "Bearer ")]):
        assert ask(router, headers, address=outside).status == 403, headers
    assert ask(router, [("Authorization", "Bearer s3cret")], address=outside).status == 200


def test_a_key_file_that_cannot_be_used_is_refused(world):
    empty = world.folder / "empty"
    empty.write_text("\n")
    for path in (empty, world.folder / "missing"):
        result = subprocess.run([binary("hashtrie-router"), "--port", "0", "--no-store",
                                 "--static-backends", "http://127.0.0.1:1", "--static-models", "m",
                                 "--admin-key-file", str(path)],
                                capture_output=True, text=True, timeout=60)
        assert result.returncode != 0 and "--admin-key-file" in result.stderr
