"""TLS with clients and with engines."""
import os
import signal
import socket
import ssl
import threading

import httpx
import openai
import pytest

from certificates import Authority
from client import ask
from harness import Program, binary, wait_until
from prometheus import Metrics, scrape

CHAT = {"model": "mock-model", "messages": [{"role": "user", "content": "hello"}]}
SSE = b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n'


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def client_context(authority):
    return ssl.create_default_context(cafile=authority.path)


def options_of(authority, name="router"):
    certificate, key = authority.sign(name)
    return ["--ssl-certfile", certificate, "--ssl-keyfile", key]


def https(router, authority, **options):
    return httpx.Client(base_url=f"https://localhost:{router.port}", timeout=30,
                        verify=client_context(authority), **options)


def ask_tls(address, context):
    """One request on a connection of its own: (status, serial number of the certificate)."""
    with socket.create_connection(address, 30) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as stream:
            stream.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := stream.recv(65536):
                answer += data
            return int(answer.split()[1]), stream.getpeercert()["serialNumber"]


class Plain:
    """An engine that answers whatever comes in plain HTTP."""

    def __init__(self):
        self.exchanges = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def stream_handler(exchange):
    exchange.start_stream()
    for number in range(20):
        exchange.chunk(SSE % number)
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.end_stream()


def test_a_real_client_through_tls_on_both_sides(world, authority):
    engine = world.upstream(stream_handler, tls=authority.server_context("engine"))
    router = world.router([engine], "--backend-ca-file", authority.path, *options_of(authority))
    with openai.OpenAI(base_url=f"https://localhost:{router.port}/v1", api_key="none",
                       max_retries=0, http_client=https(router, authority)) as client:
        for _ in range(3):
            parts = client.chat.completions.create(**CHAT, stream=True)
            text = "".join(part.choices[0].delta.content for part in parts if part.choices)
            assert text == "".join(str(number) for number in range(20))
    assert engine.connections == 1  # Kept alive.
    families = scrape_https(router, authority)
    assert families.value("hashtrie_tls_handshakes_total", side="engine", result="ok") == 1


def scrape_https(router, authority):
    with https(router, authority) as client:
        return Metrics(client.get("/metrics").text)


@pytest.mark.parametrize("size", [1, 16384, 3_000_000])
def test_bodies_pass_unaltered(world, authority, size):
    content = os.urandom(size // 2 + 1).hex()[:size]
    engine = world.upstream(lambda exchange: exchange.answer(exchange.body),
                            tls=authority.server_context("engine"))
    router = world.router([engine], "--backend-ca-file", authority.path, *options_of(authority))
    body = dict(CHAT, messages=[{"role": "user", "content": content}])
    with https(router, authority) as client:
        for _ in range(2):
            assert client.post("/v1/chat/completions", json=body).json() == body


@pytest.mark.parametrize("how,reason", [
    ("name", "certificate is for another name"),
    ("expired", "certificate has expired"),
    ("self-signed", "certificate is from no trusted authority"),
    ("plain", "what it says is not TLS")])
def test_an_engine_that_does_not_prove_itself_has_failed(world, authority, how, reason):
    tls = {"name": lambda: authority.server_context("bad", names="DNS:elsewhere"),
           "expired": lambda: authority.server_context("bad", days=-1),
           "self-signed": lambda: Authority(world.folder, "other").server_context("bad"),
           "plain": lambda: None}[how]()
    bad = world.upstream(lambda exchange: exchange.answer(), tls=tls) if tls else Plain()
    good = world.upstream(lambda exchange: exchange.answer(b'{"good":1}'),
                          tls=authority.server_context("good"))
    bad_url = f"https://127.0.0.1:{bad.port}"
    alone = world.router([bad_url], "--backend-ca-file", authority.path)
    answer = ask(alone, "POST", "/v1/chat/completions", CHAT)
    assert answer.status == 502 and reason in answer.text()
    alone.wait_line(f"failed: its {reason}" if how != "plain" else f"failed: {reason}")
    alone.wait_line("metrics cannot be read: ")
    errors = scrape(alone).total("vllm:request_errors_total", error_type="ConnectError")
    assert errors == 1
    both = world.router([bad_url, good.url], "--backend-ca-file", authority.path)
    for _ in range(4):
        assert ask(both, "POST", "/v1/chat/completions", CHAT).json() == {"good": 1}
    assert bad.exchanges == []


def test_health_and_metrics_are_asked_over_tls(world, authority):
    def metrics(exchange):
        exchange.answer(b"process_start_time_seconds 1700000000\nvllm:num_requests_running 3\n",
                        [("Content-Type", "text/plain")])

    engine = world.upstream(lambda exchange: exchange.answer(), metrics=metrics,
                            tls=authority.server_context("engine"))
    router = world.router([engine], "--backend-ca-file", authority.path,
                          "--static-backend-health-checks",
                          "--static-backend-health-check-interval", "200ms")
    wait_until(lambda: scrape(router).total("hashtrie_engine_metrics_up") == 1, what="metrics")
    wait_until(lambda: any(exchange.request_line == "GET /health HTTP/1.1"
                           for exchange in engine.exchanges), what="a check")
    assert not router.find_lines("unhealthy")


@pytest.mark.parametrize("polite", [True, False])
def test_an_answer_without_the_closing_notice_is_cut(world, authority, polite):
    def handler(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        if polite:
            exchange.socket.unwrap()  # Waits for the router's notice.
        exchange.socket.shutdown(socket.SHUT_RDWR)
        exchange.close()

    engine = world.upstream(handler, tls=authority.server_context("engine"))
    router = world.router([engine], "--backend-ca-file", authority.path, *options_of(authority))
    with https(router, authority) as client:
        if polite:
            assert client.post("/v1/chat/completions", json=CHAT).text == "all of it"
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                client.post("/v1/chat/completions", json=CHAT)
            router.wait_line("closed without TLS's closing notice")


def test_certificates_are_replaced_under_load(world, authority):
    router = world.router(world.engines(1), *options_of(authority))
    context = client_context(authority)
    seen, failures, stop = set(), [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                status, serial = ask_tls(router.address, context)
                assert status == 200
                seen.add(serial)
            except Exception as failure:  # Any is one too many.
                failures.append(repr(failure))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    with https(router, authority) as kept:
        assert kept.get("/health").status_code == 200
        for count in range(1, 6):
            wait_until(lambda: len(seen) == count, what="a new certificate")
            start = router.line_count()
            if count == 3:  # One that is bad changes nothing.
                certificate = authority.sign("router")[0]
                with open(certificate, "w", encoding="ascii") as file:
                    file.write("no certificate")
                router.signal(signal.SIGHUP)
                router.wait_line("what was loaded before stays in use", start=start)
            authority.sign("router")
            router.signal(signal.SIGHUP)
            router.wait_line("TLS of clients: its files were read again", start=start)
        assert kept.get("/health").status_code == 200  # On the connection of before.
    wait_until(lambda: len(seen) == 6, what="the last certificate")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_clients_may_have_to_show_certificates(world, authority):
    router = world.router(world.engines(1), *options_of(authority), "--ssl-ca-certs",
                          authority.path, "--ssl-cert-reqs", "2")
    context = client_context(authority)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask_tls(router.address, context)
    context.load_cert_chain(*authority.sign("client"))
    assert ask_tls(router.address, context)[0] == 200
    router.wait_line("TLS handshakes with clients failed; the last one: the peer showed no")
    stranger = client_context(authority)
    stranger.load_cert_chain(*Authority(world.folder, "other").sign("stranger"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask_tls(router.address, stranger)


def test_the_router_shows_its_certificate_to_engines(world, authority):
    context = authority.server_context("engine")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.path)
    engine = world.upstream(lambda exchange: exchange.answer(), tls=context)
    certificate, key = authority.sign("router")
    router = world.router([engine], "--backend-ca-file", authority.path, "--backend-cert-file",
                          certificate, "--backend-key-file", key)
    assert ask(router, "POST", "/v1/chat/completions", CHAT).status == 200
    stranger = world.router([engine], "--backend-ca-file", authority.path)
    answer = ask(stranger, "POST", "/v1/chat/completions", CHAT)
    assert answer.status == 502
    # What was sent meanwhile may have met the reset behind the refusal.
    assert "refused the TLS connection" in answer.text() or "reset" in answer.text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version,accepted", [
    (ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)])
def test_versions_and_sessions(world, authority, version, accepted):
    router = world.router(world.engines(1), *options_of(authority))
    context = client_context(authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])

    def connect(session):
        with socket.create_connection(router.address, 30) as plain:
            with context.wrap_socket(plain, server_hostname="localhost",
                                     session=session) as stream:
                stream.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert stream.recv(12) == b"HTTP/1.1 200"
                assert stream.selected_alpn_protocol() == "http/1.1"
                return stream.session, stream.session_reused

    if not accepted:
        with pytest.raises(ssl.SSLError):
            connect(None)
        return
    session, reused = connect(None)
    assert not reused
    assert connect(session)[1]


def test_plain_http_is_told_where_it_went_wrong(world, authority):
    router = world.router(world.engines(1), *options_of(authority))
    answer = ask(router, "POST", "/v1/chat/completions", CHAT)
    assert answer.status == 400 and "https://" in answer.text()


@pytest.mark.parametrize("arguments,complaint", [
    (["--ssl-certfile", "missing.pem"], "missing.pem cannot be read"),
    (["--ssl-certfile", "{certificate}"], "no private key"),
    (["--ssl-certfile", "{certificate}", "--ssl-keyfile", "{other}"], "that fits"),
    (["--ssl-keyfile", "{key}"], "--ssl-certfile FILE"),
    (["--ssl-certfile", "{certificate}", "--ssl-keyfile", "{key}", "--ssl-cert-reqs", "1"],
     "--ssl-ca-certs FILE"),
    (["--backend-ca-file", "{key}"], "no certificates"),
    (["--backend-key-file", "{key}"], "--backend-cert-file FILE")])
def test_bad_files_are_refused_at_the_start(authority, arguments, complaint):
    certificate, key = authority.sign("router")
    other = authority.sign("other")[1]
    filled = [text.format(certificate=certificate, key=key, other=other) for text in arguments]
    program = Program([binary("hashtrie-router"), "--no-store", "--static-backends",
                       "http://127.0.0.1:9", "--static-models", "m", "--port", "0", *filled])
    assert program.wait() != 0
    assert complaint in program.output()
