"""Paths, methods and bodies that are not chat: what reaches an engine, and how."""
import pytest

from client import Connection, ask, chat, get

FORM = [("Content-Type", "multipart/form-data; boundary=xyz")]


def form(**fields):
    parts = [b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
             b"Content-Type: audio/wav\r\n\r\n\0\1\2\r\n--xy\xff\r\n"]
    parts += [f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
              for name, value in fields.items()]
    return b"".join(parts) + b"--xyz--\r\n"


class Seen:
    """A fake engine that notes what it is asked, and answers with that."""

    def __init__(self, world):
        self.exchanges = []
        self.upstream = world.upstream(self.answer)
        self.url = self.upstream.url

    def answer(self, exchange):
        self.exchanges.append((exchange.request_line, exchange.header("content-length"),
                               exchange.body))
        exchange.answer(b'{"text":"spoken"}')

    def last(self):
        return self.exchanges[-1]


def test_forms_go_on_unaltered(world):
    engine = Seen(world)
    router = world.router([engine.url], models=["whisper"])
    body = form(model="whisper", response_format="srt")
    answer = ask(router, "POST", "/v1/audio/transcriptions?a=b", body, headers=FORM)
    assert answer.status == 200 and answer.json() == {"text": "spoken"}
    assert engine.last() == ("POST /v1/audio/transcriptions?a=b HTTP/1.1", str(len(body)), body)


def test_an_alias_in_a_form_becomes_the_model(world):
    engine = Seen(world)
    router = world.router([engine.url], "--static-aliases", "w:openai/whisper",
                          models=["openai/whisper"])
    body = form(model="w", language="en")
    assert ask(router, "POST", "/v1/images/edits", body, headers=FORM).status == 200
    assert engine.last()[2] == form(model="openai/whisper", language="en")


@pytest.mark.parametrize("body,status,word", [
    (form(language="en"), 400, "missing 'model' in form data"),
    (b"no form at all", 400, "missing 'model' in form data"),
    (form(model="other"), 404, "Model 'other' not found"),
])
def test_forms_that_name_no_model_here_are_refused(world, body, status, word):
    router = world.router([Seen(world).url], models=["whisper"])
    answer = ask(router, "POST", "/v1/audio/translations", body, headers=FORM)
    assert answer.status == status and word in answer.json()["error"]


def test_voices_are_asked_for_by_query(world):
    engine, other = Seen(world), Seen(world)
    router = world.router([engine.url])
    assert get(router, "/v1/audio/voices").status == 200
    assert engine.last()[:2] == ("GET /v1/audio/voices HTTP/1.1", None)
    two = world.router([engine.url, other.url], models=["a", "b"])
    assert get(two, "/v1/audio/voices?model=b").status == 200 and len(other.exchanges) == 1
    refused = get(two, "/v1/audio/voices")
    assert refused.status == 400 and "missing 'model'" in refused.json()["error"]


def test_what_is_not_known_goes_on_if_it_names_a_model(world):
    engine = Seen(world)
    router = world.router([engine.url])
    assert ask(router, "POST", "/v1/some/new?x=1", b'{"model":"mock-model"}').status == 200
    assert engine.last()[0] == "POST /v1/some/new?x=1 HTTP/1.1"
    for body in (b"{}", b"not json", b""):
        answer = ask(router, "POST", "/v1/some/new", body)
        assert answer.status == 404 and answer.json() == {"detail": "Not Found"}
    assert ask(router, "POST", "/v1/some/new", b'{"model":"x"}').status == 404
    assert get(router, "/v1/some/new").status == 404
    assert ask(router, "POST", "/v2/some", b'{"model":"mock-model"}').status == 404
    assert len(engine.exchanges) == 1


def test_the_batch_api_is_refused_by_name(world):
    router = world.router([Seen(world).url])
    for path in ("/v1/files", "/v1/batches", "/v1/batches/batch_1"):
        answer = get(router, path)
        assert answer.status == 501 and "batch API" in answer.json()["error"]


def test_all_paths_and_methods_when_asked_to(world):
    engine = Seen(world)
    router = world.router([engine.url], "--proxy-all-paths")
    with Connection(router.address) as connection:
        for method, path, body in [("GET", "/", None), ("DELETE", "/a/b?c", None),
                                   ("PUT", "/x", b"not json"), ("POST", "/", b""),
                                   ("OPTIONS", "/v1/batches", None), ("PATCH", "/y", b"z")]:
            answer = connection.ask(method, path, body)
            assert answer.status == 200 and answer.json() == {"text": "spoken"}, (method, path)
            line, length, sent = engine.last()
            assert line == f"{method} {path} HTTP/1.1" and sent == (body or b"")
            assert length == (str(len(sent)) if body is not None else None)
    assert get(router, "/health").json()["status"] == "healthy"
    assert chat(router, "hello").status == 200


def test_head_of_any_path_has_no_body(world):
    def answer(exchange):
        assert exchange.request_line == "HEAD /x HTTP/1.1"
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")

    router = world.router([world.upstream(answer).url], "--proxy-all-paths")
    with Connection(router.address) as connection:
        for _ in range(2):
            connection.send_request("HEAD", "/x")
            head = connection.read_answer(head_only=True)
            assert head.status == 200 and head.header("content-length") == "7"


def test_a_root_path_is_cut_off(world):
    engine = Seen(world)
    router = world.router([engine.url], "--root-path", "/llm/")
    for path in ("/llm/v1/chat/completions?a=b", "/v1/chat/completions?a=b"):
        assert ask(router, "POST", path, b'{"model":"mock-model"}').status == 200
        assert engine.last()[0] == "POST /v1/chat/completions?a=b HTTP/1.1"
    assert get(router, "/llm/health").json()["status"] == "healthy"
    assert get(router, "/llmx/health").status == 404
    assert get(router, "/llm").status == 404
