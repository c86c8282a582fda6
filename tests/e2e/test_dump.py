"""hashtrie-dump on the store of a running router: what operators do with it, on terminals too."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import lmdb
import pytest

from client import ask, chat, chat_body as chat_fields
from harness import SLOW, binary, wait_until
from test_lifecycle import wait_checkpoint

DUMP = binary("hashtrie-dump")
SHARED = "You are a helpful assistant that answers briefly. " * 60


def dump(*arguments, status=0, **options):
    run = subprocess.run([DUMP, *map(str, arguments)], capture_output=True, timeout=60 * SLOW,
                         **options)
    assert run.returncode == status, run.stderr.decode()
    return run.stdout.decode()


def dump_json(*arguments, **options):
    return json.loads(dump(*arguments, "--json", **options))


def chat_body(messages, **fields):
    return json.dumps(chat_fields(messages, **fields)).encode()


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *arguments, rows=30, columns=100, environment=None):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        full = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        full.update({"TERM": "xterm", **(environment or {})})
        self.output = b""
        self.process = subprocess.Popen([DUMP, *map(str, arguments)], stdin=slave, stdout=slave,
                                        stderr=slave, env=full, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern, seconds=10):
        """Reads on; what came up to the first match of `pattern` in what comes now."""
        start = len(self.output)
        deadline = time.monotonic() + seconds * SLOW
        while not re.search(pattern, self.output[start:], re.S):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern} in {self.output[start:][:2000]}"
            if select.select([self.master], [], [], left)[0]:
                self.output += self._read()
        return self.output[start:]

    def _read(self):
        try:
            return os.read(self.master, 65536)
        except OSError:  # The other side is closed.
            return b""

    def finish(self):
        while True:
            piece = self._read()
            if not piece:
                break
            self.output += piece
        os.close(self.master)
        return self.process.wait(10 * SLOW)


# ---- Lookup ----

@pytest.mark.smoke
def test_lookup_finds_what_the_router_recorded(world, tmp_path):
    engines = world.engines(2)
    store = world.store()
    router = world.router(engines, "--static-aliases", "nick:mock-model", store=store)
    messages = [{"role": "system", "content": SHARED}, {"role": "user", "content": "first " * 200}]
    body = tmp_path / "body.json"
    body.write_bytes(chat_body(messages, max_tokens=1))
    assert dump_json("lookup", store, body, status=1)["known_chunks"] == 0
    assert chat(router, messages, max_tokens=1).status == 200
    wait_checkpoint(router)
    served = router.decisions(1)[-1][2]
    found = dump_json("lookup", store, body)
    assert found["known_chunks"] == found["chunks"] > 20
    assert [(engine["url"], engine["chunks"]) for engine in found["engines"]] == [
        (served, found["chunks"])]
    assert sum(node["matched"] for node in found["nodes"]) == found["chunks"]
    # Another request shares the beginning alone.
    other = [messages[0], {"role": "user", "content": "second " * 200}]
    shared = dump_json("lookup", store, input=chat_body(other, max_tokens=1))
    assert len(SHARED) // 128 <= shared["known_chunks"] < shared["chunks"]
    # The alias is the model; another model has nothing.
    nick = chat_body(messages, model="nick", max_tokens=1)
    assert dump_json("lookup", store, input=nick, status=1)["known_chunks"] == 0
    assert dump_json("lookup", store, "--aliases", "a:b,nick:mock-model",
                     input=nick)["known_chunks"] == found["chunks"]
    assert dump_json("lookup", store, "--model", "mock-model",
                     input=nick)["known_chunks"] == found["chunks"]
    text = dump("lookup", store, body)
    assert served in text and "(100 %) are known" in text


def test_lookup_of_a_prompts_text(world, tmp_path):
    store = world.store()
    router = world.router(world.engines(1), store=store)
    prompt = "a \"quoted\" prompt, with ünïcode and\nnew lines; " * 50
    answer = ask(router, "POST", "/v1/completions",
                 json.dumps({"model": "mock-model", "prompt": prompt, "max_tokens": 1}).encode())
    assert answer.status == 200
    wait_checkpoint(router)
    found = dump_json("lookup", store, "--prompt", "--model", "mock-model", input=prompt.encode())
    assert found["known_chunks"] == found["chunks"] > 10
    assert "not JSON" in subprocess.run([DUMP, "lookup", store], input=b"text", timeout=60,
                                        capture_output=True, check=False).stderr.decode()


# ---- Figures ----

def talk(router, count, first=0, words=300):
    for number in range(first, first + count):
        assert chat(router, SHARED + f"{number} " * words, max_tokens=1).status == 200


@pytest.mark.smoke
def test_figures_of_a_running_router(world):
    engines = world.engines(2)
    store = world.store()
    router = world.router(engines, "--store-max-size", "64MiB", store=store)
    talk(router, 20)
    wait_checkpoint(router)
    stats = dump_json("stats", store)
    assert stats["nodes"] >= 20 and not stats["closed_in_order"]
    assert stats["max_bytes"] == 64 << 20
    assert stats["head_room_bytes"] == stats["max_bytes"] - stats["used_bytes"]
    assert 0 < stats["page_fill"] <= 1 and stats["depth_max"] >= stats["depth_mean"] > 0
    assert sum(stats["ages"].values()) == stats["nodes"]
    assert "page_fill" not in dump_json("stats", "--quick", store)
    listed = dump_json("endpoints", store)
    assert {engine["url"] for engine in listed} == {engine.url for engine in engines}
    assert sum(engine["nodes"] for engine in listed) >= stats["nodes"]
    assert all(sum(engine["ages"].values()) == engine["nodes"] for engine in listed)
    tops = {order: dump_json("tree", "--top", 5, "--by", order, store)
            for order in ("recency", "bytes", "holders")}
    assert all(len(nodes) == 5 for nodes in tops.values())
    chunks = [node["chunks"] for node in tops["bytes"]]
    assert chunks == sorted(chunks, reverse=True)
    holders = [len(node["holders"]) for node in tops["holders"]]
    assert holders == sorted(holders, reverse=True)
    tree = dump_json("tree", "--depth", 2, store)
    assert tree["prefixes"][0]["children"][0]["children"]
    assert dump_json("verify", store)["faults"] == 0


# ---- Copies ----

def test_snapshot_restore_export_import_diff(world, tmp_path):
    engines = world.engines(2)
    store = world.store()
    router = world.router(engines, store=store)
    talk(router, 10)
    wait_checkpoint(router)
    dump("snapshot", store, tmp_path / "snapshot")
    (tmp_path / "stream").write_bytes(subprocess.run(
        [DUMP, "export", store], check=True, stdout=subprocess.PIPE, timeout=60).stdout)
    talk(router, 10, first=10)
    wait_checkpoint(router)
    grown = dump_json("diff", "--limit", 1000, tmp_path / "snapshot", store, status=1)
    assert grown["only_a"] == 0 and grown["only_b"] >= 10
    assert len(grown["differences"]) == grown["only_b"] + grown["runs"] + grown["holders"]
    assert "cannot restore" in subprocess.run(
        [DUMP, "restore", tmp_path / "snapshot", store], capture_output=True, timeout=60,
        check=False).stderr.decode()  # The router has it open.
    assert router.terminate() == 0
    dump("restore", tmp_path / "snapshot", store)
    assert dump_json("diff", tmp_path / "snapshot", store)["same"] > 10
    holder = max(dump_json("endpoints", store), key=lambda engine: engine["nodes"])["url"]
    report = dump_json("import", tmp_path / "imported", tmp_path / "stream",
                       "--rename", f"{holder}=http://renamed:1")
    assert report["added"] == report["nodes"] and report["conflicts"] == 0
    assert {engine["url"] for engine in dump_json("endpoints", tmp_path / "imported")} == {
        "http://renamed:1"} | {engine.url for engine in engines} - {holder}
    other = dump_json("diff", tmp_path / "imported", store, status=1)
    assert other["only_a"] == other["only_b"] == other["runs"] == 0 and other["holders"] > 0
    dump("import", tmp_path / "imported", tmp_path / "stream")  # Merges the old name back in.
    assert dump_json("verify", tmp_path / "imported")["faults"] == 0
    # A router goes on with what was restored.
    again = world.router(engines, store=store)
    talk(again, 10)
    assert again.terminate() == 0
    assert dump_json("verify", store)["faults"] == 0


def test_repair_of_a_spoiled_store(world, tmp_path):
    store = world.store()
    router = world.router(world.engines(1), store=store)
    talk(router, 30)
    wait_checkpoint(router)
    assert "a router has" in subprocess.run(
        [DUMP, "verify", "--repair", tmp_path / "out", store], capture_output=True, timeout=60,
        check=False).stderr.decode()
    assert router.terminate() == 0
    nodes = dump_json("stats", store)["nodes"]
    with open(os.path.join(store, "data.mdb"), "r+b") as file:
        file.write(bytes(2 * 4096))  # Both meta pages.
    dump("verify", store, status=3)
    report = dump_json("verify", "--repair", tmp_path / "out", store, status=1)
    assert report["nodes"] >= nodes and report["damaged_pages"] > 0
    assert dump_json("verify", tmp_path / "out")["faults"] == 0
    dump("restore", tmp_path / "out", store)
    assert any(name.startswith("data.mdb.bad-") for name in os.listdir(store))
    assert dump_json("stats", store)["nodes"] == report["nodes"]


def test_a_blocked_export_pins_no_pages(world):
    store = world.store()
    router = world.router(world.engines(1), store=store)
    talk(router, 300, words=6000)
    wait_checkpoint(router)
    with subprocess.Popen([DUMP, "export", store], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as export:
        pending = struct.pack("i", 0)

        def waiting():
            return struct.unpack("i", fcntl.ioctl(export.stdout, termios.FIONREAD, pending))[0]

        assert export.stdout.peek(1)
        wait_until(lambda: waiting() >= 60000, 20, "a full pipe")
        with lmdb.open(store, readonly=True, max_dbs=8) as environment:
            readers = environment.readers().splitlines()[1:]
        assert all(line.split()[-1] == "-" for line in readers), readers
        export.stdout.read()
        assert export.wait(60) == 0


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 99
shift
exec "$@"
"""


@pytest.mark.parametrize("with_lock", [True, False])
def test_a_copy_on_a_read_only_mount(world, tmp_path, with_lock):
    store = world.store()
    router = world.router(world.engines(1), store=store)
    talk(router, 5)
    assert router.terminate() == 0
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("data.mdb", "lock.mdb") if with_lock else ("data.mdb",):
        (copy / name).write_bytes(open(os.path.join(store, name), "rb").read())

    def on_read_only(*arguments):
        return subprocess.run(["unshare", "-m", "sh", "-c", READ_ONLY, "sh", copy, DUMP,
                               *map(str, arguments)], capture_output=True, timeout=60, check=False)

    if on_read_only("--version").returncode != 0:
        pytest.skip("no right to mount here")
    for command in (["stats"], ["tree"], ["endpoints"], ["verify"], ["export"],
                    ["verify", "--repair", tmp_path / "out"]):
        run = on_read_only(*command, copy)
        assert run.returncode == 0, (command, run.stderr)
    run = on_read_only("diff", copy, store)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "data.mdb").exists()


# ---- Terminals ----

@pytest.mark.smoke
def test_watch_on_a_terminal(world):
    store = world.store()
    router = world.router(world.engines(1), store=store)
    talk(router, 3)
    wait_checkpoint(router)
    terminal = Terminal("watch", "--interval", "0.1", store)
    first = terminal.read_until(rb"nodes .*\033\[J")
    assert first.startswith(b"\033[?25l")
    terminal.resize(5, 20)

    def is_narrow():
        screen = terminal.read_until(rb"\033\[H.*\033\[J").split(b"\033[H")[-1]
        lines = re.sub(rb"\033\[[?0-9]*[A-Za-z]", b"", screen).split(b"\r\n")
        return max(map(len, lines)) <= 20

    wait_until(is_narrow, 10, "lines as wide as the screen")
    os.write(terminal.master, b"\x03")
    assert terminal.finish() == 0
    assert terminal.output.endswith(b"\033[?25h")
    assert dump_json("stats", store)["nodes"] > 0


def test_watch_elsewhere(world):
    store = world.store()
    router = world.router(world.engines(1), store=store)
    talk(router, 2)
    wait_checkpoint(router)
    lines = dump("watch", "--interval", "0.1", "--count", 3, store).splitlines()
    assert len(lines) == 3 and all(" nodes " in line for line in lines)
    for line in dump("watch", "--json", "--interval", "0.1", "--count", 2, store).splitlines():
        assert json.loads(line)["nodes"] >= 2
    # Whoever ends the program ends all of it.
    with subprocess.Popen([DUMP, "watch", "--interval", "0.1", store],
                          stdout=subprocess.PIPE) as watch:
        assert watch.stdout.readline()
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(10 * SLOW) != 0
        assert watch.stdout.read() is not None  # Ends when nobody writes any more.


def disorder_edges(store):
    """Keys of one length in a leaf page are those of edges; in half of these pages they go back to
    the beginning, as no sound file has them. Nothing tells the router to look before it opens."""
    path = store / "data.mdb"
    pages = bytearray(path.read_bytes())
    found = []
    for at in range(2 * 4096, len(pages), 4096):
        number, _, flags, lower, upper = struct.unpack_from("<QHHHH", pages, at)
        if flags != 2 or number != at // 4096 or not 16 < lower <= upper <= 4096:
            continue
        places = struct.unpack_from(f"<{(lower - 16) // 2}H", pages, at + 16)
        if all(struct.unpack_from("<H", pages, at + place + 6)[0] == 12 for place in places):
            found.append((at, places))
    assert len(found) > 20
    for at, places in found[len(found) // 2:]:
        for place in places:
            pages[at + place + 8:at + place + 16] = bytes(8)
    path.write_bytes(pages)
    stat = path.stat()
    (store / "mark").write_text(f"clean {stat.st_size} {stat.st_mtime_ns}\n")


def test_keys_out_of_order_lead_nobody_in_a_circle(world, tmp_path):
    store = tmp_path / "disorder"
    subprocess.run([binary("fill-store"), store, "20"], check=True, capture_output=True)
    disorder_edges(store)
    assert "what follows was not looked at" in dump("verify", store, status=1)
    for arguments in (["export", store, tmp_path / "stream"], ["tree", store],
                      ["diff", store, store], ["stats", store], ["endpoints", store]):
        subprocess.run([DUMP, *map(str, arguments)], capture_output=True, timeout=60 * SLOW)
    router = world.router(world.engines(1), store=store)
    router.wait_line("the list of nodes is damaged")
    router.wait_line("read ahead")


def test_what_is_no_store_is_told(world, tmp_path):
    """By the router, too: `invalid argument` alone helps nobody."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "data.mdb").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "data.mdb")
    for name in "file", "folder", "pipe":
        run = subprocess.run([DUMP, "stats", tmp_path / name], capture_output=True, text=True,
                             timeout=60 * SLOW)
        assert run.returncode == 3 and "that is no folder" in run.stderr
    for name in "file", "folder":
        run = subprocess.run([binary("hashtrie-router"), "--port", "0", "--static-backends",
                              "http://127.0.0.1:1", "--static-models", "m", "--store-path",
                              tmp_path / name], capture_output=True, text=True, timeout=60 * SLOW)
        assert run.returncode == 1 and "--store-path names a folder" in run.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_store_restored_by_root_is_its_folders_owners(world, tmp_path):
    """sudo hashtrie-dump restore: the router that runs as somebody else has to open it."""
    router = world.router(world.engines(1), "--checkpoint-interval", "100ms", store=world.store())
    talk(router, 1)
    wait_checkpoint(router)
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    dump("snapshot", world.store(), tmp_path / "snapshot")
    dump("restore", tmp_path / "snapshot", folder)
    assert (folder / "data.mdb").stat().st_uid == 65534


def test_colour_is_for_terminals(world):
    store = world.store()
    router = world.router(world.engines(1), store=store)
    talk(router, 2)
    assert router.terminate() == 0
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        terminal = Terminal("verify", store, environment=environment)
        assert terminal.finish() == 0
        assert (b"\033[32m" in terminal.output) == coloured
        assert b"0 faults" in terminal.output
    assert "\033" not in dump("verify", store)
    terminal = Terminal("export", store)
    assert terminal.finish() == 2
    assert b"the stream is binary" in terminal.output
