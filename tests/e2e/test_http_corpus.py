"""The requests of tests/http, on a raw socket to a router with an engine that records. A refused
one is answered and cut off, with nothing of it or behind it at the engine; one that is taken is
followed by exactly the request behind it."""
import pathlib
import re

import pytest

from client import Connection, chat_body, request_bytes

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "http"
ESCAPE = re.compile(r"\\(?:x(..)|\((\d+) (.*?)\)|(.))")
PLAIN = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


def unescape(text):
    def byte(match):
        code, count, repeated, letter = match.groups()
        if code:
            return chr(int(code, 16))
        return unescape(repeated) * int(count) if count else PLAIN[letter]
    return ESCAPE.sub(byte, text)


def read_cases(path):
    """(name, bytes, verdict lines) of each request; the format is in tests/http/README.md."""
    kind, before, after, cases = "", "", "", []
    for line in path.read_text().split("\n"):
        if line.startswith("kind "):
            kind, before, after = line[5:], "", ""
        elif line.startswith("before "):
            before, after = unescape(line[7:]), ""
        elif line.startswith("after "):
            after = unescape(line[6:])
        elif line.startswith("- "):
            cases.append((kind, line[2:], before, [], after, []))
        elif line.startswith(">"):
            cases[-1][3].append(unescape(line[2:]))
        elif line[:1] in ("=", "!", "~") and line:
            cases[-1][5].append(unescape(line))
    return [(name, "".join([start, *own, end]).encode("latin-1"), verdict)
            for kind, name, start, own, end, verdict in cases if kind.startswith("request")]


def answers_until_end(connection):
    """Status codes of all answers but 100."""
    statuses = []
    while True:
        try:
            answer = connection.read_answer()
        except (EOFError, ConnectionError):
            return statuses
        if answer.status != 100:
            statuses.append(answer.status)


BEHIND = request_bytes("POST", "/v1/chat/completions", chat_body("behind"),
                       [("Connection", "close"), ("X-Behind", "yes")])


HOP_BY_HOP = {"connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer",
              "transfer-encoding", "upgrade", "http2-settings", "x-hop", "expect"}


def engine_bodies(verdict):
    """The bodies that have to arrive: those of requests that the router passes on."""
    fields = [line.split(" ", 5) for line in verdict if line.startswith("=")]
    return [field[5] for field in fields if len(field) == 6 and field[5].startswith('{"model"')]


def is_plain(exchange):
    """Framed by one length, and without what belonged to the client's connection."""
    names = [name.lower() for name, _ in exchange.headers]
    return (names.count("content-length") == 1 and names.count("host") == 1
            and int(exchange.header("content-length")) == len(exchange.body)
            and not HOP_BY_HOP.intersection(names))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.cases")), ids=lambda path: path.stem)
def test_corpus(world, path):
    cases = [case for case in read_cases(path) if "~" not in case[2]]
    upstream = world.upstream(lambda exchange: exchange.answer())
    router = world.router([upstream])
    wrong = []
    for name, data, verdict in cases:
        # A path that takes bodies: elsewhere the router answers 404 and closes before it.
        data = re.sub(rb"POST /[ab]? ", b"POST /v1/completions ", data)
        refused = verdict[-1].startswith("!")
        last = verdict[-1].split(" ")
        closed = refused or last[4] == "close" or last[1:4:2] == ["GET", "length"]
        bodies = engine_bodies(verdict)
        seen = len(upstream.exchanges)
        with Connection(router.address) as connection:
            connection.send(data + BEHIND)
            statuses = answers_until_end(connection)
        arrived = upstream.exchanges[seen:]
        behind = [one for one in arrived if one.header("x-behind")]
        others = [one.body.decode("latin-1") for one in arrived if not one.header("x-behind")]
        good = (others == bodies and len(behind) == (0 if closed else 1)
                and len(statuses) == len(verdict) + len(behind)
                and all(is_plain(one) for one in arrived))
        if refused:
            good = good and statuses[-1:] == [int(verdict[-1][2:])]
        if not good:
            wrong.append((name, verdict, statuses, [one.head for one in arrived]))
    assert not wrong, "\n".join(map(repr, wrong))
    assert path.stem == "responses" or len(cases) > 10
