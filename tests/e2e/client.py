"""HTTP by hand: a client that shows every byte and every moment."""
import json
import socket
import threading

from harness import SLOW

TIMEOUT_SECONDS = 30 * SLOW
HEAD_BYTES_MAX = 1 << 20


class Answer:
    """A response: status, reason, headers as (name, value) pairs in order, body."""

    def __init__(self, version, status, reason, headers):
        self.version = version
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = b""

    def header(self, name, default=None):
        values = self.all(name)
        return values[-1] if values else default

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self):
        return json.loads(self.body)

    def text(self):
        return self.body.decode("utf-8")

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:500]!r}>"


class Connection:
    """One TCP connection to a server; raises EOFError where an answer is cut."""

    def __init__(self, address, timeout=TIMEOUT_SECONDS, receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Closes with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def send_request(self, method, path, body=None, headers=(), version="HTTP/1.1"):
        self.send(request_bytes(method, path, body, headers, version))

    def receive(self, size=65536):
        """The next bytes, as they come; b"" at the end."""
        if self.pending:
            data, self.pending = self.pending, b""
            return data
        return self.socket.recv(size)

    def _fill(self):
        data = self.socket.recv(262144)
        if not data:
            raise EOFError("connection closed in the middle of an answer")
        self.pending += data

    def read_head(self):
        while b"\r\n\r\n" not in self.pending:
            if len(self.pending) > HEAD_BYTES_MAX:
                raise AssertionError("endless head")
            self._fill()
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        version, status, *reason = lines[0].split(" ", 2)
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        return Answer(version, int(status), reason[0] if reason else "", headers)

    def read_exactly(self, size):
        while len(self.pending) < size:
            self._fill()
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def read_line(self):
        while b"\r\n" not in self.pending:
            self._fill()
        line, self.pending = self.pending.split(b"\r\n", 1)
        return line

    def chunks(self):
        """The payloads of a chunked body, one by one as they come."""
        while True:
            size = int(self.read_line().split(b";")[0], 16)
            if size == 0:
                while self.read_line():
                    pass
                return
            yield self.read_exactly(size)
            if self.read_exactly(2) != b"\r\n":
                raise AssertionError("chunk does not end where its size says")

    def read_body(self, answer, head_only=False):
        if head_only or answer.status in (204, 304) or answer.status < 200:
            return b""
        if (answer.header("transfer-encoding") or "").lower() == "chunked":
            answer.body = b"".join(self.chunks())
        elif answer.header("content-length") is not None:
            answer.body = self.read_exactly(int(answer.header("content-length")))
        else:
            data = self.pending
            self.pending = b""
            while True:
                more = self.socket.recv(262144)
                if not more:
                    break
                data += more
            answer.body = data
        return answer.body

    def read_answer(self, head_only=False):
        answer = self.read_head()
        while answer.status in (100, 102, 103):
            answer = self.read_head()
        self.read_body(answer, head_only)
        return answer

    def ask(self, method, path, body=None, headers=(), version="HTTP/1.1"):
        self.send_request(method, path, body, headers, version)
        return self.read_answer(head_only=method == "HEAD")


def encode(body):
    if body is None or isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8")
    return json.dumps(body).encode("utf-8")


def request_bytes(method, path, body=None, headers=(), version="HTTP/1.1"):
    data = encode(body)
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {path} {version}"]
    if "host" not in names:
        lines.append("Host: router.test")
    lines += [f"{name}: {value}" for name, value in headers]
    if data is not None:
        if "content-type" not in names:
            lines.append("Content-Type: application/json")
        if "content-length" not in names and "transfer-encoding" not in names:
            lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (data or b"")


def ask(server, method, path, body=None, headers=()):
    """One request on a connection of its own."""
    with Connection(server.address) as connection:
        return connection.ask(method, path, body, headers)


def get(server, path, headers=()):
    return ask(server, "GET", path, None, headers)


def chat_body(messages, model="mock-model", **fields):
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {"model": model, "messages": messages, "max_tokens": 4, **fields}


def chat(server, messages, headers=(), connection=None, **fields):
    body = chat_body(messages, **fields)
    if connection is not None:
        return connection.ask("POST", "/v1/chat/completions", body, headers)
    return ask(server, "POST", "/v1/chat/completions", body, headers)


def sse_events(body):
    """The data of every event of a server-sent event stream."""
    events = []
    for block in body.decode("utf-8").split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: "):
                events.append(line[len("data: "):])
    return events


def engine_of(answer):
    return answer.header("x-engine-id")


def in_parallel(count, action):
    """Runs action(0) .. action(count - 1), all at the same moment; their results in order."""
    results = [None] * count
    failures = []
    barrier = threading.Barrier(count)

    def run(number):
        try:
            barrier.wait()
            results[number] = action(number)
        except BaseException as failure:  # Reported below, in the test's own thread.
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
