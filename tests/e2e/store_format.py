"""Reads a store and an exported stream as src/store/FORMAT.md describes them, without hashtrie.

Written from that page alone; nothing here is shared with the C sources.
"""
import struct

import lmdb
import msgpack
from xxhash import xxh3_64_intdigest

DATABASES = ("meta", "endpoints", "edges", "runs", "state", "age")
HASH_SEED = 0x6861736874726965


class Damaged(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Damaged(what)


def unseal(value, seed):
    """The bytes behind a checksum."""
    expect(len(value) > 8, "too short")
    checksum, = struct.unpack("<Q", value[:8])
    expect(checksum == xxh3_64_intdigest(value[8:], seed=seed), "wrong checksum")
    return value[8:]


def read_meta(entries):
    fields = {}
    for key, value in entries:
        field, = struct.unpack(">I", key)
        number, checksum = struct.unpack("<QQ", value)
        expect(checksum == xxh3_64_intdigest(value[:8], seed=field), f"meta field {field}")
        fields[field] = number
    expect(fields.get(0) == 1, "another format")
    expect(fields.get(2) == HASH_SEED, "another seed")
    return fields


def read_endpoints(entries):
    endpoints = {}
    for key, value in entries:
        number, = struct.unpack(">I", key)
        version, name, model, generation, odometer, seen = msgpack.unpackb(unseal(value, number))
        expect(version == 1 and name, "endpoint")
        endpoints[number] = {"id": number, "url": name, "model": model, "generation": generation,
                             "odometer_kib": odometer, "written": seen}
    return endpoints


def read_state(key, value):
    row, = struct.unpack(">Q", key)
    version, prefix, fingerprint, end, depth, length, bucket, holders = msgpack.unpackb(
        unseal(value, row))
    expect(version == 1 and 1 <= length <= 1000 and depth + length <= 1048575, "state")
    return row, {"prefix": prefix, "fingerprint": fingerprint, "end": end, "depth": depth,
                 "length": length, "bucket": bucket,
                 "holders": None if holders is None else [
                     tuple(holders[i:i + 3]) for i in range(0, len(holders), 3)]}


def read_run(value, prefix):
    body = unseal(value, prefix)
    version, zero, length = struct.unpack("<BBH", body[:4])
    expect(version == 1 and zero == 0 and len(body) == 4 + 4 * length, "run")
    return list(struct.unpack(f"<{length}I", body[4:]))


def read_store(directory):
    """(meta by field, endpoints by id, nodes in key order); checks what holds between databases."""
    environment = lmdb.open(str(directory), max_dbs=len(DATABASES), readonly=True, lock=False)
    with environment.begin() as txn:
        entries = {name: list(txn.cursor(environment.open_db(name.encode(), txn, create=False)))
                   for name in DATABASES}
    environment.close()
    meta = read_meta(entries["meta"])
    endpoints = read_endpoints(entries["endpoints"])
    states = dict(read_state(*entry) for entry in entries["state"])
    runs = {struct.unpack(">Q", key)[0]: value for key, value in entries["runs"]}
    ages = {key for key, value in entries["age"] if value == b""}
    expect(len(entries["edges"]) == len(states) == len(runs) == len(ages), "counts")
    nodes = []
    for key, value in entries["edges"]:
        prefix, fingerprint = struct.unpack(">QI", key)
        row, = struct.unpack("<Q", value)
        node = states[row]
        node["run"] = read_run(runs[row], prefix)
        expect((node["prefix"], node["fingerprint"]) == (prefix, fingerprint), "edge")
        expect(len(node["run"]) == node["length"] and node["run"][0] == fingerprint and
               node["run"][-1] == node["end"] & 0xffffffff, "run of another node")
        expect(struct.pack(">IIQ", node["bucket"], 0xffffffff - node["depth"], row) in ages, "age")
        expect(all(holder[0] < meta[3] for holder in node["holders"] or ()), "holder")
        nodes.append(node)
    expect(sum(node["length"] for node in nodes) == meta[7], "chunks")
    return meta, endpoints, nodes


def read_stream(data):
    """(header, endpoints, nodes) of an exported stream."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    unpacker.feed(data)
    records, start, seal = [], 0, 0
    while start < len(data):
        record = unpacker.unpack()
        end = unpacker.tell()
        expect(end - start <= 8192 and data[end - 9] == 0xcf, "record")
        seal = xxh3_64_intdigest(data[start:end - 9], seed=seal)
        expect(record[-1] == seal, "wrong seal")
        records.append(record[:-1])
        start = end
    header, *contents, last = records
    expect(header[:3] == [1, "hashtrie-export", 1], "header")
    expect(header[4] == HASH_SEED, "seed")
    endpoints = [record[1:] for record in contents if record[0] == 2]
    nodes = [record[1:] for record in contents if record[0] == 3]
    expect(last == [0, len(endpoints), len(nodes)], "end")
    expect(len(endpoints) + len(nodes) == len(contents), "kinds")
    return header, endpoints, nodes
