"""The production-stack's own end-to-end test of static discovery: its flags, all together and for
each routing logic, and what its test-routing.py looks for in the log."""
import re

import pytest

from client import chat

FLAGS = ["--service-discovery", "static", "--static-model-types", "chat,chat", "--log-stats",
         "--log-stats-interval", "10", "--engine-stats-interval", "10", "--request-stats-window", "10",
         "--session-key", "x-user-id", "--prefill-model-labels", "prefill",
         "--decode-model-labels", "decode", "--static-model-labels", "prefill,decode"]


def start(world, logic):
    return world.router(world.engines(2), *FLAGS, "--routing-logic", logic)


def homes(router, count):
    """Where the requests went, in order."""
    return [url for _, _, url in router.decisions(count)]


def test_roundrobin_takes_turns(world):
    router = start(world, "roundrobin")
    for number in range(20):
        assert chat(router, f"question {number}").status == 200
    urls = homes(router, 20)
    assert all(one != next_one for one, next_one in zip(urls, urls[1:]))


def test_prefixaware_keeps_families_together(world):
    """Also where only the first 128 characters are the same, and a longer one came first."""
    router = start(world, "prefixaware")
    chunks = [digit * 64 for digit in ("11", "22", "33", "44", "55")]
    families = [[chunks[0]], ["".join(chunks[1:4]), "".join(chunks[1:3]), chunks[1]],
                [chunks[3] + chunks[2]], [chunks[4]]]
    sent = 0
    for family in families:
        for prompt in family:
            for _ in range(5):
                assert chat(router, prompt).status == 200
                sent += 1
        assert len(set(homes(router, sent)[-5 * len(family):])) == 1, family


def test_sessions_stay(world):
    router = start(world, "session")
    for _ in range(5):
        for number in range(20):
            assert chat(router, "x", headers=[("x-user-id", f"user-{number}")]).status == 200
    places = {}
    for _, session, url in router.decisions(100):
        places.setdefault(session, set()).add(url)
    assert len(places) == 20 and all(len(urls) == 1 for urls in places.values())


@pytest.mark.parametrize("logic", ["disaggregated_prefill", "disaggregated_prefill_orchestrated"])
def test_disaggregated_requests_leave_two_lines(world, logic):
    router = start(world, logic)
    assert chat(router, "x" * 1000).status == 200
    assert len(set(homes(router, 2))) == 2
    first, second = [request for request, _, _ in router.decisions(2)]
    assert first == second


def test_kvaware_is_refused_with_a_reason(world):
    from harness import Program, binary
    router = Program([binary("hashtrie-router"), "--static-backends", "http://a,http://b",
                      "--static-models", "m,m", *FLAGS, "--routing-logic", "kvaware"])
    assert router.wait() == 2
    assert re.fullmatch(r"--routing-logic kvaware is not supported: .*prefixaware.*",
                        router.output())
