"""--routing-logic: which engine, and what the log and the engine see of it."""
import json
from collections import Counter

from client import ask, chat, engine_of
from prometheus import scrape


def decisions(router, outcome, policy):
    return scrape(router).value("hashtrie_routing_decisions_total", outcome=outcome, policy=policy)


def test_sessions_stay_where_they_are(world):
    engines = world.engines(3)
    router = world.router(engines, "--routing-logic", "session", "--session-key", "X-User-Id")
    homes = {}
    for user in range(30):
        answers = [chat(router, f"turn {turn} of {user}", headers=[("x-user-id", f"user {user}")])
                   for turn in range(3)]
        homes[user] = {engine_of(answer) for answer in answers}
    assert all(len(home) == 1 for home in homes.values())
    assert len(set().union(*homes.values())) == 3
    assert decisions(router, "session", "session") == 90
    assert router.decisions(1)[0][1] == "user_0"


def test_a_session_may_stand_in_the_body(world):
    engines = world.engines(4)
    router = world.router(engines, "--routing-logic", "session", "--session-key", "user_id")
    for user, told in ((9527, "9527"), ("a\u00e9", "a\u00e9"), (True, "True")):
        by_body = {engine_of(chat(router, "x", user_id=user)) for _ in range(4)}
        by_header = {engine_of(chat(router, "y", headers=[("user_id", told)]))} \
            if told.isascii() else by_body
        assert len(by_body) == 1 and by_body == by_header, user
    none = Counter(engine_of(chat(router, "x", user_id=None)) for _ in range(40))
    assert len(none) > 1
    made = int(scrape(router).total("hashtrie_routing_decisions_total"))
    assert router.decisions(made)[-1][1] == "None"


def test_priorities(world):
    bodies = []

    def answer(exchange):
        bodies.append(json.loads(exchange.body))
        exchange.answer(b'{"choices":[]}')

    router = world.router([world.upstream(answer).url], "--routing-logic", "priority",
                          "--priority-threshold", "5", "--static-aliases", "short:mock-model")
    chat(router, "a")
    chat(router, "b", priority=7, model="short")
    chat(router, "c", priority=7, headers=[("X-Request-Priority", "-3")])
    chat(router, "d", headers=[("X-Request-Priority", "urgent")])
    assert [body["priority"] for body in bodies] == [0, 7, -3, 0]
    assert all(body["model"] == "mock-model" for body in bodies)
    assert decisions(router, "load", "priority") == 3
    assert decisions(router, "rotated", "priority") == 1


def test_loadaware_and_leastload_serve(world):
    engines = world.engines(2)
    for policy, outcome in (("loadaware", "holder"), ("leastload", "load")):
        router = world.router(engines, "--routing-logic", policy)
        home = engine_of(chat(router, "x" * 4000))
        homes = {engine_of(chat(router, "x" * 4000 + "y" * turn)) for turn in range(8)}
        if policy == "loadaware":
            assert homes == {home}
        assert decisions(router, outcome, policy) >= 8


def test_a_short_prefix_counts_as_nothing(world):
    engines = world.engines(3)
    router = world.router(engines, "--prefix-min-match-length", "2000")
    for _ in range(4):
        chat(router, "short " * 100)
        chat(router, "long " * 1000)
    assert decisions(router, "holder", "prefixaware") == 3
    assert decisions(router, "no_holder", "prefixaware") == 5


def test_session_without_a_key_is_refused(world):
    import harness
    router = harness.Program([harness.binary("hashtrie-router"), "--static-backends",
                              "http://127.0.0.1:1", "--static-models", "m",
                              "--routing-logic", "session"])
    assert router.wait() == 2 and "--session-key NAME" in router.output()
    bad = harness.Program([harness.binary("hashtrie-router"), "--static-backends",
                           "http://127.0.0.1:1", "--static-models", "m",
                           "--routing-logic", "kvaware"])
    assert bad.wait() == 2 and "kvaware" in bad.output()


def test_a_form_may_have_a_session_header(world):
    engines = world.engines(2)
    router = world.router(engines, "--routing-logic", "session", "--session-key", "x-user")
    form = (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nmock-model\r\n--b--')
    answer = ask(router, "POST", "/v1/audio/transcriptions", form,
                 headers=[("Content-Type", "multipart/form-data; boundary=b"), ("X-User", "u")])
    assert answer.status in (200, 404)  # The mock engine knows no such path.
    assert router.decisions(1)[-1][1] == "u"
