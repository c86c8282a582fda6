"""A router before mock engines, as processes on free ports of 127.0.0.1, watched while load runs."""
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

START_S = 30
SAMPLE_S = 0.2
METRICS_EVERY = 5  # Samples.
PAGE = os.sysconf("SC_PAGE_SIZE")
GAUGE = re.compile(r'^(hashtrie_\w+)(?:\{tier="(\w+)"\})? (\S+)$', re.M)
MODEL = "mock-model"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Broken(Exception):
    """Something did not start, or ended too early."""


def read_port(engine):
    line = engine.stdout.readline()  # The first, or nothing if it has ended.
    if "listening on " not in line:
        raise Broken(f"mock-engine did not start: {line}")
    return int(line.rpartition(":")[2])


def cpu_seconds(pid):
    """Of all its threads."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


class Fleet:
    """What mock-engine is told, for each of `count`; speeds as they are without compression."""

    def __init__(self, engines, kv_tokens, block_tokens, prefill_tps, decode_ms, max_batch):
        self.count, self.kv_tokens, self.block_tokens = engines, kv_tokens, block_tokens
        self.prefill_tps, self.decode_ms, self.max_batch = prefill_tps, decode_ms, max_batch

    def options(self, speed):
        return ["--kv-tokens", str(self.kv_tokens), "--block-tokens", str(self.block_tokens),
                "--prefill-tps", f"{self.prefill_tps * speed:g}",
                "--decode-ms", f"{self.decode_ms / speed:g}", "--max-batch", str(self.max_batch)]

    def __str__(self):
        return (f"{self.count} engines of {self.kv_tokens:,} tokens of KV cache, "
                f"{self.prefill_tps:,.0f} prompt tokens/s, {self.decode_ms:g} ms a token")


class Stack:
    """`with Stack(...) as stack: stack.load(...)`. Time runs `speed` times as fast as it says."""

    def __init__(self, programs, fleet, speed, router_options):
        self.programs, self.fleet, self.speed = programs, fleet, speed
        self.router_options = router_options
        self.folder = tempfile.TemporaryDirectory(prefix="hashtrie-bench-")
        self.engines, self.router, self.router_port = [], None, free_port()
        self.log = os.path.join(self.folder.name, "router.log")
        self.samples = []  # Seconds since load began, the router's figures, what /metrics says.
        self.cpu_before = 0.0  # Of routers that are gone.

    def program(self, name):
        return os.path.join(self.programs, name)

    def spawn(self, name, *options, output=subprocess.PIPE):
        return subprocess.Popen([self.program(name), *options], stdout=output,
                                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                                cwd=self.folder.name)

    def router_broke(self, what):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return Broken(f"hashtrie-router {what}: {file.read()[-2000:]}")

    def __enter__(self):
        try:
            for number in range(self.fleet.count):
                self.engines.append(self.spawn("mock-engine", "--port", "0", "--engine-id",
                                               f"e{number}", "--model", MODEL,
                                               "--keep-alive-ms", "60000",
                                               *self.fleet.options(self.speed)))
            self.ports = [read_port(engine) for engine in self.engines]
            self.start_router()
        except BaseException:
            self.stop()
            raise
        return self

    def start_router(self):
        urls = ",".join(f"http://127.0.0.1:{port}" for port in self.ports)
        options = [option.replace("{folder}", self.folder.name) for option in self.router_options]
        interval_s = max(0.1, 30 / self.speed)
        with open(self.log, "a", encoding="utf-8") as log:
            self.router = self.spawn(
                "hashtrie-router", "--host", "127.0.0.1", "--port", str(self.router_port),
                "--static-backends", urls, "--static-models", ",".join([MODEL] * len(self.ports)),
                "--engine-stats-interval", f"{interval_s:.3f}s", "--upstream-idle-timeout", "50s",
                *options, output=log)
        deadline = time.monotonic() + START_S
        while not self.metrics():  # Nothing else tells when it listens.
            if self.router.poll() is not None or time.monotonic() > deadline:
                raise self.router_broke("did not start")
            time.sleep(0.002)

    def kill_router(self):
        """At once, as when it runs out of memory; then it is started again."""
        self.cpu_before += cpu_seconds(self.router.pid)
        self.router.kill()
        self.router.wait()
        self.start_router()

    def metrics(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.router_port}/metrics",
                                        timeout=START_S) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return {}
        return {name + ("." + tier if tier else ""): float(value)
                for name, tier, value in GAUGE.findall(text)}

    def sample(self, since, figures):
        if self.router.poll() is not None:
            raise self.router_broke(f"ended with {self.router.returncode}")
        pid = self.router.pid
        self.samples.append({"at": time.monotonic() - since,
                             "cpu": self.cpu_before + cpu_seconds(pid),
                             "resident": resident_bytes(pid), **figures})

    def load(self, arguments, csv, kill_at_s=None):
        """Runs load-replay to its end and returns what it says."""
        command = [self.program("load-replay"), "--port", str(self.router_port), "--model", MODEL,
                   "--speed", f"{self.speed:g}", "--csv", csv, *arguments]
        begin = time.monotonic()
        replay = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            count = 0
            while replay.poll() is None:
                self.sample(begin, self.metrics() if count % METRICS_EVERY == 0 else {})
                count += 1
                if kill_at_s is not None and time.monotonic() - begin >= kill_at_s:
                    self.kill_router()
                    kill_at_s = None
                try:
                    replay.wait(SAMPLE_S)
                except subprocess.TimeoutExpired:
                    pass
            self.sample(begin, self.metrics())
            said = replay.stdout.read()
        finally:
            replay.kill()
            replay.wait()
        if replay.returncode != 0:
            raise Broken(f"load-replay ended with {replay.returncode}: {' '.join(command)}")
        return json.loads(said)

    def stop(self):
        for process in [*self.engines, self.router]:
            if process is not None:
                process.kill()
                process.wait()
        self.folder.cleanup()

    def __exit__(self, *_):
        self.stop()
