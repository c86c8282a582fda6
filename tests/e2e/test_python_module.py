"""tools/python/hashtrie.py: the Python HashTrie's interface over libhashtrie."""
import asyncio
import inspect
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODULE = os.path.join(ROOT, "tools", "python")
BIN = os.environ.get("HASHTRIE_BIN", os.path.join(ROOT, "build", "bin"))
LIBRARY = os.path.join(os.path.dirname(BIN), "lib", "libhashtrie.so")
A, B, C = "http://a:8000", "http://b:8000", "http://c:8000"

sys.path.insert(0, MODULE)
os.environ["HASHTRIE_LIBRARY"] = LIBRARY

import hashtrie  # noqa: E402
from hashtrie import HashTrie, HashTrieError  # noqa: E402


class NaiveHashTrie:
    """The rule of the original: holders of each chunk on the path, intersected on the way down."""

    def __init__(self, chunk_size=128):
        self.chunk_size = chunk_size
        self.root = ({}, set())

    def chunks(self, request):
        return [request[i:i + self.chunk_size] for i in range(0, len(request), self.chunk_size)]

    async def insert(self, request, endpoint):
        node = self.root
        for chunk in self.chunks(request):
            node = node[0].setdefault(chunk, ({}, set()))
            node[1].add(endpoint)

    async def longest_prefix_match(self, request, available_endpoints=frozenset()):
        node, matched, selected = self.root, 0, set(available_endpoints)
        for chunk in self.chunks(request):
            node = node[0].get(chunk)
            if node is None or not node[1] & selected:
                break
            matched += self.chunk_size
            selected = node[1] & selected
        return matched, selected


def python(code, *arguments, **environment):
    """Runs code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": MODULE, **environment})


def prompt(seed, chunks):
    """Chunks that no other seed has."""
    return "".join(f"{seed:8}{i:8}".ljust(128, "x") for i in range(chunks))


def test_interface_is_the_originals():
    assert HashTrie().chunk_size == 128
    assert HashTrie(64).chunk_size == HashTrie(chunk_size=64).chunk_size == 64
    assert list(inspect.signature(HashTrie.insert).parameters) == ["self", "request", "endpoint"]
    parameters = inspect.signature(HashTrie.longest_prefix_match).parameters
    assert list(parameters) == ["self", "request", "available_endpoints"]
    assert parameters["available_endpoints"].default == set()
    assert inspect.iscoroutinefunction(HashTrie.insert)
    assert inspect.iscoroutinefunction(HashTrie.longest_prefix_match)

    async def use():
        trie = HashTrie()
        assert await trie.longest_prefix_match("x" * 1000, {A, B}) == (0, {A, B})
        assert await trie.longest_prefix_match("x" * 1000) == (0, set())
        assert await trie.insert("x" * 1000, A) is None
        assert await trie.longest_prefix_match(request="x" * 1000, available_endpoints={A, B}) == (896, {A})
        assert await trie.longest_prefix_match("x" * 1000, {B}) == (0, {B})
        assert await trie.longest_prefix_match("x" * 1000, [A, B]) == (896, {A})
        assert await trie.longest_prefix_match("x" * 1000) == (0, set())
        await trie.insert(endpoint=B, request="x" * 400)
        assert await trie.longest_prefix_match("x" * 1000, {A, B}) == (896, {A})
        assert await trie.longest_prefix_match("x" * 1000, {B, C}) == (384, {B})
        assert await trie.longest_prefix_match("x" * 384 + "y" * 600, {A, B}) == (384, {A, B})
        await trie.insert("", A)
        assert await trie.longest_prefix_match("", {A, B}) == (0, {A, B})
    asyncio.run(use())


def test_same_answers_as_a_naive_one():
    seed = int(os.environ.get("HASHTRIE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"HASHTRIE_SEED={seed}")
    draw = random.Random(seed)
    endpoints = [f"http://10.0.0.{i}:8000" for i in range(12)]

    def request():
        start = draw.randrange(4)
        return "".join(prompt(start + draw.choice((0, 0, 0, 0, 4)) * i, 20)[128 * i:128 * (i + 1)]
                       for i in range(draw.randrange(20)))

    async def compare():
        trie, naive = HashTrie(), NaiveHashTrie()
        matched = 0
        for _ in range(3000):
            asked = request()
            available = set(draw.sample(endpoints, draw.randrange(1, 12)))
            found = await trie.longest_prefix_match(asked, available)
            assert found == await naive.longest_prefix_match(asked, available)
            matched += found[0] > 0
            chosen = draw.choice(sorted(found[1]))
            await trie.insert(asked, chosen)
            await naive.insert(asked, chosen)
        assert matched > 1000
    asyncio.run(compare())


def test_length_is_in_characters_of_whole_chunks():
    with HashTrie() as trie:
        for text, characters in (("x" * 127, 0), ("x" * 128, 128), ("x" * 300, 256),
                                 ("é" * 128, 128), ("日本語" * 100, 298), ("x" + "é" * 100, 64),
                                 ("\U0001f600" * 40, 32), ("\ud800" * 200, 170)):
            trie.insert_sync(text, A)
            assert trie.longest_prefix_match_sync(text, {A})[0] == characters, text[:3]


def test_more_than_64_holders_are_all():
    with HashTrie() as trie:
        endpoints = {f"http://{i}" for i in range(65)}
        for endpoint in endpoints:
            trie.insert_sync(prompt(1, 4), endpoint)
        assert trie.longest_prefix_match_sync(prompt(1, 4), {A, "http://1"}) == (512, {A, "http://1"})
        trie.insert_sync(prompt(1, 4) + prompt(2, 2), A)
        asked = prompt(1, 4) + prompt(2, 2)
        assert trie.longest_prefix_match_sync(asked, {A, "http://1"}) == (768, {A})
        assert trie.longest_prefix_match_sync(asked, {B}) == (512, {B})


def test_thousands_of_endpoints():
    with HashTrie() as trie:
        endpoints = [f"http://10.0.{i // 250}.{i % 250}:8000" for i in range(4000)]
        for i, endpoint in enumerate(endpoints):
            trie.insert_sync(prompt(7, 1) + prompt(i, 2), endpoint)
        everybody = set(endpoints)
        for i in range(0, 4000, 97):
            asked = prompt(7, 1) + prompt(i, 2)
            assert trie.longest_prefix_match_sync(asked, everybody) == (384, {endpoints[i]})
        assert trie.endpoints() == everybody
        assert trie.remove_endpoint(endpoints[0]) and not trie.remove_endpoint(endpoints[0])
        assert trie.longest_prefix_match_sync(prompt(7, 1) + prompt(0, 2), everybody - {endpoints[0]}) == (
            128, everybody - {endpoints[0]})
        assert trie.endpoints() == everybody - {endpoints[0]}
        trie.insert_sync(prompt(3, 2), B)  # Gets the place that has become free.
        assert trie.longest_prefix_match_sync(prompt(3, 2), {B, endpoints[0]}) == (256, {B})


@pytest.mark.parametrize("stored", [False, True])
def test_many_tasks_at_once(tmp_path, stored):
    async def route(trie, number):
        for turn in range(1, 6):
            text = prompt(number, turn * 3)
            matched, endpoints = await trie.longest_prefix_match(text, {A, B, C})
            assert matched == (turn - 1) * 3 * 128
            await trie.insert(text, sorted(endpoints)[0])
            await asyncio.sleep(0)

    async def run():
        with HashTrie(store=tmp_path if stored else None) as trie:
            await asyncio.gather(*(route(trie, number) for number in range(100)))
            assert trie.stats()["chunk_count"] == 100 * 15
    asyncio.run(run())


def test_many_threads_at_once(tmp_path):
    """Inserts, matches, removals, figures and checkpoints; a budget so small that the store is asked
    all the time; then closing under way."""
    trie = HashTrie(budget_bytes=1 << 20, store=tmp_path, checkpoint_interval_s=0.01)
    rounds, failures, closed = 150, [], []

    def work(number):
        draw = random.Random(number)
        try:
            for i in range(rounds * 1000):
                text = prompt(draw.randrange(400), draw.randrange(100))
                matched, endpoints = trie.longest_prefix_match_sync(text, {A, B, C})
                assert matched <= len(text) and endpoints <= {A, B, C} and endpoints
                trie.insert_sync(text, draw.choice((A, B, C)))
                if i % 50 == number:
                    trie.remove_endpoint(draw.choice((A, B, C)))
                    assert trie.stats()["bytes_used"] <= 1 << 20
                if i == rounds:
                    ready[number].set()
        except HashTrieError as error:
            closed.append(str(error))
        except BaseException as error:  # noqa: B902
            failures.append(repr(error))
        finally:
            ready[number].set()

    ready = [threading.Event() for _ in range(6)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for event in ready:
        event.wait()
    trie.close()
    for thread in threads:
        thread.join()
    assert not failures
    assert closed == ["this HashTrie is closed"] * 6


def test_the_tries_own_lock_is_held_where_it_has_to_be(tmp_path, monkeypatch):
    """The store's threads use the trie too, and nobody sees it when they meet but rarely."""
    library, held, called = hashtrie._library(), [], set()
    with_lock = {"match", "insert", "endpoint_add", "endpoint_name", "endpoint_remove", "get_stats",
                 "store_may_have"}
    without = {"store_reload", "store_checkpoint", "store_close", "free"}

    class Spy:
        def __getattr__(self, name):
            short = name.replace("hashtrie_", "", 1)

            def call(*arguments):
                called.add(short)
                if short == "lock":
                    assert not held
                    getattr(library, name)(*arguments)
                    held.append(threading.get_ident())
                    return None
                if short == "unlock":
                    held.pop()
                assert short not in with_lock or held == [threading.get_ident()], name
                assert short not in without or held != [threading.get_ident()], name
                return getattr(library, name)(*arguments)
            return call

    monkeypatch.setattr(hashtrie, "_library", Spy)
    for matched in (0, 512):
        with HashTrie(store=tmp_path, reload_timeout_s=10) as trie:
            assert trie.longest_prefix_match_sync(prompt(1, 4), {A}) == (matched, {A})
            trie.insert_sync(prompt(1, 4), A)
            trie.insert_sync(prompt(1, 4), B)
            trie.remove_endpoint(B)
            trie.checkpoint()
            trie.stats()
    assert with_lock | without <= called


def test_a_restart_with_a_store_goes_on(tmp_path):
    store = tmp_path / "store"
    long = prompt(1, 3000)
    with HashTrie(store=store) as trie:
        trie.insert_sync(long, A)
        trie.insert_sync(long[:128 * 1000] + prompt(2, 10), B)
        trie.insert_sync(prompt(3, 4), C)
        assert trie.remove_endpoint(C)
    with HashTrie(store=str(store), reload_timeout_s=10) as trie:
        assert trie.endpoints() == {A, B}
        assert trie.longest_prefix_match_sync(long, {A, B, C}) == (3000 * 128, {A})
        assert trie.longest_prefix_match_sync(prompt(3, 4), {A, B, C}) == (0, {A, B, C})
        figures = trie.stats()
        assert figures["reloaded_node_count"] >= 3 and figures["store"]["state"] == "ok"
        assert trie.remove_endpoint(A)

    async def again():
        with HashTrie(store=store, reload_timeout_s=10) as trie:
            assert trie.endpoints() == {B}
            found = await asyncio.gather(*(trie.longest_prefix_match(long, {A, B}) for _ in range(20)))
            assert found == [(1000 * 128, {B})] * 20
    asyncio.run(again())


def test_kill_loses_nothing_after_a_checkpoint(tmp_path):
    code = ("import os, sys; from hashtrie import HashTrie; trie = HashTrie(store=sys.argv[1]);"
            "trie.insert_sync('x' * 1280, 'http://a:8000'); trie.checkpoint();"
            "os.kill(os.getpid(), 9)")
    assert python(code, str(tmp_path)).returncode == -signal.SIGKILL
    with HashTrie(store=tmp_path, reload_timeout_s=10) as trie:
        assert trie.longest_prefix_match_sync("x" * 1280, {A, B}) == (1280, {A})


def test_what_is_not_closed_is_closed_at_exit(tmp_path):
    code = ("import sys; from hashtrie import HashTrie;"
            "trie = HashTrie(store=sys.argv[1], checkpoint_interval_s=3600);"
            "trie.insert_sync('x' * 1280, 'http://a:8000')")
    done = python(code, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    with HashTrie(store=tmp_path, reload_timeout_s=10) as trie:
        assert trie.longest_prefix_match_sync("x" * 1280, {A, B}) == (1280, {A})


@pytest.mark.parametrize("stored", [False, True])
def test_the_budget_is_kept(tmp_path, stored):
    with HashTrie(budget_bytes=1 << 20, store=tmp_path if stored else None, reload_timeout_s=10) as trie:
        for number in range(4000):
            trie.insert_sync(prompt(number, 100), A)
            if number % 200 == 0:
                trie.checkpoint()
                assert trie.stats()["bytes_used"] <= 1 << 20
        assert trie.stats()["evicted_node_count"] > 1000
        assert trie.longest_prefix_match_sync(prompt(3999, 100), {A, B}) == (12800, {A})
        trie.checkpoint()
        expected = (12800, {A}) if stored else (0, {A, B})
        assert trie.longest_prefix_match_sync(prompt(0, 100), {A, B}) == expected


def test_old_entries_do_not_count(monkeypatch):
    now = 1_800_000_000
    monkeypatch.setattr(hashtrie.time, "time", lambda: float(now))
    with HashTrie(max_age_s=3600) as trie:
        trie.insert_sync(prompt(1, 4), A)
        now += 1800
        trie.insert_sync(prompt(1, 4), B)
        now += 2400
        assert trie.longest_prefix_match_sync(prompt(1, 4), {A, B}) == (512, {B})
        now += 1800
        assert trie.longest_prefix_match_sync(prompt(1, 4), {A, B}) == (0, {A, B})


def test_events_are_logged(tmp_path, caplog):
    (tmp_path / "data.mdb").write_bytes(b"no store" * 1000)
    with caplog.at_level(logging.INFO, "hashtrie"), HashTrie(store=tmp_path):
        assert any("could not be used" in record.getMessage() and record.levelno == logging.ERROR
                   for record in caplog.records if record.name == "hashtrie")


def test_a_store_in_use_is_taken_over_when_it_is_free(tmp_path):
    first = HashTrie(store=tmp_path)
    first.insert_sync(prompt(1, 4), A)
    with HashTrie(store=tmp_path, reload_timeout_s=10) as second:
        figures = second.stats()["store"]
        assert (figures["state"], figures["up"], figures["problem"]) == ("off", False, "in use or overloaded")
        second.insert_sync(prompt(2, 4), B)
        assert second.longest_prefix_match_sync(prompt(2, 4), {A, B}) == (512, {B})
        assert second.endpoints() == {B}
        first.close()
        deadline = time.monotonic() + 30
        while not second.stats()["store"]["up"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert second.longest_prefix_match_sync(prompt(1, 4), {A, B}) == (512, {A})
        assert second.endpoints() == {A, B}


@pytest.mark.parametrize("options, said", [
    ({"chunk_size": 100}, "multiple of 8 from 64 to 4096"), ({"chunk_size": 0}, "multiple of 8"),
    ({"budget_bytes": 1000}, "1 MiB"), ({"max_age_s": -1}, "21 days"), ({"max_age_s": 1e9}, "21 days"),
    ({"max_age_s": float("nan")}, "21 days"), ({"reload_timeout_s": -1}, "0 or more"),
    ({"store": "x", "store_bytes": 1}, "16 MiB"), ({"store": "x", "checkpoint_interval_s": 0}, "3600")])
def test_bad_options_are_told(options, said):
    with pytest.raises(ValueError, match=said):
        HashTrie(**options)


def test_errors_say_what_is_wrong(tmp_path):
    with HashTrie(store=tmp_path / "store") as trie:
        for name in ("", "x" * 3000, "a\0b"):
            with pytest.raises(ValueError, match="1 to 2048 bytes"):
                trie.insert_sync("x" * 128, name)
        with pytest.raises(TypeError, match="bytes, not str"):
            trie.insert_sync(b"x", A)
        with pytest.raises(TypeError, match="NoneType, not str"):
            trie.longest_prefix_match_sync(None, {A})
    (tmp_path / "file").write_text("x")
    with pytest.raises(HashTrieError, match="invalid argument"):
        HashTrie(store=tmp_path / "file")
    trie.close()
    for call in (lambda: trie.insert_sync("x", A), lambda: trie.longest_prefix_match_sync("x", {A}),
                 trie.stats, trie.endpoints, lambda: trie.remove_endpoint(A), trie.checkpoint):
        with pytest.raises(HashTrieError, match="closed"):
            call()


def test_a_child_of_fork_is_told(tmp_path):
    trie = HashTrie(store=tmp_path)
    trie.insert_sync(prompt(1, 2), A)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            trie.stats()
        except HashTrieError as error:
            status = 0 if "make one after fork" in str(error) else 2
            trie.close()  # Nothing to wait for.
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert trie.longest_prefix_match_sync(prompt(1, 2), {A}) == (256, {A})
    trie.close()


def test_the_library_is_found_or_asked_for(tmp_path):
    code = "from hashtrie import HashTrie; print(HashTrie().stats()['node_count'])"
    done = python(code, HASHTRIE_LIBRARY=str(tmp_path / "none.so"))
    assert done.returncode == 1 and "set HASHTRIE_LIBRARY to its path" in done.stdout
    assert "none.so" in done.stdout
    module = tmp_path / "hashtrie.py"
    with open(os.path.join(MODULE, "hashtrie.py"), encoding="utf-8") as file:
        module.write_text(file.read())
    os.symlink(LIBRARY, tmp_path / "libhashtrie.so")
    assert python(code, HASHTRIE_LIBRARY="", PYTHONPATH=str(tmp_path)).stdout == "0\n"
    (tmp_path / "libhashtrie.so").unlink()
    assert python(code, HASHTRIE_LIBRARY="", PYTHONPATH=str(tmp_path),
                  LD_LIBRARY_PATH=os.path.dirname(LIBRARY)).stdout == "0\n"
    (tmp_path / "other.c").write_text('const char *hashtrie_version(void) { return "9.8.7"; }\n')
    other = str(tmp_path / "other.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", other, str(tmp_path / "other.c")], check=True)
    done = python(code, HASHTRIE_LIBRARY=other)
    assert done.returncode == 1 and "libhashtrie is version 9.8.7" in done.stdout
