"""The HashTrie of vLLM's production-stack on top of libhashtrie: same calls, bounded memory, a store.

    from hashtrie import HashTrie       # was: from vllm_router.prefix.hashtrie import HashTrie

    trie = HashTrie()
    matched, endpoints = await trie.longest_prefix_match(prompt, {"http://a:8000", "http://b:8000"})
    await trie.insert(prompt, random.choice(list(endpoints)))

What the original has not got are keyword options and further methods:

    with HashTrie(budget_bytes=1 << 30, store="/var/lib/router", max_age_s=3600) as trie:
        trie.insert_sync(prompt, endpoint)
        trie.longest_prefix_match_sync(prompt, endpoints)
        trie.remove_endpoint("http://a:8000")       # its pod is gone: so is all it held
        trie.stats()

Differences to the original:

* Only whole chunks count, and a chunk is 128 bytes of UTF-8, not 128 characters. The length that is
  returned is in characters and counts those of matched chunks alone: the original counts a last part
  of a chunk as a whole one.
* chunk_size is a multiple of 8 from 64 to 4096.
* A prefix with more than 64 holders counts as held by all available endpoints.
* Past 90 % of budget_bytes the least recently used prefixes leave memory; with a store they are read
  back when asked for. An insert that finds no room at all is left out, and counted in stats().
* The set that is returned is always a new one.

Every method may be called from any thread. Calls release the GIL. The async ones wait for nothing but
the store, at most reload_timeout_s, and only if it may know more of the prompt than memory does. Make
it after fork(), not before: the store has threads of its own. What they have to tell goes to the
logger "hashtrie"; its handlers must not call the HashTrie.

The library is searched at $HASHTRIE_LIBRARY, else beside this file, else where the system's loader
looks. Python 3.8 or later, no other package.
"""
import asyncio
import ctypes
import functools
import itertools
import logging
import math
import os
import secrets
import threading
import time
import weakref
from contextlib import contextmanager
from ctypes import POINTER, byref, c_bool, c_char_p, c_double, c_int, c_size_t, c_ubyte
from ctypes import c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any, Callable, Collection, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple
from typing import Union

__all__ = ["HashTrie", "HashTrieError"]

_VERSION = "0.1"  # Of the headers that the structures below are taken from.
_LIBRARY_NAMES = (f"libhashtrie.so.{_VERSION}", "libhashtrie.so")
_OK, _EFULL = 0, -4
_HOLDERS_MAX = 64
_ENDPOINTS_MAX = 65535
_ENDPOINT_BYTES_MAX = 2048
_CHUNK_COUNT_MAX = 0xFFFFF
_AGE_MAX_S = 21 * 24 * 3600
_CLOSE_TIMEOUT_MS = 10000
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))  # Of UTF-8: all but the first of a character.
_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO)

_log = logging.getLogger("hashtrie")


class HashTrieError(Exception):
    """What the library refused; the text says what and why."""


# ---- The C side. `room` is for fields that a later patch of the library may add. ----

_OnEvent = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)
_OnReload = ctypes.CFUNCTYPE(None, c_void_p, c_int)


class _Options(ctypes.Structure):
    _fields_ = [("budget_bytes", c_size_t), ("threshold", c_double), ("target", c_double),
                ("chunk_size", c_size_t), ("max_entry_age_s", c_uint32), ("seed", c_uint64),
                ("room", c_ubyte * 256)]


class _StoreOptions(ctypes.Structure):
    _fields_ = [("directory", c_char_p), ("max_bytes", c_uint64),
                ("checkpoint_interval_ms", c_uint32), ("reload_thread_count", c_uint32),
                ("chunk_size", c_size_t), ("snapshot_directory", c_char_p),
                ("snapshot_interval_s", c_uint32), ("snapshot_keep", c_uint32),
                ("open_timeout_ms", c_uint32), ("check_in_child", c_bool),
                ("crash_mark", c_void_p), ("on_event", _OnEvent),
                ("user", c_void_p), ("room", c_ubyte * 256)]


class _Key(ctypes.Structure):
    _fields_ = [("namespace_hash", c_uint64), ("hashes", POINTER(c_uint64)), ("count", c_size_t)]


class _Holder(ctypes.Structure):
    _fields_ = [("endpoint", c_uint16), ("chunk_count", c_uint32)]


class _Match(ctypes.Structure):
    _fields_ = [("chunk_count", c_size_t), ("all_chunk_count", c_size_t),
                ("holder_count", c_size_t), ("holders", _Holder * _HOLDERS_MAX)]


class _Stats(ctypes.Structure):
    _fields_ = [(name, c_uint64) for name in (
        "bytes_used", "bytes_budget", "node_count", "chunk_count", "endpoint_count",
        "dirty_node_count", "evicted_node_count", "spilled_node_count", "dropped_node_count",
        "reloaded_node_count", "unrecorded_count", "collision_count", "conflict_count")] + [
            ("room", c_ubyte * 256)]


class _StoreStats(ctypes.Structure):
    _fields_ = [("state", c_int), ("up", c_bool), ("problem", c_int)] + [(name, c_uint64) for name in (
        "bytes", "max_bytes", "node_count", "chunk_count", "endpoint_count", "checkpoint_count",
        "checkpoint_failure_count", "repeated_batch_count")] + [
            ("last_checkpoint_unix_s", c_double), ("room", c_ubyte * 4096)]


# Name in the headers -> here; a test compares sizes and offsets.
_STRUCTURES = {"hashtrie_options": _Options, "hashtrie_store_options": _StoreOptions,
               "hashtrie_key": _Key, "hashtrie_holder": _Holder, "hashtrie_match": _Match,
               "hashtrie_stats": _Stats, "hashtrie_store_stats": _StoreStats}

_FUNCTIONS = {  # Result, then parameters.
    "hashtrie_strerror": (c_char_p, c_int),
    "hashtrie_hash_namespace": (c_uint64, c_char_p, c_size_t),
    "hashtrie_hash_chunks": (c_size_t, c_uint64, c_char_p, c_size_t, c_size_t, POINTER(c_uint64),
                             c_size_t),
    "hashtrie_options_default": (_Options, c_size_t),
    "hashtrie_new": (c_int, POINTER(_Options), POINTER(c_void_p)),
    "hashtrie_free": (None, c_void_p),
    "hashtrie_lock": (None, c_void_p),
    "hashtrie_unlock": (None, c_void_p),
    "hashtrie_endpoint_add": (c_int, c_void_p, c_char_p, c_char_p, POINTER(c_uint16)),
    "hashtrie_endpoint_name": (c_char_p, c_void_p, c_uint16),
    "hashtrie_endpoint_remove": (c_int, c_void_p, c_uint16),
    "hashtrie_match": (None, c_void_p, POINTER(_Key), c_uint64, POINTER(_Match)),
    "hashtrie_insert": (c_int, c_void_p, POINTER(_Key), c_uint16, c_uint64),
    "hashtrie_get_stats": (None, c_void_p, POINTER(_Stats)),
    "hashtrie_store_options_default": (_StoreOptions, c_char_p),
    "hashtrie_store_open": (c_int, c_void_p, POINTER(_StoreOptions), POINTER(c_void_p)),
    "hashtrie_store_close": (c_int, c_void_p, c_uint32),
    "hashtrie_store_checkpoint": (c_int, c_void_p, c_uint32),
    "hashtrie_store_may_have": (c_bool, c_void_p, POINTER(_Key), c_size_t),
    "hashtrie_store_reload": (c_int, c_void_p, POINTER(_Key), c_size_t, _OnReload, c_void_p),
    "hashtrie_store_state_name": (c_char_p, c_int),
    "hashtrie_store_get_stats": (None, c_void_p, POINTER(_StoreStats)),
}


def _load() -> ctypes.CDLL:
    named = os.environ.get("HASHTRIE_LIBRARY")
    here = os.path.dirname(os.path.abspath(__file__))
    beside = [path for path in (os.path.join(here, name) for name in _LIBRARY_NAMES)
              if os.path.exists(path)]
    tried = []
    for path in [named] if named else beside + list(_LIBRARY_NAMES):
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            tried.append(str(error))
    raise OSError("libhashtrie cannot be loaded; set HASHTRIE_LIBRARY to its path, put it beside "
                  f"{here}, or install it and run ldconfig. Tried: {'; '.join(tried)}")


@functools.lru_cache(maxsize=None)
def _library() -> ctypes.CDLL:
    """Loaded at the first use; every call through it releases the GIL."""
    library = _load()
    library.hashtrie_version.restype = c_char_p
    version = library.hashtrie_version().decode()
    if not version.startswith(_VERSION + "."):
        raise OSError(f"libhashtrie is version {version}, and this module is for {_VERSION}.x: take "
                      "both from the same release")
    for name, (result, *parameters) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = parameters
    return library


def _check(status: int, what: str) -> None:
    if status != _OK:
        raise HashTrieError(f"{what}: {_library().hashtrie_strerror(status).decode()}")


# ---- Callbacks from the store's threads ----

_reloads: Dict[int, Callable[[], None]] = {}  # Number of a reload -> who waits for it.
_reload_numbers = itertools.count(1)


@_OnReload
def _on_reload(number: int, status: int) -> None:
    del status  # Whatever it is: the next match tells.
    waiting = _reloads.pop(number, None)
    if waiting is not None:
        waiting()


@_OnEvent
def _on_event(user: Optional[int], level: int, text: bytes) -> None:
    del user
    _log.log(_LEVELS[level] if 0 <= level < len(_LEVELS) else logging.ERROR, "%s",
             text.decode("utf-8", "replace"))


# ---- Handles: what has to be closed ----

class _Handles:
    """Trie and store, and the lock that orders threads of Python and closing; the trie's own lock
    orders them with the store's threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process = os.getpid()
        self.trie = c_void_p()
        self.store = c_void_p()

    def close(self) -> int:
        """The store's last status. Runs once: when asked for, when the owner goes, or at exit."""
        if os.getpid() != self.process:
            return _OK  # A child of fork() has no threads to end.
        with self.lock:
            status: int = _library().hashtrie_store_close(self.store, _CLOSE_TIMEOUT_MS)
            _library().hashtrie_free(self.trie)
            self.trie = self.store = c_void_p()
        return status

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The handles stay open meanwhile. Not reentrant."""
        if os.getpid() != self.process:
            raise HashTrieError("this HashTrie belongs to the parent process: make one after fork()")
        with self.lock:
            if not self.trie:
                raise HashTrieError("this HashTrie is closed")
            yield

    @contextmanager
    def locked(self) -> Iterator[c_void_p]:
        """The same, and the trie's own lock is held, which orders this with the store's threads."""
        with self.opened():
            _library().hashtrie_lock(self.trie)
            try:
                yield self.trie
            finally:
                _library().hashtrie_unlock(self.trie)


class _Request(NamedTuple):
    data: bytes
    characters: int
    key: _Key


class _Found(NamedTuple):
    holders: List[Tuple[str, int]]  # Endpoint, chunks it holds: those with most first.
    all_chunk_count: int  # What counts as held by everybody.
    chunk_count: int  # What is known at all.
    store_may_have_more: bool


class HashTrie:
    """Which endpoint was sent which prompts; see the module's text."""

    def __init__(self, chunk_size: int = 128, *, budget_bytes: int = 256 << 20,
                 store: Union[str, "os.PathLike[str]", None] = None, store_bytes: int = 8 << 30,
                 checkpoint_interval_s: float = 1.0, max_age_s: float = 0,
                 reload_timeout_s: float = 0.02) -> None:
        """
        chunk_size: bytes hashed together, a multiple of 8 from 64 to 4096.
        budget_bytes: limit of the memory that the trie takes, at least 1 MiB; never passed.
        store: folder on a local disk where it lasts; None: a restart forgets all.
        store_bytes: cap of the store's file, at least 16 MiB.
        checkpoint_interval_s: what is new is on disk that much later; 0.01 to 3600.
        max_age_s: an endpoint does not count as holder of what it was not sent for longer; up to
            21 days, by the minute; 0: no limit.
        reload_timeout_s: longest wait for the store in a match.

        A store that cannot be opened now (another process has it, the disk is full) is tried again
        in the background; meanwhile memory alone is used, and stats() tells. ValueError: an option
        is outside its range. HashTrieError: the store can never be opened there. OSError: no
        library.
        """
        if not (64 <= chunk_size <= 4096 and chunk_size % 8 == 0):
            raise ValueError(f"chunk_size is {chunk_size}: it has to be a multiple of 8 from 64 to 4096")
        if budget_bytes < 1 << 20:
            raise ValueError(f"budget_bytes is {budget_bytes}: it has to be at least 1 MiB")
        if not 0 <= max_age_s <= _AGE_MAX_S:
            raise ValueError(f"max_age_s is {max_age_s}: it has to be from 0 to {_AGE_MAX_S} (21 days)")
        if not 0 <= reload_timeout_s < math.inf:
            raise ValueError(f"reload_timeout_s is {reload_timeout_s}: it has to be 0 or more")
        self.chunk_size = chunk_size
        self._reload_timeout_s = reload_timeout_s
        self._numbers: Dict[str, int] = {}
        self._names: Dict[int, str] = {}
        options = _library().hashtrie_options_default(budget_bytes)
        self._handles = _Handles()
        self._close = weakref.finalize(self, self._handles.close)
        options.chunk_size = chunk_size
        options.max_entry_age_s = math.ceil(max_age_s)
        options.seed = secrets.randbits(64)
        _check(_library().hashtrie_new(byref(options), byref(self._handles.trie)), "making the trie")
        self._namespace = _library().hashtrie_hash_namespace(b"", 0)
        if store is not None:
            self._open_store(os.fspath(store), store_bytes, checkpoint_interval_s)

    def _open_store(self, directory: str, max_bytes: int, interval_s: float) -> None:
        if not 16 << 20 <= max_bytes <= 1 << 44:
            raise ValueError(f"store_bytes is {max_bytes}: it has to be from 16 MiB to 16 TiB")
        if not 0.01 <= interval_s <= 3600:
            raise ValueError(f"checkpoint_interval_s is {interval_s}: it has to be from 0.01 to 3600")
        options = _library().hashtrie_store_options_default(os.fsencode(directory))
        options.max_bytes = max_bytes
        options.checkpoint_interval_ms = math.ceil(interval_s * 1000)
        options.chunk_size = self.chunk_size
        options.on_event = _on_event
        handles = self._handles
        _check(_library().hashtrie_store_open(handles.trie, byref(options), byref(handles.store)),
               f"the store in {directory!r} cannot be opened")

    # ---- The original's interface ----

    async def insert(self, request: str, endpoint: str) -> None:
        """Records that `endpoint` is being sent `request`."""
        self.insert_sync(request, endpoint)

    async def longest_prefix_match(
            self, request: str,
            available_endpoints: Collection[str] = frozenset()) -> Tuple[int, Set[str]]:
        """
        How many of the request's first characters some of the available endpoints hold, and which
        of them hold that much. Nobody holds anything: 0 and all available endpoints.
        """
        asked = self._request(request)
        found = self._match(asked.key)
        if found.store_may_have_more:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            if self._reload(asked.key, found.chunk_count, functools.partial(_wake, loop, done)):
                await asyncio.wait([done], timeout=self._reload_timeout_s)
                found = self._match(asked.key)
        return self._answer(asked, found, available_endpoints)

    # ---- What the original has not got ----

    def insert_sync(self, request: str, endpoint: str) -> None:
        """insert() without a loop. Never waits for the disk."""
        asked = self._request(request)
        with self._handles.locked() as trie:
            status = _library().hashtrie_insert(trie, byref(asked.key), self._number(trie, endpoint),
                                                int(time.time()))
        if status != _EFULL:  # No room is a normal day: the request goes on, stats() counts it.
            _check(status, "insert")

    def longest_prefix_match_sync(
            self, request: str,
            available_endpoints: Collection[str] = frozenset()) -> Tuple[int, Set[str]]:
        """longest_prefix_match() without a loop. Waits for the store, up to reload_timeout_s."""
        asked = self._request(request)
        found = self._match(asked.key)
        if found.store_may_have_more:
            done = threading.Event()
            if self._reload(asked.key, found.chunk_count, done.set):
                done.wait(self._reload_timeout_s)
                found = self._match(asked.key)
        return self._answer(asked, found, available_endpoints)

    def endpoints(self) -> Set[str]:
        """The endpoints that are known, those that came back from the store included."""
        with self._handles.locked() as trie:
            self._learn_all(trie)
            return set(self._numbers)

    def remove_endpoint(self, endpoint: str) -> bool:
        """Forgets an endpoint and all it held. False: it was not known."""
        with self._handles.locked() as trie:
            self._learn_all(trie)
            number = self._numbers.pop(endpoint, None)
            if number is None:
                return False
            del self._names[number]
            _check(_library().hashtrie_endpoint_remove(trie, number), "remove_endpoint")
        return True

    def checkpoint(self, timeout_s: float = 10.0) -> None:
        """Waits until all that was inserted before is on disk. Nothing to do without a store."""
        with self._handles.opened():
            if self._handles.store:
                _check(_library().hashtrie_store_checkpoint(self._handles.store,
                                                            math.ceil(timeout_s * 1000)), "checkpoint")

    def stats(self) -> Dict[str, Any]:
        """
        Figures of the trie: bytes_used, bytes_budget, node_count, chunk_count, endpoint_count,
        evicted_node_count, unrecorded_count (inserts without room), .. With a store, its own are
        under "store": state ("ok", "off", ..), problem, bytes, max_bytes, node_count, ..
        """
        with self._handles.locked() as trie:
            figures = _figures(self._trie_stats(trie))
            if self._handles.store:
                stats = _StoreStats()
                _library().hashtrie_store_get_stats(self._handles.store, byref(stats))
                figures["store"] = _figures(stats)
                state = _library().hashtrie_store_state_name(stats.state)
                problem = _library().hashtrie_strerror(stats.problem)
                figures["store"].update(state=state.decode(), problem=problem.decode())
        return figures

    def close(self) -> None:
        """
        Writes what is new to the store, waiting up to 10 s for it, and gives everything back; later
        calls of other methods raise HashTrieError. HashTrieError here: the last checkpoint failed.
        Closing again is fine. What is not closed by hand is closed when it is collected as garbage,
        or when the program ends.
        """
        _check(self._close() or _OK, "the last checkpoint failed")

    def __enter__(self) -> "HashTrie":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    # ---- Steps ----

    def _request(self, request: str) -> _Request:
        if not isinstance(request, str):
            raise TypeError(f"the request is {type(request).__name__}, not str")
        data = request.encode("utf-8", "surrogatepass")
        count = min(len(data) // self.chunk_size, _CHUNK_COUNT_MAX)
        hashes = (c_uint64 * count)()
        _library().hashtrie_hash_chunks(self._namespace, data, len(data), self.chunk_size, hashes, count)
        return _Request(data, len(request), _Key(self._namespace, hashes, count))

    def _match(self, key: _Key) -> _Found:
        match = _Match()
        with self._handles.locked() as trie:
            _library().hashtrie_match(trie, byref(key), int(time.time()), byref(match))
            store = self._handles.store
            more = bool(store) and _library().hashtrie_store_may_have(store, byref(key),
                                                                      match.chunk_count)
            holders = [(self._name(trie, holder.endpoint), holder.chunk_count)
                       for holder in match.holders[:match.holder_count]]
        return _Found(holders, match.all_chunk_count, match.chunk_count, more)

    def _reload(self, key: _Key, depth: int, waiting: Callable[[], None]) -> bool:
        """Asks the store; False: it has no time, and `waiting` is not called."""
        number = next(_reload_numbers)
        with self._handles.opened():
            _reloads[number] = waiting
            status: int = _library().hashtrie_store_reload(self._handles.store, byref(key), depth,
                                                           _on_reload, number)
        if status != _OK:
            del _reloads[number]
        return status == _OK

    def _answer(self, asked: _Request, found: _Found,
                available: Collection[str]) -> Tuple[int, Set[str]]:
        wanted = set(available)
        selected: Set[str] = set()
        matched = 0
        for endpoint, chunk_count in found.holders:
            if chunk_count < matched:
                break
            if endpoint in wanted:
                selected.add(endpoint)
                matched = chunk_count
        if not selected:
            selected = wanted
            matched = found.all_chunk_count if wanted else 0
        size = matched * self.chunk_size
        if len(asked.data) == asked.characters:
            return size, selected
        begun = len(asked.data[:size].translate(None, _CONTINUATION_BYTES))
        cut = asked.data[size:size + 1]
        return begun - (1 if cut and cut in _CONTINUATION_BYTES else 0), selected

    def _number(self, trie: c_void_p, endpoint: str) -> int:
        number = self._numbers.get(endpoint)
        if number is not None:
            return number
        name = endpoint.encode("utf-8", "surrogateescape")
        if not 0 < len(name) <= _ENDPOINT_BYTES_MAX or b"\0" in name:
            raise ValueError(f"an endpoint's name has 1 to {_ENDPOINT_BYTES_MAX} bytes and no NUL: "
                             f"{endpoint[:80]!r}")
        added = c_uint16()
        _check(_library().hashtrie_endpoint_add(trie, name, b"", byref(added)),
               f"endpoint {endpoint!r} cannot be added")
        self._learn(endpoint, added.value)
        return added.value

    def _name(self, trie: c_void_p, number: int) -> str:
        name = self._names.get(number)
        if name is None:  # It came back from the store.
            text = _library().hashtrie_endpoint_name(trie, number)
            name = text.decode("utf-8", "surrogateescape")
            self._learn(name, number)
        return name

    def _learn_all(self, trie: c_void_p) -> None:
        count = self._trie_stats(trie).endpoint_count
        for number in range(_ENDPOINTS_MAX):
            if len(self._names) == count:
                break
            if _library().hashtrie_endpoint_name(trie, number) is not None:
                self._name(trie, number)

    def _learn(self, endpoint: str, number: int) -> None:
        self._numbers[endpoint] = number
        self._names[number] = endpoint

    @staticmethod
    def _trie_stats(trie: c_void_p) -> _Stats:
        stats = _Stats()
        _library().hashtrie_get_stats(trie, byref(stats))
        return stats


def _wake(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[None]") -> None:
    def wake() -> None:
        if not done.done():
            done.set_result(None)

    try:
        loop.call_soon_threadsafe(wake)
    except RuntimeError:
        pass  # The loop was closed meanwhile: nobody waits any more.


def _figures(structure: ctypes.Structure) -> Dict[str, Any]:
    return {name: getattr(structure, name) for name, *_ in structure._fields_ if name != "room"}
