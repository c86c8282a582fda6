"""What the log says of a request, as text and as JSON."""
import json
import re

from client import Connection, ask, chat, chat_body
from harness import wait_until

ID = [("X-Request-Id", "the-id")]


def ended(router):
    """Fields of the lines about requests that are over."""
    return [dict(re.findall(r"(\w+)=(\S+)", match.group(1)))
            for match in router.find_lines(r"info Request ended (.*)$")]


def test_a_request_leaves_its_whole_story(world):
    engine = world.engine()
    router = world.router([engine])
    for turn in range(2):
        answer = chat(router, "x" * 4096, headers=ID)
        assert answer.status == 200
    wait_until(lambda: len(ended(router)) == 2, what="two lines")
    first, second = ended(router)
    assert first["id"] == second["id"] == "the-id"
    assert first["status"] == "200" and first["end"] == "complete"
    assert first["endpoint"] == engine.url and first["model"] == "mock-model"
    assert (first["decision"], second["decision"]) == ("no_holder", "holder")
    assert int(first["prompt_bytes"]) > 4096 and first["matched_bytes"] == "0"
    assert int(second["matched_bytes"]) > 3900
    assert 0 < float(first["first_byte_seconds"]) <= float(first["seconds"])
    assert int(first["answer_bytes"]) > len(answer.body)


def test_refused_cut_and_cancelled_requests_say_so(world):
    def break_off(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        exchange.close()

    broken = world.upstream(break_off)
    slow = world.engine("--prefill-tps", "1000000", "--decode-ms", "1000")
    router = world.router([broken.url, slow], models=["broken", "mock-model"])
    assert ask(router, "POST", "/v1/chat/completions", b"{}").status == 400
    try:
        chat(router, "hello", model="broken")
    except (EOFError, ConnectionError):
        pass
    with Connection(router.address) as connection:
        connection.send_request("POST", "/v1/chat/completions",
                                chat_body("hello", stream=True, max_tokens=100))
        connection.read_head()
    lines = wait_until(lambda: len(ended(router)) == 3 and ended(router), what="three lines")
    assert [(line["end"], line["status"]) for line in lines] == [
        ("answered-here", "400"), ("cut", "200"), ("client-gone", "200")]
    assert "endpoint" not in lines[0]


def test_json_lines_are_objects(world):
    engine = world.engine()
    router = world.router([engine], "--log-format", "json")
    assert chat(router, "hello", headers=[("X-Request-Id", 'a"b\\c')]).status == 200
    router.terminate()
    lines = [json.loads(line) for line in router.output().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
               and line["level"] in ("info", "warning") and line["message"] for line in lines)
    last = [line for line in lines if line["message"] == "Request ended"]
    assert len(last) == 1
    assert last[0]["id"] == 'a"b\\c' and last[0]["status"] == 200
    assert last[0]["endpoint"] == engine.url and last[0]["seconds"] > 0
