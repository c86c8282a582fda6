"""Real programs on free ports of 127.0.0.1: started, watched, killed by process id."""
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

BIN = os.environ.get("HASHTRIE_BIN") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "bin")
# Sanitized programs are slower: every limit on waiting is multiplied by this.
SLOW = float(os.environ.get("HASHTRIE_E2E_SLOW", "1"))
START_SECONDS = 20 * SLOW
LINES_KEPT = 200000
# Options of a mock-engine that nobody has to wait for.
FAST = ("--prefill-tps", "1000000", "--decode-ms", "1")
SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak|Thread|Undefined\w*)Sanitizer|WARNING: ThreadSanitizer|runtime error:")
CHECK_FAILED = re.compile(r"\b(REQUIRE|CHECK|DCHECK)\b.*fail", re.I)


def binary(name):
    return os.path.join(BIN, name)


def wait_until(condition, seconds=10.0, what="condition"):
    """Asks again and again until the answer is true, for things that give no event."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds * SLOW:.0f} s in vain: {what}")
        time.sleep(0.005)


# As a service manager does it: descriptors from 3 on, and the environment says whose they are.
PASS_SOCKETS = """
import fcntl, os, sys
numbers = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 100) for text in sys.argv[1].split(",")]
for place, number in enumerate(numbers, 3):
    os.dup2(number, place)
os.closerange(3 + len(numbers), 1024)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def free_port(host="127.0.0.1"):
    with socket.create_server((host, 0)) as listener:
        return listener.getsockname()[1]


def wait_until_still(value, seconds, what):
    """Until `value()` has been the same for half a second."""
    last = [None, 0.0]

    def is_still():
        now = time.monotonic()
        current = value()
        if current != last[0]:
            last[:] = [current, now]
        return now - last[1] > 0.5

    wait_until(is_still, seconds, what)


class Program:
    """One process. Its output is read by a thread as it comes; waiting for a line is an event.
    `sockets` are passed to it by systemd's protocol."""

    def __init__(self, arguments, environment=None, cwd=None, sockets=()):
        self.arguments = [str(argument) for argument in arguments]
        self.lines = []
        self._changed = threading.Condition()
        self._closed = False
        full = {name: value for name, value in os.environ.items()
                if not name.startswith(("HASHTRIE_CHUNK", "HASHTRIE_EVICTION", "HASHTRIE_TARGET",
                                        "PREFIXAWARE_", "MEMORY_CHECK_", "VLLM_API_KEY", "KUBE",
                                        "STATE_DIRECTORY"))}
        full.update(environment or {})
        command = self.arguments
        passed = [each.fileno() for each in sockets]
        if passed:
            full.setdefault("LISTEN_FDS", str(len(passed)))
            command = [sys.executable, "-I", "-S", "-c", PASS_SOCKETS,
                       ",".join(map(str, passed))] + command
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=full, cwd=cwd,
                                        pass_fds=passed)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for raw in self.process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            with self._changed:
                if len(self.lines) < LINES_KEPT:
                    self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        with self._changed:
            return "\n".join(self.lines)

    def wait_line(self, pattern, seconds=10.0, start=0):
        """The match of the first line, from line number `start` on, in which `pattern` is found."""
        regex = re.compile(pattern)
        deadline = time.monotonic() + seconds * SLOW
        at = start
        with self._changed:
            while True:
                while at < len(self.lines):
                    match = regex.search(self.lines[at])
                    if match:
                        return match
                    at += 1
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    tail = "\n".join(self.lines[-30:])
                    raise AssertionError(f"no line /{pattern}/ from {self.arguments[0]}"
                                         f"{' (it has ended)' if self._closed else ''}:\n{tail}")
                self._changed.wait(left)

    def find_lines(self, pattern):
        regex = re.compile(pattern)
        with self._changed:
            return [match for match in map(regex.search, self.lines) if match]

    def line_count(self):
        with self._changed:
            return len(self.lines)

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=10.0):
        """Exit status; negative: ended by that signal. Output is complete afterwards."""
        status = self.process.wait(seconds * SLOW)
        self._reader.join(10)
        return status

    def kill(self):
        """kill -9, and wait until it is gone."""
        if self.running():
            self.process.kill()
        return self.wait()

    def terminate(self, seconds=20.0):
        if self.running():
            self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.arguments[0]} did not end within {seconds} s:\n{self.output()[-3000:]}")

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) * 1024

    def complaint(self):
        """What a sanitizer or a failed check said; None if all is well."""
        with self._changed:
            for number, line in enumerate(self.lines):
                if SANITIZER_REPORT.search(line) or CHECK_FAILED.search(line):
                    return "\n".join(self.lines[number:number + 40])
        return None


class Server(Program):
    """A program that says where it listens."""

    def __init__(self, arguments, environment=None, cwd=None, sockets=()):
        super().__init__(arguments, environment, cwd, sockets)
        try:
            match = self.wait_line(r"listening on (?:http://)?(\S+):(\d+)", 20)
        except AssertionError:
            self.kill()
            raise
        self.port = int(match.group(2))
        self.address = ("127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{self.port}"


class Engine(Server):
    """mock-engine."""

    def __init__(self, *arguments, name="engine", model="mock-model", port=0):
        self.name = name
        super().__init__([binary("mock-engine"), "--port", port, "--engine-id", name,
                          "--model", model, *arguments])


class Router(Server):
    """hashtrie-router in front of `backends`: engines, or URLs. `under`: a program that starts it."""

    def __init__(self, backends, *arguments, store=None, models=None, environment=None, port=0,
                 host="127.0.0.1", cwd=None, sockets=(), under=()):
        self.urls = [getattr(backend, "url", backend) for backend in backends]
        self.models = models or ["mock-model"] * len(self.urls)
        self.store = store
        command = [*under, binary("hashtrie-router"), "--host", host, "--port", port,
                   "--static-backends", ",".join(self.urls),
                   "--static-models", ",".join(self.models)]
        command += ["--store-path", store] if store else ["--no-store"]
        super().__init__(command + [str(argument) for argument in arguments], environment, cwd,
                         sockets)

    def decisions(self, count, seconds=10.0):
        """(request id, session id, url) of every log line of a routed request, once there are
        `count` of them: a line may come after the answer."""
        pattern = (r"Routing request ([^ ]*) with session id ([^ ]*) to ([^ ]*) at "
                   r"\d+(?:\.\d+)?, process time = \d+\.\d{4}$")
        wait_until(lambda: len(self.find_lines(pattern)) >= count, seconds,
                   f"{count} routed requests in the log")
        return [match.groups() for match in self.find_lines(pattern)]
