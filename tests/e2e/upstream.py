"""A fake engine whose every byte the test decides."""
import socket
import threading

from harness import SLOW


class Exchange:
    """One request that arrived, and the connection to answer it on."""

    def __init__(self, connection, number, head, body, gone):
        self.socket = connection
        self.gone = gone  # Event: the connection has ended.
        self.number = number  # Of the request on its connection, from 0.
        self.head = head
        self.body = body

    @property
    def request_line(self):
        return self.head.split(b"\r\n")[0].decode("latin-1")

    @property
    def headers(self):
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [tuple(part.strip() for part in line.split(":", 1)) for line in lines]

    def header(self, name, default=None):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return values[-1] if values else default

    def send(self, data):
        self.socket.sendall(data)

    def answer(self, body=b"{}", headers=(), status="200 OK"):
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if not any(name.lower() == "content-type" for name, _ in headers):
            lines.append("Content-Type: application/json")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def start_stream(self, headers=()):
        lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream; charset=utf-8",
                 "Transfer-Encoding: chunked"] + [f"{name}: {value}" for name, value in headers]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self):
        self.send(b"0\r\n\r\n")

    def wait_gone(self, seconds=10.0):
        """True once the other side has closed or reset the connection. Not from the handler."""
        return self.gone.wait(seconds * SLOW)

    def close(self):
        self.socket.close()


class Upstream:
    """Accepts connections; `handler(exchange)` runs for each request, in the connection's thread.
    The handler may close the connection; else the next request on it is read. What the router
    asks for itself, GET /metrics, goes to `metrics(exchange)`, else has 404 for an answer; neither
    it nor its connection is counted."""

    def __init__(self, handler, metrics=None, tls=None, host="127.0.0.1", port=0):
        self.handler = handler
        self.metrics = metrics or (lambda exchange: exchange.answer(status="404 Not Found"))
        self.connections = 0
        self.exchanges = []
        self.failures = []
        self._open = []
        self._listener = socket.create_server((host, port), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.address = (host, self.port)
        self.tls = tls  # An ssl.SSLContext.
        self.url = f"http{'s' if tls else ''}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        pending = b""
        number = 0
        gone = threading.Event()
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while True:
                while b"\r\n\r\n" not in pending:
                    data = connection.recv(65536)
                    if not data:
                        return
                    pending += data
                head, pending = pending.split(b"\r\n\r\n", 1)
                exchange = Exchange(connection, number, head, b"", gone)
                size = int(exchange.header("content-length", "0"))
                while len(pending) < size:
                    data = connection.recv(262144)
                    if not data:
                        return
                    pending += data
                exchange.body, pending = pending[:size], pending[size:]
                if exchange.request_line == "GET /metrics HTTP/1.1":
                    self.metrics(exchange)
                    if connection.fileno() < 0:
                        return
                    continue
                self.connections += 1 if number == 0 else 0
                self.exchanges.append(exchange)
                number += 1
                self.handler(exchange)
                if connection.fileno() < 0:
                    return
        except OSError:
            return  # The other side went away, or the test ended.
        except Exception as failure:
            self.failures.append(failure)
        finally:
            connection.close()
            gone.set()

    def stop_listening(self):
        """From now on connections are refused; open ones stay."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self):
        try:
            self.stop_listening()
        except OSError:
            pass
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
