"""The store's format is as FORMAT.md says: a golden store of format 1, and one of today, are read
by another reader, and both tell the same as hashtrie-dump."""
import base64
import gzip
import json
import os
import subprocess

import pytest

from client import chat
from harness import binary
from store_format import Damaged, read_store, read_stream

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "store-format-1")


def dump(*arguments, **options):
    return subprocess.run([binary("hashtrie-dump"), *map(str, arguments)], check=True,
                          capture_output=True, timeout=60, **options).stdout


@pytest.fixture
def golden(tmp_path):
    folder = tmp_path / "golden"
    folder.mkdir()
    with open(GOLDEN + ".mdb.gz.b64", encoding="ascii") as file:
        (folder / "data.mdb").write_bytes(gzip.decompress(base64.b64decode(file.read())))
    return folder


def as_exported(endpoints, nodes):
    """What `hashtrie-dump export --json` says of the same contents."""
    lines = [{"kind": "endpoint", **endpoints[number]} for number in sorted(endpoints)]
    for node in nodes:
        holders = [{"id": holder, "url": endpoints.get(holder, {}).get("url"), "used": used,
                    "odometer_kib": odometer} for holder, used, odometer in node["holders"] or ()]
        lines.append({"kind": "node", "prefix": f"{node['prefix']:016x}",
                      "fingerprint": node["fingerprint"], "end": f"{node['end']:016x}",
                      "depth": node["depth"], "chunks": node["length"],
                      "used": node["bucket"] * 10, "held_by_all": node["holders"] is None,
                      "holders": holders, "run": node["run"]})
    return lines


def exported(folder):
    return [json.loads(line) for line in dump("export", "--json", folder).splitlines()]


def expect_same_stream(folder, endpoints, nodes):
    header, sent_endpoints, sent_nodes = read_stream(dump("export", folder))
    assert header[3] == 128
    assert sent_endpoints == [list(endpoints[number].values()) for number in sorted(endpoints)]
    assert len(sent_nodes) == len(nodes)
    for sent, node in zip(sent_nodes, nodes):
        prefix, end, depth, used, run, holders = sent
        assert (prefix, end, depth, used) == (node["prefix"], node["end"], node["depth"],
                                              node["bucket"] * 10)
        assert [int.from_bytes(run[i:i + 4], "big") for i in range(0, len(run), 4)] == node["run"]
        flat = None if holders is None else [tuple(holders[i:i + 3])
                                             for i in range(0, len(holders), 3)]
        assert flat == node["holders"]


def test_golden_store_is_read_by_another_reader(golden):
    meta, endpoints, nodes = read_store(golden)
    assert meta[1] == 128 and meta[6] == 1 and meta[8] == 16 << 20
    with open(GOLDEN + ".jsonl", encoding="utf-8") as file:
        expected = [json.loads(line) for line in file]
    assert as_exported(endpoints, nodes) == expected
    # All that the format can say is in it.
    assert any(node["holders"] is None for node in nodes)
    assert any(node["length"] == 1000 for node in nodes)
    assert any(endpoint["generation"] for endpoint in endpoints.values())
    assert any(holder[0] not in endpoints for node in nodes for holder in node["holders"] or ())


def test_golden_store_is_read_by_hashtrie(golden, tmp_path):
    meta, endpoints, nodes = read_store(golden)
    with open(GOLDEN + ".jsonl", encoding="utf-8") as file:
        assert exported(golden) == [json.loads(line) for line in file]
    assert b"10 nodes verified, 0 faults" in dump("verify", golden)
    expect_same_stream(golden, endpoints, nodes)
    (tmp_path / "stream").write_bytes(dump("export", golden))
    dump("import", tmp_path / "copy", tmp_path / "stream")
    assert read_store(tmp_path / "copy")[2][0]["run"] == nodes[0]["run"]
    dump("verify", "--repair", tmp_path / "repaired", golden)
    assert read_store(tmp_path / "repaired")[1:] == (endpoints, nodes)
    assert meta[0] == 1


def test_golden_store_is_opened_by_the_router(world, golden):
    _, _, nodes = read_store(golden)
    router = world.router([world.engine()], store=str(golden))
    assert chat(router, "x" * 4000, max_tokens=1).status == 200
    assert router.terminate() == 0
    assert not [name for name in os.listdir(golden) if name.startswith("data.mdb.bad")]
    _, _, after = read_store(golden)
    keys = {(node["prefix"], node["fingerprint"]) for node in after}
    assert keys > {(node["prefix"], node["fingerprint"]) for node in nodes}


@pytest.mark.smoke
def test_store_of_today_is_read_by_another_reader(world):
    store = world.store()
    router = world.router(world.engines(3), store=store)
    shared = "You are a helpful assistant. " * 40
    for number in range(60):
        assert chat(router, shared + f"{number % 20} " * (20 + number * 5), max_tokens=1).status == 200
    assert router.terminate() == 0
    _, endpoints, nodes = read_store(store)
    assert len(endpoints) == 3 and len(nodes) > 20
    assert exported(store) == as_exported(endpoints, nodes)
    expect_same_stream(store, endpoints, nodes)


def test_the_other_reader_sees_damage(golden):
    data = bytearray((golden / "data.mdb").read_bytes())
    at = data.index(b"http://10.0.0.7:8000")
    while at >= 0:
        data[at] ^= 1
        at = data.find(b"http://10.0.0.7:8000")
    (golden / "data.mdb").write_bytes(data)
    with pytest.raises(Damaged):
        read_store(golden)
