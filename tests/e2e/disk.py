"""A router's disk with faults in it: tests/fault/preload/disk.c, see tests/support/disk_trace.h."""
import mmap
import os
import struct

import pytest

from harness import BIN

LIBRARY = os.path.join(BIN, "..", "lib", "libtest_disk.so")
STALL_WRITES, STALL_READS = 1, 2
FIELDS = ("stall", "write_errno", "sync_errno", "read_errno", "open_errno", "stalled", "failed",
          "thread_count")
THREAD_FIELDS = ("id", "is_loop", "io", "io_as_loop", "map", "map_as_loop")
THREADS_MAX = 64
NUMBER = struct.Struct("=I")


class Disk:
    """What is below `folder` is on it, for the programs started with its environment. A field set
    here (FIELDS) is in force at once."""

    def __init__(self, world, folder):
        if not os.path.exists(LIBRARY):
            pytest.skip("no preloaded disk in a build with sanitizers")
        path = world.folder / "disk-control"
        path.write_bytes(bytes(NUMBER.size * (len(FIELDS) + THREADS_MAX * len(THREAD_FIELDS))))
        with open(path, "r+b") as file:
            object.__setattr__(self, "_map", mmap.mmap(file.fileno(), 0))
        object.__setattr__(self, "environment", {
            "LD_PRELOAD": os.path.realpath(LIBRARY), "HASHTRIE_DISK_ROOT": str(folder),
            "HASHTRIE_DISK_CONTROL": str(path)})

    def _get(self, index):
        return NUMBER.unpack_from(self._map, index * NUMBER.size)[0]

    def __getattr__(self, name):
        if name not in FIELDS:
            raise AttributeError(name)
        return self._get(FIELDS.index(name))

    def __setattr__(self, name, value):
        NUMBER.pack_into(self._map, FIELDS.index(name) * NUMBER.size, value)

    def threads(self):
        """Of the last program: one dictionary each."""
        first = len(FIELDS)
        width = len(THREAD_FIELDS)
        return [{name: self._get(first + number * width + at)
                 for at, name in enumerate(THREAD_FIELDS)}
                for number in range(min(self.thread_count, THREADS_MAX))]
