"""API keys, VLLM_API_KEY, and the admin port."""
import signal
import subprocess

import openai
import pytest

from client import ask, get
from harness import Program, binary, free_port, wait_until
from prometheus import scrape

CHAT = {"model": "mock-model", "messages": [{"role": "user", "content": "hello"}]}
KEY = [("Authorization", "Bearer sk-first")]


def key_file(folder, text="# for tests\nsk-first\n\n  sk-second \n"):
    path = folder / "keys"
    path.write_text(text)
    return str(path)


def authorizations(upstream):
    return [exchange.header("authorization") for exchange in upstream.exchanges]


class Admin:
    def __init__(self, port):
        self.address = ("127.0.0.1", port)


def test_who_shows_no_key_gets_401(world):
    engine = world.upstream(lambda exchange: exchange.answer())
    router = world.router([engine], "--api-key-file", key_file(world.folder), "--proxy-all-paths")
    for headers in ({}, {"Authorization": "Bearer sk-other"}, {"Authorization": "Bearer sk-firs"},
                    {"Authorization": "Bearer sk-first2"}, {"Authorization": "Bearer"},
                    {"Authorization": "Basic sk-first"}, {"Authorization": "Bearer # for tests"},
                    {"X-Api-Key": "sk-third"}, {"X-Api-Key": ""}):
        for path in ("/v1/chat/completions", "/v1/unknown", "/tokenize", "/anything"):
            answer = ask(router, "POST", path, CHAT, headers=list(headers.items()))
            assert answer.status == 401, (headers, path)
            assert answer.header("www-authenticate") == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.json()["error"]["type"] == "invalid_request_error"
        assert get(router, "/v1/models", headers=list(headers.items())).status == 401
        assert get(router, "/v1/files", headers=list(headers.items())).status == 401
    assert engine.exchanges == []
    for path in ("/health", "/ready", "/version", "/metrics"):
        assert get(router, path).status == 200
    assert scrape(router).value("hashtrie_unauthorized_requests_total") == 9 * 6


def test_keys_let_in_and_stay_here(world):
    engine = world.upstream(lambda exchange: exchange.answer())
    router = world.router([engine], "--api-key-file", key_file(world.folder))
    for headers in (dict(KEY), {"Authorization": "bearer  sk-second"}, {"X-Api-Key": "sk-second"}):
        assert ask(router, "POST", "/v1/chat/completions", CHAT, headers=list(headers.items())).status == 200
        assert get(router, "/v1/models", headers=list(headers.items())).status == 200
    for exchange in engine.exchanges:
        assert exchange.header("authorization") is None
        assert exchange.header("x-api-key") is None


def test_engines_get_the_routers_own_key(world):
    asked = []

    def metrics(exchange):
        asked.append(exchange.header("authorization"))
        exchange.answer(status="404 Not Found")

    engine = world.upstream(lambda exchange: exchange.answer(), metrics=metrics)
    router = world.router([engine], "--api-key-file", key_file(world.folder),
                          environment={"VLLM_API_KEY": "sk-engine"})
    assert ask(router, "POST", "/v1/chat/completions", CHAT, headers=KEY).status == 200
    assert authorizations(engine) == ["Bearer sk-engine"]
    wait_until(lambda: asked, what="a scrape")
    assert set(asked) == {"Bearer sk-engine"}


def test_without_a_key_file_the_clients_header_goes_on(world):
    engine = world.upstream(lambda exchange: exchange.answer())
    router = world.router([engine], environment={"VLLM_API_KEY": "sk-engine"})
    ask(router, "POST", "/v1/chat/completions", CHAT)
    ask(router, "POST", "/v1/chat/completions", CHAT, headers=[("Authorization", "Bearer mine")])
    assert authorizations(engine) == [None, "Bearer mine"]  # Engines are not open to everybody.


def test_keys_are_read_again(world):
    path = key_file(world.folder)
    router = world.router(world.engines(1), "--api-key-file", path)

    def status(key):
        headers = {"Authorization": f"Bearer {key}"}
        return get(router, "/v1/models", headers=list(headers.items())).status

    key_file(world.folder, "sk-third\n")
    assert status("sk-third") == 401
    router.signal(signal.SIGHUP)
    router.wait_line("API keys were read again")
    assert status("sk-third") == 200 and status("sk-first") == 401
    for bad in ("", "# nothing\n", "sk-four five\n", "sk-\x01\n", "x" * 5000, "y\n" * 200000):
        start = router.line_count()
        key_file(world.folder, bad)
        router.signal(signal.SIGHUP)
        router.wait_line("API keys stay as they were", start=start)
        assert status("sk-third") == 200
    assert not router.find_lines("sk-|xxxx|yyyy")


def test_keys_are_told_nowhere(world):
    environment = {"VLLM_API_KEY": "sk-engine"}
    path = key_file(world.folder)
    router = world.router(world.engines(1), "--api-key-file", path, "--log-level", "trace",
                          environment=environment)
    ask(router, "POST", "/v1/chat/completions", CHAT, headers=KEY)
    ask(router, "POST", "/v1/chat/completions", CHAT, headers=[("Authorization", "Bearer sk-bad")])
    assert "sk-" not in get(router, "/metrics").text()
    check = subprocess.run([*router.arguments, "--check-config"], capture_output=True, text=True,
                           env=environment, check=True)
    assert "sk-" not in check.stdout + check.stderr
    router.terminate()
    assert "sk-" not in router.output()


@pytest.mark.parametrize("text", ["", "a b\n", None])
def test_a_bad_file_is_refused_at_the_start(world, text):
    path = str(world.folder / "missing") if text is None else key_file(world.folder, text)
    program = Program([binary("hashtrie-router"), "--no-store", "--static-backends",
                       "http://127.0.0.1:9", "--static-models", "m", "--port", "0",
                       "--api-key-file", path])
    assert program.wait() != 0
    assert program.find_lines("--api-key-file")


def test_a_real_client_with_a_key(world):
    router = world.router(world.engines(1), "--api-key-file", key_file(world.folder))
    with openai.OpenAI(base_url=router.url + "/v1", api_key="sk-second", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["mock-model"]
    with openai.OpenAI(base_url=router.url + "/v1", api_key="no", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_an_admin_port_has_admin_and_metrics_alone(world):
    port = free_port()
    router = world.router(world.engines(1), "--admin-port", port, "--api-key-file",
                          key_file(world.folder))
    admin = Admin(port)
    for path in ("/health", "/ready"):
        assert get(router, path).status == 200
        assert get(admin, path).status == 200
    assert get(admin, "/metrics").status == 200
    assert get(router, "/metrics").status == 404
    assert ask(router, "POST", "/admin/snapshot", {}).status == 404
    assert ask(admin, "POST", "/admin/snapshot", {}).status != 404
    assert ask(admin, "POST", "/v1/chat/completions", CHAT, headers=KEY).status != 200
    assert get(admin, "/v1/models", headers=KEY).status == 404


def test_proxied_paths_do_not_reach_into_the_admin_port(world):
    engine = world.upstream(lambda exchange: exchange.answer(b"from the engine"))
    router = world.router([engine], "--admin-port", free_port(), "--proxy-all-paths")
    assert get(router, "/metrics").status == 404
    assert engine.exchanges == []
